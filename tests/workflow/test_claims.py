"""Verdicts from packed answers, and one claim alone: what comes out is what a whole run says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mars.audit.cells import Tables
from mars.audit.packed import EVIDENCE, SAMPLES, Packed, pack
from mars.audit.recompute import DIFFERS, SAME, recompute
from mars.audit.record_graph import RecordGraph
from mars.audit.records import RECORDS, restore_records
from mars.audit.report import audit_all
from mars.config.experiment import Experiment, load_experiment
from mars.errors import UserError
from mars.paper.claims.behind import BEHIND
from mars.provenance.files import read_json, write_atomic, write_json
from mars.publishing.claims_sheet import files_behind, judge, price
from mars.publishing.ledger import not_here, save
from tests.support.forgery import forge_packed_answer

RESULTS = "results/ci"
IN_GIT = ("claims.json", "claims.md", "comparison.csv", "comparison.md", "tables", "metrics.json")


@pytest.fixture
def ci(edited: Path) -> Experiment:
    return load_experiment(edited / "config/ci.yaml")


@pytest.fixture
def clone(finished: Path, tmp_path: Path) -> Path:
    """What git would have of the finished experiment: no answers but the packed ones."""
    folder = tmp_path / "clone" / RESULTS
    folder.mkdir(parents=True)
    for name in (*IN_GIT, RECORDS, SAMPLES, EVIDENCE):
        path = finished / RESULTS / name
        (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / name)
    return folder


def test_everything_comes_out_again_of_a_clone(clone: Path, edited: Path):
    found = recompute(clone)
    assert found.word == SAME
    assert found.problems == []
    tables = {path.name for path in (clone / "tables").iterdir()}
    made = {Path(one.file).name for one in found.outcomes}
    assert made == tables | {name for name in IN_GIT if name.startswith(("claims", "comparison"))}
    assert {one.word for one in [*found.outcomes, *found.claims]} == {SAME}
    assert len(found.claims) == len(BEHIND)


def test_a_clone_lacks_nothing_of_evaluations_and_measurements(finished: Path, clone: Path):
    packed = Packed(clone)
    made = [
        str(file.relative_to(finished / RESULTS))
        for kind in ("evaluations", "speed")
        for file in (finished / RESULTS / kind).rglob("*")
        if file.is_file()
    ]
    assert made
    for file in made:
        assert packed.read(file) == (finished / RESULTS / file).read_bytes()


def test_no_text_of_gpqa_is_packed(clone: Path):
    rows = pq.read_table(clone / SAMPLES, filters=[("benchmark", "=", "gpqa")]).to_pylist()
    assert rows
    for row in rows:
        assert row["generation"] is None
        letters = [json.loads(row["target"]), *json.loads(row["extracted"]).values()]
        assert all(one is None or (len(one) == 1 and one.isalpha()) for one in letters)


def another_answer(clone: Path) -> None:
    forge_packed_answer(clone, "ar-small", "one-token", "gsm8k")


def another_verdict(clone: Path) -> None:
    claims = read_json(clone / "claims.json")
    claims[9]["verdict"] = "does not hold"
    write_json(clone / "claims.json", claims)


def another_cell(clone: Path) -> None:
    lines = (clone / "tables/table2.csv").read_text().splitlines(keepends=True)
    run = next(number for number, line in enumerate(lines) if "mars-b4-small" in line)
    lines[run] = lines[run].replace("mars-b4-small", "ar-small", 1)
    write_atomic(clone / "tables/table2.csv", "".join(lines))


@pytest.mark.parametrize(
    ("forge", "told"),
    [
        (another_answer, "ar-small/"),
        (another_verdict, "claim 10, does not hold: differs: verdict is 'does not hold'"),
        (another_cell, "tables/table2.csv: differs: line"),
    ],
)
def test_what_was_edited_is_named(clone: Path, forge: Callable[[Path], None], told: str):
    forge(clone)
    found = recompute(clone)
    assert found.word == DIFFERS == found.lines()[-1]
    assert any(told in line for line in found.lines()), found.lines()


def test_without_what_was_packed_one_sentence_says_so(clone: Path):
    (clone / SAMPLES).unlink()
    with pytest.raises(UserError, match=r"samples.parquet is not here"):
        recompute(clone)


def test_the_audit_of_a_clone_takes_what_was_packed(clone: Path, ci: Experiment):
    root = clone.parents[1]
    restore_records(clone)
    records = RecordGraph(ci, root)
    word, lines, plain = audit_all(Tables(records))
    assert word == "missing"  # data and weights are not here
    assert any("byte for byte" in line for line in lines)
    assert {f"{RESULTS}/evaluations/ar-small/manifest.json"} < set(plain["unpacked"])
    evaluations = [name for name in records.records if "/provenance/evaluate/" in name]
    assert {records.link(name).word for name in evaluations} == {"verified"}
    assert records.link(f"{RESULTS}/provenance/train/ar-small.json").word == "missing"
    another_answer(clone)
    forged = RecordGraph(ci, root)
    name = f"{RESULTS}/provenance/evaluate/ar-small.json"
    assert forged.link(name).word == "changed"
    assert forged.link(name.replace("ar-small", "base-small")).word == "verified"


@pytest.mark.parametrize("number", BEHIND)
def test_a_claim_alone_is_judged_as_among_all(
    number: int, finished: Path, ci: Experiment, tmp_path: Path
):
    among_all = read_json(finished / RESULTS / "claims.json")[number - 1]
    if not BEHIND[number].files(ci):
        assert among_all["verdict"] == "not run"
        with pytest.raises(UserError, match=f"does not test claim {number}"):
            files_behind(number, ci)
        return
    for file in files_behind(number, ci):
        source, target = finished / file, tmp_path / file
        if source.name == "manifest.json":
            shutil.copytree(source.parent, target.parent)
        else:
            target.parent.mkdir(parents=True)
            shutil.copy(source, target)
    del among_all["p_holm"]
    assert judge(number, ci, tmp_path) == among_all


def test_a_claim_does_not_run_what_it_does_not_need(finished: Path, ci: Experiment):
    records = RecordGraph(ci, finished)
    makers = {records.maker(file) for file in files_behind(8, ci)}
    jobs = {records.link(job).job for maker in makers if maker for job in records.behind(maker)}
    assert {"evaluate ar-small", "train ar-small", "pretrain base-small"} < jobs
    assert not any("block-diffusion" in job or "measure" in job for job in jobs)
    taken = price(records, BEHIND[8].files(ci))
    whole = price(records, ["claims.json"])
    assert taken
    assert whole
    assert taken.jobs == len(jobs)
    assert 0 < taken.seconds < whole.seconds
    assert 0 < taken.disk < whole.disk


def test_the_sheet_has_a_command_and_the_verdict_of_each_claim(finished: Path):
    sheet = (finished / RESULTS / "CLAIMS.md").read_text()
    for claim in read_json(finished / RESULTS / "claims.json"):
        section = sheet.split(f"## {claim['number']}. ")[1].split("\n## ")[0]
        assert section.startswith(claim["claim"])
        assert f"**{claim['verdict']}**" in section
        command = f"`make claim N={claim['number']} EXPERIMENT=ci`"
        assert (command in section) is (claim["verdict"] != "not run")


def test_a_part_of_an_experiment_does_not_take_the_place_of_the_whole(
    run: Path, ci: Experiment, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(run)
    assert not_here(ci) == []
    kept = {name: Path(RESULTS, name).read_bytes() for name in (SAMPLES, EVIDENCE, RECORDS)}
    shutil.rmtree(Path(RESULTS, "evaluations/ar-small"))
    assert "stays as it was packed" in save(ci)
    assert kept == {name: Path(RESULTS, name).read_bytes() for name in kept}
    pack(Path(RESULTS))
    assert kept[SAMPLES] != Path(RESULTS, SAMPLES).read_bytes()


def test_the_commands(clone: Path, edited: Path):
    def mars(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mars", *arguments]
        config = ["--config", str(edited / "config/ci.yaml")]
        root = clone.parents[1]
        return subprocess.run([*command, *config], cwd=root, capture_output=True, text=True)

    good = mars("claims")
    assert (good.returncode, good.stdout.splitlines()[-1]) == (0, SAME), good.stderr
    another_verdict(clone)
    bad = mars("claims", "--json")
    assert (bad.returncode, json.loads(bad.stdout)["word"]) == (1, DIFFERS)
    targets = mars("claim", "8", "--files")
    assert f"{RESULTS}/evaluations/ar-small/manifest.json" in targets.stdout.splitlines()
    alone = mars("claim", "8")
    assert alone.returncode == 2
    assert "run `make claim N=8` first" in alone.stderr
