"""One part of the trial: what it finds goes out row by row, and nothing stops it but its time."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any

import torch

Row = dict[str, Any]
MARK = "\x1e"  # starts a line that is a row, among what libraries print
BEGUN = "begun"  # in place of a section: the row only says what is tried next


class Skip(Exception):  # noqa: N818 # not an error
    """Why something was not tried."""


class Part:
    """Where the functions of a part report.

    Args:
        name: of the part; its rows are named after it.
        device: what is tried.
        seconds: after which nothing new is begun.
        emit: takes the name of a section of the result and a row of it.
        begin: is told what is tried next.
    """

    def __init__(
        self,
        name: str,
        device: torch.device,
        seconds: float,
        emit: Callable[[str, Row], None],
        begin: Callable[[str], None] | None = None,
    ) -> None:
        self.name, self.device, self.emit, self.begin = name, device, emit, begin
        self.seconds, self.end = seconds, monotonic() + seconds

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def check(self, name: str, function: Callable[[], str], takes: float = 0.0) -> None:
        """Try one thing; ``function`` returns what it saw and raises if that is wrong.

        Whatever it raises is a failed row. ``takes``: seconds without which it is not begun.
        """
        status, detail = "skipped", f"the {self.seconds:.0f} s of {self.name} were spent"
        if self.end - monotonic() > takes:
            if self.begin is not None:
                self.begin(name)
            try:
                status, detail = "passed", function()
            except Skip as reason:
                detail = str(reason)
            except Exception as error:
                status, detail = "failed", _sentence(error)
        self.emit("checks", {"name": f"{self.name}: {name}", "status": status, "detail": detail})
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()

    def gpu_only(self, why: str) -> None:
        """Skip what cannot be tried on a CPU."""
        if not self.on_gpu:
            raise Skip(f"{why}: needs a GPU")

    def wait(self) -> None:
        """Until the device has done what it was told."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)


def _sentence(error: Exception) -> str:
    """The kind of an error and the first line it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def print_row(section: str, row: Row) -> None:
    """Hand a row to the process that reads this one's output."""
    print(f"{MARK}{json.dumps([section, row])}", flush=True)


def print_begun(name: str) -> None:
    """Tell that process what is tried next."""
    print_row(BEGUN, {"name": name})


def row_of(line: str) -> tuple[str, Row] | None:
    """The row of such a line."""
    if not line.startswith(MARK):
        return None
    section, row = json.loads(line[len(MARK) :])
    return section, row


def note(line: str) -> None:
    """Tell the person who waits."""
    print(line, file=sys.stderr, flush=True)
