"""Typical bugs of code for a GPU, put into our own: the trace names the line of each."""

from __future__ import annotations

import inspect
import linecache
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from mars.decoding.block_cache import BlockCacheDecoder
from mars.decoding.cache import CachedModel
from mars.decoding.cursor import Engine
from mars.decoding.requests import Request
from mars.decoding.speculative import _Reader, decode_speculative
from tests.cuda_trace import reads
from tests.cuda_trace.fake_gpu import PROJECT, DeviceError, FakeGpu
from tests.cuda_trace.models import EOS, MASK, qwen

ENDS = frozenset([EOS])


@dataclass(frozen=True)
class Bug:
    """A change of one method, and what is said of it."""

    name: str
    owner: type
    method: str
    before: str  # in the source of the method
    after: str  # instead
    line: str  # part of the line that is named
    said: str

    def planted(self) -> Callable[..., Any]:
        """The method with the bug, with a source file for messages to quote."""
        original = getattr(self.owner, self.method)
        source = inspect.getsource(original)
        assert source.count(self.before) == 1, f"{self.method} has changed: plant the bug anew"
        lines = ["from __future__ import annotations\n", f"class {self.owner.__name__}:\n"]
        lines += source.replace(self.before, self.after).splitlines(keepends=True)
        file = str(PROJECT / "tests/planted" / f"{self.owner.__module__.replace('.', '/')}.py")
        linecache.cache[file] = (0, None, lines, file)
        names = dict(vars(sys.modules[self.owner.__module__]))
        exec(compile("".join(lines), file, "exec"), names)
        return vars(names[self.owner.__name__])[self.method]


HOST = "takes a tensor of the host beside one of the device"
WAITS = "waits for the device"
KEPT = "what a captured step keeps for itself, made at"
REPLAY = "a replay would not do this"

BUGS = [
    Bug(
        "a tensor made on the host",
        *(Engine, "_hidden", "self.offsets[: shape.width]", "torch.arange(shape.width)"),
        "torch.arange(shape.width)",
        HOST,
    ),
    Bug(
        "a mask made on the host",
        *(_Reader, "_forward", "bias = bias.to(self.device)", "pass"),
        "scaled_dot_product_attention(",
        HOST,
    ),
    Bug(
        "an index left on the host",
        *(Engine, "_run", "self.cutoffs[rows, :predictions]"),
        "self.cutoffs[rows][:, torch.arange(predictions)]",
        "torch.arange(predictions)",
        HOST,
    ),
    Bug(
        "a hidden synchronisation in a step",
        *(Engine, "_run", "predictions = logits.shape[1]"),
        "predictions = logits.shape[1]; torch.cuda.synchronize()",
        "torch.cuda.synchronize()",
        WAITS,
    ),
    Bug(
        "an item() that decides a shape",
        *(Engine, "_hidden", "shape.kv_length, shape.first"),
        "int(self.cursor.max()) + shape.width, shape.first",
        "int(self.cursor.max())",
        WAITS,
    ),
    Bug(
        "a branch on a tensor",
        *(Engine, "_accept", "count = self._run(logits, rows)"),
        "count = self._run(logits, rows)\n        count = count if count.max() > 1 else count + 1",
        "if count.max() > 1",
        WAITS,
    ),
    Bug(
        "tokens chosen by a mask, whose number the host must know",
        *(Engine, "_advance", "count, kept =", "tokens[tokens > 5]; count, kept ="),
        "tokens[tokens > 5]",
        WAITS,
    ),
    Bug(
        "a copy to the host while requests enter",
        *(Engine, "_place", "self.length[row] = slot.length"),
        "self.length[row] = slot.length; self.length.cpu()",
        "self.length.cpu()",
        WAITS,
    ),
    Bug(
        "a copy from the host in a captured step",
        *(Engine, "_advance", "length += count"),
        "length += torch.tensor([1] * len(count), device=count.device)",
        "torch.tensor([1] * len(count)",
        "a tensor of the host inside a captured step",
    ),
    Bug(
        "an update that leaves the captured state behind",
        *(Engine, "_advance", "length += count"),
        "self.length = torch.cat([length + count, self.length[shape.last :]])",
        "self.length[rows]",
        KEPT,
    ),
    Bug(
        "an allocation that outlives a captured step",
        *(Engine, "_run", "predictions = logits.shape[1]"),
        "predictions = logits.shape[1]; self.old = getattr(self, 'old', 0) + logits.sum()",
        "self.old",
        KEPT,
    ),
    Bug(
        "state that a new request puts at another address",
        *(Engine, "_set_rule", "threshold = slot.request.threshold"),
        "threshold = slot.request.threshold; self.cutoffs = self.cutoffs.clone()",
        "sure = confidences >= cutoffs",
        REPLAY,
    ),
    Bug(
        "a number of the host that changes from step to step",
        *(Engine, "_advance", "length += count", "length += count + self.times.decode_steps"),
        "self.times.decode_steps",
        REPLAY,
    ),
    Bug(
        "the same in the block cache",
        *(BlockCacheDecoder, "_extend", "base += self.cache_block * going"),
        "self.base = self.base + self.cache_block * self.going",
        "self.base[",
        KEPT,
    ),
    Bug(
        "a matrix product of two types",
        *(
            CachedModel,
            "logits",
            "hidden.flatten(0, -2), self",
            "hidden.flatten(0, -2).float(), self",
        ),
        "hidden.flatten(0, -2).float()",
        "torch.bfloat16 and torch.float32",
    ),
]


def decode_everything() -> None:
    """Captures and replays with requests that enter on the way, and a speculative decoding."""
    gpu = FakeGpu([*reads.ENGINE, *reads.BLOCK_CACHE, *reads.SPECULATIVE])
    with gpu():
        model = qwen(layers=1)
        rule = {"mask_token_id": MASK, "eos": ENDS}
        engine = Engine(model, slots=2, max_length=100, block_size=4, **rule)
        engine.answer([Request([11] * (10 + index), 0.9, 24) for index in range(4)])
        blocks = BlockCacheDecoder(
            model, slots=2, max_length=100, block_size=4, cache_block=8, **rule
        )
        blocks.answer([Request([11] * (10 + index), 0.9, 40) for index in range(4)])
        speculative = {"block_size": 4, "draft_threshold": 0.9, **rule}
        decode_speculative(model, model, Request([11] * 9, 0.9, 12), **speculative)


def test_without_a_bug_nothing_is_said() -> None:
    decode_everything()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_line_is_named(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bug.owner, bug.method, bug.planted())
    with pytest.raises(DeviceError) as caught:
        decode_everything()
    message = str(caught.value)
    assert bug.line in message
    assert bug.said in message
