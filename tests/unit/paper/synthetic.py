"""An experiment and evaluation records made up for the tests."""

import random
import statistics


def experiment(titles=("IFEval", "BBH", "MMLU-Pro", "GPQA", "GSM8K", "HumanEval")):
    def model(scale, method, **keys):
        defaults = {"block_size": None, "ar_weight": 1.0, "epochs_factor": 1}
        defaults["inverse_t_weighting"] = False
        return {"scale": scale, "method": method, **defaults, **keys}

    scratch = {"source": "scratch"}
    return {
        "experiment": "synthetic",
        "data": {"source": "generated", "instructions": 60},
        "scales": {
            "small": {"stands_for": "0.5B", "base": scratch},
            "large": {"stands_for": "7B", "base": scratch},
        },
        "models": {
            "m1": model("small", "base"),
            "m2": model("small", "ar_sft"),
            "m3": model("small", "ar_sft", epochs_factor=2),
            "m4": model("small", "mars", block_size=4),
            "m5": model("small", "mars", block_size=4, ar_weight=0.0),
            "m6": model("large", "mars", block_size=4),
        },
        "benchmarks": {
            title.lower(): {
                "task": title.lower(),
                "title": title,
                "metric": "exact_match",
                "filter": "none",
                "limit": None,
                "subtasks": None,
            }
            for title in titles
        },
        "settings": {
            "plain": {"threshold": None, "metric": "probability"},
            "fast": {"threshold": 0.95, "metric": "probability"},
        },
    }


def samples(scores):
    """Documents with these scores (0/1), as an evaluation writes them."""
    return [
        {"task": "task", "document": index, "scores": {"none": {"exact_match": score}}}
        for index, score in enumerate(scores)
    ]


def record(scores, tokens_per_forward=(1.0, 0.0)):
    """An evaluation record whose score is the mean of ``scores``."""
    value, stderr = tokens_per_forward
    score = {
        "value": statistics.mean(scores),
        "stderr": statistics.stdev(scores) / len(scores) ** 0.5,
    }
    return {
        "documents": len(scores),
        "metrics": {"exact_match": {"none": score}},
        "tokens_per_forward": {"value": value, "stderr": stderr},
    }


def evaluations(spec, seed, n=12):
    """Records and samples of every model in one-token mode, and of MARS at tau too."""
    draw = random.Random(seed)
    records, documents = {}, {}
    for model, entry in spec["models"].items():
        for setting in ["plain", "fast"] if entry["method"] == "mars" else ["plain"]:
            for key in spec["benchmarks"]:
                scores = [draw.randint(0, 1) for _ in range(n)]
                speed = (draw.uniform(1, 4), draw.uniform(0, 0.1))
                records[model, setting, key] = record(scores, speed)
                documents[model, setting, key] = samples(scores)
    return records, documents
