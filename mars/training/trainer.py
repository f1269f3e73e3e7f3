"""The training loop: packed batches, AdamW, cosine schedule, checkpoints, export.

One process or several (``torchrun``): every process works out the same packing of the
whole optimiser step and lays out its share of the forward passes, so that the number of processes
changes nothing but the order of floating-point sums.
"""

from __future__ import annotations

import math
import os
import resource
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs
from torch._dynamo.exc import TorchDynamoException
from tqdm import tqdm
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
    get_cosine_schedule_with_warmup,
)

from mars.checkpoints.export import export
from mars.config.experiment import TrainingOptions
from mars.errors import UserError
from mars.machine.cpus import warn_of_slow_bfloat16
from mars.training.checkpoints import Checkpoints
from mars.training.examples import Examples, PackedSteps, packed_steps, worker_deaths_told
from mars.training.layers import checkpoint_layers, compile_layers
from mars.training.losses import chunk_logits
from mars.training.methods import MEAN_INVERSE_RATE, layout
from mars.training.packed_model import DENSE, PackedModel
from mars.training.packing import Rows, steps_of_run
from mars.training.sharding import shard
from mars.training.tracking import check_tracker, start_tracker, tracked_folder

if TYPE_CHECKING:
    from mars.training.stage import TrainSpec

TRAINING_PER_SAVING = 20  # times as long as the last save took, at least, until the next one
PATIENCE = timedelta(hours=2)  # of processes that wait while another loads or writes a model
DEFAULTS = TrainingOptions()
LOG_LINES = 2000  # at most this many lines in training.jsonl
DIVERGED = 3.0  # times the loss of the first step, or of a uniform guess if that is more
LOSSES_WATCHED = 16  # their median decides, since a single batch may weigh a lot (1/t weights)


@dataclass
class Progress:
    """How far a run is: all that a checkpoint holds beside weights and optimiser state."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    first_loss: float | None = None
    recent_losses: list[float] = field(default_factory=list)
    pending: list[list[float]] = field(default_factory=list)
    log: list[dict[str, float | int | None]] = field(default_factory=list)


def train(
    spec: TrainSpec,
    *,
    parent: Path,
    dataset: Path,
    work: Path,
    output: Path,
    options: TrainingOptions = DEFAULTS,
) -> dict[str, Any]:
    """Train one checkpoint and export it, whole, to ``output``.

    Args:
        parent: checkpoint to start from; for ``pretrain`` a folder with a tokenizer.
        dataset: a saved ``datasets.Dataset``: ``input_ids``, and ``prompt_length`` without loss.
        work: folder for checkpoints; a run that finds its own there resumes from the newest.
        options: how to use the machine; they change the result no more than rounding does.

    Returns:
        The content of ``training_summary.json``; nothing in processes other than the main one.

    Raises:
        UserError: no mask token, an unusable data set, a diverging loss, work of another run.
    """
    check_tracker(options.log_with)
    accelerator = _accelerator(spec.training.precision, options, output)
    tokenizer = AutoTokenizer.from_pretrained(parent)
    if accelerator.num_processes == 1:  # nothing to spread the model over
        options = options.model_copy(update={"sharded": False})
    empty = options.sharded and not accelerator.is_main_process  # that one hands out the shares
    with torch.device("meta") if empty else nullcontext():
        model = _load_model(spec, parent, tokenizer, accelerator.device, empty)
    _check_tokenizer(spec.method, parent, tokenizer, model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    lay_out = layout(spec, tokenizer.mask_token_id, tokenizer.eos_token_id)
    examples = Examples(dataset, lay_out, spec.training.seed)
    settings = spec.model_dump(exclude={"architecture"}) | {
        "normalisation": spec.normalisation,
        "parent": parent.name,
        "examples": len(examples),
    }
    run = TrainingRun(accelerator, model, examples, spec, settings, work, options)
    run.resume()
    start_tracker(accelerator, output, work, settings, run.progress.step)
    with worker_deaths_told():
        run.train()
    for tracker in accelerator.trackers:
        tracker.finish()
    state = run.state_dict()
    summary: dict[str, Any] = {}
    if accelerator.is_main_process:
        summary = {**run.summary(), "parameters_before": parameters}
        log = run.progress.log
        export(model, state, tokenizer, output, parent, settings, log, summary)
    accelerator.wait_for_everyone()
    return summary


@dataclass
class TrainingRun:
    """One training run: model, optimiser, schedule and how far it is."""

    accelerator: Accelerator
    model: Any
    examples: Examples
    spec: TrainSpec
    settings: dict[str, Any]
    work: Path
    options: TrainingOptions
    progress: Progress = field(default_factory=Progress)
    save_seconds: float = 0.0  # what the last save took

    def __post_init__(self) -> None:
        training, config = self.spec.training, self.model.config
        self.steps = steps_of_run(len(self.examples), training.epochs, training.batch_size)
        if self.steps == 0:
            raise UserError("`training.epochs` is too small for a single step; raise it.")
        self.ar_weight = 1.0 if self.spec.ar_weight is None else self.spec.ar_weight
        self.fixed_shape = config._attn_implementation == "flex_attention"
        weight = MEAN_INVERSE_RATE if training.inverse_t_weighting else 1.0
        self.guess = weight * math.log(config.vocab_size)  # loss of a uniform guess
        self.model = self.prepared()
        trained = [p for p in self.model.parameters() if p.requires_grad]
        matrices = {"params": [p for p in trained if p.ndim >= 2]}
        vectors = {"params": [p for p in trained if p.ndim < 2]}  # biases and norms
        self.optimizer = torch.optim.AdamW(
            [matrices | {"weight_decay": training.weight_decay}, vectors | {"weight_decay": 0.0}],
            lr=training.learning_rate,
            betas=(0.9, training.adam_beta2),
            fused=True,
        )
        self.scheduler = get_cosine_schedule_with_warmup(
            self.optimizer, math.ceil(training.warmup_ratio * self.steps), self.steps
        )
        self.checkpoints = Checkpoints(
            self.work, self.accelerator, self.model, self.optimizer, self.scheduler
        )

    def prepared(self) -> Any:
        """The model as it is trained: on its devices, and with what `options` ask for."""
        device = self.accelerator.device
        packed = PackedModel(self.model, self.ar_weight, chunk_logits(device))
        if self.options.compile:
            compile_layers(self.model)
        if self.options.activation_checkpointing:
            checkpoint_layers(self.model)
        if not self.options.sharded:
            return self.accelerator.prepare(packed)
        shard(packed, device, self.spec.training.precision)
        return packed

    def train(self) -> None:
        """Run all steps that are not done yet."""
        progress = self.progress
        every = math.ceil(self.steps / LOG_LINES)
        first_tokens, first_seconds = progress.tokens, progress.seconds
        started = saved = time.monotonic()
        self.model.train()
        bar = tqdm(
            total=self.steps,
            initial=progress.step,
            desc=self.spec.method,
            unit="step",
            mininterval=1 if sys.stderr.isatty() else 30,
            disable=not self.accelerator.is_main_process,
        )
        steps = PackedSteps(
            self.examples,
            self.spec,
            self.ar_weight,
            self.fixed_shape,
            self.accelerator.num_processes,
            self.accelerator.process_index,
        )
        for rows, tokens in packed_steps(steps, progress.step, self.accelerator.device):
            learning_rate = self.scheduler.get_last_lr()[0]
            losses, norm = self.step(rows)
            self.check(losses, norm)
            progress.step += 1
            progress.tokens += tokens
            progress.seconds = first_seconds + time.monotonic() - started
            progress.pending.append([*losses, norm])
            if progress.step % every == 0 or progress.step == self.steps:
                self.log(learning_rate)
            rate = (progress.tokens - first_tokens) / (progress.seconds - first_seconds)
            bar.set_postfix_str(f"loss {losses[0]:.3f}, {rate:,.0f} tokens/s", refresh=False)
            bar.update()
            if self.due(saved) and progress.step < self.steps:
                self.save()
                saved = time.monotonic()
        bar.close()

    def step(self, rows: list[Rows]) -> tuple[list[float], float]:
        """One optimiser step: loss, AR loss and mask loss of the whole batch; gradient norm."""
        accelerator = self.accelerator
        try:
            total = self.accumulate(rows)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"training stopped: the device's memory ran out at step {self.progress.step + 1} "
                f"of {self.steps}, with rows of {self.spec.training.row_length} tokens; set "
                "`activation_checkpointing` or `sharded` in `resources.training`, or lower "
                "`training.row_length` or `training.rows_per_forward`, which changes no batch."
            ) from error
        except TorchDynamoException as error:
            raise UserError(
                f"training stopped: its layers could not be compiled ({_beginning(error)}); set "
                "`compile: false` in `resources.training`, or install a C++ compiler."
            ) from error
        limit = self.spec.training.max_grad_norm
        norm = accelerator.clip_grad_norm_(self.model.parameters(), limit)
        losses = accelerator.reduce(total, "sum").tolist()
        if all(map(math.isfinite, [*losses, float(norm)])):  # else `check` stops the run
            self.optimizer.step()
            self.scheduler.step()
        self.optimizer.zero_grad()
        return losses, float(norm)

    def accumulate(self, rows: list[Rows]) -> torch.Tensor:
        """Gradients of a whole optimiser step; (3,) loss, AR loss and mask loss of these rows."""
        accelerator = self.accelerator
        total = torch.zeros(3, device=accelerator.device)
        for part in rows:
            # Copies exchange gradients once, after the last rows. A process that holds a share has
            # no room for whole gradients until then.
            waits = not self.options.sharded and part is not rows[-1]
            with accelerator.no_sync(self.model) if waits else nullcontext():
                loss, apart = self.model(part)
                # Data-parallel wrappers average over processes; shares are to be summed.
                accelerator.backward(loss * accelerator.num_processes)
            total[0] += loss.detach()
            total[1:] += apart
        return total

    def check(self, losses: list[float], norm: float) -> None:
        """Stop a run whose loss is not finite, or stays far above where it started."""
        progress, step = self.progress, self.progress.step + 1
        newest = max(self.checkpoints.steps(), default=0)
        where = f"checkpoints up to step {newest} are in {self.work}"
        if not all(map(math.isfinite, [*losses, norm])):
            raise UserError(
                f"training stopped: the loss or its gradient is not finite at step {step} of "
                f"{self.steps}; lower `training.learning_rate` ({where})."
            )
        if progress.first_loss is None:
            progress.first_loss = losses[0]
        progress.recent_losses = [*progress.recent_losses, losses[0]][-LOSSES_WATCHED:]
        recent = statistics.median(progress.recent_losses)
        bound = DIVERGED * max(progress.first_loss, self.guess)
        if len(progress.recent_losses) == LOSSES_WATCHED and recent > bound:
            raise UserError(
                f"training stopped: at step {step} of {self.steps} the loss is {recent:.2f}, over "
                f"{DIVERGED:.0f} times its start and the cost of guessing; lower "
                f"`training.learning_rate` ({where})."
            )

    def log(self, learning_rate: float) -> None:
        """Append the mean of the steps since the last line to the log."""
        progress = self.progress
        loss, ar, mask, norm = np.mean(progress.pending, axis=0).tolist()
        method = self.spec.method
        line = {
            "step": progress.step,
            "loss": loss,
            "loss_ar": None if method == "block_diffusion" or not self.ar_weight else ar,
            "loss_mask": mask if method in ("mars", "block_diffusion") else None,
            "grad_norm": norm,
            "learning_rate": learning_rate,
            "tokens": progress.tokens,
            "seconds": round(progress.seconds, 3),
        }
        progress.log.append(line)
        progress.pending = []
        known = {key: value for key, value in line.items() if key != "step" and value is not None}
        self.accelerator.log(known, progress.step)

    def due(self, saved: float) -> bool:
        """Whether it is time for a checkpoint; the main process decides for all.

        A model that takes long to write is written less often.
        """
        least = max(60 * self.options.checkpoint_minutes, TRAINING_PER_SAVING * self.save_seconds)
        due = time.monotonic() - saved >= least
        if self.accelerator.num_processes == 1:
            return due
        flag = torch.tensor([due and self.accelerator.is_main_process], dtype=torch.int32)
        return bool(self.accelerator.reduce(flag.to(self.accelerator.device), "sum"))

    def save(self) -> None:
        """Write a checkpoint, and note how long that took."""
        started = time.monotonic()
        note = {"settings": self.settings, "progress": asdict(self.progress)}
        self.checkpoints.save(self.progress.step, note)
        self.save_seconds = time.monotonic() - started

    def resume(self) -> None:
        """Resume from the newest checkpoint, if there is one."""
        if not (found := self.checkpoints.newest()):
            return
        checkpoint, note = found
        if note["settings"] != self.settings:
            raise UserError(
                f"{self.work} holds checkpoints of a run with other settings; delete the folder to "
                "start afresh."
            )
        self.checkpoints.load(checkpoint)
        self.progress = Progress(**note["progress"])

    def state_dict(self) -> dict[str, torch.Tensor]:
        """All weights, under the names of the model; empty in processes other than the main one."""
        state = self.checkpoints.whole_model()
        return {name.removeprefix("model."): value for name, value in state.items()}

    def summary(self) -> dict[str, Any]:
        """What the run did and what it cost."""
        progress, device = self.progress, self.accelerator.device
        memory, name = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "cpu"
        if device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(device)
            name = torch.cuda.get_device_name(device)
        return {
            "steps": progress.step,
            "examples": len(self.examples),
            "examples_without_response": self.examples.skipped,
            "tokens": progress.tokens,
            "seconds": round(progress.seconds, 3),
            "tokens_per_second": round(progress.tokens / progress.seconds, 1),
            "peak_memory_bytes": memory,
            "device": name,
            "processes": self.accelerator.num_processes,
            "final_loss": progress.log[-1]["loss"],
        }


def _accelerator(precision: str, options: TrainingOptions, output: Path) -> Accelerator:
    """The part of this process in the launched group."""
    AcceleratorState._reset_state()  # an earlier run of this process may have had another precision
    accelerator = Accelerator(
        mixed_precision="bf16" if precision == "bfloat16" else "no",
        log_with=options.log_with,
        project_dir=tracked_folder(output),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if accelerator.num_processes != launched:
        raise UserError(
            f"{launched} processes were launched but do not see each other; on a machine without "
            "GPU set ACCELERATE_USE_CPU=true."
        )
    on_cpu = accelerator.device.type == "cpu" and accelerator.is_main_process
    if on_cpu and precision == "bfloat16":
        warn_of_slow_bfloat16("training.precision")
    return accelerator


def _beginning(error: Exception) -> str:
    """The first two lines of a long message: what went wrong where, and why."""
    return " ".join(str(error).strip().splitlines()[:2])


def _load_model(
    spec: TrainSpec,
    parent: Path,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    empty: bool,
) -> PreTrainedModel:
    """The parent in float32: master weights, since bfloat16 is only the type of the computation.

    ``empty``: the same model without reading any weight, for a process that gets them otherwise.
    """
    attention = "flex_attention" if device.type == "cuda" else DENSE
    architecture = spec.architecture
    if architecture is None:
        form = {"dtype": torch.float32, "attn_implementation": attention}
        if empty:
            config = AutoConfig.from_pretrained(parent)
            return AutoModelForCausalLM.from_config(config, **form)
        return AutoModelForCausalLM.from_pretrained(parent, **form)
    torch.manual_seed(spec.training.seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=architecture.hidden_size,
            intermediate_size=architecture.intermediate_size,
            num_hidden_layers=architecture.layers,
            num_attention_heads=architecture.heads,
            num_key_value_heads=architecture.kv_heads,
            max_position_embeddings=architecture.max_positions,
            # Qwen2's 0.02 is for wide models; a narrow one learns much faster from wider weights.
            initializer_range=architecture.hidden_size**-0.5,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model.set_attn_implementation(attention)
    return model


def _check_tokenizer(
    method: str, parent: Path, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> None:
    """Check that the special tokens exist and fit the model, and that the tokenizer reloads.

    For some model types, Qwen2 among them, ``AutoTokenizer`` ignores the class in the tokenizer's
    files and substitutes the type's own, with other splitting rules.
    """
    if tokenizer.eos_token_id is None:
        raise UserError(f"{parent}: the tokenizer has no EOS token; set its `eos_token`.")
    if method in ("mars", "block_diffusion") and tokenizer.mask_token_id is None:
        raise UserError(
            f"{parent}: the tokenizer has no mask token; set `mask_token` of the model's base."
        )
    if len(tokenizer) > model.config.vocab_size:
        raise UserError(
            f"{parent}: the tokenizer has {len(tokenizer)} tokens, the model only "
            f"{model.config.vocab_size} embedding rows; choose a mask token the model has."
        )
    if method != "pretrain":
        return
    with tempfile.TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        loaded = AutoTokenizer.from_pretrained(folder)
    if loaded.backend_tokenizer.to_str() != tokenizer.backend_tokenizer.to_str():
        raise UserError(
            f"{parent}: beside a {model.config.model_type} model, AutoTokenizer would load this "
            f"tokenizer as {type(loaded).__name__} and split text differently; build it as one."
        )
