"""The desk in an event loop and the worker in a thread, and what they tell each other."""

import asyncio

import pytest

from mars.decoding.cursor import Engine
from mars.decoding.policy import fixed
from mars.decoding.requests import Request
from mars.serving.desk import Desk, GoneError
from mars.serving.refusals import RefusedError
from mars.serving.worker import Worker
from tests.support.decoding_models import MASK, prompts, random_model
from tests.support.thread_link import ThreadLink


def engine(slots=3):
    rule = {"block_size": 4, "mask_token_id": MASK, "eos": frozenset()}
    return Engine(random_model("qwen2"), max_length=500, slots=slots, **rule)


def at_the_desk(work, policy=fixed(0.2), slots=3, on_ended=lambda ticket: None):
    """Run ``work(desk)``; nothing is left with desk and worker afterwards."""

    async def run():
        link = ThreadLink(lambda tell: Worker(engine(slots), policy, str, tell))
        desk = Desk(link, max_waiting=50)
        desk.on_ended = on_ended
        desk.begin()
        done = await work(desk)
        await desk.close()
        worker = link.worker
        assert not desk.failed
        assert not any([desk.open, desk.running, desk.waiting])
        assert not any([worker.taken, worker.identities, worker.started])
        assert not any([worker.engine.active, worker.engine.queue, worker.engine.results])
        return done

    return asyncio.run(run())


def take(desk, prompt, threshold=None, budget=40, **wishes):
    return desk.take(prompt, budget, threshold=threshold, **wishes)


async def stays():
    """What a client sends that does not go away."""
    await asyncio.Event().wait()


def test_answers_and_streams_are_the_engines():
    some = prompts(20)
    expected = engine().answer(Request(p, 0.3 if n % 2 else None, 40) for n, p in enumerate(some))

    async def work(desk):
        async def one(number, prompt):
            streams = number % 3 == 0
            ticket = take(desk, prompt, 0.3 if number % 2 else None, streams=streams)
            told = []
            async with desk.attended(ticket, stays):
                if streams:
                    async for tokens in ticket.tokens():
                        told += tokens
                answer = await ticket.answer()
            assert told == (answer.tokens if streams else [])
            assert ticket.arrived < ticket.outcome.started <= ticket.outcome.ended
            return answer

        return await asyncio.gather(*(one(*pair) for pair in enumerate(some)))

    assert at_the_desk(work) == expected


def test_a_client_that_goes_away_frees_its_slot_and_disturbs_nobody():
    some = prompts(12)
    expected = engine(2).answer(Request(prompt, None, 40) for prompt in some)
    ended = []

    async def work(desk):
        async def one(number, prompt):
            budget = 400 if number == 3 else 40
            ticket = take(desk, prompt, budget=budget, streams=number in (2, 3, 4))
            leaves = asyncio.Event()

            async def receive():
                await leaves.wait()
                return {"type": "http.disconnect"}

            async with desk.attended(ticket, receive):
                if number % 3:
                    return await ticket.answer()
                if number == 3:  # once it runs, the others at once, most of them waiting
                    async for _ in ticket.tokens():
                        break
                leaves.set()
                with pytest.raises(GoneError):
                    await ticket.answer()

        return await asyncio.gather(*(one(*pair) for pair in enumerate(some)))

    answers = at_the_desk(work, slots=2, on_ended=ended.append)
    assert [one for one in answers if one] == [e for n, e in enumerate(expected) if n % 3]
    assert len(ended) == len(some)


def test_leaving_the_block_frees_the_slot_too():
    async def work(desk):
        ticket = take(desk, prompts(1)[0], budget=60)
        with pytest.raises(ZeroDivisionError):
            async with desk.attended(ticket, stays):
                1 / 0
        assert desk.waiting == 0

    at_the_desk(work)


def test_the_policy_sets_tau_of_those_that_bring_none():
    taus = []

    def policy(waiting):
        taus.append(waiting)
        return None if len(taus) < 10 else 0.0

    some = prompts(2, longest=10)

    async def work(desk):
        tickets = [take(desk, some[0], follows=True), take(desk, some[1], None)]
        return [await ticket.answer() for ticket in tickets]

    following, own = at_the_desk(work, policy)
    assert 1 in following.accepted
    assert max(following.accepted) == 4
    assert set(own.accepted) == {1}


def test_a_closing_desk_finishes_what_it_took_and_takes_no_more():
    async def work(desk):
        tickets = [take(desk, prompt) for prompt in prompts(9)]
        closing = asyncio.create_task(desk.close())
        await asyncio.sleep(0)
        with pytest.raises(RefusedError, match="about to end"):
            take(desk, [1])
        answers = [await ticket.answer() for ticket in tickets]
        await closing
        return answers

    assert at_the_desk(work) == engine().answer(Request(prompt, None, 40) for prompt in prompts(9))
