"""Released checkpoints become plain Qwen2 ones: same weights, none of their code run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from mars.checkpoints.load import block_size_of, eos_token_ids
from mars.checkpoints.ready import import_released
from mars.checkpoints.stage import ReleasedSpec
from mars.config.experiment import Released
from mars.data.hub import MIRROR_VARIABLE
from mars.decoding import decode
from mars.errors import UserError
from mars.provenance.files import read_json, write_json
from tests.support.hub_standins import write_released

NAME = "Xalphinions/MARS-Qwen2.5-0.5B-blk4"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(MIRROR_VARIABLE, str(tmp_path / "mirror"))
    folder = tmp_path / "mirror" / NAME
    folder.mkdir(parents=True)
    return folder


def run(output: Path, method: str = "mars", block_size: int | None = 4, mask: str = "<|mask|>"):
    released = Released(repository=NAME, mask_token=mask)
    spec = ReleasedSpec(released=released, method=method, block_size=block_size)
    output.mkdir()
    return import_released(spec, output)


def test_weights_and_logits_are_the_released_ones(repository: Path, tmp_path: Path):
    original = write_released(repository)
    facts = run(tmp_path / "out")
    assert facts["repository"] == NAME
    assert facts["model_type"] == "a2d-qwen2"
    assert facts["block_size"] == 4
    assert "released by the authors" in facts["origin"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert model.config.model_type == "qwen2"
    assert model.dtype == torch.bfloat16
    assert model.num_parameters() == original.num_parameters()
    ids = torch.arange(8, 40)[None]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert torch.equal(model(ids).logits, original(ids).logits)
    assert tokenizer.mask_token == "<|mask|>"
    # Plain greedy decoding (A1), and what multi-token decoding needs.
    assert model.generation_config.repetition_penalty in (None, 1.0)
    assert not model.generation_config.do_sample
    assert block_size_of(model) == 4
    assert model.generation_config.mars_mask_token_id == tokenizer.mask_token_id
    (answer,) = decode(
        model.eval(),
        [[9, 10, 11]],
        block_size=4,
        threshold=0.1,
        max_new_tokens=8,
        eos_token_id=eos_token_ids(model, tokenizer),
        mask_token_id=tokenizer.mask_token_id,
    )
    assert 1 <= len(answer.tokens) <= 8


def test_code_of_the_repository_is_neither_run_nor_kept(repository: Path, tmp_path: Path):
    write_released(repository)
    run(tmp_path / "out")
    assert not list(tmp_path.rglob("code-was-run"))
    assert [path.parent.name for path in (tmp_path / "out").rglob("*.py")] == ["custom_generate"]
    assert "auto_map" not in read_json(tmp_path / "out/config.json")


def test_an_ar_checkpoint_without_mask_gets_one_in_a_spare_row(repository: Path, tmp_path: Path):
    original = write_released(repository, mask=False)
    run(tmp_path / "out", "ar_sft", None)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").mask_token_id < 320
    assert model.num_parameters() == original.num_parameters()
    assert block_size_of(model) == 1


def test_a_mars_checkpoint_without_its_mask_is_refused(repository: Path, tmp_path: Path):
    write_released(repository, mask=False)
    with pytest.raises(UserError, match=r"has no '<\|mask\|>'"):
        run(tmp_path / "out")


def test_missing_and_unknown_tensors_are_refused(repository: Path, tmp_path: Path):
    write_released(repository)
    weights = load_file(repository / "model.safetensors")
    moved = weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file({**weights, "adapter.weight": moved}, repository / "model.safetensors")
    with pytest.raises(UserError, match=r"2 tensors are missing, unknown .* fetch it again"):
        run(tmp_path / "out")


def test_another_architecture_is_refused(repository: Path, tmp_path: Path):
    write_released(repository)
    config = read_json(repository / "config.json")
    write_json(repository / "config.json", config | {"model_type": "mamba"})
    with pytest.raises(UserError, match="of the model type 'mamba'"):
        run(tmp_path / "out")
