"""A model behind a key-value cache in which every row has a cursor of its own.

Transformers' static cache has one length for all rows; here each row writes its window wherever
its cursor stands, in place. Nothing is ever cropped or copied: entries beyond a row's cursor are
stale, and every window overwrites the stale entries it could see before it looks.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import AttentionInterface, Cache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin

from mars.decoding.gpu import CompiledBackbone, Graphs
from mars.errors import UserError

ATTENTION = "mars_grouped_query"

READ_GRANULARITY = 32  # attention reads up to the longest row, rounded up to so many entries
GRAPH_GRANULARITY = 64  # the same with CUDA graphs: half as many to capture
BEGIN = 64  # elements before the first of a buffer; keeps its alignment
PACK_FROM = 24  # windows are packed where that leaves out so many tokens: packing costs copies


@dataclass
class Addressing:
    """Where the current forward writes and reads; one object that all layers hold."""

    capacity: int  # positions per row
    write: Tensor  # flat indices ``row * capacity + position`` of the forwarded tokens
    length: int = 0  # entries of each row that are read, from position 0

    def read(self, flat: Tensor) -> Tensor:
        """[rows * capacity, heads, dim] -> [rows, heads, length, dim]."""
        rows = flat.view(-1, self.capacity, *flat.shape[1:])
        return rows[:, : self.length].transpose(1, 2)


@dataclass
class Packing:
    """Windows of different widths as one row of tokens, for everything but attention."""

    tokens: Tensor  # where each packed token stands in the flattened [rows, window]
    places: Tensor  # the reverse; entries that are left out point at some other token
    rows: int

    def unpack(self, states: Tensor) -> Tensor:
        """[packed, heads, dim] -> [rows, window, heads, dim]."""
        return states.index_select(0, self.places).unflatten(0, (self.rows, -1))

    def pack(self, states: Tensor) -> Tensor:
        """[rows, window, heads, dim] -> [1, packed, heads, dim]."""
        return states.flatten(0, 1).index_select(0, self.tokens)[None]


class CursorLayer(CacheLayerMixin):
    """Keys and values of one layer: [slots, capacity, key-value heads, head dimension].

    A forward reads and writes through ``flat``, which are the slots of its rows, their positions
    one after the other. A compiler then sees one input and no alias of it, so it writes in place;
    and which slots they are, and of how many, makes no difference to it.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor, addressing: Addressing):
        super().__init__()
        self.keys, self.values, self.addressing = keys, values, addressing
        self.flat = keys.flatten(0, 1), values.flatten(0, 1)
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the buffers exist from the start, so their size is known."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write [rows, heads, window, dim] at the addressed places; return what is to be read."""
        at = self.addressing
        keys, values = self.flat
        keys.index_copy_(0, at.write, key_states.transpose(1, 2).flatten(0, 1))
        values.index_copy_(0, at.write, value_states.transpose(1, 2).flatten(0, 1))
        return at.read(keys), at.read(values)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.addressing.length, 0

    def get_seq_length(self) -> int:
        """Rows have lengths of their own; the decoders pass positions and masks explicitly."""
        return 0

    def get_max_length(self) -> int:
        return self.keys.shape[1]


class CursorCache(Cache):
    """Static buffers for ``slots`` rows of ``capacity`` positions; :meth:`address` comes first."""

    def __init__(self, model: PreTrainedModel, slots: int, capacity: int):
        self.addressing = Addressing(capacity, torch.zeros(0, dtype=torch.long))
        with torch.inference_mode(False):  # tensors of either mode are compiled apart
            buffer = partial(_buffer, model, slots, capacity)
            self.own_layers = [
                CursorLayer(buffer(), buffer(), self.addressing)
                for _ in range(model.config.num_hidden_layers)
            ]
        super().__init__(layers=list(self.own_layers))
        self.rows = slice(0, slots)

    def address(self, rows: slice, write: Tensor, length: int) -> None:
        """Say where the next forward writes and how much it reads, see :class:`Addressing`."""
        self.addressing.write, self.addressing.length = write, length
        if rows != self.rows:  # seldom: it takes time
            self.rows = rows
            for layer in self.own_layers:
                layer.flat = layer.keys[rows].flatten(0, 1), layer.values[rows].flatten(0, 1)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first entries of one slot over another, so that slots in use stay together."""
        for layer in self.own_layers:
            layer.keys[target, :length] = layer.keys[source, :length]
            layer.values[target, :length] = layer.values[source, :length]


def _buffer(model: PreTrainedModel, slots: int, capacity: int) -> Tensor:
    """Keys or values of one layer, all 0.

    They begin a little into their memory: an offset of 0 would be compiled apart from others, and
    so the first slot apart from the rest.
    """
    config = model.config
    shape = (slots, capacity, config.num_key_value_heads, head_dimension(config))
    flat = torch.zeros(prod(shape) + BEGIN, dtype=model.dtype, device=model.device)
    return flat[BEGIN:].view(shape)


class CachedModel:
    """A causal LM and its cursor cache: forwards windows of tokens, reads logits where asked.

    Args:
        model: of Llama or Qwen2 architecture, any dtype.
        slots, capacity: rows of the cache, and positions per row.
        mask_token_id: made impossible as an output; None where there is none.
        memory_limit: most bytes for the cache; default what the device has free.
        compiled: compile the transformer where it runs on a GPU; takes minutes of every process.

    Decoders that never run at the same time can share one: what another left in the cache is as
    stale to them as what they left themselves.

    Raises:
        UserError: the cache does not fit, or the architecture is not supported.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        slots: int,
        capacity: int,
        mask_token_id: int | None,
        memory_limit: int | None = None,
        compiled: bool = True,
    ):
        capacity = round_up(capacity) + 1  # no read takes all: that would be compiled apart
        check_fits(model, slots, capacity, memory_limit)
        self.model = model
        decoder: Any = model.get_decoder()
        on_gpu = model.device.type == "cuda"
        self.backbone = CompiledBackbone(decoder) if compiled and on_gpu else decoder
        self.mask_token_id = mask_token_id
        self.capacity = capacity
        self.cache = CursorCache(model, slots, capacity)
        self.row_start = torch.arange(slots, device=model.device)[:, None] * capacity
        self.groups = model.config.num_attention_heads // model.config.num_key_value_heads
        self.entries = torch.arange(capacity, device=model.device)
        self.always = torch.zeros((), dtype=model.dtype, device=model.device)
        self.never = torch.full_like(self.always, -torch.inf)
        self.head, self.head_bias = _head(model, mask_token_id)
        self.graph_memory = torch.cuda.graph_pool_handle() if on_gpu else None

    def graphs(self) -> Graphs[Any] | None:
        """CUDA graphs of the steps of one decoder; None where there is no GPU."""
        return None if self.graph_memory is None else Graphs(self.graph_memory)

    def fixed_length(self, length: int) -> int:
        """The entries read for ``length`` of them where each number takes a graph of its own."""
        return min(round_up(length, GRAPH_GRANULARITY), self.capacity - 1)

    def hidden(
        self,
        ids: Tensor,
        positions: Tensor,
        kv_length: int,
        first: int = 0,
        widths: list[int] | None = None,
        bias: Tensor | None = None,
        sees: Tensor | None = None,
    ) -> Tensor:
        """Forward a window per row and leave its keys and values in the cache.

        Args:
            ids, positions: tokens and their positions, [rows, window].
            kv_length: entries that may be seen by any row; a few more are read, and hidden.
            first: the slot of the first row; the others follow it.
            widths: how much of its window each row needs, from the left. Where shapes need not
                be fixed (CPU), the rest may be left out of the forward.
            bias: what each query sees where that is not simply the past,
                [rows, 1, window, kv_length]. The tokens are then stored one after the other from
                ``kv_length - window`` on, whatever their positions.
            sees: the last entry that each query sees where that is not its own, [rows, window].

        Returns:
            Last hidden states, [rows, window, hidden size]; arbitrary beyond ``widths``.
        """
        rows, window = ids.shape
        if bias is None:
            kv_length, stored = round_up(kv_length), positions
            bias = self.causal_bias(positions if sees is None else sees, kv_length)
        else:
            stored = torch.arange(kv_length - window, kv_length, device=ids.device)
            bias = bias.to(self.model.dtype).repeat(1, 1, self.groups, 1)
        write = (self.row_start[:rows] + stored).flatten()
        if (packing := self._packing(widths, window)) is not None:
            ids = ids.flatten()[packing.tokens][None]
            positions = positions.flatten()[packing.tokens][None]
            write = write[packing.tokens]
        self.cache.address(slice(first, first + rows), write, kv_length)
        with attention_of(self.model):
            states = self.backbone(
                input_ids=ids,
                position_ids=positions,
                attention_mask=bias,
                past_key_values=self.cache,
                use_cache=True,
                packing=packing,
            ).last_hidden_state
        return states if packing is None else packing.unpack(states[0])

    def causal_bias(self, positions: Tensor, kv_length: int) -> Tensor:
        """Additive mask: the query at position p, of [rows, window], sees the entries 0..p.

        It is 0 or -inf, [rows, 1, groups * window, kv_length]: the window once for each query head
        of a key-value head, see :func:`grouped_query_attention`.
        """
        queries = positions[:, None].expand(-1, self.groups, -1).reshape(len(positions), 1, -1, 1)
        return torch.where(self.entries[:kv_length] > queries, self.never, self.always)

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits of [..., hidden size]; [MASK] cannot be chosen."""
        if self.head.dtype == torch.float32:
            return linear(hidden.float(), self.head, self.head_bias)
        flat = torch.mm(hidden.flatten(0, -2), self.head.T, out_dtype=torch.float32)
        flat = flat if self.head_bias is None else flat + self.head_bias
        return flat.unflatten(0, hidden.shape[:-1])

    def _packing(self, widths: list[int] | None, window: int) -> Packing | None:
        """How to leave out what no row needs, where that is worth more than it costs."""
        if widths is None or self.entries.device.type != "cpu":
            return None
        if len(widths) * window - sum(widths) < PACK_FROM:
            return None
        needed = (self.entries[:window] < torch.tensor(widths)[:, None]).flatten()
        return Packing(needed.nonzero()[:, 0], needed.cumsum(0) - 1, len(widths))


def gather_at(states: Tensor, columns: Tensor) -> Tensor:
    """``states`` [rows, width, features] at ``columns`` [rows, k]: [rows, k, features]."""
    return states.gather(1, columns[..., None].expand(-1, -1, states.shape[-1]))


def kv_bytes(config: PreTrainedConfig, slots: int, capacity: int, dtype: torch.dtype) -> int:
    """Bytes of the key-value buffers of ``slots`` rows of ``capacity`` positions."""
    per_position = 2 * config.num_hidden_layers * config.num_key_value_heads
    return slots * capacity * per_position * head_dimension(config) * dtype.itemsize


def head_dimension(config: PreTrainedConfig) -> int:
    """Width of one attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def check_fits(model: PreTrainedModel, slots: int, capacity: int, limit: int | None) -> None:
    """Raise a UserError for what :class:`CachedModel` cannot serve."""
    if "sliding_attention" in (getattr(model.config, "layer_types", None) or ()):
        raise UserError("Models with sliding-window attention layers are not supported.")
    needed = kv_bytes(model.config, slots, capacity, model.dtype)
    available = _available(model.device) if limit is None else limit
    if needed > available and limit is None:
        gc.collect()  # what compiling leaves behind may hold on to earlier caches
        available = _available(model.device)
    if needed > available:
        raise UserError(
            f"The cache of {slots} slots of {capacity} tokens needs {needed / 1e9:.2f} GB "
            f"and {available / 1e9:.2f} GB are available: use fewer slots or a shorter max_length."
        )


def _available(device: torch.device) -> int:
    """Bytes that can be allocated; on a GPU including what torch keeps for itself unused."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def _head(model: PreTrainedModel, mask_token_id: int | None) -> tuple[Tensor, Tensor | None]:
    """The output embedding, with a float32 bias that makes [MASK] impossible.

    Without a matrix product from bfloat16 to float32 (CPU) the embedding itself is float32.
    """
    head = model.get_output_embeddings()
    weight = head.weight.detach()
    if weight.device.type != "cuda":
        weight = weight.float()
    bias = None if head.bias is None else head.bias.detach().float().clone()
    if mask_token_id is not None:
        if bias is None:
            bias = torch.zeros(len(weight), device=weight.device)
        bias[mask_token_id] = -torch.inf
    return weight, bias


def grouped_query_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    packing: Packing | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Attention that folds the query heads of a key-value head into its query rows.

    The usual way repeats keys and values once per query head; here [rows, heads, window, dim]
    becomes [rows, key-value heads, groups * window, dim] and the cache is read as it lies.
    ``attention_mask`` comes from :meth:`CachedModel.causal_bias`.
    """
    if packing is not None:
        query = packing.unpack(query[0].transpose(0, 1)).transpose(1, 2)
    rows, heads, window, dim = query.shape
    folded = query.reshape(rows, key.shape[1], -1, dim)
    output = scaled_dot_product_attention(
        folded, key, value, attn_mask=attention_mask, scale=scaling
    )
    output = output.reshape(rows, heads, window, dim).transpose(1, 2)
    return output if packing is None else packing.pack(output), None


@contextmanager
def attention_of(model: PreTrainedModel) -> Iterator[None]:
    """Use our attention within, and leave the model as it was found; can be nested.

    Changing a configuration is slow: loops of steps have one around them.
    """
    config = model.config
    before = config._attn_implementation
    if before == ATTENTION:
        yield
        return
    AttentionInterface.register(ATTENTION, grouped_query_attention)
    config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before


def round_up(length: int, granularity: int = READ_GRANULARITY) -> int:
    """The entries read for ``length`` of them."""
    return -(-length // granularity) * granularity
