"""The ten claims of the paper, each with a verdict from our numbers.

A rule stands beside its claim and was written before any run; docs/comparison.md says them in
words. Verdicts: `holds`, `does not hold`, `undecided` (the numbers allow both), `not run`. Where a
claim is about several scales or models, one of which it does not hold decides, and it holds only
if it holds for all that were run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mars.paper import published
from mars.paper.claims.rows import ar_sft, mars, row_of
from mars.paper.claims.significance import (
    Interval,
    PairedTest,
    bootstrap_mean,
    combined_test,
    paired_test,
    stderr_of,
)
from mars.paper.claims.tradeoff import gap, tradeoffs
from mars.paper.claims.verdicts import (
    FAILS,
    HOLDS,
    MARGIN,
    UNDECIDED,
    above,
    below,
    combined,
    no_worse,
    trusted,
)
from mars.paper.evaluations import Evaluations, ModelAndSetting, average_of, models_for
from mars.paper.published import SCALES, Row
from mars.paper.tables.table import NONE, NOT_RUN
from mars.paper.tables.tidy_csv import Line

# What the rules compare with.
TOKENS_PER_FORWARD = 1.45  # "1.5 to 1.7" to one decimal
JACOBI = 1.20  # tokens per forward that are still "near 1.07"


ServedRecord = Mapping[str, Any]
"""Record of a policy under load, as the stage live_tau writes it."""
Described = Mapping[str, Any]
"""What :func:`mars.checkpoints.describe.describe` says of a checkpoint."""


@dataclass(frozen=True)
class Results:
    """What the claims are judged by.

    Attributes:
        tables: lines of the tidy CSV of Tables 5 and 6, by name, where they were made.
        live_tau: record of each policy under load, where it was measured.
        checkpoints: by model.
    """

    evaluations: Evaluations
    tables: Mapping[str, Sequence[Line]] = field(default_factory=dict)
    live_tau: Mapping[str, ServedRecord] = field(default_factory=dict)
    checkpoints: Mapping[str, Described] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """A verdict, the numbers behind it as text, and the paired tests among them."""

    verdict: str
    evidence: str
    tests: Sequence[PairedTest] = ()


@dataclass(frozen=True)
class Claim:
    """A claim in our words, the rule that decides over it, and where its numbers stand."""

    number: int
    claim: str
    rule: str
    artefact: str
    judge: Callable[[Results], Judged]


NOTHING = Judged(NOT_RUN, "this experiment has not measured it")


# --- the rows that claims are about -------------------------------------------------------------


def run_of(row: Row | None, results: Results) -> ModelAndSetting | None:
    """Our model and setting for a row, if both are there and were run."""
    if row is None:
        return None
    run = {(model, name) for model, name, _ in results.evaluations.records}
    for model in models_for(row, results.evaluations.spec):
        setting = results.evaluations.setting_of(model, row.decoding)
        if setting is not None and (model, setting) in run:
            return ModelAndSetting(model, setting)
    return None


def _test(
    comparison: str, results: Results, after: Row | None, before: Row | None
) -> PairedTest | None:
    pair = run_of(after, results), run_of(before, results)
    if pair[0] is None or pair[1] is None:
        return None
    return paired_test(comparison, results.evaluations, pair[0], pair[1])


# --- the claims ---------------------------------------------------------------------------------


def one_token_matches_ar(results: Results) -> Judged:
    """Claim 1."""
    tests, verdicts, doubled = [], [], []
    for scale in SCALES:
        ours = mars(scale, 4)
        test = _test(f"{scale}: MARS (B=4) minus AR SFT", results, ours, ar_sft(scale))
        if test is None:
            continue
        tests.append(test)
        verdicts.append(no_worse(test))
        matched = _test(
            f"{scale}: MARS (B=4) minus AR SFT (10 ep)", results, ours, ar_sft(scale, 10)
        )
        doubled += [matched] if matched else []
    if not tests:
        return NOTHING
    return Judged(combined(verdicts), _listed([*tests, *doubled]), [*tests, *doubled])


def several_tokens_at_a_small_loss(results: Results) -> Judged:
    """Claim 2."""
    tests, verdicts, parts = [], [], []
    for row in published.table4():
        assert row.block_size is not None
        comparison = f"{row.label}: tau = 0.95 minus one token"
        test = _test(comparison, results, row, mars(row.scale, row.block_size))
        speed = _speed(row, results)
        if test is None or speed is None:
            continue
        tests.append(test)
        fast = trusted(test.fewest, above(speed, TOKENS_PER_FORWARD))
        verdicts += [fast, no_worse(test)]
        parts.append(f"{row.label}: {_range(speed)} tokens per forward, change {test}")
    return Judged(combined(verdicts), "; ".join(parts), tests) if tests else NOTHING


def sft_loss_keeps_larger_blocks(results: Results) -> Judged:
    """Claim 3."""
    with_loss = [run_of(mars("0.5B", size), results) for size in (4, 16)]
    without = [run_of(mars("0.5B", size, sft_loss=False), results) for size in (4, 16)]
    if None in (*with_loss, *without):
        return NOTHING
    (small, large), (small_without, large_without) = with_loss, without
    signs = {large: 1, small: -1, large_without: -1, small_without: 1}
    test = combined_test(
        "0.5B: (B=16 minus B=4) with SFT loss, minus the same without",
        results.evaluations,
        {pair: sign for pair, sign in signs.items() if pair is not None},
    )
    parts = [
        _test(
            f"0.5B: B=16 minus B=4, {'with' if loss else 'without'} SFT loss",
            results,
            mars("0.5B", 16, loss),
            mars("0.5B", 4, loss),
        )
        for loss in (True, False)
    ]
    tests = [one for one in (test, *parts) if one is not None]
    if test is None:
        return NOTHING
    return Judged(trusted(test.fewest, above(test.difference, 0.0)), _listed(tests), tests)


def block_diffusion_collapses(results: Results) -> Judged:
    """Claim 4."""
    diffusion = row_of(published.table2(), method="block_diffusion")
    fall = _test("0.5B: Block Diffusion (B=4) minus AR SFT", results, diffusion, ar_sft("0.5B"))
    lead = _test(
        "0.5B: MARS (B=4) minus Block Diffusion (B=4)", results, mars("0.5B", 4), diffusion
    )
    if fall is None or lead is None:
        return NOTHING
    verdicts = [
        trusted(fall.fewest, below(fall.difference, -MARGIN)),
        trusted(lead.fewest, above(lead.difference, 0.0)),
    ]
    return Judged(combined(verdicts), _listed([fall, lead]), [fall, lead])


def block_cache_beats_ar(results: Results) -> Judged:
    """Claim 5."""
    best: dict[int, Line] = {}
    for line in results.tables.get("table5", ()):
        if line["row"] == "MARS + block cache" and _is_speedup(line, "speedup_over_ar"):
            batch = int(float(line["batch_size"]))
            if batch not in best or float(line["value"]) > float(best[batch]["value"]):
                best[batch] = line
    if not best:
        return NOTHING
    parts = [
        f"batch {batch}: {_range(_interval(line))} times AR (cache block {line['cache_block']})"
        for batch, line in sorted(best.items())
    ]
    evidence = "best cache block at each batch size: " + "; ".join(parts)
    return Judged(combined(map(_faster, best.values())), evidence)


def tau_is_a_live_knob(results: Results) -> Judged:
    """Claim 6."""
    fixed, adaptive = results.live_tau.get("tau-1"), results.live_tau.get("adaptive")
    if fixed is None or adaptive is None:
        return NOTHING
    latencies = [
        [request["end"] - request["arrival"] for request in policy["requests"]]
        for policy in (fixed, adaptive)
    ]
    saved = [before - after for before, after in zip(*latencies, strict=True)]
    interval = bootstrap_mean([saved])
    rates = _busy_rate(fixed), _busy_rate(adaptive)
    if rates[0] is None or rates[1] is None:
        return Judged(UNDECIDED, "the load never kept all slots busy")
    gain = rates[1] / rates[0]
    verdict = combined([above(interval, 0.0), HOLDS if gain > 1 else FAILS])
    return Judged(
        verdict,
        f"the same {len(saved)} requests, tau adapted against tau = 1: {rates[1]:.1f} against "
        f"{rates[0]:.1f} tokens/s while all slots are busy ({gain:.2f} times), median latency "
        f"{adaptive['latency']['median']:.2f} against {fixed['latency']['median']:.2f} s, mean "
        f"latency shorter by {_range(interval)} s, "
        f"accuracy {_accuracy(adaptive)} against {_accuracy(fixed)}",
    )


def _busy_rate(policy: ServedRecord) -> float | None:
    """Tokens per second while all slots are busy: what the engine can serve, not what is asked."""
    rates = [
        entry["tokens_per_second"]
        for entry in policy["timeline"]
        if entry["active"] >= policy["slots"]
    ]
    return sum(rates) / len(rates) if rates else None


def composes_with_speculative_decoding(results: Results) -> Judged:
    """Claim 7."""
    first, *others = map(published.pair_label, published.table(6))
    lines = {
        line["row"]: line
        for line in results.tables.get("table6", ())
        if line["row"] in others and _is_speedup(line, "speedup")
    }
    if not lines:
        return NOTHING
    parts = [f"{row}: {_range(_interval(line))}" for row, line in lines.items()]
    evidence = f"speed-up over {first}: {'; '.join(parts)}"
    return Judged(combined(map(_faster, lines.values())), evidence)


def jacobi_stays_near_one(results: Results) -> Judged:
    """Claim 8."""
    _, jacobi_row, mars_row = published.table9()
    jacobi, ours = _speed(jacobi_row, results), _speed(mars_row, results)
    if jacobi is None:
        return NOTHING
    beside = f", MARS (B=4) at tau = 0.95: {_range(ours)}" if ours else ""
    evidence = f"Jacobi on AR SFT: {_range(jacobi)} tokens per forward{beside}"
    return Judged(below(jacobi, JACOBI), evidence)


def metric_hardly_matters(results: Results) -> Judged:
    """Claim 9: accuracy of the metrics at equal speed, on the questions that all were run on."""
    run = run_of(mars("0.5B", 4), results)
    if run is None:
        return NOTHING
    curves = tradeoffs(str(run.model), results.evaluations)
    if len(curves) < 2 or "probability" not in curves:
        return NOTHING
    verdicts, parts = [], []
    for metric in [name for name in curves if name != "probability"]:
        between = gap(curves[metric], curves["probability"])
        if between is None:
            verdicts.append(UNDECIDED)
            parts.append(f"{metric}: no speed in common with probability")
        else:
            verdict = below(between.distance(), MARGIN)
            verdicts.append(trusted(curves[metric].fewest, verdict))
            parts.append(f"{metric} minus probability at equal speed: {between} points")
    return Judged(combined(verdicts), "; ".join(parts))


def same_parameters_same_interface(results: Results) -> Judged:
    """Claim 10."""
    verdicts, parts = [], []
    for scale in SCALES:
        reference = _checkpoint(ar_sft(scale), results)
        others = {
            row.label: described
            for row in published.table3()
            if (row.scale, row.method) == (scale, "mars")
            and (described := _checkpoint(row, results)) is not None
        }
        if reference is None or not others:
            continue
        verdicts += [HOLDS if other == reference else FAILS for other in others.values()]
        counts = ", ".join(f"{label} {c['parameters']:,}" for label, c in others.items())
        same = all(other["config"] == reference["config"] for other in others.values())
        parts.append(
            f"{scale}: AR SFT {reference['parameters']:,} parameters, {counts}; "
            f"{'the same' if same else 'another'} configuration ({reference['config']['class']})"
        )
    return Judged(combined(verdicts), "; ".join(parts)) if verdicts else NOTHING


def _checkpoint(row: Row | None, results: Results) -> Described | None:
    """What is known of the checkpoint of a row's model."""
    run = run_of(row, results)
    return results.checkpoints.get(str(run.model)) if run else None


CLAIMS = (
    Claim(
        1,
        "One token per forward, MARS matches or exceeds AR SFT on the average of the benchmarks.",
        f"MARS (B=4) minus AR SFT, paired, per scale: holds if the interval is at least "
        f"-{MARGIN:g} points, does not hold if it is below. AR SFT of twice the epochs is shown "
        "beside it and decides nothing.",
        "tables/table2",
        one_token_matches_ar,
    ),
    Claim(
        2,
        "At tau = 0.95 MARS emits 1.5 to 1.7 tokens per forward at a small loss of accuracy.",
        f"For every block size run: the interval of the average tokens per forward is at least "
        f"{TOKENS_PER_FORWARD:g}, and that of the change from one token per forward at least "
        f"-{MARGIN:g} points; does not hold if one is below.",
        "tables/table4",
        several_tokens_at_a_small_loss,
    ),
    Claim(
        3,
        "The SFT loss keeps larger blocks from degrading.",
        "The change from B=4 to B=16 with SFT loss minus the same change without, paired: holds "
        "if the interval is at least 0, does not hold if it is below.",
        "tables/table3",
        sft_loss_keeps_larger_blocks,
    ),
    Claim(
        4,
        "Block diffusion collapses where MARS does not.",
        f"The interval of block diffusion minus AR SFT is at most -{MARGIN:g} points, and that of "
        "MARS minus block diffusion at least 0; does not hold if one lies on the other side.",
        "tables/table2",
        block_diffusion_collapses,
    ),
    Claim(
        5,
        "With the block cache MARS beats AR decoding with a KV cache in wall clock.",
        "At every batch size, the speed-up of the best cache block has an interval of at least 1; "
        "does not hold if one is below.",
        "tables/table5",
        block_cache_beats_ar,
    ),
    Claim(
        6,
        "tau is a live knob: lowered under load, throughput rises without a restart.",
        "The adaptive policy beside tau = 1 on the same requests: more tokens per second while all "
        "slots are busy, and the interval of the mean saving of latency is at least 0.",
        "speed/live_tau",
        tau_is_a_live_knob,
    ),
    Claim(
        7,
        "MARS composes with speculative decoding.",
        "Each row with a MARS target is faster than speculative decoding with AR models: the "
        "speed-up has an interval of at least 1; does not hold if one is below.",
        "tables/table6",
        composes_with_speculative_decoding,
    ),
    Claim(
        8,
        "Jacobi decoding of the AR model stays near 1.07 tokens per forward.",
        f"The interval of its average tokens per forward is at most {JACOBI:g}; does not hold if "
        "it lies above.",
        "tables/table9",
        jacobi_stays_near_one,
    ),
    Claim(
        9,
        "Which confidence decides over acceptance hardly matters.",
        f"Entropy and margin each minus probability, accuracy at equal tokens per forward: the "
        f"interval lies within {MARGIN:g} points of 0; does not hold if it lies wholly outside.",
        "evaluations",
        metric_hardly_matters,
    ),
    Claim(
        10,
        "MARS has the parameters and the calling interface of the AR model.",
        "Every MARS checkpoint has as many parameters as AR SFT, the same tensors, and the same "
        "model configuration.",
        "checkpoints",
        same_parameters_same_interface,
    ),
)


# --- numbers ------------------------------------------------------------------------------------


def _speed(row: Row, results: Results) -> Interval | None:
    """Average tokens per forward of a row, over the benchmarks it was run on."""
    run = run_of(row, results)
    if run is None:
        return None
    evaluations = results.evaluations
    ours = evaluations.measure("tokens_per_forward", run, evaluations.keys)
    whole = average_of([one for one in ours.values() if one is not None])
    return Interval.of(whole.value, whole.stderr) if whole else None


def _is_speedup(line: Line, quantity: str) -> bool:
    """Whether a tidy line is a speed-up that was measured."""
    return line["quantity"] == quantity and line["value"] not in (NOT_RUN, NONE)


def _interval(line: Line) -> Interval:
    return Interval.of(float(line["value"]), stderr_of(line))


def _faster(line: Line) -> str:
    """Whether a speed-up is above 1; a single round, which has no error, cannot tell."""
    return UNDECIDED if stderr_of(line) is None else above(_interval(line), 1.0)


def _range(value: Interval) -> str:
    return f"{value.value:.2f} [{value.lower:.2f}, {value.upper:.2f}]"


def _listed(tests: Iterable[PairedTest]) -> str:
    return "; ".join(f"{test.comparison}: {test}" for test in tests)


def _accuracy(policy: ServedRecord) -> str:
    return NONE if policy.get("accuracy") is None else f"{100 * policy['accuracy']:.1f} %"
