"""A checkpoint as stock vLLM takes it: a model that is served, or one that drafts for another.

What MARS learnt, to predict several tokens from masks behind the text, is what vLLM calls parallel
drafting (PARD). It asks for two things: ``mask_token_id`` in ``config.json``, and as many rows of
embeddings as the target has. The first the tokenizer knows; the second is made so here. A target
is never touched, so what it answers stays what it answers.
"""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mars.checkpoints.wide_heads import (
    NARROWEST,
    has_narrow_heads,
    head_width,
    widened,
    widened_config,
)
from mars.data.tokenizer import checkpoint_folder, load_tokenizer
from mars.errors import UserError
from mars.provenance.files import read_json, write_json
from mars.provenance.manifest import new_folder

WEIGHTS, INDEX = "*.safetensors", "model.safetensors.index.json"
ROWS = ("embed_tokens.weight", "lm_head.weight")
"""Ends of the names of tensors that have a row for each token."""
OF_TRAINING = ("README.md", "manifest.json", "training.jsonl", "training_summary.json")
AR_DRAFT = 4  # tokens drafted one by one; the K of the paper's Table 6


@dataclass(frozen=True)
class ForVllm:
    """A checkpoint that was written for vLLM.

    Attributes:
        folder: where it is.
        block_size: B of a MARS checkpoint; None for an autoregressive one.
        changes: what is different from the checkpoint, a sentence each.
    """

    folder: Path
    block_size: int | None
    changes: list[str]

    def speculative_config(self, draft_tokens: int | None = None) -> dict[str, Any]:
        """vLLM's ``speculative_config`` for drafting with this model.

        Args:
            draft_tokens: K; None: as many as are drafted best, B tokens for a MARS checkpoint.
        """
        return {
            "method": "draft_model",
            "model": str(self.folder),
            "num_speculative_tokens": draft_tokens or self.block_size or AR_DRAFT,
            "parallel_drafting": self.block_size is not None,
        }


def export_for_vllm(checkpoint: Path, output: Path, target: Path | None = None) -> ForVllm:
    """Write ``output``, the checkpoint as vLLM takes it.

    Args:
        target: the model it will draft for, of which it gets the number of rows; None: it is
            served itself, and a MARS checkpoint then drafts for itself.

    Raises:
        UserError: the two have different tokenizers, the mask token has no row in the target, vLLM
            cannot serve the target, or the weights cannot be changed as needed.
    """
    _expect_weights(checkpoint_folder(checkpoint))
    if target is not None:
        _expect_served(checkpoint_folder(target))
    config = read_json(checkpoint / "config.json")
    wanted, rows, changes = dict(config), config["vocab_size"], []
    block_size = _generation(checkpoint).get("mars_block_size")
    if block_size is not None:
        wanted["mask_token_id"] = _generation(checkpoint)["mars_mask_token_id"]
        changes.append(f"config.json names the mask token, {wanted['mask_token_id']}.")
    if target is not None:
        _expect_same_tokens(checkpoint, target)
        rows = wanted["vocab_size"] = read_json(target / "config.json")["vocab_size"]
        changes += _of_rows(config["vocab_size"], rows, wanted.get("mask_token_id", 0))
    if has_narrow_heads(config):
        wanted = widened_config(wanted)
        changes.append(
            f"Heads of {head_width(config)} became heads of {head_width(wanted)} of a Llama that "
            f"computes the same: vLLM has none under {NARROWEST} on a CPU."
        )
    with new_folder(output) as folder:
        for file in sorted(checkpoint.iterdir()):
            if file.is_file() and file.name not in OF_TRAINING and not file.match(WEIGHTS):
                shutil.copyfile(file, folder / file.name)
        write_json(folder / "config.json", wanted)
        _write_weights(checkpoint, folder, config, rows)
    return ForVllm(output, block_size, changes)


def serve_command(served: Path, draft: ForVllm | None, draft_tokens: int | None = None) -> str:
    """The command line that serves a model with vLLM, with a draft or without."""
    config = read_json(served / "config.json")
    command = ["vllm", "serve", str(served)]
    if (config.get("dtype") or config.get("torch_dtype")) == "float32":
        command += ["--dtype", "float32"]  # else vLLM would round the weights
    if draft is not None:
        command += ["--speculative-config", json.dumps(draft.speculative_config(draft_tokens))]
    return shlex.join(command)


# --- what is read and asked for -----------------------------------------------------------------


def _expect_weights(checkpoint: Path) -> None:
    if not list(checkpoint.glob(WEIGHTS)):
        raise UserError(f"{checkpoint} has no weights in safetensors format; save it so.")


def _expect_served(target: Path) -> None:
    config = read_json(target / "config.json")
    if has_narrow_heads(config):
        raise UserError(
            f"{target} has heads of {head_width(config)}, and vLLM has none under {NARROWEST} on a "
            f"CPU; run `mars export --for vllm {target}`, and give the folder that it writes as "
            "--target."
        )


def _generation(checkpoint: Path) -> dict[str, Any]:
    """What the checkpoint says of how it is decoded."""
    file = checkpoint / "generation_config.json"
    return read_json(file) if file.is_file() else {}


def _expect_same_tokens(checkpoint: Path, target: Path) -> None:
    """A token that both know has the same id in both; either may have more."""
    ours, theirs = (load_tokenizer(one).get_vocab() for one in (checkpoint, target))
    other = [token for token, number in theirs.items() if ours.get(token, number) != number]
    if other or not ours.keys() & theirs.keys():
        example = f", of {other[0]!r} for one" if other else ""
        raise UserError(
            f"{checkpoint} and {target} have different tokenizers (other ids{example}); a draft "
            "needs its target's."
        )


def _of_rows(rows: int, wanted: int, mask: int) -> list[str]:
    if rows == wanted:
        return []
    if mask >= wanted:
        raise UserError(
            f"the mask token is {mask}, and the target has {wanted} rows of embeddings only: this "
            "checkpoint cannot draft for it."
        )
    if rows < wanted:
        return [
            f"{wanted - rows} rows of embeddings were added to its {rows}, for the target has "
            f"{wanted}: each is the mean of all rows, so that its logit is the mean of all logits "
            "and never the largest."
        ]
    return [
        f"{rows - wanted} of its {rows} rows of embeddings were left out, for tokens that the "
        f"target, with {wanted}, does not have."
    ]


# --- the weights --------------------------------------------------------------------------------


def _write_weights(checkpoint: Path, output: Path, config: dict[str, Any], rows: int) -> None:
    """The files of weights, changed where something in them is; their index, if there is one."""
    places: dict[str, str] = {}
    size = 0
    for file in sorted(checkpoint.glob(WEIGHTS)):
        tensors = load_file(file)
        tensors = {name: _with_rows(name, one, rows) for name, one in tensors.items()}
        if has_narrow_heads(config):
            tensors = widened(tensors, config)
        save_file(tensors, output / file.name, {"format": "pt"})
        places |= dict.fromkeys(tensors, file.name)
        size += sum(one.nbytes for one in tensors.values())
    if (checkpoint / INDEX).is_file():
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
        write_json(output / INDEX, index)


def _with_rows(name: str, tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """A tensor that has a row for each token, with so many: padded with their mean, or cut."""
    if not name.endswith(ROWS) or len(tensor) == rows:
        return tensor
    if len(tensor) > rows:
        return tensor[:rows].clone()
    mean = tensor.mean(dim=0, keepdim=True, dtype=torch.float32).to(tensor.dtype)
    return torch.cat([tensor, mean.expand(rows - len(tensor), -1)])
