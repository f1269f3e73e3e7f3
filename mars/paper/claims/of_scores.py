"""The claims that evaluations decide, 1 to 4, 8 and 9, and checkpoints, 10."""

from __future__ import annotations

from collections.abc import Iterable

from mars.paper import published
from mars.paper.claims.intervals import Interval
from mars.paper.claims.results import (
    NOTHING,
    POINTS,
    TOKENS,
    Estimate,
    Judged,
    Results,
    ar_sft,
    beside_the_paper,
    in_points,
    judged_by,
    mars,
    row_of,
    shown,
)
from mars.paper.claims.significance import MARGIN, PairedTest, combined_test, no_worse, trusted
from mars.paper.claims.tradeoff import gap, tradeoffs
from mars.paper.claims.verdicts import FAILS, HOLDS, OPEN, Verdict, above, below, within
from mars.paper.published import SCALES, Row
from mars.paper.specs import seeds_of

TOKENS_PER_FORWARD = 1.45  # "1.5 to 1.7" to one decimal
JACOBI = 1.20  # tokens per forward that are still "near 1.07"


def one_token_matches_ar(results: Results) -> Judged:
    tests, doubled = [], []
    for scale in SCALES:
        ours, name = mars(scale, 4), f"{scale}: MARS (B=4) minus AR SFT"
        if test := results.test(name, ours, ar_sft(scale)):
            tests.append(test)
            matched = results.test(f"{name} (10 ep)", ours, ar_sft(scale, 10))
            doubled += [matched] if matched else []
    verdicts = list(map(no_worse, tests))
    estimates = [in_points(*one, at_least=-MARGIN) for one in zip(tests, verdicts, strict=True)]
    estimates += map(in_points, doubled)
    return judged_by(verdicts, _listed(tests + doubled), tests + doubled, estimates)


def several_tokens_at_a_small_loss(results: Results) -> Judged:
    tests, verdicts, parts, tokens_of, changes = [], [], [], [], []
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
            tokens_of += [
                Estimate(row.label, TOKENS, tokens, fast.word, at_least=TOKENS_PER_FORWARD),
                _as_the_authors_count(row, as_published[0]),
            ]
            changes.append(in_points(test, verdicts[-1], at_least=-MARGIN))
            parts.append(
                f"{row.label}: {shown(tokens)} tokens per forward ({fast.word}), "
                f"{shown(as_published[0])} as the authors count ({theirs}), change {test}"
            )
    return judged_by(verdicts, parts, tests, tokens_of + changes)


def _as_the_authors_count(row: Row, tokens: Interval) -> Estimate:
    """Tokens per forward as the paper's are counted, beside which only the paper's can stand."""
    printed = row.scores["tokens_per_forward"].get(published.AVERAGE)
    return Estimate(f"{row.label}, as the authors count", TOKENS, tokens, published=printed)


def sft_loss_keeps_larger_blocks(results: Results) -> Judged:
    signs = {(16, True): 1, (4, True): -1, (16, False): -1, (4, False): 1}
    rows = [(row, sign) for kind, sign in signs.items() if (row := mars("0.5B", *kind))]
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
    whole = beside_the_paper(whole, rows)
    tests = [whole, *(one for one in parts if one is not None)]
    verdict = trusted(whole.fewest, above(whole.difference, 0.0))
    estimates = [in_points(whole, verdict, at_least=0.0), *map(in_points, tests[1:])]
    return judged_by([verdict], _listed(tests), tests, estimates)


def block_diffusion_collapses(results: Results) -> Judged:
    diffusion = row_of(published.table2(), method="block_diffusion")
    fall = results.test("0.5B: Block Diffusion (B=4) minus AR SFT", diffusion, ar_sft("0.5B"))
    lead = results.test("0.5B: MARS (B=4) minus Block Diffusion (B=4)", mars("0.5B", 4), diffusion)
    if fall is None or lead is None:
        return NOTHING
    verdicts = [
        trusted(fall.fewest, below(fall.difference, -MARGIN)),
        trusted(lead.fewest, above(lead.difference, 0.0)),
    ]
    estimates = [
        in_points(fall, verdicts[0], at_most=-MARGIN),
        in_points(lead, verdicts[1], at_least=0.0),
    ]
    return judged_by(verdicts, _listed([fall, lead]), [fall, lead], estimates)


def jacobi_stays_near_one(results: Results) -> Judged:
    _, of_jacobi, of_ours = published.table9()
    jacobi, ours = results.speed(of_jacobi), results.speed(of_ours)
    if jacobi is None:
        return NOTHING
    tokens, trainings, fewest = jacobi
    beside = f", MARS (B=4) at tau = 0.95: {shown(ours[0])}" if ours else ""
    evidence = f"Jacobi on AR SFT: {shown(tokens)} tokens per forward{beside}"
    verdict = trusted(fewest, below(tokens, JACOBI))
    label, printed = "Jacobi on AR SFT", of_jacobi.scores["tokens_per_forward"][published.AVERAGE]
    estimates = [Estimate(label, TOKENS, tokens, verdict.word, at_most=JACOBI, published=printed)]
    if ours:
        printed = of_ours.scores["tokens_per_forward"][published.AVERAGE]
        estimates.append(Estimate("MARS (B=4), tau = 0.95", TOKENS, ours[0], published=printed))
    return judged_by([verdict], [evidence], estimates=estimates, trainings=[trainings])


def metric_hardly_matters(results: Results) -> Judged:
    """Accuracy of the metrics at equal speed, on the questions that all were run on."""
    run = results.run_of(mars("0.5B", 4))
    if run is None:
        return NOTHING
    models = seeds_of(str(run.model), results.evaluations.spec.models)
    trainings = [found for name in models if (found := tradeoffs(name, results.evaluations))]
    metrics = [name for name in (trainings[0] if trainings else {}) if name != "probability"]
    trainings = [one for one in trainings if {"probability", *metrics} <= one.keys()]
    verdicts, parts, estimates = [], [], []
    for metric in metrics if trainings else []:
        between = gap([(one[metric], one["probability"]) for one in trainings])
        if between is None:
            verdicts.append(OPEN)
            parts.append(f"{metric}: no speed in common with probability")
        else:
            fewest = min(one[metric].fewest for one in trainings)
            verdicts.append(trusted(fewest, within(between, MARGIN)))
            label = f"{metric} minus probability at equal speed"
            parts.append(f"{label}: {between} points")
            word = verdicts[-1].word
            estimates.append(Estimate(label, POINTS, between, word, -MARGIN, MARGIN))
    return judged_by(verdicts, parts, estimates=estimates, trainings=[len(trainings)])


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
    return judged_by(verdicts, parts)


def _listed(tests: Iterable[PairedTest]) -> list[str]:
    return [f"{test.comparison}: {test}" for test in tests]
