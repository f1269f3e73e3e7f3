"""The one typed model of an experiment: what `config/<experiment>.yaml` may say, and nothing else.

A stage sees only what its spec holds, so an edit here reruns only stages whose values change.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
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
from mars.config.seeds import with_seeds
from mars.decoding.methods import COMPARED_METHODS, METHODS, SETTING_METHODS
from mars.errors import UserError

KIND = "which kind of section this is"
REVISION = "commit; null: the newest, which is recorded"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["float32", "bfloat16"]
if TYPE_CHECKING:  # names that are registered are checked when a configuration is read
    SettingMethod: TypeAlias = str
    ComparedMethod: TypeAlias = str
else:
    SettingMethod, ComparedMethod = Literal[SETTING_METHODS], Literal[COMPARED_METHODS]


class Strict(BaseModel):
    """Base of every section: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class GeneratedData(Strict):
    """A corpus and miniature benchmarks, written by `mars/data` from a seed without a network."""

    source: Literal["generated"] = Field("generated", description=KIND)
    seed: int = Field(0, description="of corpus and benchmarks")
    instructions: PositiveInt = Field(description="instruction examples in the training corpus")
    pretraining_documents: PositiveInt = Field(description="plain documents the base models read")
    benchmark_documents: PositiveInt = Field(description="test questions of each benchmark")
    vocabulary: PositiveInt = Field(description="size of the tokenizer trained on the corpus")


class HubData(Strict):
    """An instruction data set of the Hugging Face hub, or of a mirror folder in hub layout."""

    source: Literal["hub"] = Field("hub", description=KIND)
    dataset: str = Field(description="repository, `owner/name`, with a `messages` column")
    configuration: str | None = Field(None, description="of the data set; null: its only one")
    split: str = Field("train", description="of the configuration")
    revision: str | None = Field(None, description=REVISION)
    limit: PositiveInt | None = Field(None, description="first N examples after a seeded shuffle")


Data = Annotated[GeneratedData | HubData, Field(discriminator="source")]


class Architecture(Strict):
    """A Qwen2 model trained from scratch."""

    hidden_size: PositiveInt = Field(description="width of the hidden states")
    layers: PositiveInt = Field(description="transformer blocks")
    heads: PositiveInt = Field(description="query heads of each")
    kv_heads: PositiveInt = Field(description="key and value heads of each")
    intermediate_size: PositiveInt = Field(description="width of the feed-forward layers")
    max_positions: PositiveInt = Field(2048, description="longest sequence, in tokens")


class Training(Strict):
    """Hyper-parameters of one training. Defaults are from the paper's Table 7 where it has them."""

    epochs: PositiveFloat = Field(5, description="passes over the data")
    learning_rate: PositiveFloat = Field(5e-6, description="peak after warm-up; cosine to zero")
    warmup_ratio: Fraction = Field(0.03, description="share of steps with rising learning rate")
    weight_decay: NonNegativeFloat = Field(0.0, description="of AdamW; not in the paper")
    adam_beta2: Fraction = Field(0.999, description="of AdamW; not in the paper")
    max_grad_norm: PositiveFloat = Field(1.0, description="clipping; not in the paper")
    batch_size: PositiveInt = Field(384, description="examples per optimiser step, on all devices")
    max_length: PositiveInt = Field(512, description="tokens; longer examples are cut at the end")
    row_length: PositiveInt = Field(
        2048, description="tokens of a packed row; the loss does not depend on it"
    )
    rows_per_forward: PositiveInt = Field(1, description="packed rows in one forward; likewise")
    precision: Precision = Field("bfloat16", description="bfloat16: autocast over float32 weights")
    normalisation: Literal["sequence", "token"] | None = Field(
        None, description="what the loss is averaged over; null: tokens for AR, else sequences (B3)"
    )
    eos_to_block: bool = Field(
        True, description="pad responses with EOS to a multiple of B, as the authors do (B6)"
    )
    inverse_t_weighting: bool = Field(
        False,
        description="weight sequences by 1/t, t ~ U(0.001, 1), as the authors' code does (B2)",
    )
    seed: int = Field(0, description="of shuffling and initialisation")


class ScratchBase(Strict):
    """A base model pre-trained here on the generated documents."""

    source: Literal["scratch"] = Field("scratch", description=KIND)
    architecture: Architecture = Field(description="its shape")
    training: dict[str, Any] = Field({}, description="overrides of the experiment's `training`")


class HubBase(Strict):
    """An instruct model of the hub, or of a mirror folder in hub layout."""

    source: Literal["hub"] = Field("hub", description=KIND)
    repository: str = Field(description="on the hub, `owner/name`")
    revision: str | None = Field(None, description=REVISION)
    mask_token: str = Field(
        "<|mask|>", description="takes a spare embedding row where the vocabulary lacks it"
    )


class PackageBase(Strict):
    """A GGUF file shipped inside an installed Python package."""

    source: Literal["package"] = Field("package", description=KIND)
    package: str = Field(description="importable package that holds the file")
    file: str = Field(description="path of the .gguf file inside the package")
    mask_token: str = Field(description="special token of the vocabulary that text never uses")


Base = Annotated[ScratchBase | HubBase | PackageBase, Field(discriminator="source")]


class Scale(Strict):
    """One base model, and the scale of the paper that it stands for."""

    stands_for: Literal["0.5B", "7B"] = Field(description="scale of the paper to compare with")
    base: Base = Field(description="the base model")


class Released(Strict):
    """Where the authors published their own checkpoint of a model."""

    repository: str = Field(description="on the hub, `owner/name`")
    revision: str | None = Field(None, description=REVISION)
    mask_token: str = Field("<|mask|>", description="the mask it was trained with")


class Model(Strict):
    """One checkpoint: a base as it is, or a fine-tuning stage on top of a parent."""

    scale: Name = Field(description="its base model, one of `scales`")
    method: Literal["base", "ar_sft", "mars", "block_diffusion"] = Field(
        description="`base`: the base model as it is, pre-trained here if it starts from scratch"
    )
    source: Literal["train", "released"] = Field(
        "train", description="train it here, or import the checkpoint that the authors released"
    )
    released: Released | None = Field(None, description="the authors' checkpoint")
    parent: Name | None = Field(None, description="model it continues from; none for base")
    block_size: PositiveInt | None = Field(None, description="B, for mars and block_diffusion")
    ar_weight: NonNegativeFloat = Field(
        1.0, description="weight of the AR (SFT) loss beside the mask loss; 0: 'w/o SFT loss'"
    )
    right_shift: bool = Field(
        True,
        description="of block_diffusion: position j predicts token j + 1, as published (C1); "
        "false: a masked position predicts its own token",
    )
    epochs_factor: PositiveFloat = Field(
        1, description="multiplies `training.epochs`; 2: the paper's compute-matched AR SFT"
    )
    training: dict[str, Any] = Field({}, description="overrides of the experiment's `training`")
    seeds: list[NonNegativeInt] | None = Field(
        None, description="train it once with each; null: as the experiment says"
    )
    seed_of: Name | None = Field(
        None, description="written by `seeds`: the model of which this is another seed"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        if (self.method == "base") != (self.parent is None):
            raise ValueError("`parent` is needed by every method but `base`, which has none")
        if (self.method in ("mars", "block_diffusion")) != (self.block_size is not None):
            raise ValueError("`block_size` is needed by mars and block_diffusion, and only there")
        if not self.right_shift and self.method != "block_diffusion":
            raise ValueError("`right_shift: false` is for block_diffusion only; remove it")
        if not self.right_shift and self.source == "released":
            raise ValueError(
                "the authors trained their checkpoint with `right_shift: true`; remove the key, or "
                "remove `source` to train this model here"
            )
        if self.source == "released" and (self.released is None or self.method == "base"):
            raise ValueError(
                "`source: released` is for a fine-tuned model with `released: {repository: ...}`; "
                "add that, or remove `source` to train it here"
            )
        return self

    @property
    def autoregressive(self) -> bool:
        """Whether it predicts one token per forward."""
        return self.block_size is None


class Benchmark(Strict):
    """One stock lm-eval task, and which of its scores the tables show."""

    task: str = Field(description="lm-eval's task or group")
    title: str = Field(description="column title, as in the paper's tables")
    dataset: str = Field(description="repository on the hub, `owner/name`")
    revision: str | None = Field(None, description=REVISION)
    metric: str = Field(description="the score the tables show; the records keep all")
    filter: str = Field("none", description="lm-eval's filter of that score")
    num_fewshot: int = Field(0, description="worked examples in the prompt")
    fewshot_as_multiturn: bool = Field(
        True,
        description="worked examples are turns of the conversation, lm-eval's default; false: they "
        "stand in one user turn with the question (C2)",
    )
    limit: PositiveInt | None = Field(None, description="first N questions (of each subtask)")
    subtasks: list[str] | None = Field(None, description="parts of a group; null: all")
    unsafe_code: bool = Field(False, description="allow running code that the model wrote")


class Setting(Strict):
    """How a model decodes; `{}` is one token per forward, and one setting must be that."""

    metric: Literal["probability", "entropy", "margin"] = Field(
        "probability",
        description="confidence; margin is that over the second-best token, entropy is in nats",
    )
    threshold: NonNegativeFloat | None = Field(
        None, description="tau: confidence is at least this, entropy at most; null: one token"
    )
    method: SettingMethod | None = Field(
        None, description="null: the engine, or what the model was trained for"
    )
    block_size: PositiveInt | None = Field(
        None, description="B of the decoder; null: as trained (jacobi guesses one token fewer)"
    )
    lossless: bool = Field(False, description="output of greedy AR at any tau (an extension)")
    extra_mask: bool = Field(False, description="B masks, B + 1 predictions (an extension)")
    cache_block: PositiveInt | None = Field(None, description="of block_cache: Table 5's B_cache")
    authors_window: bool = Field(False, description="of block_cache: as the authors' code (A5)")
    repetition_penalty: PositiveFloat = Field(
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
        """Options of decoding methods; with ``stated`` only those that differ from the default."""
        general = {"threshold", "method", "block_size"}
        return self.model_dump(exclude=general, exclude_defaults=stated)

    @property
    def plain(self) -> bool:
        """Whether this is one-token mode and nothing else."""
        return self == Setting.model_validate({})


class Endpoint(Strict):
    """A server with OpenAI's API, such as vLLM or `mars serve`, for the AR rows of one model."""

    url: Annotated[str, Field(pattern=r"^https?://[\w.:\[\]-]+(/[\w.~/-]*)?$")] = Field(
        description="as OpenAI clients take it, such as `http://node7:8000/v1`; part of no spec"
    )
    model: str | None = Field(
        None, description="what the server calls the model; null: as it is called here"
    )
    api_key_env: Annotated[str, Field(pattern=r"^\w+$")] | None = Field(
        None, description="environment variable with the API key, which is never written anywhere"
    )
    concurrency: PositiveInt = Field(16, description="requests at a time")


class Evaluation(Strict):
    """Protocol shared by all evaluations."""

    max_new_tokens: PositiveInt = Field(256, description="of one answer")
    slots: PositiveInt = Field(16, description="sequences at a time; fewer if memory is short")
    precision: Precision = Field("bfloat16", description="of the weights while decoding")
    code_timeout: PositiveInt = Field(10, description="seconds one generated program may run")
    # Kept out of every spec: where a server stands changes no result.
    endpoint: dict[Name, Endpoint] = Field(
        {},
        exclude=True,
        description="by model: the server that answers its AR rows (docs/endpoint.md)",
    )


class Evaluated(Strict):
    """Every one of these models is evaluated under every setting on every benchmark."""

    models: list[Name] = Field(description="of `models`")
    settings: list[Name] = Field(description="of `settings`")
    benchmarks: list[Name] | None = Field(None, description="of `benchmarks`; null: all")


class Probe(Strict):
    """What each place of the decoding window predicts, along the models' own answers."""

    benchmark: Name = Field(description="whose questions are asked")
    questions: PositiveInt = Field(64, description="first N of the benchmark")
    models: list[Name] = Field(description="of `models`: trained by mars, with all their seeds")


class WallClock(Strict):
    """Table 5 and the heat map: decoding methods, batch sizes, granularities of the block cache."""

    model: Name = Field(description="a MARS model; its one-token mode is the AR baseline")
    questions: PositiveInt = Field(256, description="first N of the benchmark, or a whole batch")
    heat_map_questions: PositiveInt | None = Field(
        None, description="the same where a batch size has one round; null: `questions`"
    )
    rounds: dict[int, PositiveInt] = Field(
        description="timed rounds of each batch size at most, after one to warm up: from the third "
        "on they end when every speed-up is known to 2 % (docs/speed.md); Table 5: 4, 8 and 16"
    )
    methods: list[ComparedMethod] = Field(
        description="beside transformers' `generate` and the engine's AR decoding"
    )
    cache_blocks: list[PositiveInt] = Field(description="B_cache of `block_cache`")
    authors_cache_blocks: list[PositiveInt] = Field([], description="of `block_cache-authors` (A5)")
    judged_cache_block: PositiveInt = Field(
        32, description="B_cache that claim 5 is judged by, chosen before the run"
    )

    @model_validator(mode="after")
    def _is_timed(self) -> WallClock:
        if "block_cache" in self.methods and self.judged_cache_block not in self.cache_blocks:
            raise ValueError(
                f"`judged_cache_block` is {self.judged_cache_block}, which is not timed; choose "
                "one of `cache_blocks`"
            )
        return self

    def questions_at(self, batch: int) -> int:
        """Questions that are decoded at a batch size, which a single batch may exceed."""
        once = self.heat_map_questions if self.rounds[batch] == 1 else None
        return max(once or self.questions, batch)


class DraftAndTarget(Strict):
    """One row of Table 6."""

    draft: Name = Field(description="model that proposes tokens")
    target: Name = Field(description="model that checks them")


class Speculative(Strict):
    """Table 6: MARS together with speculative decoding."""

    pairs: list[DraftAndTarget] = Field(min_length=1, description="speed-ups are over the first")
    draft_tokens: PositiveInt = Field(4, description="K, tokens drafted per target forward")
    questions: PositiveInt = Field(256, description="first N of the benchmark")
    rounds: PositiveInt = Field(5, description="at most; they end as those of `wall_clock` do")


class InVllm(Strict):
    """Rows of Table 6 beyond the paper: drafts in stock vLLM, installed by `make vllm-env`."""

    pairs: list[DraftAndTarget] = Field(
        min_length=1, description="a model may draft for itself; targets decode one token a forward"
    )
    draft_tokens: PositiveInt | None = Field(
        None, description="K; null: B of a MARS draft, 4 of an AR one"
    )
    questions: PositiveInt = Field(256, description="first N of the benchmark")
    rounds: PositiveInt = Field(5, description="at most; they end as those of `wall_clock` do")


class LiveTau(Strict):
    """One engine under a load that rises and falls, with tau fixed or adapted to the load."""

    model: Name = Field(description="a MARS model")
    questions: PositiveInt = Field(256, description="first N of the benchmark")
    requests: PositiveInt = Field(description="each asks one of the questions")
    slots: PositiveInt = Field(16, description="sequences decoded side by side")
    quiet_load: PositiveFloat = Field(0.4, description="rate at both ends; 1: what tau = 1 serves")
    peak_load: PositiveFloat = Field(1.6, description="rate in the middle")
    low: Fraction = Field(0.6, description="tau of the low policy, lowest of the adaptive one")
    traces: PositiveInt = Field(1, description="sequences of arrivals, each for every policy")
    seed: int = Field(0, description="of the first trace; the others have the numbers after it")


class Speed(Strict):
    """What is timed. Each job has the whole machine and runs after everything that is not timed."""

    benchmark: Name = Field(description="whose questions are decoded; a single lm-eval task")
    tau: Fraction = Field(0.95, description="where several tokens are decoded per forward")
    max_new_tokens: PositiveInt = Field(256, description="of one answer")
    wall_clock: WallClock | None = Field(None, description="null: not measured")
    speculative: Speculative | None = Field(None, description="null: not measured")
    live_tau: LiveTau | None = Field(None, description="null: not measured")
    vllm: InVllm | None = Field(None, description="null: not measured; needs `make vllm-env`")

    def parts(self) -> dict[str, WallClock | Speculative | LiveTau | InVllm | None]:
        """The measurements, by key."""
        return {
            "wall_clock": self.wall_clock,
            "speculative": self.speculative,
            "live_tau": self.live_tau,
            "vllm": self.vllm,
        }

    def models(self) -> dict[str, str]:
        """The models named here, by the key that names them."""
        found = {
            f"{key}.model": part.model
            for key, part in self.parts().items()
            if isinstance(part, WallClock | LiveTau)
        }
        for key, part in self.parts().items():
            for index, pair in enumerate(getattr(part, "pairs", [])):
                found |= {f"{key}.pairs[{index}].{k}": v for k, v in pair.model_dump().items()}
        return found


class DeviceUse(Strict):
    """How a training uses its devices: memory against time, and no result beyond rounding."""

    sharded: bool = Field(False, description="FSDP: the model is spread over the GPUs; else DDP")
    activation_checkpointing: bool = Field(
        False, description="keep only what enters a layer, compute the rest again when needed"
    )
    compile: bool = Field(False, description="compile the layers with `torch.compile`")


class TrainingResources(DeviceUse):
    """What one training may use of the machine, and how."""

    gpus: NonNegativeInt = Field(1, description="at most; one process on each")


Tracker = Literal["tensorboard", "trackio", "wandb"]


class TrainingOptions(DeviceUse):
    """What a training is told beside its spec: `mars run --option key=value`."""

    checkpoint_minutes: PositiveFloat = 15
    log_with: Tracker | None = None


class Resources(Strict):
    """What the jobs may use of the machine; no result and no spec depends on it."""

    training: dict[Name, TrainingResources] = Field({}, description="by scale; default: no GPU")
    evaluation_gpus: Literal[0, 1] = Field(0, description="of one evaluation or measurement")
    evaluation_compile: bool = Field(
        False,
        description="compile the transformer with `torch.compile` on a GPU; minutes of each "
        "evaluation, worth it where one takes hours",
    )
    checkpoint_minutes: PositiveFloat = Field(
        15, description="between two saves of a training; more if they would take over 5 % of it"
    )
    log_with: Tracker | None = Field(
        None, description="also report trainings there; its package is yours to install"
    )

    def of_training(self, scale: str) -> TrainingResources:
        """What a training of this scale may use."""
        return self.training.get(scale, TrainingResources(gpus=0))

    def options(self, scale: str) -> TrainingOptions:
        """What a training of this scale is told."""
        use = self.of_training(scale).model_dump(exclude={"gpus"})
        return TrainingOptions(
            **use, checkpoint_minutes=self.checkpoint_minutes, log_with=self.log_with
        )


def _artefacts() -> dict[str, Any]:
    """The artefacts that an experiment may list, by name."""
    from mars.paper.artefacts import ARTEFACTS

    return {name: artefact for name, artefact in ARTEFACTS.items() if artefact.listed}


def _registered(schema: dict[str, Any]) -> None:
    """Let the JSON schema list the names of the artefacts."""
    schema["enum"] = list(_artefacts())


class Experiment(Strict):
    """Everything about one experiment: `config/<experiment>.yaml`."""

    experiment: Name = Field(description="its name; results go to `results/<experiment>/`")
    description: str = Field(description="one line for readers")
    threads: PositiveInt = Field(1, description="CPU threads of one job; part of no spec")
    resources: Resources = Field(Resources(), description="GPUs, and how often trainings save")
    data: Data = Field(description="where instructions, and generated benchmarks, come from")
    scales: dict[Name, Scale] = Field(description="the base models")
    training: Training = Field(description="for all models, unless one overrides it")
    seeds: list[NonNegativeInt] | None = Field(
        None, description="train every model once with each; null: once, with `training.seed`"
    )
    models: dict[Name, Model] = Field(description="the checkpoints")
    benchmarks: dict[Name, Benchmark] = Field(description="the lm-eval tasks")
    evaluation: Evaluation = Field(description="the protocol that all evaluations share")
    settings: dict[Name, Setting] = Field(description="ways to decode")
    evaluate: list[Evaluated] = Field(description="which models run under which settings")
    probe: Probe | None = Field(None, description="what masks predict; null: not looked at")
    speed: Speed | None = Field(None, description="wall-clock measurements; null: none")
    artefacts: list[Annotated[str, Field(json_schema_extra=_registered)]] = Field(
        description="tables and figures to make, beside comparison, claims and report"
    )

    @field_validator("artefacts")
    @classmethod
    def _are_registered(cls, names: list[str]) -> list[str]:
        for name in names:
            _expect(name, _artefacts(), "artefacts")
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
        for name in self.models:
            self._check_parents(name)
            self.training_of(name)
        known: dict[str, dict[str, Any]] = {"models": self.models, "settings": self.settings}
        known["benchmarks"] = self.benchmarks
        for index, group in enumerate(self.evaluate):
            for key, names in group.model_dump(exclude_none=True).items():
                for name in names:
                    _expect(name, known[key], f"evaluate[{index}].{key}")
        for name in self.artefacts:
            needed = _artefacts()[name].needs
            if needed and self.measured(needed) is None:
                raise ValueError(f"`artefacts` has {name}, which needs `{needed}`")
        self._check_probe()
        self._check_endpoints()
        self._check_speed()
        return self

    def _check_parents(self, name: str) -> None:
        """A model's parents are of its scale, and their chain does not lead back into itself."""
        where, chain = f"`models.{name}.parent`", [name]
        while (parent := self.models[chain[-1]].parent) is not None:
            if self.models[parent].scale != self.models[name].scale:
                raise ValueError(
                    f"{where} is {parent!r} of another scale; a parent has the same scale"
                )
            if parent in chain:
                raise ValueError(
                    f"{where} leads in a circle ({' -> '.join([*chain, parent])}); "
                    "let one of them start from a base model"
                )
            chain.append(parent)

    def _check_probe(self) -> None:
        """What is probed exists and has masks."""
        if self.probe is None:
            return
        _expect(self.probe.benchmark, self.benchmarks, "probe.benchmark")
        for name in self.probe.models:
            _expect(name, self.models, "probe.models")
            if self.models[name].method != "mars":
                raise ValueError(f"`probe.models` has {name!r}; only models of mars have masks")

    def _check_endpoints(self) -> None:
        """A server is given for models only that have AR rows."""
        for name in self.evaluation.endpoint:
            _expect(name, self.models, "evaluation.endpoint")
            if not self.models[name].autoregressive:
                raise ValueError(
                    f"`evaluation.endpoint` names {name!r}, trained by {self.models[name].method}; "
                    "a server answers AR rows only: remove it there, and it is evaluated here"
                )
            if not any(self.settings[setting].plain for setting in self.evaluations_of(name)):
                raise ValueError(
                    f"`evaluation.endpoint` names {name!r}, which is not evaluated in one-token "
                    "mode; remove it there, or add it to `evaluate`"
                )

    def _check_speed(self) -> None:
        """What is timed exists and can be timed."""
        if self.speed is None:
            return
        _expect(self.speed.benchmark, self.benchmarks, "speed.benchmark")
        for key, name in self.speed.models().items():
            _expect(name, self.models, f"speed.{key}")
            if key.endswith(".model") and self.models[name].method != "mars":
                raise ValueError(f"`speed.{key}` is {name!r}; it must be a model trained by mars")

    def training_of(self, name: str) -> Training:
        """The training section for one model: defaults, overrides, epochs factor."""
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

    def measured(self, section: str) -> Probe | WallClock | Speculative | LiveTau | InVllm | None:
        """The section of a measurement: `probe`, or a part of `speed` such as `speed.live_tau`."""
        if section == "probe":
            return self.probe
        return self.speed.parts()[section.removeprefix("speed.")] if self.speed else None

    @property
    def generated(self) -> bool:
        """Whether this project writes the data itself, from a seed."""
        return isinstance(self.data, GeneratedData)

    def datasets(self) -> dict[str, str | None]:
        """Revisions, by repository, of the data sets of the hub that are used, or imitated here."""
        found = {item.dataset: item.revision for item in self.benchmarks.values()}
        if isinstance(self.data, HubData):
            found[self.data.dataset] = self.data.revision
        return found

    def trained_models(self) -> list[str]:
        """The models that are trained here, pre-trained bases included."""
        return [
            name
            for name, model in self.models.items()
            if model.source == "train"
            and (model.method != "base" or isinstance(self.scales[model.scale].base, ScratchBase))
        ]

    def released_models(self) -> list[str]:
        """The models whose checkpoint the authors released."""
        return [name for name, model in self.models.items() if model.source == "released"]

    def evaluations_of(self, name: str) -> dict[str, list[str]]:
        """The benchmarks on which a model is evaluated, by setting, in the experiment's order."""
        return {
            setting: [b for b in self.benchmarks if any(b in (g.benchmarks or [b]) for g in groups)]
            for setting in self.settings
            if (groups := [g for g in self.evaluate if name in g.models and setting in g.settings])
        }

    def is_sent(self, name: str, setting: str) -> bool:
        """Whether a server answers the questions of this model under this setting."""
        return name in self.evaluation.endpoint and self.settings[setting].plain

    def evaluated_models(self) -> list[str]:
        """The models that are evaluated, in the experiment's order."""
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
    """The files merged but not yet checked: the defaults, then the file, then the overlays."""
    content = with_defaults(_read_yaml(Path(path)), path)
    for file in map(Path, overlays):
        overlay = with_defaults(_read_yaml(file), file, whole=False)
        expect_what_is_removed(content, overlay, file)
        content = merged(content, overlay)
    return content


def _read_yaml(path: Path) -> Any:
    if not path.is_file():
        known = sorted({file.stem for file in path.parent.glob("*.yaml")} - {DEFAULT.stem})
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
        whole = without_removed(with_defaults(content, origin))
        return Experiment.model_validate(with_seeds(whole, origin))
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
