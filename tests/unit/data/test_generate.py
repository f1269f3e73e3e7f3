"""The generated data: loadable as hub data sets, deterministic, train and test disjoint."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from datasets import load_dataset

from mars.config.experiment import GeneratedData, load_experiment
from mars.data.minibench.generate import (
    assert_disjoint,
    draw_tests,
    generate,
    instruction_examples,
    miniatures,
    passages,
)
from mars.errors import UserError

SIZES = GeneratedData(
    instructions=300, pretraining_documents=100, benchmark_documents=40, vocabulary=512
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    output = tmp_path_factory.mktemp("hub")
    generate(SIZES, output)
    return output


def load(hub, name, configuration, split):
    """As a user would, but for the cache, which goes by the folder's name and outlives a test."""
    with TemporaryDirectory() as cache:
        path = str(hub / name)
        return load_dataset(path, configuration, split=split, cache_dir=cache, keep_in_memory=True)


@pytest.mark.parametrize(
    ("name", "configuration", "split", "columns"),
    [
        ("openai/gsm8k", "main", "test", {"question", "answer"}),
        ("openai/gsm8k", "main", "train", {"question", "answer"}),
        (
            "openai/openai_humaneval",
            "openai_humaneval",
            "test",
            {"task_id", "prompt", "canonical_solution", "test", "entry_point"},
        ),
        ("google/IFEval", None, "train", {"key", "prompt", "instruction_id_list", "kwargs"}),
        ("SaylorTwift/bbh", "navigate", "test", {"input", "target"}),
        (
            "TIGER-Lab/MMLU-Pro",
            None,
            "test",
            {
                *("question_id", "question", "options", "answer", "answer_index"),
                *("cot_content", "category", "src"),
            },
        ),
        (
            "Idavidrein/gpqa",
            "gpqa_main",
            "train",
            {
                *("Record ID", "Question", "Subdomain", "Correct Answer"),
                *(f"Incorrect Answer {i}" for i in (1, 2, 3)),
            },
        ),
        ("mars-generated/instruct", None, "train", {"id", "messages", "source"}),
        ("mars-generated/documents", None, "train", {"given", "text"}),
        ("mars-generated/bbh-fewshot", "web_of_lies", "train", {"input", "target"}),
    ],
)
def test_loads_in_the_columns_of_the_hub(hub, name, configuration, split, columns):
    assert set(load(hub, name, configuration, split).column_names) == columns


def test_sizes_are_as_configured(hub):
    assert len(load(hub, "mars-generated/instruct", None, "train")) == pytest.approx(300, abs=3)
    assert len(load(hub, "mars-generated/documents", None, "train")) == 100
    assert len(load(hub, "openai/gsm8k", "main", "test")) == 40
    assert len(load(hub, "TIGER-Lab/MMLU-Pro", None, "test")) == 40
    parts = miniatures(0)["SaylorTwift/bbh"].parts
    assert sum(len(load(hub, "SaylorTwift/bbh", part, "test")) for part in parts) == 40


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def test_another_process_writes_the_same_bytes(hub, tmp_path):
    code = (
        "import sys; from pathlib import Path; from mars.config.experiment import GeneratedData;"
        "from mars.data.minibench.generate import generate;"
        "generate(GeneratedData.model_validate_json(sys.argv[1]), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, SIZES.model_dump_json(), str(tmp_path)]
    subprocess.run(command, check=True, env={"PYTHONHASHSEED": "7"}, cwd=Path.cwd())
    assert digest(tmp_path) == digest(hub)


def test_another_seed_writes_another_world(hub, tmp_path):
    generate(SIZES.model_copy(update={"seed": 1}), tmp_path)
    assert digest(tmp_path) != digest(hub)


def test_no_test_question_is_trained_on():
    kinds = miniatures(0)
    tests = {name: draw_tests(kind, 0, 60) for name, kind in kinds.items()}
    corpus = instruction_examples(kinds, tests, 0, 1500)
    assert_disjoint(tests, corpus, passages(kinds, tests, 0, 2000))
    with pytest.raises(AssertionError, match="trained on the test question"):
        assert_disjoint(tests, [*corpus, ("openai/gsm8k", tests["openai/gsm8k"][0])], [])
    with pytest.raises(AssertionError, match="a document is the test question"):
        assert_disjoint(tests, corpus, [tests["Idavidrein/gpqa"][0].plain])


@pytest.mark.parametrize("experiment", ["tiny", "mini"])
def test_more_questions_are_taught_than_asked(experiment):
    """Or a benchmark asks nearly all there are, and what is left teaches too few."""
    sizes, kinds = load_experiment(Path(f"config/{experiment}.yaml")).data, miniatures(0)
    tests = {name: draw_tests(kind, 0, sizes.benchmark_documents) for name, kind in kinds.items()}
    taught = {name: set() for name in kinds}
    for name, example in instruction_examples(kinds, tests, 0, sizes.instructions):
        taught[name].add(example.key)
    assert [name for name in kinds if len(taught[name]) < len(tests[name])] == []


def test_too_many_questions_is_one_sentence():
    kind = miniatures(0)["TIGER-Lab/MMLU-Pro"]
    with pytest.raises(UserError, match=r"choose a smaller `data\.benchmark_documents`"):
        draw_tests(kind, 0, 5000)


def test_functions_pass_their_own_tests(hub):
    for row in load(hub, "openai/openai_humaneval", "openai_humaneval", "test"):
        scope = {}
        exec(row["prompt"] + row["canonical_solution"] + row["test"], scope)
        scope["check"](scope[row["entry_point"]])
        wrong = row["prompt"] + "    return None\n" + row["test"]
        exec(wrong, scope)
        with pytest.raises(AssertionError):
            scope["check"](scope[row["entry_point"]])


def test_word_problems_work_out(hub):
    for row in load(hub, "openai/gsm8k", "main", "test"):
        worked, total = row["answer"].split("\n#### ")
        for expression, value in re.findall(r"<<(.+?)=(\d+)>>", worked):
            assert eval(expression) == int(value)
        assert value == total


def test_options_hold_the_answer_once(hub):
    for row in load(hub, "TIGER-Lab/MMLU-Pro", None, "test"):
        assert len(set(row["options"])) == 10
        assert "ABCDEFGHIJ"[row["answer_index"]] == row["answer"]
        assert row["cot_content"].endswith(f"The answer is ({row['answer']}).")
    for row in load(hub, "Idavidrein/gpqa", "gpqa_main", "train"):
        wrong = {row[f"Incorrect Answer {i}"] for i in (1, 2, 3)}
        assert len({row["Correct Answer"], *wrong}) == 4


def test_messages_end_with_an_answer(hub):
    for row in load(hub, "mars-generated/instruct", None, "train"):
        roles = [message["role"] for message in row["messages"]]
        assert roles[-2:] == ["user", "assistant"]
        assert set(roles[:-1][1::2] if roles[0] == "user" else roles[2::2]) <= {"assistant"}
