"""A recorded job runs again, in a folder of its own, and its files are compared with the recorded.

The job is given what its record says: the spec, the options, and inputs with the recorded hashes.
What it makes comes nowhere near the results.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from mars.audit.compare import WORDS, Compared, compare, differences, is_manifest, judge, listing
from mars.audit.differences import spec_of
from mars.audit.proof import worktree
from mars.audit.record_graph import RecordGraph
from mars.audit.replays import Replayed
from mars.errors import UserError
from mars.provenance.files import read_json, sha256_file, write_json
from mars.provenance.fingerprint import project
from mars.provenance.manifest import listed_files
from mars.provenance.record import VARIABLES
from mars.provenance.stage import JobSpec

THREADED = ("tokenize", "pretrain", "train", "evaluate", "probe")  # the others have one thread
SEES_ALL = ("report",)  # the page shows the records of all jobs, which are no inputs of its own
NOT_LINKED = ("mars", "results")  # the code is the one that is asked for


@dataclass(frozen=True)
class Task:
    """A job to be run again.

    Attributes:
        record: of the job, as the graph of records names it.
        cells: ``<setting>/<benchmark>``, of an evaluation of which only these are wanted.
    """

    record: str
    cells: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a job made when it ran again.

    Attributes:
        compared: its files; none if it was not run.
        folder: where its new files are, named as the record names them.
        code: a commit, with ``+ edits``; ``other`` whether it is other code than the record's.
        problem: why it was not run, or did not run to its end.
    """

    task: Task
    job: str
    compared: list[Compared]
    folder: Path
    code: str = ""
    other_code: bool = False
    elsewhere: str | None = None
    machine: dict[str, Any] | None = None
    seconds: float = 0.0
    problem: str = ""

    @property
    def word(self) -> str:
        return worst(one.word for one in self.compared) if self.compared else "not compared"

    def entry(self, seal: str) -> Replayed:
        """As it is noted beside the results."""
        first = next((one for one in self.compared if one.word == self.word != WORDS[0]), None)
        return Replayed(
            **{"job": self.job, "record": self.task.record, "of": seal, "word": self.word},
            cells=list(self.task.cells),
            files=dict(Counter(one.word for one in self.compared)),
            first=f"{first.file}: {first.text}" if first else None,
            code=self.code,
            same_code=not self.other_code,
            machine=self.machine or {},
            seconds=round(self.seconds, 2),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def worst(words: Iterator[str] | Sequence[str]) -> str:
    """The word that outweighs the others."""
    return max(words, key=WORDS.index, default=WORDS[0])


class Replays:
    """Runs jobs of one experiment again, one after the other.

    Args:
        scratch: an empty folder for what they make.
        at_commit: whether to run the recorded code, which a commit must hold, or the present one.
    """

    def __init__(self, records: RecordGraph, scratch: Path, at_commit: bool = False):
        self.records = records
        self.root = records.root.resolve()
        self.scratch = scratch.resolve()
        self.at_commit = at_commit
        self._made: dict[str, Path] = {}  # of each file made again: the folder that it is in
        self._worktrees: dict[str, Path] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Replays:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, task: Task) -> Outcome:
        """Run one job again and compare; a job that cannot run is an outcome, too."""
        record = self.records.records[task.record]
        spec = _narrowed(spec_of(record), task.cells)
        folder = self.scratch / str(len(list(self.scratch.iterdir())))
        folder.mkdir(parents=True)
        started = time.monotonic()
        try:
            self._link_inputs(record, task.record, folder)
            self._execute(record, spec, folder, task.record)
        except UserError as error:
            return Outcome(task, spec.job, [], folder, problem=str(error))
        again = read_json(folder / task.record)
        elsewhere = _elsewhere(record, again)
        if not task.cells:
            self._made |= dict.fromkeys([task.record, *again["outputs"]], folder)
        code = again["code"]
        return Outcome(
            task,
            spec.job,
            list(self._compared(task, record, again, folder, elsewhere)),
            folder,
            code=f"{code['commit'] or 'no commit'}{' + edits' if code['dirty'] else ''}",
            other_code=code["modules"] != record["code"].get("modules"),
            elsewhere=elsewhere,
            machine=again["hardware"],
            seconds=time.monotonic() - started,
        )

    # --- what a job is given ----------------------------------------------------------------------

    def _link_inputs(self, record: dict[str, Any], own_record: str, folder: Path) -> None:
        """Links to the recorded inputs, or to what was made in their place if they are not here.

        Files are linked one by one, so that whatever the job writes stays in the folder.
        """
        for name, digest in record["inputs"].items():
            source = self._source(name, digest)
            listed = listed_files(source / name) if is_manifest(name) else {}
            for file in [source / name, *listed]:
                _link(file, folder / file.relative_to(source))
        for entry in self.root.iterdir():  # definitions of tasks, a mirror
            if entry.name not in NOT_LINKED and not entry.name.startswith("."):
                _link(entry, folder / entry.name)
        if record["spec"]["stage"] in SEES_ALL:
            own = {self.root / name for name in (own_record, *record["outputs"])}
            results = self.root / "results" / self.records.experiment.experiment
            for file in results.rglob("*"):
                if file.is_file() and file not in own:
                    _link(file, folder / file.relative_to(self.root))

    def _source(self, name: str, digest: str) -> Path:
        """The folder from which an input is taken.

        Raises:
            UserError: it is not here, or it is not what the record names.
        """
        files = {name: digest}
        if is_manifest(name) and (self.root / name).is_file():
            listed = listed_files(self.root / name).items()
            files |= {str(path.relative_to(self.root)): sha256 for path, sha256 in listed}
        missing = next((file for file in files if not (self.root / file).is_file()), None)
        if missing is None:
            for file, wanted in files.items():
                if self.records.sha256(file) != wanted:
                    raise UserError(f"{file} is not what the job was given; see `mars audit`.")
            return self.root
        if name in self._made:
            return self._made[name]
        raise UserError(f"{missing} is not here; say --chain to make it again first, or fetch it.")

    # --- running it -------------------------------------------------------------------------------

    def _execute(self, record: dict[str, Any], spec: JobSpec, folder: Path, name: str) -> None:
        """Run the job; its record is what tells that it ran to its end."""
        source = self._code(record)
        write_json(folder / "spec.json", spec.model_dump())
        words = shlex.split(record["command"])
        gpus = words[words.index("with-gpus") + 1] if "with-gpus" in words else "0"
        options = [
            part
            for flag, value in pairwise(words)
            if flag in ("--option", "--endpoint")
            for part in (flag, value)
        ]
        command = [sys.executable, "-m", "mars", "with-gpus", gpus, "run", "--spec", "spec.json"]
        command += [*options, "--output", next(iter(record["outputs"])), "--record", name]
        environment = {
            **os.environ,
            "PYTHONPATH": str(source),
            "OMP_NUM_THREADS": str(self._threads(record, spec.stage)),
        }
        if "arithmetic" in record:  # older records do not say it
            environment = {k: v for k, v in environment.items() if k not in VARIABLES}
            environment |= record["arithmetic"]["variables"]
        done = subprocess.run(
            [*command, *record["inputs"]],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        (folder / "replay.log").write_text(done.stdout)
        if not (folder / name).is_file():
            said = (done.stdout.strip().splitlines() or ["nothing"])[-1]
            raise UserError(f"it does not run to its end with {source}: {said[-300:]}")

    def _code(self, record: dict[str, Any]) -> Path:
        """The checkout that is run."""
        if not self.at_commit:
            return project()
        code = record["code"]
        if code["commit"] is None or code["dirty"]:
            raise UserError(
                "its record was made from code that no commit holds; replay without --at-commit."
            )
        if code["commit"] not in self._worktrees:
            there = self._stack.enter_context(worktree(code["commit"]))
            self._worktrees[code["commit"]] = there
        return self._worktrees[code["commit"]]

    def _threads(self, record: dict[str, Any], stage: str) -> int:
        """As many as the workflow gave it; sums in another order are other sums."""
        cores = record["hardware"]["cores"]
        if stage.startswith("measure"):
            return cores
        return min(cores, self.records.experiment.threads) if stage in THREADED else 1

    # --- what it made -----------------------------------------------------------------------------

    def _compared(
        self,
        task: Task,
        record: dict[str, Any],
        again: dict[str, Any],
        folder: Path,
        elsewhere: str | None,
    ) -> Iterator[Compared]:
        stage = record["spec"]["stage"]
        for output, digest in record["outputs"].items():
            here = self.records.sha256(output) == digest
            recorded = {} if task.cells else {output: digest}
            if is_manifest(output) and here:
                known = self.records.listed(output)
                both = [folder / output] if task.cells else [folder / output, self.root / output]
                parent = Path(output).parent
                names = [str(parent / name) for name in listing(*both)]
                recorded |= {name: known.get(name, "") for name in names}
            elif task.cells:
                yield Compared(output, "not compared", "the recorded files are not here")
            for name, wanted in recorded.items():
                yield self._compare(name, wanted, folder, stage, elsewhere)
        if not task.cells:
            facts = differences({"facts": record["facts"]}, {"facts": again["facts"]})
            yield judge(task.record, list(facts), elsewhere)

    def _compare(
        self, name: str, wanted: str, folder: Path, stage: str, elsewhere: str | None
    ) -> Compared:
        """One file against its recorded hash and, where that is another one, its content."""
        new = folder / name
        if new.is_file() and sha256_file(new) == wanted:
            return Compared(name, "identical")
        here = self.records.sha256(name)
        if here is None and wanted:
            return Compared(
                name, "not compared", "it has another hash, and the old one is not here"
            )
        if here != wanted and wanted:
            return Compared(name, "not compared", "the one here is not the recorded one")
        return compare(name, self.root / name, new, stage, elsewhere)


def price(records: RecordGraph, task: Task) -> float:
    """Seconds that a job took by its record; of cells, as their own records say."""
    record = records.records[task.record]
    if not task.cells:
        return record["seconds"]
    folder = records.root / next(iter(record["outputs"]))
    files = [folder.parent / f"{cell}.json" for cell in task.cells]
    if not all(file.is_file() for file in files):
        cells = sum(map(len, record["spec"]["config"]["cells"].values()))
        return record["seconds"] * len(task.cells) / cells
    found = list(map(read_json, files))
    return sum(one["seconds"] for one in found) + max(one["startup_seconds"] or 0 for one in found)


def _narrowed(spec: JobSpec, cells: Sequence[str]) -> JobSpec:
    """The spec with these cells only: each is evaluated by itself, so no other one changes it."""
    if not cells:
        return spec
    wanted: dict[str, list[str]] = {}
    for setting, _, benchmark in (cell.partition("/") for cell in cells):
        wanted.setdefault(setting, []).append(benchmark)
    return spec.model_copy(update={"config": {**spec.config, "cells": wanted}})


def _elsewhere(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """How the machine of a run is another one than that of another run, if it is."""
    found = [
        f"another {name} ({_named(before['hardware'][key])} -> {_named(now['hardware'][key])})"
        for key, name in (("processor", "processor"), ("gpus", "GPU"))
        if before["hardware"][key] != now["hardware"][key]
    ]
    then, again = before.get("arithmetic", {}), now.get("arithmetic", {})
    found += [
        f"other {key} ({then[key]} -> {again[key]})"
        for key in ("threads", "instructions")
        if key in then and key in again and then[key] != again[key]
    ]
    found += [
        f"another version of {name} ({version} -> {now['environment'].get(name, 'none')})"
        for name, version in before["environment"].items()
        if now["environment"].get(name) != version
    ]
    return "; ".join(found) or None


def _named(value: str | list[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value) or "none"


def _link(file: Path, at: Path) -> None:
    """A symbolic link, unless something is there."""
    if not at.exists():
        at.parent.mkdir(parents=True, exist_ok=True)
        at.symlink_to(file)
