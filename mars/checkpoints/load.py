"""Loading checkpoints, ordinary Qwen2 or Llama folders, and what their generation config says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

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


def plain_greedy(inherited: GenerationConfig, **further: Any) -> GenerationConfig:
    """Greedy decoding with only the special ids kept: no repetition penalty, no sampling (A1)."""
    return GenerationConfig(
        do_sample=False,
        bos_token_id=inherited.bos_token_id,
        eos_token_id=inherited.eos_token_id,
        pad_token_id=inherited.pad_token_id,
        **further,
    )


TAU = 0.95  # the threshold of the paper's Table 4


def multi_token(tokenizer: PreTrainedTokenizerBase, block_size: int | None) -> dict[str, Any]:
    """What a generation config tells multi-token decoding; nothing for an autoregressive model."""
    if block_size is None:
        return {}
    return {
        "mars_block_size": block_size,
        "mars_mask_token_id": tokenizer.mask_token_id,
        "mars_threshold": TAU,
    }
