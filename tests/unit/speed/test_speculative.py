"""Table 6's rows: who drafts and who verifies decides what is decoded, and rounds are paired."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest

from mars.config.experiment import DraftAndTarget
from mars.decoding import decode
from mars.decoding.requests import Decoded
from mars.speed.methods import Pass
from mars.speed.rounds import ratios
from mars.speed.speculative import SpeculativeDecoder, _quality


def pair(draft, target):
    return DraftAndTarget(draft=draft, target=target)


@pytest.fixture
def setup(workload):
    ar, mars = copy.deepcopy(workload.model), copy.deepcopy(workload.model)
    mars.generation_config.mars_block_size = 4
    return SpeculativeDecoder(
        models={"ar": ar, "mars": mars},
        prompts=workload.prompts,
        draft_tokens=3,
        tau=0.3,
        max_new_tokens=20,
        eos=workload.eos,
        mask_token_id=workload.mask_token_id,
    )


def test_an_ar_target_gives_its_own_greedy_answers(setup):
    alone = setup.decode_alone("ar")
    for draft in ("ar", "mars"):
        done = setup.decode(pair(draft, "ar")).done
        assert [one.tokens for one in done] == alone
        assert all(one.draft_forwards > 0 for one in done)


def test_a_mars_target_adds_its_own_block_to_the_draft(setup, workload):
    alone = decode(
        setup.models["mars"],
        setup.prompts,
        block_size=4,
        threshold=0.0,
        max_new_tokens=20,
        eos_token_id=workload.eos,
        mask_token_id=workload.mask_token_id,
    )
    # The draft has the target's weights, so it agrees with whatever greedy decoding says.
    done = replace(setup, tau=0.0).decode(pair("ar", "mars")).done
    assert sum(one.forwards for one in done) < sum(one.forwards for one in alone)
    assert max(max(one.accepted) for one in done) == 3 + 4


def test_speed_ups_are_ratios_within_a_round():
    two, three = (Decoded([1] * count, 1, [count], "eos") for count in (2, 3))
    timed = [
        {"first": Pass([two], slow * 2.0), "second": Pass([three], slow)}
        for slow in (1.0, 1.0, 10.0)
    ]
    assert ratios(timed, "second", "first") == pytest.approx([3.0] * 3)
    assert ratios(timed, "first", "first") == [1.0] * 3


def test_the_change_of_accuracy_is_paired():
    questions = SimpleNamespace(scores=lambda answers: [float(one[0]) for one in answers])
    quality = _quality(questions, [[1], [0], [1], [1]], [[1], [0], [0], [1]])
    assert quality["accuracy"]["value"] == 0.75
    assert quality["delta"]["value"] == 0.25
    assert quality["delta"]["stderr"] == pytest.approx(0.25)
    assert quality["equal_to_target_alone"] == 3
