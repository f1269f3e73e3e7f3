"""The answer that Figure 1 shows: chosen by a rule, decoded again to see each forward's gain."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median_low
from typing import Any

from lm_eval.evaluator import evaluate as lm_evaluate

from mars.config.experiment import Benchmark
from mars.decoding.generate import text_of
from mars.decoding.requests import Decoded
from mars.errors import UserError
from mars.evaluation.adapter import DecodingLM
from mars.evaluation.offline import forbid_network
from mars.evaluation.tasks import load_benchmark
from mars.paper.evaluations import Answer
from mars.paper.figures.stage import ExampleSpec
from mars.provenance.files import read_jsonl

RULE = "the first answer of median length among the {} {} of this model under this setting"


def choose(answers: Sequence[Answer], benchmark: Benchmark) -> tuple[Answer, str]:
    """The answer to show, and the rule in words.

    It is the first correct answer whose number of tokens is the (lower) median of the correct
    answers; of all answers, where none is correct.

    Raises:
        UserError: there is no answer.
    """
    if not answers:
        raise UserError("the evaluation has no samples to choose an answer from; run it again.")
    among = [answer for answer in answers if _is_correct(answer, benchmark)]
    kind = "correct answers" if among else "answers, of which none is correct,"
    among = among or list(answers)
    length = median_low([answer["tokens"] for answer in among])
    chosen = next(answer for answer in among if answer["tokens"] == length)
    return chosen, RULE.format(len(among), kind)


def _is_correct(answer: Answer, benchmark: Benchmark) -> bool:
    return answer["scores"][benchmark.filter][benchmark.metric] == 1


def decode_example(
    spec: ExampleSpec, checkpoint: Path, evaluation: Path, hub: Path
) -> dict[str, Any]:
    """Decode the chosen question once more, as in the evaluation.

    Args:
        checkpoint, evaluation: folders of the model and of its evaluations.
        hub: data sets in hub layout.

    Returns:
        ``question``, ``runs`` (``text`` and number of ``tokens`` of each forward), ``tokens``,
        ``forwards``, ``correct``, ``rule``, which document it is, and ``as_evaluated``: whether
        the answer is the one in the evaluation's samples, letter by letter.
    """
    file = evaluation / spec.setting / f"{spec.benchmark}.samples.jsonl"
    if not file.is_file():
        raise UserError(f"{file} does not exist; evaluate the model under this setting first.")
    chosen, rule = choose(read_jsonl(file), spec.task)
    lm, entry = _answer_again(spec, checkpoint, hub, chosen)
    (generation,) = lm.generations.values()
    return {
        **spec.model_dump(include={"model", "setting", "benchmark"}),
        "document": chosen["document"],
        "rule": rule,
        "question": entry["doc"]["question"],
        "runs": _runs(lm.decoded[0], generation.tokens, lm.tokenizer),
        "tokens": generation.tokens,
        "forwards": generation.forwards,
        "finish": generation.finish,
        "correct": _is_correct(chosen, spec.task),
        "as_evaluated": generation.text == chosen["generation"],
    }


def _answer_again(
    spec: ExampleSpec, checkpoint: Path, hub: Path, chosen: Answer
) -> tuple[DecodingLM, dict[str, Any]]:
    """The model after it answered one document, and lm-eval's entry of it."""
    forbid_network()
    lm = DecodingLM.load(checkpoint, spec.evaluation, block_size=spec.block_size, slots=1)
    lm.setting = spec.decoding
    loaded = load_benchmark(spec.task, hub, generated=spec.generated_data)
    results = lm_evaluate(
        lm,
        {"tasks": loaded.tasks, "groups": loaded.groups},
        samples={chosen["task"]: [chosen["document"]]},
        bootstrap_iters=0,
        apply_chat_template=True,
        fewshot_as_multiturn=spec.task.fewshot_as_multiturn,
    )
    assert results is not None
    entry = results["samples"][chosen["task"]][0]
    if entry["prompt_hash"] != chosen["prompt_sha256"]:
        raise UserError(
            f"document {chosen['document']} of {chosen['task']} is no longer the one that was "
            "evaluated; evaluate the model again."
        )
    return lm, entry


def _runs(decoded: Decoded, tokens: int, tokenizer: Any) -> list[dict[str, Any]]:
    """Text and number of tokens gained by each forward, up to the last token that counts."""
    ends = [0, *(min(end, tokens) for end in accumulate(decoded.accepted))]
    gains = [decoded.tokens[a:b] for a, b in pairwise(ends) if b > a]
    return [{"text": text, "tokens": count} for text, count in text_of(gains, tokenizer)]
