"""vLLM in a process of an environment of its own, which decodes when it is told to."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mars.decoding.requests import Decoded
from mars.errors import UserError
from mars.provenance.files import write_json
from mars.provenance.fingerprint import project
from mars.speed.methods import Pass

SCRIPT = Path(__file__).parent / "vllm_script" / "decode.py"
# Where the environment says nothing else: warnings only; a cache for one sequence in GiB; as many
# threads as OMP_NUM_THREADS says, wherever the system puts them.
SETTINGS = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}


def python_with_vllm() -> Path:
    """The Python of the environment that has vLLM.

    Raises:
        UserError: there is none.
    """
    chosen = os.environ.get("MARS_VLLM_PYTHON")
    python = Path(chosen) if chosen else project() / ".venv-vllm/bin/python"
    if not python.is_file():
        raise UserError(
            f"`speed.vllm` needs vLLM, and {python} is not there; run `make vllm-env`, or set "
            "MARS_VLLM_PYTHON to a Python that has vLLM."
        )
    return python


@dataclass(frozen=True)
class VllmEngine:
    """A running vLLM and the prompts it was given.

    Attributes:
        versions: of vLLM and its torch.
    """

    process: subprocess.Popen[str]
    versions: dict[str, str]

    def decode(self) -> Pass:
        """All prompts, one after the other; the clock is the process's own."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = _answer(self.process)
        done = [
            Decoded(tokens, forwards, [len(tokens)], "unknown")
            for tokens, forwards in zip(answer["tokens"], answer["forwards"], strict=True)
        ]
        return Pass(done, answer["seconds"])


@contextmanager
def running(job: dict[str, Any], file: Path) -> Iterator[VllmEngine]:
    """A vLLM for one job, as ``vllm_script/decode.py`` describes it; ``file``: for the job.

    Raises:
        UserError: there is no vLLM, or it ended.
    """
    write_json(file, job)
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.Popen(
        [python_with_vllm(), SCRIPT, file],
        env=SETTINGS | kept,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield VllmEngine(process, _answer(process))
    finally:
        process.communicate()  # at the end of its input it ends by itself


def _answer(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise UserError("vLLM ended before it answered; what it said stands above in this log.")
    return json.loads(line)
