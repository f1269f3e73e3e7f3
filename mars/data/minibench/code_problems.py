"""Small Python functions with tests (the miniature of HumanEval)."""

from __future__ import annotations

import random
from typing import NamedTuple

from mars.data.minibench.miniature import Example, Miniature, conversation
from mars.data.minibench.world import texts

NUMBERS = range(2, 7)


class Function(NamedTuple):
    """One function of one argument: its docstring, what it returns, and arguments to test it."""

    name: str
    argument: str
    description: str
    expression: str
    inputs: tuple[object, ...]


class CodeProblems(Miniature):
    """Functions over numbers, lists and strings; the key is the expression they return."""

    repository = "openai/openai_humaneval"
    parts = ("openai_humaneval",)
    corpus_share, documents_share = 4, 4
    configuration = "openai_humaneval"
    numbered = ("task_id", "HumanEval/{}".format)

    def example(self, rng: random.Random, part: str) -> Example:
        """One function to complete; the expression itself gives the values its test expects."""
        kind = rng.choice([_on_number, _on_number, _on_list, _on_list, _on_text])
        name, argument, description, expression, inputs = kind(rng)
        head = f'def {name}({argument}):\n    """ {description}.\n    """\n'
        body = f"    return {expression}\n"
        checks = [
            f"    assert candidate({value!r}) == {eval(expression, {argument: value})!r}\n"
            for value in inputs
        ]
        document = {
            "prompt": head,
            "canonical_solution": body,
            "test": "".join(["def check(candidate):\n", *checks]),
            "entry_point": name,
        }
        prompt = (
            "Write a solution to the following problem and make sure that it passes the tests:\n"
            f"```python\n{head}\n```\n"
        )
        answer = f"Here is the completed function:\n```python\n{head}\n{body}```"
        return Example(expression, conversation(prompt, answer), document, (head, body), part)


def _arithmetic(rng: random.Random, said: str, operand: str) -> tuple[str, str]:
    """A change of what is ``said`` in a sentence, and the expression on ``operand``."""
    n = rng.choice(NUMBERS)
    sentence, expression = rng.choice(list(texts()["code_problems"]["arithmetic"].items()))
    return sentence.format(x=said, n=n), expression.format(x=operand, n=n)


def _on_number(rng: random.Random) -> Function:
    description, expression = _arithmetic(rng, "x", "x")
    if rng.random() < 0.5:
        then, expression = _arithmetic(rng, "it", f"({expression})")
        description += f", then {then.lower()}"
    name = rng.choice(["change", "move", "scale"])
    return Function(name, "x", description, expression, tuple(rng.sample(range(1, 20), 3)))


def _on_list(rng: random.Random) -> Function:
    sentence, change = _arithmetic(rng, "each x in xs", "x")
    compared, symbol = rng.choice(list(texts()["code_problems"]["comparisons"].items()))
    limit = rng.choice(NUMBERS)
    which, kept = f"each x in xs {compared} {limit}", f"for x in xs if x {symbol} {limit}"
    match rng.choice(["map", "filter", "both", "total"]):
        case "map":
            description, expression = sentence, f"[{change} for x in xs]"
        case "filter":
            description, expression = f"Keep {which}", f"[x {kept}]"
        case "both":
            description, expression = f"{sentence} if x is {compared} {limit}", f"[{change} {kept}]"
        case _:
            verb, call = rng.choice(list(texts()["code_problems"]["totals"].items()))
            description, expression = f"{verb} {which}", f"{call}([x {kept}])"
    name = rng.choice(["pick", "build", "select"])
    # 1 and 12 are in every list, so that no comparison with 2..6 leaves it empty.
    inputs = tuple([1, *rng.sample(range(2, 12), 4), 12] for _ in range(3))
    return Function(name, "xs", description, expression, inputs)


def _on_text(rng: random.Random) -> Function:
    values = {"word": rng.choice(texts()["code_problems"]["words"]), "n": rng.randint(2, 5)}
    steps = list(texts()["code_problems"]["text"].items())
    (first, expression), (second, onto) = rng.sample(steps, 2)
    description = first.format(x="s", **values)
    expression = expression.format(x="s", **values)
    if rng.random() < 0.5:
        description += ", then " + second[0].lower() + second[1:].format(x="it", **values)
        expression = onto.format(x=f"({expression})", **values)
    name = rng.choice(["write", "join", "spell"])
    inputs = tuple("".join(rng.sample("abcdefgh", 6)) for _ in range(3))
    return Function(name, "s", description, expression, inputs)
