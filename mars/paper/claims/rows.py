"""The rows of the paper's tables that its claims are about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mars.paper import published
from mars.paper.published import Row


def all_rows() -> list[Row]:
    """Every row that a claim of evaluations compares."""
    table2 = [row for row in published.table2() if row.method != "base"]
    return [*table2, *published.table3(), *published.table4(), *published.table9()]


def row_of(table: Iterable[Row], **wanted: Any) -> Row | None:
    """The first row with these attributes."""
    for row in table:
        if all(getattr(row, key) == value for key, value in wanted.items()):
            return row
    return None


def ar_sft(scale: str, epochs: int = 5) -> Row | None:
    """AR SFT of Table 2."""
    return row_of(published.table2(), scale=scale, method="ar_sft", epochs=epochs)


def mars(scale: str, block_size: int, sft_loss: bool = True) -> Row | None:
    """A MARS model of Table 3, in one-token mode."""
    return row_of(
        published.table3(), scale=scale, method="mars", block_size=block_size, sft_loss=sft_loss
    )
