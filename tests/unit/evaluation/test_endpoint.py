"""Answers of a server are scored and counted as those of the engine, and the record says whose."""

import copy
import socket

import pytest
import torch

from mars.config.experiment import Endpoint, Evaluation, Setting
from mars.errors import UserError
from mars.evaluation import completion_server, endpoint
from mars.evaluation.completion_server import KeptReplies, Reply, Server
from mars.evaluation.evaluate import evaluate
from mars.evaluation.stage import EvaluationSpec
from mars.provenance.files import read_json, read_jsonl
from tests.support.completion_server import serving

PROTOCOL = Evaluation(max_new_tokens=24, slots=4, precision="float32", code_timeout=60)
PLAIN, JACOBI = Setting(), Setting(method="jacobi", block_size=4)
KEY = "sk-never-to-be-written"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(completion_server, "WAITS", (0.0, 0.01))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(model, tokenizer):
    with serving(model, tokenizer) as running:
        yield running


@pytest.fixture
def call(checkpoint, hub, tmp_path, benchmarks):
    """Evaluates one-token mode on GSM8K, or as the arguments say; gives the output folder."""

    def run(server=None, out="out", names=("gsm8k",), settings=None, **keys):
        settings = settings or {"one-token": PLAIN}
        spec = EvaluationSpec(
            method=None,
            block_size=None,
            cells={setting: list(names) for setting in settings},
            benchmarks={name: benchmarks[name] for name in names},
            task_files={},
            settings=settings,
            evaluation=PROTOCOL,
            generated_data=True,
            endpoint="theirs" if server else None,
        )
        evaluate(
            spec,
            checkpoint=checkpoint,
            hub=hub,
            output=tmp_path / out,
            cell_spec=lambda *cell: {"cell": list(cell)},
            endpoint=Endpoint(url=server.url, **keys) if server else None,
            work=tmp_path / f".{out}.work",
        )
        return tmp_path / out

    return run


def cell(folder, name="gsm8k", setting="one-token"):
    """The record of a cell and its samples."""
    file = folder / setting / f"{name}.json"
    return read_json(file), read_jsonl(file.with_suffix(".samples.jsonl"))


def test_answers_as_token_ids_are_those_of_the_engine(server, call):
    """Question by question: text, score, tokens, forwards, how it ended; IFEval has no strings."""
    names = ("gsm8k", "ifeval", "bbh", "humaneval")  # the last has more strings than vLLM takes
    here, there = call(None, "here", names), call(server, "there", names)
    ends = set()
    for name in names:
        (local, own), (record, samples) = cell(here, name), cell(there, name)
        assert samples == own
        said = record["endpoint"]
        assert said["model"] == "theirs"
        assert said["answers_by_server"] == {server.url: record["documents"]}
        assert said["said_of_the_model"]["root"] == "/models/x"
        assert said["answers"] == "token ids"
        assert said["beginnings"] == {"answers": 8, "tokens": 16, "equal": 8}
        assert "not checked" in said["weights"]
        assert record["device"] == record["precision"] == "of the endpoint"
        different = {"endpoint", "device", "precision", "seconds", "startup_seconds"}
        assert {k: v for k, v in record.items() if k not in different} == {
            k: v for k, v in local.items() if k not in different
        }
        ends |= {sample["finish"] for sample in samples}
    assert len(ends) > 1, "the answers end in one way only, so this compares little"
    assert {body["temperature"] for body in server.asked} == {0}
    assert {body["repetition_penalty"] for body in server.asked} == {1.0}


def test_a_server_that_gives_text_alone_scores_the_same(server, call):
    server.extras = False
    names = ("gsm8k", "humaneval")
    here, there = call(None, "here", names), call(server, "there", names)
    kept = ("document", "prompt_sha256", "generation", "scores", "tokens", "forwards")
    for name in names:
        (_, own), (record, samples) = cell(here, name), cell(there, name)
        compared = [[sample[key] for key in kept] for sample in samples]
        assert compared == [[sample[key] for key in kept] for sample in own]
    assert record["endpoint"]["answers"].startswith("text")
    refused = [body for body in server.asked if "return_token_ids" in body]
    assert len(refused) < len(server.asked) / 2  # once it is known, it is asked without


def test_requests_refused_at_the_same_time_are_all_asked_again(server, monkeypatch):
    """One thread learns that the server wants OpenAI's keys only, while another has just asked."""
    server.extras = False
    asking, send = Server(Endpoint(url=server.url), "theirs"), Server._send

    def learns(self, *arguments):
        response = send(self, *arguments)
        self.extras = {}
        return response

    monkeypatch.setattr(Server, "_send", learns)
    (reply,) = asking.answer([[5]], [[]], 4)
    assert reply.tokens == 4
    assert reply.token_ids is None


def test_other_settings_are_decoded_here(server, call):
    out = call(server, settings={"one-token": PLAIN, "jacobi": JACOBI})
    (sent, samples), (local, _) = cell(out), cell(out, setting="jacobi")
    assert "endpoint" in sent
    assert "endpoint" not in local
    assert "CPU" in local["device"]
    assert len(server.asked) == len(samples) + sent["endpoint"]["beginnings"]["answers"]


def test_a_busy_server_is_asked_again(server, call):
    server.failing = [429, 503, 429]
    record, samples = cell(call(server))
    assert record["documents"] == len(samples)
    assert not server.failing


def test_a_server_that_stays_away_is_one_sentence_and_nothing_is_answered_twice(server, call):
    complete, left = server.complete, [18]  # 8 beginnings, then 10 of 30 answers

    def breaks_down(body):
        if not left[0]:
            server.failing = [500] * 50
            raise ConnectionError  # the connection breaks off
        left[0] -= 1
        return complete(body)

    server.complete = breaks_down
    with pytest.raises(UserError, match="does not answer after 3 attempts") as error:
        call(server, concurrency=1)
    assert "\n" not in str(error.value)
    server.complete, server.failing = complete, []
    server.asked.clear()
    record, samples = cell(call(server, concurrency=1))
    assert len(server.asked) == 8 + len(samples) - 10
    assert sum(record["endpoint"]["answers_by_server"].values()) == len(samples)
    assert samples == cell(call(None, "here"))[1]


def test_answers_cut_off_by_a_kill_are_asked_again(server, tmp_path):
    def ask():
        return Server(Endpoint(url=server.url), "theirs", tmp_path).answer([[5], [6]], [[], []], 4)

    first = ask()
    file = tmp_path / "answers.jsonl"
    file.write_text(file.read_text()[:-20])
    server.asked.clear()
    assert ask() == first == ask()
    assert len(server.asked) == 1


def test_a_line_separator_in_an_answer_survives_every_resume(tmp_path):
    file, reply = tmp_path / "answers.jsonl", Reply("one\u2028two", 3, "eos", None, "http://here")
    KeptReplies(file).add("key", reply)
    assert [KeptReplies(file).get("key") for _ in range(3)] == [reply] * 3


def test_no_server_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(UserError, match=r"does not answer after 3 attempts .*ConnectError"):
        Server(Endpoint(url=f"http://127.0.0.1:{port}/v1"), "theirs")


def test_what_is_configured_wrongly_is_refused_before_anything_is_asked(server, monkeypatch):
    for keys, model, message in (
        ({"url": server.url}, "other", "has no model 'other', it has theirs"),
        ({"url": server.url.removesuffix("/v1")}, "theirs", "mostly ends in /v1"),
        ({"url": server.url, "api_key_env": "NOT_SET"}, "theirs", "has no NOT_SET"),
    ):
        with pytest.raises(UserError, match=message):
            Server(Endpoint(**keys), model)
    server.key = KEY
    monkeypatch.setenv("WRONG", "sk-wrong-one")
    for keys, message in (({}, "without a key"), ({"api_key_env": "WRONG"}, "the key in WRONG")):
        with pytest.raises(UserError, match=message) as error:
            Server(Endpoint(url=server.url, **keys), "theirs")
        assert "sk-" not in str(error.value)
    assert not server.asked


def test_the_key_is_sent_and_written_nowhere(server, call, tmp_path, monkeypatch, capfd):
    server.key = KEY
    monkeypatch.setenv("SERVER_KEY", KEY)
    call(server, api_key_env="SERVER_KEY")
    assert all(headers["Authorization"] == f"Bearer {KEY}" for headers in server.headers)
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.name == "answers.jsonl" for file in written)
    assert not any(KEY in file.read_text() for file in written)
    assert KEY not in "".join(capfd.readouterr())


def test_a_server_with_other_weights_is_refused(model, tokenizer, call, tmp_path):
    other = copy.deepcopy(model)
    torch.manual_seed(1)
    for weights in other.parameters():
        torch.nn.init.normal_(weights, std=0.5)
    with (
        serving(other, tokenizer) as server,
        pytest.raises(UserError, match=r"begins .* otherwise"),
    ):
        call(server)
    assert len(server.asked) == endpoint.COMPARED
    assert not list(tmp_path.glob("out/*/*"))


def completion(text="x", reason="stop", tokens=3):
    choice = {"text": text, "finish_reason": reason}
    return {"choices": [choice], "usage": {"completion_tokens": tokens}}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (completion(reason="content_filter"), "a reason of its own"),
        (completion(reason="length", tokens=3), "after 3 of 4 tokens.*longer context"),
        ({"choices": []}, "no completion"),
        ([], "no completion"),
    ],
)
def test_what_is_no_whole_answer_is_refused(server, given, message):
    server.complete = lambda body: given
    with pytest.raises(UserError, match=message):
        Server(Endpoint(url=server.url), "theirs").answer([[5]], [[]], 4)
