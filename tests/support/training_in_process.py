"""What the tests of several processes and of kills run in a process of its own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from mars.config.experiment import Training
from mars.training import examples, trainer
from mars.training.dual_stream import mars_stream
from mars.training.methods import layout
from mars.training.packed_model import DENSE, PackedModel
from mars.training.packing import pack
from tests.support.small_training import EOS, make_settings, make_spec
from tests.unit.training.test_dual_stream import MASK, make_documents, make_model


def train(parent: Path, dataset: Path, folder: Path, method: str, training: Training) -> None:
    trainer.train(
        make_spec(method, training),
        parent=parent,
        dataset=dataset,
        work=folder / "work",
        output=folder / "output",
    )


def train_until_killed(last: int, *arguments: object) -> None:
    """End with SIGKILL right after a step, having saved a checkpoint after every second one."""
    step = trainer.TrainingRun.step

    def step_and_die(run: trainer.TrainingRun, rows: list) -> object:
        result = step(run, rows)
        if run.progress.step == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    trainer.TrainingRun.step = step_and_die
    trainer.TrainingRun.due = lambda run, saved: run.progress.step % 2 == 0
    train(*arguments)


def leave_a_packing_worker(dataset: Path, pipe: Path) -> None:
    """End with SIGKILL while a worker packs, which says so in a pipe that it holds open."""

    def pack_on(*_: object) -> None:
        with open(pipe, "wb", buffering=0) as alive:
            alive.write(b"packing")
            parent = os.getppid()
            os.kill(parent, signal.SIGKILL)
            while os.getppid() == parent:
                time.sleep(0.05)
            time.sleep(1)  # a signal that is sent arrives first
            alive.write(b", survived")

    examples.Examples.streams = pack_on
    spec = make_spec("ar_sft", make_settings())
    documents = examples.Examples(dataset, layout(spec, MASK, EOS), 0)
    steps = examples.PackedSteps(documents, spec, ar_weight=1.0, fixed_shape=False)
    next(examples.packed_steps(steps, 0, torch.device("cpu"), workers=1))


def compare_sharded_gradients(folder: Path) -> None:
    """Gradients of packed rows with parameters sharded over the processes, and those of one.

    Writes the largest relative difference to ``folder/difference``.
    """
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    model = make_model(torch.float32)
    model.set_attn_implementation(DENSE)
    streams = [mars_stream(d, p, block_size=4, mask_token_id=MASK) for d, p in make_documents()]
    rows = pack(streams, row_length=48, rows_per_forward=1, normalisation="sequence", ar_weight=1.0)
    rows += [rows[0].silent()] * (-len(rows) % world)
    assert len(rows) > 2 * world

    packed = PackedModel(model, 1.0)
    for part in rows:
        packed(part)[0].backward()
    expected = {name: parameter.grad.clone() for name, parameter in packed.named_parameters()}
    packed.zero_grad()

    mesh = init_device_mesh("cpu", (world,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(packed, mesh=mesh)
    for part in rows[rank::world]:
        (packed(part)[0] * world).backward()
    differences = [
        float(
            (parameter.grad.full_tensor() - expected[name]).abs().max() / expected[name].abs().max()
        )
        for name, parameter in packed.named_parameters()
    ]
    if rank == 0:
        (folder / "difference").write_text(str(max(differences)))
    dist.destroy_process_group()
