"""What changed between the spec a job was run with and its spec now, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mars.config.experiment import Experiment
from mars.errors import UserError
from mars.provenance.fingerprint import fingerprint_of
from mars.stages import locked_versions, spec, stage_modules

OWN_KEYS = ("stage", "config", "code", "lock")  # of a spec; the others are the stage's target
SHOWN = 4  # changed keys or modules that are named; the rest is counted


def target_of(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What a spec is for, e.g. ``{"model": "mars-b4-small"}``."""
    return {key: value for key, value in plan.items() if key not in OWN_KEYS}


def job_name(plan: Mapping[str, Any]) -> str:
    """Stage and target of a spec, as people read it: ``train mars-b4-small``."""
    return " ".join(map(str, [plan["stage"], *target_of(plan).values()]))


def present_spec(record: Mapping[str, Any], experiment: Experiment) -> dict[str, Any] | None:
    """The spec that a recorded job would have now; None if the experiment has no such job."""
    try:
        return json.loads(spec(experiment, record["spec"]["stage"], **target_of(record["spec"])))
    except (KeyError, UserError):
        return None


def differences(record: Mapping[str, Any], experiment: Experiment) -> list[str]:
    """Why a job would not be the same now: code, configuration, versions; empty if it would be.

    Args:
        record: provenance record of the job.
        experiment: the present configuration.
    """
    then, now = record["spec"], present_spec(record, experiment)
    if now is None:
        return ["it is no longer part of the configuration"]
    changes = changed_keys(then["config"], now["config"])
    found = [f"configuration: {_listed(changes)}"] if changes else []
    modules = record["code"].get("modules", {})
    if then["code"] != now["code"]:
        found.append(f"code: {_listed(_changed_modules(modules, stage_modules(then['stage'])))}")
    elif modules and fingerprint_of(modules) != then["code"]:
        found.append("code: it was edited between planning this job and running it")
    versions = _changed_versions(record["environment"])
    if versions or then["lock"] != now["lock"]:
        found.append(f"packages: {_listed(versions or ['another lock'])}")
    return found


def changed_keys(then: Any, now: Any, at: str = "") -> list[str]:
    """``key old -> new`` for each key that differs between two nested values."""
    if not (isinstance(then, dict) and isinstance(now, dict)):
        return [] if then == now else [f"{at} {json.dumps(then)} -> {json.dumps(now)}"]
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


def _changed_modules(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))


def _changed_versions(environment: Mapping[str, str]) -> list[str]:
    """Packages that the job did not have in the version of the lock (build tags aside)."""
    pairs = (
        (name, environment.get(name.replace("-", "_"), "none").partition("+")[0], locked)
        for name, locked in locked_versions().items()
    )
    return [
        f"{name} {used}, the lock has {locked}" for name, used, locked in pairs if used != locked
    ]


def _listed(items: list[str]) -> str:
    rest = len(items) - SHOWN
    return ", ".join(items[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
