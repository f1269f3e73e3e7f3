"""Tables 5 and 6 of the paper, wall clock, from the records of what was timed here.

The paper's numbers stand beside ours where it has the row; rows of ours say that they are beyond
the paper. Times are medians over rounds; their quartiles are columns of the CSV, as is the record
that a number comes from. Standard errors of times are over rounds, of accuracies over questions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mars.config.experiment import Data, DraftAndTarget
from mars.decoding.methods import TIMED
from mars.evaluation.scores import mean
from mars.paper import published
from mars.paper.published import optional_int
from mars.paper.specs import PaperScale
from mars.paper.tables.evaluated import BEYOND
from mars.paper.tables.notes import data_note, missing_notes, paper_note, scale_notes
from mars.paper.tables.table import NONE, Measured, Table, TableCell
from mars.provenance.files import read_json, read_jsonl
from mars.provenance.stage import Spec

TimingRecord = Mapping[str, Any]
"""Record of what was timed, as the stages wall_clock and speculative write it."""

# What is timed: its row of Table 5, in the table's order.
ROWS_5 = {
    name: timed.table5_row + ("" if timed.in_paper else BEYOND) for name, timed in TIMED.items()
}
BATCHES = (4, 8, 16)
PUBLISHED_SCALE = "7B"  # of Table 5


class TimedModel(Spec):
    """What a timed model is."""

    stands_for: str
    method: str
    block_size: int | None


class TimedSpec(Spec):
    """What the timed models are, and how readers know the questions.

    Attributes:
        benchmark: title of the questions' benchmark.
        setting, one_token: names of decoding with ``tau``, and token by token, where the
            experiment has such settings.
        models: those that were timed, by name.
        pairs: rows of Table 6, in order.
    """

    data: Data
    scales: dict[str, PaperScale]
    benchmark: str
    tau: float
    setting: str | None
    one_token: str | None
    models: dict[str, TimedModel]
    pairs: tuple[DraftAndTarget, ...] = ()


CAPTION_5 = (
    "Wall clock by batch size: tokens per second, seconds, speed-up over AR decoding with a KV "
    "cache; accuracy (%) and tokens per forward of the same runs."
)
CAPTION_6 = (
    "MARS together with speculative decoding: tokens per second, seconds, speed-up over the "
    "first row; tokens per forward of the target, accuracy (%) and its change (points)."
)


def _table(
    name: str, caption: str, spec: TimedSpec, cells: list[TableCell], notes: list[str], **look: Any
) -> Table:
    return Table(
        name=name,
        caption=caption,
        cells=cells,
        notes=[
            paper_note(name),
            *scale_notes(spec.scales),
            *notes,
            data_note(spec.data),
            *missing_notes(cells),
        ],
        columns=("quantity",),
        **look,
    )


# --- Table 5 ------------------------------------------------------------------------------------


def table5(spec: TimedSpec, folder: Path) -> Table:
    """Table 5, from the folder that the stage wall_clock wrote."""
    records = {_key5(record): (file, record) for file, record in _read_lines(folder)}
    (model,) = spec.models.values()
    paper = _published5() if model.stands_for == PUBLISHED_SCALE else {}
    batches = [batch for batch in BATCHES if any(key[2] == batch for key in records)]
    batches = batches or sorted({key[2] for key in records})
    labels = {(label, block) for label, block, _ in (*records, *paper)}
    ranks = list(ROWS_5.values())
    cells = []
    for batch in batches:
        for label, block in sorted(labels, key=lambda row: (ranks.index(row[0]), row[1] or 0)):
            found = records.get((label, block, batch))
            cells += _cells5(spec, label, block, batch, found, paper.get((label, block, batch), {}))
    notes = _notes5(spec, [record for _, record in records.values()])
    look = {"lines": ("row", "cache_block"), "blocks": ("batch_size",)}
    return _table("table5", CAPTION_5, spec, cells, notes, **look)


def _key5(record: TimingRecord) -> tuple[str, int | None, int]:
    cell = record["spec"]["cell"]
    return ROWS_5[cell["method"]], cell["cache_block"], cell["batch"]


def _published5() -> dict[tuple[str, int | None, int], dict[str, float]]:
    """Quantities of each published row, by label, cache block and batch size."""
    quantities = ("tokens_per_second", "seconds", "speedup_over_ar")
    return {
        (
            line["method"],
            optional_int(line["cache_block"]),
            int(line["batch_size"]),
        ): {quantity: float(line[quantity]) for quantity in quantities}
        for line in published.table(5)
    }


def _cells5(
    spec: TimedSpec,
    label: str,
    block: int | None,
    batch: int,
    found: tuple[str, TimingRecord] | None,
    paper: Mapping[str, float],
) -> list[TableCell]:
    file, record = found or (NONE, {})
    ((model, identity),) = spec.models.items()
    setting = spec.one_token if label.startswith("AR") else spec.setting
    times: dict[str, TimingRecord | None] = {
        "tokens_per_second": record.get("tokens_per_second"),
        "seconds": record.get("seconds"),
        "speedup_over_ar": _over(record, "autoregressive"),
        "speedup_over_hf": _over(record, "hf"),
    }
    extra = {"batch_size": batch, "cache_block": block or NONE}

    def cell(quantity: str, ours: Measured | None, more: Mapping[str, Any]) -> TableCell:
        return TableCell(
            scale=identity.stands_for,
            row=label,
            quantity=quantity,
            benchmark=spec.benchmark,
            model=model if record else None,
            setting=setting,
            ours=ours,
            published=paper.get(quantity),
            extra={**extra, **more, "record": file},
        )

    return [
        *(cell(quantity, *_timed(measured)) for quantity, measured in times.items()),
        *(cell(quantity, ours, NO_SPREAD) for quantity, ours in _untimed(record).items()),
    ]


def _over(record: TimingRecord, baseline: str) -> TimingRecord | None:
    """Speed-up over a baseline; that of the baseline over itself is 1."""
    if not record or "skipped" in record:
        return None
    if record["spec"]["cell"]["method"] == baseline:
        rounds = len(record["seconds"]["values"])
        return {"median": 1.0, "quartiles": [1.0, 1.0], "values": [1.0] * rounds}
    return record["speedup_over"].get(baseline)


def _notes5(spec: TimedSpec, records: list[TimingRecord]) -> list[str]:
    measured = [record for record in records if "skipped" not in record]
    if not measured:
        return []
    ((model, identity),) = spec.models.items()
    counts = sorted({record["sequences"] for record in measured})
    first = measured[0]
    notes = [
        f"Every row decodes the same checkpoint, {model}; AR is its one-token mode on our engine. "
        "The paper's AR row is its AR SFT model.",
        f"{spec.benchmark}, {_or(counts)} questions, at most {first['spec']['max_new_tokens']} "
        f"new tokens, tau = {spec.tau}. {_machine(first)}",
        _spread_note(measured),
        "Speed-ups are medians of ratios within a round. The accuracy is lm-eval's of the very "
        "tokens that were timed.",
    ]
    if identity.stands_for != PUBLISHED_SCALE:
        notes.append(
            f"The paper times its {PUBLISHED_SCALE} model; this one stands for "
            f"{identity.stands_for}, so no published number is beside it."
        )
    cut = sorted({r["spec"]["cell"]["cache_block"] for r in measured if "timed_as" in r})
    if cut:
        notes.append(
            f"Cache blocks of {_or(cut)} hold every answer, so one measurement, of a block as long "
            "as an answer may be, stands for all of them."
        )
    wrong = [r for r in measured if not r["repeats_agree"]]
    if wrong:
        notes.append(f"In {len(wrong)} cells the rounds did not give the same tokens.")
    skipped = {r["spec"]["cell"]["method"]: r["skipped"] for r in records if "skipped" in r}
    return notes + [f"{ROWS_5[method]}: {why}." for method, why in skipped.items()]


# --- Table 6 ------------------------------------------------------------------------------------


def table6(spec: TimedSpec, folder: Path) -> Table:
    """Table 6, from the folder that the stage speculative wrote."""
    found = _read(folder, "*.json")
    order = [(pair.draft, pair.target) for pair in spec.pairs]
    found.sort(key=lambda item: order.index((item[1]["draft"], item[1]["target"])))
    paper = _published6()
    known = {_identity6(spec, record): (file, record) for file, record in found}
    cells: list[TableCell] = []
    for identity, (label, numbers) in paper.items():
        cells += _cells6(spec, label, known.get(identity), numbers, identity[1][1])
    for identity, (file, record) in known.items():
        if identity not in paper:
            label = f"{published.pair_label(record)}{BEYOND}"
            cells += _cells6(spec, label, (file, record), {}, identity[1][1])
    notes = _notes6(spec, [record for _, record in found])
    return _table("table6", CAPTION_6, spec, cells, notes, lines=("row",))


Identity = tuple[tuple[str, str, int | None], tuple[str, str, int | None]]
"""Method, scale and block size of the draft and of the target."""


def _identity6(spec: TimedSpec, record: TimingRecord) -> Identity:
    draft, target = (spec.models[record[role]] for role in ("draft", "target"))
    return _identity(draft), _identity(target)


def _identity(model: TimedModel) -> tuple[str, str, int | None]:
    return model.method, model.stands_for, model.block_size


def _published6() -> dict[Identity, tuple[str, dict[str, float]]]:
    """The paper's label and numbers of each row."""
    return {
        (_parsed(line["draft"]), _parsed(line["target"])): (
            published.pair_label(line),
            {key: float(value) for key, value in line.items() if key not in ("draft", "target")},
        )
        for line in published.table(6)
    }


def _parsed(label: str) -> tuple[str, str, int | None]:
    """What a published name such as ``MARS (7B B=4)`` stands for."""
    match = re.fullmatch(r"(AR SFT|MARS) \(([\d.]+B)(?:,? B=(\d+))?\)", label)
    assert match is not None, label
    method = "mars" if match[1] == "MARS" else "ar_sft"
    return method, match[2], int(match[3]) if match[3] else None


def _cells6(
    spec: TimedSpec,
    label: str,
    found: tuple[str, TimingRecord] | None,
    paper: Mapping[str, float],
    scale: str,
) -> list[TableCell]:
    file, record = found or (NONE, {})
    timed = {key: record.get(key) for key in ("tokens_per_second", "seconds", "speedup")}
    counted = {
        "tokens_per_target_forward": _plain(record, "tokens_per_target_forward"),
        "accuracy": _score(record, "accuracy"),
        "gsm8k_delta": _score(record, "delta"),
    }

    def cell(quantity: str, ours: Measured | None, more: Mapping[str, Any]) -> TableCell:
        return TableCell(
            scale=scale,
            row=label,
            quantity=quantity,
            benchmark=spec.benchmark,
            model=record.get("target"),
            setting=spec.setting if record else None,
            ours=ours,
            published=paper.get(quantity),
            extra={**more, "record": file},
        )

    return [
        *(cell(quantity, *_timed(measured)) for quantity, measured in timed.items()),
        *(cell(quantity, ours, NO_SPREAD) for quantity, ours in counted.items()),
    ]


def _notes6(spec: TimedSpec, records: list[TimingRecord]) -> list[str]:
    if not records:
        return []
    first = records[0]
    return [
        f"{spec.benchmark}, {first['sequences']} questions one at a time, K = "
        f"{first['draft_tokens']} drafted tokens, tau = {first['tau']} wherever MARS drafts or "
        f"verifies, at most {first['max_new_tokens']} new tokens. {_machine(first)}",
        _spread_note(records),
        "Change: accuracy minus that of the target by itself, one token per forward, on the same "
        "questions; the paper does not say what its change is from.",
    ]


# --- both ---------------------------------------------------------------------------------------

NO_SPREAD = {"quarter": NONE, "three_quarters": NONE}


def _read(folder: Path, pattern: str) -> list[tuple[str, TimingRecord]]:
    """Records with their names relative to the folder of all measurements."""
    return [
        (str(path.relative_to(folder.parent)), read_json(path))
        for path in sorted(folder.glob(pattern))
        if path.name != "manifest.json"
    ]


def _read_lines(folder: Path) -> list[tuple[str, TimingRecord]]:
    """The same where the records are lines of one file."""
    rows = read_jsonl(folder / "measurements.jsonl")
    return [(f"{folder.name}/measurements.jsonl: {row['condition']}", row) for row in rows]


def _timed(measured: TimingRecord | None) -> tuple[Measured | None, dict[str, Any]]:
    """The median with the standard error of the mean over rounds, and the quartiles."""
    if measured is None:
        return None, NO_SPREAD
    values = measured["values"]
    low, high = (round(value, 6) for value in measured["quartiles"])
    spread = {"quarter": low, "three_quarters": high}
    if len(values) < 2:
        return Measured(measured["median"]), spread
    return Measured(measured["median"], mean(values).stderr, len(values)), spread


def _untimed(record: TimingRecord) -> dict[str, Measured | None]:
    return {
        "accuracy": _score(record, "accuracy"),
        "tokens_per_forward": _plain(record, "tokens_per_forward"),
    }


def _score(record: TimingRecord, key: str) -> Measured | None:
    """A score in percent or points."""
    if (score := record.get(key)) is None:
        return None
    error = score["stderr"]
    return Measured(
        100 * score["value"], None if error is None else 100 * error, record["sequences"]
    )


def _plain(record: TimingRecord, key: str) -> Measured | None:
    return Measured(record[key]) if key in record else None


def _machine(record: TimingRecord) -> str:
    hardware = record["hardware"]
    gpus = ", ".join(hardware["gpus"])
    what = f"{gpus}, driver {record['gpu_driver']}" if gpus else hardware["processor"]
    threads = "" if gpus else f", {record['threads']} threads"
    precision = record.get("precision") or record["spec"]["precision"]
    return f"Timed on {what}{threads}, torch {record['versions']['torch']}, {precision}."


def _spread_note(records: Iterable[TimingRecord]) -> str:
    records = list(records)
    rounds = sorted({len(record["seconds"]["values"]) for record in records})
    widths = sorted(map(_relative_spread, records))
    return (
        f"Times are medians of {_or(rounds)} rounds in which the rows take turns, after a warm-up, "
        "their error that of the mean over rounds. Half the distance of the quartiles of the "
        f"seconds is {widths[len(widths) // 2]:.1%} of the median in the middle cell and "
        f"{widths[-1]:.1%} in the worst."
    )


def _relative_spread(record: TimingRecord) -> float:
    seconds = record["seconds"]
    low, high = seconds["quartiles"]
    return (high - low) / 2 / seconds["median"]


def _or(numbers: Iterable[int]) -> str:
    return " or ".join(map(str, numbers))
