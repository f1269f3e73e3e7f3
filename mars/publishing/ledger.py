"""What a finished experiment hands on beside its results, all of it small enough for git.

``metrics.json``: every score in one file, for ``dvc metrics``. ``records.jsonl``: the provenance
records of all jobs. ``snakemake.jsonl``: what Snakemake noted of each output. ``samples.parquet``
and ``evidence.parquet``: what tables and claims are made from (:mod:`mars.audit.packed`).
``CLAIMS.md``: each claim, and what a test of it takes. ``questions.html``: every question with what
was answered (:mod:`mars.publishing.questions`). ``specs/``: what each part of the experiment
depends on, for DVC, which keeps the large folders (``dvc.yaml``). Beside the experiments, under
``results/gpu/trainings``: how well trainings used their GPUs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mars.audit.packed import pack
from mars.audit.records import restore_records, save_records
from mars.config.experiment import Experiment
from mars.errors import UserError
from mars.provenance.files import (
    read_json,
    write_atomic,
    write_json,
)
from mars.provenance.stage import JobSpec
from mars.publishing.claims_sheet import write_sheet
from mars.publishing.gpu_trainings import write_gpu_trainings
from mars.publishing.snakemake_metadata import restore_dates, restore_notes, save_notes

SPECS = "specs"
# The part of an experiment, as in dvc.yaml, that a job of each rule belongs to; others: the paper.
PARTS = {
    **dict.fromkeys(("generate_data", "fetch_dataset", "train_tokenizer", "tokenize"), "data"),
    **dict.fromkeys(("import_checkpoint", "pretrain", "train"), "checkpoints"),
    "evaluate": "evaluations",
    "measure": "speed",
}


def save(experiment: Experiment) -> str:
    """Write metrics, records, Snakemake's notes and the evidence into the folder of an experiment.

    Where a part of what was recorded is not there, as in a clone in which some jobs ran, all stays
    as it was: half of an experiment must not take the place of a whole one.

    Returns:
        what was done, in a sentence.
    """
    results = Path("results") / experiment.experiment
    from mars.publishing.questions import write_small  # which takes a while to import

    if lacking := not_here(experiment):
        return f"{results} stays as it was packed: {lacking[0]} is not here."
    write_json(results / "metrics.json", metrics(results))
    save_records(results)
    save_notes(results)
    pack(results)
    write_gpu_trainings(experiment)
    if (results / "claims.json").is_file():
        write_sheet(experiment)
    return f"{results} is packed for git. {write_small(experiment)}"


def not_here(experiment: Experiment) -> list[str]:
    """The large outputs that records of the experiment's jobs speak of, and that are not here."""
    results = Path("results") / experiment.experiment
    models = {*experiment.models}
    records = [
        file
        for rule, part in PARTS.items()
        if part != "data"
        for file in sorted(results.glob(f"provenance/{rule}/*.json"))
        if file.stem in models or rule == "measure"
    ]
    outputs = [output for file in records for output in read_json(file)["outputs"]]
    return [output for output in outputs or [str(results)] if not Path(output).is_file()]


def restore(results: Path) -> None:
    """Unpack what a clone or a download brought: records, and Snakemake's notes.

    Whatever this working folder has of its own is left alone.
    """
    restore_records(results)
    restore_notes(results)


def write_specs(results: Path, planned: Mapping[str, list[JobSpec]]) -> None:
    """Write what the parts of an experiment depend on now, where it has changed.

    Args:
        planned: the specs of all jobs, by rule.
    """
    parts: dict[str, dict[str, Any]] = {}
    for rule, specs in planned.items():
        part = parts.setdefault(PARTS.get(rule, "paper"), {})
        part |= {spec.job: spec.model_dump(exclude={"stage", "target"}) for spec in specs}
    for part_name, specs_of in parts.items():
        file = results / SPECS / f"{part_name}.json"
        text = json.dumps(specs_of, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        if not file.is_file() or file.read_text() != text:
            write_atomic(file, text)


def is_kept(results: Path) -> bool:
    """Whether ``dvc.yaml`` is about an experiment."""
    file = Path("dvc.yaml")
    if not file.is_file():
        return False
    (names,) = yaml.safe_load(file.read_text())["vars"]
    return results.name in names["experiments"]


def stages(results: Path) -> list[str]:
    """The stages of an experiment, as DVC names them."""
    return [f"{part}@{results.name}" for part in dict.fromkeys([*PARTS.values(), "paper"])]


def dvc(*words: str) -> str:
    """Run a command of DVC; what it printed.

    Raises:
        UserError: it failed; what it said.
    """
    done = subprocess.run([sys.executable, "-m", "dvc", *words], capture_output=True, text=True)
    if done.returncode:
        raise UserError(done.stderr.strip() or f"status {done.returncode}")
    return done.stdout


def metrics(results: Path) -> dict[str, Any]:
    """model -> setting -> benchmark -> score, its standard error, tokens per forward."""
    found: dict[str, Any] = {}
    for path in sorted(results.glob("evaluations/*/*/*.json")):
        record = read_json(path)
        benchmark, counted = record["cell_spec"]["benchmark"], record["tokens_per_forward"]
        score = record["metrics"][benchmark["metric"]][benchmark["filter"]]
        cell = {"score": score["value"], "stderr": score["stderr"]}
        cell["tokens_per_forward"] = counted and counted["value"]
        settings = found.setdefault(path.parts[-3], {})
        settings.setdefault(path.parts[-2], {})[path.stem] = cell
    return found


def commit(results: Path) -> str:
    """Enter the results into DVC's cache and lock, if ``dvc.yaml`` is about them; what was done."""
    if not is_kept(results):
        return f"dvc.yaml is not about {results}; DVC keeps nothing of it."
    if not Path(".git").exists():
        return "not a git repository; DVC keeps nothing."
    # What was committed is a copy; checking it out again makes it a link, if there are links here.
    for command in (["commit", "--force"], ["checkout", "--relink"]):
        try:
            dvc(*command, *stages(results))
        except UserError as error:
            return f"dvc {command[0]} failed, the results are complete: {error}"
    restore_dates(results)
    return f"{results} is in DVC's cache; commit dvc.lock to keep this state."
