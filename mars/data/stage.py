"""The stages that get data: generated or fetched, the tokenizer trained on it, its token ids."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from mars.config.experiment import Experiment, GeneratedData, HubData, ScratchBase
from mars.errors import UserError
from mars.provenance.manifest import new_folder
from mars.provenance.stage import Job, Spec, Stage

TOKENIZER = "data/tokenizer/manifest.json"


def data_manifests(experiment: Experiment, datasets: Iterable[str] = ()) -> list[str]:
    """The manifests of these data sets in a folder of results; generated ones share one."""
    if experiment.generated:
        return ["data/hub/manifest.json"]
    return [f"data/hub/{name}/manifest.json" for name in dict.fromkeys(datasets)]


def tokenizer_of(experiment: Experiment, scale: str) -> str:
    """The manifest of a scale's tokenizer: the trained one, or that of its base."""
    if isinstance(experiment.scales[scale].base, ScratchBase):
        return TOKENIZER
    models = experiment.models.items()
    base = next(name for name, m in models if m.scale == scale and m.method == "base")
    return f"checkpoints/{base}/manifest.json"


def tokens_of(experiment: Experiment, scale: str, kind: str) -> str:
    """The manifest of a scale's token ids, which scales with the same tokenizer share."""
    wanted = tokenizer_of(experiment, scale)
    first = next(one for one in experiment.scales if tokenizer_of(experiment, one) == wanted)
    return f"data/tokens/{first}/{kind}/manifest.json"


class GenerateSpec(Spec):
    """Sizes and seed of the corpus and the miniature benchmarks."""

    data: GeneratedData


def resolve_generated(experiment: Experiment) -> GenerateSpec:
    """UserError for an experiment that uses data from the hub."""
    if not isinstance(experiment.data, GeneratedData):
        raise UserError(f"{experiment.experiment} has no generated data; nothing to generate.")
    return GenerateSpec(data=experiment.data)


def run_generate_data(spec: GenerateSpec, job: Job) -> None:
    """Write the instruction corpus and the miniature benchmarks, in hub layout."""
    from mars.data.minibench.generate import generate

    with new_folder(job.output) as folder:
        generate(spec.data, folder)


GENERATE_DATA = Stage("generate_data", GenerateSpec, resolve_generated, run_generate_data)


class FetchSpec(Spec):
    """A data set of the hub; without a revision, the newest, which the record names."""

    repository: str
    revision: str | None


def resolve_fetched(experiment: Experiment, repository: str) -> FetchSpec:
    """The data set at the revision that the experiment wants."""
    return FetchSpec(repository=repository, revision=experiment.datasets()[repository])


def run_fetch_dataset(spec: FetchSpec, job: Job) -> dict[str, Any]:
    """Copy one data set from the hub, or from the mirror $MARS_HUB_MIRROR, into a folder."""
    from mars.data.hub import fetch

    return fetch(spec.repository, "dataset", spec.revision, job.output)


FETCH_DATASET = Stage("fetch_dataset", FetchSpec, resolve_fetched, run_fetch_dataset, online=True)


class TokenizerSpec(Spec):
    """The size of the tokenizer for models trained from scratch."""

    vocabulary: int


def resolve_tokenizer(experiment: Experiment) -> TokenizerSpec:
    """UserError for an experiment that uses data from the hub."""
    return TokenizerSpec(vocabulary=resolve_generated(experiment).data.vocabulary)


def run_train_tokenizer(spec: TokenizerSpec, job: Job) -> None:
    """Train the tokenizer on the generated corpus."""
    from mars.data.tokenizer import train_from_folder

    with new_folder(job.output) as folder:
        train_from_folder(job.inputs.hub, spec.vocabulary, folder)


TRAIN_TOKENIZER = Stage(
    "train_tokenizer", TokenizerSpec, resolve_tokenizer, run_train_tokenizer, data_manifests
)


class TokenizeSpec(Spec):
    """Instructions in chat format, or plain documents for pre-training, of a repository."""

    kind: Literal["instructions", "documents"]
    dataset: str
    configuration: str | None = None
    split: str = "train"
    limit: int | None = None  # only the first so many examples after the shuffle
    max_length: int  # tokens after which an example is cut, or a document split
    seed: int  # of the shuffle


def resolve_tokens(experiment: Experiment, scale: str, kind: str) -> TokenizeSpec:
    """The same for every scale: its tokenizer is an input."""
    if isinstance(experiment.data, HubData):
        source = experiment.data.model_dump(exclude={"source", "revision"})
    else:
        source = {"dataset": f"mars-generated/{'instruct' if kind == 'instructions' else kind}"}
    training = experiment.training.model_dump(include={"max_length", "seed"})
    return TokenizeSpec.model_validate({"kind": kind, **source, **training})


def tokenize_inputs(experiment: Experiment, scale: str, kind: str) -> list[str]:
    """Data set and tokenizer."""
    dataset = resolve_tokens(experiment, scale, kind).dataset
    return [*data_manifests(experiment, [dataset]), tokenizer_of(experiment, scale)]


def run_tokenize(spec: TokenizeSpec, job: Job) -> dict[str, Any]:
    """Turn instructions or documents into token ids with prompt lengths; says what was left out."""
    from mars.data.chat import tokenize_documents, tokenize_instructions
    from mars.data.tokenizer import load_tokenizer

    (manifest,) = [*job.inputs.of("tokenizer"), *job.inputs.of("checkpoints")]
    tokenize = tokenize_documents if spec.kind == "documents" else tokenize_instructions
    with new_folder(job.output) as folder:
        dataset = job.inputs.hub / spec.dataset
        return tokenize(spec, dataset, load_tokenizer(manifest.parent), folder)


TOKENIZE = Stage("tokenize", TokenizeSpec, resolve_tokens, run_tokenize, tokenize_inputs)
