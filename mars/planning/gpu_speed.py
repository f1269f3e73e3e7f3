"""How fast GPUs train and decode: as measured under results/gpu/, otherwise by a model.

The model is that of a roofline. Training is bound by arithmetic, of which it reaches a share;
decoding reads all weights in every step, unless the host takes longer to launch the step. What is
assumed is a constant here, and ``mars plan`` prints it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import NamedTuple

from mars.config.experiment import TrainingResources
from mars.decoding.methods import METHODS, TIMED
from mars.planning.gpu_results import GpuResult, decodings, trainings
from mars.training.cost import BFLOAT16, DECODERS, Work, training_flops

PEAK_FLOPS = 989e12  # dense bfloat16 per second; H100 and H200 SXM, from the data sheet
BANDWIDTH = 4.8e12  # bytes per second; H200, from the data sheet
MEMORY = 80e9  # bytes, where none has been measured
UTILISATION = 0.4  # of the peak, in training and wherever decoding is bound by arithmetic
BANDWIDTH_SHARE = 0.5  # of a step that is bound by reading weights
LEAST_STEP = 0.004  # seconds of any step, however small the model
# Seconds of a step that the host launches kernel by kernel: in the paper's Table 5, AR at 7B and
# batch 4 decodes 143.4 tokens per second, waiting for the longest answer of a batch included.
LAUNCHED_STEP = 4 / 143.4

MEASURED, CALIBRATED, MODELLED = "measured", "calibrated", "modelled"


class Known(NamedTuple):
    """A figure and what it rests on."""

    value: float
    basis: str


@dataclass(frozen=True)
class GpuSpeed:
    """Speeds of the paper's shapes, ``0.5B`` and ``7B``.

    Attributes:
        results: the GPUs that were measured; the last of them counts where several know.
    """

    results: Sequence[GpuResult] = ()

    @property
    def memory(self) -> float:
        """Bytes of the smallest GPU that was measured."""
        return min((one.device.memory_bytes for one in self.results), default=MEMORY)

    def training_seconds(
        self, shape: str, method: str, work: Work, resources: TrainingResources
    ) -> Known:
        """GPU-seconds of a training's work, padding not included."""
        recompute = resources.activation_checkpointing
        flops = training_flops(DECODERS[shape], work, activation_checkpointing=recompute)
        kind = "ar_sft" if method == "ar_sft" else "mars"
        known = trainings(self.results, shape, kind)
        if not known:
            return Known(flops / (UTILISATION * PEAK_FLOPS), MODELLED)
        # As it will be trained, if that was measured; utilisation counts nothing twice.
        device, one = max(known, key=lambda found: found[1].activation_checkpointing == recompute)
        flops = training_flops(DECODERS[shape], work)
        return Known(flops / (one.model_flops_utilisation * device.peak_bfloat16_flops), CALIBRATED)

    def tokens_per_second(
        self, shape: str, method: str, batch: int, *, forwarded: float, per_forward: float
    ) -> Known:
        """New tokens per second of a batch that is decoded side by side.

        Args:
            method: a key of ``TIMED``.
            forwarded: tokens that a sequence forwards in a step.
            per_forward: new tokens of these; random weights, of which speed is measured, give one.
        """
        if known := decodings(self.results, shape, method):
            nearest = min(known, key=lambda one: abs(log(one.batch / batch)))
            rate = nearest.tokens_per_second * batch / nearest.batch
            return Known(rate * per_forward, CALIBRATED)
        decoder = DECODERS[shape]
        read = decoder.parameters - (0 if decoder.tied else decoder.embedding)
        reading = BFLOAT16 * read / (BANDWIDTH_SHARE * BANDWIDTH)
        launching = LEAST_STEP if replayed(method) else LAUNCHED_STEP
        products = 2 * decoder.layers * decoder.layer_matrices * batch * forwarded
        step = max(reading, launching) + products / (UTILISATION * PEAK_FLOPS)
        return Known(batch * per_forward / step, MODELLED)


def replayed(method: str) -> bool:
    """Whether a method's steps are CUDA graphs, which the host launches at once."""
    return TIMED[method].static or "compiled" in METHODS[TIMED[method].method].options
