"""The stages of the pipeline by name; each is said in the ``stage.py`` of its room."""

from __future__ import annotations

from typing import Any

from mars.checkpoints.stage import IMPORT_BASE, IMPORT_RELEASED
from mars.data.stage import FETCH_DATASET, GENERATE_DATA, TOKENIZE, TRAIN_TOKENIZER
from mars.errors import UserError
from mars.evaluation.stage import EVALUATE, PROBE
from mars.paper.artefacts import ARTEFACTS
from mars.paper.stage import CLAIMS, COMPARISON, REPORT
from mars.provenance.stage import Stage
from mars.speed.stage import MEASURE
from mars.training.stage import PRETRAIN, TRAIN

_ALL: list[Stage[Any]] = [
    *(GENERATE_DATA, FETCH_DATASET, TRAIN_TOKENIZER, TOKENIZE),
    *(IMPORT_BASE, IMPORT_RELEASED, PRETRAIN, TRAIN, EVALUATE, PROBE),
    *MEASURE.values(),
    *(artefact.stage for artefact in ARTEFACTS.values()),
    *(COMPARISON, CLAIMS, REPORT),
]
STAGES = {stage.name: stage for stage in _ALL}


def stage_named(name: str) -> Stage[Any]:
    """A stage by name.

    Raises:
        UserError: there is none.
    """
    if name not in STAGES:
        raise UserError(f"there is no stage {name!r}; the stages are {', '.join(STAGES)}.")
    return STAGES[name]
