"""The paper's block cache: same tokens as the un-cached window, whatever the granularity."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars.decoding import decode
from mars.errors import UserError
from tests.support.decoding_models import EOS, MASK, VOCABULARY, random_model

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


def test_a_cache_block_below_one_is_refused():
    arguments = RULE | {"block_size": 4, "threshold": 0.5, "max_new_tokens": 4}
    with pytest.raises(UserError, match="cache_block"):
        decode(random_model("qwen2"), [[1]], **arguments, method="block_cache", cache_block=0)
