"""A model spread over eight GPUs that are not there, by a group of processes that is not there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from mars.training import sharding
from mars.training.layers import checkpoint_layers, decoder_layers
from mars.training.packed_model import DENSE, PackedModel
from tests.cuda_trace.fake_gpu import DEVICE, FakeGpu, driver, replaced
from tests.cuda_trace.models import packed_rows, qwen

GPUS = 8


class Stream:
    """Stands in for streams, events and their contexts."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: self

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def eight_gpus() -> Iterator[None]:
    """This process is the first of eight, each with a GPU."""
    stand_ins = {
        "torch.cuda.device_count": lambda: GPUS,
        "torch.cuda.current_device": lambda: 0,
        "torch.cuda.get_device_capability": lambda device=None: (9, 0),
        "torch.cuda.set_device": lambda device: None,
    }
    for name in ("Stream", "Event", "current_stream", "stream", "device"):
        stand_ins[f"torch.cuda.{name}"] = Stream
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=GPUS)
    mesh = sharding.init_device_mesh("cuda", (GPUS,))  # its tensors must have values
    stand_ins["mars.training.sharding.init_device_mesh"] = lambda *_: mesh
    with driver(), replaced(stand_ins):
        yield
    dist.destroy_process_group()


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_model_is_sharded_and_gathered_in_its_forward_pass(
    eight_gpus: None, checkpointed: bool
) -> None:
    gpu = FakeGpu()
    with gpu():
        model = qwen(torch.float32, layers=2).train()
        rows = packed_rows(gpu).to(DEVICE)
    model.set_attn_implementation(DENSE)
    if checkpointed:
        checkpoint_layers(model)
    packed = PackedModel(model, 1.0)
    with gpu.fakes:
        sharding.shard(packed, DEVICE, "bfloat16")
        check_shards(packed)
        with torch.no_grad():
            loss, parts = packed(rows)
    assert loss.device == parts.device == DEVICE
    assert loss.dtype == parts.dtype == torch.float32


def check_shards(packed: PackedModel) -> None:
    """Every layer is a unit of its own, and of every parameter an eighth is here, in float32."""
    assert all(isinstance(module, FSDPModule) for module in (packed, *decoder_layers(packed.model)))
    for parameter in packed.parameters():
        assert isinstance(parameter, DTensor)
        assert parameter.placements == (Shard(0),)
        assert parameter.dtype == torch.float32
    embedding = packed.model.get_output_embeddings().weight
    assert embedding.to_local().shape == (151936 // GPUS, 896)
