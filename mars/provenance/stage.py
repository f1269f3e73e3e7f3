"""What a stage of the pipeline is, said once, beside the code that does its work.

``<room>/stage.py`` declares each of its stages as a :class:`Stage`: a typed spec, how it follows
from the experiment, and the function that does the work. The rule's one parameter, the verb of the
command line, the record and the plan all come from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from mars.config.experiment import Endpoint, Experiment, TrainingOptions
from mars.errors import UserError
from mars.provenance.accepted import accepted_as
from mars.provenance.files import canonical_json, sha256_file, sha256_text
from mars.provenance.fingerprint import Reached, code_of
from mars.provenance.lock import locked_for, packages_hash

Target = dict[str, str]
Made = dict[str, Any] | list[Path] | None
"""What a stage gives back: the files it wrote, or of a folder facts for its manifest, if any."""


class Spec(BaseModel):
    """All that a stage sees of the experiment: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class JobSpec(BaseModel):
    """What decides whether a job runs again: the rule's one parameter, as canonical JSON.

    Attributes:
        target: what the stage is run for, e.g. ``{"model": "mars-b4-small"}``.
        config: the stage's own spec, plain.
        code: fingerprint of the code that the stage can reach.
        packages: hash of the locked versions of the packages which that code imports, and theirs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    stage: str
    target: Target
    config: dict[str, Any]
    code: str
    packages: str

    def canonical(self) -> str:
        """The spec in its only spelling."""
        return canonical_json(self.model_dump())

    @property
    def job(self) -> str:
        """Stage and target as people read them."""
        return job_name(self.stage, self.target)


def job_name(stage: str, target: Target) -> str:
    """Stage and target as people read them: ``train mars-b4-small``."""
    return " ".join([stage, *(target[key] for key in sorted(target))])


# Where a kind of input stands in a folder of results.
PLACES = {
    "hub": ("data/hub/manifest.json", "data/hub/*/manifest.json", "data/hub/*/*/manifest.json"),
    "tokenizer": ("data/tokenizer/manifest.json",),
    "tokens": ("data/tokens/*/*/manifest.json",),
    "checkpoints": ("checkpoints/*/manifest.json",),
    "evaluations": ("evaluations/*/manifest.json",),
    "probes": ("probes/*/manifest.json",),
    "speed": ("speed/*/manifest.json",),
    "tables": ("tables/*.csv",),
    "shown": ("claims.json", "comparison.csv", "tables/*.jsonl", "figures/*.png"),
    "trainings": ("provenance/train/*.json", "provenance/pretrain/*.json"),
}


@dataclass(frozen=True)
class Inputs:
    """The files that a job is given, told apart by their place in a folder of results.

    Raises:
        UserError: a file that stands in no such place, or one of a kind that is needed is missing.
    """

    files: tuple[Path, ...]

    def __post_init__(self) -> None:
        for file in self.files:
            if not any(file.match(place) for places in PLACES.values() for place in places):
                known = ", ".join(place for places in PLACES.values() for place in places)
                raise UserError(f"{file} is no input of any stage; inputs are {known}.")

    def of(self, kind: str) -> list[Path]:
        """The files of a kind, a key of :data:`PLACES`, in the order given."""
        return [file for file in self.files if any(map(file.match, PLACES[kind]))]

    def only(self, kind: str) -> Path:
        """The only file of a kind."""
        found = self.of(kind)
        if len(found) != 1:
            raise UserError(
                f"this stage takes one input {PLACES[kind][0]}, and was given {len(found)} of them."
            )
        return found[0]

    def folder(self, kind: str) -> Path:
        """The only folder of a kind, of which the manifest was given."""
        return self.only(kind).parent

    def folders(self, kind: str) -> dict[str, Path]:
        """The folders of a kind, of which the manifests were given, by name."""
        return {file.parent.name: file.parent for file in self.of(kind)}

    @property
    def hub(self) -> Path:
        """The folder that holds the data sets in hub layout, ``<hub>/<owner>/<name>``."""
        found = self.of("hub")
        if not found:
            raise UserError(f"this stage takes data, {PLACES['hub'][-1]}, and was given none.")
        return next(folder for folder in found[0].parents if folder.match("data/hub"))

    @cached_property
    def sha256(self) -> dict[str, str]:
        """Content of each file, by path; UserError for one that is not there."""
        for file in self.files:
            if not file.is_file():
                raise UserError(f"{file} does not exist; run the job that makes it first.")
        return {str(file): sha256_file(file) for file in self.files}


@dataclass(frozen=True)
class Job:
    """One run of a stage: its files, and what its results are keyed by.

    Attributes:
        output: the folder to make, or the folder for the files.
        spec: the whole spec; stages read their own, typed one.
        options: of a training; no part of the spec, since they change no result.
        endpoint: where the server of an evaluation stands; likewise.
    """

    spec: JobSpec
    inputs: Inputs
    output: Path
    options: TrainingOptions = field(default_factory=TrainingOptions)
    endpoint: Endpoint | None = None

    @property
    def key(self) -> str:
        """Short hash of the spec, for folders of unfinished work that no other spec may resume."""
        return sha256_text(self.spec.canonical())[:12]

    @property
    def work(self) -> Path:
        """For unfinished work; it may be removed once the output has its manifest and record."""
        return self.output.parent / f".{self.output.name}.work-{self.key}"


SpecType = TypeVar("SpecType", bound=Spec)


def no_inputs(experiment: Experiment, **target: str) -> list[str]:
    """Of a stage that starts from the experiment alone."""
    return []


@dataclass(frozen=True)
class Stage(Generic[SpecType]):
    """A stage: the contract between the experiment, the workflow and the code.

    Attributes:
        name: as in records and plans.
        spec: type of its spec.
        resolve: the spec for an experiment and a target, e.g. ``resolve(experiment, model=...)``;
            UserError if the experiment has no such job.
        inputs: files that a job needs, relative to the folder of results; takes what ``resolve``
            takes.
        run: does the work. A top-level function that imports what is slow to import inside. It
            fills the folder ``job.output``, or writes files into it and returns these.
        rule: the rule of the workflow that runs it, where that has another name: stages may share
            one.
        packages: what ``run`` needs and no import shows, as named in the lock.
        online: whether ``run`` may use the network, where there is no mirror.
    """

    name: str
    spec: type[SpecType]
    resolve: Callable[..., SpecType]
    run: Callable[[SpecType, Job], Made]
    inputs: Callable[..., list[str]] = no_inputs
    rule: str = ""
    packages: tuple[str, ...] = ()
    online: bool = False

    @property
    def reached(self) -> Reached:
        """The code that the stage can reach."""
        return code_of(self.run, self.spec)

    @property
    def locked(self) -> dict[str, str]:
        """The locked versions of the packages which that code uses, and of theirs."""
        return locked_for([*self.reached.packages, *self.packages])

    def planned(self, experiment: Experiment, target: Target, root: Path = Path()) -> JobSpec:
        """The whole spec of one job. Code that was accepted counts as that of the job's record.

        Args:
            root: folder in which the workflow runs.

        Raises:
            UserError: the experiment has no such job.
        """
        planned = JobSpec(
            stage=self.name,
            target=target,
            config=self.resolve(experiment, **target).model_dump(mode="json"),
            code=self.reached.fingerprint,
            packages=packages_hash(self.locked),
        )
        results = root / "results" / experiment.experiment
        accepted = accepted_as(results, planned.job, planned.code)
        return planned.model_copy(update={"code": accepted.was}) if accepted else planned

    def start(self, job: Job) -> Made:
        """Run the stage on its typed spec."""
        return self.run(self.spec.model_validate(job.spec.config), job)
