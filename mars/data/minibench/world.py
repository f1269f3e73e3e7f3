"""The invented world that the documents describe and the questions ask about."""

from __future__ import annotations

import random
from dataclasses import dataclass

from mars.data.minibench.examples import generator


def words(text: str) -> tuple[str, ...]:
    """The words of a list written as plain text."""
    return tuple(text.split())


PEOPLE = words("Ada Ben Dan Eva Kim Leo Mia Zoe")
TOWNS = words("Arn Bel Corv Dorn Esk Falm Gor Holm Ister Jura")
JOBS = words("baker miller farmer tailor sailor painter doctor teacher smith singer")
PETS = words("goat cat dog bat fox hen duck pony crab mouse")
FOODS = words("soup rice bread cheese beans corn fish cake honey stew")
GOODS = words("figs plums pears nuts limes rugs pots bells lamps ropes")
COLORS = words("red blue green pink black white gray brown gold teal")
WINDS = words("north east south west")


@dataclass(frozen=True)
class Relation:
    """One kind of fact: "The pet of Kim is goat.", how it is asked, and what the answers are.

    ``questions`` are templates over ``{s}``, the subject: a name, or "the friend of Kim".
    """

    name: str
    questions: tuple[str, ...]
    values: tuple[str, ...]


def _relation(name: str, values: tuple[str, ...], questions: str) -> Relation:
    return Relation(name, tuple(f"{q}?" for q in questions.rstrip("?").split("? ")), values)


PERSON_RELATIONS = (
    _relation(
        "town",
        TOWNS,
        "What is the town of {s}? Where does {s} live? Where is the home of {s}? "
        "Which town is the home of {s}?",
    ),
    _relation(
        "job",
        JOBS,
        "What is the job of {s}? What is the work of {s}? Which job does {s} have? "
        "What does {s} work as?",
    ),
    _relation(
        "pet",
        PETS,
        "What is the pet of {s}? Which pet does {s} have? What does {s} feed? "
        "Which pet lives with {s}?",
    ),
    _relation(
        "food",
        FOODS,
        "What is the food of {s}? Which food does {s} like? What does {s} eat? "
        "What does {s} like to eat?",
    ),
)
TOWN_RELATIONS = (
    _relation(
        "trade",
        GOODS,
        "What is the trade of {s}? What does {s} sell? Which goods does {s} sell? "
        "What do they sell in {s}?",
    ),
    _relation(
        "flag",
        COLORS,
        "What is the flag of {s}? Which flag does {s} have? What color is the flag of {s}? "
        "Which flag is seen in {s}?",
    ),
)
WIND = _relation(
    "wind",
    WINDS,
    "What is the wind of {s}? Which wind blows in {s}? Which wind does {s} have? "
    "Which wind is felt in {s}? Where does the wind of {s} come from?",
)
# Only a step on the way to another fact: nobody is asked for it.
FRIEND = Relation("friend", (), PEOPLE)
RELATIONS = {
    relation.name: relation for relation in (*PERSON_RELATIONS, *TOWN_RELATIONS, WIND, FRIEND)
}


@dataclass(frozen=True)
class World:
    """All facts: ``facts[relation][subject]`` is the value."""

    facts: dict[str, dict[str, str]]

    @classmethod
    def invent(cls, rng: random.Random) -> World:
        """Values differ between subjects, but for the winds; nobody is their own friend."""
        facts = {
            relation.name: dict(zip(PEOPLE, rng.sample(relation.values, len(PEOPLE)), strict=True))
            for relation in PERSON_RELATIONS
        }
        circle = rng.sample(PEOPLE, len(PEOPLE))
        facts["friend"] = dict(zip(circle, circle[1:] + circle[:1], strict=True))
        for relation in TOWN_RELATIONS:
            facts[relation.name] = dict(
                zip(TOWNS, rng.sample(relation.values, len(TOWNS)), strict=True)
            )
        facts["wind"] = {town: rng.choice(WINDS) for town in TOWNS}
        return cls(facts)

    @classmethod
    def of(cls, seed: int) -> World:
        """The world of a seed."""
        return cls.invent(generator(seed, "world"))

    def value(self, relation: str, subject: str) -> str:
        """The value of ``subject`` under ``relation``."""
        return self.facts[relation][subject]

    def statement(self, relation: str, subject: str) -> str:
        """The sentence of one fact. No name begins it: there, a name would be another token."""
        return f"The {relation} of {subject} is {self.value(relation, subject)}."
