"""A model trained from several seeds is one row: the mean, with what questions and seeds add."""

from __future__ import annotations

import csv
import io
import math
import random
import statistics

import numpy as np
import pytest

from mars.evaluation.scores import mean_ratio, ratio
from mars.paper.evaluations import EvaluationKey, Evaluations, ModelAndSetting
from mars.paper.figures.sweep import sweep_points
from mars.paper.published import AVERAGE, table4
from mars.paper.tables.evaluated import table_cells
from mars.paper.tables.table import Measured, TableCell
from mars.paper.tables.tidy_csv import COLUMNS, as_csv
from tests.support import synthetic_evaluations as synthetic

TITLES = ("GSM8K", "HumanEval")
SEEDS = ("m4", "m4-seed1", "m4-seed2")


@pytest.fixture
def evaluated() -> Evaluations:
    """MARS B=4 of three seeds, everything else of one."""
    spec = synthetic.experiment(TITLES)
    more = {name: spec.models["m4"].model_copy(update={"seed_of": "m4"}) for name in SEEDS[1:]}
    spec = spec.model_copy(update={"models": {**spec.models, **more}})
    records, answers = synthetic.evaluations(spec, seed=3, n=40)
    for number, name in enumerate(SEEDS[1:], 1):  # evaluated as the first seed is
        for key in [key for key in records if key.model == "m4"]:
            draw = random.Random(f"{number} {key}")
            rows = synthetic.samples([draw.randint(0, 1) for _ in range(40)], draw)
            scores = [row["scores"]["none"]["exact_match"] for row in rows]
            records[key._replace(model=name)] = synthetic.record(scores, synthetic.speed(rows))
            answers[key._replace(model=name)] = rows
    return Evaluations(spec, records, answers)


def only(evaluations: Evaluations, *names: str) -> Evaluations:
    """The experiment as if these were all its trainings of MARS B=4, the first of them plain."""
    models = {n: m for n, m in evaluations.spec.models.items() if n not in SEEDS}
    models |= {name: evaluations.spec.models["m4"] for name in names}
    return Evaluations(
        evaluations.spec.model_copy(update={"models": models}),
        {key: one for key, one in evaluations.records.items() if key.model in models},
        evaluations.answers,
    )


@pytest.mark.parametrize("quantity", ["accuracy", "tokens_per_forward", "delta_from_tau_1"])
def test_a_cell_is_the_mean_of_its_seeds(evaluated: Evaluations, quantity: str):
    titles = [*TITLES, AVERAGE]
    whole = evaluated.measure(quantity, ModelAndSetting("m4", "fast"), titles)
    each = [
        only(evaluated, name).measure(quantity, ModelAndSetting(name, "fast"), titles)
        for name in SEEDS
    ]
    for title in titles:
        cell = whole[title]
        assert cell is not None
        assert cell.seeds == pytest.approx([one[title].value for one in each])
        assert cell.value == pytest.approx(statistics.fmean(cell.seeds))
        over_seeds = statistics.stdev(cell.seeds) / math.sqrt(3)
        assert over_seeds < cell.stderr
        # More trainings never know less of the questions than each alone does.
        assert cell.stderr**2 < over_seeds**2 + statistics.fmean(o[title].stderr ** 2 for o in each)
        assert cell.n == each[0][title].n


def test_one_seed_alone_shows_what_it_showed(evaluated: Evaluations):
    alone = only(evaluated, "m4")
    cells = table_cells(table4(), alone)
    assert all(not cell.ours.seeds for cell in cells if isinstance(cell.ours, Measured))
    assert as_csv(cells).partition("\n")[0].split(",") == [*COLUMNS]


def test_a_table_has_one_row_for_all_seeds(evaluated: Evaluations):
    cells = [cell for cell in table_cells(table4(), evaluated) if cell.model in SEEDS]
    assert {cell.model for cell in cells} == {"m4"}
    lines = list(csv.DictReader(io.StringIO(as_csv(cells))))
    for cell, line in zip(cells, lines, strict=True):
        if cell.ours is not None:
            assert line["seeds"] == "3"
            assert [float(value) for value in line["by_seed"].split(";")] == pytest.approx(
                cell.ours.seeds, abs=1e-6
            )
            low, high = cell.ours_as_read.partition("[")[2].rstrip("]").split(", ")
            assert float(low) <= round(cell.ours.value, 2) <= float(high)


def test_a_figure_has_one_curve_for_all_seeds(evaluated: Evaluations):
    points = [one for one in sweep_points(evaluated) if one.model in SEEDS]
    assert {point.model for point in points} == {"m4"}
    assert {point.seeds for point in points} == {3}
    one = points[0]
    run = ModelAndSetting("m4", one.setting)
    assert one.accuracy == evaluated.measure("accuracy", run, [one.benchmark])[one.benchmark].value


def test_seeds_that_were_not_run_are_left_out(evaluated: Evaluations):
    key = EvaluationKey("m4-seed1", "fast", "gsm8k")
    records = {k: r for k, r in evaluated.records.items() if k != key}
    some = Evaluations(evaluated.spec, records, evaluated.answers)
    run = ModelAndSetting("m4", "fast")
    assert len(some.measure("accuracy", run, ["GSM8K"])["GSM8K"].seeds) == 2
    assert len(some.measure("accuracy", run, ["HumanEval"])["HumanEval"].seeds) == 3


def test_a_number_reads_with_its_seeds():
    cell = TableCell("0.5B", "MARS", "accuracy", ours=Measured(62.5, 1.26, 40, seeds=(61.0, 64.0)))
    assert cell.ours_as_read == "62.5 ± 1.3 [61.0, 64.0]"


# --- the standard error -------------------------------------------------------------------------


def test_mean_ratio_of_one_run_is_ratio():
    draw = random.Random(0)
    xs = [draw.randint(1, 9) for _ in range(30)]
    ys = [draw.randint(0, 9) for _ in range(30)]
    assert mean_ratio([ys], [xs]) == ratio(ys, xs)
    assert mean_ratio([ys] * 3, [xs] * 3).stderr == pytest.approx(ratio(ys, xs).stderr)


@pytest.mark.parametrize(("seed_effect", "question_effect"), [(0.0, 1.5), (0.6, 0.0), (0.4, 1.0)])
def test_the_standard_error_is_how_much_the_mean_varies(seed_effect, question_effect):
    """Drawn again and again, seeds and questions anew: the mean varies as the error says."""
    draw = np.random.default_rng(7)
    spec = synthetic.experiment(("GSM8K",))
    more = {name: spec.models["m4"].model_copy(update={"seed_of": "m4"}) for name in SEEDS[1:]}
    spec = spec.model_copy(update={"models": {"m4": spec.models["m4"], **more}})
    values, variances = [], []
    for _ in range(300):
        logits = seed_effect * draw.normal(size=(3, 1)) + question_effect * draw.normal(size=60)
        scores = (draw.random((3, 60)) < 1 / (1 + np.exp(-logits))).astype(int).tolist()
        keys = [EvaluationKey(name, "plain", "gsm8k") for name in SEEDS]
        records = {k: synthetic.record(row) for k, row in zip(keys, scores, strict=True)}
        answers = {k: synthetic.samples(row) for k, row in zip(keys, scores, strict=True)}
        made = Evaluations(spec, records, answers)
        cell = made.measure("accuracy", ModelAndSetting("m4", "plain"), ["GSM8K"])["GSM8K"]
        values.append(cell.value)
        variances.append(cell.stderr**2)
    ratio_of_errors = math.sqrt(statistics.fmean(variances)) / statistics.stdev(values)
    assert 0.95 < ratio_of_errors < 1.35  # never too small; a little large, see `_over_seeds`
