"""``questions.html``: what was asked, what each model answered, what it scored.

One file that opens without a network or a server, to which the numbers of ``report.html`` lead. It
is made from ``samples.parquet``. Prompts, of which that has the hashes only, are built again as the
evaluation built them, from the data; those of an earlier page are kept. Of GPQA, whose text may not
be spread, there are letters only.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mars.audit.packed import SAMPLES
from mars.config.experiment import Experiment
from mars.errors import UserError
from mars.evaluation.stage import inputs as read_by_evaluation
from mars.paper.report.addresses import QUESTIONS
from mars.paper.report.page import COLOURS
from mars.paper.stage import answered
from mars.provenance.files import readable_size, sha256_text, write_atomic

if TYPE_CHECKING:
    from mars.config.experiment import Benchmark

TEMPLATE = Path(__file__).parent / "questions.html.jinja"
CODE_TIMEOUT = 1  # seconds; no code is run
LARGE = 20e6  # bytes of samples.parquet from which the page is only written when asked for
COLUMNS = (
    *("model", "setting", "task", "document", "prompt_sha256", "target"),
    *("generation", "extracted", "score", "tokens", "forwards", "finish"),
)
PART = re.compile(r'<script type="text/plain" data-benchmark="[^"]*">([^<]*)</script>')

Row = Mapping[str, Any]
"""A question of an evaluation, as in ``samples.parquet``."""


def write_questions(experiment: Experiment, root: Path = Path()) -> str:
    """Write ``questions.html`` beside the page of an experiment; what was done, in a sentence.

    Raises:
        UserError: the answers are not here.
    """
    results = root / "results" / experiment.experiment
    page, samples = results / QUESTIONS, results / SAMPLES
    if not samples.is_file():
        raise UserError(
            f"{samples} is not here; it is written at the end of `make reproduce`, and in git for "
            "tiny and mini."
        )
    known = prompts_of(page)
    parts, lacking = {}, 0
    for name, benchmark in experiment.benchmarks.items():
        if not (rows := _rows(samples, name)):
            continue
        if not _is_gated(rows):
            wanted = {row["prompt_sha256"] for row in rows} - known.keys()
            known |= _built(experiment, results, name, wanted) if wanted else {}
            lacking += len(wanted - known.keys())
        parts[name] = benchmark_part(rows, benchmark, known)
    write_atomic(page, _page(experiment, parts))
    said = f"{page} is written, {readable_size(page.stat().st_size)}; open it in a browser."
    without = (
        f" The prompts of {lacking} questions are not here: `make reproduce` makes their data."
    )
    return said + (without if lacking else "")


def write_small(experiment: Experiment) -> str:
    """The same at the end of a run, unless the page would be large."""
    size = (Path("results") / experiment.experiment / SAMPLES).stat().st_size
    if size < LARGE:
        return write_questions(experiment)
    return f"`mars questions` writes a page of all questions: {readable_size(size)} of answers."


# --- what a page holds --------------------------------------------------------------------------


def benchmark_part(
    rows: Sequence[Row], benchmark: Benchmark, prompts: Mapping[str, str]
) -> dict[str, Any]:
    """The questions of a benchmark, and what was answered to each under each setting.

    Many models give the same answer, so each answer stands once below its question.

    Returns:
        ``questions``: task, document, hash of the prompt, prompt or None, target. ``answers``: of
        each question the different ones: text or None, what was read from it, score, tokens, how
        it ended. ``cells``: by model and setting, of each question the number of its answer and
        its forwards, or two None if it was not asked.
    """
    places: dict[tuple[Any, ...], int] = {}
    questions: list[list[Any]] = []
    answers: list[dict[tuple[Any, ...], int]] = []
    given: dict[str, dict[int, tuple[int, int]]] = defaultdict(dict)
    for row in rows:
        key = (row["task"], row["document"], row["prompt_sha256"])
        place = places.setdefault(key, len(places))
        if place == len(questions):
            text = None if _is_gated([row]) else prompts.get(row["prompt_sha256"])
            questions.append([*key, text, json.loads(row["target"])])
            answers.append({})
        answer = _answer(row, benchmark.filter)
        number = answers[place].setdefault(answer, len(answers[place]))
        given[f"{row['model']}/{row['setting']}"][place] = (number, row["forwards"])
    nothing = (None, None)
    return {
        "questions": questions,
        "answers": [[list(answer) for answer in found] for found in answers],
        "cells": {
            cell: [found.get(place, nothing) for place in range(len(questions))]
            for cell, found in given.items()
        },
    }


def _answer(row: Row, judged: str) -> tuple[Any, ...]:
    """An answer as it stands below its question; what was read from it, if that is not all."""
    read = json.loads(row["extracted"]).get(judged)
    read = read if read is None or isinstance(read, str) else json.dumps(read, ensure_ascii=False)
    text = None if _is_gated([row]) else row["generation"]
    return text, read, row["score"], row["tokens"], row["finish"]


def _is_gated(rows: Sequence[Row]) -> bool:
    """Whether the text of these questions may not be spread."""
    return any("gpqa" in row["task"] for row in rows)


def _rows(samples: Path, benchmark: str) -> list[Row]:
    import pyarrow.parquet as pq

    wanted = [("benchmark", "==", benchmark)]
    found: list[Row] = pq.read_table(samples, columns=[*COLUMNS], filters=wanted).to_pylist()
    return found


# --- prompts ------------------------------------------------------------------------------------


def prompts_of(page: Path) -> dict[str, str]:
    """The prompts on a page that is there, by their hash."""
    found: dict[str, str] = {}
    for part in parts_of(page):
        texts = [question[3] for question in part["questions"] if question[3] is not None]
        found |= {sha256_text(text): text for text in texts}
    return found


def parts_of(page: Path) -> Iterator[dict[str, Any]]:
    """The benchmarks of a page that is there."""
    for packed in PART.findall(page.read_text()) if page.is_file() else ():
        yield json.loads(gzip.decompress(base64.b64decode(packed)))


def _built(experiment: Experiment, results: Path, name: str, wanted: set[str]) -> dict[str, str]:
    """Those prompts of a benchmark that the data and tokenizers here give, by their hash."""
    found: dict[str, str] = {}
    scales = set()
    for model in experiment.evaluated_models():
        scale = experiment.models[model].scale  # whose models share a tokenizer
        checkpoint = results / "checkpoints" / model
        here = all((results / file).is_file() for file in read_by_evaluation(experiment, model))
        if scale not in scales and here and wanted - found.keys():
            scales.add(scale)
            benchmark, hub = experiment.benchmarks[name], results / "data/hub"
            with suppress(UserError):  # of data that were deleted
                found |= built(benchmark, hub, checkpoint, experiment.generated)
    return {digest: text for digest, text in found.items() if digest in wanted}


def built(benchmark: Benchmark, hub: Path, checkpoint: Path, generated: bool) -> dict[str, str]:
    """The prompts of a benchmark as an evaluation of a checkpoint asks them, by their hash."""
    from mars.data.tokenizer import load_tokenizer
    from mars.evaluation.offline import prepare_process
    from mars.evaluation.tasks import load_benchmark

    prepare_process(CODE_TIMEOUT)
    tokenizer = load_tokenizer(checkpoint)
    prompts = []
    for task in load_benchmark(benchmark, hub, generated=generated).tasks.values():
        for _, document in task.doc_iterator(limit=benchmark.limit):
            prompts.append(
                task.fewshot_context(
                    document,
                    num_fewshot=task.config.num_fewshot or 0,
                    apply_chat_template=True,
                    fewshot_as_multiturn=benchmark.fewshot_as_multiturn,
                    chat_template=partial(_as_chat, tokenizer),
                    gen_prefix=task.doc_to_prefix(document),
                )
            )
    return {sha256_text(prompt): prompt for prompt in prompts}


def _as_chat(
    tokenizer: Any, turns: list[dict[str, str]], add_generation_prompt: bool = True
) -> str:
    """Turns as lm-eval writes them for a model."""
    text: str = tokenizer.apply_chat_template(
        turns,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        continue_final_message=not add_generation_prompt,
    )
    return text


# --- the page -----------------------------------------------------------------------------------


def _page(experiment: Experiment, parts: Mapping[str, dict[str, Any]]) -> str:
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    about = {
        "benchmarks": {name: experiment.benchmarks[name].title for name in parts},
        "settings": list(experiment.settings),
        "models": experiment.evaluated_models(),
        "trainings": answered(experiment).trainings,
        "compared": compared(experiment),
        "one_token": answered(experiment).one_token,
    }
    return environment.from_string(TEMPLATE.read_text()).render(
        experiment=experiment.experiment,
        colours=Markup(COLOURS.read_text()),
        about=Markup(_plain(about).replace("<", "\\u003c")),
        parts={name: _packed(part) for name, part in parts.items()},
    )


def compared(experiment: Experiment) -> dict[str, str]:
    """The model that each one is first shown beside: the AR model that it continues from."""
    found = {}
    evaluated = experiment.evaluated_models()
    for model in evaluated:
        other = experiment.models[model].parent
        while other is not None and experiment.models[other].method not in ("ar_sft", "base"):
            other = experiment.models[other].parent
        if other in evaluated:
            found[model] = other
    return found


def _packed(part: Mapping[str, Any]) -> str:
    """The same content gives the same text."""
    return base64.b64encode(gzip.compress(_plain(part).encode(), 9, mtime=0)).decode()


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
