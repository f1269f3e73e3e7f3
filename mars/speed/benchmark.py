"""One measurement from a checkpoint, or from random weights, to its tables."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mars.checkpoints.load import block_size_of, eos_token_ids, load_model, plain_greedy
from mars.data.minibench.miniature import generator
from mars.data.minibench.word_problems import WordProblems
from mars.data.tokenizer import load_tokenizer
from mars.decoding.generate import prompt_ids
from mars.decoding.requests import check_model, eos_set
from mars.errors import UserError
from mars.provenance.files import write_json
from mars.speed.methods import Workload
from mars.speed.profile import PARTS, profile_steps
from mars.speed.simulated import random_model, random_prompts
from mars.speed.summary import write_summary
from mars.speed.timing import conditions, measure, weights_of

BUILT_IN = "built-in"


def checkpoint_workload(
    checkpoint: Path,
    *,
    prompts: str = BUILT_IN,
    prompt_count: int,
    max_new_tokens: int,
    block_size: int | None = None,
    precision: str = "float32",
) -> Workload:
    """A checkpoint with its own EOS and block size; its generation config is pinned (A1).

    Raises:
        UserError: no checkpoint or no prompts there, or a plain model asked to decode blocks.
    """
    tokenizer = load_tokenizer(checkpoint)
    model = load_model(checkpoint, getattr(torch, precision))
    ids = load_prompts(prompts, tokenizer, prompt_count)
    return loaded_workload(checkpoint, model, tokenizer, ids, max_new_tokens, block_size)


def loaded_workload(
    checkpoint: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    max_new_tokens: int,
    block_size: int | None = None,
) -> Workload:
    """The same for a checkpoint that is already loaded, with prompts as token ids."""
    block_size = block_size or block_size_of(model)
    check_model(model, block_size, tokenizer.mask_token_id)
    eos = eos_set(eos_token_ids(model, tokenizer))
    model.generation_config = plain_greedy(model.generation_config)
    precision = str(model.dtype).removeprefix("torch.")
    return Workload(
        model,
        prompts,
        block_size,
        max_new_tokens,
        eos,
        tokenizer.mask_token_id,
        label=checkpoint.name,
        identity={"weights": weights_of(checkpoint), "precision": precision},
    )


def random_workload(
    shape: str,
    *,
    prompt_count: int,
    max_new_tokens: int,
    simulated_acceptance: float | None,
    block_size: int,
    precision: str,
) -> Workload:
    """Random weights and random prompts; every continuation has ``max_new_tokens`` tokens.

    Raises:
        UserError: unknown shape.
    """
    model = random_model(shape, getattr(torch, precision))
    vocabulary = model.config.vocab_size
    label = f"{shape}, {precision}, random weights"
    if simulated_acceptance is not None:
        label += f", simulated acceptance of {simulated_acceptance} tokens per forward"
    return Workload(
        model,
        random_prompts(vocabulary, prompt_count),
        block_size,
        max_new_tokens,
        frozenset(),
        vocabulary - 1,
        simulated_acceptance,
        label=label,
        identity={"random_weights": shape, "precision": precision},
    )


def load_prompts(source: str, tokenizer: PreTrainedTokenizerBase, count: int) -> list[list[int]]:
    """At most ``count`` prompts as token ids, in chat format where the tokenizer has one.

    Args:
        source: ``built-in``, the project's word problems (the miniature of GSM8K, on which the
            paper measures speed), or a file with one JSON object per line that has "prompt",
            what the user says, or "input_ids".

    Raises:
        UserError: no such file, or a line that is neither.
    """
    if source == BUILT_IN:
        rng = generator(0, "speed")
        problems = (WordProblems().example(rng, "main") for _ in range(count))
        return [prompt_ids(tokenizer, problem.messages[-2]["content"]) for problem in problems]
    path = Path(source)
    if not path.is_file():
        raise UserError(f"--prompts names the file {source}, which does not exist.")
    lines = [line for line in path.read_text().splitlines() if line.strip()][:count]
    if not lines:
        raise UserError(f"{source} holds no prompts.")
    return [_prompt(line, f"{source}, line {n}", tokenizer) for n, line in enumerate(lines, 1)]


def _prompt(line: str, where: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        row = None
    match row:
        case {"input_ids": list(ids)}:
            return ids
        case {"prompt": str(prompt)}:
            return prompt_ids(tokenizer, prompt)
    raise UserError(f'{where}: give a JSON object with "prompt" (text) or "input_ids".')


def benchmark(
    workload: Workload,
    *,
    methods: Iterable[str],
    batches: list[int],
    taus: list[float | None],
    cache_blocks: Iterable[int],
    repeats: int,
    output: Path,
    spec: dict[str, Any],
    circumstances: dict[str, Any],
    profile: bool = False,
) -> None:
    """Measure what is missing and write the summary; see :func:`mars.speed.timing.measure`.

    Args:
        profile: also write ``profile.json``, the shares of a step per batch size.
    """
    wanted = conditions(methods, batches, taus, cache_blocks)
    if workload.block_size == 1 and any(one.tau is not None for one in wanted):
        raise UserError(
            "This checkpoint was not trained for blocks, so it has no tau: give a MARS checkpoint, "
            "or --block-size, or only the methods hf and autoregressive."
        )
    measure(
        workload, wanted, repeats=repeats, output=output, spec=spec, circumstances=circumstances
    )
    if profile:
        longest = sorted(workload.prompts, key=len, reverse=True)
        some = [replace(workload, prompts=longest[: 2 * batch]) for batch in batches]
        rows = [profile_steps(*one, taus[0]) for one in zip(some, batches, strict=True)]
        write_json(output / "profile.json", {"parts": PARTS, "batches": rows})
    write_summary(output)
