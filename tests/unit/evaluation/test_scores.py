"""Standard errors against brute force, and reading records."""

import math
import random
import statistics

import pytest

from mars.errors import UserError
from mars.evaluation.evaluate import _group_metrics, _letter, _metrics
from mars.evaluation.scores import Score, average, headline, mean, ratio


def test_mean_has_the_textbook_error():
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    score = mean(values)
    assert score.value == pytest.approx(0.6)
    assert score.stderr == pytest.approx(statistics.stdev(values) / math.sqrt(5))
    assert mean([1.0]) == Score(1.0, None)


def test_ratio_error_agrees_with_the_bootstrap_over_clusters():
    rng = random.Random(0)
    sizes = [rng.randint(1, 4) for _ in range(300)]
    rights = [sum([rng.random() < 0.7] * n) if rng.random() < 0.5 else 0 for n in sizes]
    draws = []
    for _ in range(2000):
        chosen = rng.choices(range(300), k=300)
        draws.append(sum(rights[i] for i in chosen) / sum(sizes[i] for i in chosen))
    assert ratio(rights, sizes).stderr == pytest.approx(statistics.stdev(draws), rel=0.06)


def test_average_of_independent_scores():
    scores = [Score(0.2, 0.03), Score(0.6, 0.04)]
    assert average(scores) == Score(pytest.approx(0.4), pytest.approx(0.025))
    assert average([Score(0.2, None), Score(0.6, 0.04)]).stderr is None
    with pytest.raises(ValueError, match="no scores"):
        average([])


def test_headline_names_what_there_is():
    record = {"metrics": {"exact_match": {"get-answer": {"value": 0.5, "stderr": 0.1}}}}
    benchmark = {"task": "bbh", "metric": "exact_match", "filter": "get-answer"}
    assert headline(record, benchmark) == Score(0.5, 0.1)
    with pytest.raises(UserError, match=r"exact_match \(get-answer\)"):
        headline(record, {**benchmark, "filter": "none"})


def test_instruction_accuracy_gets_an_error_by_prompt():
    rows = [[True, False], [True], [False, False, True]]
    samples = [{"inst": row, "filter": "none"} for row in rows]
    result = {"inst,none": 0.5, "inst_stderr,none": "N/A", "alias": "x"}
    expected = ratio([1, 1, 1], [2, 1, 3])
    assert _metrics(result, samples) == {
        "inst": {"none": {"value": 0.5, "stderr": expected.stderr}}
    }


def test_group_of_tiny_parts_gets_the_error_of_all_documents():
    result = {"exact_match,f": 0.5, "exact_match_stderr,f": "N/A"}
    parts = {"a": [{"exact_match": 1.0, "filter": "f"}], "b": [{"exact_match": 0.0, "filter": "f"}]}
    metrics = _group_metrics(result, parts)
    assert metrics["exact_match"]["f"]["stderr"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "letter"),
    [("(A)", "A"), ("b", "B"), ("(C) because", None), ("", None), ("[invalid]", None)],
)
def test_only_letters_pass(text, letter):
    assert _letter(text) == letter
