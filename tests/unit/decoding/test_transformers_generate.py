"""The transformers baseline: greedy decoding, with and without the penalty that AR rows inherit."""

from __future__ import annotations

import pytest
import torch

from mars.decoding import decode
from mars.errors import UserError
from tests.support.decoding_models import EOS, MASK, prompts, random_model

PROMPTS = prompts(6, seed=3, longest=12)


def answers(architecture: str, method: str, **options):
    model = random_model(architecture)
    return decode(
        model,
        PROMPTS,
        block_size=1,
        threshold=None,
        max_new_tokens=24,
        eos_token_id=EOS,
        mask_token_id=MASK,
        method=method,
        slots=4,
        **options,
    )


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_without_a_penalty_it_is_the_engine_at_one_token(architecture: str):
    theirs = answers(architecture, "transformers")
    ours = answers(architecture, "autoregressive")
    assert [one.tokens for one in theirs] == [one.tokens for one in ours]
    assert [one.forwards for one in theirs] == [one.forwards for one in ours]
    assert [one.finish for one in theirs] == [one.finish for one in ours]


@torch.inference_mode()
def penalised(model, prompt: list[int], penalty: float, budget: int) -> list[int]:
    """Greedy decoding in which the logits of seen tokens are weakened, from the definition."""
    ids = list(prompt)
    while len(ids) < len(prompt) + budget:
        logits = model(torch.tensor([ids])).logits[0, -1].float()
        for token in set(ids):
            logits[token] = (
                logits[token] * penalty if logits[token] < 0 else logits[token] / penalty
            )
        logits[MASK] = -torch.inf
        ids.append(int(logits.argmax()))
        if ids[-1] in EOS:
            break
    return ids[len(prompt) :]


def test_the_penalty_is_the_definition_whatever_the_batch():
    done = answers("qwen2", "transformers", repetition_penalty=1.3)
    model = random_model("qwen2")
    expected = [penalised(model, prompt, 1.3, 24) for prompt in PROMPTS]
    assert [one.tokens for one in done] == expected
    assert expected != [one.tokens for one in answers("qwen2", "transformers")]


def test_no_other_method_takes_a_penalty():
    with pytest.raises(UserError, match="repetition_penalty"):
        answers("qwen2", "autoregressive", repetition_penalty=1.1)
