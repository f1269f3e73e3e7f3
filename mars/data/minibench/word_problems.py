"""Word problems with worked steps (the miniature of GSM8K)."""

from __future__ import annotations

import random

from mars.data.minibench.miniature import Example, Miniature, conversation
from mars.data.minibench.world import texts, words

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
        person, other = rng.sample(words("people"), 2)
        thing = rng.choice(texts()["word_problems"]["objects"])
        story, steps, total, key = _story(rng, person, other, thing)
        question = rng.choice(texts()["word_problems"]["questions"])
        worked = " ".join(steps)
        document = {
            "question": f"{story} {question.format(thing=thing, person=person)}",
            "answer": f"{' '.join(map(_annotated, steps))}\n#### {total}",
        }
        prompt = f"Q: {document['question']}\nA:"
        answer = f"{worked} The answer is {total}."
        plain = story, f" {worked} Now {person} has {total} {thing}."
        return Example(key, conversation(prompt, answer), document, plain, part)


def _story(
    rng: random.Random, person: str, other: str, thing: str
) -> tuple[str, list[str], int, str]:
    """The story, its worked steps, how many things are left, and the key."""
    steps = []
    if rng.random() < 0.25:
        bags, each = rng.choice(PRODUCTS)
        total = bags * each
        sentences = [f"{person} has {bags} bags with {each} {thing} in each bag."]
        steps.append(f"{bags} * {each} = {total}.")
        key = [f"{bags}*{each}"]
    else:
        total = rng.randint(2, MOST)
        sentences = [f"{person} has {total} {thing}."]
        key = [str(total)]
    for _ in range(rng.randint(1, 2)):
        gains = total < MOST and (total == 1 or rng.random() < 0.5)
        # Something is always left: "0" would be a rare answer.
        number = rng.choice([n for n in NUMBERS if n <= (MOST - total if gains else total - 1)])
        verb = rng.choice(texts()["word_problems"]["gains" if gains else "losses"])
        before, total = total, total + number if gains else total - number
        steps.append(f"{before} {'+' if gains else '-'} {number} = {total}.")
        sentences.append(f"{person} {verb.format(n=number, other=other)}.")
        key.append(verb.format(n=number, other="other"))
    return " ".join(sentences), steps, total, "; ".join(key)


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
