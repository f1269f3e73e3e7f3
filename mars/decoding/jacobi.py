"""Jacobi decoding, the training-free baseline of the paper's Table 9.

Guess the next tokens, forward them, and replace each guess by what the model says there. A token
is final once every guess before it was right, so the output is that of greedy AR decoding; what
changes is how many forwards it takes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mars.decoding.cursor import Engine

GUESS_SEED = 0


class JacobiEngine(Engine):
    """The cursor engine with guesses where MARS has masks; ``block_size - 1`` guesses per forward.

    The first guesses are random tokens, the same at the same position of every sequence. Requests
    need a threshold other than None; its value does not matter.
    """

    masked = False

    def fill(self) -> Tensor:
        """Random tokens, [capacity]."""
        random = torch.Generator().manual_seed(GUESS_SEED)
        vocabulary = self.cached.model.config.vocab_size
        guesses = torch.randint(vocabulary, self.offsets.shape, generator=random)
        return guesses.to(self.offsets.device)

    def _accept(
        self, logits: Tensor, tokens: Tensor, places: Tensor, rows: slice
    ) -> tuple[Tensor, Tensor]:
        """Accept as far as the guesses were right; each prediction becomes the next guess."""
        right = tokens == self.ids[rows].gather(1, places)
        return 1 + right[:, :-1].cumprod(-1).sum(-1), tokens
