"""The page of an experiment: complete, honest about what is missing, and closed in itself."""

from __future__ import annotations

import csv
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from mars.config.experiment import load_experiment
from mars.errors import UserError
from mars.paper.artefacts import ARTEFACTS
from mars.paper.evaluations import Evaluations
from mars.paper.figures import acceptance, generation, pareto
from mars.paper.figures.sweep import sweep_points, tip
from mars.paper.report.addresses import QUESTIONS
from mars.paper.report.page import write_page
from mars.paper.stage import report_spec
from mars.paper.tables import files
from mars.paper.tables.table import Measured, Table, TableCell
from mars.provenance.files import write_json
from tests.support import swept_evaluations as swept
from tests.unit.paper.test_figures import example

SPEC = report_spec(load_experiment(Path(__file__).resolve().parents[3] / "config/ci.yaml"))
MADE = ("table2", "figure1", "figure3", "figure6")
CELLS = (
    TableCell("0.5B", "AR SFT <5 ep>", "accuracy", "GSM8K", "m", "s", Measured(61.2, 3.4, 9), 32.0),
    TableCell("0.5B", "MARS", "accuracy", "GSM8K", published=32.8),
)
TABLE = Table("table2", "One-token mode.", CELLS, ["A note."], ("scale", "row"), ("benchmark",))
CLAIM = {
    "number": 1,
    "claim": "Faster & <b>better</b>",
    "verdict": "does not hold",
    "scope": "of this training",
    "evidence": "1.2 ± 0.3 against <1.5> of `generate`",
    "artefact": "tables/table2",
    "caveat": "Small models.",
    "rule": "Holds unless it is slower.",
    "p": 0.01,
    "p_holm": 0.1,
    "estimates": [
        {
            **{"label": "MARS <b>", "unit": "times as fast", "verdict": "does not hold"},
            **{"value": 0.9, "lower": 0.8, "upper": 0.95, "published": 1.71},
            **{"at_least": 1.0, "at_most": None},
        }
    ],
}
COMPARED = {
    **{"artefact": "table2", "scale": "0.5B", "row": "AR SFT", "benchmark": "GSM8K"},
    **{"quantity": "accuracy", "ours": "61.2345", "ours_stderr": "3.4", "published": "32.0"},
    **{"published_stderr": "4.8", "difference": "29.2345", "stderr": "5.9"},
    **{"verdict": "not comparable", "rule": "another model", "chance": "0.0"},
}


class Page(HTMLParser):
    """The elements of a page with their attributes, and the text outside scripts and styles."""

    def __init__(self, path: Path):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.skipped = False
        self.source = path.read_text()
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.skipped = tag in ("script", "style")

    def handle_endtag(self, tag):
        self.skipped = False

    def handle_data(self, data):
        if not self.skipped:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, attribute: str) -> list[str]:
        return [found[attribute] for _, found in self.elements if attribute in found]


def of_figure_6(spec):
    return spec.model_copy(
        update={
            "models": {"m2": spec.models["m2"]},
            "benchmarks": {"gsm8k": spec.benchmarks["gsm8k"]},
        }
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Results with one table, three figures, verdicts, and a record of the table."""
    folder = tmp_path_factory.mktemp("work") / "results/synthetic"
    files.write(TABLE, folder / "tables")
    spec = swept.experiment()
    records = swept.records(spec, n=20)
    pareto.draw(Evaluations(spec, records), folder / "figures")
    acceptance.draw(Evaluations(of_figure_6(spec), records), folder / "figures")
    generation.draw(example(), "A caption.", folder / "figures")
    write_json(folder / "claims.json", [CLAIM])
    with open(folder / "comparison.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(COMPARED))
        writer.writeheader()
        writer.writerow(COMPARED)
    write_json(folder / "provenance/table/table2.json", record(folder))
    return folder


def record(folder: Path) -> dict:
    return {
        "outputs": {str(folder / "tables/table2.jsonl"): "0" * 64},
        "inputs": {"somewhere/manifest.json": "1" * 64},
        "spec": {"stage": "table"},
        "command": """mars table --spec '{"stage":"table"}' --output results""",
        "started": "2026-01-02T03:04:05+00:00",
        "seconds": 61.0,
        "peak_memory_bytes": 2e9,
        "code": {"commit": "abcdef0123456789", "dirty": True},
        "hardware": {"processor": "Abacus", "cores": 2, "gpus": ["Loom"]},
    }


@pytest.fixture(scope="module")
def page(results: Path) -> Page:
    return Page(write_page(SPEC, results))


def test_every_artefact_is_there_or_said_to_be_not_run(page: Page):
    ids = page.values("id")
    assert len(set(ids)) == len(ids)
    for name in ARTEFACTS:
        assert name in ids
        assert (("li", {"id": name}) in page.elements) == (name not in MADE)
    assert page.text.count("not run") >= len(ARTEFACTS) - len(MADE)


def test_numbers_words_and_verdicts_are_those_of_the_files(page: Page):
    for words in ("61.2 ± 3.4", "32.8", "AR SFT <5 ep>", "A note."):
        assert words in page.text
    assert "Faster & <b>better</b>: ✗ does not hold" in page.text
    assert "1.2 ± 0.3 against <1.5> of generate" in page.text, "words between backticks are code"
    assert "Small models." in page.text
    assert "Rule: Holds unless it is slower." in page.text
    assert "61.2 ± 3.40" in page.text  # of the comparison
    assert "29.2 ± 5.90" in page.text
    assert "Verdicts on 1 claims: 1 ✗ does not hold ." in page.text
    assert "– not comparable : another model." in page.text
    assert "10 tokens in 5 forwards" in page.text


def test_every_point_of_the_sweeps_can_be_read_off(page: Page):
    tips = page.values("data-tip")
    spec = swept.experiment()
    records = swept.records(spec, n=20)
    ours = [p for p in sweep_points(Evaluations(spec, records)) if p.metric == "probability"]
    one = sweep_points(Evaluations(of_figure_6(spec), records))
    assert {point.model for point in ours} == set(spec.models)
    for point in (*ours, *pareto.published_points()):
        label = "AR SFT" if point.method == "ar_sft" else f"B={point.block_size}"
        label += ", no SFT loss" if point.sft_loss is False else ""
        assert tip(label, point) in tips
        assert f"{point.accuracy:.1f}" in tip(label, point)
    for point in one:
        label = acceptance.METRICS[point.metric] if point.threshold is not None else "B=4"
        assert tip(label, point) in tips
    assert len(tips) == len(ours) + len(pareto.published_points()) + len(one)


def test_the_drawings_take_the_colours_of_the_page(page: Page):
    assert "#000000" not in page.source.split("<main>")[1]
    assert "#ffffff" not in page.source.split("<main>")[1]


def test_nothing_is_loaded_from_elsewhere(page: Page):
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert attributes.get("src", "data:").startswith("data:")
        if tag != "a":
            assert "href" not in attributes
    assert "@import" not in page.source
    assert "url(" not in page.source
    assert "fetch(" not in page.source
    assert len(page.source) < 5_000_000


def test_links_lead_somewhere(page: Page, results: Path):
    ids = page.values("id")
    for link in page.values("href"):
        if link.startswith("#"):
            assert link[1:] in ids
        elif not link.startswith(("https://arxiv.org/", QUESTIONS)):
            assert (results / link).is_file(), link


def test_tables_have_captions_and_images_texts(page: Page):
    tags = [tag for tag, _ in page.elements]
    assert tags.count("table") == tags.count("caption") > 0
    assert all(attributes.get("alt") for tag, attributes in page.elements if tag == "img")
    assert all(
        "aria-label" in attributes or "aria-hidden" in attributes
        for tag, attributes in page.elements
        if tag == "svg"
    )
    levels = [int(tag[1]) for tag in tags if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert max(b - a for a, b in pairwise(levels)) == 1


def test_a_claim_has_its_plot_before_its_sentence_and_the_plot_has_words(page: Page):
    (strip,) = (
        a
        for tag, a in page.elements
        if tag == "svg" and a.get("role") == "img" and a.get("class") == "strip"
    )
    assert strip["aria-label"] == (
        "MARS <b>: 0.90 [0.80, 0.95] times as fast; the claim asks for at least 1: "
        "does not hold; paper 1.71"
    )
    assert page.source.index('class="strip"') < page.source.index("1.2 ± 0.3 against")
    assert "MARS <b> 0.90 [0.80, 0.95] paper 1.71 ✗ does not hold at least 1" in page.text


def test_a_number_of_ours_leads_to_its_questions(page: Page):
    (link,) = (one for one in page.values("href") if one.startswith(f"{QUESTIONS}#"))
    assert link == f"{QUESTIONS}#model=m&setting=s&benchmark=gsm8k"
    assert "make questions EXPERIMENT=ci" in page.text


def test_verdicts_of_an_earlier_version_have_no_plots(results: Path, tmp_path: Path):
    files.write(TABLE, tmp_path / "tables")
    earlier = {key: value for key, value in CLAIM.items() if key != "estimates"}
    write_json(tmp_path / "claims.json", [earlier])
    assert "✗ does not hold" in Page(write_page(SPEC, tmp_path)).text


def test_the_record_says_how_a_table_was_made(page: Page):
    assert "provenance/table/table2.json" in page.values("href")
    for words in ("mars table --spec … --output results", "abcdef0123 with edits", "1 min 01 s"):
        assert words in page.text
    assert "Loom, 2 cores of Abacus" in page.text


def test_an_experiment_with_one_table_still_gets_a_page(tmp_path: Path):
    files.write(TABLE, tmp_path / "tables")
    text = Page(write_page(SPEC, tmp_path)).text
    assert "not run : this experiment has no verdicts" in text
    assert "not run : this experiment has no comparison" in text
    assert "There is no provenance record for this." in text


def test_without_anything_there_is_no_page(tmp_path: Path):
    with pytest.raises(UserError, match="run the experiment first"):
        write_page(SPEC, tmp_path)
