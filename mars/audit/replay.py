"""A recorded job runs again, in a folder of its own, and its files are compared with the recorded.

The job is given what its record says: the spec, the options, and inputs with the recorded hashes.
What it makes comes nowhere near the results.
"""

from __future__ import annotations

import json
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
from functools import cached_property
from itertools import count, pairwise
from pathlib import Path
from typing import Any

from mars.audit.compare import WORDS, Compared, compare, differences, is_manifest, judge
from mars.audit.proof import worktree
from mars.audit.record_graph import RecordGraph
from mars.audit.replays import Replayed
from mars.errors import UserError
from mars.planning.differences import spec_of
from mars.provenance.files import read_json, sha256_file, write_json
from mars.provenance.fingerprint import project
from mars.provenance.manifest import listed_files
from mars.provenance.record import VARIABLES
from mars.provenance.stage import PLACES, JobSpec

THREADED = ("tokenize", "pretrain", "train", "evaluate", "probe")  # the others have one thread
SEES_ALL = ("report",)  # the page shows the records of all jobs, which are no inputs of its own
SEES_SHAPES = ("claims",)  # of checkpoints only the shapes of the weights, which are packed
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

    A recorded file that is not here is taken from what was packed, if that gives it back.

    Args:
        scratch: an empty folder for what they make, and for what is unpacked.
        at_commit: whether to run the recorded code, which a commit must hold, or the present one.
    """

    def __init__(self, records: RecordGraph, scratch: Path, at_commit: bool = False):
        self.records = records
        self.root = records.root.resolve()
        self.scratch = scratch.resolve()
        self.at_commit = at_commit
        self._numbers = count()
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
        folder = self.scratch / str(next(self._numbers))
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

    def lacks(self, task: Task) -> str | None:
        """What a job cannot run without and is not here: a file, or a folder; None if all is."""
        record = self.records.records[task.record]
        stage = record["spec"]["stage"]
        return next(filter(None, (self._absent(name, stage) for name in record["inputs"])), None)

    def recorded(self, file: str) -> Path:
        """Where a recorded file is: among the results, or unpacked."""
        here = self.root / file
        return here if here.is_file() else self._unpacked / file

    @cached_property
    def _unpacked(self) -> Path:
        """A folder with all that was packed, as it was among the results."""
        folder = self.scratch / "packed"
        self.records.packed.unpack(folder / self.records.results)
        return folder

    def _link_inputs(self, record: dict[str, Any], own_record: str, folder: Path) -> None:
        """Links to the recorded inputs, or to what was made in their place if they are not here.

        Files are linked one by one, so that whatever the job writes stays in the folder.
        """
        stage = record["spec"]["stage"]
        for name, digest in record["inputs"].items():
            for place, source in self._sources(name, digest, stage).items():
                _link(source, folder / place)
        for entry in self.root.iterdir():  # definitions of tasks, a mirror
            if entry.name not in NOT_LINKED and not entry.name.startswith("."):
                _link(entry, folder / entry.name)
        if stage in SEES_ALL:
            own = {self.root / name for name in (own_record, *record["outputs"])}
            results = self.root / "results" / self.records.experiment.experiment
            for file in results.rglob("*"):
                if file.is_file() and file not in own:
                    _link(file, folder / file.relative_to(self.root))

    def _sources(self, name: str, digest: str, stage: str) -> dict[str, Path]:
        """From where each file of an input is taken.

        Raises:
            UserError: it is not here, or it is not what the record names.
        """
        if absent := self._absent(name, stage):
            raise UserError(
                f"{absent} is not here; say --chain to make it again first, or fetch it."
            )
        files = {name: digest, **self.records.listed(name)}
        if any(map(self._is_absent, files)) and name in self._made:
            source = self._made[name]
            made = [source / name, *(listed_files(source / name) if is_manifest(name) else [])]
            return {str(file.relative_to(source)): file for file in made}
        for file, wanted in files.items():
            if self.records.sha256(file) not in (wanted, None):
                raise UserError(f"{file} is not what the job was given; see `mars audit`.")
        sources = {file: self.recorded(file) for file in files}
        return {file: source for file, source in sources.items() if source.is_file()}

    def _absent(self, name: str, stage: str) -> str | None:
        """What of an input is neither here nor packed nor made: a file, or the folder of some."""
        absent = list(filter(self._is_absent, [name, *self.records.listed(name)]))
        shapes_do = stage in SEES_SHAPES and any(map(Path(name).match, PLACES["checkpoints"]))
        if not absent or name in self._made or (shapes_do and name not in absent):
            return None
        return absent[0] if len(absent) == 1 else str(Path(name).parent)

    def _is_absent(self, file: str) -> bool:
        return self.records.sha256(file) is None

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
                names = {str(file.relative_to(folder)) for file in listed_files(folder / output)}
                names |= set() if task.cells else known.keys()
                recorded |= {name: known.get(name, "") for name in sorted(names)}
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
        return compare(name, self.recorded(name), new, stage, elsewhere)


def price(records: RecordGraph, task: Task) -> float:
    """Seconds that a job took by its record; of cells, as their own records say."""
    record = records.records[task.record]
    if not task.cells:
        return record["seconds"]
    folder = Path(next(iter(record["outputs"]))).parent
    contents = [records.read(str(folder / f"{cell}.json")) for cell in task.cells]
    if None in contents:
        cells = sum(map(len, record["spec"]["config"]["cells"].values()))
        return record["seconds"] * len(task.cells) / cells
    found = [json.loads(content) for content in contents if content]
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
