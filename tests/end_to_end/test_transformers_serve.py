"""A checkpoint behind `transformers serve`, asked by the `openai` package: MARS's answers, by MARS.

Needs what transformers' extra `serving` installs, which this project does not:
`pip install "transformers[serving]"`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mars.decoding import decode
from tests.support.decoding_models import EOS, MASK, random_model
from tests.support.little_checkpoint import CHAT, character_tokenizer, write_checkpoint

NEEDED = ("fastapi", "uvicorn", "openai")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, NEEDED)),
        reason='needs pip install "transformers[serving]"',
    ),
]
QUESTION = [{"role": "user", "content": "hallo"}]
TAU = 0.2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address and name of a served checkpoint."""
    folder = tmp_path_factory.mktemp("serve")
    tokenizer = character_tokenizer()
    tokenizer.chat_template = CHAT
    checkpoint = write_checkpoint(folder / "checkpoint", mars_threshold=TAU)
    tokenizer.chat_template = None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--trust-remote-code", "--device", "cpu", "--port", str(port)]
    program = Path(sys.executable).with_name("transformers")
    process = subprocess.Popen(
        [program, "serve", checkpoint, *options],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(folder / "modules")},
        stdout=(folder / "log").open("w"),
        stderr=subprocess.STDOUT,
    )
    try:
        while "Uvicorn running" not in (said := (folder / "log").read_text()):
            assert process.poll() is None, said
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", str(checkpoint)
    finally:
        process.terminate()
        process.wait()


def ask(server: tuple[str, str], **arguments: Any) -> Any:
    address, name = server
    client = pytest.importorskip("openai").OpenAI(base_url=address, api_key="none", max_retries=0)
    return client.chat.completions.create(
        **{"model": name, "messages": QUESTION, "max_tokens": 30, **arguments}
    )


def answer(threshold: float | None) -> str:
    """What the project's own engine answers; the server puts the chat prompt before it."""
    tokenizer = character_tokenizer()
    prompt = tokenizer("hallo")["input_ids"]
    rule = {"block_size": 4, "eos_token_id": EOS, "mask_token_id": MASK, "max_new_tokens": 30}
    (done,) = decode(random_model("qwen2"), [prompt], **rule, threshold=threshold)
    return "hallo" + tokenizer.decode(done.tokens)


def test_an_answer(server):
    done = ask(server, temperature=0)
    assert done.choices[0].message.content == answer(TAU)
    assert answer(TAU) != answer(None), "else it may have been decoded token by token"


def test_a_stream(server):
    pieces = [
        chunk.choices[0].delta.content or "" for chunk in ask(server, stream=True) if chunk.choices
    ]
    assert "".join(pieces) == answer(TAU)
    assert len(pieces) > 3


@pytest.mark.parametrize("tau", [0.0, 0.95])
def test_tau_is_chosen_by_the_request(server, tau):
    config = {"mars_threshold": tau, "max_new_tokens": 30, "eos_token_id": list(EOS)}
    done = ask(server, extra_body={"generation_config": json.dumps(config)})
    assert done.choices[0].message.content == answer(tau)


def test_what_cannot_be_honoured_is_said(server):
    with pytest.raises(pytest.importorskip("openai").APIError) as refused:
        list(ask(server, temperature=0.7, stream=True))
    assert "cannot honour temperature=0.7" in str(refused.value.body)
    assert ask(server, temperature=0).choices[0].message.content == answer(TAU), "it goes on"
