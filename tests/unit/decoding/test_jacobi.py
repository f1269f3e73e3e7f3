"""Jacobi decoding is greedy decoding; its forwards are those of the plain iteration."""

import pytest
import torch

from mars.decoding import decode
from mars.decoding.acceptance import forbid
from mars.decoding.jacobi import GUESS_SEED
from tests.support.decoding_models import EOS, MASK, VOCABULARY, prompts, random_model


def plain_jacobi(model, prompt, block_size, budget, capacity):
    """The iteration without cache or batch: guesses by position, kept from forward to forward."""
    random = torch.Generator().manual_seed(GUESS_SEED)
    text = torch.randint(VOCABULARY, (capacity,), generator=random).tolist()
    text[: len(prompt)] = prompt
    known, accepted = len(prompt), []
    while True:
        with torch.no_grad():
            logits = model(torch.tensor([text[: known + block_size - 1]])).logits[0, known - 1 :]
        predicted = forbid(logits, MASK).argmax(-1).tolist()
        run = 1
        while run < block_size and text[known + run - 1] == predicted[run - 1]:
            run += 1
        text[known : known + block_size] = predicted
        new = predicted[:run][: len(prompt) + budget - known]
        ends = [index for index, token in enumerate(new) if token in EOS]
        new = new[: ends[0] + 1] if ends else new
        accepted.append(len(new))
        known += len(new)
        if ends or known == len(prompt) + budget:
            return text[len(prompt) : known], accepted


@pytest.mark.parametrize("block_size", [1, 2, 4, 9, 31])  # 31: all that may remain (C5)
@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_jacobi_is_greedy_and_counts_like_the_plain_iteration(architecture, block_size):
    model, some = random_model(architecture), prompts(7)
    arguments = {
        "block_size": block_size,
        "max_new_tokens": 30,
        "eos_token_id": EOS,
        "mask_token_id": MASK,
        "threshold": None,
    }
    done = decode(model, some, method="jacobi", **arguments, slots=3)
    greedy = decode(model, some, method="autoregressive", **arguments)
    assert [one.tokens for one in done] == [one.tokens for one in greedy]
    for one, prompt in zip(done, some, strict=True):
        assert (one.tokens, one.accepted) == plain_jacobi(model, prompt, block_size, 30, 128)
    if block_size > 1:
        assert sum(one.forwards for one in done) < sum(one.forwards for one in greedy)


def test_jacobi_needs_no_mask_token():
    done = decode(
        random_model("qwen2"),
        [[1, 2, 3]],
        block_size=4,
        threshold=None,
        max_new_tokens=5,
        eos_token_id=None,
        mask_token_id=None,
        method="jacobi",
    )
    assert len(done[0].tokens) == 5
