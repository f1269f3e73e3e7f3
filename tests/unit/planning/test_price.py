"""The price of the paper: arithmetic, replaced by what was measured; nothing is invented."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from mars.config.experiment import Endpoint, Experiment, load_experiment
from mars.paper.published import training_hours
from mars.planning.gpu_results import GpuResult, read_gpu_results
from mars.planning.gpu_speed import CALIBRATED, MEASURED, MODELLED, GpuSpeed
from mars.planning.plan import PlannedJob
from mars.planning.price import RESPONSE_TOKENS, Prices
from mars.planning.price_table import price_table
from mars.provenance.files import write_json
from tests.support.gpu_results import made_up_result

ROOT = Path(__file__).resolve().parents[3]
HOURS = training_hours()
MEASUREMENTS = ("measure_wall_clock", "measure_speculative", "measure_live_tau")


@pytest.fixture(scope="module")
def paper() -> Experiment:
    return load_experiment(ROOT / "config/paper.yaml")


def prices(experiment: Experiment, results: Path = Path("nowhere"), **more) -> Prices:
    return Prices(experiment, GpuSpeed(), results, **more)


def job(stage: str, name: str, folder: Path = Path("missing")) -> PlannedJob:
    target = {"repository" if stage == "fetch_dataset" else "model": name}
    return PlannedJob(stage, target, folder / "provenance" / stage / f"{name}.json", True, "")


def hours(found: Prices, stage: str, name: str = "") -> float:
    one = found.of(job(stage, name))
    assert one is not None
    return one.gpu_hours


def test_what_a_server_answers_costs_nothing_here(paper):
    def sent_to(url):
        endpoint = {"ar-sft-7B": Endpoint(url=url)}
        evaluation = paper.evaluation.model_copy(update={"endpoint": endpoint})
        return paper.model_copy(update={"evaluation": evaluation})

    (setting,) = (name for name, one in paper.settings.items() if one.plain)
    assert setting in paper.evaluations_of("ar-sft-7B")
    there = prices(sent_to("http://node7/v1"))
    assert hours(there, "evaluate", "ar-sft-7B") < hours(prices(paper), "evaluate", "ar-sft-7B")
    for name in ("mars-b4-7B", "ar-sft-0.5B"):
        assert hours(there, "evaluate", name) == hours(prices(paper), "evaluate", name) > 0


# --- training -----------------------------------------------------------------------------------


def test_the_paper_is_modelled_below_what_its_padded_batches_cost(paper):
    found = prices(paper)
    for model in paper.trained_models():
        one = found.of(job("train", model))
        shape, method = paper.models[model].scale, paper.models[model].method
        published = HOURS[shape]["ar_sft" if method == "ar_sft" else "mars"]
        published *= paper.training_of(model).epochs / 5
        assert one.basis == MODELLED
        assert 0.25 * published < one.gpu_hours < published, model
        assert one.wall_hours(8) == one.gpu_hours / 8


def test_the_price_of_a_training_follows_its_tokens(paper):
    found = prices(paper)
    single, double = (hours(found, "train", f"ar-sft{more}-0.5B") for more in ("", "-2x"))
    assert double == pytest.approx(2 * single)
    fewer = paper.model_copy(update={"data": paper.data.model_copy(update={"limit": 20_000})})
    whole = hours(found, "train", "mars-b4-7B")
    assert hours(prices(fewer), "train", "mars-b4-7B") == pytest.approx(whole / 100)
    # The copy of the response that MARS adds; attention and output embedding count for less.
    ratio = whole / hours(found, "train", "ar-sft-7B")
    assert ratio == pytest.approx((320 + RESPONSE_TOKENS) / 320, rel=0.05)


def test_a_data_set_that_is_tokenised_replaces_the_assumption(paper, tmp_path):
    summary = {"examples": 1_000_000, "tokens": 200_000_000, "prompt_tokens": 80_000_000}
    write_json(tmp_path / "data/tokens/0.5B/instructions/summary.json", summary)
    found = prices(paper, tmp_path)
    examples = found.examples("0.5B")
    assert (examples.count, examples.prompt, examples.response) == (1_000_000, 80, 120)
    assert examples.basis == MEASURED
    assert hours(found, "train", "ar-sft-0.5B") < 0.5 * hours(prices(paper), "train", "ar-sft-0.5B")
    (lines,) = [price_table([job("train", "ar-sft-0.5B")], found, HOURS)]
    assert any("80 tokens of prompt and 120 of response, as tokenised here" in one for one in lines)


def test_a_training_that_ran_on_gpus_costs_what_it_did(paper, tmp_path):
    again = job("train", "mars-b4-0.5B", tmp_path)
    facts = {"device": "NVIDIA H100", "seconds": 7200, "processes": 4}
    write_json(again.record, {"facts": facts})
    found = prices(paper).of(again)
    assert (found.gpu_hours, found.basis) == (8, MEASURED)
    write_json(again.record, {"facts": {**facts, "device": "cpu"}})
    assert prices(paper).of(again).basis == MODELLED


def test_a_measured_gpu_calibrates_the_price(paper):
    result = GpuResult.model_validate(made_up_result(utilisation=0.2))
    found = replace(prices(paper), speed=GpuSpeed([result]))
    one = found.of(job("train", "mars-b4-7B"))
    assert one.basis == CALIBRATED
    slower = 0.4 * 989e12 / (0.2 * 5e14)
    assert one.gpu_hours == pytest.approx(slower * hours(prices(paper), "train", "mars-b4-7B"))
    assert found.of(job("evaluate", "mars-b4-7B")).basis == CALIBRATED
    assert found.of(job("evaluate", "mars-b4-0.5B")).basis == MODELLED
    assert found.of(job("measure_wall_clock", "")).basis == MODELLED  # some methods are unknown
    lines = price_table([job("train", "mars-b4-7B")], found, HOURS)
    assert any("calibrated" in one and "A GPU" in one for one in lines)


def test_what_is_no_model_of_the_paper_has_no_price(paper):
    smollm2 = load_experiment(ROOT / "config/smollm2.yaml")
    model, found = smollm2.trained_models()[0], prices(smollm2)
    assert found.of(job("train", model)) is None
    assert price_table([job("table", "table2"), job("train", model)], found, HOURS) == []
    other = paper.model_copy(update={"data": paper.data.model_copy(update={"dataset": "a/b"})})
    assert prices(other).of(job("train", "mars-b4-7B")) is None


@pytest.mark.parametrize(("scale", "room"), [("0.5B", 24e9), ("7B", 80e9)])
def test_what_the_paper_trains_fits_the_gpus_that_the_docs_name(paper, scale, room):
    assert prices(paper).memory(scale).total < 0.9 * room


def test_longer_rows_of_7b_do_not_fit(paper):
    longer = paper.training.model_copy(update={"row_length": 8192})
    experiment = paper.model_copy(update={"training": longer})
    assert prices(experiment).memory("7B").total > 80e9


# --- disk, evaluation, timing -------------------------------------------------------------------


def test_disk_follows_the_number_of_parameters(paper):
    found = prices(paper)
    small, large = (found.of(job("train", f"mars-b4-{scale}")) for scale in HOURS)
    assert small.disk == pytest.approx(0.99e9, rel=0.01)  # 0.49 billion, two bytes each
    assert large.disk == pytest.approx(15.2e9, rel=0.01)
    assert large.scratch == 18 * large.disk
    imported = found.of(job("import_base", "base-7B"))
    assert imported.download == large.disk


def test_more_questions_and_settings_cost_more(paper):
    found = prices(paper)
    one, many = (hours(found, "evaluate", name) for name in ("ar-sft-2x-0.5B", "mars-b4-0.5B"))
    assert 0 < one < many < hours(found, "evaluate", "mars-b4-7B")


def test_the_papers_speed_sweep_stays_under_15_gpu_hours(paper):
    assert 5 < hours(prices(paper), "measure_wall_clock") < 15


def test_more_to_measure_costs_more(paper):
    speed, found = paper.speed, prices(paper)
    for key in ("wall_clock", "speculative", "live_tau"):
        part = getattr(speed, key)
        name = "requests" if key == "live_tau" else "questions"
        more = {name: 2 * getattr(part, name)}
        if key == "wall_clock":
            more["heat_map_questions"] = 2 * part.heat_map_questions
        longer = speed.model_copy(update={key: part.model_copy(update=more)})
        doubled = prices(paper.model_copy(update={"speed": longer}))
        stage = f"measure_{key}"
        assert hours(doubled, stage) == pytest.approx(2 * hours(found, stage))


def test_the_heat_map_asks_fewer_questions_and_rounds_end_early(paper):
    part = paper.speed.wall_clock
    assert part.questions_at(1) == 32 < part.questions_at(4) == 256
    all_asked = part.model_copy(update={"heat_map_questions": None})
    speed = paper.speed.model_copy(update={"wall_clock": all_asked})
    whole = paper.model_copy(update={"speed": speed})
    before = hours(prices(whole, rounds=5), "measure_wall_clock")
    assert before > 2 * hours(prices(paper), "measure_wall_clock")


def test_every_method_is_priced_as_often_as_it_is_timed(paper):
    from mars.speed.timing import with_baselines
    from mars.speed.wall_clock import conditions_of

    part = paper.speed.wall_clock
    (timed,) = with_baselines(conditions_of(part, 4, 0.95)).values()
    priced = [method for method, _ in prices(paper).wall_clock_conditions(part)]
    assert sorted(priced) == sorted(one.method for one in timed)


# --- the table ----------------------------------------------------------------------------------


def test_the_table_adds_up_and_says_what_each_line_rests_on(paper, tmp_path):
    again = job("train", "mars-b4-0.5B", tmp_path)
    write_json(again.record, {"facts": {"device": "GPU", "seconds": 7200, "processes": 4}})
    others = [name for name in paper.trained_models() if name != "mars-b4-0.5B"]
    planned = [again, *(job("train", model) for model in others), job("table", "table2")]
    found = prices(paper)
    lines = price_table(planned, found, HOURS)
    table = {tuple(line.split()[:2]): line for line in lines[: lines.index("")]}
    total = sum(found.of(one).gpu_hours for one in planned)
    assert f"({total:.0f} h)" in table["all", str(len(planned))]
    assert table["other", "1"].split()[2:] == ["-"] * 6
    assert table["train", "1"].endswith(MEASURED)
    assert table["train", str(len(others))].endswith(MODELLED)


def test_the_notes_name_the_published_hours_and_the_memory(paper):
    planned = [job("train", model) for model in paper.trained_models()]
    text = "\n".join(price_table(planned, prices(paper), HOURS))
    total = 15 * 3 + 33 * 8 + 100 + 202 * 3
    assert f"{total} H200-hours" in text
    for scale in HOURS:
        assert f"GPU memory to train {scale}" in text
    assert "sharded" in text


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("paper", "`paper`"),
        ("paper-0.5B", "`paper`, 0.5B alone"),
        ("paper-released", "`paper`, released checkpoints"),
    ],
)
def test_the_docs_have_the_hours_of_the_plan(name, title):
    overlays = [ROOT / f"config/overlays/{name}.yaml"] * (name != "paper")
    experiment = load_experiment(ROOT / "config/paper.yaml", *overlays)
    planned = [job("evaluate", model) for model in experiment.evaluated_models()]
    planned += [job("train", model) for model in experiment.trained_models()]
    timed = [one for one in MEASUREMENTS if experiment.speed.parts()[one.removeprefix("measure_")]]
    planned += [job(stage, "") for stage in timed]
    found = Prices(experiment, GpuSpeed(read_gpu_results(ROOT)), Path("nowhere"))
    assert price_table(planned, found, HOURS)
    total = sum(found.of(one).gpu_hours for one in planned)
    timing = sum(hours(found, stage) for stage in timed)
    text = (ROOT / "docs/running-the-paper.md").read_text()
    (line,) = [one for one in text.splitlines() if one.startswith(f"| {title} |")]
    assert f"| {title} | {total:.0f}, of which" in line
    assert f"{timing:.0f} for timing" in line


def test_the_docs_have_the_memory_that_the_tool_prints():
    specification = importlib.util.spec_from_file_location(
        "tool", ROOT / "tools/training_memory.py"
    )
    tool = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(tool)
    assert tool.table() in (ROOT / "docs/running-the-paper.md").read_text()


def test_drafts_in_vllm_have_a_price():
    overlay = ROOT / "config/overlays/paper-vllm.yaml"
    experiment = load_experiment(ROOT / "config/paper.yaml", overlay)
    speed = experiment.speed
    longer = speed.vllm.model_copy(update={"questions": 2 * speed.vllm.questions})
    doubled = experiment.model_copy(update={"speed": speed.model_copy(update={"vllm": longer})})
    one = hours(prices(experiment), "measure_vllm")
    assert hours(prices(doubled), "measure_vllm") == pytest.approx(2 * one)


def test_tables_alone_have_no_price(paper):
    assert price_table([job("table", "table2"), job("claims", "")], prices(paper), HOURS) == []


def test_an_experiment_without_the_papers_models_has_no_price():
    tiny = load_experiment(ROOT / "config/tiny.yaml")
    for stage in MEASUREMENTS:
        assert prices(tiny).of(job(stage, "")) is None
        assert price_table([job(stage, "")], prices(tiny), HOURS) == []
