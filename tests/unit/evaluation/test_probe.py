"""The probe sees what decoding sees: each window as the plain forward pass of its own."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mars.decoding import decode
from mars.decoding.acceptance import confidence, forbid
from mars.evaluation.probe import Place, Predictions, places, predictions
from tests.support.decoding_models import EOS, MASK, VOCABULARY, random_model

TOKENS = st.integers(0, VOCABULARY - 2)


def plain(model, document, prompt_length, block_size):
    """One forward pass for each window; what there is beyond the document is left out."""
    found = {}
    for known in range(prompt_length, len(document)):
        ids = torch.tensor([[*document[:known], *[MASK] * (block_size - 1)]])
        with torch.inference_mode():
            logits = forbid(model(input_ids=ids).logits[0, known - 1 :], MASK)
        for place in range(1, min(block_size, len(document) - known) + 1):
            right = logits[place - 1].argmax().item() == document[known + place - 1]
            found[known, place] = (right, confidence(logits[place - 1], "probability").item())
    return found


@settings(max_examples=25)
@given(st.data())
def test_every_window_is_a_plain_forward_pass(data):
    model = random_model(data.draw(st.sampled_from(("qwen2", "llama"))))
    document = np.array(data.draw(st.lists(TOKENS, min_size=2, max_size=24)))
    prompt_length = data.draw(st.integers(1, len(document) - 1))
    block_size = data.draw(st.integers(1, 8))
    found = predictions(model, document, prompt_length, block_size=block_size, mask_token_id=MASK)
    expected = plain(model, document, prompt_length, block_size)
    # Place by place, in the order of the text.
    in_order = [expected[key] for key in sorted(expected, key=lambda key: (key[1], key[0]))]
    order = np.argsort(found.place, kind="stable")
    assert len(order) == len(in_order)
    assert found.right[order].tolist() == [right for right, _ in in_order]
    np.testing.assert_allclose(
        found.confidence[order], [sure for _, sure in in_order], rtol=1e-4, atol=1e-6
    )


def test_the_first_place_is_ar_decoding_and_always_right():
    model, prompt = random_model("qwen2"), [3, 1, 4]
    (answer,) = decode(
        model,
        [prompt],
        block_size=4,
        mask_token_id=MASK,
        eos_token_id=EOS,
        max_new_tokens=20,
        threshold=None,
    )
    document = np.array([*prompt, *answer.tokens])
    found = predictions(model, document, len(prompt), block_size=4, mask_token_id=MASK)
    assert found.right[found.place == 1].all()
    assert (found.place == 1).sum() == len(answer.tokens)


def test_predictions_are_put_together_by_place():
    found = Predictions(
        place=np.array([1, 1, 1, 2, 2]),
        right=np.array([True, True, True, True, False]),
        confidence=np.array([0.9, 0.6, 0.6, 0.5, 0.1]),
    )
    first, second = places(7, found)
    assert first == Place(7, 1, 3, 1.0, pytest.approx(0.7))
    assert second == Place(7, 2, 2, 0.5, pytest.approx(0.3))
