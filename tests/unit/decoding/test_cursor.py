"""The engine against the un-cached window and against transformers' own greedy decoding."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2ForCausalLM

from mars.decoding import cursor, decode
from mars.decoding.acceptance import METRICS
from mars.decoding.cache import attention_of, kv_bytes
from mars.decoding.cursor import Engine
from mars.decoding.requests import Request
from mars.errors import UserError
from tests.support.decoding_models import EOS, MASK, VOCABULARY, prompts, random_model
from tests.support.fixed_steps import Eagerly
from tests.support.little_models import little_config

THRESHOLDS = (None, 0, 0.2, 0.6, 0.95, 1)
ARCHITECTURES = ("qwen2", "llama")


def engine(model, **changes):
    rule = {"block_size": 4, "mask_token_id": MASK, "eos": frozenset(EOS), "slots": 3}
    return Engine(model, max_length=100, **(rule | changes))


def greedy(model, prompt, budget, suppress_tokens=(MASK,)):
    """Greedy AR decoding by transformers."""
    output = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=budget,
        do_sample=False,
        eos_token_id=list(EOS),
        pad_token_id=0,
        suppress_tokens=suppress_tokens,
    )
    return output[0, len(prompt) :].tolist()


@settings(max_examples=25)
@given(st.data())
def test_cursor_equals_window(data):
    model = random_model(
        data.draw(st.sampled_from(ARCHITECTURES)), data.draw(st.sampled_from((0, 1)))
    )
    slots = data.draw(st.integers(1, 9))
    count = slots + data.draw(st.integers(1, 4))
    some_prompts = st.lists(st.integers(0, VOCABULARY - 2), min_size=1, max_size=60)
    arguments = {
        "prompts": data.draw(st.lists(some_prompts, min_size=count, max_size=count)),
        "block_size": data.draw(st.integers(2, 16)),
        "threshold": data.draw(
            st.lists(st.sampled_from(THRESHOLDS), min_size=count, max_size=count)
        ),
        "max_new_tokens": data.draw(st.lists(st.integers(1, 24), min_size=count, max_size=count)),
        "eos_token_id": data.draw(st.sampled_from(((), EOS, tuple(range(8))))),
        "mask_token_id": MASK,
        "metric": data.draw(st.sampled_from(METRICS)),
        "strict": data.draw(st.booleans()),
        "lossless": data.draw(st.booleans()),
        "extra_mask": data.draw(st.booleans()),
    }
    assert decode(model, **arguments, slots=slots) == decode(model, **arguments, method="window")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("block_size", [2, 4, 16])
def test_cursor_equals_window_on_the_grid(block_size, threshold, metric):
    arguments = {
        "prompts": prompts(5, seed=block_size),
        "block_size": block_size,
        "threshold": threshold,
        "max_new_tokens": [1, 2, 15, 16, 20],
        "eos_token_id": EOS,
        "mask_token_id": MASK,
        "metric": metric,
    }
    model = random_model("qwen2")
    fast = decode(model, **arguments, slots=2)
    assert fast == decode(model, **arguments, method="window")
    assert all(sum(one.accepted) == len(one.tokens) for one in fast)
    assert all(len(one.accepted) == one.forwards for one in fast)


def test_thresholds_in_the_tests_accept_everything_from_one_token_to_all():
    """Guards the tests above against models too sure or too unsure of everything."""
    model, gains = random_model("qwen2"), []
    for threshold in (1, 0.6, 0.2, 0):
        done = decode(
            model,
            prompts(8),
            block_size=4,
            threshold=threshold,
            max_new_tokens=24,
            eos_token_id=None,
            mask_token_id=MASK,
        )
        gains.append(sum(len(one.tokens) for one in done) / sum(one.forwards for one in done))
    assert gains[0] == 1
    assert gains[-1] == 4
    assert gains == sorted(gains)
    assert 1.2 < gains[1] < gains[2] < 3.95


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("method", ["cursor", "autoregressive", "window"])
def test_one_token_mode_is_greedy_generate(architecture, method):
    model, some = random_model(architecture), prompts(6)
    done = decode(
        model,
        some,
        block_size=4,
        threshold=None,
        max_new_tokens=20,
        eos_token_id=EOS,
        mask_token_id=MASK,
        method=method,
    )
    assert [one.tokens for one in done] == [greedy(model, prompt, 20) for prompt in some]
    assert all(one.forwards == len(one.tokens) for one in done)


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("extra_mask", [False, True])
def test_lossless_is_greedy_at_every_threshold(threshold, extra_mask):
    model, some = random_model("llama"), prompts(6)
    done = decode(
        model,
        some,
        block_size=4,
        threshold=threshold,
        max_new_tokens=20,
        eos_token_id=EOS,
        mask_token_id=MASK,
        lossless=True,
        extra_mask=extra_mask,
        slots=4,
    )
    assert [one.tokens for one in done] == [greedy(model, prompt, 20) for prompt in some]


@pytest.mark.parametrize("threshold", [None, 0.3])
def test_bfloat16_rows_do_not_depend_on_their_neighbours(threshold):
    model, some = random_model("qwen2", dtype=torch.bfloat16), prompts(9)
    arguments = {
        "block_size": 4,
        "threshold": threshold,
        "max_new_tokens": 24,
        "eos_token_id": EOS,
        "mask_token_id": MASK,
    }
    alone = [decode(model, [prompt], **arguments)[0] for prompt in some]
    assert decode(model, some, **arguments, slots=4) == alone
    assert decode(model, some[::-1], **arguments, slots=9) == alone[::-1]


def test_long_prompts_enter_in_pieces(monkeypatch):
    monkeypatch.setattr(cursor, "PREFILL_TOKENS", 16)
    arguments = {
        "block_size": 4,
        "threshold": 0.3,
        "max_new_tokens": 10,
        "eos_token_id": EOS,
        "mask_token_id": MASK,
    }
    model, some = random_model("qwen2"), prompts(7)
    assert decode(model, some, **arguments, slots=3) == decode(
        model, some, **arguments, method="window"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 6},
        {"num_attention_heads": 4, "num_key_value_heads": 4, "attention_bias": True},
        {"num_attention_heads": 4, "num_key_value_heads": 1, "tie_word_embeddings": True},
    ],
)
def test_any_grouping_of_heads(changes):
    torch.manual_seed(0)
    config = little_config(LlamaConfig, vocab_size=VOCABULARY, initializer_range=0.5, **changes)
    model = LlamaForCausalLM(config).eval()
    arguments = {
        "prompts": prompts(5),
        "block_size": 4,
        "threshold": 0.3,
        "max_new_tokens": 20,
        "eos_token_id": EOS,
        "mask_token_id": MASK,
    }
    assert decode(model, **arguments, slots=3) == decode(model, **arguments, method="window")


def test_an_autoregressive_checkpoint_needs_no_mask_token():
    model, some = random_model("llama"), prompts(3)
    rule = {"threshold": 0.3, "max_new_tokens": 12, "eos_token_id": EOS, "block_size": 4}
    plain = decode(model, some, **rule, mask_token_id=None, method="autoregressive")
    for one, prompt in zip(plain, some, strict=True):
        assert one.tokens == greedy(model, prompt, 12, suppress_tokens=None)


def test_a_bad_request_is_one_sentence_and_disturbs_nobody():
    model, good = random_model("qwen2"), prompts(4)
    expected = decode(
        model,
        good,
        block_size=4,
        threshold=0.3,
        max_new_tokens=20,
        eos_token_id=EOS,
        mask_token_id=MASK,
        method="window",
    )
    running = engine(model)
    identities = [running.submit(Request(prompt, 0.3, 20)) for prompt in good]
    running.step()
    bad = [
        Request([], 0.3, 20),
        Request([1], 1.5, 20),
        Request([1], 0.3, 0),
        Request([1] * 90, 0.3, 20),
        Request([1, VOCABULARY], 0.3, 20),
    ]
    for request in bad:
        with pytest.raises(UserError, match=r"^[^.]*(\d\.\d[^.]*)*\.$"):
            running.submit(request)
    with pytest.raises(UserError, match="blocks of at most 4"):
        running.submit(Request([1], 0.3, 20), block_size=8)
    with pytest.raises(UserError, match="No request 99"):
        running.set_threshold(0.5, [0, 99])
    done = running.run()
    assert [done[identity] for identity in identities] == expected
    assert len(done) == len(good)


def test_bad_settings_are_refused():
    model = random_model("qwen2")
    rule = {"max_new_tokens": 5, "eos_token_id": None, "mask_token_id": MASK, "block_size": 4}
    with pytest.raises(UserError, match="method"):
        decode(model, [[1]], threshold=0.5, **(rule | {"method": "guess"}))
    with pytest.raises(UserError, match="metric"):
        decode(model, [[1]], threshold=0.5, **(rule | {"metric": "luck"}))
    with pytest.raises(UserError, match="no mask token"):
        decode(model, [[1]], threshold=0.5, **(rule | {"mask_token_id": None}))
    with pytest.raises(UserError, match="outside the vocabulary"):
        decode(model, [[1]], threshold=0.5, **(rule | {"mask_token_id": VOCABULARY}))
    with pytest.raises(UserError, match="one per prompt"):
        decode(model, [[1]], threshold=[0.5, 0.5], **rule)
    with pytest.raises(UserError, match="not options"):
        decode(model, [[1]], threshold=0.5, **rule, method="jacobi", lossless=True)
    sliding = little_config(vocab_size=VOCABULARY, use_sliding_window=True, max_window_layers=1)
    with pytest.raises(UserError, match="sliding"):
        decode(Qwen2ForCausalLM(sliding), [[1]], threshold=0.5, **rule)
    with pytest.raises(UserError, match="use fewer slots"):
        decode(model, [[1]], threshold=0.5, **rule, memory_limit=1000)


def test_the_threshold_is_live():
    model = random_model("qwen2")
    running = engine(model, eos=frozenset(), slots=2)
    for prompt in prompts(2, longest=20):
        running.submit(Request(prompt, None, 60))
    for _ in range(5):
        assert all(len(new) == 1 for new in running.step().values())
    running.set_threshold(0, [1])
    first, second = running.step(), running.step()
    assert [len(first[0]), len(first[1])] == [1, 4]
    assert [len(second[0]), len(second[1])] == [1, 4]
    running.set_threshold(None)
    assert all(len(new) == 1 for new in running.step().values())


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_cancelled_requests_free_their_slots_and_disturb_nobody(seed, lossless):
    model, some, draw = random_model("qwen2"), prompts(12, seed=seed), random.Random(seed)
    requests = [Request(prompt, draw.choice(THRESHOLDS), 20) for prompt in some]
    expected = engine(model, lossless=lossless).answer(requests)
    running = engine(model, lossless=lossless)
    left = {running.submit(request) for request in requests}
    cancelled = set()
    while running.active or running.queue:
        running.step()
        going = sorted(left - running.results.keys())
        if going and draw.random() < 0.3:
            identity = draw.choice(going)
            before = len(running.active) + len(running.queue)
            running.cancel(identity)
            assert len(running.active) + len(running.queue) == before - 1
            left.remove(identity)
            cancelled.add(identity)
            with pytest.raises(UserError, match=f"No request {identity}"):
                running.cancel(identity)
    assert cancelled
    assert running.results == {identity: expected[identity] for identity in left}


def test_a_request_may_ask_for_smaller_blocks():
    model, some = random_model("qwen2"), prompts(4)
    running = engine(model)
    for size, prompt in enumerate(some, 1):
        running.submit(Request(prompt, 0.2, 20), block_size=size)
    done = running.run()
    for size, prompt in enumerate(some, 1):
        assert [done[size - 1]] == decode(
            model,
            [prompt],
            block_size=size,
            threshold=0.2,
            max_new_tokens=20,
            eos_token_id=EOS,
            mask_token_id=MASK,
            method="window",
        )


@pytest.mark.parametrize("lossless", [False, True])
def test_steps_stream_what_the_result_holds(lossless):
    running = engine(random_model("qwen2"), lossless=lossless)
    identities = [running.submit(Request(prompt, 0.3, 20)) for prompt in prompts(7)]
    seen = {identity: [] for identity in identities}
    while running.active or running.queue:
        for identity, new in running.step().items():
            seen[identity].append(new)
    for identity, pieces in seen.items():
        assert [len(piece) for piece in pieces] == running.results[identity].accepted
        assert [token for piece in pieces for token in piece] == running.results[identity].tokens


@pytest.mark.parametrize("method", ["cursor", "window"])
def test_stop_ends_early_and_keeps_a_prefix(method):
    arguments = {
        "prompts": prompts(3),
        "block_size": 4,
        "threshold": 0.2,
        "max_new_tokens": 20,
        "eos_token_id": None,
        "mask_token_id": MASK,
        "method": method,
    }
    model = random_model("qwen2")
    whole = decode(model, **arguments)
    cut = decode(model, **arguments, stop=lambda tokens: len(tokens) >= 6)
    for one, other in zip(whole, cut, strict=True):
        assert other.finish == "stop"
        assert 6 <= len(other.tokens) < 6 + 4
        assert one.tokens[: len(other.tokens)] == other.tokens


def test_progress_sees_every_sequence_once():
    seen = []
    done = decode(
        random_model("qwen2"),
        prompts(5),
        block_size=4,
        threshold=0.3,
        max_new_tokens=9,
        eos_token_id=EOS,
        mask_token_id=MASK,
        slots=2,
        progress=seen.append,
    )
    assert sorted(map(id, seen)) == sorted(map(id, done))


def test_the_cache_takes_what_was_announced_and_the_model_is_left_as_found():
    model = random_model("qwen2")
    before = model.config._attn_implementation
    running = engine(model)
    buffers = [
        tensor for layer in running.cached.cache.layers for tensor in (layer.keys, layer.values)
    ]
    announced = kv_bytes(model.config, 3, running.cached.capacity, torch.float32)
    assert announced == sum(tensor.nbytes for tensor in buffers)
    running.submit(Request([1, 2], 0.3, 5))
    running.run()
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("slots", [4, 11])
@pytest.mark.parametrize("lossless", [False, True])
def test_steps_of_fixed_shape_decode_the_same_and_never_wait(lossless, slots):
    model, some = random_model("qwen2"), prompts(24)
    running = engine(model, lossless=lossless, slots=slots)
    running.graphs = Eagerly()
    thresholds = [None, 0.2, 0.6] * 8
    identities = [
        running.submit(Request(prompt, threshold, 30))
        for prompt, threshold in zip(some, thresholds, strict=True)
    ]
    done = running.run()
    assert [done[identity] for identity in identities] == decode(
        model,
        some,
        block_size=4,
        threshold=thresholds,
        max_new_tokens=30,
        eos_token_id=EOS,
        mask_token_id=MASK,
        lossless=lossless,
        method="window",
    )
    assert {shape.width for shape in running.graphs.keys} <= {1, 7}
    assert {shape.last for shape in running.graphs.keys} <= {1, 2, 4, 8, slots}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"extra_mask": True}])
def test_after_warming_up_no_step_has_a_shape_of_its_own(seed, options):
    """Whatever arrives, and however tau changes on the way: all graphs have been captured."""
    draw, some = random.Random(seed), prompts(7, seed=seed, shortest=5)
    model = random_model("qwen2")
    running = engine(model, slots=(1, 2, 3, 4, 7, 12)[seed], **options)
    running.graphs = Eagerly()
    running.warm_up(shortest=min(map(len, some)))
    captured = set(running.graphs.keys)
    counts = len({1, 2, 4, 8, 12} & set(range(running.slots))) + 1
    assert len(captured) <= counts * 2 * 2  # one prediction or most, two ranges of lengths
    with attention_of(model):
        while some or running.queue or running.active:
            for prompt in [some.pop() for _ in range(draw.randint(0, min(3, len(some))))]:
                request = Request(prompt, draw.choice(THRESHOLDS), draw.randint(1, 40))
                running.submit(request, draw.randint(1, 4))
            if draw.random() < 0.5:
                running.set_threshold(draw.choice(THRESHOLDS))
            running.step()
    assert running.graphs.keys == captured


def test_warming_up_leaves_no_trace():
    model, some = random_model("llama"), prompts(6)
    running = engine(model)
    running.graphs = Eagerly()
    running.warm_up()
    done = running.answer(Request(prompt, 0.3, 20) for prompt in some)
    assert done == decode(
        model,
        some,
        block_size=4,
        threshold=0.3,
        max_new_tokens=20,
        eos_token_id=EOS,
        mask_token_id=MASK,
        method="window",
    )
