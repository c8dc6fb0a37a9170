"""Iterating over stages: how much is taken, what is left behind, and how it fails."""

import asyncio
import contextlib
import itertools

import pytest

import headgate
from headgate import Child, DemandDispatcher, OptionError, StageCrashed, SubscriptionError, System, To
from tests.parity.checks import take
from tests.parity.stages import Counter, Forwarder, Log, Source, batches, refused, settle, until


class Refusing(DemandDispatcher):
    """Accepts nobody."""

    def subscribe(self, subscriber):
        raise SubscriptionError("stream", "source", "no thanks")


class Leaving(Source):
    """Refuses whoever subscribes, and ends."""

    def handle_subscribe(self, role, options, peer):
        self.stage.cancel(peer, "no thanks")
        self.stage.stop()


async def nothing_left(system, *stages):
    """Check that a stream has left nothing behind: no stage, no subscription, nothing in flight."""
    await settle()
    assert system.stages() == list(stages)
    for stage in stages:
        now = stage.statistics()
        assert (now.consumers, now.in_flight) == ((), 0)


async def dead(system):
    ref = await system.start(Child(Counter))
    await ref.stop()
    return ref


async def test_10_events_of_a_demand_of_1000():
    """G102: nothing is left behind, and what was not taken goes to the next who asks."""
    async with System() as system:
        counter = await system.start(Child(Counter))
        assert await take([counter], 10) == list(range(10))
        await nothing_left(system, counter)
        assert await take([counter], 10) == list(range(10, 20))


async def test_300_events_with_max_demand_100():
    """G103: and nothing is left behind."""
    async with System() as system:
        counter = await system.start(Child(Counter))
        assert await take([To(counter, max_demand=100)], 300) == list(range(300))
        await nothing_left(system, counter)
        assert await take([To(counter, max_demand=100)], 1) == [300]


async def test_a_stream_does_not_touch_what_belongs_to_others():
    log = Log()
    async with System() as system:
        source = await system.start(Child(Source, log, demand="accumulate"))
        other = await system.start(Child(Forwarder, log))
        kept = await other.subscribe(To(source, mode="manual"))
        counter = await system.start(Child(Counter))
        other.info("info")
        assert await take([counter], 10) == list(range(10))
        assert await other.call(lambda stage: stage.subscriptions) == [kept]
        source.set_demand("forward")
        other.ask(kept, 3)
        source.cast([1, 2, 3])
        await until(lambda: batches(log) == [[1, 2, 3]])
        assert batches(log, "info") == ["info"]


async def test_an_unknown_name_fails_at_the_start():
    """G105: there is no such stage. Nobody else is harmed."""
    async with System() as system:
        with refused(SubscriptionError, "there is no stage named 'unknown'") as caught:
            await take(["unknown"], 10, system=system)
        assert caught.value.missing
        await nothing_left(system)


@pytest.mark.parametrize("cancel", ["permanent", "transient"])
async def test_a_dead_producer_fails(cancel):
    """G106: there is no such stage. Nobody else is harmed."""
    async with System() as system:
        producer = await dead(system)
        with refused(SubscriptionError, "there is no such stage") as caught:
            await take([To(producer, cancel=cancel)], 10)
        assert caught.value.missing
        await nothing_left(system)


@pytest.mark.parametrize("cancel", ["permanent", "transient"])
async def test_a_producer_that_refuses_and_ends_fails(cancel):
    """G107: with the reason of the refusal."""
    async with System() as system:
        producer = await system.start(Child(Leaving))
        with refused((SubscriptionError, StageCrashed), "no thanks"):
            await take([To(producer, cancel=cancel)], 10)
        assert await producer.wait() == "normal"
        await nothing_left(system)


@pytest.mark.parametrize("cancel", ["permanent", "transient"])
async def test_a_producer_that_refuses_and_lives_fails(cancel):
    """G108: with the reason of the refusal."""
    async with System() as system:
        producer = await system.start(Child(Source, dispatcher=Refusing()))
        with refused(SubscriptionError, "no thanks"):
            await take([To(producer, cancel=cancel)], 10)
        assert producer.alive
        await nothing_left(system, producer)


async def test_an_unknown_name_and_temporary():
    """G109: nothing comes."""
    async with System() as system:
        assert await take([To("unknown", cancel="temporary")], 10, system=system) == []
        await nothing_left(system)


async def test_a_dead_producer_and_temporary():
    """G110: nothing comes."""
    async with System() as system:
        assert await take([To(await dead(system), cancel="temporary")], 10) == []
        await nothing_left(system)


async def test_a_producer_that_refuses_and_ends_and_temporary():
    async with System() as system:
        producer = await system.start(Child(Leaving))
        assert await take([To(producer, cancel="temporary")], 10) == []
        await nothing_left(system)


async def test_a_producer_that_refuses_and_lives_and_temporary():
    """G112: nothing comes."""
    async with System() as system:
        producer = await system.start(Child(Source, dispatcher=Refusing()))
        assert await take([To(producer, cancel="temporary")], 10) == []
        assert producer.alive
        await nothing_left(system, producer)


async def test_stopping_early_does_not_end_the_producer():
    """G113: one over an iterable without end goes on where the stream has stopped."""
    async with System() as system:
        producer = await system.start(headgate.from_iterable(itertools.count()))
        assert await take([To(producer, cancel="transient")], 10) == list(range(10))
        await nothing_left(system, producer)
        assert await take([producer], 3) == [10, 11, 12]


@pytest.mark.parametrize("cancel", ["permanent", "transient", "temporary"])
@pytest.mark.parametrize("iterable", [range(10), list(range(10)), iter(range(10))], ids=["range", "list", "iterator"])
async def test_a_finite_iterable_ends_the_stream_and_its_producer(iterable, cancel):
    """G114: when everything has come."""
    iterable = range(10) if not hasattr(iterable, "__len__") else iterable  # an iterator serves one test only
    async with System() as system:
        producer = await system.start(headgate.from_iterable(iterable))
        assert await take([To(producer, cancel=cancel)]) == list(range(10))
        assert await producer.wait() == "normal"
        await nothing_left(system)


async def test_bad_options_are_an_error_that_names_the_producer():
    with refused(OptionError, "To('unknown'): expected option 'max_demand' to be an integer of at least 1, got: 0"):
        await take([To("unknown", max_demand=0)])
    async with System() as system:
        counter = await system.start(Child(Counter, name="counter"))
        with refused(OptionError, "To('counter')", "max_demand"):
            await take([To(counter, max_demand=0)])
        for wrong in (counter, "counter", ()):
            with refused(OptionError, "subscriptions"):
                await take(wrong)


async def test_a_slow_caller_slows_the_producer():
    """With max_demand 4 and min_demand 2, three events taken have asked for six."""
    log = Log()
    async with System() as system:
        counter = await system.start(Child(Counter, log))
        async with contextlib.aclosing(headgate.stream([To(counter, max_demand=4, min_demand=2)])) as events:
            assert [await anext(events) for _ in range(3)] == [0, 1, 2]
            await settle()
            assert batches(log, "demand") == [4, 2]


async def test_the_end_of_one_of_two_producers_does_not_end_the_stream():
    async with System() as system:
        first = await system.start(headgate.from_iterable([1, 2]))
        second = await system.start(Child(Source))
        async with contextlib.aclosing(headgate.stream([first, second])) as events:
            assert [await anext(events) for _ in range(2)] == [1, 2]
            following = asyncio.ensure_future(anext(events))
            assert await first.wait() == "normal"
            second.cast([3])
            assert await following == 3


async def test_a_crash_of_a_producer_is_raised_by_the_stream():
    async with System() as system:
        source = await system.start(Child(Source))
        async with contextlib.aclosing(headgate.stream([source])) as events:
            source.cast([1])
            assert await anext(events) == 1
            source.kill()
            with refused(StageCrashed, "killed"):
                await anext(events)
        with refused(StageCrashed, "killed"):
            await source.wait()
