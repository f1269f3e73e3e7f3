"""The provenance of an experiment as an RO-Crate, in the words that other tools read.

The profile is Process Run Crate (https://w3id.org/ro/wfrun/process/0.5): each job is an action
with the program that ran, what it took in and what it made.
"""

from __future__ import annotations

import mimetypes
from datetime import datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

from rocrate.model import ContextEntity
from rocrate.rocrate import ROCrate

from mars.audit.record_graph import RecordGraph
from mars.audit.records import restore_records
from mars.config.experiment import Experiment
from mars.errors import UserError
from mars.planning.differences import spec_of
from mars.provenance.files import write_json

PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
LICENSE = "https://spdx.org/licenses/Apache-2.0"


def export_crate(experiment: Experiment, root: Path) -> Path:
    """Write ``ro-crate-metadata.json`` into the folder of results, which becomes the crate.

    What git or an archive leaves out is in it by name and hash, not as a file of the crate.

    Args:
        experiment: gives the crate its name and description.
        root: folder in which the workflow ran.

    Raises:
        UserError: there is no record that can be read.
    """
    results = root / "results" / experiment.experiment
    restore_records(results)
    graph = RecordGraph(experiment, root)
    records = graph.records
    if not records:
        kind = "of this version's form" if graph.broken else "yet"
        raise UserError(f"{results} has no provenance record {kind}; run the experiment first.")
    crate = ROCrate(version="1.1")  # the version that the profile builds on
    dataset = crate.root_dataset
    crate.name = f"{experiment.experiment}: an experiment of mars-repro"
    crate.description = experiment.description
    crate.license = _add(crate, LICENSE, "CreativeWork", name="Apache License 2.0")
    profile = _add(crate, PROFILE, "CreativeWork", name="Process Run Crate", version="0.5")
    dataset["conformsTo"] = profile
    for name, record in records.items():
        action = _action(crate, results, root / name, record)
        dataset.append_to("mentions", action)
    crate.datePublished = max(map(_end, records.values()))
    write_json(results / "ro-crate-metadata.json", crate.metadata.generate())
    return results / "ro-crate-metadata.json"


def _action(crate: ROCrate, results: Path, path: Path, record: dict[str, Any]) -> ContextEntity:
    """One job."""
    root = results.parent.parent
    files = {
        name: _file(crate, results, root / name, digest)
        for name, digest in {**record["inputs"], **record["outputs"]}.items()
    }
    stage = record["spec"]["stage"]
    program = _add(
        crate,
        f"#mars-{stage}",
        "SoftwareApplication",
        name=f"mars {stage.replace('_', '-')}",
        url="https://arxiv.org/abs/2604.07023",
        version=metadata.version("mars-repro"),
        softwareRequirements=[
            _add(
                crate, f"#{package}-{version}", "SoftwareApplication", name=package, version=version
            )
            for package, version in record["environment"].items()
        ],
    )
    return _add(
        crate,
        f"#{path.relative_to(results / 'provenance')}",
        "CreateAction",
        name=spec_of(record).job,
        description=f"The full record is {path.relative_to(results)}.",
        instrument=program,
        object=[files[name] for name in record["inputs"]],
        result=[files[name] for name in record["outputs"]],
        startTime=record["started"],
        endTime=_end(record),
        actionStatus="http://schema.org/CompletedActionStatus",
        subjectOf=_file(crate, results, path),
    )


def _end(record: dict[str, Any]) -> str:
    start = datetime.fromisoformat(record["started"])
    return (start + timedelta(seconds=record["seconds"])).isoformat(timespec="seconds")


def _file(crate: ROCrate, results: Path, path: Path, digest: str | None = None) -> Any:
    """A file of the experiment, where it is; nothing is copied. One that is not here is a name."""
    name = str(path.relative_to(results))
    if not path.is_file():
        return _add(crate, f"#{name}", "CreativeWork", name=name, sha256=digest)
    if (known := crate.get(name)) is not None:
        return known
    kind = "text/markdown" if path.suffix == ".md" else mimetypes.guess_type(name)[0]
    facts = {"name": name, "encodingFormat": kind or "application/jsonl", "sha256": digest}
    return crate.add_file(path, name, properties={k: v for k, v in facts.items() if v})


def _add(crate: ROCrate, identifier: str, kind: str, **properties: Any) -> ContextEntity:
    """A contextual entity, added once."""
    if (known := crate.get(identifier)) is not None:
        return known
    entity = crate.add(ContextEntity(crate, identifier, {"@type": kind}))
    for key, value in properties.items():
        if value != []:
            single = isinstance(value, list) and len(value) == 1
            entity[key] = value[0] if single else value
    return entity
