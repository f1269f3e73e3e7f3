"""Memory against time: what is done to the layers changes neither loss nor gradients."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import PreTrainedModel

from mars.training.dual_stream import mars_stream
from mars.training.layers import checkpoint_layers, compile_layers
from mars.training.packed_model import DENSE, PackedModel
from mars.training.packing import Rows, pack
from tests.unit.training.test_dual_stream import MASK, make_documents, make_model

ATTENTION = [DENSE, "sdpa", "flex_attention"]
Gradients = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def flex_attention_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses gradients on a CPU, where no fused kernel has them; the plain form does."""
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *_: None)


def make(attention: str) -> PreTrainedModel:
    model = make_model(torch.float32)
    model.set_attn_implementation(attention)
    return model


def make_rows(row_length: int = 128, fixed_shape: bool = False, copies: int = 1) -> list[Rows]:
    streams = [mars_stream(d, p, block_size=4, mask_token_id=MASK) for d, p in make_documents()]
    return pack(
        streams * copies,
        row_length=row_length,
        rows_per_forward=1,
        normalisation="sequence",
        ar_weight=1.0,
        fixed_shape=fixed_shape,
    )


def trained(
    model: PreTrainedModel, rows: list[Rows], *, autocast: bool = False, stance: str = "default"
) -> tuple[list[torch.Tensor], Gradients, int]:
    """Losses of the rows, their summed gradients, and the bytes kept for the backward passes."""
    packed, losses, kept = PackedModel(model, 1.0), [], 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.compiler.set_stance(stance):
        for part in rows:
            with (
                torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
                torch.autocast("cpu", torch.bfloat16, enabled=autocast),
            ):
                loss, apart = packed(part)
            loss.backward()
            losses += [loss.detach(), apart]
    return losses, {name: p.grad for name, p in model.named_parameters()}, kept


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("attention", ATTENTION)
def test_checkpointed_layers_give_the_same_bits_and_keep_less(attention: str, autocast: bool):
    rows = make_rows(fixed_shape=attention == "flex_attention")
    plain, checkpointed = make(attention), make(attention)
    checkpoint_layers(checkpointed)
    how = {"autocast": autocast, "stance": "force_eager"}  # flex attention compiles itself else
    losses, gradients, kept = trained(plain, rows, **how)
    losses_again, gradients_again, kept_then = trained(checkpointed, rows, **how)
    assert all(map(torch.equal, losses, losses_again))
    assert all(torch.equal(gradients[name], gradients_again[name]) for name in gradients)
    assert kept_then < kept / 2
    assert list(checkpointed.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize(
    ("attention", "checkpointed"), [(DENSE, False), (DENSE, True), ("flex_attention", True)]
)
def test_compiled_layers_agree_and_share_their_code(attention: str, checkpointed: bool):
    """With rows of several lengths; whatever their number, layers are compiled once per kind."""
    torch.compiler.reset()
    rows = make_rows(row_length=72)
    if attention != DENSE:  # whose lengths are multiples of a block
        rows = [make_rows(128 * n, fixed_shape=True, copies=n)[0] for n in (1, 2, 3)]
    assert len({part.tokens.shape for part in rows}) > 2
    model, counter = make(attention), CompileCounterWithBackend("aot_eager")
    compile_layers(model, backend=counter)
    if checkpointed:
        checkpoint_layers(model)
    plain = trained(make(attention), rows, stance="force_eager")
    agree(plain, trained(model, rows))
    assert counter.frame_count <= 2, "one for the first length, one for all others"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler (g++)")
def test_layers_compiled_to_machine_code_agree():
    torch.compiler.reset()
    rows, model = make_rows(row_length=72), make(DENSE)
    compile_layers(model)
    agree(trained(make(DENSE), rows), trained(model, rows))


def agree(
    one: tuple[list[torch.Tensor], Gradients, int], two: tuple[list[torch.Tensor], Gradients, int]
) -> None:
    torch.testing.assert_close(one[0], two[0], rtol=1e-5, atol=1e-6)
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, two[1][name], rtol=1e-4, atol=1e-5)
