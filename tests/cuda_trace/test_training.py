"""A training step on fake tensors of a GPU.

The forward pass, flex attention with its block mask included, the gradients that the loss forms
itself, gradient clipping and the optimiser. Not the backward pass of the layers: autograd asks for
a real device, and flex attention has a backward on GPUs only.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch._dynamo.utils import counters

from mars.training.losses import CPU_CHUNK, _ChunkedCrossEntropy
from mars.training.packed_model import PackedModel
from tests.cuda_trace.fake_gpu import DEVICE, FakeGpu, driver
from tests.cuda_trace.models import packed_rows, qwen

compile_for_real = torch.compile


def traced_whole(function: Any, **_: Any) -> Any:
    """``torch.compile`` up to the graph, from which a GPU would get its kernels."""
    return compile_for_real(function, backend="eager", fullgraph=True)


pytestmark = pytest.mark.usefixtures("fresh_compiler")


def test_rows_and_block_mask_never_wait_for_the_device() -> None:
    gpu = FakeGpu()
    with gpu():
        rows = packed_rows(gpu).to(DEVICE)
        mask = rows.flex_mask()
        assert mask.kv_num_blocks.device == DEVICE
        assert mask.seq_lengths == (rows.tokens.shape[1],) * 2


@pytest.mark.parametrize("autocast", [True, False])
def test_flex_attention_is_traced_whole_in_the_forward_pass(autocast: bool) -> None:
    gpu = FakeGpu()
    with gpu():
        model = qwen(torch.float32, layers=2).train()
        model.set_attn_implementation("flex_attention")
        rows = packed_rows(gpu).to(DEVICE)
    with (
        mock.patch("torch.compile", traced_whole),
        driver(),
        gpu.fakes,
        torch.no_grad(),
        torch.autocast("cuda", torch.bfloat16, enabled=autocast),
    ):
        loss, parts = PackedModel(model, 1.0)(rows)
    assert loss.device == parts.device == DEVICE
    assert parts.shape == (2,)
    assert counters["stats"]["unique_graphs"] >= 1
    assert not counters["graph_break"]


def test_the_loss_forms_its_gradients_without_waiting() -> None:
    with FakeGpu()():
        hidden = torch.empty(700, 896, dtype=torch.bfloat16, device=DEVICE)
        weight = torch.empty(151936, 896, device=DEVICE)
        targets = torch.zeros(700, dtype=torch.long, device=DEVICE)
        context = SimpleNamespace(
            needs_input_grad=(True,) * 5, mark_non_differentiable=lambda *_: None
        )
        weights = torch.ones(700, device=DEVICE)
        arguments = (hidden, weight, targets, weights, CPU_CHUNK)
        loss, losses = _ChunkedCrossEntropy.forward(context, *arguments)
        assert losses.shape == (700,)
        grads = _ChunkedCrossEntropy.backward(context, loss, losses)
    assert grads[0].dtype == torch.bfloat16
    assert grads[1].shape == weight.shape


def test_clipping_and_the_fused_optimiser_never_wait() -> None:
    with FakeGpu()():
        model = qwen(torch.float32, layers=1)
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.1, fused=True)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        assert norm.device == DEVICE
        optimizer.step()
        optimizer.zero_grad()
