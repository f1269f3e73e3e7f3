"""Tables 5 and 6: every published row, ours beside it, what is beyond the paper said to be so."""

import csv
from dataclasses import asdict
from pathlib import Path

import pytest

from mars.config.experiment import load_experiment
from mars.paper.artefacts import ARTEFACTS
from mars.paper.tables.files import write
from mars.paper.tables.wall_clock import table5, table6
from mars.provenance.files import write_json, write_jsonl
from mars.speed.methods import Condition
from mars.speed.rounds import spread
from tests.support.printed_tables import printed

SHARED = {
    "hardware": {"processor": "a processor", "gpus": []},
    "versions": {"torch": "2"},
    "threads": 2,
    "gpu_driver": None,
    "precision": "float32",
    "repeats_agree": True,
    "sequences": 16,
}


@pytest.fixture
def plan():
    experiment = load_experiment(Path(__file__).resolve().parents[3] / "config/tiny.yaml")
    return lambda number: ARTEFACTS[f"table{number}"].stage.resolve(experiment)


def rows_of(output, number):
    with open(output / f"table{number}.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def timed(cell, rate, **more):
    """A record of mars.speed.timing: 100 tokens in five rounds, AR at 50 tokens per second."""
    rates = [rate * factor for factor in (0.9, 1.0, 1.0, 1.0, 1.1)]
    ratios = spread([one / 50 for one in rates])
    return {
        "condition": cell.full_name,
        "spec": {"cell": asdict(cell), "max_new_tokens": 64},
        "tokens_per_second": spread(rates),
        "seconds": spread([100 / one for one in rates]),
        "speedup_over": {"autoregressive": ratios, "hf": ratios},
        "tokens_per_forward": 1.5,
        "accuracy": {"value": 0.75, "stderr": 0.1},
        **SHARED,
        **more,
    }


@pytest.fixture
def sweep(tmp_path):
    folder = tmp_path / "speed" / "wall_clock"
    cells = [
        (Condition("autoregressive", 4), 50.0),
        (Condition("hf", 4), 25.0),
        (Condition("window", 4, 0.95), 20.0),
        (Condition("block_cache", 4, 0.95, 8), 80.0),
        (Condition("block_cache", 4, 0.95, 256), 40.0),
        (Condition("cursor", 4, 0.95), 100.0),
        (Condition("cursor", 32, 0.95), 900.0),  # for the heat map only
    ]
    skipped = Condition("hf-static", 4)
    rows = [
        {
            "condition": skipped.full_name,
            "spec": {"cell": asdict(skipped)},
            "skipped": "no GPU: a static cache is compiled",
        }
    ]
    for cell, rate in cells:
        more = {"timed_as": {"cache_block": 64}} if cell.cache_block == 256 else {}
        rows.append(timed(cell, rate, **more))
    write_jsonl(folder / "measurements.jsonl", rows)
    write_json(folder / "manifest.json", {"files": {}})
    return folder


def test_table_5_has_every_published_row_and_ours(sweep, plan, tmp_path):
    write(table5(plan(5), sweep), tmp_path)
    rows = rows_of(tmp_path, 5)
    of_batch = [row for row in rows if row["batch_size"] == "4"]
    assert {row["batch_size"] for row in rows} == {"4"}
    for line in printed(5).query("batch_size == 4").to_dict("records"):
        block = "n/a" if line["method"] != "MARS + block cache" else f"{line['cache_block']:.0f}"
        found = {
            row["quantity"]: row
            for row in of_batch
            if (row["row"], row["cache_block"]) == (line["method"], block)
        }
        for quantity in ("tokens_per_second", "seconds", "speedup_over_ar"):
            assert float(found[quantity]["published"]) == line[quantity]
    ours = {(row["row"], row["cache_block"], row["quantity"]): row for row in of_batch}
    best = ours["MARS + block cache", "8", "speedup_over_ar"]
    assert float(best["value"]) == pytest.approx(1.6)
    assert 0 < float(best["stderr"]) < 0.1
    # Student's t over five rounds: 2.776 standard errors, not 1.96.
    half = 2.776 * float(best["stderr"])
    assert float(best["lower"]) == pytest.approx(1.6 - half, abs=1e-3)
    assert float(best["upper"]) == pytest.approx(1.6 + half, abs=1e-3)
    assert (best["n"], best["record"]) == (
        "5",
        "wall_clock/measurements.jsonl: batch=4 block_cache tau=0.95 cache_block=8",
    )
    assert ours["MARS + block cache", "16", "seconds"]["value"] == "not run"
    assert ours["AR (KV cache)", "n/a", "speedup_over_ar"]["value"] == "1.0"
    cursor = next(key for key in ours if "cursor" in key[0])[0]
    assert "beyond the paper" in cursor
    accuracy = ours[cursor, "n/a", "accuracy"]
    assert (accuracy["value"], accuracy["n"], accuracy["setting"]) == ("75.0", "16", "tau-0.95")
    text = (tmp_path / "table5.md").read_text()
    for part in ("one-token mode", "Cache blocks of 256", "no GPU", "(5 per cell)", "a processor"):
        assert part in text


def test_another_scale_has_no_published_numbers_beside_it(sweep, plan, tmp_path):
    small = plan(5)
    (scale,) = small.scales
    small.scales[scale] = small.scales[scale].model_copy(update={"stands_for": "0.5B"})
    write(table5(small, sweep), tmp_path)
    assert {row["published"] for row in rows_of(tmp_path, 5)} == {"n/a"}
    assert "stands in for 0.5B" in (tmp_path / "table5.md").read_text()


def test_table_6_finds_its_rows_by_what_the_models_are(plan, tmp_path):
    folder = tmp_path / "speed" / "speculative"
    pairs = [("ar-small", "ar-large", 1.0), ("mars-b4-small", "mars-b4-large", 1.5)]
    for draft, target, speedup in pairs:
        record = {
            "draft": draft,
            "target": target,
            "tokens_per_second": spread([100.0 * speedup] * 5),
            "seconds": spread([1 / speedup] * 5),
            "speedup": spread([speedup] * 5),
            "tokens_per_target_forward": 3.5,
            "accuracy": {"value": 0.5, "stderr": 0.1},
            "delta": {"value": -0.125, "stderr": 0.05},
            "draft_tokens": 4,
            "tau": 0.95,
            "max_new_tokens": 64,
            **SHARED,
        }
        write_json(folder / f"{draft}--{target}.json", record)
    write(table6(plan(6), folder), tmp_path)
    rows = {(row["row"], row["quantity"]): row for row in rows_of(tmp_path, 6)}
    first, second, third = printed(6)[["draft", "target"]].agg(" -> ".join, axis=1)
    assert {label for label, _ in rows} == {first, second, third}
    assert rows[first, "speedup"]["value"] == "1.0"
    assert rows[second, "speedup"]["value"] == "not run"
    assert rows[third, "speedup"]["value"] == "1.5"
    assert rows[third, "gsm8k_delta"]["value"] == "-12.5"
    assert rows[third, "gsm8k_delta"]["published"] == "1.0"
    assert rows[third, "seconds"]["model"] == "mars-b4-large"


IN_VLLM = {
    "block_size": 4,
    "draft_tokens": 4,
    "changes": {"draft": ["config.json names the mask token, 3."], "target": []},
    "tokens": 400,
    "target_forwards": 125,
    "tokens_per_target_forward": 3.2,
    "tokens_per_second": spread([90.0, 100.0, 110.0]),
    "seconds": spread([4.4, 4.0, 3.6]),
    "speedup": spread([1.4, 1.5, 1.6]),
    "accuracy": {"value": 0.5, "stderr": 0.125},
    "equal_to_greedy": 16,
    "max_new_tokens": 64,
    "in_vllm": {"torch": "2.13.0", "vllm": "0.32.0"},
    **SHARED,
}


def test_rows_in_vllm_stand_apart_and_are_beyond_the_paper(tmp_path):
    base = Path(__file__).resolve().parents[3] / "config"
    overlay = tmp_path / "vllm.yaml"
    overlay.write_text(
        "speed: {vllm: {pairs: [{draft: mars-b4-small, target: ar-large},"
        " {draft: mars-b4-large, target: mars-b4-large}]}}"
    )
    spec, without = (
        ARTEFACTS["table6"].stage.resolve(load_experiment(base / "tiny.yaml", *further))
        for further in ([overlay], [])
    )
    speed = tmp_path / "speed"
    write_json(speed / "speculative/manifest.json", {"files": {}})
    write_json(speed / "vllm/manifest.json", {"files": {}})
    for pair in reversed(spec.in_vllm):
        write_json(speed / f"vllm/{pair.draft}--{pair.target}.json", pair.model_dump() | IN_VLLM)
    write(table6(spec, speed / "speculative", speed / "vllm"), tmp_path)
    there = [row for row in rows_of(tmp_path, 6) if row["engine"] == "vLLM"]
    assert list(dict.fromkeys(row["row"] for row in there)) == [
        "mars-b4-small -> ar-large in vLLM (beyond the paper)",
        "mars-b4-large -> mars-b4-large in vLLM (beyond the paper)",
    ]
    assert {row["published"] for row in there} == {"n/a"}
    found = {row["quantity"]: row for row in there if row["model"] == "ar-large"}
    assert float(found["speedup_over_ar"]["value"]) == 1.5
    assert float(found["tokens_per_target_forward"]["value"]) == 3.2
    assert float(found["percent_equal_to_greedy"]["value"]) == 100
    assert found["seconds"]["record"] == "vllm/mars-b4-small--ar-large.json"
    page = (tmp_path / "table6.md").read_text()
    assert "16 of 16" in page
    assert "vLLM 0.32.0" in page

    here = [row["row"] for row in rows_of(tmp_path, 6) if row["engine"] != "vLLM"]
    write(table6(without, speed / "speculative"), tmp_path)
    alone = rows_of(tmp_path, 6)
    assert [row["row"] for row in alone] == here
    assert "engine" not in alone[0]
    assert "vLLM" not in (tmp_path / "table6.md").read_text()
