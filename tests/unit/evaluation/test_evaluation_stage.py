"""The stage "evaluate": what it depends on, from configuration to the spec of each cell."""

import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest

from mars.config.experiment import Endpoint, load_experiment
from mars.errors import UserError
from mars.evaluation.stage import EVALUATE, cell_spec, inputs, resolve
from mars.paper.artefacts import ARTEFACTS
from mars.provenance.stage import Inputs, Job, JobSpec

ROOT = Path(__file__).resolve().parents[3]
PAPER = load_experiment(ROOT / "config/paper.yaml")
CI = load_experiment(ROOT / "config/ci.yaml")


def job_of(experiment, model):
    config = resolve(experiment, model=model).model_dump(mode="json")
    target = {"model": model}
    return JobSpec(stage="evaluate", target=target, config=config, code="c", packages="p")


@pytest.mark.parametrize("model", CI.evaluated_models())
def test_a_spec_survives_its_way_through_json(model):
    spec = resolve(CI, model=model)
    assert EVALUATE.spec.model_validate_json(spec.model_dump_json()) == spec
    assert (spec.method == "block_diffusion") == model.startswith("block-diffusion")


def test_a_cell_depends_on_its_own_setting_and_benchmark_only():
    job = job_of(CI, "mars-b4-small")
    config = job.config
    setting, (benchmark, *others) = next(iter(config["cells"].items()))
    before = deepcopy(cell_spec(job, {"a": "1"}, setting, benchmark))
    for name in others:
        config["benchmarks"][name]["limit"] = 1
    config["settings"] |= {"new": config["settings"][setting] | {"threshold": 0.1}}
    assert cell_spec(job, {"a": "1"}, setting, benchmark) == before
    assert cell_spec(job, {"a": "1"}, "new", benchmark) != before
    assert cell_spec(job, {"a": "2"}, setting, benchmark) != before
    for change in ({"code": "d"}, {"packages": "q"}, {"target": {"model": "other"}}):
        other = job.model_copy(update=change)
        assert cell_spec(other, {"a": "1"}, setting, benchmark) != before
    config["benchmarks"][benchmark]["limit"] = 1
    assert cell_spec(job, {"a": "1"}, setting, benchmark) != before
    with pytest.raises(KeyError):
        cell_spec(job, {"a": "1"}, setting, "no such benchmark")


def test_a_cell_of_block_diffusion_depends_on_its_form():
    job = job_of(CI, "block-diffusion-b4-small")
    setting, (benchmark, *_) = next(iter(job.config["cells"].items()))
    before = deepcopy(cell_spec(job, {}, setting, benchmark))
    job.config["right_shift"] = False
    assert cell_spec(job, {}, setting, benchmark) != before


def test_a_spec_from_before_a_key_gives_the_cell_of_its_time():
    """The audit makes the cell of a committed record again, from a spec of any age."""
    job = job_of(CI, "mars-b4-small")
    setting, (benchmark, *_) = next(iter(job.config["cells"].items()))
    del job.config["right_shift"]
    assert "right_shift" not in cell_spec(job, {}, setting, benchmark)


def sent(**keys):
    """The experiment with a server for ar-small."""
    server = Endpoint(**{"url": "http://node7:8000/v1", **keys})
    evaluation = CI.evaluation.model_copy(update={"endpoint": {"ar-small": server}})
    return CI.model_copy(update={"evaluation": evaluation})


def test_without_a_server_no_spec_speaks_of_one():
    for model in CI.evaluated_models():
        job = job_of(CI, model)
        assert "endpoint" not in job.canonical()
        assert model == "ar-small" or job_of(sent(), model) == job
    for stage in ("figure1", "table2"):
        artefact = ARTEFACTS[stage].stage
        assert artefact.planned(sent(), {}) == artefact.planned(CI, {})


def test_a_cell_depends_on_whether_a_server_answers_it_and_not_on_where_it_stands():
    here, there = job_of(CI, "ar-small"), job_of(sent(), "ar-small")
    assert there.config == {**here.config, "endpoint": "ar-small"}
    for setting, benchmarks in CI.evaluations_of("ar-small").items():
        same = cell_spec(here, {}, setting, benchmarks[0])
        answered = cell_spec(there, {}, setting, benchmarks[0])
        plain = CI.settings[setting].plain
        assert answered == ({**same, "endpoint": "ar-small"} if plain else same)
        assert sent().is_sent("ar-small", setting) is plain
    moved = sent(url="https://elsewhere/v1", api_key_env="KEY", concurrency=64)
    assert job_of(moved, "ar-small") == there
    assert job_of(sent(model="other"), "ar-small") != there
    assert EVALUATE.spec.model_validate(there.config).endpoint == "ar-small"


def test_a_job_is_told_where_its_server_stands(tmp_path):
    job = Job(job_of(sent(), "ar-small"), Inputs(()), tmp_path)
    with pytest.raises(UserError, match=r"answers these questions as ar-small.*--endpoint url="):
        EVALUATE.start(job)


def test_what_a_server_answered_for_an_earlier_checkpoint_is_not_taken(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "mars.evaluation.evaluate.evaluate", lambda spec, *, work, **_: asked.append(work)
    )
    manifest = tmp_path / "checkpoints/ar-small/manifest.json"
    data = tmp_path / "data/hub/manifest.json"
    for file in (manifest, data):
        file.parent.mkdir(parents=True)
        file.write_text("first")
    server = Endpoint(url="http://node7:8000/v1")
    job = Job(job_of(sent(), "ar-small"), Inputs((manifest, data)), tmp_path, endpoint=server)
    EVALUATE.start(job)
    EVALUATE.start(job)
    manifest.write_text("trained again")
    EVALUATE.start(replace(job, inputs=Inputs((manifest, data))))
    first, again, other = asked
    assert first == again != other
    assert all(work.is_relative_to(job.work) for work in asked)  # which goes once it is done


def test_a_change_of_a_tasks_file_is_seen(tmp_path):
    task = tmp_path / "own.yaml"
    task.write_text("task: own")
    own = CI.benchmarks["gsm8k"].model_copy(update={"task": str(task)})
    experiment = CI.model_copy(update={"benchmarks": {**CI.benchmarks, "gsm8k": own}})
    before = resolve(experiment, model="mars-b4-small")
    assert set(before.task_files) == {"gsm8k"}
    (tmp_path / "utils.py").write_text("def process(): ...")
    assert resolve(experiment, model="mars-b4-small").task_files != before.task_files


def test_inputs_are_the_checkpoint_and_the_data_sets_that_the_model_meets():
    assert inputs(CI, "ar-small") == [
        "checkpoints/ar-small/manifest.json",
        "data/hub/manifest.json",
    ]
    found = inputs(PAPER, "mars-b4-7B")
    assert found[0] == "checkpoints/mars-b4-7B/manifest.json"
    assert "data/hub/openai/gsm8k/manifest.json" in found
    assert len(found) == len(set(found)) <= 1 + len(PAPER.benchmarks)


def test_declaring_stages_imports_nothing_slow():
    slow = ["torch", "transformers", "datasets", "lm_eval", "pandas", "matplotlib", "numpy"]
    program = (
        "import mars.evaluation.stage, mars.speed.stage, sys; "
        f"print([name for name in {slow} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr
