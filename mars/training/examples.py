"""The documents of a training, and the packed rows that each process reads of every step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from accelerate import Accelerator
from datasets import load_from_disk

from mars.errors import UserError
from mars.training.dual_stream import Stream, target_count
from mars.training.methods import Layout
from mars.training.packing import Rows, batches, pack

if TYPE_CHECKING:
    from mars.training.stage import TrainSpec


class Examples:
    """The documents that have something to predict, and how their batches are made."""

    def __init__(self, path: Path, lay_out: Layout, seed: int) -> None:
        self.lay_out, self.seed = lay_out, seed
        self.tokens, self.starts, self.prompts = _columns(path)
        lengths = np.diff(self.starts)
        self.kept = np.flatnonzero(target_count(lengths, self.prompts) > 0).tolist()
        self.skipped = len(lengths) - len(self.kept)
        if not self.kept:
            raise UserError(
                f"{path}: no document has a response to learn from; check `training.max_length`, "
                "which must be longer than the prompts."
            )

    def __len__(self) -> int:
        return len(self.kept)

    def streams(self, batch: list[tuple[int, int]]) -> list[Stream]:
        """Lay out a batch of (epoch, example) pairs; its randomness depends on them alone."""
        streams = []
        for epoch, example in batch:
            index = self.kept[example]
            document = self.tokens[self.starts[index] : self.starts[index + 1]].astype(np.int64)
            generator = np.random.default_rng([self.seed, epoch, example, 1])
            streams.append(self.lay_out(document, int(self.prompts[index]), generator))
        return streams


def packed_steps(
    examples: Examples,
    spec: TrainSpec,
    accelerator: Accelerator,
    *,
    first_step: int,
    ar_weight: float,
    fixed_shape: bool,
) -> Iterator[tuple[list[Rows], int]]:
    """This process's forward passes of every step, and the step's tokens over all processes."""
    training = spec.training
    for batch in batches(
        len(examples), training.epochs, training.batch_size, training.seed, first_step
    ):
        streams = examples.streams(batch)
        packed = pack(
            streams,
            row_length=training.row_length,
            rows_per_forward=training.rows_per_forward,
            normalisation=spec.normalisation,
            ar_weight=ar_weight,
            fixed_shape=fixed_shape,
        )
        packed += [packed[0].silent()] * (-len(packed) % accelerator.num_processes)
        own = packed[accelerator.process_index :: accelerator.num_processes]
        yield [rows.to(accelerator.device) for rows in own], sum(map(len, streams))


def _columns(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All tokens in a row, where each document starts (and the last ends), prompt lengths.

    Views of the Arrow file, which stays on disk: no document is held in memory.
    """
    try:
        dataset = load_from_disk(str(path))
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no data set; prepare the data first.") from error
    if missing := {"input_ids", "prompt_length"} - set(dataset.column_names):
        raise UserError(f"{path}: column {min(missing)!r} is missing; prepare the data again.")
    table = dataset.flatten_indices() if dataset._indices is not None else dataset
    documents = table.data.column("input_ids").combine_chunks()
    prompts = table.data.column("prompt_length").to_numpy()
    return documents.values.to_numpy(), documents.offsets.to_numpy(), prompts
