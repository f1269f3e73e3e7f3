"""Verdicts by cases, published errors by formula, and every published number accounted for."""

import csv
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mars.config.experiment import load_experiment
from mars.paper.artefacts import ARTEFACTS
from mars.paper.claims.comparison import (
    OF_THE_MACHINE,
    RULES,
    TOLERANCE,
    VERDICTS,
    published_stderr,
    verdict,
    write_comparison,
)
from mars.paper.claims.intervals import Uncertain
from mars.paper.claims.verdicts import (
    AGREES,
    COMPATIBLE,
    DIFFERS,
    UNDECIDED,
    chance_to_differ,
    equivalence,
)
from mars.paper.evaluations import Evaluations
from mars.paper.published import AVERAGE, BENCHMARKS, QUESTIONS
from mars.paper.specs import ComparisonSpec
from mars.paper.stage import comparison_spec
from mars.paper.tables.files import write
from mars.paper.tables.stage import EVALUATED
from tests.support.printed_tables import printed
from tests.support.synthetic_evaluations import evaluations, experiment

COMPARED = {name: one.compared for name, one in ARTEFACTS.items() if one.compared}
ROOT = Path(__file__).resolve().parents[3]
CONFIG, DOCS = ROOT / "config", ROOT / "docs/comparison.md"


@pytest.mark.parametrize(
    ("quantity", "difference", "stderr", "same_models", "expected"),
    [
        ("accuracy", None, None, True, "not run"),
        ("accuracy", None, 1.0, False, "not run"),
        ("accuracy", 0.0, 1.0, False, "not comparable"),
        ("accuracy", 1.0, 0.0, True, "agrees"),
        ("accuracy", 0.5, 0.25, True, "agrees"),
        ("accuracy", 0.0, 0.52, True, "compatible"),  # small, but not known to be small
        ("accuracy", -1.0, None, True, "not comparable"),
        ("accuracy", 1.01, 0.1, True, "undecided"),
        ("accuracy", 1.5, 0.25, True, "differs"),
        ("accuracy", -3.9, 2.0, True, "compatible"),
        ("accuracy", 3.93, 2.0, True, "undecided"),
        ("accuracy", -4.93, 2.0, True, "differs"),
        ("accuracy", 3.0, None, True, "not comparable"),
        ("delta_from_tau_1", -2.0, 1.5, True, "compatible"),
        ("tokens_per_forward", 0.05, 0.0, True, "agrees"),
        ("tokens_per_forward", -0.08, 0.01, True, "differs"),
        ("speedup_over_ar", 0.2, 0.11, True, "compatible"),
        ("seconds", 0.0, 0.0, True, "not comparable"),
        ("tokens_per_second", 0.0, 0.0, True, "not comparable"),
    ],
)
def test_the_rules_by_cases(quantity, difference, stderr, same_models, expected):
    assert verdict(quantity, difference, stderr, same_models)[0] == expected


@given(
    quantity=st.sampled_from([*TOLERANCE, *OF_THE_MACHINE]),
    difference=st.none() | st.floats(-100, 100),
    stderr=st.none() | st.floats(0, 50),
    same_models=st.booleans(),
    same_answers=st.booleans(),
)
def test_every_verdict_has_a_rule_and_no_sign(
    quantity, difference, stderr, same_models, same_answers
):
    word, rule, chance = verdict(
        quantity, difference, stderr, same_models, same_answers=same_answers
    )
    assert word in VERDICTS
    assert rule in RULES
    assert 0 <= chance <= 0.05 + 1e-9
    if difference is not None:
        other = verdict(quantity, -difference, stderr, same_models, same_answers=same_answers)
        assert other == (word, rule, chance)


@given(
    lower=st.floats(-10, 10),
    width=st.floats(0, 20),
    tolerance=st.floats(0.01, 5),
    freedom=st.just(math.inf) | st.integers(1, 30),
)
def test_the_verdicts_partition_the_intervals(lower, width, tolerance, freedom):
    """Each interval has one verdict, and it is the one whose definition it satisfies."""
    stderr = width / 2 / Uncertain(0, 1, freedom).half
    difference = Uncertain(lower + width / 2, stderr, freedom)
    low, high = difference.value - difference.half, difference.value + difference.half
    slack = 1e-9 * (1 + abs(low) + abs(high))  # where rounding decides, either verdict is right
    assume(all(abs(abs(end) - t) > slack for end in (low, high) for t in (tolerance, 0.0)))
    within = -tolerance <= low and high <= tolerance
    outside = low > tolerance or high < -tolerance
    holds = {
        AGREES: within,
        DIFFERS: outside,
        COMPATIBLE: not within and low <= 0 <= high,
        UNDECIDED: not (within or outside or low <= 0 <= high),
    }
    assert sum(holds.values()) == 1
    assert holds[equivalence(difference, tolerance)]


@given(st.floats(-5, 5), st.floats(0.01, 3), st.floats(0.05, 2))
def test_a_narrower_interval_never_takes_back_what_was_decided(value, stderr, tolerance):
    """Of the same difference: what agrees or differs still does so with fewer doubts."""
    before = equivalence(Uncertain(value, stderr), tolerance)
    after = equivalence(Uncertain(value, stderr / 2), tolerance)
    assert before not in (AGREES, DIFFERS) or after == before


@pytest.mark.parametrize("freedom", [math.inf, 4])
def test_the_chance_to_differ_is_that_of_simulated_runs(freedom):
    """Of times the error is itself estimated from few rounds; the chance is then an upper bound."""
    random, true, tolerance = np.random.default_rng(0), 0.5, 0.3
    differing = []
    for difference in true * random.standard_normal(4000):
        scale = 1.0 if freedom == math.inf else math.sqrt(random.chisquare(freedom) / freedom)
        differing.append(
            equivalence(Uncertain(difference, true * scale, freedom), tolerance) == DIFFERS
        )
    expected = chance_to_differ(Uncertain(0.0, true, freedom), tolerance)
    assert np.mean(differing) <= expected + 0.008
    if freedom == math.inf:
        assert np.mean(differing) == pytest.approx(expected, abs=0.008)


@pytest.mark.parametrize(
    ("quantity", "difference", "expected"),
    [
        ("accuracy", 0.05, AGREES),
        ("accuracy", 0.076, DIFFERS),  # one of 1319 questions
        ("accuracy", -0.9, DIFFERS),  # would agree with the binomial error of two runs left out
        ("delta_from_tau_1", 0.1, AGREES),
        ("delta_from_tau_1", 0.11, DIFFERS),
        ("tokens_per_forward", -0.004, AGREES),
        ("tokens_per_forward", -0.04, DIFFERS),
    ],
)
def test_a_released_checkpoint_gives_the_printed_number(quantity, difference, expected):
    word, rule, chance = verdict(quantity, difference, 1.4, True, same_answers=True)
    assert (word, chance) == (expected, 0.0)
    assert "paper's own checkpoint" in RULES[rule]


@given(st.floats(0, 100), st.sampled_from(BENCHMARKS))
def test_the_error_of_a_published_accuracy_is_binomial(percent, title):
    error = published_stderr("accuracy", title, {("accuracy", title): percent}, ())
    n, share = QUESTIONS[title], percent / 100
    assert error == pytest.approx(100 * math.sqrt(share * (1 - share) / n), abs=1e-9)


def test_errors_of_averages_and_changes():
    row = {("accuracy", title): 40.0 for title in BENCHMARKS}
    row |= {("delta_from_tau_1", title): -2.0 for title in BENCHMARKS}
    singles = [published_stderr("accuracy", title, row, ()) for title in BENCHMARKS]
    average = published_stderr("accuracy", AVERAGE, row, BENCHMARKS)
    assert average == pytest.approx(math.sqrt(sum(e**2 for e in singles)) / 6)
    change = published_stderr("delta_from_tau_1", "GSM8K", row, ())
    assert change == pytest.approx(100 * math.sqrt((0.4 * 0.6 + 0.42 * 0.58) / 1319))
    assert published_stderr("tokens_per_forward", "GSM8K", row, ()) is None
    # HumanEval's error near 40 % is what makes several of the paper's gains uncertain.
    assert published_stderr("accuracy", "HumanEval", row, ()) == pytest.approx(3.83, abs=0.01)


def compared(folder, spec, tables):
    write_comparison(spec, tables, folder)
    with open(folder / "comparison.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def spec_of(experiment_spec, same):
    return ComparisonSpec(
        tables=COMPARED,
        scales=experiment_spec.scales,
        same_models={"0.5B": same, "7B": same},
        titles=list(BENCHMARKS),
        same_weights=[],
    )


def made(folder, spec, seed=0):
    evaluated = Evaluations(spec, *evaluations(spec, seed, n=40))
    for name in EVALUATED.keys() & COMPARED:
        write(EVALUATED[name].table(spec, evaluated), folder)
    return {file.stem: file for file in folder.glob("table*.csv")}


@pytest.mark.parametrize("with_tables", [True, False])
def test_every_published_number_has_its_line(tmp_path, with_tables):
    spec = experiment()
    tables = made(tmp_path, spec) if with_tables else {}
    lines = compared(tmp_path, spec_of(spec, same=True), tables)
    found = Counter((line["artefact"], float(line["published"])) for line in lines)
    expected = Counter()
    for name, number in COMPARED.items():
        table = printed(number)
        text = {"scale", "method", "model", "draft", "target", "quantity", "benchmark"}
        what = {"block_size", "sft_loss", "epochs", "tau", "cache_block", "batch_size"}
        columns = [column for column in table.columns if column not in text | what]
        expected.update((name, float(v)) for v in table[columns].to_numpy().ravel())
    assert found == expected
    assert with_tables == any(line["verdict"] != "not run" for line in lines)


def test_the_lines_follow_from_the_table(tmp_path):
    spec = experiment()
    tables = made(tmp_path, spec)
    lines = compared(tmp_path, spec_of(spec, same=True), tables)
    with open(tables["table2"], newline="") as stream:
        cells = {(c["scale"], c["row"], c["benchmark"]): c for c in csv.DictReader(stream)}
    checked = 0
    for line in lines:
        if line["artefact"] != "table2" or line["ours"] == "not run":
            continue
        cell = cells[line["scale"], line["row"], line["benchmark"]]
        ours, paper = float(cell["value"]), float(cell["published"])
        assert float(line["difference"]) == pytest.approx(ours - paper, abs=1e-5)
        both = math.hypot(float(cell["stderr"]), float(line["published_stderr"]))
        assert float(line["stderr"]) == pytest.approx(both, abs=1e-5)
        assert line["verdict"] == equivalence(Uncertain(ours - paper, both), 1.0)
        assert line["rule"] == RULES[line["verdict"]]
        checked += 1
    assert checked == 6 * 7


@pytest.mark.parametrize("whole", [True, False])
def test_released_checkpoints_are_compared_by_rounding_where_all_was_asked(tmp_path, whole):
    spec = experiment()
    file = made(tmp_path, spec)["table2"]
    with open(file, newline="") as stream:
        lines = list(csv.DictReader(stream))
    for line in lines:
        if line["model"] == "m4" and line["benchmark"] == "GSM8K":
            line |= {"value": str(float(line["published"]) + 0.9), "stderr": "0.01"}
            line["n"] = str(QUESTIONS["GSM8K"] - (not whole))
    with open(file, "w", newline="") as stream:
        writer = csv.DictWriter(stream, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    ours = spec_of(spec, same=True).model_copy(update={"same_weights": ["m4"]})
    found = [
        line
        for line in compared(tmp_path, ours, {"table2": file})
        if (line["row"], line["benchmark"]) == ("MARS-0.5B (B=4)", "GSM8K")
        and line["artefact"] == "table2"
    ]
    assert [line["verdict"] for line in found] == [DIFFERS if whole else COMPATIBLE]


def test_models_that_are_not_trained_here_are_the_papers_own():
    paper = CONFIG / "paper.yaml"
    assert comparison_spec(load_experiment(paper)).same_weights == ["base-0.5B", "base-7B"]
    released = load_experiment(paper, CONFIG / "overlays/paper-released.yaml")
    assert set(comparison_spec(released).same_weights) == set(released.models)
    assert comparison_spec(load_experiment(CONFIG / "tiny.yaml")).same_weights == []


def test_what_chance_alone_would_give_stands_beside_the_count(tmp_path):
    spec = experiment()
    lines = compared(tmp_path, spec_of(spec, same=True), made(tmp_path, spec))
    of_table2 = [float(line["chance"]) for line in lines if line["artefact"] == "table2"]
    text = (tmp_path / "comparison.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| table2 |"))
    heads = next(line for line in text.splitlines() if line.startswith("| Artefact |"))
    shown = dict(zip(heads.split(" | "), row.split(" | "), strict=True))
    assert shown["of these by chance"] == f"{sum(of_table2):.1f}"
    assert 0 < sum(of_table2) < 0.05 * len(of_table2)


def test_other_models_are_not_comparable(tmp_path):
    spec = experiment()
    lines = compared(tmp_path, spec_of(spec, same=False), made(tmp_path, spec))
    assert {line["verdict"] for line in lines} == {"not comparable", "not run"}
    text = (tmp_path / "comparison.md").read_text()
    assert "absolute numbers are not reproduced" in text


def test_the_documentation_says_the_rules():
    text = " ".join(DOCS.read_text().split())
    for word in VERDICTS:
        assert f"| {word} |" in text
    for title, n in QUESTIONS.items():
        assert re.search(rf"{re.escape(title)} {n}\b", text)
    for number in ("1.96", *{f"{value:g}" for value in TOLERANCE.values()}):
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.]\d)", text)
