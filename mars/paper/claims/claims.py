"""The ten claims of the paper, each with a verdict from our numbers.

A rule stands beside its claim and was written before the runs; docs/comparison.md says them in
words. Verdicts: `holds`, `does not hold`, `undecided` (the numbers allow both), `not run`. Where a
claim is about several scales or models, one of which it does not hold decides, and it holds only
if it holds for all that were run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from mars.evaluation.scores import mean
from mars.paper import published
from mars.paper.claims.intervals import Interval, Uncertain
from mars.paper.claims.significance import (
    MARGIN,
    PairedTest,
    combined_test,
    no_worse,
    speed,
    stderr_of,
    trusted,
)
from mars.paper.claims.tradeoff import gap, tradeoffs
from mars.paper.claims.verdicts import (
    FAILS,
    HOLDS,
    OPEN,
    UNDECIDED,
    Verdict,
    above,
    below,
    combined,
    within,
)
from mars.paper.evaluations import Evaluations, ModelAndSetting, models_for
from mars.paper.published import SCALES, STAGE_EPOCHS, Row
from mars.paper.specs import seeds_of
from mars.paper.tables.table import NONE, NOT_RUN
from mars.paper.tables.tidy_csv import Line

# What the rules compare with.
TOKENS_PER_FORWARD = 1.45  # "1.5 to 1.7" to one decimal
BASELINES = {
    "speedup_over_ar": "AR decoding in our engine",
    "speedup_over_hf": "`generate` of transformers",
}
FEWEST_TRACES = 5  # of arrivals; Student's interval over fewer is hardly ever narrow enough
TOO_FEW_TRACES = f" (a verdict takes {FEWEST_TRACES})"
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
        cache_block: the granularity of the block cache that is judged, chosen before the run.
    """

    evaluations: Evaluations
    tables: Mapping[str, Sequence[Line]] = field(default_factory=dict)
    live_tau: Mapping[str, ServedRecord] = field(default_factory=dict)
    checkpoints: Mapping[str, Described] = field(default_factory=dict)
    cache_block: int | None = None

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

    def speed(self, row: Row, overrun: bool = False) -> tuple[Interval, int, int] | None:
        """Average tokens per forward of a row, as :func:`significance.speed` gives it."""
        run = self.run_of(row)
        return None if run is None else speed(self.evaluations, run, overrun)

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
    """A verdict, the numbers behind it as text, and the paired tests among them.

    Attributes:
        p: how probable numbers like these would be if the verdict were wrong, two-sided; None
            where nothing is left to chance, or nothing was run.
        trainings: how often the model was trained that was trained the fewest times; None where
            no training decides. One training says nothing of the next.
    """

    verdict: str
    evidence: str
    tests: Sequence[PairedTest] = ()
    p: float | None = None
    trainings: int | None = None


@dataclass(frozen=True)
class Claim:
    """A claim in our words, the rule that decides over it, and where its numbers stand."""

    claim: str
    rule: str
    artefact: str
    judge: Callable[[Results], Judged]


NOTHING = Judged(NOT_RUN, "this experiment has not measured it")


def _judged(
    verdicts: Sequence[Verdict],
    parts: Iterable[str],
    tests: Sequence[PairedTest] = (),
    trainings: Iterable[int] = (),
) -> Judged:
    if not verdicts:
        return NOTHING
    fewest = min([*trainings, *(test.trainings for test in tests)], default=None)
    word, p = combined(verdicts)
    return Judged(word, "; ".join(parts), tests, p or None, fewest)


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
        counted, as_published = results.speed(row), results.speed(row, overrun=True)
        if test is not None and counted is not None and as_published is not None:
            tests.append(test)
            tokens, _, fewest = counted
            fast = trusted(fewest, above(tokens, TOKENS_PER_FORWARD))
            verdicts += [fast, no_worse(test)]
            theirs = above(as_published[0], TOKENS_PER_FORWARD).word
            parts.append(
                f"{row.label}: {_range(tokens)} tokens per forward ({fast.word}), "
                f"{_range(as_published[0])} as the authors count ({theirs}), change {test}"
            )
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
    cache = {"row": "MARS + block cache", "cache_block": str(results.cache_block)}
    verdicts: list[Verdict] = []
    parts = []
    for quantity, baseline in BASELINES.items():
        timed = results.speedups("table5", quantity)
        lines = [line for line in timed if cache.items() <= line.items()]
        verdicts += map(_faster, lines)
        if found := [f"{_range(_interval(one))} at batch {one['batch_size']}" for one in lines]:
            parts.append(f"over {baseline} {', '.join(found)}")
    evidence = f"speed-up with cache block {results.cache_block}: {'; '.join(parts)}"
    return _judged(verdicts, [evidence], trainings=[1])


def tau_is_a_live_knob(results: Results) -> Judged:
    """The unit is a trace of arrivals: within one, every request waits for those before it."""
    fixed, adaptive = results.live_tau.get("tau-1"), results.live_tau.get("adaptive")
    if fixed is None or adaptive is None:
        return NOTHING
    pairs = list(zip(_traces(fixed), _traces(adaptive), strict=True))
    rates = [(_busy_rate(one, fixed), _busy_rate(other, adaptive)) for one, other in pairs]
    if any(rate is None for pair in rates for rate in pair):
        return Judged(UNDECIDED, "a load never kept all slots busy", p=1.0, trainings=1)
    gain = _over_traces([after / before for before, after in rates if before and after])
    saved = _over_traces([fmean(_saved(*pair)) for pair in pairs])
    number = len(pairs)
    enough = number >= FEWEST_TRACES
    verdicts = [above(gain, 1.0), above(saved, 0.0)] if enough else [OPEN]
    traces = "one trace" if number == 1 else f"{number} traces"
    evidence = (
        f"{traces} of {len(pairs[0][0]['requests'])} requests{'' if enough else TOO_FEW_TRACES}, "
        f"adaptive tau against tau = 1: {_range(gain)} times the tokens per second while all slots "
        f"are busy, mean latency shorter by {_range(saved)} s, median latency "
        f"{_median(adaptive):.2f} against {_median(fixed):.2f} s, accuracy {_accuracy(adaptive)} "
        f"against {_accuracy(fixed)}"
    )
    return _judged(verdicts, [evidence], trainings=[1])


def _traces(policy: ServedRecord) -> Sequence[ServedRecord]:
    """The traces of arrivals that a policy served; a record of one is that trace itself."""
    return policy.get("traces") or [policy]


def _over_traces(values: Sequence[float]) -> Interval:
    """The mean, with Student's interval; that of a single trace has no width."""
    error = mean(values).stderr
    return Uncertain(fmean(values), error or 0.0, max(1, len(values) - 1)).interval()


def _saved(fixed: ServedRecord, adaptive: ServedRecord) -> list[float]:
    """Seconds of latency that the same requests were spared, one by one."""
    pairs = zip(_latencies(fixed), _latencies(adaptive), strict=True)
    return [before - after for before, after in pairs]


def _latencies(trace: ServedRecord) -> list[float]:
    return [request["end"] - request["arrival"] for request in trace["requests"]]


def _median(policy: ServedRecord) -> float:
    """Of the latencies of all traces together."""
    return median(latency for trace in _traces(policy) for latency in _latencies(trace))


def _busy_rate(trace: ServedRecord, policy: ServedRecord) -> float | None:
    """Tokens per second while all slots are busy: what the engine can serve, not what is asked."""
    busy = [entry for entry in trace["timeline"] if entry["active"] >= policy["slots"]]
    return fmean(entry["tokens_per_second"] for entry in busy) if busy else None


def composes_with_speculative_decoding(results: Results) -> Judged:
    first, *others = map(published.pair_label, published.table(6))
    lines = [one for one in results.speedups("table6", "speedup") if one["row"] in others]
    parts = (f"{line['row']}: {_range(_interval(line))}" for line in lines)
    evidence = f"speed-up over {first}: {'; '.join(parts)}"
    return _judged(list(map(_faster, lines)), [evidence], trainings=[1])


def jacobi_stays_near_one(results: Results) -> Judged:
    _, jacobi, ours = map(results.speed, published.table9())
    if jacobi is None:
        return NOTHING
    tokens, trainings, fewest = jacobi
    beside = f", MARS (B=4) at tau = 0.95: {_range(ours[0])}" if ours else ""
    evidence = f"Jacobi on AR SFT: {_range(tokens)} tokens per forward{beside}"
    verdict = trusted(fewest, below(tokens, JACOBI))
    return _judged([verdict], [evidence], trainings=[trainings])


def metric_hardly_matters(results: Results) -> Judged:
    """Accuracy of the metrics at equal speed, on the questions that all were run on."""
    run = results.run_of(mars("0.5B", 4))
    if run is None:
        return NOTHING
    models = seeds_of(str(run.model), results.evaluations.spec.models)
    trainings = [found for name in models if (found := tradeoffs(name, results.evaluations))]
    metrics = [name for name in (trainings[0] if trainings else {}) if name != "probability"]
    trainings = [one for one in trainings if {"probability", *metrics} <= one.keys()]
    verdicts, parts = [], []
    for metric in metrics if trainings else []:
        between = gap([(one[metric], one["probability"]) for one in trainings])
        if between is None:
            verdicts.append(OPEN)
            parts.append(f"{metric}: no speed in common with probability")
        else:
            fewest = min(one[metric].fewest for one in trainings)
            verdicts.append(trusted(fewest, within(between, MARGIN)))
            parts.append(f"{metric} minus probability at equal speed: {between} points")
    return _judged(verdicts, parts, trainings=[len(trainings)])


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
        words = (HOLDS if other == reference else FAILS for other in others.values())
        verdicts += [Verdict(word, 0.0) for word in words]
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


# --- numbers ------------------------------------------------------------------------------------


def _interval(line: Line) -> Interval:
    """Of a speed-up, by Student's t over its rounds; that of a single round has no width."""
    error = stderr_of(line)
    freedom = int(line["n"]) - 1 if error is not None else 1
    return Uncertain(float(line["value"]), error or 0.0, freedom).interval()


def _faster(line: Line) -> Verdict:
    """Whether a speed-up is above 1; a single round, which has no error, cannot tell."""
    return OPEN if stderr_of(line) is None else above(_interval(line), 1.0)


def _range(value: Interval) -> str:
    return f"{value.value:.2f} [{value.lower:.2f}, {value.upper:.2f}]"


def _listed(tests: Iterable[PairedTest]) -> list[str]:
    return [f"{test.comparison}: {test}" for test in tests]


def _accuracy(policy: ServedRecord) -> str:
    return NONE if policy.get("accuracy") is None else f"{100 * policy['accuracy']:.1f} %"
