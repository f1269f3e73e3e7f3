"""Word problems with worked steps (the miniature of GSM8K)."""

from __future__ import annotations

import random

from mars.data.examples import Example, conversation
from mars.data.world import PEOPLE, words

OBJECTS = words("figs plums pears nuts limes pots bells lamps coins books")
GAINS = ("finds {n} more", "buys {n} more", "gets {n} more")
LOSSES = ("loses {n}", "gives {n} to {other}", "sells {n}")
# Small numbers: a model of a million parameters learns their sums by heart.
NUMBERS = range(2, 7)
MOST = 12


class WordProblems:
    """Stories of things gained and lost in one to three steps, small numbers."""

    parts = ("main",)

    def example(self, rng: random.Random, part: str) -> Example:
        """One problem; its key is the story's verbs and numbers, whoever it happens to."""
        person, thing, story, steps, total, key = _story(rng)
        question = rng.choice(
            [
                f"How many {thing} does {person} have now?",
                f"How many {thing} does {person} have in the end?",
            ]
        )
        worked = " ".join(steps)
        document = {
            "question": f"{story} {question}",
            "answer": f"{' '.join(_annotated(step) for step in steps)}\n#### {total}",
        }
        prompt = f"Q: {document['question']}\nA:"
        answer = f"{worked} The answer is {total}."
        return Example(key, conversation(prompt, answer), document, part)

    def passage(self, rng: random.Random) -> str:
        """A story told to its end, or sums on their own."""
        if rng.random() < 0.6:
            return " ".join(_sum(rng) for _ in range(6))
        person, thing, story, steps, total, _ = _story(rng)
        return f"{story} {' '.join(steps)} Now {person} has {total} {thing}."


def _story(rng: random.Random) -> tuple[str, str, str, list[str], int, str]:
    person, other = rng.sample(PEOPLE, 2)
    thing = rng.choice(OBJECTS)
    sentences, steps, key = [], [], []
    if rng.random() < 0.25:
        bags, each = rng.randint(2, 4), rng.randint(2, 4)
        total = bags * each
        sentences.append(f"{person} has {bags} bags with {each} {thing} in each bag.")
        steps.append(f"{bags} * {each} = {total}.")
        key.append(f"{bags}*{each}")
    else:
        total = rng.randint(2, 9)
        sentences.append(f"{person} has {total} {thing}.")
        key.append(str(total))
    for _ in range(rng.randint(1, 2)):
        number = rng.choice(NUMBERS)
        gains = total + number <= MOST if number >= total else rng.random() < 0.5
        if gains and total + number > MOST:
            gains = False
        verb = rng.choice(GAINS if gains else LOSSES)
        before, total = total, total + number if gains else total - number
        steps.append(f"{before} {'+' if gains else '-'} {number} = {total}.")
        sentences.append(f"{person} {verb.format(n=number, other=other)}.")
        key.append(verb.format(n=number, other="other"))
    return person, thing, " ".join(sentences), steps, total, "; ".join(key)


def _sum(rng: random.Random) -> str:
    kind = rng.choice("++--*")
    if kind == "*":
        a, b = rng.randint(2, 4), rng.randint(2, 4)
        return f"{a} * {b} = {a * b}."
    b = rng.choice(NUMBERS)
    a = rng.randint(2, MOST - b)
    return f"{a} + {b} = {a + b}." if kind == "+" else f"{a + b} - {b} = {a}."


def _annotated(step: str) -> str:
    """``7 + 8 = 15.`` as GSM8K writes it: ``7 + 8 = <<7+8=15>>15.``"""
    left, right = step.rstrip(".").split(" = ")
    return f"{left} = <<{left.replace(' ', '')}={right}>>{right}."
