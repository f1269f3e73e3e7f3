"""Every method under the clock decodes what it says it decodes, and counts what counts."""

from dataclasses import replace

import pytest

from mars.decoding import decode
from mars.errors import UserError
from mars.speed.methods import Cell, Skip, runner

CELLS = [
    Cell("hf", 2),
    Cell("autoregressive", 2),
    Cell("cursor", 2, 0.5),
    Cell("cursor-lossless", 2, 0.5),
    Cell("block_cache", 2, 0.5, 8),
    Cell("block_cache-authors", 2, 0.5, 8),
    Cell("window", 1, 0.5),
    Cell("window", 3, 0.5),
]


def expected(work, cell):
    method, _, variant = cell.method.partition("-")
    return decode(
        work.model,
        work.prompts,
        block_size=work.block_size,
        threshold=cell.tau,
        max_new_tokens=work.max_new_tokens,
        eos_token_id=work.eos,
        mask_token_id=work.mask_token_id,
        method="autoregressive" if method == "hf" else method,
        verify=variant == "lossless",
        authors_window=variant == "authors",
        cache_block=cell.cache_block or 32,
        slots=cell.batch,
    )


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_a_run_is_the_decoding_twice_over(work, cell):
    run = runner(work, cell)
    whole = expected(work, cell)
    assert {one.finish for one in whole} == {"eos", "length"}
    for timed in (run(), run()):
        assert timed.tokens == [one.tokens for one in whole]
        assert timed.forwards == [one.forwards for one in whole]
        assert timed.count == sum(len(one.tokens) for one in whole)
        assert timed.seconds > timed.prefill_seconds >= 0
        assert timed.throughput == pytest.approx(timed.count / timed.seconds)


def test_tokens_of_the_prefill_are_not_credited_to_decoding(work):
    for cell in CELLS[:6]:
        timed = runner(work, cell)()
        gained = [one.accepted[0] for one in expected(work, cell)]
        assert timed.prefilled == sum(gained), cell
        rate = (timed.count - sum(gained)) / (timed.seconds - timed.prefill_seconds)
        assert timed.decode_throughput == pytest.approx(rate)


def test_what_cannot_be_measured_says_why(work):
    with pytest.raises(Skip, match="GPU"):
        runner(work, Cell("hf-static", 2))
    with pytest.raises(Skip, match="engine only"):
        runner(replace(work, prescribed=1.5), Cell("block_cache", 2, 0.5, 8))
    with pytest.raises(UserError, match="Unknown method 'fast'"):
        runner(work, Cell("fast", 1))
