"""A MARS checkpoint of random weights in a folder, whose tokenizer knows a few characters."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast

from mars.checkpoints.export import add_custom_generate
from mars.checkpoints.load import multi_token
from tests.support.decoding_models import EOS, MASK, random_model

CHAT = "{% for message in messages %}{{ message.content }}{% endfor %}"


@cache
def character_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes of a few characters, one of two bytes, so that half a character can be decoded."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = {letter: index for index, letter in enumerate("abcdefghijklmnopqrstuvwxyzĠ")}
    for letter in (one for one in alphabet if one in "Ã¼¤¶"):
        letters[letter] = len(letters)
    bytes_only = Tokenizer(models.BPE(vocab=letters, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=bytes_only)
    while len(wrapped) < MASK:
        wrapped.add_special_tokens({"additional_special_tokens": [f"<{len(wrapped)}>"]})
    wrapped.add_special_tokens({"mask_token": "<|mask|>"})
    assert wrapped.mask_token_id == MASK
    return wrapped


def write_checkpoint(folder: Path, block_size: int = 4, **generation_config) -> Path:
    """Save ``random_model("qwen2")`` as training exports one; returns ``folder``."""
    tokenizer, model = character_tokenizer(), random_model("qwen2")
    before = model.generation_config
    known = {"do_sample": False, "eos_token_id": list(EOS), "pad_token_id": 0}
    known |= multi_token(tokenizer, block_size)
    model.generation_config = GenerationConfig(**(known | generation_config))
    model.save_pretrained(folder)
    model.generation_config = before
    tokenizer.save_pretrained(folder)
    add_custom_generate(folder)
    return folder
