"""The chunked cross-entropy against PyTorch's own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy

from mars.training.dual_stream import mars_stream
from mars.training.losses import CPU_CHUNK, chunk_logits, weighted_cross_entropy
from mars.training.packed_model import DENSE, PackedModel
from mars.training.packing import pack
from tests.unit.training.test_dual_stream import MASK, make_documents, make_model


def inputs(dtype: torch.dtype, labels: int = 37) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(labels, 16, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(101, 16, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(101, (labels,), generator=generator)
    return hidden, weight, targets, torch.rand(labels, generator=generator).double()


@pytest.mark.parametrize("chunk_logits", [1, 5 * 101, 2**26])
def test_equals_cross_entropy_whatever_the_chunk(chunk_logits: int) -> None:
    hidden, weight, targets, label_weights = inputs(torch.float64)
    plain = cross_entropy(hidden @ weight.T, targets, reduction="none")
    expected = torch.autograd.grad(3 * (plain * label_weights).sum(), [hidden, weight])
    loss, losses = weighted_cross_entropy(
        hidden, weight, targets, label_weights, chunk_logits=chunk_logits
    )
    ours = torch.autograd.grad(3 * loss, [hidden, weight])
    assert torch.allclose(losses, plain, rtol=1e-12)
    assert torch.allclose(ours[0], expected[0], rtol=1e-10)
    assert torch.allclose(ours[1], expected[1], rtol=1e-10)


def test_bfloat16_inputs_are_summed_in_float32() -> None:
    hidden, weight, targets, label_weights = inputs(torch.bfloat16)
    loss, losses = weighted_cross_entropy(hidden, weight, targets, label_weights)
    logits = (hidden @ weight.T).float()  # the product itself is bfloat16, as under autocast
    assert losses.dtype == loss.dtype == torch.float32
    assert torch.allclose(losses, cross_entropy(logits, targets, reduction="none"), rtol=1e-6)


def test_no_label_is_no_loss_and_no_gradient() -> None:
    hidden, weight, targets, label_weights = inputs(torch.float32, labels=0)
    loss, _ = weighted_cross_entropy(hidden, weight, targets, label_weights)
    loss.backward()
    assert loss == 0
    assert not weight.grad.any()


def test_evaluation_needs_no_gradient() -> None:
    hidden, weight, targets, label_weights = inputs(torch.float32)
    with torch.no_grad():
        loss, _ = weighted_cross_entropy(hidden, weight, targets, label_weights)
    assert not loss.requires_grad


@pytest.mark.parametrize("ar_weight", [1.0, 0.5])
def test_ar_loss_and_mask_loss_add_up_under_autocast(ar_weight: float) -> None:
    model = make_model(torch.float32)
    model.set_attn_implementation(DENSE)
    streams = [mars_stream(d, p, block_size=4, mask_token_id=MASK) for d, p in make_documents()]
    (rows,) = pack(
        streams,
        row_length=64,
        rows_per_forward=9,
        normalisation="sequence",
        ar_weight=ar_weight,
    )
    with torch.autocast("cpu", torch.bfloat16):
        loss, (ar, mask) = PackedModel(model, ar_weight)(rows)
    assert float(ar_weight * ar + mask) == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.parametrize("gibibytes", [1, 24, 80, 141])
def test_a_gpu_takes_chunks_by_its_memory(gibibytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = gibibytes * 2**30
    gpu = SimpleNamespace(total_memory=memory)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    bytes_of_chunk = 4 * chunk_logits(torch.device("cuda"))
    assert bytes_of_chunk == max(4 * CPU_CHUNK, memory // 64)
    assert chunk_logits(torch.device("cpu")) == CPU_CHUNK == 2**25
