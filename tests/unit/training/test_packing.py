"""Batches and rows: every document the right number of times, nothing lost, nothing doubled."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_mask

from mars.training.dual_stream import autoregressive_stream, mars_stream
from mars.training.packing import PADDING, batches, first_fit, pack, steps_of_run


@given(st.integers(1, 40), st.floats(0.1, 4), st.integers(1, 17), st.integers(0, 3))
def test_batches_cover_the_epochs(examples: int, epochs: float, size: int, seed: int) -> None:
    run = list(batches(examples, epochs, size, seed))
    assert len(run) == steps_of_run(examples, epochs, size)
    assert all(len(batch) == size for batch in run[:-1])
    seen = Counter(pair for batch in run for pair in batch)
    assert all(count == 1 for count in seen.values())
    assert len(seen) == round(examples * epochs)
    for epoch in range(int(round(examples * epochs) / examples)):
        assert {example for e, example in seen if e == epoch} == set(range(examples))


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 12))
def test_batches_from_a_step_are_the_rest_of_the_run(examples: int, size: int, step: int) -> None:
    run = list(batches(examples, 2.5, size, seed=1))
    assert list(batches(examples, 2.5, size, seed=1, first_step=step)) == run[step:]


def test_epochs_and_seeds_shuffle_differently() -> None:
    (first,), (other,) = (list(batches(50, 2, 100, seed)) for seed in (0, 1))
    order = [example for _, example in first]
    assert order[:50] != order[50:]
    assert first != other


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 40))
def test_first_fit_places_every_document_once(lengths: list[int], row_length: int) -> None:
    rows = first_fit(lengths, row_length)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    for row in rows:
        assert sum(lengths[i] for i in row) <= row_length or len(row) == 1


def streams(count: int = 11) -> list:
    generator = np.random.default_rng(0)
    documents = [generator.integers(2, 40, generator.integers(4, 30)) for _ in range(count)]
    return [mars_stream(d, 3, block_size=4, mask_token_id=1) for d in documents]


@pytest.mark.parametrize("normalisation", ["sequence", "token"])
@pytest.mark.parametrize("rows_per_forward", [1, 2, 50])
def test_weights_of_each_loss_sum_to_one(rows_per_forward: int, normalisation: str) -> None:
    contents = streams()
    packed = pack(
        contents,
        row_length=80,
        rows_per_forward=rows_per_forward,
        normalisation=normalisation,
        ar_weight=1.0,
    )
    for name in ("ar_weights", "mask_weights"):
        assert sum(getattr(rows, name).sum() for rows in packed) == pytest.approx(1)
    assert sum(int((rows.documents != PADDING).sum()) for rows in packed) == sum(map(len, contents))


def test_labels_that_weigh_nothing_are_left_out() -> None:
    contents = streams()
    options = {"row_length": 80, "rows_per_forward": 50, "normalisation": "token"}
    (with_ar,) = pack(contents, ar_weight=1.0, **options)
    (without,) = pack(contents, ar_weight=0.0, **options)
    assert len(without.labels) == sum(stream.size for stream in contents)
    assert len(with_ar.labels) == 2 * len(without.labels) - len(contents)


def test_every_query_sees_something() -> None:
    """Padding too: a softmax over nothing would be NaN."""
    contents = [autoregressive_stream(np.arange(length), 1) for length in (5, 9, 30)]
    for rows in pack(
        contents, row_length=16, rows_per_forward=3, normalisation="token", ar_weight=1.0
    ):
        assert rows.dense_mask().any(-1).all()
        assert torch.equal(rows.additive_mask(torch.float32) == 0, rows.dense_mask())


def test_fixed_shape_fills_every_row() -> None:
    packed = pack(
        streams(3),
        row_length=128,
        rows_per_forward=1,
        normalisation="token",
        ar_weight=1.0,
        fixed_shape=True,
    )
    assert {tuple(rows.tokens.shape) for rows in packed} == {(1, 128)}


def test_flex_mask_equals_dense_mask() -> None:
    """The rule of the block mask, evaluated pair by pair on the CPU; its kernel needs CUDA."""
    for rows in pack(
        streams(), row_length=128, rows_per_forward=2, normalisation="token", ar_weight=1.0
    ):
        count, length = rows.tokens.shape
        flex = create_mask(rows.flex_mask().mask_mod, count, 1, length, length, device="cpu")
        assert torch.equal(flex, rows.dense_mask())
