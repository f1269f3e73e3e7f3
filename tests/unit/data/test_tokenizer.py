"""The trained tokenizer: exact round trip, single digits, chat template, special tokens."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from mars.data.minibench.generate import miniatures, passages
from mars.data.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    output = tmp_path_factory.mktemp("tokenizer")
    kinds = miniatures(0)
    documents = passages(kinds, {name: [] for name in kinds}, 0, 200)
    train_tokenizer((part for document in documents for part in document), 512, output)
    return AutoTokenizer.from_pretrained(output)


@given(text=st.text())
def test_any_text_comes_back(tokenizer, text):
    composed = unicodedata.normalize("NFC", text)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == composed


@given(number=st.integers(0, 10**9))
def test_digits_are_tokens_of_their_own(tokenizer, number):
    assert len(tokenizer(f"x{number}")["input_ids"]) - 1 == len(str(number))


def test_special_tokens(tokenizer):
    specials = [tokenizer.pad_token, tokenizer.eos_token, tokenizer.mask_token]
    assert specials == ["<|pad|>", "<|im_end|>", "<|mask|>"]
    assert len(set(tokenizer.convert_tokens_to_ids(specials))) == 3
    assert len(tokenizer) == 512


def test_chat_template(tokenizer):
    question = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    prompt = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    assert prompt == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
    )
    begun = [*question, {"role": "assistant", "content": "Here it is:\n\n"}]
    prefix = tokenizer.apply_chat_template(begun, tokenize=False, continue_final_message=True)
    assert prefix == prompt + "Here it is:\n\n"


def test_a_prompt_is_a_prefix_of_its_conversation_in_tokens(tokenizer):
    start = 'Here is the completed function:\n```python\ndef f(x):\n    """ Doc.\n    """\n\n'
    ids = tokenizer(start)["input_ids"]
    assert tokenizer(start + "    return x + 1\n```")["input_ids"][: len(ids)] == ids
