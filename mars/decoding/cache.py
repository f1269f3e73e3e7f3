"""A key-value cache in which every row has a cursor of its own, and the attention that reads it.

Transformers' static cache has one length for all rows; here each row writes its window wherever
its cursor stands, in place. Nothing is ever cropped or copied: entries beyond a row's cursor are
stale, and every window overwrites the stale entries it could see before it looks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, Cache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin

from mars.errors import UserError

ATTENTION = "mars_grouped_query"


@dataclass
class Addressing:
    """Where the current forward writes and reads; one object shared by all layers.

    Attributes:
        rows: the slots that take part, ``first`` to ``last`` (exclusive).
        write: flat indices ``slot * capacity + position`` of the forwarded tokens, row by row.
        length: entries of each row that are read, from position 0.
    """

    first: int
    last: int
    write: Tensor
    length: int


class CursorLayer(CacheLayerMixin):
    """Keys and values of one layer: [slots, capacity, key-value heads, head dimension]."""

    def __init__(self, keys: Tensor, values: Tensor, cache: CursorCache):
        super().__init__()
        self.keys, self.values, self.cache = keys, values, cache
        self.flat_keys, self.flat_values = keys.flatten(0, 1), values.flatten(0, 1)
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the buffers exist from the start, so their size is known."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write [rows, heads, window, dim] at the addressed places; return what is to be read."""
        at = self.cache.addressing
        self.flat_keys.index_copy_(0, at.write, key_states.transpose(1, 2).flatten(0, 1))
        self.flat_values.index_copy_(0, at.write, value_states.transpose(1, 2).flatten(0, 1))
        keys = self.keys[at.first : at.last, : at.length]
        values = self.values[at.first : at.last, : at.length]
        return keys.transpose(1, 2), values.transpose(1, 2)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cache.addressing.length, 0

    def get_seq_length(self) -> int:
        """Rows have lengths of their own; the decoders pass positions and masks explicitly."""
        return 0

    def get_max_length(self) -> int:
        return self.keys.shape[1]


class CursorCache(Cache):
    """Static buffers for ``slots`` rows of ``capacity`` positions; ``address`` comes first."""

    def __init__(self, model: PreTrainedModel, slots: int, capacity: int):
        config = model.config
        check_architecture(config)
        shape = (slots, capacity, config.num_key_value_heads, head_dimension(config))
        weight = model.get_input_embeddings().weight

        def buffer() -> Tensor:
            return torch.zeros(shape, dtype=weight.dtype, device=weight.device)

        layers = range(config.num_hidden_layers)
        super().__init__(layers=[CursorLayer(buffer(), buffer(), self) for _ in layers])
        self.capacity = capacity
        self.row_start = torch.arange(slots, device=weight.device)[:, None] * capacity
        self.addressing: Addressing | None = None

    def address(self, first: int, last: int, positions: Tensor, length: int) -> None:
        """The next forward is of slots first..last; ``positions`` [rows, window] are entries."""
        write = (self.row_start[first:last] + positions).flatten()
        self.addressing = Addressing(first, last, write, length)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first entries of one slot over another, so that slots in use stay together."""
        for layer in self.layers:
            layer.keys[target, :length] = layer.keys[source, :length]
            layer.values[target, :length] = layer.values[source, :length]


def kv_bytes(config: PreTrainedConfig, slots: int, capacity: int, dtype: torch.dtype) -> int:
    """Bytes of the key-value buffers of ``slots`` rows of ``capacity`` positions."""
    per_position = 2 * config.num_hidden_layers * config.num_key_value_heads
    return slots * capacity * per_position * head_dimension(config) * dtype.itemsize


def head_dimension(config: PreTrainedConfig) -> int:
    """Width of one attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def check_architecture(config: PreTrainedConfig) -> None:
    """Raise a UserError unless every layer is full attention as in Llama and Qwen2."""
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        raise UserError("Models with sliding-window attention layers are not supported.")


def causal_bias(positions: Tensor, length: int, groups: int, dtype: torch.dtype) -> Tensor:
    """Additive mask: the query at position p sees the entries 0..p of its row.

    Args:
        positions: [rows, window].
        length: entries read.
        groups: query heads per key-value head; each group repeats the window (see
            :func:`grouped_query_attention`).

    Returns:
        [rows, 1, groups * window, length], 0 or -inf.
    """
    entries = torch.arange(length, device=positions.device)
    hidden = entries > positions[:, None, :, None]
    bias = torch.zeros(hidden.shape, dtype=dtype, device=positions.device)
    return bias.masked_fill_(hidden, -torch.inf).repeat(1, 1, groups, 1)


def grouped_query_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Attention that folds the query heads of a key-value head into its query rows.

    The usual way repeats keys and values once per query head; here [rows, heads, window, dim]
    becomes [rows, key-value heads, groups * window, dim] and the cache is read as it lies.
    ``attention_mask`` comes from :func:`causal_bias`.
    """
    rows, heads, window, dim = query.shape
    folded = query.reshape(rows, key.shape[1], -1, dim)
    output = scaled_dot_product_attention(
        folded, key, value, attn_mask=attention_mask, scale=scaling
    )
    return output.reshape(rows, heads, window, dim).transpose(1, 2), None


AttentionInterface.register(ATTENTION, grouped_query_attention)


@contextmanager
def attention_of(model: PreTrainedModel) -> Iterator[None]:
    """Use our attention within, and leave the model as it was found."""
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before
