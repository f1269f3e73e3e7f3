"""What was computed comes out again, what was forged does not, and the audit says which."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from mars.audit.cells import Tables
from mars.audit.record_graph import RecordGraph
from mars.audit.replay import Replays
from mars.audit.replay_choice import behind_cell, drawn, in_order, named, numbers_on
from mars.audit.replays import read_replays
from mars.audit.report import audit_all, audit_cell
from mars.config.experiment import Experiment, load_experiment
from mars.errors import UserError
from mars.planning.differences import spec_of
from mars.provenance.files import read_json, read_jsonl, write_json, write_jsonl
from tests.support.ci_experiment import change_function, commit, environment, forget
from tests.support.forgery import forge, forge_packed_answer

RESULTS = Path("results/ci")
CELL = ("table2", "0.5B MARS B=4", "GSM8K")
BEHIND = ["evaluate mars-b4-small", "table2"]
WITHOUT_MODEL = ("table2", "table5", "comparison", "claims", "figure3")


@pytest.fixture
def experiment_now(edited: Path) -> Experiment:
    return load_experiment(edited / "config/ci.yaml")


def tables_of(run: Path, experiment: Experiment) -> Tables:
    return Tables(RecordGraph(experiment, run))


def replay(run: Path, project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    config = str(project / "config/ci.yaml")
    command = [sys.executable, "-m", "mars", "replay", *arguments, "--config", config]
    return subprocess.run(
        command, cwd=run, env=environment(project), capture_output=True, text=True
    )


def test_an_honest_number_comes_out_again_and_the_audit_says_so(
    run: Path, edited: Path, experiment_now: Experiment
):
    done = replay(run, edited, *CELL)
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[-1]) == (0, "identical"), done.stdout + done.stderr
    assert re.match(r"2 jobs to run again, \d+ min \d\d s by the records:", lines[0])
    assert [line.split()[0] for line in lines[4:]] == ["identical"] * 4
    number = re.search(r"GSM8K, accuracy: (\S+) in the table, (\S+) again", done.stdout)
    assert number
    assert float(number[1]) == pytest.approx(float(number[2]), abs=1e-4)
    noted = read_replays(run / RESULTS)
    assert [entry.job for entry in noted] == BEHIND
    assert [entry.cells for entry in noted] == [["one-token/gsm8k"], []]
    found = tables_of(run, experiment_now)
    word, lines, _ = audit_cell(found, found.find(*CELL))
    assert word == "verified"
    assert re.fullmatch(r"verified, 2 of \d+ jobs replayed, the last on \d{4}-\d\d-\d\d", lines[-1])
    word, lines, _ = audit_all(found)
    assert re.fullmatch(r"verified, 1 of \d+ jobs replayed, the last on .*", lines[-1])

    record = run / noted[1].record
    write_json(record, {**read_json(record), "sha256": "another run"})
    found = tables_of(run, experiment_now)
    assert found.records.link(noted[1].record).replayed == []


# --- forgeries ----------------------------------------------------------------------------------

EVALUATION = "evaluations/mars-b4-small/one-token/gsm8k"
TRAINING = "checkpoints/mars-b4-small"


def score(results: Path) -> None:
    evaluation = read_json(results / f"{EVALUATION}.json")
    evaluation["metrics"]["exact_match"]["flexible-extract"]["value"] = 0.5
    write_json(results / f"{EVALUATION}.json", evaluation)


def answer(results: Path) -> None:
    rows = read_jsonl(results / f"{EVALUATION}.samples.jsonl")
    rows[0]["generation"] = f"The answer is {rows[0]['target']}."
    write_jsonl(results / f"{EVALUATION}.samples.jsonl", rows)


def forwards(results: Path) -> None:
    evaluation = read_json(results / f"{EVALUATION}.json")
    evaluation["forwards"] -= 1
    evaluation["tokens_per_forward"]["value"] = evaluation["tokens"] / evaluation["forwards"]
    write_json(results / f"{EVALUATION}.json", evaluation)


def weight(results: Path) -> None:
    tensors = load_file(results / "checkpoints/ar-small/model.safetensors")
    tensors["model.embed_tokens.weight"][5, 5] += 0.01
    save_file(tensors, results / "checkpoints/ar-small/model.safetensors")


def loss_curve(results: Path) -> None:
    rows = read_jsonl(results / TRAINING / "training.jsonl")
    rows[-1]["loss"] *= 0.99
    write_jsonl(results / TRAINING / "training.jsonl", rows)


def cost(results: Path) -> None:
    for file in (
        results / "provenance/train/mars-b4-small.json",
        results / TRAINING / "manifest.json",
    ):
        content = read_json(file)
        content.get("facts", content)["steps"] -= 1
        write_json(file, content)


def verdict(results: Path) -> None:
    claims = read_json(results / "claims.json")
    claims[0]["verdict"] = "holds"
    write_json(results / "claims.json", claims)


def flip(file: str) -> Callable[[Path], None]:
    def apply(results: Path) -> None:
        (path,) = results.glob(file)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    return apply


MINUTES = pytest.mark.slow
FORGERIES = [
    pytest.param(score, "evaluate mars-b4-small", "gsm8k.json", id="score"),
    pytest.param(verdict, "claims", "claims.json", id="verdict"),
    pytest.param(flip("data/hub/openai/gsm8k/*/test*"), "generate_data", "test", id="question"),
    pytest.param(answer, "evaluate mars-b4-small", "samples", id="answer", marks=MINUTES),
    pytest.param(forwards, "evaluate mars-b4-small", "gsm8k.json", id="forwards", marks=MINUTES),
    pytest.param(weight, "train ar-small", "model.safetensors", id="weight", marks=MINUTES),
    pytest.param(loss_curve, "train mars-b4-small", "training.jsonl", id="loss", marks=MINUTES),
    pytest.param(cost, "train mars-b4-small", "train/mars-b4-small.json", id="cost", marks=MINUTES),
    pytest.param(
        *(flip("data/tokenizer/tokenizer.json"), "train_tokenizer", "tokenizer.json"),
        **{"id": "tokenizer", "marks": MINUTES},
    ),
    pytest.param(
        *(flip("data/tokens/small/documents/*.arrow"), "tokenize documents small", "arrow"),
        **{"id": "tokens", "marks": MINUTES},
    ),
]


@pytest.mark.parametrize(("edit", "job", "file"), FORGERIES)
def test_a_forgery_that_the_audit_cannot_see_does_not_come_out_again(
    run: Path,
    edited: Path,
    experiment_now: Experiment,
    monkeypatch: pytest.MonkeyPatch,
    edit: Callable[[Path], None],
    job: str,
    file: str,
):
    monkeypatch.chdir(run)
    forge(run, experiment_now, edit)
    word, lines, _ = audit_all(tables_of(run, experiment_now))
    assert word == "verified", lines
    done = replay(run, edited, job)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "different"), done.stdout
    assert any("different: " in line and file in line for line in done.stdout.splitlines())
    word, lines, _ = audit_all(tables_of(run, experiment_now))
    assert word == "changed"
    assert any("was replayed on" in line and file in line for line in lines)


# --- what is run --------------------------------------------------------------------------------


def test_jobs_are_drawn_by_what_rests_on_them(finished: Path, experiment_now: Experiment):
    found = tables_of(finished, experiment_now)
    numbers = numbers_on(found)
    first = [drawn(found.records, numbers, 4, seed) for seed in range(200)]
    assert first[:20] == [drawn(found.records, numbers, 4, seed) for seed in range(20)]
    assert all(len({task.record for task in tasks}) == 4 for tasks in first)

    def times(record: str) -> int:
        return sum(f"{RESULTS}/provenance/{record}.json" in str(tasks) for tasks in first)

    assert times("generate_data") > times("evaluate/ar-large") > times("figure/figure1")


def test_a_chain_comes_in_the_order_of_its_making(finished: Path, experiment_now: Experiment):
    records = tables_of(finished, experiment_now).records
    order = in_order(records, reversed(list(records.records)))
    assert sorted(order) == sorted(records.records)
    for place, name in enumerate(order):
        assert not {records.maker(file) for file in records.records[name]["inputs"]} & {
            *order[place:]
        }


def test_what_cannot_be_replayed_is_one_sentence(
    run: Path, edited: Path, experiment_now: Experiment
):
    found = tables_of(run, experiment_now)
    with pytest.raises(UserError, match="2 recorded jobs have 'probe' in their name; say one"):
        named(found.records, "probe")
    with pytest.raises(UserError, match="was not run"):
        behind_cell(found, next(cell for cell in found.cells if cell.value == "not run"))
    assert "--sample" in replay(run, edited, "table2", "MARS").stderr
    (run / RESULTS / "checkpoints/ar-large/model.safetensors").unlink()
    done = replay(run, edited, "evaluate ar-large")
    assert "ar-large/model.safetensors is not here; say --chain" in done.stdout
    (run / RESULTS / "data/hub/openai/gsm8k/README.md").write_text("another")
    done = replay(run, edited, "train_tokenizer")
    assert "README.md is not what the job was given" in done.stdout
    assert (done.returncode, read_replays(run / RESULTS)) == (1, [])


def test_two_checkouts_have_the_same_specs_as_the_records(
    finished: Path, project: Path, edited: Path, experiment_now: Experiment
):
    code = (
        "from mars.config.experiment import load_experiment; "
        "from mars.planning.jobs import specs_of; "
        "print(*sorted(one.canonical() for specs in specs_of(load_experiment('config/ci.yaml'))"
        ".values() for one in specs), sep='\\n')"
    )
    first, second = (
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=checkout,
            env=environment(checkout),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for checkout in (project, edited)
    )
    assert first == second
    records = tables_of(finished, experiment_now).records.records.values()
    assert set(first.splitlines()) == {spec_of(record).canonical() for record in records}


def test_the_recorded_code_is_run_where_the_present_code_is_another(
    run: Path, edited: Path, experiment_now: Experiment, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(run)
    then = commit(edited)

    def as_of_that_commit(results: Path) -> None:
        record = results / "provenance/train_tokenizer.json"
        content = read_json(record)
        content["code"] |= {"commit": then, "dirty": False}
        write_json(record, content)

    forge(run, experiment_now, as_of_that_commit)
    path = edited / "mars/data/tokenizer.py"
    path.write_text(path.read_text().replace("vocab_size=", "vocab_size=-8 + "))
    change_function(path, "train_from_folder")
    forget()
    present = replay(run, edited, "train_tokenizer")
    assert present.stdout.splitlines()[-1] == "different", present.stdout
    assert "--at-commit runs that one" in present.stdout
    assert not read_replays(run / RESULTS)[-1].same_code
    recorded = replay(run, edited, "train_tokenizer", "--at-commit")
    assert recorded.stdout.splitlines()[-1] == "identical", recorded.stdout + recorded.stderr
    assert read_replays(run / RESULTS)[-1].code == then


# --- in a clone ---------------------------------------------------------------------------------


def leave_what_git_has(run: Path) -> None:
    for folder in ("checkpoints", "evaluations", "data", "speed", "probes"):
        shutil.rmtree(run / RESULTS / folder)


@pytest.fixture
def clone(run: Path) -> Path:
    """The folder of the experiment, with no answers but the packed ones."""
    leave_what_git_has(run)
    return run


def test_a_clone_replays_what_needs_no_model(
    clone: Path, edited: Path, experiment_now: Experiment, tmp_path: Path
):
    done = replay(clone, edited, *CELL)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "identical"), done.stdout
    first, how, *_ = done.stdout.splitlines()
    assert first == (
        f"evaluate mars-b4-small cannot run here: {RESULTS}/checkpoints/mars-b4-small is not here."
    )
    assert re.search(r"--chain: \d+ jobs, \d+ min \d\d s by the records\.$", how)
    assert "from the recorded answers" in done.stdout
    assert [entry.job for entry in read_replays(clone / RESULTS)] == ["table2"]

    records = tables_of(clone, experiment_now).records
    with Replays(records, tmp_path / "scratch") as replays:
        words = {name: replays.run(named(records, name)[0]).word for name in WITHOUT_MODEL}
        (trained,) = named(records, "train mars-b4-small")
        assert "ar-small is not here; say --chain" in replays.run(trained).problem
    assert words == dict.fromkeys(WITHOUT_MODEL, "identical")
    assert not (clone / RESULTS / "evaluations").exists()


def test_a_number_that_the_packed_answers_do_not_give_is_different(
    clone: Path, edited: Path, experiment_now: Experiment
):
    forge_packed_answer(clone / RESULTS, "mars-b4-small", "one-token", "gsm8k")
    done = replay(clone, edited, *CELL)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "different"), done.stdout


@pytest.mark.slow
def test_a_clone_without_checkpoints_replays_the_chain(
    run: Path, edited: Path, experiment_now: Experiment
):
    done = replay(run, edited, *CELL, "--chain")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "identical"), done.stdout
    found = tables_of(run, experiment_now)
    _, lines, _ = audit_cell(found, found.find(*CELL))
    assert re.fullmatch(r"verified, replayed on \d{4}-\d\d-\d\d", lines[-1])
    leave_what_git_has(run)
    done = replay(run, edited, *CELL, "--chain")
    assert done.returncode == 0, done.stdout
    assert not re.search("^(not run|different)", done.stdout, re.MULTILINE)
    assert "identical         table2, 0.5B MARS-0.5B (B=4), GSM8K, accuracy" in done.stdout
