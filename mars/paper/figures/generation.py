"""Figure 1: one answer, tokens that were accepted in the same forward shaded together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mars.paper.figures.style import PAGE, figure_for
from mars.provenance.files import write_atomic, write_json

SHADES = ("#BFDDF2", "#F6D7A8")  # light blue and light orange: apart for every eye, and in grey
END = "■"
COLUMNS = 96  # letters in a line
LETTER, LINE = 0.0695, 0.155  # inches; of DejaVu Sans Mono at 8 points
STYLE = (
    ".forward{border-radius:3px;padding:.08em 0;color:#000}"
    f".forward.a{{background:{SHADES[0]}}}.forward.b{{background:{SHADES[1]}}}"
    ".answer{font-family:ui-monospace,monospace;white-space:pre-wrap;line-height:1.7}"
)

Example = Mapping[str, Any]
"""What :func:`mars.paper.figures.decoded_example.decode_example` returns."""
Letter = tuple[int, int, str, str | None]  # row, column, letter, shade


def draw(example: Example, caption: str, output: Path) -> list[Path]:
    """Write ``figure1.pdf``, ``.png``, ``.html`` and the runs drawn, ``.json``, into ``output``."""
    files = [output / f"figure1.{suffix}" for suffix in ("pdf", "png", "html", "json")]
    question = list(_wrapped([(example["question"], None)]))
    answer = list(_wrapped(_shaded(example)))
    rows = 1 + max(row for row, *_ in question), 1 + max(row for row, *_ in answer)
    height = (sum(rows) + 3) * LINE
    with figure_for(files[:2], PAGE, height) as figure:
        figure.set_layout_engine("none")
        _letters(figure, question, 0.5, "#555555")
        _letters(figure, answer, rows[0] + 1.2, "black")
        _text(figure, 0, sum(rows) + 2, summary(example), color="#555555", style="italic")
    write_atomic(files[2], _page(example, caption))
    write_json(files[3], dict(example))
    return files


def summary(example: Example) -> str:
    """Tokens and forwards of the answer in one line."""
    tokens, forwards = example["tokens"], example["forwards"]
    return f"{tokens} tokens in {forwards} forwards: {tokens / forwards:.2f} per forward"


def fragment(example: Example) -> Markup:
    """The figure as HTML, for a page that has :data:`STYLE`."""
    span = Markup('<span class="forward {}" title="{} token{}">{}</span>')
    spans = [
        span.format(
            "ab"[SHADES.index(shade)],
            run["tokens"],
            "" if run["tokens"] == 1 else "s",
            text.replace("\n", "↵\n"),
        )
        for (text, shade), run in zip(_shaded(example), example["runs"], strict=True)
    ]
    return Markup(
        '<p class="question">{}</p><p class="answer">{}</p><p>{}. The answer is {}. It was '
        "chosen by a rule: {}.{}</p>"
    ).format(
        example["question"],
        Markup("").join(spans),
        summary(example),
        "correct" if example["correct"] else "not correct",
        example["rule"],
        "" if example["as_evaluated"] else " Decoded again, it differs from the evaluated answer.",
    )


def _page(example: Example, caption: str) -> str:
    return Markup(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<title>Figure 1</title><style>body{{max-width:50rem;margin:2rem auto;padding:0 1rem;"
        "font-family:system-ui,sans-serif}}{}</style></head><body><h1>Figure 1</h1>{}<p>{}</p>"
        "</body></html>\n"
    ).format(Markup(STYLE), fragment(example), caption)


def _shaded(example: Example) -> list[tuple[str, str]]:
    """Text and shade of each forward; the end of the answer, which has no text, gets a sign."""
    runs = [(run["text"], SHADES[number % 2]) for number, run in enumerate(example["runs"])]
    if runs and example["finish"] == "eos":
        text, shade = runs[-1]
        runs[-1] = (text + END, shade)
    return runs


def _wrapped(runs: Sequence[tuple[str, str | None]]) -> Iterator[Letter]:
    """The letters of runs and shades, lines broken between words where possible."""
    letters = [(letter, shade) for text, shade in runs for letter in text]
    row = column = 0
    for index, (letter, shade) in enumerate(letters):
        if not letter.isspace() and column and letters[index - 1][0].isspace():
            word = "".join(following for following, _ in letters[index : index + COLUMNS])
            if column + len(word.split()[0]) > COLUMNS:
                row, column = row + 1, 0
        if column == COLUMNS:
            row, column = row + 1, 0
        yield row, column, "↵" if letter == "\n" else letter, shade
        row, column = (row + 1, 0) if letter == "\n" else (row, column + 1)


def _letters(figure: Figure, letters: list[Letter], top: float, colour: str) -> None:
    """Letters in a grid, ``top`` lines below the upper edge, each on its shade."""
    width, height = figure.get_size_inches()
    for row, column, _, shade in letters:
        if shade is not None:
            corner = (0.05 + column * LETTER) / width, 1 - (top + row + 0.98) * LINE / height
            size = 1.03 * LETTER / width, 0.9 * LINE / height  # overlapping, or there are seams
            look: dict[str, Any] = {
                "facecolor": shade,
                "linewidth": 0,
                "transform": figure.transFigure,
            }
            figure.add_artist(Rectangle(corner, *size, **look))
    for row, column, letter, _ in letters:
        _text(figure, column, top + row, letter, color=colour)


def _text(figure: Figure, column: int, row: float, text: str, **look: Any) -> None:
    width, height = figure.get_size_inches()
    figure.text(
        (0.05 + column * LETTER) / width,
        1 - (row + 0.5) * LINE / height,
        text.replace("$", r"\$"),
        family="DejaVu Sans Mono",
        size=8,
        va="center_baseline",
        **look,
    )
