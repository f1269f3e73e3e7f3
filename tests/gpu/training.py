"""A training step beside the same on the CPU, with flex attention and with dense."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mars.training.cost import Decoder, Work, document_work
from mars.training.dual_stream import autoregressive_stream, mars_stream
from mars.training.layers import checkpoint_layers, compile_layers
from mars.training.packed_model import DENSE, PackedModel
from mars.training.packing import Rows, pack
from tests.gpu.models import MASK, documents, random_weights
from tests.gpu.part import Part

BLOCK, FLEX = 4, "flex_attention"
# Of head dimension 64 and a vocabulary that fills several chunks: small, and like the real ones.
SMALL = Decoder(2, 256, 512, 4, 2, 64, 4096, tied=True)
FLOAT32, BFLOAT16 = 1e-3, 3e-2  # allowed relative differences of losses, gradients and updates


def run(part: Part) -> None:
    """Loss, gradients and a step of the optimiser are those of the plain form on the CPU."""
    wanted = step(packed("mars", SMALL, 512, 2), torch.device("cpu"), DENSE, torch.float64)
    compare = partial(like, part, wanted)
    for attention in (DENSE, FLEX):
        part.check(f"{attention}, float32", partial(compare, attention))
    part.check(f"{FLEX}, bfloat16", partial(compare, FLEX, precision=torch.bfloat16))
    part.check(f"{DENSE}, checkpointed", partial(compare, DENSE, checkpointed=True))
    prepared = partial(compare, FLEX, checkpointed=True, compiled=True)
    part.check(f"{FLEX}, checkpointed and compiled", prepared, takes=20)


def like(
    part: Part,
    wanted: dict[str, Tensor],
    attention: str,
    precision: torch.dtype = torch.float32,
    **layers: bool,
) -> str:
    """How far a step is from the wanted one, an AssertionError if that is too far."""
    if attention == FLEX:
        part.gpu_only("flex attention, whose backward pass the CPU lacks")
    found = step(packed("mars", SMALL, 512, 2), part.device, attention, precision, **layers)
    allowed = BFLOAT16 if precision == torch.bfloat16 else FLOAT32
    differences = {
        name: float((found[name] - wanted[name]).norm() / wanted[name].norm()) for name in wanted
    }
    seen = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
    # Adam divides a gradient by its size, so that an update may turn where a gradient is about 0.
    limits = {"loss": allowed, "gradients": allowed, "update": 10 * allowed}
    assert all(differences[name] <= limits[name] for name in limits), f"relative to the CPU: {seen}"
    return f"relative to float64 on the CPU: {seen}"


def step(
    rows: list[Rows],
    device: torch.device,
    attention: str,
    precision: torch.dtype,
    checkpointed: bool = False,
    compiled: bool = False,
) -> dict[str, Tensor]:
    """Losses, gradients and the change of all weights in one step of AdamW, on the CPU."""
    model = random_weights(SMALL, torch.float32, torch.device("cpu")).train()
    model = model.to(device, torch.float64 if precision == torch.float64 else torch.float32)
    model.set_attn_implementation(attention)
    if compiled:
        compile_layers(model)
    if checkpointed:
        checkpoint_layers(model)
    before = weights(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, fused=True)
    loss = forward_backward(model, rows, precision == torch.bfloat16, CHUNK)
    gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    optimizer.step()
    return {
        "loss": loss.double().cpu(),
        "gradients": gradients.double().cpu(),
        "update": weights(model) - before,
    }


CHUNK = 2**20  # several chunks of the loss


def forward_backward(
    model: PreTrainedModel, rows: list[Rows], autocast: bool, chunk: int
) -> Tensor:
    """The losses of a step's forwards, after their backward passes."""
    module, device = PackedModel(model, 1.0, chunk), model.device
    total = torch.zeros((), device=device)
    for one in rows:
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            loss, _ = module(one.to(device))
        loss.backward()
        total = total + loss.detach()
    return total


def weights(model: PreTrainedModel) -> Tensor:
    return torch.cat(
        [parameter.detach().double().cpu().flatten() for parameter in model.parameters()]
    )


def packed(method: str, decoder: Decoder, row_length: int, forwards: int) -> list[Rows]:
    """About so many rows, each of one forward."""
    return pack(
        [stream(method, *one) for one in chosen(method, decoder, row_length, forwards)],
        row_length=row_length,
        rows_per_forward=1,
        normalisation="sequence",
        ar_weight=1.0,
        fixed_shape=True,
    )


def chosen(method: str, decoder: Decoder, row_length: int, forwards: int) -> list[Any]:
    """Documents that fill so many rows, a little less so that none is begun beyond them."""
    per_token = 1.6 if method == "mars" else 1.0
    tokens = int(0.9 * row_length * forwards / per_token)
    return documents(tokens, decoder.vocabulary, mean=min(320, row_length // 8))


def stream(method: str, tokens: Any, prompt: int) -> Any:
    if method == "ar_sft":
        return autoregressive_stream(tokens, prompt)
    return mars_stream(tokens, prompt, block_size=BLOCK, mask_token_id=MASK)


def work(method: str, decoder: Decoder, row_length: int, forwards: int) -> Work:
    """What the rows of :func:`packed` have to do, padding left out."""
    total = Work(0, 0, 0)
    for tokens, prompt in chosen(method, decoder, row_length, forwards):
        total = total + document_work(method, prompt, len(tokens) - prompt, BLOCK)
    return total
