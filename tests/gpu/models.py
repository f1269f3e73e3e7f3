"""Models of the paper's shapes with random weights, and examples to train them on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from mars.training.cost import DECODERS, Decoder

MASK = 1
TINY = Decoder(2, 64, 128, 4, 2, 16, 512, tied=True)  # to try the same on a CPU


def shape_of(name: str, layers: int | None = None) -> Decoder:
    """``tiny``, ``0.5B`` or ``7B``, or some of its layers."""
    decoder = TINY if name == "tiny" else DECODERS[name]
    return decoder if layers is None else replace(decoder, layers=layers)


def config_of(decoder: Decoder) -> Qwen2Config:
    """A Qwen2 model of this shape."""
    return Qwen2Config(
        vocab_size=decoder.vocabulary,
        hidden_size=decoder.hidden,
        intermediate_size=decoder.intermediate,
        num_hidden_layers=decoder.layers,
        num_attention_heads=decoder.heads,
        num_key_value_heads=decoder.kv_heads,
        tie_word_embeddings=decoder.tied,
        max_position_embeddings=32768,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def random_weights(decoder: Decoder, dtype: torch.dtype, device: torch.device) -> Qwen2ForCausalLM:
    """A Qwen2 model of this shape, made on the device."""
    torch.manual_seed(0)
    with default_dtype(dtype), device:
        return Qwen2ForCausalLM(config_of(decoder)).eval()


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Within, new tensors are of this type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def documents(tokens: int, vocabulary: int, mean: int) -> list[tuple[np.ndarray, int]]:
    """So many tokens in documents of log-normal lengths, and where the response of each begins.

    As in the paper's data, none is longer than 512 and three eighths are prompt.
    """
    draw = np.random.default_rng(0)
    made: list[tuple[np.ndarray, int]] = []
    while tokens > 0:
        length = int(np.clip(draw.lognormal(np.log(mean) - 0.125, 0.5), 12, 512))
        made.append((draw.integers(2, vocabulary, length), 3 * length // 8))
        tokens -= length
    return made
