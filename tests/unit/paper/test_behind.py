"""What is said to stand behind the claims: numbers that the paper prints, one entry for each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mars.config.experiment import load_experiment
from mars.paper import published
from mars.paper.claims.behind import BEHIND
from mars.paper.claims.claims import CLAIMS

CONFIG = Path(__file__).resolve().parents[3] / "config"


def test_every_claim_has_one():
    assert list(BEHIND) == list(range(1, len(CLAIMS) + 1))


@pytest.mark.parametrize("number", BEHIND)
def test_its_numbers_are_in_the_table_that_it_names(number: int):
    text = BEHIND[number].paper
    table = re.search(r"Table (\d)", text)
    numbers = re.findall(r"\d+\.\d+", re.sub(r"\(.*?\)|tau = [\d.]+|[\d.]+B\b", "", text))
    assert bool(numbers) <= bool(table)
    printed = (
        {value for line in published.table(int(table[1])) for value in line.values()}
        if table
        else ()
    )
    assert set(numbers) <= set(printed)


def test_a_claim_over_all_its_rows_takes_an_experiment_that_has_them():
    tiny, paper = (load_experiment(CONFIG / f"{name}.yaml") for name in ("tiny", "paper"))
    assert BEHIND[3].files(tiny) == []
    ours = {f"evaluations/mars-b{size}" for size in (4, 16)}
    assert len(BEHIND[3].files(paper)) == 2 * len(ours)
    assert all(file.startswith("evaluations/") for file in BEHIND[3].files(paper))


def test_claims_of_times_take_their_table_and_no_evaluation():
    paper = load_experiment(CONFIG / "paper.yaml")
    assert BEHIND[5].files(paper) == ["tables/table5.csv"]
    assert BEHIND[6].files(paper) == ["speed/live_tau/manifest.json"]
    assert BEHIND[7].files(paper) == ["tables/table6.csv"]
