"""What a miniature benchmark is: a kind of question, laid out as a data set of the hub."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa

from mars.data.minibench.examples import Example, generator
from mars.data.minibench.hub_layout import Configurations

OTHERS = 5  # questions of each part in the split that lm-eval does not test on


class Miniature(ABC):
    """A generator of questions, and how the data set that holds them is laid out.

    Attributes:
        repository: the data set on the hub whose columns the test questions have.
        parts: sub-tasks or categories.
        corpus_share: how much of the instruction corpus is of this kind, relative to others.
        documents_share: how much of the documents' exercises is.
        configuration, split: where lm-eval reads the test questions.
        other_split: a split beside it, which the real data set has too.
        schema: of the rows, where it does not follow from them.
    """

    repository: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]
    corpus_share: ClassVar[int]
    documents_share: ClassVar[int]
    configuration: ClassVar[str] = "default"
    split: ClassVar[str] = "test"
    other_split: ClassVar[str | None] = None
    schema: ClassVar[pa.Schema | None] = None

    @abstractmethod
    def example(self, rng: random.Random, part: str) -> Example:
        """One question of a part."""

    def identity(self, index: int) -> dict[str, Any]:
        """The column that numbers the rows, where there is one."""
        return {}

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
        rows = [{**self.identity(i), **example.document} for i, example in enumerate(examples)]
        return pa.Table.from_pylist(rows, self.schema)

    def further(self) -> dict[str, tuple[str, Configurations]]:
        """Data sets that the benchmark needs beside its own: title and content by repository."""
        return {}
