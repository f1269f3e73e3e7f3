"""Which of the predicted tokens are accepted: pure functions on logits, shared by every decoder.

A forward predicts the next tokens from left to right. The first is always accepted; those after
it are accepted as long as the model is sure enough (paper section 3.4, Figure 6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mars.errors import UserError

METRICS = ("probability", "entropy", "margin")


def cutoff(threshold: float | None, metric: str) -> float:
    """The confidence a token needs under ``metric``, on the scale of :func:`confidence`.

    ``threshold=None`` is one-token mode: no confidence is enough. So is the end of the scale
    (probability or margin 1, entropy 0), as in the paper, where tau = 1 means one token per
    forward: a softmax reaches it by rounding only.

    Raises:
        UserError: unknown metric, or a threshold off the metric's scale.
    """
    if metric not in METRICS:
        raise UserError(
            f"Unknown acceptance metric {metric!r}: choose one of {', '.join(METRICS)}."
        )
    if threshold is None:
        return math.inf
    if metric == "entropy":
        if not 0 <= threshold < math.inf:
            raise UserError(f"An entropy threshold must be 0 or more (in nats), not {threshold}.")
        return -threshold if threshold > 0 else math.inf
    if not 0 <= threshold <= 1:
        raise UserError(f"The threshold tau must lie between 0 and 1, not {threshold}.")
    return threshold if threshold < 1 else math.inf


def forbid(logits: Tensor, token: int | None) -> Tensor:
    """``logits`` [..., vocabulary] in float32 with ``token``, if there is one, made impossible.

    The [MASK] token is an input only; the model never means to say it.
    """
    logits = logits.float()
    if token is not None:
        logits[..., token] = -math.inf
    return logits


def confidence(logits: Tensor, metric: str) -> Tensor:
    """How sure the model is at each position, higher is surer: [..., vocabulary] -> [...].

    ``probability``: the largest softmax value; ``margin``: the largest minus the second largest;
    ``entropy``: minus the entropy in nats. ``logits`` must be float32: in bfloat16 every
    probability from .998 on rounds to 1.
    """
    probabilities = logits.softmax(-1)
    if metric == "probability":
        return probabilities.amax(-1)
    if metric == "entropy":
        return -torch.special.entr(probabilities).sum(-1)
    top = probabilities.topk(2, dim=-1).values
    return top[..., 0] - top[..., 1]


def accepted_run(confidences: Tensor, cutoffs: Tensor, strict: bool = False) -> Tensor:
    """How many tokens are accepted from the left: [..., predictions] -> [...], 1 or more.

    ``cutoffs`` broadcast against ``confidences``. The first token is accepted whatever its
    confidence, and by default a sure second token is then accepted even if the first was not sure,
    as in the authors' code (A9). ``strict`` stops at the first unsure token, the first included.
    """
    sure = confidences >= cutoffs
    if strict:
        return sure.cumprod(-1).sum(-1).clamp(min=1)
    return sure[..., 1:].cumprod(-1).sum(-1) + 1


def agreement(guessed: Sequence[int], predicted: Sequence[int]) -> int:
    """How many guesses, from the left, are what was predicted in their place."""
    pairs = zip(guessed, predicted, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), len(guessed))
