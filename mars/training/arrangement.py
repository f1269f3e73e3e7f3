"""Which documents of an optimiser step stand in which row, and which process reads the row.

Only lengths matter here; :mod:`mars.training.packing` writes the rows.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple

FLEX_BLOCK = 128  # tokens of a block of flex attention's masks
LENGTHS = 8  # row lengths that may occur where attention is compiled


def first_fit(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Assign documents to rows, longest first, each to the first row with room for it.

    A document longer than a row gets a row of its own length. Returns indices per row.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        place = next((row for row, free in enumerate(room) if free >= length), None)
        if place is None:
            rows.append([index])
            room.append(max(0, row_length - length))
        else:
            rows[place].append(index)
            room[place] -= length
    return rows


def spread(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Assign documents to ``count`` rows, longest first, each to the row with the fewest tokens.

    Two rows then differ by less than the longest document, and no row is empty unless there are
    fewer documents than rows. Returns indices per row.
    """
    rows: list[list[int]] = [[] for _ in range(count)]
    fullness = [(0, row) for row in range(count)]
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        used, row = fullness[0]
        rows[row].append(index)
        heapq.heapreplace(fullness, (used + lengths[index], row))
    return rows


class Forward(NamedTuple):
    """The documents of each row of a forward pass, by their number, and the rows' length."""

    rows: list[list[int]]
    length: int
    silent: bool = False  # repeated without weight, for a process that has none of its own left


def arrange(
    lengths: Sequence[int],
    *,
    row_length: int,
    rows_per_forward: int,
    processes: int = 1,
    fixed_shape: bool = False,
) -> list[Forward]:
    """Which documents the forward passes of one optimiser step read; process p of P runs p::P.

    A process alone fills its rows one after the other. Otherwise every process runs the same
    number of forward passes: as many as the fullest rows would need, rounded up. All documents are
    spread over their rows evenly, so that every process has about as many tokens and rows are
    shorter than ``row_length`` instead of empty.

    Args:
        lengths: tokens of each document of the step, laid out.
        row_length: tokens that a row may hold; a longer document has a longer row.
        fixed_shape: one length for all rows of the step, for attention that is compiled once per
            shape. It is rounded up to one of at most 8 lengths (an eighth of ``row_length`` apart,
            in whole blocks of 128), because torch keeps at most 8 compilations of a function and
            then runs it uncompiled, with all scores in memory.
    """
    rows = first_fit(lengths, row_length)
    if processes > 1 or fixed_shape:
        limit = max(row_length, *lengths)
        rows = _spread_within(limit, rows, lengths, processes * rows_per_forward)
        rows += [[]] * (-len(rows) % rows_per_forward)
    used = _used(rows, lengths)
    # Rows of like length share a forward pass, so that little is padded.
    order = sorted(range(len(rows)), key=lambda row: (-used[row], row))
    common = _common_length(max(used), row_length)
    forwards = []
    for start in range(0, len(rows), rows_per_forward):
        chosen = order[start : start + rows_per_forward]
        length = common if fixed_shape else used[chosen[0]]
        forwards.append(Forward([rows[row] for row in chosen], length))
    missing = -len(forwards) % processes  # only where there are fewer documents than rows
    return forwards + [forwards[0]._replace(silent=True)] * missing


def _spread_within(
    limit: int, full: list[list[int]], lengths: Sequence[int], group: int
) -> list[list[int]]:
    """The documents of full rows spread over a multiple of ``group`` rows, at least as many."""
    count = math.ceil(len(full) / group) * group
    while True:
        rows = spread(lengths, min(count, len(lengths)))
        if max(_used(rows, lengths)) <= limit:
            return rows
        if count == len(full):  # too full to be even, and even enough for being full
            return full
        count += group


def _used(rows: list[list[int]], lengths: Sequence[int]) -> list[int]:
    """Tokens in each row."""
    return [sum(lengths[index] for index in row) for row in rows]


def _common_length(longest: int, row_length: int) -> int:
    """The shortest of the lengths that may occur for which the longest row is not too long."""

    def up(length: int, unit: int) -> int:
        return math.ceil(length / unit) * unit

    apart = up(math.ceil(row_length / LENGTHS), FLEX_BLOCK)
    return min(up(longest, apart), up(max(longest, row_length), FLEX_BLOCK))
