"""Cross-entropy at the labelled positions only, in chunks, with its gradient in the same pass."""

from __future__ import annotations

import torch

CPU_CHUNK = 2**25  # logits held at once: 128 MiB in float32
GPU_SHARE = 1 / 64  # of a GPU's memory, for the logits of a chunk; what is made of them is as much


def chunk_logits(device: torch.device) -> int:
    """How many logits to hold at once: a fixed number on a CPU, by its memory on a GPU.

    Not by what is free at the moment: the size of the chunks decides the order of sums.
    """
    if device.type != "cuda":
        return CPU_CHUNK
    memory = torch.cuda.get_device_properties(device).total_memory
    return max(CPU_CHUNK, int(GPU_SHARE * memory) // torch.float32.itemsize)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Weighted sum of cross-entropies; the gradient is formed chunk by chunk in the forward pass.

    Only one chunk's logits exist at a time, and none are computed twice. The result can be
    differentiated once, because the gradients are scaled in place.
    """

    @staticmethod
    def forward(ctx, hidden, weight, targets, label_weights, chunk_logits):  # type: ignore[no-untyped-def]
        rows = max(1, chunk_logits // weight.shape[0])
        compute, accumulate = hidden.dtype, torch.promote_types(hidden.dtype, torch.float32)
        head = weight.to(compute)
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        losses = hidden.new_empty(len(targets), dtype=accumulate)
        grad_hidden = torch.empty_like(hidden) if wanted else None
        grad_weight = torch.zeros_like(weight, dtype=accumulate) if wanted else None
        for start in range(0, len(targets), rows):
            part = slice(start, start + rows)
            chunk, target = hidden[part], targets[part, None]
            logits = (chunk @ head.T).to(accumulate)
            normaliser = logits.logsumexp(-1, keepdim=True)
            losses[part] = (normaliser - logits.gather(1, target)).squeeze(1)
            if wanted:
                scale = label_weights[part, None].to(accumulate)
                grad = logits.sub_(normaliser).exp_().mul_(scale)
                grad = grad.scatter_add_(1, target, -scale).to(compute)
                torch.mm(grad, head, out=grad_hidden[part])
                grad_weight += grad.T @ chunk
        ctx.gradients, ctx.weight_dtype = (grad_hidden, grad_weight), weight.dtype
        ctx.mark_non_differentiable(losses)
        return (losses * label_weights.to(accumulate)).sum(), losses

    @staticmethod
    def backward(ctx, grad_loss, _):  # type: ignore[no-untyped-def]
        (grad_hidden, grad_weight), ctx.gradients = ctx.gradients, None
        grad_weight = grad_weight.mul_(grad_loss).to(ctx.weight_dtype)
        return grad_hidden.mul_(grad_loss), grad_weight, None, None, None


def weighted_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    label_weights: torch.Tensor,
    *,
    chunk_logits: int = CPU_CHUNK,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum over labels of weight times cross-entropy, softmax and sums in float32 or better.

    Args:
        hidden: (N, hidden size) at the labelled positions; its type is that of the products.
        weight: (vocabulary, hidden size) output embedding.
        targets, label_weights: (N,) token ids, and their weights.
        chunk_logits: logits held in memory at once.

    Returns:
        The weighted sum (differentiable) and the (N,) cross-entropies (not differentiable).
    """
    return _ChunkedCrossEntropy.apply(hidden, weight, targets, label_weights, chunk_logits)
