"""One measurement from a checkpoint, or from random weights, to its tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mars.checkpoints.load import block_size_of, eos_token_ids, load_model, plain_greedy
from mars.data.tokenizer import load_tokenizer
from mars.decoding.requests import check_model, eos_set
from mars.errors import UserError
from mars.provenance.files import canonical_json, sha256_text, write_json
from mars.speed.circumstances import weights_of
from mars.speed.methods import Workload
from mars.speed.profile import PARTS, profile_steps
from mars.speed.prompts import BUILT_IN, load_prompts
from mars.speed.simulated import random_model, random_prompts
from mars.speed.summary import write_summary
from mars.speed.timing import conditions, measure


@dataclass(frozen=True)
class Subject:
    """What is measured: a workload, the name it goes by, and what identifies it."""

    workload: Workload
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
    """A checkpoint with its own EOS and block size; its generation config is pinned (A1).

    Raises:
        UserError: no checkpoint or no prompts there, or a plain model asked to decode blocks.
    """
    tokenizer = load_tokenizer(checkpoint)
    model = load_model(checkpoint, getattr(torch, precision))
    ids = by_length(load_prompts(prompts, tokenizer, prompt_count))
    return loaded_subject(checkpoint, model, tokenizer, ids, max_new_tokens, block_size)


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
    workload = Workload(model, prompts, block_size, max_new_tokens, eos, tokenizer.mask_token_id)
    model.generation_config = plain_greedy(model.generation_config)
    precision = str(model.dtype).removeprefix("torch.")
    return Subject(
        workload, checkpoint.name, {"weights": weights_of(checkpoint), "precision": precision}
    )


def random_subject(
    shape: str,
    *,
    prompt_count: int,
    max_new_tokens: int,
    simulated_acceptance: float | None,
    block_size: int,
    precision: str,
) -> Subject:
    """Random weights and random prompts; every continuation has ``max_new_tokens`` tokens.

    Raises:
        UserError: unknown shape.
    """
    model = random_model(shape, getattr(torch, precision))
    vocabulary = model.config.vocab_size
    workload = Workload(
        model,
        by_length(random_prompts(vocabulary, prompt_count)),
        block_size,
        max_new_tokens,
        frozenset(),
        vocabulary - 1,
        simulated_acceptance,
    )
    label = f"{shape}, {precision}, random weights"
    if simulated_acceptance is not None:
        label += f", simulated acceptance of {simulated_acceptance} tokens per forward"
    return Subject(workload, label, {"random_weights": shape, "precision": precision})


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
    circumstances: dict[str, Any],
    profile: bool = False,
) -> None:
    """Measure what is missing and write the summary; see :func:`mars.speed.timing.measure`.

    Args:
        spec: what the numbers depend on beside the subject (code, versions).
        circumstances: as of :func:`mars.speed.circumstances.circumstances`.
        profile: also write ``profile.json``, the shares of a step per batch size.
    """
    workload = subject.workload
    batches, taus = list(batches), list(taus)
    wanted = conditions(methods, batches, taus, cache_blocks)
    if workload.block_size == 1 and any(one.tau is not None for one in wanted):
        raise UserError(
            "This checkpoint was not trained for blocks, so it has no tau: give a MARS checkpoint, "
            "or --block-size, or only the methods hf and autoregressive."
        )
    measure(
        workload,
        wanted,
        repeats=repeats,
        output=output,
        spec=subject_spec(subject, repeats) | spec,
        circumstances={"label": subject.label, **circumstances},
    )
    if profile:
        rows = [profile_steps(_some(workload, batch), batch, taus[0]) for batch in batches]
        write_json(output / "profile.json", {"parts": PARTS, "batches": rows})
    write_summary(output)


def subject_spec(subject: Subject, repeats: int) -> dict[str, Any]:
    """What its numbers depend on, apart from the condition, the code and the versions."""
    workload = subject.workload
    return {
        **subject.identity,
        "prompts": sha256_text(canonical_json(workload.prompts)),
        "block_size": workload.block_size,
        "max_new_tokens": workload.max_new_tokens,
        "eos": sorted(workload.eos),
        "simulated_acceptance": workload.simulated_acceptance,
        "repeats": repeats,
        "threads": torch.get_num_threads(),
    }


def _some(workload: Workload, batch: int) -> Workload:
    """Enough prompts to see a batch's steps."""
    return replace(workload, prompts=workload.prompts[: 2 * batch])
