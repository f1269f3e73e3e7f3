"""The claims that a clock decides, 5 to 7."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

from mars.evaluation.scores import mean
from mars.paper import published
from mars.paper.claims.intervals import Interval, Uncertain
from mars.paper.claims.results import (
    NOTHING,
    SECONDS,
    TIMES,
    Estimate,
    Judged,
    Results,
    ServedRecord,
    judged_by,
    shown,
)
from mars.paper.claims.significance import stderr_of
from mars.paper.claims.verdicts import OPEN, UNDECIDED, Verdict, above
from mars.paper.tables.table import NONE
from mars.paper.tables.tidy_csv import Line

BASELINES = {
    "speedup_over_ar": "AR decoding in our engine",
    "speedup_over_hf": "`generate` of transformers",
}
FEWEST_TRACES = 5  # of arrivals; Student's interval over fewer is hardly ever narrow enough
TOO_FEW_TRACES = f" (a verdict takes {FEWEST_TRACES})"


def block_cache_beats_ar(results: Results) -> Judged:
    cache = {"row": "MARS + block cache", "cache_block": str(results.cache_block)}
    estimates: list[Estimate] = []
    verdicts: list[Verdict] = []
    parts = []
    for quantity, baseline in BASELINES.items():
        timed = results.speedups("table5", quantity)
        lines = [line for line in timed if cache.items() <= line.items()]
        verdicts += map(_faster, lines)
        estimates += [_drawn(f"over {baseline}, batch {one['batch_size']}", one) for one in lines]
        if found := [f"{shown(_interval(one))} at batch {one['batch_size']}" for one in lines]:
            parts.append(f"over {baseline} {', '.join(found)}")
    evidence = f"speed-up with cache block {results.cache_block}: {'; '.join(parts)}"
    return judged_by(verdicts, [evidence], estimates=estimates, trainings=[1])


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
    verdicts = [above(gain, 1.0), above(saved, 0.0)] if enough else [OPEN, OPEN]
    words = [verdict.word for verdict in verdicts]
    estimates = [
        Estimate("tokens per second while all slots are busy", TIMES, gain, words[0], at_least=1.0),
        Estimate("mean latency saved", SECONDS, saved, words[1], at_least=0.0),
    ]
    traces = "one trace" if number == 1 else f"{number} traces"
    evidence = (
        f"{traces} of {len(pairs[0][0]['requests'])} requests{'' if enough else TOO_FEW_TRACES}, "
        f"adaptive tau against tau = 1: {shown(gain)} times the tokens per second while all slots "
        f"are busy, mean latency shorter by {shown(saved)} s, median latency "
        f"{_median(adaptive):.2f} against {_median(fixed):.2f} s, accuracy {_accuracy(adaptive)} "
        f"against {_accuracy(fixed)}"
    )
    return judged_by(verdicts, [evidence], estimates=estimates, trainings=[1])


def _traces(policy: ServedRecord) -> list[ServedRecord]:
    """The traces of arrivals that a policy served: its record is the first, and has the others."""
    return [policy, *policy.get("further_traces", ())]


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
    parts = (f"{line['row']}: {shown(_interval(line))}" for line in lines)
    evidence = f"speed-up over {first}: {'; '.join(parts)}"
    estimates = [_drawn(line["row"], line) for line in lines]
    return judged_by(list(map(_faster, lines)), [evidence], estimates=estimates, trainings=[1])


def _interval(line: Line) -> Interval:
    """Of a speed-up, by Student's t over its rounds; that of a single round has no width."""
    error = stderr_of(line)
    freedom = int(line["n"]) - 1 if error is not None else 1
    return Uncertain(float(line["value"]), error or 0.0, freedom).interval()


def _drawn(label: str, line: Line) -> Estimate:
    """A speed-up as a plot draws it, beside the paper's."""
    printed = None if line["published"] == NONE else float(line["published"])
    word = _faster(line).word
    return Estimate(label, TIMES, _interval(line), word, at_least=1.0, published=printed)


def _faster(line: Line) -> Verdict:
    """Whether a speed-up is above 1; a single round, which has no error, cannot tell."""
    return OPEN if stderr_of(line) is None else above(_interval(line), 1.0)


def _accuracy(policy: ServedRecord) -> str:
    """Over all traces, which are equally long."""
    found = [trace.get("accuracy") for trace in _traces(policy)]
    known = [one for one in found if one is not None]
    return f"{100 * fmean(known):.1f} %" if known else NONE
