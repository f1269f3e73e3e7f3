"""The un-cached window for a batch is the un-cached window, row by row."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars.decoding.requests import Request
from mars.decoding.window import decode_one, decode_window_batch
from mars.errors import UserError
from tests.support.decoding_models import EOS, MASK, VOCABULARY, random_model

PROMPTS = st.lists(
    st.lists(st.integers(0, VOCABULARY - 2), min_size=1, max_size=40), min_size=1, max_size=5
)


@settings(max_examples=25)
@given(st.data())
def test_a_batch_is_its_rows_one_by_one(data):
    model = random_model(data.draw(st.sampled_from(("qwen2", "llama"))))
    requests = [
        Request(
            prompt,
            data.draw(st.sampled_from((None, 0, 0.2, 0.6, 0.95))),
            data.draw(st.integers(1, 24)),
        )
        for prompt in data.draw(PROMPTS)
    ]
    rule = {
        "block_size": data.draw(st.integers(1, 8)),
        "eos": frozenset(EOS),
        "mask_token_id": MASK,
        "metric": data.draw(st.sampled_from(("probability", "margin"))),
        "strict": data.draw(st.booleans()),
    }
    together = decode_window_batch(model, requests, **rule)
    assert together == [decode_one(model, request, **rule) for request in requests]


def test_what_cannot_be_decoded_is_refused():
    rule = {"block_size": 4, "eos": frozenset(EOS)}
    with pytest.raises(UserError, match="no mask token"):
        decode_window_batch(random_model("qwen2"), [Request([1])], mask_token_id=None, **rule)
    with pytest.raises(UserError, match="empty"):
        decode_window_batch(random_model("qwen2"), [Request([])], mask_token_id=MASK, **rule)
