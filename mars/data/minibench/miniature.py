"""What a miniature benchmark is: a kind of question, laid out as a data set of the hub."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa

from mars.errors import UserError

Message = dict[str, str]
Passage = tuple[str, str]
"""A document in two parts: what is given, and what follows from it."""
Configurations = Mapping[str, Mapping[str, pa.Table]]
"""The rows of a data set by configuration and split."""

OTHERS = 5  # questions of each part in the split that lm-eval does not test on
PATIENCE = 2000  # draws in a row without a new question before the questions count as used up


@dataclass(frozen=True)
class Example:
    """One question with its worked answer."""

    key: str  # what makes the question what it is; training and test examples share no key
    messages: tuple[Message, ...]  # as lm-eval sends them, and the assistant's answer
    document: dict[str, Any]  # the row of the benchmark's data set on the hub
    plain: Passage  # question and answer as a short passage, for the documents of pre-training
    part: str  # sub-task or category inside the benchmark

    def after(self, shots: Iterable[Example]) -> Example:
        """The same question after worked examples, as turns between system and user message."""
        turns = [message for shot in shots for message in shot.messages[-2:]]
        return replace(self, messages=(*self.messages[:-2], *turns, *self.messages[-2:]))


def conversation(prompt: str, answer: str, system: str = "") -> tuple[Message, ...]:
    """Messages of one question and its answer; ``system`` is lm-eval's task description."""
    turns = {"system": system, "user": prompt, "assistant": answer}
    return tuple({"role": role, "content": text} for role, text in turns.items() if text)


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
        if example.key not in taken:
            misses = 0
            drawn.append(example)
            if distinct:
                taken.add(example.key)
        elif (misses := misses + 1) > PATIENCE:
            raise UserError(
                f"{count} questions of the kind {example.part!r} were asked for but only about "
                f"{len(drawn)} exist; choose a smaller `data.benchmark_documents`."
            )
    return drawn


class Miniature(ABC):
    """A generator of questions, and how the data set that holds them is laid out."""

    repository: ClassVar[str]  # on the hub, whose columns the test questions have
    parts: tuple[str, ...]  # sub-tasks or categories
    corpus_share: ClassVar[int]  # of the instruction corpus, relative to others
    documents_share: ClassVar[int]  # of the documents' exercises
    configuration: ClassVar[str] = "default"  # where lm-eval reads the test questions
    split: ClassVar[str] = "test"
    other_split: ClassVar[str | None] = None  # one that the real data set has too
    schema: ClassVar[pa.Schema | None] = None  # of the rows, if it does not follow from them
    numbered: ClassVar[tuple[str, Callable[[int], Any]] | None] = None  # column, and its values

    @abstractmethod
    def example(self, rng: random.Random, part: str) -> Example:
        """One question of a part."""

    def configurations(self, tests: Sequence[Example], seed: int) -> Configurations:
        """The data set: its configurations, their splits and rows."""
        splits = {self.split: self._table(tests)}
        if self.other_split is not None:
            others = [
                self.example(generator(seed, self.repository, part, "other-split", str(i)), part)
                for part in self.parts
                for i in range(OTHERS)
            ]
            splits = {self.other_split: self._table(others), **splits}
        return {self.configuration: splits}

    def _table(self, examples: Sequence[Example]) -> pa.Table:
        rows = [example.document for example in examples]
        if self.numbered:
            column, number = self.numbered
            rows = [{column: number(index), **row} for index, row in enumerate(rows)]
        return pa.Table.from_pylist(rows, self.schema)

    def further(self) -> dict[str, tuple[str, Configurations]]:
        """Further data sets that the benchmark needs: title and content by repository."""
        return {}
