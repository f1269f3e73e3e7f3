"""Verdicts on the claims: each rule by made-up results that decide it one way and the other."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy import stats

from mars.checkpoints.describe import describe
from mars.paper import published
from mars.paper.claims.claims import CLAIMS
from mars.paper.claims.intervals import Interval, Uncertain
from mars.paper.claims.report import short, write_claims
from mars.paper.claims.results import Results, row_of
from mars.paper.claims.significance import (
    FEWEST,
    FLOOR,
    MARGIN,
    BenchmarkTest,
    PairedTest,
    no_worse,
)
from mars.paper.claims.verdicts import (
    FAILS,
    HOLDS,
    UNDECIDED,
    Verdict,
    above,
    below,
    combined,
    holm,
    within,
)
from mars.paper.evaluations import EvaluationKey, Evaluations, selection
from mars.paper.stage import claimed_rows
from mars.paper.tables.table import NOT_RUN
from mars.provenance.files import read_json
from tests.support.synthetic_evaluations import (
    SWEEP,
    evaluations,
    experiment,
    model,
    record,
    samples,
    speed,
)

N = 200


class Made:
    """Results made up answer by answer."""

    def __init__(self):
        self.spec = experiment()
        self.spec.models["bd"] = model("small", "block_diffusion", block_size=4)
        self.records, self.samples = {}, {}

    def answer(self, name, setting, right, keys=None, tokens=20, forwards=10, n=N):
        """Let a model have the first ``right`` of ``n`` questions of each benchmark right."""
        for key in keys or self.spec.benchmarks:
            found = samples([int(index < right) for index in range(n)])
            for row in found:
                row |= {"tokens": tokens, "forwards": forwards}
            scores = [row["scores"]["none"]["exact_match"] for row in found]
            evaluated = EvaluationKey(name, setting, key)
            self.records[evaluated] = record(scores, speed(found))
            self.samples[evaluated] = found
        return self

    def judge(self, number, **more):
        results = Results(Evaluations(self.spec, self.records, self.samples), **more)
        return CLAIMS[number - 1].judge(results)


def test_nothing_run_is_not_run():
    assert len(CLAIMS) == 10
    for number in range(1, 11):
        assert Made().judge(number).verdict == NOT_RUN


# --- the words for intervals --------------------------------------------------------------------


def between(lower, upper):
    middle = (lower + upper) / 2
    return Interval(middle, lower, upper, np.linspace(lower, upper, 101))


@given(st.floats(-10, 10), st.floats(0, 5), st.floats(-10, 10))
def test_an_interval_above_a_bound_is_not_below_it(value, half, bound):
    interval = between(value - half, value + half)
    up, down = above(interval, bound), below(interval, bound)
    opposite = {HOLDS: FAILS, FAILS: HOLDS, UNDECIDED: UNDECIDED}
    assert opposite[up.word] == down.word or bound in (interval.lower, interval.upper)
    for found in (up, down):
        assert (found.p == 1) or found.word != UNDECIDED


@given(st.floats(-3, 3), st.floats(0.1, 2), st.floats(-3, 3))
def test_a_verdict_has_the_p_value_of_its_interval(value, stderr, bound):
    """Decided at 95 % is decided with p of at most 0.05, up to the number of draws."""
    interval = Uncertain(value, stderr).interval()
    for found in (above(interval, bound), below(interval, bound), within(interval, abs(bound))):
        assert found.word == UNDECIDED or 0 < found.p <= 0.051
    expected = 2 * stats.norm.sf(abs(value - bound) / stderr)
    if expected < 0.049:
        assert above(interval, bound).p == pytest.approx(expected, abs=1e-3)


def a_test(lower, upper, fewest=FEWEST, reference=FLOOR):
    interval = between(lower, upper)
    part = BenchmarkTest("GSM8K", fewest, interval, 1, 1, 1.0, 1.0)
    return PairedTest("x", 1, reference, interval, [part])


@pytest.mark.parametrize(
    ("test", "verdict"),
    [
        (a_test(-MARGIN, 1), HOLDS),
        (a_test(-MARGIN, -0.1), HOLDS),
        (a_test(-MARGIN - 0.01, 1), UNDECIDED),
        (a_test(-9, -MARGIN), UNDECIDED),
        (a_test(-9, -MARGIN - 0.01), FAILS),
        (a_test(0, 1, fewest=FEWEST - 1), UNDECIDED),
        (a_test(-9, -5, fewest=FEWEST - 1), UNDECIDED),
        (a_test(0, 0, reference=FLOOR - 0.01), UNDECIDED),
        (a_test(0, 0, reference=None), UNDECIDED),
    ],
)
def test_no_loss(test, verdict):
    assert no_worse(test).word == verdict


@given(st.floats(-10, 10), st.floats(0, 5), st.floats(0, 10))
def test_within_a_margin_is_above_its_lower_and_below_its_upper_end(value, half, margin):
    interval = between(value - half, value + half)
    parts = above(interval, -margin), below(interval, margin)
    assert within(interval, margin).word == combined(parts).word


@given(st.lists(st.tuples(st.sampled_from([HOLDS, FAILS, UNDECIDED]), st.floats(0, 1)), max_size=4))
def test_the_worst_part_decides(parts):
    parts = [Verdict(*part) for part in parts]
    found, words = combined(parts), {part.word for part in parts}
    assert found == combined(reversed(parts))
    assert (found.word == HOLDS) == (words == {HOLDS})
    assert (found.word == FAILS) == (FAILS in words)
    assert (found.word == NOT_RUN) == (not parts)
    if found.word == HOLDS:
        assert found.p == max(part.p for part in parts)
    if found.word == FAILS:
        assert found.p >= min(part.p for part in parts if part.word == FAILS)


# --- claim by claim -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mars", "verdict"), [(120, HOLDS), (100, HOLDS), (97, UNDECIDED), (80, FAILS)]
)
def test_claim_1_one_token_mode(mars, verdict):
    made = Made().answer("m2", "plain", 100).answer("m4", "plain", mars)
    judged = made.judge(1)
    assert judged.verdict == verdict
    (test,) = judged.tests
    assert test.difference.value == pytest.approx((mars - 100) / N * 100)
    assert f"{test.difference.value:+.1f}" in judged.evidence


def test_a_verdict_speaks_of_the_trainings_that_it_knows():
    """Three trainings of which one gains and two lose say less than one that gains."""
    once = Made().answer("m2", "plain", 100).answer("m4", "plain", 120)
    assert (once.judge(1).verdict, once.judge(1).trainings) == (HOLDS, 1)
    for seed, right in ((1, 90), (2, 100)):
        for name in ("m2", "m4"):
            again = once.spec.models[name].model_copy(update={"seed_of": name})
            once.spec.models[f"{name}-{seed}"] = again
        once.answer(f"m2-{seed}", "plain", 100).answer(f"m4-{seed}", "plain", right)
    several = once.judge(1)
    assert (several.verdict, several.trainings) == (UNDECIDED, 3)
    assert "3 trainings" in several.evidence
    shown_only = once.answer("m3", "plain", 150).judge(1)  # AR SFT of twice the epochs, once
    assert (len(shown_only.tests), shown_only.trainings) == (2, 3)


def test_claim_1_is_not_decided_by_the_doubled_ar_sft():
    made = Made().answer("m2", "plain", 100).answer("m3", "plain", 150).answer("m4", "plain", 110)
    judged = made.judge(1)
    assert judged.verdict == HOLDS
    assert [round(test.difference.value) for test in judged.tests] == [5, -20]


@pytest.mark.parametrize(
    ("right", "tokens", "verdict"),
    [(100, 20, HOLDS), (100, 14, FAILS), (60, 20, FAILS), (97, 20, UNDECIDED)],
)
def test_claim_2_several_tokens(right, tokens, verdict):
    made = Made().answer("m4", "plain", 100).answer("m4", "fast", right, tokens=tokens)
    judged = made.judge(2)
    assert judged.verdict == verdict
    assert f"{tokens / 10:.2f}" in judged.evidence


def test_claim_2_is_judged_by_tokens_that_count_and_shown_beside_the_authors_count():
    """1.40 tokens per forward, and 1.50 with those accepted after the end of an answer (A2, C6)."""
    made = Made().answer("m4", "plain", 100).answer("m4", "fast", 100, tokens=14)
    for key in made.spec.benchmarks:
        for row in made.samples["m4", "fast", key]:
            row["overrun"] = 1
    judged = made.judge(2)
    assert judged.verdict == FAILS
    assert "1.40 [1.40, 1.40] tokens per forward" in judged.evidence
    assert "1.50 [1.50, 1.50] as the authors count (holds)" in judged.evidence


@pytest.mark.parametrize(
    ("large", "large_without", "verdict"), [(100, 60, HOLDS), (60, 100, FAILS), (100, 100, HOLDS)]
)
def test_claim_3_sft_loss(large, large_without, verdict):
    made = Made().answer("m4", "plain", 100).answer("m5", "plain", 100)
    made.answer("m7", "plain", large).answer("m8", "plain", large_without)
    judged = made.judge(3)
    assert judged.verdict == verdict
    assert judged.tests[0].difference.value == pytest.approx((large - large_without) / N * 100)


@pytest.mark.parametrize(
    ("diffusion", "mars", "verdict"), [(40, 100, HOLDS), (100, 100, FAILS), (40, 20, FAILS)]
)
def test_claim_4_block_diffusion(diffusion, mars, verdict):
    made = Made().answer("m2", "plain", 100).answer("m4", "plain", mars)
    assert made.answer("bd", "plain", diffusion).judge(4).verdict == verdict


def line(row, quantity, value, half="0.02", rounds=5, **more):
    """A line of a table of times, whose 95 % interval is ``half`` wide on either side."""
    single = half in ("n/a", "not run")
    error = half if single else str(float(half) / stats.t.ppf(0.975, rounds - 1))
    found = {"row": row, "quantity": quantity, "value": value, "stderr": error, "n": str(rounds)}
    return {**found, "published": "n/a", **more}


def cached(value, batch="4", block="32", **more):
    row = "MARS + block cache"
    return [
        line(row, f"speedup_over_{over}", number, batch_size=batch, cache_block=block, **more)
        for over, number in zip(("ar", "hf"), value, strict=True)
    ]


@pytest.mark.parametrize(
    ("over_ar", "over_hf", "verdict"),
    [
        ("1.34", "2.1", HOLDS),
        ("0.9", "1.5", FAILS),
        ("1.5", "0.9", FAILS),
        ("1.01", "2.1", UNDECIDED),
    ],
)
def test_claim_5_block_cache(over_ar, over_hf, verdict):
    table = [
        *cached(("1.7", "2.4")),
        *cached((over_ar, over_hf), batch="16"),
        *cached(("not run", "not run"), batch="8", half="not run"),
        line("MARS + block cache", "accuracy", "0.1", batch_size="4", cache_block="32"),
        line("MARS + cursor cache", "speedup_over_ar", "9.9", batch_size="16", cache_block="n/a"),
    ]
    judged = Made().judge(5, tables={"table5": table}, cache_block=32)
    assert judged.verdict == verdict
    assert "cache block 32: over AR decoding in our engine 1.70 [1.68, 1.72] at batch 4" in (
        judged.evidence
    )
    assert "over `generate` of transformers 2.40" in judged.evidence
    assert "9.9" not in judged.evidence


def test_claim_5_is_judged_by_the_cache_block_that_was_chosen_not_by_the_luckiest():
    table = [*cached(("0.9", "0.9")), *cached(("1.5", "1.5"), block="8")]
    assert Made().judge(5, tables={"table5": table}, cache_block=32).verdict == FAILS
    assert Made().judge(5, tables={"table5": table}, cache_block=8).verdict == HOLDS
    assert Made().judge(5, tables={"table5": table}, cache_block=16).verdict == NOT_RUN


def test_a_speed_up_is_judged_by_students_interval_over_rounds():
    """Three rounds of 1.02, 1.05, 1.08: two standard errors are 0.03, Student's interval 0.07."""
    table = cached(("1.05", "1.05"), half="0.0745", rounds=3)
    judged = Made().judge(5, tables={"table5": table}, cache_block=32)
    assert judged.verdict == UNDECIDED
    assert "[0.98, 1.12]" in judged.evidence


def served_trace(latency, rate):
    busy = {"time": 1.0, "tau": 1.0, "queue": 3, "active": 4, "tokens_per_second": rate}
    return {
        "requests": [{"arrival": t, "start": t, "end": t + latency} for t in range(60)],
        "timeline": [busy, {**busy, "active": 1, "tokens_per_second": 10_000.0}],
        "accuracy": 1 / latency,
    }


def policy(latency, rate, traces=5, wobble=0.0):
    """Traces that differ by ``wobble`` to either side of what is given on average."""
    factors = np.linspace(1 - wobble, 1 + wobble, traces)
    first, *others = [served_trace(latency * factor, rate / factor) for factor in factors]
    return {**first, "further_traces": others, "slots": 4}


@pytest.mark.parametrize(
    ("latency", "rate", "verdict"),
    [(1.0, 150.0, HOLDS), (3.0, 150.0, FAILS), (1.0, 50.0, FAILS), (1.9, 150.0, UNDECIDED)],
)
def test_claim_6_live_tau(latency, rate, verdict):
    served = {"tau-1": policy(2.0, 100.0), "adaptive": policy(latency, rate, wobble=0.2)}
    judged = Made().judge(6, live_tau=served)
    assert judged.verdict == verdict
    assert "5 traces of 60 requests" in judged.evidence
    assert "while all slots are busy" in judged.evidence
    factors = np.linspace(0.8, 1.2, 5)
    assert f"accuracy {np.mean(100 / latency / factors):.1f} % against 50.0 %" in judged.evidence


@pytest.mark.parametrize("traces", [1, 4])
def test_claim_6_takes_five_traces(traces):
    """One trace is one observation, however many requests wait for each other in it."""
    served = {name: policy(2.0, 100.0, traces) for name in ("tau-1", "adaptive")}
    served["adaptive"] = policy(1.0, 150.0, traces)
    judged = Made().judge(6, live_tau=served)
    assert judged.verdict == UNDECIDED
    assert f"{'one trace' if traces == 1 else '4 traces'} of 60 requests" in judged.evidence
    assert "(a verdict takes 5)" in judged.evidence
    assert "1.50 [" in judged.evidence


def test_claim_6_reads_a_record_of_a_single_trace():
    served = {
        "tau-1": {**served_trace(2.0, 100.0), "slots": 4, "accuracy": None},
        "adaptive": {**served_trace(1.0, 150.0), "slots": 4, "accuracy": None},
    }
    judged = Made().judge(6, live_tau=served)
    assert judged.verdict == UNDECIDED
    assert judged.evidence.startswith("one trace of 60 requests")


@pytest.mark.parametrize(("last", "verdict"), [("1.4", HOLDS), ("0.9", FAILS)])
def test_claim_7_speculative_decoding(last, verdict):
    table = [
        line("AR SFT (0.5B) -> AR SFT (7B)", "speedup", "1"),
        line("AR SFT (0.5B) -> MARS (7B B=4)", "speedup", "1.2"),
        line("MARS (0.5B, B=4) -> MARS (7B, B=4)", "speedup", last),
    ]
    assert Made().judge(7, tables={"table6": table}).verdict == verdict


def test_a_speed_up_of_a_single_round_decides_nothing():
    table = cached(("1.7", "1.7"), half="n/a")
    assert Made().judge(5, tables={"table5": table}, cache_block=32).verdict == UNDECIDED


@pytest.mark.parametrize(("tokens", "verdict"), [(21, HOLDS), (30, FAILS)])
def test_claim_8_jacobi(tokens, verdict):
    made = Made().answer("m2", "jacobi", 50, keys=["gsm8k"], tokens=tokens, forwards=20)
    judged = made.judge(8)
    assert judged.verdict == verdict
    assert f"{tokens / 20:.2f}" in judged.evidence


def swept(entropy_right):
    """Probability: accuracy falls from 60 % to 20 % as speed rises; entropy at the same speeds."""
    made = Made().answer("m4", "plain", 120)
    for step, tau in enumerate(SWEEP):
        made.answer("m4", f"tau{tau}", 120 - 20 * step, ["gsm8k"], 20 + 4 * step)
    for step, threshold in ((1, 0.2), (2, 0.4), (3, 0.8)):
        right = entropy_right(120 - 20 * step)
        made.answer("m4", f"entropy{threshold}", right, ["gsm8k"], 20 + 4 * step)
    return made


@pytest.mark.parametrize(
    ("change", "verdict"), [(lambda right: right, HOLDS), (lambda right: right - 30, FAILS)]
)
def test_claim_9_metrics_at_equal_speed(change, verdict):
    judged = swept(change).judge(9)
    assert judged.verdict == verdict
    gap = (change(80) - 80) / N * 100
    assert f"entropy minus probability at equal speed: {gap:+.1f}" in judged.evidence


def test_claim_9_compares_no_speeds_that_one_metric_does_not_reach():
    made = swept(lambda right: right)
    for threshold in (0.2, 0.4, 0.8):
        made.answer("m4", f"entropy{threshold}", 100, ["gsm8k"], tokens=90)
    judged = made.judge(9)
    assert judged.verdict == UNDECIDED
    assert "no speed in common" in judged.evidence


def test_claim_9_is_not_decided_by_a_few_questions():
    few = swept(lambda right: right)
    few.samples = {cell: answers[:20] for cell, answers in few.samples.items()}
    assert few.judge(9).verdict == UNDECIDED


def checkpoint(folder, width=8, **config):
    folder.mkdir()
    weights = {"a.weight": torch.zeros(width, 4), "b.bias": torch.zeros(3)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    content = {"architectures": ["Qwen2ForCausalLM"], "dtype": "float32", **config}
    (folder / "config.json").write_text(json.dumps(content))
    return describe(folder)


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [({}, HOLDS), ({"dtype": "bfloat16"}, HOLDS), ({"width": 9}, FAILS), ({"layers": 3}, FAILS)],
)
def test_claim_10_parameters_and_interface(tmp_path, changed, verdict):
    ar, mars = checkpoint(tmp_path / "ar"), checkpoint(tmp_path / "mars", **changed)
    assert ar["parameters"] == 8 * 4 + 3
    made = Made().answer("m2", "plain", 9).answer("m4", "plain", 9)
    judged = made.judge(10, checkpoints={"m2": ar, "m4": mars})
    assert judged.verdict == verdict
    assert f"{mars['parameters']}" in judged.evidence


# --- files --------------------------------------------------------------------------------------


def test_the_files_say_every_verdict_and_its_rule(tmp_path):
    spec = experiment()
    evaluated = Evaluations(spec, *evaluations(spec, 0, n=40))
    write_claims(Results(evaluated), tmp_path)
    written = read_json(tmp_path / "claims.json")
    text = (tmp_path / "claims.md").read_text()
    assert [claim["number"] for claim in written] == list(range(1, 11))
    for claim in written:
        assert claim["verdict"] in (HOLDS, FAILS, UNDECIDED, NOT_RUN)
        assert claim["rule"] in text
        assert claim["claim"] in text
        assert "absolute numbers are not reproduced" in claim["caveat"]
        for test in claim["tests"]:
            assert test["questions"] == 240
            assert math.isfinite(test["difference"]["lower"])
            assert len(test["benchmarks"]) == 6
            for part in test["benchmarks"]:
                assert f"| {part['title']} | 40 | {part['difference']['value']:+.1f} |" in text
    assert {claim["verdict"] for claim in written[4:7]} == {NOT_RUN}
    assert {claim["scope"] for claim in written[:4]} == {"", "of this training"}
    assert "** of this training" in text
    tested = [claim for claim in written if claim["p"] is not None]
    assert {claim["number"] for claim in tested} == {1, 2, 3, 8, 9}
    assert [claim["p_holm"] for claim in tested] == holm([claim["p"] for claim in tested])
    shown = short(tmp_path / "claims.json", 80)
    assert shown.endswith("speaks of this training.")
    assert max(map(len, shown.splitlines())) <= 80
    for claim in written:
        assert f"{claim['number']:>2}  {claim['verdict']}" in shown


def test_a_verdict_that_falls_to_the_number_of_claims_is_named(tmp_path):
    """Claim 1 is decided by itself, narrowly; among five tested claims it is not."""
    made = Made().answer("m2", "plain", 100).answer("m2", "jacobi", 100, tokens=11)
    made.answer("m4", "plain", 100).answer("m4", "fast", 100, tokens=20)
    for key in made.spec.benchmarks:  # ten lost and ten gained
        for index, row in enumerate(made.samples["m4", "plain", key]):
            row["scores"]["none"]["exact_match"] = int(10 <= index < 110)
    write_claims(Results(Evaluations(made.spec, made.records, made.samples)), tmp_path)
    written = read_json(tmp_path / "claims.json")
    first, eighth = written[0], written[7]
    assert (first["verdict"], eighth["verdict"]) == (HOLDS, HOLDS)
    assert first["p"] <= 0.05 < first["p_holm"]
    assert eighth["p_holm"] <= 0.05
    text = (tmp_path / "claims.md").read_text()
    assert "these stand at 95 % all together: 8" in text
    assert "; these do not: 1" in text


def test_the_claims_spec_names_what_they_compare():
    spec = experiment()
    kept = selection(claimed_rows(), spec)
    assert set(kept.models) == set(spec.models) - {"m1", "m9"}


# --- what plots draw ----------------------------------------------------------------------------


def by_rule(estimate):
    """The verdict on one number alone, by the bounds that its plot has."""
    floor, ceiling = estimate.at_least, estimate.at_most
    if floor is not None and ceiling is not None:
        return within(estimate.interval, ceiling).word
    if floor is not None:
        return above(estimate.interval, floor).word
    return below(estimate.interval, ceiling).word if ceiling is not None else ""


def test_a_plot_has_the_numbers_that_decide_and_their_bounds():
    """Its numbers give the verdict again; what decides nothing has no bound."""
    made = Made()
    made.answer("m2", "plain", 150).answer("m4", "plain", 150).answer("bd", "plain", 90)
    made.answer("m4", "fast", 148, tokens=20)
    served = {"tau-1": policy(2.0, 100.0), "adaptive": policy(1.0, 150.0, wobble=0.2)}
    tables = {"table5": cached(("1.2", "0.9"), published="1.71")}
    judged = {n: made.judge(n, live_tau=served, tables=tables, cache_block=32) for n in range(1, 8)}
    run = {number: one for number, one in judged.items() if one.verdict != NOT_RUN}
    assert {1, 2, 4, 5, 6} <= run.keys()
    for one in run.values():
        words = [by_rule(estimate) for estimate in one.estimates]
        assert words == [estimate.verdict for estimate in one.estimates]
        assert combined([Verdict(word, 0.01) for word in words if word]).word == one.verdict
        assert {test.difference for test in one.tests} <= {e.interval for e in one.estimates}
    assert [one.published for one in run[5].estimates] == [1.71, 1.71]


def test_the_papers_number_is_over_the_benchmarks_that_were_run():
    diffusion, ar = (row_of(published.table2(), method=m) for m in ("block_diffusion", "ar_sft"))
    titles = [*published.BENCHMARKS]
    whole = published.change_of_accuracy([(diffusion, 1), (ar, -1)], titles)
    assert whole == pytest.approx(22.8 - 28.7, abs=0.1)
    one = published.change_of_accuracy([(diffusion, 1), (ar, -1)], ["GSM8K"])
    assert one == pytest.approx(30.6 - 32.0)
    assert published.change_of_accuracy([(diffusion, 1)], ["GSM8K", "of mine"]) is None
    made = Made().answer("m2", "plain", 100, ["gsm8k"]).answer("bd", "plain", 100, ["gsm8k"])
    made.answer("m4", "plain", 100, ["gsm8k"])
    assert made.judge(4).estimates[0].published == one
