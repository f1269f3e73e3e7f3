"""Loss on the last assistant turn only, up to and including the end of turn; cut on the right."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset, load_from_disk
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mars.data.chat import tokenize_conversation, tokenize_documents, tokenize_instructions
from mars.data.stage import TokenizeSpec
from mars.errors import UserError
from mars.provenance.files import read_json

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|> ' + m.role + ' ' + m.content + ' <|im_end|> ' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|> assistant ' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    words = ["<unk>", "<|im_start|>", "<|im_end|>", "user", "assistant", *"abcdefgh"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", eos_token="<|im_end|>", pad_token="<unk>"
    )
    made.chat_template = TEMPLATE
    return made


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


TALK = [
    _turn("user", "a b"),
    _turn("assistant", "c"),
    _turn("user", "d"),
    _turn("assistant", "e f"),
]


def test_only_the_last_assistant_turn_carries_loss(tokenizer):
    ids, prompt_length = tokenize_conversation(tokenizer, TALK, 512)
    assert tokenizer.decode(ids[prompt_length:]) == "e f <|im_end|>"
    prompt = tokenizer.apply_chat_template(TALK[:-1], add_generation_prompt=True)
    assert ids[:prompt_length] == prompt["input_ids"]


def test_long_examples_are_cut_on_the_right_and_hopeless_ones_left_out(tokenizer):
    ids, prompt_length = tokenize_conversation(tokenizer, TALK, 512)
    shorter, same_prompt = tokenize_conversation(tokenizer, TALK, len(ids) - 1)
    assert (shorter, same_prompt) == (ids[:-1], prompt_length)
    assert tokenize_conversation(tokenizer, TALK, prompt_length) is None
    assert tokenize_conversation(tokenizer, TALK[:-1], 512) is None
    assert tokenize_conversation(tokenizer, [], 512) is None


def test_a_template_without_generation_prompt_is_refused(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", "{% if add_generation_prompt %}x{% endif %}")
    with pytest.raises(UserError, match="chat template"):
        tokenize_conversation(tokenizer, TALK, 512)


def test_folders_are_tokenised_with_a_summary(tokenizer, tmp_path: Path):
    rows = [{"messages": TALK}, {"messages": TALK[:-1]}, {"messages": TALK[:2]}]
    (tmp_path / "set").mkdir()
    Dataset.from_list(rows).to_parquet(tmp_path / "set/train.parquet")
    spec = TokenizeSpec(kind="instructions", dataset="set", max_length=512, seed=0)
    tokenize_instructions(spec, tmp_path / "set", tokenizer, tmp_path / "a")
    summary = read_json(tmp_path / "a/summary.json")
    assert (summary["rows"], summary["examples"], summary["cut"]) == (3, 2, 0)
    assert len(load_from_disk(tmp_path / "a")) == 2
    other = spec.model_copy(update={"split": "no"})
    with pytest.raises(UserError, match="configuration"):
        tokenize_instructions(other, tmp_path / "set", tokenizer, tmp_path / "b")


def test_a_data_set_without_messages_is_refused(tokenizer, tmp_path: Path):
    (tmp_path / "set").mkdir()
    Dataset.from_list([{"text": "a b c"}]).to_parquet(tmp_path / "set/train.parquet")
    spec = TokenizeSpec(kind="instructions", dataset="set", max_length=8, seed=0)
    with pytest.raises(UserError, match="no `messages` column"):
        tokenize_instructions(spec, tmp_path / "set", tokenizer, tmp_path / "a")


def test_documents_are_split_and_end_with_eos(tokenizer, tmp_path: Path):
    (tmp_path / "set").mkdir()
    rows = [{"given": "", "text": "a b c d e"}, {"given": "a b c d e", "text": " f g"}]
    Dataset.from_list(rows).to_parquet(tmp_path / "set/train.parquet")
    spec = TokenizeSpec(kind="documents", dataset="set", max_length=4, seed=0)
    tokenize_documents(spec, tmp_path / "set", tokenizer, tmp_path / "tokens")
    rows = load_from_disk(tmp_path / "tokens")
    texts = ["a b c d", "e <|im_end|>", "a b c d", "e f g <|im_end|>"]
    assert [tokenizer.decode(ids) for ids in rows["input_ids"]] == texts
    # What is given carries no loss, in whichever piece it is.
    assert rows["prompt_length"][:] == [0, 0, 4, 1]
