"""What vLLM is given computes what the checkpoint does, with its target's number of rows."""

import json
import shlex
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

import mars.cli  # noqa: F401 - registers the verbs
from mars.checkpoints.for_vllm import export_for_vllm, serve_command
from mars.cli.common import app
from mars.errors import UserError
from mars.provenance.files import read_json, sha256_file
from tests.support.decoding_models import MASK
from tests.support.little_checkpoint import character_tokenizer
from tests.support.vllm_standins import ROWS_OF_05B, ROWS_OF_7B, little_model, write_model

TEXT = torch.arange(40).view(2, 20) % MASK


def logits(folder: Path, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    with torch.no_grad():
        return model(TEXT).logits.float()


def contents(folder: Path) -> dict[str, str]:
    return {file.name: sha256_file(file) for file in folder.iterdir()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_draft_gets_the_rows_of_its_target_and_never_drafts_them(tmp_path, tied, dtype):
    """Qwen2.5-0.5B for 7B, in rows. A row that is the mean has the mean of all logits as its."""
    model = little_model(ROWS_OF_05B, tie_word_embeddings=tied).to(dtype)
    draft = write_model(tmp_path / "draft", model, block_size=4)
    target = write_model(tmp_path / "target", little_model(ROWS_OF_7B))
    before = contents(target)
    made = export_for_vllm(draft, tmp_path / "made", target)
    assert any(f"{ROWS_OF_7B - ROWS_OF_05B} rows" in change for change in made.changes)
    config = read_json(made.folder / "config.json")
    assert (config["vocab_size"], config["mask_token_id"]) == (ROWS_OF_7B, MASK)
    known, found = logits(draft, dtype), logits(made.folder, dtype)
    assert found.shape[-1] == ROWS_OF_7B
    assert torch.equal(found[..., :ROWS_OF_05B], known)
    padded = found[..., ROWS_OF_05B:]
    torch.testing.assert_close(
        padded, known.mean(-1, keepdim=True).expand_as(padded), rtol=0, atol=0.1
    )
    assert (padded < known.amax(-1, keepdim=True) - 1).all()
    assert contents(target) == before


def test_a_padded_row_does_not_win_where_all_logits_are_negative(tmp_path):
    """A row of zeros would: its logit is 0."""
    model = little_model(64, tie_word_embeddings=False)
    with torch.no_grad():
        model.model.norm.weight.zero_()[0] = (
            1  # the final state is +-1 times something in one place
        )
        rows = model.lm_head.weight
        rows[:, 0] = -1 - torch.rand(len(rows))
    draft = write_model(tmp_path / "draft", model, block_size=4)
    target = write_model(tmp_path / "target", little_model(80))
    found = logits(export_for_vllm(draft, tmp_path / "made", target).folder)
    assert (found.amax(-1) < 0).any()
    assert found.argmax(-1).max() < 64


def test_rows_that_the_target_lacks_are_left_out(tmp_path):
    draft = write_model(tmp_path / "draft", little_model(ROWS_OF_7B), block_size=4)
    target = write_model(tmp_path / "target", little_model(ROWS_OF_05B))
    made = export_for_vllm(draft, tmp_path / "made", target)
    assert any(f"{ROWS_OF_7B - ROWS_OF_05B} of its" in change for change in made.changes)
    assert torch.equal(logits(made.folder), logits(draft)[..., :ROWS_OF_05B])


def test_a_mask_that_the_target_has_no_row_for(tmp_path):
    draft = write_model(tmp_path / "draft", little_model(64), block_size=4)
    target = write_model(tmp_path / "target", little_model(MASK))
    with pytest.raises(UserError, match="cannot draft for it"):
        export_for_vllm(draft, tmp_path / "made", target)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("head", [8, 16])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
        ("llama", {}),
        ("llama", {"attention_bias": True}),
    ],
)
def test_narrow_heads_become_wide_ones_that_compute_the_same(tmp_path, kind, options, head):
    model = little_model(kind=kind, head=head, **options)
    checkpoint = write_model(tmp_path / "narrow", model, block_size=4)
    made = export_for_vllm(checkpoint, tmp_path / "wide")
    config = read_json(made.folder / "config.json")
    assert (config["model_type"], config["head_dim"]) == ("llama", 4 * head)
    wide = AutoModelForCausalLM.from_pretrained(made.folder, output_loading_info=True)[1]
    assert not any(wide.values()), "a tensor is missing or strange"
    torch.testing.assert_close(logits(made.folder), logits(checkpoint), rtol=1e-4, atol=1e-4)


def test_a_target_with_narrow_heads_is_to_be_written_first(tmp_path):
    draft = write_model(tmp_path / "draft", little_model(), block_size=4)
    target = write_model(tmp_path / "target", little_model(head=16))
    with pytest.raises(UserError, match=r"run `mars export --for vllm .*target`"):
        export_for_vllm(draft, tmp_path / "made", target)
    served = export_for_vllm(target, tmp_path / "served").folder
    export_for_vllm(draft, tmp_path / "made", served)


def test_weights_in_several_files_stay_in_several_files(tmp_path):
    model = little_model(2000, tie_word_embeddings=False)
    draft = write_model(tmp_path / "draft", model, block_size=4, max_shard_size="200KB")
    target = write_model(tmp_path / "target", little_model(3000))
    made = export_for_vllm(draft, tmp_path / "made", target)
    assert len(list(made.folder.glob("*.safetensors"))) > 2
    assert torch.equal(logits(made.folder)[..., :2000], logits(draft))


def test_other_tokens_under_the_same_numbers_are_refused(tmp_path):
    draft = write_model(tmp_path / "draft", little_model(), block_size=4)
    target = write_model(tmp_path / "target", little_model())
    tokenizer = json.loads(character_tokenizer().backend_tokenizer.to_str())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (tmp_path / "other.json").write_text(json.dumps(tokenizer))
    other = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "other.json"))
    other.save_pretrained(target)
    with pytest.raises(UserError, match="different tokenizers"):
        export_for_vllm(draft, tmp_path / "made", target)


def test_what_has_no_safetensors_is_refused(tmp_path):
    draft = write_model(tmp_path / "draft", little_model(), block_size=4)
    (draft / "model.safetensors").unlink()
    with pytest.raises(UserError, match="safetensors"):
        export_for_vllm(draft, tmp_path / "made")


def test_a_mars_checkpoint_drafts_a_block_and_an_ar_one_token_by_token(tmp_path):
    target = write_model(tmp_path / "target", little_model())
    for name, block_size, expected in (("mars", 8, (8, True)), ("ar", None, (4, False))):
        draft = write_model(tmp_path / name, little_model(), block_size)
        made = export_for_vllm(draft, tmp_path / f"{name}-made", target)
        config = made.speculative_config()
        assert (config["num_speculative_tokens"], config["parallel_drafting"]) == expected
        assert made.speculative_config(3)["num_speculative_tokens"] == 3
        assert ("mask_token_id" in read_json(made.folder / "config.json")) == (name == "mars")


def test_the_verb_prints_a_command_that_a_shell_can_read(tmp_path):
    draft = write_model(tmp_path / "a draft", little_model(), block_size=4)
    target = write_model(tmp_path / "target", little_model())
    output = tmp_path / "made"
    verb = ["export", "--for", "vllm", str(draft), "--output", str(output)]
    printed = CliRunner().invoke(app, [*verb, "--target", str(target)]).stdout
    (line,) = (line for line in printed.splitlines() if line.startswith("vllm serve"))
    program, serve, served, *options = shlex.split(line)
    assert (program, serve, served) == ("vllm", "serve", str(target))
    assert options[:2] == ["--dtype", "float32"]
    assert json.loads(options[-1]) == {
        "method": "draft_model",
        "model": str(output),
        "num_speculative_tokens": 4,
        "parallel_drafting": True,
    }
    again = CliRunner().invoke(app, verb)
    assert isinstance(again.exception, UserError), "nothing is overwritten"


def test_alone_a_mars_checkpoint_drafts_for_itself_and_an_ar_one_does_not(tmp_path):
    for name, block_size in (("mars", 4), ("ar", None)):
        checkpoint = write_model(tmp_path / name, little_model(), block_size)
        verb = ["export", "--for", "vllm", str(checkpoint), "--output", str(tmp_path / f"{name}2")]
        printed = CliRunner().invoke(app, verb).stdout
        assert ("--speculative-config" in printed) == (name == "mars")
        assert f"vllm serve {tmp_path / f'{name}2'}" in printed


def test_a_model_that_is_not_in_float32_keeps_its_type_by_itself(tmp_path):
    served = write_model(tmp_path / "served", little_model().bfloat16())
    assert "--dtype" not in serve_command(served, None)
