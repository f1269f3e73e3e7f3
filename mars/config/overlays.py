"""Defaults and overlays, merged key by key before the whole is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mars.errors import UserError

DEFAULT = Path(__file__).resolve().parents[2] / "config" / "default.yaml"
"""What experiments share."""

# Keys that were renamed or moved, by their old name.
RENAMED = {
    "checkpoint_minutes": "resources.checkpoint_minutes",
    "sweep": "wall_clock",
    "verify": "lossless",
}


def with_defaults(content: Any, file: str | Path, whole: bool = True) -> Any:
    """An experiment completed from ``config/default.yaml``.

    A ``whole`` experiment gets the sections that it leaves out; an overlay does not. Under
    `benchmarks` and `settings`, a list of names chooses from the default's entries (UserError for
    a name that is not there), and a mapping is taken as it stands.
    """
    if not isinstance(content, dict):
        return content
    default = yaml.safe_load(DEFAULT.read_text()) if DEFAULT.is_file() else {}
    chosen = {}
    for section in ("benchmarks", "settings"):
        if isinstance(names := content.get(section), list):
            known = default.get(section, {})
            if strange := [name for name in map(str, names) if name not in known]:
                raise UserError(
                    f"{file}: `{section}` names {strange[0]!r}, which {DEFAULT.name} does not "
                    f"define; define it here, or choose from {', '.join(known)}."
                )
            chosen[section] = {name: known[name] for name in map(str, names)}
    return {**(default if whole else {}), **content, **chosen}


def merged(base: Any, overlay: Any) -> Any:
    """``overlay`` over ``base``: sections are merged, everything else is replaced.

    An entry that an overlay sets to null is dropped when the whole is parsed.
    """
    if not (isinstance(base, dict) and isinstance(overlay, dict)):
        return overlay
    both = {key: merged(base[key], overlay[key]) for key in base.keys() & overlay.keys()}
    return {**base, **overlay, **both}


NAMED = ("scales", "models", "benchmarks", "settings")
"""Sections whose entries have names that an overlay may set to null."""


def expect_what_is_removed(content: Any, overlay: Any, file: Path) -> None:
    """UserError if an overlay removes an entry that is not there: its name is misspelt."""
    for section in NAMED if isinstance(content, dict) and isinstance(overlay, dict) else ():
        known, entries = content.get(section), overlay.get(section)
        for name, entry in entries.items() if known and isinstance(entries, dict) else ():
            if entry is None and name not in known:
                raise UserError(
                    f"{file}: `{section}.{name}` is null, which removes it, but there is none; "
                    f"known: {', '.join(known)}."
                )


def without_removed(content: Any) -> Any:
    """The experiment without the entries that an overlay has set to null.

    A removed scale takes its models and resources with it, `evaluate` and `probe` keep what is
    left, and measurements of removed models go together with their artefacts, as do servers of
    removed models. A model whose parent was removed stays, and validation reports it.
    """
    from mars.paper.artefacts import ARTEFACTS

    if not (isinstance(content, dict) and all(isinstance(content.get(n), dict) for n in NAMED)):
        return content
    gone = {s: {name for name, entry in content[s].items() if entry is None} for s in NAMED}
    for name, model in content["models"].items():
        if isinstance(model, dict) and model.get("scale") in gone["scales"]:
            gone["models"].add(name)
    content = {**content, **_sent_still(content, gone["models"])}
    if not any(gone.values()):
        return content
    kept: dict[str, Any] = {section: _without(content[section], gone[section]) for section in NAMED}
    if isinstance(groups := content.get("evaluate"), list):
        left = [{key: _without(v, gone.get(key, set())) for key, v in g.items()} for g in groups]
        kept["evaluate"] = [group for group in left if [] not in group.values()]
    if isinstance(speed := content.get("speed"), dict):
        kept["speed"] = _timed_still(speed, gone["models"])
    if isinstance(probe := content.get("probe"), dict):
        models = _without(probe.get("models"), gone["models"])
        kept["probe"] = {**probe, "models": models} if models else None
    if isinstance(artefacts := content.get("artefacts"), list):
        lost = {name for name, one in ARTEFACTS.items() if one.needs and _is_gone(one.needs, kept)}
        kept["artefacts"] = _without(artefacts, lost)
    resources = content.get("resources")
    if isinstance(resources, dict) and isinstance(resources.get("training"), dict):
        training = _without(resources["training"], gone["scales"])
        kept["resources"] = {**resources, "training": training}
    return {**content, **kept}


def _without(entries: Any, gone: set[str]) -> Any:
    """A section or a list without the names that are gone."""
    if isinstance(entries, dict):
        return {name: entry for name, entry in entries.items() if name not in gone}
    return [name for name in entries if name not in gone] if isinstance(entries, list) else entries


def _is_gone(section: str, kept: dict[str, Any]) -> bool:
    """Whether a measurement, `probe` or `speed.<part>`, went with removed models."""
    *above, last = section.split(".")
    holder = kept.get(above[0], {}) if above else kept
    return holder.get(last, True) is None


def _sent_still(content: dict[str, Any], gone: set[str]) -> dict[str, Any]:
    """The section `evaluation` without servers that are null, or of models that are gone."""
    evaluation = content.get("evaluation")
    if not isinstance(evaluation, dict):
        return {}
    servers = evaluation.get("endpoint")
    if not isinstance(servers, dict):
        return {}
    removed = gone | {name for name, server in servers.items() if server is None}
    return {"evaluation": {**evaluation, "endpoint": _without(servers, removed)}}


def _timed_still(speed: dict[str, Any], gone: set[str]) -> dict[str, Any]:
    """The section `speed` without measurements of models that are gone."""
    left = dict(speed)
    for part in ("wall_clock", "live_tau"):
        if isinstance(speed.get(part), dict) and speed[part].get("model") in gone:
            left[part] = None
    for part in ("speculative", "vllm"):
        if isinstance(both := speed.get(part), dict):
            pairs = [
                pair
                for pair in both.get("pairs", [])
                if not (isinstance(pair, dict) and gone & set(pair.values()))
            ]
            left[part] = {**both, "pairs": pairs} if pairs else None
    return left
