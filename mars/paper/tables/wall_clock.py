"""Tables 5 and 6 of the paper, wall clock, from the records of what was timed here.

The paper's numbers stand beside ours where it has the row; rows of ours say that they are beyond
the paper. Times are means over rounds; their 95 % intervals, by Student's t, are columns of the
CSV, as is the record that a number comes from. Standard errors of times are over rounds, of
accuracies over questions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mars.config.experiment import Data, DraftAndTarget
from mars.decoding.methods import TIMED
from mars.evaluation.scores import mean
from mars.paper import published
from mars.paper.published import optional_int
from mars.paper.specs import ModelIdentity, PaperScale
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
    models: dict[str, ModelIdentity]
    pairs: tuple[DraftAndTarget, ...] = ()

    def stands_for(self, model: str) -> str:
        """The paper's scale of a model."""
        return self.scales[self.models[model].scale].stands_for


class PairsSpec(TimedSpec):
    """Of Table 6; ``in_vllm``: the pairs that were timed in vLLM, in order."""

    in_vllm: tuple[DraftAndTarget, ...] = ()


CAPTION_5 = (
    "Wall clock by batch size: tokens per second, seconds, speed-up over AR decoding with a KV "
    "cache; accuracy (%) and tokens per forward of the same runs."
)
CAPTION_6 = (
    "MARS with speculative decoding: tokens per second, seconds, speed-up over the first row; "
    "tokens per forward of the target, accuracy (%) and its change (points)."
)


# --- Table 5 ------------------------------------------------------------------------------------


def table5(spec: TimedSpec, folder: Path) -> Table:
    """Table 5, from the folder that the stage wall_clock wrote."""
    records = {_key5(record): (file, record) for file, record in _read_lines(folder)}
    (model,) = spec.models
    paper = _published5() if spec.stands_for(model) == PUBLISHED_SCALE else {}
    batches = [batch for batch in BATCHES if any(key[2] == batch for key in records)]
    batches = batches or sorted({key[2] for key in records})
    ranks = list(ROWS_5.values())
    labels = {(label, block) for label, block, _ in (*records, *paper)}
    cells = []
    for batch in batches:
        for label, block in sorted(labels, key=lambda row: (ranks.index(row[0]), row[1] or 0)):
            file, record = records.get((label, block, batch), (NONE, {}))
            cells += _cells(
                {
                    "tokens_per_second": record.get("tokens_per_second"),
                    "seconds": record.get("seconds"),
                    "speedup_over_ar": _over(record, "autoregressive"),
                    "speedup_over_hf": _over(record, "hf"),
                },
                {
                    "accuracy": _score(record, "accuracy"),
                    "tokens_per_forward": _plain(record, "tokens_per_forward"),
                },
                paper.get((label, block, batch), {}),
                file,
                {"batch_size": batch, "cache_block": block or NONE},
                scale=spec.stands_for(model),
                row=label,
                benchmark=spec.benchmark,
                model=model if record else None,
                setting=spec.one_token if label.startswith("AR") else spec.setting,
            )
    notes = _notes5(spec, [record for _, record in records.values()])
    look = {"lines": ("row", "cache_block"), "blocks": ("batch_size",)}
    return _table("table5", CAPTION_5, spec, cells, notes, **look)


def _key5(record: TimingRecord) -> tuple[str, int | None, int]:
    cell = record["spec"]["cell"]
    return ROWS_5[cell["method"]], cell["cache_block"], cell["batch"]


def _published5() -> dict[tuple[str, int | None, int], dict[str, float]]:
    """Quantities of each published row, by label, cache block and batch size."""
    quantities = ("tokens_per_second", "seconds", "speedup_over_ar")
    found = {}
    for line in published.table(5):
        key = line["method"], optional_int(line["cache_block"]), int(line["batch_size"])
        found[key] = {quantity: float(line[quantity]) for quantity in quantities}
    return found


def _over(record: TimingRecord, baseline: str) -> TimingRecord | None:
    """Speed-up over a baseline; that of the baseline over itself is 1."""
    if not record or "skipped" in record:
        return None
    if record["spec"]["cell"]["method"] == baseline:
        rounds = len(record["seconds"]["values"])
        return {"mean": 1.0, "interval": [1.0, 1.0], "values": [1.0] * rounds}
    return record["speedup_over"].get(baseline)


def _notes5(spec: TimedSpec, records: list[TimingRecord]) -> list[str]:
    measured = [record for record in records if "skipped" not in record]
    if not measured:
        return []
    (model,) = spec.models
    first = measured[0]
    notes = [
        f"All rows decode with the same checkpoint, {model}; AR is its one-token mode in our "
        "engine. The paper's AR row is its AR SFT model.",
        f"{_or(record['sequences'] for record in measured)} {spec.benchmark} questions, at most "
        f"{first['spec']['max_new_tokens']} new tokens, tau = {spec.tau}. {_machine(first)}",
        _spread_note(measured),
        "A speed-up is the mean over the rounds of the ratio within a round. lm-eval computes the "
        "accuracy from the very tokens that were timed.",
    ]
    if (scale := spec.stands_for(model)) != PUBLISHED_SCALE:
        notes.append(
            f"The paper times its {PUBLISHED_SCALE} model; this one stands in for {scale}, so "
            "no published numbers are shown."
        )
    if cut := [r["spec"]["cell"]["cache_block"] for r in measured if "timed_as" in r]:
        notes.append(
            f"Cache blocks of {_or(cut)} hold every answer whole, so one measurement, with a block "
            "as long as the longest answer allowed, serves for all of them."
        )
    if wrong := [r for r in measured if not r["repeats_agree"]]:
        notes.append(f"In {len(wrong)} cells the rounds did not produce the same tokens.")
    skipped = {r["spec"]["cell"]["method"]: r["skipped"] for r in records if "skipped" in r}
    return notes + [f"{ROWS_5[method]}: {why}." for method, why in skipped.items()]


# --- Table 6 ------------------------------------------------------------------------------------

Identity = tuple[str, str, int | None]
"""Method, scale and block size of a draft or a target."""


def table6(spec: PairsSpec, folder: Path, in_vllm: Path | None = None) -> Table:
    """Table 6, from the folders that the stages speculative and, where there is one, vllm wrote."""
    found = _in_order(folder, spec.pairs)
    known = {_pair(spec, record): (file, record) for file, record in found}
    paper = _published6()
    beyond: dict[tuple[Identity, Identity], tuple[str, dict[str, float]]] = {
        pair: (f"{published.pair_label(record)}{BEYOND}", {})
        for pair, (_, record) in known.items()
        if pair not in paper
    }
    cells: list[TableCell] = []
    for pair, (label, printed) in (paper | beyond).items():
        file, record = known.get(pair, (NONE, {}))
        cells += _cells(
            {key: record.get(key) for key in ("tokens_per_second", "seconds", "speedup")},
            {
                "tokens_per_target_forward": _plain(record, "tokens_per_target_forward"),
                "accuracy": _score(record, "accuracy"),
                "gsm8k_delta": _score(record, "delta"),
            },
            printed,
            file,
            scale=pair[1][1],
            row=label,
            benchmark=spec.benchmark,
            model=record.get("target"),
            setting=spec.setting if record else None,
        )
    notes = _notes6(spec, [record for _, record in found])
    if in_vllm is None:
        return _table("table6", CAPTION_6, spec, cells, notes, lines=("row",))
    records = _in_order(in_vllm, spec.in_vllm)
    cells = [replace(cell, extra={"engine": "this project", **cell.extra}) for cell in cells]
    cells += [cell for file, record in records for cell in _cells_in_vllm(spec, file, record)]
    notes += _notes_in_vllm(spec, [record for _, record in records])
    look = {"lines": ("row",), "blocks": ("engine",)}
    return _table("table6", CAPTION_6, spec, cells, notes, **look)


def _in_order(folder: Path, pairs: Sequence[DraftAndTarget]) -> list[tuple[str, TimingRecord]]:
    """The records of pairs in a folder, in the order of the configuration."""
    order = [(pair.draft, pair.target) for pair in pairs]
    found = _read(folder, "*.json")
    return sorted(found, key=lambda item: order.index((item[1]["draft"], item[1]["target"])))


def _pair(spec: TimedSpec, record: TimingRecord) -> tuple[Identity, Identity]:
    def identity(name: str) -> Identity:
        return spec.models[name].method, spec.stands_for(name), spec.models[name].block_size

    return identity(record["draft"]), identity(record["target"])


def _published6() -> dict[tuple[Identity, Identity], tuple[str, dict[str, float]]]:
    """The paper's label and numbers of each row."""
    return {
        (_parsed(line["draft"]), _parsed(line["target"])): (
            published.pair_label(line),
            {key: float(value) for key, value in line.items() if key not in ("draft", "target")},
        )
        for line in published.table(6)
    }


def _parsed(label: str) -> Identity:
    """What a published name such as ``MARS (7B B=4)`` stands for."""
    match = re.fullmatch(r"(AR SFT|MARS) \(([\d.]+B)(?:,? B=(\d+))?\)", label)
    assert match is not None, label
    return match[1].lower().replace(" ", "_"), match[2], optional_int(match[3])


def _notes6(spec: TimedSpec, records: list[TimingRecord]) -> list[str]:
    if not records:
        return []
    first = records[0]
    return [
        f"{first['sequences']} {spec.benchmark} questions, one at a time, with K = "
        f"{first['draft_tokens']} drafted tokens, tau = {first['tau']} wherever MARS drafts or "
        f"verifies, and at most {first['max_new_tokens']} new tokens. {_machine(first)}",
        _spread_note(records),
        "Change: accuracy minus the accuracy of the target alone, at one token per forward, on the "
        "same questions. The paper does not say what its change is measured from.",
    ]


# --- Table 6, in vLLM ---------------------------------------------------------------------------


def _cells_in_vllm(spec: TimedSpec, file: str, record: TimingRecord) -> list[TableCell]:
    """A row of what was timed in vLLM; it answers as the target does, one token per forward."""
    return _cells(
        {
            "tokens_per_second": record["tokens_per_second"],
            "seconds": record["seconds"],
            "speedup_over_ar": record["speedup"],
        },
        {
            "tokens_per_target_forward": _plain(record, "tokens_per_target_forward"),
            "accuracy": _score(record, "accuracy"),
            "percent_equal_to_greedy": Measured(
                100 * record["equal_to_greedy"] / record["sequences"]
            ),
        },
        {},
        file,
        {"engine": "vLLM"},
        scale=spec.stands_for(record["target"]),
        row=f"{published.pair_label(record)} in vLLM{BEYOND}",
        benchmark=spec.benchmark,
        model=record["target"],
        setting=spec.one_token,
    )


def _notes_in_vllm(spec: TimedSpec, records: list[TimingRecord]) -> list[str]:
    first = records[0]
    installed = first["in_vllm"]
    drafted = ", ".join(
        f"{record['draft_tokens']} for {published.pair_label(record)}" for record in records
    )
    equal = ", ".join(f"{record['equal_to_greedy']} of {record['sequences']}" for record in records)
    times = f"vLLM {installed['vllm']} with torch {installed['torch']}"
    return [
        f"In vLLM, beyond the paper: stock {times}, {first['sequences']} {spec.benchmark} "
        f"questions, one at a time, at most {first['max_new_tokens']} new tokens. K tokens are "
        f"drafted ({drafted}), by MARS in one forward, by AR one by one; the target keeps those "
        "that it would have chosen itself, so there is no tau. AR is vLLM's own decoding of the "
        "same target, token by token, in the same rounds.",
        f"Outputs equal to vLLM's greedy decoding of the target: {equal}. What was changed in the "
        "checkpoints for vLLM is in the records (`changes`); none of it changes what they compute.",
    ]


# --- both ---------------------------------------------------------------------------------------


def _read(folder: Path, pattern: str) -> list[tuple[str, TimingRecord]]:
    """Records with their names relative to the folder of all measurements."""
    return [
        (str(path.relative_to(folder.parent)), read_json(path))
        for path in sorted(folder.glob(pattern))
        if path.name != "manifest.json"
    ]


def _table(
    name: str, caption: str, spec: TimedSpec, cells: list[TableCell], notes: list[str], **look: Any
) -> Table:
    before, after = [paper_note(name), *scale_notes(spec.scales)], missing_notes(cells)
    notes = [*before, *notes, data_note(spec.data), *after]
    return Table(name, caption, cells, notes, columns=("quantity",), **look)


def _cells(
    timed: Mapping[str, TimingRecord | None],
    counted: Mapping[str, Measured | None],
    paper: Mapping[str, float],
    file: str,
    extra: Mapping[str, str | int] | None = None,
    **row: Any,
) -> list[TableCell]:
    """The cells of a row, its times with their intervals; ``file``: the record they are from."""
    ours = {quantity: _timed(measured) for quantity, measured in timed.items()}
    ours |= {quantity: (number, NONE, NONE) for quantity, number in counted.items()}
    return [
        TableCell(
            quantity=quantity,
            ours=number,
            published=paper.get(quantity),
            extra={**(extra or {}), "lower": lower, "upper": upper, "record": file},
            **row,
        )
        for quantity, (number, lower, upper) in ours.items()
    ]


def _read_lines(folder: Path) -> list[tuple[str, TimingRecord]]:
    """The same where the records are lines of one file."""
    rows = read_jsonl(folder / "measurements.jsonl")
    return [(f"{folder.name}/measurements.jsonl: {row['condition']}", row) for row in rows]


def _timed(measured: TimingRecord | None) -> tuple[Measured | None, float | str, float | str]:
    """The mean with its standard error over rounds, and the ends of its interval."""
    if measured is None:
        return None, NONE, NONE
    values = measured["values"]
    if len(values) < 2:
        return Measured(measured["mean"]), NONE, NONE
    lower, upper = (round(end, 6) for end in measured["interval"])
    return Measured(measured["mean"], mean(values).stderr, len(values)), lower, upper


def _score(record: TimingRecord, key: str) -> Measured | None:
    """A score in percent or points."""
    if (score := record.get(key)) is None:
        return None
    error = None if score["stderr"] is None else 100 * score["stderr"]
    return Measured(100 * score["value"], error, record["sequences"])


def _plain(record: TimingRecord, key: str) -> Measured | None:
    return Measured(record[key]) if key in record else None


def _machine(record: TimingRecord) -> str:
    hardware = record["hardware"]
    gpus = ", ".join(hardware["gpus"])
    what = f"{gpus}, driver {record['gpu_driver']}" if gpus else hardware["processor"]
    threads = "" if gpus else f", {record['threads']} threads"
    precision = record.get("precision") or record["spec"]["precision"]
    return f"Timed on {what}{threads}, torch {record['versions']['torch']}, {precision}."


def _spread_note(records: list[TimingRecord]) -> str:
    taken = [record["seconds"] for record in records]
    ends = [(one["mean"], *one["interval"]) for one in taken if one["interval"] is not None]
    widths = sorted((upper - lower) / 2 / middle for middle, lower, upper in ends)
    wide = (
        f" Half the 95 % interval of the seconds is {widths[len(widths) // 2]:.1%} of the mean in "
        f"the middle cell and {widths[-1]:.1%} in the worst."
        if widths
        else ""
    )
    return (
        f"Times are means over the rounds ({_or(len(seconds['values']) for seconds in taken)} per "
        "cell), in which the rows take turns after a warm-up; ± is the standard error of the mean. "
        "Intervals (`lower`, `upper` in the CSV) are by Student's t. Rounds end when those of all "
        f"ratios are narrow enough, so they are nominal.{wide}"
    )


def _or(numbers: Iterable[int]) -> str:
    return " or ".join(map(str, sorted(set(numbers))))
