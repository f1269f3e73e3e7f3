"""Prepares the process of an evaluation: no network, no caches that stay, no noise."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

from mars.evaluation.code_execution import CODE_EVAL


def forbid_network() -> None:
    """Make every Hugging Face library fail at once instead of connecting to the hub."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # for what is imported later
    for name in ("huggingface_hub.constants", "datasets.config"):
        if name in sys.modules:
            sys.modules[name].HF_HUB_OFFLINE = True  # type: ignore[attr-defined]


def prepare_process(code_timeout: float) -> None:
    """Do all of this; a program that a model wrote may take ``code_timeout`` seconds."""
    forbid_network()
    import datasets

    datasets.config.HF_DATASETS_CACHE = scratch_folder()
    datasets.disable_caching()
    datasets.disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    CODE_EVAL.timeout = code_timeout


@functools.cache
def scratch_folder() -> Path:
    """A folder for temporary files that lives as long as the process."""
    folder = Path(tempfile.mkdtemp(prefix="mars-evaluation-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
