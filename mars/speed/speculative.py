"""Table 6: speculative decoding with MARS as target, as draft, as both and as neither."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from mars.checkpoints.load import block_size_of, load_model
from mars.data.tokenizer import load_tokenizer
from mars.decoding import decode
from mars.decoding.requests import Request, eos_set
from mars.decoding.speculative import decode_speculative
from mars.evaluation.scores import mean
from mars.provenance.files import write_json
from mars.provenance.manifest import new_folder
from mars.speed.methods import Pass, stopwatch
from mars.speed.questions import Questions
from mars.speed.rounds import ratios, spread, take_turns
from mars.speed.timing import circumstances, weights_of

if TYPE_CHECKING:
    from mars.config.experiment import DraftAndTarget
    from mars.provenance.stage import Job
    from mars.speed.stage import SpeculativeSpec


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
    eos: Collection[int]
    mask_token_id: int | None

    def decode(self, pair: DraftAndTarget) -> Pass:
        """All prompts, one after the other."""
        target, draft = self.models[pair.target], self.models[pair.draft]
        rule: dict[str, Any] = {
            "draft_tokens": self.draft_tokens,
            "block_size": block_size_of(target),
            "draft_block_size": block_size_of(draft),
            "draft_threshold": self._tau(draft),
            "eos": eos_set(self.eos),
            "mask_token_id": self.mask_token_id,
        }
        tau, budget = self._tau(target), self.max_new_tokens
        with stopwatch(target) as seconds:
            done = [
                decode_speculative(target, draft, Request(prompt, tau, budget), **rule)
                for prompt in self.prompts
            ]
        return Pass(done, seconds())

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
    first = section.pairs[0].target
    tokenizer = load_tokenizer(checkpoints[first])
    questions = Questions(models[first], tokenizer, spec, section.questions, job.inputs.hub)
    decoder = SpeculativeDecoder(
        models=models,
        prompts=questions.prompts,
        draft_tokens=section.draft_tokens,
        tau=spec.tau,
        max_new_tokens=spec.max_new_tokens,
        eos=questions.lm.eos_token_ids,
        mask_token_id=tokenizer.mask_token_id,
    )
    pairs = {f"{pair.draft} -> {pair.target}": pair for pair in section.pairs}
    load = [os.getloadavg()[0]]
    runners = {name: partial(decoder.decode, pair) for name, pair in pairs.items()}
    outputs, rounds = take_turns(runners, section.rounds, print)
    load.append(os.getloadavg()[0])
    shared = {
        "benchmark": spec.benchmark.task,
        **section.model_dump(include={"draft_tokens", "rounds"}),
        **spec.model_dump(include={"tau", "max_new_tokens", "precision"}),
        "threads": torch.get_num_threads(),
        "load_average": load,
        **circumstances(job.spec.job),
    }
    with new_folder(job.output) as output:
        for name, pair in pairs.items():
            roles, made = pair.model_dump(), outputs[name]
            record = {
                **roles,
                "block_size": {role: block_size_of(models[one]) for role, one in roles.items()},
                "weights": {one: weights_of(checkpoints[one]) for one in roles.values()},
                "sequences": len(decoder.prompts),
                "tokens": made.count,
                "target_forwards": made.forwards,
                "draft_forwards": sum(one.draft_forwards for one in made.done),
                "tokens_per_target_forward": made.count / made.forwards,
                **{
                    key: spread([getattr(turn[name], key) for turn in rounds])
                    for key in ("seconds", "tokens_per_second")
                },
                "speedup": spread(ratios(rounds, name, next(iter(pairs)))),
                **_quality(questions, made.tokens, decoder.decode_alone(pair.target)),
                "repeats_agree": all(turn[name].tokens == made.tokens for turn in rounds),
                **shared,
            }
            write_json(output / f"{pair.draft}--{pair.target}.json", record)


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
