"""How fast a training step of the paper's shapes is, and whether its memory is what we plan with.

Weights are random, documents of random tokens as long as the paper's, in rows of 4096 as there
unless a case says otherwise. A step is four forward and backward passes, clipping and AdamW, about
what each of eight GPUs has to do for a batch of the paper. Tokens are those forwarded, padding left
out. One more step, profiled, tells whether it is the device or the host that takes the time.

A 7B model with its optimiser takes 16 bytes per parameter, 122 GB, on a single GPU: two and four of
its 28 layers are timed instead, the difference is the time of two layers, and 28 are computed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from time import perf_counter

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from mars.training.cost import Decoder, training_flops, training_memory
from mars.training.layers import checkpoint_layers, compile_layers
from mars.training.losses import chunk_logits
from mars.training.packed_model import DENSE
from tests.gpu.device import describe
from tests.gpu.models import random_weights, shape_of
from tests.gpu.part import Part, Skip
from tests.gpu.training import FLEX, forward_backward, packed, work

FORWARDS, STEPS = 4, 3
LAYERS = (2, 4)  # of 7B
KERNELS, NAME = 4, 56  # named in a row, and characters of a name
MEMORY = (0.7, 1.1)  # allowed, of what the formula says; compiled layers may save less


@dataclass(frozen=True)
class Case:
    """One row of the result."""

    shape: str
    method: str
    row_length: int = 4096
    activation_checkpointing: bool = False
    compile: bool = False

    def __str__(self) -> str:
        words = [self.shape, self.method]
        words += [f"rows of {self.row_length}"] * (self.row_length != Case.row_length)
        words += ["checkpointed"] * self.activation_checkpointing + ["compiled"] * self.compile
        return ", ".join(words)


CASES = {
    "tiny": [Case("tiny", "mars", 256), Case("tiny", "ar_sft", 256)],
    "0.5B": [
        Case("0.5B", "mars"),
        Case("0.5B", "mars", compile=True),
        Case("0.5B", "mars", row_length=16384),  # the host launches as many kernels as for 4096
        Case("0.5B", "ar_sft"),
        Case("0.5B", "ar_sft", compile=True),
        Case("0.5B", "mars", activation_checkpointing=True),
    ],
    "7B": [
        Case("7B", "mars"),
        Case("7B", "ar_sft"),
        Case("7B", "mars", activation_checkpointing=True),
        Case("7B", "mars", compile=True),
    ],
}


def run(part: Part, shape: str) -> None:
    """Every case of a shape, the one that matters most first."""
    for case in CASES[shape]:
        part.check(str(case), partial(measure, part, case), takes=25 if part.on_gpu else 0)


def measure(part: Part, case: Case) -> str:
    """Emit the row of a case; a sentence about its memory, which must be as modelled."""
    decoder = shape_of(case.shape)
    device = describe(part.device)
    counts = LAYERS if case.shape == "7B" else (decoder.layers,)
    timed = [Timed(part, case, shape_of(case.shape, layers)) for layers in counts]
    seconds = timed[-1].seconds
    if len(timed) > 1:
        per_layer = (timed[1].seconds - timed[0].seconds) / (counts[1] - counts[0])
        seconds += per_layer * (decoder.layers - counts[-1])
    done = work(case.method, decoder, case.row_length, FORWARDS)
    peak = device["peak_bfloat16_flops"]
    used = training_flops(decoder, done) / seconds
    part.emit(
        "training",
        {
            "shape": case.shape,
            "method": case.method,
            "row_length": case.row_length,
            "activation_checkpointing": case.activation_checkpointing,
            "compile": case.compile,
            "tokens_per_second": done.tokens / seconds,
            "model_flops_utilisation": used / peak if peak else None,
            "peak_memory_bytes": timed[-1].peak,
            "modelled_memory_bytes": timed[-1].modelled,
            "layers_timed": list(counts),
        },
    )
    return f"{timed[-1].about_memory()}; {timed[-1].kernels}"


class Timed:
    """Steps of one model: ``seconds`` of each, bytes at the ``peak``, and their ``kernels``."""

    def __init__(self, part: Part, case: Case, decoder: Decoder) -> None:
        self.case, self.peak = case, None
        rows = packed(case.method, decoder, case.row_length, FORWARDS)
        chunk = chunk_logits(part.device)
        self.modelled = training_memory(
            decoder,
            row_tokens=case.row_length,
            labels=max(len(one.labels) for one in rows),
            activation_checkpointing=case.activation_checkpointing,
            chunk_logits=chunk,
        ).total
        memory = describe(part.device)["memory_bytes"]
        if memory and self.modelled > memory:
            raise Skip(f"needs {self.modelled / 1e9:.0f} GB of the {memory / 1e9:.0f} GB here")
        model = random_weights(decoder, torch.float32, part.device).train()
        model.set_attn_implementation(FLEX if part.on_gpu else DENSE)
        if case.compile:
            compile_layers(model)
        if case.activation_checkpointing:
            checkpoint_layers(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

        def step() -> float:
            start = perf_counter()
            forward_backward(model, rows, autocast=True, chunk=chunk)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            part.wait()
            return perf_counter() - start

        step()
        if part.on_gpu:
            torch.cuda.reset_peak_memory_stats(part.device)
        self.seconds = statistics.median(step() for _ in range(STEPS))
        if part.on_gpu:
            self.peak = torch.cuda.max_memory_allocated(part.device)
        self.kernels = kernels(part, step)

    def about_memory(self) -> str:
        """Measured beside modelled, an AssertionError where they are apart."""
        if self.peak is None:
            return f"modelled {self.modelled / 1e9:.2f} GB; a CPU's memory is not measured"
        share = self.peak / self.modelled
        seen = f"{self.peak / 1e9:.1f} GB at the peak, modelled {self.modelled / 1e9:.1f} GB"
        low, high = MEMORY
        assert share <= high, seen
        assert share >= low or self.case.compile, seen
        return seen


def kernels(part: Part, step: Callable[[], float]) -> str:
    """What share of a step the device computes in, and which of its kernels take the most."""
    device, activity, time = DeviceType.CPU, ProfilerActivity.CPU, "self_cpu_time_total"
    if part.on_gpu:
        device, activity, time = DeviceType.CUDA, ProfilerActivity.CUDA, "self_device_time_total"
    with profile(activities=[activity]) as seen:
        whole = 1e6 * step()
    events = [event for event in seen.key_averages() if event.device_type == device]
    events.sort(key=attrgetter(time), reverse=True)
    busy = sum(map(attrgetter(time), events)) / whole
    calls = sum(event.count for event in events)
    most = (f"{short(one.key)} {getattr(one, time) / whole:.0%}" for one in events[:KERNELS])
    return f"{busy:.0%} of {1e-6 * whole:.2f} s in {calls:,} kernels: {', '.join(most)}"


def short(kernel: str) -> str:
    """The name of a kernel without what all of torch's begin with."""
    return kernel.removeprefix("void ").replace("at::native::", "")[:NAME]
