"""The exported checkpoint: a plain folder that ``AutoModelForCausalLM`` loads, and its papers."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from mars.errors import UserError
from mars.provenance.files import read_json, write_atomic, write_json, write_jsonl


def export(
    model: PreTrainedModel,
    state: dict[str, torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    output: Path,
    *,
    parent: Path,
    settings: dict[str, Any],
    log: list[dict[str, Any]],
    summary: dict[str, Any],
) -> None:
    """Write the checkpoint folder under a temporary name and rename it when it is whole.

    Weights are stored in the type of the parent's (float32 for a new model). ``summary`` gains the
    parameter count of what was written; it must equal ``summary["parameters_before"]``.

    Raises:
        UserError: the number of parameters changed.
    """
    temporary = output.parent / f".{output.name}.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    dtype = _stored_type(parent)
    model.generation_config = _generation_config(model, tokenizer, settings)
    # In another type a tied tensor would be a second one beside the one it is tied to.
    tied = model.all_tied_weights_keys
    own = {name: value.to(dtype) for name, value in state.items() if name not in tied}
    model.save_pretrained(temporary, state_dict=own)
    # `save_pretrained` writes the type of the weights in memory.
    config = read_json(temporary / "config.json")
    write_json(temporary / "config.json", config | {"dtype": str(dtype).removeprefix("torch.")})
    tokenizer.save_pretrained(temporary)
    summary["parameters"] = _parameters(temporary)
    if summary["parameters"] != summary["parameters_before"]:
        raise UserError(
            f"training changed the number of parameters from {summary['parameters_before']} to "
            f"{summary['parameters']}; that is a defect of this program, please report it."
        )
    write_jsonl(temporary / "training.jsonl", log)
    write_json(temporary / "training_summary.json", {**settings, **summary})
    write_atomic(temporary / "README.md", _model_card(output.name, settings, summary))
    shutil.rmtree(output, ignore_errors=True)
    temporary.rename(output)


def _stored_type(parent: Path) -> torch.dtype:
    """Type of the parent's weights, so that a bfloat16 checkpoint stays one."""
    if not (parent / "config.json").is_file():
        return torch.float32
    config = read_json(parent / "config.json")
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    return getattr(torch, name)


def _generation_config(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: dict[str, Any]
) -> GenerationConfig:
    """Plain greedy decoding; for MARS also what multi-token decoding needs to know."""
    inherited = model.generation_config.eos_token_id if model.generation_config else None
    ends = inherited if isinstance(inherited, list) else [inherited]
    eos = list(dict.fromkeys(i for i in [tokenizer.eos_token_id, *ends] if i is not None))
    extra = {}
    if settings["block_size"] is not None:
        extra = {
            "mars_block_size": settings["block_size"],
            "mars_mask_token_id": tokenizer.mask_token_id,
        }
    return GenerationConfig(
        do_sample=False,
        eos_token_id=eos,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else eos[0],
        **extra,
    )


def _parameters(folder: Path) -> int:
    """Number of parameters in the safetensors files of a folder."""
    count = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            count += sum(math.prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())  # noqa: SIM118
    return count


_METHODS = {
    "pretrain": "next-token prediction from random weights",
    "ar_sft": "autoregressive supervised fine-tuning",
    "mars": "MARS (arXiv 2604.07023): next-token loss and mask loss on a dual stream",
    "block_diffusion": "block diffusion (BD3-LM, arXiv 2503.09573)",
}


def _model_card(name: str, settings: dict[str, Any], summary: dict[str, Any]) -> str:
    """README.md of the checkpoint: what it is and how it was trained."""
    training = {k: v for k, v in settings["training"].items() if k != "normalisation"}
    facts: dict[str, Any] = {"parent": settings["parent"]}
    if settings["block_size"] is not None:
        facts["block size B"] = settings["block_size"]
    if settings["method"] == "mars":
        facts["weight of the AR loss"] = settings["ar_weight"]
    facts["loss normalised per"] = settings["normalisation"]
    facts |= {key.replace("_", " "): value for key, value in training.items()}
    facts |= {key.replace("_", " "): value for key, value in summary.items()}
    table = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    return (
        f"# {name}\n\nTrained by {_METHODS[settings['method']]}. A plain checkpoint: "
        "`AutoModelForCausalLM.from_pretrained` loads it, and it decodes one token at a time like "
        "any other; no parameter was added.\n\n"
        "Loss and gradient norm of every step are in `training.jsonl`.\n\n"
        f"| | |\n|---|---|\n{table}\n"
    )


def add_custom_generate(checkpoint: str | Path) -> None:
    """Put ``custom_generate/generate.py`` beside the weights of a checkpoint."""
    source = Path(__file__).parent / "custom_generate" / "generate.py"
    write_atomic(Path(checkpoint) / "custom_generate" / "generate.py", source.read_text())
