"""What the tests of several processes and of kills run in a process of its own."""

from __future__ import annotations

import copy
import os
import signal
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from mars.config.experiment import Training, TrainingOptions
from mars.provenance.files import write_json
from mars.training import sharding, trainer
from mars.training.dual_stream import mars_stream
from mars.training.layers import checkpoint_layers, compile_layers
from mars.training.packed_model import DENSE, PackedModel
from mars.training.packing import Rows, pack
from tests.support.small_training import make_spec
from tests.unit.training.test_dual_stream import MASK, make_documents, make_model


def train(
    parent: Path,
    dataset: Path,
    folder: Path,
    method: str,
    training: Training,
    options: TrainingOptions = trainer.DEFAULTS,
) -> None:
    trainer.train(
        make_spec(method, training),
        parent=parent,
        dataset=dataset,
        work=folder / "work",
        output=folder / "output",
        options=options,
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


def train_sharded_and_watch(parent: Path, dataset: Path, folder: Path, *arguments: Any) -> None:
    """Train, and write to ``seen-<process>.json`` how much of the model was here at a time."""
    seen = {"parameters": 0, "loaded": 0, "most_at_once": 0}
    load, fully_shard = trainer._load_model, sharding.fully_shard

    def whole(module: nn.Module) -> int:
        """Parameters that are here, and not just a share of them."""
        return sum(
            parameter.numel()
            for parameter in module.parameters()
            if not parameter.is_meta and not isinstance(parameter, DTensor)
        )

    def watched_load(*given: Any) -> nn.Module:
        model = load(*given)
        seen["parameters"] = sum(map(torch.Tensor.numel, model.parameters()))
        seen["loaded"] = whole(model)
        return model

    def watched_shard(module: nn.Module, **given: Any) -> None:
        seen["most_at_once"] = max(seen["most_at_once"], whole(module))
        fully_shard(module, **given)
        assert not whole(module)

    trainer._load_model, sharding.fully_shard = watched_load, watched_shard
    train(parent, dataset, folder, *arguments)
    backend = dist.group.WORLD._get_backend(torch.device("cpu"))
    assert backend.options._timeout == trainer.PATIENCE
    write_json(folder / f"seen-{dist.get_rank()}.json", seen)


def packed_rows(world: int) -> list[Rows]:
    streams = [mars_stream(d, p, block_size=4, mask_token_id=MASK) for d, p in make_documents()]
    rows = pack(streams, row_length=48, rows_per_forward=1, normalisation="sequence", ar_weight=1.0)
    return rows + [rows[0].silent()] * (-len(rows) % world)


def compare_sharded_gradients(folder: Path, compiled: bool) -> None:
    """Gradients of packed rows with parameters sharded over the processes, and those of one.

    ``compiled``: when sharded, with layers compiled and checkpointed besides. Writes the largest
    relative difference to ``folder/difference``.
    """
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    model = make_model(torch.float32)
    model.set_attn_implementation(DENSE)
    rows = packed_rows(world)
    assert len(rows) > 2 * world

    packed = PackedModel(model, 1.0)
    for part in rows:
        packed(part)[0].backward()
    expected = {name: parameter.grad.clone() for name, parameter in packed.named_parameters()}
    packed.zero_grad()

    if compiled:
        compile_layers(model, backend="aot_eager")
        checkpoint_layers(model)
    sharding.shard(packed, torch.device("cpu"), "float32")
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


def compare_bfloat16_gradients(folder: Path) -> None:
    """Sharded, computed in bfloat16: losses, and gradients of two passes, bit for bit.

    Expected: every pass on bfloat16 weights in one process, and all that is summed in float32.
    Writes what is equal, and indeed not of bfloat16, to ``folder/equal``.
    """
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    model = make_model(torch.float32)
    model.set_attn_implementation(DENSE)
    rows = packed_rows(world)[: 2 * world]

    rounded = copy.deepcopy(model)
    for parameter in rounded.parameters():  # and no buffer: angles are computed in float32
        parameter.data = parameter.data.bfloat16()
    plain = PackedModel(rounded, 1.0)
    losses, expected = [], {name: torch.zeros(()) for name, _ in plain.named_parameters()}
    for start in range(0, len(rows), world):
        passes = []
        for part in rows[start : start + world]:
            loss, apart = plain(part)
            (loss * world).backward()
            losses.append([loss.item(), *apart.tolist()])
            passes.append({name: p.grad.float() for name, p in plain.named_parameters()})
            plain.zero_grad()
        for name in expected:
            expected[name] = expected[name] + sum(one[name] for one in passes) / world

    packed = PackedModel(model, 1.0)
    sharding.shard(packed, torch.device("cpu"), "bfloat16")
    own = []
    for part in rows[rank::world]:
        loss, apart = packed(part)
        (loss * world).backward()
        own.append([loss.item(), *apart.tolist()])
    gradients = {name: p.grad.full_tensor() for name, p in packed.named_parameters()}
    if rank == 0:
        equal = []
        if own == losses[::world] and fine(torch.tensor(own)):
            equal.append("losses")
        if all(torch.equal(gradients[n], expected[n]) and fine(gradients[n]) for n in expected):
            equal.append("gradients")
        (folder / "equal").write_text(" and ".join(equal))
    dist.destroy_process_group()


def fine(values: torch.Tensor) -> bool:
    """Whether rounding to bfloat16 would change the values."""
    return values.dtype == torch.float32 and not torch.equal(values, values.bfloat16().float())
