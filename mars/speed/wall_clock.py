"""Table 5 and its heat map: decoding methods times batch sizes on the questions of a benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mars.checkpoints.load import load_model
from mars.data.tokenizer import load_tokenizer
from mars.evaluation.scores import Score, mean
from mars.speed.benchmark import gpu_driver, loaded_subject, subject_spec
from mars.speed.methods import BASELINES, Cell
from mars.speed.questions import Questions
from mars.speed.summary import write_summary
from mars.speed.timing import cells, measure

AUTHORS = "block_cache-authors"


def sweep(
    *,
    checkpoint: Path,
    precision: str,
    asked: Mapping[str, Any],
    hub: Path,
    work: Path,
    rounds: Mapping[int, int],
    methods: Sequence[str],
    tau: float,
    cache_blocks: Iterable[int],
    authors_cache_blocks: Iterable[int],
    output: Path,
    spec: dict[str, Any],
    about: dict[str, Any],
) -> None:
    """Measure every cell that is not there with its spec, and write the summary.

    Args:
        checkpoint: of a MARS model; one-token mode of the same checkpoint is the AR baseline.
        asked: the questions, as :class:`mars.speed.questions.Questions` takes them. A batch with
            room for more than ``asked["count"]`` gets as many as it has room for.
        rounds: timed rounds by batch size.
        methods: of :data:`mars.speed.methods.METHODS`, with ``tau`` where they have one.
        cache_blocks, authors_cache_blocks: B_cache of ``block_cache`` with the window that the
            model was trained for, and with that of the authors' code (AUDIT A5).
        spec, about: as of :func:`mars.speed.timing.measure`.
    """
    model = load_model(checkpoint, getattr(torch, precision))
    tokenizer = load_tokenizer(checkpoint)
    most = max(asked["count"], *rounds)
    questions = Questions(model, tokenizer, **{**asked, "count": most}, hub=hub, work=work)
    subject = loaded_subject(checkpoint, model, tokenizer, [], asked["max_new_tokens"])
    wanted = {
        batch: _cells(batch, methods, tau, cache_blocks, authors_cache_blocks)
        for batch in sorted(rounds)
    }
    _remove_others(output, [cell for together in wanted.values() for cell in together])
    for batch, together in wanted.items():
        order = longest_first(questions.prompts[: max(asked["count"], batch)])
        prompts = [questions.prompts[index] for index in order]
        chosen = replace(subject, work=replace(subject.work, prompts=prompts))

        def score(answers: list[list[int]], order: list[int] = order) -> Score:
            return mean(questions.scores(in_order(answers, order)))

        measure(
            chosen.work,
            together,
            repeats=rounds[batch],
            output=output,
            spec=subject_spec(chosen, rounds[batch]) | spec,
            about={"label": subject.label, **about, "gpu_driver": gpu_driver()},
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


def _cells(
    batch: int,
    methods: Sequence[str],
    tau: float,
    cache_blocks: Iterable[int],
    authors_cache_blocks: Iterable[int],
) -> list[Cell]:
    own = [method for method in methods if method != AUTHORS]
    found = cells(own, [batch], [tau], cache_blocks)
    if AUTHORS in methods:
        found += cells([AUTHORS], [batch], [tau], authors_cache_blocks)
    return found


def _remove_others(output: Path, wanted: Iterable[Cell]) -> None:
    """Delete records of an earlier run whose cells are no longer asked for."""
    wanted = list(wanted)
    wanted += [Cell(method, cell.batch) for cell in wanted for method in BASELINES]
    known = {output / cell.file for cell in wanted}
    for path in output.glob("batch-*/*.json"):
        if path not in known:
            path.unlink()
