"""MARS decoding for ``model.generate``: several tokens per forward pass, greedy, with a KV cache.

    model = AutoModelForCausalLM.from_pretrained(CHECKPOINT, trust_remote_code=True)
    model.generate(**inputs, max_new_tokens=256, threshold=0.9)

or, of a model that was loaded without this file,

    model.generate(**inputs, custom_generate=CHECKPOINT, trust_remote_code=True, threshold=0.9)

Needs torch and transformers only. Without it the checkpoint is an ordinary autoregressive model.

Each forward reads the tokens accepted last and B - 1 mask tokens, which predict the next B tokens.
The first is accepted as it is, those after it as long as their probability is at least the
threshold tau (section 3.4 of arXiv 2604.07023). tau = None decodes one token per forward. Streams,
stop strings, stopping criteria, time limits and caches of earlier turns work as in transformers;
what greedy decoding of several tokens cannot honour is refused.
"""

import copy

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    DynamicCache,
    EosTokenCriteria,
    GenerationConfig,
    MaxLengthCriteria,
    MaxTimeCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)
from transformers.generation import GenerateDecoderOnlyOutput

GIVEN = object()  # stands for "as the generation config says"
NEW_TOKENS = 256  # unless the call or the generation config says otherwise
HONOURED = {
    *("max_new_tokens", "max_length", "max_time", "stop_strings"),
    *("eos_token_id", "pad_token_id", "bos_token_id", "return_dict_in_generate", "use_cache"),
    *("mars_block_size", "mars_mask_token_id", "mars_threshold"),
    *("transformers_version", "_from_model_config"),
}


def generate(
    inputs=None,
    generation_config=None,
    *,
    model,
    stopping_criteria=None,
    streamer=None,
    tokenizer=None,
    input_ids=None,
    attention_mask=None,
    past_key_values=None,
    threshold=GIVEN,
    block_size=GIVEN,
    synced_gpus=None,
    custom_generate=None,
    trust_remote_code=None,
    **settings,
):
    """Continue prompts, padded on either side, as ``GenerationMixin.generate`` does.

    Args:
        inputs, input_ids: [rows, length].
        attention_mask: 1 for tokens, 0 for padding, [rows, length].
        threshold: tau; None for one token per forward. Default ``mars_threshold`` of the
            generation config.
        block_size: B; default ``mars_block_size`` of the generation config, as trained.
        tokenizer: needed for stop strings.
        past_key_values: a ``DynamicCache`` of the beginning of the prompts.
        settings: of the generation config, e.g. ``max_new_tokens``.

    Returns:
        [rows, length + longest answer] token ids, or a ``GenerateDecoderOnlyOutput`` with
        ``return_dict_in_generate``.

    Raises:
        ValueError: a setting that this decoding cannot honour, or that is out of range.
    """
    ids = inputs if input_ids is None else input_ids
    if ids is None or ids.ndim != 2 or not ids.shape[1]:
        raise ValueError("Give the prompts as input_ids, [rows, length].")
    if streamer is not None and len(ids) > 1:
        raise ValueError("A stream is of one prompt: leave out `streamer`, or give one prompt.")
    config = _merged(model.generation_config, generation_config, settings)
    tau = config.get("mars_threshold") if threshold is GIVEN else threshold
    size = config.get("mars_block_size") if block_size is GIVEN else block_size
    mask_token = config.get("mars_mask_token_id")
    size = 1 if size is None or tau is None else size
    if size < 1 or (size > 1 and mask_token is None):
        raise ValueError(f"A block size of {size} needs a mask token and to be at least 1.")
    if tau is not None and not 0 <= tau <= 1:
        raise ValueError(f"The threshold is a probability or None, not {tau}.")
    if "sliding_attention" in (getattr(model.config, "layer_types", None) or ()):
        raise ValueError("Models with sliding-window attention layers cannot be decoded like this.")
    criteria = StoppingCriteriaList(
        [*(stopping_criteria or ()), *_criteria(config, ids, tokenizer)]
    )
    keep = torch.ones_like(ids) if attention_mask is None else attention_mask.long()
    window = _Windows(model, ids, keep, past_key_values, size, mask_token)
    answers = _answers(window, ids, tau, criteria, streamer)
    ends = config.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [0 if ends is None else ends]
    pad = ends[0] if config.get("pad_token_id") is None else config["pad_token_id"]
    padded = pad_sequence([ids.new_tensor(one) for one in answers], True, pad)
    sequences = torch.cat([ids, padded], 1)
    if not config.get("return_dict_in_generate"):
        return sequences
    # With several rows the cache has holes, which no later call could know of.
    cache = window.cache if len(ids) == 1 else None
    return GenerateDecoderOnlyOutput(sequences=sequences, past_key_values=cache)


@torch.no_grad()
def _answers(window, ids, tau, criteria, streamer):
    """The new tokens of each row; a row ends with the first token at which a criterion says so."""
    if streamer is not None:
        streamer.put(ids.cpu())
    answers, going = [[] for _ in ids], set(range(len(ids)))
    while going:
        probabilities, tokens = window.predict()
        sure = probabilities[:, 1:] >= (2.0 if tau is None else tau)
        runs = (1 + sure.long().cumprod(1).sum(1)).tolist()
        predicted = tokens.tolist()
        for row in sorted(going):
            gained = []
            for token in predicted[row][: runs[row]]:
                gained.append(token)
                so_far = torch.cat([ids[row], ids.new_tensor(answers[row] + gained)])[None]
                if bool(criteria(so_far, None)[0]):
                    going.discard(row)
                    break
            answers[row] += gained
            window.accept(row, gained)
            if streamer is not None:
                streamer.put(torch.tensor(gained))
    if streamer is not None:
        streamer.end()
    return answers


class _Windows:
    """Forwards each row's unread tokens and B - 1 masks, and forgets the masks again.

    Rows accept different numbers of tokens, but a cache has as many columns for all of them: unread
    tokens stand on the right, before the masks, and the columns left of them are holes, which the
    attention mask hides for ever.
    """

    def __init__(self, model, ids, keep, cache, block_size, mask_token):
        order = keep.argsort(dim=1, stable=True)  # padding to the left
        ids, keep = ids.gather(1, order), keep.gather(1, order)
        self.model, self.block_size = model, block_size
        self.mask_token = mask_token
        self.cache = DynamicCache() if cache is None else cache
        if not hasattr(self.cache, "crop"):
            raise ValueError("The cache must be a DynamicCache: leave out `cache_implementation`.")
        read = self.cache.get_seq_length()
        self.seen = keep[:, :read]
        rows = zip(ids[:, read:], keep[:, read:], strict=True)
        self.unread = [row[kept.bool()].tolist() for row, kept in rows]

    def accept(self, row, tokens):
        """Tokens of a row to be read by the next forward."""
        self.unread[row] = tokens

    def predict(self):
        """Probability and id of the best token at the next B places of each row: [rows, B]."""
        masks = [self.mask_token] * (self.block_size - 1)
        width = max(map(len, self.unread)) + len(masks)
        rows = [[*tokens, *masks] if tokens else [] for tokens in self.unread]
        holes = [width - len(row) for row in rows]
        window = self.seen.new_tensor([[0] * n + row for n, row in zip(holes, rows, strict=True)])
        keep = self.seen.new_tensor([[0] * n + [1] * (width - n) for n in holes])
        attention = torch.cat([self.seen, keep], 1)
        positions = (attention.cumsum(1) - 1).clamp(min=0)[:, -width:]
        logits = self.model(
            input_ids=window,
            attention_mask=attention,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=self.block_size,
        ).logits
        if masks:
            self.cache.crop(-len(masks))
        self.seen = attention[:, : attention.shape[1] - len(masks)]
        self.unread = [[] for _ in self.unread]
        logits = logits[:, -self.block_size :].float()
        if self.mask_token is not None:
            logits[..., self.mask_token] = -torch.inf
        return logits.softmax(-1).max(-1)


def _merged(default, config, settings):
    """The generation config as a dictionary: the call's settings over those of ``config``, these
    over the model's. ValueError for what is not the default and cannot be honoured.
    """
    config = copy.deepcopy(config or default)
    unused = config.update(**{name: value for name, value in settings.items() if value is not None})
    wrong = {name: value for name, value in unused.items() if not _says_nothing(value)}
    own, usual = config.to_dict(), GenerationConfig().to_dict()
    merged = default.to_dict() | {name: value for name, value in own.items() if value is not None}
    for name, value in merged.items():
        if name not in HONOURED and value != usual.get(name) and not _is_neutral(name, value):
            wrong[name] = value
    if wrong:
        listed = ", ".join(f"{name}={value!r}" for name, value in sorted(wrong.items()))
        raise ValueError(
            f"MARS decoding is greedy and cannot honour {listed}: leave this out, or decode one "
            "token at a time without custom_generate and trust_remote_code."
        )
    return merged


def _says_nothing(value):
    return value is None or value is False or (isinstance(value, list | dict) and not value)


def _is_neutral(name, value):
    """Whether a value of the generation config asks for nothing, as a penalty of 1 does."""
    if _says_nothing(value) or value == 0:
        return True
    return value == 1 and not name.startswith(("min_", "output_", "do_"))


def _criteria(config, ids, tokenizer):
    """The stopping criteria that the generation config asks for."""
    new, longest = config.get("max_new_tokens"), config.get("max_length")
    if new is None and (longest is None or longest == GenerationConfig().max_length):
        new = NEW_TOKENS
    length = longest if new is None else ids.shape[1] + new
    if length <= ids.shape[1]:
        raise ValueError(f"There is no room for a token: prompts have {ids.shape[1]}, of {length}.")
    yield MaxLengthCriteria(length)
    if config.get("eos_token_id") is not None:
        yield EosTokenCriteria(config["eos_token_id"])
    if config.get("max_time") is not None:
        yield MaxTimeCriteria(config["max_time"])
    if config.get("stop_strings"):
        if tokenizer is None:
            raise ValueError("Stop strings need the tokenizer: give `tokenizer` as well.")
        yield StopStringCriteria(tokenizer, config["stop_strings"])
