"""lm-eval's stock task definitions on local documents.

Prompts, filters and metrics are lm-eval's own. What is replaced: where the documents come from
(a folder in hub layout), the number of examples shown, and chance (a task that shuffles while it
processes documents, as GPQA does, gets the same order every time).
"""

from __future__ import annotations

import functools
import inspect
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
from lm_eval.api.group import Group
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask, Task

from mars.errors import UserError
from mars.evaluation.code_execution import CODE_EVAL, program_of
from mars.evaluation.lm_eval_internals import (
    NoDocumentsError,
    build_task,
    find_task,
    local_code_eval,
    prepare_ifeval,
    quieten,
)
from mars.evaluation.offline import scratch_folder
from mars.evaluation.stage import fingerprint
from mars.provenance.files import canonical_json, sha256_text

if TYPE_CHECKING:
    from mars.config.experiment import Benchmark

FEWSHOT_SEED = 1234  # lm-eval's default
GENERATED_FEWSHOT = {"SaylorTwift/bbh": "mars-generated/bbh-fewshot"}


@dataclass(frozen=True)
class LoadedBenchmark:
    """A benchmark ready to be run; name and version are lm-eval's."""

    name: str
    tasks: dict[str, Task]  # what lm-eval's evaluator takes, by name
    groups: dict[str, Group]  # none for a single task
    version: str
    definition: dict[str, Any]  # the resolved prompts, filters and metrics of each task
    dataset: dict[str, Any]  # repository, revision and content hash of the documents
    notes: dict[str, str]  # how this process runs the task, where that may differ from elsewhere

    @property
    def task_hash(self) -> str:
        """SHA-256 of the definition."""
        return sha256_text(canonical_json(self.definition))


def load_benchmark(benchmark: Benchmark, hub: Path, *, generated: bool = False) -> LoadedBenchmark:
    """Build the tasks of a benchmark on the documents under ``hub/<owner>/<name>``.

    Args:
        benchmark: task (a name of lm-eval's, or the path of a task's YAML file), data set...
        hub: folder in hub layout.
        generated: the data are this project's miniatures: worked examples come from them too,
            and a group consists of those parts that have documents.

    Raises:
        UserError: the task or the data is not there, or running code has not been allowed.
    """
    folder = hub / benchmark.dataset
    if not folder.is_dir():
        raise UserError(
            f"the data set {benchmark.dataset} is not in {hub}; fetch or generate it first."
        )
    quieten()
    manager, name = find_task(benchmark.task)
    notes = {}
    if name.startswith("ifeval"):
        notes["sentence splitter"] = prepare_ifeval(scratch_folder() / "nltk_data")
    overrides = {"class": LocalTask, "dataset_path": str(folder)}
    overrides["num_fewshot"] = benchmark.num_fewshot
    dataset = {"repository": benchmark.dataset, "revision": benchmark.revision}
    dataset["sha256"] = fingerprint(folder, folder.rglob("*"))
    if generated and benchmark.dataset in GENERATED_FEWSHOT:
        fewshot = hub / GENERATED_FEWSHOT[benchmark.dataset]
        overrides["fewshot_folder"] = str(fewshot)
        dataset["fewshot_sha256"] = fingerprint(fewshot, fewshot.rglob("*"))
    with local_code_eval():
        built = build_task(manager, name, benchmark.subtasks, overrides, skip_empty=generated)
    loaded = manager.load([built])
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(FEWSHOT_SEED)
        if getattr(task, "UNSAFE_CODE", False) and not benchmark.unsafe_code:
            raise UserError(
                f"{benchmark.task} runs Python code that the model wrote; "
                "set `unsafe_code: true` in this benchmark to allow it."
            )
    owner = built if isinstance(built, Group) else next(iter(loaded["tasks"].values()))
    return LoadedBenchmark(
        name=name,
        tasks=loaded["tasks"],
        groups=loaded.get("groups", {}),
        version=str(owner.version if isinstance(owner, Group) else owner.VERSION),
        definition={key: describe(t, benchmark.dataset) for key, t in loaded["tasks"].items()},
        dataset=dataset,
        notes=notes,
    )


class LocalTask(ConfigurableTask):
    """A task of lm-eval's on local documents, read once and processed once."""

    def __init__(self, config: dict[str, Any]) -> None:
        config.pop("class")
        fewshot_folder = config.pop("fewshot_folder", None)
        if fewshot_folder is not None:
            shown = read_documents(fewshot_folder, config["dataset_name"], "{}")["train"].to_list()
            config["fewshot_config"] = {**config["fewshot_config"], "samples": shown}
        self._processed: dict[str, Any] = {}
        try:
            super().__init__(config=config)
        except IndexError as error:  # lm-eval looks at the first document
            raise NoDocumentsError(
                f"{config['task']} has no documents in {config['dataset_path']}; "
                "name the parts that have some in `subtasks`."
            ) from error

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **_: Any) -> None:
        """Read the documents; nothing is downloaded."""
        self.dataset = read_documents(
            self.DATASET_PATH, self.DATASET_NAME, canonical_json(dataset_kwargs or {})
        )

    def training_docs(self) -> Any:
        return self._once("training", super().training_docs)

    def validation_docs(self) -> Any:
        return self._once("validation", super().validation_docs)

    def test_docs(self) -> Any:
        return self._once("test", super().test_docs)

    def fewshot_docs(self) -> Any:
        if not self.config.num_fewshot:
            return None
        return self._once("fewshot", super().fewshot_docs)

    def _once(self, split: str, compute: Callable[[], Any]) -> Any:
        if split not in self._processed:
            try:
                with chance_by_document():
                    self._processed[split] = compute()
            except KeyError as error:
                raise UserError(
                    f"{self.config.task} looks for {error} in {self.DATASET_PATH}, which has no "
                    "such split or column; correct `dataset`."
                ) from error
        return self._processed[split]

    def apply_filters(self) -> list[Instance] | None:
        """lm-eval's filters; then the programs they leave run side by side, not one by one."""
        super().apply_filters()
        if getattr(self, "UNSAFE_CODE", False):
            programs = [
                program_of(prediction, self.doc_to_target(instance.doc))
                for instance in self.instances
                for found in instance.filtered_resps.values()
                for prediction in ([found] if isinstance(found, str) else found)
            ]
            CODE_EVAL.prepare(programs)
        return self.instances


@functools.cache
def read_documents(path: str, name: str | None, options: str) -> dict[str, datasets.Dataset]:
    """The splits of a data set, in memory, read once for all sub-tasks.

    Every process reads them anew: the disk cache of ``datasets`` goes by the folder's name, so it
    would return the rows of another folder, or those that were here before.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="mars-datasets-") as cache:
            return datasets.load_dataset(
                path, name, cache_dir=cache, keep_in_memory=True, **json.loads(options)
            )
    except ValueError as error:
        if "BuilderConfig" in str(error):
            raise NoDocumentsError(
                f"{path} has no configuration {name!r}; fetch it whole, or name the parts that "
                "it has in `subtasks`."
            ) from error
        raise


@contextmanager
def chance_by_document() -> Iterator[None]:
    """While documents are processed, ``map`` gives each its own, fixed random state.

    lm-eval's GPQA shuffles the choices with the global generator, once for the prompts and again
    for scoring; the two agree only where a disk cache answers the second time.
    """
    state, original = random.getstate(), datasets.Dataset.map

    def repeatable(self: datasets.Dataset, function: Any = None, *args: Any, **kwargs: Any) -> Any:
        def with_own_chance(document: dict) -> dict:
            random.seed(sha256_text(json.dumps(dict(document), sort_keys=True, default=str)))
            return function(document)

        plain = function is not None and not args and not kwargs
        return original(self, with_own_chance if plain else function, *args, **kwargs)

    datasets.Dataset.map = repeatable
    random.seed(0)
    try:
        yield
    finally:
        datasets.Dataset.map = original
        random.setstate(state)


def describe(task: Task, dataset: str) -> dict[str, Any]:
    """The resolved definition of a task as plain JSON; functions by their source."""
    config = _plain(asdict(task.config))
    metadata = config.pop("metadata", None) or {}
    config["metadata"] = {key: metadata[key] for key in metadata if key != "config_source"}
    config["dataset_path"] = dataset
    return {key: value for key, value in config.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, functools.partial):
        return {"function": _plain(value.func), "args": value.args, "keywords": value.keywords}
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if callable(value):
        return inspect.getsource(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
