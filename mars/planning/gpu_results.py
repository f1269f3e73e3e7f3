"""What GPUs have been measured to do: the files that ``make test-gpu`` writes to results/gpu/."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat, ValidationError

from mars.errors import UserError

FOLDER = Path("results/gpu")
Shape = Literal["0.5B", "7B"]


class Part(BaseModel):
    """A section of such a file; what is not read here may stand beside it."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Device(Part):
    """Peak operations are of dense bfloat16 products, per second; bandwidth is bytes per second."""

    name: str
    memory_bytes: PositiveFloat
    peak_bfloat16_flops: PositiveFloat
    memory_bandwidth: PositiveFloat


class Decoding(Part):
    """New tokens per second of a method, by its name in ``speed.wall_clock.methods``."""

    shape: Shape
    method: str
    batch: int
    tokens_per_second: PositiveFloat
    bandwidth_share: NonNegativeFloat


class Training(Part):
    """Steps of a training on one GPU; tokens are those forwarded, of both streams."""

    shape: Shape
    method: Literal["mars", "ar_sft"]
    row_length: int
    activation_checkpointing: bool
    compile: bool
    tokens_per_second: PositiveFloat
    model_flops_utilisation: PositiveFloat
    peak_memory_bytes: PositiveFloat
    modelled_memory_bytes: PositiveFloat


class GpuResult(Part):
    """One GPU."""

    device: Device
    decoding: tuple[Decoding, ...] = ()
    training: tuple[Training, ...] = ()


def read_gpu_results(root: Path) -> list[GpuResult]:
    """The GPUs measured so far, by file name; none where there is no such folder.

    Raises:
        UserError: a file that is not what ``make test-gpu`` writes.
    """
    return [_read(path) for path in sorted((root / FOLDER).glob("*.json"))]


def _read(path: Path) -> GpuResult:
    try:
        return GpuResult.model_validate(json.loads(path.read_text()))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is not JSON ({error}); remove it or run `make test-gpu`."
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path}: `{where}`: {first['msg'].lower()}; remove the file or run `make test-gpu`."
        ) from None


def trainings(
    results: Sequence[GpuResult], shape: str, method: str
) -> list[tuple[Device, Training]]:
    """The trainings of a shape and a method, with the GPU of each."""
    return [
        (result.device, one)
        for result in results
        for one in result.training
        if one.shape == shape and one.method == method
    ]


def decodings(results: Sequence[GpuResult], shape: str, method: str) -> list[Decoding]:
    """What was decoded with a shape by a method."""
    return [
        one
        for result in results
        for one in result.decoding
        if one.shape == shape and one.method == method
    ]
