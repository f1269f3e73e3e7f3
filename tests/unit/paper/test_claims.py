"""Verdicts on the claims: each rule by made-up results that decide it one way and the other."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from mars.checkpoints.describe import describe
from mars.paper.claims.claims import CLAIMS, Results
from mars.paper.claims.report import short, write_claims
from mars.paper.claims.significance import (
    FAILS,
    FEWEST,
    FLOOR,
    HOLDS,
    MARGIN,
    UNDECIDED,
    Interval,
    PairedTest,
    above,
    below,
    combined,
    no_worse,
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


@given(st.floats(-10, 10), st.floats(0, 5), st.floats(-10, 10))
def test_an_interval_above_a_bound_is_not_below_it(value, half, bound):
    interval = Interval(value, value - half, value + half)
    up, down = above(interval, bound), below(interval, bound)
    assert {HOLDS: FAILS, FAILS: HOLDS, UNDECIDED: UNDECIDED}[up] == down or bound in (
        interval.lower,
        interval.upper,
    )


def a_test(lower, upper, fewest=FEWEST, reference=FLOOR):
    middle = (lower + upper) / 2
    return PairedTest(
        "x", ["GSM8K"], fewest, fewest, reference, Interval(middle, lower, upper), 1, 1, 1.0
    )


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
    assert no_worse(test) == verdict


@given(st.lists(st.sampled_from([HOLDS, FAILS, UNDECIDED]), max_size=4))
def test_the_worst_part_decides(verdicts):
    word = combined(verdicts)
    assert word == combined(reversed(verdicts))
    assert (word == HOLDS) == (bool(verdicts) and set(verdicts) == {HOLDS})
    assert (word == FAILS) == (FAILS in verdicts)
    assert (word == NOT_RUN) == (not verdicts)


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


def line(row, quantity, value, stderr="0.01", **more):
    return {"row": row, "quantity": quantity, "value": value, "stderr": stderr, **more}


@pytest.mark.parametrize(
    ("best_at_16", "verdict"), [("1.34", HOLDS), ("0.9", FAILS), ("1.01", UNDECIDED)]
)
def test_claim_5_block_cache(best_at_16, verdict):
    row, quantity = "MARS + block cache", "speedup_over_ar"
    table = [
        line(row, quantity, "1.7", batch_size="4", cache_block="32"),
        line(row, quantity, "0.2", batch_size="16", cache_block="4"),
        line(row, quantity, best_at_16, batch_size="16", cache_block="8"),
        line(row, quantity, "not run", "not run", batch_size="8", cache_block="8"),
        line(row, "accuracy", "0.1", batch_size="4", cache_block="32"),
        line("MARS + cursor cache", quantity, "9.9", batch_size="16", cache_block="n/a"),
    ]
    judged = Made().judge(5, tables={"table5": table})
    assert judged.verdict == verdict
    assert "1.70" in judged.evidence
    assert "9.9" not in judged.evidence


def policy(latency, rate, wobble=0.0):
    requests = [
        {"arrival": t, "start": t, "end": t + latency + wobble * (t % 3 - 1)} for t in range(60)
    ]
    busy = {"time": 1.0, "tau": 1.0, "queue": 3, "active": 4, "tokens_per_second": rate}
    return {
        "requests": requests,
        "timeline": [busy, {**busy, "active": 1, "tokens_per_second": 10_000.0}],
        "latency": {"median": latency},
        "accuracy": 0.5,
        "slots": 4,
    }


@pytest.mark.parametrize(
    ("latency", "rate", "verdict"),
    [(1.0, 150.0, HOLDS), (3.0, 150.0, FAILS), (1.0, 90.0, FAILS), (2.01, 150.0, UNDECIDED)],
)
def test_claim_6_live_tau(latency, rate, verdict):
    served = {"tau-1": policy(2.0, 100.0), "adaptive": policy(latency, rate, wobble=0.3)}
    judged = Made().judge(6, live_tau=served)
    assert judged.verdict == verdict
    assert f"{rate:.1f} against 100.0" in judged.evidence


@pytest.mark.parametrize(("last", "verdict"), [("1.4", HOLDS), ("0.9", FAILS)])
def test_claim_7_speculative_decoding(last, verdict):
    table = [
        line("AR SFT (0.5B) -> AR SFT (7B)", "speedup", "1"),
        line("AR SFT (0.5B) -> MARS (7B B=4)", "speedup", "1.2"),
        line("MARS (0.5B, B=4) -> MARS (7B, B=4)", "speedup", last),
    ]
    assert Made().judge(7, tables={"table6": table}).verdict == verdict


def test_a_speed_up_of_a_single_round_decides_nothing():
    once = line("MARS + block cache", "speedup_over_ar", "1.7", "n/a")
    table = [{**once, "batch_size": "4", "cache_block": "32"}]
    assert Made().judge(5, tables={"table5": table}).verdict == UNDECIDED


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
    assert {claim["verdict"] for claim in written[4:7]} == {NOT_RUN}
    shown = short(tmp_path / "claims.json", 80)
    assert max(map(len, shown.splitlines())) <= 80
    for claim in written:
        assert f"{claim['number']:>2}  {claim['verdict']}" in shown


def test_the_claims_spec_names_what_they_compare():
    spec = experiment()
    kept = selection(claimed_rows(), spec)
    assert set(kept.models) == set(spec.models) - {"m1", "m9"}
