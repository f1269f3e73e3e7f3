"""Word problems with worked steps (the miniature of GSM8K)."""

from __future__ import annotations

import random

from mars.data.minibench.examples import Example, conversation
from mars.data.minibench.miniature import Miniature
from mars.data.minibench.world import PEOPLE, words

OBJECTS = words("figs plums pears nuts limes pots bells lamps coins books")
GAINS = ("finds {n} more", "buys {n} more", "gets {n} more")
LOSSES = ("loses {n}", "gives {n} to {other}", "sells {n}")
# One digit, hence one token: a small model learns their sums by heart.
NUMBERS = range(1, 6)
MOST = 9
PRODUCTS = [(a, b) for a in range(2, 5) for b in range(2, 5) if a * b <= MOST]


class WordProblems(Miniature):
    """Stories of things gained and lost in one to three steps, small numbers."""

    repository = "openai/gsm8k"
    parts = ("main",)
    corpus_share, documents_share = 6, 5
    configuration = "main"
    other_split = "train"

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
        plain = story, f" {worked} Now {person} has {total} {thing}."
        return Example(key, conversation(prompt, answer), document, plain, part)


def _story(rng: random.Random) -> tuple[str, str, str, list[str], int, str]:
    person, other = rng.sample(PEOPLE, 2)
    thing = rng.choice(OBJECTS)
    sentences, steps, key = [], [], []
    if rng.random() < 0.25:
        bags, each = rng.choice(PRODUCTS)
        total = bags * each
        sentences.append(f"{person} has {bags} bags with {each} {thing} in each bag.")
        steps.append(f"{bags} * {each} = {total}.")
        key.append(f"{bags}*{each}")
    else:
        total = rng.randint(2, MOST)
        sentences.append(f"{person} has {total} {thing}.")
        key.append(str(total))
    for _ in range(rng.randint(1, 2)):
        gains = total < MOST and (total == 1 or rng.random() < 0.5)
        # What is left is never nothing: "0" would be a rare answer.
        number = rng.choice([n for n in NUMBERS if n <= (MOST - total if gains else total - 1)])
        verb = rng.choice(GAINS if gains else LOSSES)
        before, total = total, total + number if gains else total - number
        steps.append(f"{before} {'+' if gains else '-'} {number} = {total}.")
        sentences.append(f"{person} {verb.format(n=number, other=other)}.")
        key.append(verb.format(n=number, other="other"))
    return person, thing, " ".join(sentences), steps, total, "; ".join(key)


def addition_or_product(rng: random.Random) -> str:
    """One step of a story by itself."""
    kind = rng.choice("++--*")
    if kind == "*":
        a, b = rng.choice(PRODUCTS)
        return f"{a} * {b} = {a * b}."
    b = rng.choice(NUMBERS)
    a = rng.randint(1, MOST - b)
    return f"{a} + {b} = {a + b}." if kind == "+" else f"{a + b} - {b} = {a}."


def _annotated(step: str) -> str:
    """``7 + 8 = 15.`` as GSM8K writes it: ``7 + 8 = <<7+8=15>>15.``"""
    left, right = step.rstrip(".").split(" = ")
    return f"{left} = <<{left.replace(' ', '')}={right}>>{right}."
