"""The compiled transformer: the same tokens, few compilations, and no harm where it fails."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from mars.decoding.cursor import Engine
from mars.decoding.gpu import CompiledBackbone
from mars.decoding.requests import Decoded, Request
from tests.support.decoding_models import EOS, MASK, prompts, random_model

SHAPES = [(4, 5, 200), (4, 2, 120), (1, 3, 96), (4, 1, 96), (8, 8, 300)]


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch.compiler.reset()
    counters.clear()


def decoded(backend: str | None, block_size: int, slots: int, max_length: int) -> list[Decoded]:
    model = random_model("qwen2", layers=1)  # the compiler treats a second one as the first
    engine = Engine(
        model,
        block_size=block_size,
        mask_token_id=MASK,
        eos=frozenset(EOS),
        slots=slots,
        max_length=max_length,
    )
    if backend is not None:
        engine.cached.backbone = CompiledBackbone(model.get_decoder(), backend)
        # A GPU's windows are not packed.
        engine.cached._packing = lambda widths, window: None  # type: ignore[method-assign]
    for index, prompt in enumerate(prompts(9, seed=7)):
        engine.submit(Request(prompt, (0.0, 0.6, None)[index % 3], 20))
    return [result for _, result in sorted(engine.run().items())]


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_lengths_batch_sizes_and_engines_share_compilations(backend: str) -> None:
    for shape in SHAPES:
        assert decoded(backend, *shape) == decoded(None, *shape)
    # One row, one slot, one token: each is a kind of its own, so at most 2 ** 3.
    assert 1 < counters["stats"]["unique_graphs"] <= 8


def test_decoding_goes_on_where_compiling_fails() -> None:
    torch._dynamo.register_backend(fails, name="fails")
    with pytest.warns(UserWarning, match="torch.compile failed, decoding goes on without"):
        without = decoded("fails", *SHAPES[0])
    assert without == decoded(None, *SHAPES[0])


def fails(graph: object, inputs: object) -> None:
    raise OSError("no compiler here")
