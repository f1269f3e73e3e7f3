"""Small Python functions with tests (the miniature of HumanEval)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from mars.data.minibench.examples import Example, conversation
from mars.data.minibench.miniature import Miniature
from mars.data.minibench.world import words

NUMBERS = range(2, 7)
WORDS = words("ab cat dog fox hen bat red sun")
COMPARISONS = {"greater than": ">", "less than": "<"}
TOTALS = {"Sum": "sum", "Count": "len", "Find the largest of": "max", "Sort": "sorted"}


@dataclass(frozen=True)
class Function:
    """One function: signature, docstring, body, and arguments to test it with."""

    name: str
    argument: str
    description: str
    expression: str
    inputs: tuple[object, ...]

    @property
    def prompt(self) -> str:
        return f'def {self.name}({self.argument}):\n    """ {self.description}\n    """\n'

    @property
    def solution(self) -> str:
        return f"    return {self.expression}\n"

    @property
    def test(self) -> str:
        """``check``, with the expected values that the expression itself gives."""
        lines = ["def check(candidate):"]
        for value in self.inputs:
            expected = eval(self.expression, {self.argument: value})
            lines.append(f"    assert candidate({value!r}) == {expected!r}")
        return "\n".join(lines) + "\n"


class CodeProblems(Miniature):
    """Functions over numbers, lists and strings; the key is the expression they return."""

    repository = "openai/openai_humaneval"
    parts = ("openai_humaneval",)
    corpus_share, documents_share = 4, 4
    configuration = "openai_humaneval"

    def identity(self, index: int) -> dict[str, Any]:
        return {"task_id": f"HumanEval/{index}"}

    def example(self, rng: random.Random, part: str) -> Example:
        """One function to complete."""
        function = _function(rng)
        document = {
            "prompt": function.prompt,
            "canonical_solution": function.solution,
            "test": function.test,
            "entry_point": function.name,
        }
        prompt = (
            "Write a solution to the following problem and make sure that it passes the tests:\n"
            f"```python\n{function.prompt}\n```\n"
        )
        answer = (
            f"Here is the completed function:\n```python\n{function.prompt}\n{function.solution}```"
        )
        plain = function.prompt, function.solution
        return Example(function.expression, conversation(prompt, answer), document, plain, part)


def _function(rng: random.Random) -> Function:
    return rng.choice([_on_number, _on_number, _on_list, _on_list, _on_text])(rng)


def _arithmetic(rng: random.Random, operand: str) -> tuple[str, str]:
    """A sentence over ``{}`` (what is changed) and the expression on ``operand``."""
    n = rng.choice(NUMBERS)
    return rng.choice(
        [
            (f"Add {n} to {{}}", f"{operand} + {n}"),
            (f"Take {n} from {{}}", f"{operand} - {n}"),
            (f"Multiply {{}} by {n}", f"{operand} * {n}"),
        ]
    )


def _on_number(rng: random.Random) -> Function:
    sentence, expression = _arithmetic(rng, "x")
    description = sentence.format("x")
    if rng.random() < 0.5:
        then, expression = _arithmetic(rng, f"({expression})")
        description += ", then " + then.format("it").lower()
    name = rng.choice(["change", "move", "scale"])
    return Function(name, "x", description + ".", expression, tuple(rng.sample(range(1, 20), 3)))


def _on_list(rng: random.Random) -> Function:
    sentence, change = _arithmetic(rng, "x")
    words, symbol = rng.choice(list(COMPARISONS.items()))
    limit = rng.choice(NUMBERS)
    kind = rng.choice(["map", "filter", "both", "total"])
    if kind == "map":
        description, expression = sentence.format("each x in xs"), f"[{change} for x in xs]"
    elif kind == "filter":
        description = f"Keep each x in xs {words} {limit}"
        expression = f"[x for x in xs if x {symbol} {limit}]"
    elif kind == "both":
        description = f"{sentence.format('each x in xs')} if x is {words} {limit}"
        expression = f"[{change} for x in xs if x {symbol} {limit}]"
    else:
        verb, call = rng.choice(list(TOTALS.items()))
        description = f"{verb} each x in xs {words} {limit}"
        expression = f"{call}([x for x in xs if x {symbol} {limit}])"
    name = rng.choice(["pick", "build", "select"])
    # 1 and 12 in every list: no comparison with 2..9 leaves nothing to take the largest of.
    inputs = tuple([1, *rng.sample(range(2, 12), 4), 12] for _ in range(3))
    return Function(name, "xs", description + ".", expression, inputs)


def _on_text(rng: random.Random) -> Function:
    word, n = rng.choice(WORDS), rng.randint(2, 5)
    steps = [
        (f'Put "{word}" after {{}}', f'{{}} + "{word}"'),
        (f"Repeat {{}} {n} times", f"{{}} * {n}"),
        (f"Take the first {n} letters of {{}}", f"{{}}[:{n}]"),
        ("Put {} in upper case", "{}.upper()"),
        ("Turn {} around", "{}[::-1]"),
    ]
    first, second = rng.sample(steps, 2)
    description, expression = first[0].format("s"), first[1].format("s")
    if rng.random() < 0.5:
        description += ", then " + _lower(second[0].format("it"))
        expression = second[1].format(f"({expression})")
    name = rng.choice(["write", "join", "spell"])
    inputs = tuple("".join(rng.sample("abcdefgh", 6)) for _ in range(3))
    return Function(name, "s", description + ".", expression, inputs)


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]
