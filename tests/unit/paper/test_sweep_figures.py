"""Figures 3 and 6 hold the records' numbers, drawn with embedded fonts."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from mars.config.experiment import parse_experiment
from mars.errors import UserError
from mars.paper.evaluations import Evaluations
from mars.paper.figures import acceptance, pareto
from mars.paper.figures import stage as figures
from mars.paper.figures.sweep import sweep_points
from tests.support import swept_evaluations as swept
from tests.support.printed_tables import printed


@pytest.fixture(scope="module")
def spec():
    return swept.experiment()


@pytest.fixture(scope="module")
def records(spec):
    return swept.records(spec)


def only(spec, **wanted):
    """The experiment with the models that have these values only."""
    models = {
        name: model
        for name, model in spec.models.items()
        if all(getattr(model, key) == value for key, value in wanted.items())
    }
    return spec.model_copy(update={"models": models})


@pytest.fixture(scope="module")
def figure3(spec, records, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    pareto.draw(Evaluations(spec, records), folder)
    return folder / "figure3.csv"


def test_figure_3_holds_every_record_of_the_sweep_and_no_other(figure3: Path, spec, records):
    table = pd.read_csv(figure3)
    wanted = {
        cell
        for cell in records
        if cell[1] == "s0" or 1 <= int(re.sub(r"\D", "", cell[1]) or 99) <= len(swept.TAUS)
    }
    assert set(zip(table["model"], table["setting"], table["benchmark"].str.lower())) == wanted
    for line in table.to_dict("records"):
        record = records[line["model"], line["setting"], line["benchmark"].lower()]
        score, counted = record["metrics"]["exact_match"]["none"], record["tokens_per_forward"]
        assert line["accuracy"] == pytest.approx(100 * score["value"])
        assert line["accuracy_stderr"] == pytest.approx(100 * score["stderr"])
        assert line["tokens_per_forward"] == counted["value"]
        assert line["tokens_per_forward_stderr"] == counted["stderr"]
        tau = spec.settings[line["setting"]].threshold
        assert line["threshold"] == tau or (tau is None and pd.isna(line["threshold"]))


def test_curves_start_in_one_token_mode_and_loosen(spec, records):
    for points in (sweep_points(Evaluations(spec, records)), pareto.published_points()):
        for metric in ("probability", "entropy", "margin"):
            for scale in pareto.SCALES:
                here = [p for p in points if (p.scale, p.benchmark) == (scale, "GSM8K")]
                for curve in pareto.curves(p for p in here if p.metric == metric).values():
                    taus = [p.threshold for p in curve if p.threshold is not None]
                    assert taus == sorted(taus, reverse=metric != "entropy")
                    if metric == "probability":
                        assert curve[0].threshold is None


def test_the_published_row_is_table_8_and_the_ar_rows_of_table_2():
    points = pareto.published_points()
    table = printed(8)
    assert sorted((p.accuracy, p.tokens_per_forward) for p in points if p.method == "mars") == (
        sorted(zip(table["accuracy"], table["tokens_per_forward"]))
    )
    autoregressive = {(p.scale, p.benchmark): p.accuracy for p in points if p.method == "ar_sft"}
    rows = printed(2)
    rows = rows[(rows["method"] == "ar_sft") & (rows["epochs"] == 5)].set_index("scale")
    for (scale, title), accuracy in autoregressive.items():
        assert accuracy == rows.loc[scale, title]
    assert len(autoregressive) == 4


def test_figure_6_has_the_thresholds_of_all_three_metrics(spec, records, tmp_path: Path):
    one = only(spec, scale="small", block_size=4, ar_weight=1.0, method="mars")
    one = one.model_copy(update={"benchmarks": {"gsm8k": spec.benchmarks["gsm8k"]}})
    acceptance.draw(Evaluations(one, records), tmp_path)
    table = pd.read_csv(tmp_path / "figure6.csv")
    assert set(table["benchmark"]) == {"GSM8K"}
    for metric, thresholds in swept.OTHERS.items():
        assert sorted(table[table["metric"] == metric]["threshold"]) == sorted(thresholds)


def test_figures_without_any_record_say_not_run(spec, tmp_path: Path):
    for drawing, name in ((pareto, "figure3"), (acceptance, "figure6")):
        drawing.draw(Evaluations(spec, {}), tmp_path)
        assert len(pd.read_csv(tmp_path / f"{name}.csv")) == 0
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000


def test_fonts_are_embedded_as_truetype(figure3: Path):
    pdf = figure3.with_suffix(".pdf").read_bytes()
    assert b"/FontFile2" in pdf  # the program of a TrueType font
    assert b"/CIDFontType2" in pdf
    assert b"/Type3" not in pdf
    assert figure3.with_suffix(".png").stat().st_size > 50_000


# --- which models and settings a figure is about ------------------------------------------------

TINY = Path(__file__).resolve().parents[3] / "config/tiny.yaml"


@pytest.fixture
def tiny() -> dict:
    content = yaml.safe_load(TINY.read_text())
    content["artefacts"] = ["figure1"]
    return content


def test_models_are_found_by_what_they_are(tiny: dict):
    experiment = parse_experiment(tiny, "tiny")
    shown = {name: experiment.models[name] for name in figures.figure3(experiment).models}
    kinds = [(m.method, m.scale, m.block_size, m.ar_weight > 0) for m in shown.values()]
    assert len(set(kinds)) == len(kinds) == 4  # AR SFT and MARS at both scales
    (one,) = figures.figure6(experiment).models
    assert one == figures.example(experiment).model
    assert experiment.models[one].block_size == 4
    assert experiment.models[one].ar_weight > 0
    assert experiment.scales[experiment.models[one].scale].stands_for == "0.5B"


def test_a_shorter_training_is_no_part_of_a_curve(tiny: dict):
    before = parse_experiment(tiny, "tiny")
    (name,) = figures.figure6(before).models
    tiny["models"]["shorter"] = {**tiny["models"][name], "epochs_factor": 0.5}
    tiny["evaluate"].append({"models": ["shorter"], "settings": ["one-token", "tau-0.95"]})
    after = parse_experiment(tiny, "tiny")
    assert "shorter" in after.evaluated_models()
    for resolve in (figures.figure3, figures.figure6):
        assert resolve(after).models.keys() == resolve(before).models.keys()


def test_figure_1_is_of_the_paper_s_setting(tiny: dict):
    spec = figures.example(parse_experiment(tiny, "tiny"))
    assert spec.decoding.threshold == 0.95
    assert spec.task.title == "GSM8K"


@pytest.mark.parametrize("resolve", [figures.example, figures.figure3, figures.figure6])
def test_a_figure_without_its_models_is_one_sentence(tiny: dict, resolve):
    tiny["evaluate"] = [{"models": ["base-small"], "settings": ["one-token"]}]
    with pytest.raises(UserError, match="out of `artefacts`"):
        resolve(parse_experiment(tiny, "tiny"))
