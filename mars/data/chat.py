"""From messages to token ids: chat formatting, loss on the last assistant turn, truncation.

The format of the paper's training data (Dolci-Instruct-SFT): a `messages` column whose last
message is the assistant's; only that one carries loss, and examples are cut at a fixed length.
What cannot be formatted (no text, nothing asked, nothing answered) is left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, Sequence, Value, concatenate_datasets
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from mars.data.hub import read_dataset
from mars.data.tokens import Documents
from mars.errors import UserError
from mars.machine.cpus import threads_of_job
from mars.machine.gpus import end_with_parent
from mars.provenance.files import sha256_text, write_json

if TYPE_CHECKING:
    from mars.data.stage import TokenizeSpec

FEATURES = Features({"input_ids": Sequence(Value("int32")), "prompt_length": Value("int32")})
Pair = tuple[list[int], int]
"""Token ids of an example, and how many of the first ones carry no loss."""

NO_MESSAGES = "no messages"
NO_TEXT = "a message without role or text"
NO_ANSWER = "the last message is not the assistant's"
NO_QUESTION = "no message of the user"
TOO_LONG = "the prompt leaves no room for a response"
REFUSED = "the chat template refuses it"

ROWS_PER_PROCESS = 5000  # fewer are tokenised before another process has started
TOKENS_PER_FILE = 125_000_000  # 500 MB
NEARLY_ALL = 0.9  # of the conversations; a template that refuses so many is the wrong one


def tokenize_conversation(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]] | None, max_length: int
) -> Pair | str:
    """Token ids of a conversation and the number of leading ones that carry no loss.

    The response ends with its first end-of-turn token, which is part of the loss; what a chat
    template puts after it (a line break) is not, because decoding stops there. Longer examples
    are cut at the end.

    Returns:
        Or why the conversation is left out: one of the sentences above, after which stands what
        the template said if it was the template.
    """
    if not messages:
        return NO_MESSAGES
    turns: list[dict[str, Any]] = [
        {key: (message or {}).get(key) for key in ("role", "content")} for message in messages
    ]
    if not all(isinstance(value, str) for turn in turns for value in turn.values()):
        return NO_TEXT
    if turns[-1]["role"] != "assistant":
        return NO_ANSWER
    if all(turn["role"] != "user" for turn in turns):
        return NO_QUESTION
    try:
        prompt = tokenizer.apply_chat_template(
            turns[:-1], add_generation_prompt=True, tokenize=False
        )
        whole = tokenizer.apply_chat_template(turns, tokenize=False)
    except TemplateError as error:
        return f"{REFUSED}: {error}"
    assert isinstance(prompt, str)  # what `tokenize=False` returns
    assert isinstance(whole, str)
    if not whole.startswith(prompt):
        raise UserError(
            "the chat template does not write the generation prompt before an assistant turn, so "
            "prompt and response cannot be told apart; use a tokenizer with a ChatML-like template."
        )
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    if len(prompt_ids) >= max_length:
        return TOO_LONG
    response_ids = tokenizer(whole[len(prompt) :], add_special_tokens=False)["input_ids"]
    if tokenizer.eos_token_id in response_ids:
        response_ids = response_ids[: response_ids.index(tokenizer.eos_token_id) + 1]
    return (prompt_ids + response_ids)[:max_length], len(prompt_ids)


def tokenize_instructions(
    spec: TokenizeSpec, dataset: Path, tokenizer: PreTrainedTokenizerBase, output: Path
) -> dict[str, Any]:
    """Tokenise the conversations of a data set folder in hub layout.

    Writes ``output`` (``datasets.save_to_disk``: input_ids, prompt_length) and its
    ``summary.json``, and returns what is in that: what was kept, cut and left out.
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

    def examples(batch: dict[str, list[Any]]) -> Iterator[Pair | str]:
        return (tokenize_conversation(tokenizer, m, spec.max_length) for m in batch["messages"])

    return _save(spec, rows, examples, tokenizer, output)


def tokenize_documents(
    spec: TokenizeSpec, dataset: Path, tokenizer: PreTrainedTokenizerBase, output: Path
) -> dict[str, Any]:
    """Tokenise plain documents for pre-training: column `text`, preceded by column `given`.

    What is given carries no loss: lists and stories are random, so there is nothing in them to
    learn, and their noise would slow a small model down. Writes and returns what
    :func:`tokenize_instructions` does.
    """
    max_length = spec.max_length

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    def examples(batch: dict[str, list[Any]]) -> Iterator[Pair | str]:
        for given, text in zip(map(ids, batch["given"]), map(ids, batch["text"]), strict=True):
            document = [*given, *text, tokenizer.eos_token_id]
            for at in range(0, len(document), max_length):
                yield document[at : at + max_length], min(max_length, max(0, len(given) - at))

    rows = read_dataset(dataset, spec.configuration, spec.split)
    return _save(spec, rows, examples, tokenizer, output)


def _save(
    spec: TokenizeSpec,
    rows: Dataset,
    examples: Callable[[dict[str, list[Any]]], Iterable[Pair | str]],
    tokenizer: PreTrainedTokenizerBase,
    output: Path,
) -> dict[str, Any]:
    """Map ``rows`` to training examples, batch by batch through disk, and write a summary.

    Large data sets are mapped by as many processes as the job has threads, each a contiguous part.
    The files do not depend on their number.
    """
    processes = min(threads_of_job(), len(rows) // ROWS_PER_PROCESS)

    def columns(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if processes > 1:
            end_with_parent()
        made = list(examples(batch))
        pairs: list[Pair] = [([], 0) if isinstance(one, str) else one for one in made]
        return {
            "input_ids": [ids for ids, _ in pairs],
            "prompt_length": [prompt_length for _, prompt_length in pairs],
            "left_out": [one if isinstance(one, str) else None for one in made],
        }

    mapped = rows.map(
        columns,
        batched=True,
        remove_columns=rows.column_names,
        features=Features({**FEATURES, "left_out": Value("string")}),  # why, or null
        load_from_cache_file=False,
        num_proc=processes if processes > 1 else None,
        desc="tokenise",
    )
    why = mapped.data.column("left_out")
    left_out = _left_out({one["values"]: one["counts"] for one in why.value_counts().to_pylist()})
    if why.null_count == 0:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in left_out.items())
        raise UserError(
            f"no training example is left of {len(rows)} rows{reasons and f' ({reasons})'}; raise "
            "`training.max_length`, or choose another data set."
        )
    whole = concatenate_datasets([mapped], split=rows.split)  # several processes forget the split
    tokens = whole.with_format("arrow").map(
        _kept,
        batched=True,
        features=FEATURES,
        load_from_cache_file=False,
        new_fingerprint=sha256_text(spec.model_dump_json())[:16],
        desc="leave out",
    )
    count = pc.sum(pc.list_value_length(tokens.data.column("input_ids"))).as_py()
    tokens.with_format(None).save_to_disk(output, num_shards=1 + count // TOKENS_PER_FILE)
    made = Documents(output)
    summary = {
        "rows": len(rows),
        "examples": len(made.lengths),
        "left_out": left_out,
        "cut": int((made.last_tokens() != tokenizer.eos_token_id).sum()),
        "tokens": int(made.lengths.sum(dtype=np.int64)),
        "prompt_tokens": int(made.prompts.sum(dtype=np.int64)),
        "longest": int(made.lengths.max()),
    }
    write_json(output / "summary.json", summary)
    return summary


def _kept(rows: pa.Table) -> pa.Table:
    """The rows that are not left out, copied: bytes between rows would go into the files."""
    kept = pc.indices_nonzero(pc.is_null(rows["left_out"]))
    return rows.drop_columns("left_out").take(kept).combine_chunks()


def _left_out(counts: dict[str | None, int]) -> dict[str, int]:
    """How many rows were left out for each reason, given how often each was found, None for none.

    UserError if the chat template refuses nearly all rows that it was given.
    """
    reasons: Counter[str] = Counter()
    for found, count in counts.items():
        if found is not None:
            reasons[found.partition(":")[0]] += count
    given = counts.get(None, 0) + reasons[TOO_LONG] + reasons[REFUSED]
    if reasons[REFUSED] > NEARLY_ALL * given:
        refusals = (found for found in counts if found and found.startswith(REFUSED))
        said = " ".join(max(refusals, key=lambda found: counts[found]).split()).partition(": ")[2]
        raise UserError(
            f"the chat template refuses {reasons[REFUSED]} of {given} conversations ({said}); use "
            "a tokenizer whose template takes them, or choose another data set."
        )
    return {reason: reasons[reason] for reason in sorted(reasons) if reasons[reason]}
