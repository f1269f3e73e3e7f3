"""`config/paper.yaml` itself, end to end on a CPU, on stand-ins of the same layout.

The hub is a local server; models have random weights in the layout of Qwen's and of the authors'
checkpoints; data sets are this project's miniatures in the columns of the real ones.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from mars.config.experiment import GeneratedData, load_experiment
from mars.data.minibench.generate import INSTRUCT, generate
from mars.data.mirror import wanted_by
from mars.provenance.files import read_json
from tests.support.ci_experiment import environment
from tests.support.hub_server import Hub, serving
from tests.support.hub_standins import write_base, write_released
from tests.support.waiting import run as run_command

GATED = "Idavidrein/gpqa"
SIZES = GeneratedData(
    instructions=120, pretraining_documents=20, benchmark_documents=30, vocabulary=400
)
TRAINED = "mars-b8-0.5B"  # by us, from the released AR SFT; all others are released
LIMITS = {
    "threads": 1,
    "training": {"epochs": 1, "batch_size": 16, "row_length": 512, "precision": "float32"},
    "data": {"limit": 60},
    "evaluation": {"max_new_tokens": 16, "precision": "float32"},
    "models": {TRAINED: {"source": "train"}},
    "speed": None,  # one question per benchmark is nothing to time
    "artefacts": [
        *("table2", "table3", "table4", "table7", "table8", "table9", "findings"),
        *("figure1", "figure3", "figure6"),
    ],
    "benchmarks": {
        **{name: {"limit": 1} for name in ("ifeval", "gpqa", "gsm8k", "humaneval")},
        # The miniatures do not have all parts of these two.
        "bbh": {"limit": 1, "subtasks": ["boolean_expressions", "navigate"]},
        "mmlu_pro": {"limit": 1, "subtasks": ["business", "math"]},
    },
}


def serve_standins(folder: Path, overlays: list[Path], project: Path) -> None:
    """Write every repository that the experiment asks for into ``folder``."""
    generate(SIZES, folder)
    (folder / "allenai").mkdir()
    (folder / INSTRUCT).rename(folder / "allenai/Dolci-Instruct-SFT")
    experiment = load_experiment(project / "config/paper.yaml", *overlays)
    for seed, item in enumerate(wanted_by(experiment)):
        if item.kind == "model":
            write = write_base if item.repository.startswith("Qwen/") else write_released
            write(folder / item.repository, seed=seed)


def fetched(hub: Hub, mirror: Path, configs: list[Path], project: Path):
    command = [*(sys.executable, "-m", "mars", "fetch", "--to", str(mirror))]
    for config in configs:
        command += ["--config", str(config)]
    variables = environment(project) | {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}
    return run_command(command, mirror.parent, cwd=mirror.parent, env=variables)


def run(project: Path, folder: Path, configs: list[Path], mirror: Path, *arguments: str) -> str:
    """The workflow in ``folder``, with no hub to reach."""
    command = [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(project / "Snakefile")),
        *("--profile", str(project / "workflow/profiles/default"), "--nolock"),
        *("--configfile", *map(str, configs), *arguments),
    ]
    variables = environment(project) | {
        "MARS_HUB_MIRROR": str(mirror),
        "HF_ENDPOINT": "http://127.0.0.1:9",  # nobody answers there
        "HF_HOME": str(folder / "no-cache"),
    }
    done = run_command(command, folder, cwd=folder, env=variables)
    assert done.returncode == 0, done.stdout[-9000:]
    return done.stdout


@pytest.mark.slow
def test_the_paper_runs_from_released_checkpoints(project: Path, tmp_path: Path):
    configs = [
        project / "config/paper.yaml",
        project / "config/overlays/paper-released.yaml",
        tmp_path / "limits.yaml",
    ]
    configs[2].write_text(yaml.safe_dump(LIMITS))
    serve_standins(tmp_path / "hub", configs[1:], project)
    experiment = load_experiment(*configs)
    mirror, work = tmp_path / "mirror", tmp_path / "work"
    work.mkdir()

    with serving(tmp_path / "hub") as hub:
        hub.gated.add(GATED)
        done = fetched(hub, mirror, configs, project)
        assert done.returncode == 2, done.stdout
        assert "click 'Agree and access repository'" in done.stdout
        assert "Traceback" not in done.stdout
        hub.gated.clear()  # somebody clicked
        hub.requests.clear()
        done = fetched(hub, mirror, configs, project)
        assert done.returncode == 0, done.stdout
        files = [request for request in hub.requests if "/resolve/" in request]
        assert files
        assert all(GATED in request for request in files), "only what was missing is fetched"

    run(project, work, configs, mirror)
    results = work / "results/paper-released"
    for model in experiment.models:
        manifest = read_json(results / f"checkpoints/{model}/manifest.json")
        if model in experiment.released_models():
            assert manifest["repository"] == experiment.models[model].released.repository
            assert "released by the authors" in manifest["origin"]
            assert manifest["block_size"] == experiment.models[model].block_size
        for setting, benchmarks in experiment.evaluations_of(model).items():
            for benchmark in benchmarks:
                record = read_json(results / f"evaluations/{model}/{setting}/{benchmark}.json")
                assert record["tokens"] > 0
    table = pd.read_csv(results / "tables/table2.csv")
    missing = table[table["value"] == "not run"]["row"].unique()
    assert list(missing) == ["AR SFT (10 ep)"]
    assert f"Trained here: {TRAINED}." in (results / "tables/table3.md").read_text()
    assert "Nothing to be done" in run(project, work, configs, mirror, "--dry-run")
    audit = [sys.executable, "-m", "mars", "audit", "--all"]
    for config in configs:
        audit += ["--config", str(config)]
    # From there, because Python looks for the package in the working folder first.
    done = run_command(audit, cwd=work, env=environment(project))
    assert done.returncode == 0, done.stdout[-3000:]
