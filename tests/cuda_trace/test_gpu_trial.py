"""`make test-gpu` itself, up to its kernels: it runs on a GPU, and the plan reads what it keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain, count, repeat
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mars.planning.gpu_results import GpuResult
from tests.cuda_trace import reads
from tests.cuda_trace.fake_gpu import DEVICE, FakeGpu, Read, driver, replaced
from tests.cuda_trace.models import qwen
from tests.gpu import decoding_speed, device, exactness, training_speed
from tests.gpu.part import Part, Row

H200 = SimpleNamespace(name="NVIDIA H200", total_memory=140e9)
ANSWERS = [
    *(*reads.ENGINE, *reads.BLOCK_CACHE, *reads.TRANSFORMERS),
    Read("tests/gpu/part.py", "Part.wait", "torch.cuda.synchronize", reads.waited),
]


@pytest.fixture
def fake_h200() -> Iterator[None]:
    stand_ins = {
        "torch.cuda.get_device_properties": lambda device: H200,
        "torch.cuda.empty_cache": lambda: None,
        "torch.cuda.reset_peak_memory_stats": lambda device: None,
        "torch.cuda.max_memory_allocated": lambda device: 50e9,
    }
    with replaced(stand_ins):
        device.describe.cache_clear()
        yield
        device.describe.cache_clear()


def trial() -> tuple[Part, dict[str, list[Row]]]:
    """A part on the fake GPU, and the rows it emits."""
    rows: dict[str, list[Row]] = {"checks": [], "decoding": [], "training": []}
    return Part("trial", DEVICE, 600, lambda section, row: rows[section].append(row)), rows


def test_decoding_is_timed(fake_h200: None, monkeypatch: pytest.MonkeyPatch) -> None:
    small = decoding_speed.shape_of("0.5B", layers=1)
    monkeypatch.setattr(decoding_speed, "shape_of", lambda name: small)
    monkeypatch.setattr(decoding_speed, "BATCHES", (1, 4))
    monkeypatch.setattr(decoding_speed, "NEW", 16)
    monkeypatch.setattr(reads, "LONGEST", decoding_speed.PROMPT + 16)
    # `generate` is told to end by length alone, so that its time must be told as well.
    ticks = chain.from_iterable(repeat((0, 1, 0, 1, 0, 5, 0, 1)))
    monkeypatch.setattr(decoding_speed, "perf_counter", lambda: next(ticks))
    part, rows = trial()
    with FakeGpu(ANSWERS)():
        decoding_speed.run(part, "0.5B")
    assert [row["status"] for row in rows["checks"]] == ["passed"] * 8, rows["checks"]
    assert {row["batch"] for row in rows["decoding"]} == {1, 4}
    found = {"device": device.describe(DEVICE), **rows}
    assert len(GpuResult.model_validate_json(json.dumps(found)).decoding) == 8


@pytest.mark.parametrize("shape", ["0.5B", "7B"])
def test_training_is_timed(fake_h200: None, monkeypatch: pytest.MonkeyPatch, shape: str) -> None:
    """Without compiled layers, and with a backward pass that only makes room for gradients."""
    whole = training_speed.shape_of
    monkeypatch.setattr(
        training_speed, "shape_of", lambda name, layers=None: whole(name, layers or 1)
    )
    monkeypatch.setattr(training_speed, "MEMORY", (0, 1e9))
    monkeypatch.setattr(training_speed, "STEPS", 1)
    monkeypatch.setattr(training_speed, "compile_layers", lambda model: None)
    # Times mean nothing here, and those of more layers must not be shorter.
    monkeypatch.setattr(training_speed, "perf_counter", count().__next__)
    # The profiler wants a real GPU.
    monkeypatch.setattr(training_speed, "kernels", lambda part, step: f"{step():.0f} s")
    models = []
    make = training_speed.random_weights
    monkeypatch.setattr(
        training_speed, "random_weights", lambda *shape: models.append(make(*shape)) or models[-1]
    )

    def backward(loss: Tensor) -> None:
        for parameter in models[-1].parameters():
            parameter.grad = torch.empty_like(parameter)

    compile_for_real = torch.compile

    def traced_whole(function: Any, **_: Any) -> Any:
        return compile_for_real(function, backend="eager", fullgraph=True)

    monkeypatch.setattr(Tensor, "backward", backward)
    monkeypatch.setattr(torch, "compile", traced_whole)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    part, rows = trial()
    gpu = FakeGpu()
    gpu.fakes.allow_non_fake_inputs = True  # rows come from numpy
    with driver(), gpu.fakes, torch.no_grad():
        training_speed.run(part, shape)
    assert {row["status"] for row in rows["checks"]} == {"passed"}, rows["checks"]
    assert all(row["peak_memory_bytes"] == 50e9 for row in rows["training"])
    found = {"device": device.describe(DEVICE), **rows}
    assert len(GpuResult.model_validate_json(json.dumps(found)).training) == len(rows["training"])


def test_graphs_and_compiled_transformer_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exactness, "model_on", lambda device: qwen(layers=1))
    part, _ = trial()
    with FakeGpu(ANSWERS)():
        found = exactness.Exactness(part).engine(graphs=True, compiled=True)
    assert len(found) == 12
