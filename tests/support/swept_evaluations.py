"""A threshold sweep made up for the tests: every model and setting of the paper's figures."""

import random

from mars.paper.evaluations import EvaluationKey
from tests.support import synthetic_evaluations as synthetic

TAUS = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
OTHERS = {"entropy": (0.25, 0.3, 0.35, 0.4, 0.45), "margin": (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)}


def experiment():
    """The models and settings of Figures 3 and 6, under names that say nothing."""
    spec = synthetic.experiment(("GSM8K", "HumanEval"))
    kinds = [("small", None, True), ("large", None, True)]
    kinds += [("small", size, sft) for size in (4, 8, 16) for sft in (True, False)]
    kinds += [("large", size, True) for size in (4, 8, 16)]
    models = {
        f"m{number}": synthetic.model(
            scale, "mars" if size else "ar_sft", block_size=size, ar_weight=float(sft)
        )
        for number, (scale, size, sft) in enumerate(kinds)
    }
    settings = {"s0": synthetic.setting()}
    swept = [("probability", tau) for tau in TAUS]
    swept += [(metric, value) for metric, values in OTHERS.items() for value in values]
    for number, (metric, value) in enumerate(swept, 1):
        settings[f"s{number}"] = synthetic.setting(value, metric)
    window = {"method": "block_cache", "cache_block": 8, "authors_window": True}
    settings["window"] = synthetic.setting(0.95, **window)
    settings["lossless"] = synthetic.setting(0.95, lossless=True)
    return spec.model_copy(update={"models": models, "settings": settings})


def records(spec, seed=0, n=96):
    """Evaluation records of every model in one-token mode and of MARS under every setting."""
    draw = random.Random(seed)
    made = {}
    for model, entry in spec.models.items():
        for name, rule in spec.settings.items():
            if entry.method != "mars" and rule.threshold is not None:
                continue
            for key in spec.benchmarks:
                made[EvaluationKey(model, name, key)] = _record(draw, entry, rule, n)
    return made


def _record(draw, entry, rule, n):
    """Looser thresholds are faster and worse, larger blocks more so."""
    looseness = 0.0
    if rule.threshold is not None:
        strict = rule.threshold if rule.metric != "entropy" else 1 - rule.threshold
        looseness = 1.05 - strict
    size = entry.block_size or 1
    speed = 1 + looseness * (1 + 0.5 * size**0.5) if looseness else 1.0
    chance = 0.6 - 0.4 * looseness - (0.1 if entry.ar_weight == 0 else 0)
    scores = [int(draw.random() < chance) for _ in range(n)]
    return synthetic.record(scores, (speed, 0.02 if looseness else 0.0))
