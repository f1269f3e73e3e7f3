"""Where the host may wait for the GPU, and what a trace tells it there.

A decoder waits where it learns which tokens were accepted, and nowhere else. Every entry names one
line: whoever adds a wait to a decoder adds it here, or the trace fails. The answers are random and
within what a decoder can meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from torch import Tensor

from tests.cuda_trace.fake_gpu import Read

chance = Random(0)


def token() -> int:
    """Neither [MASK] nor EOS."""
    return chance.randrange(10, 1000)


def nested(shape: Sequence[int], draw: Callable[[], int]) -> Any:
    """Lists of lists of this shape."""
    return [nested(shape[1:], draw) for _ in range(shape[0])] if shape else draw()


def tokens(tensor: Tensor, _: Any) -> Any:
    return nested(tensor.shape, token)


def with_guesses(guesses: Sequence[int], count: int) -> list[int]:
    """So many predictions, of which the first may be what was guessed."""
    right = list(guesses[: chance.randint(0, min(count, len(guesses)))])
    return right + [token() for _ in range(count - len(right))]


def waited(*_: Any) -> None:
    """Nothing is read, the host only waits."""


# The cursor engine and Jacobi decoding: one read per step.


def report(tensor: Tensor, names: Any) -> list[list[int]]:
    """What a step accepted, as `Engine._settle` reads it."""
    rows = []
    for slot in names.slots:
        run = chance.randint(1, slot.predictions)
        row = [run]
        if names.self.lossless:
            checked = chance.randint(1, slot.unchecked + 1)
            row = [checked, run - 1 if checked > slot.unchecked else 0]
        rows.append(row + [token() for _ in range(tensor.shape[1] - len(row))])
    return rows


CURSOR = "mars/decoding/cursor.py"
ENGINE = [Read(CURSOR, "Engine._decode", "report.tolist()", report)]

# The block cache: one read per step, and a wait after the prompts, which are timed apart.


def filled(tensor: Tensor, names: Any) -> list[list[int]]:
    """How many tokens each row accepts, none where it does not take part, and the tokens."""
    decoder = names.self
    rows = []
    for row in decoder.rows:
        most = decoder.predictions
        if decoder.authors_window:
            most = min(most, decoder.cache_block - row.filled)
        takes_part = row.finish is None and row.filled < decoder.cache_block
        count = chance.randint(1, most) if takes_part else 0
        rows.append([count] + [token() for _ in range(tensor.shape[1] - 1)])
    return rows


BLOCK = "mars/decoding/block_cache.py"
BLOCK_CACHE = [
    Read(BLOCK, "BlockCacheDecoder._prefill", "torch.cuda.synchronize", waited),
    Read(BLOCK, "BlockCacheDecoder._decode", "report.tolist()", filled),
]

# Block diffusion.


def known(names: Any) -> list[int]:
    """The tokens of each sequence so far."""
    return [len(one.request.prompt) + len(one.tokens) for one in names.self.rows]


def begun(names: Any) -> list[int]:
    """Where the block under way begins in each sequence."""
    size = names.self.block_size
    return [length // size * size for length in known(names)]


def blocks(tensor: Tensor, names: Any) -> Any:
    """Where each block under way begins, or its tokens: a few more of them fixed."""
    if tensor.dim() == 1:
        return begun(names)
    size, mask = names.self.block_size, names.self.mask
    fixed = [chance.randint(length % size + 1, size) for length in known(names)]
    return [[token() for _ in range(count)] + [mask] * (size - count) for count in fixed]


DIFFUSION = "mars/decoding/block_diffusion.py"
BLOCK_DIFFUSION = [
    Read(
        *("mars/decoding/batch.py", "CachedBatch.hidden", "int(start.max()) + width"),
        lambda _, names: max(known(names)),
    ),
    Read(
        *(DIFFUSION, "_DiffusionBatch.prefill", "int(self.start.max())"),
        lambda _, names: max(begun(names)),
    ),
    Read(DIFFUSION, "_DiffusionBatch.step", "self.start.tolist(), self.ids", blocks),
]

# Speculative decoding, one sequence at a time: drafts and verdicts go through the host.


def run(_: Tensor, names: Any) -> int:
    return chance.randint(1, names.logits.shape[0] - len(getattr(names, "unchecked", ())))


SPECULATION = "mars/decoding/speculative.py"
SPECULATIVE = [
    Read(SPECULATION, "_Reader._accept", "int(accepted_run(", run),
    Read(SPECULATION, "_Reader._accept", "logits.argmax(-1)[:run].tolist()", tokens),
    Read(SPECULATION, "_Reader.verify", "logits[:groups].argmax(-1).tolist()",
         lambda _, names: with_guesses(names.drafted, names.groups)),
]  # fmt: skip

# The window without a cache, the ground truth, and its batch.

WINDOWS = "mars/decoding/window.py"
WINDOW = [
    Read(WINDOWS, "decode_one", "logits.argmax(-1).tolist()",
         lambda tensor, names: with_guesses(names.unchecked, len(tensor))),
    Read(WINDOWS, "decode_one", "int(accepted_run(", run),
    Read(WINDOWS, "decode_window_batch", "runs = accepted_run(",
         lambda tensor, names: [chance.randint(1, names.block_size) for _ in names.going]),
    Read(WINDOWS, "decode_window_batch", "logits.argmax(-1).tolist()", tokens),
]  # fmt: skip

# `generate` of a checkpoint, which brings the prompts to the host, and transformers' own, which
# asks after every token whether all have ended.

GENERATED = "mars/checkpoints/custom_generate/generate.py"
GENERATE = [
    Read(
        *(GENERATED, "_Windows.__init__", "row[kept.bool()].tolist()"),
        lambda tensor, names: tensor.new_empty(len(tensor)),
        how="index",
    ),
    Read(GENERATED, "_Windows.__init__", "row[kept.bool()].tolist()", tokens),
    Read(
        *(GENERATED, "_answers", "runs = (1 + sure"),
        lambda tensor, names: [chance.randint(1, names.window.block_size) for _ in tensor],
    ),
    Read(GENERATED, "_answers", "tokens.tolist()", tokens),
    Read(
        GENERATED, "_answers", "bool(criteria(so_far", lambda _, names: names.so_far.shape[1] > 16
    ),
]

LONGEST = 60  # tokens of prompt and continuation in these tests


def ended(_: Tensor, names: Any) -> bool:
    """Whether all sequences have; to its other questions `generate` is told no."""
    return getattr(names, "length", 0) >= LONGEST


TRANSFORMERS = [
    Read("transformers/generation/utils.py", "", "", ended),
    Read("mars/decoding/transformers_generate.py", "decode_transformers", ".tolist()", tokens),
]
