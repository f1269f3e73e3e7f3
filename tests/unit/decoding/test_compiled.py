"""The compiled transformer: the same tokens, few compilations, and no harm where it fails."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import fx
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch._inductor.decomposition import select_decomp_table
from transformers import PreTrainedModel

from mars.decoding import cache, decode, gpu
from mars.decoding.cursor import Engine
from mars.decoding.gpu import CompiledBackbone
from mars.decoding.requests import Decoded, Request
from mars.decoding.speculative import decode_speculative
from tests.support.decoding_models import EOS, MASK, prompts, random_model

SHAPES = [(4, 5, 200), (4, 2, 120), (1, 3, 96), (4, 1, 96), (8, 8, 300)]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    gpu.UNCOMPILABLE.clear()


def decoded(backend: Any, block_size: int, slots: int, max_length: int) -> list[Decoded]:
    model = random_model("qwen2", layers=1)  # the compiler treats a second one as the first
    engine = Engine(
        model,
        block_size=block_size,
        mask_token_id=MASK,
        eos=frozenset(EOS),
        slots=slots,
        max_length=max_length,
    )
    if backend is not None:
        engine.cached.backbone = CompiledBackbone(model.get_decoder(), backend)
        # A GPU's windows are not packed.
        engine.cached._packing = lambda widths, window: None  # type: ignore[method-assign]
    for index, prompt in enumerate(prompts(9, seed=7)):
        engine.submit(Request(prompt, (0.0, 0.6, None)[index % 3], 20))
    return [result for _, result in sorted(engine.run().items())]


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_lengths_batch_sizes_and_engines_share_compilations(backend: str) -> None:
    for shape in SHAPES:
        assert decoded(backend, *shape) == decoded(None, *shape)
    assert counters["stats"]["unique_graphs"] == 4


class Recorder:
    """A backend that keeps the graphs, as they are once operations write in place."""

    def __init__(self, then: Callable[[fx.GraphModule], None] = lambda graph: None):
        self.graphs: list[fx.GraphModule] = []
        self.then = then
        self.backend = aot_autograd(
            fw_compiler=self.record,
            decompositions=select_decomp_table(),
            keep_inference_input_mutations=True,
        )

    def record(self, graph: fx.GraphModule, inputs: object) -> Any:
        self.graphs.append(graph)
        self.then(graph)
        return make_boxed_func(graph.forward)


def compile_everywhere(monkeypatch: pytest.MonkeyPatch, backend: Any) -> None:
    """Every cached model calls a compiled transformer, as on a GPU."""
    plain = cache.CachedModel.__init__

    def compiled(self: cache.CachedModel, model: PreTrainedModel, *arguments: Any) -> None:
        plain(self, model, *arguments)
        self.backbone = CompiledBackbone(model.get_decoder(), backend)
        self._packing = lambda widths, window: None  # type: ignore[method-assign]

    monkeypatch.setattr(cache.CachedModel, "__init__", compiled)


RULE: dict[str, Any] = {"max_new_tokens": 4, "eos_token_id": EOS, "mask_token_id": MASK}
SETTINGS: list[dict[str, Any]] = [
    {"method": "cursor", "block_size": 4},
    {"method": "cursor", "block_size": 4, "lossless": True},
    {"method": "cursor", "block_size": 2, "extra_mask": True},
    {"method": "cursor", "block_size": 8, "metric": "margin", "strict": True},
    {"method": "autoregressive", "block_size": 4},
    {"method": "jacobi", "block_size": 4},
    {"method": "block_cache", "block_size": 4, "cache_block": 1},
    {"method": "block_cache", "block_size": 4, "cache_block": 8},
    {"method": "block_cache", "block_size": 4, "cache_block": 8, "authors_window": True},
    {"method": "block_diffusion", "block_size": 4},
]


def all_settings(model: PreTrainedModel) -> list[list[int]]:
    """The tokens of every way to decode, with one slot and several, and of speculative decoding."""
    found = []
    for setting, slots in product(SETTINGS, (2, 1)):
        done = decode(model, prompts(3), threshold=[0.3, None, 0.3], slots=slots, **setting, **RULE)
        found += [one.tokens for one in done]
    for sizes, drafted in product(((4, 4), (4, 1), (1, 1)), (1, 4)):
        block_size, draft_block_size = sizes
        done = decode_speculative(
            model,
            model,
            Request(prompts(3)[2], 0.3, 4),
            draft_tokens=drafted,
            block_size=block_size,
            draft_block_size=draft_block_size,
            draft_threshold=0.3 if draft_block_size > 1 else None,
            eos=frozenset(EOS),
            mask_token_id=MASK,
        )
        found.append(done.tokens)
    return found


def test_all_settings_of_a_model_take_four_compilations(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row or several, one token or several; a process has room for a dozen models."""
    model = random_model("qwen2", layers=1)
    plain, recorder = all_settings(model), Recorder()
    compile_everywhere(monkeypatch, recorder.backend)
    assert all_settings(model) == plain
    assert len(recorder.graphs) == 4 <= gpu.KINDS_OF_SHAPE / 12


def test_sizes_that_happen_to_be_equal_are_not_compiled_apart() -> None:
    """Two rows of two tokens for two key-value heads: nothing is to be made of that."""
    recorder = Recorder()
    model = random_model("qwen2", layers=1)
    cached = cache.CachedModel(model, 3, 64, MASK)
    cached.backbone = CompiledBackbone(model.get_decoder(), recorder.backend)
    with torch.inference_mode():
        for first, rows, window in ((0, 2, 2), (0, 3, 5), (1, 2, 32)):
            positions = torch.arange(window).repeat(rows, 1)
            cached.hidden(positions, positions, window, first=first)
    assert len(recorder.graphs) == 1


def test_the_compiled_transformer_copies_no_cache() -> None:
    """What its graph allocates is smaller than the part of a cache that it reads and writes."""
    sizes: list[tuple[str, int]] = []
    recorder = Recorder(lambda graph: sizes.extend(allocated(graph)))
    model = random_model("qwen2")
    cached = cache.CachedModel(model, 4, 4096, MASK)
    cached.backbone = CompiledBackbone(model.get_decoder(), recorder.backend)
    with torch.inference_mode():
        positions = torch.arange(3).repeat(2, 1)
        cached.hidden(positions, positions, 100, first=1)
    rows = cached.cache.own_layers[0].keys[:2].numel()
    assert sizes
    assert [name for name, size in sizes if size >= rows] == []
    written = [node for node in recorder.graphs[0].graph.nodes if "index_put_" in str(node.target)]
    assert len(written) == 2 * model.config.num_hidden_layers


def allocated(module: fx.GraphModule) -> list[tuple[str, int]]:
    """The operations that have a result of their own, and its elements.

    Inductor's pass decides which operations can write in place; those that cannot copy first.
    """
    from torch._inductor.fx_passes.reinplace import reinplace_inplaceable_ops
    from torch._inductor.fx_utils import FakeTensorUpdater
    from torch._inductor.virtualized import V

    values = [node.meta.get("val") for node in module.graph.nodes if node.op == "placeholder"]
    mode = next(one.fake_mode for one in values if isinstance(one, torch.Tensor))
    with V.set_fake_mode(mode):
        reinplace_inplaceable_ops(FakeTensorUpdater(module), module.graph)
    found = []
    for node in module.graph.nodes:
        value = node.meta.get("val")
        if not isinstance(node.target, torch._ops.OpOverload) or not torch.is_tensor(value):
            continue
        if node.target._schema.returns[0].alias_info is None:
            found.append((str(node.target), int(value.numel())))
    return found


def test_decoding_goes_on_where_compiling_fails() -> None:
    torch._dynamo.register_backend(fails, name="fails")
    with pytest.warns(UserWarning, match="torch.compile failed, decoding goes on without"):
        without = decoded("fails", *SHAPES[0])
    assert without == decoded(None, *SHAPES[0])


def test_a_model_that_failed_to_compile_is_not_tried_again() -> None:
    with pytest.warns(UserWarning, match="no compiler here"):
        decoded(fails, *SHAPES[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decoded(fails, *SHAPES[1]) == decoded(None, *SHAPES[1])


def fails(graph: object, inputs: object) -> None:
    raise OSError("no compiler here")


def test_decoding_goes_on_where_there_are_too_many_kinds_of_shape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu, "KINDS_OF_SHAPE", 1)
    with pytest.warns(UserWarning, match="RecompileLimit") as seen:
        limited = decoded("eager", *SHAPES[0])
    assert len(seen) == 1
    assert counters["stats"]["unique_graphs"] == 1
    assert limited == decoded(None, *SHAPES[0])


def test_memory_that_runs_out_is_not_taken_for_a_compiler_that_fails() -> None:
    def runs_out(graph: object, inputs: object) -> Any:
        def forward(*arguments: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory.")

        return forward

    with pytest.raises(torch.OutOfMemoryError):
        decoded(runs_out, *SHAPES[0])
    assert not gpu.UNCOMPILABLE
