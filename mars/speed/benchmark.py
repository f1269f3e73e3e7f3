"""One measurement from a checkpoint, or from random weights, to its tables."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mars.checkpoints.base import plain_greedy
from mars.checkpoints.load import block_size_of, eos_token_ids, load_model
from mars.data.tokenizer import load_tokenizer
from mars.decoding.requests import check_model, eos_set
from mars.errors import UserError
from mars.provenance.files import canonical_json, sha256_file, sha256_text, write_json
from mars.speed.methods import Workload
from mars.speed.prescribed import random_model, random_prompts
from mars.speed.profile import PARTS, profile_steps
from mars.speed.prompts import BUILT_IN, load_prompts
from mars.speed.summary import write_summary
from mars.speed.timing import cells, measure


@dataclass(frozen=True)
class Subject:
    """What is measured: a workload, the name it goes by, and what identifies it."""

    work: Workload
    label: str
    identity: dict[str, Any]


def checkpoint_subject(
    checkpoint: Path,
    *,
    prompts: str = BUILT_IN,
    prompt_count: int,
    max_new_tokens: int,
    block_size: int | None = None,
    precision: str = "float32",
) -> Subject:
    """A checkpoint with its own EOS and block size; its generation config is pinned (AUDIT A1).

    Raises:
        UserError: no checkpoint or no prompts there, or a plain model asked to decode blocks.
    """
    tokenizer = load_tokenizer(checkpoint)
    model = load_model(checkpoint, getattr(torch, precision))
    asked = by_length(load_prompts(prompts, tokenizer, prompt_count))
    return loaded_subject(checkpoint, model, tokenizer, asked, max_new_tokens, block_size)


def loaded_subject(
    checkpoint: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    max_new_tokens: int,
    block_size: int | None = None,
) -> Subject:
    """The same of a checkpoint that is loaded, with prompts as token ids in the order given."""
    block_size = block_size or block_size_of(model)
    check_model(model, block_size, tokenizer.mask_token_id)
    eos = eos_set(eos_token_ids(model, tokenizer))
    work = Workload(model, prompts, block_size, max_new_tokens, eos, tokenizer.mask_token_id)
    model.generation_config = plain_greedy(model.generation_config)
    weights = {path.name: sha256_file(path) for path in sorted(checkpoint.glob("*.safetensors"))}
    precision = str(model.dtype).removeprefix("torch.")
    return Subject(work, checkpoint.name, {"weights": weights, "precision": precision})


def random_subject(
    shape: str,
    *,
    prompt_count: int,
    max_new_tokens: int,
    prescribed: float | None,
    block_size: int,
    precision: str,
) -> Subject:
    """Random weights and random prompts; every continuation has ``max_new_tokens`` tokens.

    Raises:
        UserError: unknown shape.
    """
    model = random_model(shape, getattr(torch, precision))
    vocabulary = model.config.vocab_size
    work = Workload(
        model,
        by_length(random_prompts(vocabulary, prompt_count)),
        block_size,
        max_new_tokens,
        frozenset(),
        vocabulary - 1,
        prescribed,
    )
    label = f"{shape}, {precision}, random weights"
    if prescribed is not None:
        label += f", prescribed acceptance of {prescribed} tokens per forward"
    return Subject(work, label, {"random_weights": shape, "precision": precision})


def by_length(prompts: list[list[int]]) -> list[list[int]]:
    """Longest first, as the engine's own ``decode`` has them: static batches of like length."""
    return sorted(prompts, key=len, reverse=True)


def benchmark(
    subject: Subject,
    *,
    methods: Iterable[str],
    batches: Iterable[int],
    taus: Iterable[float | None],
    cache_blocks: Iterable[int],
    repeats: int,
    output: Path,
    spec: dict[str, Any],
    about: dict[str, Any],
    profile: bool = False,
) -> None:
    """Measure what is missing and write the summary; see :func:`mars.speed.timing.measure`.

    Args:
        spec: what the numbers depend on beside the subject (code, versions).
        about: facts for every record, among them ``hardware``, ``versions`` and ``command``.
        profile: also write ``profile.json``, the shares of a step per batch size.
    """
    work = subject.work
    batches, taus = list(batches), list(taus)
    wanted = cells(methods, batches, taus, cache_blocks)
    if work.block_size == 1 and any(cell.tau is not None for cell in wanted):
        raise UserError(
            "This checkpoint was not trained for blocks, so it has no tau: give a MARS checkpoint, "
            "or --block-size, or only the methods hf and autoregressive."
        )
    measure(
        work,
        wanted,
        repeats=repeats,
        output=output,
        spec=subject_spec(subject, repeats) | spec,
        about={"label": subject.label, **about, "gpu_driver": gpu_driver()},
    )
    if profile:
        rows = [profile_steps(_some(work, batch), batch, taus[0]) for batch in batches]
        write_json(output / "profile.json", {"parts": PARTS, "batches": rows})
    write_summary(output)


def subject_spec(subject: Subject, repeats: int) -> dict[str, Any]:
    """What the numbers of a subject depend on, apart from the cell, the code and the versions."""
    work = subject.work
    return {
        **subject.identity,
        "prompts": sha256_text(canonical_json(work.prompts)),
        "block_size": work.block_size,
        "max_new_tokens": work.max_new_tokens,
        "eos": sorted(work.eos),
        "prescribed": work.prescribed,
        "repeats": repeats,
        "threads": torch.get_num_threads(),
    }


def gpu_driver() -> str | None:
    """Version of the GPU's driver and of CUDA; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return f"unknown, CUDA {torch.version.cuda}"
    return f"{answer.splitlines()[0].strip()}, CUDA {torch.version.cuda}"


def _some(work: Workload, batch: int) -> Workload:
    """Enough prompts to see a batch's steps."""
    return replace(work, prompts=work.prompts[: 2 * batch])
