"""Which requests are taken, and what is said of the others."""

import json

import pytest

from mars.serving.protocol import NEUTRAL, Chat, Completion, read
from mars.serving.refusals import RefusedError

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hallo"}]}
TEXT = {"model": "m", "prompt": "hallo"}


def chat(**fields):
    return read(json.dumps(CHAT | fields).encode(), Chat)


def text(**fields):
    return read(json.dumps(TEXT | fields).encode(), Completion)


def test_a_request_without_wishes_follows_the_server():
    form = chat()
    assert not form.has_tau
    assert form.budget is None
    assert (form.stop, form.stream) == ([], False)
    assert text().budget == 16


def test_tau_null_is_a_wish():
    assert chat(tau=None).has_tau
    assert chat(tau=None).tau is None
    assert chat(tau=0.8).tau == 0.8
    assert chat(tau=1).tau == 1


def test_one_stop_string_or_several():
    assert chat(stop="x").stop == ["x"]
    assert chat(stop=["x", "yy"]).stop == ["x", "yy"]
    assert chat(stop=None).stop == []


@pytest.mark.parametrize("key", ["max_tokens", "max_completion_tokens"])
def test_either_name_of_the_budget(key):
    assert chat(**{key: 5}).budget == 5


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("hallo", "hallo"), (["hallo"], "hallo"), ([1, 2], [1, 2]), ([[1, 2]], [1, 2]), ("", "")],
)
def test_a_prompt_is_text_or_tokens(prompt, expected):
    assert text(prompt=prompt).prompt == expected


def test_messages_as_clients_send_them():
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    answered = {"role": "assistant", "content": "yes", "refusal": None, "tool_calls": None}
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": parts},
        answered,
        {"role": "user", "content": "x", "type": "text"},
    ]
    assert chat(messages=messages).turns() == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one two"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "x"},
    ]


def test_values_that_change_nothing_are_taken():
    for key, (neutral, _) in NEUTRAL.items():
        for value in (None, *neutral):
            assert chat(**{key: value}) == chat()
    assert chat(seed=7, user="me", metadata={"a": "b"}) == chat()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"temperature": 0.7}, "temperature=0.7 cannot be honoured, because decoding is greedy"),
        ({"temperature": 1}, "leave it out"),
        ({"top_p": 0.9}, "decoding is greedy"),
        ({"n": 2}, "n=2 cannot be honoured, because a request has one answer"),
        ({"logprobs": True}, "no probabilities"),
        ({"logprobs": 0}, "no probabilities"),
        ({"logit_bias": {"5": 1}}, "greedy"),
        ({"tools": [{"type": "function"}]}, "text only"),
        ({"response_format": {"type": "json_object"}}, "text only"),
        ({"tau": 1.5}, "tau is wrong: input should be less than or equal to 1"),
        ({"tau": "low"}, "tau is wrong: input should be a valid number"),
        ({"tau": True}, "tau is wrong"),
        ({"stop": ""}, "stop.0 is wrong"),
        ({"stop": [1]}, "stop.0 is wrong"),
        ({"max_tokens": 0}, "max_tokens is wrong"),
        ({"max_tokens": "5"}, "max_tokens is wrong"),
        ({"stream": "yes"}, "stream is wrong"),
        ({"colour": "red"}, "colour is not a field that this server knows"),
        ({"messages": []}, "messages is wrong"),
        ({"messages": "hallo"}, "messages is wrong"),
        ({"messages": [3]}, "messages.0 is wrong"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role is wrong"),
        ({"messages": [{"role": "user"}]}, "messages.0.content is missing"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages.0.content is wrong: this server reads text only",
        ),
        ({"model": None}, "model is missing"),
    ],
)
def test_what_cannot_be_honoured_is_refused_in_a_sentence(fields, sentence):
    with pytest.raises(RefusedError) as refused:
        chat(**fields)
    assert refused.value.status == 400
    assert sentence in refused.value.message
    assert refused.value.message.endswith(".")
    assert "\n" not in refused.value.message
    assert refused.value.body()["error"]["param"] == next(iter(fields))


@pytest.mark.parametrize("prompt", [["a", "b"], [[1], [2]], [1, "a"], 5, [True], None])
def test_a_request_has_one_prompt(prompt):
    with pytest.raises(RefusedError, match="prompt"):
        text(prompt=prompt)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"\xff", b"[" * 100_000, b'{"a": 1'])
def test_what_is_no_json_object_is_refused(body):
    with pytest.raises(RefusedError, match="JSON"):
        read(body, Chat)
