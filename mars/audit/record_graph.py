"""Does a file still follow from its records? Walks from outputs to data, re-hashing on the way.

Every job left a record with the sha256 of its inputs and outputs and with its spec; an input is
another job's output, so the records form a graph and the same few questions are asked of each job:
is its record as written, are its outputs the bytes it made, were they made from the inputs that are
there now, and by the code, configuration and packages of today? The answer is one word.
"""

from __future__ import annotations

import json
from collections import ChainMap
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mars.audit.compare import WORDS as COMPARED
from mars.audit.packed import Packed
from mars.audit.replays import Replayed, latest, read_replays
from mars.config.experiment import Experiment
from mars.planning.differences import OLD, Difference, differences, present_spec, spec_of
from mars.provenance.accepted import accepted_as
from mars.provenance.files import read_json, sha256_file
from mars.provenance.manifest import NAME as MANIFEST
from mars.provenance.record import is_sealed
from mars.stages import STAGES

WORDS = ("verified", "stale", "changed", "missing")  # each outweighs those before it


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: with which file, the word for it, and a phrase."""

    word: str
    file: str
    text: str


@dataclass(frozen=True)
class Link:
    """One job of a chain: what it is, what it made, and what is wrong with that.

    Attributes:
        accepted: why the present code counts as that of the record, where it is another one.
        replayed: what came out when the job, or a part of it, was run again.
    """

    job: str
    record: str
    outputs: dict[str, str]
    files: int
    source: dict[str, Any]
    started: str
    commit: str
    accepted: str | None
    replayed: list[Replayed] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def word(self) -> str:
        return worst(self.problems)


def worst(problems: list[Problem]) -> str:
    """The word that sums up some problems."""
    return max((finding.word for finding in problems), key=WORDS.index, default=WORDS[0])


class RecordGraph:
    """The provenance records of one experiment, against the files that are there now.

    A file that is not there counts as there if what was packed gives it back.

    Args:
        experiment: the present configuration.
        root: folder in which the workflow ran; records name files relative to it.

    Attributes:
        unpacked: files that were not there, and were hashed as they are packed.
    """

    def __init__(self, experiment: Experiment, root: Path):
        self.experiment = experiment
        self.root = Path(root)
        self.results = Path("results") / experiment.experiment
        self.packed = Packed(self.root / self.results)
        self.unpacked: set[str] = set()
        folder = self.root / self.results / "provenance"
        self.broken: list[Problem] = []
        self.records: dict[str, dict[str, Any]] = {}
        for path in sorted(folder.rglob("*.json")):
            name = str(path.relative_to(self.root))
            try:
                record = read_json(path)
                record["inputs"], record["outputs"], record["code"], record["spec"]["stage"]
            except (ValueError, KeyError, TypeError):
                self.broken.append(Problem("changed", name, "is no provenance record any more"))
            else:
                if "packages" in record["spec"]:
                    self.records[name] = record
                else:
                    self.broken.append(Problem("stale", name, OLD))
        self.replays = read_replays(folder.parent)
        self._maker: dict[str, tuple[str, str]] = {}  # of each file: its record, its sha256
        for name, record in self.records.items():
            # A record is made by the job it is of; its seal stands for its content.
            self._maker[name] = (name, sha256_file(self.root / name))
            for output, digest in record["outputs"].items():
                self._maker[output] = (name, digest)
                for listed, listed_digest in self.listed(output).items():
                    self._maker[listed] = (name, listed_digest)

    def read(self, file: str) -> bytes | None:
        """The content of a file that is there, or packed."""
        path = self.root / file
        return path.read_bytes() if path.is_file() else self.packed.read(self._in_results(file))

    def files(self, pattern: str) -> list[str]:
        """The files in the folder of results, there or packed, that match a pattern."""
        there = {str(p.relative_to(self.root)) for p in (self.root / self.results).glob(pattern)}
        packed = {str(self.results / name) for name in self.packed.kept}
        return sorted(there | {name for name in packed if Path(name).match(pattern)})

    def _in_results(self, file: str) -> str:
        path = Path(file)
        return str(path.relative_to(self.results)) if path.is_relative_to(self.results) else ""

    def maker(self, file: str) -> str | None:
        """The record of the job that made a file; None if no record speaks of it."""
        return self._maker.get(file, (None, ""))[0]

    def unaccounted(self, file: str) -> list[Problem]:
        """What to say of a file that no record speaks of: it may be one that cannot be read."""
        return self.broken or [Problem("missing", file, "has no record of the job that made it")]

    def final(self) -> list[str]:
        """The jobs of this experiment whose outputs no other job took in: where walks begin."""
        taken = {self.maker(path) for record in self.records.values() for path in record["inputs"]}
        return [
            name
            for name, record in self.records.items()
            if name not in taken and present_spec(record, self.experiment, self.root) is not None
        ]

    def chain(self, record: str) -> list[Link]:
        """A job and all that it rests on, nearest first, each checked."""
        return list(map(self.link, self.behind(record)))

    def behind(self, record: str) -> list[str]:
        """The records of a job and of all that it rests on, nearest first."""
        order = [record]
        for name in order:
            makers = map(self.maker, self.records[name]["inputs"])
            order += [maker for maker in makers if maker is not None and maker not in order]
        return order

    @cache  # noqa: B019 - lives as long as the audit
    def link(self, name: str) -> Link:
        """One job, checked."""
        record = self.records[name]
        files = [file for output in record["outputs"] for file in (output, *self.listed(output))]
        config = record["spec"]["config"]
        sections = [section for section in config.values() if isinstance(section, dict)]
        described = ChainMap(record["facts"], config, *sections)
        keys = ("repository", "package", "file", "revision", "seed")
        code = record["code"]
        replayed = latest(self.replays, name, record.get("sha256", ""))
        return Link(
            job=spec_of(record).job,
            record=name,
            outputs=record["outputs"],
            files=len(files),
            source={} if record["inputs"] else {k: described[k] for k in keys if k in described},
            started=record["started"],
            commit=f"{(code['commit'] or 'no commit')[:10]}{' + edits' if code['dirty'] else ''}",
            accepted=self._accepted(record),
            replayed=replayed,
            problems=[
                *self._of_record(name),
                *(problem for file in files for problem in self._of_file(file)),
                *self._of_inputs(name),
                *(Problem("stale", name, str(one)) for one in self._differences(record)),
                *(
                    Problem("changed", name, f"was replayed on {one.date}: different, {one.first}")
                    for one in replayed
                    if one.word == COMPARED[-1] and one.same_code
                ),
            ],
        )

    def _differences(self, record: dict[str, Any]) -> list[Difference]:
        return differences(record, self.experiment, self.root)

    def _accepted(self, record: dict[str, Any]) -> str | None:
        """Why other code than the record's counts as its own, if it does."""
        spec = spec_of(record)
        if spec.stage not in STAGES:
            return None
        entry = accepted_as(
            self.root / self.results, spec.job, STAGES[spec.stage].reached.fingerprint
        )
        return entry.because if entry is not None and entry.was == spec.code else None

    def _of_record(self, name: str) -> list[Problem]:
        if "sha256" not in self.records[name]:
            return [Problem("stale", name, "was written by an older version of this project")]
        edited = Problem("changed", name, "was edited after the job wrote it")
        return [] if is_sealed(self.records[name]) else [edited]

    def _of_file(self, file: str) -> list[Problem]:
        digest = self.sha256(file)
        if digest is None:
            return [Problem("missing", file, "does not exist")]
        same = digest == self._maker[file][1]
        return [] if same else [Problem("changed", file, "differs from what its job made")]

    def _of_inputs(self, name: str) -> list[Problem]:
        """Inputs that nothing made, or that were made again since. Their own state is asked of
        the job that made them."""
        found = []
        for file, digest in self.records[name]["inputs"].items():
            if file not in self._maker:
                found += self.unaccounted(file)
            elif self._maker[file][1] != digest:
                found.append(Problem("stale", file, f"was made again since {name} was written"))
        return found

    def listed(self, output: str) -> dict[str, str]:
        """The files that a manifest lists, with their sha256."""
        if Path(output).name != MANIFEST or (content := self.read(output)) is None:
            return {}
        try:
            listed = json.loads(content)["files"].items()
            return {str(Path(output).parent / name): entry["sha256"] for name, entry in listed}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}  # its own hash tells that it was changed

    @cache  # noqa: B019 - each file is hashed once in an audit
    def sha256(self, file: str) -> str | None:
        """Hash of a file, by its name in the records; None if it is not there."""
        path = self.root / file
        if path.is_file():
            return sha256_file(path)
        digest = self.packed.sha256.get(self._in_results(file))
        self.unpacked |= {file} if digest else set()
        return digest
