"""A model spread over two processes (gloo, CPU) trains as one in a single process does."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mars.config.experiment import Training, TrainingOptions
from mars.provenance.files import read_json, read_jsonl
from tests.support.training_in_process import (
    compare_bfloat16_gradients,
    compare_sharded_gradients,
    train,
    train_sharded_and_watch,
    train_until_killed,
)
from tests.support.training_processes import run_side_by_side

SHARDED = TrainingOptions(sharded=True)
Settings = Callable[..., Training]


@pytest.mark.parametrize("compiled", [False, True])
def test_sharded_parameters_get_the_same_gradients(compiled: bool, tmp_path: Path) -> None:
    """The loss reads the output embedding outside its layer; FSDP must gather it all the same."""
    run_side_by_side(tmp_path, 2, compare_sharded_gradients, tmp_path, compiled)
    assert float((tmp_path / "difference").read_text()) < 1e-5


def test_bfloat16_gradients_are_summed_in_float32_and_losses_not_rounded(tmp_path: Path) -> None:
    run_side_by_side(tmp_path, 2, compare_bfloat16_gradients, tmp_path)
    assert (tmp_path / "equal").read_text() == "losses and gradients"


@pytest.mark.parametrize("checkpointed", [False, True])
def test_sharded_training_equals_that_of_one_process(
    checkpointed: bool, parent: Path, dataset_folder: Path, tmp_path: Path, settings: Settings
) -> None:
    """And no process but the first ever holds more of the model than one group of its layers."""
    how = (parent, dataset_folder)
    training = settings(batch_size=10, rows_per_forward=2, normalisation="sequence")
    train(*how, tmp_path / "one", "mars", training)
    options = TrainingOptions(sharded=True, activation_checkpointing=checkpointed)
    folder = tmp_path / "two"
    run_side_by_side(tmp_path, 2, train_sharded_and_watch, *how, folder, "mars", training, options)
    outputs = [tmp_path / name / "output" for name in ("one", "two")]
    expected, weights = (load_file(output / "model.safetensors") for output in outputs)
    assert weights.keys() == expected.keys()
    for name in expected:
        assert torch.allclose(weights[name], expected[name], atol=1e-5)
    logs = [read_jsonl(output / "training.jsonl") for output in outputs]
    for one, two in zip(*logs, strict=True):
        for key in ("loss", "loss_ar", "loss_mask", "grad_norm"):
            assert two[key] == pytest.approx(one[key], rel=1e-5)
    seen = read_json(folder / "seen-1.json")
    assert seen["loaded"] == 0, "parameters that process 1 read from the parent"
    assert 0 < seen["most_at_once"] < seen["parameters"] / 2
    assert read_json(folder / "seen-0.json")["loaded"] == seen["parameters"]


def test_a_killed_sharded_run_goes_on_with_any_number_of_processes(
    parent: Path, dataset_folder: Path, tmp_path: Path, settings: Settings
) -> None:
    how = (parent, dataset_folder)
    run = ("mars", settings(epochs=1.4, batch_size=7), SHARDED)
    run_side_by_side(tmp_path, 2, train, *how, tmp_path / "whole", *run)
    for name in ("killed", "fewer"):
        killed = (train_until_killed, 7, *how, tmp_path / name, *run)
        run_side_by_side(tmp_path, 2, *killed, ends_with=-signal.SIGKILL)
        newest = tmp_path / name / "work/checkpoint-6"
        written = {path.name for path in newest.glob("*.distcp")}
        assert written == {"__0_0.distcp", "__1_0.distcp"}, "a share by each process"
        assert not (tmp_path / name / "output").exists()
    run_side_by_side(tmp_path, 2, train, *how, tmp_path / "killed", *run)
    train(*how, tmp_path / "fewer", *run)
    whole, killed, fewer = (
        load_file(tmp_path / name / "output/model.safetensors")
        for name in ("whole", "killed", "fewer")
    )
    for name in whole:
        assert torch.equal(killed[name], whole[name])
        assert torch.allclose(fewer[name], whole[name], atol=1e-5)
