"""What each claim of the paper rests on: where the paper makes it, and what has to be run for it.

No stage reads this; it serves whoever wants to test one claim alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mars.config.experiment import Experiment
from mars.paper import published
from mars.paper.artefacts import artefacts_of
from mars.paper.claims.results import ar_sft, mars, row_of
from mars.paper.evaluations import models_for
from mars.paper.published import SCALES, Row
from mars.paper.specs import seeds_of
from mars.paper.stage import claims_spec

# What a second run of the jobs behind a claim can be expected to give.
OF_SCORES = (
    "on the same kind of processor with the locked packages, the same numbers to the last digit. "
    "On another one sums are rounded otherwise, and a training ends in slightly other weights: "
    "numbers within their intervals, and the same verdict where it is sure."
)
OF_TIMES = (
    "other times in every run, by what else the machine does. Another machine may well give "
    "another verdict; a GPU's says nothing of a CPU's."
)
OF_COUNTS = "the same on every machine: nothing is measured or left to chance."


@dataclass(frozen=True)
class Behind:
    """A claim as the paper has it, and what it takes to test it.

    Attributes:
        quote: the sentence of the abstract that makes it, if one does.
        paper: where else it is, with the published numbers.
        rows: the rows that it compares; their models are evaluated.
        kinds: the folders of these models that it needs.
        every_row: whether nothing can be said of it unless there is a model for each row.
        every_seed: whether it takes all trainings of these models.
        file: what else it needs, if the experiment makes it: an artefact's name and its file.
        expect: what a second run gives.
    """

    paper: str
    expect: str
    rows: Callable[[], Iterable[Row | None]] = tuple
    quote: str = ""
    kinds: tuple[str, ...] = ("evaluations",)
    every_row: bool = False
    every_seed: bool = True
    file: tuple[str, str] | None = None

    def files(self, experiment: Experiment) -> list[str]:
        """What has to be there, relative to the folder of results; nothing if nothing is run."""
        if self.file:
            artefact, file = self.file
            return [file] if artefact in artefacts_of(experiment) else []
        spec = claims_spec(experiment)
        fitting = [models_for(row, spec) for row in self.rows() if row]
        if self.every_row and not all(fitting):
            return []
        first = {name for names in fitting for name in names}
        trained = {seed for name in first for seed in seeds_of(name, spec.models)}
        models = sorted(trained if self.every_seed else first)
        return [f"{kind}/{name}/manifest.json" for kind in self.kinds for name in models]


def _one_token() -> list[Row | None]:
    ours = [mars(scale, 4) for scale in SCALES]
    return [*ours, *(ar_sft(scale, epochs) for scale in SCALES for epochs in (5, 10))]


def _several_tokens() -> list[Row | None]:
    fast = published.table4()
    return [*fast, *(mars(row.scale, row.block_size) for row in fast)]


def _block_sizes() -> list[Row | None]:
    return [mars("0.5B", size, loss) for size in (4, 16) for loss in (True, False)]


def _block_diffusion() -> list[Row | None]:
    diffusion = row_of(published.table2(), method="block_diffusion")
    return [diffusion, ar_sft("0.5B"), mars("0.5B", 4)]


def _same_interface() -> list[Row | None]:
    ours = [row for row in published.table3() if row.method == "mars"]
    return [*(ar_sft(scale) for scale in SCALES), *ours]


BEHIND = {
    1: Behind(
        "Table 2: on average 30.4 against 28.7 for AR SFT at 0.5B, 58.1 against 56.6 at 7B.",
        OF_SCORES,
        _one_token,
        "When generating one token per forward pass, MARS matches or exceeds the AR baseline on "
        "six standard benchmarks.",
    ),
    2: Behind(
        "Table 4, at tau = 0.95.",
        OF_SCORES,
        _several_tokens,
        "When allowed to accept multiple tokens per step, it maintains baseline-level accuracy "
        "while achieving 1.5-1.7x throughput.",
    ),
    3: Behind(
        "Table 3: for B = 4, 8, 16 on average 30.4, 29.7, 29.7 with the loss at 0.5B, and 28.4, "
        "26.4, 22.2 without.",
        OF_SCORES,
        _block_sizes,
        every_row=True,
    ),
    4: Behind(
        "Table 2: block diffusion has 22.8 on average, AR SFT 28.7, MARS 30.4 (0.5B, B=4).",
        OF_SCORES,
        _block_diffusion,
        every_row=True,
    ),
    5: Behind(
        "Table 5: 256 questions of GSM8K.",
        OF_TIMES,
        quote="We further develop a block-level KV caching strategy for batch inference, "
        "achieving up to 1.71x wall-clock speedup over AR with KV cache on Qwen2.5-7B.",
        file=("table5", "tables/table5.csv"),
    ),
    6: Behind(
        "no number is published.",
        OF_TIMES,
        quote="[...] under high request load, the serving system can increase throughput on the "
        "fly without swapping models or restarting [...]",
        file=("live_tau", "speed/live_tau/manifest.json"),
    ),
    7: Behind(
        "Table 6: 1.27 times as fast as AR with AR with MARS as target, 1.40 times with MARS as "
        "draft too.",
        OF_TIMES,
        file=("table6", "tables/table6.csv"),
    ),
    8: Behind(
        "Table 9: Jacobi decoding of AR SFT has 1.07 tokens per forward, MARS 1.46 (0.5B, B=4).",
        OF_SCORES,
        published.table9,
    ),
    9: Behind("Figure 6, a plot of three metrics.", OF_SCORES, lambda: [mars("0.5B", 4)]),
    10: Behind(
        "the method; no table.",
        OF_COUNTS,
        _same_interface,
        "MARS adds no architectural modifications, no extra parameters, and produces a single "
        "model that can still be called exactly like the original AR model with no performance "
        "degradation.",
        kinds=("evaluations", "checkpoints"),
        every_seed=False,
    ),
}
