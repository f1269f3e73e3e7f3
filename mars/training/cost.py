"""What a training costs by arithmetic: parameters, floating-point operations, memory of a GPU.

The formulas are those of a decoder of the Qwen2 or Llama architecture whose matrix products are in
bfloat16 over float32 weights, trained on packed rows by :mod:`mars.training.trainer`. Tests hold
them against torch's count of operations and against the tensors that autograd saves. No GPU has
been measured yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mars.errors import UserError

FLOAT32, BFLOAT16 = 4, 2  # bytes
# Of mars/training/losses.py, which needs torch: logits that the loss holds at once, at least, and
# their share of a GPU's memory.
CHUNK_LOGITS, LOSS_SHARE = 2**25, 1 / 64


@dataclass(frozen=True)
class Decoder:
    """The shape of a decoder; sizes in elements.

    Attributes:
        intermediate: width of the gated feed-forward layers.
        heads, kv_heads: query heads, key and value heads of a layer.
        tied: whether one matrix is both the embedding and the output embedding.
        biases: whether query, key and value projections have biases, as in Qwen2.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    biases: bool = True

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Decoder:
        """From the content of a ``config.json`` of transformers.

        Raises:
            UserError: another architecture than Qwen2's or Llama's.
        """
        kind = config.get("model_type")
        if kind not in ("qwen2", "llama"):
            raise UserError(
                f"The cost of a {kind} model is not known; give one of model_type qwen2 or llama."
            )
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        return cls(
            layers=config["num_hidden_layers"],
            hidden=hidden,
            intermediate=config["intermediate_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or hidden // heads,
            vocabulary=config["vocab_size"],
            tied=config.get("tie_word_embeddings", False),
            biases=kind == "qwen2",
        )

    @property
    def query_size(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.kv_heads * self.head_dim

    @property
    def layer_matrices(self) -> int:
        """Elements of the matrices of one layer."""
        attention = self.hidden * (2 * self.query_size + 2 * self.kv_size)
        return attention + 3 * self.hidden * self.intermediate

    @property
    def embedding(self) -> int:
        """Elements of the embedding, and of the output embedding."""
        return self.vocabulary * self.hidden

    @property
    def embeddings(self) -> int:
        """Elements of both, which may be one."""
        return self.embedding * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """Trainable elements."""
        vectors = 2 * self.hidden + self.biases * (self.query_size + 2 * self.kv_size)
        return self.layers * (self.layer_matrices + vectors) + self.hidden + self.embeddings


# The paper's base models, and the names under which results of a GPU show their shapes.
DECODERS = {
    "0.5B": Decoder(24, 896, 4864, 14, 2, 64, 151936, tied=True),
    "7B": Decoder(28, 3584, 18944, 28, 4, 128, 152064, tied=False),
}


# --- floating-point operations ------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What a forward pass has to do, of one document or of many.

    Attributes:
        tokens: that pass through the layers, those of both streams.
        labels: positions whose logits are formed.
        pairs: of a query and a key that it sees.
    """

    tokens: float
    labels: float
    pairs: float

    def __add__(self, other: Work) -> Work:
        return Work(
            self.tokens + other.tokens, self.labels + other.labels, self.pairs + other.pairs
        )

    def __mul__(self, times: float) -> Work:
        return Work(self.tokens * times, self.labels * times, self.pairs * times)


def document_work(method: str, prompt: int, response: int, block_size: int | None = None) -> Work:
    """The work of one document as :mod:`mars.training.methods` lays it out.

    Exact for next-token prediction and MARS. For block diffusion, which masks at random, it is a
    bound from above but for the labels, of which half the response is the mean.
    """
    length = prompt + response
    clean = Work(length - 1, length - max(prompt, 1), length * (length - 1) / 2)
    if method in ("pretrain", "ar_sft"):
        return clean
    noisy = length - 1 - prompt  # masks at positions prompt .. length - 2
    # A mask sees the clean tokens before its block, and its block up to itself: all before it.
    seen = (length * (length - 1) - prompt * (prompt + 1)) / 2
    dual = clean + Work(noisy, noisy, seen)
    if method == "mars":
        return dual
    assert block_size is not None, method
    # Of its own block a token sees all, and the first one may begin in the prompt.
    more = block_size + 1
    pairs = dual.pairs + dual.tokens * (block_size - 1) + more * (length + block_size)
    return Work(dual.tokens + more, response / 2, pairs)


def forward_flops(decoder: Decoder, work: Work) -> float:
    """Operations of the matrix products of a forward pass; a multiplication and an addition: two.

    Attention counts the pairs that see each other, the output embedding the labels.
    """
    layers = _layer_flops(decoder, work)
    return layers + 2 * decoder.embedding * work.labels


def training_flops(
    decoder: Decoder, work: Work, *, activation_checkpointing: bool = False
) -> float:
    """Forward and backward, which is twice the forward.

    With ``activation_checkpointing`` the layers' forward is done twice, up to the last product,
    whose result nobody needs. Model FLOPs utilisation, by convention, does not count the second.
    """
    flops = 3 * forward_flops(decoder, work)
    if activation_checkpointing:
        last = 2 * decoder.hidden * decoder.intermediate * work.tokens
        flops += _layer_flops(decoder, work) - decoder.layers * last
    return flops


def _layer_flops(decoder: Decoder, work: Work) -> float:
    products = 2 * decoder.layer_matrices * work.tokens
    attention = 4 * decoder.query_size * work.pairs  # scores, and the mean of the values
    return decoder.layers * (products + attention)


# --- memory -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at the peak of a training, by what takes them.

    Attributes:
        state: weights, gradients and both moments of AdamW in float32, or this GPU's share.
        copies: parameters and gradients once more: in bfloat16, gathered, or to be reduced.
        activations: what autograd saves between forward and backward, of one forward.
        working: for the layer whose gradients are being formed.
        loss: logits of a chunk, hidden states at the labels, the output embedding's gradient.
    """

    state: float
    copies: float
    activations: float
    working: float
    loss: float

    @property
    def total(self) -> float:
        """Of loss and layers, which follow each other, the larger counts.

        What the allocator and the libraries take comes on top.
        """
        return self.state + self.copies + self.activations + max(self.working, self.loss)


def training_memory(
    decoder: Decoder,
    *,
    row_tokens: int,
    labels: int | None = None,
    gpus: int = 1,
    sharded: bool = False,
    activation_checkpointing: bool = False,
    chunk_logits: int = CHUNK_LOGITS,
) -> Memory:
    """Peak memory of each GPU of a training in bfloat16; compiled layers save less than this.

    Args:
        row_tokens: of one forward: ``row_length`` times ``rows_per_forward``.
        labels: of one forward; None: as many as tokens.
        gpus, sharded: one process on each; FSDP where sharded, else every GPU holds everything.
        chunk_logits: logits that the loss holds at once.
    """
    labels, sharded = row_tokens if labels is None else labels, sharded and gpus > 1
    residual = BFLOAT16 if sharded else FLOAT32
    layer = saved_by_layer(decoder, residual) * row_tokens
    # Going back through a feed-forward layer: the gradients of its inner product and its output.
    inner, ends = BFLOAT16 * decoder.intermediate, (residual + BFLOAT16) * decoder.hidden
    working = (inner + ends) * row_tokens
    saved = decoder.layers * layer
    if activation_checkpointing:
        saved = decoder.layers * residual * decoder.hidden * row_tokens
        working += layer
        if not sharded:  # what autocast had cast for the other layers is gone by then
            working -= BFLOAT16 * (decoder.layers - 1) * decoder.layer_matrices
    chunk = min(chunk_logits, labels * decoder.vocabulary)
    loss = (FLOAT32 + 2 * BFLOAT16) * chunk  # logits in both types, and their gradient
    loss += (residual + 2 * BFLOAT16) * decoder.hidden * labels
    # Of the output embedding: the gradient, a chunk's share of it, and itself in bfloat16.
    loss += (FLOAT32 + 2 * BFLOAT16) * decoder.embedding
    return Memory(
        state=4 * FLOAT32 * decoder.parameters / (gpus if sharded else 1),
        copies=_copies(decoder, gpus, sharded),
        activations=saved + saved_by_norm(decoder, residual) * row_tokens,
        working=working,
        loss=loss,
    )


def loss_chunk(memory: float) -> int:
    """Logits that the loss holds at once on a GPU with so many bytes."""
    return max(CHUNK_LOGITS, int(LOSS_SHARE * memory) // FLOAT32)


def saved_by_layer(decoder: Decoder, residual: int) -> int:
    """Bytes that autograd saves in one layer for one token.

    Args:
        residual: bytes of an element of the residual stream: 4 under autocast, where the embedding
            is float32 and every projection casts its input for itself; 2 under FSDP, which casts
            the parameters.
    """
    inputs = BFLOAT16 * decoder.hidden  # of a projection
    projections = 5 * inputs if residual == FLOAT32 else 2 * inputs  # else shared by q, k, v
    norms = 2 * saved_by_norm(decoder, residual)
    # transformers repeats keys and values where the number of heads is no power of two.
    repeated = decoder.heads & (decoder.heads - 1) != 0
    keys = decoder.query_size if repeated else decoder.kv_size
    attention = BFLOAT16 * (2 * decoder.query_size + 2 * keys)  # query, output; keys, values
    attention += FLOAT32 * decoder.heads  # logarithms of the softmax's sums
    feed_forward = BFLOAT16 * 4 * decoder.intermediate  # gate, its activation, up, their product
    return projections + norms + attention + feed_forward


def saved_by_norm(decoder: Decoder, residual: int) -> int:
    """Bytes that an RMS norm saves for one token: input in float32, normalised, and its scale."""
    return (FLOAT32 + residual) * decoder.hidden + FLOAT32


def _copies(decoder: Decoder, gpus: int, sharded: bool) -> float:
    if not sharded:
        cast = BFLOAT16 * decoder.layers * decoder.layer_matrices
        buckets = FLOAT32 * decoder.parameters if gpus > 1 else 0  # of gradients to be reduced
        return cast + buckets
    # Gathered: the embeddings all the time, the layer in use and the next one; and the gradients of
    # a layer and of the output embedding, on their way to the float32 shares.
    gathered = decoder.embeddings + 2 * decoder.layer_matrices
    reduced = (BFLOAT16 + FLOAT32) * decoder.layer_matrices + BFLOAT16 * decoder.embedding
    return BFLOAT16 * gathered + reduced
