"""Acceptance by a pattern: the mean asked for, at every block size, and nothing else changed."""

from dataclasses import replace

import pytest
import torch

from mars.errors import UserError
from mars.speed.methods import Condition, runner
from mars.speed.simulated import acceptance_pattern, random_model, random_prompts


@pytest.mark.parametrize(("mean", "block_size"), [(1.79, 4), (1.0, 4), (4.0, 4), (5.5, 16)])
def test_the_pattern_has_its_mean_and_stays_in_the_block(mean, block_size):
    pattern = acceptance_pattern(mean, block_size, (20, 5000))
    assert pattern.double().mean().item() == pytest.approx(mean, rel=0.01)
    assert 1 <= pattern.min() <= pattern.max() <= block_size
    assert torch.equal(pattern, acceptance_pattern(mean, block_size, (20, 5000)))


@pytest.mark.parametrize("mean", [0.5, 4.5])
def test_an_impossible_mean_is_refused(mean):
    with pytest.raises(UserError, match="from 1 to 4"):
        acceptance_pattern(mean, 4, (2,))


def test_decoding_accepts_as_it_is_told(workload):
    free = replace(workload, simulated_acceptance=1.79, eos=frozenset(), max_new_tokens=200)
    run = runner(free, Condition("cursor", 2, 0.95))()
    assert [len(tokens) for tokens in run.tokens] == [200] * 5
    assert run.count / run.forwards == pytest.approx(1.79, rel=0.08)
    for batch in (1, 3):
        assert runner(free, Condition("cursor", batch, 0.95))().done == run.done
    short = replace(free, max_new_tokens=50)
    alone = runner(short, Condition("autoregressive", 2))().done
    assert [one.forwards for one in alone] == [50] * 5


def test_one_token_per_forward_is_greedy_decoding(workload):
    one = replace(workload, simulated_acceptance=1.0)
    plain = runner(workload, Condition("autoregressive", 2))()
    assert runner(one, Condition("cursor", 2, 0.0))().tokens == plain.tokens


def test_random_weights_are_the_same_every_time():
    first, second = (random_model("tiny", torch.bfloat16) for _ in range(2))
    assert first.dtype == torch.bfloat16
    states = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in states)
    prompts = random_prompts(768, 3)
    assert prompts == random_prompts(768, 3)
    assert all(64 <= len(prompt) <= 192 and max(prompt) < 767 for prompt in prompts)
    with pytest.raises(UserError, match=r"qwen2\.5-7b"):
        random_model("huge", torch.float32)
