"""A GPU that is not there: tensors without values, and an error for what would hurt on a real one.

``FakeTensorMode`` of a CUDA build of torch knows the shape, type and device of every tensor and
computes nothing. On top of it, :class:`FakeGpu` watches every operation and raises
:class:`DeviceError`, with the line that did it, for:

* a value read by the host (``.item()``, ``bool(tensor)``, ``.cpu()``, ``nonzero``...) other than
  the intended reads of :mod:`tests.cuda_trace.reads`, which get prepared answers;
* an index left on the host, which is copied behind the scenes, at every use;
* a matrix product of two types, which torch's fake tensors let pass;
* in a step that is captured as a CUDA graph, anything that a replay would not do again: work on
  the host, a copy from it, waiting, or a tensor kept beyond the step.

Each replay is computed anew and compared with what was captured: the same operations on the same
addresses, with the same constants, or the graph would do something else.
"""

from __future__ import annotations

import linecache
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, NoReturn
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.weak import WeakIdKeyDictionary

from mars.decoding.gpu import Graphs

DEVICE = torch.device("cuda:0")
MEMORY = 80 * 2**30
PROJECT = Path(__file__).resolve().parents[2]
# Frames that are never the cause: torch itself, and what watches it.
WATCHERS = (str(Path(torch.__file__).parent), __file__, mock.__file__)
aten = torch.ops.aten
READS = {aten.item.default, aten._local_scalar_dense.default, aten.is_nonzero.default}
# What looks at no value, and what copies from the host where one can see it.
METADATA = {torch.ops.prim.device.default, aten.detach_.default}
UPLOADS = {aten.copy_.default, aten._to_copy.default, aten.to.dtype_layout, aten.to.device}
PRODUCTS = {
    *(aten.mm.default, aten.mm.dtype, aten.addmm.default, aten.bmm.default, aten.baddbmm.default),
    *(aten.linear.default, aten.matmul.default, aten.scaled_dot_product_attention.default),
}


class DeviceError(AssertionError):
    """What a GPU would be slowed down or broken by."""


@dataclass(frozen=True)
class Read:
    """A line in which the host may wait for the device, and what it is told there."""

    file: str  # end of its path
    function: str  # qualified name; empty: any of the file
    source: str  # part of the line
    answer: Callable[[Tensor, Any], Any]  # (tensor, local variables by name) -> value
    how: str = ""  # part of the operation's name, where a line waits in several ways

    def matches(self, frame: FrameType, how: str) -> bool:
        code = frame.f_code
        return (
            code.co_filename.endswith(self.file)
            and self.function in ("", code.co_qualname.partition(".<locals>")[0])
            and self.source in line_of(frame)
            and self.how in how
        )


@dataclass
class Tape:
    """The operations of a step, as a CUDA graph would keep them."""

    entries: list[tuple[Any, ...]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    storages: list[Any] = field(default_factory=list)  # kept, so that no other gets its address


@contextmanager
def replaced(stand_ins: dict[str, Any]) -> Iterator[None]:
    """Within, each dotted name stands for something else."""
    with ExitStack() as stack:
        for name, stand_in in stand_ins.items():
            stack.enter_context(mock.patch(name, stand_in))
        yield


def driver() -> AbstractContextManager[None]:
    """Within, the driver that is not there answers what the project and torch ask it."""
    return replaced(
        {
            "torch.cuda.mem_get_info": lambda device=None: (MEMORY, MEMORY),
            "torch.cuda.memory_reserved": lambda device=None: 0,
            "torch.cuda.memory_allocated": lambda device=None: 0,
            # Without a GPU, autocast switches itself off.
            "torch.cuda.amp.common.amp_definitely_not_available": lambda: False,
            "torch.cuda.is_bf16_supported": lambda including_emulation=True: True,
        }
    )


class FakeGraph:
    """Stands in for ``torch.cuda.CUDAGraph``; :meth:`FakeGpu.compare` is its replay."""

    tape: Tape

    def replay(self) -> None:
        """Nothing to do: there are no values."""


class FakeGpu(TorchDispatchMode):
    """Calling it opens a context in which torch computes on a ``cuda:0`` that is not there.

    Args:
        reads: where the host may wait for the device.
    """

    def __init__(self, reads: Sequence[Read] = ()) -> None:
        super().__init__()
        self.reads = reads
        self.fakes = FakeTensorMode()
        self.used: Counter[Read] = Counter()  # the intended reads that happened
        self.captures = self.replays = 0
        self.tape: Tape | None = None  # of the step that is being captured or compared
        self.made: dict[int, tuple[Tape, int, str]] = {}  # by captured steps: tape, number, line
        self.outputs: set[int] = set()  # what they returned
        self.constants = WeakIdKeyDictionary()  # numbers that Python put into an operation

    @contextmanager
    def __call__(self) -> Iterator[FakeGpu]:
        """Fake tensors, this watcher, and stand-ins for what asks the driver."""
        stand_ins: dict[str, Any] = {
            "torch.cuda.CUDAGraph": FakeGraph,
            "torch.cuda.graph": self._capture,
            "torch.cuda.graph_pool_handle": lambda: (0, 0),
            "torch.cuda.synchronize": self._synchronize,
            # The compiler steps aside for a watcher; test_compiled.py traces with it.
            "mars.decoding.cache.CompiledBackbone": lambda decoder: decoder,
            "mars.decoding.gpu.Graphs.run": _comparing(self, Graphs.run),
            "torch._subclasses.fake_tensor.FakeTensor.tolist": _reading(self, FakeTensor.tolist),
        }
        with driver(), replaced(stand_ins), self.fakes, self:
            yield self

    # Operations

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        leaves = tree_flatten((args, kwargs))[0]
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if func in METADATA:
            return func(*args, **kwargs)
        if func in READS and on_gpu(tensors[0]):
            return self.read(tensors[0], func)
        self._check_inputs(func, tensors)
        try:
            output = func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException):
            return self.read(tensors[0], func)
        results = [leaf for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor)]
        if any(map(on_gpu, tensors)) and not all(map(on_gpu, results)):
            self.read(tensors[0], func)
        if self.tape is not None:
            self._note(self.tape, func, leaves, results)
        return output

    def _check_inputs(self, func: Any, tensors: list[Tensor]) -> None:
        if not any(map(on_gpu, tensors)) and func not in UPLOADS:
            return
        for tensor in tensors:
            if not on_gpu(tensor):
                tensor.constant = None  # or torch would compute with it on the real device
                if tensor.dim() > 0 and func not in UPLOADS:
                    fault(f"{func} takes a tensor of the host beside one of the device")
        kinds = {str(tensor.dtype) for tensor in tensors if tensor.dtype != torch.bool}
        if func in PRODUCTS and len(kinds) > 1:
            fault(f"{func} of {' and '.join(sorted(kinds))}")
        for tensor in tensors:
            tape, _, line = self.made.get(address(tensor), (self.tape, 0, ""))
            if tape is not self.tape and address(tensor) not in self.outputs:
                fault(f"{func} reads what a captured step keeps for itself, made at {line}")

    def _note(self, tape: Tape, func: Any, leaves: list[Any], results: list[Tensor]) -> None:
        """Keep an operation of a captured step, unless it only is another view of something."""
        known = {address(leaf) for leaf in leaves if isinstance(leaf, Tensor)}
        on_host = [result for result in results if not on_gpu(result)]
        if not on_host and not func._schema.is_mutable and known >= set(map(address, results)):
            return
        sources: list[Any] = []
        for leaf in leaves:
            if not isinstance(leaf, Tensor):
                sources.append(repr(leaf))
            elif on_gpu(leaf):
                tape.storages.append(leaf.untyped_storage())
                number = self.made.get(address(leaf), (None, address(leaf)))[1]
                sources.append((number, leaf.storage_offset(), tuple(leaf.shape), leaf.stride()))
            elif leaf in self.constants:
                sources.append(self.constants[leaf])
            elif func is aten.lift_fresh.default and leaf.dim() == 0:
                with no_dispatch():
                    sources.append(leaf.item())
            else:
                fault(f"{func} takes a tensor of the host inside a captured step")
        for result in on_host:
            if func is not aten.lift_fresh.default:
                fault(f"{func} works on the host inside a captured step")
            self.constants[result] = sources[0]
        for result in results:
            if on_gpu(result) and address(result) not in known:
                tape.storages.append(result.untyped_storage())
                self.made[address(result)] = (tape, -1 - len(tape.entries), where())
        tape.entries.append((func, *sources))
        tape.lines.append(where())

    # Waiting for the device

    def read(self, tensor: Tensor, how: Any) -> Any:
        """The answer to an intended read; a fault for every other."""
        if self.tape is not None:
            fault(f"{how} waits for the device inside a captured step")
        frame = next(frames())
        for read in self.reads:
            if read.matches(frame, str(how)):
                self.used[read] += 1
                return read.answer(tensor, SimpleNamespace(**frame.f_locals))
        return fault(f"{how} waits for the device")

    def _synchronize(self, device: Any = None) -> None:
        self.read(torch.empty(0, device=DEVICE), "torch.cuda.synchronize")

    # Captured steps

    @contextmanager
    def _capture(self, graph: FakeGraph, pool: Any = None) -> Iterator[None]:
        self.captures += 1
        with self._taping() as graph.tape:
            yield

    @contextmanager
    def _taping(self) -> Iterator[Tape]:
        self.tape = Tape()
        try:
            yield self.tape
        finally:
            self.tape = None

    def compare(self, captured: Tape, compute: Callable[[], Any]) -> None:
        """A fault where the step, computed once more, differs from what was captured."""
        self.replays += 1
        with self._taping() as again:
            compute()
        self.made = {at: made for at, made in self.made.items() if made[0] is not again}
        pairs = zip_longest(captured.entries, again.entries)
        for number, (before, now) in enumerate(pairs):
            if before != now:
                line = (captured if now is None else again).lines[number]
                raise DeviceError(f"{line}: a replay would not do this, but what was captured")


def _comparing(gpu: FakeGpu, run: Callable[..., Any]) -> Callable[..., Any]:
    """``Graphs.run`` that compares every replay with what the step would do now."""

    def wrapped(graphs: Graphs[Any], key: Any, compute: Callable[[Any], Any]) -> Any:
        replayed = key in graphs.captured
        output = run(graphs, key, compute)
        graph, captured = graphs.captured[key]
        gpu.outputs.add(address(captured))
        if replayed:
            gpu.compare(graph.tape, lambda: compute(key))  # type: ignore[attr-defined]
        return output

    return wrapped


def _reading(gpu: FakeGpu, tolist: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """``tolist`` of fake tensors, which otherwise is a read of every element."""

    def wrapped(tensor: Tensor) -> Any:
        return gpu.read(tensor, "tolist") if on_gpu(tensor) else tolist(tensor)

    return wrapped


def fault(what: str) -> NoReturn:
    raise DeviceError(f"{where()}: {what}")


def address(tensor: Tensor) -> int:
    """Of the memory that a tensor and its views share."""
    return tensor.untyped_storage()._cdata


def on_gpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda"


def frames() -> Iterator[FrameType]:
    """The frames of the project and of what it calls, innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not frame.f_code.co_filename.startswith(WATCHERS):
            yield frame
        frame = frame.f_back


def line_of(frame: FrameType) -> str:
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()


def where() -> str:
    """The innermost line of this project: file, number and source."""
    for frame in frames():
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(PROJECT / "mars") or file.is_relative_to(PROJECT / "tests"):
            return f"{file.relative_to(PROJECT)}:{frame.f_lineno}: {line_of(frame)}"
    return "outside this project"
