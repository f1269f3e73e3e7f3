"""The audit finds what was tampered with, names the file, and has the right word for it."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mars.audit.cells import Tables
from mars.audit.packed import EVIDENCE
from mars.audit.packed import SAMPLES as SAMPLES_OF_ALL
from mars.audit.record_graph import RecordGraph
from mars.audit.report import audit_all, audit_cell
from mars.config.experiment import load_experiment
from mars.errors import UserError
from mars.provenance.files import read_json, read_jsonl, sha256_file, write_json
from mars.provenance.record import sealed
from tests.support.ci_experiment import change_function

RESULTS = "results/ci"
CELL = ("table2", "0.5B MARS B=4", "GSM8K")


def tables(run: Path, project: Path) -> Tables:
    return Tables(RecordGraph(load_experiment(project / "config/ci.yaml"), run))


def lines_of(table: Path) -> list[dict[str, str]]:
    with open(table, newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_finished_experiment_is_verified(finished: Path, edited: Path):
    found = tables(finished, edited)
    word, lines, plain = audit_all(found)
    assert (word, plain["problems"]) == ("verified", [])
    written = {path.stem: lines_of(path) for path in (finished / RESULTS / "tables").glob("*.csv")}
    assert plain["cells"].keys() == written.keys() >= {"table2", "table7", "table8", "findings"}
    for table, cells in written.items():
        run = sum(cell["value"] != "not run" for cell in cells)
        assert run > 0
        expected = {"verified": run, "not run": len(cells) - run}
        assert plain["cells"][table] == {word: n for word, n in expected.items() if n}
    word, lines, plain = audit_cell(found, found.find(*CELL), samples=True)
    assert word == lines[-1] == "verified"
    chain = [link["job"] for link in plain["chain"]]
    assert chain[:3] == ["table2", "evaluate mars-b4-small", "train mars-b4-small"]
    assert {"train ar-small", "pretrain base-small", "generate_data"} < set(chain)
    assert "evaluate ar-small" not in chain
    assert plain["chain"][chain.index("generate_data")]["source"] == {"seed": 0}
    (file,) = plain["evaluations"]
    assert plain["samples"][file] == read_jsonl(
        finished / file.replace("gsm8k.json", "gsm8k.samples.jsonl")
    )
    assert sum("gsm8k_cot" in line and "->" in line for line in lines) == 6


def flip(file: str) -> Callable[[Path], None]:
    def apply(run: Path) -> None:
        content = bytearray((run / RESULTS / file).read_bytes())
        content[len(content) // 2] ^= 1
        (run / RESULTS / file).write_bytes(content)

    return apply


def remove(file: str) -> Callable[[Path], None]:
    """Remove a file, and what was packed, which would give it back."""

    def apply(run: Path) -> None:
        for name in (file, SAMPLES_OF_ALL, EVIDENCE):
            (run / RESULTS / name).unlink()

    return apply


def replace(file: str, pattern: str, new: str) -> Callable[[Path], None]:
    def apply(run: Path) -> None:
        text, count = re.subn(pattern, new, (run / RESULTS / file).read_text(), count=1)
        assert count == 1
        (run / RESULTS / file).write_text(text)

    return apply


WEIGHTS = "checkpoints/base-small/model.safetensors"
SAMPLES = "evaluations/mars-b4-small/one-token/gsm8k.samples.jsonl"
SCORES = "evaluations/mars-b4-small/one-token/gsm8k.json"
RECORD = "provenance/train/ar-small.json"


@pytest.mark.parametrize(
    ("tamper", "word", "file"),
    [
        (flip(WEIGHTS), "changed", WEIGHTS),
        (
            flip("data/tokens/small/documents/data-00000-of-00001.arrow"),
            "changed",
            "documents/data",
        ),
        (flip("data/tokenizer/tokenizer.json"), "changed", "data/tokenizer/tokenizer.json"),
        (
            replace("tables/table2.csv", r"(?m)^(.*mars-b4.*GSM8K,accuracy),[^,]*", r"\1,99.9"),
            "changed",
            "tables/table2.csv",
        ),
        (replace("tables/table2.md", "0", "1"), "changed", "tables/table2.md"),
        (replace(SCORES, '"documents": 6', '"documents": 7'), "changed", SCORES),
        (replace(RECORD, '"seconds": ', '"seconds": 1'), "changed", RECORD),
        (replace(RECORD, "{", ""), "changed", RECORD),
        (flip("checkpoints/ar-small/manifest.json"), "changed", "ar-small/manifest.json"),
        (remove(SAMPLES), "missing", SAMPLES),
        (remove(SCORES), "missing", SCORES),
        (remove(RECORD), "missing", "checkpoints/ar-small/manifest.json"),
        (remove(WEIGHTS), "missing", WEIGHTS),
    ],
)
def test_tampering_is_found_and_named(
    run: Path, edited: Path, tamper: Callable[[Path], None], word: str, file: str
):
    tamper(run)
    found = tables(run, edited)
    for told, lines, plain in (audit_all(found), audit_cell(found, found.find(*CELL))):
        assert told == lines[-1] == word
        assert any(file in line for line in lines[:-1]), lines
        named = [
            *plain["problems"],
            *(f for link in plain.get("chain", []) for f in link["problems"]),
        ]
        assert any(file in finding["file"] and finding["word"] == word for finding in named)


# A cell of each kind: table, row, column, quantity; the evaluations that it comes from.
B4 = "evaluations/mars-b4-small"
KINDS = [
    ("table2", "0.5B MARS-0.5B (B=4)", "GSM8K", None, [f"{B4}/one-token/gsm8k.json"]),
    ("table4", "0.5B MARS-0.5B (B=4)", "BBH", "delta_from_tau_1", [f"{B4}/tau-0.95/bbh.json"]),
    ("table8", "0.5B MARS-0.5B (B=4), tau = 0.5", "GSM8K", None, [f"{B4}/tau-0.5/gsm8k.json"]),
    (
        *("table9", "Jacobi on AR SFT (0.5B)", "GSM8K", "tokens_per_forward"),
        ["evaluations/ar-small/jacobi/gsm8k.json"],
    ),
    (
        *("findings", "0.5B MARS-0.5B (B=4)", "GSM8K", "tokens_per_forward_as_counted"),
        [f"{B4}/tau-0.95/gsm8k.json"],
    ),
    (
        *("findings", "AR SFT (5 ep) inherited repetition penalty", "GSM8K", "accuracy_difference"),
        [
            "evaluations/ar-small/penalty-1.1/gsm8k.json",
            "evaluations/ar-small/one-token/gsm8k.json",
        ],
    ),
]


@pytest.mark.parametrize(("table", "row", "column", "quantity", "sources"), KINDS)
def test_a_forged_table_with_a_fitting_record_does_not_agree_with_the_evaluations(
    run: Path, edited: Path, table: str, row: str, column: str, quantity: str, sources: list[str]
):
    found = tables(run, edited)
    cell = found.find(table, row, column, quantity)
    word, _, plain = audit_cell(found, cell)
    assert word == "verified"
    assert set(plain["evaluations"]) >= {f"{RESULTS}/{source}" for source in sources}

    path = run / cell.file
    lines = lines_of(path)
    for line in lines:
        if all(
            line[key] == getattr(cell, key) for key in ("scale", "row", "benchmark", "quantity")
        ):
            line["value"] = "99.9"
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    maker = run / str(found.records.maker(cell.file))
    record = read_json(maker)
    record["outputs"][cell.file] = sha256_file(path)
    write_json(maker, sealed(record))
    forged = tables(run, edited)
    word, told, _ = audit_cell(forged, forged.find(table, row, column, quantity))
    assert word == "changed"
    assert any("is 99.9, the evaluation records give" in line for line in told)


def test_a_cost_is_traced_to_the_training_that_it_is_of(run: Path, edited: Path):
    found = tables(run, edited)
    cell = found.find("table7", "0.5B MARS (B=4)", "seconds")
    word, _, plain = audit_cell(found, cell)
    chain = [link["job"] for link in plain["chain"]]
    assert word == "verified"
    assert chain[:2] == ["table7", "train mars-b4-small"]
    assert "train ar-large" not in chain
    replace("provenance/train/mars-b4-small.json", '"steps": ', '"steps": 1')(run)
    found = tables(run, edited)
    word, lines, _ = audit_cell(found, cell)
    assert word == "changed"
    assert any("provenance/train/mars-b4-small.json" in line for line in lines)


def test_a_table_or_an_experiment_that_is_not_there(run: Path, edited: Path):
    (run / RESULTS / "tables/table4.csv").unlink()
    word, lines, _ = audit_all(tables(run, edited))
    assert word == "missing"
    assert any("tables/table4.csv" in line for line in lines)
    nothing = tables(run / "elsewhere", edited)
    assert audit_all(nothing)[0] == "missing"
    with pytest.raises(UserError, match="run the experiment first"):
        nothing.find(*CELL)


def test_code_packages_and_configuration_of_another_day_are_stale(run: Path, edited: Path):
    change_function(edited / "mars/decoding/acceptance.py", "accepted_run")
    lock = edited / "requirements.lock"
    lock.write_text(re.sub(r"(?m)^numpy==.*$", "numpy==1.0", lock.read_text()))
    found = tables(run, edited)
    word, lines, plain = audit_cell(found, found.find(*CELL))
    assert word == "stale"
    assert {finding["word"] for link in plain["chain"] for finding in link["problems"]} == {"stale"}
    told = "\n".join(lines)
    assert "provenance/evaluate/mars-b4-small.json: code: mars.decoding.acceptance" in told
    assert "provenance/pretrain/base-small.json: packages: numpy" in told
    assert "provenance/pretrain/base-small.json: code" not in told


def test_a_job_run_by_code_edited_after_planning_is_stale(run: Path, edited: Path):
    path = run / RESULTS / "provenance/pretrain/base-small.json"
    record = read_json(path)
    record["code"]["modules"]["mars.training.losses"] = "0" * 64
    write_json(path, sealed(record))
    word, lines, _ = audit_all(tables(run, edited))
    assert word == "stale"
    assert any("edited between planning this job and running it" in line for line in lines)


def test_an_input_made_again_leaves_its_users_stale(run: Path, edited: Path):
    flip(WEIGHTS)(run)
    manifest = f"{RESULTS}/checkpoints/base-small/manifest.json"
    content = read_json(run / manifest)
    content["files"]["model.safetensors"]["sha256"] = sha256_file(run / RESULTS / WEIGHTS)
    write_json(run / manifest, content)
    path = run / RESULTS / "provenance/pretrain/base-small.json"
    record = read_json(path)
    record["outputs"][manifest] = sha256_file(run / manifest)
    write_json(path, sealed(record))
    word, lines, plain = audit_all(tables(run, edited))
    assert word == "stale"
    # Table 7 reads the record itself, which was written again too.
    record_file = f"{RESULTS}/provenance/pretrain/base-small.json"
    assert {finding["file"] for finding in plain["problems"]} == {manifest, record_file}
    assert any("was made again since" in line for line in lines)


@pytest.mark.parametrize(
    ("asked", "row", "model"),
    [
        ("0.5B MARS B=4", "MARS-0.5B (B=4)", "mars-b4-small"),
        ("mars-b4-small", "MARS-0.5B (B=4)", "mars-b4-small"),
        ("ar sft (5 ep)", "AR SFT (5 ep)", "ar-small"),
        ("ar sft", "AR SFT", "ar-large"),
        ("base", "Base (no fine-tune)", "base-small"),
        ("w/o sft loss", "MARS-0.5B w/o SFT loss (B=4)", "not run"),
    ],
)
def test_rows_are_found_by_what_people_call_them(
    finished: Path, edited: Path, asked: str, row: str, model: str
):
    cell = tables(finished, edited).find("table2", asked, "gsm")
    assert (cell.row, cell.model, cell.benchmark) == (row, model, "GSM8K")


@pytest.mark.parametrize(
    ("table", "row", "column", "message"),
    [
        (
            "table1",
            "MARS B=4",
            "GSM8K",
            "no table fits 'table1'; did you mean 'table2' or 'table3'",
        ),
        ("table2", "MRAS", "GSM8K", "no row fits 'MRAS'; did you mean .*MARS-0.5B"),
        ("table2", "0.5B MARS B=4", "GMS8K", "no column fits 'GMS8K'; did you mean 'GSM8K'"),
    ],
)
def test_a_wrong_name_is_one_sentence_with_suggestions(
    finished: Path, edited: Path, table: str, row: str, column: str, message: str
):
    with pytest.raises(UserError, match=message):
        tables(finished, edited).find(table, row, column)


def test_the_command_returns_what_it_says(run: Path, edited: Path):
    def audit(*arguments: str) -> subprocess.CompletedProcess[str]:
        config = str(edited / "config/ci.yaml")
        command = [sys.executable, "-m", "mars", "audit", *arguments, "--config", config]
        return subprocess.run(command, cwd=run, capture_output=True, text=True)

    good = audit("--all")
    assert (good.returncode, good.stdout.splitlines()[-1]) == (0, "verified"), good.stderr
    flip(WEIGHTS)(run)
    bad = audit(*CELL, "--json")
    assert bad.returncode == 1, bad.stderr
    assert json.loads(bad.stdout)["word"] == "changed"
    assert audit("table2").returncode == 2
