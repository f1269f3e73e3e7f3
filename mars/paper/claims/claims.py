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
from mars.paper.claims.significance import (
    FAILS,
    HOLDS,
    MARGIN,
    UNDECIDED,
    Interval,
    PairedTest,
    above,
    below,
    bootstrap_mean,
    combined,
    combined_test,
    no_worse,
    stderr_of,
    trusted,
)
from mars.paper.claims.tradeoff import gap, tradeoffs
from mars.paper.evaluations import Evaluations, ModelAndSetting, average_of, models_for
from mars.paper.published import SCALES, STAGE_EPOCHS, Row
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

    def run_of(self, row: Row | None) -> ModelAndSetting | None:
        """Our model and setting for a row, if both are there and were run."""
        if row is None:
            return None
        run = {ModelAndSetting(model, name) for model, name, _ in self.evaluations.records}
        models = models_for(row, self.evaluations.spec)
        found = (ModelAndSetting(m, self.evaluations.setting_of(m, row.decoding)) for m in models)
        return next((one for one in found if one in run), None)

    def test(self, comparison: str, after: Row | None, before: Row | None) -> PairedTest | None:
        """The paired test of two rows, if both were run on the same questions."""
        pair = self.run_of(after), self.run_of(before)
        if pair[0] is None or pair[1] is None:
            return None
        return combined_test(comparison, self.evaluations, {pair[0]: 1, pair[1]: -1})

    def speed(self, row: Row) -> Interval | None:
        """Average tokens per forward of a row, over the benchmarks it was run on."""
        run = self.run_of(row)
        if run is None:
            return None
        ours = self.evaluations.measure("tokens_per_forward", run, self.evaluations.keys)
        whole = average_of([one for one in ours.values() if one is not None])
        return Interval.of(whole.value, whole.stderr) if whole else None

    def checkpoint(self, row: Row | None) -> Described | None:
        """What is known of the checkpoint of a row's model."""
        run = self.run_of(row)
        return self.checkpoints.get(str(run.model)) if run else None

    def speedups(self, table: str, quantity: str) -> list[Line]:
        """The speed-ups of a table that were measured."""
        lines = self.tables.get(table, ())
        return [
            one
            for one in lines
            if one["quantity"] == quantity and one["value"] not in (NOT_RUN, NONE)
        ]


@dataclass(frozen=True)
class Judged:
    """A verdict, the numbers behind it as text, and the paired tests among them."""

    verdict: str
    evidence: str
    tests: Sequence[PairedTest] = ()


@dataclass(frozen=True)
class Claim:
    """A claim in our words, the rule that decides over it, and where its numbers stand."""

    claim: str
    rule: str
    artefact: str
    judge: Callable[[Results], Judged]


NOTHING = Judged(NOT_RUN, "this experiment has not measured it")


def _judged(
    verdicts: Sequence[str], parts: Iterable[str], tests: Sequence[PairedTest] = ()
) -> Judged:
    return Judged(combined(verdicts), "; ".join(parts), tests) if verdicts else NOTHING


# --- the rows that claims are about -------------------------------------------------------------


def _row(table: Iterable[Row], **wanted: Any) -> Row | None:
    """The first row with these attributes."""
    found = (row for row in table if all(getattr(row, k) == v for k, v in wanted.items()))
    return next(found, None)


def ar_sft(scale: str, epochs: int = STAGE_EPOCHS) -> Row | None:
    """AR SFT of Table 2."""
    return _row(published.table2(), scale=scale, method="ar_sft", epochs=epochs)


def mars(scale: str, size: int | None, sft_loss: bool = True) -> Row | None:
    """A MARS model of Table 3, in one-token mode."""
    wanted = {"scale": scale, "method": "mars", "block_size": size, "sft_loss": sft_loss}
    return _row(published.table3(), **wanted)


# --- the claims, in their order -----------------------------------------------------------------


def one_token_matches_ar(results: Results) -> Judged:
    tests, doubled = [], []
    for scale in SCALES:
        ours, name = mars(scale, 4), f"{scale}: MARS (B=4) minus AR SFT"
        if test := results.test(name, ours, ar_sft(scale)):
            tests.append(test)
            matched = results.test(f"{name} (10 ep)", ours, ar_sft(scale, 10))
            doubled += [matched] if matched else []
    return _judged(list(map(no_worse, tests)), _listed(tests + doubled), tests + doubled)


def several_tokens_at_a_small_loss(results: Results) -> Judged:
    tests, verdicts, parts = [], [], []
    for row in published.table4():
        before = mars(row.scale, row.block_size)
        test = results.test(f"{row.label}: tau = 0.95 minus one token", row, before)
        speed = results.speed(row)
        if test is not None and speed is not None:
            tests.append(test)
            fast = trusted(test.fewest, above(speed, TOKENS_PER_FORWARD))
            verdicts += [fast, no_worse(test)]
            parts.append(f"{row.label}: {_range(speed)} tokens per forward, change {test}")
    return _judged(verdicts, parts, tests)


def sft_loss_keeps_larger_blocks(results: Results) -> Judged:
    signs = {(16, True): 1, (4, True): -1, (16, False): -1, (4, False): 1}
    rows = ((mars("0.5B", *kind), sign) for kind, sign in signs.items())
    runs = {run: sign for row, sign in rows if (run := results.run_of(row))}
    name = "0.5B: (B=16 minus B=4) with SFT loss, minus the same without"
    whole = combined_test(name, results.evaluations, runs) if len(runs) == 4 else None
    if whole is None:
        return NOTHING
    parts = [
        results.test(
            f"0.5B: B=16 minus B=4, {'with' if loss else 'without'} SFT loss",
            *(mars("0.5B", size, loss) for size in (16, 4)),
        )
        for loss in (True, False)
    ]
    tests = [whole, *(one for one in parts if one is not None)]
    verdict = trusted(whole.fewest, above(whole.difference, 0.0))
    return _judged([verdict], _listed(tests), tests)


def block_diffusion_collapses(results: Results) -> Judged:
    diffusion = _row(published.table2(), method="block_diffusion")
    fall = results.test("0.5B: Block Diffusion (B=4) minus AR SFT", diffusion, ar_sft("0.5B"))
    lead = results.test("0.5B: MARS (B=4) minus Block Diffusion (B=4)", mars("0.5B", 4), diffusion)
    if fall is None or lead is None:
        return NOTHING
    verdicts = [
        trusted(fall.fewest, below(fall.difference, -MARGIN)),
        trusted(lead.fewest, above(lead.difference, 0.0)),
    ]
    return _judged(verdicts, _listed([fall, lead]), [fall, lead])


def block_cache_beats_ar(results: Results) -> Judged:
    best: dict[int, Line] = {}
    for line in results.speedups("table5", "speedup_over_ar"):
        if line["row"] == "MARS + block cache":
            batch = int(float(line["batch_size"]))
            best[batch] = max(best.get(batch, line), line, key=lambda one: float(one["value"]))
    parts = (
        f"batch {batch}: {_range(_interval(line))} times AR (cache block {line['cache_block']})"
        for batch, line in sorted(best.items())
    )
    evidence = f"best cache block at each batch size: {'; '.join(parts)}"
    return _judged(list(map(_faster, best.values())), [evidence])


def tau_is_a_live_knob(results: Results) -> Judged:
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
    return Judged(
        combined([above(interval, 0.0), HOLDS if gain > 1 else FAILS]),
        f"the same {len(saved)} requests, adaptive tau against tau = 1: {rates[1]:.1f} against "
        f"{rates[0]:.1f} tokens/s while all slots are busy ({gain:.2f} times), median latency "
        f"{adaptive['latency']['median']:.2f} against {fixed['latency']['median']:.2f} s, mean "
        f"latency shorter by {_range(interval)} s, "
        f"accuracy {_accuracy(adaptive)} against {_accuracy(fixed)}",
    )


def _busy_rate(policy: ServedRecord) -> float | None:
    """Tokens per second while all slots are busy: what the engine can serve, not what is asked."""
    busy = [entry for entry in policy["timeline"] if entry["active"] >= policy["slots"]]
    return sum(entry["tokens_per_second"] for entry in busy) / len(busy) if busy else None


def composes_with_speculative_decoding(results: Results) -> Judged:
    first, *others = map(published.pair_label, published.table(6))
    lines = [one for one in results.speedups("table6", "speedup") if one["row"] in others]
    parts = (f"{line['row']}: {_range(_interval(line))}" for line in lines)
    evidence = f"speed-up over {first}: {'; '.join(parts)}"
    return _judged(list(map(_faster, lines)), [evidence])


def jacobi_stays_near_one(results: Results) -> Judged:
    _, jacobi, ours = map(results.speed, published.table9())
    if jacobi is None:
        return NOTHING
    beside = f", MARS (B=4) at tau = 0.95: {_range(ours)}" if ours else ""
    evidence = f"Jacobi on AR SFT: {_range(jacobi)} tokens per forward{beside}"
    return Judged(below(jacobi, JACOBI), evidence)


def metric_hardly_matters(results: Results) -> Judged:
    """Accuracy of the metrics at equal speed, on the questions that all were run on."""
    run = results.run_of(mars("0.5B", 4))
    curves = tradeoffs(str(run.model), results.evaluations) if run else {}
    if len(curves) < 2 or "probability" not in curves:
        return NOTHING
    probability, verdicts, parts = curves.pop("probability"), [], []
    for metric, curve in curves.items():
        between = gap(curve, probability)
        if between is None:
            verdicts.append(UNDECIDED)
            parts.append(f"{metric}: no speed in common with probability")
        else:
            verdicts.append(trusted(curve.fewest, below(between.distance(), MARGIN)))
            parts.append(f"{metric} minus probability at equal speed: {between} points")
    return _judged(verdicts, parts)


def same_parameters_same_interface(results: Results) -> Judged:
    verdicts, parts = [], []
    for scale in SCALES:
        reference = results.checkpoint(ar_sft(scale))
        others = {
            row.label: described
            for row in published.table3()
            if (row.scale, row.method) == (scale, "mars")
            and (described := results.checkpoint(row)) is not None
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
    return _judged(verdicts, parts)


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
        f"is at least -{MARGIN:g} points; does not hold if one of them is below.",
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
        "At every batch size, the interval of the speed-up with the best cache block is at least "
        "1; does not hold if one is below.",
        "tables/table5",
        block_cache_beats_ar,
    ),
    Claim(
        "tau is a live knob: lowering it under load raises throughput without a restart.",
        "The adaptive policy compared with tau = 1 on the same requests: more tokens per second "
        "while all slots are busy, and the interval of the mean latency saved is at least 0.",
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


# --- numbers ------------------------------------------------------------------------------------


def _interval(line: Line) -> Interval:
    return Interval.of(float(line["value"]), stderr_of(line))


def _faster(line: Line) -> str:
    """Whether a speed-up is above 1; a single round, which has no error, cannot tell."""
    return UNDECIDED if stderr_of(line) is None else above(_interval(line), 1.0)


def _range(value: Interval) -> str:
    return f"{value.value:.2f} [{value.lower:.2f}, {value.upper:.2f}]"


def _listed(tests: Iterable[PairedTest]) -> list[str]:
    return [f"{test.comparison}: {test}" for test in tests]


def _accuracy(policy: ServedRecord) -> str:
    return NONE if policy.get("accuracy") is None else f"{100 * policy['accuracy']:.1f} %"
