"""Block-diffusion decoding against its plain form: no cache, every step from scratch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import Qwen2ForCausalLM

from mars.decoding import decode
from mars.errors import UserError
from tests.support.little_models import little_config

MASK, EOS = 1, 0


@pytest.fixture(scope="module")
def model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = little_config(vocab_size=40, initializer_range=0.3)
    return Qwen2ForCausalLM(config).eval()


@torch.no_grad()
def plain(
    model: Qwen2ForCausalLM,
    prompt: list[int],
    block_size: int,
    threshold: float | None,
    budget: int,
    right_shift: bool,
) -> tuple[list[int], int]:
    """Fill block after block of an array that is long enough; count the forwards until the end.

    Shifted, token t has the logits of position t-1, which for a block's first token is the last
    one of the finished text.
    """
    length = -(-(len(prompt) + budget) // block_size) * block_size
    ids = np.array(prompt + [MASK] * (length - len(prompt)))
    block_of = torch.arange(length) // block_size
    forwards = 0
    for block in range(len(prompt) // block_size, length // block_size):
        end = (block + 1) * block_size
        while MASK in ids[len(prompt) : end]:
            text = ids[len(prompt) :].tolist()
            if EOS in text and MASK not in text[: text.index(EOS)]:
                break
            if MASK not in text[:budget]:
                break
            visible = (block_of[:end, None] >= block_of[:end])[None, None]
            logits = model(torch.tensor(ids[None, :end]), attention_mask=visible).logits[0]
            forwards += 1
            logits = torch.cat([logits[:1], logits[:-1]]) if right_shift else logits
            logits[:, MASK] = -torch.inf
            confidence, best = logits.softmax(-1).max(-1)
            masked = [i for i in range(len(prompt), end) if ids[i] == MASK]
            chosen = [i for i in masked if threshold is not None and confidence[i] >= threshold]
            for i in chosen or [max(masked, key=lambda i: confidence[i])]:
                ids[i] = best[i]
    text = ids[len(prompt) :][:budget].tolist()
    return text[: text.index(EOS) + 1] if EOS in text else text, forwards


@pytest.mark.parametrize("right_shift", [True, False])
@pytest.mark.parametrize("threshold", [None, 0.9, 0.3, 0.0])
@pytest.mark.parametrize("block_size", [1, 3, 4, 8])
def test_equals_plain_decoding(
    model: Qwen2ForCausalLM, block_size: int, threshold: float | None, right_shift: bool
) -> None:
    generator = np.random.default_rng(0)
    prompts = [generator.integers(2, 40, length).tolist() for length in (1, 4, 5, 7, 8, 13)]
    decoded = decode(
        model,
        prompts,
        block_size=block_size,
        threshold=threshold,
        max_new_tokens=22,
        eos_token_id=EOS,
        mask_token_id=MASK,
        method="block_diffusion",
        right_shift=right_shift,
    )
    for prompt, ours in zip(prompts, decoded, strict=True):
        expected = plain(model, prompt, block_size, threshold, 22, right_shift)
        assert (ours.tokens, ours.forwards) == expected
        assert sum(ours.accepted) == len(ours.tokens)
        assert MASK not in ours.tokens
        assert (ours.finish == "eos") == (ours.tokens[-1] == EOS)


def test_shifted_blocks_of_one_token_are_greedy_ar_decoding(model: Qwen2ForCausalLM) -> None:
    """With B = 1 nothing is masked between the text and the token to come."""
    prompts = [[5, 6, 7], [9], [3, 8, 30, 31, 2]]
    rule = {"threshold": None, "max_new_tokens": 12, "eos_token_id": EOS, "mask_token_id": MASK}
    shifted = decode(model, prompts, block_size=1, method="block_diffusion", **rule)
    greedy = decode(model, prompts, block_size=1, method="autoregressive", **rule)
    assert [one.tokens for one in shifted] == [one.tokens for one in greedy]


def test_threshold_zero_fills_a_block_in_one_forward(model: Qwen2ForCausalLM) -> None:
    (decoded,) = decode(
        model,
        [[5, 6, 7, 8]],
        block_size=4,
        threshold=0.0,
        max_new_tokens=16,
        eos_token_id=None,
        mask_token_id=MASK,
        method="block_diffusion",
    )
    assert decoded.accepted == [4, 4, 4, 4]


def test_empty_prompt_is_refused(model: Qwen2ForCausalLM) -> None:
    with pytest.raises(UserError):
        decode(
            model,
            [[]],
            block_size=4,
            threshold=None,
            max_new_tokens=4,
            eos_token_id=None,
            mask_token_id=MASK,
            method="block_diffusion",
        )
