"""From the command line to the tables."""

import json

import pytest
from typer.testing import CliRunner

from mars.cli import app
from mars.errors import UserError
from mars.speed.benchmark import load_prompts
from mars.speed.profile import PARTS, profile_steps
from mars.speed.timing import read_measurements


class Words:
    """A tokenizer of words to their lengths."""

    chat_template = None

    def __call__(self, text):
        return {"input_ids": [len(word) for word in text.split()]}


def mars(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_random_weights_from_the_command_line(tmp_path):
    output = tmp_path / "speed"
    settings = ("--prompt-count", 2, "--max-new-tokens", 6, "--repeats", 1, "--batch", "1,2")
    which = (
        "--random-weights",
        "tiny",
        "--simulated-acceptance",
        1.79,
        "--methods",
        "cursor,block_cache",
    )
    done = mars("speed", *which, *settings, "--cache-block", "4", "--profile", "--output", output)
    assert done.exit_code == 0, done.output
    records = read_measurements(output)
    record = records["batch=2 cursor tau=0.95"]
    assert "random weights, simulated acceptance of 1.79" in record["label"]
    assert record["spec"]["simulated_acceptance"] == 1.79
    assert record["tokens"] == 12
    assert len(record["load_average"]) == 2
    assert record["hardware"]["cores"] >= 1
    assert "engine only" in records["batch=1 block_cache tau=0.95 cache_block=4"]["skipped"]
    shown = mars("speed", "--markdown", output)
    assert shown.output == (output / "summary.md").read_text()
    assert "simulated acceptance of 1.79" in shown.output
    assert f"| batch | ms per step | {' | '.join(PARTS)} |" in shown.output
    again = mars("speed", *which, *settings, "--cache-block", "4", "--output", output)
    assert "batch 2: measured before" in again.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--model or --random-weights"),
        (("--model", "here", "--simulated-acceptance", 2), "accepts by itself"),
        (("--random-weights", "tiny", "--simulated-acceptance", 9), "from 1 to 4"),
        (("--random-weights", "tiny", "--batch", "two"), "--batch"),
        (("--random-weights", "tiny", "--precision", "int4"), "--precision"),
        (("--random-weights", "tiny", "--tau", "2"), "between 0 and 1"),
        (("--random-weights", "tiny", "--methods", "fast"), "Unknown method"),
        (("--model", "nowhere"), "no checkpoint"),
    ],
)
def test_mistakes_get_a_sentence(arguments, says, tmp_path):
    done = mars("speed", "--output", tmp_path, "--prompt-count", 2, *arguments)
    assert isinstance(done.exception, UserError)
    assert says in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_prompts_from_a_file_and_built_in(tmp_path):
    path = tmp_path / "prompts.jsonl"
    rows = [{"prompt": "a bc def"}, {"input_ids": [5, 6]}, {"prompt": "g"}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert load_prompts(str(path), Words(), 2) == [[1, 2, 3], [5, 6]]
    assert len(load_prompts(str(path), Words(), 9)) == 3
    problems = load_prompts("built-in", Words(), 4)
    assert problems == load_prompts("built-in", Words(), 4)
    assert len({tuple(problem) for problem in problems}) > 1
    path.write_text('{"question": "?"}\n')
    with pytest.raises(UserError, match="line 1"):
        load_prompts(str(path), Words(), 9)
    path.write_text("\n")
    with pytest.raises(UserError, match="no prompts"):
        load_prompts(str(path), Words(), 9)
    with pytest.raises(UserError, match="does not exist"):
        load_prompts(str(tmp_path / "other"), Words(), 9)


def test_the_shares_of_a_step_make_a_whole(workload):
    profile = profile_steps(workload, batch=2, tau=0.5)
    assert set(profile["shares"]) == set(PARTS)
    assert sum(profile["shares"].values()) == pytest.approx(1)
    assert all(share > 0 for share in profile["shares"].values())
    assert profile["steps"] > 0
