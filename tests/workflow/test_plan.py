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

from mars.config.experiment import load_experiment, read_experiment
from mars.paper.artefacts import artefacts_of
from mars.planning.jobs import specs_of
from mars.stages import STAGES
from tests.support.waiting import run

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
    assert trained == len(experiment.trained_models())
    assert trained + jobs["import_checkpoint"] == len(experiment.models)
    assert jobs["evaluate"] == len(experiment.evaluated_models())
    assert jobs["table"] + jobs["figure"] == len(artefacts_of(experiment))
    assert {rule: len(specs) for rule, specs in specs_of(experiment).items()} == {
        rule: count for rule, count in jobs.items() if rule not in ("default", "all", "total")
    }
    for name in ("report", "comparison", "claims"):
        assert jobs[name] == 1, name


# What the paper's tables need: sixteen models, of which two are Qwen's and the authors released
# twelve, all but the doubled AR SFT and the one of finding B2; six benchmarks, and
# Dolci-Instruct-SFT to train on.
PAPER = {
    (): {
        "train": 14,
        "import_checkpoint": 2,
        "tokenize": 2,
        "fetch_dataset": 7,
        "evaluate": 16,
    },
    ("0.5B",): {
        "train": 10,
        "import_checkpoint": 1,
        "tokenize": 1,
        "fetch_dataset": 7,
        "evaluate": 11,
    },
    ("released",): {"import_checkpoint": 14, "fetch_dataset": 6, "evaluate": 14},
    ("0.5B", "released", "without-gpqa"): {
        "import_checkpoint": 9,
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
    assert jobs["table"] + jobs["figure"] == len(artefacts_of(load_experiment(*files)))
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
    content = read_experiment(ROOT / "config/ci.yaml")
    content["settings"]["tau-0.95"]["threshold"] = 2
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    done, said = snakemake("-n", *SNAKEFILE, "--configfile", "mine.yaml", cwd=tmp_path)
    assert not done
    assert "mine.yaml: `settings.tau-0.95.threshold` is 2; tau lies between 0 and 1" in said
    assert "Traceback" not in said


def test_lint_is_clean(tmp_path: Path):
    done, said = snakemake("--lint", *SNAKEFILE, cwd=tmp_path)
    assert done, said


def rules() -> dict[str, str]:
    """The text of each rule, by name."""
    text = "".join(file.read_text() for file in sorted((ROOT / "workflow/rules").glob("*.smk")))
    blocks = re.split(r"^(?:use rule \w+ as |rule )(\w+)(?: with)?:$", text, flags=re.MULTILINE)[1:]
    return dict(zip(blocks[::2], blocks[1::2], strict=True))


def test_every_rule_has_the_spec_as_its_only_parameter():
    for name, body in rules().items():
        params = re.search(r"^( *)params:\n((?:\1 {4,}.*\n)+)", body, re.MULTILINE)
        if name != "stage":
            assert params, name
            assert params[2].strip() == f'spec=spec_of("{name}"),', name
        assert ("shell:" in body) is (name == "stage"), "one command for all"
    assert set(rules()) - {"stage"} == {stage.rule or stage.name for stage in STAGES.values()}


@pytest.mark.parametrize("rule", ["tokenize", "train"])
def test_what_can_use_threads_gets_those_of_the_experiment(rule: str):
    assert "threads: EXPERIMENT.threads\n" in rules()[rule]


def test_measurements_of_speed_are_alone():
    assert "threads: lambda wildcards: workflow.cores" in rules()["measure"]
    assert 'slurm_extra="--exclusive"' in rules()["measure"]


@pytest.mark.parametrize("profile", ["default", "gpu-node", "slurm"])
def test_every_entry_of_a_profile_is_explained(profile: str):
    lines = (ROOT / "workflow/profiles" / profile / "config.yaml").read_text().splitlines()
    for above, line in zip(["", *lines], lines):
        if re.match(r"[a-z]", line):
            assert above.startswith("# "), line


def test_a_job_asks_for_the_gpus_of_the_configuration_or_all_there_are(tmp_path: Path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("resources: {training: {7B: {activation_checkpointing: true}}}")
    config = ["--configfile", str(ROOT / "config/paper.yaml"), str(overlay)]
    target = "results/paper/checkpoints/mars-b4-7B/manifest.json"
    for gpus, expected in (([], 8), (["--resources", "gpu=2"], 2)):
        done, said = snakemake(
            *("-n", "-p", *SNAKEFILE, *config, *gpus, "--", target), cwd=tmp_path
        )
        assert done, said
        assert f"with-gpus {expected} run" in said
        assert "--option sharded=True --option activation_checkpointing=True" in said


@pytest.mark.parametrize("compiles", [False, True])
def test_evaluations_compile_only_where_the_configuration_says_so(compiles: bool, tmp_path: Path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(f"resources: {{evaluation_compile: {str(compiles).lower()}}}")
    config = ["--configfile", str(ROOT / "config/ci.yaml"), str(overlay)]
    target = "results/ci/evaluations/mars-b4-small/manifest.json"
    done, said = snakemake("-n", "-p", *SNAKEFILE, *config, "--", target, cwd=tmp_path)
    assert done, said
    assert ("--option compile=true" in said) == compiles
