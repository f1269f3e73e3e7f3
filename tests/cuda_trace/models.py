"""Qwen2.5-0.5B on the GPU that is not there."""

from __future__ import annotations

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.cuda_trace.fake_gpu import DEVICE

MASK, EOS = 7, 3


def qwen(dtype: torch.dtype = torch.bfloat16, layers: int = 24) -> Qwen2ForCausalLM:
    """The shape of Qwen2.5-0.5B, or some of its layers; within a :class:`FakeGpu`."""
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=layers,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=EOS,
    )
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with DEVICE:
            return Qwen2ForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(usual)
