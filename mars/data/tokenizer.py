"""Tokenizers: a checkpoint's, and the one trained on the generated corpus."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2Tokenizer

from mars.data.hub import read_dataset
from mars.errors import UserError

PAD, START, END, MASK = "<|pad|>", "<|im_start|>", "<|im_end|>", "<|mask|>"

_CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)


def load_tokenizer(checkpoint: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a local folder."""
    return AutoTokenizer.from_pretrained(checkpoint_folder(checkpoint), local_files_only=True)


def checkpoint_folder(checkpoint: str | Path) -> Path:
    """The folder, if there is something to load in it."""
    folder = Path(checkpoint)
    if not (folder / "tokenizer_config.json").is_file():
        raise UserError(f"{folder}: there is no checkpoint here; give a folder with a saved model.")
    return folder


def train_tokenizer(texts: Iterable[str], vocabulary: int, output: Path) -> None:
    """Train byte-level BPE on ``texts`` and save it so that ``AutoTokenizer`` loads it.

    It is a Qwen2 tokenizer (its splitting rules, single digits; our own merges), because beside a
    Qwen2 model ``AutoTokenizer`` loads nothing else. Any text in Unicode's NFC form decodes to
    itself. ``<|im_end|>`` ends a turn and the generation, ``<|mask|>`` is the
    mask token; neither they nor ``<|im_start|>`` and ``<|pad|>`` arise from plain text.
    ``vocabulary`` counts special tokens and the 256 bytes.
    """
    special: dict[str, Any] = {"unk_token": None, "pad_token": PAD, "eos_token": END}
    empty = Qwen2Tokenizer(vocab={}, merges=[], **special)
    trained = empty.backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, START, END, MASK],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    model = json.loads(trained.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],  # type: ignore[misc]
        **special,
        mask_token=MASK,
        additional_special_tokens=[START],
        chat_template=_CHAT_TEMPLATE,
    )
    tokenizer.save_pretrained(output)


def train_from_folder(hub: Path, vocabulary: int, output: Path) -> None:
    """Train the tokenizer on the generated documents and conversations in ``hub``."""
    documents = read_dataset(hub / "mars-generated/documents", None, "train")
    conversations = read_dataset(hub / "mars-generated/instruct", None, "train")
    turns = [turn for messages in conversations["messages"] for turn in messages]
    said = [text for turn in turns for text in turn.values()]
    train_tokenizer([*documents["given"], *documents["text"], *said], vocabulary, output)
