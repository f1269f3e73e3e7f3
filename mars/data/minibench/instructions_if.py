"""Instructions that can be checked automatically (the miniature of IFEval)."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from mars.data.minibench.miniature import Example, Miniature, conversation
from mars.data.minibench.world import World, texts, words

# What a list says about its subject, in this order: nothing in a response is arbitrary, so a model
# that has learnt the instruction is sure of every token.
_TOLD = ("job", "pet", "food", "friend")

TEXT = pa.string()
ARGUMENTS = {
    **{"end_phrase": TEXT, "frequency": pa.int64(), "keyword": TEXT, "keywords": pa.list_(TEXT)},
    **{"num_bullets": pa.int64(), "num_highlights": pa.int64()},
    **{"postscript_marker": TEXT, "relation": TEXT},
}


@dataclass
class Draft:
    """A response being written; each instruction adds to it or changes it."""

    subject: str
    world: World
    sentences: list[str]
    head: list[str] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)
    quoted: bool = False

    def text(self) -> str:
        """The finished response."""
        text = "\n".join([*self.head, " ".join(self.sentences), *self.tail])
        return f'"{text}"' if self.quoted else text


class Instructions(Miniature):
    """Requests to write about a person under one or two of lm-eval's own instructions."""

    repository = "google/IFEval"
    parts = ("default",)
    corpus_share, documents_share = 5, 4
    split = "train"
    numbered = ("key", int)
    schema = pa.schema(
        {"key": pa.int64(), "prompt": TEXT, "instruction_id_list": pa.list_(TEXT)}
        | {"kwargs": pa.list_(pa.struct(ARGUMENTS))}
    )

    def __init__(self, world: World) -> None:
        self.world = world

    def example(self, rng: random.Random, part: str) -> Example:
        """One request; its key is the subject and the instructions with their arguments."""
        subject = rng.choice(words("people"))
        draft = Draft(subject, self.world, [self.world.statement("town", subject)])
        wanted: dict[str, str] = texts()["instructions"]["wordings"]
        chosen = sorted(rng.sample(list(wanted), rng.choice([1, 2, 2])), key=list(wanted).index)
        arguments = [_FOLLOW[instruction](rng, draft) for instruction in chosen]
        wordings = [
            wanted[instruction].format(**given)
            for instruction, given in zip(chosen, arguments, strict=True)
        ]
        rng.shuffle(wordings)
        request = rng.choice(texts()["instructions"]["requests"]).format(s=subject)
        prompt = " ".join([request, *wordings])
        document = {"prompt": prompt, "instruction_id_list": chosen, "kwargs": arguments}
        key = "; ".join([subject, *sorted(wordings)])
        answer = draft.text()
        return Example(key, conversation(prompt, answer), document, (f"{prompt}\n", answer), part)


# Each follows one instruction in the draft and returns its arguments.


def _title(rng: random.Random, draft: Draft) -> dict[str, Any]:
    draft.head.append(f"<< {draft.subject} >>")
    return {}


def _keywords(rng: random.Random, draft: Draft) -> dict[str, Any]:
    first, second = rng.sample(words("goods"), 2)
    draft.sentences.append(f"We see {first} and {second}.")
    return {"keywords": [first, second]}


def _frequency(rng: random.Random, draft: Draft) -> dict[str, Any]:
    word, times = rng.choice(words("goods")), rng.randint(2, 3)
    draft.sentences.append(f"We say {' '.join([word] * times)}.")
    return {"keyword": word, "frequency": times, "relation": "at least"}


def _highlight(rng: random.Random, draft: Draft) -> dict[str, Any]:
    pet = draft.world.value("pet", draft.subject)
    draft.sentences.append(f"The pet of * {draft.subject} * is * {pet} *.")
    return {"num_highlights": 2}


def _bullets(rng: random.Random, draft: Draft) -> dict[str, Any]:
    told = _TOLD[: rng.randint(2, 3)]
    draft.tail += [f"* {draft.world.statement(relation, draft.subject)}" for relation in told]
    return {"num_bullets": len(told)}


def _postscript(rng: random.Random, draft: Draft) -> dict[str, Any]:
    marker = rng.choice(texts()["instructions"]["markers"])
    draft.tail.append(f"{marker} {draft.world.statement('food', draft.subject)}")
    return {"postscript_marker": marker}


def _closing(rng: random.Random, draft: Draft) -> dict[str, Any]:
    draft.tail.append(rng.choice(texts()["instructions"]["closings"]))
    return {"end_phrase": draft.tail[-1]}


def _quotation(rng: random.Random, draft: Draft) -> dict[str, Any]:
    draft.quoted = True
    return {}


_FOLLOW: dict[str, Callable[[random.Random, Draft], dict[str, Any]]] = {
    "detectable_format:title": _title,
    "keywords:existence": _keywords,
    "keywords:frequency": _frequency,
    "detectable_format:number_highlighted_sections": _highlight,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_content:postscript": _postscript,
    "startend:end_checker": _closing,
    "startend:quotation": _quotation,
}
