"""The dual stream of MARS without its redundant half (arXiv 2604.07023, section 3.2, equation 2).

The published form runs two copies of a document of length L through the model: a clean one, and a
noisy one whose response tokens are [MASK]. Most of the noisy copy is not needed. With a prompt of
P tokens and blocks of B tokens counted from the start of the document:

* A noisy *prompt* token sees clean prompt tokens of earlier blocks and noisy (that is, equal)
  prompt tokens of its own block: by induction over the layers its hidden state is the one of the
  clean token at its position. So clean tokens play that part here. The noisy term of the first
  response token, which noisy position P-1 predicts, *is* its clean term; it is counted twice.
* Position L-1 predicts nothing, and nothing that predicts sees it, in either copy.

What remains is clean tokens 0..L-2 and masks at positions P..L-2. A mask in block k sees the clean
tokens before max(kB, P) and the masks of its block up to itself. The equality of loss and
gradients with the published form is a test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CLEAN = -1  # block number of a token of the clean stream


@dataclass(frozen=True)
class Stream:
    """One document laid out for the model: T tokens, N labels."""

    tokens: np.ndarray  # (T,) token ids
    positions: np.ndarray  # (T,) for the rotary embedding and the attention rule
    blocks: np.ndarray  # (T,) number of the noisy block a token belongs to, or CLEAN
    clean_limits: np.ndarray  # (T,) a query sees the clean keys at positions below this
    noisy_limits: np.ndarray  # (T,) a query sees the noisy keys of its block below this
    labels: np.ndarray  # (N,) index into the tokens: whose output predicts
    targets: np.ndarray  # (N,) token id to be predicted there
    ar_terms: np.ndarray  # (N,) how often the label counts in the AR loss
    mask_terms: np.ndarray  # (N,) how often it counts in the mask loss
    size: int  # predicted tokens n; each loss has n terms (in expectation, for diffusion)

    def __len__(self) -> int:
        return len(self.tokens)


def target_count(lengths: np.ndarray, prompt_lengths: np.ndarray) -> np.ndarray:
    """Tokens of each document that are predicted: its response, never its first token."""
    return np.maximum(0, lengths - np.maximum(prompt_lengths, 1))


def autoregressive_stream(document: np.ndarray, prompt_length: int) -> Stream:
    """The clean stream alone: ordinary next-token prediction of the response.

    ``document`` is (L,) token ids, of which the first ``prompt_length`` carry no loss.
    """
    positions = np.arange(len(document) - 1)
    labels = positions[max(prompt_length, 1) - 1 :]
    return Stream(
        tokens=document[:-1],
        positions=positions,
        blocks=np.full_like(positions, CLEAN),
        clean_limits=positions + 1,
        noisy_limits=np.zeros_like(positions),
        labels=labels,
        targets=document[labels + 1],
        ar_terms=np.ones(len(labels)),
        mask_terms=np.zeros(len(labels)),
        size=len(labels),
    )


def mars_stream(
    document: np.ndarray, prompt_length: int, *, block_size: int, mask_token_id: int
) -> Stream:
    """Clean tokens 0..L-2, then masks at P..L-2; position t predicts token t+1 in both.

    ``document`` is (L,) token ids, of which the first ``prompt_length``, P, carry no loss.
    """
    clean = autoregressive_stream(document, prompt_length)
    positions = np.arange(prompt_length, len(document) - 1)
    blocks = positions // block_size
    visible = np.maximum(blocks * block_size, prompt_length)
    first = clean.labels == prompt_length - 1  # the first response token: noisy term = clean term
    return Stream(
        tokens=np.concatenate([clean.tokens, np.full_like(positions, mask_token_id)]),
        positions=np.concatenate([clean.positions, positions]),
        blocks=np.concatenate([clean.blocks, blocks]),
        clean_limits=np.concatenate([clean.clean_limits, visible]),
        noisy_limits=np.concatenate([clean.noisy_limits, positions + 1]),
        labels=np.concatenate([clean.labels, len(clean) + np.arange(len(positions))]),
        targets=np.concatenate([clean.targets, document[positions + 1]]),
        ar_terms=np.concatenate([clean.ar_terms, np.zeros(len(positions))]),
        mask_terms=np.concatenate([first.astype(float), np.ones(len(positions))]),
        size=clean.size,
    )


def pad_to_block(
    document: np.ndarray, prompt_length: int, block_size: int, eos_token_id: int
) -> np.ndarray:
    """Extend a finished document with EOS to a multiple of the block, as the authors' code does.

    The added tokens are predicted like all others. A response without EOS was cut, not finished,
    and stays as it is: padding would teach the model to stop there.
    """
    if eos_token_id not in document[prompt_length:]:
        return document
    missing = -len(document) % block_size
    return np.concatenate([document, np.full(missing, eos_token_id, dtype=document.dtype)])
