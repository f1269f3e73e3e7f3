"""The text of an answer in pieces: together the whole, and nothing is taken back."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars.serving.text import Reply
from tests.support.little_checkpoint import character_tokenizer
from tests.support.sentence_pieces import sentence_piece_tokenizer

TEXTS = ["Q: how many?", "the answer is 3.", "\n\n", "é漢🙂", " a b", ":", "a" * 9, "ab n't ."]


def in_pieces(reply, tokens, draw):
    """What is shown, piece by piece; steps of several tokens, as MARS makes them."""
    shown, place = [], 0
    while place < len(tokens) and not reply.stopped:
        step = draw.choice((1, 1, 2, 4, 16))
        shown.append(reply.add(tokens[place : place + step]))
        place += step
    return [*shown, reply.end()]


def before_first(text, stops):
    found = [text.find(stop) for stop in stops if stop in text]
    return text[: min(found)] if found else text


def decoding(tokenizer):
    return lambda tokens: tokenizer.decode(list(tokens), skip_special_tokens=True)


@given(st.lists(st.integers(0, 39), max_size=60), st.integers(0, 1000))
def test_the_pieces_are_the_text_even_where_bytes_are_wrong(tokens, seed):
    text, draw = decoding(character_tokenizer()), random.Random(seed)
    assert "".join(in_pieces(Reply(text), tokens, draw)) == text(tokens)


@given(st.lists(st.sampled_from(TEXTS), max_size=12), st.data())
def test_a_stop_string_and_what_follows_are_never_shown(texts, data):
    tokenizer = sentence_piece_tokenizer()
    draw = random.Random(data.draw(st.integers(0, 1000)))
    tokens = [id for text in texts for id in tokenizer.encode(text, add_special_tokens=False)]
    text = decoding(tokenizer)
    whole = text(tokens)
    places = st.integers(0, max(0, len(whole) - 1))
    stops = [
        whole[(start := data.draw(places)) : start + data.draw(st.integers(1, 6))] or "Q"
        for _ in range(data.draw(st.integers(0, 3)))
    ]
    if any(one != other and one in other for one in stops for other in stops):
        return  # which of the two comes first depends on the steps
    reply = Reply(text, stops)
    pieces = in_pieces(reply, tokens, draw)
    assert "".join(pieces) == before_first(whole, stops)
    assert reply.stopped == any(stop in whole for stop in stops)
    assert not reply.stopped or reply.end() == reply.add(tokens) == ""


@pytest.mark.parametrize("tokenizer", [character_tokenizer(), sentence_piece_tokenizer()])
def test_half_a_character_is_never_shown(tokenizer):
    text = "für ö ü" if tokenizer is character_tokenizer() else "🙂é a 漢"
    tokens = tokenizer.encode(text, add_special_tokens=False)
    reply = Reply(decoding(tokenizer))
    pieces = [reply.add([token]) for token in tokens]
    assert "".join(pieces) == decoding(tokenizer)(tokens)
    assert "" in pieces, "no character has two tokens"
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)


def test_what_only_may_become_a_stop_string_is_shown_later():
    reply = Reply("".join, ["###", "\n\nQ"])
    assert [reply.add(piece) for piece in ("a#", "#", "b\n", "\n", "x##")] == [
        "a",
        "",
        "##b",
        "",
        "\n\nx",
    ]
    assert reply.end() == "##"
    assert not reply.stopped


def test_the_cost_of_a_piece_does_not_grow():
    decoded = []

    def text(tokens):
        decoded.append(len(tokens))
        return "".join(tokens)

    reply = Reply(text, ["###"])
    for _ in range(300):
        reply.add("ab")
    assert max(decoded) <= 4
