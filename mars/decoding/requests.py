"""What every decoder takes and gives: a checked request, and the decoded tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedModel

from mars.decoding.acceptance import cutoff
from mars.errors import UserError

Stop = Callable[[list[int]], bool]  # sees the tokens so far; true ends the request early


@dataclass(frozen=True)
class Request:
    """One prompt and how to continue it."""

    prompt: Sequence[int]  # token ids, at least one
    threshold: float | None = None  # tau of the acceptance metric; None is one-token mode
    max_new_tokens: int = 256
    stop: Stop | None = None  # to save work; the tokens that made it true are kept

    def check(self, model: PreTrainedModel, metric: str) -> None:
        """Raise a UserError for a request no decoder can serve."""
        if len(self.prompt) == 0:
            raise UserError("The prompt is empty: give at least one token.")
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}.")
        cutoff(self.threshold, metric)
        vocabulary = model.config.vocab_size
        if not 0 <= min(self.prompt) <= max(self.prompt) < vocabulary:
            raise UserError(f"The prompt holds a token id outside the vocabulary ({vocabulary}).")


@dataclass(frozen=True)
class Decoded:
    """The continuation of one prompt.

    ``overrun`` counts tokens that the last forward accepted beyond EOS or the budget. They are not
    in ``tokens``; the authors' code writes and counts them (docs/differences.md, A2).
    """

    tokens: list[int]  # up to and including the first EOS
    forwards: int  # of the model that this sequence took part in, the prompt's included
    accepted: list[int]  # tokens gained in each forward; sums to len(tokens) (paper Figure 1)
    finish: str  # eos, length (the budget) or stop
    overrun: int = 0
    draft_forwards: int = 0  # of the draft model, in speculative decoding


@dataclass
class Continuation:
    """The continuation of one prompt while it grows, forward by forward."""

    request: Request
    tokens: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    finish: str | None = None
    overrun: int = 0

    def gain(self, new: list[int], eos: frozenset[int]) -> list[int]:
        """Add a forward's tokens up to the first EOS and the budget; returns those that count."""
        gained = new[: self.request.max_new_tokens - len(self.tokens)]
        end = next((place for place, token in enumerate(gained, 1) if token in eos), None)
        gained = gained[:end]
        self.tokens += gained
        self.accepted.append(len(gained))
        self.overrun = len(new) - len(gained)
        if end is not None:
            self.finish = "eos"
        elif len(self.tokens) == self.request.max_new_tokens:
            self.finish = "length"
        elif gained and self.request.stop is not None and self.request.stop(self.tokens):
            self.finish = "stop"
        return gained

    def decoded(self, draft_forwards: int = 0) -> Decoded:
        """The result, once the sequence has ended."""
        assert self.finish is not None
        forwards = len(self.accepted)
        return Decoded(
            self.tokens, forwards, self.accepted, self.finish, self.overrun, draft_forwards
        )


@dataclass
class Times:
    """Wall-clock seconds of a decoder so far, and its decoding steps (each for all sequences)."""

    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    decode_steps: int = 0


def eos_set(eos_token_id: int | Iterable[int] | None) -> frozenset[int]:
    """Every id that ends a sequence."""
    if eos_token_id is None:
        return frozenset()
    return frozenset([eos_token_id] if isinstance(eos_token_id, int) else eos_token_id)


def check_model(model: PreTrainedModel, block_size: int, mask_token_id: int | None) -> None:
    """Raise a UserError if ``model`` cannot decode blocks of ``block_size`` with this mask."""
    if block_size < 1:
        raise UserError(f"block_size must be at least 1, not {block_size}.")
    vocabulary = model.config.vocab_size
    if mask_token_id is None:
        if block_size > 1:
            raise UserError(
                "This checkpoint has no mask token: decode it one token at a time "
                "(method 'autoregressive') or use a checkpoint trained with MARS."
            )
    elif not 0 <= mask_token_id < vocabulary:
        raise UserError(
            f"The mask token id {mask_token_id} is outside the vocabulary ({vocabulary})."
        )


def longest(requests: Iterable[Request]) -> int:
    """The most tokens that any of these sequences can have, prompt included."""
    return max(len(request.prompt) + request.max_new_tokens for request in requests)
