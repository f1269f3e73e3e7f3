"""Whether every kind of job runs here: `make kick-the-tires`, three minutes at most.

    python tools/kick_the_tires.py

Runs the `ci` experiment, which trains and decodes at sizes from which a model learns next to
nothing, in a folder of its own; then audits it, runs one cell of it again, and derives the verdicts
of `tiny` from what git has. Results of other runs stay as they are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mars.config.experiment import Experiment, load_experiment
from mars.planning.differences import spec_of
from mars.planning.jobs import specs_of
from mars.planning.plan import readable_time
from mars.provenance.files import read_json

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config/ci.yaml"
FOLDER = ROOT / "build/kick-the-tires"
LOG = "kick-the-tires.log"  # in that folder


@dataclass(frozen=True)
class Kind:
    """Jobs of some rules of the workflow, and what they show when they have run."""

    name: str
    shows: str
    rules: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """What was tried, and what came of it; of jobs, the sum of the seconds that they recorded."""

    name: str
    shows: str
    passed: bool
    seconds: float


KINDS = (
    Kind(
        "data",
        "corpus, six miniature benchmarks, tokenizer, token ids",
        ("generate_data", "train_tokenizer", "tokenize"),
    ),
    Kind("pre-training", "base models of both scales, from scratch", ("pretrain",)),
    Kind("training", "AR SFT, MARS, block diffusion", ("train",)),
    Kind("evaluation", "six benchmarks through lm-eval, all ways to decode", ("evaluate",)),
    Kind("probe", "how right and how sure the masks are", ("probe",)),
    Kind("speed", "wall clock, speculative decoding, the live tau", ("measure",)),
    Kind("tables", "Tables 2 to 9, and findings", ("table",)),
    Kind("figures", "Figures 1, 3, 6, and those beyond the paper", ("figure",)),
    Kind("verdicts", "each published number and each claim", ("comparison", "claims")),
    Kind("page", "all of it in one HTML file", ("report",)),
)

CELL = ("table2", "0.5B MARS B=4", "GSM8K")
TINY = ROOT / "config/tiny.yaml"


def main() -> int:
    """Try everything and print what came of it; 0 if all passed."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    experiment = load_experiment(CONFIG)
    number = sum(map(len, specs_of(experiment).values()))
    print(f"Runs {number} small jobs; what they say goes to {shown(FOLDER / LOG)}.", flush=True)
    started = time.monotonic()
    workflow()
    steps = [
        *of_jobs(experiment, FOLDER / "results" / experiment.experiment),
        verb("every file is what its record says", "audit", "--all"),
        verb("an evaluation and its table come out again", "replay", *CELL),
        verb("the verdicts of tiny, from its answers in git", "claims", config=TINY, root=ROOT),
    ]
    print(*table(steps), sep="\n")
    print(conclusion(steps, time.monotonic() - started))
    return int(not all(step.passed for step in steps))


def workflow() -> None:
    """Run the workflow; what depends on nothing that failed runs, too."""
    run(
        *("-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(FOLDER)),
        *("--profile", str(ROOT / "workflow/profiles/default"), "--configfile", str(CONFIG)),
        *("--nolock", "--keep-going"),
    )


def of_jobs(experiment: Experiment, results: Path) -> list[Step]:
    """What the records say: a kind has passed if each of its jobs has left one."""
    records = list(map(read_json, results.glob("provenance/**/*.json")))
    seconds = {spec_of(record).canonical(): record["seconds"] for record in records}
    planned = specs_of(experiment)
    steps = []
    for kind in KINDS:
        specs = [spec.canonical() for rule in kind.rules for spec in planned[rule]]
        passed = all(spec in seconds for spec in specs)
        took = sum(seconds.get(spec, 0.0) for spec in specs)
        steps.append(Step(kind.name, kind.shows, passed, took))
    return steps


def verb(shows: str, *words: str, config: Path = CONFIG, root: Path = FOLDER) -> Step:
    """A verb of `mars` as a step, which has passed if its exit status is 0."""
    started = time.monotonic()
    status = run("-m", "mars", *words, "--config", str(config), "--root", str(root))
    return Step(words[0], shows, status == 0, time.monotonic() - started)


def run(*words: str) -> int:
    """Run Python with these words; what it prints goes to the log."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    with open(FOLDER / LOG, "a") as log:
        log.write(f"\n$ python {' '.join(words)}\n")
        log.flush()
        done = subprocess.run(
            [sys.executable, *words], cwd=FOLDER, env=environment, stdout=log, stderr=log
        )
    return done.returncode


def table(steps: list[Step]) -> list[str]:
    """A line for each step."""
    words = {True: "passed", False: "FAILED"}
    rows = [
        ("step", "what it shows", "", "seconds"),
        *((step.name, step.shows, words[step.passed], f"{step.seconds:.1f}") for step in steps),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"{name:<{widths[0]}}  {shows:<{widths[1]}}  {word:<{widths[2]}}  {seconds:>{widths[3]}}"
        for name, shows, word, seconds in rows
    ]


def conclusion(steps: list[Step], seconds: float) -> str:
    """One sentence: how it ended, and where to look."""
    failed = [step.name for step in steps if not step.passed]
    if failed:
        return f"Failed: {', '.join(failed)}; {shown(FOLDER / LOG)} says why."
    page = shown(FOLDER / "results/ci/report.html")
    return f"All of it runs here: {readable_time(seconds)}. The page is {page}."


def shown(path: Path) -> str:
    """A path as seen from the project."""
    return str(path.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(main())
