"""A tracker that a training reports to beside its own log; accelerate speaks to it.

Nothing depends on it: `training.jsonl` has the same numbers, and the weights are the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from mars.config.experiment import Tracker
from mars.errors import UserError


def check_tracker(tracker: Tracker | None) -> None:
    """UserError where its package is missing: accelerate would go on without a word."""
    if tracker and find_spec(tracker) is None:
        raise UserError(
            f"`resources.log_with` is {tracker}, which is not installed; "
            f"`.venv/bin/pip install {tracker}`, or remove the key."
        )


def start_tracker(
    accelerator: Accelerator, output: Path, work: Path, settings: Mapping[str, Any], step: int
) -> None:
    """Open a run named after the model in a project named after the experiment.

    Args:
        output: the model's folder, ``results/<experiment>/checkpoints/<model>``.
        work: the folder of its checkpoints, named after the job's spec: another spec, another run.
        settings: what the run is described by; sections are joined to their keys.
        step: those done so far, of a run that is resumed.

    Raises:
        UserError: the tracker does not start, e.g. for want of a login.
    """
    for tracker in accelerator.log_with:
        project, arguments = _run(str(tracker), output, work, step)
        try:
            accelerator.init_trackers(project, dict(_flat(settings)), {str(tracker): arguments})
        except Exception as error:
            raise UserError(
                f"{tracker} did not start ({type(error).__name__}: {error}); set it up, or remove "
                "`resources.log_with`."
            ) from error


def tracked_folder(output: Path) -> Path:
    """Where trackers that write files do so: with the logs of the experiment."""
    return output.parent.parent / "logs" / "tracked"


def _run(tracker: str, output: Path, work: Path, step: int) -> tuple[str, dict[str, Any]]:
    """Project, and arguments of the tracker's own start; a resumed run goes on as the same one."""
    experiment, model = output.parent.parent.name, output.name
    if tracker == "tensorboard":  # a folder is a run
        return model, {"purge_step": step or None}
    run: dict[str, Any] = {"name": model, "resume": "allow" if step else "never"}
    if tracker == "wandb":
        folder = tracked_folder(output)
        folder.mkdir(parents=True, exist_ok=True)
        run |= {"id": f"{experiment}{work.name}", "resume": "allow", "dir": str(folder)}
    return f"mars-{experiment}", run


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
