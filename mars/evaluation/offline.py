"""The three places where lm-eval's tasks reach for the network or for chance, and what we do.

* HumanEval loads the metric ``code_eval`` from the hub at import: our own takes its place.
* IFEval downloads NLTK's ``punkt_tab`` at import: where it is not installed, a model without
  trained parameters, in NLTK's own format, is put on NLTK's path.
* IFEval's language detection is random unless seeded.

lm-eval itself is not edited. All of it holds for the whole process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from mars.evaluation.code_execution import CodeEval

CODE_EVAL = CodeEval()
"""What lm-eval's tasks call ``code_eval``; one per process, as lm-eval imports a task once."""

ABBREVIATIONS = (
    *("mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "etc", "e.g", "i.e", "a.m", "p.m"),
    *("u.s", "u.k", "no", "inc", "ltd", "co", "fig", "jan", "feb", "aug", "sept", "oct", "nov"),
)
UNTRAINED = "punkt without trained parameters"


def forbid_network() -> None:
    """Make every Hugging Face library fail at once where it would reach for the hub."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # for what is imported later
    for name in ("huggingface_hub.constants", "datasets.config"):
        if name in sys.modules:
            sys.modules[name].HF_HUB_OFFLINE = True  # type: ignore[attr-defined]


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
    """Make IFEval's checkers work offline and repeatably.

    Args:
        folder: where an untrained ``punkt_tab`` may be written if NLTK has none.

    Returns:
        Which sentence splitter is in use: ``"nltk punkt_tab"`` or :data:`UNTRAINED`.
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


_MARK = "untrained"


def _write_untrained_punkt(folder: Path) -> None:
    """A ``punkt_tab`` model for English that knows a few abbreviations and nothing else."""
    model = folder / "tokenizers" / "punkt_tab" / "english"
    model.mkdir(parents=True, exist_ok=True)
    for name in ("collocations.tab", "sent_starters.txt", "ortho_context.tab"):
        (model / name).write_text("")
    (model / "abbrev_types.txt").write_text("\n".join(ABBREVIATIONS))
    (model.parent / _MARK).write_text("written by mars.evaluation.offline\n")
