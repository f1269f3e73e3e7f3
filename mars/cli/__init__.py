"""The command line: verbs for people, and one for each rule of the workflow.

A stage's verb takes its spec (`mars spec` prints it), its inputs and where its output goes, so a
rule of the workflow and a person call the same thing. Whatever loads torch, pandas or lm-eval is
imported inside the verbs: it takes seconds.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Sequence

# Each adds its verbs to the application, in the order in which `mars --help` lists them.
from mars.cli import (  # isort: skip
    configuration,  # noqa: F401
    decoding,  # noqa: F401
    speed,  # noqa: F401
    audit,  # noqa: F401
    stages,  # noqa: F401
)
from mars.cli.common import app
from mars.errors import UserError

# Verbs that may use the network; all others run with the hub switched off. With a mirror only
# the first one may, which fills it.
FETCHING = ("fetch", "fetch-dataset", "import-checkpoint")


def main() -> None:
    """Run the command line; a user's mistake is one sentence and exit status 2."""
    # torch and transformers bring a million objects that are never garbage. To look through them
    # again and again, and once more at the end, takes a third of a small job's time.
    gc.set_threshold(20_000)
    atexit.register(gc.freeze)
    mirror = os.environ.get("MARS_HUB_MIRROR")
    if verb_of(sys.argv[1:]) not in (FETCHING[:1] if mirror else FETCHING):
        os.environ["HF_HUB_OFFLINE"] = "1"
    if mirror:
        os.environ["NLTK_DATA"] = f"{mirror}/nltk_data:{os.environ.get('NLTK_DATA', '')}"
    try:
        app()
    except UserError as error:
        print(f"mars: {error}", file=sys.stderr)
        sys.exit(2)


def verb_of(arguments: Sequence[str]) -> str:
    """The verb that a command line runs, behind `with-gpus` and its options."""
    words = [word for word in arguments if not word.startswith("-") and not word.isdigit()]
    if words[:1] == ["with-gpus"]:
        words = words[1:]
    return words[0].replace("_", "-") if words else ""
