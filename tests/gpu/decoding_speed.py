"""How fast the paper's shapes decode, beside ``generate`` of transformers.

Weights are random, so that no confidence means anything: tau is 1, and a forward of MARS costs what
it costs while it yields one token, as AR decoding does. A model that accepts two of them decodes
twice as fast. Times are those of decoding, prompts left out. The share of the memory's bandwidth
counts what every forward must read: the weights once, and the keys and values of all sequences.
Steps are CUDA graphs of the plain transformer, as in evaluations; compiling it is tried by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from time import perf_counter

import torch
from transformers import PreTrainedModel

from mars.decoding.cache import kv_bytes
from mars.decoding.methods import engines
from mars.decoding.requests import Request, Times
from mars.decoding.transformers_generate import decode_transformers
from mars.training.cost import Decoder
from tests.gpu.device import describe
from tests.gpu.models import MASK, random_weights, shape_of
from tests.gpu.part import Part

PROMPT, NEW = 128, 128  # tokens
BATCHES = (1, 4, 16, 64)
BLOCK = 4
Seconds = tuple[float, int, int]  # of decoding, tokens that came of it, forwards
Way = Callable[[PreTrainedModel, int], Seconds]


def run(part: Part, shape: str, static: bool = False) -> None:
    """Every method at every batch size, in turn; ``static``: `generate` with a static cache."""
    decoder = shape_of(shape)
    model = random_weights(decoder, torch.bfloat16 if part.on_gpu else torch.float32, part.device)
    ways: dict[str, Way] = {  # by their names in mars.decoding.methods.TIMED
        "autoregressive": partial(by_engine, method="autoregressive", block_size=1),
        "cursor": partial(by_engine, method="cursor", block_size=BLOCK),
        "hf": partial(by_generate, part=part, static=False),
        "block_cache": partial(by_engine, method="block_cache", block_size=BLOCK),
    }
    if static:
        ways = {"hf-static": partial(by_generate, part=part, static=True)}
    takes = 0.0 if not part.on_gpu else 30.0 if static else 12.0
    for batch in BATCHES if part.on_gpu else BATCHES[:2]:
        for name, way in ways.items():
            measured = partial(measure, part, shape, decoder, model, name, batch, way)
            part.check(f"{name}, batch {batch}", measured, takes=takes)


def run_compiled(part: Part, shape: str) -> None:
    """How long compiling takes, and what it gains."""
    model = random_weights(shape_of(shape), torch.bfloat16, part.device)
    part.check("cursor, batch 16", partial(compiling, model))


def compiling(model: PreTrainedModel) -> str:
    """Both ways to decode the same, in milliseconds per forward, and seconds to compile."""
    plain, _, forwards = by_engine(model, 16, method="cursor", block_size=BLOCK)
    begun = perf_counter()
    by_engine(model, 1, method="cursor", block_size=BLOCK, compiled=True)
    compiled, _, _ = by_engine(model, 16, method="cursor", block_size=BLOCK, compiled=True)
    return (
        f"{1e3 * compiled / forwards:.2f} ms per forward compiled, {1e3 * plain / forwards:.2f} "
        f"plain; compiling and trying took {perf_counter() - begun:.0f} s"
    )


def measure(
    part: Part,
    shape: str,
    decoder: Decoder,
    model: PreTrainedModel,
    name: str,
    batch: int,
    way: Way,
) -> str:
    """Emit one row of the result."""
    seconds, tokens, forwards = way(model, batch)
    assert seconds > 0, "one token took as long as all: too short to be timed"
    bandwidth = describe(part.device)["memory_bandwidth"]
    read = forwards * bytes_read(decoder, model, batch)
    share = read / seconds / bandwidth if bandwidth else None
    row = {"shape": shape, "method": name, "batch": batch}
    row |= {"tokens_per_second": tokens / seconds, "bandwidth_share": share}
    part.emit("decoding", row)
    told = f"{tokens / seconds:,.0f} tokens/s, {1e3 * seconds / forwards:.2f} ms per forward"
    return told if share is None else f"{told}, {share:.0%} of the bandwidth"


def bytes_read(decoder: Decoder, model: PreTrainedModel, batch: int) -> float:
    """By one forward: all weights but an embedding that is only looked up, and the caches."""
    looked_up = 0 if decoder.tied else decoder.embedding
    parameters = decoder.parameters - looked_up
    length = PROMPT + NEW // 2
    return parameters * model.dtype.itemsize + kv_bytes(model.config, batch, length, model.dtype)


def requests(batch: int, new: int) -> list[Request]:
    draw = Random(batch)
    prompts = [[draw.randrange(2, 500) for _ in range(PROMPT)] for _ in range(batch)]
    return [Request(prompt, 1.0, new) for prompt in prompts]


def by_engine(
    model: PreTrainedModel, batch: int, *, method: str, block_size: int, compiled: bool = False
) -> Seconds:
    """The faster of two passes after two, in which it compiles and captures."""
    engine = engines()[method](
        model,
        mask_token_id=MASK,
        eos=frozenset(),
        slots=batch,
        max_length=PROMPT + NEW,
        block_size=block_size,
        compiled=compiled,
    )
    found = []
    for _ in range(4):
        engine.times = Times()
        done = engine.answer(requests(batch, NEW))
        tokens = sum(
            len(one.tokens) - one.accepted[0] for one in done
        )  # with the prompt: not timed
        found.append((engine.times.decode_seconds, tokens, engine.times.decode_steps))
    return min(found[2:])


def by_generate(model: PreTrainedModel, batch: int, *, part: Part, static: bool) -> Seconds:
    """``generate`` of all tokens less ``generate`` of one."""
    if static:
        part.gpu_only("a static cache, which is compiled")
    length = PROMPT if static else 0

    def seconds(new: int) -> float:
        part.wait()
        start = perf_counter()
        decode_transformers(model, requests(batch, new), eos=frozenset(), static_length=length)
        part.wait()
        return perf_counter() - start

    for new in (NEW, NEW, 1) if static else (NEW // 8, 1):
        seconds(new)
    return seconds(NEW) - seconds(1), batch * (NEW - 1), NEW - 1
