"""The stages that time decoding: what they depend on, and what they read."""

import shutil
from pathlib import Path

import pytest

from mars.config.experiment import DraftAndTarget, InVllm, load_experiment
from mars.errors import UserError
from mars.paper.artefacts import ARTEFACTS
from mars.planning.jobs import specs_of
from mars.provenance import fingerprint
from mars.provenance.fingerprint import PACKAGE
from mars.provenance.stage import Inputs, Job
from mars.speed.stage import MEASURE
from mars.speed.vllm_engine import SCRIPT

PAIR = DraftAndTarget(draft="mars-b4-small", target="ar-large")
WITHOUT_VLLM = load_experiment(Path(__file__).resolve().parents[3] / "config/ci.yaml")
CI = WITHOUT_VLLM.model_copy(
    update={"speed": WITHOUT_VLLM.speed.model_copy(update={"vllm": InVllm(pairs=[PAIR])})}
)


@pytest.mark.parametrize("part", MEASURE)
def test_a_spec_survives_its_way_through_json(part):
    spec = MEASURE[part].resolve(CI)
    assert MEASURE[part].spec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.section == CI.speed.parts()[part]


def test_each_reads_the_questions_and_the_models_that_it_decodes():
    data, *models = MEASURE["speculative"].inputs(CI)
    assert data == "data/hub/manifest.json"
    assert set(models) == {
        f"checkpoints/{name}/manifest.json"
        for name in ("ar-small", "ar-large", "mars-b4-small", "mars-b4-large")
    }
    for part in ("wall_clock", "live_tau"):
        assert MEASURE[part].inputs(CI) == [data, "checkpoints/mars-b4-large/manifest.json"]


def test_vllm_is_measured_only_where_the_experiment_says_so():
    models = MEASURE["vllm"].inputs(CI)[1:]
    assert set(models) == {
        f"checkpoints/{name}/manifest.json" for name in PAIR.model_dump().values()
    }
    with pytest.raises(UserError, match=r"no `speed\.vllm`"):
        MEASURE["vllm"].resolve(WITHOUT_VLLM)
    table6 = ARTEFACTS["table6"].stage
    here = ["speed/speculative/manifest.json"]
    assert table6.inputs(WITHOUT_VLLM) == here
    assert table6.inputs(CI) == [*here, "speed/vllm/manifest.json"]
    for experiment, measured in ((CI, True), (WITHOUT_VLLM, False)):
        jobs = {one.stage for one in specs_of(experiment)["measure"]}
        assert ("measure_vllm" in jobs) == measured


def test_what_vllm_is_installed_is_part_of_the_spec():
    assert any(line.startswith("vllm") for line in MEASURE["vllm"].resolve(CI).requirements)


def test_without_vllm_the_job_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("MARS_VLLM_PYTHON", str(tmp_path / "python"))
    stage = MEASURE["vllm"]
    job = Job(stage.planned(CI, {}), Inputs(()), tmp_path / "speed/vllm")
    with pytest.raises(UserError, match="run `make vllm-env`"):
        stage.start(job)


def test_the_script_that_runs_in_vllm_counts_as_code(monkeypatch, tmp_path):
    assert SCRIPT.is_file()
    text = SCRIPT.read_text()
    shutil.copytree(PACKAGE, tmp_path / "mars", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprint, "PACKAGE", tmp_path / "mars")
    before = MEASURE["vllm"].reached.fingerprint
    copy = tmp_path / "mars" / SCRIPT.relative_to(PACKAGE)
    copy.write_text(text.replace("temperature=0", "temperature=1"))
    fingerprint.forget()
    assert MEASURE["vllm"].reached.fingerprint != before


def test_an_experiment_that_times_nothing_has_no_such_job():
    quiet = CI.model_copy(update={"speed": None})
    assert MEASURE["wall_clock"].inputs(quiet) == []
    with pytest.raises(UserError, match=r"no `speed\.wall_clock`"):
        MEASURE["wall_clock"].resolve(quiet)


@pytest.mark.parametrize("part", MEASURE)
def test_an_edit_of_one_measurement_does_not_repeat_the_others(part):
    others = {f"mars.speed.{other}" for other in MEASURE if other != part}
    assert f"mars.speed.{part}" in MEASURE[part].reached.modules
    assert not others & MEASURE[part].reached.modules.keys()
