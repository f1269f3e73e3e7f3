"""The embedded experiment's data: corpus, documents and six miniature benchmarks, from a seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from mars.data.minibench.examples import Example, Passage, draw, generator
from mars.data.minibench.hub_layout import Configurations, write_dataset
from mars.data.minibench.lessons import LESSONS, Lesson
from mars.data.minibench.miniature import Miniature
from mars.data.minibench.registry import miniatures
from mars.data.minibench.world import World

if TYPE_CHECKING:
    from mars.config.experiment import GeneratedData

INSTRUCT = "mars-generated/instruct"
DOCUMENTS = "mars-generated/documents"

Miniatures = Mapping[str, Miniature]

# Share of the exercises that the documents write out as the benchmark does, without a chat's frame.
WRITTEN_OUT = 0.3


def generate(config: GeneratedData, output: Path) -> None:
    """Write the corpus, the documents and the six benchmarks in hub layout under ``output``.

    The same seed and sizes give the same bytes in every process. No test question (its key, and
    its text as the model sees it) occurs in the corpus, in the documents or among the worked
    examples.

    Raises:
        UserError: more test documents are asked for than there are questions.
    """
    seed, kinds = config.seed, miniatures(config.seed)
    tests = {
        name: draw_tests(kind, seed, config.benchmark_documents) for name, kind in kinds.items()
    }
    corpus = instruction_examples(kinds, tests, seed, config.instructions)
    documents = passages(kinds, tests, seed, config.pretraining_documents)
    assert_disjoint(tests, corpus, documents)

    datasets: dict[str, tuple[str, Configurations]] = {
        INSTRUCT: (
            "Generated instruction examples in the `messages` schema.",
            {"default": {"train": _instruct_table(corpus)}},
        ),
        DOCUMENTS: (
            "Generated plain documents, for pre-training.",
            {"default": {"train": _documents_table(documents)}},
        ),
    }
    for name, kind in kinds.items():
        title = f"Generated miniature in the columns of `{name}`."
        datasets[name] = (title, kind.configurations(tests[name], seed))
        datasets |= kind.further()
    for name, (title, configurations) in datasets.items():
        write_dataset(output / name, title, configurations)


def draw_tests(kind: Miniature, seed: int, count: int) -> list[Example]:
    """``count`` distinct test questions, spread evenly over the parts."""
    return _spread(kind, seed, "test", count, ())


def _spread(
    kind: Miniature, seed: int, use: str, count: int, excluded: Iterable[str], distinct: bool = True
) -> list[Example]:
    """``count`` questions of a kind for one use, as many of each part."""
    examples: list[Example] = []
    for index, part in enumerate(kind.parts):
        share = count // len(kind.parts) + (index < count % len(kind.parts))
        rng = generator(seed, kind.repository, part, use)
        examples += draw(partial(kind.example, rng, part), share, excluded, distinct)
    return examples


def instruction_examples(
    kinds: Miniatures, tests: dict[str, list[Example]], seed: int, count: int
) -> list[tuple[str, Example]]:
    """``count`` training examples (source, example) in random order, none of them a test's."""
    total = sum(kind.corpus_share for kind in kinds.values())
    examples: list[tuple[str, Example]] = []
    for name, kind in kinds.items():
        excluded = {example.key for example in tests[name]}
        wanted = round(count * kind.corpus_share / total)
        drawn = _spread(kind, seed, "train", wanted, excluded, distinct=False)
        examples += [(name, example) for example in drawn]
    generator(seed, "order").shuffle(examples)
    return examples


def passages(
    kinds: Miniatures, tests: dict[str, list[Example]], seed: int, count: int
) -> list[Passage]:
    """``count`` plain documents: exercises of all kinds, none of them a test's, and lessons."""
    rng, world = generator(seed, "documents"), World.of(seed)
    weights = [*(kind.documents_share for kind in kinds.values()), *LESSONS.values()]
    excluded = {name: {example.key for example in tests[name]} for name in kinds}
    documents = []
    choices: list[Miniature | Lesson] = [*kinds.values(), *LESSONS]
    for kind in rng.choices(choices, weights, k=count):
        if not isinstance(kind, Miniature):
            documents.append(kind(rng, world))
            continue
        sample = partial(kind.example, rng, rng.choice(kind.parts))
        example = draw(sample, 1, excluded[kind.repository])[0]
        prompt, answer = (message["content"] for message in example.messages[-2:])
        written_out = rng.random() < WRITTEN_OUT
        documents.append((f"{prompt}\n", answer) if written_out else example.plain)
    return documents


def assert_disjoint(
    tests: dict[str, list[Example]],
    corpus: list[tuple[str, Example]],
    documents: list[Passage],
) -> None:
    """No test question is trained on: neither by its key nor by its text.

    Raises:
        AssertionError: names the question; the generators are wrong then, not the user.
    """
    trained = {(name, example.key) for name, example in corpus}
    prompts = {message["content"] for _, e in corpus for message in e.messages[:-1]}
    read = set(documents)
    text = "\n".join(given + text for given, text in documents)
    for name, examples in tests.items():
        for example in examples:
            prompt = example.messages[-2]["content"]
            assert (name, example.key) not in trained, f"trained on the test question {prompt!r}"
            assert example.plain not in read, f"a document is the test question {prompt!r}"
            assert prompt not in prompts, f"trained on the test question {prompt!r}"
            # To the end of its line: a longer question may begin with the same words.
            assert f"{prompt}\n" not in text, f"a document contains the test question {prompt!r}"


def _documents_table(documents: list[Passage]) -> pa.Table:
    given, text = zip(*documents, strict=True)
    return pa.table({"given": given, "text": text})


def _instruct_table(corpus: list[tuple[str, Example]]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"id": f"{index:06d}", "messages": list(example.messages), "source": source}
            for index, (source, example) in enumerate(corpus)
        ]
    )
