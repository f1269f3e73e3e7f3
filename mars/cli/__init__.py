"""The command line: verbs for people, and `run`, with which every rule of the workflow works.

Whatever loads torch, pandas or lm-eval is imported inside the verbs: it takes seconds.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys

# Each adds its verbs to the application, in the order in which `mars --help` lists them.
from mars.cli import (  # isort: skip
    configuration,  # noqa: F401
    decoding,  # noqa: F401
    exporting,  # noqa: F401
    serving,  # noqa: F401
    speed,  # noqa: F401
    audit,  # noqa: F401
    replay,  # noqa: F401
    claims,  # noqa: F401
    stages,  # noqa: F401
)
from mars.cli.common import app
from mars.errors import UserError


def main() -> None:
    """Run the command line; a user's mistake is one sentence and exit status 2."""
    # torch and transformers bring a million objects that are never garbage. To look through them
    # again and again, and once more at the end, takes a third of a small job's time.
    gc.set_threshold(20_000)
    atexit.register(gc.freeze)
    if "fetch" not in sys.argv[1:2]:  # stages that need the hub switch it on again
        os.environ["HF_HUB_OFFLINE"] = "1"
    if mirror := os.environ.get("MARS_HUB_MIRROR"):
        os.environ["NLTK_DATA"] = f"{mirror}/nltk_data:{os.environ.get('NLTK_DATA', '')}"
    try:
        app()
    except UserError as error:
        print(f"mars: {error}", file=sys.stderr)
        sys.exit(2)
