"""Figure 1, the heat map and the live tau show what they were given."""

from __future__ import annotations

import random
import re
from html import unescape
from pathlib import Path

import pandas as pd
import pytest

from mars.config.experiment import Benchmark
from mars.errors import UserError
from mars.paper.figures import generation, heat_map, live_tau
from mars.paper.figures.decoded_example import choose
from mars.provenance.files import read_json, write_json

BENCHMARK = Benchmark(task="x", title="x", dataset="x/x", metric="exact_match")


def example(**changes):
    runs = [("In April", 2), (" she sold <48> clips & more.\n", 4), ("It is", 1), (" $72.", 2)]
    return {
        "question": "How many?",
        "runs": [{"text": text, "tokens": tokens} for text, tokens in runs] + [end()],
        "tokens": 10,
        "forwards": 5,
        "finish": "eos",
        "correct": True,
        "rule": "the first one",
        "as_evaluated": True,
        **changes,
    }


def end():
    return {"text": "", "tokens": 1}


def answer(tokens: int, score: int) -> dict:
    return {"tokens": tokens, "scores": {"none": {"exact_match": score}}}


def test_the_answer_shown_is_the_first_correct_one_of_median_length():
    samples = [answer(*pair) for pair in ((9, 0), (30, 1), (20, 1), (20, 1), (10, 1), (5, 0))]
    chosen, rule = choose(samples, BENCHMARK)
    assert chosen is samples[2]
    assert "4 correct answers" in rule


def test_without_a_correct_answer_the_rule_says_so():
    samples = [answer(tokens, 0) for tokens in (7, 3, 5)]
    chosen, rule = choose(samples, BENCHMARK)
    assert chosen["tokens"] == 5
    assert "none is correct" in rule
    with pytest.raises(UserError, match="no samples"):
        choose([], BENCHMARK)


def test_figure_1_shades_each_forward_in_turn(tmp_path: Path):
    generation.draw(example(), "A caption.", tmp_path)
    page = (tmp_path / "figure1.html").read_text()
    found = re.findall(r'<span class="forward (\w)" title="(\d+) tokens?">(.*?)</span>', page, re.S)
    texts = [unescape(text).replace("↵", "") for _, _, text in found]
    assert texts == ["In April", " she sold <48> clips & more.\n", "It is", " $72.", "■"]
    assert [shade for shade, *_ in found] == list("ababa")
    assert [int(tokens) for _, tokens, _ in found] == [2, 4, 1, 2, 1]
    assert "10 tokens in 5 forwards: 2.00 per forward" in page
    assert read_json(tmp_path / "figure1.json") == example()
    for suffix in ("pdf", "png"):
        assert (tmp_path / f"figure1.{suffix}").stat().st_size > 5_000


def test_figure_1_says_when_it_differs_from_the_evaluation():
    assert "differs" not in generation.fragment(example())
    assert "differs" in generation.fragment(example(as_evaluated=False))


def test_long_answers_are_wrapped_without_losing_a_letter():
    draw = random.Random(0)
    words = ["".join(draw.choices("abc", k=draw.randint(1, 200))) for _ in range(40)]
    text = "".join(word + draw.choice([" ", "  ", "\n"]) for word in words)
    letters = list(generation._wrapped([(text[:99], "x"), (text[99:], None)]))
    assert "".join(letter for _, _, letter, _ in letters).replace("↵", "\n") == text
    assert max(column for _, column, *_ in letters) < generation.COLUMNS
    places = [(row, column) for row, column, *_ in letters]
    assert len(set(places)) == len(places)
    assert [shade for *_, shade in letters[98:100]] == ["x", None]


@pytest.fixture
def summary(tmp_path: Path) -> Path:
    draw = random.Random(1)
    methods = [("autoregressive", None), ("window", None), ("cursor", None)]
    methods += [("block_cache", block) for block in (64, 4, 16)] + [("block_cache-authors", 32)]
    rows = [
        {"method": method, "batch": batch, "cache_block": block, **ratio}
        for batch in (1, 8)
        for method, block in methods
        for ratio in [{"speedup_over_autoregressive": draw.uniform(0.3, 2)}]
    ]
    rows[0]["speedup_over_autoregressive"] = None
    pd.DataFrame(rows).to_csv(tmp_path / "summary.csv", index=False)
    return tmp_path / "summary.csv"


def test_the_heat_map_has_every_measured_speed_up(summary: Path):
    heat_map.draw(summary, summary.parent)
    drawn = pd.read_csv(summary.parent / "heat_map.csv", index_col="line")
    authors = "block cache, the authors' window (A5) 32"
    blocks = [f"block cache {size}" for size in (4, 16, 64)]
    assert list(drawn.index) == ["MARS (no cache)", *blocks, authors, "cursor cache"]
    names = {"window": "MARS (no cache)", "cursor": "cursor cache", "block_cache-authors": authors}
    for row in pd.read_csv(summary).to_dict("records"):
        if row["method"] != "autoregressive":
            line = names.get(row["method"]) or f"block cache {row['cache_block']:.0f}"
            value = drawn.loc[line, str(row["batch"])]
            assert value == pytest.approx(row["speedup_over_autoregressive"])


def test_a_sweep_without_its_baseline_is_refused(summary: Path):
    rows = pd.read_csv(summary).assign(speedup_over_autoregressive=float("nan"))
    rows.to_csv(summary, index=False)
    with pytest.raises(UserError, match="no speed-up"):
        heat_map.draw(summary, summary.parent)


def served(policy: str) -> dict:
    draw = random.Random(policy)
    arrivals = sorted(draw.uniform(0, 20) for _ in range(30))
    ends = [arrival + draw.uniform(0.5, 3) for arrival in arrivals]
    timeline = [
        {"time": second, "tau": draw.uniform(0.5, 1), "queue": draw.randint(0, 5)}
        for second in range(24)
    ]
    requests = [{"arrival": a, "end": e} for a, e in zip(arrivals, ends, strict=True)]
    latency = {"median": 1.5, "p95": 2.9}
    return {"policy": policy, "requests": requests, "timeline": timeline, "latency": latency}


def test_the_live_tau_needs_all_three_policies(tmp_path: Path):
    for policy in ("tau-1", "tau-low"):
        write_json(tmp_path / f"{policy}.json", served(policy))
    with pytest.raises(UserError, match=r"adaptive\.json does not exist"):
        live_tau.draw(tmp_path, tmp_path)
    write_json(tmp_path / "adaptive.json", served("adaptive"))
    for file in live_tau.draw(tmp_path, tmp_path):
        assert file.stat().st_size > 10_000
