"""The endpoints: every answer is the engine's, every refusal a sentence."""

import json
from contextlib import contextmanager
from functools import partial

import pytest

from mars.data.tokenizer import load_tokenizer
from mars.decoding import decode
from mars.decoding.cursor import Engine
from mars.errors import UserError
from mars.serving.desk import Desk
from mars.serving.engine_process import Settings, build_worker
from tests.support.decoding_models import EOS, MASK, random_model
from tests.support.little_checkpoint import CHAT, character_tokenizer, write_checkpoint
from tests.support.thread_link import ThreadLink

pytest.importorskip("starlette", reason="needs what mars serve needs: see docs/serving.md")
pytest.importorskip("prometheus_client", reason="needs what mars serve needs: see docs/serving.md")

from starlette.testclient import TestClient

from mars.serving.app import build_app
from mars.serving.metrics import Metrics
from mars.serving.service import MOST_BYTES, Service

TAU = 0.2
ASKED = {"model": "little", "messages": [{"role": "user", "content": "hallo"}], "max_tokens": 30}
CONTEXT = 512


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    tokenizer = character_tokenizer()
    tokenizer.chat_template = CHAT
    folder = write_checkpoint(tmp_path_factory.mktemp("serving") / "little")
    tokenizer.chat_template = None
    return folder


def service(checkpoint, api_key=None, max_waiting=50, **options):
    settings = Settings(str(checkpoint), **{"tau": TAU, "slots": 3, **options})
    link = ThreadLink(partial(build_worker, settings))
    tokenizers = load_tokenizer(checkpoint), load_tokenizer(checkpoint)
    return Service(Desk(link, max_waiting), tokenizers, "little", Metrics(), api_key)


@contextmanager
def client(checkpoint, **options):
    with TestClient(build_app(service(checkpoint, **options))) as one:
        yield one


@pytest.fixture(scope="module")
def served(checkpoint):
    with client(checkpoint) as one:
        yield one


def decoded(threshold, prompt="hallo", max_new_tokens=30, **changed):
    rule = {"block_size": 4, "eos_token_id": EOS, "mask_token_id": MASK}
    ids = character_tokenizer()(prompt)["input_ids"]
    (done,) = decode(
        random_model("qwen2"),
        [ids],
        **rule | changed,
        threshold=threshold,
        max_new_tokens=max_new_tokens,
    )
    return done


def text(done):
    return character_tokenizer().decode(done.tokens, skip_special_tokens=True)


def chat(served, **changed):
    return served.post("/v1/chat/completions", json=ASKED | changed)


def chunks(response):
    lines = [line for line in response.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines[:-1]]


def value(served, metric):
    lines = served.get("/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith(f"{metric} ")]
    return float(line.split()[-1])


@pytest.mark.parametrize("tau", ["absent", None, 0.0, 0.95, 1])
def test_an_answer_is_the_engines(served, tau):
    answer = chat(served, **({} if tau == "absent" else {"tau": tau})).json()
    expected = decoded(TAU if tau == "absent" else tau)
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": text(expected)}
    assert choice["finish_reason"] == {"eos": "stop", "length": "length"}[expected.finish]
    assert answer["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": len(expected.tokens),
        "total_tokens": 5 + len(expected.tokens),
        "forwards": expected.forwards,
    }
    assert answer["object"] == "chat.completion"


@pytest.mark.parametrize("prompt", ["hallo", [7, 0, 11, 11, 14]])
def test_a_completion_continues_the_prompt(served, prompt):
    body = {"model": "little", "prompt": prompt, "max_tokens": 30}
    (choice,) = served.post("/v1/completions", json=body).json()["choices"]
    assert choice["text"] == text(decoded(TAU))
    (piece, *_, last) = chunks(served.post("/v1/completions", json=body | {"stream": True}))
    assert piece["object"] == "text_completion"
    assert text(decoded(TAU)).startswith(piece["choices"][0]["text"])
    assert last["choices"][0]["finish_reason"]


def test_a_stream_in_pieces(served):
    pieces = chunks(chat(served, stream=True, stream_options={"include_usage": True}))
    assert pieces[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    shown = [p["choices"][0]["delta"].get("content", "") for p in pieces[:-1]]
    assert "".join(shown) == text(decoded(TAU))
    assert pieces[-2]["choices"][0]["finish_reason"] in ("stop", "length")
    assert pieces[-1]["choices"] == []
    assert pieces[-1]["usage"]["forwards"] == decoded(TAU).forwards
    assert len({piece["id"] for piece in pieces}) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings_end_an_answer(served, stream):
    whole = text(decoded(TAU))
    stop = whole[8:10]
    before = whole[: whole.index(stop)]
    response = chat(served, stop=[stop, "#"], stream=stream)
    if stream:
        pieces = chunks(response)
        shown = "".join(piece["choices"][0]["delta"].get("content", "") for piece in pieces)
        finish = pieces[-1]["choices"][0]["finish_reason"]
    else:
        (choice,) = response.json()["choices"]
        shown, finish = choice["message"]["content"], choice["finish_reason"]
        assert response.json()["usage"]["completion_tokens"] < len(decoded(TAU).tokens)
    assert (shown, finish) == (before, "stop")


def test_an_answer_may_fill_the_context(served):
    body = {key: value for key, value in ASKED.items() if key != "max_tokens"} | {"tau": None}
    answer = served.post("/v1/chat/completions", json=body).json()
    expected = decoded(None, max_new_tokens=CONTEXT - 5)
    assert answer["choices"][0]["message"]["content"] == text(expected)


@pytest.mark.parametrize(
    ("changed", "status", "sentence"),
    [
        ({"model": "other"}, 404, "ask for 'little'"),
        ({"messages": [{"role": "user", "content": "a" * 600}]}, 400, "(600 tokens) and max_tok"),
        ({"max_tokens": 508}, 400, "exceed the context of 512 tokens"),
        ({"messages": [{"role": "user", "content": ""}]}, 400, "The prompt is empty"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, "not valid Unicode"),
        ({"temperature": 1}, 400, "decoding is greedy"),
        ({"stream": True, "n": 3}, 400, "one answer"),
    ],
)
def test_a_bad_request_is_one_sentence(served, changed, status, sentence):
    before = value(served, 'mars_requests_total{outcome="refused"}')
    response = served.post("/v1/chat/completions", content=json.dumps(ASKED | changed))
    error = response.json()["error"]
    assert response.status_code == status
    assert sentence in error["message"]
    assert error["type"] == "invalid_request_error"
    assert value(served, 'mars_requests_total{outcome="refused"}') == before + 1


def test_tokens_that_the_model_lacks_are_refused(served):
    response = served.post("/v1/completions", json={"model": "little", "prompt": [1, 40]})
    assert "outside the vocabulary" in response.json()["error"]["message"]


def test_other_addresses_are_refused_in_the_same_form(served):
    assert "not found" in served.get("/v1/embeddings").json()["error"]["message"]
    wrong = served.get("/v1/completions")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    long = served.post("/v1/completions", content=b" " * (MOST_BYTES + 1))
    assert long.status_code == 413


def test_the_model_and_the_state_are_told(served):
    (model,) = served.get("/v1/models").json()["data"]
    assert (model["id"], model["max_model_len"], model["block_size"]) == ("little", CONTEXT, 4)
    assert served.get("/health").json() == {"status": "ok"}


def test_metrics_count_what_happened(checkpoint):
    with client(checkpoint) as served:
        for tau in (None, TAU):
            chat(served, tau=tau)
        done = [decoded(None), decoded(TAU)]
        assert value(served, "mars_tokens_total") == sum(len(one.tokens) for one in done)
        assert value(served, "mars_forwards_total") == sum(one.forwards for one in done)
        assert value(served, 'mars_requests_total{outcome="answered"}') == 2
        assert value(served, "mars_request_seconds_count") == 2
        assert value(served, "mars_slots") == 3
        assert value(served, "mars_slots_in_use") == value(served, "mars_requests_waiting") == 0
        assert value(served, "mars_tau") == TAU


def test_a_key_is_asked_for_if_there_is_one(checkpoint):
    with client(checkpoint, api_key="secrét") as served:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            refused = served.post("/v1/chat/completions", json=ASKED, headers=headers)
            assert refused.status_code == 401
            assert refused.json()["error"]["code"] == "invalid_api_key"
            assert served.get("/v1/models", headers=headers).status_code == 401
        right = {"Authorization": "Bearer secrét".encode()}
        assert served.post("/v1/chat/completions", json=ASKED, headers=right).status_code == 200
        assert served.get("/health").status_code == served.get("/metrics").status_code == 200


def test_requests_that_wait_are_bounded(checkpoint):
    office = service(checkpoint, slots=1, max_waiting=2)
    served = TestClient(build_app(office))  # whose worker does not run
    for _ in range(3):
        office.desk.take([1], 5)
    refused = chat(served)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert "2 requests are waiting" in refused.json()["error"]["message"]
    assert value(served, 'mars_requests_total{outcome="full"}') == 1
    assert value(served, "mars_requests_waiting") == 3


def test_a_failure_of_the_engine_is_said_and_ends_the_service(checkpoint, monkeypatch):
    with client(checkpoint) as served:
        monkeypatch.setattr(Engine, "step", lambda self: 1 / 0)
        failed = chat(served)
        assert failed.status_code == 500
        assert failed.json()["error"]["type"] == "server_error"
        assert chat(served).status_code == 503
        assert served.get("/health").status_code == 503
        assert value(served, 'mars_requests_total{outcome="failed"}') == 1


def test_a_plain_checkpoint_decodes_token_by_token(checkpoint):
    with client(checkpoint, block_size=1) as served:
        answer = chat(served).json()
        assert answer["choices"][0]["message"]["content"] == text(decoded(None))
        assert answer["usage"]["forwards"] == answer["usage"]["completion_tokens"]
        assert value(served, "mars_tau") == 1
        assert chat(served, tau=None).json()["choices"] == answer["choices"]
        assert "one token per forward" in chat(served, tau=0.5).json()["error"]["message"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"low_tau": 0.5}, "must not be above --tau"),
        ({"tau": None, "low_tau": 0.5}, "must not be above --tau"),
        ({"tau": 1.2}, "between 0 and 1"),
        ({"low_tau": -1}, "between 0 and 1"),
        ({"low_tau": 0.1, "block_size": 1}, "leave out --low-tau"),
        ({"max_length": 513}, "the model's context has 512 tokens"),
    ],
)
def test_settings_that_make_no_sense_are_refused(checkpoint, options, sentence):
    with pytest.raises(UserError, match=sentence):
        service(checkpoint, **options)
