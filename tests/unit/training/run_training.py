"""Train in a process of its own, as the tests of several processes and of kills need.

Usage: python run_training.py <parent> <dataset> <folder> <method> <settings as JSON> [kill step]

With a kill step the process ends itself with SIGKILL right after that step, and saves a checkpoint
after every second step.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from mars.config import Training
from mars.training import trainer

torch.set_num_threads(1)
parent, dataset, folder, method, settings, *kill = sys.argv[1:]
if kill:
    step = trainer.Run.step

    def step_and_die(run: trainer.Run, rows: list) -> object:
        result = step(run, rows)
        if run.progress.step == int(kill[0]):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    trainer.Run.step = step_and_die
    trainer.Run.due = lambda run, saved: run.progress.step % 2 == 0
trainer.train(
    method=method,
    training=Training.model_validate(json.loads(settings)),
    block_size=4 if method in ("mars", "block_diffusion") else None,
    ar_weight=1.0,
    parent=Path(parent),
    dataset=Path(dataset),
    work=Path(folder) / "work",
    output=Path(folder) / "output",
)
