"""A tokenizer like Llama 2's: a leading space is stripped, unknown characters are bytes."""

from __future__ import annotations

from functools import cache

from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

PIECES = ["▁a", "▁b", "▁Q", "Q", ":", "\n", "ab", "▁", ".", "▁.", "▁n't"]


@cache
def sentence_piece_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, a few pieces, and one special token."""
    pieces = [*(f"<0x{byte:02X}>" for byte in range(256)), *PIECES, "<s>"]
    tokenizer = Tokenizer(
        models.BPE({piece: index for index, piece in enumerate(pieces)}, [], byte_fallback=True)
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")
