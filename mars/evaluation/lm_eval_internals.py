"""Everything that depends on lm-eval's internals: what is private to it, and what we correct.

* Its index and factory of tasks, so that a task gets documents from a folder, and a group the parts
  that are wanted.
* HumanEval loads the metric ``code_eval`` from the hub at import: our own takes its place.
* IFEval downloads NLTK's ``punkt_tab`` at import: where it is not installed, a model without
  trained parameters, in NLTK's own format, is put on NLTK's path.
* IFEval's language detection is random unless seeded.
* Its progress bars for prompts are many, and it compiles a template anew for every document.

lm-eval itself is not edited. All of it holds for the whole process. Elsewhere its documented
interface is used: ``HFLM``, ``Instance``, ``ConfigurableTask`` and ``evaluator.evaluate``.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import lm_eval.api.task
import lm_eval.tasks
import lm_eval.utils
from lm_eval.api.group import Group, GroupConfig
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._factory import GROUP_FIELD_NAMES, TaskFactory
from lm_eval.tasks._index import Kind

from mars.errors import UserError
from mars.evaluation.code_execution import CODE_EVAL

VERSION = "0.4.13"
"""The version of lm-eval that this was written for; a test compares it with the installed one."""

FOLDERS = {
    # Where lm-eval keeps the paper's tasks: indexing all of its tasks takes ten seconds.
    "ifeval": "ifeval",
    "bbh": "bbh/cot_fewshot",
    "mmlu_pro": "mmlu_pro",
    "gpqa_main_cot_zeroshot": "gpqa/cot_zeroshot",
    "gsm8k_cot": "gsm8k",
    "humaneval_instruct": "humaneval",
}
ABBREVIATIONS = (
    *("mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "etc", "e.g", "i.e", "a.m", "p.m"),
    *("u.s", "u.k", "no", "inc", "ltd", "co", "fig", "jan", "feb", "aug", "sept", "oct", "nov"),
)
UNTRAINED = "punkt without trained parameters"
_MARK = "untrained"  # a file beside a model that was written here


class NoDocumentsError(UserError):
    """A task whose data set holds nothing for it."""


@functools.cache
def quieten() -> None:
    """No progress bar for the prompts of each sub-task; every template is compiled once."""
    lm_eval.api.task.tqdm = functools.partial(lm_eval.api.task.tqdm, disable=True)
    lm_eval.utils.env.from_string = functools.cache(lm_eval.utils.env.from_string)


def find_task(task: str) -> tuple[TaskManager, str]:
    """A task manager that knows ``task``, and the task's name there."""
    if Path(task).suffix in (".yaml", ".yml"):
        path = Path(task).resolve()
        if not path.is_file():
            raise UserError(f"the task file {task} does not exist; correct `task`.")
        manager = TaskManager(include_path=[path.parent], include_defaults=False)
        names = [name for name, e in manager.task_index.items() if e.yaml_path == path]
        if not names:
            raise UserError(f"{task} defines neither a task nor a group; see lm-eval's task guide.")
        return manager, names[0]
    if task in FOLDERS:
        stock = Path(lm_eval.tasks.__file__).parent / FOLDERS[task]
        return TaskManager(include_path=[stock], include_defaults=False), task
    manager = TaskManager()
    if task not in manager.task_index:
        raise UserError(f"lm-eval has no task {task!r}; see `lm-eval ls tasks` for those it has.")
    if manager.task_index[task].kind is Kind.TAG:
        tagged = ", ".join(sorted(manager.task_index[task].tags))
        raise UserError(f"{task} is a tag; name one of its tasks: {tagged}.")
    return manager, task


def build_task(
    manager: TaskManager,
    name: str,
    subtasks: list[str] | None,
    overrides: dict[str, Any],
    skip_empty: bool,
) -> Task | Group:
    """The task or group ``name``; if a group, with the members in ``subtasks`` (None: all)."""
    factory, index = TaskFactory(), manager.task_index
    config = index[name].cfg or {}
    members = config.get("task")
    if subtasks is None and not (skip_empty and isinstance(members, list)):
        return cast(Task | Group, factory.build(index[name], overrides=overrides, registry=index))
    if not isinstance(members, list):
        raise UserError(f"{name} is a single task; remove `subtasks`.")
    chosen = members if subtasks is None else [_member(name, part, members) for part in subtasks]
    fields = {key: value for key, value in config.items() if key in GROUP_FIELD_NAMES}
    group = Group.from_config(GroupConfig(**{**fields, "task": chosen}))
    for member in chosen:
        try:
            group.add(factory.build(index[member], overrides=overrides, registry=index))
        except NoDocumentsError:
            if not skip_empty or subtasks is not None:
                raise
    if not len(group):
        raise NoDocumentsError(f"no part of {name} has documents in {overrides['dataset_path']}.")
    return group


def _member(group: str, wanted: str, members: list[str]) -> str:
    """The member called ``wanted`` in full or by the end of its name."""
    found = [m for m in members if m == wanted] or [m for m in members if m.endswith(f"_{wanted}")]
    if len(found) != 1:
        raise UserError(
            f"{wanted!r} in `subtasks` names {len(found) or 'no'} parts of {group}; "
            f"its parts are {', '.join(members)}."
        )
    return found[0]


@contextmanager
def local_code_eval() -> Iterator[None]:
    """While lm-eval imports a task, ``evaluate.load("code_eval")`` gives :data:`CODE_EVAL`.

    A stand-in for the whole module ``evaluate``, whose import takes seconds.
    """
    stand_in = ModuleType("evaluate")
    original = sys.modules.get("evaluate")

    def load(path: str, *arguments: Any, **keywords: Any) -> Any:
        if path == "code_eval":
            return CODE_EVAL
        with _module("evaluate", original):
            import evaluate

            return evaluate.load(path, *arguments, **keywords)

    stand_in.load = load  # type: ignore[attr-defined]
    # The task tries its metric out at import; nothing a model wrote runs there.
    allowed, CODE_EVAL.allowed = CODE_EVAL.allowed, True
    try:
        with _module("evaluate", stand_in):
            yield
    finally:
        CODE_EVAL.allowed = allowed


@contextmanager
def _module(name: str, module: ModuleType | None) -> Iterator[None]:
    """Let ``import name`` give ``module`` (None: whatever is installed)."""
    before = sys.modules.pop(name, None)
    if module is not None:
        sys.modules[name] = module
    try:
        yield
    finally:
        sys.modules.pop(name, None)
        if before is not None:
            sys.modules[name] = before


def prepare_ifeval(folder: Path) -> str:
    """Make IFEval's checkers work offline and repeatably; returns the sentence splitter in use.

    It is ``"nltk punkt_tab"`` or, if NLTK has none, :data:`UNTRAINED`, written into ``folder``.
    """
    import langdetect
    import nltk

    langdetect.DetectorFactory.seed = 0
    try:
        found = nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        _write_untrained_punkt(folder)
        nltk.data.path.append(str(folder))
        return UNTRAINED
    # An earlier call in this process may have put one there.
    return UNTRAINED if Path(str(found), _MARK).exists() else "nltk punkt_tab"


def _write_untrained_punkt(folder: Path) -> None:
    """A ``punkt_tab`` model for English that knows a few abbreviations and nothing else."""
    model = folder / "tokenizers" / "punkt_tab" / "english"
    model.mkdir(parents=True, exist_ok=True)
    for name in ("collocations.tab", "sent_starters.txt", "ortho_context.tab"):
        (model / name).write_text("")
    (model / "abbrev_types.txt").write_text("\n".join(ABBREVIATIONS))
    (model.parent / _MARK).write_text("written by mars.evaluation.lm_eval_internals\n")
