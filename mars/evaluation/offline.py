"""The process of an evaluation: no network, no caches of its own, no noise."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path

from mars.evaluation.code_execution import CODE_EVAL


def forbid_network() -> None:
    """Make every Hugging Face library fail at once where it would reach for the hub."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # for what is imported later
    for name in ("huggingface_hub.constants", "datasets.config"):
        if name in sys.modules:
            sys.modules[name].HF_HUB_OFFLINE = True  # type: ignore[attr-defined]


def prepare_process(work_folder: Path, code_timeout: float) -> None:
    """No network, no caches outside ``work_folder``, no noise; seconds for a generated program."""
    forbid_network()
    import datasets

    work_folder.mkdir(parents=True, exist_ok=True)
    cache = tempfile.TemporaryDirectory(dir=work_folder, prefix="datasets-")
    _KEPT.append(cache)
    datasets.config.HF_DATASETS_CACHE = Path(cache.name)
    datasets.disable_caching()
    datasets.disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    CODE_EVAL.timeout = code_timeout


_KEPT: list[tempfile.TemporaryDirectory] = []  # folders that live as long as the process
