"""Small logic puzzles in the form of BIG-Bench Hard's sub-tasks, with short chains of thought."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import pyarrow as pa

from mars.data.minibench.miniature import (
    Configurations,
    Example,
    Miniature,
    conversation,
    draw,
    generator,
)
from mars.data.minibench.world import texts, words

FEWSHOT = "mars-generated/bbh-fewshot"
SHOTS = 3
# Share of the training examples that follow worked examples, as the test questions do.
_WITH_SHOTS = 0.5


class Puzzle(NamedTuple):
    """A question with the premises it contains, a chain of thought, and the answer."""

    question: str
    premises: str
    thought: str
    answer: str


class LogicTasks(Miniature):
    """Four sub-tasks; questions come after three worked examples per sub-task."""

    repository = "SaylorTwift/bbh"
    corpus_share, documents_share = 5, 5

    def __init__(self, seed: int) -> None:
        self.parts = tuple(_PUZZLES)
        self.shots = {
            part: draw(partial(_example, generator(seed, "bbh-fewshot", part), part), SHOTS, ())
            for part in self.parts
        }
        self._shot_keys = {shot.key for shots in self.shots.values() for shot in shots}

    def example(self, rng: random.Random, part: str) -> Example:
        """One puzzle that is not a worked example; its key is the sub-task and the question."""
        example = _example(rng, part)
        while example.key in self._shot_keys:
            example = _example(rng, part)
        return example.after(self.shots[part]) if rng.random() < _WITH_SHOTS else example

    def configurations(self, tests: Sequence[Example], seed: int) -> Configurations:
        """One configuration per sub-task."""
        return {
            part: {self.split: self._table([test for test in tests if test.part == part])}
            for part in self.parts
        }

    def further(self) -> dict[str, tuple[str, Configurations]]:
        """`input` and worked `target`, as the samples of a `fewshot_config`."""
        tables = {}
        for part, shots in self.shots.items():
            rows = [{**shot.document, "target": shot.messages[-1]["content"]} for shot in shots]
            tables[part] = {"train": pa.Table.from_pylist(rows)}
        title = (
            "Worked examples for the generated miniature of BBH: one configuration per sub-task."
        )
        return {FEWSHOT: (title, tables)}


def _example(rng: random.Random, part: str) -> Example:
    question, premises, thought, answer = _PUZZLES[part](rng)
    worked = f"{thought} So the answer is {answer}."
    prompt = f"Q: {question}\nA: Let's think step by step.\n"
    system = texts()["logic_tasks"]["descriptions"][part] + "\n\n"
    messages = conversation(prompt, worked, system)
    document = {"input": question, "target": answer}
    return Example(f"{part}: {question}", messages, document, (premises, f" {worked}"), part)


def _boolean(rng: random.Random) -> Puzzle:
    terms, values, thoughts = [], [], []
    for _ in range(3):
        value = rng.random() < 0.5
        term = str(value)
        if rng.random() < 0.3:
            term, value = f"not {value}", not value
            thoughts.append(f"{term} = {value}.")
        terms.append(term)
        values.append(value)
    text, result = terms[0], values[0]
    for term, value in zip(terms[1:], values[1:], strict=True):
        operator = rng.choice(["and", "or"])
        text = f"( {text} )" if " and " in text or " or " in text else text
        text += f" {operator} {term}"
        before, result = result, (result and value) if operator == "and" else (result or value)
        thoughts.append(f"{before} {operator} {value} = {result}.")
    return Puzzle(f"{text} is", f"{text}.", " ".join(thoughts), str(result))


def _navigate(rng: random.Random) -> Puzzle:
    a, b = rng.randint(1, 4), rng.randint(1, 3)
    first, second = rng.choice([("left", "right"), ("right", "left")])
    back = a + b if rng.random() < 0.5 else rng.choice([n for n in range(2, 8) if n != a + b])
    moves = f"Take {a} steps {first}. Take {b} steps {first}. Take {back} steps {second}."
    text = (
        "If you follow these instructions, do you return to the starting point? Always face "
        f"forward. {moves}\nOptions:\n- Yes\n- No"
    )
    same = "is" if back == a + b else "is not"
    thought = f"{a} + {b} = {a + b}. {a + b} {same} {back}."
    return Puzzle(text, moves, thought, "Yes" if back == a + b else "No")


def _count(rng: random.Random) -> Puzzle:
    kinds, counts = (texts()["logic_tasks"][key] for key in ("kinds", "counts"))
    kind, other = rng.sample(list(kinds), 2)
    first, second = rng.sample(kinds[kind], 2)
    third = rng.choice(kinds[other])
    a, b, c = (rng.choice(list(counts)) for _ in range(3))
    counted = [f"{counts[a]} {first}", f"{counts[b]} {second}"]
    things = list(counted)
    things.insert(rng.randint(0, 2), f"{counts[c]} {third}")
    have = f"I have {things[0]}, {things[1]}, and {things[2]}."
    thought = f"The {kind} are {' and '.join(counted)}. {a} + {b} = {a + b}."
    return Puzzle(f"{have} How many {kind} do I have?", have, thought, str(a + b))


def _lies(rng: random.Random) -> Puzzle:
    people = rng.sample(words("people"), 3)
    truthful = rng.random() < 0.5
    says = {True: "tells the truth", False: "lies"}
    sentences = [f"{people[0]} {says[truthful]}."]
    thoughts = list(sentences)
    for before, person in pairwise(people):
        claim = rng.random() < 0.5
        sentences.append(f"{person} says {before} {says[claim]}.")
        truthful = truthful == claim
        thoughts.append(f"{person} {says[truthful]}.")
    said = " ".join(sentences)
    text = f"Question: {said} Does {people[-1]} tell the truth?"
    return Puzzle(text, said, " ".join(thoughts), "Yes" if truthful else "No")


_PUZZLES: dict[str, Callable[[random.Random], Puzzle]] = {
    "boolean_expressions": _boolean,
    "navigate": _navigate,
    "object_counting": _count,
    "web_of_lies": _lies,
}
