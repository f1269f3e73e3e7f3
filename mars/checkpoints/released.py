"""The authors' released checkpoints as plain ones.

They hold ordinary Qwen2 weights under a model type of their own (``a2d-qwen2``), which the
Transformers library does not know. Only the configuration's name is foreign, so it is read as a
Qwen2 configuration; code in the repository is neither fetched nor run.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from mars.checkpoints.base import multi_token, plain_greedy, set_mask_token
from mars.checkpoints.export import add_custom_generate
from mars.data.hub import fetch
from mars.errors import UserError
from mars.provenance.files import read_json

if TYPE_CHECKING:
    from mars.checkpoints.stage import ReleasedSpec

MODEL_TYPES = ("qwen2", "a2d-qwen2")
# What would point the Transformers library at the repository's code, or at another class.
FOREIGN_KEYS = ("model_type", "auto_map", "architectures")


def import_released(spec: ReleasedSpec, output: Path) -> dict[str, Any]:
    """Write a released checkpoint as a plain Qwen2 folder that knows its mask and block size.

    Returns:
        Where it came from: ``{"source", "repository", "revision", "origin", ...}``.

    Raises:
        UserError: the repository holds something else than Qwen2 weights with that mask.
    """
    source = output.parent / f".{output.name}.download"
    repository, mask_token = spec.released.repository, spec.released.mask_token
    origin = fetch(repository, "model", spec.released.revision, source)
    try:
        model, model_type = _load_as_qwen2(source, repository)
        tokenizer = AutoTokenizer.from_pretrained(
            source, local_files_only=True, trust_remote_code=False, config=model.config
        )
    finally:
        shutil.rmtree(source)
    if spec.block_size is not None and mask_token not in tokenizer.get_vocab():
        raise UserError(
            f"{repository}: its tokenizer has no {mask_token!r}, so it was not trained with that "
            "mask; correct `released.mask_token` of this model."
        )
    set_mask_token(tokenizer, model, mask_token)
    masks = multi_token(tokenizer, spec.block_size)
    model.generation_config = plain_greedy(model.generation_config, **masks)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    if spec.method == "mars":
        add_custom_generate(output)
    return {
        **origin,
        "origin": "released by the authors of arXiv 2604.07023, not trained here",
        "model_type": model_type,
        "method": spec.method,
        "block_size": spec.block_size,
    }


def _load_as_qwen2(folder: Path, repository: str) -> tuple[PreTrainedModel, str]:
    """The model, and the model type that its configuration claims."""
    content = read_json(folder / "config.json")
    model_type = content.get("model_type")
    if model_type not in MODEL_TYPES:
        raise UserError(
            f"{repository} is of the model type {model_type!r}; a released checkpoint is one of "
            f"{', '.join(MODEL_TYPES)}."
        )
    config = Qwen2Config(**{k: v for k, v in content.items() if k not in FOREIGN_KEYS})
    loaded: Any = Qwen2ForCausalLM.from_pretrained(
        folder,
        config=config,
        dtype="auto",
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    model, loading = loaded
    # A tensor that is not in the files would be left at random values.
    strange = [str(key) for kind in loading.values() for key in kind]
    if strange:
        raise UserError(
            f"{repository} does not hold plain Qwen2 weights: {len(strange)} tensors are missing, "
            f"unknown or of another shape, {sorted(strange)[0]} for one; fetch it again."
        )
    return model, model_type
