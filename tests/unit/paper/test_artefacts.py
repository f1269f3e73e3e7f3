"""The registry of artefacts: complete, resolvable, and each with code of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mars.config.experiment import load_experiment
from mars.paper.artefacts import ARTEFACTS, artefacts_of
from mars.paper.stage import CLAIMS, COMPARISON, REPORT
from mars.paper.tables.stage import EVALUATED
from mars.provenance.stage import Inputs

CONFIG = Path(__file__).resolve().parents[3] / "config"
SLOW = ("torch", "transformers", "datasets", "lm_eval", "pandas", "matplotlib", "numpy")
STAGES = {
    stage.name: stage
    for stage in (*(one.stage for one in ARTEFACTS.values()), COMPARISON, CLAIMS, REPORT)
}


def test_the_registry_is_imported_without_anything_slow():
    code = f"import sys, mars.paper.stage; print(*[m for m in {SLOW} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", ["ci", "tiny", "smollm2", "paper"])
def test_every_artefact_of_an_experiment_has_its_spec_and_its_inputs(name):
    experiment = load_experiment(CONFIG / f"{name}.yaml")
    for stage in (*(ARTEFACTS[one].stage for one in artefacts_of(experiment)), COMPARISON, CLAIMS):
        spec = stage.resolve(experiment)
        assert stage.spec.model_validate(spec.model_dump(mode="json")) == spec
        inputs = stage.inputs(experiment)
        assert inputs
        assert len(set(inputs)) == len(inputs)
        Inputs(tuple(Path("results", name, file) for file in inputs))  # else a UserError
    shown = [artefact.name for artefact in REPORT.resolve(experiment).artefacts]
    assert shown == list(ARTEFACTS)
    Inputs(tuple(Path("results", name, file) for file in REPORT.inputs(experiment)))


def test_the_code_of_an_artefact_is_what_it_reaches_and_no_other_one():
    decoding = [name for name, stage in STAGES.items() if "torch" in stage.reached.packages]
    assert decoding == ["figure1"]
    for name in ("table2", "comparison", "claims", "report"):
        assert not {"matplotlib", "pandas", "lm_eval"} & STAGES[name].reached.packages
    figures = {one.stage.name for one in ARTEFACTS.values() if one.kind == "figure"}
    for name, stage in STAGES.items():
        assert ("mars.paper.figures.stage" in stage.reached.modules) == (name in figures)
    assert {STAGES[name].reached.fingerprint for name in EVALUATED} == {
        STAGES["table2"].reached.fingerprint
    }


def test_titles_files_and_stages():
    assert {one.stage.rule for one in ARTEFACTS.values()} == {"table", "figure"}
    assert ARTEFACTS["table2"].files == [
        f"tables/table2.{suffix}" for suffix in ("csv", "md", "tex")
    ]
    assert ARTEFACTS["table2"].caption == EVALUATED["table2"].caption
    assert [one.compared for one in ARTEFACTS.values() if one.compared] == [2, 3, 4, 5, 6, 8, 9]
