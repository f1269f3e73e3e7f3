"""Instructions whose following can be checked (the miniature of IFEval)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from mars.data.minibench.examples import Example, conversation
from mars.data.minibench.miniature import Miniature
from mars.data.minibench.world import GOODS, PEOPLE, World

REQUESTS = ("Write about {s}.", "Tell me about {s}.", "Describe {s}.")
CLOSINGS = ("That is all.", "This is the end.", "I hope this helps.", "Now you know.")
MARKERS = ("P.S.", "P.P.S")
WORDS = GOODS
# What a list says of its subject, in this order: a response has nothing arbitrary in it, so that
# a model that has learnt the instruction is sure of every token.
_TOLD = ("job", "pet", "food", "friend")

TEXT = pa.string()
ARGUMENTS = {
    **{"end_phrase": TEXT, "frequency": pa.int64(), "keyword": TEXT, "keywords": pa.list_(TEXT)},
    **{"num_bullets": pa.int64(), "num_highlights": pa.int64()},
    **{"postscript_marker": TEXT, "relation": TEXT},
}


@dataclass
class Draft:
    """A response under way: what each instruction adds to or changes in it."""

    subject: str
    sentences: list[str]
    head: list[str] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)
    quoted: bool = False

    def text(self) -> str:
        """The finished response."""
        text = "\n".join([*self.head, " ".join(self.sentences), *self.tail])
        return f'"{text}"' if self.quoted else text


@dataclass(frozen=True)
class Instruction:
    """One verifiable instruction: lm-eval's id and arguments, wording in the prompt."""

    id: str
    arguments: dict[str, Any]
    wording: str


class Instructions(Miniature):
    """Requests to write about a person under one or two of lm-eval's own instructions."""

    repository = "google/IFEval"
    parts = ("default",)
    corpus_share, documents_share = 5, 4
    split = "train"
    schema = pa.schema(
        {"key": pa.int64(), "prompt": TEXT, "instruction_id_list": pa.list_(TEXT)}
        | {"kwargs": pa.list_(pa.struct(ARGUMENTS))}
    )

    def __init__(self, world: World) -> None:
        self.world = world

    def identity(self, index: int) -> dict[str, Any]:
        return {"key": index}

    def example(self, rng: random.Random, part: str) -> Example:
        """One request; its key is the subject and the instructions with their arguments."""
        subject = rng.choice(PEOPLE)
        draft = Draft(subject, [self.world.statement("town", subject)])
        makers = rng.sample(_MAKERS, rng.choice([1, 2, 2]))
        makers.sort(key=_MAKERS.index)
        chosen = [make(rng, draft, self.world) for make in makers]
        wordings = [instruction.wording for instruction in chosen]
        rng.shuffle(wordings)
        prompt = " ".join([rng.choice(REQUESTS).format(s=subject), *wordings])
        document = {
            "prompt": prompt,
            "instruction_id_list": [instruction.id for instruction in chosen],
            "kwargs": [instruction.arguments for instruction in chosen],
        }
        key = "; ".join([subject, *sorted(wordings)])
        answer = draft.text()
        return Example(key, conversation(prompt, answer), document, (f"{prompt}\n", answer), part)


def _keywords(rng: random.Random, draft: Draft, world: World) -> Instruction:
    words = rng.sample(WORDS, 2)
    draft.sentences.append(f"We see {words[0]} and {words[1]}.")
    return Instruction(
        "keywords:existence",
        {"keywords": words},
        f"Include the keywords {words[0]} and {words[1]}.",
    )


def _frequency(rng: random.Random, draft: Draft, world: World) -> Instruction:
    word, times = rng.choice(WORDS), rng.randint(2, 3)
    draft.sentences.append(f"We say {' '.join([word] * times)}.")
    return Instruction(
        "keywords:frequency",
        {"keyword": word, "frequency": times, "relation": "at least"},
        f"The word {word} should appear at least {times} times.",
    )


def _bullets(rng: random.Random, draft: Draft, world: World) -> Instruction:
    count = rng.randint(2, 3)
    facts = [world.statement(relation, draft.subject) for relation in _TOLD[:count]]
    draft.tail += [f"* {fact}" for fact in facts]
    return Instruction(
        "detectable_format:number_bullet_lists",
        {"num_bullets": count},
        f"Your answer must contain exactly {count} bullet points.",
    )


def _title(rng: random.Random, draft: Draft, world: World) -> Instruction:
    draft.head.append(f"<< {draft.subject} >>")
    return Instruction(
        "detectable_format:title",
        {},
        "Your answer must contain a title, wrapped in double angular brackets.",
    )


def _highlight(rng: random.Random, draft: Draft, world: World) -> Instruction:
    pet = world.value("pet", draft.subject)
    draft.sentences.append(f"The pet of * {draft.subject} * is * {pet} *.")
    return Instruction(
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        "Highlight at least 2 sections with *stars*.",
    )


def _postscript(rng: random.Random, draft: Draft, world: World) -> Instruction:
    marker = rng.choice(MARKERS)
    draft.tail.append(f"{marker} {world.statement('food', draft.subject)}")
    return Instruction(
        "detectable_content:postscript",
        {"postscript_marker": marker},
        f"Add a postscript starting with {marker}",
    )


def _closing(rng: random.Random, draft: Draft, world: World) -> Instruction:
    closing = rng.choice(CLOSINGS)
    draft.tail.append(closing)
    return Instruction(
        "startend:end_checker",
        {"end_phrase": closing},
        f"Finish with this exact phrase: {closing}",
    )


def _quotation(rng: random.Random, draft: Draft, world: World) -> Instruction:
    draft.quoted = True
    return Instruction(
        "startend:quotation", {}, "Wrap your entire response with double quotation marks."
    )


# In the order in which the parts follow each other in a response. Commas and forbidden words are
# left out: a model that follows nothing would pass them.
_MAKERS = [
    _title,
    _keywords,
    _frequency,
    _highlight,
    _bullets,
    _postscript,
    _closing,
    _quotation,
]
