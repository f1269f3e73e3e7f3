"""The stages that time decoding: what they depend on, and what they read."""

from pathlib import Path

import pytest

from mars.config.experiment import load_experiment
from mars.errors import UserError
from mars.speed.stage import MEASURE

CI = load_experiment(Path(__file__).resolve().parents[3] / "config/ci.yaml")


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
