"""The key-value cache goes with its decoder, and can be shared."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from mars.decoding.block_cache import BlockCacheDecoder
from mars.decoding.cache import CachedModel
from mars.decoding.cursor import Engine
from mars.decoding.jacobi import JacobiEngine
from mars.decoding.requests import Request
from tests.support.decoding_models import EOS, MASK, prompts, random_model

DECODERS: list[Any] = [Engine, JacobiEngine, BlockCacheDecoder]
RULE: dict[str, Any] = {"block_size": 4, "mask_token_id": MASK, "eos": frozenset(EOS)}


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("kind", DECODERS)
def test_the_cache_goes_with_its_decoder(kind: Any, no_collection: None) -> None:
    """At once, and not when garbage is collected: the memory is needed for the next one."""
    decoder = kind(random_model("qwen2"), slots=3, max_length=100, **RULE)
    decoder.answer([Request(prompt, 0.3, 10) for prompt in prompts(5)])
    layer = decoder.cached.cache.own_layers[0]
    buffers = weakref.ref(layer.keys), weakref.ref(layer.flat[1])
    del layer, decoder
    assert [buffer() for buffer in buffers] == [None, None]


def test_decoders_that_share_a_cache_decode_the_same() -> None:
    model = random_model("llama")
    requests = [Request(prompt, 0.3, 20) for prompt in prompts(5)]
    cached = CachedModel(model, 3, 160, MASK)
    shared = [kind(model, slots=3, max_length=100, cached=cached, **RULE) for kind in DECODERS]
    alone = [kind(model, slots=3, max_length=100, **RULE).answer(requests) for kind in DECODERS]
    for _ in range(2):
        assert [decoder.answer(requests) for decoder in shared] == alone
