"""Steps that are packed ahead: the same ones, whoever packs."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mars.errors import UserError
from mars.training import examples as examples_module
from mars.training.examples import (
    Examples,
    PackedSteps,
    packed_steps,
    worker_deaths_told,
)
from mars.training.methods import layout
from mars.training.packing import Rows
from tests.support.small_training import EOS, MASK, make_settings, make_spec
from tests.support.training_in_process import leave_a_packing_worker
from tests.support.training_processes import Forked
from tests.support.waiting import end_of, wait

CPU = torch.device("cpu")


Steps = Callable[..., PackedSteps]


@pytest.fixture
def steps(dataset_folder: Path) -> Steps:
    """Packed steps of block diffusion, whose batches are random in more than their order."""
    spec = make_spec("block_diffusion", make_settings(epochs=1.4, batch_size=7))

    def steps(**changes: object) -> PackedSteps:
        examples = Examples(dataset_folder, layout(spec, MASK, EOS), spec.training.seed)
        made = PackedSteps(examples, spec, ar_weight=1.0, fixed_shape=False)
        return dataclasses.replace(made, **changes)

    return steps


def equal(one: list[tuple[list[Rows], int]], other: list[tuple[list[Rows], int]]) -> bool:
    """Whether two runs read the same, bit for bit."""
    for (rows, tokens), (more, same) in zip(one, other, strict=True):
        assert tokens == same
        for left, right in zip(rows, more, strict=True):
            for field in dataclasses.fields(Rows):
                a, b = getattr(left, field.name), getattr(right, field.name)
                assert a.dtype == b.dtype
                assert torch.equal(a, b)
    return True


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("first_step", [0, 4])
def test_workers_change_nothing(steps: Steps, workers: int, first_step: int) -> None:
    whole = list(packed_steps(steps(), 0, CPU))
    assert len(whole) == 10
    packed = list(packed_steps(steps(), first_step, CPU, workers))
    assert equal(packed, whole[first_step:])


@pytest.mark.parametrize(("device", "workers"), [("cpu", 0), ("cuda", 2)])
def test_only_a_gpu_gets_workers_and_pinned_memory(
    steps: Steps, device: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def loader(dataset: PackedSteps, **options: object) -> list:
        asked.update(options)
        return []

    monkeypatch.setattr(examples_module, "DataLoader", loader)
    assert list(packed_steps(steps(), 3, torch.device(device))) == []
    assert asked["num_workers"] == workers
    assert asked["pin_memory"] == (device == "cuda")
    assert asked["sampler"] == range(3, 10)


def test_packing_draws_no_random_number_of_torch(steps: Steps) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    next(packed_steps(steps(), 0, CPU))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_packing_is_told_as_it_is(
    steps: Steps, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentence = "the document is torn; prepare the data again."

    def torn(self: Examples, batch: list[tuple[int, int]]) -> None:
        raise UserError(sentence)

    monkeypatch.setattr(Examples, "streams", torn)
    with pytest.raises(UserError) as raised:
        next(packed_steps(steps(), 0, CPU, workers))
    assert str(raised.value) == sentence


def test_a_killed_worker_is_one_sentence(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: Examples, batch: list[tuple[int, int]]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(Examples, "streams", killed)
    told = pytest.raises(UserError, match=r"packs rows was killed.*give the job more")
    with told, worker_deaths_told():
        next(packed_steps(steps(), 0, CPU, 1))


def test_workers_end_with_their_training(dataset_folder: Path, tmp_path: Path) -> None:
    """A worker in the midst of packing when the training is killed."""
    pipe = tmp_path / "alive"
    os.mkfifo(pipe)
    killed = Forked(tmp_path / "log", leave_a_packing_worker, dataset_folder, pipe)
    with open(pipe, "rb") as alive:
        assert wait(killed, tmp_path) == -signal.SIGKILL, end_of(killed.log)
        assert alive.read() == b"packing", "read to its end, which the last writer makes"
