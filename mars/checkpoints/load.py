"""Loading checkpoints: ordinary Qwen2 or Llama folders, to which nothing here adds a parameter."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from mars.data.tokenizer import checkpoint_folder


def load_model(checkpoint: str | Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The causal language model in a local folder, in evaluation mode, on the best device."""
    folder = checkpoint_folder(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device).eval()  # type: ignore[arg-type]


def block_size_of(model: PreTrainedModel) -> int:
    """The block size a MARS checkpoint was trained for; 1 for a plain autoregressive one."""
    return getattr(model.generation_config, "mars_block_size", None) or 1


def eos_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every id that ends a response: the generation config's and the tokenizer's.

    The authors' code knows one of them only (docs/differences.md, A11).
    """
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return sorted({i for i in [*ids, tokenizer.eos_token_id] if i is not None})
