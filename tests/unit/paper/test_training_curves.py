"""The loss curves are drawn, and the same logs give the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mars.errors import UserError
from mars.paper.figures.training_curves import _columns, _smooth, plot_curves
from mars.provenance.files import write_jsonl


def test_same_logs_same_bytes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 200)
    logs = {}
    for name, has_mask in (("AR SFT", False), ("MARS B=4", True)):
        rows = [
            {
                "step": step + 1,
                "loss_ar": 3 * 0.99**step + noise[step],
                "loss_mask": 4 * 0.99**step + noise[step] if has_mask else None,
            }
            for step in range(200)
        ]
        logs[name] = [tmp_path / f"{name}.jsonl"] * 2
        write_jsonl(logs[name][0], rows)
    first = [tmp_path / "a.pdf", tmp_path / "a.png"]
    second = [tmp_path / "b.pdf", tmp_path / "b.png"]
    plot_curves(logs, first)
    plot_curves(logs, second)
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()
        assert one.stat().st_size > 5000


@pytest.mark.parametrize(
    ("labels", "columns"),
    [
        (["ar-sft"], 5),
        (["mars-b4-small"] * 20, 5),
        (["mars-b4-small", "mars-b4-no-sft-inverse-t-small"] * 4, 3),
        (["a name " * 30], 1),
    ],
)
def test_the_legend_has_as_many_columns_as_fit(labels: list[str], columns: int) -> None:
    assert _columns(labels) == columns


def test_smoothing_keeps_a_constant_and_the_length() -> None:
    assert _smooth(np.full(123, 2.5)) == pytest.approx(np.full(123, 2.5))


def test_missing_log_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train the model first"):
        plot_curves({"x": [tmp_path / "none.jsonl"]}, [tmp_path / "a.pdf"])
