"""What is packed for git gives back what the jobs wrote, and nothing that may not be spread."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from mars.audit.packed import EVIDENCE, SAMPLES, Packed, pack
from mars.checkpoints.describe import describe
from mars.errors import UserError
from mars.provenance.files import sha256_file, write_json, write_jsonl
from mars.provenance.manifest import write_manifest

JUDGED = {"metric": "exact_match", "filter": "strict"}
LINE = {
    **{"task": "gsm8k", "document": 0, "prompt_sha256": "ab", "target": "9"},
    **{"generation": "The answer is 9.", "tokens": 6, "forwards": 4, "finish": "eos"},
    **{"overrun": 1, "truncated": False, "extracted": {"strict": "9"}},
    "scores": {"strict": {"exact_match": 1.0}, "loose": {"exact_match": 0.0}},
}


def write_cell(results: Path, cell: str, lines: list[dict[str, Any]]) -> Path:
    record = results / f"evaluations/{cell}.json"
    write_json(record, {"cell_spec": {"benchmark": JUDGED}, "metrics": {}})
    write_jsonl(record.with_suffix(".samples.jsonl"), lines)
    return record.with_suffix(".samples.jsonl")


def files(folder: Path) -> dict[str, bytes]:
    found = (file for file in folder.rglob("*") if file.is_file() and file.suffix != ".parquet")
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
lines = st.fixed_dictionaries(
    {
        "task": st.sampled_from(["gsm8k_cot", "bbh_zeroshot"]),
        "document": st.integers(0, 2**31),
        "prompt_sha256": st.just("ab"),
        "target": any_json,
        "generation": st.none() | st.text(),
        "tokens": st.integers(0, 256),
        "forwards": st.integers(0, 256),
        "finish": st.none() | st.sampled_from(["eos", "length"]),
        "overrun": st.integers(0, 16),
        "truncated": st.none() | st.booleans(),
        "extracted": st.dictionaries(st.text(), any_json, max_size=2),
        "scores": st.dictionaries(
            st.text(), st.dictionaries(st.text(), any_json, max_size=2), max_size=2
        ),
    },
    optional={"of_another_version": any_json},
)


@given(st.dictionaries(st.sampled_from(["a/x/m", "a/y/m", "b/x/n"]), st.lists(lines, max_size=3)))
def test_any_answers_come_back_byte_for_byte(cells: dict[str, list[dict[str, Any]]]):
    with TemporaryDirectory() as folder:
        there, elsewhere = Path(folder, "there"), Path(folder, "elsewhere")
        there.mkdir()
        for cell, answers in cells.items():
            write_cell(there, cell, answers)
        pack(there)
        packed = [(there / name).read_bytes() for name in (SAMPLES, EVIDENCE)]
        Packed(there).unpack(elsewhere)
        assert files(elsewhere) == files(there)
        for name, digest in Packed(there).sha256.items():
            assert digest == sha256_file(there / name)
            assert Packed(there).read(name) == (there / name).read_bytes()
        pack(there)
        assert packed == [(there / name).read_bytes() for name in (SAMPLES, EVIDENCE)]


def test_a_row_says_which_answer_it_is_and_what_it_scored(tmp_path: Path):
    write_cell(tmp_path, "ar/one-token/gsm8k", [LINE, {**LINE, "document": 1, "scores": {}}])
    write_cell(tmp_path, "mars/one-token/gsm8k", [{**LINE, "generation": None}])
    pack(tmp_path)
    rows = pq.read_table(tmp_path / SAMPLES).to_pylist()
    told = [(row["model"], row["benchmark"], row["document"], row["score"]) for row in rows]
    assert told == [("ar", "gsm8k", 0, 1.0), ("ar", "gsm8k", 1, None), ("mars", "gsm8k", 0, 1.0)]
    assert rows[0]["generation"] == LINE["generation"]
    assert json.loads(rows[0]["scores"]) == LINE["scores"]


def test_lines_of_gpqa_have_no_text_and_come_back_without(tmp_path: Path):
    letters = {key: value for key, value in LINE.items() if key != "generation"}
    gpqa = {**letters, "task": "gpqa_main_cot_zeroshot", "target": "D"}
    file = write_cell(tmp_path, "ar/one-token/gpqa", [gpqa])
    pack(tmp_path)
    assert [row["generation"] for row in pq.read_table(tmp_path / SAMPLES).to_pylist()] == [None]
    assert Packed(tmp_path).read("evaluations/ar/one-token/gpqa.samples.jsonl") == file.read_bytes()


def test_of_weights_the_head_is_kept(tmp_path: Path):
    folder = tmp_path / "checkpoints/ar"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).random((300, 400))
    save_file({"wte": noise, "norm": noise[0]}, folder / "model.safetensors")
    write_json(folder / "config.json", {"architectures": ["Qwen2ForCausalLM"], "hidden_size": 400})
    pack(tmp_path)
    assert (tmp_path / EVIDENCE).stat().st_size < noise.nbytes / 100
    packed, elsewhere = Packed(tmp_path), tmp_path / "elsewhere"
    packed.unpack(elsewhere)
    assert describe(elsewhere / "checkpoints/ar") == describe(folder)
    # Zeros in their place are no weights: nobody may take them for such.
    assert packed.read("checkpoints/ar/model.safetensors") is None
    assert packed.sha256.keys() == {"checkpoints/ar/config.json"}


def test_weights_may_be_deleted_while_their_manifest_stays(tmp_path: Path):
    folder = tmp_path / "checkpoints/ar"
    folder.mkdir(parents=True)
    save_file({"wte": np.zeros((3, 4))}, folder / "model.safetensors")
    write_manifest(folder)
    pack(tmp_path)
    before = Packed(tmp_path).kept
    assert "checkpoints/ar/model.safetensors" in before
    (folder / "model.safetensors").unlink()
    pack(tmp_path)
    assert Packed(tmp_path).kept == before
    write_manifest(folder, trained="anew")
    pack(tmp_path)
    assert Packed(tmp_path).kept.keys() == {"checkpoints/ar/manifest.json"}


def test_where_nothing_is_packed_there_is_nothing(tmp_path: Path):
    packed = Packed(tmp_path)
    assert packed.sha256 == {}
    assert packed.read("evaluations/ar/one-token/gsm8k.samples.jsonl") is None
    assert packed.read("evaluations/ar/one-token/gsm8k.json") is None


@pytest.mark.parametrize("name", [SAMPLES, EVIDENCE])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, name: str):
    write_cell(tmp_path, "ar/one-token/gsm8k", [LINE])
    pack(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-20])
    with pytest.raises(UserError, match=rf"{name} cannot be read .*take it from git again"):
        Packed(tmp_path).unpack(tmp_path / "elsewhere")


def test_nothing_is_unpacked_beside_the_folder(tmp_path: Path):
    pack(tmp_path)
    row = {"file": "../beside.json", "content": b"{}", "size": 2}
    schema = pq.read_schema(tmp_path / EVIDENCE)
    pq.write_table(pa.Table.from_pylist([row], schema), tmp_path / EVIDENCE)
    with pytest.raises(UserError, match=r"names \.\./beside\.json"):
        Packed(tmp_path).unpack(tmp_path / "elsewhere")
    assert not (tmp_path / "beside.json").exists()


def test_unfinished_work_is_not_packed(tmp_path: Path):
    write_cell(tmp_path, "ar/one-token/gsm8k", [LINE])
    write_json(tmp_path / "speed/.wall_clock.work-12/part.json", {})
    write_json(tmp_path / "speed/wall_clock/part.json", {})
    pack(tmp_path)
    assert "speed/wall_clock/part.json" in Packed(tmp_path).sha256
    assert not any("work-" in file for file in Packed(tmp_path).sha256)
