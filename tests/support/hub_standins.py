"""Models as hub repositories hold them, at a toy's size: random weights, the real layout."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
)

from mars.data.tokenizer import END, PAD, train_tokenizer
from mars.provenance.files import read_json, write_json
from tests.support.little_models import little_config

TEXTS = [f"Ash has {i} pens and {i + 2} books. How many has Elm? def add(a, b):" for i in range(40)]
# Whoever imports this file has run code that came with a checkpoint.
TRAP = "from pathlib import Path\nPath(__file__).with_name('code-was-run').touch()\n"


def write_tokenizer(folder: Path, mask: bool = True) -> Qwen2Tokenizer:
    """A small Qwen2 tokenizer; without ``mask`` it is like that of an instruct model."""
    train_tokenizer(TEXTS, 300, folder)
    tokenizer = Qwen2Tokenizer.from_pretrained(folder)
    if not mask:
        config = read_json(folder / "tokenizer_config.json")
        write_json(folder / "tokenizer_config.json", config | {"mask_token": None})
        whole = read_json(folder / "tokenizer.json")
        whole["added_tokens"] = [t for t in whole["added_tokens"] if t["content"] != "<|mask|>"]
        whole["model"]["vocab"]["unused"] = whole["model"]["vocab"].pop("<|mask|>")
        write_json(folder / "tokenizer.json", whole)
    return tokenizer


def write_base(folder: Path, *, mask: bool = False, seed: int = 0) -> Qwen2ForCausalLM:
    """An instruct model as a hub repository holds it: random weights, spare embedding rows.

    The files are in bfloat16; what is returned has the same values in float32.
    """
    tokenizer = write_tokenizer(folder, mask)
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(
        little_config(
            vocab_size=320,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            initializer_range=0.3,
            eos_token_id=tokenizer.convert_tokens_to_ids(END),
            pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        )
    )
    state = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    model.generation_config.update(do_sample=True, repetition_penalty=1.1, top_k=20)
    model.save_pretrained(folder, state_dict=state)
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"dtype": "bfloat16"})
    return model


def write_llama(folder: Path) -> None:
    """A Llama with a tokenizer of no architecture's own, without mask, with spare rows."""
    tokenizer = write_tokenizer(folder, mask=False)
    plain = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), eos_token=END, pad_token=PAD
    )
    plain.chat_template = tokenizer.chat_template
    torch.manual_seed(0)
    config = little_config(
        LlamaConfig,
        vocab_size=320,
        eos_token_id=plain.eos_token_id,
        pad_token_id=plain.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    plain.save_pretrained(folder)


def write_released(folder: Path, *, mask: bool = True, seed: int = 0) -> Qwen2ForCausalLM:
    """The same under the model type `a2d-qwen2`, with code of its own beside it."""
    model = write_base(folder, mask=mask, seed=seed)
    config = read_json(folder / "config.json")
    config |= {
        "model_type": "a2d-qwen2",
        "architectures": ["A2DQwen2LMHeadModel"],
        "auto_map": {
            "AutoConfig": "modeling_a2d.A2DQwen2Config",
            "AutoModelForCausalLM": "modeling_a2d.A2DQwen2LMHeadModel",
        },
    }
    write_json(folder / "config.json", config)
    (folder / "modeling_a2d.py").write_text(TRAP)
    return model
