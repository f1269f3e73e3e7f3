"""The embedded experiment's data: corpus, documents and six miniature benchmarks, from a seed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from mars.data.minibench.code_problems import CodeProblems
from mars.data.minibench.examples import Example, Passage, draw, generator
from mars.data.minibench.hub_layout import write_dataset
from mars.data.minibench.instructions_if import Instructions
from mars.data.minibench.knowledge import FourOptions, TenOptions
from mars.data.minibench.lessons import LESSONS, Lesson
from mars.data.minibench.logic_tasks import LogicTasks
from mars.data.minibench.word_problems import WordProblems
from mars.data.minibench.world import World

if TYPE_CHECKING:
    import random

    from mars.config.experiment import GeneratedData

INSTRUCT = "mars-generated/instruct"
DOCUMENTS = "mars-generated/documents"
FEWSHOT = "mars-generated/bbh-fewshot"


class Family(Protocol):
    """A kind of question: its sub-tasks, and one question of a sub-task."""

    @property
    def parts(self) -> tuple[str, ...]: ...

    def example(self, rng: random.Random, part: str) -> Example: ...


# Share of each benchmark's kind in the instruction corpus, and of its exercises in the documents.
SHARES = {
    "openai/gsm8k": (6, 5),
    "openai/openai_humaneval": (4, 4),
    "google/IFEval": (5, 4),
    "SaylorTwift/bbh": (5, 5),
    "TIGER-Lab/MMLU-Pro": (4, 4),
    "Idavidrein/gpqa": (4, 4),
}
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
    families = build_families(config.seed)
    tests = {
        name: test_examples(family, config.seed, name, config.benchmark_documents)
        for name, family in families.items()
    }
    corpus = instruction_examples(families, tests, config.seed, config.instructions)
    documents = passages(families, tests, config.seed, config.pretraining_documents)
    assert_disjoint(tests, corpus, documents)

    write_dataset(
        output / INSTRUCT,
        "Generated instruction examples in the `messages` schema.",
        {"default": {"train": _instruct_table(corpus)}},
    )
    write_dataset(
        output / DOCUMENTS,
        "Generated plain documents, for pre-training.",
        {"default": {"train": _documents_table(documents)}},
    )
    for name, configurations in benchmark_tables(families, tests, config.seed).items():
        write_dataset(
            output / name,
            f"Generated miniature in the columns of `{name}`.",
            configurations,
        )
    write_dataset(
        output / FEWSHOT,
        "Worked examples for the generated miniature of BBH: one configuration per sub-task.",
        _fewshot_tables(families["SaylorTwift/bbh"]),
    )


def invented(seed: int) -> World:
    """The world of a seed."""
    return World.invent(generator(seed, "world"))


def build_families(seed: int) -> dict[str, Family]:
    """The generator behind each benchmark, by the benchmark's name on the hub."""
    world = invented(seed)
    return {
        "openai/gsm8k": WordProblems(),
        "openai/openai_humaneval": CodeProblems(),
        "google/IFEval": Instructions(world),
        "SaylorTwift/bbh": LogicTasks(seed),
        "TIGER-Lab/MMLU-Pro": TenOptions(world),
        "Idavidrein/gpqa": FourOptions(world),
    }


def test_examples(family: Family, seed: int, name: str, count: int) -> list[Example]:
    """``count`` distinct test questions, spread evenly over the parts."""
    examples: list[Example] = []
    for index, part in enumerate(family.parts):
        share = count // len(family.parts) + (index < count % len(family.parts))
        rng = generator(seed, name, part, "test")
        examples += draw(partial(family.example, rng, part), share, ())
    return examples


# pytest would collect a function of this name.
test_examples.__test__ = False  # type: ignore[attr-defined]


def instruction_examples(
    families: dict[str, Family], tests: dict[str, list[Example]], seed: int, count: int
) -> list[tuple[str, Example]]:
    """``count`` training examples (source, example) in random order, none of them a test's."""
    total = sum(share for share, _ in SHARES.values())
    examples: list[tuple[str, Example]] = []
    for name, family in families.items():
        excluded = {example.key for example in tests[name]}
        wanted = round(count * SHARES[name][0] / total)
        for index, part in enumerate(family.parts):
            share = wanted // len(family.parts) + (index < wanted % len(family.parts))
            rng = generator(seed, name, part, "train")
            drawn = draw(partial(family.example, rng, part), share, excluded, distinct=False)
            examples += [(name, example) for example in drawn]
    generator(seed, "order").shuffle(examples)
    return examples


def passages(
    families: dict[str, Family], tests: dict[str, list[Example]], seed: int, count: int
) -> list[Passage]:
    """``count`` plain documents: exercises of all kinds, none of them a test's, and lessons."""
    rng, world = generator(seed, "documents"), invented(seed)
    weights = [*(share for _, share in SHARES.values()), *LESSONS.values()]
    excluded = {name: {example.key for example in tests[name]} for name in families}
    documents = []
    kinds: list[str | Lesson] = [*families, *LESSONS]
    for kind in rng.choices(kinds, weights, k=count):
        if not isinstance(kind, str):
            documents.append(kind(rng, world))
            continue
        sample = partial(families[kind].example, rng, rng.choice(families[kind].parts))
        example = draw(sample, 1, excluded[kind])[0]
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


def benchmark_tables(
    families: dict[str, Family], tests: dict[str, list[Example]], seed: int
) -> dict[str, dict[str, dict[str, pa.Table]]]:
    """For each benchmark: configurations, splits and rows as its hub data set has them."""
    rows = {
        name: [{**_identity(name, i), **e.document} for i, e in enumerate(examples)]
        for name, examples in tests.items()
    }
    others = {
        name: [
            family.example(generator(seed, name, part, "other-split", str(i)), part).document
            for part in family.parts
            for i in range(5)
        ]
        for name, family in families.items()
        if name in ("openai/gsm8k", "TIGER-Lab/MMLU-Pro")
    }
    table = pa.Table.from_pylist
    logic = {
        part: {"test": table([e.document for e in tests["SaylorTwift/bbh"] if e.part == part])}
        for part in families["SaylorTwift/bbh"].parts
    }
    validation = [
        {**_identity("TIGER-Lab/MMLU-Pro", i), **row}
        for i, row in enumerate(others["TIGER-Lab/MMLU-Pro"])
    ]
    return {
        "openai/gsm8k": {
            "main": {"train": table(others["openai/gsm8k"]), "test": table(rows["openai/gsm8k"])}
        },
        "openai/openai_humaneval": {
            "openai_humaneval": {"test": table(rows["openai/openai_humaneval"])}
        },
        "google/IFEval": {"default": {"train": table(rows["google/IFEval"], _IFEVAL)}},
        "SaylorTwift/bbh": logic,
        "TIGER-Lab/MMLU-Pro": {
            "default": {"validation": table(validation), "test": table(rows["TIGER-Lab/MMLU-Pro"])}
        },
        "Idavidrein/gpqa": {"gpqa_main": {"train": table(rows["Idavidrein/gpqa"])}},
    }


_IFEVAL = pa.schema(
    {
        "key": pa.int64(),
        "prompt": pa.string(),
        "instruction_id_list": pa.list_(pa.string()),
        "kwargs": pa.list_(
            pa.struct(
                {
                    "end_phrase": pa.string(),
                    "frequency": pa.int64(),
                    "keyword": pa.string(),
                    "keywords": pa.list_(pa.string()),
                    "num_bullets": pa.int64(),
                    "num_highlights": pa.int64(),
                    "postscript_marker": pa.string(),
                    "relation": pa.string(),
                }
            )
        ),
    }
)


def _identity(name: str, index: int) -> dict[str, Any]:
    """The column that numbers the rows of a benchmark, where it has one."""
    columns: dict[str, dict[str, Any]] = {
        "openai/openai_humaneval": {"task_id": f"HumanEval/{index}"},
        "google/IFEval": {"key": index},
        "TIGER-Lab/MMLU-Pro": {"question_id": index},
        "Idavidrein/gpqa": {"Record ID": f"rec{index:05d}"},
    }
    return columns.get(name, {})


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


def _fewshot_tables(logic: Family) -> dict[str, dict[str, pa.Table]]:
    """Per sub-task: `input` and worked `target`, as the samples of a `fewshot_config`."""
    assert isinstance(logic, LogicTasks)
    return {
        part: {
            "train": pa.Table.from_pylist(
                [
                    {"input": shot.document["input"], "target": shot.messages[-1]["content"]}
                    for shot in shots
                ]
            )
        }
        for part, shots in logic.shots.items()
    }
