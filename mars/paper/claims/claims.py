"""The ten claims of the paper, each with a verdict from our numbers.

A rule stands beside its claim and was written before the runs; docs/comparison.md says them in
words. Verdicts: `holds`, `does not hold`, `undecided` (the numbers allow both), `not run`. Where a
claim is about several scales or models, one of which it does not hold decides, and it holds only
if it holds for all that were run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mars.paper.claims.of_scores import (
    JACOBI,
    TOKENS_PER_FORWARD,
    block_diffusion_collapses,
    jacobi_stays_near_one,
    metric_hardly_matters,
    one_token_matches_ar,
    same_parameters_same_interface,
    several_tokens_at_a_small_loss,
    sft_loss_keeps_larger_blocks,
)
from mars.paper.claims.of_times import (
    FEWEST_TRACES,
    block_cache_beats_ar,
    composes_with_speculative_decoding,
    tau_is_a_live_knob,
)
from mars.paper.claims.results import Judged, Results
from mars.paper.claims.significance import MARGIN


@dataclass(frozen=True)
class Claim:
    """A claim in our words, the rule that decides over it, and where its numbers stand."""

    claim: str
    rule: str
    artefact: str
    judge: Callable[[Results], Judged]


CLAIMS = (
    Claim(
        "At one token per forward, MARS matches or exceeds AR SFT on average over the benchmarks.",
        f"MARS (B=4) minus AR SFT, paired, at each scale: holds if the interval is at least "
        f"-{MARGIN:g} points, does not hold if it is below. AR SFT with twice the epochs is also "
        "shown and decides nothing.",
        "tables/table2",
        one_token_matches_ar,
    ),
    Claim(
        "At tau = 0.95 MARS emits 1.5 to 1.7 tokens per forward with a small loss of accuracy.",
        f"For every block size that was run: the interval of the average tokens per forward is at "
        f"least {TOKENS_PER_FORWARD:g}, and the interval of the change from one token per forward "
        f"is at least -{MARGIN:g} points; does not hold if one of them is below. Tokens after an "
        "answer's end do not count; the authors' count, which has them (A2), stands beside ours "
        "and decides nothing.",
        "tables/table4",
        several_tokens_at_a_small_loss,
    ),
    Claim(
        "The SFT loss keeps accuracy from degrading with larger blocks.",
        "The change from B=4 to B=16 with SFT loss minus the same change without it, paired: holds "
        "if the interval is at least 0, does not hold if it is below.",
        "tables/table3",
        sft_loss_keeps_larger_blocks,
    ),
    Claim(
        "Block diffusion collapses where MARS does not.",
        f"The interval of block diffusion minus AR SFT is at most -{MARGIN:g} points, and the "
        "interval of MARS minus block diffusion is at least 0; does not hold if one of them lies "
        "on the other side.",
        "tables/table2",
        block_diffusion_collapses,
    ),
    Claim(
        "With the block cache, MARS beats AR decoding with a KV cache in wall-clock time.",
        "With the cache block chosen before the run, at every batch size, over AR decoding in our "
        "engine and over transformers' `generate`: the interval of the speed-up is at least 1; "
        "does not hold if one is below.",
        "tables/table5",
        block_cache_beats_ar,
    ),
    Claim(
        "tau is a live knob: lowering it under load raises throughput without a restart.",
        "The adaptive policy compared with tau = 1 on the same requests, trace by trace of "
        f"arrivals, of which it takes {FEWEST_TRACES}: the interval of the ratio of tokens per "
        "second while all slots are busy is at least 1, that of the mean latency saved at least "
        "0; does not hold if one is below.",
        "speed/live_tau",
        tau_is_a_live_knob,
    ),
    Claim(
        "MARS composes with speculative decoding.",
        "Each row with a MARS target is faster than speculative decoding with AR models: the "
        "interval of its speed-up is at least 1; does not hold if one is below.",
        "tables/table6",
        composes_with_speculative_decoding,
    ),
    Claim(
        "Jacobi decoding of the AR model stays near 1.07 tokens per forward.",
        f"The interval of its average tokens per forward is at most {JACOBI:g}; does not hold if "
        "it lies above.",
        "tables/table9",
        jacobi_stays_near_one,
    ),
    Claim(
        "The choice of acceptance metric hardly matters.",
        f"Entropy and margin, each minus probability, in accuracy at equal tokens per forward: the "
        f"interval lies within {MARGIN:g} points of 0; does not hold if it lies wholly outside.",
        "evaluations",
        metric_hardly_matters,
    ),
    Claim(
        "MARS has the same parameters and calling interface as the AR model.",
        "Every MARS checkpoint has as many parameters as AR SFT, the same tensors, and the same "
        "model configuration.",
        "checkpoints",
        same_parameters_same_interface,
    ),
)
