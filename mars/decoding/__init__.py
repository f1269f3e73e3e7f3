"""Decoding: one call for every method of the paper and of this project.

Most callers need only ``decode``; with :class:`mars.decoding.cursor.Engine` you can also submit
requests while others run, and change tau on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from mars.decoding.methods import batch_decoders, engines, method_named
from mars.errors import UserError

Answer = TypeVar("Answer")

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mars.decoding.requests import Decoded, Request, Stop


def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    block_size: int,
    threshold: float | Sequence[float | None] | None,
    max_new_tokens: int | Sequence[int],
    eos_token_id: int | Iterable[int] | None,
    mask_token_id: int | None,
    method: str = "cursor",
    slots: int = 16,
    stop: Stop | Sequence[Stop | None] | None = None,
    progress: Callable[[Decoded], None] | None = None,
    **options: Any,
) -> list[Decoded]:
    """Continue every prompt greedily, in the order given.

    Args:
        model: a causal LM in eval mode.
        prompts: token ids, each at least one.
        block_size: B, tokens predicted per forward.
        threshold: tau, for all or per prompt; None is one-token mode (plain greedy decoding).
        max_new_tokens: budget, for all or per prompt.
        eos_token_id: id or ids that end a sequence.
        mask_token_id: id of [MASK]; None is allowed for one token per forward.
        method: of :data:`mars.decoding.methods.METHODS`.
        slots: sequences decoded together.
        stop: sees the tokens so far and ends a request early, for all or per prompt.
        progress: called with each sequence as it ends, in any order.
        options: of the method, as its own module describes them.

    Raises:
        UserError: a request or setting that cannot be served; nothing has been decoded then.
    """
    from mars.decoding.requests import Request, check_model, eos_set, longest

    chosen = method_named(method, options)
    given = {"threshold": threshold, "max_new_tokens": max_new_tokens, "stop": stop}
    columns = [_one_per_prompt(name, value, len(prompts)) for name, value in given.items()]
    requests = [
        Request(prompt, chosen.tau(tau), budget, end)
        for prompt, tau, budget, end in zip(prompts, *columns, strict=True)
    ]
    check_model(model, block_size if chosen.has_tau else 1, mask_token_id)
    for request in requests:
        request.check(model, options.get("metric", "probability"))
    if not requests:
        return []
    options |= chosen.arguments(block_size, eos_set(eos_token_id), mask_token_id)
    order = longest_first(prompts)
    queue = [requests[index] for index in order]
    if method in batch_decoders():
        decoder = partial(batch_decoders()[method], model, **options)
        done = _batch_after_batch(decoder, queue, slots, progress)
    else:
        room: dict[str, Any] = {"slots": min(slots, len(queue)), "max_length": longest(queue)}
        done = engines()[method](model, **room, **options).answer(queue, progress)
    return in_order(done, order)


def _one_per_prompt(name: str, value: Any, prompts: int) -> list[Any]:
    values = list(value) if isinstance(value, Sequence) else [value] * prompts
    if len(values) != prompts:
        raise UserError(f"Give one {name} or one per prompt: {len(values)} for {prompts}.")
    return values


def _batch_after_batch(
    decoder: Callable[[list[Request]], list[Decoded]],
    requests: list[Request],
    size: int,
    progress: Callable[[Decoded], None] | None,
) -> list[Decoded]:
    done: list[Decoded] = []
    for start in range(0, len(requests), size):
        batch = decoder(requests[start : start + size])
        if progress is not None:
            for decoded in batch:
                progress(decoded)
        done += batch
    return done


def longest_first(prompts: Sequence[Sequence[int]]) -> list[int]:
    """The order in which prompts are decoded: those of like length together."""
    return sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))


def in_order(answers: Sequence[Answer], order: Sequence[int]) -> list[Answer]:
    """Undo :func:`longest_first`: the answer to prompt ``order[k]`` is ``answers[k]``."""
    found = dict(zip(order, answers, strict=True))
    return [found[index] for index in range(len(order))]
