"""The compiler sees whole graphs in what we compile, and only a few kinds of them."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from mars.decoding.cache import CachedModel
from mars.decoding.gpu import CompiledBackbone
from tests.cuda_trace.fake_gpu import DEVICE, FakeGpu
from tests.cuda_trace.models import MASK, qwen

pytestmark = pytest.mark.usefixtures("fresh_compiler")


def test_the_decoder_stack_is_one_graph_per_kind_of_shape() -> None:
    gpu = FakeGpu()
    with gpu():
        model = qwen(layers=2)
        cached = CachedModel(model, 4, 256, MASK)
    # "eager": traced whole, but no kernel is made, for which there is no device.
    cached.backbone = CompiledBackbone(model.get_decoder(), "eager")
    with gpu.fakes, torch.inference_mode():
        for rows, window in ((4, 7), (3, 7), (4, 12), (2, 9)):
            ids = torch.zeros(rows, window, dtype=torch.long, device=DEVICE)
            states = cached.hidden(ids, torch.zeros_like(ids), window + 8)
            assert states.shape == (rows, window, model.config.hidden_size)
    assert cached.backbone.call is not cached.backbone.plain
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] <= 3
