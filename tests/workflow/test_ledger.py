"""DVC's ledger and Snakemake's notes: a clone knows what is done, and what a change reruns."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from mars.audit.cells import Tables
from mars.audit.packed import EVIDENCE, SAMPLES
from mars.audit.recompute import SAME, recompute
from mars.audit.record_graph import RecordGraph
from mars.audit.report import audit_all
from mars.config.experiment import load_experiment
from mars.planning.jobs import specs_of
from mars.planning.plan import jobs
from mars.provenance import fingerprint
from mars.provenance.files import read_json, read_jsonl, sha256_file
from mars.publishing import ledger, storage
from tests.support.ci_experiment import change_function, environment, snakemake
from tests.support.git import need_git
from tests.support.waiting import run as run_command

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path("results/ci")


def command(folder: Path, *words: str) -> str:
    names = [f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]
    variables = environment(folder) | dict.fromkeys(names, "test@localhost")
    done = run_command(words, folder, cwd=folder, env=variables)
    assert done.returncode == 0, f"{words}: {done.stdout[-4000:]}"
    return done.stdout


def dvc(folder: Path, *words: str) -> str:
    return command(folder, sys.executable, "-m", "dvc", *words)


@pytest.fixture
def repository(edited: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository of the project with the finished experiment, entered into the ledger.

    dvc.yaml is about other experiments; here it is made to be about ci.
    """
    ours = shutil.ignore_patterns("cache", "tmp", "config.local")
    shutil.copytree(ROOT / ".dvc", edited / ".dvc", ignore=ours)
    for name in (".dvcignore", ".gitignore", "dvc.yaml"):
        text = (ROOT / name).read_text().replace("results/ci/\n", "").replace(", mini]", "]")
        (edited / name).write_text(text.replace("tiny", "ci"))
    need_git()
    for name in ("results", ".snakemake"):
        shutil.copytree(finished / name, edited / name)
    command(edited, "git", "init", "--quiet")
    monkeypatch.chdir(edited)
    # As the workflow does where dvc.yaml is about the experiment.
    ledger.write_specs(RESULTS, specs_of(load_experiment(edited / "config/ci.yaml")))
    assert "is in DVC's cache" in ledger.commit(RESULTS)
    command(edited, "git", "add", "--all")
    command(edited, "git", "commit", "--quiet", "--message", "results")
    return edited


def planned(folder: Path, project: Path) -> set[str]:
    return {job.name for job in jobs([project / "config/ci.yaml"], folder) if job.runs}


def test_a_clone_has_nothing_to_do_and_notices_a_change(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    in_git = command(repository, "git", "ls-files", "results").split()
    assert f"{RESULTS}/metrics.json" in in_git
    assert f"{RESULTS}/tables/table2.csv" in in_git
    assert f"{RESULTS}/records.jsonl" in in_git
    assert not any("provenance" in name for name in in_git)
    assert {f"{RESULTS}/{name}" for name in (SAMPLES, EVIDENCE, "CLAIMS.md")} < {*in_git}
    assert not any("checkpoints/" in name or ".samples." in name for name in in_git)
    monkeypatch.delenv(storage.VARIABLE, raising=False)
    storage.push(RESULTS)
    clone = tmp_path / "clone"
    command(tmp_path, "git", "clone", "--quiet", str(repository), str(clone))
    monkeypatch.setenv("PYTHONPATH", str(clone))
    monkeypatch.setattr(fingerprint, "PACKAGE", clone / "mars")
    assert recompute(clone / RESULTS).word == SAME  # from git alone
    assert {"evaluate ar-small", "pretrain base-small"} < planned(clone, clone), (
        "tables are not all"
    )
    experiment = load_experiment(clone / "config/ci.yaml")
    assert audit_all(Tables(RecordGraph(experiment, clone)))[0] == "missing"
    monkeypatch.chdir(clone)
    storage.pull(RESULTS)
    assert planned(clone, clone) == set()
    assert "Nothing to be done" in snakemake(clone, clone, "--dry-run")
    assert audit_all(Tables(RecordGraph(experiment, clone)))[0] == "verified"
    change_function(clone / "mars/paper/figures/training_curves.py", "plot_curves")
    assert planned(clone, clone) == {"training_curves", "report"}


def test_the_cache_does_not_double_the_disk(repository: Path):
    weights = repository / RESULTS / "checkpoints/ar-small/model.safetensors"
    if os.stat(weights).st_nlink < 2 and not weights.is_symlink():
        pytest.skip("this file system makes copies of its own (reflinks)")
    assert weights.stat().st_mode & 0o222 == 0, "a file shared with the cache can be written to"


def test_dvc_sees_the_scores_and_reruns_only_what_depends_on_a_change(repository: Path):
    with open(repository / "mars/training/trainer.py", "a") as stream:
        stream.write("# A comment.\n")
    assert planned(repository, repository) == set()
    assert dvc(repository, "status").strip() == "Data and pipelines are up to date."
    shown = dvc(repository, "metrics", "show", "--md")
    assert "mars-b4-small.tau-0.95.gsm8k.tokens_per_forward" in shown
    dvc(repository, "plots", "show", "--out", str(repository / "plots"))
    assert "training_curves.png" in (repository / "plots/index.html").read_text()
    change_function(repository / "mars/paper/claims/report.py", "write_claims")
    assert {"claims", "report"} == planned(repository, repository)
    assert "specs/paper.json" in dvc(repository, "status")
    weights = sorted((repository / RESULTS / "checkpoints").glob("*/model.safetensors"))
    before = list(map(sha256_file, weights))
    records = {
        path: sha256_file(path) for path in (repository / RESULTS / "provenance").rglob("*.json")
    }
    dvc(repository, "repro")
    rerun = {path.stem for path, digest in records.items() if sha256_file(path) != digest}
    assert rerun == {"claims", "report"}
    assert list(map(sha256_file, weights)) == before
    assert planned(repository, repository) == set()
    assert dvc(repository, "metrics", "diff").strip() == ""


def test_other_experiments_and_folders_without_git_are_left_alone(
    run: Path, edited: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(run)
    assert "not about results/ci" in ledger.commit(RESULTS)
    shutil.copy(ROOT / "dvc.yaml", run)
    assert "not about results/ci" in ledger.commit(RESULTS)
    assert "not a git repository" in ledger.commit(Path("results/tiny"))
    assert not (run / "dvc.lock").exists()


def test_the_notes_hold_what_snakemake_knows(
    run: Path, edited: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(run)
    scores = read_json(RESULTS / "metrics.json")
    cell = read_json(RESULTS / "evaluations/mars-b4-small/tau-0.95/gsm8k.json")
    value = cell["metrics"]["exact_match"]["flexible-extract"]["value"]
    assert scores["mars-b4-small"]["tau-0.95"]["gsm8k"]["score"] == value
    old = RESULTS / "tables/table2.csv"
    shutil.rmtree(".snakemake")
    os.utime(old)
    ledger.restore(RESULTS)
    (ended,) = (
        job["note"]["endtime"]
        for job in read_jsonl(RESULTS / "snakemake.jsonl")
        if str(old) in job["outputs"]
    )
    assert old.stat().st_mtime == pytest.approx(ended, abs=1e-3)
    assert planned(run, edited) == set()
    shutil.rmtree(".snakemake")
    (RESULTS / "snakemake.jsonl").unlink()
    ledger.restore(RESULTS)  # nothing to restore, nothing breaks
    assert not Path(".snakemake").exists()
