"""Which models were trained here and which the authors released: a table always says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def origin_notes(spec: Mapping[str, Any]) -> list[str]:
    """Which models are released and which trained, if any is released.

    Args:
        spec: plain values in the shape of the configuration, with ``models``.
    """
    fine_tuned = {n: m for n, m in spec["models"].items() if m["method"] != "base"}
    released = {n: m for n, m in fine_tuned.items() if m.get("source") == "released"}
    if not released:
        return []
    named = ", ".join(f"{n} ({m['released']['repository']})" for n, m in released.items())
    trained = ", ".join(n for n in fine_tuned if n not in released) or "none"
    return [f"Released by the authors, not trained here: {named}. Trained here: {trained}."]


def trains(spec: Mapping[str, Any]) -> bool:
    """Whether any model of the table was fine-tuned here."""
    models = spec["models"].values()
    return any(m["method"] != "base" and m.get("source") != "released" for m in models)
