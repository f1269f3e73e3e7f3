"""What changed between the spec a job was run with and its spec now, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from mars.config.experiment import Experiment
from mars.errors import UserError
from mars.provenance.accepted import accepted_as
from mars.provenance.fingerprint import fingerprint_of
from mars.provenance.record import versions
from mars.provenance.stage import JobSpec
from mars.stages import STAGES, stage_named

OLD = "it was recorded by an older version of this project"
LONGEST = 60  # letters of a value
SHOWN = 4  # changed keys or modules that are named; the rest is counted


@dataclass(frozen=True)
class Difference:
    """One way in which a job would not be the same now."""

    kind: Literal["job", "configuration", "code", "packages"]
    items: Sequence[str]

    def __str__(self) -> str:
        if self.kind == "job":
            return self.items[0]
        rest = len(self.items) - SHOWN
        listed = ", ".join(self.items[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
        return f"{self.kind}: {listed}"


def spec_of(record: Mapping[str, Any]) -> JobSpec:
    """The spec that a recorded job was run with."""
    return JobSpec.model_validate(record["spec"])


def present_spec(
    record: Mapping[str, Any], experiment: Experiment, root: Path = Path()
) -> JobSpec | None:
    """The spec that a recorded job would have now; None if the experiment has no such job."""
    then = spec_of(record)
    try:
        return stage_named(then.stage).planned(experiment, then.target, root)
    except (KeyError, UserError):
        return None


def differences(
    record: Mapping[str, Any], experiment: Experiment, root: Path = Path()
) -> list[Difference]:
    """Why a job would not be the same now; empty if it would be.

    Args:
        record: provenance record of the job.
        experiment: the present configuration.
        root: folder in which the workflow ran, where changes of code may have been accepted.
    """
    try:
        then, now = spec_of(record), present_spec(record, experiment, root)
    except ValidationError:
        return [Difference("job", [OLD])]
    if now is None:
        return [Difference("job", ["it is no longer part of the configuration"])]
    stage, found = stage_named(then.stage), []
    if changes := changed_keys(then.config, now.config):
        found.append(Difference("configuration", changes))
    modules = record["code"].get("modules", {})
    if then.code != now.code:
        found.append(Difference("code", _changed(modules, stage.reached.modules)))
    elif modules and not _is_the_code_of(then, modules, root, experiment):
        found.append(Difference("code", ["it was edited between planning this job and running it"]))
    others = _changed_versions(record["environment"], stage.locked)
    if others or then.packages != now.packages:
        found.append(Difference("packages", others or ["another lock"]))
    return found


def unlike_the_lock() -> Difference | None:
    """Packages of any stage that are not installed as locked, those that it imports first."""
    stages = STAGES.values()
    locked = {name: version for stage in stages for name, version in stage.locked.items()}
    imported = frozenset[str]().union(*(stage.reached.packages for stage in stages))
    ordered = {name: locked[name] for name in sorted(locked, key=lambda one: one not in imported)}
    others = _changed_versions(versions(locked), ordered)
    return Difference("packages", others) if others else None


def _is_the_code_of(
    spec: JobSpec, modules: Mapping[str, str], root: Path, experiment: Experiment
) -> bool:
    """Whether a job ran the code that its spec names, or code that was accepted in its place."""
    ran = fingerprint_of(modules)
    accepted = accepted_as(root / "results" / experiment.experiment, spec.job, ran)
    return spec.code in (ran, accepted and accepted.was)


def changed_keys(then: Any, now: Any, at: str = "") -> list[str]:
    """``key old -> new`` for each key that differs between two nested values; of a list, which of
    its entries are new or gone."""
    if isinstance(then, list) and isinstance(now, list):
        return [] if then == now else [f"{at} {_changed_entries(then, now)}"]
    if not (isinstance(then, dict) and isinstance(now, dict)):
        return [] if then == now else [f"{at} {_short(then)} -> {_short(now)}"]
    found = []
    for key in [*then, *(key for key in now if key not in then)]:
        name = f"{at}.{key}" if at else key
        if key not in now:
            found.append(f"{name} is gone")
        elif key not in then:
            found.append(f"{name} is new")
        else:
            found += changed_keys(then[key], now[key], name)
    return found


def _changed_entries(then: list[Any], now: list[Any]) -> str:
    gone = [_short(entry) for entry in then if entry not in now]
    new = [_short(entry) for entry in now if entry not in then]
    said = [f"another {name}" for name in gone if name in new]
    said += [f"-{name}" for name in gone if name not in new]
    said += [f"+{name}" for name in new if name not in gone]
    return " ".join(said) or "in another order"


def _short(value: Any) -> str:
    """A value in a few words: an entry that has a name by its name."""
    named = value.get("name") if isinstance(value, dict) else None
    text = str(named) if named else json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _changed(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names whose values differ."""
    return sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))


def _changed_versions(used: Mapping[str, str], locked: Mapping[str, str]) -> list[str]:
    """Packages that the job did not have in the version of the lock (build tags aside)."""
    return [
        f"{name} {used.get(name, 'none').partition('+')[0]}, the lock has {version}"
        for name, version in locked.items()
        if used.get(name, "none").partition("+")[0] != version
    ]
