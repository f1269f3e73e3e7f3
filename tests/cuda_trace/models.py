"""Qwen2.5-0.5B on the GPU that is not there, and rows to train it on."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from mars.training.dual_stream import mars_stream
from mars.training.packing import Rows, pack
from tests.cuda_trace.fake_gpu import DEVICE, FakeGpu

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


def packed_rows(gpu: FakeGpu) -> Rows:
    """Two rows of MARS examples, fake and on the host as they come from packing."""
    streams = [
        mars_stream(np.arange(10, 110 + index), 30, block_size=4, mask_token_id=MASK)
        for index in range(4)
    ]
    rows = pack(
        streams,
        row_length=512,
        rows_per_forward=2,
        normalisation="sequence",
        ar_weight=1.0,
        fixed_shape=True,
    )[0]
    return Rows(**{f.name: gpu.fakes.from_tensor(getattr(rows, f.name)) for f in fields(rows)})
