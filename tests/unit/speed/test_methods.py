"""Every method under the clock decodes what it says it decodes, and counts what counts."""

from dataclasses import replace

import pytest

from mars.decoding import decode
from mars.decoding.methods import TIMED
from mars.errors import UserError
from mars.speed.methods import Condition, Skip, runner

CONDITIONS = [
    Condition("hf", 2),
    Condition("autoregressive", 2),
    Condition("cursor", 2, 0.5),
    Condition("cursor-lossless", 2, 0.5),
    Condition("block_cache", 2, 0.5, 8),
    Condition("block_cache-authors", 2, 0.5, 8),
    Condition("window", 1, 0.5),
    Condition("window", 3, 0.5),
]


def expected(workload, condition):
    timed = TIMED[condition.method]
    options = {key: value for key, value in timed.options.items() if key != "mask_token_id"}
    if condition.cache_block is not None:
        options["cache_block"] = condition.cache_block
    return decode(
        workload.model,
        workload.prompts,
        block_size=workload.block_size,
        threshold=condition.tau,
        max_new_tokens=workload.max_new_tokens,
        eos_token_id=workload.eos,
        mask_token_id=workload.mask_token_id,
        method="autoregressive" if timed.method == "transformers" else timed.method,
        slots=condition.batch,
        **options,
    )


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda one: one.name)
def test_a_run_is_the_decoding_twice_over(workload, condition):
    run = runner(workload, condition)
    whole = expected(workload, condition)
    assert {one.finish for one in whole} == {"eos", "length"}
    for timed in (run(), run()):
        assert timed.tokens == [one.tokens for one in whole]
        assert [one.forwards for one in timed.done] == [one.forwards for one in whole]
        assert timed.count == sum(len(one.tokens) for one in whole)
        assert timed.seconds > timed.prefill_seconds >= 0
        assert timed.tokens_per_second == pytest.approx(timed.count / timed.seconds)


def test_tokens_of_the_prefill_are_not_credited_to_decoding(workload):
    for condition in CONDITIONS[:6]:
        timed = runner(workload, condition)()
        gained = [one.accepted[0] for one in expected(workload, condition)]
        assert timed.prefilled == sum(gained), condition
        rate = (timed.count - sum(gained)) / (timed.seconds - timed.prefill_seconds)
        assert timed.decode_tokens_per_second == pytest.approx(rate)


def test_conditions_of_a_batch_size_share_one_cache(workload):
    """A sweep over granularities would otherwise hold one for each."""
    conditions = [Condition("block_cache", 2, 0.5, block) for block in (2, 8, 16)]
    runners = [runner(workload, one) for one in (Condition("cursor", 2, 0.5), *conditions)]
    assert len(workload.caches) == 1
    for run, condition in zip(runners, (Condition("cursor", 2, 0.5), *conditions), strict=True):
        assert run().tokens == [one.tokens for one in expected(workload, condition)]
    del runners, run
    assert len(workload.caches) == 0


def test_what_cannot_be_measured_says_why(workload):
    with pytest.raises(Skip, match="GPU"):
        runner(workload, Condition("hf-static", 2))
    with pytest.raises(Skip, match="engine only"):
        runner(replace(workload, simulated_acceptance=1.5), Condition("block_cache", 2, 0.5, 8))
    with pytest.raises(UserError, match="Unknown method 'fast'"):
        runner(workload, Condition("fast", 1))
