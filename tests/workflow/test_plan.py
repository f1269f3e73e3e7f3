"""What Snakemake plans, without running anything."""

from __future__ import annotations

import re
import sys
from collections import Counter
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import yaml
from snakemake.cli import args_to_api, parse_args
from waiting import run

from mars.config.experiment import load_experiment
from mars.stages import trained_models

ROOT = Path(__file__).resolve().parents[2]
SNAKEFILE = ("-s", str(ROOT / "Snakefile"))


def snakemake(*arguments: str, cwd: Path) -> tuple[bool, str]:
    """Run Snakemake in this process, which is soon over here; whether it succeeded, what it said.

    A process of its own loads Snakemake and reads all the code of this project first.
    """
    said = StringIO()
    with chdir(cwd), redirect_stdout(said), redirect_stderr(said):
        parser, parsed = parse_args(list(arguments))
        succeeded = args_to_api(parsed, parser)
    return succeeded, said.getvalue()


def planned_jobs(output: str) -> Counter[str]:
    """Job counts of a dry run's closing table."""
    table = output.rpartition("Job stats:")[2]
    return Counter({m[1]: int(m[2]) for m in re.finditer(r"^(\w+)\s+(\d+)$", table, re.MULTILINE)})


@pytest.mark.parametrize("name", ["tiny", "ci", "smollm2"])
def test_a_fresh_directory_plans_every_model_once(name: str, tmp_path: Path):
    config = ROOT / "config" / f"{name}.yaml"
    done, said = snakemake("-n", *SNAKEFILE, "--configfile", str(config), cwd=tmp_path)
    assert done, said
    jobs = planned_jobs(said)
    experiment = load_experiment(config)
    trained = jobs["pretrain"] + jobs["train"]
    assert trained == len(trained_models(experiment))
    assert trained + jobs["import_base"] == len(experiment.models)
    assert jobs["evaluate"] == len(experiment.evaluated_models())
    makers = ("table", "speed_table", "hyperparameters", "findings")
    makers += ("figure", "figure_1", "heat_map", "live_tau_figure")
    assert sum(jobs[maker] for maker in makers) == len(experiment.artefacts)
    for name in ("report", "comparison", "claims"):
        assert jobs[name] == 1, name


# What the paper's tables need: fifteen models, of which two are Qwen's and the authors released
# twelve, all but the doubled AR SFT; six benchmarks, and Dolci-Instruct-SFT to train on.
PAPER = {
    (): {
        "train": 13,
        "import_base": 2,
        "tokenize": 2,
        "fetch_dataset": 7,
        "evaluate": 15,
        "training_curves": 1,
    },
    ("0.5B",): {
        "train": 9,
        "import_base": 1,
        "tokenize": 1,
        "fetch_dataset": 7,
        "evaluate": 10,
        "training_curves": 1,
    },
    ("released",): {"import_released": 12, "import_base": 2, "fetch_dataset": 6, "evaluate": 14},
    ("0.5B", "released", "without-gpqa"): {
        "import_released": 8,
        "import_base": 1,
        "fetch_dataset": 5,
        "evaluate": 9,
    },
}


@pytest.mark.parametrize("overlays", PAPER, ids=lambda names: "+".join(names) or "whole")
def test_the_paper_is_planned_offline(overlays: tuple[str, ...], tmp_path: Path):
    names = ["paper.yaml", *(f"overlays/paper-{name}.yaml" for name in overlays)]
    files = [ROOT / "config" / name for name in names]
    configs = ["--configfile", *map(str, files)]
    done, said = snakemake("-n", *SNAKEFILE, *configs, cwd=tmp_path)
    assert done, said
    jobs = planned_jobs(said)
    artefacts = load_experiment(*files).artefacts
    numbered = [name for name in artefacts if name.startswith("table") and name != "table7"]
    assert jobs["table"] + jobs["speed_table"] == len(numbered)
    others = {name: count for name, count in jobs.items() if name in ALL_STAGES}
    assert others == PAPER[overlays]


ALL_STAGES = {name for stages in PAPER.values() for name in stages} | {"pretrain", "generate_data"}


def test_plain_snakemake_at_the_root_is_the_tiny_experiment(tmp_path: Path):
    for entry in ("Snakefile", "workflow", "config"):
        (tmp_path / entry).symlink_to(ROOT / entry)
    done = run([sys.executable, "-m", "snakemake", "-n"], cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "results/tiny/" in done.stdout


def test_a_mistake_in_the_configuration_is_one_sentence(tmp_path: Path):
    content = yaml.safe_load((ROOT / "config/ci.yaml").read_text())
    content["settings"]["tau-0.95"]["threshold"] = 2
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    done, said = snakemake("-n", *SNAKEFILE, "--configfile", "mine.yaml", cwd=tmp_path)
    assert not done
    assert "mine.yaml: `settings.tau-0.95.threshold` is 2; tau lies between 0 and 1" in said
    assert "Traceback" not in said


def test_lint_is_clean(tmp_path: Path):
    done, said = snakemake("--lint", *SNAKEFILE, cwd=tmp_path)
    assert done, said


@pytest.mark.parametrize("file", sorted((ROOT / "workflow/rules").glob("*.smk")), ids=str)
def test_every_rule_has_the_spec_as_its_only_parameter(file: Path):
    blocks = re.split(r"^ *rule (\w+):$", file.read_text(), flags=re.MULTILINE)[1:]
    for name, body in zip(blocks[::2], blocks[1::2], strict=True):
        params = re.search(r"^( *)params:\n((?:\1 {4,}.*\n)+)", body, re.MULTILINE)
        assert params, name
        assert [line.split("=")[0].strip() for line in params[2].splitlines()] == ["spec"], name
        shell = re.search(r"shell:\n((?: *\".*\"\n)+)", body)
        assert shell, name
        used = set(re.findall(r"\{(\w+)", shell[1]))
        assert used <= {"params", "input", "output", "log", "threads", "resources"}, (name, used)


@pytest.mark.parametrize("name", ["speed_sweep", "speculative", "live_tau"])
def test_measurements_of_speed_are_alone(name: str):
    rules = (ROOT / "workflow/rules/benchmark.smk").read_text()
    body = re.split(rf"^rule {name}:$", rules, flags=re.MULTILINE)[1].split("\nrule ")[0]
    assert "threads: alone" in body
    assert "slurm_extra=WHOLE_NODE" in body


@pytest.mark.parametrize("profile", ["default", "gpu-node", "slurm"])
def test_every_entry_of_a_profile_is_explained(profile: str):
    lines = (ROOT / "workflow/profiles" / profile / "config.yaml").read_text().splitlines()
    for above, line in zip(["", *lines], lines):
        if re.match(r"[a-z]", line):
            assert above.startswith("# "), line


def test_a_job_asks_for_the_gpus_of_the_configuration_or_all_there_are(tmp_path: Path):
    config = ["--configfile", str(ROOT / "config/paper.yaml")]
    target = "results/paper/checkpoints/mars-b4-7B/manifest.json"
    for gpus, expected in (([], 8), (["--resources", "gpu=2"], 2)):
        done, said = snakemake(
            *("-n", "-p", *SNAKEFILE, *config, *gpus, "--", target), cwd=tmp_path
        )
        assert done, said
        assert f"with-gpus --sharded {expected} train" in said
        assert f"with-gpus --no-sharded {expected} train" not in said
