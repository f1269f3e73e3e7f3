"""The exported checkpoint: a plain folder that ``AutoModelForCausalLM`` loads, with its logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from mars.checkpoints.describe import describe
from mars.checkpoints.load import multi_token
from mars.errors import UserError
from mars.provenance.files import read_json, write_atomic, write_json, write_jsonl
from mars.provenance.manifest import new_folder


def export(
    model: PreTrainedModel,
    state: dict[str, torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    output: Path,
    parent: Path,
    settings: dict[str, Any],
    log: list[dict[str, Any]],
    summary: dict[str, Any],
) -> None:
    """Write the checkpoint folder, which appears when it is whole.

    Weights keep the type of the parent's (float32 for a new model). ``summary`` gains the number of
    parameters written; ``training_summary.json`` holds ``settings`` and ``summary``.

    Raises:
        UserError: that number is not ``summary["parameters_before"]``.
    """
    stored = read_json(parent / "config.json") if (parent / "config.json").is_file() else {}
    name = stored.get("dtype") or stored.get("torch_dtype") or "float32"
    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(name, torch.float32)
    model.generation_config = _generation_config(model, tokenizer, settings["block_size"])
    # Converted, a tied tensor would be stored a second time.
    tied = model.all_tied_weights_keys
    own = {name: value.to(dtype) for name, value in state.items() if name not in tied}
    with new_folder(output) as folder:
        model.save_pretrained(folder, state_dict=own)
        # `save_pretrained` notes the type that the weights have in memory.
        config = read_json(folder / "config.json")
        write_json(folder / "config.json", config | {"dtype": str(dtype).removeprefix("torch.")})
        tokenizer.save_pretrained(folder)
        summary["parameters"] = describe(folder)["parameters"]
        if summary["parameters"] != summary["parameters_before"]:
            raise UserError(
                f"training changed the number of parameters from {summary['parameters_before']} to "
                f"{summary['parameters']}; that is a defect of this program, please report it."
            )
        write_jsonl(folder / "training.jsonl", log)
        write_json(folder / "training_summary.json", {**settings, **summary})
        write_atomic(folder / "README.md", _model_card(output.name, settings, summary))
        if settings["method"] == "mars":
            add_custom_generate(folder)


def _generation_config(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, block_size: int | None
) -> GenerationConfig:
    """Plain greedy decoding; for MARS also what multi-token decoding needs to know."""
    inherited = model.generation_config.eos_token_id if model.generation_config else None
    ends = inherited if isinstance(inherited, list) else [inherited]
    eos = list(dict.fromkeys(i for i in [tokenizer.eos_token_id, *ends] if i is not None))
    return GenerationConfig(
        do_sample=False,
        eos_token_id=eos,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else eos[0],
        **multi_token(tokenizer, block_size),
    )


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
    if settings["method"] == "block_diffusion":
        facts["position j predicts token"] = "j + 1" if settings["right_shift"] else "j"
    facts["loss normalised per"] = settings["normalisation"]
    facts |= {key.replace("_", " "): value for key, value in (training | summary).items()}
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
