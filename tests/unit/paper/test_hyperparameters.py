"""Table 7: every value of ours is in a training record, every one of the paper's is there."""

import csv
import inspect

import pytest

from mars.paper import published
from mars.paper.tables.files import write
from mars.paper.tables.hyperparameters import TrainedSpec, hyperparameters
from mars.paper.tables.table import NOT_RUN
from mars.training import trainer
from tests.support.printed_tables import printed
from tests.support.synthetic_evaluations import experiment


def training_record(seconds, **training):
    defaults = {
        **{"learning_rate": 2e-3, "warmup_ratio": 0.03, "epochs": 2.0, "max_length": 512},
        **{"rows_per_forward": 4, "row_length": 128, "batch_size": 8, "precision": "bfloat16"},
    }
    return {
        "spec": {"config": {"method": "ar_sft", "training": {**defaults, **training}}},
        "facts": {
            **{"seconds": seconds, "processes": 2, "steps": 10, "tokens": 1000},
            **{"tokens_per_second": 1000 / seconds, "peak_memory_bytes": 2**30 * seconds / 100},
            **{"device": "cpu", "parameters": 1234},
        },
        "hardware": {"processor": "a processor", "cores": 2, "gpus": []},
    }


def written(folder, records, **more_models):
    made = experiment()
    models = {**made.models, **more_models}
    spec = TrainedSpec(data=made.data, scales=made.scales, models=models, max_new_tokens=99)
    write(hyperparameters(spec, records), folder)
    with open(folder / "table7.csv", newline="") as stream:
        return {
            (line["scale"], line["row"], line["quantity"]): line for line in csv.DictReader(stream)
        }


@pytest.fixture
def records():
    return {
        "m2": training_record(100.0),
        "m3": training_record(200.0, epochs=4.0),
        "m4": training_record(150.0, learning_rate=1e-3),
        "m7": training_record(160.0, learning_rate=1e-3),
    }


def test_the_settings_are_those_of_the_records(tmp_path, records):
    lines = written(tmp_path, records)
    values = {row: line["value"] for (scale, row, q), line in lines.items() if scale == "0.5B"}
    assert values["learning rate"] == "0.002 (ar_sft) / 0.001 (mars)"
    assert values["epochs per stage"] == "2"
    assert values["effective batch size"] == "8"
    assert values["per device batch size"] == "4 packed rows of 128 tokens"
    assert values["hardware"] == "a processor, 2 cores"
    assert values["block sizes"] == "4, 16"
    assert values["max new tokens"] == "99"
    assert values["base model"] == "from scratch, 1,234 parameters"
    assert lines["7B", "learning rate", "value"]["value"] == NOT_RUN


def test_the_costs_are_those_of_the_records(tmp_path, records):
    lines = written(tmp_path, records)
    for row, model in (("AR SFT", "m2"), ("AR SFT (10 ep)", "m3"), ("MARS (B=16)", "m7")):
        facts = records[model]["facts"]
        expected = {
            "device_hours": facts["seconds"] * 2 / 3600,
            "seconds": facts["seconds"],
            "tokens_per_second": facts["tokens_per_second"],
            "cost_over_ar_sft": facts["seconds"] / 100,
            "peak_memory_over_ar_sft": facts["seconds"] / 100,
        }
        for quantity, value in expected.items():
            line = lines["0.5B", row, quantity]
            assert line["model"] == model
            assert float(line["value"]) == pytest.approx(value, abs=1e-5)


def test_the_cost_of_several_seeds_is_their_mean(tmp_path, records):
    more = experiment().models
    seeds = {
        f"{name}-seed1": more[name].model_copy(update={"seed_of": name}) for name in ("m2", "m4")
    }
    records = {**records, "m2-seed1": training_record(300.0), "m4-seed1": training_record(600.0)}
    lines = written(tmp_path, records, **seeds)
    for row, quantity, values in (
        ("AR SFT", "seconds", (100.0, 300.0)),
        ("MARS (B=4)", "seconds", (150.0, 600.0)),
        ("MARS (B=4)", "cost_over_ar_sft", (1.5, 2.0)),  # of the AR SFT of the same seed
    ):
        line = lines["0.5B", row, quantity]
        assert float(line["value"]) == sum(values) / 2
        assert line["seeds"] == "2"
        assert tuple(map(float, line["by_seed"].split(";"))) == values
    assert lines["0.5B", "MARS (B=16)", "seconds"]["seeds"] == "1"


def test_every_published_value_is_there(tmp_path, records):
    lines = written(tmp_path, records)
    table = printed(7).set_index("hyperparameter")
    for scale in published.SCALES:
        for name in table.index:
            if not name.endswith("h200_hours"):
                line = lines[scale, name.replace("_", " "), "value"]
                assert line["published"] == table.loc[name, scale]
    for (scale, row), hours in {
        ("0.5B", "AR SFT"): 15,
        ("0.5B", "MARS (B=4)"): 33,
        ("7B", "AR SFT"): 100,
        ("7B", "MARS (B=4)"): 202,
    }.items():
        assert float(lines[scale, row, "device_hours"]["published"]) == hours
    assert float(lines["7B", "MARS (B=4)", "cost_over_ar_sft"]["published"]) == 2.02


def test_without_records_the_paper_stands_alone(tmp_path):
    lines = written(tmp_path, {})
    assert {line["value"] for line in lines.values()} == {NOT_RUN}
    assert len(lines) == 16 * 2 + 2 * (1 + 3)


def test_the_training_loop_has_the_optimiser_and_schedule_that_the_table_names():
    source = inspect.getsource(trainer)
    assert "torch.optim.AdamW(" in source
    assert "get_cosine_schedule_with_warmup(" in source
