"""Models with random weights, and decoding that accepts as many tokens as it is told to.

What a forward costs does not depend on the weights, so shapes that cannot be trained here can
still be timed. What is accepted does depend on them: here a seeded pattern says it instead, with
the mean that was measured on a trained model. Such numbers are labelled wherever they are shown.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config

from mars.decoding.cursor import Engine
from mars.errors import UserError

if TYPE_CHECKING:
    from mars.decoding.cursor import _Slot

DIMENSIONS = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("intermediate_size", "vocab_size", "tie_word_embeddings"),
)
SHAPES: dict[str, tuple[int, ...]] = {
    "tiny": (192, 2, 6, 3, 512, 768, True),
    "qwen2.5-0.5b": (896, 24, 14, 2, 4864, 151936, True),
    "qwen2.5-7b": (3584, 28, 28, 4, 18944, 152064, False),
}
"""Qwen2 architectures by their dimensions; the last two are those of the paper's models."""

SEED, PATTERN_LENGTH = 0, 2**16


def random_model(shape: str, dtype: torch.dtype) -> PreTrainedModel:
    """A Qwen2 model of one of ``SHAPES`` with random weights, on the best device.

    Its last token can serve as [MASK]; it has no EOS.

    Raises:
        UserError: unknown shape.
    """
    if shape not in SHAPES:
        raise UserError(f"No shape {shape!r} for random weights: choose from {', '.join(SHAPES)}.")
    settings: dict[str, Any] = dict(zip(DIMENSIONS, SHAPES[shape], strict=True))
    settings |= dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    config = Qwen2Config(**settings, max_position_embeddings=32768)
    torch.manual_seed(SEED)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def random_prompts(vocabulary: int, count: int) -> list[list[int]]:
    """Random tokens, 64 to 192 of them per prompt; the last token of the vocabulary is left out."""
    rng = random.Random(SEED)
    return [
        [rng.randrange(vocabulary - 1) for _ in range(rng.randint(64, 192))] for _ in range(count)
    ]


class SimulatedEngine(Engine):
    """The engine, except that a seeded pattern says how many tokens each forward accepts.

    Each prompt enters the pattern at a place of its own, and the count depends on the position
    from there, not on the slot or the batch size. It lies in a tensor, so a step remains one
    computation without the host. The model's own confidence is computed all the same, because it
    is part of what a step costs.

    Args:
        mean: tokens accepted per forward, between 1 and ``block_size``.

    Raises:
        UserError: a mean that this block size cannot have.
    """

    def __init__(self, *arguments: Any, mean: float, **options: Any):
        super().__init__(*arguments, **options)
        device = self.ids.device
        self.pattern = acceptance_pattern(mean, self.block_size, (PATTERN_LENGTH,)).to(device)
        self.entry = torch.zeros_like(self.length)
        self.state.append(self.entry)

    def _place(self, row: int, slot: _Slot) -> None:
        super()._place(row, slot)
        self.entry[row] = random.Random(repr(slot.request.prompt)).randrange(PATTERN_LENGTH)

    def _run(self, logits: Tensor, rows: slice) -> Tensor:
        run = super()._run(logits, rows)
        if logits.shape[1] == 1:
            return run
        return self.pattern[(self.entry[rows] + self.length[rows]) % PATTERN_LENGTH] + 0 * run


def acceptance_pattern(mean: float, block_size: int, shape: tuple[int, ...]) -> Tensor:
    """Accepted tokens, 1 to B, of the given shape and of this mean over every long stretch.

    A token after the first is accepted with one probability p as long as those before it are, so
    the mean is 1 + p + ... + p^(B-1); p is found by bisection.

    Raises:
        UserError: a mean outside 1..B.
    """
    if not 1 <= mean <= block_size:
        raise UserError(
            f"{mean} tokens per forward cannot be simulated with a block size of {block_size}: "
            f"give a number from 1 to {block_size}."
        )
    low, high = 0.0, 1.0
    for _ in range(50):
        p = (low + high) / 2
        low, high = (p, high) if sum(p**k for k in range(block_size)) < mean else (low, p)
    generator = torch.Generator().manual_seed(SEED)
    accepted = torch.rand(*shape, block_size - 1, generator=generator) < high
    return 1 + accepted.long().cumprod(-1).sum(-1)
