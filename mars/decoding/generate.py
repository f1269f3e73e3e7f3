"""Decoding for people: a stream for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mars.checkpoints.load import block_size_of, eos_token_ids, load_model
from mars.data.tokenizer import load_tokenizer
from mars.decoding.methods import STREAMING_METHODS, method_named, streaming_engines
from mars.decoding.requests import Request, eos_set
from mars.errors import UserError

SHADES = ("\x1b[48;5;153m\x1b[38;5;16m", "\x1b[48;5;223m\x1b[38;5;16m")
PLAIN = "\x1b[0m"


def generate_text(
    checkpoint: str | Path,
    prompt: str,
    *,
    block_size: int | None = None,
    threshold: float | None = 0.95,
    max_new_tokens: int = 256,
    method: str = "cursor",
    shaded: bool = True,
) -> Iterator[str]:
    """Pieces of text to print as they come, the last one a line with tokens per forward.

    Args:
        checkpoint: folder of any checkpoint; one without a mask token decodes token by token.
        prompt: the user's message; put through the chat template if the tokenizer has one.
        block_size: B; default what the checkpoint was trained for.
        threshold: tau; None for one-token mode.
        method: of :data:`mars.decoding.methods.STREAMING_METHODS`.
        shaded: colour tokens accepted in the same forward alike (paper Figure 1).

    Raises:
        UserError: no checkpoint there, or a setting that cannot be served.
    """
    tokenizer = load_tokenizer(checkpoint)
    model = load_model(checkpoint)
    gains = stream(
        model,
        prompt_ids(tokenizer, prompt),
        block_size=block_size_of(model) if block_size is None else block_size,
        threshold=threshold,
        max_new_tokens=max_new_tokens,
        eos_token_id=eos_token_ids(model, tokenizer),
        mask_token_id=tokenizer.mask_token_id,
        method=method,
        compiled=False,  # one answer is over sooner
    )
    tokens = forwards = 0
    for forwards, (piece, gained) in enumerate(text_of(gains, tokenizer), 1):
        tokens += gained
        yield f"{SHADES[forwards % 2]}{piece}{PLAIN}" if shaded and piece else piece
    yield f"\n{tokens} tokens in {forwards} forwards: {tokens / forwards:.2f} per forward\n"


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Token ids of a user's message, ready for the assistant's answer."""
    if not tokenizer.chat_template:
        return tokenizer(prompt)["input_ids"]
    return chat_ids(tokenizer, [{"role": "user", "content": prompt}])


def chat_ids(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> list[int]:
    """Token ids of a conversation, ready for the assistant's answer."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def stream(
    model: PreTrainedModel,
    prompt: list[int],
    *,
    block_size: int,
    threshold: float | None,
    max_new_tokens: int,
    eos_token_id: int | Iterable[int] | None,
    mask_token_id: int | None,
    method: str = "cursor",
    **options: Any,
) -> Iterator[list[int]]:
    """The tokens gained by each forward, as they come; ``options`` are the engine's."""
    chosen = method_named(method, options)
    if method not in STREAMING_METHODS:
        known = ", ".join(STREAMING_METHODS)
        raise UserError(f"The method {method!r} cannot stream: choose one of {known}.")
    options |= chosen.arguments(block_size, eos_set(eos_token_id), mask_token_id)
    length = len(prompt) + max_new_tokens
    engine = streaming_engines()[method](model, slots=1, max_length=length, **options)
    engine.submit(Request(prompt, chosen.tau(threshold), max_new_tokens))
    while engine.queue or engine.active:
        yield from engine.step().values()


def text_of(
    gains: Iterable[list[int]], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[str, int]]:
    """(new text, number of tokens) per forward; half a character waits for its other half."""
    tokens: list[int] = []
    shown = ""
    for gained in gains:
        tokens += gained
        text = str(tokenizer.decode(tokens, skip_special_tokens=True))
        complete = text.rstrip("\N{REPLACEMENT CHARACTER}")
        piece = complete[len(shown) :] if complete.startswith(shown) else ""
        shown += piece
        yield piece, len(gained)
