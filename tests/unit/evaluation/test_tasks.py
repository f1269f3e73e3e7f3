"""Stock definitions on local documents, and nothing left to chance."""

import random
import subprocess
import sys
from importlib.metadata import version

import pytest

from mars.evaluation.lm_eval_internals import UNTRAINED, VERSION
from mars.evaluation.offline import prepare_process
from mars.evaluation.tasks import chance_by_document, load_benchmark, read_documents


@pytest.fixture(autouse=True)
def _process():
    prepare_process(code_timeout=3600)


def test_what_is_known_of_lm_evals_inside_holds_for_the_version_installed():
    assert version("lm_eval") == VERSION, "read lm_eval_internals.py again, then raise VERSION"


def gpqa(benchmarks, hub):
    read_documents.cache_clear()
    loaded = load_benchmark(benchmarks["gpqa"], hub, generated=True)
    return loaded.tasks["gpqa_main_cot_zeroshot"]


def test_gpqa_choices_do_not_depend_on_the_global_generator(benchmarks, hub, tmp_path):
    random.seed(1)
    first = gpqa(benchmarks, hub)
    random.seed(2)
    second = gpqa(benchmarks, hub)
    assert list(first.eval_docs) == list(second.eval_docs)
    state = random.getstate()
    with chance_by_document():
        again = first.config.process_docs(first.dataset["train"])
    assert list(again) == list(first.eval_docs)
    assert random.getstate() == state  # nor do they disturb it


def test_without_our_care_the_choices_do_depend_on_it(benchmarks, hub, tmp_path):
    task = gpqa(benchmarks, hub)
    random.seed(1)
    prompts = list(task.config.process_docs(task.dataset["train"]))
    scoring = list(task.config.process_docs(task.dataset["train"]))
    assert [doc["answer"] for doc in prompts] != [doc["answer"] for doc in scoring]


def test_gpqa_choices_are_shuffled_and_hold_the_right_answer(benchmarks, hub, tmp_path):
    docs = list(gpqa(benchmarks, hub).eval_docs)
    for doc in docs:
        letter = "ABCD".index(doc["answer"].strip("()"))
        assert doc["choices"][letter] == doc["Correct Answer"]
    assert {doc["answer"] for doc in docs} == {"(A)", "(B)", "(C)", "(D)"}


def test_a_question_has_the_same_choices_wherever_it_stands(benchmarks, hub, tmp_path):
    task = gpqa(benchmarks, hub)
    backwards = task.dataset["train"].select(range(len(task.dataset["train"]))[::-1])
    with chance_by_document():
        processed = list(task.config.process_docs(backwards))
    assert processed[::-1] == list(task.eval_docs)


def test_the_definition_is_lm_evals_but_for_documents(benchmarks, hub, tmp_path):
    loaded = load_benchmark(benchmarks["gsm8k"], hub)
    definition = loaded.definition["gsm8k_cot"]
    assert definition["doc_to_text"] == "Q: {{question}}\n  A:".replace("  ", "")
    assert [f["name"] for f in definition["filter_list"]] == ["strict-match", "flexible-extract"]
    assert definition["num_fewshot"] == 0
    assert str(hub) not in str(definition)
    assert str(sys.prefix) not in str(definition)


def test_the_hash_follows_prompts_not_places(benchmarks, hub, tmp_path):
    import shutil

    moved = shutil.copytree(hub, tmp_path / "elsewhere")
    for name in ("gsm8k", "bbh", "humaneval", "ifeval"):
        one = load_benchmark(benchmarks[name], hub, generated=True)
        two = load_benchmark(benchmarks[name], moved, generated=True)
        assert one.task_hash == two.task_hash
        assert one.dataset == two.dataset
    stock = load_benchmark(benchmarks["bbh"].model_copy(update={"subtasks": ["navigate"]}), hub)
    ours = load_benchmark(benchmarks["bbh"], hub, generated=True)
    key = "bbh_cot_fewshot_navigate"
    assert stock.definition[key]["fewshot_config"] != ours.definition[key]["fewshot_config"]
    assert stock.task_hash != ours.task_hash


def test_changed_documents_change_the_fingerprint(benchmarks, hub, tmp_path):
    import shutil

    moved = shutil.copytree(hub, tmp_path / "elsewhere")
    readme = moved / "openai" / "gsm8k" / "README.md"
    readme.write_text(readme.read_text() + "\n")
    one = load_benchmark(benchmarks["gsm8k"], hub)
    two = load_benchmark(benchmarks["gsm8k"], moved)
    assert one.dataset["sha256"] != two.dataset["sha256"]


def test_folders_of_the_same_name_are_not_confused(hub, tmp_path):
    import shutil

    import pyarrow.parquet as pq

    other = shutil.copytree(hub / "openai" / "gsm8k", tmp_path / "other" / "gsm8k")
    file = other / "main" / "test.parquet"
    pq.write_table(pq.read_table(file).slice(0, 3), file)
    whole = read_documents(str(hub / "openai" / "gsm8k"), "main", "{}")
    part = read_documents(str(other), "main", "{}")
    assert len(part["test"]) == 3 < len(whole["test"])
    # Nor is a folder confused with what another process read there before.
    pq.write_table(pq.read_table(file).slice(0, 2), file)
    read_documents.cache_clear()
    assert len(read_documents(str(other), "main", "{}")["test"]) == 2


IFEVAL_WITHOUT_NLTK_DATA = """
import sys
from pathlib import Path
from mars.evaluation.lm_eval_internals import prepare_ifeval
from mars.evaluation.offline import forbid_network
forbid_network()
assert prepare_ifeval(Path(sys.argv[1])) == prepare_ifeval(Path(sys.argv[1], "other"))
print(prepare_ifeval(Path(sys.argv[1])))
from lm_eval.tasks.ifeval import instructions_util as util
print(util.count_sentences("Dr. Ash met Mr. Elm at 3 p.m. today. They left! Why? Nobody knows."))
import nltk, langdetect
print(nltk.word_tokenize("It is here. So am I."))
text = "the cat and le chat"
print(len({langdetect.detect(text) for _ in range(20)}))
"""


def test_ifeval_works_without_nltk_data(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", IFEVAL_WITHOUT_NLTK_DATA, str(tmp_path)],
        env={"NLTK_DATA": str(tmp_path / "none"), "HOME": str(tmp_path), "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    )
    splitter, sentences, words, languages = run.stdout.splitlines()
    assert splitter == UNTRAINED
    assert sentences == "4"
    assert words == "['It', 'is', 'here', '.', 'So', 'am', 'I', '.']"
    assert languages == "1"
