"""Loss on the last assistant turn only, up to and including the end of turn; cut on the right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from datasets import Dataset, load_from_disk
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mars.data import chat
from mars.data.chat import tokenize_conversation, tokenize_documents, tokenize_instructions
from mars.data.stage import TokenizeSpec
from mars.errors import UserError
from mars.provenance.files import read_json
from mars.provenance.manifest import write_manifest

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
    assert tokenize_conversation(tokenizer, TALK, prompt_length) == chat.TOO_LONG


CALL = {"role": "assistant", "content": None, "tool_calls": "[]"}  # as data sets have them


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (None, "no messages"),
        ([], "no messages"),
        ([None], "a message without role or text"),
        ([TALK[0], {"role": "assistant"}], "a message without role or text"),
        ([TALK[0], {"role": "assistant", "content": ["a"]}], "a message without role or text"),
        ([TALK[0], {"role": None, "content": "a"}], "a message without role or text"),
        ([TALK[0], CALL, *TALK[2:]], "a message without role or text"),
        (TALK[:-1], "the last message is not the assistant's"),
        ([TALK[1]], "no message of the user"),
        ([_turn("system", "a"), TALK[1]], "no message of the user"),
    ],
)
def test_what_cannot_be_formatted_is_left_out_for_a_reason(tokenizer, messages, reason):
    assert tokenize_conversation(tokenizer, messages, 512) == reason


STRICT = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system, please') }}{% endif %}"
)


def test_what_the_template_refuses_is_left_out_with_its_words(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", STRICT + TEMPLATE)
    assert len(tokenize_conversation(tokenizer, TALK, 512)) == 2
    refused = tokenize_conversation(tokenizer, [_turn("system", "a"), *TALK], 512)
    assert refused == "the chat template refuses it: no system, please"


def test_a_template_that_breaks_stops_the_job(tokenizer, monkeypatch):
    """Only what it refuses by raising is left out; anything else is a fault to be seen."""
    monkeypatch.setattr(tokenizer, "chat_template", "{{ 1 + messages[0].content }}")
    with pytest.raises(TypeError):
        tokenize_conversation(tokenizer, TALK, 512)


def test_a_template_without_generation_prompt_is_refused(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", "{% if add_generation_prompt %}x{% endif %}")
    with pytest.raises(UserError, match="chat template"):
        tokenize_conversation(tokenizer, TALK, 512)


def _write(folder: Path, rows: list) -> Path:
    folder.mkdir()
    Dataset.from_list(rows).to_parquet(folder / "train.parquet")
    return folder


SPEC = TokenizeSpec(kind="instructions", dataset="set", max_length=512, seed=0)


def test_folders_are_tokenised_with_a_summary(tokenizer, tmp_path: Path):
    unusable = [
        TALK[:-1],
        [],
        None,
        [TALK[0], {"role": "assistant", "content": None}],
        [TALK[0], _turn("user", None), TALK[1]],
    ]
    talks = [TALK, *unusable, TALK[:2]]
    data = _write(tmp_path / "set", [{"messages": talk} for talk in talks])
    facts = tokenize_instructions(SPEC, data, tokenizer, tmp_path / "a")
    summary = read_json(tmp_path / "a/summary.json")
    assert summary == facts
    assert (summary["rows"], summary["examples"], summary["cut"]) == (7, 2, 0)
    assert summary["left_out"] == {
        "a message without role or text": 2,
        "no messages": 2,
        "the last message is not the assistant's": 1,
    }
    rows = load_from_disk(tmp_path / "a")
    assert rows.column_names == ["input_ids", "prompt_length"]
    texts = {tokenizer.decode(ids) for ids in rows["input_ids"]}
    assert len(texts) == 2
    assert summary["tokens"] == sum(map(len, rows["input_ids"]))
    assert summary["longest"] == max(map(len, rows["input_ids"]))
    assert summary["prompt_tokens"] == sum(rows["prompt_length"])
    other = SPEC.model_copy(update={"split": "no"})
    with pytest.raises(UserError, match="configuration"):
        tokenize_instructions(other, data, tokenizer, tmp_path / "b")


def test_cut_examples_are_counted(tokenizer, tmp_path: Path):
    data = _write(tmp_path / "set", [{"messages": TALK}, {"messages": TALK[:2]}])
    length = len(tokenize_conversation(tokenizer, TALK, 512)[0])
    spec = SPEC.model_copy(update={"max_length": length - 1})
    assert tokenize_instructions(spec, data, tokenizer, tmp_path / "a")["cut"] == 1


def test_nothing_left_is_one_sentence_that_says_why(tokenizer, tmp_path: Path):
    data = _write(tmp_path / "set", [{"messages": TALK}, {"messages": TALK[:1]}])
    spec = SPEC.model_copy(update={"max_length": 3})
    with pytest.raises(UserError, match=r"left of 2 rows .*not the assistant's: 1, .*response: 1"):
        tokenize_instructions(spec, data, tokenizer, tmp_path / "a")


def test_a_template_that_refuses_nearly_all_is_the_wrong_one(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", STRICT + TEMPLATE)
    refused = [_turn("system", "a"), *TALK]
    talks = [refused] * 10 + [TALK[:1]] * 20 + [TALK]
    data = _write(tmp_path / "set", [{"messages": talk} for talk in talks])
    with pytest.raises(UserError, match=r"refuses 10 of 11 conversations \(no system, please\)"):
        tokenize_instructions(SPEC, data, tokenizer, tmp_path / "a")
    some = _write(tmp_path / "other", [{"messages": talk} for talk in [refused, TALK]])
    facts = tokenize_instructions(SPEC, some, tokenizer, tmp_path / "b")
    assert facts["left_out"] == {"the chat template refuses it": 1}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows are enough for several processes, which `datasets` leaves another environment of."""
    monkeypatch.setattr(os, "environ", os.environ)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(chat, "ROWS_PER_PROCESS", 1)
    monkeypatch.setattr(chat, "TOKENS_PER_FILE", 100)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("kind", ["instructions", "documents"])
def test_several_processes_write_the_same_files(tokenizer, tmp_path, monkeypatch, capfd, kind):
    """Every byte that a manifest lists, in several files, also where rows are left out."""
    numbers = range(40)
    talks = [TALK[: 1 + n % 2] + [_turn("assistant", "abcdefgh"[n % 8])] * (n % 3) for n in numbers]
    if kind == "instructions":
        rows = [{"messages": talk} for talk in talks]
    else:
        rows = [{"given": "a b" * (n % 2), "text": "c d e f" * (n % 3)} for n in numbers]
    data = _write(tmp_path / "set", rows)
    spec = SPEC.model_copy(update={"kind": kind, "max_length": 12})
    tokenize = tokenize_instructions if kind == "instructions" else tokenize_documents
    listed = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        facts = tokenize(spec, data, tokenizer, tmp_path / threads)
        assert bool(facts["left_out"]) == (kind == "instructions")
        listed.append(read_json(write_manifest(tmp_path / threads)))
    assert listed[0] == listed[1]
    assert "num_proc=2" in capfd.readouterr().err
    assert sum(name.endswith(".arrow") for name in listed[0]["files"]) > 1


@pytest.mark.usefixtures("small_parts")
def test_an_error_in_a_process_is_told_as_it_is(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", "{% if add_generation_prompt %}x{% endif %}")
    data = _write(tmp_path / "set", [{"messages": TALK}] * 2)
    with pytest.raises(UserError, match=r"^the chat template does not write the generation prompt"):
        tokenize_instructions(SPEC, data, tokenizer, tmp_path / "a")


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
