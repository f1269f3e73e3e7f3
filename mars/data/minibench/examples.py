"""What every generator of questions returns, and how questions are drawn without repetition."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from mars.errors import UserError

Message = dict[str, str]
Passage = tuple[str, str]
"""A document in two parts: what is given, and what follows from it."""

# Draws in a row that bring nothing new before we say that the questions are used up.
_PATIENCE = 2000


@dataclass(frozen=True)
class Example:
    """One question with its worked answer.

    Attributes:
        key: what makes the question what it is; training and test examples share no key.
        messages: the conversation as lm-eval sends it, ending with the assistant's answer.
        document: the row of the benchmark's data set on the hub.
        plain: the question and its answer as a short passage, for the documents of pre-training.
        part: sub-task or category inside the benchmark.
    """

    key: str
    messages: tuple[Message, ...]
    document: dict[str, Any]
    plain: Passage
    part: str = ""

    def after(self, shots: Iterable[Example]) -> Example:
        """The same question after worked examples, as turns between system and user message."""
        system = [message for message in self.messages if message["role"] == "system"]
        turns = [message for shot in shots for message in shot.messages[-2:]]
        return replace(self, messages=(*system, *turns, *self.messages[-2:]))


def conversation(prompt: str, answer: str, system: str = "") -> tuple[Message, ...]:
    """Messages of one question and its answer; ``system`` is lm-eval's task description."""
    head = ({"role": "system", "content": system},) if system else ()
    return (
        *head,
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": answer},
    )


def generator(seed: int, *names: str) -> random.Random:
    """A random generator of its own for each named part: the same in every process."""
    return random.Random("/".join([str(seed), *names]))


def draw(
    sample: Callable[[], Example], count: int, excluded: Iterable[str], distinct: bool = True
) -> list[Example]:
    """``count`` examples whose keys are not in ``excluded`` (and differ, if ``distinct``).

    Raises:
        UserError: the generator has fewer such questions than asked for.
    """
    drawn: list[Example] = []
    taken = set(excluded)
    misses = 0
    while len(drawn) < count:
        example = sample()
        if example.key in taken:
            misses += 1
            if misses > _PATIENCE:
                raise UserError(
                    f"{count} questions of the kind {example.part or example.key!r} were asked "
                    f"for but only about {len(drawn)} exist; choose a smaller "
                    "`data.benchmark_documents`."
                )
            continue
        misses = 0
        drawn.append(example)
        if distinct:
            taken.add(example.key)
    return drawn
