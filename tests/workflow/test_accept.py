"""A change of code that changes no result is accepted once, and nothing runs again for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mars.audit.accept import accept, candidates, code_changes
from mars.audit.cells import Tables
from mars.audit.proof import prove
from mars.audit.record_graph import RecordGraph
from mars.audit.report import audit_all, audit_cell
from mars.config.experiment import Experiment, load_experiment, read_experiment
from mars.errors import UserError
from mars.planning.differences import differences
from mars.planning.plan import PlannedJob, jobs
from mars.provenance.accepted import read_accepted
from mars.provenance.files import read_json, write_json
from mars.provenance.record import sealed
from tests.support.ci_experiment import change_function, commit, forget

RESULTS = Path("results/ci")
CELL = ("table2", "0.5B MARS B=4", "GSM8K")
BECAUSE = "one name more, nothing else"


@pytest.fixture
def now(edited: Path) -> Experiment:
    change_function(edited / "mars/training/trainer.py", "train")
    forget()
    return load_experiment(edited / "config/ci.yaml")


def planned(run: Path, edited: Path) -> list[PlannedJob]:
    return jobs([edited / "config/ci.yaml"], run)


def named(part: str, planned: list[PlannedJob]) -> list[PlannedJob]:
    return [job for job in planned if part in job.name]


def running(planned: list[PlannedJob]) -> set[str]:
    return {job.name for job in planned if job.runs}


def test_after_it_the_plan_is_empty_and_the_audit_says_so(run: Path, edited: Path, now: Experiment):
    before = planned(run, edited)
    assert "train mars-b4-small" in running(before)
    chosen = candidates(named("train ", before), now, run)
    assert {one.job.name for one in chosen} == {
        *(f"train {name}" for name in now.trained_models() if "base" not in name),
        *("pretrain base-small", "pretrain base-large"),
    }
    assert all("mars.training.trainer" in one.modules for one in chosen)
    accept(chosen, now, run, BECAUSE)
    assert running(planned(run, edited)) == set()
    found = Tables(RecordGraph(now, run))
    word, lines, _ = audit_all(found)
    assert (word, lines[-1]) == ("verified", f"verified (accepted: {BECAUSE})")
    word, lines, plain = audit_cell(found, found.find(*CELL))
    assert (word, lines[-1]) == ("verified", f"verified (accepted: {BECAUSE})")
    links = {link["job"]: link["accepted"] for link in plain["chain"]}
    assert links["train mars-b4-small"] == BECAUSE
    assert links["evaluate mars-b4-small"] is None

    (entry, *_) = read_accepted(run / RESULTS)
    assert entry.was != entry.now
    assert entry.because == BECAUSE
    change_function(edited / "mars/training/trainer.py", "train")  # once more: not accepted
    forget()
    record = read_json(run / RESULTS / "provenance/train/mars-b4-small.json")
    assert [one.kind for one in differences(record, now, run)] == ["code"]


def test_what_is_no_change_of_code_is_refused(run: Path, edited: Path, now: Experiment):
    before = planned(run, edited)
    train = named("train mars-b4-small", before)
    content = read_experiment(edited / "config/ci.yaml")
    content["models"]["mars-b4-small"]["training"] = {"learning_rate": 1e-3}
    (edited / "config/ci.yaml").write_text(yaml.safe_dump(content))
    other = load_experiment(edited / "config/ci.yaml")
    with pytest.raises(UserError, match=r"learning_rate .* Only a change of code can be accepted"):
        candidates(train, other, run)
    lock = edited / "requirements.lock"
    lock.write_text(lock.read_text().replace("torch==", "torch==9"))
    forget()
    with pytest.raises(UserError, match="packages: torch"):
        candidates(train, now, run)
    lock.write_text(lock.read_text().replace("torch==9", "torch=="))
    forget()
    manifest = run / RESULTS / "checkpoints/ar-small/manifest.json"
    write_json(manifest, {**read_json(manifest), "more": 1})
    with pytest.raises(UserError, match=r"ar-small/manifest\.json has changed"):
        candidates(train, now, run)
    with pytest.raises(UserError, match="nothing to accept"):
        candidates(named("evaluate base", before), now, run)


def test_the_difference_is_that_since_the_record(run: Path, edited: Path):
    path = edited / "mars/training/trainer.py"
    then = commit(edited)
    change_function(path, "train")
    forget()
    (run / RESULTS / "records.jsonl").unlink()
    for record in (run / RESULTS / "provenance/train").glob("*.json"):
        content = read_json(record)
        content["code"] |= {"commit": then, "dirty": False}
        write_json(record, sealed(content))
    experiment = load_experiment(edited / "config/ci.yaml")
    (one,) = candidates(named("train mars-b4-small", planned(run, edited)), experiment, run)
    assert "+    changed = 1" in code_changes(one)


@pytest.mark.slow
def test_a_proof_runs_the_stage_under_both_commits(edited: Path):
    then = commit(edited)
    path = edited / "mars/data/tokenizer.py"
    change_function(path, "train_from_folder")
    forget()
    assert prove("train_tokenizer", then) == {
        **{"experiment": "ci", "stage": "train_tokenizer", "result": "identical"},
        "files": 4,
    }
    text = path.read_text()
    assert "vocab_size=" in text
    path.write_text(text.replace("vocab_size=", "vocab_size=-8 + "))
    forget()
    with pytest.raises(UserError, match="is not the same under both commits"):
        prove("train_tokenizer", then)
    with pytest.raises(UserError, match="are times"):
        prove("measure_live_tau", then)
