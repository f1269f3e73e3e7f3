"""Forged results of which every hash, record and table above agrees: only a rerun finds it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mars.audit.packed import SAMPLES
from mars.audit.record_graph import RecordGraph
from mars.audit.replay_choice import in_order
from mars.config.experiment import Experiment
from mars.evaluation.stage import cell_spec
from mars.planning.differences import spec_of
from mars.provenance.files import read_json, sha256_file, write_json
from mars.provenance.manifest import NAME as MANIFEST
from mars.provenance.manifest import write_manifest
from mars.provenance.record import sealed
from mars.provenance.stage import Inputs, Job
from mars.stages import STAGES


def forge(run: Path, experiment: Experiment, edit: Callable[[Path], None]) -> None:
    """Change results and then, from the data upwards, all that vouches for them.

    The working folder must be ``run``: tables and verdicts are made anew from what was forged.
    """
    graph = RecordGraph(experiment, run)
    order = in_order(graph, graph.records)
    edit(run / "results" / experiment.experiment)
    for name in order:
        record = read_json(run / name)
        inputs = {file: sha256_file(run / file) for file in record["inputs"]}
        record["inputs"], other = inputs, inputs != record["inputs"]
        stage = STAGES[record["spec"]["stage"]]
        if other and (stage.rule == "table" or stage.name in ("claims", "comparison")):
            files = tuple(map(Path, inputs))
            stage.start(
                Job(spec_of(record), Inputs(files), Path(next(iter(record["outputs"]))).parent)
            )
        for output in record["outputs"]:
            if Path(output).name == MANIFEST:
                _write_folder_anew(run / output, record)
            record["outputs"][output] = sha256_file(run / output)
        write_json(run / name, sealed(record))
    (run / "results" / experiment.experiment / "records.jsonl").unlink()


def forge_packed_answer(results: Path, model: str, setting: str, benchmark: str) -> None:
    """Make the first packed answer of an evaluation right if it was wrong, or wrong."""
    rows = pq.read_table(results / SAMPLES).to_pylist()
    wanted = {"model": model, "setting": setting, "benchmark": benchmark}
    row = next(row for row in rows if row.items() >= wanted.items())
    scores = json.loads(row["scores"])
    for metrics in scores.values():
        metrics["exact_match"] = 1.0 - metrics["exact_match"]
    row["scores"] = json.dumps(scores)
    schema = pq.read_schema(results / SAMPLES)
    pq.write_table(pa.Table.from_pylist(rows, schema), results / SAMPLES)


def _write_folder_anew(manifest: Path, record: dict[str, Any]) -> None:
    """The manifest of a folder as it is now and, of an evaluation, what its cells say of it."""
    spec, folder = spec_of(record), manifest.parent
    if spec.stage == "evaluate":
        for file in folder.glob("*/*.json"):
            cell = read_json(file)
            cell["cell_spec"] = cell_spec(spec, record["inputs"], file.parent.name, file.stem)
            cell["samples_sha256"] = sha256_file(file.with_suffix(".samples.jsonl"))
            write_json(file, cell)
    known = read_json(manifest)
    write_manifest(folder, **{key: value for key, value in known.items() if key != "files"})
