"""Functional correctness of model-written Python: pass@k as HumanEval defines it.

Programs run in limited processes of their own (:mod:`mars.evaluation.program_runner` says which
limits), standard library only. A program passes if it ends without an exception; leaving early
with ``sys.exit`` or ``os._exit`` does not count as a pass.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

RUNNER = Path(__file__).with_name("program_runner.py")
MEMORY = 1 << 30  # bytes of address space for one program


def run_programs(
    programs: Sequence[str], timeout: float, memory: int = MEMORY, workers: int | None = None
) -> tuple[list[str], str]:
    """Run each program, ``workers`` side by side (default: one per usable core).

    Each has ``timeout`` seconds of wall clock and ``memory`` bytes of address space.

    Returns:
        For each program ``"passed"``, ``"failed: <exception>"`` or ``"timed out"``; and how the
        network was cut off.
    """
    with tempfile.TemporaryDirectory(prefix="mars-programs-") as folder:
        job = {
            "programs": list(programs),
            "timeout": timeout,
            "memory": memory,
            "workers": workers or len(os.sched_getaffinity(0)),
            "folder": folder,
        }
        finished = subprocess.run(
            [sys.executable, "-I", "-S", "-B", str(RUNNER)],
            input=json.dumps(job),
            stdout=subprocess.PIPE,
            text=True,
            env={},
            check=True,
        )
    answer = json.loads(finished.stdout)
    return answer["outcomes"], answer["network"]


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Unbiased chance that one of ``k`` of the samples is correct (arXiv 2107.03374, eq. 1)."""
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


@dataclass
class CodeEval:
    """Replaces the hub's ``code_eval`` metric, which lm-eval's tasks call for each document.

    ``prepare`` runs many programs at once, and ``compute`` then finds their outcomes.
    """

    timeout: float = 10  # seconds for one program
    allowed: bool = False  # by `unsafe_code` of a benchmark
    network: str | None = None  # how it was cut off in the last run
    outcomes: dict[str, str] = field(default_factory=dict)

    def prepare(self, programs: Sequence[str]) -> None:
        """Run the programs that have not run yet, side by side."""
        if not self.allowed:
            raise PermissionError("running model-written code has not been allowed")
        new = [program for program in dict.fromkeys(programs) if program not in self.outcomes]
        if new:
            outcomes, self.network = run_programs(new, self.timeout)
            self.outcomes.update(zip(new, outcomes, strict=True))

    def compute(
        self, references: list[str], predictions: list[list[str]], k: Sequence[int] = (1, 10, 100)
    ) -> tuple[dict[str, float], dict[int, list[tuple[int, dict]]]]:
        """``pass@k`` averaged over problems, and every outcome: the hub metric's interface."""
        programs = [
            [program_of(p, test) for p in samples]
            for samples, test in zip(predictions, references, strict=True)
        ]
        self.prepare([program for samples in programs for program in samples])
        outcomes = [[self.outcomes[program] for program in samples] for samples in programs]
        scores = {}
        for size in k:
            if all(len(samples) >= size for samples in outcomes):
                values = [pass_at_k(len(s), s.count("passed"), size) for s in outcomes]
                scores[f"pass@{size}"] = sum(values) / len(values)
        details = {
            problem: [(n, {"result": o, "passed": o == "passed"}) for n, o in enumerate(samples)]
            for problem, samples in enumerate(outcomes)
        }
        return scores, details


CODE_EVAL = CodeEval()
"""What lm-eval's tasks call ``code_eval``; one per process, because lm-eval imports a task once."""


def program_of(prediction: str, test: str) -> str:
    """The program that decides one sample: the prediction, then its test."""
    return f"{prediction}\n{test}"
