"""The documents of a training, and the packed rows that each process reads of every step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mars.data.tokens import Documents
from mars.errors import UserError
from mars.machine.gpus import end_with_parent
from mars.training.dual_stream import Stream, target_count
from mars.training.methods import Layout
from mars.training.packing import Batches, Rows, pack

if TYPE_CHECKING:
    from mars.training.stage import TrainSpec

GPU_WORKERS = 2  # processes that pack ahead of a GPU; one keeps up, two also in a slow moment


class Examples:
    """The documents that have something to predict, and how they are laid out."""

    def __init__(self, path: Path, lay_out: Layout, seed: int) -> None:
        self.lay_out, self.seed = lay_out, seed
        self.documents = Documents(path)
        lengths, prompts = self.documents.lengths, self.documents.prompts
        self.kept = np.flatnonzero(target_count(lengths, prompts) > 0)
        self.skipped = len(lengths) - len(self.kept)
        if not len(self.kept):
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
            index = int(self.kept[example])
            document = self.documents[index].astype(np.int64)
            generator = np.random.default_rng([self.seed, epoch, example, 1])
            prompt_length = int(self.documents.prompts[index])
            streams.append(self.lay_out(document, prompt_length, generator))
        return streams


@dataclass
class PackedSteps(Dataset):
    """What one of several processes reads of every optimiser step, by the number of the step.

    An item is its forward passes, and the step's tokens over all processes; or the UserError that
    packing ended with, since a worker could not raise it as it is.
    """

    examples: Examples
    spec: TrainSpec
    ar_weight: float
    fixed_shape: bool
    processes: int = 1
    process: int = 0

    def __post_init__(self) -> None:
        training = self.spec.training
        self.batches = Batches(
            len(self.examples), training.epochs, training.batch_size, training.seed
        )

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, step: int) -> tuple[list[Rows], int] | UserError:
        try:
            streams = self.examples.streams(self.batches[step])
            rows = pack(
                streams,
                row_length=self.spec.training.row_length,
                rows_per_forward=self.spec.training.rows_per_forward,
                normalisation=self.spec.normalisation,
                ar_weight=self.ar_weight,
                fixed_shape=self.fixed_shape,
                processes=self.processes,
                process=self.process,
            )
        except UserError as error:
            return error
        return rows, sum(map(len, streams))


def packed_steps(
    steps: PackedSteps, first_step: int, device: torch.device, workers: int | None = None
) -> Iterator[tuple[list[Rows], int]]:
    """The items of ``steps`` from ``first_step`` on, their rows on ``device``.

    Args:
        workers: processes that pack the next steps while one is computed; by default 2 beside a
            GPU, and none beside a CPU, from which they would take cores. They change no item.

    Raises:
        UserError: as packing did.
    """
    on_gpu = device.type == "cuda"
    if workers is None:
        workers = GPU_WORKERS if on_gpu else 0
    loader = DataLoader(
        steps,
        batch_size=None,
        sampler=range(first_step, len(steps)),
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=on_gpu,
        worker_init_fn=_end_with_trainer,
        multiprocessing_context="fork" if workers else None,  # shares what is mapped and loaded
        generator=torch.Generator(),  # or it would draw from the global one
    )
    for item in loader:
        if isinstance(item, UserError):
            raise item
        rows, tokens = item
        yield [part.to(device) for part in rows], tokens


@contextmanager
def worker_deaths_told() -> Iterator[None]:
    """Make a sentence of what PyTorch raises, at any point, when a worker was killed."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "training stopped: a process that packs rows was killed, as happens when the machine "
            "runs out of memory; give the job more and start it again, and it will go on from its "
            "newest checkpoint."
        ) from error


def _as_it_is(item: object) -> object:
    return item


def _end_with_trainer(worker: int) -> None:
    """A worker that outlived its training would keep the lock of the GPU, which it inherits."""
    end_with_parent()
