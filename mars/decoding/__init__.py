"""Decoding: one call for every method of the paper and of this project.

``decode`` is the whole interface of most callers; :class:`mars.decoding.cursor.Engine` is for
those who submit requests while others run or change tau on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mars.decoding.methods import BATCHES, ENGINES, method_named
from mars.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mars.decoding.cursor import Engine
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
    from mars.decoding.batch import longest
    from mars.decoding.requests import check_model, check_vocabulary, eos_set

    chosen = method_named(method, options)
    requests = _requests(prompts, threshold, max_new_tokens, stop, chosen.tau)
    check_model(model, block_size if chosen.has_tau else 1, mask_token_id)
    for request in requests:
        request.check(options.get("metric", "probability"))
        check_vocabulary(model, request.prompt)
    options |= chosen.arguments(block_size, eos_set(eos_token_id), mask_token_id)
    if method in BATCHES:
        decoder = partial(BATCHES[method](), model, **options)
        return _run_batched(decoder, requests, slots, progress)
    if not requests:
        return []
    room: dict[str, Any] = {"slots": min(slots, len(requests)), "max_length": longest(requests)}
    engine = ENGINES[method]()(model, **room, **options)
    return _run_sorted(engine, requests, progress)


def _requests(
    prompts: Sequence[Sequence[int]],
    threshold: float | Sequence[float | None] | None,
    max_new_tokens: int | Sequence[int],
    stop: Stop | Sequence[Stop | None] | None,
    tau: Callable[[float | None], float | None],
) -> list[Request]:
    from mars.decoding.requests import Request

    columns: list[list[Any]] = []
    given = {"threshold": threshold, "max_new_tokens": max_new_tokens, "stop": stop}
    for name, value in given.items():
        column = list(value) if isinstance(value, Sequence) else [value] * len(prompts)
        if len(column) != len(prompts):
            raise UserError(f"Give one {name} or one per prompt: {len(column)} for {len(prompts)}.")
        columns.append(column)
    rows = zip(prompts, *columns, strict=True)
    return [Request(prompt, tau(one), budget, end) for prompt, one, budget, end in rows]


def _longest_first(requests: list[Request]) -> list[int]:
    """Places of the requests in which prompts of like length are decoded together."""
    return sorted(range(len(requests)), key=lambda index: -len(requests[index].prompt))


def _run_batched(
    decoder: Callable[[list[Request]], list[Decoded]],
    requests: list[Request],
    slots: int,
    progress: Callable[[Decoded], None] | None,
) -> list[Decoded]:
    """Batch after batch."""
    order = _longest_first(requests)
    results: dict[int, Decoded] = {}
    for start in range(0, len(order), slots):
        chosen = order[start : start + slots]
        for index, decoded in zip(chosen, decoder([requests[i] for i in chosen]), strict=True):
            results[index] = decoded
            if progress is not None:
                progress(decoded)
    return [results[index] for index in range(len(requests))]


def _run_sorted(
    engine: Engine, requests: list[Request], progress: Callable[[Decoded], None] | None
) -> list[Decoded]:
    """All of them in the queue of one engine."""
    identities = {index: engine.submit(requests[index]) for index in _longest_first(requests)}
    results = engine.run(progress)
    return [results[identities[index]] for index in range(len(requests))]
