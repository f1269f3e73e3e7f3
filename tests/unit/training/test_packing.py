"""Batches and rows: every document the right number of times, nothing lost, nothing doubled."""

from __future__ import annotations

import dataclasses
import pickle
from collections import Counter
from itertools import product
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention

from mars.training.arrangement import Forward, arrange, first_fit, spread
from mars.training.dual_stream import autoregressive_stream, mars_stream
from mars.training.packing import PADDING, Batches, Rows, pack, steps_of_run


@given(st.integers(1, 40), st.floats(0.1, 4), st.integers(1, 17), st.integers(0, 3))
def test_batches_cover_the_epochs(examples: int, epochs: float, size: int, seed: int) -> None:
    run = list(Batches(examples, epochs, size, seed))
    assert len(run) == steps_of_run(examples, epochs, size)
    assert all(len(batch) == size for batch in run[:-1])
    seen = Counter(pair for batch in run for pair in batch)
    assert all(count == 1 for count in seen.values())
    assert len(seen) == round(examples * epochs)
    for epoch in range(int(round(examples * epochs) / examples)):
        assert {example for e, example in seen if e == epoch} == set(range(examples))


@given(st.integers(1, 30), st.integers(1, 9))
def test_any_step_can_be_asked_for(examples: int, size: int) -> None:
    run = list(Batches(examples, 2.5, size, seed=1))
    assert len(Batches(examples, 2.5, size, seed=1)) == len(run)
    for step in reversed(range(len(run))):
        assert Batches(examples, 2.5, size, seed=1)[step] == run[step]


def test_epochs_and_seeds_shuffle_differently() -> None:
    (first,), (other,) = (list(Batches(50, 2, 100, seed)) for seed in (0, 1))
    order = [example for _, example in first]
    assert order[:50] != order[50:]
    assert first != other


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 40))
def test_first_fit_places_every_document_once(lengths: list[int], row_length: int) -> None:
    rows = first_fit(lengths, row_length)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    for row in rows:
        assert sum(lengths[i] for i in row) <= row_length or len(row) == 1


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 12))
def test_spread_rows_differ_by_less_than_the_longest_document(
    lengths: list[int], count: int
) -> None:
    rows = spread(lengths, count)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    used = [sum(lengths[i] for i in row) for row in rows]
    assert max(used) - min(used) <= max(lengths)
    assert all(rows) or len(lengths) < count


STEPS = st.tuples(
    st.lists(st.integers(1, 500), min_size=1, max_size=80),  # lengths of documents
    st.integers(300, 1100),  # row length
    st.integers(1, 3),  # rows per forward
    st.integers(1, 8),  # processes
)


@given(STEPS, st.booleans())
def test_every_process_gets_as_many_forward_passes_and_about_as_many_tokens(
    step: tuple[list[int], int, int, int], fixed_shape: bool
) -> None:
    lengths, row_length, rows_per_forward, processes = step
    forwards = arrange(
        lengths,
        row_length=row_length,
        rows_per_forward=rows_per_forward,
        processes=processes,
        fixed_shape=fixed_shape,
    )
    loud = [forward for forward in forwards if not forward.silent]
    documents = [index for forward in loud for row in forward.rows for index in row]
    assert sorted(documents) == list(range(len(lengths))), "each document once"
    assert len(forwards) % processes == 0
    for forward in loud:
        used = [sum(lengths[i] for i in row) for row in forward.rows]
        assert max(used) <= forward.length
        assert max(used) <= max(row_length, *lengths)
    if processes == 1 and not fixed_shape:
        return
    full = first_fit(lengths, row_length)
    if sorted(full) == sorted(row for forward in loud for row in forward.rows):
        assert len(full) % (processes * rows_per_forward) == 0 or len(full) == len(lengths)
        return
    if len(loud) < len(forwards) or not all(row for forward in loud for row in forward.rows):
        assert all(len(row) <= 1 for forward in loud for row in forward.rows), "too few documents"
        return
    shares = [
        sum(lengths[i] for forward in forwards[p::processes] for row in forward.rows for i in row)
        for p in range(processes)
    ]
    rows_each = rows_per_forward * len(forwards) // processes
    assert max(shares) - min(shares) <= rows_each * max(lengths)
    assert {len(forward.rows) for forward in forwards} == {rows_per_forward}


@given(STEPS)
def test_few_shapes_occur_where_attention_is_compiled(
    step: tuple[list[int], int, int, int],
) -> None:
    lengths, row_length, rows_per_forward, processes = step
    short = [min(length, row_length) for length in lengths]
    (length,) = {
        forward.length
        for forward in arrange(
            short,
            row_length=row_length,
            rows_per_forward=rows_per_forward,
            processes=processes,
            fixed_shape=True,
        )
    }
    up = -(-row_length // 128) * 128
    apart = -(-row_length // 1024) * 128  # at least an eighth of the row, in whole blocks
    assert length in {*range(apart, up, apart), up}
    assert len({*range(apart, up, apart), up}) <= 8


def forwarded(forwards: list[Forward], process: int, processes: int) -> int:
    return sum(len(each.rows) * each.length for each in forwards[process::processes])


def test_rows_that_do_not_divide_by_the_processes_are_no_silent_rows() -> None:
    """21 rows on 8 processes: three full rows each before, of which three were silent."""
    lengths = np.random.default_rng(0).integers(150, 800, 350).tolist()
    options = {"row_length": 8192, "rows_per_forward": 1, "fixed_shape": True}
    assert len(first_fit(lengths, 8192)) == 21
    forwards = arrange(lengths, processes=8, **options)
    assert len(forwards) == 24
    assert not any(forward.silent for forward in forwards)
    assert {forwarded(forwards, process, 8) for process in range(8)} == {3 * 7168}


def test_rows_that_divide_by_the_processes_and_are_full_stay_as_they_are() -> None:
    """Spread evenly, one of these rows would be too long, and twice as many are not worth it."""
    lengths = [6, 6, 4, 4, 4]
    assert [sum(lengths[i] for i in row) for row in spread(lengths, 2)] == [14, 10]
    forwards = arrange(lengths, row_length=12, rows_per_forward=1, processes=2)
    assert [forward.rows for forward in forwards] == [[[0, 1]], [[2, 3, 4]]]


def test_a_step_of_fewer_documents_than_processes_has_silent_rows() -> None:
    packed = [
        part
        for process in range(8)
        for part in pack(
            streams(3),
            row_length=128,
            rows_per_forward=2,
            normalisation="token",
            ar_weight=1.0,
            fixed_shape=True,
            processes=8,
            process=process,
        )
    ]
    assert [tuple(rows.tokens.shape) for rows in packed] == [(2, 128)] * 8
    assert sum(float(rows.mask_weights.sum()) for rows in packed) == pytest.approx(1)
    assert all(len(rows.labels) for rows in packed)


@pytest.mark.parametrize("processes", [2, 3])
def test_the_processes_together_read_what_one_does(processes: int) -> None:
    """Every label once, with the weight that it has in a process of its own."""
    options = {"row_length": 80, "rows_per_forward": 2, "normalisation": "sequence"}

    def labels(packed: list[Rows]) -> list[tuple[float, ...]]:
        return sorted(
            (int(rows.positions.flatten()[label]), int(target), float(ar), float(mask))
            for rows in packed
            for label, target, ar, mask in zip(
                rows.labels, rows.targets, rows.ar_weights, rows.mask_weights, strict=True
            )
        )

    alone = pack(streams(), ar_weight=1.0, **options)
    shares = [
        pack(streams(), ar_weight=1.0, processes=processes, process=process, **options)
        for process in range(processes)
    ]
    assert len({len(share) for share in shares}) == 1
    assert labels([rows for share in shares for rows in share]) == labels(alone)


def test_rows_survive_pickling_without_shared_memory() -> None:
    """Through a pipe, as plain arrays: no file per tensor."""
    (rows,) = pack(
        streams(3), row_length=128, rows_per_forward=9, normalisation="token", ar_weight=1.0
    )
    pickled = bytes(ForkingPickler.dumps(rows))
    assert b"rebuild_storage" not in pickled
    again = pickle.loads(pickled)
    assert all(
        torch.equal(getattr(rows, f.name), getattr(again, f.name)) for f in dataclasses.fields(rows)
    )


def test_compiled_attention_keeps_within_torchs_limit_of_compilations() -> None:
    """All shapes that can occur with one row length; transformers compiles the same function."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(flex_attention, backend=counter)
    apart = 128
    for rows_wanted in range(1, 9):
        document = np.arange(rows_wanted * apart) % 40
        (rows,) = pack(
            [autoregressive_stream(document, 1)],
            row_length=8 * apart,
            rows_per_forward=1,
            normalisation="token",
            ar_weight=1.0,
            fixed_shape=True,
        )
        length = rows_wanted * apart
        assert rows.tokens.shape == (1, length)
        query, key = torch.zeros(1, 2, length, 16), torch.zeros(1, 1, length, 16)
        compiled(query, key, key, block_mask=rows.flex_mask(), enable_gqa=True)
    assert counter.frame_count <= 2, "one shape, then any"
    torch._dynamo.reset()


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


@pytest.mark.parametrize("row_length", [128, 512])
@pytest.mark.parametrize("block_size", [None, 4])
def test_block_mask_is_what_pytorch_makes_of_the_rule(
    block_size: int | None, row_length: int
) -> None:
    """Every list of blocks, those of the backward pass too."""
    generator = np.random.default_rng(0)
    documents = [generator.integers(2, 40, generator.integers(30, 200)) for _ in range(9)]
    contents = [
        autoregressive_stream(document, 3)
        if block_size is None
        else mars_stream(document[: row_length // 2], 3, block_size=block_size, mask_token_id=1)
        for document in documents
    ]
    options = {"rows_per_forward": 2, "normalisation": "token", "ar_weight": 1.0}
    for rows in pack(
        [one for one in contents if len(one) <= row_length],
        row_length=row_length,
        fixed_shape=True,
        **options,
    ):
        found = rows.flex_mask()
        count, length = rows.tokens.shape
        wanted = create_block_mask(found.mask_mod, count, None, length, length, "cpu")
        assert found.seq_lengths == wanted.seq_lengths
        assert found.BLOCK_SIZE == wanted.BLOCK_SIZE
        lists = product(("", "full_"), ("kv", "q"), ("num_blocks", "indices"))
        for name in (f"{kind}{side}_{what}" for kind, side, what in lists):
            assert torch.equal(getattr(found, name), getattr(wanted, name)), name


def test_flex_mask_equals_dense_mask() -> None:
    """The rule of the block mask, evaluated pair by pair on the CPU; its kernel needs CUDA."""
    options = {"rows_per_forward": 2, "normalisation": "token", "ar_weight": 1.0}
    for rows in pack(streams(), row_length=128, fixed_shape=True, **options):
        count, length = rows.tokens.shape
        flex = create_mask(rows.flex_mask().mask_mod, count, 1, length, length, device="cpu")
        assert torch.equal(flex, rows.dense_mask())
