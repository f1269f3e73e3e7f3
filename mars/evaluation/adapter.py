"""lm-eval's view of a checkpoint: its Hugging Face model, with our decoding for generation."""

from __future__ import annotations

import gc
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mars.checkpoints.load import eos_token_ids, load_model
from mars.data.tokenizer import load_tokenizer
from mars.decoding import decode
from mars.decoding.methods import METHODS, default_method
from mars.decoding.requests import Decoded
from mars.errors import UserError
from mars.evaluation.stop_strings import StopStrings, holds
from mars.machine.cpus import warn_of_slow_bfloat16

if TYPE_CHECKING:
    from mars.config.experiment import Evaluation, Setting

COUNTING = (
    "tokens up to and including the first EOS, or the token that completes the first stop string, "
    "at most max_new_tokens; forwards of each sequence by itself, the prompt's included"
)


@dataclass(frozen=True)
class Generation:
    """One answer as it is scored and counted, see :data:`COUNTING`."""

    text: str  # cut before the first stop string, special tokens removed
    tokens: int
    forwards: int
    finish: str  # eos, stop (a stop string) or length
    overrun: int  # tokens beyond EOS or the budget, which do not count (docs/differences.md, A2)
    truncated: bool  # whether the prompt lost tokens on the left


class DecodingLM(HFLM):
    """AR and MARS checkpoints alike; what changes between settings is ``setting``.

    After a benchmark ``prompts`` and ``decoded`` hold its token ids, ``generations`` what counts.
    When the GPU's memory runs out, ``slots`` is halved for good, and ``notes`` says so.

    Args:
        model: loaded causal LM in evaluation mode.
        tokenizer: with a chat template, and a mask token if ``block_size`` is more than 1.
        block_size: B; None or 1 decodes autoregressively.
        eos_token_ids: every id that ends an answer.
        max_new_tokens: budget of an answer; what tasks say does not count.
        slots: sequences decoded side by side.
        method: of :func:`mars.decoding.decode`, where the setting names none; None: by B.
        options: of that method, which follow from how the model was trained.
        compiled: compile the transformer on a GPU, which takes minutes of every process.
        on_start: called before the first forward.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        block_size: int | None,
        eos_token_ids: Iterable[int],
        max_new_tokens: int,
        slots: int = 16,
        method: str | None = None,
        options: Mapping[str, Any] | None = None,
        compiled: bool = False,
        on_start: Callable[[], None] | None = None,
    ) -> None:
        if tokenizer.chat_template is None:
            raise UserError("the checkpoint's tokenizer has no chat template; benchmarks need one.")
        super().__init__(pretrained=model, tokenizer=tokenizer, backend="causal")
        self.block_size = block_size or 1
        self.method, self.options = method, dict(options or {})
        self.eos_token_ids = sorted(eos_token_ids)
        self.max_new_tokens, self.slots = max_new_tokens, slots
        self.compiled, self.on_start = compiled, on_start
        self.setting: Setting | None = None
        self.prompts: list[list[int]] = []
        self.decoded: list[Decoded] = []
        self.generations: dict[tuple[str, int], Generation] = {}
        self.notes: dict[str, str] = {}

    @classmethod
    def load(cls, checkpoint: Path, protocol: Evaluation, **arguments: Any) -> Self:
        """The checkpoint in a folder, in the precision and with the limits of the protocol."""
        model = load_model(checkpoint, getattr(torch, protocol.precision))
        if model.device.type == "cpu" and protocol.precision == "bfloat16":
            warn_of_slow_bfloat16("evaluation.precision")
        tokenizer = load_tokenizer(checkpoint)
        own: dict[str, Any] = {
            "eos_token_ids": eos_token_ids(model, tokenizer),
            "max_new_tokens": protocol.max_new_tokens,
            "slots": protocol.slots,
        }
        return cls(model, tokenizer, **(own | arguments))

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer all requests in one call of the engine; costs are left in ``generations``."""
        prompts = [self._encode(request.args[0]) for request in requests]
        room = self.max_length - self.max_new_tokens
        if room < 1:
            raise UserError(
                f"max_new_tokens is {self.max_new_tokens}, but the model's context is only "
                f"{self.max_length} tokens; set a smaller `max_new_tokens`."
            )
        untils = [request.args[1].get("until") or [] for request in requests]
        stops = [[s for s in ([u] if isinstance(u, str) else u) if s] for u in untils]
        self.prompts = [prompt[-room:] for prompt in prompts]
        self.decoded = self.decode_all(requests, self.prompts, stops)
        found = [
            self._generation(answer, strings, truncated=len(prompt) > room)
            for answer, strings, prompt in zip(self.decoded, stops, prompts, strict=True)
        ]
        places = ((request.task_name, request.doc_id) for request in requests)
        self.generations = dict(zip(places, found, strict=True))
        return [generation.text for generation in found]

    def decode_all(
        self, requests: list[Instance], prompts: list[list[int]], stops: list[list[str]]
    ) -> list[Decoded]:
        """Continue the prompts; a sequence ends early once it holds one of its stop strings."""
        if self.on_start is not None:
            self.on_start()
            self.on_start = None
        while True:
            try:
                return self._decode(prompts, stops)
            except torch.OutOfMemoryError as error:
                if self.slots == 1:
                    raise UserError(
                        "the device has too little memory to decode a single sequence; use another "
                        "device, or a smaller `evaluation.max_new_tokens`."
                    ) from error
            # The error is gone here, and with it the engine; what compiling left behind may still
            # hold its cache.
            gc.collect()
            torch.cuda.empty_cache()
            self.slots //= 2
            self.notes["memory"] = f"ran out; these answers were decoded {self.slots} side by side"
            print(f"Out of memory: decoding again, {self.slots} side by side.", flush=True)

    def _decode(self, prompts: list[list[int]], stops: list[list[str]]) -> list[Decoded]:
        decoding = self.decoding
        options = METHODS[decoding["method"]].options
        if "compiled" in options:
            decoding["compiled"] = self.compiled
        if self.device.type == "cuda" and "memory_limit" in options:
            # The cache is simply tried, so that too large a one halves the slots as well.
            decoding["memory_limit"] = torch.iinfo(torch.int64).max
        with tqdm(total=len(prompts), desc="decoding", unit="seq") as bar:
            return decode(
                self.model,
                prompts,
                **decoding,
                max_new_tokens=self.max_new_tokens,
                eos_token_id=self.eos_token_ids,
                mask_token_id=self.tokenizer.mask_token_id,
                slots=self.slots,
                stop=[StopStrings(self.tok_decode, some) if some else None for some in stops],
                progress=lambda _: bar.update(),
            )

    @property
    def decoding(self) -> dict[str, Any]:
        """How the current setting decodes: method, B and options of :func:`mars.decoding.decode`.

        A model of one token per forward has no masks and so no tau, and no metric for it.
        """
        setting = self.setting
        assert setting is not None
        block_size = setting.block_size or self.block_size
        name = setting.method or self.method or default_method(block_size)
        method = METHODS[name]
        known = {key: value for key, value in setting.options().items() if key in method.options}
        stated = setting.options(stated=True)
        if not method.has_tau:
            stated.pop("metric", None)
        chosen = {"method": name, "block_size": block_size, "threshold": setting.threshold}
        own = self.options if name == self.method else {}
        return chosen | own | known | stated

    def _encode(self, prompt: str) -> list[int]:
        """Token ids, with a BOS if the tokenizer adds one and the template has not done so."""
        bos = self.tokenizer.bos_token
        has_bos = bos is not None and prompt.startswith(bos)
        return self.tokenizer.encode(prompt, add_special_tokens=not has_bos)

    def _generation(self, answer: Decoded, strings: list[str], truncated: bool) -> Generation:
        tokens, finish, overrun = len(answer.tokens), answer.finish, answer.overrun
        found = partial(holds, self.tok_decode, strings)
        if found(answer.tokens):
            tokens, finish, overrun = shortest_prefix(answer.tokens, found), "stop", 0
        text = cut(self.tok_decode(answer.tokens), strings)
        forwards = forwards_until(answer.accepted, tokens)
        return Generation(text, tokens, forwards, finish, overrun, truncated)


def cut(text: str, stop_strings: Iterable[str]) -> str:
    """``text`` before the first stop string, as lm-eval cuts it."""
    for string in stop_strings:
        text = text.split(string, 1)[0]
    return text


def shortest_prefix(tokens: list[int], found: Callable[[list[int]], bool]) -> int:
    """Length of the shortest prefix for which ``found``, which is then so for all longer ones."""
    lengths = range(1, len(tokens))
    return 1 + bisect_left(lengths, True, key=lambda length: found(tokens[:length]))


def forwards_until(accepted: Sequence[int], tokens: int) -> int:
    """How many forwards it took to have ``tokens`` tokens; ``accepted`` is the gain of each."""
    return 1 + bisect_left(list(accumulate(accepted)), tokens)
