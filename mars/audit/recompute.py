"""Tables, comparison and verdicts made again from what is in git, and compared with those there.

It takes no model and no run: the stages themselves work in a folder of their own, by the specs of
their records, on the evidence that was packed (:mod:`mars.audit.packed`). Where every number comes
out again, the committed verdicts follow from the committed answers.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ValidationError

from mars.audit.packed import EVIDENCE, SAMPLES, Packed
from mars.audit.records import RECORDS, restore_records
from mars.errors import UserError
from mars.provenance.files import read_json, read_jsonl
from mars.provenance.stage import Inputs, Job, JobSpec
from mars.stages import stage_named

Record = Mapping[str, Any]
SAME, CLOSE, DIFFERS, MISSING = "the same", "the same but for rounding", "differs", "missing"
# The jobs that are run again, in this order: the later ones read what the earlier ones wrote.
AGAIN = ("provenance/table/", "provenance/comparison.json", "provenance/claims.json")
# Of the last digits of a sum, which another processor adds up in another order.
ROUNDING = 1e-9
A_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


@dataclass(frozen=True)
class Outcome:
    """A committed file beside the one that was made again: a word, and where they differ first."""

    file: str
    word: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.word}{f': {self.where}' if self.where else ''}"


@dataclass(frozen=True)
class Recomputed:
    """What came out.

    Attributes:
        evidence: how many packed files are what the records say.
        problems: what is wrong with the others.
        outcomes: of the files that were made again.
        claims: number and verdict of each claim as committed, with the outcome of all its numbers.
    """

    evidence: int
    problems: list[str]
    outcomes: list[Outcome]
    claims: list[Outcome]

    @property
    def word(self) -> str:
        """``the same`` if nothing is wrong, ``differs`` if something is."""
        words = {one.word for one in self.outcomes}
        return SAME if not self.problems and words <= {SAME, CLOSE} else DIFFERS

    def plain(self) -> dict[str, Any]:
        """For machines."""
        return {"word": self.word, **asdict(self)}

    def lines(self) -> list[str]:
        """For people: the files in one line where all came out, and each claim."""
        same = [one for one in self.outcomes if one.word == SAME]
        lines = [
            f"{self.evidence} files of answers, measurements and configurations, unpacked, are "
            "what their jobs wrote. Of weights the heads alone are packed, which no hash covers.",
            *self.problems,
            f"{len(same)} of {len(self.outcomes)} files, made again from them, are {SAME} byte for "
            "byte as the committed ones.",
            *(str(one) for one in self.outcomes if one.word != SAME),
        ]
        return [*lines, *map(str, self.claims), self.word]


def recompute(results: Path) -> Recomputed:
    """Make tables, comparison and verdicts again from what git has of an experiment.

    Args:
        results: ``<root>/results/<experiment>``; records name files as seen from the root.

    Raises:
        UserError: the experiment has no packed evidence.
    """
    for name in (RECORDS, SAMPLES, EVIDENCE):
        if not (results / name).is_file():
            raise UserError(
                f"{results / name} is not here, so nothing can be computed from it; it is written "
                "at the end of `make reproduce`, and in git for tiny and mini."
            )
    records = {row["file"]: row["record"] for row in read_jsonl(results / RECORDS)}
    packed = Packed(results)
    with TemporaryDirectory(prefix="mars-claims-") as folder:
        root = Path(folder)
        scratch = root / "results" / results.name
        _lay_out(results, packed, scratch)
        again = [name for kind in AGAIN for name in sorted(records) if name.startswith(kind)]
        outcomes = [
            outcome
            for name in again
            for outcome in _made_again(records[name], root, results.parents[1])
        ]
        claims = _claims(results / "claims.json", scratch / "claims.json")
    good, problems = _evidence(packed, records)
    return Recomputed(good, problems, outcomes, claims)


def _lay_out(results: Path, packed: Packed, scratch: Path) -> None:
    """A folder of results with the evidence, the records, and the tables until they are made."""
    packed.unpack(scratch)
    shutil.copy(results / RECORDS, scratch)
    restore_records(scratch)
    if (results / "tables").is_dir():
        shutil.copytree(results / "tables", scratch / "tables")


def _evidence(packed: Packed, records: Mapping[str, Record]) -> tuple[int, list[str]]:
    """How many packed files are what the records say, and a sentence for each that is not."""
    good, problems = 0, []
    for file, expected in _expected(packed, records):
        if (found := packed.sha256.get(file)) == expected:
            good += 1
        elif found is not None:
            problems.append(f"{file}, unpacked, is not what its job wrote")
        elif not file.startswith("checkpoints/"):
            problems.append(f"{file} is recorded and not packed")
    return good, problems


def _expected(packed: Packed, records: Mapping[str, Record]) -> Iterator[tuple[str, str]]:
    """The files below evaluations, measurements and checkpoints, with their recorded hashes."""
    for record in records.values():
        for output, digest in record["outputs"].items():
            name = "/".join(Path(output).parts[2:])
            if name.startswith(("evaluations/", "speed/", "checkpoints/")):
                yield name, digest
                for listed, entry in json.loads(packed.read(name) or '{"files": {}}')[
                    "files"
                ].items():
                    yield str(Path(name).parent / listed), entry["sha256"]


def _made_again(record: Record, root: Path, committed: Path) -> Iterator[Outcome]:
    """Run a job again in ``root``, and compare each of its files with the committed one."""
    outputs = list(record["outputs"])
    try:
        spec = JobSpec.model_validate(record["spec"])
        inputs = Inputs(tuple(root / name for name in record["inputs"]))
        stage = stage_named(spec.stage)
        for output in outputs:  # what was laid out until now
            (root / output).unlink(missing_ok=True)
        stage.start(Job(spec, inputs, (root / outputs[0]).parent))
    except (UserError, ValidationError, KeyError, FileNotFoundError) as error:
        reason = str(error).splitlines()[0]
        for output in outputs:
            yield Outcome(output, DIFFERS, f"cannot be made again by the present code ({reason})")
        return
    same_code = stage.reached.fingerprint == spec.code
    for output in outputs:
        outcome = _compared(output, committed / output, root / output)
        if outcome.word == DIFFERS and not same_code:
            where = f"{outcome.where}; it was made by other code than the present"
            outcome = Outcome(output, DIFFERS, where)
        yield outcome


def _compared(name: str, committed: Path, again: Path) -> Outcome:
    if not committed.is_file():
        return Outcome(name, MISSING, "is not among the committed files")
    if committed.read_bytes() == again.read_bytes():
        return Outcome(name, SAME)
    if committed.suffix == ".json":
        where = difference(read_json(committed), read_json(again))
    else:
        where = difference_of_text(committed.read_text(), again.read_text())
    return Outcome(name, DIFFERS, where) if where else Outcome(name, CLOSE)


def _claims(committed: Path, again: Path) -> list[Outcome]:
    """Claim by claim, its verdict and whether all that is said of it came out again."""
    if not committed.is_file() or not again.is_file():
        return []
    made = {claim["number"]: claim for claim in read_json(again)}
    found = []
    for claim in read_json(committed):
        other = made.get(claim["number"])
        where = difference(claim, other)
        word = SAME if claim == other else DIFFERS if where else CLOSE
        found.append(Outcome(f"claim {claim['number']}, {claim['verdict']}", word, where))
    return found


def difference(committed: Any, again: Any, where: str = "") -> str:
    """Where two JSON values differ first by more than rounding, and how; empty if nowhere."""
    if isinstance(committed, dict) and isinstance(again, dict):
        for key in [*committed, *(key for key in again if key not in committed)]:
            if key not in committed or key not in again:
                return f"{where}{key} is in one of the two only"
            if found := difference(committed[key], again[key], f"{where}{key}."):
                return found
        return ""
    if isinstance(committed, list) and isinstance(again, list):
        for number, pair in enumerate(zip(committed, again, strict=False)):
            if found := difference(*pair, f"{where}{number}."):
                return found
        return "" if len(committed) == len(again) else f"{where}length is another"
    if committed == again or _close(committed, again):
        return ""
    return f"{where.removesuffix('.')} is {committed!r}, made again {again!r}"


def difference_of_text(committed: str, again: str) -> str:
    """Where two texts differ first by more than the rounding of a number, and how."""
    lines = committed.splitlines(), again.splitlines()
    for number, (one, other) in enumerate(zip(*lines, strict=False), 1):
        parts = A_NUMBER.split(one), A_NUMBER.split(other)
        numbers = zip(A_NUMBER.findall(one), A_NUMBER.findall(other), strict=False)
        if parts[0] != parts[1] or not all(_close(float(a), float(b)) for a, b in numbers):
            return f"line {number} is {_short(one)}, made again {_short(other)}"
    return "" if len(lines[0]) == len(lines[1]) else "the number of lines is another"


def _close(one: Any, other: Any) -> bool:
    numbers = all(isinstance(value, int | float) for value in (one, other))
    return numbers and math.isclose(one, other, rel_tol=ROUNDING, abs_tol=ROUNDING)


def _short(line: str) -> str:
    return repr(line if len(line) <= 100 else f"{line[:100]}...")
