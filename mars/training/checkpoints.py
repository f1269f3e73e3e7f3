"""Checkpoints of an unfinished training: every process writes its share of weights and optimiser.

Any number of processes may read what another number wrote. Nothing in training is drawn from
torch's random generators, so their states are not kept.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from accelerate import Accelerator
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.optim.lr_scheduler import LRScheduler

from mars.provenance.files import read_json, write_json

KEPT = 2


class Checkpoints:
    """The checkpoints of one training in its work folder, ``checkpoint-<step>``."""

    def __init__(
        self,
        folder: Path,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: LRScheduler,
    ) -> None:
        self.folder, self.accelerator = folder, accelerator
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler

    def steps(self) -> dict[int, Path]:
        """Whole checkpoints, by their step."""
        return {int(path.name.split("-")[1]): path for path in self.folder.glob("checkpoint-*")}

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The checkpoint to go on from and what was noted with it, if there is one."""
        found = self.steps()
        if not found:
            return None
        newest = found[max(found)]
        return newest, read_json(newest / "progress.json")

    def save(self, step: int, note: dict[str, Any]) -> None:
        """Write a checkpoint beside the others, rename it once it is whole, remove old ones."""
        main = self.accelerator.is_main_process
        temporary = self.folder / f".checkpoint-{step}"
        if main:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        with _without_warning():
            dcp.save(self._state(), checkpoint_id=temporary)
        if main:
            write_json(temporary / "progress.json", note)
            final = self.folder / f"checkpoint-{step}"
            shutil.rmtree(final, ignore_errors=True)
            os.replace(temporary, final)
            for _, old in sorted(self.steps().items())[:-KEPT]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def load(self, checkpoint: Path) -> None:
        """Put weights, optimiser and schedule back to where they were."""
        state = self._state()
        with _without_warning():
            dcp.load(state, checkpoint_id=checkpoint)
        set_state_dict(
            self.model,
            self.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )

    def whole_model(self) -> dict[str, Any]:
        """All weights, in the main process, gathered from all; empty in the others."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return get_model_state_dict(self.model, options=options)

    def _state(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "schedule": self.scheduler}


@contextmanager
def _without_warning() -> Iterator[None]:
    """Without torch's warning that a single process will save or load alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield
