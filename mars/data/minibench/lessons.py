"""Plain documents without a question, which teach a small model the steps of the exercises."""

from __future__ import annotations

import random
from collections.abc import Callable

from mars.data.minibench.knowledge import checked, lettered
from mars.data.minibench.miniature import Passage
from mars.data.minibench.word_problems import addition_or_product
from mars.data.minibench.world import World, relations, texts, words


def echo(rng: random.Random, world: World) -> Passage:
    """Words said three times in the same order, which teach looking back and copying."""
    known = [word for kind in texts()["words"] if kind != "winds" for word in words(kind)]
    known += [str(number) for number in range(2, 10)]
    said = " ".join(rng.sample(known, rng.randint(4, 10)))
    return f"{said}.", f" {said}. {said}."


def portrait(rng: random.Random, world: World) -> Passage:
    """All facts about one person and their town in any order, to be learnt by heart."""
    person = rng.choice(words("people"))
    town = world.value("town", person)
    facts = [
        (name, person if kind.subjects == words("people") else town)
        for name, kind in relations().items()
    ]
    rng.shuffle(facts)
    return "", " ".join(world.statement(*fact) for fact in facts)


def sums(rng: random.Random, world: World) -> Passage:
    """Sums, differences and products on their own."""
    return "", " ".join(addition_or_product(rng) for _ in range(8))


def choice(rng: random.Random, world: World) -> Passage:
    """A list of options, gone through until one is found."""
    options = rng.sample(words("winds"), len(words("winds")))
    right = rng.choice(options)
    listed = lettered("({}) {}\n", options)
    return f"{listed}It is {right}.", f" {checked(options, right)}"


Lesson = Callable[[random.Random, World], Passage]
# Each with its share of the documents, beside those of the exercises.
LESSONS: dict[Lesson, int] = {echo: 3, sums: 5, portrait: 3, choice: 5}
