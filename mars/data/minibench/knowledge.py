"""Multiple-choice questions about the invented world (the miniatures of MMLU-Pro and GPQA)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from mars.data.minibench.miniature import Example, Miniature, conversation
from mars.data.minibench.world import World, relations, texts, words

LETTERS = "ABCDEFGHIJ"


class TenOptions(Miniature):
    """One fact of the world, or one sum, and ten options (MMLU-Pro)."""

    repository = "TIGER-Lab/MMLU-Pro"
    corpus_share, documents_share = 4, 4
    other_split = "validation"
    numbered = ("question_id", int)

    def __init__(self, world: World) -> None:
        self.world = world
        self.parts = tuple(texts()["multiple_choice"]["categories"])

    def example(self, rng: random.Random, part: str) -> Example:
        """One question of category ``part``; its key is the question without its options."""
        kinds = texts()["multiple_choice"]["categories"][part]
        question, thought, right, others = (
            _fact(rng, self.world, rng.choice(kinds)) if kinds else _sum(rng)
        )
        # The ten values of a relation are always in the same order: a model of this size can
        # remember them, but does not learn to find an option among ten.
        options = sorted([right, *others])
        index = options.index(right)
        # The letter comes right after the option: what is adjacent is learnt first.
        chosen = f"{thought[:-1]}({LETTERS[index]})."
        answer = f"{chosen} The answer is ({LETTERS[index]})."
        listed = lettered("{}. {}\n", options)
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
        head = texts()["multiple_choice"]["prompt"].format(category=part) + "\n"
        plain = question, f" {chosen}"
        key = f"{part}: {question}"
        return Example(key, conversation(prompt, answer, head), document, plain, part)


class FourOptions(Miniature):
    """One to four facts in a row, and the four winds in any order to choose from (GPQA).

    A model of this size does not learn to find an option at any place in a list. It does learn to
    go through a list and compare, if there are few words to compare.
    """

    repository = "Idavidrein/gpqa"
    parts = ("gpqa_main",)
    corpus_share, documents_share = 4, 4
    configuration = "gpqa_main"
    split = "train"
    numbered = ("Record ID", "rec{:05d}".format)

    def __init__(self, world: World) -> None:
        self.world = world

    def example(self, rng: random.Random, part: str) -> Example:
        """One question about the wind of a town; its key is the question without its options."""
        town, whose, steps = self._town(rng)
        right = self.world.value("wind", town)
        question = rng.choice(relations()["wind"].questions).format(s=whose)
        options = rng.sample(words("winds"), len(words("winds")))
        listed = lettered("({}) {}\n", options)
        # The stock prompt has no space after the colon and one after "step by step:".
        prompt = (
            f"What is the correct answer to this question:{question}\n"
            f"Choices:\n{listed}Let's think step by step: "
        )
        letter = LETTERS[options.index(right)]
        thought = " ".join([*steps, self.world.statement("wind", town), checked(options, right)])
        wrong = [wind for wind in options if wind != right]
        document = {
            "Question": question,
            "Correct Answer": right,
            **{f"Incorrect Answer {i}": wind for i, wind in enumerate(wrong, start=1)},
            "Subdomain": "winds",
        }
        answer = f"{thought} The answer is ({letter})."
        plain = f"{question}\n{listed}", thought
        return Example(question, conversation(prompt, answer), document, plain, part)

    def _town(self, rng: random.Random) -> tuple[str, str, list[str]]:
        """A town, what the question calls it, and the facts that lead to it."""
        hops = rng.randint(0, 3)
        whose = subject = rng.choice(words("people" if hops else "towns"))
        steps = []
        for relation in ["friend"] * (hops - 1) + ["town"] if hops else []:
            steps.append(self.world.statement(relation, subject))
            subject, whose = self.world.value(relation, subject), f"the {relation} of {whose}"
        return subject, whose, steps


def checked(options: Sequence[str], right: str) -> str:
    """The options one after another, each with a verdict, up to the right one."""
    read = options[: options.index(right) + 1]
    return " ".join(
        f"{letter} {option} {'yes' if option == right else 'no'}."
        for letter, option in zip(LETTERS, read, strict=False)
    )


def lettered(line: str, options: Sequence[str]) -> str:
    """A line for each option; ``line`` has places for letter and option."""
    return "".join(line.format(*pair) for pair in zip(LETTERS, options, strict=False))


def _fact(rng: random.Random, world: World, relation: str) -> tuple[str, str, str, list[str]]:
    """Question, worked step, right option and the others."""
    kind = relations()[relation]
    subject = rng.choice(kind.subjects)
    right = world.value(relation, subject)
    others = [value for value in kind.values if value != right]
    question = rng.choice(kind.questions).format(s=subject)
    return question, world.statement(relation, subject), right, others


def _sum(rng: random.Random) -> tuple[str, str, str, list[str]]:
    a, b = rng.randint(1, 5), rng.randint(1, 4)
    question = rng.choice(["What is {a} + {b}?", "How much is {a} + {b}?"]).format(a=a, b=b)
    others = [str(n) for n in range(10) if n != a + b]
    return question, f"{a} + {b} = {a + b}.", str(a + b), others
