"""What a training step costs: packed AR SFT and packed MARS beside their ordinary forms.

    python tools/training_cost.py [--precision float32] [--repeats 5] [--threads 1]

Four ways to train on the same examples, forward, backward and optimiser, one after the other in
every repeat so that a busy machine slows them alike:

* `padded AR`: what the Trainer of transformers does with `group_by_length`: padded batches of
  examples of like length, logits everywhere.
* `packed AR`, `packed MARS`: this project.
* `plain MARS`: the published form, [noisy | clean] of twice the padded length, dense masks, logits
  everywhere.

Times are processor seconds of this process; medians. On a GPU: wall-clock and peak memory. Beside
the packed ways stand the operations per second that are needed (mars/training/cost.py).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import Qwen2Config, Qwen2ForCausalLM

from mars.training.cost import DECODERS, Decoder, document_work, training_flops
from mars.training.dual_stream import autoregressive_stream, mars_stream
from mars.training.losses import chunk_logits
from mars.training.packed_model import DENSE, PackedModel
from mars.training.packing import pack

MASK, PAD = 1, 0
SHAPES = {"tiny": Decoder(4, 128, 384, 4, 2, 32, 768, tied=True), **DECODERS}
Document = tuple[np.ndarray, int]


def make_model(shape: Decoder) -> Qwen2ForCausalLM:
    """Random weights in the given shape."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            intermediate_size=shape.intermediate,
            tie_word_embeddings=shape.tied,
        )
    )


def make_documents(count: int, length: int, response: float, vocabulary: int) -> list[Document]:
    """Log-normal lengths with the given mean, cut at 512; ``response`` of each is the response."""
    generator = np.random.default_rng(0)
    lengths = generator.lognormal(np.log(length) - 0.125, 0.5, count).clip(12, 512).astype(int)
    return [(generator.integers(2, vocabulary, n), int((1 - response) * n)) for n in lengths]


def padded(documents: list[Document]) -> tuple[torch.Tensor, torch.Tensor]:
    """(batch, longest) token ids and labels, -100 where there is no loss."""
    longest = max(len(tokens) for tokens, _ in documents)
    ids = torch.full((len(documents), longest), PAD)
    labels = torch.full_like(ids, -100)
    for row, (tokens, prompt) in enumerate(documents):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, prompt : len(tokens)] = torch.tensor(tokens[prompt:])
    return ids, labels


def padded_ar(model: Qwen2ForCausalLM, documents: list[Document], device: str) -> torch.Tensor:
    ids, labels = (tensor.to(device) for tensor in padded(documents))
    mask = torch.arange(ids.shape[1], device=device) < torch.tensor(
        [[len(tokens)] for tokens, _ in documents], device=device
    )
    return model(input_ids=ids, attention_mask=mask.long(), labels=labels).loss


def plain_mars(
    model: Qwen2ForCausalLM, documents: list[Document], device: str, block_size: int
) -> torch.Tensor:
    ids, labels = (tensor.to(device) for tensor in padded(documents))
    length = ids.shape[1]
    noisy = torch.where(labels == -100, ids, MASK)
    position = torch.arange(length, device=device)
    block = position // block_size
    causal = position[:, None] >= position
    same, earlier = block[:, None] == block, block[:, None] > block
    nothing = torch.zeros_like(causal)
    mask = torch.cat([torch.cat([same & causal, earlier], 1), torch.cat([nothing, causal], 1)])
    logits = model(
        input_ids=torch.cat([noisy, ids], 1),
        position_ids=position.repeat(2)[None].expand(len(ids), -1),
        attention_mask=mask[None, None].expand(len(ids), 1, -1, -1),
    ).logits.float()
    loss = logits.new_zeros(())
    for copy in (logits[:, :length], logits[:, length:]):
        loss = loss + cross_entropy(copy[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    return loss


def flops(shape: Decoder, documents: list[Document], method: str) -> float:
    """Operations of a step."""
    return sum(
        training_flops(shape, document_work(method, prompt, len(tokens) - prompt))
        for tokens, prompt in documents
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16, help="examples of one padded forward")
    parser.add_argument("--length", type=int, default=100, help="mean tokens of an example")
    parser.add_argument("--response", type=float, default=0.6, help="share of the response")
    parser.add_argument("--block-size", type=int, default=4)
    parser.add_argument("--row-length", type=int, default=256)
    parser.add_argument("--rows", type=int, default=8, help="packed rows of one forward")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = SHAPES[options.shape]
    documents = make_documents(options.examples, options.length, options.response, shape.vocabulary)
    model = make_model(shape).to(device)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    documents.sort(key=lambda document: len(document[0]))
    batches = [
        documents[start : start + options.batch]
        for start in range(0, len(documents), options.batch)
    ]

    def ordinary(loss_of: Callable[[list[Document]], torch.Tensor]) -> None:
        model.set_attn_implementation("sdpa")
        for batch in batches:
            with autocast():
                loss = loss_of(batch)
            loss.backward()

    def packed(method: str) -> None:
        model.set_attn_implementation("flex_attention" if device == "cuda" else DENSE)
        wrapped = PackedModel(model, 1.0, chunk_logits(torch.device(device)))
        streams = [
            autoregressive_stream(tokens, prompt)
            if method == "ar"
            else mars_stream(tokens, prompt, block_size=options.block_size, mask_token_id=MASK)
            for tokens, prompt in documents
        ]
        for rows in pack(
            streams,
            row_length=options.row_length,
            rows_per_forward=options.rows,
            normalisation="token",
            ar_weight=1.0,
            fixed_shape=device == "cuda",
        ):
            with autocast():
                loss, _ = wrapped(rows.to(device))
            loss.backward()

    def autocast() -> torch.autocast:
        return torch.autocast(device, torch.bfloat16, enabled=options.precision == "bfloat16")

    ways: dict[str, Callable[[], None]] = {
        "padded AR": lambda: ordinary(lambda batch: padded_ar(model, batch, device)),
        "packed AR": lambda: packed("ar"),
        "packed MARS": lambda: packed("mars"),
        "plain MARS": lambda: ordinary(
            lambda batch: plain_mars(model, batch, device, options.block_size)
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    memory: dict[str, float] = {}
    for repeat in range(options.repeats + 1):  # the first is warm-up
        for name, way in ways.items():
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
                torch.cuda.synchronize()
            clock = time.perf_counter if device == "cuda" else time.process_time
            start = clock()
            way()
            optimizer.step()
            optimizer.zero_grad()
            if device == "cuda":
                torch.cuda.synchronize()
                memory[name] = torch.cuda.max_memory_allocated() / 2**30
            if repeat:
                seconds[name].append(clock() - start)
    tokens = sum(len(tokens) for tokens, _ in documents)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(
        f"{options.shape}, {options.precision}, {device}, {len(documents)} examples, "
        f"{tokens} tokens, response {options.response:.0%}, B = {options.block_size}"
    )
    print(f"{'':12} seconds  spread  tokens/s  over padded AR  over packed AR")
    needed = {"packed AR": "ar_sft", "packed MARS": "mars"}
    for name, median in medians.items():
        spread = (max(seconds[name]) - min(seconds[name])) / median
        print(
            f"{name:12} {median:7.3f} {spread:7.0%} {tokens / median:9,.0f}"
            f" {median / medians['padded AR']:15.2f} {median / medians['packed AR']:15.2f}"
            + (f"  {memory[name]:.1f} GiB" if name in memory else "")
            + (
                f"  {flops(shape, documents, needed[name]) / median / 1e12:.3g} TFLOP/s"
                if name in needed
                else ""
            )
        )


if __name__ == "__main__":
    main()
