"""What the claims are judged by, and what a verdict on one of them says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mars.paper import published
from mars.paper.claims.intervals import Interval
from mars.paper.claims.significance import PairedTest, combined_test, speed
from mars.paper.claims.verdicts import Verdict, combined
from mars.paper.evaluations import Evaluations, ModelAndSetting, models_for
from mars.paper.published import STAGE_EPOCHS, Row
from mars.paper.tables.table import NONE, NOT_RUN
from mars.paper.tables.tidy_csv import Line

ServedRecord = Mapping[str, Any]
"""Record of a policy under load, as the stage live_tau writes it."""
Described = Mapping[str, Any]
"""What :func:`mars.checkpoints.describe.describe` says of a checkpoint."""


@dataclass(frozen=True)
class Results:
    """What the claims are judged by.

    Attributes:
        tables: lines of the tidy CSV of Tables 5 and 6, by name, where they were made.
        live_tau: record of each policy under load, where it was measured.
        checkpoints: by model.
        cache_block: the granularity of the block cache that is judged, chosen before the run.
    """

    evaluations: Evaluations
    tables: Mapping[str, Sequence[Line]] = field(default_factory=dict)
    live_tau: Mapping[str, ServedRecord] = field(default_factory=dict)
    checkpoints: Mapping[str, Described] = field(default_factory=dict)
    cache_block: int | None = None

    def run_of(self, row: Row | None) -> ModelAndSetting | None:
        """Our model and setting for a row, if both are there and were run."""
        if row is None:
            return None
        run = {ModelAndSetting(model, name) for model, name, _ in self.evaluations.records}
        models = models_for(row, self.evaluations.spec)
        found = (ModelAndSetting(m, self.evaluations.setting_of(m, row.decoding)) for m in models)
        return next((one for one in found if one in run), None)

    def test(self, comparison: str, after: Row | None, before: Row | None) -> PairedTest | None:
        """The paired test of two rows, if both were run on the same questions."""
        pair = self.run_of(after), self.run_of(before)
        if after is None or before is None or pair[0] is None or pair[1] is None:
            return None
        found = combined_test(comparison, self.evaluations, {pair[0]: 1, pair[1]: -1})
        return found and beside_the_paper(found, [(after, 1), (before, -1)])

    def speed(self, row: Row, overrun: bool = False) -> tuple[Interval, int, int] | None:
        """Average tokens per forward of a row, as :func:`significance.speed` gives it."""
        run = self.run_of(row)
        return None if run is None else speed(self.evaluations, run, overrun)

    def checkpoint(self, row: Row | None) -> Described | None:
        """What is known of the checkpoint of a row's model."""
        run = self.run_of(row)
        return self.checkpoints.get(str(run.model)) if run else None

    def speedups(self, table: str, quantity: str) -> list[Line]:
        """The speed-ups of a table that were measured."""
        lines = self.tables.get(table, ())
        return [
            one
            for one in lines
            if one["quantity"] == quantity and one["value"] not in (NOT_RUN, NONE)
        ]


POINTS, TOKENS, TIMES, SECONDS = "points", "tokens per forward", "times as fast", "seconds"


@dataclass(frozen=True)
class Estimate:
    """A number behind a claim, as a plot draws it.

    Attributes:
        label: what it is of.
        unit: one of those above.
        at_least, at_most: the bounds that the claim's rule sets its interval; None where it sets
            none.
        verdict: of this number alone; empty where it is shown and decides nothing.
        published: the same number in the paper; None where it has none.
    """

    label: str
    unit: str
    interval: Interval
    verdict: str = ""
    at_least: float | None = None
    at_most: float | None = None
    published: float | None = None

    def plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = dict(vars(self))
        return values | values.pop("interval").plain()


@dataclass(frozen=True)
class Judged:
    """A verdict, the numbers behind it as text, and the paired tests among them.

    Attributes:
        estimates: the numbers as a plot draws them; none where nothing is uncertain.
        p: how probable numbers like these would be if the verdict were wrong, two-sided; None
            where nothing is left to chance, or nothing was run.
        trainings: how often the model was trained that was trained the fewest times; None where
            no training decides. One training says nothing of the next.
    """

    verdict: str
    evidence: str
    tests: Sequence[PairedTest] = ()
    estimates: Sequence[Estimate] = ()
    p: float | None = None
    trainings: int | None = None


NOTHING = Judged(NOT_RUN, "this experiment has not measured it")


def judged_by(
    verdicts: Sequence[Verdict],
    parts: Iterable[str],
    tests: Sequence[PairedTest] = (),
    estimates: Sequence[Estimate] = (),
    trainings: Iterable[int] = (),
) -> Judged:
    """What several parts of a claim say together; nothing was run if there is none.

    It rests on ``trainings`` of further models, and on those of the ``tests`` that decide.
    """
    if not verdicts:
        return NOTHING
    decide = {one.label for one in estimates if one.verdict}
    tested = [test.trainings for test in tests if test.comparison in decide]
    fewest = min([*trainings, *tested], default=None)
    word, p = combined(verdicts)
    return Judged(word, "; ".join(parts), tests, estimates, p or None, fewest)


def beside_the_paper(test: PairedTest, terms: Iterable[tuple[Row, int]]) -> PairedTest:
    """A test with the paper's number of it, over the benchmarks of the test."""
    titles = [one.title for one in test.benchmarks]
    return replace(test, published=published.change_of_accuracy(terms, titles))


def in_points(
    test: PairedTest,
    verdict: Verdict | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Estimate:
    """A paired test as a plot draws it; without a verdict, one that is only shown."""
    word = verdict.word if verdict else ""
    return Estimate(
        test.comparison, POINTS, test.difference, word, at_least, at_most, test.published
    )


def shown(value: Interval) -> str:
    """A value with its interval, as evidence has it."""
    return f"{value.value:.2f} [{value.lower:.2f}, {value.upper:.2f}]"


# --- the rows that claims are about -------------------------------------------------------------


def row_of(table: Iterable[Row], **wanted: Any) -> Row | None:
    """The first row with these attributes."""
    found = (row for row in table if all(getattr(row, k) == v for k, v in wanted.items()))
    return next(found, None)


def ar_sft(scale: str, epochs: int = STAGE_EPOCHS) -> Row | None:
    """AR SFT of Table 2."""
    return row_of(published.table2(), scale=scale, method="ar_sft", epochs=epochs)


def mars(scale: str, size: int | None, sft_loss: bool = True) -> Row | None:
    """A MARS model of Table 3, in one-token mode."""
    wanted = {"scale": scale, "method": "mars", "block_size": size, "sft_loss": sft_loss}
    return row_of(published.table3(), **wanted)
