"""The whole workflow on the `ci` experiment: killed once, resumed, finished, then nothing to do."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from mars.config.experiment import load_experiment
from mars.provenance.files import read_json, sha256_file
from mars.provenance.manifest import verify_manifest
from tests.support.ci_experiment import FAILURE, snakemake

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config/ci.yaml"


def test_the_experiment_runs_to_its_end(experiment: Path):
    """Fails for all tests that need the experiment, which then skip."""
    if (experiment / FAILURE).exists():
        pytest.fail((experiment / FAILURE).read_text(), pytrace=False)


@pytest.fixture
def results(finished: Path) -> Path:
    return finished / "results/ci"


def test_a_second_run_has_nothing_to_do(project: Path, finished: Path):
    assert "Nothing to be done" in snakemake(project, finished, "--dry-run")


def test_every_model_setting_and_benchmark_has_a_record(results: Path):
    experiment = load_experiment(CONFIG)
    for model in experiment.evaluated_models():
        for setting, benchmarks in experiment.evaluations_of(model).items():
            for benchmark in benchmarks:
                record = read_json(results / f"evaluations/{model}/{setting}/{benchmark}.json")
                assert record["documents"] == experiment.data.benchmark_documents
                assert record["forwards"] >= record["documents"]
                # The others also forward what gives no token: a filled block, a last mask.
                if record["decoding"]["method"] not in ("block_cache", "block_diffusion"):
                    assert record["tokens"] >= record["forwards"]


def test_the_tables_hold_the_records(results: Path):
    experiment = load_experiment(CONFIG)
    table = pd.read_csv(results / "tables/table2.csv")
    ours = table[table["model"] == "mars-b4-small"].set_index("benchmark")
    for name, benchmark in experiment.benchmarks.items():
        record = read_json(results / f"evaluations/mars-b4-small/one-token/{name}.json")
        score = record["metrics"][benchmark.metric][benchmark.filter]["value"]
        assert float(ours.loc[benchmark.title, "value"]) == pytest.approx(100 * score)
    for name in ("table2", "table3", "table4", "table7", "table8", "table9", "findings"):
        for suffix in ("csv", "md", "tex"):
            assert (results / f"tables/{name}.{suffix}").stat().st_size > 500


def test_the_verdicts_are_written(results: Path):
    verdicts = {claim["number"]: claim["verdict"] for claim in read_json(results / "claims.json")}
    assert list(verdicts) == list(range(1, 11))
    # Models of seconds show nothing but what holds by construction.
    assert verdicts[10] == "holds"
    compared = pd.read_csv(results / "comparison.csv")
    assert set(compared["verdict"]) == {"not comparable", "not run"}
    assert {"table2", "table5", "table9"} < set(compared["artefact"])


def test_records_name_the_bytes_that_are_there(finished: Path, results: Path):
    records = sorted((results / "provenance").rglob("*.json"))
    assert len(records) >= 12
    for path in records:
        record = read_json(path)
        for name, digest in {**record["inputs"], **record["outputs"]}.items():
            assert sha256_file(finished / name) == digest, (path, name)
    for manifest in results.rglob("manifest.json"):
        assert verify_manifest(manifest) == []


def test_the_checkpoints_are_ordinary_ones(results: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    models = load_experiment(CONFIG).models
    sizes = set()
    for folder in (results / "checkpoints").glob("[!.]*"):
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        prompt = tokenizer("What is 1 + 1?", return_tensors="pt")
        assert model.generate(**prompt, max_new_tokens=3, do_sample=False).shape[0] == 1
        assert tokenizer.mask_token_id is not None
        sizes.add((models[folder.name].scale, model.num_parameters()))
    assert len(sizes) == 2, "fine-tuning must not change the number of parameters"


def test_training_curves_are_drawn(results: Path):
    assert (results / "figures/training_curves.png").stat().st_size > 10_000
