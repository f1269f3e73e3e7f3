"""The packed streams against the plain [noisy | clean] formulation, written out from the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import Qwen2ForCausalLM

from mars.training.block_diffusion import block_diffusion_stream
from mars.training.dual_stream import autoregressive_stream, mars_stream, pad_to_block
from mars.training.packed_model import PackedModel
from mars.training.packing import pack
from tests.support.little_models import little_config

MASK = 1
BLOCK_SIZES = [1, 2, 4, 8, 16]
Document = tuple[np.ndarray, int]


def make_model(dtype: torch.dtype) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = little_config(
        vocab_size=48,
        num_hidden_layers=3,
        tie_word_embeddings=True,
        initializer_range=0.3,  # so that attention and logits are far from uniform
        attn_implementation="sdpa",
    )
    model = Qwen2ForCausalLM(config).to(dtype)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def make_documents(seed: int = 0) -> list[Document]:
    """Ragged lengths; prompts that end inside, at and one past a block border; no prompt at all."""
    generator = np.random.default_rng(seed)
    shapes = [(23, 7), (9, 8), (17, 16), (33, 0), (12, 1), (2, 1), (40, 33), (18, 4), (5, 3)]
    return [(generator.integers(2, 48, length), prompt) for length, prompt in shapes]


def plain_mask(length: int, block_size: int, *, diffusion: bool) -> torch.Tensor:
    """Equation 2 read aloud, token pair by token pair, for [noisy | clean]: (2L, 2L) booleans.

    With ``diffusion``, the mask of BD3-LM: bidirectional inside a block, in both copies.
    """
    mask = torch.zeros(2 * length, 2 * length, dtype=torch.bool)
    for query in range(2 * length):
        for key in range(2 * length):
            i, j = query % length, key % length
            query_noisy, key_noisy = query < length, key < length
            same, earlier = i // block_size == j // block_size, j // block_size < i // block_size
            if query_noisy and key_noisy:
                mask[query, key] = same and (diffusion or j <= i)
            elif query_noisy and not key_noisy:
                mask[query, key] = earlier
            elif not query_noisy and not key_noisy:
                mask[query, key] = (same or earlier) if diffusion else j <= i
    return mask


def plain_logits(
    model: Qwen2ForCausalLM,
    document: np.ndarray,
    noisy: np.ndarray,
    block_size: int,
    diffusion: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (L, vocabulary) of the noisy and of the clean copy."""
    length = len(document)
    logits = model(
        input_ids=torch.tensor(np.concatenate([noisy, document]))[None],
        position_ids=torch.arange(length).repeat(2)[None],
        attention_mask=plain_mask(length, block_size, diffusion=diffusion)[None, None],
    ).logits[0]
    return logits[:length], logits[length:]


def plain_mars(
    model: Qwen2ForCausalLM, documents: list[Document], block_size: int, normalisation: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """L_AR and L_mask of equations 3 to 5 (right-shifted: position t predicts token t+1)."""
    ar, mask, sizes = [], [], []
    for document, prompt in documents:
        noisy = np.where(np.arange(len(document)) < prompt, document, MASK)
        noisy_logits, clean_logits = plain_logits(model, document, noisy, block_size, False)
        predicting = slice(max(prompt, 1) - 1, len(document) - 1)
        targets = torch.tensor(document[max(prompt, 1) :])
        ar.append(cross_entropy(clean_logits[predicting], targets, reduction="sum"))
        mask.append(cross_entropy(noisy_logits[predicting], targets, reduction="sum"))
        sizes.append(len(targets))
    return normalise(ar, sizes, normalisation), normalise(mask, sizes, normalisation)


def normalise(sums: list[torch.Tensor], sizes: list[int], normalisation: str) -> torch.Tensor:
    if normalisation == "token":
        return torch.stack(sums).sum() / sum(sizes)
    return torch.stack([total / size for total, size in zip(sums, sizes, strict=True)]).mean()


def gradients(model: Qwen2ForCausalLM, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def assert_same_gradients(
    ours: dict[str, torch.Tensor], plain: dict[str, torch.Tensor], tolerance: float
) -> None:
    scale = max(gradient.abs().max() for gradient in plain.values())
    for name, gradient in plain.items():
        assert (ours[name] - gradient).abs().max() <= tolerance * scale, name


@pytest.mark.parametrize("attention", ["mars_dense", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("normalisation", ["sequence", "token"])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_mars_equals_plain_formulation(
    block_size: int, normalisation: str, dtype: torch.dtype, attention: str
) -> None:
    model, documents = make_model(dtype), make_documents()
    ar, mask = plain_mars(model, documents, block_size, normalisation)
    plain = gradients(model, mask + 0.7 * ar)
    streams = [
        mars_stream(document, prompt, block_size=block_size, mask_token_id=MASK)
        for document, prompt in documents
    ]
    packed = pack(
        streams, row_length=96, rows_per_forward=2, normalisation=normalisation, ar_weight=0.7
    )
    assert len(packed) > 1
    assert packed[0].documents.max() > 0, "several documents share a row"
    model.set_attn_implementation(attention)
    results = [PackedModel(model, 0.7)(rows) for rows in packed]
    loss, apart = sum(r[0] for r in results), sum(r[1] for r in results)
    assert torch.allclose(apart, torch.stack([ar, mask]).detach(), rtol=1e-5, atol=0)
    assert torch.allclose(loss, mask + 0.7 * ar, rtol=1e-5, atol=0)
    assert_same_gradients(gradients(model, loss), plain, 1e-5)


def test_without_sft_loss_equals_plain_mask_loss() -> None:
    model, documents = make_model(torch.float64), make_documents()
    _, mask = plain_mars(model, documents, 4, "sequence")
    plain = gradients(model, mask)
    streams = [mars_stream(d, p, block_size=4, mask_token_id=MASK) for d, p in documents]
    (rows,) = pack(
        streams, row_length=64, rows_per_forward=99, normalisation="sequence", ar_weight=0.0
    )
    loss, _ = PackedModel(model, 0.0)(rows)
    assert torch.allclose(loss, mask, rtol=1e-5, atol=0)
    assert_same_gradients(gradients(model, loss), plain, 1e-5)


def test_autoregressive_equals_ordinary_next_token_loss() -> None:
    model, documents = make_model(torch.float64), make_documents()
    sums, sizes = [], []
    for document, prompt in documents:
        labels = torch.tensor(np.where(np.arange(len(document)) < prompt, -100, document))
        logits = model(input_ids=torch.tensor(document)[None]).logits[0]
        sums.append(cross_entropy(logits[:-1], labels[1:], reduction="sum"))
        sizes.append(int((labels[1:] != -100).sum()))
    plain = normalise(sums, sizes, "token")
    expected = gradients(model, plain)
    streams = [autoregressive_stream(document, prompt) for document, prompt in documents]
    packed = pack(streams, row_length=64, rows_per_forward=1, normalisation="token", ar_weight=1.0)
    loss = sum(PackedModel(model, 1.0)(rows)[0] for rows in packed)
    assert torch.allclose(loss, plain, rtol=1e-5, atol=0)
    assert_same_gradients(gradients(model, loss), expected, 1e-5)


def plain_diffusion(
    model: Qwen2ForCausalLM,
    document: np.ndarray,
    prompt: int,
    masked: np.ndarray,
    block_size: int,
    right_shift: bool,
) -> tuple[torch.Tensor, int]:
    """Sum of the cross-entropies of masked tokens from the noisy copy, and how many may be masked.

    Shifted, the logits of token t are those of noisy position t-1, whichever block that is in, and
    the first token of a document has none.
    """
    hidden = np.concatenate([np.zeros(prompt, dtype=bool), masked])
    if right_shift:
        hidden[0] = False
    logits, _ = plain_logits(model, document, np.where(hidden, MASK, document), block_size, True)
    logits = torch.cat([logits[:1], logits[:-1]]) if right_shift else logits
    targets = torch.tensor(document[hidden])
    size = len(document) - (max(prompt, 1) if right_shift else prompt)
    return cross_entropy(logits[hidden], targets, reduction="sum"), size


@pytest.mark.parametrize("right_shift", [True, False])
@pytest.mark.parametrize("normalisation", ["sequence", "token"])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_block_diffusion_equals_plain_formulation(
    block_size: int, normalisation: str, right_shift: bool
) -> None:
    model, generator = make_model(torch.float64), np.random.default_rng(1)
    sums, sizes, streams = [], [], []
    for document, prompt in make_documents():
        rate = generator.uniform(0.1, 1)
        masked = generator.random(len(document) - prompt) < rate
        plain, size = plain_diffusion(model, document, prompt, masked, block_size, right_shift)
        sums.append(plain / rate)
        sizes.append(size)
        streams.append(
            block_diffusion_stream(
                document,
                prompt,
                block_size=block_size,
                mask_token_id=MASK,
                rate=rate,
                masked=masked,
                right_shift=right_shift,
            )
        )
    plain = normalise(sums, sizes, normalisation)
    expected = gradients(model, plain)
    packed = pack(
        streams, row_length=96, rows_per_forward=2, normalisation=normalisation, ar_weight=1.0
    )
    loss = sum(PackedModel(model, 1.0)(rows)[0] for rows in packed)
    assert torch.allclose(loss, plain, rtol=1e-5, atol=0)
    assert_same_gradients(gradients(model, loss), expected, 1e-5)


@given(st.data())
@hypothesis_settings(max_examples=25, deadline=None)
def test_block_diffusion_equals_plain_formulation_for_any_masks(data: st.DataObject) -> None:
    """Masks at block borders are where shifted and left-out tokens could go wrong."""
    length, block_size = data.draw(st.integers(2, 14)), data.draw(st.sampled_from([1, 2, 4, 8]))
    prompt = data.draw(st.integers(0, length - 1))
    count = length - prompt
    masked = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    right_shift = data.draw(st.booleans())
    document = np.arange(2, 2 + length)
    stream = block_diffusion_stream(
        document,
        prompt,
        block_size=block_size,
        mask_token_id=MASK,
        rate=0.5,
        masked=masked,
        right_shift=right_shift,
    )
    shown = masked.copy()
    shown[: int(right_shift and prompt == 0)] = False
    assert len(stream.labels) == shown.sum()
    if not shown.any():
        return
    model = make_model(torch.float64)
    plain, size = plain_diffusion(model, document, prompt, masked, block_size, right_shift)
    (rows,) = pack(
        [stream], row_length=64, rows_per_forward=1, normalisation="token", ar_weight=1.0
    )
    loss, _ = PackedModel(model, 1.0)(rows)
    assert torch.allclose(loss, plain / 0.5 / size, rtol=1e-5, atol=0)


@given(
    st.lists(st.tuples(st.integers(2, 30), st.integers(0, 29)), min_size=1, max_size=5),
    st.sampled_from(BLOCK_SIZES),
)
@hypothesis_settings(max_examples=12)
def test_mask_equals_equation_2(shapes: list[tuple[int, int]], block_size: int) -> None:
    """Every visible pair of a packed row is one of the plain mask, and none of those is missing.

    A kept mask stands for its noisy token; a clean prompt token for both copies of itself.
    """
    documents = [(np.full(length, 5), min(prompt, length - 1)) for length, prompt in shapes]
    streams = [mars_stream(d, p, block_size=block_size, mask_token_id=MASK) for d, p in documents]
    (rows,) = pack(
        streams, row_length=1000, rows_per_forward=1, normalisation="token", ar_weight=1.0
    )
    seen = rows.dense_mask()[0, 0]
    plain = [plain_mask(len(d), block_size, diffusion=False) for d, _ in documents]
    order = sorted(range(len(streams)), key=lambda i: (-len(streams[i]), i))
    size = rows.tokens.shape[1]
    for query in range(size):
        for key in range(size):
            number = rows.documents[0, query]
            expected = False
            if number == rows.documents[0, key]:
                which = order[number]
                (document, prompt), mask = documents[which], plain[which]
                length = len(document)
                i, j = int(rows.positions[0, query]), int(rows.positions[0, key])
                query_noisy = bool(rows.blocks[0, query] >= 0)
                key_noisy = bool(rows.blocks[0, key] >= 0)
                row = mask[i + (0 if query_noisy else length)]
                expected = bool(row[j + (0 if key_noisy else length)])
                if query_noisy and not key_noisy and j < prompt:
                    expected = expected or bool(row[j])
            assert bool(seen[query, key]) == expected, (query, key)


def test_no_document_sees_another() -> None:
    """Replacing one document leaves the cross-entropies of its neighbours in the row untouched."""
    model, documents = make_model(torch.float64), make_documents()
    streams = [mars_stream(d, p, block_size=4, mask_token_id=MASK) for d, p in documents]
    changed = list(streams)
    document, prompt = documents[0]
    changed[0] = mars_stream((document - 1) % 46 + 2, prompt, block_size=4, mask_token_id=MASK)

    def hidden_states(contents: list) -> tuple[torch.Tensor, torch.Tensor]:
        (rows,) = pack(
            contents, row_length=1000, rows_per_forward=1, normalisation="token", ar_weight=1.0
        )
        states = model.base_model(
            input_ids=rows.tokens,
            position_ids=rows.positions,
            attention_mask=rows.dense_mask(),
            use_cache=False,
        ).last_hidden_state
        return states[0], rows.documents[0]

    before, numbers = hidden_states(streams)
    after, _ = hidden_states(changed)
    order = sorted(range(len(streams)), key=lambda i: (-len(streams[i]), i))
    touched = numbers == order.index(0)
    assert torch.equal(before[~touched], after[~touched])
    assert not torch.allclose(before[touched], after[touched])


def test_cost_is_clean_tokens_plus_masks_of_the_response() -> None:
    document = np.arange(2, 42)
    assert len(mars_stream(document, 15, block_size=4, mask_token_id=MASK)) == 39 + 24
    assert len(autoregressive_stream(document, 15)) == 39


def test_eos_padding_fills_the_last_block_of_finished_documents_only() -> None:
    finished, cut = np.array([5, 6, 7, 8, 0]), np.array([5, 6, 7, 8, 9])
    padded = pad_to_block(finished, 2, 4, eos_token_id=0)
    assert padded.tolist() == [5, 6, 7, 8, 0, 0, 0, 0]
    assert pad_to_block(cut, 2, 4, eos_token_id=0).tolist() == cut.tolist()
    assert pad_to_block(padded, 2, 4, eos_token_id=0).tolist() == padded.tolist()


@pytest.mark.parametrize("stance", ["force_eager", pytest.param("default", marks=pytest.mark.slow)])
def test_loss_through_flex_attention_equals_that_through_sdpa(stance: str) -> None:
    """What runs on GPUs, forward only: flex attention has no backward on a CPU.

    To compile it, as happens by default, takes a C++ compiler and half a minute.
    """
    model = make_model(torch.float32).eval()
    streams = [mars_stream(d, p, block_size=4, mask_token_id=MASK) for d, p in make_documents()]
    rows = pack(
        streams,
        row_length=256,
        rows_per_forward=2,
        normalisation="sequence",
        ar_weight=1.0,
        fixed_shape=True,
    )
    with torch.no_grad():
        expected = [PackedModel(model, 1.0)(part)[0] for part in rows]
        model.set_attn_implementation("flex_attention")
        with torch.compiler.set_stance(stance):
            losses = [PackedModel(model, 1.0)(part)[0] for part in rows]
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=0)
