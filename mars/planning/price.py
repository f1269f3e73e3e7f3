"""What the jobs of the paper's experiments would cost on GPUs, before anything is spent.

Every figure says what it rests on:

* measured: the record of this very job, where its training ran on a GPU;
* calibrated: the model, with the speed of a GPU that was measured (``results/gpu``);
* modelled: the arithmetic of :mod:`mars.training.cost` and the assumptions of
  :mod:`mars.planning.gpu_speed` and of this module.

It knows the paper's models and data; other experiments are planned by their records alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from mars.config.experiment import (
    Benchmark,
    Experiment,
    HubBase,
    HubData,
    InVllm,
    LiveTau,
    Speculative,
    WallClock,
)
from mars.data.stage import tokens_of
from mars.decoding.methods import BASELINES, METHODS, TIMED
from mars.planning.gpu_speed import CALIBRATED, MEASURED, MODELLED, GpuSpeed
from mars.planning.plan import PlannedJob
from mars.provenance.files import read_json
from mars.provenance.record import read_record
from mars.training.cost import (
    DECODERS,
    Decoder,
    Memory,
    Work,
    document_work,
    loss_chunk,
    training_memory,
)

WEIGHT_BYTES = 2  # a finished checkpoint is in bfloat16, as its base is
TRAINING_BYTES = 12  # of a checkpoint to resume from: float32 weights and two moments of AdamW
CHECKPOINTS = 3  # of these at a time: two that are kept, and the one being written

PAPER_BASES = {"Qwen/Qwen2.5-0.5B-Instruct": "0.5B", "Qwen/Qwen2.5-7B-Instruct": "7B"}
PAPER_DATA = "allenai/Dolci-Instruct-SFT"

# Assumed until the data set is tokenised here. The paper counts about 2 million examples. Its 100
# H200-hours of AR SFT at 7B are 340 tokens per example if its code reached the utilisation that we
# assume, padding included; the data card's 7.1 GB for 2.15 million conversations, some 800 tokens
# each before they are cut at 512, point to the same.
EXAMPLES, EXAMPLE_BYTES, TOKEN_BYTES = 2_000_000, 3300, 4
PROMPT_TOKENS, RESPONSE_TOKENS = 120, 200
# Of packed rows: how full first-fit makes them and how even they are over GPUs, both simulated with
# such documents, and the eighth of a row to which their lengths are rounded up.
FILLED, EVEN, ROUNDED = 0.97, 0.99, 1 / 8
BENCHMARK_BYTES = 20_000_000  # at most, of any of the six benchmarks

# Questions of lm-eval's tasks, and the parts among which a limit holds.
QUESTIONS = {
    "ifeval": (541, 1),
    "bbh": (6511, 27),
    "mmlu_pro": (12032, 14),
    "gpqa_main_cot_zeroshot": (448, 1),
    "gsm8k_cot": (1319, 1),
    "humaneval_instruct": (164, 1),
}
SAMPLE_BYTES = 3000  # of one answer in the records

# Of GSM8K under the clock: tokens of an answer (Table 5: tokens per second times seconds over 256
# questions) and of its prompt, tokens per forward of MARS at tau = 0.95 (claimed: 1.5 to 1.7).
ANSWER_TOKENS, QUESTION_TOKENS, PER_FORWARD = 155, 110, 1.5
ROUNDS = 3  # of a measurement, if three are precise enough; the limit otherwise


@dataclass(frozen=True)
class Price:
    """Cost of one job.

    Attributes:
        gpu_hours: hours times GPUs.
        widest: GPUs that the job can use.
        disk: bytes that stay.
        scratch: further bytes while it runs.
        download: bytes from the hub.
        basis: what ``gpu_hours`` rest on; bytes are always modelled.
    """

    gpu_hours: float = 0.0
    widest: int = 1
    disk: float = 0.0
    scratch: float = 0.0
    download: float = 0.0
    basis: str = MODELLED

    def wall_hours(self, gpus: int) -> float:
        """Hours on so many GPUs, if they share the work without loss."""
        return self.gpu_hours / min(gpus, self.widest)


FREE = Price(basis="-")  # minutes of a CPU


@dataclass(frozen=True)
class Examples:
    """The training set: how many examples, mean tokens of each, and what that rests on."""

    count: float
    prompt: float
    response: float
    basis: str


def tokenised(summary: Path) -> Examples:
    """A training set as `tokenize` counted it, in its ``summary.json``."""
    made = read_json(summary)
    prompt = made["prompt_tokens"] / made["examples"]
    response = made["tokens"] / made["examples"] - prompt
    return Examples(made["examples"], prompt, response, MEASURED)


@dataclass(frozen=True)
class Prices:
    """The prices of an experiment's jobs.

    Attributes:
        results: the folder of the experiment's results.
        rounds: that a measurement takes within its limit.
    """

    experiment: Experiment
    speed: GpuSpeed
    results: Path
    rounds: int = ROUNDS

    def of(self, job: PlannedJob) -> Price | None:
        """What one job would cost; None if nothing here can tell."""
        experiment = self.experiment
        match job.stage:
            case "train":
                return self._training(job)
            case "pretrain":
                return None
            case "evaluate":
                return self._evaluation(job.target["model"])
            case "import_base" | "import_released":
                decoder = self.decoder(experiment.models[job.target["model"]].scale)
                size = decoder and WEIGHT_BYTES * decoder.parameters
                return Price(disk=size, download=size) if size else None
            case "fetch_dataset":
                data = experiment.data
                trained_on = isinstance(data, HubData) and job.target["repository"] == data.dataset
                size = EXAMPLES * EXAMPLE_BYTES if trained_on else BENCHMARK_BYTES
                return Price(disk=size, download=size)
            case "tokenize":
                limit = experiment.data.limit if isinstance(experiment.data, HubData) else None
                length = experiment.training.max_length
                return Price(disk=(limit or EXAMPLES) * length * TOKEN_BYTES)
            case measured if measured.startswith("measure_"):
                return self._measurement(measured.removeprefix("measure_"))
        return FREE

    def decoder(self, scale: str) -> Decoder | None:
        """The shape of a scale's base model, if it is one of the paper's."""
        shape = self.shape(scale)
        return DECODERS[shape] if shape else None

    def shape(self, scale: str) -> str | None:
        """``0.5B`` or ``7B`` if a scale starts from the paper's base model of that size."""
        base = self.experiment.scales[scale].base
        return PAPER_BASES.get(base.repository) if isinstance(base, HubBase) else None

    # --- training -------------------------------------------------------------------------------

    def examples(self, scale: str) -> Examples | None:
        """The training set: as it was tokenised here, otherwise as assumed of the paper's."""
        data = self.experiment.data
        if not isinstance(data, HubData):
            return None
        manifest = self.results / tokens_of(self.experiment, scale, "instructions")
        if (summary := manifest.with_name("summary.json")).is_file():
            return tokenised(summary)
        if data.dataset != PAPER_DATA:
            return None
        return Examples(data.limit or EXAMPLES, PROMPT_TOKENS, RESPONSE_TOKENS, MODELLED)

    def memory(self, scale: str) -> Memory | None:
        """Peak memory of each GPU of a training, if its rows are as long as configured."""
        decoder, resources = self.decoder(scale), self.experiment.resources.of_training(scale)
        if decoder is None:
            return None
        training = self.experiment.training
        return training_memory(
            decoder,
            row_tokens=training.row_length * training.rows_per_forward,
            gpus=max(1, resources.gpus),
            sharded=resources.sharded,
            activation_checkpointing=resources.activation_checkpointing,
            chunk_logits=loss_chunk(self.speed.memory),
        )

    def _training(self, job: PlannedJob) -> Price | None:
        name = job.target["model"]
        model = self.experiment.models[name]
        shape, examples = self.shape(model.scale), self.examples(model.scale)
        if shape is None or examples is None:
            return None
        resources = self.experiment.resources.of_training(model.scale)
        work = self._work(name, examples)
        needed = self.speed.training_seconds(shape, model.method, work, resources)
        seconds, basis = needed.value * self._padding(name, work, examples), needed.basis
        if (recorded := _recorded(job)) is not None:
            seconds, basis = recorded, MEASURED
        parameters = DECODERS[shape].parameters
        return Price(
            gpu_hours=seconds / 3600,
            widest=max(1, resources.gpus),
            disk=WEIGHT_BYTES * parameters,
            scratch=CHECKPOINTS * TRAINING_BYTES * parameters,
            basis=basis,
        )

    def _work(self, name: str, examples: Examples) -> Work:
        """Of the whole training, as if all documents were the mean one."""
        model = self.experiment.models[name]
        prompt, response = round(examples.prompt), round(examples.response)
        one = document_work(model.method, prompt, response, model.block_size)
        return one * (examples.count * self.experiment.training_of(name).epochs)

    def _padding(self, name: str, work: Work, examples: Examples) -> float:
        """Tokens forwarded over tokens: all GPUs forward equally many rows, of one length."""
        training = self.experiment.training_of(name)
        scale = self.experiment.models[name].scale
        gpus = max(1, self.experiment.resources.of_training(scale).gpus)
        tokens = work.tokens / (examples.count * training.epochs) * training.batch_size
        row = training.row_length * training.rows_per_forward
        forwards = gpus * ceil(tokens / (FILLED * row * gpus))
        length = min(row, tokens / (EVEN * forwards) + ROUNDED / 2 * row)
        return forwards * length / tokens

    # --- evaluation -----------------------------------------------------------------------------

    def _evaluation(self, name: str) -> Price | None:
        """As if every answer were as long as it may be, at one token per forward.

        What a server answers costs nothing here.
        """
        experiment = self.experiment
        model = experiment.models[name]
        counts = [
            _questions(experiment.benchmarks[benchmark])
            for setting, chosen in experiment.evaluations_of(name).items()
            if not experiment.is_sent(name, setting)
            for benchmark in chosen
        ]
        shape = self.shape(model.scale)
        if shape is None or None in counts:
            return None
        answers = sum(count or 0 for count in counts)
        method = "cursor" if model.block_size else "autoregressive"
        rate = self.speed.tokens_per_second(
            shape,
            method,
            experiment.evaluation.slots,
            forwarded=model.block_size or 1,
            per_forward=1,
        )
        seconds = answers * experiment.evaluation.max_new_tokens / rate.value
        return Price(seconds / 3600, disk=answers * SAMPLE_BYTES, basis=rate.basis)

    # --- timing ---------------------------------------------------------------------------------

    def _measurement(self, name: str) -> Price | None:
        speed = self.experiment.speed
        if speed is None:
            return None
        part = speed.parts()[name]
        timed = [model for key, model in speed.models().items() if key.startswith(f"{name}.")]
        shapes = {model: self.shape(self.experiment.models[model].scale) for model in timed}
        known = {model: shape for model, shape in shapes.items() if shape is not None}
        if len(known) < len(shapes):
            return None
        if isinstance(part, WallClock):
            return self._wall_clock(part, known[part.model])
        if isinstance(part, Speculative | InVllm):
            # One question at a time, a forward for every token: those of the draft are the more.
            target = known[part.pairs[0].target]
            alone = {pair.target for pair in part.pairs} if isinstance(part, InVllm) else ()
            passes = (len(part.pairs) + len(alone)) * (1 + min(self.rounds, part.rounds))
            return self._decoded("hf", target, 1, passes * part.questions, 1)
        if isinstance(part, LiveTau):
            # Three policies: tau of 1, a low tau, tau by the load, which slots sit out when quiet.
            requests = 3 * part.traces * part.requests / part.quiet_load
            return self._decoded("autoregressive", known[part.model], part.slots, requests, 1)
        return None

    def wall_clock_conditions(self, part: WallClock) -> list[tuple[str, float]]:
        """Methods as often as they are timed, with the tokens that a sequence forwards a step."""
        block = self.experiment.models[part.model].block_size or 1
        halfway = QUESTION_TOKENS + self._answer / 2 + block  # of a sequence without a cache
        blocks = {
            "block_cache": part.cache_blocks,
            "block_cache-authors": part.authors_cache_blocks,
        }
        found: list[tuple[str, float]] = []
        for method in (*BASELINES, *part.methods):
            if TIMED[method].has_cache_block:
                found += [(method, size) for size in blocks[method]]
            elif METHODS[TIMED[method].method].one_token:
                found.append((method, 1))
            else:
                found.append((method, halfway if method == "window" else block))
        return found

    def _wall_clock(self, part: WallClock, shape: str) -> Price | None:
        prices = [
            self._decoded(method, shape, batch, passes * part.questions_at(batch), forwarded)
            for batch, rounds in part.rounds.items()
            for passes in [1 + min(self.rounds, rounds)]  # the first is to warm up
            for method, forwarded in self.wall_clock_conditions(part)
        ]
        return _sum(prices)

    def _decoded(
        self, method: str, shape: str, batch: int, answers: float, forwarded: float
    ) -> Price:
        """So many answers to questions of GSM8K."""
        rate = self.speed.tokens_per_second(
            shape,
            method,
            batch,
            forwarded=forwarded,
            per_forward=1 if METHODS[TIMED[method].method].one_token else PER_FORWARD,
        )
        return Price(answers * self._answer / rate.value / 3600, basis=rate.basis)

    @property
    def _answer(self) -> float:
        speed = self.experiment.speed
        return min(ANSWER_TOKENS, speed.max_new_tokens) if speed else ANSWER_TOKENS


def _sum(prices: Iterable[Price]) -> Price:
    """GPU-hours of all, which rest on the weakest basis among them."""
    prices = list(prices)
    weakest = MODELLED if any(one.basis == MODELLED for one in prices) else CALIBRATED
    return replace(Price(), gpu_hours=sum(one.gpu_hours for one in prices), basis=weakest)


def _recorded(job: PlannedJob) -> float | None:
    """GPU-seconds of the training that wrote the job's record, if it ran on a GPU."""
    if not job.record.is_file():
        return None
    facts: dict[str, Any] = read_record(job.record).get("facts", {})
    if facts.get("device", "cpu") == "cpu":
        return None
    return facts["seconds"] * facts["processes"]


def _questions(benchmark: Benchmark) -> int | None:
    if benchmark.task not in QUESTIONS:
        return None
    count, parts = QUESTIONS[benchmark.task]
    return count if benchmark.limit is None else min(count, benchmark.limit * parts)
