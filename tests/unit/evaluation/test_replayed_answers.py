"""Questions to be timed are lm-eval's, and it scores answers that were decoded elsewhere."""

import pytest

from mars.errors import UserError
from mars.speed.questions import Questions
from mars.speed.stage import TimedSpec

COUNT = 6


@pytest.fixture(scope="module")
def ask(model, tokenizer, hub):
    def questions(benchmark):
        spec = TimedSpec(
            benchmark=benchmark,
            tau=0.95,
            max_new_tokens=24,
            precision="float32",
            generated_data=True,
        )
        return Questions(model, tokenizer, spec, COUNT, hub)

    return questions


def documents(questions):
    return list(questions.loaded.tasks["gsm8k_cot"].test_docs())[:COUNT]


def test_answers_are_scored_question_by_question_and_once(ask, tokenizer, benchmarks, monkeypatch):
    questions = ask(benchmarks["gsm8k"])
    asked = [document["question"] for document in documents(questions)]
    assert len(questions) == COUNT
    assert all(
        text in tokenizer.decode(prompt)
        for text, prompt in zip(asked, questions.prompts, strict=True)
    )
    golds = [document["answer"].split("#### ")[1] for document in documents(questions)]
    texts = [f"The answer is {gold}." for gold in golds]
    right = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    wrong = tokenizer.encode("The answer is -1.", add_special_tokens=False)
    assert questions.scores(right) == [1.0] * COUNT
    mixed = [right[0], wrong, [], right[3]]
    assert questions.scores(mixed) == [1.0, 0.0, 0.0, 1.0]  # fewer: to the first questions
    monkeypatch.setattr(Questions, "_evaluate", lambda self: pytest.fail("scored twice"))
    assert questions.scores([list(answer) for answer in mixed]) == [1.0, 0.0, 0.0, 1.0]


def test_a_benchmark_of_several_parts_is_refused(ask, benchmarks):
    with pytest.raises(UserError, match=r"speed\.benchmark"):
        ask(benchmarks["bbh"])
