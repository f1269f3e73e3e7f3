"""A checkpoint for the hub: what the hub's own readers find in it."""

import json

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from mars.config.experiment import load_experiment
from mars.errors import UserError
from mars.publishing.model_card import ENTRIES, export_for_hub

MODEL = "mars-b4"


def record(task, value, tokens_per_forward, metric):
    """What the card reads of the record of an evaluation."""
    return {
        "task": task,
        "documents": 10,
        "dataset": {"repository": "x/y", "revision": "abc"},
        "metrics": {metric[0]: {metric[1]: {"value": value, "stderr": 0.05}}},
        "tokens_per_forward": {"value": tokens_per_forward, "stderr": 0.01},
        "versions": {"lm_eval": "0.4"},
    }


@pytest.fixture
def experiment(tmp_path):
    """smollm2, of whose HumanEval only some questions are asked."""
    overlay = tmp_path / "few.yaml"
    overlay.write_text("benchmarks:\n  humaneval: {limit: 5}\n")
    return load_experiment("config/smollm2.yaml", overlay)


@pytest.fixture
def results(tmp_path, experiment):
    results = tmp_path / "results/smollm2"
    checkpoint = results / "checkpoints" / MODEL
    (checkpoint / "custom_generate").mkdir(parents=True)
    for name in ("manifest.json", "config.json", "custom_generate/generate.py"):
        (checkpoint / name).write_text("{}")
    (checkpoint / "README.md").write_text("# A model\n")
    for setting, speed in (("one-token", 1.0), ("tau-0.95", 1.5), ("lossless-0.5", 1.4)):
        for name, value in (("gsm8k", 0.321), ("humaneval", 0.2)):
            benchmark = experiment.benchmarks[name]
            folder = results / "evaluations" / MODEL / setting
            folder.mkdir(parents=True, exist_ok=True)
            made = record(benchmark.task, value, speed, (benchmark.metric, benchmark.filter))
            (folder / f"{name}.json").write_text(json.dumps(made))
    return results


def test_the_hub_finds_the_scores_of_whole_benchmarks(experiment, results, tmp_path):
    said = export_for_hub(experiment, MODEL, results, tmp_path / "out")
    assert [file.name for file in (tmp_path / "out" / ENTRIES).iterdir()] == ["gsm8k.yaml"]
    entries = parse_eval_result_entries(
        yaml.safe_load((tmp_path / "out" / ENTRIES / "gsm8k.yaml").read_text())
    )
    assert [(one.dataset_id, one.value) for one in entries] == [("openai/gsm8k", 32.1)] * 2
    assert "one token per forward; 0-shot" in entries[0].notes
    assert "tau = 0.95, 1.50 tokens per forward" in entries[1].notes
    card = ModelCard.load(tmp_path / "out/README.md").data
    assert [one.metric_value for one in card.eval_results] == [32.1, 32.1]
    assert card.datasets == ["mars-data/instruct-mix"]
    assert card.base_model is None, "it came from a package, not from the hub"
    assert said == [
        "Of HumanEval only the first questions were asked; these scores are not written to "
        "`.eval_results` or `model-index`."
    ]
    text = (tmp_path / "out/README.md").read_text()
    assert "# A model" in text
    assert "| HumanEval | 10 | tau = 0.95, 1.50 tokens per forward | 20.0 ± 5.0 |" in text
    assert "1.40" not in text, "lossless is another way of decoding than tau"


def test_the_files_are_the_checkpoint_but_for_the_manifest(experiment, results, tmp_path):
    export_for_hub(experiment, MODEL, results, tmp_path / "out")
    made = {file.name for file in (tmp_path / "out").iterdir()}
    assert made == {"README.md", "config.json", "custom_generate", ENTRIES}


def test_miniatures_are_no_benchmarks(results, tmp_path):
    tiny = load_experiment("config/tiny.yaml")
    (results / "checkpoints" / MODEL).rename(results / "checkpoints/mars-b4-small")
    (results / "evaluations" / MODEL).rename(results / "evaluations/mars-b4-small")
    (said,) = export_for_hub(tiny, "mars-b4-small", results, tmp_path / "out")
    assert "miniatures" in said
    assert not (tmp_path / "out" / ENTRIES).exists()
    assert ModelCard.load(tmp_path / "out/README.md").data.eval_results is None


def test_what_is_not_there_is_one_sentence(experiment, results, tmp_path):
    with pytest.raises(UserError, match="no model 'mars-b3'"):
        export_for_hub(experiment, "mars-b3", results, tmp_path / "out")
    with pytest.raises(UserError, match="mars-b8 is not here; run the experiment"):
        export_for_hub(experiment, "mars-b8", results, tmp_path / "out")
    assert not (tmp_path / "out").exists()
