"""The invented world that the documents describe and the questions ask about."""

from __future__ import annotations

import random
from dataclasses import dataclass


def words(text: str) -> tuple[str, ...]:
    """The words of a list written as plain text."""
    return tuple(text.split())


PEOPLE = words("Ada Ben Dan Eva Gus Ivo Kim Leo Mia Rex Sam Zoe")
TOWNS = words("Arn Bel Corv Dorn Esk Falm Gor Holm Ister Jura")
JOBS = words("baker miller farmer tailor sailor painter doctor teacher smith singer")
PETS = words("goat cat dog bat fox hen duck pony crab mouse")
FOODS = words("soup rice bread cheese beans corn fish cake honey stew")
GOODS = words("figs plums pears nuts limes rugs pots bells lamps ropes")
COLORS = words("red blue green pink black white gray brown gold teal")


@dataclass(frozen=True)
class Relation:
    """One kind of fact: how it is said, how it is asked, and what the answers are.

    ``statement`` and ``wordings`` are templates over ``{s}`` (subject) and ``{v}`` (value);
    ``phrase`` names the value of a subject ("the pet of {s}").
    """

    name: str
    statement: str
    phrase: str
    wordings: tuple[str, ...]
    questions: tuple[str, ...]
    values: tuple[str, ...]


PERSON_RELATIONS = (
    Relation(
        "town",
        "{s} lives in {v}.",
        "the town of {s}",
        ("The town of {s} is {v}.", "The home of {s} is in {v}."),
        ("Where does {s} live?", "What is the town of {s}?", "In which town is the home of {s}?"),
        TOWNS,
    ),
    Relation(
        "job",
        "{s} is a {v}.",
        "the job of {s}",
        ("The job of {s} is {v}.", "{s} works as a {v}."),
        ("What is the job of {s}?", "As what does {s} work?", "What work does {s} do all day?"),
        JOBS,
    ),
    Relation(
        "pet",
        "{s} has a {v}.",
        "the pet of {s}",
        ("The pet of {s} is a {v}.", "{s} feeds a {v}."),
        ("What is the pet of {s}?", "Which pet does {s} have?", "What does {s} feed?"),
        PETS,
    ),
    Relation(
        "food",
        "{s} likes {v}.",
        "the food of {s}",
        ("The food of {s} is {v}.", "{s} eats {v}."),
        ("What does {s} like to eat?", "What is the food of {s}?", "Which food does {s} like?"),
        FOODS,
    ),
    Relation(
        "friend",
        "The friend of {s} is {v}.",
        "the friend of {s}",
        ("{s} has a friend, {v}.", "{s} often meets {v}."),
        ("Who is the friend of {s}?", "Which friend does {s} have?", "Who does {s} often meet?"),
        PEOPLE,
    ),
)
TOWN_RELATIONS = (
    Relation(
        "goods",
        "{s} sells {v}.",
        "the goods of {s}",
        ("The goods of {s} are {v}.", "In {s} they sell {v}."),
        ("What does {s} sell?", "What are the goods of {s}?", "What do they sell in {s}?"),
        GOODS,
    ),
    Relation(
        "flag",
        "The flag of {s} is {v}.",
        "the flag of {s}",
        ("{s} has a {v} flag.", "A {v} flag is seen in {s}."),
        ("What color is the flag of {s}?", "Which flag does {s} have?", "How is the flag of {s}?"),
        COLORS,
    ),
)
RELATIONS = {relation.name: relation for relation in (*PERSON_RELATIONS, *TOWN_RELATIONS)}


@dataclass(frozen=True)
class World:
    """All facts: ``facts[relation][subject]`` is the value."""

    facts: dict[str, dict[str, str]]

    @classmethod
    def invent(cls, rng: random.Random) -> World:
        """Values spread evenly over the subjects, nobody their own friend."""
        facts: dict[str, dict[str, str]] = {}
        for relation in PERSON_RELATIONS[:-1]:
            facts[relation.name] = dict(
                zip(PEOPLE, _spread(rng, relation.values, len(PEOPLE)), strict=True)
            )
        circle = rng.sample(PEOPLE, len(PEOPLE))
        facts["friend"] = dict(zip(circle, circle[1:] + circle[:1], strict=True))
        for relation in TOWN_RELATIONS:
            facts[relation.name] = dict(
                zip(TOWNS, rng.sample(relation.values, len(TOWNS)), strict=True)
            )
        return cls(facts)

    def value(self, relation: str, subject: str) -> str:
        """The value of ``subject`` under ``relation``."""
        return self.facts[relation][subject]

    def statement(self, relation: str, subject: str) -> str:
        """The plain sentence of one fact."""
        return RELATIONS[relation].statement.format(s=subject, v=self.value(relation, subject))

    def wordings(self, relation: str, subject: str) -> list[str]:
        """Other sentences of the same fact."""
        value = self.value(relation, subject)
        return [text.format(s=subject, v=value) for text in RELATIONS[relation].wordings]

    def portrait(self, rng: random.Random) -> str:
        """A passage about one person, or one town, in several wordings."""
        relations: tuple[Relation, ...]
        if rng.random() < 0.2:
            subject, relations = rng.choice(TOWNS), TOWN_RELATIONS
        else:
            subject, relations = rng.choice(PEOPLE), PERSON_RELATIONS
        names = [relation.name for relation in relations]
        rng.shuffle(names)
        sentences = [
            rng.choice([self.statement(name, subject), *self.wordings(name, subject)])
            for name in names
        ]
        return " ".join(sentences)

    def walk(self, rng: random.Random) -> str:
        """A passage that goes from a person to what belongs to the friend or the town."""
        sentences = []
        for _ in range(2):
            person = rng.choice(PEOPLE)
            link = rng.choice(["town", "friend"])
            target = self.value(link, person)
            relation = rng.choice(TOWN_RELATIONS if link == "town" else PERSON_RELATIONS[:-1])
            sentences += [self.statement(link, person), self.statement(relation.name, target)]
        return " ".join(sentences)


def _spread(rng: random.Random, values: tuple[str, ...], count: int) -> list[str]:
    """``count`` values, each as often as the others within one."""
    repeated = [values[i % len(values)] for i in range(count)]
    rng.shuffle(repeated)
    return repeated
