"""Table 6: speculative decoding with MARS as target, as draft, as both and as neither."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from mars.checkpoints.load import block_size_of, load_model
from mars.data.tokenizer import load_tokenizer
from mars.decoding import decode
from mars.decoding.requests import Decoded, Request
from mars.decoding.speculative import decode_speculative
from mars.evaluation.scores import mean
from mars.provenance.files import write_json
from mars.provenance.manifest import new_folder
from mars.speed.circumstances import circumstances, weights_of
from mars.speed.methods import Pass, pass_of, stopwatch
from mars.speed.questions import Questions
from mars.speed.timing import spread, take_turns

if TYPE_CHECKING:
    from mars.provenance.stage import Job
    from mars.speed.stage import SpeculativeSpec


@dataclass(frozen=True)
class Pair:
    """A draft and a target model, by the experiment's names."""

    draft: str
    target: str

    @property
    def name(self) -> str:
        return f"{self.draft} -> {self.target}"

    @property
    def file(self) -> str:
        """Name of the pair's record."""
        return f"{self.draft}--{self.target}.json"


@dataclass(frozen=True)
class SpeculativeDecoder:
    """What all pairs share.

    Attributes:
        models: by name; a MARS model decodes with the block size it was trained for.
        draft_tokens: K.
        tau: of MARS models, as draft and as target.
    """

    models: Mapping[str, PreTrainedModel]
    prompts: list[list[int]]
    draft_tokens: int
    tau: float
    max_new_tokens: int
    eos: frozenset[int]
    mask_token_id: int | None

    def decode(self, pair: Pair) -> list[Decoded]:
        """All prompts, one after the other."""
        target, draft = self.models[pair.target], self.models[pair.draft]
        return [
            decode_speculative(
                target,
                draft,
                Request(prompt, self._tau(target), self.max_new_tokens),
                draft_tokens=self.draft_tokens,
                block_size=block_size_of(target),
                draft_block_size=block_size_of(draft),
                draft_threshold=self._tau(draft),
                eos=self.eos,
                mask_token_id=self.mask_token_id,
            )
            for prompt in self.prompts
        ]

    def decode_alone(self, name: str) -> list[list[int]]:
        """What a model answers by itself, one token per forward."""
        done = decode(
            self.models[name],
            self.prompts,
            block_size=1,
            threshold=None,
            max_new_tokens=self.max_new_tokens,
            eos_token_id=self.eos,
            mask_token_id=self.mask_token_id,
            method="autoregressive",
        )
        return [one.tokens for one in done]

    def _tau(self, model: PreTrainedModel) -> float | None:
        return self.tau if block_size_of(model) > 1 else None


def measure_speculative(spec: SpeculativeSpec, job: Job) -> None:
    """Write one record per pair; the first pair is what the speed-ups are over."""
    section = spec.section
    checkpoints = job.inputs.folders("checkpoints")
    models = {
        name: load_model(path, getattr(torch, spec.precision)) for name, path in checkpoints.items()
    }
    pairs = [Pair(pair.draft, pair.target) for pair in section.pairs]
    first = pairs[0].target
    tokenizer = load_tokenizer(checkpoints[first])
    questions = Questions(models[first], tokenizer, spec, section.questions, job.inputs.hub)
    decoder = SpeculativeDecoder(
        models=models,
        prompts=questions.prompts,
        draft_tokens=section.draft_tokens,
        tau=spec.tau,
        max_new_tokens=spec.max_new_tokens,
        eos=questions.eos,
        mask_token_id=questions.mask_token_id,
    )
    load = [os.getloadavg()[0]]
    drafted: dict[Pair, int] = {}
    runners = {pair: _runner(decoder, pair, drafted) for pair in pairs}
    outputs, timed = take_turns(runners, section.rounds, print)
    load.append(os.getloadavg()[0])
    shared = {
        "benchmark": spec.benchmark.task,
        "draft_tokens": section.draft_tokens,
        "tau": spec.tau,
        "max_new_tokens": spec.max_new_tokens,
        "precision": spec.precision,
        "rounds": section.rounds,
        "threads": torch.get_num_threads(),
        "load_average": load,
        **circumstances(job.spec.job),
    }
    with new_folder(job.output) as output:
        for pair in pairs:
            sizes = {"draft": models[pair.draft], "target": models[pair.target]}
            record = {
                "draft": pair.draft,
                "target": pair.target,
                "block_size": {role: block_size_of(model) for role, model in sizes.items()},
                "weights": {
                    name: weights_of(checkpoints[name]) for name in (pair.draft, pair.target)
                },
                "sequences": len(decoder.prompts),
                "tokens": outputs[pair].count,
                "target_forwards": sum(outputs[pair].forwards),
                "draft_forwards": drafted[pair],
                "tokens_per_target_forward": outputs[pair].count / sum(outputs[pair].forwards),
                **_times(pair, pairs[0], timed),
                **_quality(questions, outputs[pair].tokens, decoder.decode_alone(pair.target)),
                "repeats_agree": all(turn[pair].tokens == outputs[pair].tokens for turn in timed),
                **shared,
            }
            write_json(output / pair.file, record)


def _runner(
    decoder: SpeculativeDecoder, pair: Pair, drafted: dict[Pair, int]
) -> Callable[[], Pass]:
    """Decodes all prompts once; forwards of the draft are left in ``drafted``."""
    target = decoder.models[pair.target]

    def run() -> Pass:
        with stopwatch(target) as seconds:
            done = decoder.decode(pair)
        drafted[pair] = sum(one.draft_forwards for one in done)
        return pass_of(done, seconds(), 0.0)

    return run


def _times(pair: Pair, first: Pair, timed: list[dict[Pair, Pass]]) -> dict[str, Any]:
    """Seconds, tokens per second, and the speed-up over the first pair within each round."""
    over = [turn[pair].throughput / turn[first].throughput for turn in timed]
    return {
        "seconds": spread([turn[pair].seconds for turn in timed]),
        "tokens_per_second": spread([turn[pair].throughput for turn in timed]),
        "speedup": spread(over),
    }


def _quality(
    questions: Questions, answers: list[list[int]], alone: list[list[int]]
) -> dict[str, Any]:
    """Accuracy, and its change from the target's own decoding, question by question."""
    scores, before = questions.scores(answers), questions.scores(alone)
    change = mean([after - plain for after, plain in zip(scores, before, strict=True)])
    return {
        "accuracy": mean(scores)._asdict(),
        "accuracy_of_target_alone": mean(before)._asdict(),
        "delta": change._asdict(),
        "equal_to_target_alone": sum(map(list.__eq__, answers, alone)),
    }
