"""Table 5 and its heat map: decoding methods times batch sizes on the questions of a benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mars.checkpoints.load import load_model
from mars.data.tokenizer import load_tokenizer
from mars.evaluation.scores import Score, mean
from mars.speed.benchmark import loaded_subject, subject_spec
from mars.speed.circumstances import circumstances
from mars.speed.methods import Condition
from mars.speed.questions import Questions
from mars.speed.summary import write_summary
from mars.speed.timing import conditions, measure, with_baselines

if TYPE_CHECKING:
    from mars.config.experiment import WallClock
    from mars.provenance.stage import Job
    from mars.speed.stage import WallClockSpec

AUTHORS = "block_cache-authors"


def measure_wall_clock(spec: WallClockSpec, job: Job) -> None:
    """Measure every condition that is not in the output with its spec, and write the summary.

    The model is one trained with MARS; its one-token mode is the AR baseline. A batch with room for
    more questions than the section says gets as many as it has room for.
    """
    section = spec.section
    checkpoint, output = job.inputs.folder("checkpoints"), job.output
    model = load_model(checkpoint, getattr(torch, spec.precision))
    tokenizer = load_tokenizer(checkpoint)
    most = max(section.questions, *section.rounds)
    questions = Questions(model, tokenizer, spec, most, job.inputs.hub)
    facts = circumstances(job.spec.job)
    subject = loaded_subject(checkpoint, model, tokenizer, [], spec.max_new_tokens)
    wanted = {batch: conditions_of(section, batch, spec.tau) for batch in sorted(section.rounds)}
    remove_others(output, [one for together in wanted.values() for one in together])
    for batch, together in wanted.items():
        order = longest_first(questions.prompts[: max(section.questions, batch)])
        prompts = [questions.prompts[index] for index in order]
        chosen = replace(subject, workload=replace(subject.workload, prompts=prompts))

        def score(answers: list[list[int]], order: list[int] = order) -> Score:
            return mean(questions.scores(in_order(answers, order)))

        rounds = section.rounds[batch]
        measure(
            chosen.workload,
            together,
            repeats=rounds,
            output=output,
            spec={
                **subject_spec(chosen, rounds),
                "code": job.spec.code,
                "packages": job.spec.packages,
            },
            circumstances={"label": subject.label, **facts},
            score=score,
        )
    write_summary(output)


def longest_first(prompts: Sequence[Sequence[int]]) -> list[int]:
    """The order in which prompts are decoded, as in the engine's own ``decode``."""
    return sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))


def in_order(answers: Sequence[list[int]], order: Sequence[int]) -> list[list[int]]:
    """Undo :func:`longest_first`: the answer to question ``order[k]`` is ``answers[k]``."""
    found = dict(zip(order, answers, strict=True))
    return [found[index] for index in range(len(order))]


def conditions_of(section: WallClock, batch: int, tau: float) -> list[Condition]:
    """What is measured at one batch size; the authors' window has granularities of its own (A5)."""
    own = [method for method in section.methods if method != AUTHORS]
    theirs = [method for method in section.methods if method == AUTHORS]
    return [
        *conditions(own, [batch], [tau], section.cache_blocks),
        *conditions(theirs, [batch], [tau], section.authors_cache_blocks),
    ]


def remove_others(output: Path, wanted: Iterable[Condition]) -> None:
    """Delete records of an earlier run whose conditions are no longer wanted."""
    known = {output / one.file for group in with_baselines(wanted).values() for one in group}
    for path in output.glob("batch-*/*.json"):
        if path not in known:
            path.unlink()
