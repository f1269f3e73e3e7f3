"""The stream for the terminal, and ``model.generate(custom_generate=...)`` on a checkpoint."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from mars.checkpoints.export import add_custom_generate
from mars.decoding import decode
from mars.decoding.generate import generate_text, stream, text_of
from mars.errors import UserError
from tests.support.decoding_models import EOS, MASK, random_model

RULE = {"block_size": 4, "max_new_tokens": 20, "eos_token_id": EOS, "mask_token_id": MASK}


@pytest.fixture(scope="module")
def tokenizer():
    """Bytes of a few characters, one of two bytes, so that half a character can be decoded."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = {letter: index for index, letter in enumerate("abcdefghijklmnopqrstuvwxyzĠ")}
    for letter in (one for one in alphabet if one in "Ã¼¤¶"):
        letters[letter] = len(letters)
    bytes_only = Tokenizer(models.BPE(vocab=letters, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=bytes_only)
    while len(wrapped) < MASK:
        wrapped.add_special_tokens({"additional_special_tokens": [f"<{len(wrapped)}>"]})
    wrapped.add_special_tokens({"mask_token": "<|mask|>"})
    assert wrapped.mask_token_id == MASK
    return wrapped


@pytest.fixture
def checkpoint(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hub"))
    model = random_model("qwen2")
    before = model.generation_config
    model.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=list(EOS),
        pad_token_id=0,
        mars_block_size=4,
        mars_mask_token_id=MASK,
    )
    model.save_pretrained(tmp_path)
    model.generation_config = before
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("method", ["cursor", "autoregressive", "jacobi"])
def test_the_stream_is_the_decoding(method):
    model, prompt = random_model("qwen2"), [1, 2, 30]
    gains = list(stream(model, prompt, **RULE, threshold=0.3, method=method))
    whole = decode(model, [prompt], **RULE, threshold=0.3, method=method)[0]
    assert [len(gained) for gained in gains] == whole.accepted
    assert [token for gained in gains for token in gained] == whole.tokens


def test_a_method_that_cannot_stream_is_refused():
    with pytest.raises(UserError, match="cannot stream"):
        list(stream(random_model("qwen2"), [1], **RULE, threshold=0.3, method="block_cache"))


def test_half_a_character_waits_for_its_other_half(tokenizer):
    ids = tokenizer("a für b")["input_ids"]
    pieces = list(text_of([[token] for token in ids], tokenizer))
    assert "".join(piece for piece, _ in pieces) == "a für b"
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece, _ in pieces)
    assert [number for _, number in pieces] == [1] * len(ids)


def test_generate_text_prints_the_answer_and_tokens_per_forward(checkpoint, tokenizer):
    *pieces, summary = generate_text(checkpoint, "hallo", threshold=0.2, max_new_tokens=30)
    prompt = tokenizer("hallo")["input_ids"]
    rule = RULE | {"max_new_tokens": 30}
    whole = decode(random_model("qwen2"), [prompt], **rule, threshold=0.2)[0]
    assert len(pieces) == whole.forwards
    assert f"{len(whole.tokens)} tokens in {whole.forwards} forwards" in summary
    plain = list(generate_text(checkpoint, "hallo", threshold=0.2, max_new_tokens=30, shaded=False))
    assert "\x1b" in "".join(pieces)
    assert "\x1b" not in "".join(plain)
    complete = tokenizer.decode(whole.tokens, skip_special_tokens=True)
    assert "".join(plain[:-1]) == complete.rstrip("\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize("padding", ["left", "right"])
def test_transformers_generate_runs_the_engine(checkpoint, padding):
    add_custom_generate(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    prompts = [[1, 2, 30, 4], [7], [8, 9]]
    ids, mask = torch.zeros(3, 4, dtype=torch.long), torch.zeros(3, 4, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        place = slice(4 - len(prompt), 4) if padding == "left" else slice(0, len(prompt))
        ids[row, place], mask[row, place] = torch.tensor(prompt), 1
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=20,
        threshold=0.3,
        custom_generate=str(checkpoint),
        trust_remote_code=True,
    )
    expected = decode(model, prompts, **RULE, threshold=0.3)
    assert torch.equal(output[:, :4], ids)
    for row, one in zip(output[:, 4:].tolist(), expected, strict=True):
        assert row == one.tokens + [0] * (len(row) - len(one.tokens))
    assert output.shape[1] == 4 + max(len(one.tokens) for one in expected)


def test_without_it_the_checkpoint_is_an_ordinary_model(checkpoint):
    add_custom_generate(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    ids = torch.tensor([[1, 2, 30, 4]])
    output = model.generate(ids, max_new_tokens=10, suppress_tokens=[MASK])
    greedy = decode(model, [[1, 2, 30, 4]], **(RULE | {"max_new_tokens": 10}), threshold=None)
    assert output[0, 4:].tolist() == greedy[0].tokens


@pytest.mark.parametrize("wrong", [{"do_sample": True}, {"num_beams": 2}, {"temperature": 0.5}])
def test_what_greedy_decoding_cannot_do_is_refused(checkpoint, wrong):
    add_custom_generate(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    with pytest.raises(UserError):
        model.generate(
            torch.tensor([[1, 2]]),
            custom_generate=str(checkpoint),
            trust_remote_code=True,
            **wrong,
        )
