"""Speculative decoding with mask groups, against definitions that use one forward per question."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mars.decoding import decode
from mars.decoding.acceptance import accepted_run, confidence, cutoff, forbid
from mars.decoding.requests import Request
from mars.decoding.speculative import decode_speculative, group_bias
from mars.errors import UserError
from tests.support.decoding_models import EOS, MASK, VOCABULARY, random_model

RULE = {"eos": frozenset(EOS), "mask_token_id": MASK}


def logits(model, ids):
    with torch.no_grad():
        return forbid(model(torch.tensor([ids])).logits[0], MASK)


def plain_round(target, known, drafted, block_size, threshold):
    """Verification and continuation with a forward for each: drafted tokens right, own tokens."""
    predicted = logits(target, known + drafted)[len(known) - 1 :].argmax(-1).tolist()
    agreed = 0
    while agreed < len(drafted) and drafted[agreed] == predicted[agreed]:
        agreed += 1
    prefix = known + drafted[:agreed]
    window = logits(target, prefix + [MASK] * (block_size - 1))[len(prefix) - 1 :]
    needed = torch.tensor(cutoff(threshold, "probability"))
    run = int(accepted_run(confidence(window, "probability"), needed))
    return drafted[:agreed] + window.argmax(-1)[:run].tolist()


def plain_speculative(target, draft, request, draft_tokens, block_size, draft_rule):
    known, accepted = list(request.prompt), []
    while True:
        drafted = decode(
            draft,
            [known],
            **draft_rule,
            max_new_tokens=draft_tokens,
            eos_token_id=None,
            mask_token_id=MASK,
            method="window",
        )[0].tokens
        new = plain_round(target, known, drafted, block_size, request.threshold)
        new = new[: len(request.prompt) + request.max_new_tokens - len(known)]
        ends = [index for index, token in enumerate(new) if token in EOS]
        new = new[: ends[0] + 1] if ends else new
        known += new
        accepted.append(len(new))
        if ends or len(known) == len(request.prompt) + request.max_new_tokens:
            return known[len(request.prompt) :], accepted


@settings(max_examples=30)
@given(st.data())
def test_one_forward_does_what_separate_forwards_do(data):
    architecture = data.draw(st.sampled_from(("qwen2", "llama")))
    target = random_model(architecture)
    draft = random_model(architecture, data.draw(st.sampled_from((0, 1))))
    prompt = data.draw(st.lists(st.integers(0, VOCABULARY - 2), min_size=1, max_size=30))
    threshold = data.draw(st.sampled_from((None, 0, 0.2, 0.6)))
    request = Request(prompt, threshold, data.draw(st.integers(1, 20)))
    draft_tokens = data.draw(st.integers(1, 5))
    block_size = data.draw(st.integers(2, 5))
    draft_rule = {
        "block_size": data.draw(st.integers(1, 4)),
        "threshold": data.draw(st.sampled_from((None, 0.3))),
    }
    done = decode_speculative(
        target,
        draft,
        request,
        draft_tokens=draft_tokens,
        block_size=block_size,
        draft_block_size=draft_rule["block_size"],
        draft_threshold=draft_rule["threshold"],
        **RULE,
    )
    expected = plain_speculative(target, draft, request, draft_tokens, block_size, draft_rule)
    assert (done.tokens, done.accepted) == expected


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("prompt", [[1], [2, 30, 4] * 7])
def test_without_masks_it_is_the_targets_greedy_decoding(prompt, seed):
    target, draft = random_model("qwen2"), random_model("qwen2", seed)
    greedy = decode(
        target,
        [prompt],
        block_size=1,
        threshold=None,
        max_new_tokens=30,
        eos_token_id=EOS,
        mask_token_id=MASK,
        method="autoregressive",
    )[0]
    done = decode_speculative(target, draft, Request(prompt, None, 30), block_size=4, **RULE)
    assert done.tokens == greedy.tokens
    assert done.draft_forwards == 4 * done.forwards
    if seed == 0:  # the target drafts for itself: every draft is right
        assert done.accepted[:-1] == [5] * (done.forwards - 1)


def test_mask_groups_see_the_text_before_them_and_themselves():
    """Two cached entries, two text tokens of which one is drafted, two groups of two masks."""
    expected = ["111.....", "1111....", "111.1...", "111.11..", "1111..1.", "1111..11"]
    visible = group_bias(cursor=2, text=2, groups=2, masks=2)[0, 0] == 0
    assert ["".join(".1"[cell] for cell in row) for row in visible.tolist()] == expected


def test_bad_settings_are_refused():
    model = random_model("qwen2")
    with pytest.raises(UserError, match="draft_tokens"):
        decode_speculative(model, model, Request([1]), draft_tokens=0, block_size=2, **RULE)
    with pytest.raises(UserError, match="no mask token"):
        decode_speculative(
            model, model, Request([1]), block_size=2, eos=frozenset(), mask_token_id=None
        )
