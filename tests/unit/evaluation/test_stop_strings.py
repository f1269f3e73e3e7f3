"""Stop strings in a growing answer: what decoding the whole each time says, for less work."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars.evaluation.stop_strings import StopStrings, holds
from tests.support.sentence_pieces import sentence_piece_tokenizer

STRINGS = [
    "Q:",
    "\n\n",
    " a b",
    "é",
    "漢🙂",
    "\N{REPLACEMENT CHARACTER}",
    ".",
    " ",
    "ab Q",
    "a" * 9,
]
TEXTS = ["Q: how many?", "the answer is 3.", "\n\n", "é漢🙂", " a b", ":", "a" * 9, "🙂" * 20]


@pytest.fixture(scope="session")
def sentence_pieces():
    return sentence_piece_tokenizer()


def some_tokens(tokenizer, draw):
    """Texts, and tokens at random, among them halves of characters and special ones."""
    tokens, count = [], draw.choice((10, 150, 400))
    while len(tokens) < count:
        if draw.random() < 0.7:
            tokens += tokenizer.encode(draw.choice(TEXTS), add_special_tokens=False)
        else:
            tokens += [draw.randrange(len(tokenizer)) for _ in range(draw.randint(1, 4))]
    return tokens


def some_strings(whole, draw):
    """Pieces of the text, most from its end, that were not there before if possible."""
    found = []
    for _ in range(draw.randint(1, 3)):
        place = int(len(whole) * draw.random() ** 0.3)
        found.append(whole[place : place + draw.randint(1, 12)] or "Q:")
    return found


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32))
@pytest.mark.parametrize("kind", ["tokenizer", "sentence_pieces"])
def test_it_says_what_the_whole_says(request, kind, seed):
    tokenizer, draw = request.getfixturevalue(kind), random.Random(seed)

    def text(tokens):
        return tokenizer.decode(tokens, skip_special_tokens=True)

    tokens = some_tokens(tokenizer, draw)
    strings = some_strings(text(tokens), draw)
    stop, length = StopStrings(text, strings), 0
    while length < len(tokens):
        length += draw.choice((1, 1, 2, 4, 16))
        found = stop(tokens[:length])
        assert found == holds(text, strings, tokens[:length])
        if found:
            break


@pytest.mark.parametrize("kind", ["tokenizer", "sentence_pieces"])
def test_the_cost_of_a_token_does_not_grow(request, kind):
    tokenizer, decoded = request.getfixturevalue(kind), []

    def text(tokens):
        decoded.append(len(tokens))
        return tokenizer.decode(tokens)

    tokens = tokenizer.encode("Q. ab: é a b ." * 100, add_special_tokens=False)
    stop = StopStrings(text, ["Question:", "\n\n", "</s>"])
    assert not any(stop(tokens[:length]) for length in range(1, len(tokens) + 1))
    assert len(tokens) > 500
    assert max(decoded) < 250
