"""What a training sees of an experiment, what it starts from, and what a job may change of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate.utils import LoggerType

from mars.cli.stages import read_options
from mars.config.experiment import Architecture, TrainingOptions, load_experiment
from mars.errors import UserError
from mars.provenance.files import read_jsonl, sha256_file
from mars.provenance.manifest import write_manifest
from mars.provenance.stage import Inputs, Job, JobSpec
from mars.training import trainer
from mars.training.stage import PRETRAIN, TRAIN
from tests.support.small_training import make_settings, make_spec, write_dataset, write_tokenizer

CONFIG = Path(__file__).resolve().parents[3] / "config"


def test_what_a_training_depends_on():
    paper = load_experiment(CONFIG / "paper.yaml")
    spec = TRAIN.resolve(paper, model="mars-b8-no-sft-0.5B")
    assert (spec.method, spec.block_size, spec.ar_weight) == ("mars", 8, 0)
    assert spec.normalisation == "sequence"
    assert spec.training == paper.training
    assert TRAIN.resolve(paper, model="ar-sft-2x-0.5B").training.epochs == 10
    assert TRAIN.resolve(paper, model="ar-sft-0.5B").normalisation == "token"
    with pytest.raises(UserError, match="not fine-tuned here"):
        TRAIN.resolve(paper, model="base-7B")
    often = paper.model_copy(
        update={"resources": paper.resources.model_copy(update={"checkpoint_minutes": 1.0})}
    )
    assert TRAIN.resolve(often, model="ar-sft-0.5B") == TRAIN.resolve(paper, model="ar-sft-0.5B")


def test_what_a_model_starts_from():
    paper, tiny = (load_experiment(CONFIG / f"{name}.yaml") for name in ("paper", "tiny"))
    assert TRAIN.inputs(paper, model="mars-b4-7B") == [
        "checkpoints/ar-sft-7B/manifest.json",
        "data/tokens/7B/instructions/manifest.json",
    ]
    assert PRETRAIN.inputs(tiny, model="base-large") == [
        "data/tokenizer/manifest.json",
        "data/tokens/small/documents/manifest.json",
    ]
    assert isinstance(PRETRAIN.resolve(tiny, model="base-large").architecture, Architecture)


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    """A pre-training of a few steps, as the framework hands it to the stage."""
    tokenizer = write_manifest(write_tokenizer(tmp_path / "data/tokenizer"))
    tokens = write_manifest(write_dataset(tmp_path / "data/tokens/small/documents"))
    spec = make_spec("pretrain", make_settings())
    plan = JobSpec(
        stage="pretrain",
        target={"model": "base"},
        config=spec.model_dump(mode="json"),
        code="",
        packages="",
    )

    def job(name: str, **options: Any) -> Job:
        output = tmp_path / "checkpoints" / name
        return Job(plan, Inputs((tokenizer, tokens)), output, TrainingOptions(**options))

    return job


def test_how_often_to_save_decides_what_is_saved_and_nothing_else(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trainer, "TRAINING_PER_SAVING", 0)
    often, seldom = job("often", checkpoint_minutes=1e-6), job("seldom")
    for one in (often, seldom):
        assert PRETRAIN.start(one)["steps"] == 9
    assert [path.name for path in sorted(often.work.iterdir())] == ["checkpoint-7", "checkpoint-8"]
    assert not seldom.work.exists()
    weights = {sha256_file(one.output / "model.safetensors") for one in (often, seldom)}
    assert len(weights) == 1
    assert often.key == seldom.key


def test_memory_is_saved_at_no_cost_of_bits(job: Callable[..., Job]):
    plain, saving = job("plain"), job("saving", activation_checkpointing=True)
    for one in (plain, saving):
        PRETRAIN.start(one)
    weights = {sha256_file(one.output / "model.safetensors") for one in (plain, saving)}
    assert len(weights) == 1
    assert plain.key == saving.key


def test_the_command_line_carries_what_the_configuration_says():
    resources = load_experiment(CONFIG / "paper.yaml").resources
    assert resources.training["7B"].sharded
    for scale in ("0.5B", "7B", "a scale that it does not name"):
        options = resources.options(scale)
        given = [f"{key}={value}" for key, value in options.model_dump(exclude_none=True).items()]
        assert read_options(TrainingOptions, "--option", given) == options
    for wrong in ("shared=true", "compile=perhaps", "sharded", "checkpoint_minutes=0"):
        with pytest.raises(UserError, match=f"--option {wrong.partition('=')[0]}: .*options are"):
            read_options(TrainingOptions, "--option", [wrong])


TRACKIO = """
runs = []
config = {}

class Run:
    def __init__(self, **given):
        self.given, self.logged, self.finished = given, [], False
        runs.append(self)
    def log(self, values, step):
        self.logged.append({**values, "step": step})
    def finish(self):
        self.finished = True

def init(**given):
    return Run(**given)
"""


def test_a_tracker_is_told_what_the_log_has_and_changes_no_bit(
    job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "trackio.py").write_text(TRACKIO)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setattr("accelerate.tracking._available_trackers", [LoggerType.TRACKIO])
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    plain, tracked = job("plain"), job("tracked", log_with="trackio")
    for one in (plain, tracked):
        PRETRAIN.start(one)
    trackio = sys.modules.pop("trackio")
    (run,) = trackio.runs
    assert run.given == {"project": f"mars-{tmp_path.name}", "name": "tracked", "resume": "never"}
    lines = read_jsonl(tracked.output / "training.jsonl")
    assert run.logged == [
        {key: value for key, value in line.items() if value is not None} for line in lines
    ]
    assert run.finished
    assert trackio.config["training.seed"] == 0
    weights = {sha256_file(one.output / "model.safetensors") for one in (plain, tracked)}
    assert len(weights) == 1
    assert plain.key == tracked.key


def test_a_tracker_that_is_not_installed_is_a_sentence(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("mars.training.tracking.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"log_with` is wandb, which is not installed"):
        PRETRAIN.start(job("tracked", log_with="wandb"))
