"""Every decoder says what the plain window says: exactly in float32, as far as it can in bfloat16.

On small random models whose confidences lie all over the scale. The window itself, and what has no
form in the window, is held against the same on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import cache, partial
from typing import Any

import torch
from transformers import PreTrainedModel

from mars.decoding import decode
from mars.decoding.cursor import Engine
from mars.decoding.methods import METHODS
from mars.decoding.requests import Decoded, Request
from mars.decoding.speculative import decode_speculative
from mars.decoding.window import decode_window_batch
from tests.gpu.part import Part
from tests.support.decoding_models import EOS, MASK, prompts, random_model

CPU = torch.device("cpu")
TAUS = (None, 0.0, 0.6, 0.9)
BUDGET = 20
RULE: dict[str, Any] = {"block_size": 4, "eos_token_id": EOS, "mask_token_id": MASK}
AGREEMENT = 0.98  # of the tokens, in bfloat16
REGRET = 0.25  # the most logits that a token may be below the best one of the un-cached forward

OPTIONS: list[dict[str, Any]] = [
    {},
    {"strict": True},
    {"metric": "margin"},
    {"lossless": True},
    {"extra_mask": True},
    {"lossless": True, "extra_mask": True},
]


@cache
def model_on(
    device: torch.device,
    architecture: str = "qwen2",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> PreTrainedModel:
    """A copy on the device of a model that the tests decode with."""
    return deepcopy(random_model(architecture, seed)).to(device, dtype)


def run(part: Part) -> None:
    """All checks of this part."""
    check = Exactness(part)
    for architecture in ("qwen2", "llama"):
        part.check(f"{architecture}, window as on the CPU", partial(check.window, architecture))
        part.check(
            f"{architecture}, one token per forward as `generate`",
            partial(check.generate, architecture),
        )
    for options in OPTIONS:
        name = ", ".join(options) or "default"
        part.check(f"cursor, {name}", partial(check.like_window, "cursor", options))
    for options in ({"cache_block": 8}, {"cache_block": 32}, {"strict": True}):
        name = ", ".join(f"{key} {value}" for key, value in options.items())
        part.check(f"block cache, {name}", partial(check.like_window, "block_cache", options))
    authors = {"authors_window": True}
    part.check("block cache, authors' window, as on the CPU",
               partial(check.like_cpu, "block_cache", authors))  # fmt: skip
    part.check("block diffusion as on the CPU", partial(check.like_cpu, "block_diffusion", {}))
    part.check("jacobi as one token per forward", check.jacobi)
    part.check("speculative as on the CPU and as the target alone", check.speculative)
    part.check("a batch of windows", check.window_batch)
    part.check("CUDA graphs on and off", check.graphs)
    part.check("compiled and not", check.compiled, takes=60)
    for method in ("autoregressive", "lossless"):
        part.check(f"bfloat16, {method}, beside the un-cached forward",
                   partial(check.bfloat16, method))  # fmt: skip


class Exactness:
    """The checks; each returns how many tokens were compared."""

    def __init__(self, part: Part) -> None:
        self.part, self.device = part, part.device
        torch.set_float32_matmul_precision("highest")
        self.prompts = prompts(6, seed=1)

    def decode(self, device: torch.device, method: str, tau: Any, **options: Any) -> list[Decoded]:
        model = model_on(device, options.pop("architecture", "qwen2"))
        if device.type == "cuda" and "compiled" in METHODS[method].options:
            options.setdefault("compiled", False)
        rule = {**RULE, "max_new_tokens": BUDGET, "threshold": tau, "method": method}
        return decode(model, self.prompts, slots=4, **rule, **options)

    def window(self, architecture: str) -> str:
        return self.like_cpu("window", {"architecture": architecture})

    def generate(self, architecture: str) -> str:
        methods = ("transformers", "autoregressive", "cursor")
        theirs, *ours = (
            tokens(self.decode(self.device, method, None, architecture=architecture))
            for method in methods
        )
        return same(theirs + theirs, ours[0] + ours[1])

    @cache
    def window_tokens(self, tau: float | None, **rule: Any) -> list[list[int]]:
        """The ground truth on this device."""
        return tokens(self.decode(self.device, "window", tau, **rule))

    def like_window(self, method: str, options: dict[str, Any]) -> str:
        rule = {name: value for name, value in options.items() if name != "cache_block"}
        found: list[list[int]] = []
        wanted: list[list[int]] = []
        for tau in TAUS:
            found += tokens(self.decode(self.device, method, tau, **options))
            wanted += self.window_tokens(tau, **rule)
        if options.get("lossless"):
            same(found, self.window_tokens(None) * len(TAUS))
        return same(found, wanted)

    def like_cpu(self, method: str, options: dict[str, Any]) -> str:
        found, wanted = (
            [one for tau in TAUS for one in self.decode(device, method, tau, **options)]
            for device in (self.device, CPU)
        )
        return same(found, wanted)

    def jacobi(self) -> str:
        found = tokens(self.decode(self.device, "jacobi", None))
        return same(found, self.window_tokens(None))

    def speculative(self) -> str:
        def on(device: torch.device, tau: float | None) -> list[list[int]]:
            target, draft = model_on(device), model_on(device, seed=1)
            rule = {"block_size": 4, "draft_block_size": 4, "draft_threshold": tau}
            rule |= {"eos": frozenset(EOS), "mask_token_id": MASK}
            done = (
                decode_speculative(target, draft, Request(prompt, tau, BUDGET), **rule)
                for prompt in self.prompts
            )
            return [one.tokens for one in done]

        same(on(self.device, None), self.window_tokens(None))
        return same(on(self.device, 0.6), on(CPU, 0.6))

    def window_batch(self) -> str:
        requests = [Request(prompt, 0.6, BUDGET) for prompt in self.prompts]
        rule = {"block_size": 4, "eos": frozenset(EOS), "mask_token_id": MASK}
        found = decode_window_batch(model_on(self.device), requests, **rule)
        return same(tokens(found), self.window_tokens(0.6))

    def engine(self, graphs: bool, compiled: bool) -> list[Decoded]:
        engine = Engine(
            model_on(self.device),
            mask_token_id=MASK,
            eos=frozenset(EOS),
            slots=4,
            max_length=100,
            block_size=4,
            compiled=compiled,
        )
        if not graphs:
            engine.graphs = None
        requests = [
            Request(prompt, TAUS[index % len(TAUS)], BUDGET)
            for index, prompt in enumerate(self.prompts)
        ]
        return [*engine.answer(requests), *engine.answer(requests)]

    def graphs(self) -> str:
        self.part.gpu_only("CUDA graphs")
        return same(self.engine(True, compiled=False), self.engine(False, compiled=False))

    def compiled(self) -> str:
        self.part.gpu_only("the compiled transformer")
        return same(self.engine(True, compiled=True), self.engine(False, compiled=False))

    def bfloat16(self, method: str) -> str:
        """Whether each token is the first, or close to it, of the un-cached forward's logits."""
        model = model_on(self.device, dtype=torch.bfloat16)
        options: dict[str, Any] = {"method": "autoregressive", "threshold": None}
        if method == "lossless":
            options = {"method": "cursor", "threshold": 0.5, "lossless": True}
        if self.part.on_gpu:
            options["compiled"] = False
        done = decode(model, self.prompts, max_new_tokens=BUDGET, slots=4, **RULE, **options)
        agreed, worst, count = 0, 0.0, 0
        for prompt, one in zip(self.prompts, done, strict=True):
            logits = uncached(model, prompt, one.tokens)
            chosen = logits.gather(1, torch.tensor(one.tokens, device=self.device)[:, None])
            regret = logits.amax(-1) - chosen[:, 0]
            agreed += int((regret == 0).sum())
            worst, count = max(worst, float(regret.max())), count + len(one.tokens)
        share = agreed / count
        seen = f"{share:.1%} of {count} tokens equal, the worst {worst:.3f} below the best logit"
        assert share >= AGREEMENT, seen
        assert worst <= REGRET, seen
        return seen


@torch.inference_mode()
def uncached(model: PreTrainedModel, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    """Float32 logits at each token of the answer, [tokens, vocabulary], [MASK] impossible."""
    ids = torch.tensor([[*prompt, *answer]], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    logits[:, MASK] = -torch.inf
    return logits


def tokens(done: Sequence[Decoded]) -> list[list[int]]:
    return [one.tokens for one in done]


def same(found: Sequence[Any], wanted: Sequence[Any]) -> str:
    """A sentence if all are equal, an AssertionError that counts them if not."""
    unequal = sum(one != other for one, other in zip(found, wanted, strict=True))
    assert not unequal, f"{unequal} of {len(wanted)} continuations differ"
    return f"{len(wanted)} continuations equal"
