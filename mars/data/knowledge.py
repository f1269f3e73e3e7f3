"""Multiple-choice questions about the invented world (the miniatures of MMLU-Pro and GPQA)."""

from __future__ import annotations

import random

from mars.data.examples import Example, conversation
from mars.data.world import PEOPLE, PERSON_RELATIONS, RELATIONS, TOWN_RELATIONS, TOWNS, World

LETTERS = "ABCDEFGHIJ"

# The kinds of facts that MMLU-Pro's categories ask for; `math` asks for sums.
CATEGORIES = {
    "biology": ("pet",),
    "business": ("job",),
    "health": ("food",),
    "history": ("town",),
    "math": (),
    "other": ("friend", "goods", "flag"),
}
_CATEGORY_HEAD = (
    "The following are multiple choice questions (with answers) about {category}. Think step by "
    'step and then finish your answer with "the answer is (X)" where X is the correct letter '
    "choice.\n"
)


class TenOptions:
    """One fact of the world, or one sum, and ten options (MMLU-Pro)."""

    parts = tuple(CATEGORIES)

    def __init__(self, world: World) -> None:
        self.world = world

    def example(self, rng: random.Random, part: str) -> Example:
        """One question of category ``part``; its key is the question without its options."""
        relations = CATEGORIES[part]
        if relations:
            question, thought, right, others = _fact(rng, self.world, rng.choice(relations))
        else:
            question, thought, right, others = _sum(rng)
        # Sorted: a model of this size does not find an option anywhere among ten.
        options = _in_order([right, *rng.sample(others, 9)])
        index = options.index(right)
        # The letter right behind the option: what is adjacent is learnt first.
        answer = f"{thought[:-1]} ({LETTERS[index]}). The answer is ({LETTERS[index]})."
        listed = _lettered("{}. {}\n", options)
        prompt = f"Question:\n{question}\nOptions:\n{listed}Answer: Let's think step by step."
        document = {
            "question": question,
            "options": options,
            "answer": LETTERS[index],
            "answer_index": index,
            "cot_content": f"A: Let's think step by step. {answer}",
            "category": part,
            "src": "mars-generated",
        }
        head = _CATEGORY_HEAD.format(category=part)
        return Example(f"{part}: {question}", conversation(prompt, answer, head), document, part)

    def passage(self, rng: random.Random) -> str:
        """A portrait, or a lettered list and where its items stand."""
        if rng.random() < 0.7:
            return self.world.portrait(rng)
        relation = rng.choice(list(RELATIONS.values()))
        items = _in_order(rng.sample(relation.values, 10))
        listed = _lettered(rng.choice(["{}. {}\n", "({}) {}\n"]), items)
        read = rng.sample(range(10), 10)
        return listed + ". ".join(f"{items[i]} ({LETTERS[i]})" for i in read) + "."


class FourOptions:
    """Two facts in a row and four options (GPQA)."""

    parts = ("gpqa_main",)

    def __init__(self, world: World) -> None:
        self.world = world

    def example(self, rng: random.Random, part: str) -> Example:
        """One question of two steps; its key is the question without its options."""
        person, link = rng.choice(PEOPLE), rng.choice(["town", "friend"])
        relation = rng.choice(TOWN_RELATIONS if link == "town" else PERSON_RELATIONS[:-1])
        target = self.world.value(link, person)
        right = self.world.value(relation.name, target)
        wording = rng.choice(relation.questions)
        question = wording.format(s=RELATIONS[link].phrase.format(s=person))
        wrong = rng.sample([value for value in relation.values if value != right], 3)
        options = [right, *wrong]
        rng.shuffle(options)
        listed = _lettered("({}) {}\n", options)
        # The stock prompt has no space after the colon and one after "step by step:".
        prompt = (
            f"What is the correct answer to this question:{question}\n"
            f"Choices:\n{listed}Let's think step by step: "
        )
        letter = LETTERS[options.index(right)]
        thought = (
            f"{self.world.statement(link, person)} {self.world.statement(relation.name, target)}"
        )
        answer = f"{thought} {search(options, right)} The answer is ({letter})."
        document = {
            "Question": question,
            "Correct Answer": right,
            "Incorrect Answer 1": wrong[0],
            "Incorrect Answer 2": wrong[1],
            "Incorrect Answer 3": wrong[2],
            "Subdomain": relation.name,
        }
        return Example(question, conversation(prompt, answer), document, part)

    def passage(self, rng: random.Random) -> str:
        """From a person to the town's goods, or a lettered list that is searched repeatedly."""
        if rng.random() < 0.4:
            return self.world.walk(rng)
        relation = rng.choice(list(RELATIONS.values()))
        items = rng.sample(relation.values, rng.choice([3, 4]))
        wanted = rng.choices(items, k=4)
        listed = _lettered("({}) {}\n", items)
        return listed + " ".join(f"It is {item}. {search(items, item)}" for item in wanted)


def _in_order(options: list[str]) -> list[str]:
    """Numbers by size, words by the alphabet."""
    return sorted(options, key=lambda option: (len(option) if option.isdigit() else 0, option))


def search(options: list[str], right: str) -> str:
    """Read the options with their letters until the right one is reached, which comes last."""
    read = options[: options.index(right) + 1]
    return (
        ", ".join(f"{letter} {option}" for letter, option in zip(LETTERS, read, strict=False)) + "."
    )


def _lettered(line: str, options: list[str]) -> str:
    return "".join(line.format(*pair) for pair in zip(LETTERS, options, strict=False))


def _fact(rng: random.Random, world: World, relation: str) -> tuple[str, str, str, list[str]]:
    """Question, worked step, right option and the others."""
    kind = RELATIONS[relation]
    subject = rng.choice(TOWNS if kind in TOWN_RELATIONS else PEOPLE)
    right = world.value(relation, subject)
    others = [value for value in kind.values if value not in (right, subject)]
    question = rng.choice(kind.questions).format(s=subject)
    return question, world.statement(relation, subject), right, others


def _sum(rng: random.Random) -> tuple[str, str, str, list[str]]:
    a, b = rng.randint(2, 7), rng.randint(2, 7)
    question = rng.choice(["What is {a} + {b}?", "How much is {a} + {b}?"]).format(a=a, b=b)
    others = [str(n) for n in range(4, 15) if n != a + b]
    return question, f"{a} + {b} = {a + b}.", str(a + b), others
