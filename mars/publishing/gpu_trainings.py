"""How well an experiment's trainings used their GPUs: ``results/gpu/trainings/<experiment>.json``.

Tokens, seconds and memory are from the summaries that trainings write. The operations of a token
are those of the mean document (:mod:`mars.training.cost`), and the peak is the data sheet's: model
FLOPs utilisation is the share of it that these operations come to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mars.config.experiment import Experiment
from mars.data.stage import tokens_of
from mars.machine.data_sheets import peaks
from mars.planning.gpu_results import FOLDER
from mars.planning.price import tokenised
from mars.provenance.files import read_json, write_json
from mars.training.cost import Decoder, document_work, training_flops

SUMMARY = "training_summary.json"


def write_gpu_trainings(experiment: Experiment, root: Path = Path(".")) -> Path | None:
    """Write the file, if a model was trained on a GPU."""
    found = [
        row
        for name in experiment.models
        if (row := gpu_training(experiment, name, root)) is not None
    ]
    if not found:
        return None
    file = root / FOLDER / "trainings" / f"{experiment.experiment}.json"
    write_json(file, {"experiment": experiment.experiment, "trainings": found})
    return file


def gpu_training(experiment: Experiment, name: str, root: Path) -> dict[str, Any] | None:
    """One model's training; None if it is not here, or used no GPU.

    ``tokens`` are those forwarded, of both streams; ``peak_memory_bytes`` are of the first GPU;
    ``model_flops_utilisation`` is null for a GPU whose data sheet is not known here.
    """
    results = root / "results" / experiment.experiment
    folder = results / "checkpoints" / name
    if not (folder / SUMMARY).is_file():
        return None
    summary = read_json(folder / SUMMARY)
    if summary["device"] == "cpu":
        return None
    flops = _flops(experiment, name, folder, results, summary["tokens"])
    peak, gpus = peaks(summary["device"])[0], summary["processes"]
    used = flops / (summary["seconds"] * gpus * peak) if flops and peak else None
    return {
        "model": name,
        "method": summary["method"],
        "gpu": summary["device"],
        "gpus": gpus,
        **{key: summary[key] for key in ("parameters", "tokens", "seconds", "tokens_per_second")},
        "model_flops_utilisation": used,
        "peak_memory_bytes": summary["peak_memory_bytes"],
    }


def _flops(
    experiment: Experiment, name: str, folder: Path, results: Path, tokens: float
) -> float | None:
    """Of a whole training, as if all documents were the mean one; None without the documents."""
    model = experiment.models[name]
    method = "pretrain" if model.method == "base" else model.method
    kind = "documents" if method == "pretrain" else "instructions"
    documents = (results / tokens_of(experiment, model.scale, kind)).with_name("summary.json")
    if not documents.is_file():
        return None
    mean = tokenised(documents)
    prompt, response = round(mean.prompt), round(mean.response)
    if method == "pretrain":  # which predicts every token
        prompt, response = 0, prompt + response
    one = document_work(method, prompt, response, model.block_size)
    decoder = Decoder.from_config(read_json(folder / "config.json"))
    return training_flops(decoder, one * (tokens / one.tokens))
