"""The embedded experiment's data: corpus, documents and six miniature benchmarks, from a seed."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mars.data.minibench.code_problems import CodeProblems
from mars.data.minibench.instructions_if import Instructions
from mars.data.minibench.knowledge import FourOptions, TenOptions
from mars.data.minibench.lessons import LESSONS, Lesson
from mars.data.minibench.logic_tasks import LogicTasks
from mars.data.minibench.miniature import (
    Configurations,
    Example,
    Miniature,
    Passage,
    draw,
    generator,
)
from mars.data.minibench.word_problems import WordProblems
from mars.data.minibench.world import World
from mars.provenance.files import write_atomic

if TYPE_CHECKING:
    from mars.config.experiment import GeneratedData

INSTRUCT = "mars-generated/instruct"
DOCUMENTS = "mars-generated/documents"

Miniatures = Mapping[str, Miniature]

# Share of the documents' exercises that are worded as in the benchmark, without the chat format.
WRITTEN_OUT = 0.3


def miniatures(seed: int) -> dict[str, Miniature]:
    """The miniature benchmarks by repository; their order is part of what a seed generates."""
    world = World.of(seed)
    found: tuple[Miniature, ...] = (
        WordProblems(),
        CodeProblems(),
        Instructions(world),
        LogicTasks(seed),
        TenOptions(world),
        FourOptions(world),
    )
    return {miniature.repository: miniature for miniature in found}


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

    conversations = [
        {"id": f"{index:06d}", "messages": list(example.messages), "source": source}
        for index, (source, example) in enumerate(corpus)
    ]
    given, text = zip(*documents, strict=True)
    datasets: dict[str, tuple[str, Configurations]] = {
        INSTRUCT: (
            "Generated instruction examples in the `messages` schema.",
            {"default": {"train": pa.Table.from_pylist(conversations)}},
        ),
        DOCUMENTS: (
            "Generated plain documents, for pre-training.",
            {"default": {"train": pa.table({"given": given, "text": text})}},
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
    """``count`` questions of a kind for one use, spread evenly over its parts."""
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
        (example,) = draw(sample, 1, excluded[kind.repository])
        prompt, answer = (message["content"] for message in example.messages[-2:])
        written_out = rng.random() < WRITTEN_OUT
        documents.append((f"{prompt}\n", answer) if written_out else example.plain)
    return documents


def assert_disjoint(
    tests: dict[str, list[Example]], corpus: list[tuple[str, Example]], documents: list[Passage]
) -> None:
    """No test question is trained on: neither by its key nor by its text.

    Raises:
        AssertionError: names the question; it is a mistake of the generators, not of the user.
    """
    trained = {(name, example.key) for name, example in corpus}
    prompts = {message["content"] for _, e in corpus for message in e.messages[:-1]}
    read = set(documents)
    text = "\n".join(given + text for given, text in documents)
    for name, examples in tests.items():
        for example in examples:
            prompt = example.messages[-2]["content"]
            seen = (name, example.key) in trained or prompt in prompts
            assert not seen, f"trained on the test question {prompt!r}"
            assert example.plain not in read, f"a document is the test question {prompt!r}"
            # To the end of its line: a longer question may begin with the same words.
            assert f"{prompt}\n" not in text, f"a document contains the test question {prompt!r}"


def write_dataset(folder: Path, title: str, configurations: Configurations) -> None:
    """Write a data set so that ``datasets.load_dataset`` reads it; ``title`` is for its README."""
    entries: list[dict[str, object]] = []
    for name, splits in configurations.items():
        files = []
        for split, table in splits.items():
            buffer = io.BytesIO()
            pq.write_table(table, buffer)
            path = f"{name}/{split}.parquet"
            write_atomic(folder / path, buffer.getvalue())
            files.append({"split": split, "path": path})
        entries.append({"config_name": name, "default": not entries, "data_files": files})
    header = yaml.safe_dump({"license": "apache-2.0", "configs": entries}, sort_keys=False)
    write_atomic(folder / "README.md", f"---\n{header}---\n{title}\n")
