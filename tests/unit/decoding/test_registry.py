"""The registry says of each method what its code says, and is all that a new method needs."""

import inspect

import pytest

from mars.decoding import decode, methods
from mars.decoding.methods import BASELINES, METHODS, STREAMING_METHODS, TIMED, Method, Timed
from mars.decoding.window import decode_window_batch
from mars.errors import UserError
from mars.speed.methods import Condition, Workload, runner
from tests.support.decoding_models import EOS, MASK, prompts, random_model

RULE = {"block_size": 4, "max_new_tokens": 12, "eos_token_id": EOS, "mask_token_id": MASK}


def taken(method: Method) -> set[str]:
    """Names of the keyword arguments of a method's code."""
    if method.name == "window":
        from mars.decoding.window import decode_one as code
    else:
        code = {**methods.engines(), **methods.batch_decoders()}[method.name]
    return set(inspect.signature(code).parameters)


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_a_method_takes_its_options_and_runs(method):
    arguments = taken(method)
    assert arguments >= method.options | method.arguments(4, frozenset(), None).keys()
    done = decode(random_model("qwen2"), prompts(3), threshold=0.3, method=method.name, **RULE)
    assert all(one.tokens for one in done)
    if not method.has_tau:
        greedy = decode(random_model("qwen2"), prompts(3), threshold=None, **RULE)
        assert [one.tokens for one in done] == [one.tokens for one in greedy]


@pytest.mark.parametrize("method", METHODS)
def test_another_option_is_refused_by_name(method):
    with pytest.raises(UserError, match=f"luck: not options of the method '{method}'"):
        decode(random_model("qwen2"), [[1]], threshold=None, method=method, luck=1, **RULE)


@pytest.mark.parametrize("timed", TIMED.values(), ids=lambda timed: timed.name)
def test_what_is_timed_is_a_registered_method_with_options_of_its_own(timed):
    own = METHODS[timed.method].options | {"mask_token_id"}
    assert timed.options.keys() <= own
    assert timed.table5_row


def test_a_method_is_an_engine_or_decodes_batches():
    assert sorted([*methods.engines(), *methods.batch_decoders()]) == sorted(METHODS)
    assert tuple(methods.streaming_engines()) == STREAMING_METHODS


def test_baselines_decode_one_token_per_forward():
    assert all(METHODS[TIMED[name].method].one_token for name in BASELINES)


def test_a_new_method_is_decoded_evaluated_and_timed_by_its_entries_alone(monkeypatch):
    monkeypatch.setitem(METHODS, "new", Method("new", options=methods.RULE, in_settings=True))
    for registry in (methods.batch_decoders(), methods.timed_batch_decoders()):
        monkeypatch.setitem(registry, "new", decode_window_batch)
    monkeypatch.setitem(TIMED, "new", Timed("new", "new", "A new one"))
    model, some = random_model("qwen2"), prompts(3)
    done = decode(model, some, threshold=0.3, method="new", **RULE)
    assert done == decode(model, some, threshold=0.3, method="window", **RULE)
    workload = Workload(model, some, 4, 12, frozenset(EOS), MASK)
    assert runner(workload, Condition("new", 2, 0.3))().tokens == [one.tokens for one in done]
