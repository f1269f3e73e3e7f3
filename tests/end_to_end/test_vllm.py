"""MARS in stock vLLM: the target's own answers, in half as many forwards of it or fewer.

Needs vLLM (`make vllm-env`), and the models and questions of a finished `tiny` or `mini`: those in
results/, or in the folder of results that MARS_RESULTS names.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from mars.checkpoints.for_vllm import export_for_vllm, serve_command
from mars.checkpoints.load import load_model
from mars.config.experiment import load_experiment
from mars.decoding import decode
from mars.errors import UserError
from mars.paper.artefacts import ARTEFACTS
from mars.paper.tables.wall_clock import table6
from mars.provenance.files import read_json
from mars.provenance.stage import Inputs, Job
from mars.speed.stage import MEASURE
from mars.speed.vllm_engine import SETTINGS, python_with_vllm, running
from tests.support.decoding_models import EOS, MASK, prompts
from tests.support.vllm_standins import ROWS_OF_05B, ROWS_OF_7B, little_model, write_model

ROOT = Path(__file__).resolve().parents[2]
PLACES = [os.environ.get("MARS_RESULTS"), ROOT / "results/tiny", ROOT / "results/mini"]
RESULTS = next((Path(one) for one in PLACES if one and (Path(one) / "checkpoints").is_dir()), None)
TOKENS = 48


def missing() -> str:
    """What this needs and has not, or nothing."""
    try:
        python_with_vllm()
    except UserError as error:
        return str(error)
    if RESULTS is None:
        return "needs the models of `make reproduce EXPERIMENT=tiny`, or MARS_RESULTS=<its results>"
    return ""


pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]


def test_a_pair_in_vllm_answers_as_its_target_in_half_the_forwards(tmp_path):
    """The stage of the workflow, from the checkpoints of an experiment to rows of Table 6."""
    overlay = tmp_path / "vllm.yaml"
    pair = {"draft": "mars-b4-small", "target": "ar-large"}
    overlay.write_text(json.dumps({"speed": {"vllm": {"pairs": [pair], "rounds": 1}}}))
    experiment = load_experiment(ROOT / f"config/{RESULTS.resolve().name}.yaml", overlay)
    stage, output = MEASURE["vllm"], tmp_path / "speed" / "vllm"
    inputs = Inputs(tuple(RESULTS / file for file in stage.inputs(experiment)))
    stage.start(Job(stage.planned(experiment, {}), inputs, output))
    record = read_json(output / "mars-b4-small--ar-large.json")
    assert record["sequences"] >= 80
    assert record["equal_to_greedy"] == record["sequences"]
    assert record["repeats_agree"]
    assert record["tokens_per_target_forward"] >= 2.0
    cells = table6(ARTEFACTS["table6"].stage.resolve(experiment), tmp_path, output).cells
    (shown,) = (one for one in cells if one.quantity == "tokens_per_target_forward" and one.ours)
    assert shown.ours.value == record["tokens_per_target_forward"]


def test_a_draft_with_the_rows_of_05b_drafts_for_a_target_with_those_of_7b(tmp_path):
    """The draft is the target without its last rows, so that vLLM accepts its first token."""
    whole = little_model(ROWS_OF_7B, tie_word_embeddings=False)
    target = write_model(tmp_path / "target", whole)
    part = little_model(ROWS_OF_05B, tie_word_embeddings=False)
    rows = {name: len(tensor) for name, tensor in part.state_dict().items()}
    part.load_state_dict({name: one[: rows[name]] for name, one in whole.state_dict().items()})
    draft = write_model(tmp_path / "draft", part, block_size=4)
    made = export_for_vllm(draft, tmp_path / "made", target)
    shared = {"prompts": prompts(8), "eos": list(EOS), "max_new_tokens": TOKENS}
    engine = {
        "model": str(target),
        "dtype": "float32",
        "max_model_len": 128,
        "max_num_seqs": 1,
        "enable_prefix_caching": False,
        "disable_log_stats": False,
        "enforce_eager": True,
        "gpu_memory_utilization": 0.4,
    }
    passes = []
    for number, more in enumerate(({}, {"speculative_config": made.speculative_config()})):
        job = {**shared, "engine": {**engine, **more}}
        with running(job, tmp_path / f"{number}.json") as vllm:
            passes.append(vllm.decode())
    alone, drafted = passes
    assert drafted.tokens == alone.tokens
    assert alone.forwards == alone.count
    assert drafted.count / drafted.forwards >= 1.9


@contextmanager
def served(command: str, log: Path) -> Iterator[str]:
    """The address of what a printed command serves."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program, *options = shlex.split(command)
    process = subprocess.Popen(
        [python_with_vllm().with_name(program), *options, "--port", str(port)],
        env=SETTINGS | {key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            assert process.poll() is None, log.read_text()
            try:
                urlopen(f"{address}/health")
                break
            except URLError:
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait()


def test_the_command_that_export_prints_serves_a_model_that_drafts_for_itself(tmp_path):
    verb = ["export", "--for", "vllm", str(RESULTS / "checkpoints/mars-b4-large")]
    output = tmp_path / "mars"
    run = [sys.executable, "-m", "mars", *verb, "--output", str(output)]
    printed = subprocess.run(run, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    (command,) = (line for line in printed.splitlines() if line.startswith("vllm serve"))
    assert command == serve_command(output, export_for_vllm(Path(verb[-1]), output))
    model = load_model(RESULTS / "checkpoints/mars-b4-large")
    questions = [[token + 20 for token in prompt] for prompt in prompts(8, shortest=8)]
    rule: dict[str, Any] = {"block_size": 1, "threshold": None, "max_new_tokens": TOKENS}
    ends = model.generation_config.eos_token_id
    alone = decode(model, questions, eos_token_id=ends, mask_token_id=MASK, **rule)

    def answer(prompt: list[int]) -> list[int]:
        asked = {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
        body = json.dumps({"model": str(output), "return_token_ids": True, **asked}).encode()
        request = Request(f"{address}/v1/completions", body, {"Content-Type": "application/json"})
        (choice,) = json.load(urlopen(request))["choices"]
        return choice["token_ids"]

    with served(command, tmp_path / "log") as address, ThreadPoolExecutor() as together:
        assert list(together.map(answer, questions)) == [one.tokens for one in alone]
