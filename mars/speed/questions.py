"""The questions of a benchmark as prompts to be timed, and lm-eval's verdict on the answers.

Speed means little if the answers get worse, so what was decoded under the clock is scored by the
benchmark's own lm-eval task afterwards: the prompts are those that the task writes, and the decoded
tokens are replayed to it as if a model were generating them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from lm_eval.api.instance import Instance
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mars.checkpoints.load import eos_token_ids, load_model
from mars.config.experiment import Setting
from mars.data.tokenizer import load_tokenizer
from mars.decoding.requests import Decoded
from mars.errors import UserError
from mars.evaluation.adapter import DecodingLM
from mars.evaluation.evaluate import evaluate_cell
from mars.evaluation.offline import prepare_process
from mars.evaluation.scores import headline
from mars.evaluation.tasks import load_benchmark
from mars.speed.benchmark import loaded_workload
from mars.speed.methods import Workload

if TYPE_CHECKING:
    from mars.provenance.stage import Job
    from mars.speed.stage import TimedSpec

Answers = list[list[int]]


def questions_for(spec: TimedSpec, count: int, job: Job) -> tuple[Questions, Workload]:
    """The questions that a stage puts to its one model, and that model with them as prompts."""
    checkpoint = job.inputs.folder("checkpoints")
    model = load_model(checkpoint, getattr(torch, spec.precision))
    tokenizer = load_tokenizer(checkpoint)
    questions = Questions(model, tokenizer, spec, count, job.inputs.hub)
    prompts, budget = questions.prompts, spec.max_new_tokens
    return questions, loaded_workload(checkpoint, model, tokenizer, prompts, budget)


class Questions:
    """The first questions of a benchmark that generates one answer per question.

    Args:
        model, tokenizer: of any checkpoint; it sets the chat format and the room for a prompt.
        count: how many questions; all of them if there are fewer.
        hub: data sets in hub layout.

    Raises:
        UserError: the task or its data are missing, or it is a group of tasks.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        spec: TimedSpec,
        count: int,
        hub: Path,
    ):
        prepare_process(code_timeout=10)
        self.benchmark = spec.benchmark.model_copy(update={"limit": count})
        self.setting = Setting.model_validate({"threshold": spec.tau})
        self.loaded = load_benchmark(self.benchmark, hub, generated=spec.generated_data)
        if len(self.loaded.tasks) != 1:
            raise UserError(
                f"{self.loaded.name} is a group of tasks, and one is timed; choose another "
                "`speed.benchmark`, such as gsm8k."
            )
        self.lm = _Replay(
            model,
            tokenizer,
            block_size=None,
            eos_token_ids=eos_token_ids(model, tokenizer),
            max_new_tokens=spec.max_new_tokens,
        )
        self._known: dict[tuple[tuple[int, ...], ...], list[float]] = {}
        self._evaluate()
        self.prompts: list[list[int]] = self.lm.prompts

    def __len__(self) -> int:
        return len(self.prompts)

    def scores(self, answers: Sequence[Sequence[int]]) -> list[float]:
        """The benchmark's score of each answer, 0 or 1 for GSM8K.

        Args:
            answers: token ids up to and including EOS, one list per question, in their order; if
                there are fewer, they answer the first questions. The same answers are scored once.
        """
        key = tuple(map(tuple, answers))
        if key not in self._known:
            self.lm.answers = [list(answer) for answer in answers]
            self._known[key] = self._evaluate()[: len(answers)]
        return self._known[key]

    def _evaluate(self) -> list[float]:
        record, samples = evaluate_cell(self.lm, self.loaded, self.benchmark, self.setting)
        headline(record, self.benchmark)  # the score that tables show is there
        metric, name = self.benchmark.metric, self.benchmark.filter
        return [float(sample["scores"][name][metric]) for sample in samples]


class _Replay(DecodingLM):
    """Notes the prompts and gives back answers decoded elsewhere, empty ones beyond those."""

    prompts: Answers
    answers: Answers = []  # noqa: RUF012 - replaced, never changed

    def decode_all(
        self, requests: list[Instance], prompts: Answers, stops: list[list[str]]
    ) -> list[Decoded]:
        self.prompts = prompts
        silent: Answers = [[]] * (len(prompts) - len(self.answers))
        return [Decoded(one, 1, [len(one)], "eos") for one in (*self.answers, *silent)]
