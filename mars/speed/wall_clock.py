"""Table 5 and its heat map: decoding methods times batch sizes on the questions of a benchmark."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mars.evaluation.scores import mean
from mars.speed.methods import Condition
from mars.speed.questions import questions_for
from mars.speed.summary import write_summary
from mars.speed.timing import circumstances, conditions, measure, remove_others

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
    section, output = spec.section, job.output
    most = max(map(section.questions_at, section.rounds))
    questions, workload = questions_for(spec, most, job)
    facts = circumstances(job.spec.job)
    wanted = {batch: conditions_of(section, batch, spec.tau) for batch in sorted(section.rounds)}
    remove_others(output, [one for together in wanted.values() for one in together])
    for batch, together in wanted.items():
        measure(
            replace(workload, prompts=workload.prompts[: section.questions_at(batch)]),
            together,
            repeats=section.rounds[batch],
            output=output,
            spec={"code": job.spec.code, "packages": job.spec.packages},
            circumstances=facts,
            score=lambda answers: mean(questions.scores(answers)),
        )
    write_summary(output)


def conditions_of(section: WallClock, batch: int, tau: float) -> list[Condition]:
    """What is measured at one batch size; the authors' window has granularities of its own (A5)."""
    blocks = {AUTHORS: section.authors_cache_blocks}
    return [
        condition
        for method in sorted(section.methods, key=AUTHORS.__eq__)
        for condition in conditions(
            [method], [batch], [tau], blocks.get(method, section.cache_blocks)
        )
    ]
