"""Verbs that write the paper's tables and figures, and what they say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mars.cli.common import Configs, Folder, Record, Spec, app, read_spec
from mars.config.experiment import load_experiment
from mars.paper.tables.writers import read_csv, table_files
from mars.provenance.files import read_json
from mars.provenance.manifest import listed_files
from mars.provenance.record import recorded

Evaluated = Annotated[
    list[Path] | None, typer.Argument(help="manifests of the evaluations, by model")
]


def _evaluations(manifests: list[Path]) -> dict[str, Any]:
    """Records and samples behind some manifests, as the tables take them."""
    from mars.paper.evaluations import read_evaluations

    records, samples = read_evaluations({path.parent.name: path.parent for path in manifests})
    return {"records": records, "samples": samples}


@app.command()
def table(spec: Spec, output: Folder, record: Record, evaluations: Evaluated = None) -> None:
    """Write one of the paper's tables of evaluations as CSV, Markdown and LaTeX."""
    from mars.paper.tables.evaluated import write_table

    plan, inputs = read_spec(spec, "table"), evaluations or []
    number = plan["number"]
    with recorded(record, plan, inputs, table_files(output, f"table{number}")):
        found = _evaluations(inputs)
        write_table(number, experiment_spec=plan["config"], **found, output=output)


@app.command()
def speed_table(
    spec: Spec,
    output: Folder,
    record: Record,
    measurements: Annotated[Path, typer.Argument(help="manifest of what was timed")],
) -> None:
    """Write Table 5 or 6, wall clock, as CSV, Markdown and LaTeX."""
    from mars.paper.tables.wall_clock import write_speed_table

    plan = read_spec(spec, "speed_table")
    number = plan["number"]
    with recorded(record, plan, [measurements], table_files(output, f"table{number}")):
        write_speed_table(number, plan["config"], measurements.parent, output)


@app.command()
def findings(spec: Spec, output: Folder, record: Record, evaluations: Evaluated = None) -> None:
    """Write what published numbers may owe to the released code, as CSV, Markdown and LaTeX."""
    from mars.paper.tables.findings import write_findings

    plan, inputs = read_spec(spec, "findings"), evaluations or []
    with recorded(record, plan, inputs, table_files(output, "findings")):
        write_findings(plan["config"], **_evaluations(inputs), output=output)


@app.command()
def hyperparameters(
    spec: Spec,
    output: Folder,
    record: Record,
    trainings: Annotated[
        list[Path] | None, typer.Argument(help="records of the training jobs, <model>.json")
    ] = None,
) -> None:
    """Write Table 7, hyper-parameters and cost of training, as CSV, Markdown and LaTeX."""
    from mars.paper.tables.hyperparameters import write_hyperparameters

    plan, inputs = read_spec(spec, "hyperparameters"), trainings or []
    with recorded(record, plan, inputs, table_files(output, "table7")):
        records = {path.stem: read_json(path) for path in inputs}
        write_hyperparameters(plan["config"], records, output)


@app.command()
def figure(
    spec: Spec,
    output: Folder,
    record: Record,
    inputs: Annotated[
        list[Path],
        typer.Argument(help="what it shows; of figure 1 the checkpoint, its evaluations, the data"),
    ],
) -> None:
    """Draw the figure that the spec is of, as PDF and PNG, and what it shows as CSV or JSON."""
    from mars.paper.evaluations import read_evaluations
    from mars.paper.figures import acceptance, heat_map, live_tau, pareto

    plan = read_spec(spec, *(f"figure_{name}" for name in ("1", "3", "6", "heat_map", "live_tau")))
    name = plan["stage"].removeprefix("figure_")
    outputs: list[Path] = []
    with recorded(record, plan, inputs, outputs):
        if name == "1":
            outputs += _decoded_example(plan["config"], inputs, output)
        elif name == "heat_map":
            outputs += heat_map.draw(inputs[0].with_name("summary.csv"), output)
        elif name == "live_tau":
            outputs += live_tau.draw(inputs[0].parent, output)
        else:
            records, _ = read_evaluations({path.parent.name: path.parent for path in inputs})
            drawing = {"3": pareto, "6": acceptance}[name]
            outputs += drawing.draw(plan["config"], records, output)


def _decoded_example(config: dict[str, Any], inputs: list[Path], output: Path) -> list[Path]:
    from mars.data.hub import hub_root
    from mars.paper.figures import generation
    from mars.paper.figures.decoded_example import decode_example

    checkpoint, evaluation, data = inputs
    example = decode_example(config, checkpoint.parent, evaluation.parent, hub_root(data))
    return generation.draw(example, output)


@app.command()
def report(
    spec: Spec,
    output: Annotated[Path, typer.Option(help="the page; the results are those beside it")],
    record: Record,
) -> None:
    """Write one HTML page of all that is in a folder of results, and where it came from."""
    from mars.paper.report.page import shown_files, write_report

    plan = read_spec(spec, "report")
    with recorded(record, plan, shown_files(output.parent), [output]):
        write_report(plan["config"], output.parent, output)


@app.command()
def compare(
    spec: Spec,
    output: Folder,
    record: Record,
    tables: Annotated[list[Path] | None, typer.Argument(help="table<N>.csv of each table")] = None,
) -> None:
    """Write every published number beside ours with a verdict (comparison.csv and .md)."""
    from mars.paper.claims.comparison import write_comparison

    plan, inputs = read_spec(spec, "comparison"), tables or []
    outputs = [output / f"comparison.{suffix}" for suffix in ("csv", "md")]
    with recorded(record, plan, inputs, outputs):
        write_comparison(plan["config"], {path.stem: path for path in inputs}, output)


@app.command()
def claims(
    spec: Spec,
    output: Folder,
    record: Record,
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="evaluations/<model>/manifest.json, checkpoints/<model>/manifest.json, "
            "tables/table<N>.csv, speed/live_tau/manifest.json: what there is of them"
        ),
    ] = None,
) -> None:
    """Judge the ten claims of the paper by our numbers (claims.json and .md)."""
    from mars.checkpoints.describe import describe
    from mars.paper.claims.claims import Results
    from mars.paper.claims.report import write_claims
    from mars.paper.evaluations import Evaluations

    plan, files = read_spec(spec, "claims"), inputs or []
    outputs = [output / f"claims.{suffix}" for suffix in ("json", "md")]
    with recorded(record, plan, files, outputs):
        evaluated = [path for path in files if path.parent.parent.name == "evaluations"]
        trained = [path for path in files if path.parent.parent.name == "checkpoints"]
        served = [path for path in files if path.parent.name == "live_tau"]
        policies = [file for path in served for file in listed_files(path)]
        results = Results(
            Evaluations(plan["config"], **_evaluations(evaluated)),
            tables={f.stem: read_csv(f) for f in files if f.parent.name == "tables"},
            live_tau={file.stem: read_json(file) for file in policies},
            checkpoints={path.parent.name: describe(path.parent) for path in trained},
        )
        write_claims(results, output)


@app.command()
def show(
    config: Configs,
    results: Folder = Path("results"),
) -> None:
    """Print the main table of an experiment and the files it wrote."""
    from mars.paper.tables.terminal import show as run

    run(results / load_experiment(*config).experiment)
