"""Where a step of the engine spends its time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from time import perf_counter
from typing import Any

from mars.decoding.cache import attention_of
from mars.decoding.requests import Request, Times
from mars.errors import UserError
from mars.speed.methods import Workload

Seconds = defaultdict[str, float]

PARTS = ("backbone", "LM head", "acceptance", "rest")


def profile_steps(workload: Workload, batch: int, tau: float | None) -> dict[str, Any]:
    """Shares of the decoding steps of one pass over the workload, the first pass being a warm-up.

    On a CPU every operation is over when its call returns, so the parts are simply timed.

    Returns:
        ``batch``, ``steps``, ``milliseconds`` per step and ``shares`` of the ``PARTS``: the
        transformer, the output embedding, the confidences and the accepted run, and the rest:
        gathering and scattering tokens and all that happens on the host.

    Raises:
        UserError: on a GPU, where a step is one graph.
    """
    if workload.model.device.type != "cpu":
        raise UserError("A step on a GPU is one graph: profile it with NVIDIA's tools.")
    engine = workload.engine(batch)
    spent: Seconds = defaultdict(float)
    _time_calls(engine.cached, "backbone", spent, "backbone")
    _time_calls(engine.cached, "logits", spent, "LM head")
    _time_calls(engine, "_run", spent, "acceptance")
    for _ in range(2):
        engine.times = Times()
        parts: Seconds = defaultdict(float)
        for prompt in workload.prompts:
            engine.submit(Request(prompt, tau, workload.max_new_tokens))
        with attention_of(workload.model):  # as Engine.run has it
            while engine.active or engine.queue:
                spent.clear()
                steps = engine.times.decode_steps
                engine.step()
                if engine.times.decode_steps > steps:
                    for part, seconds in spent.items():
                        parts[part] += seconds
    total, steps = engine.times.decode_seconds, engine.times.decode_steps
    shares = {part: parts[part] / total for part in PARTS[:-1]}
    shares["rest"] = 1 - sum(shares.values())
    return {"batch": batch, "steps": steps, "milliseconds": 1e3 * total / steps, "shares": shares}


def _time_calls(owner: Any, name: str, spent: Seconds, part: str) -> None:
    """Add the seconds of each call of ``owner.name`` to ``spent[part]``."""
    call: Callable[..., Any] = getattr(owner, name)

    def timed(*arguments: Any, **options: Any) -> Any:
        start = perf_counter()
        try:
            return call(*arguments, **options)
        finally:
            spent[part] += perf_counter() - start

    setattr(owner, name, timed)
