"""The stream for the terminal."""

import pytest

from mars.decoding import decode
from mars.decoding.generate import generate_text, stream, text_of
from mars.errors import UserError
from tests.support.decoding_models import EOS, MASK, random_model
from tests.support.little_checkpoint import character_tokenizer, write_checkpoint

RULE = {"block_size": 4, "max_new_tokens": 20, "eos_token_id": EOS, "mask_token_id": MASK}


@pytest.fixture(scope="module")
def tokenizer():
    return character_tokenizer()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


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
