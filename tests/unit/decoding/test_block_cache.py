"""The paper's block cache: same tokens as the un-cached window, whatever the granularity."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mars.decoding import decode
from mars.decoding.block_cache import BlockCacheDecoder
from mars.decoding.requests import Request
from mars.errors import UserError
from tests.support.decoding_models import EOS, MASK, VOCABULARY, random_model
from tests.support.fixed_steps import Eagerly

PROMPTS = st.lists(
    st.lists(st.integers(0, VOCABULARY - 2), min_size=1, max_size=40), min_size=1, max_size=5
)
RULE = {"eos_token_id": EOS, "mask_token_id": MASK}


@settings(max_examples=25)
@given(st.data())
def test_granularity_never_changes_the_tokens(data):
    model = random_model(data.draw(st.sampled_from(("qwen2", "llama"))))
    prompts = data.draw(PROMPTS)
    arguments = RULE | {
        "prompts": prompts,
        "block_size": data.draw(st.integers(2, 8)),
        "threshold": data.draw(st.sampled_from((None, 0, 0.2, 0.6, 0.95))),
        "max_new_tokens": [data.draw(st.integers(1, 24)) for _ in prompts],
        "metric": data.draw(st.sampled_from(("probability", "margin"))),
        "strict": data.draw(st.booleans()),
    }
    cached = decode(
        model,
        **arguments,
        method="block_cache",
        cache_block=data.draw(st.integers(1, 12)),
        slots=data.draw(st.integers(1, 5)),
    )
    plain = decode(model, **arguments, method="window")
    assert [one.tokens for one in cached] == [one.tokens for one in plain]
    for one, other in zip(cached, plain, strict=True):
        assert [gain for gain in one.accepted if gain] == other.accepted
        assert one.finish == other.finish


@pytest.mark.parametrize("cache_block", [1, 4, 8, 32])
def test_forwards_are_prompt_steps_and_block_ends(cache_block):
    """One-token mode, no EOS: a forward for the prompt, one per token, one per completed block."""
    done = decode(
        random_model("qwen2"),
        [[1, 2], [3]],
        block_size=4,
        threshold=None,
        max_new_tokens=[10, 17],
        eos_token_id=None,
        mask_token_id=MASK,
        method="block_cache",
        cache_block=cache_block,
    )
    for one, budget in zip(done, (10, 17), strict=True):
        assert one.forwards == 1 + budget + (budget - 1) // cache_block


def test_the_authors_window_is_cut_at_the_block_end():
    """tau = 0 accepts everything: the rest of the block, 8 tokens at once, though B is 4."""
    arguments = RULE | {
        "prompts": [[1, 2, 3]],
        "block_size": 4,
        "threshold": 0,
        "max_new_tokens": 24,
        "eos_token_id": None,
        "method": "block_cache",
        "cache_block": 8,
    }
    model = random_model("qwen2")
    ours, theirs = (decode(model, **arguments, authors_window=value)[0] for value in (False, True))
    assert [gain for gain in theirs.accepted if gain] == [8, 8, 8]
    assert [gain for gain in ours.accepted if gain] == [4] * 6


def test_the_authors_window_equals_the_window_of_one_block():
    """Within the first cache block, and there only, their rule is a window of that size."""
    arguments = RULE | {"prompts": [[7, 8], [9] * 20], "threshold": 0.2, "max_new_tokens": 8}
    model = random_model("llama")
    theirs = decode(
        model,
        **arguments,
        block_size=4,
        method="block_cache",
        cache_block=8,
        authors_window=True,
    )
    plain = decode(model, **arguments, block_size=8, method="window")
    assert [one.tokens for one in theirs] == [one.tokens for one in plain]


@settings(max_examples=10)
@given(st.data())
def test_forwards_of_fixed_shape_decode_the_same_and_never_wait(data):
    """As with CUDA graphs: batch after batch, each forward one computation on the device."""
    model, some = random_model("qwen2"), data.draw(PROMPTS)
    rule = {
        "block_size": data.draw(st.integers(2, 6)),
        "cache_block": data.draw(st.integers(1, 12)),
        "metric": data.draw(st.sampled_from(("probability", "margin"))),
        "strict": data.draw(st.booleans()),
        "authors_window": data.draw(st.booleans()),
        "mask_token_id": MASK,
    }
    tau, slots = data.draw(st.sampled_from((None, 0, 0.2, 0.6))), data.draw(st.integers(1, 3))
    requests = [Request(prompt, tau, data.draw(st.integers(1, 24))) for prompt in some]
    decoders = [
        BlockCacheDecoder(model, slots=slots, max_length=70, eos=frozenset(EOS), **rule)
        for _ in range(2)
    ]
    decoders[0].graphs = graphs = Eagerly()
    assert decoders[0].answer(requests) == decoders[1].answer(requests)
    widths = {rule["cache_block"], rule["cache_block"] + rule["block_size"] - 1}
    assert {shape.width for shape in graphs.keys} <= widths


def test_the_host_reads_once_per_step(monkeypatch):
    read, calls = torch.Tensor.tolist, []
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: (calls.append(1), read(self))[1])
    decoder = BlockCacheDecoder(
        random_model("qwen2"),
        block_size=4,
        cache_block=8,
        slots=3,
        max_length=40,
        eos=frozenset(),
        mask_token_id=MASK,
    )
    decoder.graphs = Eagerly()
    decoder.answer(Request([1, 2, 3, number], 0.6, 30) for number in range(3))
    blocks = sum(shape.extends for shape in decoder.graphs.keys)
    assert blocks
    assert 0 < len(calls) < decoder.times.decode_steps


def test_requests_that_the_cache_cannot_hold_are_refused():
    decoder = BlockCacheDecoder(
        random_model("qwen2"),
        block_size=4,
        slots=1,
        max_length=20,
        eos=frozenset(),
        mask_token_id=MASK,
    )
    with pytest.raises(UserError, match="larger max_length"):
        decoder.answer([Request([1] * 10, 0.5, 500)])


def test_a_cache_block_below_one_is_refused():
    arguments = RULE | {"block_size": 4, "threshold": 0.5, "max_new_tokens": 4}
    with pytest.raises(UserError, match="cache_block"):
        decode(random_model("qwen2"), [[1]], **arguments, method="block_cache", cache_block=0)
