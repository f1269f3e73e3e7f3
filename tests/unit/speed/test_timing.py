"""The protocol: turns in rounds, ratios within a round, records that are kept or made anew."""

import pytest

from mars.decoding import in_order, longest_first
from mars.decoding.requests import Decoded
from mars.errors import UserError
from mars.evaluation.scores import Score
from mars.speed import timing as protocol
from mars.speed.methods import Condition, Pass
from mars.speed.summary import markdown, read_records, table, write_summary
from mars.speed.timing import conditions, measure, read_measurements, write_measurements

CIRCUMSTANCES = {
    "label": "a model",
    "command": "mars speed",
    "hardware": {"processor": "a processor", "gpus": []},
    "versions": {"torch": "1", "transformers": "2", "python": "3"},
}
SPEC = {"repeats": 3, "max_new_tokens": 24}
WANTED = conditions(["hf", "cursor", "block_cache", "window"], [1, 2], [0.5], [4, 8])


class Clock:
    """Stands in for the decoders: passes take the seconds given, the first being the warm-up.

    Without any given, a larger cache block takes longer.
    """

    def __init__(self, seconds):
        self.seconds = seconds
        self.turns = []

    def runner(self, workload, cell):
        passes = iter(self.seconds.get(cell.method, []))

        def run():
            self.turns.append(cell.method)
            first = [1, 2, 3] if cell.method == "cursor" else [1, 2]
            done = [Decoded(first, 2, [1, len(first) - 1], "eos"), Decoded([4], 1, [1], "eos")]
            return Pass(done, next(passes, 1 + 0.1 * (cell.cache_block or 0)), 0.25)

        return run


def go(workload, output, wanted=WANTED, spec=SPEC, **options):
    said = []
    measure(
        workload,
        wanted,
        repeats=3,
        output=output,
        spec=spec,
        circumstances=CIRCUMSTANCES,
        say=said.append,
        **options,
    )
    return said


def test_cells_are_those_that_differ():
    found = conditions(["hf", "cursor", "block_cache"], [1, 8], [0.5, None], [4, 8])
    assert len(found) == 2 * (1 + 2 + 4)
    assert Condition("hf", 8) in found
    assert Condition("block_cache", 1, None, 8) in found
    assert len({cell.full_name for cell in found}) == len(found)


def test_methods_take_turns_and_ratios_are_taken_within_a_round(workload, tmp_path, monkeypatch):
    # The machine becomes ten times slower in the last round: no ratio notices.
    clock = Clock({"autoregressive": [9.0, 2.0, 2.0, 20.0], "cursor": [9.0, 1.0, 1.0, 10.0]})
    monkeypatch.setattr(protocol, "runner", clock.runner)
    go(workload, tmp_path, [Condition("cursor", 1, 0.5)])
    assert clock.turns == ["autoregressive", "hf", "cursor"] * 4
    record = read_measurements(tmp_path)["batch=1 cursor tau=0.5"]
    # 4 tokens in 1 s against 3 in 2 s; 4 tokens in 3 forwards.
    ratios = record["speedup_over"]["autoregressive"]
    assert ratios["values"] == pytest.approx([8 / 3] * 3)
    assert record["efficiency_over"]["autoregressive"]["mean"] == pytest.approx(2.0)
    assert record["tokens_per_second"]["values"] == pytest.approx([4.0, 4.0, 0.4])
    assert record["tokens_per_second"]["mean"] == pytest.approx(2.8)
    assert record["tokens_per_forward"] == pytest.approx(4 / 3)
    assert record["equal_to_greedy"] == {"sequences": 1, "required": False}
    assert record["decode_tokens_per_second"]["values"][0] == pytest.approx(2 / 0.75)


def test_blocks_that_hold_any_answer_are_one_measurement(workload, tmp_path, monkeypatch):
    clock = Clock({})
    monkeypatch.setattr(protocol, "runner", clock.runner)
    go(
        workload, tmp_path, conditions(["block_cache"], [1], [0.5], [8, 32, 64])
    )  # at most 24 new tokens
    assert clock.turns == ["autoregressive", "hf", "block_cache", "block_cache"] * 4
    records = read_measurements(tmp_path)
    names = (Condition("block_cache", 1, 0.5, block).full_name for block in (8, 32, 64))
    short, *long = (records[name] for name in names)
    assert "timed_as" not in short
    assert [record["timed_as"]["cache_block"] for record in long] == [24, 24]
    assert [record["spec"]["cell"]["cache_block"] for record in long] == [32, 64]
    assert long[0]["seconds"] == long[1]["seconds"]


def test_answers_come_back_in_the_order_of_the_questions():
    prompts = [[1], [1, 2, 3], [1, 2], [4]]
    order = longest_first(prompts)
    assert [len(prompts[index]) for index in order] == [3, 2, 1, 1]
    decoded = [prompts[index] for index in order]
    assert in_order(decoded, order) == prompts


def test_accuracies_are_those_of_the_tokens_that_were_timed(workload, tmp_path):
    def score(answers):
        return Score(float(sum(map(len, answers))), None)

    go(workload, tmp_path, [Condition("cursor", 2, 0.5)], score=score)
    for record in read_records(tmp_path):
        assert record["accuracy"] == {"value": record["tokens"], "stderr": None}


def test_a_second_run_measures_what_is_missing_only(workload, tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "runner", Clock({}).runner)
    go(workload, tmp_path)
    before = read_measurements(tmp_path)
    assert len(before) == 2 * (2 + 1 + 2 + 1)  # both baselines are there unasked

    def never(workload, cell):
        raise AssertionError(cell)

    with monkeypatch.context() as patched:
        patched.setattr(protocol, "runner", never)
        assert go(workload, tmp_path) == ["batch 1: measured before", "batch 2: measured before"]
    without = {name: one for name, one in before.items() if name != "batch=2 cursor tau=0.5"}
    write_measurements(tmp_path, without)
    monkeypatch.setattr(protocol, "runner", Clock({"hf": [2.0] * 4}).runner)
    assert go(workload, tmp_path)[0] == "batch 1: measured before"
    after = read_measurements(tmp_path)
    assert after.keys() == before.keys()
    for name, record in before.items():
        assert (after[name] == record) == name.startswith("batch=1 "), name


def test_a_killed_run_keeps_the_batch_sizes_it_finished(workload, tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "runner", Clock({}).runner)

    def killed(workload, cell, runner=protocol.runner):
        if cell.batch == 2:
            raise KeyboardInterrupt
        return runner(workload, cell)

    with monkeypatch.context() as patched:
        patched.setattr(protocol, "runner", killed)
        with pytest.raises(KeyboardInterrupt):
            go(workload, tmp_path)
    assert {record["spec"]["cell"]["batch"] for record in read_records(tmp_path)} == {1}
    assert go(workload, tmp_path)[0] == "batch 1: measured before"
    assert len(read_records(tmp_path)) == 12


def test_another_spec_is_measured_anew(workload, tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "runner", Clock({}).runner)
    wanted = [Condition("cursor", 1, 0.5)]
    go(workload, tmp_path, wanted)
    assert "batch 1: measured before" not in go(workload, tmp_path, wanted, SPEC | {"code": "new"})
    assert read_measurements(tmp_path)[wanted[0].full_name]["spec"]["code"] == "new"


def test_greedy_methods_equal_greedy_decoding(workload, tmp_path):
    wanted = conditions(["hf", "cursor", "cursor-lossless"], [2], [0.3, None], [4])
    go(workload, tmp_path, wanted)
    equal = {
        Condition(**record["spec"]["cell"]).name: record["equal_to_greedy"]
        for record in read_records(tmp_path)
    }
    assert equal.pop("cursor tau=0.3") == {"sequences": 0, "required": False}
    assert all(entry == {"sequences": 5, "required": True} for entry in equal.values())
    assert all(record["repeats_agree"] for record in read_records(tmp_path))


def test_the_summary_shows_every_cell(workload, tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "runner", Clock({}).runner)
    go(workload, tmp_path)
    write_summary(tmp_path)
    frame = table(read_records(tmp_path))
    assert len(frame) == 12
    assert (tmp_path / "summary.csv").read_text() == frame.to_csv(index=False)
    text = (tmp_path / "summary.md").read_text()
    assert text == markdown(tmp_path)
    lines = [line for line in text.splitlines() if line.startswith("| 2 |")]
    assert any("| window | 0.5 |" in line for line in lines)
    best = [line for line in text.splitlines() if line.startswith("| 1 | 0.5 | block_cache | ")]
    record = read_measurements(tmp_path)["batch=1 cursor tau=0.5"]["speedup_over"]
    ratios = [record[f"block_cache tau=0.5 cache_block={block}"]["mean"] for block in (4, 8)]
    assert f"{min(ratios):.2f}" in best[-1]
    columns = {line.count("|") for line in text.splitlines() if line.startswith(("| batch", "| 1"))}
    assert len(columns) == 2  # two tables, each of one width


def test_mistakes(workload, tmp_path):
    with pytest.raises(UserError, match="no measurements"):
        markdown(tmp_path)
    with pytest.raises(UserError, match="repeats"):
        measure(workload, [], repeats=0, output=tmp_path, spec={}, circumstances={})
    with pytest.raises(UserError, match="batch size"):
        conditions(["hf"], [0], [None], [4])
    with pytest.raises(UserError, match="Unknown method"):
        conditions(["fast"], [1], [None], [4])
    with pytest.raises(UserError, match="between 0 and 1"):
        go(workload, tmp_path, [Condition("cursor", 1, 1.5)])
