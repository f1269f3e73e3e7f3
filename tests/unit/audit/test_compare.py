"""Times count for nothing, rounding for little; anything else is named where it differs first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from mars.audit.compare import compare, differences, judge

EVALUATION: dict[str, Any] = {
    "documents": 100,
    "metrics": {"exact_match": {"strict": {"value": 0.5, "stderr": 0.05}}},
    "forwards": 640,
    "seconds": 1.5,
    "device": "x86_64 CPU, 1 threads",
    "samples_sha256": "a",
}
ELSEWHERE = "another processor (A -> B)"


def changed(**values: Any) -> dict[str, Any]:
    return {**EVALUATION, **values}


def scored(value: float) -> dict[str, Any]:
    return changed(metrics={"exact_match": {"strict": {"value": value, "stderr": 0.05}}})


@pytest.mark.parametrize(
    ("now", "elsewhere", "word", "text"),
    [
        (EVALUATION, None, "identical", ""),
        (changed(seconds=9), None, "identical", "times aside"),
        (changed(seconds=9, samples_sha256="b"), None, "identical", "hashes of other files"),
        (changed(forwards=641), None, "different", "forwards: 640 -> 641"),
        (changed(forwards=641), ELSEWHERE, "within tolerance", ELSEWHERE),
        (changed(forwards=700), ELSEWHERE, "different", "forwards: 640 -> 700"),
        (changed(forwards=641, device="GPU"), None, "within tolerance", "device"),
        (changed(more=1), ELSEWHERE, "different", "more: nothing -> 1"),
        (scored(0.5 * (1 + 1e-6)), None, "within tolerance", "rounding"),
        (scored(0.51), None, "different", "metrics.exact_match.strict"),
        (scored(0.6), ELSEWHERE, "within tolerance", ELSEWHERE),
        (scored(0.7), ELSEWHERE, "different", "metrics.exact_match.strict"),
    ],
)
def test_what_counts_as_the_same(now: Any, elsewhere: str | None, word: str, text: str):
    found = judge("evaluation.json", list(differences(EVALUATION, now)), elsewhere)
    assert found.word == word
    assert text in found.text


def written(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    if name.endswith(".safetensors"):
        save_file(content, path)
    elif name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


WEIGHTS = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
ONE_OFF = WEIGHTS.copy()
ONE_OFF[3, 3] += 0.01
QUESTION = {"task": "t", "document": 0, "prompt_sha256": "p", "target": "4", "generation": "4"}


@pytest.mark.parametrize(
    ("name", "before", "now", "elsewhere", "word", "text"),
    [
        ("m.safetensors", {"w": WEIGHTS}, {"w": WEIGHTS * (1 + 1e-6)}, None, "within", "rounding"),
        (
            "m.safetensors",
            {"w": WEIGHTS},
            {"w": ONE_OFF},
            None,
            "different",
            "the first of them in w",
        ),
        ("m.safetensors", {"w": WEIGHTS}, {"w": ONE_OFF}, ELSEWHERE, "within", ELSEWHERE),
        ("m.safetensors", {"w": WEIGHTS}, {"w": -WEIGHTS}, ELSEWHERE, "different", "apart"),
        ("m.safetensors", {"w": WEIGHTS}, {"v": WEIGHTS}, ELSEWHERE, "different", "w"),
        ("r.md", "| loss | 0.41 |\n", "| loss | 0.410001 |\n", None, "within", "rounding"),
        ("r.md", "| seconds | 1 |\n", "| seconds | 2 |\n", None, "identical", "times"),
        ("r.md", "| steps | 10000 |\n", "| steps | 10001 |\n", None, "different", "line 1"),
        ("r.md", "a 5\n", "b 5\n", ELSEWHERE, "different", "line 1: a 5 -> b 5"),
        ("s.jsonl", [QUESTION], [QUESTION | {"generation": "5"}], None, "different", "generation"),
        ("s.jsonl", [QUESTION], [QUESTION | {"generation": "5"}], ELSEWHERE, "within", "1 of 1"),
        ("s.jsonl", [QUESTION], [QUESTION | {"target": "5"}], ELSEWHERE, "different", "target"),
        (
            "l.jsonl",
            [{"loss": 1.0}, {"loss": 2.0}],
            [{"loss": 2.0}, {"loss": 1.0}],
            ELSEWHERE,
            "id",
            "",
        ),
        ("x.bin", "abc", "abd", ELSEWHERE, "different", "from byte 2 on"),
    ],
)
def test_files_of_each_kind(
    tmp_path: Path, name: str, before: Any, now: Any, elsewhere: str | None, word: str, text: str
):
    paths = written(tmp_path / "then", name, before), written(tmp_path / "now", name, now)
    found = compare(name, *paths, elsewhere=elsewhere)
    assert found.word.startswith(word), found
    assert text in found.text
    gone = compare(name, paths[0], tmp_path / "nothing")
    assert (gone.word, gone.text) == ("different", "was not made again")


def test_what_is_timed_is_told_and_what_is_counted_is_judged(tmp_path: Path):
    timed = {
        "tokens": 10,
        "speedup": {"mean": 2.0},
        "weights": {"m": "a"},
        "seconds": {"mean": 1.0},
    }
    before = written(tmp_path / "then", "t.json", timed)
    slower = written(tmp_path / "now", "t.json", {**timed, "speedup": {"mean": 1.0}})
    found = compare("t.json", before, slower, stage="measure_speculative")
    assert (found.word, found.text) == ("within tolerance", "times, half of them 2-fold or less")
    other = written(tmp_path / "other", "t.json", {**timed, "tokens": 11})
    assert compare("t.json", before, other, stage="measure_speculative").word == "different"
    served = compare("t.json", before, other, stage="measure_live_tau")
    assert served.word == "within tolerance"
