"""Counting and cutting, and the adapter against plain greedy ``generate``."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from mars.config.experiment import Setting
from mars.decoding import decode
from mars.decoding.cache import CachedModel
from mars.decoding.cursor import Engine
from mars.errors import UserError
from mars.evaluation.adapter import DecodingLM, cut, forwards_until, shortest_prefix

gains = st.lists(st.integers(1, 8), min_size=1, max_size=30)


@given(gains, st.data())
def test_forwards_until_is_the_first_forward_that_reaches(accepted, data):
    tokens = data.draw(st.integers(1, sum(accepted)))
    forwards = forwards_until(accepted, tokens)
    assert sum(accepted[:forwards]) >= tokens > sum(accepted[: forwards - 1])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_shortest_prefix_finds_the_first_occurrence(tokens):
    def holds(prefix):
        return 3 in prefix

    if holds(tokens):
        assert shortest_prefix(tokens, holds) == tokens.index(3) + 1


@given(st.text("abQ\n", max_size=30))
def test_cut_is_before_the_earliest_stop_string(text):
    stops = ["Q", "\n\n"]
    places = [text.index(s) for s in stops if s in text]
    assert cut(text, stops) == text[: min(places, default=len(text))]


def lm_of(model, tokenizer, block_size=4, **changed):
    arguments = {"eos_token_ids": [tokenizer.eos_token_id], "max_new_tokens": 20, "slots": 3}
    lm = DecodingLM(model, tokenizer, block_size=block_size, **{**arguments, **changed})
    lm.setting = Setting(threshold=None)
    return lm


def requests_of(prompts, until=()):
    return [
        Instance("generate_until", {}, (p, {"until": list(until)}), 0, metadata=("t", i, 1))
        for i, p in enumerate(prompts)
    ]


PROMPTS = ["Q: how many?", "Question: the answer", "is", "A: 3. " * 9]


def test_one_token_mode_is_greedy_generate(model, tokenizer):
    lm = lm_of(model, tokenizer)
    texts = lm.generate_until(requests_of(PROMPTS))
    for index, prompt in enumerate(PROMPTS):
        ids = torch.tensor([tokenizer.encode(prompt)])
        whole = model.generate(ids, do_sample=False, max_new_tokens=20, pad_token_id=0)
        answer = whole[0, ids.shape[1] :]
        assert texts[index] == tokenizer.decode(answer, skip_special_tokens=True)
        assert lm.generations["t", index].tokens == len(answer)
        assert lm.generations["t", index].forwards == len(answer)


@pytest.mark.parametrize("stopping", [False, True])
def test_autoregressive_answers_are_those_of_lm_evals_own_model(model, tokenizer, stopping):
    ours = lm_of(model, tokenizer, block_size=None)
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, backend="causal")
    whole = ours.generate_until(requests_of(PROMPTS))
    until = stop_strings(whole) if stopping else []
    requests = [
        Instance(r.request_type, r.doc, (r.args[0], {**r.args[1], **GREEDY}), 0, r.metadata)
        for r in requests_of(PROMPTS, until)
    ]
    answers = ours.generate_until(requests)
    assert answers == theirs.generate_until(requests, disable_tqdm=True)
    assert (answers != whole) == stopping


@pytest.mark.parametrize("right_shift", [True, False])
def test_block_diffusion_decodes_in_the_form_it_was_trained_in(model, tokenizer, right_shift):
    options = {"right_shift": right_shift}
    lm = lm_of(model, tokenizer, method="block_diffusion", options=options)
    lm.setting = Setting(threshold=0.0)
    lm.generate_until(requests_of(PROMPTS))
    assert lm.decoding["right_shift"] is right_shift
    for index, prompt in enumerate(PROMPTS):
        (alone,) = decode(
            model,
            [tokenizer.encode(prompt)],
            block_size=4,
            threshold=0.0,
            max_new_tokens=20,
            eos_token_id=tokenizer.eos_token_id,
            mask_token_id=tokenizer.mask_token_id,
            method="block_diffusion",
            right_shift=right_shift,
        )
        assert lm.generations["t", index].tokens == len(alone.tokens)
    lm.setting = Setting(method="jacobi", block_size=8)
    assert "right_shift" not in lm.decoding


GREEDY = {"do_sample": False, "max_gen_toks": 20}


def stop_strings(texts):
    """Two characters from the middle of each text that is long enough."""
    found = [text[len(text) // 2 :][:2] for text in texts if len(text) > 4]
    assert found
    return found


@pytest.mark.parametrize("threshold", [None, 0.0, 0.02])
def test_stopping_early_changes_neither_text_nor_counts(model, tokenizer, threshold):
    lm = lm_of(model, tokenizer)
    lm.setting = Setting(threshold=threshold)
    whole = lm.generate_until(requests_of(PROMPTS))
    until = stop_strings(whole)
    texts = lm.generate_until(requests_of(PROMPTS, until))
    ended = 0
    for index, prompt in enumerate(PROMPTS):
        found = lm.generations["t", index]
        full = decode(
            model,
            [tokenizer.encode(prompt)],
            block_size=4,
            threshold=threshold,
            max_new_tokens=20,
            eos_token_id=tokenizer.eos_token_id,
            mask_token_id=tokenizer.mask_token_id,
            method="window",
        )[0]
        lengths = range(1, len(full.tokens) + 1)
        stops = [n for n in lengths if any(s in lm.tok_decode(full.tokens[:n]) for s in until)]
        tokens = stops[0] if stops else len(full.tokens)
        assert texts[index] == cut(whole[index], until)
        assert (found.tokens, found.finish == "stop") == (tokens, bool(stops))
        assert found.forwards == forwards_until(full.accepted, tokens)
        ended += bool(stops)
    assert ended


def test_long_prompts_lose_their_left_and_are_counted(model, tokenizer, monkeypatch):
    lm = lm_of(model, tokenizer)
    lm._max_length = 30
    seen = []
    original = DecodingLM.decode_all
    monkeypatch.setattr(
        DecodingLM, "decode_all", lambda self, r, p, s: (seen.extend(p), original(self, r, p, s))[1]
    )
    lm.generate_until(requests_of(PROMPTS))
    for index, prompt in enumerate(PROMPTS):
        ids = tokenizer.encode(prompt)
        assert seen[index] == ids[-10:]
        assert lm.generations["t", index].truncated == (len(ids) > 10)
    lm._max_length = 20
    with pytest.raises(UserError, match="max_new_tokens"):
        lm.generate_until(requests_of(PROMPTS))


def test_a_tokenizer_without_chat_template_is_refused(model, tokenizer):
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(UserError, match="chat template"):
        lm_of(model, bare)


def test_a_setting_says_how_to_decode(model, tokenizer):
    lm = lm_of(model, tokenizer)
    lm.setting = Setting(threshold=0.9)
    assert (lm.decoding["method"], lm.decoding["block_size"]) == ("cursor", 4)
    lm.setting = Setting(method="block_cache", cache_block=8, authors_window=True, threshold=0.0)
    assert lm.decoding["authors_window"]
    assert lm.decoding["cache_block"] == 8
    for setting in (
        Setting(),
        Setting(method="jacobi", block_size=6),
        Setting(lossless=True, threshold=0.0),
        Setting(method="transformers"),
    ):
        lm.setting = setting
        texts = lm.generate_until(requests_of(PROMPTS))
        if setting == Setting():
            greedy = texts
        assert texts == greedy, setting


def test_tokens_beyond_the_end_are_known_and_not_counted(model, tokenizer):
    lm = lm_of(model, tokenizer)
    lm.setting = Setting(threshold=0.0)  # four tokens in every forward, wanted or not
    lm.max_new_tokens = 18
    lm.generate_until(requests_of(PROMPTS))
    to_the_limit = [one for one in lm.generations.values() if one.finish == "length"]
    assert to_the_limit
    for one in lm.generations.values():
        assert one.tokens + one.overrun == 4 * one.forwards
    assert all(one.overrun == 2 for one in to_the_limit)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_engine_compiles_only_when_told_to(model, tokenizer, monkeypatch, compiled):
    told = []
    init = CachedModel.__init__

    def noted(cached, *arguments):
        told.append(arguments[-1])
        init(cached, *arguments)

    monkeypatch.setattr(CachedModel, "__init__", noted)
    lm_of(model, tokenizer, compiled=compiled).generate_until(requests_of(PROMPTS))
    assert told == [compiled]


def out_of_memory_above(slots, monkeypatch):
    """Make the engine run out of memory, in the middle of its work, with more slots than that."""
    step = Engine.step

    def limited(engine):
        if engine.slots > slots and engine.times.decode_steps > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(engine)

    monkeypatch.setattr(Engine, "step", limited)


def test_out_of_memory_halves_the_slots_and_changes_no_answer(model, tokenizer, monkeypatch):
    lm = lm_of(model, tokenizer, slots=4)
    answers = lm.generate_until(requests_of(PROMPTS))
    assert (lm.slots, lm.notes) == (4, {})
    costs = dict(lm.generations)
    out_of_memory_above(1, monkeypatch)
    assert lm.generate_until(requests_of(PROMPTS)) == answers
    assert lm.generations == costs
    assert lm.slots == 1
    assert "1 side by side" in lm.notes["memory"]


def test_out_of_memory_with_one_slot_is_one_sentence(model, tokenizer, monkeypatch):
    out_of_memory_above(0, monkeypatch)
    with pytest.raises(UserError, match="a single sequence"):
        lm_of(model, tokenizer).generate_until(requests_of(PROMPTS))
