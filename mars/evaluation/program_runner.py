"""Runs untrusted programs, one limited process each. Started by ``code_execution``; stands alone.

Reads ``{"programs": [...], "timeout": s, "memory": bytes, "workers": n, "folder": path}`` as JSON
from standard input and writes ``{"network": how it is cut off, "outcomes": [...]}`` to standard
output. Only the standard library: it runs under ``python -I -S`` and forks, so that one program
costs a millisecond or two and finds the usual modules already imported.

What limits a program: its own session and empty folder, no standard input or output, wall clock,
CPU time, address space, file size and count, no new processes (threads only as far as memory
goes), a network namespace without devices (if the kernel allows it), and an audit hook that refuses
sockets, processes, signals to others, and writing outside the folder. This guards against what
models write by accident; if you expect hostile code, run the whole evaluation in a container.
"""

import collections  # noqa: F401
import contextlib
import ctypes
import functools
import hashlib  # noqa: F401
import heapq  # noqa: F401
import itertools  # noqa: F401
import json
import math  # noqa: F401
import os
import re  # noqa: F401
import resource
import select
import shutil
import signal
import string  # noqa: F401
import sys
import tempfile
import time
import typing  # noqa: F401

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
FORBIDDEN = (
    *("socket", "ctypes", "subprocess", "pty", "fcntl", "signal.pthread_kill", "gc"),
    *("resource", "sys._current_frames", "shutil", "ftplib", "urllib", "webbrowser"),
    *("os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.kill"),
    *("os.killpg", "os.chmod", "os.chown", "os.link", "os.symlink", "os.truncate", "os.rename"),
    *("os.remove", "os.rmdir", "os.mkdir", "os.utime", "os.setxattr", "os.chdir", "os.putenv"),
)


def cut_off_network():
    """Move into a network namespace without devices; returns how the network is refused."""
    libc = ctypes.CDLL(None, use_errno=True)
    for flags in (CLONE_NEWNET, CLONE_NEWUSER | CLONE_NEWNET):
        if libc.unshare(flags) == 0:
            return "network namespace without devices"
    return "sockets refused"


def limit(folder, timeout, memory):
    """Limit this process for good: resources, then the audit hook."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    seconds = int(timeout) + 1
    for kind, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 1 << 20),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    sys.setrecursionlimit(1000)
    sys.addaudithook(functools.partial(refuse, folder))


def refuse(folder, event, arguments):
    """Audit hook: an error for whatever a self-contained function does not need."""
    if event == "open":
        path, _, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        inside = isinstance(path, str) and os.path.realpath(path).startswith(folder + os.sep)
        if writes and not inside:
            raise PermissionError(f"writing {path!r} is not allowed here")
    elif event.startswith(FORBIDDEN) and event != "gc.collect":
        raise PermissionError(f"{event} is not allowed here")


def run(program, verdict, folder, timeout, memory):
    """In the child: run the program and report through ``verdict``; never returns."""
    try:
        limit(folder, timeout, memory)
        try:
            exec(compile(program, "<program>", "exec"), {})
            message = "passed"
        except BaseException as error:
            message = f"failed: {type(error).__name__}"
        os.write(verdict, message.encode()[:200])
    finally:
        os._exit(0)


def start(program, folder, timeout, memory):
    """Fork a child for one program; returns (process id, pipe with its verdict, its folder)."""
    own = tempfile.mkdtemp(dir=folder)
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        run(program, writing, os.path.realpath(own), timeout, memory)
    os.close(writing)
    return process, reading, own


def finish(process, reading, own, timed_out):
    """Collect the verdict, kill what is left, remove the folder."""
    message = "timed out" if timed_out else os.read(reading, 200).decode()
    for kill, target in ((os.killpg, process), (os.kill, process)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(target, signal.SIGKILL)  # may be gone, or not yet lead a session of its own
    os.waitpid(process, 0)
    os.close(reading)
    shutil.rmtree(own, ignore_errors=True)
    return message or "failed: died"


def run_all(programs, timeout, memory, workers, folder):
    """Outcomes of all programs in order, at most ``workers`` at a time."""
    outcomes = [None] * len(programs)
    waiting = list(reversed(range(len(programs))))
    running = {}
    while waiting or running:
        while waiting and len(running) < workers:
            index = waiting.pop()
            child = start(programs[index], folder, timeout, memory)
            running[child[1]] = (index, child, time.monotonic() + timeout)
        first_deadline = min(deadline for _, _, deadline in running.values())
        ready, _, _ = select.select(running, [], [], max(0, first_deadline - time.monotonic()))
        now = time.monotonic()
        for pipe in list(running):
            index, child, deadline = running[pipe]
            if pipe in ready or now >= deadline:
                outcomes[index] = finish(*child, timed_out=pipe not in ready)
                del running[pipe]
    return outcomes


if __name__ == "__main__":
    job = json.load(sys.stdin)
    network = cut_off_network()
    job["folder"] = os.path.realpath(job["folder"])
    outcomes = run_all(**job)
    json.dump({"network": network, "outcomes": outcomes}, sys.stdout)
