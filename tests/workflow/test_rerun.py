"""After a change exactly the jobs run again that depend on it.

Most edits are judged by the specs alone: a job runs if its spec differs from its record's, or if a
job before it runs. Real dry runs check that Snakemake comes to the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mars.audit.record_graph import RecordGraph
from mars.config.experiment import Experiment, load_experiment, read_experiment
from mars.evaluation.stage import cell_spec
from mars.planning.differences import differences, spec_of
from mars.planning.plan import estimates, jobs, reason
from mars.provenance.files import read_json
from mars.provenance.stage import JobSpec
from mars.stages import STAGES
from tests.support.ci_experiment import change_function

SMALL = {
    *("base-small", "ar-small", "block-diffusion-b4-small"),
    *("mars-b4-small", "mars-b8-no-sft-small"),
}
MODELS = SMALL | {"base-large", "ar-large", "mars-b4-large"}
# What is made from evaluations, and of which models.
SHOWN = {
    "table2": MODELS - {"base-large", "mars-b8-no-sft-small"},
    "table3": {"ar-small", "mars-b4-small", "mars-b8-no-sft-small", "ar-large", "mars-b4-large"},
    "table4": {"mars-b4-small", "mars-b4-large"},
    "table8": {"mars-b4-small", "mars-b8-no-sft-small", "mars-b4-large"},
    "table9": {"ar-small", "mars-b4-small"},
    "findings": {"ar-small", "mars-b4-small", "mars-b8-no-sft-small", "ar-large", "mars-b4-large"},
    "claims": MODELS - {"base-small", "base-large"},
    "compute": {"ar-small", "mars-b4-small", "ar-large", "mars-b4-large"},
    "figure1": {"mars-b4-small"},
    "figure3": {"ar-small", "mars-b4-small", "mars-b8-no-sft-small", "ar-large", "mars-b4-large"},
    "figure6": {"mars-b4-small"},
}
# What is timed, and of which models; the tables and figures of that.
ALONE, PAIRS = {"mars-b4-large"}, {"ar-small", "mars-b4-small", "ar-large", "mars-b4-large"}
TIMED = {
    **{job: ALONE for job in ("measure_wall_clock", "table5", "heat_map")},
    **{job: PAIRS for job in ("measure_speculative", "table6")},
    **{job: ALONE for job in ("measure_live_tau", "live_tau")},
}
PROBED = {"mars-b4-small", "mars-b8-no-sft-small"}
MEASURED = {job for job in TIMED if job.startswith("measure")}


def trained(*models: str) -> set[str]:
    """The jobs that train these models."""
    return {f"{'pretrain' if m.startswith('base') else 'train'} {m}" for m in models}


TRAIN = trained(*MODELS)
EVALUATE = {f"evaluate {model}" for model in MODELS - {"base-large"}}
# What is made from the records and curves of the trainings.
TRAINED = {"training_curves", "table7", "report"}
# Tokens once for both scales, which have the same tokenizer.
TOKENS = {f"tokenize {kind} small" for kind in ("instructions", "documents")}
DATA = {"generate_data", "train_tokenizer"} | TOKENS


def shown(*models: str) -> set[str]:
    """The jobs that show any of these models' evaluations."""
    jobs = {job for job, of in SHOWN.items() if of & set(models)}
    return jobs | {"comparison", "report"}


def probed(*models: str) -> set[str]:
    """The jobs that look at the masks of any of these models, and what shows it."""
    jobs = {f"probe {model}" for model in PROBED & set(models)}
    return jobs | ({"masks", "report"} if jobs else set())


def timed(*models: str) -> set[str]:
    """The jobs that time any of these models, and what shows it."""
    jobs = {job for job, of in TIMED.items() if of & set(models)}
    return jobs | ({"comparison", "claims", "report"} if jobs else set())


PAPER = shown(*MODELS)
CURVES = {"training_curves", "report"}
TABLES = {job for job in (*SHOWN, *TIMED) if job.startswith("table")}
TABLES |= {"findings", "claims", "comparison", "report"}
AFTER_TRAINING = EVALUATE | PAPER | set(TIMED) | probed(*MODELS)
ALL = DATA | TRAIN | TRAINED | AFTER_TRAINING


def to_run(finished: Path, experiment: Experiment) -> set[str]:
    """The recorded jobs whose spec is another one now, and those that come after them."""
    graph = RecordGraph(experiment, finished)
    other = {n for n, one in graph.records.items() if differences(one, experiment, finished)}
    return {
        spec_of(record).job
        for name, record in graph.records.items()
        if other.intersection(graph.behind(name))
    }


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path} has no {old!r} any more; adapt the test"
    path.write_text(text.replace(old, new, 1))


def configure(project: Path, change: Callable[[dict[str, Any]], Any]) -> Experiment:
    """The experiment after ``change`` was applied to its configuration file."""
    path = project / "config/ci.yaml"
    content = read_experiment(path)
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return load_experiment(path)


def append(module: str, text: str) -> Callable[[Path], None]:
    def apply(project: Path) -> None:
        with open(project / "mars" / module, "a") as stream:
            stream.write(text)

    return apply


def change(module: str, name: str) -> Callable[[Path], None]:
    return lambda project: change_function(project / "mars" / module, name)


def reword(module: str) -> Callable[[Path], None]:
    """The same errors in other words."""

    def apply(project: Path) -> None:
        path = project / "mars" / module
        text, count = re.subn(r'(raise UserError\(\s*f?")', r"\1In other words: ", path.read_text())
        assert count
        path.write_text(text)

    return apply


HELPER = "\n\ndef an_unused_helper(path):\n    return path\n"


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
        pytest.param(append("provenance/files.py", HELPER), set(), id="an unused helper"),
        pytest.param(append("training/trainer.py", HELPER), set(), id="one in the trainer"),
        pytest.param(reword("training/trainer.py"), set(), id="an error in other words"),
        pytest.param(
            change("paper/figures/training_curves.py", "plot_curves"), CURVES, id="only the figure"
        ),
        pytest.param(
            change("paper/tables/table.py", "Table.title"),
            TABLES | {"table7"},
            id="only the tables",
        ),
        pytest.param(
            change("paper/claims/report.py", "write_claims"), {"claims", "report"}, id="claims"
        ),
        pytest.param(
            change("decoding/acceptance.py", "accepted_run"), AFTER_TRAINING, id="acceptance rule"
        ),
        pytest.param(
            change("training/trainer.py", "train"), TRAIN | TRAINED | AFTER_TRAINING, id="trainer"
        ),
        pytest.param(
            change("training/stage.py", "run"),
            TRAIN | TRAINED | AFTER_TRAINING,
            id="what the stage decides",
        ),
        pytest.param(change("data/minibench/generate.py", "generate"), ALL, id="corpus"),
        pytest.param(change("audit/record_graph.py", "worst"), set(), id="audit"),
        pytest.param(change("cli/stages.py", "run"), set(), id="command line"),
        pytest.param(bump("torch"), ALL - DATA, id="torch in the lock"),
        pytest.param(bump("lm-eval"), AFTER_TRAINING, id="lm-eval in the lock"),
        pytest.param(bump("ruff"), set(), id="a tool in the lock"),
    ],
)
def test_an_edit_reruns_what_uses_it(
    finished: Path, edited: Path, change: Callable[[Path], None], expected: set[str]
):
    change(edited)
    assert to_run(finished, load_experiment(edited / "config/ci.yaml")) == expected


def of_model(*names: str) -> set[str]:
    return trained(*names) | {f"evaluate {name}" for name in names}


SLOWER = {"learning_rate": 1e-3}
CHILDREN = SMALL - {"base-small"}  # of it: AR SFT and what starts from that
ALL_BENCHMARKS = ("base-small", "ar-small", "mars-b4-small")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            lambda c: c["models"]["mars-b4-small"].update(training=SLOWER),
            of_model("mars-b4-small")
            | shown("mars-b4-small")
            | timed("mars-b4-small")
            | probed("mars-b4-small")
            | TRAINED,
            id="learning rate of one model",
        ),
        pytest.param(
            lambda c: c["models"]["ar-small"].update(training=SLOWER),
            of_model(*CHILDREN) | shown(*CHILDREN) | timed(*CHILDREN) | probed(*CHILDREN) | TRAINED,
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
            EVALUATE | PAPER | probed(*MODELS) | {"table7"},
            id="protocol",
        ),
        pytest.param(
            lambda c: c["scales"]["large"].update(stands_for="0.5B"),
            TABLES | {"table7", "figure3", "figure6", "compute"},
            id="other rows of the tables",
        ),
        pytest.param(
            lambda c: c.setdefault("resources", {}).update(checkpoint_minutes=1),
            set(),
            id="save often",
        ),
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

    def planned(experiment: Experiment, model: str) -> JobSpec:
        return STAGES["train"].planned(experiment, {"model": model})

    one, other = configure(edited, rates(0.001, 0.002)), configure(edited, rates(0.002, 0.001))
    for model in ("ar-small", "mars-b4-small"):
        assert planned(one, model) != planned(other, model)
    base = STAGES["pretrain"]
    target = {"model": "base-small"}
    assert base.planned(one, target) == base.planned(other, target)


def test_a_new_revision_fetches_and_evaluates(edited: Path):
    before = load_experiment(edited / "config/smollm2.yaml")
    benchmark = before.benchmarks["gsm8k"].model_copy(update={"revision": "abc"})
    benchmarks = {**before.benchmarks, "gsm8k": benchmark}
    after = before.model_copy(update={"benchmarks": benchmarks})
    fetch, evaluate = STAGES["fetch_dataset"], STAGES["evaluate"]
    for repository in before.datasets():
        pair = [fetch.planned(e, {"repository": repository}) for e in (before, after)]
        assert (pair[0] != pair[1]) is (repository == "openai/gsm8k")
    for model in before.evaluated_models():
        pair = [evaluate.planned(e, {"model": model}) for e in (before, after)]
        assert pair[0] != pair[1]


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
    now = STAGES["evaluate"].planned(experiment, {"model": "mars-b4-small"})
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
            change("decoding/acceptance.py", "accepted_run"),
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
            {"train ar-small": "packages: torch 2.13.0, the lock has 99.1."},
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
    assert set(planned) == to_run(run, experiment)
    for name, why in told.items():
        assert reason(planned[name], experiment, run) == f"{name}: {why}"
    table = estimates(list(planned.values()), experiment, run)
    assert "unknown" not in "".join(table)
    assert len(table) == 2 + len({job.stage for job in planned.values()})
