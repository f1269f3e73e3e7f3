"""``generate`` of an exported checkpoint: MARS decoding behind the interface of transformers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GenerationConfig,
    StoppingCriteria,
    StoppingCriteriaList,
    TextStreamer,
)

from mars.checkpoints.custom_generate import generate as standalone
from mars.decoding import decode
from tests.support.decoding_models import EOS, MASK, prompts, random_model
from tests.support.little_checkpoint import character_tokenizer, write_checkpoint

RULE = {"block_size": 4, "eos_token_id": EOS, "mask_token_id": MASK}
PROMPT = [1, 2, 30, 4]


@pytest.fixture(scope="module", autouse=True)
def _modules(tmp_path_factory):
    """Where transformers puts the code that it loads from checkpoints."""
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("modules"))
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", folder)
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def model(checkpoint: Path):
    """The checkpoint as its users load it."""
    return AutoModelForCausalLM.from_pretrained(checkpoint, trust_remote_code=True)


def batch(rows: list[list[int]], padding: str) -> dict[str, torch.Tensor]:
    longest = max(map(len, rows))
    ids, mask = torch.zeros(2, len(rows), longest, dtype=torch.long)
    for row, prompt in enumerate(rows):
        start = longest - len(prompt) if padding == "left" else 0
        ids[row, start : start + len(prompt)] = torch.tensor(prompt)
        mask[row, start : start + len(prompt)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def answers(model, rows: list[list[int]], **arguments) -> list[list[int]]:
    """What the project's own engine says."""
    done = decode(model, rows, **{**RULE, "threshold": 0.95, "max_new_tokens": 20, **arguments})
    return [one.tokens for one in done]


def unpadded(output: torch.Tensor, length: int) -> list[list[int]]:
    """New tokens up to the one that ends a row."""
    found = []
    for row in output[:, length:].tolist():
        end = next((place for place, token in enumerate(row) if token in EOS), len(row))
        found.append(row[: end + 1])
    return found


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 5),
    padding=st.sampled_from(["left", "right"]),
    tau=st.sampled_from([None, 0.0, 0.2, 0.4, 0.95]),
    size=st.integers(1, 6),
)
def test_it_decodes_what_the_engine_decodes(model, seed, rows, padding, tau, size):
    given_rows = prompts(rows, seed, longest=12)
    inputs = batch(given_rows, padding)
    output = model.generate(**inputs, max_new_tokens=20, threshold=tau, block_size=size)
    length = inputs["input_ids"].shape[1]
    assert torch.equal(output[:, :length], inputs["input_ids"])
    expected = answers(model, given_rows, threshold=tau, block_size=size)
    assert unpadded(output, length) == expected
    assert output.shape[1] == length + max(map(len, expected))


def test_both_ways_of_loading_it(checkpoint, model):
    plain = AutoModelForCausalLM.from_pretrained(checkpoint)
    ids = torch.tensor([PROMPT])
    asked = {"max_new_tokens": 20, "custom_generate": str(checkpoint), "trust_remote_code": True}
    one = plain.generate(ids, threshold=0.2, **asked)
    assert torch.equal(one, model.generate(ids, threshold=0.2, max_new_tokens=20))
    # Without either the checkpoint is an ordinary model.
    greedy = plain.generate(ids, max_new_tokens=20, suppress_tokens=[MASK])
    assert greedy[0, 4:].tolist() == answers(model, [PROMPT], threshold=None)[0]


def test_the_call_wins_over_its_config_and_that_over_the_checkpoints(tmp_path):
    folder = write_checkpoint(tmp_path / "b2", block_size=2, mars_threshold=0.4)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    ids = torch.tensor([PROMPT])

    def forwards(**arguments) -> int:
        calls = []
        hook = model.register_forward_hook(lambda *_: calls.append(1))
        model.generate(ids, max_new_tokens=40, eos_token_id=[], **arguments)
        hook.remove()
        return len(calls)

    def engine(tau, size):
        rule = {"eos_token_id": (), "mask_token_id": MASK, "max_new_tokens": 40}
        return decode(model, [PROMPT], **rule, threshold=tau, block_size=size)[0].forwards

    assert forwards() == engine(0.4, 2)
    config = GenerationConfig(mars_threshold=0.1, mars_block_size=5)
    assert forwards(generation_config=config) == engine(0.1, 5)
    assert forwards(generation_config=config, threshold=0.3) == engine(0.3, 5)
    assert forwards(threshold=None) == 40
    assert forwards(block_size=6, threshold=0.0) == engine(0.0, 6)


# --- what ends an answer ------------------------------------------------------------------------


class After(StoppingCriteria):
    """Ends a row once it holds so many tokens."""

    def __init__(self, length: int):
        self.length = length

    def __call__(self, input_ids, scores, **_):
        return torch.full((len(input_ids),), input_ids.shape[1] >= self.length)


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_a_stopping_criterion_is_asked_for_every_token(model, length):
    whole = answers(model, [PROMPT], threshold=0.0)[0]
    output = model.generate(
        torch.tensor([PROMPT]),
        threshold=0.0,  # four tokens at a time
        stopping_criteria=StoppingCriteriaList([After(4 + length)]),
    )
    assert output[0, 4:].tolist() == whole[:length]


def test_a_stop_string_ends_the_answer_with_its_last_token(model):
    tokenizer = character_tokenizer()
    for row in prompts(10, seed=5, longest=8):
        whole = answers(model, [row], threshold=0.0, max_new_tokens=30)[0]
        text = [tokenizer.decode([token]) for token in whole]
        if len(whole) < 4 or not text[2].isalpha():
            continue
        arguments = {"max_new_tokens": 30, "threshold": 0.0, "tokenizer": tokenizer}
        output = model.generate(torch.tensor([row]), stop_strings=[text[2]], **arguments)
        assert output[0, len(row) :].tolist() == whole[: text.index(text[2]) + 1]
        config = GenerationConfig(stop_strings=text[2])
        again = model.generate(torch.tensor([row]), generation_config=config, **arguments)
        assert torch.equal(output, again)
        break
    else:
        pytest.fail("no answer has a letter to stop at")
    with pytest.raises(ValueError, match="give `tokenizer`"):
        model.generate(torch.tensor([row]), stop_strings=["a"])


def test_limits_of_length_and_time(model):
    ids = torch.tensor([PROMPT])
    free = {"eos_token_id": [], "threshold": 0.0}
    assert model.generate(ids, max_length=7, **free).shape[1] == 7
    assert model.generate(ids, max_new_tokens=6, **free).shape[1] == 10
    assert model.generate(ids, max_time=0.0, max_new_tokens=50, **free).shape[1] == 5
    with pytest.raises(ValueError, match="no room for a token"):
        model.generate(ids, max_length=4)


def test_a_row_goes_on_when_another_has_ended(model):
    pairs = (prompts(2, seed, longest=9) for seed in range(50))
    rows = next(pair for pair in pairs if len(set(map(len, answers(model, pair)))) == 2)
    output = model.generate(**batch(rows, "left"), max_new_tokens=20)
    lengths = sorted(map(len, answers(model, rows)))
    assert output.shape[1] == max(map(len, rows)) + lengths[1]


# --- what comes back ----------------------------------------------------------------------------


def test_a_stream_gets_the_tokens_of_each_forward(model):
    puts = []

    class Stream:
        def put(self, value):
            puts.append(value.tolist())

        def end(self):
            puts.append(None)

    output = model.generate(
        torch.tensor([PROMPT]), threshold=0.2, max_new_tokens=20, streamer=Stream()
    )
    prompt, *gained, end = puts
    assert prompt == [PROMPT]
    assert end is None
    rule = RULE | {"max_new_tokens": 20, "threshold": 0.2}
    assert list(map(len, gained)) == decode(model, [PROMPT], **rule)[0].accepted
    assert [token for one in gained for token in one] == output[0, 4:].tolist()
    with pytest.raises(ValueError, match="one prompt"):
        model.generate(**batch([[1], [2]], "left"), streamer=Stream())


def test_the_text_streamer_of_transformers(model, capsys):
    tokenizer = character_tokenizer()
    streamer = TextStreamer(tokenizer, skip_prompt=True)
    output = model.generate(torch.tensor([PROMPT]), max_new_tokens=20, streamer=streamer)
    assert capsys.readouterr().out.strip() == tokenizer.decode(output[0, 4:]).strip()


def test_a_dictionary_whose_cache_a_second_turn_goes_on_with(model):
    asked = {"max_new_tokens": 8, "threshold": 0.2, "eos_token_id": []}
    first = model.generate(torch.tensor([PROMPT]), return_dict_in_generate=True, **asked)
    assert torch.equal(first.sequences, model.generate(torch.tensor([PROMPT]), **asked))
    turn = torch.cat([first.sequences, torch.tensor([[7, 8, 9]])], 1)
    assert 0 < first.past_key_values.get_seq_length() < turn.shape[1]
    again = model.generate(turn, past_key_values=first.past_key_values, **asked)
    assert torch.equal(again, model.generate(turn, **asked))
    several = model.generate(**batch([[1], [2]], "left"), return_dict_in_generate=True, **asked)
    assert several.past_key_values is None
    assert isinstance(first.past_key_values, DynamicCache)


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"do_sample": True}, "do_sample=True"),
        ({"num_beams": 2}, "num_beams=2"),
        ({"num_return_sequences": 3}, "num_return_sequences"),
        ({"temperature": 0.5}, "temperature=0.5"),
        ({"repetition_penalty": 1.1}, "repetition_penalty=1.1"),
        ({"no_repeat_ngram_size": 2}, "no_repeat_ngram_size=2"),
        ({"min_new_tokens": 1}, "min_new_tokens=1"),
        ({"output_scores": True}, "output_scores=True"),
        ({"suppress_tokens": [3]}, "suppress_tokens"),
        ({"logits_processor": [object()]}, "logits_processor"),
        ({"cache_implementation": "static"}, "cache_implementation"),
        ({"assistant_model": "x"}, "assistant_model"),
        ({"treshold": 0.5}, "treshold"),
        ({"threshold": 1.5}, "a probability or None"),
        ({"block_size": 0}, "at least 1"),
    ],
)
def test_what_it_cannot_honour_is_a_sentence(model, wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        model.generate(torch.tensor([PROMPT]), **wrong)


@pytest.mark.parametrize(
    "harmless",
    [
        {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "temperature": 1.0},
        {"no_repeat_ngram_size": 0, "min_new_tokens": 0, "logits_processor": []},
        {"use_cache": True, "synced_gpus": False, "assistant_model": None},
    ],
)
def test_what_asks_for_nothing_is_let_through(model, harmless):
    ids = torch.tensor([PROMPT])
    assert torch.equal(model.generate(ids, **harmless), model.generate(ids))


def test_a_penalty_in_the_checkpoints_config_is_not_ignored(tmp_path):
    folder = write_checkpoint(tmp_path / "penalty", repetition_penalty=1.1)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    ids = torch.tensor([PROMPT])
    with pytest.raises(ValueError, match=r"repetition_penalty=1\.1"):
        model.generate(ids)
    with pytest.raises(ValueError, match=r"repetition_penalty=1\.1"):
        model.generate(ids, generation_config=GenerationConfig(max_new_tokens=5))
    model.generate(ids, repetition_penalty=1.0)


# --- on its own ---------------------------------------------------------------------------------

ALONE = """
import sys
sys.modules["mars"] = None  # an import of the package fails
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
output = model.generate(torch.tensor([[1, 2, 30, 4]]), threshold=0.2, max_new_tokens=20)
print(output[0, 4:].tolist())
"""


def test_it_needs_neither_this_package_nor_others(checkpoint, model, tmp_path):
    environment = {
        "HF_MODULES_CACHE": str(tmp_path),
        "PATH": "/usr/bin:/bin",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(checkpoint)],
        **{"capture_output": True, "text": True, "env": environment, "cwd": tmp_path},
    )
    assert done.returncode == 0, done.stderr
    expected = answers(model, [PROMPT], threshold=0.2)[0]
    assert done.stdout.strip().splitlines()[-1] == str(expected)


def test_its_imports_are_torch_and_transformers():
    source = Path(standalone.__file__).read_text()
    imported = {
        line.split()[1].partition(".")[0]
        for line in source.splitlines()
        if line.startswith(("import ", "from "))
    }
    assert imported == {"copy", "torch", "transformers"}


def test_a_random_model_is_as_unsure_as_the_tests_need():
    """Else the equalities above would compare nothing."""
    whole = decode(random_model("qwen2"), prompts(40), **RULE, threshold=0.2, max_new_tokens=20)
    assert len({run for one in whole for run in one.accepted}) >= 3
