"""A model that knows the answers scores 1.0 on every benchmark, one that does not scores 0."""

import os
from pathlib import Path

import pytest

from mars.config.experiment import Benchmark, Setting
from mars.data.minibench.generate import draw_tests, miniatures
from mars.decoding.requests import Decoded
from mars.evaluation.adapter import DecodingLM
from mars.evaluation.evaluate import evaluate_cell
from mars.evaluation.offline import prepare_process
from mars.evaluation.scores import headline
from mars.evaluation.tasks import load_benchmark
from tests.support.small_benchmarks import BENCHMARKS, SIZES

MIRROR = os.environ.get("MARS_HUB_MIRROR")


class AnswerSheet(DecodingLM):
    """Answers from the document instead of from the model; everything else is the real thing."""

    def __init__(self, model, tokenizer, answer):
        super().__init__(
            model,
            tokenizer,
            block_size=1,
            eos_token_ids=[tokenizer.eos_token_id],
            max_new_tokens=1024,
        )
        self.answer = answer
        self.prompts = []

    def decode_all(self, requests, prompts, stops):
        self.prompts = [request.args[0] for request in requests]
        tokens = [
            [*self.tokenizer.encode(self.answer(r.task_name, r.doc)), *self.eos_token_ids]
            for r in requests
        ]
        return [Decoded(t, len(t), [1] * len(t), "eos") for t in tokens]


def gold(task: str, doc: dict) -> str:
    """The right answer in the words that lm-eval's filters look for."""
    if task.startswith("gsm8k"):
        return f"{doc['answer']}\nThe answer is {doc['answer'].split('####')[-1].strip()}."
    if task.startswith("humaneval"):
        return doc["canonical_solution"] + "```"
    if task.startswith("bbh"):
        return f"Step by step. So the answer is {doc['target']}."
    if task.startswith("mmlu_pro"):
        return f"Step by step. The answer is ({doc['answer']})."
    if task.startswith("gpqa"):
        return f"The answer is {doc['answer']}."
    return IFEVAL[doc["prompt"]]


def wrong(task: str, doc: dict) -> str:
    """Well-formed, and never right; IFEval accepts no empty answer."""
    if task.startswith("humaneval"):
        return "    return 'no such thing'\n```"
    if task.startswith("ifeval"):
        return ""
    return "The answer is -99999. So the answer is -99999. The answer is (Z)."


IFEVAL = {
    example.messages[-2]["content"]: example.messages[-1]["content"]
    for example in draw_tests(
        miniatures(SIZES.seed)["google/IFEval"], SIZES.seed, SIZES.benchmark_documents
    )
}


@pytest.fixture(scope="module", autouse=True)
def _process():
    prepare_process(code_timeout=3600)


def run(model, tokenizer, answer, benchmark: Benchmark, hub: Path, generated: bool):
    loaded = load_benchmark(benchmark, hub, generated=generated)
    lm = AnswerSheet(model, tokenizer, answer)
    record, samples = evaluate_cell(lm, loaded, benchmark, Setting())
    return record, samples


@pytest.mark.parametrize("name", BENCHMARKS)
def test_miniature(name, model, tokenizer, benchmarks, hub):
    record, samples = run(model, tokenizer, gold, benchmarks[name], hub, True)
    assert headline(record, benchmarks[name]).value == 1.0
    assert record["documents"] == len(samples) == SIZES.benchmark_documents
    for filters in record["metrics"].values():
        assert all(score["value"] == 1.0 for score in filters.values())

    record, samples = run(model, tokenizer, wrong, benchmarks[name], hub, True)
    assert headline(record, benchmarks[name]).value == 0.0
    assert record["documents"] == SIZES.benchmark_documents


@pytest.mark.skipif(not MIRROR, reason="MARS_HUB_MIRROR names no folder with the real data")
@pytest.mark.parametrize("name", ["gsm8k", "humaneval"])
def test_real(name, model, tokenizer, benchmarks):
    full = {"gsm8k": 1319, "humaneval": 164}[name]
    record, _ = run(model, tokenizer, gold, benchmarks[name], Path(MIRROR), False)
    assert record["documents"] == full
    assert headline(record, benchmarks[name]).value == 1.0
    record, _ = run(model, tokenizer, wrong, benchmarks[name], Path(MIRROR), False)
    assert headline(record, benchmarks[name]).value <= 0.01
