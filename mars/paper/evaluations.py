"""Evaluation records and samples of all models, as the tables take them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mars.files import read_json, read_jsonl

Cell = tuple[str, str, str]  # model, setting, benchmark: names of the experiment


def read_evaluations(
    folders: Mapping[str, Path],
) -> tuple[dict[Cell, dict[str, Any]], dict[Cell, list[dict[str, Any]]]]:
    """Records and samples by (model, setting, benchmark).

    Args:
        folders: by model, what :func:`mars.evaluation.evaluate.evaluate` wrote:
            ``<setting>/<benchmark>.json`` and ``<setting>/<benchmark>.samples.jsonl``.
    """
    records: dict[Cell, dict[str, Any]] = {}
    samples: dict[Cell, list[dict[str, Any]]] = {}
    for model, folder in folders.items():
        for file in sorted(Path(folder).glob("*/*.json")):
            cell = (model, file.parent.name, file.stem)
            records[cell] = read_json(file)
            documents = file.with_suffix(".samples.jsonl")
            if documents.is_file():
                samples[cell] = read_jsonl(documents)
    return records, samples
