"""The one typed model of an experiment: what `config/<experiment>.yaml` may say, and nothing else.

Stages see of it what their spec holds, so an edit here reruns only the stages whose values change.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mars.config.overlays import (
    DEFAULT,
    RENAMED,
    expect_what_is_removed,
    merged,
    with_defaults,
    without_removed,
)
from mars.decoding.methods import COMPARED_METHODS, METHODS, SETTING_METHODS
from mars.errors import UserError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
if TYPE_CHECKING:  # names that are registered are checked when a configuration is read
    SettingMethod: TypeAlias = str
    ComparedMethod: TypeAlias = str
else:
    SettingMethod, ComparedMethod = Literal[SETTING_METHODS], Literal[COMPARED_METHODS]


class Strict(BaseModel):
    """Every section: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --- data ---------------------------------------------------------------------------------------


class GeneratedData(Strict):
    """Corpus and miniature benchmarks written by :mod:`mars.data` from a seed, no network."""

    source: Literal["generated"] = "generated"
    seed: int = 0
    instructions: Positive = Field(description="instruction examples in the training corpus")
    pretraining_documents: Positive = Field(description="plain documents the base models read")
    benchmark_documents: Positive = Field(description="test documents per benchmark")
    vocabulary: Positive = Field(description="size of the tokenizer trained on the corpus")


class HubData(Strict):
    """An instruction data set of the Hugging Face hub, or of a mirror folder in hub layout."""

    source: Literal["hub"] = "hub"
    dataset: str = Field(description="repository, `owner/name`, with a `messages` column")
    configuration: str | None = None
    split: str = "train"
    revision: str | None = Field(None, description="commit of the data set; null: newest, recorded")
    limit: Positive | None = Field(None, description="first N examples after a seeded shuffle")


Data = Annotated[GeneratedData | HubData, Field(discriminator="source")]


# --- models -------------------------------------------------------------------------------------


class Architecture(Strict):
    """A Qwen2 model trained from scratch."""

    hidden_size: Positive
    layers: Positive
    heads: Positive
    kv_heads: Positive
    intermediate_size: Positive
    max_positions: Positive = 2048


class Training(Strict):
    """How one stage is trained. Defaults are the paper's Table 7 where it says."""

    epochs: Annotated[float, Field(gt=0)] = 5
    learning_rate: Annotated[float, Field(gt=0)] = 5e-6
    warmup_ratio: Fraction = 0.03
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    adam_beta2: Fraction = 0.999
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    batch_size: Positive = Field(384, description="examples per optimiser step, over all devices")
    max_length: Positive = Field(512, description="tokens; longer examples are cut on the right")
    row_length: Positive = Field(2048, description="tokens of one packed row")
    rows_per_forward: Positive = Field(1, description="packed rows in one forward of one device")
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    normalisation: Literal["sequence", "token"] | None = Field(
        None, description="loss averaged per sequence or per token; null: as published"
    )
    eos_to_block: bool = Field(True, description="pad responses with EOS to a multiple of B (B6)")
    inverse_t_weighting: bool = Field(False, description="the authors' 1/t weights (B2)")
    seed: int = 0


class ScratchBase(Strict):
    """A base model pre-trained here on the generated documents."""

    source: Literal["scratch"] = "scratch"
    architecture: Architecture
    training: dict[str, Any] = Field({}, description="overrides of the experiment's `training`")


class HubBase(Strict):
    """An instruct model of the hub, or of a mirror folder in hub layout."""

    source: Literal["hub"] = "hub"
    repository: str
    revision: str | None = None
    mask_token: str = "<|mask|>"


class PackageBase(Strict):
    """A GGUF file shipped inside an installed Python package."""

    source: Literal["package"] = "package"
    package: str = Field(description="importable package that holds the file")
    file: str = Field(description="path of the .gguf file inside the package")
    mask_token: str = Field(description="special token of the vocabulary that text never uses")


Base = Annotated[ScratchBase | HubBase | PackageBase, Field(discriminator="source")]


class Scale(Strict):
    """One base model, and the scale of the paper that it stands for."""

    stands_for: Literal["0.5B", "7B"]
    base: Base


class Released(Strict):
    """Where the authors published their own checkpoint of a model."""

    repository: str = Field(description="on the hub, `owner/name`")
    revision: str | None = Field(None, description="commit; null: newest, recorded")
    mask_token: str = "<|mask|>"


class Model(Strict):
    """One checkpoint: a base as it is, or a fine-tuning stage on top of a parent."""

    scale: Name
    method: Literal["base", "ar_sft", "mars", "block_diffusion"]
    source: Literal["train", "released"] = Field(
        "train", description="train it here, or take the checkpoint that the authors released"
    )
    released: Released | None = Field(None, description="the authors' checkpoint of this model")
    parent: Name | None = None
    block_size: Positive | None = None
    ar_weight: Annotated[float, Field(ge=0)] = Field(
        1.0, description="weight of the AR (SFT) loss beside the mask loss; 0: 'w/o SFT loss'"
    )
    epochs_factor: Positive = Field(1, description="2: the paper's compute-matched AR SFT")
    training: dict[str, Any] = Field({}, description="overrides of the experiment's `training`")

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        if (self.method == "base") != (self.parent is None):
            raise ValueError("`parent` is needed by every method but `base`, which has none")
        if (self.method in ("mars", "block_diffusion")) != (self.block_size is not None):
            raise ValueError("`block_size` is needed by mars and block_diffusion, and only there")
        if self.source == "released" and (self.released is None or self.method == "base"):
            raise ValueError(
                "`source: released` is for a fine-tuned model with `released: {repository: ...}`; "
                "add that, or remove `source` to train it here"
            )
        return self


# --- evaluation ---------------------------------------------------------------------------------


class Benchmark(Strict):
    """One stock lm-eval task, and which of its scores the tables show."""

    task: str = Field(description="lm-eval's task or group")
    title: str = Field(description="column title, as in the paper's tables")
    dataset: str = Field(description="repository on the hub, `owner/name`")
    revision: str | None = Field(None, description="commit of the data set; null: newest, recorded")
    metric: str
    filter: str = "none"
    num_fewshot: int = 0
    limit: Positive | None = Field(None, description="first N questions (per sub-task of a group)")
    subtasks: list[str] | None = Field(None, description="parts of a group; null: all")
    unsafe_code: bool = Field(False, description="allow running code that the model wrote")


class Setting(Strict):
    """How a model decodes in one evaluation."""

    metric: Literal["probability", "entropy", "margin"] = "probability"
    threshold: Annotated[float, Field(ge=0)] | None = Field(
        None, description="tau; null: one token per forward (tau = 1.0)"
    )
    method: SettingMethod | None = Field(
        None, description="null: the engine, or what the model was trained for"
    )
    block_size: Positive | None = Field(
        None, description="B of the decoder; null: as trained (jacobi: one guess less per forward)"
    )
    lossless: bool = Field(False, description="greedy AR output at any tau: an extension")
    extra_mask: bool = Field(False, description="B masks, B + 1 predictions: an extension")
    cache_block: Positive | None = Field(None, description="of block_cache: B_cache of Table 5")
    authors_window: bool = Field(False, description="of block_cache: as the authors' code (A5)")
    repetition_penalty: Annotated[float, Field(gt=0)] = Field(
        1.0, description="of transformers: what the authors' AR rows inherit (A1)"
    )

    @field_validator("threshold")
    @classmethod
    def _on_the_scale(cls, threshold: float | None, info: ValidationInfo) -> float | None:
        if threshold is not None and threshold > 1 and info.data.get("metric") != "entropy":
            raise ValueError("off the scale of its metric")
        return threshold

    @model_validator(mode="after")
    def _consistent(self) -> Setting:
        if (self.method == "block_cache") != (self.cache_block is not None):
            raise ValueError("`cache_block` is needed by the method block_cache, and only there")
        for option in self.options(stated=True).keys() - METHODS[self.method or "cursor"].options:
            method = self.method or "cursor, which decodes where `method` is left out"
            raise ValueError(f"`{option}` is not an option of the method {method}")
        return self

    def options(self, stated: bool = False) -> dict[str, Any]:
        """The options of decoding methods; ``stated``: those that are not as by default."""
        general = {"threshold", "method", "block_size"}
        return self.model_dump(exclude=general, exclude_defaults=stated)

    @property
    def plain(self) -> bool:
        """Whether this is one-token mode and nothing else."""
        return self == Setting.model_validate({})


class Evaluation(Strict):
    """Protocol shared by all evaluations."""

    max_new_tokens: Positive = 256
    slots: Positive = Field(16, description="sequences decoded side by side")
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    code_timeout: Positive = Field(10, description="seconds one generated program may run")


class Evaluated(Strict):
    """Which models are evaluated under which settings on which benchmarks."""

    models: list[Name]
    settings: list[Name]
    benchmarks: list[Name] | None = Field(None, description="null: all of the experiment")


# --- speed --------------------------------------------------------------------------------------


class WallClock(Strict):
    """Table 5 and the heat map: decoding methods, batch sizes, granularities of the block cache."""

    model: Name = Field(description="a MARS model; its one-token mode is the AR baseline")
    questions: Positive = Field(256, description="at least as many as a batch has room for")
    rounds: dict[int, Positive] = Field(description="timed rounds of each batch size")
    methods: list[ComparedMethod] = Field(
        description="beside transformers' `generate` and the engine's AR decoding"
    )
    cache_blocks: list[Positive] = Field(description="B_cache of `block_cache`")
    authors_cache_blocks: list[Positive] = Field([], description="of `block_cache-authors` (A5)")


class DraftAndTarget(Strict):
    """One row of Table 6."""

    draft: Name
    target: Name


class Speculative(Strict):
    """Table 6: MARS together with speculative decoding."""

    pairs: list[DraftAndTarget] = Field(min_length=1, description="speed-ups are over the first")
    draft_tokens: Positive = Field(4, description="K, tokens drafted per target forward")
    questions: Positive = 256
    rounds: Positive = 5


class LiveTau(Strict):
    """One running engine under a load that rises and falls, tau fixed and tau adapted to it."""

    model: Name
    questions: Positive = 256
    requests: Positive = Field(description="each asks one of the questions")
    slots: Positive = Field(16, description="sequences decoded side by side")
    quiet_load: Annotated[float, Field(gt=0)] = Field(
        0.4, description="rate of requests at both ends, over what tau = 1 can serve"
    )
    peak_load: Annotated[float, Field(gt=0)] = Field(1.6, description="the same in the middle")
    low: Fraction = Field(0.6, description="tau of the low policy, lowest of the adaptive one")
    seed: int = 0


class Speed(Strict):
    """What is timed, on the questions of which benchmark."""

    benchmark: Name
    tau: Fraction = 0.95
    max_new_tokens: Positive = 256
    wall_clock: WallClock | None = None
    speculative: Speculative | None = None
    live_tau: LiveTau | None = None

    def parts(self) -> dict[str, WallClock | Speculative | LiveTau | None]:
        """The measurements, by key."""
        timed = (self.wall_clock, self.speculative, self.live_tau)
        return dict(zip(("wall_clock", "speculative", "live_tau"), timed, strict=True))

    def models(self) -> dict[str, str]:
        """The models named here, by the key that names them."""
        found = {
            f"{key}.model": part.model
            for key, part in self.parts().items()
            if isinstance(part, WallClock | LiveTau)
        }
        for index, pair in enumerate(self.speculative.pairs if self.speculative else []):
            found |= {f"speculative.pairs[{index}].{k}": v for k, v in pair.model_dump().items()}
        return found


# --- the machine --------------------------------------------------------------------------------


class TrainingResources(Strict):
    """What one training takes of the machine."""

    gpus: Annotated[int, Field(ge=0)] = Field(1, description="at most; one process on each")
    sharded: bool = Field(False, description="FSDP: the model is spread over the GPUs; else DDP")


class Resources(Strict):
    """What the jobs take of the machine; it changes no result and is part of no spec."""

    training: dict[Name, TrainingResources] = Field(
        default={}, description="by scale; default no GPU"
    )
    evaluation_gpus: Literal[0, 1] = Field(
        default=0, description="of one evaluation or measurement"
    )
    checkpoint_minutes: Annotated[float, Field(gt=0)] = Field(
        15, description="of a training, between two saves to resume from"
    )


# --- the experiment -----------------------------------------------------------------------------


def _registered(schema: dict[str, Any]) -> None:
    """Let the schema of an artefact's name list those that there are."""
    from mars.paper.artefacts import ARTEFACTS

    schema["enum"] = [name for name, artefact in ARTEFACTS.items() if artefact.listed]


class Experiment(Strict):
    """All that one experiment is: `config/<experiment>.yaml`."""

    experiment: Name
    description: str
    threads: Positive = Field(1, description="CPU threads of one training or evaluation job")
    resources: Resources = Resources()
    data: Data
    scales: dict[Name, Scale]
    training: Training
    models: dict[Name, Model]
    benchmarks: dict[Name, Benchmark]
    evaluation: Evaluation
    settings: dict[Name, Setting]
    evaluate: list[Evaluated]
    speed: Speed | None = Field(None, description="wall-clock measurements; null: none")
    artefacts: list[Annotated[str, Field(json_schema_extra=_registered)]]

    @field_validator("artefacts")
    @classmethod
    def _are_registered(cls, names: list[str]) -> list[str]:
        from mars.paper.artefacts import ARTEFACTS

        listed = {name: artefact for name, artefact in ARTEFACTS.items() if artefact.listed}
        for name in names:
            _expect(name, listed, "artefacts")
        return names

    @field_validator("settings")
    @classmethod
    def _has_one_token(cls, settings: dict[str, Setting]) -> dict[str, Setting]:
        if not any(setting.plain for setting in settings.values()):
            raise ValueError("one setting must be `threshold: null` (one-token mode)")
        return settings

    @model_validator(mode="after")
    def _references_exist(self) -> Experiment:
        for scale in self.resources.training:
            _expect(scale, self.scales, "resources.training")
        for name, model in self.models.items():
            _expect(model.scale, self.scales, f"models.{name}.scale")
            if model.parent is not None:
                _expect(model.parent, self.models, f"models.{name}.parent")
                if self.models[model.parent].scale != model.scale:
                    raise ValueError(
                        f"`models.{name}.parent` is {model.parent!r} of another scale; "
                        "a parent has the same scale"
                    )
            self.training_of(name)
        for index, group in enumerate(self.evaluate):
            for model_name in group.models:
                _expect(model_name, self.models, f"evaluate[{index}].models")
            for setting in group.settings:
                _expect(setting, self.settings, f"evaluate[{index}].settings")
            for benchmark in group.benchmarks or []:
                _expect(benchmark, self.benchmarks, f"evaluate[{index}].benchmarks")
        for name in self.models:
            self.ancestors(name)
        self._check_speed()
        return self

    def _check_speed(self) -> None:
        """What is timed exists and can be timed; what is timed for an artefact is configured."""
        from mars.paper.artefacts import ARTEFACTS

        for name in self.artefacts:
            part = ARTEFACTS[name].timed
            if part and (self.speed is None or self.speed.parts()[part] is None):
                raise ValueError(f"`artefacts` has {name}, which needs `speed.{part}`")
        if self.speed is None:
            return
        _expect(self.speed.benchmark, self.benchmarks, "speed.benchmark")
        for key, name in self.speed.models().items():
            _expect(name, self.models, f"speed.{key}")
            if key.endswith(".model") and self.models[name].method != "mars":
                raise ValueError(f"`speed.{key}` is {name!r}; it must be a model trained by mars")

    def ancestors(self, name: str) -> list[str]:
        """Parent, grandparent... of a model; ValueError if the chain comes back to it."""
        chain: list[str] = []
        parent = self.models[name].parent
        while parent is not None:
            if parent == name or parent in chain:
                circle = " -> ".join([name, *chain, parent])
                raise ValueError(
                    f"`models.{name}.parent` leads in a circle ({circle}); "
                    "let one of them start from a base model"
                )
            chain.append(parent)
            parent = self.models[parent].parent
        return chain

    def training_of(self, name: str) -> Training:
        """The training section as it holds for one model: defaults, overrides, epochs factor."""
        model = self.models[name]
        overrides = dict(model.training)
        base = self.scales[model.scale].base
        if model.method == "base" and isinstance(base, ScratchBase):
            overrides = {**base.training, **overrides}
        try:
            training = Training.model_validate({**self.training.model_dump(), **overrides})
        except ValidationError as error:
            raise ValueError(_sentence(error, f"models.{name}.training.").rstrip(".")) from error
        return training.model_copy(update={"epochs": training.epochs * model.epochs_factor})

    @property
    def generated(self) -> bool:
        """Whether the data are this project's own, written from a seed."""
        return isinstance(self.data, GeneratedData)

    def datasets(self) -> dict[str, str | None]:
        """The data sets of the hub that are used, or stood in for: revisions by repository."""
        found = {item.dataset: item.revision for item in self.benchmarks.values()}
        if isinstance(self.data, HubData):
            found[self.data.dataset] = self.data.revision
        return found

    def trained_models(self) -> list[str]:
        """The models that are trained here, bases that are pre-trained included."""
        return [
            name
            for name, model in self.models.items()
            if model.source == "train"
            and (model.method != "base" or isinstance(self.scales[model.scale].base, ScratchBase))
        ]

    def released_models(self) -> list[str]:
        """The models whose checkpoint is the one that the authors released."""
        return [name for name, model in self.models.items() if model.source == "released"]

    def evaluations_of(self, name: str) -> dict[str, list[str]]:
        """The benchmarks on which a model is evaluated, by setting, in the experiment's order."""
        wanted: dict[str, set[str]] = {}
        for group in self.evaluate:
            for setting in group.settings if name in group.models else []:
                wanted.setdefault(setting, set()).update(group.benchmarks or self.benchmarks)
        return {
            setting: [benchmark for benchmark in self.benchmarks if benchmark in wanted[setting]]
            for setting in self.settings
            if setting in wanted
        }

    def evaluated_models(self) -> list[str]:
        """The models that are evaluated at all, in the experiment's order."""
        return [name for name in self.models if self.evaluations_of(name)]


def _expect(name: str, known: dict[str, Any], where: str) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
        raise ValueError(f"`{where}` names {name!r}, which does not exist; {hint}")


def load_experiment(path: str | Path, *overlays: str | Path) -> Experiment:
    """Read and check ``config/<experiment>.yaml``, overlays merged over it key by key.

    Raises:
        UserError: one sentence that names the file, the key and the remedy.
    """
    content = read_experiment(path, *overlays)
    return parse_experiment(content, " + ".join(map(str, (path, *overlays))))


def read_experiment(path: str | Path, *overlays: str | Path) -> Any:
    """What the files say together, not yet checked: over the defaults the file, then overlays."""
    content = with_defaults(_read_yaml(Path(path)), path)
    for file in map(Path, overlays):
        overlay = with_defaults(_read_yaml(file), file, whole=False)
        expect_what_is_removed(content, overlay, file)
        content = merged(content, overlay)
    return content


def _read_yaml(path: Path) -> Any:
    if not path.is_file():
        known = sorted(
            file.stem for file in path.parent.glob("*.yaml") if file.name != DEFAULT.name
        )
        raise UserError(
            f"{path}: there is no such configuration; choose one of {', '.join(known) or 'none'}."
        )
    try:
        return yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())}).") from error


def parse_experiment(content: Any, origin: str) -> Experiment:
    """Check an experiment already read from YAML; ``origin`` names it in error messages."""
    try:
        return Experiment.model_validate(without_removed(with_defaults(content, origin)))
    except ValidationError as error:
        raise UserError(f"{origin}: {_sentence(error)}") from error


def _sentence(error: ValidationError, section: str = "") -> str:
    """The first problem of a pydantic error as one sentence with key and remedy."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    key = section + ".".join(p for p in location if p not in ("generated", "hub", "scratch"))
    if first["type"] == "extra_forbidden":
        if new := RENAMED.get(location[-1]):
            return f"`{key}` is now `{new}`; rename it."
        return f"unknown key `{key}`; remove it or see config/README.md for the keys."
    if first["type"] == "missing":
        return f"`{key}` is missing; add it (config/README.md explains every key)."
    if key.endswith("threshold"):
        return f"`{key}` is {first['input']!r}; tau lies between 0 and 1, or is null for one token."
    if first["type"] == "value_error":
        text = str(first["ctx"]["error"])
        return f"{text}." if text.startswith("`models.") or not key else f"in `{key}`: {text}."
    return f"`{key}` is {first['input']!r}: {first['msg'].lower()}; correct it."


def json_schema() -> str:
    """The JSON schema of an experiment, for editors and for `config/schema.json`."""
    return json.dumps(Experiment.model_json_schema(), indent=2) + "\n"
