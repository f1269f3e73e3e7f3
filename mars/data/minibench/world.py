"""The invented world that the documents describe and the questions ask about."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mars.data.minibench.miniature import generator


@cache
def texts() -> dict[str, Any]:
    """The sections of `texts.yaml`."""
    return yaml.safe_load((Path(__file__).parent / "texts.yaml").read_text())


def words(kind: str) -> list[str]:
    """The words of a kind: people, towns..."""
    return texts()["words"][kind]


@dataclass(frozen=True)
class Relation:
    """A kind of fact: whom or what it is about, its values, and templates of questions."""

    subjects: list[str]
    values: list[str]
    questions: list[str]


def relations() -> dict[str, Relation]:
    """The kinds of facts by name, first those about people."""
    return {
        name: Relation(words(kind["of"]), words(kind["values"]), kind["questions"])
        for name, kind in texts()["relations"].items()
    }


@dataclass(frozen=True)
class World:
    """All facts: ``facts[relation][subject]`` is the value."""

    facts: dict[str, dict[str, str]]

    @classmethod
    def of(cls, seed: int) -> World:
        """Subjects have different values, except for winds; nobody is their own friend."""
        rng = generator(seed, "world")
        facts: dict[str, dict[str, str]] = {}
        for name, kind in relations().items():
            subjects = kind.subjects
            if name == "wind":
                values = [rng.choice(kind.values) for _ in subjects]
            else:
                values = rng.sample(kind.values, len(subjects))
            if name == "friend":  # a circle
                subjects, values = values, values[1:] + values[:1]
            facts[name] = dict(zip(subjects, values, strict=True))
        return cls(facts)

    def value(self, relation: str, subject: str) -> str:
        """The value of ``subject`` under ``relation``."""
        return self.facts[relation][subject]

    def statement(self, relation: str, subject: str) -> str:
        """The sentence of one fact. No name begins it, because there it would be another token."""
        return f"The {relation} of {subject} is {self.value(relation, subject)}."
