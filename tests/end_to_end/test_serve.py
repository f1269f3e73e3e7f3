"""`mars serve` as a process of its own, asked by real clients: every answer is the engine's.

Needs what `mars serve` needs (docs/serving.md) and `pip install openai`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil
import pytest

from mars.config.experiment import Benchmark, Evaluation, Setting, load_experiment
from mars.decoding import decode
from mars.evaluation.evaluate import evaluate
from mars.evaluation.offline import prepare_process
from mars.evaluation.stage import EvaluationSpec
from mars.evaluation.tasks import load_benchmark
from mars.provenance.files import read_json, read_jsonl, write_jsonl
from tests.support.decoding_models import EOS, MASK, random_model
from tests.support.little_checkpoint import CHAT, character_tokenizer, write_checkpoint
from tests.support.waiting import end_of, run, started, wait

NEEDED = ("starlette", "uvicorn", "prometheus_client", "openai")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, NEEDED)),
        reason="needs what mars serve needs (docs/serving.md), and openai",
    ),
]
ROOT = Path(__file__).resolve().parents[2]
PLACES = [os.environ.get("MARS_RESULTS"), ROOT / "results/tiny", ROOT / "results/mini"]
RESULTS = next((Path(one) for one in PLACES if one and (Path(one) / "checkpoints").is_dir()), None)
LETTERS = "abcdefghijklmnopqrstuvwxyz ü"
TAU = 0.2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = character_tokenizer()
    tokenizer.chat_template = CHAT
    folder = write_checkpoint(tmp_path_factory.mktemp("serve") / "little")
    tokenizer.chat_template = None
    return folder


@dataclass
class Server:
    """A running server."""

    process: Any
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def client(self) -> Any:
        openai = pytest.importorskip("openai")
        return openai.OpenAI(base_url=self.url, api_key="none", max_retries=0)

    def value(self, metric: str) -> float:
        connection = HTTPConnection("127.0.0.1", self.port)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        (line,) = [line for line in lines if line.startswith(f"{metric} ")]
        return float(line.split()[-1])

    def outcome(self, name: str) -> float:
        return self.value(f'mars_requests_total{{outcome="{name}"}}')

    def wait_until_idle(self) -> None:
        """The last thing that a client which went away has left behind may take a moment."""

        def idle() -> bool:
            return self.value("mars_slots_in_use") == self.value("mars_requests_waiting") == 0

        wait(self.process, self.log, until=idle, quiet=60)
        assert idle()


@contextmanager
def served(checkpoint: Path, log: Path, *options: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "mars", "serve", str(checkpoint), "--port", "0", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with started(command, log, cwd=log.parent, env=environment) as process:
        wait(process, log, until=lambda: "is served at" in log.read_text())
        found = re.search(r"is served at http://127\.0\.0\.1:(\d+)/v1", log.read_text())
        assert found, end_of(log)
        yield Server(process, int(found[1]), log)


@pytest.fixture(scope="module")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(checkpoint, tmp_path_factory.mktemp("log") / "log", "--tau", str(TAU)) as one:
        yield one


def answer(prompt: str, tau: float | None, budget: int, stop: list[str] | None = None) -> str:
    """What the engine answers."""
    tokenizer = character_tokenizer()
    (done,) = decode(
        random_model("qwen2"),
        [tokenizer(prompt)["input_ids"]],
        block_size=4,
        threshold=tau,
        max_new_tokens=budget,
        eos_token_id=EOS,
        mask_token_id=MASK,
    )
    text = tokenizer.decode(done.tokens, skip_special_tokens=True)
    found = [text.find(string) for string in stop or [] if string in text]
    return text[: min(found)] if found else text


def test_the_openai_package_with_two_values_of_tau_at_once(server: Server):
    client = server.client()

    def ask(number: int) -> tuple[str, int]:
        tau, stream = (None, 0.0)[number % 2], number % 4 > 1
        messages = [{"role": "user", "content": f"hallo {LETTERS[number]}"}]
        done = client.chat.completions.create(
            model="little",
            messages=messages,
            max_tokens=60,
            stream=stream,
            extra_body={"tau": tau},
            **({"stream_options": {"include_usage": True}} if stream else {}),
        )
        if not stream:
            return done.choices[0].message.content, done.usage.forwards
        pieces = list(done)
        text = "".join(c.delta.content or "" for piece in pieces for c in piece.choices)
        return text, pieces[-1].usage.forwards

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(24)))
    for number, (text, forwards) in enumerate(answers):
        prompt, tau = f"hallo {LETTERS[number]}", (None, 0.0)[number % 2]
        assert text == answer(prompt, tau, 60)
    taken = [forwards for _, forwards in answers]
    assert sum(taken[1::2]) < sum(taken[::2]) / 2, "tau made no difference"


def test_the_openai_package_takes_the_servers_tau_and_says_what_is_refused(server: Server):
    client, openai = server.client(), pytest.importorskip("openai")
    done = client.completions.create(model="little", prompt="hallo", max_tokens=30)
    assert done.choices[0].text == answer("hallo", TAU, 30)
    assert [model.id for model in client.models.list()] == ["little"]
    with pytest.raises(openai.BadRequestError, match=r"temperature=0\.5 cannot be honoured"):
        client.completions.create(model="little", prompt="hallo", temperature=0.5)
    with pytest.raises(openai.NotFoundError, match="ask for 'little'"):
        client.completions.create(model="other", prompt="hallo")


TASK = """\
task: letters
dataset_path: {folder}
output_type: generate_until
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  until: ["q", "zz"]
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""


@pytest.mark.parametrize("kind", ["local-chat-completions", "local-completions"])
def test_lm_eval_scores_what_the_direct_evaluation_scores(
    server: Server, checkpoint: Path, tmp_path: Path, kind: str
):
    """Half of the answers to a task are what the model says, so that half of the scores are 1."""
    documents = [{"question": f"hallo {letter}"} for letter in LETTERS[:20]]
    for number, document in enumerate(documents):
        said = answer(document["question"], TAU, 30, ["q", "zz"])
        document["answer"] = said if number % 2 else "something else"
    folder, task = tmp_path / "hub/me/letters", tmp_path / "tasks/letters.yaml"
    for path in (folder, task.parent):
        path.mkdir(parents=True)
    write_jsonl(folder / "test.jsonl", documents)
    task.write_text(TASK.format(folder=folder))

    spec = EvaluationSpec(
        method=None,
        block_size=4,
        cells={"tau": ["letters"]},
        benchmarks={
            "letters": Benchmark(
                task=str(task), title="Letters", dataset="me/letters", metric="exact_match"
            )
        },
        task_files={},
        settings={"tau": Setting(threshold=TAU)},
        evaluation=Evaluation(max_new_tokens=30, slots=4, precision="float32"),
        generated_data=False,
    )
    direct = tmp_path / "direct"
    evaluate(
        spec,
        checkpoint=checkpoint,
        hub=tmp_path / "hub",
        output=direct,
        cell_spec=lambda setting, benchmark: {},
    )
    expected = read_jsonl(direct / "tau/letters.samples.jsonl")

    endpoint = "chat/completions" if "chat" in kind else "completions"
    model = f"base_url={server.url}/{endpoint},model=little,num_concurrent=4,max_retries=1"
    command = [
        *(sys.executable, "-m", "lm_eval", "--model", kind),
        *("--model_args", f"{model},tokenizer={checkpoint}"),
        *("--tasks", "letters", "--include_path", str(task.parent), "--apply_chat_template"),
        *("--gen_kwargs", f"max_gen_toks=30,tau={TAU}"),
        *("--log_samples", "--output_path", str(tmp_path / "served")),
    ]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    done = run(command, tmp_path, cwd=tmp_path, env={**os.environ, **offline})
    assert done.returncode == 0, done.stdout[-4000:]
    (samples,) = (tmp_path / "served").rglob("samples_letters_*.jsonl")
    (results,) = (tmp_path / "served").rglob("results_*.json")
    found = sorted(read_jsonl(samples), key=lambda sample: sample["doc_id"])
    assert [one["resps"][0][0] for one in found] == [one["generation"] for one in expected]
    scores = [one["scores"]["none"]["exact_match"] for one in expected]
    assert [one["exact_match"] for one in found] == scores
    assert scores == [0.0, 1.0] * 10
    record = read_json(direct / "tau/letters.json")
    assert read_json(results)["results"]["letters"]["exact_match,none"] == 0.5
    assert record["metrics"]["exact_match"]["none"]["value"] == 0.5


@pytest.mark.skipif(
    RESULTS is None, reason="needs a finished tiny or mini, or MARS_RESULTS=<its results>"
)
@pytest.mark.parametrize("name", ["bbh", "gsm8k", "ifeval", "mmlu_pro"])
def test_the_benchmarks_of_an_experiment_score_as_they_did(tmp_path: Path, name: str):
    """lm-eval asks the server what the experiment's own evaluation asked the engine."""
    from lm_eval.evaluator import evaluate as lm_evaluate
    from lm_eval.models.openai_completions import LocalChatCompletion

    assert RESULTS is not None
    experiment = load_experiment(ROOT / f"config/{RESULTS.resolve().name}.yaml")
    benchmark = experiment.benchmarks[name]
    expected = read_jsonl(RESULTS / f"evaluations/mars-b4-small/tau-0.95/{name}.samples.jsonl")
    prepare_process(60)
    loaded = load_benchmark(benchmark, RESULTS / "data/hub", generated=True)
    budget = experiment.evaluation.max_new_tokens
    for task in loaded.tasks.values():
        task.set_config("generation_kwargs", {"max_gen_toks": budget, "tau": 0.95}, update=True)
    with served(RESULTS / "checkpoints/mars-b4-small", tmp_path / "log") as server:
        model = LocalChatCompletion(
            base_url=f"{server.url}/chat/completions",
            model="mars-b4-small",
            num_concurrent=8,
            max_retries=1,
        )
        results = lm_evaluate(
            model,
            {"tasks": loaded.tasks, "groups": loaded.groups},
            limit=benchmark.limit,
            bootstrap_iters=0,
            apply_chat_template=True,
            fewshot_as_multiturn=benchmark.fewshot_as_multiturn,
        )
    found = {}
    for task, entries in results["samples"].items():
        for one in entries:
            scores = {metric: one[metric] for metric in one["metrics"]}
            found[task, one["doc_id"], one["filter"]] = one["resps"][0][0], scores
    assert found == {
        (one["task"], one["document"], kind): (one["generation"], scores)
        for one in expected
        for kind, scores in one["scores"].items()
    }
    assert len(found) >= 80


@dataclass(frozen=True)
class Question:
    """One of the five hundred: what is sent, and what becomes of it."""

    body: dict[str, Any]
    kind: str  # well, cut or malformed

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if "messages" in self.body else "/v1/completions"

    @property
    def prompt(self) -> str:
        return self.body.get("prompt") or self.body["messages"][0]["content"]


def five_hundred() -> list[Question]:
    """Of mixed sizes; one in ten will be cut off by its client, one in ten is malformed."""
    draw = random.Random(1)
    questions = []
    for number in range(500):
        prompt = "".join(draw.choice(LETTERS) for _ in range(draw.choice((1, 10, 50, 200))))
        body: dict[str, Any] = {
            "model": "little",
            "max_tokens": draw.choice((1, 5, 30, 150)),
            "tau": draw.choice((None, 0.0, 0.2, 0.6, 0.95)),
            "stream": draw.random() < 0.5,
        }
        if draw.random() < 0.5:
            body["messages"] = [{"role": "user", "content": prompt}]
        else:
            body["prompt"] = prompt
        if draw.random() < 0.3:
            body["stop"] = ["".join(draw.choice(LETTERS) for _ in range(2)), draw.choice(LETTERS)]
        kind = {0: "cut", 1: "malformed"}.get(number % 10, "well")
        if kind == "cut":
            body |= {"max_tokens": 250, "tau": None}
        questions.append(Question(body, kind))
    draw.shuffle(questions)
    return questions


def spoilt(body: bytes, draw: random.Random) -> bytes:
    """A request that is wrong in one of several ways, all of them the client's fault."""
    given = json.loads(body)
    ways: list[Any] = [
        body[: len(body) // 2],
        body.replace(b"little", b"large"),
        json.dumps(given | {"temperature": 0.5}).encode(),
        json.dumps(given | {"max_tokens": 100_000}).encode(),
        json.dumps(given | {"tau": 7}).encode(),
        json.dumps(given | {"surprise": 1}).encode(),
        b"\xff\xfe",
    ]
    return draw.choice(ways)


def put(port: int, question: Question, draw: random.Random) -> str | int | None:
    """The text of a well-formed request, the status of a malformed one, None where it was cut."""
    body = json.dumps(question.body).encode()
    connection = HTTPConnection("127.0.0.1", port)
    sent = spoilt(body, draw) if question.kind == "malformed" else body
    connection.request("POST", question.path, sent, {"Content-Type": "application/json"})
    if question.kind == "cut":
        if question.body["stream"] and draw.random() < 0.7:
            connection.getresponse().readline()
        time.sleep(draw.choice((0, 0, 0.01, 0.05)))
        assert connection.sock is not None
        if draw.random() < 0.5:  # an abrupt end
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" + bytes(4))
        connection.close()
        return None
    response = connection.getresponse()
    content = response.read().decode()
    if question.kind == "malformed":
        assert json.loads(content)["error"]["message"].endswith(".")
        return response.status
    assert response.status == 200, content
    if not question.body["stream"]:
        (choice,) = json.loads(content)["choices"]
        return choice["text"] if "text" in choice else choice["message"]["content"]
    *lines, last, empty = content.split("\n\n")
    assert (last, empty) == ("data: [DONE]", "")
    choices = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines]
    return "".join(c["text"] if "text" in c else c["delta"].get("content", "") for c in choices)


def test_five_hundred_requests_of_which_a_fifth_goes_wrong(checkpoint: Path, tmp_path: Path):
    """The policy adapts tau to the load: whoever brings one keeps it."""
    questions = five_hundred()
    assert Counter(one.kind for one in questions) == {"well": 400, "cut": 50, "malformed": 50}
    with served(checkpoint, tmp_path / "log", "--slots", "6", "--low-tau", "0.1") as server:

        def ask(number: int) -> str | int | None:
            return put(server.port, questions[number], random.Random(number))

        with ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(ask, range(len(questions))))
        server.wait_until_idle()
        assert server.outcome("answered") + server.outcome("gone") <= 450
        assert server.outcome("answered") >= 400
        assert server.outcome("gone") >= 25
        assert server.outcome("refused") == 50
        assert server.outcome("failed") == server.outcome("full") == 0
        assert "Traceback" not in server.log.read_text()
    for question, found in zip(questions, answers, strict=True):
        if question.kind == "malformed":
            assert found in (400, 404)
        elif question.kind == "well":
            asked = question.body
            expected = answer(question.prompt, asked["tau"], asked["max_tokens"], asked.get("stop"))
            assert found == expected


@pytest.mark.parametrize("ctrl_c", [False, True])
def test_a_signal_finishes_what_runs_and_takes_no_more(
    checkpoint: Path, tmp_path: Path, ctrl_c: bool
):
    """SIGTERM goes to the server, Ctrl-C to the engine's process as well."""
    with served(checkpoint, tmp_path / "log", "--slots", "2") as server:
        client = server.client()

        def stream(number: int) -> Any:
            return client.chat.completions.create(
                model="little",
                messages=[{"role": "user", "content": f"hallo {LETTERS[number]}"}],
                max_tokens=400,
                stream=True,
                extra_body={"tau": None},
            )

        numbers = [n for n in range(26) if len(answer(f"hallo {LETTERS[n]}", None, 400)) > 100][:5]
        streams = [stream(number) for number in numbers]  # more than there are slots
        beginnings = [next(one).choices[0].delta.content for one in streams]
        if ctrl_c:
            os.killpg(server.process.pid, signal.SIGINT)
        else:
            server.process.send_signal(signal.SIGTERM)
        for number, one, begun in zip(numbers, streams, beginnings, strict=True):
            pieces = list(one)
            text = begun + "".join(piece.choices[0].delta.content or "" for piece in pieces)
            assert text == answer(f"hallo {LETTERS[number]}", None, 400)
            assert pieces[-1].choices[0].finish_reason in ("stop", "length")
        assert wait(server.process, server.log) == 0, end_of(server.log)
        with pytest.raises(OSError):  # noqa: PT011
            socket.create_connection(("127.0.0.1", server.port))
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_without_its_engine_the_server_says_so_and_ends(checkpoint: Path, tmp_path: Path):
    openai = pytest.importorskip("openai")
    with served(checkpoint, tmp_path / "log") as server:
        longest = max((f"hallo {a}" for a in LETTERS), key=lambda one: len(answer(one, None, 400)))
        pieces = server.client().completions.create(
            model="little", prompt=longest, max_tokens=400, stream=True, extra_body={"tau": None}
        )
        next(pieces)
        (engine,) = psutil.Process(server.process.pid).children()
        engine.kill()
        with pytest.raises(openai.APIError, match="engine has failed"):
            list(pieces)
        assert wait(server.process, server.log) == 1


def test_no_engine_outlives_its_server(checkpoint: Path, tmp_path: Path):
    with served(checkpoint, tmp_path / "log") as server:
        (engine,) = psutil.Process(server.process.pid).children()
        server.process.kill()
        wait(server.process, server.log)
        engine.wait()
    assert "Traceback" not in (tmp_path / "log").read_text()
