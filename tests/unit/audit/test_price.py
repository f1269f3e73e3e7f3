"""The price of the paper: published hours add up, records replace them, nothing is invented."""

from __future__ import annotations

from pathlib import Path

import pytest

from mars.audit.plan import PlannedJob
from mars.audit.price import price, price_table
from mars.config.experiment import Experiment, load_experiment
from mars.paper.published import training_hours
from mars.provenance.files import write_json

ROOT = Path(__file__).resolve().parents[3]
HOURS = training_hours()


@pytest.fixture(scope="module")
def paper() -> Experiment:
    return load_experiment(ROOT / "config/paper.yaml")


def job(stage: str, name: str, folder: Path = Path("missing")) -> PlannedJob:
    target = {"repository" if stage == "fetch_dataset" else "model": name}
    return PlannedJob(stage, target, folder / "provenance" / stage / f"{name}.json", True, "")


def test_trainings_as_published_cost_what_the_paper_says(paper):
    assert HOURS == {"0.5B": {"ar_sft": 15, "mars": 33}, "7B": {"ar_sft": 100, "mars": 202}}
    for model, hours in (("ar-sft-0.5B", 15), ("mars-b4-0.5B", 33), ("mars-b4-7B", 202)):
        found = price(job("train", model), paper, HOURS)
        assert (found.gpu_hours, found.basis) == (hours, "published")
        assert found.wall_hours(8) == hours / 8
    doubled = price(job("train", "ar-sft-2x-0.5B"), paper, HOURS)
    assert (doubled.gpu_hours, doubled.basis) == (30, "estimated")


def test_a_training_that_ran_on_gpus_costs_what_it_did(paper, tmp_path):
    again = job("train", "mars-b4-0.5B", tmp_path)
    facts = {"device": "NVIDIA H100", "seconds": 7200, "processes": 4}
    write_json(again.record, {"facts": facts})
    found = price(again, paper, HOURS)
    assert (found.gpu_hours, found.basis) == (8, "measured")
    write_json(again.record, {"facts": {**facts, "device": "cpu"}})
    assert price(again, paper, HOURS).basis == "published"


def test_what_the_papers_hours_do_not_fit_has_no_price(paper):
    smollm2 = load_experiment(ROOT / "config/smollm2.yaml")
    model = smollm2.trained_models()[0]
    assert price(job("train", model), smollm2, HOURS) is None
    assert price_table([job("table", "table2"), job("train", model)], smollm2, HOURS) == []


def test_fewer_examples_cost_in_proportion(paper):
    fewer = paper.model_copy(update={"data": paper.data.model_copy(update={"limit": 20_000})})
    found = price(job("train", "mars-b4-7B"), fewer, HOURS)
    assert found.gpu_hours == pytest.approx(2.02)
    assert found.basis == "estimated"


def test_disk_follows_the_number_of_parameters(paper):
    small, large = (price(job("train", f"mars-b4-{scale}"), paper, HOURS) for scale in HOURS)
    assert small.disk == pytest.approx(0.99e9, rel=0.01)  # 0.49 billion, two bytes each
    assert large.disk == pytest.approx(15.2e9, rel=0.01)
    assert large.scratch == 18 * large.disk
    imported = price(job("import_base", "base-7B"), paper, HOURS)
    assert imported.download == large.disk


def test_more_questions_and_settings_cost_more(paper):
    one, many = (
        price(job("evaluate", name), paper, HOURS).gpu_hours
        for name in ("ar-sft-2x-0.5B", "mars-b4-0.5B")
    )
    assert 0 < one < many
    assert many < price(job("evaluate", "mars-b4-7B"), paper, HOURS).gpu_hours


def test_the_table_adds_up_and_says_where_each_line_is_from(paper):
    models = paper.trained_models()
    planned = [*(job("train", model) for model in models), job("table", "table2")]
    lines = price_table(planned, paper, HOURS)
    table = {tuple(line.split()[:2]): line for line in lines[: lines.index("")]}
    total = sum(price(one, paper, HOURS).gpu_hours for one in planned)
    assert f"({total:.0f} h)" in table["all", str(len(planned))]
    assert table["other", "1"].split()[2:] == ["-"] * 6
    sources = [line.split()[-1] for key, line in table.items() if key[0] == "train"]
    assert sources == ["published", "estimated"]


@pytest.mark.parametrize("name", ["paper", "paper-0.5B", "paper-released"])
def test_the_whole_paper_has_a_price(name, paper):
    overlays = [ROOT / f"config/overlays/{name}.yaml"] * (name != "paper")
    experiment = load_experiment(ROOT / "config/paper.yaml", *overlays)
    planned = [job("evaluate", model) for model in experiment.evaluated_models()]
    planned += [job("train", model) for model in experiment.trained_models()]
    assert price_table(planned, experiment, HOURS)


def test_more_to_measure_costs_more():
    tiny = load_experiment(ROOT / "config/tiny.yaml")
    longer = tiny.speed.model_copy(update={"max_new_tokens": 2 * tiny.speed.max_new_tokens})
    doubled = tiny.model_copy(update={"speed": longer})
    for stage in ("measure_wall_clock", "measure_speculative", "measure_live_tau"):
        once = price(job(stage, stage), tiny, HOURS).gpu_hours
        assert price(job(stage, stage), doubled, HOURS).gpu_hours == pytest.approx(2 * once)
