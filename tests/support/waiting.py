"""Waiting for processes without a clock: hung is what no longer changes anything, not what is slow.

A busy machine may take any time for anything, so no test limits that. A process that neither prints
nor writes for :data:`QUIET` seconds is taken for hung: it is killed and the test fails.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

QUIET = 900  # seconds without any change
LOOK = 10  # seconds from one look at the files to the next


@contextmanager
def started(
    command: Sequence[str], log: Path, *, cwd: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own that prints to ``log``; nothing of it outlives the block."""
    with open(log, "w") as out:
        process = subprocess.Popen(
            command, cwd=cwd, env=env, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process of :func:`started` and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait(
    process: subprocess.Popen,
    *watched: Path,
    until: Callable[[], object] = lambda: False,
    quiet: float = QUIET,
) -> int | None:
    """Wait until the process has ended, or until something holds; fail if it is hung.

    Args:
        process: leads a process group if it has children.
        watched: files and folders that change as long as the process gets on.
        until: asked several times a second.
        quiet: seconds without a change after which the process is hung.

    Returns:
        The exit status, or None if the process goes on.
    """
    before: dict[str, tuple[int, int]] = {}
    looked = changed = time.monotonic()
    while process.poll() is None and not until():
        now = time.monotonic()
        if now - looked >= min(LOOK, quiet):
            looked = now
            if (state := _state(watched)) != before:
                before, changed = state, now
            elif now - changed > quiet:
                kill(process)
                raise AssertionError(
                    f"{process.args} is hung: nothing has changed for {quiet:.0f} seconds.\n"
                    + "".join(end_of(path) for path in watched if path.is_file())
                )
        time.sleep(0.1)
    return process.returncode


def end_of(log: Path) -> str:
    """What a failed test shows of a log."""
    return log.read_text(errors="replace")[-4000:]


def run(
    command: Sequence[str],
    *watched: Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; what it printed to both streams is its ``stdout``.

    It counts as hung when neither that nor a file in the ``watched`` folders changes.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with started(command, log, cwd=cwd, env=env) as process:
            wait(process, log, *watched)
        printed = log.read_text(errors="replace")
    return subprocess.CompletedProcess(command, process.returncode, printed)


def _state(watched: Sequence[Path]) -> dict[str, tuple[int, int]]:
    """Size and date of every file."""
    paths = [str(path) for path in watched]
    for top in watched:
        paths += (os.path.join(f, name) for f, _, names in os.walk(top) for name in names)
    state = {}
    for path in paths:
        with suppress(OSError):  # it may have been deleted just now
            facts = os.stat(path, follow_symlinks=False)
            state[path] = (facts.st_size, facts.st_mtime_ns)
    return state
