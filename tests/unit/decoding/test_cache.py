"""The key-value cache goes with its decoder, and can be shared."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mars.decoding.block_cache import BlockCacheDecoder
from mars.decoding.cache import CachedModel, check_fits, kv_bytes
from mars.decoding.cursor import Engine
from mars.decoding.jacobi import JacobiEngine
from mars.decoding.requests import Request
from mars.errors import UserError
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


def test_memory_that_torch_keeps_for_itself_is_there_for_a_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What an earlier cache has freed, the driver does not see as free."""
    model = random_model("qwen2")
    on_gpu: Any = SimpleNamespace(
        config=model.config, dtype=model.dtype, device=torch.device("cuda")
    )
    needed = kv_bytes(model.config, 2, 64, model.dtype)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: needed)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10)
    check_fits(on_gpu, 2, 64, None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 11)
    with pytest.raises(UserError, match="use fewer slots"):
        check_fits(on_gpu, 2, 64, None)


def test_decoders_that_share_a_cache_decode_the_same() -> None:
    model = random_model("llama")
    requests = [Request(prompt, 0.3, 20) for prompt in prompts(5)]
    cached = CachedModel(model, 3, 160, MASK)
    shared = [kind(model, slots=3, max_length=100, cached=cached, **RULE) for kind in DECODERS]
    alone = [kind(model, slots=3, max_length=100, **RULE).answer(requests) for kind in DECODERS]
    for _ in range(2):
        assert [decoder.answer(requests) for decoder in shared] == alone
