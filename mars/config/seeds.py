"""Models trained from several seeds, written out before the whole is checked.

`seeds: [0, 1, 2]` trains a model three times. The training of the first seed keeps the model's
name; the others are models of their own, ``<name>-seed<seed>``, each of which continues from the
parent of the same seed where there is one. So specs, rules, records and the plan know of models
only; tables and claims put the seeds of a model together again.
"""

from __future__ import annotations

from typing import Any

from mars.errors import UserError


def seed_name(model: str, seed: int) -> str:
    """The name of a model's training with a seed other than its first."""
    return f"{model}-seed{seed}"


def with_seeds(content: Any, origin: str) -> Any:
    """The experiment with a model for each seed, and evaluations of all of them.

    `seeds` of a model overrides that of the experiment, which holds for all models trained here.

    Raises:
        UserError: a seed twice, no seed at all, or a name that is taken.
    """
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(models, dict) or not all(isinstance(one, dict) for one in models.values()):
        return content
    seeds = {name: found for name in models if (found := _seeds_of(name, content, origin))}
    if not seeds:
        return content
    written = {}
    for name, model in models.items():
        if name not in seeds:
            written[name] = model
        for number, seed in enumerate(seeds.get(name, [])):
            one = seed_name(name, seed) if number else name
            if one in models and one != name:
                raise UserError(
                    f"{origin}: `models.{name}` with seed {seed} is to be called {one!r}, a name "
                    "that another model has; rename that one."
                )
            written[one] = _with_seed(model, name, one, seed, seeds)
    groups = content.get("evaluate")
    evaluate = (
        [_all_seeds(group, seeds) for group in groups] if isinstance(groups, list) else groups
    )
    probe = _all_seeds(content.get("probe"), seeds)
    return {**content, "models": written, "evaluate": evaluate, "probe": probe}


def _seeds_of(name: str, content: dict[str, Any], origin: str) -> list[int]:
    """The seeds of a model; none if it is trained once, as `training` says, or not at all."""
    model = content["models"][name]
    own, trained = model.get("seeds"), _is_trained(model, content)
    if own is not None and not trained:
        raise UserError(f"{origin}: {name} is not trained here; remove `models.{name}.seeds`.")
    seeds = content.get("seeds") if own is None else own
    if not trained or not isinstance(seeds, list):
        return []  # what is no list is reported when the whole is checked
    if not seeds or len(set(map(str, seeds))) < len(seeds):
        raise UserError(
            f"{origin}: the seeds of {name} are {seeds}; list each seed once, and at least one."
        )
    return seeds


def _is_trained(model: dict[str, Any], content: dict[str, Any]) -> bool:
    if model.get("method") != "base":
        return model.get("source", "train") == "train"
    scale = (content.get("scales") or {}).get(model.get("scale"))
    base = scale.get("base") if isinstance(scale, dict) else None
    return isinstance(base, dict) and base.get("source") == "scratch"


def _with_seed(
    model: dict[str, Any], name: str, written: str, seed: int, seeds: dict[str, list[int]]
) -> dict[str, Any]:
    """A model as it is trained with one of its seeds."""
    one = {key: value for key, value in model.items() if key != "seeds"}
    one["training"] = {**(model.get("training") or {}), "seed": seed}
    if written != name:
        one["seed_of"] = name
    parent = model.get("parent")
    if seed in seeds.get(str(parent), [])[1:]:
        one["parent"] = seed_name(str(parent), seed)
    return one


def _all_seeds(group: Any, seeds: dict[str, list[int]]) -> Any:
    """A section of `evaluate`, or `probe`, that names every training of its models."""
    if not isinstance(group, dict) or not isinstance(group.get("models"), list):
        return group
    models = []
    for name in group["models"]:
        more = seeds.get(name, [])[1:] if isinstance(name, str) else []
        models += [name, *(seed_name(name, seed) for seed in more)]
    return {**group, "models": list(dict.fromkeys(models))}
