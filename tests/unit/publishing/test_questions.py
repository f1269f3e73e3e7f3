"""The page of questions has what was asked and answered, nothing that may not be spread, and a
number of a table leads to exactly the answers that the audit finds behind it."""

from __future__ import annotations

import shutil
import subprocess
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any
from urllib.parse import parse_qs

import pytest

from mars.audit.cells import CellLine, Tables
from mars.audit.packed import pack
from mars.config.experiment import Experiment, parse_experiment, read_experiment
from mars.errors import UserError
from mars.paper.report.addresses import QUESTIONS, address
from mars.paper.stage import answered
from mars.paper.tables.table import NOT_RUN, Measured, TableCell
from mars.provenance.files import sha256_text, write_json, write_jsonl
from mars.publishing.questions import compared, parts_of, prompts_of, write_questions

CI = Path(__file__).resolve().parents[3] / "config/ci.yaml"
PROMPT = "How many </script> are 4 + 5?"
SECRET = "A sentence of GPQA."


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    """The ci experiment with two trainings of each model but the base."""
    content = read_experiment(CI) | {"seeds": [0, 1]}
    content["models"]["base-small"]["seeds"] = [0]
    return parse_experiment(content, "ci")


def line(document: int, score: float, task: str = "gsm8k_cot") -> dict[str, Any]:
    text = {} if "gpqa" in task else {"generation": f"The answer is {score}."}
    return {
        **{"task": task, "document": document, "prompt_sha256": sha256_text(PROMPT)},
        **{"target": "9", **text, "tokens": 6, "forwards": 4, "finish": "eos", "overrun": 0},
        **{"truncated": False, "extracted": {"flexible-extract": "9"}},
        "scores": {"flexible-extract": {"exact_match": score}},
    }


SCORES = {
    **{("mars-b4-small", "tau-0.95"): (1.0, 0.0), ("mars-b4-small-seed1", "tau-0.95"): (1.0, 1.0)},
    **{
        ("mars-b4-small", "one-token"): (0.0, 0.0),
        ("mars-b4-small-seed1", "one-token"): (1.0, 0.0),
    },
    **{("ar-small", "one-token"): (1.0, 1.0), ("ar-small-seed1", "one-token"): (0.0, 1.0)},
}


@pytest.fixture(scope="module")
def root(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers of three models to two questions of GSM8K; of GPQA one has text, as none may."""
    root = tmp_path_factory.mktemp("work")
    judged = {"metric": "exact_match", "filter": "flexible-extract"}
    for (model, setting), scores in SCORES.items():
        for name, task in (("gsm8k", "gsm8k_cot"), ("gpqa", "gpqa_main_cot_zeroshot")):
            record = root / f"results/ci/evaluations/{model}/{setting}/{name}.json"
            write_json(record, {"cell_spec": {"benchmark": judged}, "metrics": {}})
            rows = [line(document, score, task) for document, score in enumerate(scores)]
            write_jsonl(record.with_suffix(".samples.jsonl"), rows)
    pack(root / "results/ci")
    write_questions(experiment, root)
    return root


def page(root: Path) -> Path:
    return root / "results/ci" / QUESTIONS


def part(root: Path, task: str = "gsm8k_cot") -> dict[str, Any]:
    return next(one for one in parts_of(page(root)) if one["questions"][0][0] == task)


def behind(link: str) -> dict[str, set[tuple[str, ...]]]:
    """The cells of evaluations that an address names: its own, and those that are taken off."""
    file, _, fragment = link.partition("#")
    assert file == QUESTIONS
    given = {key: values[0].split(",") for key, values in parse_qs(fragment).items()}
    own = product(given["model"], given["setting"], given["benchmark"])
    off = product(given.get("against", []), given.get("against_setting", []), given["benchmark"])
    return {"own": set(own), "off": set(off)}


@pytest.mark.parametrize(
    ("setting", "quantity", "against"),
    [
        ("tau-0.95", "accuracy", ""),
        ("tau-0.95", "tokens_per_forward", ""),
        ("tau-0.95", "delta_from_tau_1", ""),
        ("one-token", "accuracy_difference", "ar-small/one-token"),
        ("one-token", "accuracy_difference", "base-small/one-token"),
    ],
)
@pytest.mark.parametrize("title", ["GSM8K", "Avg"])
def test_a_number_leads_to_what_the_audit_finds_behind_it(
    experiment: Experiment, setting: str, quantity: str, against: str, title: str
):
    extra = {"against": against} if against else {}
    row = ("0.5B", "a row", quantity)
    where = {"model": "mars-b4-small", "setting": setting, "ours": Measured(1.0), "extra": extra}
    cells = [TableCell(*row, name, **where) for name in ("GSM8K", "HumanEval", "Avg")]
    cells.append(TableCell(*row, "IFEval", "mars-b4-small", setting))  # not run
    cells.append(TableCell("0.5B", "another", quantity, "BBH", **where))
    tables = object.__new__(Tables)
    tables.records = type("Records", (), {"experiment": experiment})
    tables._keys = {one.title: key for key, one in experiment.benchmarks.items()}
    tables._folder, tables._read = Path("results/ci/evaluations"), {}
    tables.cells = [
        CellLine(
            *("table4.csv", "table4", one.scale, one.row, one.model, one.setting, one.benchmark),
            *(one.quantity, NOT_RUN if one.ours is None else "1.0", "0", "6", against),
        )
        for one in cells
    ]
    place = next(n for n, cell in enumerate(cells) if cell.benchmark == title)
    link = address(cells[place], cells, answered(experiment))
    assert link is not None
    files = {Path(file).parts[-3:] for file in tables._number(tables.cells[place])[1]}
    named = behind(link)
    found = {(m, s, f"{b}.json") for m, s, b in named["own"] | named["off"]}
    assert found == files
    assert bool(named["off"]) == (quantity in ("delta_from_tau_1", "accuracy_difference"))


def test_what_no_answer_is_behind_leads_nowhere(experiment: Experiment):
    known = answered(experiment)
    for cell in (
        TableCell("0.5B", "a row", "accuracy", "GSM8K", "mars-b4-small", "one-token"),
        TableCell("0.5B", "a row", "accuracy", "GSM8K", published=3.0),
        TableCell("0.5B", "a row", "steps", model="m", setting="s", ours=Measured(3.0)),
    ):
        assert address(cell, [cell], known) is None


def test_the_answers_of_a_cell_give_its_number(experiment: Experiment, root: Path):
    gsm8k = part(root)
    assert [question[:2] for question in gsm8k["questions"]] == [["gsm8k_cot", n] for n in (0, 1)]
    for (model, setting), scores in SCORES.items():
        given = gsm8k["cells"][f"{model}/{setting}"]
        found = [gsm8k["answers"][place][number] for place, (number, _) in enumerate(given)]
        assert fmean(answer[2] for answer in found) == fmean(scores)
        assert [answer[0] for answer in found] == [f"The answer is {score}." for score in scores]
        assert {forwards for _, forwards in given} == {4}


def test_the_same_answer_stands_once(root: Path):
    assert all(len(answers) == 2 for answers in part(root)["answers"])  # right and wrong


def test_prompts_stay_that_an_earlier_page_has(
    experiment: Experiment, root: Path, monkeypatch: pytest.MonkeyPatch
):
    assert prompts_of(page(root)) == {}, "there are no data here to build them from"
    known = {sha256_text(PROMPT): PROMPT}
    monkeypatch.setattr("mars.publishing.questions.prompts_of", lambda page: known)
    assert "not here" not in write_questions(experiment, root)
    monkeypatch.undo()
    assert prompts_of(page(root)) == known
    before = page(root).read_bytes()
    write_questions(experiment, root)
    assert page(root).read_bytes() == before


def test_gpqa_has_letters_only(experiment: Experiment, root: Path):
    known = {sha256_text(PROMPT): SECRET}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mars.publishing.questions.prompts_of", lambda page: known)
        write_questions(experiment, root)
    gpqa = part(root, "gpqa_main_cot_zeroshot")
    assert SECRET not in str(gpqa)
    assert all(question[3] is None for question in gpqa["questions"])
    assert all(answer[0] is None for answers in gpqa["answers"] for answer in answers)
    assert {answer[1] for answers in gpqa["answers"] for answer in answers} == {"9"}


def test_a_model_is_shown_beside_the_ar_model_that_it_continues(experiment: Experiment):
    beside = compared(experiment)
    assert beside["mars-b4-small"] == "ar-small"
    assert beside["mars-b4-small-seed1"] == "ar-small-seed1"


def test_nothing_is_loaded_from_elsewhere(root: Path):
    text = page(root).read_text()
    for word in ("http://", "https://", "import ", "fetch(", "src=", "url("):
        assert word not in text


def test_without_answers_there_is_no_page(experiment: Experiment, tmp_path: Path):
    with pytest.raises(UserError, match=r"samples\.parquet is not here"):
        write_questions(experiment, tmp_path)


# --- in a browser -------------------------------------------------------------------------------

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


def opened(page: Path, fragment: str, profile: Path) -> str:
    """The page as a browser has it in the end, from disk."""
    assert BROWSER is not None
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={profile}", "--virtual-time-budget=10000"]
    done = subprocess.run(
        [*command, f"{page.as_uri()}#{fragment}"], capture_output=True, text=True, timeout=300
    )
    return done.stdout


@pytest.mark.skipif(BROWSER is None, reason="no browser is installed: chromium or google-chrome")
def test_a_browser_selects_what_the_address_says(root: Path, tmp_path: Path):
    fragment = "model=mars-b4-small,mars-b4-small-seed1&setting=tau-0.95&benchmark=gsm8k"
    text = opened(page(root), fragment, tmp_path)
    assert 'data-answers="4"' in text  # two trainings, two questions
    assert "mars-b4-small, 2 trainings (tau-0.95): 75.0 %" in text
    assert "ar-small, 2 trainings (one-token): 75.0 %" in text, "the AR model it continues"
    for words in (
        *("all (4)", "both wrong (0)", "both right (2)"),
        *("ar-small right, mars-b4-small wrong (1)", "ar-small wrong, mars-b4-small right (1)"),
    ):
        assert words in text
    assert text.count("<article") == 4
    lost = opened(page(root), f"{fragment}&show=lost", tmp_path)
    assert lost.count("<article") == 1
    assert 'id="mars-b4-small:gsm8k_cot:1"' in lost
