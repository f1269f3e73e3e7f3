"""The engine: MARS decoding of many sequences at once, each at its own pace.

A slot holds one sequence. Its state is the number of tokens known (``length``) and the number
of them whose keys and values are in the cache (``cursor``); the tokens between are *pending*.
One step forwards, for every slot, a window that starts at its cursor: the pending tokens, then
[MASK]s. Because the token buffer holds [MASK] wherever nothing is known yet, the window is simply
a slice of it. The accepted tokens are written behind the pending ones, and committing means
moving the cursor: what the masks left in the cache is overwritten by the next window.

A prompt enters the same way, all its tokens pending; finished slots are refilled from the queue.
The paper names this cache (no block boundaries, no waiting) as future work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mars.decoding.acceptance import accepted_run, confidence, cutoff
from mars.decoding.cache import CachedModel, attention_of, gather_at, round_up
from mars.decoding.gpu import Graphs
from mars.decoding.requests import Continuation, Decoded, Request, Times, check_model, longest
from mars.errors import UserError

PREFILL_TOKENS = 2048  # most in one forward; longer prompts enter in pieces
PREFILL_TOKENS_GPU = 8192  # the same on a GPU, which short forwards leave waiting for the host
GRAPH_ROWS = 8  # with CUDA graphs, more rows than this are rounded up to a multiple of it


@dataclass
class _Slot(Continuation):
    """Host side of a sequence."""

    identity: int = -1
    block_size: int = 1
    cursor: int = 0
    length: int = 0
    unchecked: int = 0
    predictions: int = 1


def _width(slot: _Slot) -> int:
    """Tokens of its next window: those pending, then masks."""
    return slot.length - slot.cursor + slot.predictions - 1


class Shape(NamedTuple):
    """What fixes the shapes of a step's tensors, and its CUDA graph; counts are per slot."""

    first: int
    last: int  # exclusive
    width: int  # tokens forwarded
    kv_length: int  # cache entries read
    predictions: int  # new tokens predicted, at most
    unchecked: int  # tokens still to be compared with AR decoding, at most


class Engine:
    """Continuous batching over a fixed number of slots; slots in use are always the first ones.

    Args:
        model: a causal LM of Llama or Qwen2 architecture, any dtype.
        mask_token_id: id of [MASK]; may be None when ``block_size`` is 1.
        eos: ids that end a sequence.
        slots: most sequences decoded together.
        max_length: most tokens of one sequence, prompt and continuation.
        block_size: predictions per forward, B; 1 decodes autoregressively.
        metric, strict: the acceptance rule, see :mod:`mars.decoding.acceptance`.
        lossless: tokens accepted from masks are compared with what AR decoding says, which the
            next window computes anyway, and only those that agree are kept: at every threshold
            the output is that of greedy AR decoding. An extension of the paper.
        extra_mask: append B masks and read the last one too: B + 1 predictions. An extension.
        memory_limit, compiled: see :class:`mars.decoding.cache.CachedModel`.
        cached: one that other decoders use as well, large enough; then the two above do not count.

    Raises:
        UserError: the cache does not fit, or the model cannot be decoded this way.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        mask_token_id: int | None,
        eos: frozenset[int],
        slots: int,
        max_length: int,
        block_size: int = 1,
        metric: str = "probability",
        strict: bool = False,
        lossless: bool = False,
        extra_mask: bool = False,
        memory_limit: int | None = None,
        compiled: bool = True,
        cached: CachedModel | None = None,
    ):
        check_model(model, block_size if self.masked else 1, mask_token_id)
        cutoff(None, metric)
        self.block_size, self.metric, self.strict = block_size, metric, strict
        self.lossless, self.extra_mask, self.eos = lossless, extra_mask, eos
        self.slots, self.max_length = slots, max_length
        self.most = block_size + extra_mask  # predictions per forward
        on_gpu = model.device.type == "cuda"
        self.prefill_tokens = PREFILL_TOKENS_GPU if on_gpu else PREFILL_TOKENS
        self.cached = cached or CachedModel(
            model, slots, max_length + 2 * self.most - 1, mask_token_id, memory_limit, compiled
        )

        device = model.device
        self.offsets = torch.arange(self.cached.capacity, device=device)
        self.unknown = self.fill()
        self.ids = self.unknown.repeat(slots, 1)
        self.cursor = torch.zeros(slots, dtype=torch.long, device=device)
        self.length = torch.zeros(slots, dtype=torch.long, device=device)
        self.cutoffs = torch.zeros(slots, self.most, device=device)
        self.unchecked = torch.zeros(slots, dtype=torch.long, device=device)
        self.state = [self.ids, self.cursor, self.length, self.cutoffs, self.unchecked]

        self.queue: deque[_Slot] = deque()
        self.active: list[_Slot] = []
        self.results: dict[int, Decoded] = {}
        self.ended: list[int] = []  # requests that the last step finished
        self.submitted = 0
        self.times = Times()
        self.graphs: Graphs[Shape] | None = self.cached.graphs()

    masked = True  # whether predictions come from [MASK] tokens, which the model must then have

    def fill(self) -> Tensor:
        """What the token buffer holds wherever nothing is known yet, [capacity]."""
        return torch.full_like(self.offsets, self.cached.mask_token_id or 0)

    # Requests

    def submit(self, request: Request, block_size: int | None = None) -> int:
        """Queue a request and return its identity; ``block_size`` may lower the engine's.

        Raises:
            UserError: the request cannot be served; those in flight are not touched.
        """
        request.check(self.cached.model, self.metric)
        block_size = self.block_size if block_size is None else block_size
        if not 1 <= block_size <= self.block_size:
            raise UserError(
                f"The engine was built for blocks of at most {self.block_size}, not {block_size}."
            )
        if longest([request]) > self.max_length:
            raise UserError(
                f"The prompt ({len(request.prompt)} tokens) and max_new_tokens "
                f"({request.max_new_tokens}) exceed the cache length of {self.max_length}."
            )
        slot = _Slot(request, identity=self.submitted, block_size=block_size)
        self.queue.append(slot)
        self.submitted += 1
        return self.submitted - 1

    def set_threshold(
        self, threshold: float | None, identities: Collection[int] | None = None
    ) -> None:
        """Change tau from the next step on, of these requests or of all, running and waiting.

        Raises:
            UserError: not a threshold, or one of these is neither running nor waiting.
        """
        cutoff(threshold, self.metric)
        for slot in self._known(identities):
            slot.request = replace(slot.request, threshold=threshold)
        for row, slot in enumerate(self.active):
            if identities is None or slot.identity in identities:
                self._set_rule(row, slot)

    @torch.inference_mode()
    def cancel(self, identity: int) -> None:
        """Forget a request, waiting or running; its slot is free at once, and it has no result.

        Raises:
            UserError: it is neither running nor waiting.
        """
        for slot in self._known([identity]):
            slot.finish = "cancelled"
        self.queue = deque(slot for slot in self.queue if slot.finish is None)
        self._retire()
        self.results.pop(identity, None)

    def _known(self, identities: Collection[int] | None) -> list[_Slot]:
        """The requests that are running or waiting: these, or all."""
        known = {slot.identity: slot for slot in (*self.active, *self.queue)}
        for identity in identities or ():
            if identity not in known:
                raise UserError(f"No request {identity} is running or waiting.")
        return [known[identity] for identity in (known if identities is None else identities)]

    def run(self, progress: Callable[[Decoded], None] | None = None) -> dict[int, Decoded]:
        """Step until nothing is left; ``progress`` sees each sequence as it ends."""
        with attention_of(self.cached.model):
            while self.active or self.queue:
                self.step()
                if progress is not None:
                    for identity in self.ended:
                        progress(self.results[identity])
        return self.results

    def answer(
        self, requests: Iterable[Request], progress: Callable[[Decoded], None] | None = None
    ) -> list[Decoded]:
        """Queue the requests, run until nothing is left, and return their results in order."""
        identities = [self.submit(request) for request in requests]
        self.run(progress)
        return [self.results.pop(identity) for identity in identities]

    @torch.inference_mode()
    def step(self) -> dict[int, list[int]]:
        """Admit waiting requests or else decode one step; new tokens per request identity."""
        start = perf_counter()
        new: dict[int, list[int]] = {}
        if self._admission_pays():
            new = self._admit()
            self.times.prefill_seconds += perf_counter() - start
        elif self.active:
            new = self._decode(self._shape(0, len(self.active)))
            self.times.decode_seconds += perf_counter() - start
            self.times.decode_steps += 1
        self.ended = self._retire()
        return new

    # Admission

    def _admission_pays(self) -> bool:
        """Whether enough slots are free to make a shared prefill; idle slots cost nothing."""
        free = self.slots - len(self.active)
        return bool(self.queue) and (
            not self.active or free >= min(len(self.queue), max(1, self.slots // 4))
        )

    def _admit(self) -> dict[int, list[int]]:
        """Fill the free slots from the queue; prompts of like length are prefilled together."""
        first = len(self.active)
        count = min(len(self.queue), self.slots - first)
        entering = [self.queue.popleft() for _ in range(count)]
        entering.sort(key=lambda slot: len(slot.request.prompt))
        for row, slot in enumerate(entering, first):
            self._place(row, slot)
        self.active += entering
        new: dict[int, list[int]] = {}
        while first < len(self.active):
            last = self._prefill_group(first)
            self._prefill(first, last)
            new |= self._decode(self._shape(first, last), prompts=True)
            first = last
        return new

    def _place(self, row: int, slot: _Slot) -> None:
        prompt = torch.tensor(slot.request.prompt, device=self.ids.device)
        slot.length = len(prompt)
        self.ids[row] = self.unknown
        self.ids[row, : slot.length] = prompt
        self.cursor[row] = self.unchecked[row] = 0
        self.length[row] = slot.length
        self._set_rule(row, slot)

    def _set_rule(self, row: int, slot: _Slot) -> None:
        threshold = slot.request.threshold
        slot.predictions = 1 if threshold is None else slot.block_size + self.extra_mask
        self.cutoffs[row] = torch.inf
        self.cutoffs[row, : slot.predictions] = cutoff(threshold, self.metric)

    def _prefill_group(self, first: int) -> int:
        """The end of the rows from ``first`` on, shortest first, worth padding to one length."""
        shortest = self.active[first].length
        last = first + 1
        while last < len(self.active):
            length = self.active[last].length
            if length > 2 * shortest or length * (last + 1 - first) > self.prefill_tokens:
                break
            last += 1
        return last

    def _prefill(self, first: int, last: int) -> None:
        """Forward all of long prompts but the last piece, which the first decoding step takes."""
        piece = max(1, self.prefill_tokens // (last - first))
        while self.active[first].length - self.active[first].cursor > piece:
            kv_length = round_up(self.active[first].cursor + piece)
            self._hidden(Shape(first, last, piece, kv_length, 0, 0))
            self.cursor[first:last] += piece
            for slot in self.active[first:last]:
                slot.cursor += piece

    # One step

    def _shape(self, first: int, last: int) -> Shape:
        """The least that the slots first..last need."""
        slots = self.active[first:last]
        width = max(map(_width, slots))
        kv_length = round_up(max(slot.cursor for slot in slots) + width)
        predictions = max(slot.predictions for slot in slots)
        return Shape(first, last, width, kv_length, predictions, max(s.unchecked for s in slots))

    def _decode(self, shape: Shape, prompts: bool = False) -> dict[int, list[int]]:
        """Forward the windows of some slots and collect what they yield.

        Each shape needs a CUDA graph of its own, so that steps with graphs have few; those with
        prompts have too many, and none.
        """
        slots = self.active[shape.first : shape.last]
        if self.graphs is None or prompts:
            report = self._compute(shape, [*map(_width, slots)])
        else:
            shape = self._fixed(shape)
            self._park(len(slots), shape.last)
            report = self.graphs.run(shape, self._compute)
        new = {}
        found = report.tolist()[: len(slots)]
        for slot, tokens in zip(slots, self._settle(slots, found), strict=True):
            new[slot.identity] = slot.gain(tokens, self.eos)
        return new

    def _fixed(self, shape: Shape) -> Shape:
        """The shape with a graph that will do: of one prediction per slot, or of the most."""
        fits_one = shape.width == shape.predictions == 1 and shape.unchecked == 0
        cursor = max(slot.cursor for slot in self.active)
        return self._fixed_shape(shape.last, cursor, 1 if fits_one else self.most)

    def _fixed_shape(self, last: int, cursor: int, predictions: int) -> Shape:
        """Of the slots up to ``last`` and a few idle ones; ``cursor`` is the largest of theirs."""
        rounded = round_up(last, GRAPH_ROWS) if last > GRAPH_ROWS else 1 << (last - 1).bit_length()
        rows, width = min(rounded, self.slots), 2 * predictions - 1
        kv_length = self.cached.fixed_length(cursor + width)
        return Shape(0, rows, width, kv_length, predictions, self.lossless * (predictions - 1))

    def _park(self, first: int, last: int) -> None:
        """Set idle slots back to one token, so that steps that include them stay in the buffers."""
        if first < last:
            rows = slice(first, last)
            self.cursor[rows], self.length[rows], self.unchecked[rows] = 0, 1, 0

    @torch.inference_mode()
    def warm_up(self, shortest: int = 1) -> None:
        """Capture the CUDA graphs of all steps that sequences may need; nothing without a GPU.

        There is one for each number of slots in use (rounded up), each range of lengths, and one
        prediction or the most. The engine must be idle.

        Args:
            shortest: tokens of the shortest prompt.
        """
        if self.graphs is None:
            return
        shapes = {
            self._fixed_shape(last, cursor, predictions)
            for last in range(1, self.slots + 1)
            for cursor in range(shortest, self.max_length)
            for predictions in {1, self.most}
        }
        with attention_of(self.cached.model):
            for shape in sorted(shapes, reverse=True):  # the largest first: the rest fit its memory
                self._park(0, self.slots)
                self.graphs.run(shape, self._compute)

    def _compute(self, shape: Shape, widths: list[int] | None = None) -> Tensor:
        """All of a step that happens on the device; reads and writes ``self.state`` in place.

        What it returns, [rows, ...], is what :meth:`_settle` must know on the host.
        """
        advance = self._advance_lossless if self.lossless else self._advance
        return advance(self._hidden(shape, widths), shape)

    def _hidden(self, shape: Shape, widths: list[int] | None = None) -> Tensor:
        """Last hidden states of the windows, [rows, width, hidden size]."""
        rows = slice(shape.first, shape.last)
        positions = self.cursor[rows, None] + self.offsets[: shape.width]
        ids = self.ids[rows].gather(1, positions)
        return self.cached.hidden(ids, positions, shape.kv_length, shape.first, widths)

    def _advance(self, hidden: Tensor, shape: Shape) -> Tensor:
        """Accept from the left and move the cursors; returns [count, tokens] of each row."""
        rows = slice(shape.first, shape.last)
        cursor, length = self.cursor[rows], self.length[rows]
        offsets = self.offsets[: shape.predictions]
        columns = (length - cursor - 1)[:, None] + offsets
        logits = self.cached.logits(gather_at(hidden, columns.clamp(max=shape.width - 1)))
        places = length[:, None] + offsets
        tokens = logits.argmax(-1)
        count, kept = self._accept(logits, tokens, places, rows)
        self.ids[rows].scatter_(1, places, kept)
        cursor.copy_(length)
        length += count
        return torch.cat([count[:, None], tokens], 1)

    def _accept(
        self, logits: Tensor, tokens: Tensor, places: Tensor, rows: slice
    ) -> tuple[Tensor, Tensor]:
        """How many tokens are accepted per row, and what the buffer then holds at ``places``."""
        count = self._run(logits, rows)
        offsets = self.offsets[: tokens.shape[1]]
        return count, tokens.where(offsets < count[:, None], self.unknown[0])

    def _advance_lossless(self, hidden: Tensor, shape: Shape) -> Tensor:
        """The same, but a token accepted from a mask is returned only once AR decoding agrees.

        The logits at the last checked token and at the unchecked ones after it say what AR
        decoding puts next. Unchecked tokens are kept as far as they agree; the first that does
        not is replaced by the AR token, and what came after it is forgotten.
        Returns [checked, unchecked, tokens] of each row.
        """
        rows = slice(shape.first, shape.last)
        cursor, length, unchecked = self.cursor[rows], self.length[rows], self.unchecked[rows]
        offsets = self.offsets[: shape.unchecked + shape.predictions]
        start = length - unchecked - 1
        columns = (start - cursor)[:, None] + offsets
        logits = self.cached.logits(gather_at(hidden, columns.clamp(max=shape.width - 1)))
        tokens = logits.argmax(-1)
        places = start[:, None] + 1 + offsets
        agrees = (tokens == self.ids[rows].gather(1, places)) & (offsets < unchecked[:, None])
        checked = agrees.cumprod(-1).sum(-1) + 1
        run = self._run(gather_at(logits, unchecked[:, None] + offsets[: shape.predictions]), rows)
        unchecked.copy_((run - 1).where(checked > unchecked, 0))
        cursor.copy_(start + checked)
        length.copy_(cursor + 1 + unchecked)
        kept = tokens.where(offsets < (checked + unchecked)[:, None], self.unknown[0])
        self.ids[rows].scatter_(1, places, kept)
        return torch.cat([checked[:, None], unchecked[:, None], tokens], 1)

    def _settle(self, slots: list[_Slot], report: list[list[int]]) -> list[list[int]]:
        """Repeat on the host what the device did; returns the new tokens of each row."""
        if self.lossless:
            for slot, (checked, unchecked, *_) in zip(slots, report, strict=True):
                slot.cursor = slot.length - slot.unchecked - 1 + checked
                slot.length, slot.unchecked = slot.cursor + 1 + unchecked, unchecked
            return [row[2 : row[0] + 2] for row in report]
        for slot, (count, *_) in zip(slots, report, strict=True):
            slot.cursor = slot.length
            slot.length += count
        return [row[1 : row[0] + 1] for row in report]

    def _run(self, logits: Tensor, rows: slice) -> Tensor:
        """Tokens accepted per row, [rows], from logits [rows, predictions, vocabulary]."""
        predictions = logits.shape[1]
        if predictions == 1:
            return torch.ones_like(self.cursor[rows])
        cutoffs = self.cutoffs[rows, :predictions]
        return accepted_run(confidence(logits, self.metric), cutoffs, self.strict)

    # Leaving

    def _retire(self) -> list[int]:
        """Record finished sequences, close the gaps they leave, and say which they are."""
        ended = []
        for row in reversed(range(len(self.active))):
            slot = self.active[row]
            if slot.finish is None:
                continue
            self.results[slot.identity] = slot.decoded()
            ended.append(slot.identity)
            moved = self.active.pop()
            if moved is not slot:
                self.active[row] = moved
                self.cached.cache.move(len(self.active), row, moved.cursor)
                for state in self.state:
                    state[row] = state[len(self.active)]
        return ended
