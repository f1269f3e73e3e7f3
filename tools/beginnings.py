"""How many beginnings of answers checkpoints share, as docs/endpoint.md has it.

    python tools/beginnings.py config/mini.yaml ar-small base-small ar-small-seed1 ar-2x-small

Compares the first model with itself in bfloat16 and with each of the others: the beginnings that an
evaluation compares before it believes a server. Needs a finished experiment.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from lm_eval.api.instance import Instance

from mars.checkpoints.load import eos_token_ids, load_model
from mars.config.experiment import Experiment, Setting, load_experiment
from mars.data.tokenizer import load_tokenizer
from mars.decoding.requests import Decoded
from mars.evaluation.adapter import DecodingLM
from mars.evaluation.endpoint import BEGINNING, compared
from mars.evaluation.evaluate import evaluate_cell
from mars.evaluation.offline import prepare_process
from mars.evaluation.tasks import load_benchmark

Begun = dict[str, list[list[int]]]
"""The first tokens of some answers, by benchmark."""


class Beginner(DecodingLM):
    """Begins the answers that are compared, and leaves the others empty."""

    def decode_all(
        self, requests: list[Instance], prompts: list[list[int]], stops: list[list[str]]
    ) -> list[Decoded]:
        some = compared(len(prompts))
        self.max_new_tokens, whole = BEGINNING, self.max_new_tokens
        begun = super().decode_all(requests[some], prompts[some], stops[some])
        self.max_new_tokens = whole
        self.begun = [answer.tokens for answer in begun]
        return [Decoded([], 0, [], "length") for _ in prompts]


def begin(experiment: Experiment, name: str, dtype: torch.dtype = torch.float32) -> Begun:
    """What a model of the experiment says first, in one-token mode."""
    results = Path("results") / experiment.experiment
    model = load_model(results / "checkpoints" / name, dtype)
    tokenizer = load_tokenizer(results / "checkpoints" / name)
    lm = Beginner(
        model,
        tokenizer,
        block_size=None,
        eos_token_ids=eos_token_ids(model, tokenizer),
        max_new_tokens=experiment.evaluation.max_new_tokens,
    )
    begun = {}
    for key, benchmark in experiment.benchmarks.items():
        if not benchmark.unsafe_code:
            loaded = load_benchmark(benchmark, results / "data/hub", generated=experiment.generated)
            evaluate_cell(lm, loaded, benchmark, Setting.model_validate({}))
            begun[key] = lm.begun
    return begun


def main(config: str, first: str, *others: str) -> None:
    experiment = load_experiment(config)
    prepare_process(experiment.evaluation.code_timeout)
    wanted = begin(experiment, first)
    print(f"| | {' | '.join(experiment.benchmarks[key].title for key in wanted)} |")
    print("|---" * (1 + len(wanted)) + "|")
    found = {"itself in bfloat16": begin(experiment, first, torch.bfloat16)}
    found |= {name: begin(experiment, name) for name in others}
    for name, begun in found.items():
        equal = [
            sum(one == other for one, other in zip(wanted[key], begun[key], strict=True))
            for key in wanted
        ]
        print(f"| {name} | {' | '.join(map(str, equal))} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
