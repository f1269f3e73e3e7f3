"""Processes to train in, forked from one that has loaded torch and transformers once for all."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.support.waiting import end_of, wait

FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["mars.training.trainer", "torch.distributed.fsdp"])


class Forked:
    """A call in a process of its own, which prints to a log; waited for like a command."""

    def __init__(self, log: Path, call: Callable[..., None], *arguments: Any, **env: str) -> None:
        self.log, self.args = log, call.__name__
        self._process = FORKING.Process(target=_run, args=(log, env, call, *arguments))
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    returncode = property(poll)

    def wait(self) -> None:
        self._process.join()


def _run(log: Path, env: dict[str, str], call: Callable[..., None], *arguments: Any) -> None:
    os.setsid()
    with open(log, "w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    os.environ.update(env)
    torch.set_num_threads(1)
    call(*arguments)


def run_side_by_side(
    folder: Path, count: int, call: Callable[..., None], *arguments: Any, ends_with: int = 0
) -> None:
    """The same call in several processes that see each other, as a launcher starts them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    workers = [
        Forked(
            folder / f"{rank}.log", call, *arguments, RANK=str(rank), LOCAL_RANK=str(rank), **shared
        )
        for rank in range(count)
    ]
    for worker in workers:
        assert wait(worker, folder) == ends_with, end_of(worker.log)
