"""What two runs of one job made: is it the same, and if not, in what does it differ first?

Times and memory are measured anew by every run and differ. Everything else is the same on the same
machine, but for rounding: sums in another order, as other threads or vector instructions add them,
are other sums in the last digits. On another machine numbers may be further apart.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, Literal

from mars.provenance.files import read_json, read_jsonl, sha256_file
from mars.provenance.manifest import NAME as MANIFEST

if TYPE_CHECKING:
    from torch import Tensor

WORDS = ("identical", "within tolerance", "not compared", "different")  # each outweighs the former

# What is measured by a clock or a counter of memory and differs from run to run.
TIMES = {"seconds", "startup_seconds", "tokens_per_second", "peak_memory_bytes", "load_average"}
# Hashes and sizes of what is compared itself; the spec, which the audit compares with its job's.
STANDS_FOR = {"samples_sha256", "sha256", "bytes", "cell_spec"}
# Where a job ran.
MACHINE = {"device", "versions", "hardware", "threads", "gpu_driver"}
_TIMED = {"weights", "model", "draft", "target", "benchmark", "precision", "block_size"}
_COUNTED = {"tokens", "forwards", "target_forwards", "draft_forwards", "sequences", "accuracy"}
JUDGED = {
    "measure_live_tau": _TIMED,  # tau follows a queue, so the clock decides what is decoded how
    "measure_wall_clock": _TIMED | _COUNTED,
    "measure_speculative": _TIMED | _COUNTED,
    "measure_vllm": _TIMED | {"sequences"},
}
"""Of the stages that time something, the keys that are no times and do not hang on one."""

# How far numbers may be from the recorded ones on the same machine, for rounding alone.
ROUNDING = 1e-4  # a number with a point: of its size
LAST_DIGITS = 1e-3  # each weight: of the root mean square of its tensor
BY_ROUNDING = "rounding, as other threads or vector instructions give"
# How far on another machine.
ERRORS = 2  # a score: standard errors of the difference of two independent ones
NUMBER = 0.05  # any other number, and the mean of each column of a log: of its size
WEIGHTS = 0.1  # length of the difference of all weights: of their length
QUESTION = {"task", "document", "prompt_sha256", "target"}  # what does not hang on the answer

_NUMERAL = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
_TEXT = (".md", ".csv", ".tex", ".txt", ".html", ".jinja", ".py", ".yaml")
_ABSENT = "nothing"


@dataclass(frozen=True)
class Compared:
    """One file of two runs.

    Attributes:
        word: one of :data:`WORDS`.
        text: where it differs first, or why the difference counts for nothing.
    """

    file: str
    word: str
    text: str = ""


@dataclass(frozen=True)
class Difference:
    """One place where two values differ."""

    at: str
    before: Any
    now: Any
    kind: Literal["time", "hash", "machine", "score", "number", "other"]

    def __str__(self) -> str:
        return f"{self.at or 'all of it'}: {_short(self.before)} -> {_short(self.now)}"


def compare(
    name: str, before: Path, now: Path, stage: str = "", elsewhere: str | None = None
) -> Compared:
    """Compare a file of one run with that of another run.

    Args:
        name: of the file, for people.
        stage: that made it.
        elsewhere: how the machine of the second run is another one, if it is.
    """
    if not before.is_file() or not now.is_file():
        which = "was not made again" if before.is_file() else "is new"
        return Compared(name, "different", which)
    if sha256_file(before) == sha256_file(now):
        return Compared(name, "identical")
    if before.suffix == ".safetensors":
        return _compare_weights(name, before, now, elsewhere)
    if before.suffix in _TEXT:
        return _compare_text(name, before, now, stage, elsewhere)
    if before.suffix not in (".json", ".jsonl"):
        return Compared(name, "different", f"from byte {_first_byte(before, now)} on")
    read = read_json if before.suffix == ".json" else read_jsonl
    try:
        values = read(before), read(now)
    except ValueError:
        return Compared(name, "different", f"from byte {_first_byte(before, now)} on")
    if before.suffix == ".jsonl" and elsewhere and stage not in JUDGED:
        return _compare_rows(name, *values, elsewhere)
    found = list(differences(*values, judged=JUDGED.get(stage)))
    compared = judge(name, found, elsewhere)
    if stage in JUDGED and compared.word == "identical" and (factor := _times_apart(found)):
        return Compared(name, "within tolerance", f"times, half of them {factor:.2g}-fold or less")
    return compared


def differences(
    before: Any, now: Any, at: str = "", kind: str = "other", judged: set[str] | None = None
) -> Iterator[Difference]:
    """Where two values differ, and what kind of value that is.

    ``judged``: the keys that are no times; None where a key says so itself.
    """
    if _is_score(before) and _is_score(now) and kind == "other" and judged is None:
        if before != now:
            yield Difference(at, before, now, "score")
    elif isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            there = before.get(key, _ABSENT), now.get(key, _ABSENT)
            of_key, below = _kind(key, kind, judged)
            yield from differences(*there, f"{at}.{key}" if at else key, of_key, below)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, there in enumerate(zip(before, now, strict=True)):
            yield from differences(*there, f"{at}[{index}]", kind, judged)
    elif before != now and not (_is_nan(before) and _is_nan(now)):
        timed = kind == "other" and judged is not None
        number = kind == "other" and _is_number(before) and _is_number(now)
        found = "time" if timed else "number" if number else kind
        yield Difference(at, before, now, found)  # type: ignore[arg-type]


def judge(name: str, found: list[Difference], elsewhere: str | None = None) -> Compared:
    """The word for differences of any kind."""
    moved = next((one for one in found if one.kind == "machine"), None)
    elsewhere = elsewhere or (str(moved) if moved else None)
    rest = [one for one in found if one.kind not in ("time", "hash", "machine")]
    coarse = [one for one in rest if not _is_rounded(one)]
    wrong = [one for one in coarse if not (elsewhere and _is_near(one))]
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return Compared(name, "different", f"{wrong[0]}{more}")
    if rest:
        why = elsewhere if elsewhere and coarse else BY_ROUNDING
        return Compared(
            name, "within tolerance", f"{why}; {len(rest)} of them, the first {rest[0]}"
        )
    aside = dict.fromkeys(_ASIDE[one.kind] for one in found)
    return Compared(name, "identical", f"{' and '.join(aside)} aside" if aside else "")


_ASIDE = {"time": "times", "hash": "hashes of other files", "machine": "the machine's name"}


def is_manifest(name: str) -> bool:
    """Whether a file stands for the folder that it is in."""
    return Path(name).name == MANIFEST


def _kind(key: str, kind: str, judged: set[str] | None) -> tuple[str, set[str] | None]:
    """What a key's value is, and which keys below it are no times."""
    if kind != "other":
        return kind, judged
    for keys, name in ((TIMES, "time"), (STANDS_FOR, "hash"), (MACHINE, "machine")):
        if key in keys:
            return name, judged
    return "other", None if judged is not None and key in judged else judged


def _is_score(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"value", "stderr"}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _is_rounded(one: Difference) -> bool:
    """Whether two numbers are the same but for their last digits; counts have none."""
    if one.kind == "score":
        pairs = [(one.before[key], one.now[key]) for key in ("value", "stderr")]
        return all(_same_but_last_digits(*pair) for pair in pairs)
    return one.kind == "number" and _same_but_last_digits(one.before, one.now)


def _same_but_last_digits(before: Any, now: Any) -> bool:
    if isinstance(before, float) and isinstance(now, float):
        return math.isclose(before, now, rel_tol=ROUNDING, abs_tol=ROUNDING / 10)
    return before == now


def _is_near(one: Difference) -> bool:
    """Whether another machine accounts for a difference."""
    if one.kind == "score":
        errors = [one.before["stderr"] or 0.0, one.now["stderr"] or 0.0]
        apart = abs(one.before["value"] - one.now["value"])
        return apart <= max(ERRORS * math.hypot(*errors), NUMBER * abs(one.before["value"]))
    return one.kind == "number" and math.isclose(one.before, one.now, rel_tol=NUMBER)


def _times_apart(found: list[Difference]) -> float | None:
    """The median factor between times that differ; None if there are none."""
    times = [(one.before, one.now) for one in found if one.kind == "time"]
    numbers = [(a, b) for a, b in times if _is_number(a) and _is_number(b) and a > 0 and b > 0]
    return median(max(a / b, b / a) for a, b in numbers) if numbers else None


def _compare_rows(name: str, before: list[Any], now: list[Any], elsewhere: str) -> Compared:
    """Lines of answers or of a log, made on another machine."""
    if len(before) != len(now):
        return Compared(name, "different", f"{len(before)} lines -> {len(now)} lines")
    if before and before[0].keys() >= QUESTION:
        asked, again = (
            [{key: row.get(key) for key in QUESTION} for row in rows] for rows in (before, now)
        )
        if asked != again:
            return judge(name, list(differences(asked, again)))
        other = sum(old != new for old, new in zip(before, now, strict=True))
        text = f"{elsewhere}; {other} of {len(now)} questions are answered in other words"
        return Compared(name, "within tolerance", text)
    return judge(name, list(differences(_means(before), _means(now))), elsewhere)


def _means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The mean of each column of a log that holds numbers."""
    keys = dict.fromkeys(key for row in rows for key, value in row.items() if _is_number(value))
    return {key: fmean(row[key] for row in rows if _is_number(row.get(key))) for key in keys}


def _compare_weights(name: str, before: Path, now: Path, elsewhere: str | None) -> Compared:
    from safetensors.torch import load_file

    old, new = load_file(before), load_file(now)
    shapes, shapes_now = (
        {key: list(value.shape) for key, value in file.items()} for file in (old, new)
    )
    if shapes != shapes_now:
        return judge(name, list(differences(shapes, shapes_now)))
    apart = {key: float((new[key].double() - old[key].double()).norm()) for key in old}
    length = math.hypot(*(float(value.double().norm()) for value in old.values()))
    share = math.hypot(*apart.values()) / length if length else math.inf
    first = next((key for key, distance in apart.items() if distance), None)
    if first is None:
        return Compared(name, "identical", "what the file says beside its weights aside")
    text = f"the weights are {share:.2g} of their length apart, the first of them in {first}"
    if all(_is_rounded_tensor(old[key].double(), new[key].double()) for key in old):
        return Compared(name, "within tolerance", f"{BY_ROUNDING}; {text}")
    if elsewhere and share <= WEIGHTS:
        return Compared(name, "within tolerance", f"{elsewhere}; {text}")
    return Compared(name, "different", text)


def _is_rounded_tensor(before: Tensor, now: Tensor) -> bool:
    size = float(before.square().mean().sqrt())
    return before.numel() == 0 or float((now - before).abs().max()) <= LAST_DIGITS * size


def _compare_text(
    name: str, before: Path, now: Path, stage: str, elsewhere: str | None
) -> Compared:
    """Text line by line, without the lines of a card that hold times."""
    timed = {f"| {key.replace('_', ' ')} |" for key in TIMES}
    lines = [
        [
            (n, line)
            for n, line in enumerate(file.read_text().splitlines(), 1)
            if not _in(line, timed)
        ]
        for file in (before, now)
    ]
    if [line for _, line in lines[0]] == [line for _, line in lines[1]]:
        return Compared(name, "identical", "times aside")
    reason = BY_ROUNDING
    for (number, old), (_, new) in zip(*lines, strict=False):
        if old == new or _alike(old, new, ROUNDING):
            continue
        reason = "times" if stage in JUDGED else elsewhere or ""
        if not reason or not _alike(old, new, math.inf if stage in JUDGED else NUMBER):
            return Compared(name, "different", f"line {number}: {_short(old)} -> {_short(new)}")
    if len(lines[0]) != len(lines[1]):
        return Compared(name, "different", f"{len(lines[0])} lines -> {len(lines[1])} lines")
    return Compared(name, "within tolerance", reason)


def _in(line: str, parts: set[str]) -> bool:
    return any(part in line for part in parts)


def _alike(before: str, now: str, limit: float) -> bool:
    """Whether two lines are the same but for numbers that are near each other; for rounding, only
    numbers with a point."""
    if _NUMERAL.sub("#", before) != _NUMERAL.sub("#", now):
        return False
    pairs = list(zip(_NUMERAL.findall(before), _NUMERAL.findall(now), strict=True))
    if limit == ROUNDING and any(a != b for a, b in pairs if "." not in a):
        return False
    return all(math.isclose(float(a), float(b), rel_tol=limit) for a, b in pairs)


def _first_byte(before: Path, now: Path) -> int:
    old, new = before.read_bytes(), now.read_bytes()
    pairs = enumerate(zip(old, new, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(old), len(new)))


def _short(value: Any, longest: int = 60) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= longest else f"{text[:longest]}..."
