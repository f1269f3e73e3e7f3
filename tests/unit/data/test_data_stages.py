"""What the stages of data see of an experiment and what they need; they run one after another."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import load_from_disk

from mars.config.experiment import Experiment, load_experiment
from mars.data.mirror import wanted_by
from mars.data.stage import (
    FETCH_DATASET,
    GENERATE_DATA,
    TOKENIZE,
    TRAIN_TOKENIZER,
    tokens_of,
)
from mars.errors import UserError
from mars.provenance.files import read_json
from mars.provenance.manifest import write_manifest
from mars.provenance.stage import Inputs, Job, JobSpec, Stage

CONFIG = Path(__file__).resolve().parents[3] / "config"


@pytest.fixture(scope="module")
def paper() -> Experiment:
    return load_experiment(CONFIG / "paper.yaml")


@pytest.fixture(scope="module")
def ci() -> Experiment:
    return load_experiment(CONFIG / "ci.yaml")


def run(stage: Stage, experiment: Experiment, results: Path, output: str, **target: str) -> Path:
    """Run a stage on the inputs that it names; its manifest."""
    spec = stage.resolve(experiment, **target)
    plan = JobSpec(
        stage=stage.name, target=target, config=spec.model_dump(mode="json"), code="", packages=""
    )
    inputs = Inputs(tuple(results / file for file in stage.inputs(experiment, **target)))
    facts = stage.start(Job(plan, inputs, results / output))
    return write_manifest(results / output, **(facts or {}))


def test_generated_data_becomes_tokens(ci: Experiment, tmp_path: Path):
    run(GENERATE_DATA, ci, tmp_path, "data/hub")
    run(TRAIN_TOKENIZER, ci, tmp_path, "data/tokenizer")
    for kind in ("instructions", "documents"):
        made = run(TOKENIZE, ci, tmp_path, f"data/tokens/small/{kind}", scale="small", kind=kind)
        assert made == tmp_path / tokens_of(ci, "large", kind), "one tokenizer, one set of tokens"
        facts = read_json(made)
        assert len(load_from_disk(made.parent)) == facts["examples"]
        assert facts["left_out"] == {}
    assert not list(tmp_path.rglob(".*partial"))


def test_data_of_the_hub(paper: Experiment):
    for stage in (GENERATE_DATA, TRAIN_TOKENIZER):
        with pytest.raises(UserError, match="paper has no generated data"):
            stage.resolve(paper)
    assert FETCH_DATASET.resolve(paper, repository="openai/gsm8k").revision is None
    assert TOKENIZE.inputs(paper, scale="7B", kind="instructions") == [
        "data/hub/allenai/Dolci-Instruct-SFT/manifest.json",
        "checkpoints/base-7B/manifest.json",
    ]
    tokens = TOKENIZE.resolve(paper, scale="7B", kind="instructions")
    assert (tokens.dataset, tokens.max_length) == ("allenai/Dolci-Instruct-SFT", 512)
    assert tokens_of(paper, "7B", "instructions") == "data/tokens/7B/instructions/manifest.json"


def test_what_is_fetched_for_an_experiment(paper: Experiment):
    released = load_experiment(CONFIG / "paper.yaml", CONFIG / "overlays/paper-released.yaml")
    whole, ready = ({item.repository: item for item in wanted_by(one)} for one in (paper, released))
    assert set(whole) == {
        *paper.datasets(),
        "Qwen/Qwen2.5-0.5B-Instruct",
        "Qwen/Qwen2.5-7B-Instruct",
    }
    assert "allenai/Dolci-Instruct-SFT" not in ready, "nothing is trained"
    assert ready["Idavidrein/gpqa"].benchmark == "gpqa"
    models = [name for name, item in ready.items() if item.kind == "model"]
    assert len(models) == 2 + len(released.released_models()) == 14


def test_specs_are_read_back_as_they_were(paper: Experiment, ci: Experiment):
    targets = {
        GENERATE_DATA: (ci, {}),
        FETCH_DATASET: (paper, {"repository": "openai/gsm8k"}),
        TRAIN_TOKENIZER: (ci, {}),
        TOKENIZE: (paper, {"scale": "7B", "kind": "instructions"}),
    }
    for stage, (experiment, target) in targets.items():
        spec = stage.resolve(experiment, **target)
        assert stage.spec.model_validate_json(spec.model_dump_json()) == spec
