"""How well trainings used their GPUs, from the summaries that they write."""

import json

import pytest

from mars.config.experiment import load_experiment
from mars.machine.data_sheets import peaks
from mars.publishing.gpu_trainings import write_gpu_trainings
from mars.training.cost import Decoder, document_work, training_flops

GPU, SECONDS, GPUS, DOCUMENTS, PROMPT, LENGTH = "NVIDIA H100 80GB HBM3", 20.0, 4, 300, 40, 100
CONFIG = {
    **{"model_type": "qwen2", "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 160},
    **{"num_attention_heads": 4, "num_key_value_heads": 1, "vocab_size": 600},
    "tie_word_embeddings": True,
}


@pytest.fixture
def experiment():
    return load_experiment("config/ci.yaml")


@pytest.fixture
def trained(experiment, tmp_path):
    """A function that writes what a training leaves behind; all documents are of one length."""
    results = tmp_path / "results" / experiment.experiment

    def write(name, device, method):
        for kind in ("documents", "instructions"):
            (scale,) = {experiment.models[name].scale}
            folder = results / "data" / "tokens" / scale / kind
            folder.mkdir(parents=True, exist_ok=True)
            totals = {"tokens": DOCUMENTS * LENGTH, "prompt_tokens": DOCUMENTS * PROMPT}
            (folder / "summary.json").write_text(json.dumps({"examples": DOCUMENTS, **totals}))
        work = document_work(method, PROMPT, LENGTH - PROMPT, experiment.models[name].block_size)
        tokens = DOCUMENTS * work.tokens
        folder = results / "checkpoints" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(CONFIG))
        summary = {
            **{"method": method, "device": device, "processes": GPUS, "seconds": SECONDS},
            **{"tokens": tokens, "tokens_per_second": tokens / SECONDS, "parameters": 1},
            "peak_memory_bytes": 10**9,
        }
        (folder / "training_summary.json").write_text(json.dumps(summary))
        return DOCUMENTS * training_flops(Decoder.from_config(CONFIG), work)

    return write


def models(experiment, method):
    first = next(iter(experiment.scales))
    return [n for n, m in experiment.models.items() if (m.method, m.scale) == (method, first)]


@pytest.mark.parametrize("method", ["ar_sft", "mars"])
def test_utilisation_is_the_operations_of_the_documents_over_what_the_gpus_could_do(
    experiment, trained, tmp_path, method
):
    name = models(experiment, method)[0]
    operations = trained(name, GPU, method)
    (row,) = json.loads(write_gpu_trainings(experiment, tmp_path).read_text())["trainings"]
    peak = peaks(GPU)[0]
    assert row["model_flops_utilisation"] == pytest.approx(operations / (SECONDS * GPUS * peak))
    assert (row["model"], row["gpu"], row["gpus"]) == (name, GPU, GPUS)


def test_a_gpu_without_data_sheet_has_no_utilisation(experiment, trained, tmp_path):
    trained(models(experiment, "mars")[0], "A GPU of tomorrow", "mars")
    (row,) = json.loads(write_gpu_trainings(experiment, tmp_path).read_text())["trainings"]
    assert row["model_flops_utilisation"] is None
    assert row["tokens_per_second"] > 0


def test_nothing_is_written_of_trainings_on_a_cpu(experiment, trained, tmp_path):
    trained(models(experiment, "mars")[0], "cpu", "mars")
    assert write_gpu_trainings(experiment, tmp_path) is None
    assert not (tmp_path / "results" / "gpu").exists()
