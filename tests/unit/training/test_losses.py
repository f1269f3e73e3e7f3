"""The chunked cross-entropy against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from mars.training.losses import weighted_cross_entropy


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
