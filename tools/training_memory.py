"""What a training takes of each GPU by row length, as docs/running-the-paper.md has it.

    python tools/training_memory.py

By the formula of ``mars/training/cost.py``; nothing is measured.
"""

from __future__ import annotations

from typing import Any

from mars.provenance.files import readable_size
from mars.training.cost import DECODERS, loss_chunk, training_memory

ROWS = (2048, 4096, 8192)
EIGHT: dict[str, Any] = {"gpus": 8, "sharded": True}
CHECKPOINTING: dict[str, Any] = {"activation_checkpointing": True}
# Title, shape, bytes of a GPU, and how it is trained.
CASES: tuple[tuple[str, str, float, dict[str, Any]], ...] = (
    ("0.5B, one GPU of 24 GB", "0.5B", 24e9, {}),
    ("0.5B, each of 8", "0.5B", 80e9, {"gpus": 8}),
    ("7B, each of 8, sharded", "7B", 80e9, EIGHT),
    ("7B, the same, activation checkpointing", "7B", 80e9, EIGHT | CHECKPOINTING),
    ("7B, one GPU of 141 GB, activation checkpointing", "7B", 141e9, CHECKPOINTING),
)


def table() -> str:
    """The table in Markdown."""
    heads = ["tokens of a row", *(title for title, *_ in CASES)]
    lines = [heads, ["---"] * len(heads)]
    for row in ROWS:
        cells = [
            training_memory(
                DECODERS[shape],
                row_tokens=row,
                chunk_logits=loss_chunk(memory),
                **how,
            )
            for _, shape, memory, how in CASES
        ]
        lines.append([str(row), *(readable_size(cell.total, digits=0) for cell in cells)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    print(table(), end="")
