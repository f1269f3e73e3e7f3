"""The command line: one verb per stage of the workflow, and a few for people.

A stage's verb takes its spec (`mars spec` prints it) and the paths of its inputs and outputs, so
a rule of the workflow and a person call the same thing. Imports are local to the verbs because
torch and lm-eval take seconds to load.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from mars.errors import UserError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="MARS-repro: train, decode, evaluate and compare with arXiv 2604.07023.",
)

Configs = Annotated[list[Path], typer.Option(help="the experiment, then overlays")]
Config = Annotated[Path, typer.Option(help="the experiment, config/<name>.yaml")]
Spec = Annotated[str, typer.Option(help="the stage's spec: JSON, or a file that holds it")]
Record = Annotated[Path, typer.Option(help="where to write the provenance record")]
Folder = Annotated[Path, typer.Option()]
DataManifest = Annotated[Path, typer.Option(help="manifest of the fetched or generated data")]


# Verbs that may use the network; all others run with the hub switched off. With a mirror only
# the first one may, which fills it.
FETCHING = ("fetch", "fetch-dataset", "import-base", "import-released")


def main() -> None:
    """Run the command line; a user's mistake is one sentence and exit status 2."""
    mirror = os.environ.get("MARS_HUB_MIRROR")
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb not in (FETCHING[:1] if mirror else FETCHING):
        os.environ["HF_HUB_OFFLINE"] = "1"
    if mirror:
        os.environ["NLTK_DATA"] = f"{mirror}/nltk_data:{os.environ.get('NLTK_DATA', '')}"
    try:
        app()
    except UserError as error:
        sys.exit(_fail(error))


def _fail(error: UserError) -> int:
    print(f"mars: {error}", file=sys.stderr)
    return 2


def _stage(spec: str, *stages: str) -> dict[str, Any]:
    """The spec given on the command line, checked to be one of ``stages``."""
    text = spec if spec.lstrip().startswith("{") else _text_of(spec)
    try:
        plan = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"--spec is not JSON ({error}); take it from `mars spec`.") from error
    if plan.get("stage") not in stages:
        runs = ", ".join(map(repr, stages))
        raise UserError(f"--spec is of the stage {plan.get('stage')!r}; this verb runs {runs}.")
    return plan


def _text_of(path: str) -> str:
    if not Path(path).is_file():
        raise UserError(f"--spec names the file {path}, which does not exist; see `mars spec`.")
    return Path(path).read_text()


# --- the configuration --------------------------------------------------------------------------


@app.command()
def spec(
    config: Configs,
    stage: Annotated[str, typer.Argument(help="e.g. train")],
    target: Annotated[list[str] | None, typer.Argument(help="e.g. model=mars-b4-small")] = None,
) -> None:
    """Print the spec of one stage: its configuration, code and lock in one JSON string."""
    from mars.config import load_experiment
    from mars.stages import spec as stage_spec

    pairs = [item.partition("=") for item in target or []]
    values = {key: int(value) if value.isdigit() else value for key, _, value in pairs}
    print(stage_spec(load_experiment(*config), stage, **values))


@app.command()
def check(config: Annotated[list[Path], typer.Argument(help="experiment, then overlays")]) -> None:
    """Check a configuration with its overlays: silent if good, else one sentence."""
    from mars.config import load_experiment

    load_experiment(*config)


@app.command()
def schema() -> None:
    """Print the JSON schema of an experiment (config/schema.json)."""
    from mars.config import json_schema

    print(json_schema(), end="")


# --- GPUs ---------------------------------------------------------------------------------------


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def with_gpus(
    count: Annotated[int, typer.Argument(help="GPUs, at most; 0: leave them as they are")],
    verb: Annotated[list[str], typer.Argument(help="e.g. train, with its options")],
    sharded: Annotated[bool, typer.Option(help="train with FSDP instead of DDP")] = False,
) -> None:
    """Run another verb with GPUs that no other job has; training starts a process on each."""
    from mars.gpus import run_with_gpus

    run_with_gpus(verb, count, sharded)


# --- data ---------------------------------------------------------------------------------------


@app.command()
def fetch(
    config: Annotated[list[Path], typer.Option(help="the experiment, then overlays")],
    to: Annotated[Path | None, typer.Option(help="the mirror; default: $MARS_HUB_MIRROR")] = None,
) -> None:
    """Fetch all that an experiment needs from the hub into one folder; goes on after a kill."""
    from mars.config import load_experiment
    from mars.data.mirror import Wanted, fetch_splitter, fill
    from mars.stages import repositories_of

    folder = to or os.environ.get("MARS_HUB_MIRROR")
    if not folder:
        raise UserError("give --to <folder>, or set MARS_HUB_MIRROR to it.")
    mirror = Path(folder).resolve()
    experiment = load_experiment(*config)
    problems = fill(mirror, [Wanted(**item) for item in repositories_of(experiment)])
    counts_sentences = any(b.task.startswith("ifeval") for b in experiment.benchmarks.values())
    if counts_sentences and (warning := fetch_splitter(mirror)):
        print(f"Note: {warning}")
    if problems:
        raise UserError("; ".join(["not everything could be fetched", *problems]))
    print(f"{mirror} holds all of {experiment.experiment}: export MARS_HUB_MIRROR={mirror}")


@app.command()
def generate_data(spec: Spec, output: Folder, record: Record) -> None:
    """Write the instruction corpus and the miniature benchmarks, in hub layout."""
    from mars.config import GeneratedData
    from mars.data.generate import generate
    from mars.provenance.manifest import new_folder, write_manifest
    from mars.provenance.record import recorded

    plan = _stage(spec, "generate_data")
    with (
        recorded(record, plan, [], [output / "manifest.json"]),
        new_folder(output) as folder,
    ):
        generate(GeneratedData(**plan["config"]), folder)
        write_manifest(folder)


@app.command()
def fetch_dataset(spec: Spec, output: Folder, record: Record) -> None:
    """Copy one data set from the hub, or from the mirror $MARS_HUB_MIRROR, into a folder."""
    from mars.data.hub import fetch
    from mars.provenance.manifest import write_manifest
    from mars.provenance.record import recorded

    plan = _stage(spec, "fetch_dataset")
    with recorded(record, plan, [], [output / "manifest.json"]) as facts:
        facts |= fetch(plan["config"]["repository"], "dataset", plan["config"]["revision"], output)
        write_manifest(output, **facts)


@app.command()
def train_tokenizer(spec: Spec, data: DataManifest, output: Folder, record: Record) -> None:
    """Train the tokenizer of the models that are trained from scratch."""
    from mars.data.tokenizer import train_from_folder
    from mars.provenance.manifest import new_folder, write_manifest
    from mars.provenance.record import recorded

    plan = _stage(spec, "train_tokenizer")
    with (
        recorded(record, plan, [data], [output / "manifest.json"]),
        new_folder(output) as folder,
    ):
        train_from_folder(data.parent, plan["config"]["vocabulary"], folder)
        write_manifest(folder)


@app.command()
def import_base(spec: Spec, output: Folder, record: Record) -> None:
    """Write a ready base model (package or hub) as a checkpoint with a mask token."""
    from pydantic import TypeAdapter

    from mars.config import HubBase, PackageBase
    from mars.models import import_base as run
    from mars.provenance.manifest import new_folder, write_manifest
    from mars.provenance.record import recorded

    plan = _stage(spec, "import_base")
    with (
        recorded(record, plan, [], [output / "manifest.json"]) as facts,
        new_folder(output) as folder,
    ):
        base = TypeAdapter[HubBase | PackageBase](HubBase | PackageBase)
        facts |= run(base.validate_python(plan["config"]), folder)
        write_manifest(folder, **facts)


@app.command()
def import_released(spec: Spec, output: Folder, record: Record) -> None:
    """Write a checkpoint that the authors released as a plain one; their code is never run."""
    from mars.decoding.generate import add_custom_generate
    from mars.provenance.manifest import new_folder, write_manifest
    from mars.provenance.record import recorded
    from mars.released import import_released as run

    plan = _stage(spec, "import_released")
    with (
        recorded(record, plan, [], [output / "manifest.json"]) as facts,
        new_folder(output) as folder,
    ):
        facts |= run(**plan["config"], output=folder)
        if plan["config"]["method"] == "mars":
            add_custom_generate(folder)
        write_manifest(folder, **facts)


@app.command()
def tokenize(
    spec: Spec, data: DataManifest, tokenizer: Folder, output: Folder, record: Record
) -> None:
    """Turn instructions (chat format) or documents into token ids with prompt lengths."""
    from mars.data.chat import tokenize_documents, tokenize_instructions
    from mars.data.hub import hub_root
    from mars.models import load_tokenizer
    from mars.provenance.manifest import new_folder, write_manifest
    from mars.provenance.record import recorded

    plan = _stage(spec, "tokenize")
    config = plan["config"]
    inputs = [data, tokenizer / "manifest.json"]
    with (
        recorded(record, plan, inputs, [output / "manifest.json"]),
        new_folder(output) as folder,
    ):
        loaded = load_tokenizer(tokenizer)
        dataset = hub_root(data) / config["dataset"]
        if plan["kind"] == "documents":
            tokenize_documents(dataset, loaded, max_length=config["max_length"], output=folder)
        else:
            options = {key: value for key, value in config.items() if key != "dataset"}
            tokenize_instructions(dataset, loaded, **options, output=folder)
        write_manifest(folder)


# --- training -----------------------------------------------------------------------------------


@app.command()
def train(
    spec: Spec,
    parent: Annotated[Path, typer.Option(help="parent checkpoint; to pre-train: the tokenizer")],
    dataset: Annotated[Path, typer.Option(help="tokenised examples (`mars tokenize`)")],
    output: Annotated[Path, typer.Option(help="the finished checkpoint")],
    record: Record,
    checkpoint_minutes: Annotated[float, typer.Option(help="time between saves")] = 15,
) -> None:
    """Pre-train or fine-tune one model; started again after a kill it goes on where it was."""
    from mars.config import Architecture, Training
    from mars.decoding.generate import add_custom_generate
    from mars.files import canonical_json, sha256_text
    from mars.gpus import end_with_parent
    from mars.provenance.manifest import write_manifest
    from mars.provenance.record import recorded
    from mars.training import train as run

    if "RANK" in os.environ:  # one of several processes that a launcher started
        end_with_parent()
    plan = _stage(spec, "train")
    config = plan["config"]
    architecture = config["architecture"]
    work = output.parent / f".{output.name}.work-{sha256_text(canonical_json(plan))[:12]}"
    training = partial(
        run,
        method=config["method"],
        training=Training(**config["training"], checkpoint_minutes=checkpoint_minutes),
        block_size=config["block_size"],
        ar_weight=config["ar_weight"],
        architecture=Architecture(**architecture) if architecture else None,
        parent=parent,
        dataset=dataset,
        work=work,
        output=output,
    )
    if os.environ.get("RANK", "0") != "0":  # of several processes only the first one records
        training()
        return
    inputs = [parent / "manifest.json", dataset / "manifest.json"]
    with recorded(record, plan, inputs, [output / "manifest.json"]) as facts:
        facts |= training()
        if config["method"] == "mars":
            add_custom_generate(output)
        write_manifest(output)
    shutil.rmtree(work, ignore_errors=True)  # nothing is left to resume


@app.command()
def training_curves(
    spec: Spec,
    output: Annotated[Path, typer.Option(help="path without suffix; .pdf and .png are written")],
    record: Record,
    curves: Annotated[list[Path], typer.Argument(help="training.jsonl of each model, in order")],
) -> None:
    """Plot the training losses of all models."""
    from mars.provenance.record import recorded
    from mars.training.curves import plot_curves

    plan = _stage(spec, "training_curves")
    outputs = [output.with_suffix(".pdf"), output.with_suffix(".png")]
    with recorded(record, plan, curves, outputs):
        plot_curves(dict(zip(plan["config"]["models"], curves, strict=True)), outputs)


# --- decoding -----------------------------------------------------------------------------------


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="what the user says")],
    model: Annotated[Path, typer.Option(help="any checkpoint folder")],
    tau: Annotated[str, typer.Option(help="confidence threshold, or 'none': one token")] = "0.95",
    block_size: Annotated[int | None, typer.Option(help="default: as trained")] = None,
    max_new_tokens: int = 256,
    method: Annotated[str, typer.Option(help="cursor, autoregressive or jacobi")] = "cursor",
) -> None:
    """Answer a prompt; tokens accepted in one forward are shaded alike (the paper's Figure 1)."""
    from mars.decoding.generate import generate_text

    pieces = generate_text(
        model,
        prompt,
        block_size=block_size,
        threshold=_tau(tau),
        max_new_tokens=max_new_tokens,
        method=method,
        shaded=sys.stdout.isatty(),
    )
    for piece in pieces:
        print(piece, end="", flush=True)


def _tau(text: str) -> float | None:
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"--tau is {text!r}; give a number from 0 to 1, or 'none'.") from error


# --- evaluation ---------------------------------------------------------------------------------


@app.command()
def evaluate(
    spec: Spec,
    checkpoint: Folder,
    output: Folder,
    record: Record,
    data: Annotated[list[Path], typer.Argument(help="manifests of the data sets")],
) -> None:
    """Evaluate one model on every benchmark under each of its settings, through lm-eval."""
    from mars.data.hub import hub_root
    from mars.evaluation.evaluate import evaluate as run
    from mars.files import sha256_file
    from mars.provenance.manifest import write_manifest
    from mars.provenance.record import recorded
    from mars.stages import cell_spec

    plan = _stage(spec, "evaluate")
    config = plan["config"]
    inputs = [checkpoint / "manifest.json", *data]
    made_from = {str(path): sha256_file(path) for path in inputs}

    with (
        recorded(record, plan, inputs, [output / "manifest.json"]),
        tempfile.TemporaryDirectory() as work,
    ):
        run(
            checkpoint=checkpoint,
            **config,
            hub=hub_root(data[0]),
            output=output,
            work=Path(work),
            cell_spec=partial(cell_spec, plan, made_from),
        )
        write_manifest(output)


# --- speed --------------------------------------------------------------------------------------


@app.command()
def speed(
    model: Annotated[Path | None, typer.Option(help="a checkpoint folder")] = None,
    random_weights: Annotated[
        str | None, typer.Option(help="instead: tiny, qwen2.5-0.5b or qwen2.5-7b")
    ] = None,
    prescribed: Annotated[
        float | None, typer.Option(help="with random weights: tokens accepted per forward")
    ] = None,
    prompts: Annotated[str, typer.Option(help="JSONL file, or built-in")] = "built-in",
    prompt_count: Annotated[int, typer.Option(help="how many of them")] = 64,
    methods: str = "hf,autoregressive,cursor,cursor-lossless,block_cache,window",
    batch: str = "1,4,8,16",
    tau: Annotated[str, typer.Option(help="'none': one token per forward")] = "0.95",
    cache_block: Annotated[str, typer.Option(help="granularities of block_cache")] = "4,8,16,32,64",
    block_size: Annotated[int | None, typer.Option(help="default: as trained, or 4")] = None,
    max_new_tokens: int = 128,
    repeats: int = 5,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16")] = "float32",
    threads: Annotated[int | None, typer.Option(help="default: PyTorch's choice")] = None,
    profile: Annotated[bool, typer.Option("--profile", help="also shares of a step")] = False,
    output: Path = Path("results/speed"),
    markdown: Annotated[
        Path | None, typer.Option(help="print the tables of this output, measure nothing")
    ] = None,
) -> None:
    """Time decoding methods side by side; records, a CSV and a Markdown table. See docs/speed.md.

    Started again it measures the batch sizes that are missing.
    """
    if markdown is not None:
        from mars.speed.summary import markdown as section

        print(section(markdown), end="")
        return
    if (model is None) == (random_weights is None):
        raise UserError("give --model or --random-weights, one of them.")
    if prescribed is not None and model is not None:
        raise UserError("--prescribed is for --random-weights: a checkpoint accepts by itself.")
    if precision not in ("float32", "bfloat16"):
        raise UserError(f"--precision is {precision!r}; give float32 or bfloat16.")
    batches, blocks = _integers("--batch", batch), _integers("--cache-block", cache_block)
    taus = [_tau(text) for text in tau.split(",")]

    import torch

    from mars.provenance.fingerprint import code_fingerprint
    from mars.provenance.record import versions
    from mars.speed.benchmark import benchmark, checkpoint_subject, random_subject

    if threads is not None:
        torch.set_num_threads(threads)
    amounts: dict[str, Any] = {
        "prompt_count": prompt_count,
        "max_new_tokens": max_new_tokens,
        "precision": precision,
    }
    if model is not None:
        subject = checkpoint_subject(model, prompts=prompts, block_size=block_size, **amounts)
    else:
        subject = random_subject(
            str(random_weights), prescribed=prescribed, block_size=block_size or 4, **amounts
        )
    benchmark(
        subject,
        methods=methods.split(","),
        batches=batches,
        taus=taus,
        cache_blocks=blocks,
        repeats=repeats,
        output=output,
        spec={"code": code_fingerprint(["mars.speed.measure"]), "versions": versions()},
        about=_circumstances(shlex.join(["mars", *sys.argv[1:]])),
        profile=profile,
    )
    print(f"{output / 'summary.md'} and summary.csv are written.")


@app.command()
def speed_sweep(
    spec: Spec, checkpoint: Folder, output: Folder, record: Record, data: DataManifest
) -> None:
    """Time decoding methods, batch sizes and cache granularities: Table 5 and the heat map.

    Started again it measures the batch sizes that are missing.
    """
    from mars.data.hub import hub_root
    from mars.provenance.manifest import write_manifest
    from mars.provenance.record import recorded
    from mars.speed.sweep import sweep

    plan = _stage(spec, "speed_sweep")
    config = plan["config"]
    inputs = [data, checkpoint / "manifest.json"]
    with (
        recorded(record, plan, inputs, [output / "manifest.json"]),
        tempfile.TemporaryDirectory() as work,
    ):
        sweep(
            **config | {"rounds": {int(batch): n for batch, n in config["rounds"].items()}},
            checkpoint=checkpoint,
            hub=hub_root(data),
            work=Path(work),
            output=output,
            spec={key: plan[key] for key in ("code", "lock")},
            about=_circumstances("mars speed-sweep"),
        )
        write_manifest(output)


@app.command()
def speculative(
    spec: Spec,
    output: Folder,
    record: Record,
    data: DataManifest,
    checkpoints: Annotated[list[Path], typer.Argument(help="manifests of all models in the pairs")],
) -> None:
    """Time MARS together with speculative decoding: Table 6."""
    from mars.data.hub import hub_root
    from mars.provenance.manifest import new_folder, write_manifest
    from mars.provenance.record import recorded
    from mars.speed.composition import measure_composition

    plan = _stage(spec, "speculative")
    with (
        recorded(record, plan, [data, *checkpoints], [output / "manifest.json"]),
        new_folder(output) as folder,
        tempfile.TemporaryDirectory() as work,
    ):
        measure_composition(
            **plan["config"],
            checkpoints={path.parent.name: path.parent for path in checkpoints},
            hub=hub_root(data),
            work=Path(work),
            output=folder,
            about=_circumstances("mars speculative"),
        )
        write_manifest(folder)


@app.command()
def live_tau(
    spec: Spec, checkpoint: Folder, output: Folder, record: Record, data: DataManifest
) -> None:
    """Serve a load that rises and falls with tau fixed and with tau adapted to the queue."""
    from mars.data.hub import hub_root
    from mars.provenance.manifest import new_folder, write_manifest
    from mars.provenance.record import recorded
    from mars.speed.live_tau import measure_live_tau

    plan = _stage(spec, "live_tau")
    inputs = [data, checkpoint / "manifest.json"]
    with (
        recorded(record, plan, inputs, [output / "manifest.json"]),
        new_folder(output) as folder,
        tempfile.TemporaryDirectory() as work,
    ):
        measure_live_tau(
            **plan["config"],
            checkpoint=checkpoint,
            hub=hub_root(data),
            work=Path(work),
            output=folder,
            about=_circumstances("mars live-tau"),
        )
        write_manifest(folder)


def _circumstances(command: str) -> dict[str, Any]:
    """What a record of a measurement says of the machine, the software and the command."""
    import torch  # noqa: F401 - so that GPUs are named

    from mars.provenance.record import hardware, versions

    return {"hardware": hardware(), "versions": versions(), "command": command}


def _integers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"{option} is {text!r}; give numbers separated by commas.") from error


# --- the paper's tables -------------------------------------------------------------------------


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
    from mars.paper.tables import write_table
    from mars.paper.writers import table_files
    from mars.provenance.record import recorded

    plan, inputs = _stage(spec, "table"), evaluations or []
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
    from mars.paper.speed_tables import write_speed_table
    from mars.paper.writers import table_files
    from mars.provenance.record import recorded

    plan = _stage(spec, "speed_table")
    number = plan["number"]
    with recorded(record, plan, [measurements], table_files(output, f"table{number}")):
        write_speed_table(number, plan["config"], measurements.parent, output)


@app.command()
def findings(spec: Spec, output: Folder, record: Record, evaluations: Evaluated = None) -> None:
    """Write what published numbers may owe to the released code, as CSV, Markdown and LaTeX."""
    from mars.paper.findings import write_findings
    from mars.paper.writers import table_files
    from mars.provenance.record import recorded

    plan, inputs = _stage(spec, "findings"), evaluations or []
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
    from mars.files import read_json
    from mars.paper.hyperparameters import write_hyperparameters
    from mars.paper.writers import table_files
    from mars.provenance.record import recorded

    plan, inputs = _stage(spec, "hyperparameters"), trainings or []
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
    from mars.provenance.record import recorded

    plan = _stage(spec, *(f"figure_{name}" for name in ("1", "3", "6", "heat_map", "live_tau")))
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
    from mars.paper.decoded_example import decode_example
    from mars.paper.figures import generation

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
    from mars.provenance.record import recorded
    from mars.report.page import shown_files, write_report

    plan = _stage(spec, "report")
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
    from mars.paper.comparison import write_comparison
    from mars.provenance.record import recorded

    plan, inputs = _stage(spec, "comparison"), tables or []
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
    from mars.files import read_json
    from mars.paper.checkpoints import describe
    from mars.paper.claims import Results
    from mars.paper.claims_report import write_claims
    from mars.paper.measure import Evaluations
    from mars.paper.writers import read_csv
    from mars.provenance.manifest import listed_files
    from mars.provenance.record import recorded

    plan, files = _stage(spec, "claims"), inputs or []
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
    config: Annotated[list[Path], typer.Option(help="the experiment, then overlays")],
    results: Folder = Path("results"),
) -> None:
    """Print the main table of an experiment and the files it wrote."""
    from mars.config import load_experiment
    from mars.paper.show import show as run

    run(results / load_experiment(*config).experiment)


# --- provenance ---------------------------------------------------------------------------------

Root = Annotated[Path, typer.Option(help="folder in which the workflow ran")]
TINY = [Path("config/tiny.yaml")]


@app.command()
def audit(
    table: Annotated[str, typer.Argument(help="e.g. table2")] = "",
    row: Annotated[str, typer.Argument(help='e.g. "0.5B MARS B=4"')] = "",
    column: Annotated[str, typer.Argument(help="e.g. GSM8K")] = "",
    quantity: Annotated[str | None, typer.Option(help="default: the row's first")] = None,
    every: Annotated[bool, typer.Option("--all", help="every cell of every artefact")] = False,
    samples: Annotated[bool, typer.Option(help="also list the questions behind a cell")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
    config: Configs = TINY,
    root: Root = Path("."),
) -> None:
    """Trace a number back to its data, re-hashing on the way: verified, stale, changed, missing."""
    from mars.config import load_experiment
    from mars.provenance.audit import Records
    from mars.provenance.cells import Tables
    from mars.provenance.report import audit_all, audit_cell

    if not every and not (table and row and column):
        raise UserError("name a table, a row and a column, or say --all.")
    tables = Tables(Records(load_experiment(*config), root))
    if every:
        word, lines, plain = audit_all(tables)
    else:
        word, lines, plain = audit_cell(tables, tables.find(table, row, column, quantity), samples)
    print(json.dumps(plain, indent=2, ensure_ascii=False) if as_json else "\n".join(lines))
    raise typer.Exit(word != "verified")


@app.command()
def why(
    target: Annotated[str, typer.Argument(help="part of a job's name, e.g. train or table2")] = "",
    config: Configs = TINY,
    root: Root = Path("."),
) -> None:
    """Say for each job why it would run now, or that it would not."""
    from mars.config import load_experiment
    from mars.provenance.plan import jobs, reason

    experiment = load_experiment(*config)
    planned = [job for job in jobs(config, root) if target in job.name or target == str(job.record)]
    if not planned:
        raise UserError(f"no job's name has {target!r} in it; `mars why` lists all.")
    for job in planned:
        if job.runs or target:
            print(reason(job, experiment, root))
    if not target and not any(job.runs for job in planned):
        print("Nothing to be done.")


@app.command()
def plan(config: Configs = TINY, root: Root = Path(".")) -> None:
    """Print what a run would do: jobs by stage, why, and what it would cost."""
    from mars.config import load_experiment
    from mars.paper.published import training_hours
    from mars.provenance.plan import estimates, jobs, reason
    from mars.provenance.price import price_table

    experiment = load_experiment(*config)
    planned = jobs(config, root)
    if not any(job.runs for job in planned):
        print("Nothing to be done.")
        return
    for job in planned:
        if job.runs:
            print(reason(job, experiment, root))
    costs = price_table(planned, experiment, training_hours())
    print("", *(costs or estimates(planned, experiment, root)), sep="\n")


@app.command()
def ledger(config: Configs = TINY) -> None:
    """Enter finished results into DVC's cache and lock, where dvc.yaml is about them."""
    from mars.config import load_experiment
    from mars.provenance.ledger import commit

    print(commit(Path("results") / load_experiment(*config).experiment))


@app.command()
def export_crate(config: Configs = TINY, root: Root = Path(".")) -> None:
    """Describe an experiment's results as an RO-Crate (Process Run Crate), for other tools."""
    from mars.config import load_experiment
    from mars.provenance.crate import export_crate as run

    print(run(load_experiment(*config), root))
