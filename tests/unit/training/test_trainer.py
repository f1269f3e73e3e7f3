"""The loop: what it exports, and that killing it or splitting it changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from mars.config import Training
from mars.files import read_json, read_jsonl
from mars.training import train

MASK = 1


def test_exports_a_plain_checkpoint(
    parent: Path, dataset_folder: Path, tmp_path: Path, settings: Callable[..., Training]
) -> None:
    summary = train(
        method="mars",
        training=settings(epochs=2),
        block_size=4,
        ar_weight=1.0,
        parent=parent,
        dataset=dataset_folder,
        work=tmp_path / "work",
        output=tmp_path / "mars",
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "mars")
    before = AutoModelForCausalLM.from_pretrained(parent)
    assert type(model) is type(before)
    assert model.num_parameters() == before.num_parameters() == summary["parameters"]
    assert not torch.equal(model.lm_head.weight, before.lm_head.weight)
    assert AutoTokenizer.from_pretrained(tmp_path / "mars").mask_token_id == MASK
    generation = GenerationConfig.from_pretrained(tmp_path / "mars")
    assert (generation.mars_block_size, generation.mars_mask_token_id) == (4, MASK)
    assert generation.do_sample is False
    log = read_jsonl(tmp_path / "mars" / "training.jsonl")
    assert [line["step"] for line in log] == list(range(1, 18))
    assert log[-1]["loss"] < log[0]["loss"]
    assert read_json(tmp_path / "mars" / "training_summary.json")["steps"] == 17
    assert not list(tmp_path.glob(".*partial"))
