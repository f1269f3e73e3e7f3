"""Every way to decode, on fake tensors of a GPU: nothing waits where it is not meant to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from mars.checkpoints.custom_generate.generate import generate
from mars.decoding import decode
from mars.decoding.cursor import Engine
from mars.decoding.generate import stream
from mars.decoding.methods import METHODS
from mars.decoding.requests import Request
from mars.decoding.speculative import decode_speculative
from mars.decoding.window import decode_window_batch
from tests.cuda_trace import reads
from tests.cuda_trace.fake_gpu import DEVICE, FakeGpu, Read
from tests.cuda_trace.models import EOS, MASK, qwen

EOS_SET = frozenset([EOS])
LAYERS = 2  # all layers are alike
PROMPTS = [[Random(index).randrange(10, 1000) for _ in range(5 + 4 * index)] for index in range(6)]
BUDGETS = [8, 20, 3, 30, 12, 1]


def requests(taus: Sequence[float | None] = (0.9,)) -> list[Request]:
    """More of them than slots, with budgets that differ, so that slots are refilled and moved."""
    return [
        Request(prompt, taus[index % len(taus)], budget)
        for index, (prompt, budget) in enumerate(zip(PROMPTS, BUDGETS, strict=True))
    ]


def traced(expected: Sequence[Read], decoder: Callable[[PreTrainedModel], Any]) -> FakeGpu:
    """What a decoder did; every intended read must have happened."""
    gpu = FakeGpu(expected)
    with gpu():
        decoder(qwen(layers=LAYERS))
    assert {read.source for read in expected} == {read.source for read in gpu.used}
    return gpu


def whole(done: Sequence[Any]) -> None:
    assert [len(one.tokens) for one in done] == BUDGETS


def engine(model: PreTrainedModel, **options: Any) -> Engine:
    rule = {"mask_token_id": MASK, "eos": EOS_SET, "slots": 4, "max_length": 300}
    return Engine(model, **{**rule, "block_size": 4, **options})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lossless": True},
        {"extra_mask": True},
        {"lossless": True, "extra_mask": True, "strict": True},
        {"metric": "entropy"},
        {"metric": "margin"},
    ],
    ids=str,
)
def test_cursor(options: dict[str, Any]) -> None:
    def decoder(model: PreTrainedModel) -> None:
        whole(engine(model, **options).answer(requests((0.9, None, 0.5))))

    gpu = traced(reads.ENGINE, decoder)
    assert gpu.captures > 1
    assert gpu.replays > 1


def test_autoregressive() -> None:
    def decoder(model: PreTrainedModel) -> None:
        whole(engine(model, block_size=1, mask_token_id=None).answer(requests((None,))))

    assert traced(reads.ENGINE, decoder).replays > 1


def test_a_long_prompt_enters_in_pieces_and_tau_changes_on_the_way() -> None:
    def decoder(model: PreTrainedModel) -> None:
        running = engine(model, slots=2, max_length=5200)
        running.submit(Request([11] * 5000, 0.9, 100))
        for step in range(6):
            running.step()
            running.set_threshold((0.5, None)[step % 2])

    traced(reads.ENGINE, decoder)


def test_all_layers() -> None:
    """Once with the 24 layers that a Qwen2.5-0.5B has."""
    gpu = FakeGpu(reads.ENGINE)
    with gpu():
        whole(engine(qwen()).answer(requests()))
    assert gpu.captures
    assert gpu.replays


METHOD_READS = {
    "jacobi": reads.ENGINE,
    "cursor": reads.ENGINE,
    "autoregressive": reads.ENGINE,
    "block_cache": reads.BLOCK_CACHE,
    "block_diffusion": reads.BLOCK_DIFFUSION,
    "window": reads.WINDOW[:2],
    "transformers": reads.TRANSFORMERS,
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_as_decode_calls_it(method: str) -> None:
    def decoder(model: PreTrainedModel) -> None:
        done = decode(
            model,
            PROMPTS,
            block_size=4,
            threshold=0.9,
            max_new_tokens=BUDGETS,
            eos_token_id=EOS,
            mask_token_id=MASK,
            method=method,
            slots=4,
        )
        whole(done)

    traced(METHOD_READS[method], decoder)


@pytest.mark.parametrize("options", [{"authors_window": True}, {"strict": True}], ids=str)
def test_block_cache(options: dict[str, Any]) -> None:
    def decoder(model: PreTrainedModel) -> None:
        rule = {"block_size": 4, "threshold": 0.9, "eos_token_id": EOS, "mask_token_id": MASK}
        rule |= {"max_new_tokens": BUDGETS, "method": "block_cache", "cache_block": 8}
        whole(decode(model, PROMPTS, **rule, **options))

    traced(reads.BLOCK_CACHE, decoder)


def test_speculative() -> None:
    def decoder(model: PreTrainedModel) -> None:
        for tau in (0.9, None):
            decode_speculative(
                model,
                model,
                Request(PROMPTS[0], tau, 20),
                block_size=4,
                draft_block_size=4,
                draft_threshold=tau,
                eos=EOS_SET,
                mask_token_id=MASK,
            )

    traced(reads.SPECULATIVE, decoder)


def test_window_batch() -> None:
    def decoder(model: PreTrainedModel) -> None:
        rule = {"block_size": 4, "eos": EOS_SET, "mask_token_id": MASK}
        whole(decode_window_batch(model, requests(), **rule))

    traced(reads.WINDOW[2:], decoder)


def test_lossless_window() -> None:
    def decoder(model: PreTrainedModel) -> None:
        rule = {"block_size": 4, "threshold": 0.5, "eos_token_id": EOS, "mask_token_id": MASK}
        decode(model, PROMPTS, method="window", max_new_tokens=9, lossless=True, **rule)

    traced(reads.WINDOW[:2], decoder)


def test_generate_of_a_checkpoint() -> None:
    def decoder(model: PreTrainedModel) -> None:
        ids = torch.full((2, 9), 11, device=DEVICE)
        model.generation_config.mars_mask_token_id = MASK
        rule = {"block_size": 4, "threshold": 0.9, "eos_token_id": EOS, "pad_token_id": 0}
        assert generate(ids, model=model, max_new_tokens=8, **rule).shape == (2, 17)

    traced(reads.GENERATE, decoder)


def test_stream() -> None:
    def decoder(model: PreTrainedModel) -> None:
        rule = {"block_size": 4, "threshold": 0.9, "eos_token_id": EOS, "mask_token_id": MASK}
        gains = stream(model, PROMPTS[0], max_new_tokens=20, **rule)
        assert sum(map(len, gains)) == 20

    traced(reads.ENGINE, decoder)
