"""After a change exactly the jobs run again that depend on it.

Most edits are judged by the specs alone: a job runs if its spec differs from its record's, or if a
job before it runs. Real dry runs check that Snakemake comes to the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mars.audit.audit import Records
from mars.audit.differences import differences, job_name
from mars.audit.plan import estimates, jobs, reason
from mars.config.experiment import Experiment, load_experiment
from mars.provenance.files import read_json
from mars.stages import cell_spec, datasets_of, spec

SMALL = {
    *("base-small", "ar-small", "block-diffusion-b4-small"),
    *("mars-b4-small", "mars-b8-no-sft-small"),
}
MODELS = SMALL | {"base-large", "ar-large", "mars-b4-large"}
# What is made from evaluations, and of which models.
SHOWN = {
    "table 2": MODELS - {"base-large", "mars-b8-no-sft-small"},
    "table 3": {"ar-small", "mars-b4-small", "mars-b8-no-sft-small", "ar-large", "mars-b4-large"},
    "table 4": {"mars-b4-small", "mars-b4-large"},
    "table 8": {"mars-b4-small", "mars-b8-no-sft-small", "mars-b4-large"},
    "table 9": {"ar-small", "mars-b4-small"},
    "findings": {"ar-small", "mars-b4-small", "mars-b8-no-sft-small", "ar-large", "mars-b4-large"},
    "claims": MODELS - {"base-small", "base-large"},
    "figure_1": {"mars-b4-small"},
    "figure_3": {"ar-small", "mars-b4-small", "mars-b8-no-sft-small", "ar-large", "mars-b4-large"},
    "figure_6": {"mars-b4-small"},
}
# What is timed, and of which models; the tables and figures of that.
ALONE, PAIRS = {"mars-b4-large"}, {"ar-small", "mars-b4-small", "ar-large", "mars-b4-large"}
TIMED = {
    **{job: ALONE for job in ("speed_sweep", "speed_table 5", "figure_heat_map")},
    **{job: PAIRS for job in ("speculative", "speed_table 6")},
    **{job: ALONE for job in ("live_tau", "figure_live_tau")},
}
TRAIN = {f"train {model}" for model in MODELS}
EVALUATE = {f"evaluate {model}" for model in MODELS - {"base-large"}}
# What is made from the records and curves of the trainings.
TRAINED = {"training_curves", "hyperparameters", "report"}
DATA = {"generate_data", "train_tokenizer"}
# Once for both scales, which have the same tokenizer.
DATA |= {f"tokenize {kind} small" for kind in ("instructions", "documents")}


def shown(*models: str) -> set[str]:
    """The jobs that show any of these models' evaluations."""
    jobs = {job for job, of in SHOWN.items() if of & set(models)}
    return jobs | {"comparison", "report"}


def timed(*models: str) -> set[str]:
    """The jobs that time any of these models, and what shows it."""
    jobs = {job for job, of in TIMED.items() if of & set(models)}
    return jobs | ({"comparison", "claims", "report"} if jobs else set())


PAPER = shown(*MODELS)
CURVES = {"training_curves", "report"}
TABLES = {job for job in SHOWN if job.startswith("table")} | {"findings", "comparison", "report"}
TABLES |= {"speed_table 5", "speed_table 6", "claims"}
ALL = DATA | TRAIN | EVALUATE | PAPER | TRAINED | set(TIMED)


def to_run(finished: Path, experiment: Experiment) -> set[str]:
    """The recorded jobs whose spec is another one now, and those that come after them."""
    records = Records(experiment, finished)
    names = {name: job_name(record["spec"]) for name, record in records.records.items()}
    return {
        names[name]
        for name in names
        if any(
            differences(records.records[link.record], experiment) for link in records.chain(name)
        )
    }


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path} has no {old!r} any more; adapt the test"
    path.write_text(text.replace(old, new, 1))


def configure(project: Path, change: Callable[[dict[str, Any]], Any]) -> Experiment:
    """The experiment after ``change`` was applied to its configuration file."""
    path = project / "config/ci.yaml"
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return load_experiment(path)


def append(module: str, text: str) -> Callable[[Path], None]:
    def apply(project: Path) -> None:
        with open(project / "mars" / module, "a") as stream:
            stream.write(text)

    return apply


def comment_every_module(project: Path) -> None:
    for path in (project / "mars").rglob("*.py"):
        text = re.sub(r'\A"""', '"""Said otherwise: ', path.read_text())
        path.write_text(f"# A new comment.\n{text}\n# And another.\n")


def bump(package: str) -> Callable[[Path], None]:
    def apply(project: Path) -> None:
        lock = project / "requirements.lock"
        text, count = re.subn(rf"(?m)^{package}==.*$", f"{package}==99.1", lock.read_text())
        assert count == 1
        lock.write_text(text)

    return apply


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(lambda project: None, set(), id="nothing"),
        pytest.param(comment_every_module, set(), id="comments and docstrings everywhere"),
        pytest.param(
            append("paper/figures/training_curves.py", "x = 1\n"), CURVES, id="only the figure"
        ),
        pytest.param(append("paper/tables.py", "x = 1\n"), TABLES, id="only the tables"),
        pytest.param(append("paper/claims.py", "x = 1\n"), {"claims", "report"}, id="claims"),
        pytest.param(
            append("decoding/acceptance.py", "x = 1\n"),
            EVALUATE | PAPER | set(TIMED),
            id="acceptance rule",
        ),
        pytest.param(
            append("training/losses.py", "x = 1\n"),
            TRAIN | EVALUATE | PAPER | TRAINED | set(TIMED),
            id="training loss",
        ),
        pytest.param(append("data/generate.py", "x = 1\n"), ALL, id="corpus"),
        pytest.param(append("provenance/audit.py", "x = 1\n"), set(), id="audit"),
        pytest.param(append("cli/paper.py", "x = 1\n"), set(), id="command line"),
        pytest.param(bump("torch"), ALL, id="torch in the lock"),
        pytest.param(bump("ruff"), set(), id="a tool in the lock"),
    ],
)
def test_an_edit_reruns_what_uses_it(
    finished: Path, edited: Path, change: Callable[[Path], None], expected: set[str]
):
    change(edited)
    assert to_run(finished, load_experiment(edited / "config/ci.yaml")) == expected


def of_model(*names: str) -> set[str]:
    return {f"{stage} {name}" for stage in ("train", "evaluate") for name in names}


SLOWER = {"learning_rate": 1e-3}
CHILDREN = SMALL - {"base-small"}  # of it: AR SFT and what starts from that
ALL_BENCHMARKS = ("base-small", "ar-small", "mars-b4-small")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            lambda c: c["models"]["mars-b4-small"].update(training=SLOWER),
            of_model("mars-b4-small") | shown("mars-b4-small") | timed("mars-b4-small") | TRAINED,
            id="learning rate of one model",
        ),
        pytest.param(
            lambda c: c["models"]["ar-small"].update(training=SLOWER),
            of_model(*CHILDREN) | shown(*CHILDREN) | timed(*CHILDREN) | TRAINED,
            id="learning rate of a parent",
        ),
        pytest.param(
            lambda c: c["benchmarks"].update(math={**c["benchmarks"]["gsm8k"], "title": "Math"}),
            {f"evaluate {model}" for model in ALL_BENCHMARKS} | shown(*ALL_BENCHMARKS),
            id="a benchmark more",
        ),
        pytest.param(
            lambda c: (
                c["settings"].update({"tau-0.3": {"threshold": 0.3}}),
                c["evaluate"][1]["settings"].append("tau-0.3"),
            ),
            {"evaluate mars-b4-small"} | shown("mars-b4-small"),
            id="a threshold more",
        ),
        pytest.param(lambda c: c["data"].update(seed=1), ALL, id="seed of the data"),
        pytest.param(
            lambda c: c["evaluation"].update(max_new_tokens=17),
            EVALUATE | PAPER | {"hyperparameters"},
            id="protocol",
        ),
        pytest.param(
            lambda c: c["scales"]["large"].update(stands_for="0.5B"),
            TABLES | {"hyperparameters", "figure_3", "figure_6"},
            id="other rows of the tables",
        ),
        pytest.param(lambda c: c["training"].update(checkpoint_minutes=1), set(), id="save often"),
        pytest.param(lambda c: c.update(threads=2), set(), id="threads"),
        pytest.param(lambda c: c.update(description="x"), {"report"}, id="description"),
    ],
)
def test_a_configuration_change_reruns_what_depends_on_it(
    finished: Path, edited: Path, change: Callable[[dict[str, Any]], Any], expected: set[str]
):
    # A table's spec names the models, their thresholds and benchmarks; what is unchanged in it
    # reruns because of what comes before.
    assert to_run(finished, configure(edited, change)) == expected


def test_swapped_values_change_both_models(edited: Path):
    def rates(first: float, second: float) -> Callable[[dict[str, Any]], None]:
        def change(content: dict[str, Any]) -> None:
            content["models"]["ar-small"]["training"] = {"learning_rate": first}
            content["models"]["mars-b4-small"]["training"] = {"learning_rate": second}

        return change

    one, other = configure(edited, rates(0.001, 0.002)), configure(edited, rates(0.002, 0.001))
    for model in ("ar-small", "mars-b4-small"):
        assert spec(one, "train", model=model) != spec(other, "train", model=model)
    assert spec(one, "train", model="base-small") == spec(other, "train", model="base-small")


def test_a_new_revision_fetches_and_evaluates(edited: Path):
    before = load_experiment(edited / "config/smollm2.yaml")
    benchmark = before.benchmarks["gsm8k"].model_copy(update={"revision": "abc"})
    benchmarks = {**before.benchmarks, "gsm8k": benchmark}
    after = before.model_copy(update={"benchmarks": benchmarks})
    for repository in datasets_of(before):
        pair = [spec(e, "fetch_dataset", repository=repository) for e in (before, after)]
        assert (pair[0] != pair[1]) is (repository == "openai/gsm8k")
    for model in before.evaluated_models():
        assert spec(before, "evaluate", model=model) != spec(after, "evaluate", model=model)


def test_a_new_threshold_keeps_the_cells_that_are_there(finished: Path, edited: Path):
    path = finished / "results/ci/provenance/evaluate/mars-b4-small.json"
    experiment = configure(
        edited,
        lambda c: (
            c["settings"].update({"tau-0.3": {"threshold": 0.3}}),
            c["evaluate"][1]["settings"].append("tau-0.3"),
        ),
    )
    record = read_json(path)
    now = json.loads(spec(experiment, "evaluate", model="mars-b4-small"))
    for setting in ("one-token", "tau-0.95"):
        for benchmark in experiment.benchmarks:
            cell = read_json(
                finished / f"results/ci/evaluations/mars-b4-small/{setting}/{benchmark}.json"
            )
            assert cell["cell_spec"] == cell_spec(now, record["inputs"], setting, benchmark)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda project: None, {}),
        (
            append("decoding/acceptance.py", "x = 1\n"),
            {"evaluate ar-small": "code: mars.decoding.acceptance."},
        ),
        (
            lambda project: configure(
                project, lambda c: c["models"]["mars-b4-small"].update(training=SLOWER)
            ),
            {
                "train mars-b4-small": "configuration: training.learning_rate 0.005 -> 0.001.",
                "evaluate mars-b4-small": "what it is made from will be made again.",
            },
        ),
        (
            bump("torch"),
            {"tokenize small-documents": "packages: torch 2.13.0, the lock has 99.1."},
        ),
    ],
    ids=["nothing", "acceptance rule", "learning rate", "torch"],
)
def test_snakemake_plans_the_same_and_the_reason_is_told(
    run: Path, edited: Path, change: Callable[[Path], Any], told: dict[str, str]
):
    change(edited)
    config = edited / "config/ci.yaml"
    experiment = load_experiment(config)
    planned = {job.name: job for job in jobs([config], run) if job.runs}
    records = {str(job.record.relative_to(run)) for job in planned.values()}
    of_record = Records(experiment, run).records
    assert {job_name(of_record[name]["spec"]) for name in records} == to_run(run, experiment)
    for name, why in told.items():
        assert reason(planned[name], experiment, run) == f"{name}: {why}"
    table = estimates(list(planned.values()), experiment, run)
    assert "unknown" not in "".join(table)
    assert len(table) == 2 + len({job.stage for job in planned.values()})
