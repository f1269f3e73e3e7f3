"""Decoding: one call for every method of the paper and of this project.

``decode`` is the whole interface of most callers; :class:`mars.decoding.cursor.Engine` is for
those who submit requests while others run or change tau on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from transformers import PreTrainedModel

from mars.decoding.block_cache import decode_block_cache
from mars.decoding.block_diffusion import decode_block_diffusion
from mars.decoding.cursor import Engine
from mars.decoding.jacobi import JacobiEngine
from mars.decoding.requests import Decoded, Request, Stop, check_model, check_vocabulary, eos_set
from mars.decoding.speculative import decode_speculative
from mars.decoding.transformers_generate import decode_transformers
from mars.decoding.window import decode_window
from mars.errors import UserError

__all__ = ["METHODS", "Decoded", "Engine", "Request", "decode", "decode_speculative"]

BATCHED: dict[str, Callable[..., list[Decoded]]] = {
    "block_cache": decode_block_cache,
    "block_diffusion": decode_block_diffusion,
    "transformers": decode_transformers,
}
METHODS = ("window", "cursor", "autoregressive", "jacobi", *BATCHED)


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
    metric: str = "probability",
    strict: bool = False,
    verify: bool = False,
    extra_mask: bool = False,
    cache_block: int = 32,
    authors_window: bool = False,
    repetition_penalty: float = 1.0,
    slots: int = 16,
    stop: Stop | Sequence[Stop | None] | None = None,
    memory_limit: int | None = None,
    compiled: bool = True,
    progress: Callable[[Decoded], None] | None = None,
) -> list[Decoded]:
    """Continue every prompt greedily, in the order given.

    Args:
        model: a causal LM in eval mode.
        prompts: token ids, each at least one.
        block_size: B, tokens predicted per forward.
        threshold: tau, for all or per prompt; None is one-token mode (plain greedy decoding).
        max_new_tokens: budget, for all or per prompt.
        eos_token_id: id or ids that end a sequence.
        mask_token_id: id of [MASK]; None is allowed for ``autoregressive``.
        method: ``cursor`` (the engine), ``window`` (no cache, one by one, the reference),
            ``autoregressive`` (the engine at B = 1), ``block_cache`` (the paper's cache),
            ``jacobi`` (the training-free baseline, ``block_size - 1`` guesses per forward),
            ``block_diffusion`` (by confidence inside a block, for models trained that way) or
            ``transformers`` (its ``generate``, greedy, one token per forward).
        metric, strict, verify, extra_mask: see :class:`mars.decoding.cursor.Engine`; the last two
            are for ``cursor`` and ``window``.
        cache_block, authors_window: see :mod:`mars.decoding.block_cache`.
        repetition_penalty: of ``transformers``; 1 is none.
        slots: sequences decoded together.
        stop: sees the tokens so far and ends a request early, for all or per prompt.
        memory_limit: most bytes for the key-value cache.
        compiled: whether the engine compiles the transformer on a GPU, as the other cached methods
            always do; it takes about a minute per process.
        progress: called with each sequence as it ends, in any order.

    Raises:
        UserError: a request or setting that cannot be served; nothing has been decoded then.
    """
    if method not in METHODS:
        raise UserError(f"Unknown decoding method {method!r}: choose one of {', '.join(METHODS)}.")
    if method not in ("cursor", "window") and (verify or extra_mask):
        raise UserError(f"verify and extra_mask are not options of the method {method!r}.")
    if method != "transformers" and repetition_penalty != 1:
        raise UserError("repetition_penalty is an option of the method 'transformers' only.")
    if method in ("autoregressive", "transformers"):
        threshold, block_size = None, 1
    elif method == "jacobi":
        threshold = 0.0  # unused by the rule, but not one-token mode
    requests = _requests(prompts, threshold, max_new_tokens, stop)
    if method == "block_diffusion" and mask_token_id is None:
        raise UserError("Block diffusion needs a mask token, which this checkpoint lacks.")
    check_model(model, 1 if method == "jacobi" else block_size, mask_token_id)
    for request in requests:
        request.check(metric)
        check_vocabulary(model, request.prompt)
    rule: dict[str, Any] = {
        "block_size": block_size,
        "eos": eos_set(eos_token_id),
        "mask_token_id": mask_token_id,
        "metric": metric,
        "strict": strict,
    }
    extensions: dict[str, Any] = {"verify": verify, "extra_mask": extra_mask}
    if method == "window":
        one_by_one = (decode_window(model, request, **rule, **extensions) for request in requests)
        return [_report(decoded, progress) for decoded in one_by_one]
    if method in BATCHED:
        options = {key: rule[key] for key in ("eos", "mask_token_id")}
        if method == "transformers":
            options |= {"repetition_penalty": repetition_penalty}
        else:
            options |= {"block_size": block_size, "memory_limit": memory_limit}
        if method == "block_cache":
            options |= {"cache_block": cache_block, "authors_window": authors_window}
            options |= {"metric": metric, "strict": strict}
        return _run_batched(partial(BATCHED[method], model, **options), requests, slots, progress)
    if not requests:
        return []
    engine = (JacobiEngine if method == "jacobi" else Engine)(
        model,
        slots=min(slots, len(requests)),
        max_length=max(len(request.prompt) + request.max_new_tokens for request in requests),
        memory_limit=memory_limit,
        compiled=compiled,
        **rule,
        **extensions,
    )
    return _run_sorted(engine, requests, progress)


def _run_batched(
    decoder: Callable[[list[Request]], list[Decoded]],
    requests: list[Request],
    slots: int,
    progress: Callable[[Decoded], None] | None,
) -> list[Decoded]:
    """Batch after batch, prompts of like length together."""
    order = sorted(range(len(requests)), key=lambda index: -len(requests[index].prompt))
    results: dict[int, Decoded] = {}
    for start in range(0, len(order), slots):
        chosen = order[start : start + slots]
        batch = decoder([requests[index] for index in chosen])
        results |= zip(chosen, (_report(decoded, progress) for decoded in batch), strict=True)
    return [results[index] for index in range(len(requests))]


def _run_sorted(
    engine: Engine, requests: list[Request], progress: Callable[[Decoded], None] | None
) -> list[Decoded]:
    """Longest work first, so that prompts of like length are prefilled together."""
    order = sorted(range(len(requests)), key=lambda index: -len(requests[index].prompt))
    identities = {index: engine.submit(requests[index]) for index in order}
    results = engine.run(progress)
    return [results[identities[index]] for index in range(len(requests))]


def _requests(
    prompts: Sequence[Sequence[int]],
    threshold: float | Sequence[float | None] | None,
    max_new_tokens: int | Sequence[int],
    stop: Stop | Sequence[Stop | None] | None,
) -> list[Request]:
    columns = []
    for name, value in (
        ("threshold", threshold),
        ("max_new_tokens", max_new_tokens),
        ("stop", stop),
    ):
        column = list(value) if isinstance(value, Sequence) else [value] * len(prompts)
        if len(column) != len(prompts):
            raise UserError(f"Give one {name} or one per prompt: {len(column)} for {len(prompts)}.")
        columns.append(column)
    return [Request(*row) for row in zip(prompts, *columns, strict=True)]


def _report(decoded: Decoded, progress: Callable[[Decoded], None] | None) -> Decoded:
    if progress is not None:
        progress(decoded)
    return decoded
