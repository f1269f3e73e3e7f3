"""What each place of the decoding window predicts, at every token of a model's own answers.

The window of paper section 3.4 is the last known token and B - 1 masks; its place k predicts the
k-th token to come. Place 1 is AR decoding, whose answers are the measure here: a place is right
where it predicts the token that AR decoding then writes. How sure and how right the later places
are decides how many tokens a forward gains, at any tau.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel

from mars.config.experiment import Setting
from mars.decoding.acceptance import confidence, forbid
from mars.evaluation.adapter import DecodingLM
from mars.evaluation.evaluate import evaluate_cell
from mars.evaluation.offline import prepare_process
from mars.evaluation.tasks import load_benchmark
from mars.provenance.files import write_jsonl
from mars.training.dual_stream import CLEAN, Stream, autoregressive_stream
from mars.training.packing import pack

if TYPE_CHECKING:
    from mars.evaluation.stage import ProbeSpec

PREDICTIONS = 1024  # whose logits are in memory at a time


class Predictions(NamedTuple):
    """What the windows along one answer predict, N predictions in all."""

    place: np.ndarray  # (N,) k, from 1
    right: np.ndarray  # (N,) whether it is the token that the answer has there
    confidence: np.ndarray  # (N,) the probability of the predicted token


class Place(NamedTuple):
    """One place of the window over all windows along the answer to one question."""

    question: int
    place: int
    windows: int
    right: float  # share of the windows
    confidence: float  # mean over the windows


def window_stream(
    document: np.ndarray, prompt_length: int, *, block_size: int, mask_token_id: int
) -> Stream:
    """The clean document, then at each token that predicts the answer the masks of its window.

    Every window is a block of its own: its masks see the known tokens, and each other up to
    themselves. So one forward pass predicts what as many forward passes of decoding would.

    Args:
        document: (L,) token ids, of which the first ``prompt_length``, at least 1, are the prompt.
    """
    clean = autoregressive_stream(document, prompt_length)
    offsets = np.arange(1, block_size)
    last_known = np.repeat(clean.labels, block_size - 1)
    positions = (clean.labels[:, None] + offsets).ravel()
    inside = positions < len(document) - 1  # beyond it there is nothing to be right about
    last_known, positions = last_known[inside], positions[inside]
    masks = len(clean) + np.arange(len(positions))
    return Stream(
        tokens=np.concatenate([clean.tokens, np.full_like(positions, mask_token_id)]),
        positions=np.concatenate([clean.positions, positions]),
        blocks=np.concatenate([np.full_like(clean.positions, CLEAN), last_known]),
        clean_limits=np.concatenate([clean.clean_limits, last_known + 1]),
        noisy_limits=np.concatenate([clean.noisy_limits, positions + 1]),
        labels=np.concatenate([clean.labels, masks]),
        targets=np.concatenate([clean.targets, document[positions + 1]]),
        ar_terms=np.ones(len(clean.labels) + len(masks)),
        mask_terms=np.zeros(len(clean.labels) + len(masks)),
        size=len(clean.labels),
    )


@torch.inference_mode()
def predictions(
    model: PreTrainedModel,
    document: np.ndarray,
    prompt_length: int,
    *,
    block_size: int,
    mask_token_id: int,
) -> Predictions:
    """What every window along an answer predicts; the arguments are :func:`window_stream`'s."""
    stream = window_stream(
        document, prompt_length, block_size=block_size, mask_token_id=mask_token_id
    )
    (rows,) = pack(
        [stream], row_length=len(stream), rows_per_forward=1, normalisation="token", ar_weight=1.0
    )
    rows = rows.to(model.device)
    hidden = model.get_decoder()(
        input_ids=rows.tokens,
        position_ids=rows.positions,
        attention_mask=rows.dense_mask(),
        use_cache=False,
    ).last_hidden_state[0, rows.labels]
    right, sure = [], []
    for part, targets in zip(
        hidden.split(PREDICTIONS), rows.targets.split(PREDICTIONS), strict=True
    ):
        logits = forbid(model.get_output_embeddings()(part), mask_token_id)
        right.append(logits.argmax(-1) == targets)
        sure.append(confidence(logits, "probability"))
    blocks = stream.blocks[stream.labels]
    place = np.where(blocks == CLEAN, 1, stream.positions[stream.labels] - blocks + 1)
    return Predictions(place, torch.cat(right).cpu().numpy(), torch.cat(sure).cpu().numpy())


def places(question: int, found: Predictions) -> list[Place]:
    """The predictions along one answer, put together by place."""
    rows = []
    for place in np.unique(found.place):
        here = found.place == place
        right, sure = found.right[here].mean(), found.confidence[here].mean()
        rows.append(Place(question, int(place), int(here.sum()), float(right), float(sure)))
    return rows


def probe(spec: ProbeSpec, *, checkpoint: Path, hub: Path, output: Path) -> None:
    """Write ``places.jsonl`` with a line for each question and place of the window.

    Args:
        hub: data sets in hub layout, ``<hub>/<owner>/<name>``; no network is used.

    Raises:
        UserError: the task or its data are missing.
    """
    protocol = spec.evaluation
    prepare_process(protocol.code_timeout)
    loaded = load_benchmark(spec.benchmark, hub, generated=spec.generated_data)
    lm = DecodingLM.load(checkpoint, protocol, block_size=spec.block_size)
    evaluate_cell(lm, loaded, spec.benchmark, Setting.model_validate({}))
    rows: list[Place] = []
    for question, (prompt, answer) in enumerate(zip(lm.prompts, lm.decoded, strict=True)):
        found = predictions(
            lm.model,
            np.array([*prompt, *answer.tokens]),
            len(prompt),
            block_size=spec.block_size,
            mask_token_id=lm.tokenizer.mask_token_id,
        )
        rows += places(question, found)
    write_jsonl(output / "places.jsonl", (row._asdict() for row in rows))
