"""The tokenizer of the embedded experiment, trained on its own corpus."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, START, END, MASK = "<|pad|>", "<|im_start|>", "<|im_end|>", "<|mask|>"

# A word or a single digit takes the space before it; numbers fall apart into their digits.
_PIECES = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

_CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)


def train_tokenizer(texts: Iterable[str], vocabulary: int, output: Path) -> None:
    """Train byte-level BPE on ``texts`` and save it so that ``AutoTokenizer`` loads it.

    Any text decodes to itself. ``<|im_end|>`` ends a turn and the generation, ``<|mask|>`` is the
    mask token; neither they nor ``<|im_start|>`` and ``<|pad|>`` arise from plain text.

    Args:
        texts: what the models will read.
        vocabulary: number of tokens, special ones and the 256 bytes included.
        output: folder of the tokenizer.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, START, END, MASK],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        mask_token=MASK,
        additional_special_tokens=[START],
        clean_up_tokenization_spaces=False,
        chat_template=_CHAT_TEMPLATE,
    )
    fast.save_pretrained(output)
