"""What the artefacts say together: comparison, claims, and the page of it all."""

from __future__ import annotations

from pathlib import Path

from mars.config.experiment import Experiment
from mars.paper import published
from mars.paper.artefacts import ARTEFACTS, artefacts_of
from mars.paper.evaluations import benchmark_keys, of_rows
from mars.paper.published import Row
from mars.paper.specs import (
    Answered,
    ClaimsSpec,
    ComparisonSpec,
    ReportSpec,
    Shown,
    paper_scales,
    seeds_of,
)
from mars.paper.tables.notes import is_of_the_paper
from mars.provenance.stage import Job, Stage

# --- comparison ---------------------------------------------------------------------------------


def comparison_spec(experiment: Experiment) -> ComparisonSpec:
    """Which tables are compared, and how ours may be."""
    scales = paper_scales(experiment)
    return ComparisonSpec(
        tables={name: one.compared for name, one in ARTEFACTS.items() if one.compared},
        scales=scales,
        same_models={
            size: not experiment.generated
            and all(is_of_the_paper(s) for s in scales.values() if s.stands_for == size)
            for size in sorted({scale.stands_for for scale in scales.values()})
        },
        titles=list(benchmark_keys(experiment.benchmarks)),
        same_weights=[
            name for name in experiment.models if name not in experiment.trained_models()
        ],
    )


def comparison_inputs(experiment: Experiment) -> list[str]:
    """The tables that are made and compared."""
    names = [name for name in artefacts_of(experiment) if ARTEFACTS[name].compared]
    return [f"tables/{name}.csv" for name in names]


def write_comparison(spec: ComparisonSpec, job: Job) -> list[Path]:
    """Compare every published number with ours."""
    from mars.paper.claims import comparison

    made = {file.stem: file for file in job.inputs.of("tables")}
    return comparison.write_comparison(spec, made, job.output)


COMPARISON = Stage(
    "comparison", ComparisonSpec, comparison_spec, write_comparison, comparison_inputs
)

# --- claims -------------------------------------------------------------------------------------


def claimed_rows() -> list[Row]:
    """Every row that a claim of evaluations compares."""
    table2 = [row for row in published.table2() if row.method != "base"]
    return [*table2, *published.table3(), *published.table4(), *published.table9()]


def claims_spec(experiment: Experiment) -> ClaimsSpec:
    """What the rows of the claims need, and every threshold: the metrics are compared over all."""
    spec = of_rows(claimed_rows(), experiment)
    thresholds = {n: one for n, one in experiment.settings.items() if one.threshold is not None}
    timed = experiment.speed.wall_clock if experiment.speed else None
    return ClaimsSpec(
        **{**dict(spec), "settings": {**spec.settings, **thresholds}},
        cache_block=timed.judged_cache_block if timed else None,
    )


def claims_inputs(experiment: Experiment) -> list[str]:
    """Evaluations and checkpoints of the models, the tables of speed, the live tau."""
    models, made = sorted(claims_spec(experiment).models), artefacts_of(experiment)
    folders = [f"{kind}/{one}" for kind in ("evaluations", "checkpoints") for one in models]
    folders += ["speed/live_tau"] if "live_tau" in made else []
    tables = [f"tables/{name}.csv" for name in made if name in ("table5", "table6")]
    return [*(f"{folder}/manifest.json" for folder in folders), *tables]


def write_claims(spec: ClaimsSpec, job: Job) -> list[Path]:
    """Judge the ten claims of the paper."""
    from mars.checkpoints.describe import describe
    from mars.paper.claims import report
    from mars.paper.claims.results import Results
    from mars.paper.evaluations import Evaluations
    from mars.paper.tables.tidy_csv import read_csv
    from mars.provenance.files import read_json
    from mars.provenance.manifest import listed_files

    inputs = job.inputs
    policies = [file for manifest in inputs.of("speed") for file in listed_files(manifest)]
    results = Results(
        Evaluations.read(spec, inputs.folders("evaluations")),
        tables={file.stem: read_csv(file) for file in inputs.of("tables")},
        live_tau={file.stem: read_json(file) for file in policies},
        checkpoints={n: describe(folder) for n, folder in inputs.folders("checkpoints").items()},
        cache_block=spec.cache_block,
    )
    return report.write_claims(results, job.output)


CLAIMS = Stage("claims", ClaimsSpec, claims_spec, write_claims, claims_inputs)

# --- the page -----------------------------------------------------------------------------------


def report_spec(experiment: Experiment) -> ReportSpec:
    """What the page says of the experiment, and what it shows or says to be not run."""
    return ReportSpec(
        experiment=experiment.experiment,
        description=experiment.description,
        scales=paper_scales(experiment),
        artefacts=[
            Shown(
                name=one.name,
                kind=one.kind,
                title=one.title,
                caption=one.caption,
                from_evaluations=one.from_evaluations,
            )
            for one in ARTEFACTS.values()
        ],
        answered=answered(experiment),
    )


def answered(experiment: Experiment) -> Answered:
    """What leads from a cell to its questions."""
    several = {name: seeds_of(name, experiment.models) for name in experiment.evaluated_models()}
    settings = experiment.settings.items()
    return Answered(
        benchmarks={one.title: key for key, one in experiment.benchmarks.items()},
        trainings={name: found for name, found in several.items() if len(found) > 1},
        one_token=next(name for name, setting in settings if setting.plain),
    )


def report_inputs(experiment: Experiment) -> list[str]:
    """The files whose content is on the page."""
    made = [ARTEFACTS[name] for name in artefacts_of(experiment)]
    suffixes = {"table": "jsonl", "figure": "png"}
    artefacts = [f"{one.kind}s/{one.name}.{suffixes[one.kind]}" for one in made]
    return ["claims.json", "comparison.csv", *artefacts]


def write_report(spec: ReportSpec, job: Job) -> list[Path]:
    """Write one page of all results, and where they come from."""
    from mars.paper.report.page import write_page

    return [write_page(spec, job.output)]


REPORT = Stage("report", ReportSpec, report_spec, write_report, report_inputs)
