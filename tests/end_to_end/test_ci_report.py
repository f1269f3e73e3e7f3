"""The figures and the report of the finished `ci` experiment, and Snakemake's own report of it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from mars.config.experiment import load_experiment
from mars.provenance.files import read_json, read_jsonl
from tests.support.ci_experiment import snakemake

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = load_experiment(ROOT / "config/ci.yaml")


@pytest.fixture
def results(finished: Path) -> Path:
    return finished / "results/ci"


def test_figure_1_is_an_answer_of_the_evaluation(results: Path):
    example = read_json(results / "figures/figure1.json")
    folder = results / "evaluations" / example["model"] / example["setting"]
    samples = read_jsonl(folder / f"{example['benchmark']}.samples.jsonl")
    sample = samples[example["document"]]
    assert example["as_evaluated"]
    assert "".join(run["text"] for run in example["runs"]) == sample["generation"]
    assert sum(run["tokens"] for run in example["runs"]) == example["tokens"] == sample["tokens"]
    assert len(example["runs"]) == example["forwards"] == sample["forwards"]


@pytest.mark.parametrize(
    ("figure", "benchmarks"), [("3", {"GSM8K", "HumanEval"}), ("6", {"GSM8K"})]
)
def test_the_points_of_a_sweep_are_the_records(results: Path, figure: str, benchmarks: set[str]):
    keys = {item.title: name for name, item in EXPERIMENT.benchmarks.items()}
    points = pd.read_csv(results / f"figures/figure{figure}.csv")
    assert set(points["benchmark"]) == benchmarks
    for point in points.to_dict("records"):
        key = keys[point["benchmark"]]
        file = results / "evaluations" / point["model"] / point["setting"] / f"{key}.json"
        record, benchmark = read_json(file), EXPERIMENT.benchmarks[key]
        score = record["metrics"][benchmark.metric][benchmark.filter]
        assert point["accuracy"] == pytest.approx(100 * score["value"])
        assert point["tokens_per_forward"] == pytest.approx(record["tokens"] / record["forwards"])
        assert point["n"] == record["documents"]


def test_the_report_has_every_artefact_and_every_job(results: Path):
    page = (results / "report.html").read_text()
    for name in EXPERIMENT.artefacts:
        assert f'<section id="{name}"' in page
    for record in (results / "provenance").rglob("*.json"):
        if record != results / "provenance/report.json":
            assert f'href="{record.relative_to(results)}"' in page


def test_snakemakes_own_report_has_the_page_and_the_figures(
    project: Path, finished: Path, tmp_path: Path
):
    snakemake(project, finished, "--report", str(tmp_path / "snakemake.html"))
    page = (tmp_path / "snakemake.html").read_text()
    for name in ("report.html", "figure1.png", "figure3.png", "table2.csv", "training_curves.png"):
        assert name in page
    assert "One GSM8K answer" in page  # of a caption
