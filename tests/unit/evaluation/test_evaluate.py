"""From a checkpoint folder to records: complete, resumable, repeatable, offline."""

import json
import socket

import pytest
import torch

from mars.config.experiment import Evaluation, Setting
from mars.decoding.cursor import Engine
from mars.errors import UserError
from mars.evaluation import evaluate as module
from mars.evaluation.adapter import DecodingLM
from mars.evaluation.evaluate import evaluate
from mars.evaluation.scores import headline
from mars.evaluation.stage import EvaluationSpec
from mars.provenance.files import read_json, read_jsonl
from tests.support.small_benchmarks import BENCHMARKS, SIZES

PROTOCOL = Evaluation(max_new_tokens=6, slots=4, precision="float32", code_timeout=3600)
SETTINGS = {"one-token": Setting(threshold=None), "tau-0": Setting(threshold=0.0)}


def call(checkpoint, hub, tmp_path, benchmarks, settings=SETTINGS, **changed):
    spec = EvaluationSpec(
        method=None,
        block_size=4,
        cells={setting: list(benchmarks) for setting in settings},
        benchmarks=benchmarks,
        task_files={},
        settings=settings,
        evaluation=PROTOCOL,
        generated_data=True,
    )
    arguments = {
        "checkpoint": checkpoint,
        "hub": hub,
        "output": tmp_path / "out",
        "cell_spec": lambda setting, benchmark: {"cell": [setting, benchmark]},
    }
    evaluate(spec, **{**arguments, **changed})
    return tmp_path / "out"


@pytest.fixture
def count_cells(monkeypatch):
    """How many cells are run."""
    ran = []
    original = module.evaluate_cell
    monkeypatch.setattr(
        module, "evaluate_cell", lambda *a: (ran.append(a[2].task), original(*a))[1]
    )
    return ran


def pick(benchmarks, *names):
    return {name: benchmarks[name] for name in names}


def without_times(record):
    times = ("seconds", "startup_seconds")
    return {key: value for key, value in record.items() if key not in times}


def test_every_benchmark_gives_a_whole_record_and_asks_no_network(
    checkpoint, hub, benchmarks, tmp_path, monkeypatch
):
    def refused(*arguments, **keywords):
        raise AssertionError(f"network used: {arguments}")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)
    out = call(checkpoint, hub, tmp_path, benchmarks)
    for setting in SETTINGS:
        for name in BENCHMARKS:
            record = read_json(out / setting / f"{name}.json")
            samples = read_jsonl(out / setting / f"{name}.samples.jsonl")
            score = headline(record, benchmarks[name])
            assert 0 <= score.value <= 1
            assert score.stderr is not None
            assert record["documents"] == len(samples) == SIZES.benchmark_documents
            assert record["tokens"] == sum(sample["tokens"] for sample in samples)
            assert record["forwards"] == sum(sample["forwards"] for sample in samples)
            assert all(1 <= sample["tokens"] <= 6 for sample in samples)
            counted = record["tokens_per_forward"]["value"]
            if setting == "one-token":
                assert counted == 1.0
                assert all(sample["tokens"] == sample["forwards"] for sample in samples)
            else:  # tau = 0 accepts whole windows
                assert counted > 1.0
            assert record["cell_spec"] == {"cell": [setting, name]}
    ifeval = read_json(out / "one-token" / "ifeval.json")
    assert len(ifeval["metrics"]) == 4
    assert all(f["none"]["stderr"] is not None for f in ifeval["metrics"].values())
    assert ifeval["notes"]["sentence splitter"]
    bbh = read_json(out / "one-token" / "bbh.json")
    assert len(bbh["subtasks"]) == 4
    assert sum(part["documents"] for part in bbh["subtasks"].values()) == bbh["documents"]


def test_worked_examples_are_turns_or_stand_in_one(
    checkpoint, hub, benchmarks, tmp_path, monkeypatch
):
    """Where there are none, the prompts are the same; the record says how they stood (C2)."""
    asked = []
    original = DecodingLM.generate_until

    def watched(lm, requests, *arguments):
        asked.append([request.args[0] for request in requests])
        return original(lm, requests, *arguments)

    monkeypatch.setattr(DecodingLM, "generate_until", watched)
    setting = {"one-token": SETTINGS["one-token"]}
    for name in ("bbh", "gsm8k"):
        turns = benchmarks[name]
        asked.clear()
        for multiturn in (True, False):
            changed = turns.model_copy(update={"fewshot_as_multiturn": multiturn})
            out = call(checkpoint, hub, tmp_path / f"{multiturn}", {name: changed}, setting)
            assert read_json(out / f"one-token/{name}.json")["fewshot_as_multiturn"] is multiturn
        several, one = asked
        if turns.num_fewshot == 0:
            assert several == one
            continue
        assert len(several) == len(one) > 0
        for prompts, shots in ((several, turns.num_fewshot), (one, 0)):
            assert {prompt.count("<|im_start|>user") for prompt in prompts} == {1 + shots}


def test_a_second_run_does_nothing_and_a_new_setting_only_itself(
    checkpoint, hub, benchmarks, tmp_path, count_cells
):
    two = pick(benchmarks, "gsm8k", "gpqa")
    out = call(checkpoint, hub, tmp_path, two, {"one-token": SETTINGS["one-token"]})
    assert len(count_cells) == 2
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.json*")}
    call("no checkpoint here", hub, tmp_path, two, {"one-token": SETTINGS["one-token"]})
    assert len(count_cells) == 2
    call(checkpoint, hub, tmp_path, two)
    assert len(count_cells) == 4
    assert all(path.stat().st_mtime_ns == then for path, then in written.items())


@pytest.mark.parametrize("damage", ["half a record", "other samples", "no samples", "other spec"])
def test_what_is_not_whole_is_done_again(
    damage, checkpoint, hub, benchmarks, tmp_path, count_cells
):
    one, setting = pick(benchmarks, "gsm8k"), {"one-token": SETTINGS["one-token"]}
    spec = {"version": 1}
    same = {"cell_spec": lambda setting, benchmark: dict(spec)}
    out = call(checkpoint, hub, tmp_path, one, setting, **same)
    record, samples = out / "one-token/gsm8k.json", out / "one-token/gsm8k.samples.jsonl"
    before = without_times(read_json(record))
    if damage == "half a record":
        record.write_text(record.read_text()[:100])
    elif damage == "other samples":
        samples.write_text(samples.read_text() + "\n")
    elif damage == "no samples":
        samples.unlink()
    else:
        spec["version"] = 2
    call(checkpoint, hub, tmp_path, one, setting, **same)
    assert len(count_cells) == 2
    after = without_times(read_json(record))
    assert after == {**before, "cell_spec": spec}  # and it is repeatable


def test_a_killed_run_keeps_the_finished_cells(
    checkpoint, hub, benchmarks, tmp_path, monkeypatch, count_cells
):
    three = pick(benchmarks, "gsm8k", "gpqa", "humaneval")
    setting = {"one-token": SETTINGS["one-token"]}
    counted = module.evaluate_cell

    def killed_at_the_second(*arguments):
        if len(count_cells) == 1:
            raise KeyboardInterrupt
        return counted(*arguments)

    monkeypatch.setattr(module, "evaluate_cell", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        call(checkpoint, hub, tmp_path, three, setting)
    monkeypatch.setattr(module, "evaluate_cell", counted)
    call(checkpoint, hub, tmp_path, three, setting)
    tasks = ["gsm8k_cot", "gpqa_main_cot_zeroshot", "humaneval_instruct"]
    assert count_cells == tasks


def test_gpqa_spreads_no_text(checkpoint, hub, benchmarks, tmp_path):
    out = call(checkpoint, hub, tmp_path, pick(benchmarks, "gpqa"))
    text = (out / "tau-0" / "gpqa.samples.jsonl").read_text()
    for sample in map(json.loads, text.splitlines()):
        assert "generation" not in sample
        letters = [sample["target"], *sample["extracted"].values()]
        assert all(letter in (None, *"ABCDEFGHIJKLMNOPQRSTUVWXYZ") for letter in letters)
        assert sample["target"] in "ABCD"


def test_a_limit_counts_per_subtask(checkpoint, hub, benchmarks, tmp_path):
    cut = {"limit": 2, "subtasks": ["navigate", "web_of_lies"]}
    bbh = benchmarks["bbh"].model_copy(update=cut)
    out = call(checkpoint, hub, tmp_path, {"bbh": bbh})
    record = read_json(out / "tau-0" / "bbh.json")
    assert record["documents"] == 4
    assert [part["documents"] for part in record["subtasks"].values()] == [2, 2]


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("humaneval", {"unsafe_code": False}, "set `unsafe_code: true`"),
        ("gsm8k", {"dataset": "nobody/nothing"}, "nobody/nothing is not in"),
        ("gsm8k", {"task": "no_such.yaml"}, "no_such.yaml does not exist"),
        ("gsm8k", {"dataset": "google/IFEval"}, "has no configuration 'main'"),
        ("ifeval", {"dataset": "TIGER-Lab/MMLU-Pro"}, "looks for 'train' in"),
        ("bbh", {"subtasks": ["knitting"]}, "'knitting' in `subtasks`"),
        ("gsm8k", {"subtasks": ["main"]}, "single task"),
        ("bbh", {"subtasks": ["snarks"]}, "has no configuration 'snarks'"),
        ("mmlu_pro", {"subtasks": ["law"]}, "has no documents"),
    ],
)
def test_user_errors_come_before_the_model_is_loaded(
    name, change, sentence, hub, benchmarks, tmp_path
):
    wrong = {name: benchmarks[name].model_copy(update=change)}
    with pytest.raises(UserError, match=sentence):
        call("no checkpoint", hub, tmp_path, wrong)


def test_a_checkpoint_without_a_mask_token_is_refused(model, tokenizer, hub, benchmarks, tmp_path):
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.mask_token = None
    model.save_pretrained(tmp_path / "bare")
    bare.save_pretrained(tmp_path / "bare")
    with pytest.raises(UserError, match="no mask token"):
        call(tmp_path / "bare", hub, tmp_path, pick(benchmarks, "gsm8k"))


def test_a_task_of_ones_own(checkpoint, hub, benchmarks, tmp_path):
    definition = tmp_path / "tasks" / "own.yaml"
    definition.parent.mkdir()
    definition.write_text(
        "task: own_sums\ndataset_path: anything\ndataset_name: main\ntest_split: test\n"
        "output_type: generate_until\ndoc_to_text: '{{question}}'\ndoc_to_target: '{{answer}}'\n"
        "generation_kwargs: {until: ['\\n']}\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    own = benchmarks["gsm8k"].model_copy(update={"task": str(definition), "filter": "none"})
    out = call(checkpoint, hub, tmp_path, {"own": own})
    assert read_json(out / "tau-0" / "own.json")["documents"] == SIZES.benchmark_documents


def test_the_record_notes_that_memory_ran_out(checkpoint, hub, benchmarks, tmp_path, monkeypatch):
    step = Engine.step

    def limited(engine):
        if engine.slots > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(engine)

    monkeypatch.setattr(Engine, "step", limited)
    out = call(checkpoint, hub, tmp_path, pick(benchmarks, "gsm8k"))
    first, second = (read_json(out / setting / "gsm8k.json") for setting in SETTINGS)
    assert first["decoding"]["slots"] == second["decoding"]["slots"] == 2
    assert "2 side by side" in first["notes"]["memory"]
    assert "memory" not in second["notes"]  # it began with two
