"""The loop: what it exports, and that killing it or splitting it changes nothing."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import load_from_disk
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from mars.config.experiment import Training, TrainingOptions
from mars.errors import UserError
from mars.provenance.files import read_json, read_jsonl
from mars.training import layers, trainer
from mars.training.checkpoints import Checkpoints
from mars.training.packed_model import PackedModel
from mars.training.packing import Rows
from mars.training.trainer import train
from tests.support.small_training import make_spec
from tests.support.training_in_process import train as train_alone
from tests.support.training_in_process import train_until_killed
from tests.support.training_processes import Forked, run_side_by_side
from tests.support.waiting import end_of, wait

MASK = 1
Settings = Callable[..., Training]


@pytest.fixture
def run(parent: Path, dataset_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Train in this process under a name; returns the output folder."""

    def run(name: str, method: str, training: Training, **changes: Any) -> Path:
        weight = {"ar_weight": changes.pop("ar_weight")} if "ar_weight" in changes else {}
        train(
            make_spec(method, training, architecture=None, **weight),
            work=tmp_path / name / "work",
            output=tmp_path / name / "output",
            **{"parent": parent, "dataset": dataset_folder, **changes},
        )
        return tmp_path / name / "output"

    return run


def test_exports_a_plain_checkpoint(
    parent: Path, tmp_path: Path, run: Callable[..., Path], settings: Settings
) -> None:
    output = run("mars", "mars", settings(epochs=2))
    model = AutoModelForCausalLM.from_pretrained(output)
    before = AutoModelForCausalLM.from_pretrained(parent)
    assert type(model) is type(before)
    summary = read_json(output / "training_summary.json")
    assert model.num_parameters() == before.num_parameters() == summary["parameters"]
    assert not torch.equal(model.lm_head.weight, before.lm_head.weight)
    assert AutoTokenizer.from_pretrained(output).mask_token_id == MASK
    generation = GenerationConfig.from_pretrained(output)
    assert (generation.mars_block_size, generation.mars_mask_token_id) == (4, MASK)
    assert generation.do_sample is False
    log = read_jsonl(output / "training.jsonl")
    assert [line["step"] for line in log] == list(range(1, 18))
    assert log[-1]["loss"] < log[0]["loss"]
    assert all(line["loss"] == pytest.approx(line["loss_ar"] + line["loss_mask"]) for line in log)
    assert summary["steps"] == 17
    assert not list(output.parent.glob(".*partial"))


def test_a_tied_parent_in_bfloat16_stays_both(
    parent: Path, tmp_path: Path, run: Callable[..., Path], settings: Settings
) -> None:
    """As Qwen2.5-0.5B is."""
    before = AutoModelForCausalLM.from_pretrained(parent, dtype=torch.bfloat16)
    assert before.config.tie_word_embeddings
    small = shutil.copytree(parent, tmp_path / "small")
    before.save_pretrained(small)
    output = run("run", "ar_sft", settings(), parent=small)
    model = AutoModelForCausalLM.from_pretrained(output, dtype="auto")
    assert model.dtype == torch.bfloat16
    assert model.num_parameters() == before.num_parameters()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not torch.equal(model.lm_head.weight, before.lm_head.weight)


@pytest.mark.parametrize("method", ["pretrain", "ar_sft", "mars", "block_diffusion"])
def test_every_method_lowers_its_loss(
    method: str, run: Callable[..., Path], settings: Settings
) -> None:
    output = run("run", method, settings(epochs=10, precision="bfloat16", batch_size=10))
    losses = [line["loss"] for line in read_jsonl(output / "training.jsonl")]
    assert sum(losses[-20:]) < 0.95 * sum(losses[:20])


def test_without_sft_loss_only_the_mask_loss_is_left(
    run: Callable[..., Path], settings: Settings
) -> None:
    output = run("run", "mars", settings(), ar_weight=0.0)
    for line in read_jsonl(output / "training.jsonl"):
        assert line["loss_ar"] is None
        assert line["loss"] == pytest.approx(line["loss_mask"])


def test_killed_run_ends_with_the_same_weights(
    parent: Path, dataset_folder: Path, tmp_path: Path, run: Callable[..., Path], settings: Settings
) -> None:
    method = "block_diffusion"  # the one whose batches are random in more than their order
    training = settings(epochs=1.4, batch_size=7)
    whole = run("whole", method, training)
    folder = tmp_path / "killed"
    killed = Forked(
        tmp_path / "log", train_until_killed, 7, parent, dataset_folder, folder, method, training
    )
    assert wait(killed, tmp_path) == -signal.SIGKILL, end_of(killed.log)
    saved = sorted(path.name for path in (folder / "work").glob("*"))
    assert saved == ["checkpoint-4", "checkpoint-6"], "the last two, and no half one"
    assert not (folder / "output").exists()
    resumed = run("killed", method, training)
    expected, weights = (load_file(path / "model.safetensors") for path in (whole, resumed))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    logs = [read_jsonl(path / "training.jsonl") for path in (whole, resumed)]
    for line in [*logs[0], *logs[1]]:
        del line["seconds"]
    assert logs[0] == logs[1]


def test_two_processes_equal_one(
    parent: Path, dataset_folder: Path, tmp_path: Path, run: Callable[..., Path], settings: Settings
) -> None:
    """With several forward passes per step, and an odd number of them."""
    training = settings(batch_size=10, rows_per_forward=2, normalisation="sequence")
    single = run("single", "mars", training)
    folder = tmp_path / "double"
    run_side_by_side(tmp_path, 2, train_alone, parent, dataset_folder, folder, "mars", training)
    double = folder / "output"
    assert read_json(double / "training_summary.json")["processes"] == 2
    logs = [read_jsonl(path / "training.jsonl") for path in (single, double)]
    assert len(logs[0]) == 5
    for one, two in zip(*logs, strict=True):
        for key in ("loss", "loss_ar", "loss_mask", "grad_norm"):
            assert two[key] == pytest.approx(one[key], rel=1e-5)
        assert two["tokens"] == one["tokens"]
    expected, weights = (load_file(path / "model.safetensors") for path in (single, double))
    for name in expected:
        assert torch.allclose(weights[name], expected[name], atol=1e-5)


def test_accumulation_changes_nothing(run: Callable[..., Path], settings: Settings) -> None:
    one = run("one", "ar_sft", settings(rows_per_forward=100))
    many = run("many", "ar_sft", settings(rows_per_forward=1))
    for left, right in zip(
        read_jsonl(one / "training.jsonl"), read_jsonl(many / "training.jsonl"), strict=True
    ):
        assert left["loss"] == pytest.approx(right["loss"], rel=1e-5)
        assert left["grad_norm"] == pytest.approx(right["grad_norm"], rel=1e-5)


def test_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    tmp_path: Path, run: Callable[..., Path], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = trainer.TrainingRun.step

    def poisoned(self: trainer.TrainingRun, rows: list) -> object:
        if self.progress.step == 4:
            next(self.model.parameters()).data.fill_(float("nan"))
        return step(self, rows)

    monkeypatch.setattr(trainer.TrainingRun, "step", poisoned)
    monkeypatch.setattr(trainer.TrainingRun, "due", lambda self, saved: self.progress.step == 3)
    with pytest.raises(UserError, match=r"not finite at step 5 of 9.*step 3"):
        run("run", "ar_sft", settings())
    assert (tmp_path / "run" / "work" / "checkpoint-3" / "progress.json").is_file()
    assert not (tmp_path / "run" / "output").exists()


def test_diverging_loss_stops_the_run(run: Callable[..., Path], settings: Settings) -> None:
    with pytest.raises(UserError, match=r"lower `training.learning_rate`"):
        run("run", "ar_sft", settings(learning_rate=10.0, epochs=20))


def test_memory_that_runs_out_is_one_sentence(
    run: Callable[..., Path], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(model: PackedModel, rows: Rows) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PackedModel, "forward", full)
    with pytest.raises(UserError, match=r"memory ran out at step 1 of 9.*lower `training.row_l"):
        run("run", "ar_sft", settings())


def test_what_cannot_be_compiled_is_one_sentence(
    run: Callable[..., Path], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(graph: torch.fx.GraphModule, inputs: list) -> None:
        raise FileNotFoundError("g++")

    compile_layers = partial(layers.compile_layers, backend=no_compiler)
    monkeypatch.setattr(trainer, "compile_layers", compile_layers)
    with pytest.raises(UserError, match=r"could not be compiled \(.*g\+\+.*`compile: false`"):
        run("run", "ar_sft", settings(), options=TrainingOptions(compile=True))


def test_saving_takes_a_twentieth_of_the_time(
    run: Callable[..., Path], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which a step takes a second and a save half of one."""
    now, saved = [0.0], []
    step, save = trainer.TrainingRun.step, Checkpoints.save

    def slow_step(self: trainer.TrainingRun, rows: list) -> object:
        now[0] += 1
        return step(self, rows)

    def slow_save(self: Checkpoints, number: int, note: dict) -> None:
        now[0] += 0.5
        saved.append(number)
        save(self, number, note)

    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(trainer.TrainingRun, "step", slow_step)
    monkeypatch.setattr(Checkpoints, "save", slow_save)
    options = TrainingOptions(checkpoint_minutes=2 / 60)
    run("run", "ar_sft", settings(epochs=4), options=options)
    assert saved == [2, 12, 22, 32]


def test_single_heavy_batches_are_no_divergence(
    run: Callable[..., Path], settings: Settings
) -> None:
    """With the authors' 1/t weights one batch may weigh a hundred times another."""
    run("run", "mars", settings(inverse_t_weighting=True, batch_size=1), ar_weight=0.0)


def test_work_of_another_run_is_refused(
    run: Callable[..., Path], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.TrainingRun, "due", lambda self, saved: True)
    run("run", "ar_sft", settings())
    with pytest.raises(UserError, match="other settings; delete the folder"):
        run("run", "ar_sft", settings(learning_rate=2e-3))


def test_documents_without_response_are_left_out_and_counted(
    dataset_folder: Path, tmp_path: Path, run: Callable[..., Path], settings: Settings
) -> None:
    dataset = load_from_disk(str(dataset_folder))
    rows = [
        {**row, "prompt_length": len(row["input_ids"]) if number < 5 else row["prompt_length"]}
        for number, row in enumerate(dataset)
    ]
    type(dataset).from_list(rows).save_to_disk(str(tmp_path / "data"))
    output = run("run", "mars", settings(), dataset=tmp_path / "data")
    summary = read_json(output / "training_summary.json")
    assert (summary["examples"], summary["examples_without_response"]) == (45, 5)


def test_tokenizer_without_mask_token_is_refused(
    parent: Path, tmp_path: Path, run: Callable[..., Path], settings: Settings
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(parent)
    tokenizer.mask_token = None
    AutoModelForCausalLM.from_pretrained(parent).save_pretrained(tmp_path / "parent")
    tokenizer.save_pretrained(tmp_path / "parent")
    with pytest.raises(UserError, match="no mask token"):
        run("run", "mars", settings(), parent=tmp_path / "parent")


@pytest.mark.parametrize("column", ["input_ids", "prompt_length"])
def test_dataset_without_a_column_is_refused(
    column: str, dataset_folder: Path, tmp_path: Path, run: Callable[..., Path], settings: Settings
) -> None:
    load_from_disk(str(dataset_folder)).remove_columns(column).save_to_disk(str(tmp_path / "data"))
    with pytest.raises(UserError, match=column):
        run("run", "ar_sft", settings(), dataset=tmp_path / "data")
