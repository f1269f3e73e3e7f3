"""Training conversations are phrased as lm-eval's stock tasks phrase the test questions."""

import re

import pytest

from mars.config.experiment import Benchmark, GeneratedData
from mars.data.minibench.generate import draw_tests, generate, miniatures
from mars.evaluation.tasks import load_benchmark

SIZES = GeneratedData(
    instructions=10, pretraining_documents=10, benchmark_documents=12, vocabulary=512
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    output = tmp_path_factory.mktemp("hub")
    generate(SIZES, output)
    return output


def contexts(task, shots):
    """The messages that lm-eval sends for each document, the begun answer included."""
    for document in task.eval_docs:
        yield task.fewshot_context(
            document,
            shots,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
            chat_template=lambda messages, add_generation_prompt: messages,
            gen_prefix=task.doc_to_prefix(document),
        )


@pytest.mark.parametrize(
    ("name", "dataset", "shots"),
    [
        ("gsm8k_cot", "openai/gsm8k", 0),
        ("humaneval_instruct", "openai/openai_humaneval", 0),
        ("ifeval", "google/IFEval", 0),
        ("bbh", "SaylorTwift/bbh", 3),
        ("mmlu_pro", "TIGER-Lab/MMLU-Pro", 0),
        ("gpqa_main_cot_zeroshot", "Idavidrein/gpqa", 0),
    ],
)
def test_prompts_are_those_of_lm_eval(hub, tmp_path, name, dataset, shots):
    benchmark = Benchmark(
        task=name, title=name, dataset=dataset, metric="x", num_fewshot=shots, unsafe_code=True
    )
    loaded = load_benchmark(benchmark, hub, generated=True)
    sent = [messages for task in loaded.tasks.values() for messages in contexts(task, shots)]

    kind = miniatures(0)[dataset]
    examples = draw_tests(kind, 0, SIZES.benchmark_documents)
    if shots:
        examples = [
            example if len(example.messages) > 3 else example.after(kind.shots[example.part])
            for example in examples
        ]
    assert len(sent) == len(examples)
    for messages in sent:
        begun = messages.pop() if messages[-1]["role"] == "assistant" else {"content": ""}
        matching = [e for e in examples if question(e.messages[:-1]) == question(messages)]
        assert len(matching) == 1, messages
        assert matching[0].messages[-1]["content"].startswith(begun["content"])


def question(messages):
    """Roles and contents; lm-eval orders GPQA's choices by a chance of its own."""
    return [
        (
            m["role"],
            re.sub(r"\([A-D]\) \w+\n", "", m["content"])
            if "Choices" in m["content"]
            else m["content"],
        )
        for m in messages
    ]
