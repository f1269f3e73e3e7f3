"""A model spread over eight GPUs that are not there, by a group of processes that is not there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from mars.training.packed_model import DENSE, PackedModel
from tests.cuda_trace.fake_gpu import DEVICE, PROJECT, FakeGpu, driver, replaced
from tests.cuda_trace.models import packed_rows, qwen

GPUS = 8
RENAMED = {"FSDP_TRANSFORMER_LAYER_CLS_TO_WRAP": "FSDP_TRANSFORMER_CLS_TO_WRAP"}


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
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment of the first of eight processes that `config/accelerate/fsdp.yaml` starts."""
    file = PROJECT / "config/accelerate/fsdp.yaml"
    for key, value in yaml.safe_load(file.read_text())["fsdp_config"].items():
        name = RENAMED.get(key.upper(), key.upper())
        monkeypatch.setenv(name, str(value))
    places = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": GPUS, "LOCAL_WORLD_SIZE": GPUS}
    for name, place in places.items():
        monkeypatch.setenv(name, str(place))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    AcceleratorState._reset_state(reset_partial_state=True)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=GPUS)
    yield
    dist.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)


def test_the_model_is_sharded_and_its_forward_pass_gathers_it(launched: None) -> None:
    gpu = FakeGpu()
    with gpu():
        model = qwen(torch.float32, layers=2).train()
        model.set_attn_implementation(DENSE)
        rows = packed_rows(gpu).to(DEVICE)
    devices = {
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.device_count": lambda: GPUS,
        "torch.cuda.current_device": lambda: 0,
        "torch.cuda.set_device": lambda device: None,
        "torch._C._get_accelerator": lambda *_: torch.device("cuda"),
    }
    streams = ("Stream", "Event", "current_stream", "stream", "device")
    devices |= {f"torch.cuda.{name}": Stream for name in streams}
    with driver(), replaced(devices):
        accelerator = Accelerator(mixed_precision="bf16")
        mesh = init_device_mesh("cuda", (GPUS,))
        mesh_of_torch = "torch.distributed.fsdp._fully_shard._fully_shard._init_default_mesh"
        with replaced({mesh_of_torch: lambda *_, **__: mesh}), gpu.fakes:
            sharded = fsdp2_prepare_model(accelerator, PackedModel(model, 1.0))
            check_shards(sharded)
            with torch.no_grad(), accelerator.autocast():
                loss, parts = sharded(rows)
    assert loss.device == parts.device == DEVICE


def check_shards(sharded: PackedModel) -> None:
    """Every layer is a unit of its own, and of every parameter an eighth is here, in float32."""
    layers = sharded.model.model.layers
    assert all(isinstance(module, FSDPModule) for module in (sharded, *layers))
    for parameter in sharded.parameters():
        assert isinstance(parameter, DTensor)
        assert parameter.placements == (Shard(0),)
        assert parameter.dtype == torch.float32
    embedding = sharded.model.get_output_embeddings().weight
    assert embedding.to_local().shape == (151936 // GPUS, 896)
