"""An experiment and evaluation records made up for the tests."""

import random
import statistics

from mars.config.experiment import Benchmark, GeneratedData, Setting
from mars.paper.evaluations import EvaluationKey
from mars.paper.specs import BaseOrigin, ModelIdentity, PaperScale, TableSpec

SWEEP = (0.9, 0.8, 0.7, 0.6, 0.5)


def model(scale, method, **keys):
    return ModelIdentity(scale=scale, method=method, **keys)


def setting(threshold=None, metric="probability", **keys):
    return Setting.model_validate({"threshold": threshold, "metric": metric, **keys})


def experiment(titles=("IFEval", "BBH", "MMLU-Pro", "GPQA", "GSM8K", "HumanEval")):
    scratch = BaseOrigin(source="scratch")
    data = {"instructions": 60, "pretraining_documents": 1, "benchmark_documents": 1}
    return TableSpec(
        data=GeneratedData(**data, vocabulary=1),
        scales={
            "small": PaperScale(stands_for="0.5B", base=scratch),
            "large": PaperScale(stands_for="7B", base=scratch),
        },
        models={
            "m1": model("small", "base"),
            "m2": model("small", "ar_sft"),
            "m3": model("small", "ar_sft", epochs_factor=2),
            "m4": model("small", "mars", block_size=4),
            "m5": model("small", "mars", block_size=4, ar_weight=0.0),
            "m6": model("large", "mars", block_size=4),
            "m7": model("small", "mars", block_size=16),
            "m8": model("small", "mars", block_size=16, ar_weight=0.0),
            "m9": model("small", "mars", block_size=4, ar_weight=0.0, inverse_t_weighting=True),
        },
        benchmarks={
            title.lower(): Benchmark(
                task=title.lower(), title=title, dataset=f"x/{title}", metric="exact_match"
            )
            for title in titles
        },
        settings={
            "plain": setting(),
            "fast": setting(0.95),
            **{f"tau{tau}": setting(tau) for tau in SWEEP},
            **{f"entropy{h}": setting(h, "entropy") for h in (0.2, 0.4, 0.8)},
            "jacobi": setting(method="jacobi"),
            "penalty": setting(method="transformers", repetition_penalty=1.1),
            "exact": setting(0.5, lossless=True),
            "theirs": setting(0.95, method="block_cache", cache_block=32, authors_window=True),
        },
    )


def changed(spec, key, **values):
    """The experiment with a benchmark that has these values."""
    benchmark = spec.benchmarks[key].model_copy(update=values)
    return spec.model_copy(update={"benchmarks": {**spec.benchmarks, key: benchmark}})


def settings_of(name, entry):
    """The settings under which the made-up evaluation runs a model."""
    if entry.method != "mars":
        return ["plain", *(["jacobi", "penalty"] if name == "m2" else [])]
    others = [f"tau{tau}" for tau in SWEEP]
    own = ["exact", "theirs", "entropy0.2", "entropy0.4", "entropy0.8"] if name == "m4" else []
    return ["plain", "fast", *others, *own]


def samples(scores, draw=None):
    """Documents with these scores (0/1) and some cost, as an evaluation writes them."""
    draw = draw or random.Random(0)
    return [
        {
            "task": "task",
            "document": index,
            "scores": {"none": {"exact_match": score}},
            "tokens": (tokens := draw.randint(2, 60)),
            "forwards": draw.randint(1, tokens),
            "overrun": draw.randint(0, 3),
        }
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
    """Records and samples of every model under its settings; a sweep is over two benchmarks."""
    draw = random.Random(seed)
    records, documents = {}, {}
    for name, entry in spec.models.items():
        for setting in settings_of(name, entry):
            for key, benchmark in spec.benchmarks.items():
                limited = setting.startswith(("tau", "entropy")) or setting in ("exact", "theirs")
                if limited and benchmark.title not in ("GSM8K", "HumanEval"):
                    continue
                scores = [draw.randint(0, 1) for _ in range(n)]
                found = samples(scores, draw)
                evaluated = EvaluationKey(name, setting, key)
                records[evaluated] = record(scores, speed(found))
                documents[evaluated] = found
    return records, documents


def speed(found, more="tokens"):
    """Tokens per forward and its linearised standard error, written out."""
    tokens = [row["tokens"] + (row["overrun"] if more == "as_counted" else 0) for row in found]
    forwards = [row["forwards"] for row in found]
    value = sum(tokens) / sum(forwards)
    residuals = [(y - value * x) ** 2 for y, x in zip(tokens, forwards, strict=True)]
    n = len(found)
    return value, (n / (n - 1) * sum(residuals)) ** 0.5 / sum(forwards)
