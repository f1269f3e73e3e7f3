"""The registry of artefacts: every table and figure that an experiment can make.

The configuration, the workflow, the page, the comparison and the audit read it.
"""

from __future__ import annotations

from mars.config.experiment import Experiment
from mars.paper.figures.stage import FIGURES
from mars.paper.specs import Artefact, reported_models
from mars.paper.tables.stage import TABLES

ARTEFACTS: dict[str, Artefact] = {artefact.name: artefact for artefact in (*TABLES, *FIGURES)}


def artefacts_of(experiment: Experiment) -> list[str]:
    """The names of the artefacts that an experiment makes."""
    trained = ["training_curves"] if reported_models(experiment) else []
    return [*experiment.artefacts, *trained]
