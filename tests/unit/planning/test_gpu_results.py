"""The files of results/gpu: read whole, or refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mars.errors import UserError
from mars.planning.gpu_results import FOLDER, decodings, read_gpu_results, trainings
from tests.support.gpu_results import made_up_result


def written(root: Path, content: Any, name: str = "made-up") -> Path:
    path = root / FOLDER / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_without_a_folder_nothing_is_known(tmp_path):
    assert read_gpu_results(tmp_path) == []


def test_a_file_is_read_with_what_stands_beside_it(tmp_path):
    written(tmp_path, made_up_result())
    written(tmp_path, made_up_result("Another GPU"), "another")
    results = read_gpu_results(tmp_path)
    assert [one.device.name for one in results] == ["Another GPU", "A GPU"]
    assert len(trainings(results, "7B", "mars")) == 4
    assert {one.batch for one in decodings(results, "7B", "cursor")} == {4, 64}
    assert decodings(results, "7B", "window") == []


def test_what_could_not_be_measured_may_be_missing(tmp_path):
    result = made_up_result()
    del result["decoding"], result["training"]
    written(tmp_path, result)
    (one,) = read_gpu_results(tmp_path)
    assert (one.training, one.decoding) == ((), ())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda result: result.pop("device"), "`device`"),
        (lambda result: result["training"][0].update(shape="3B"), "training.0.shape"),
        (lambda result: result["training"][0].update(tokens_per_second=0), "tokens_per_second"),
        (lambda result: result["decoding"][0].pop("batch"), "decoding.0.batch"),
        (lambda result: result["device"].update(peak_bfloat16_flops="fast"), "peak_bfloat16"),
    ],
)
def test_a_malformed_file_is_named(tmp_path, change, says):
    result = made_up_result()
    change(result)
    path = written(tmp_path, result)
    with pytest.raises(UserError, match="test-gpu") as raised:
        read_gpu_results(tmp_path)
    assert says in str(raised.value)
    assert str(path) in str(raised.value)


def test_what_is_no_json_is_named(tmp_path):
    path = written(tmp_path, '{"device": ')
    with pytest.raises(UserError, match=f"{path} is not JSON"):
        read_gpu_results(tmp_path)
