"""From messages to token ids: chat formatting, loss on the last assistant turn, truncation.

The format of the paper's training data (Dolci-Instruct-SFT): a `messages` column whose last
message is the assistant's; only that one carries loss, and examples are cut at a fixed length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset, Features, Sequence, Value
from transformers import PreTrainedTokenizerBase

from mars.data.hub import read_dataset
from mars.errors import UserError
from mars.provenance.files import write_json

if TYPE_CHECKING:
    from mars.data.stage import TokenizeSpec

FEATURES = Features({"input_ids": Sequence(Value("int32")), "prompt_length": Value("int32")})
Pair = tuple[list[int], int]
"""Token ids of an example, and how many of the first ones carry no loss."""


def tokenize_conversation(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], max_length: int
) -> Pair | None:
    """Token ids of a conversation and the number of leading ones that carry no loss.

    The response ends with its first end-of-turn token, which is part of the loss; what a chat
    template puts after it (a line break) is not, because decoding stops there. Longer examples
    are cut at the end; None if no response token is left or the last message is not the
    assistant's.
    """
    if not messages or messages[-1]["role"] != "assistant":
        return None
    turns = [{"role": m["role"], "content": m["content"]} for m in messages]
    prompt = tokenizer.apply_chat_template(turns[:-1], add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    assert isinstance(prompt, str)  # what `tokenize=False` returns
    assert isinstance(whole, str)
    if not whole.startswith(prompt):
        raise UserError(
            "the chat template does not write the generation prompt before an assistant turn, so "
            "prompt and response cannot be told apart; use a tokenizer with a ChatML-like template."
        )
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    if len(prompt_ids) >= max_length:
        return None
    response_ids = tokenizer(whole[len(prompt) :], add_special_tokens=False)["input_ids"]
    if tokenizer.eos_token_id in response_ids:
        response_ids = response_ids[: response_ids.index(tokenizer.eos_token_id) + 1]
    return (prompt_ids + response_ids)[:max_length], len(prompt_ids)


def tokenize_instructions(
    spec: TokenizeSpec, dataset: Path, tokenizer: PreTrainedTokenizerBase, output: Path
) -> None:
    """Tokenise the conversations of a data set folder in hub layout.

    Writes ``output`` (``datasets.save_to_disk``: input_ids, prompt_length) and its
    ``summary.json`` with what was kept, cut and left out.
    """
    rows = read_dataset(dataset, spec.configuration, spec.split)
    if "messages" not in rows.column_names:
        raise UserError(
            f"{dataset} has no `messages` column (it has {', '.join(rows.column_names)}); "
            "choose an instruction data set in the messages format."
        )
    rows = rows.shuffle(seed=spec.seed)
    if spec.limit is not None:
        rows = rows.select(range(min(spec.limit, len(rows))))

    def examples(batch: dict[str, list[Any]]) -> Iterator[Pair | None]:
        return (tokenize_conversation(tokenizer, m, spec.max_length) for m in batch["messages"])

    _save(rows, examples, tokenizer, output)


def tokenize_documents(
    spec: TokenizeSpec, dataset: Path, tokenizer: PreTrainedTokenizerBase, output: Path
) -> None:
    """Tokenise plain documents for pre-training: column `text`, preceded by column `given`.

    What is given carries no loss: lists and stories are random, so there is nothing in them to
    learn, and their noise would slow a small model down.
    """
    max_length = spec.max_length

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    def examples(batch: dict[str, list[Any]]) -> Iterator[Pair | None]:
        for given, text in zip(map(ids, batch["given"]), map(ids, batch["text"]), strict=True):
            document = [*given, *text, tokenizer.eos_token_id]
            for at in range(0, len(document), max_length):
                yield document[at : at + max_length], min(max_length, max(0, len(given) - at))

    _save(read_dataset(dataset, spec.configuration, spec.split), examples, tokenizer, output)


def _save(
    rows: Dataset,
    examples: Callable[[dict[str, list[Any]]], Iterable[Pair | None]],
    tokenizer: PreTrainedTokenizerBase,
    output: Path,
) -> None:
    """Map ``rows`` to training examples, batch by batch through disk, and write a summary."""

    def columns(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        pairs = [pair for pair in examples(batch) if pair is not None]
        return {"input_ids": [ids for ids, _ in pairs], "prompt_length": [n for _, n in pairs]}

    tokens = rows.map(
        columns,
        batched=True,
        remove_columns=rows.column_names,
        features=FEATURES,
        load_from_cache_file=False,
        desc="tokenise",
    )
    if not len(tokens):
        raise UserError("no training example is left after truncation; raise `max_length`.")
    tokens.save_to_disk(output)
    examples_ids = tokens["input_ids"]
    lengths = [len(ids) for ids in examples_ids]
    summary = {
        "rows": len(rows),
        "examples": len(tokens),
        "cut": sum(ids[-1] != tokenizer.eos_token_id for ids in examples_ids),
        "tokens": sum(lengths),
        "prompt_tokens": sum(tokens["prompt_length"]),
        "longest": max(lengths),
    }
    write_json(output / "summary.json", summary)
