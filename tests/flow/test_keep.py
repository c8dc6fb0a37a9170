"""`StageContext.keep` and `again`: a middle stage that adds up what it gets, one that handles events bit by bit."""

import asyncio
from typing import Any

import pytest

from headgate import Child, Consumer, HandlerError, ProducerConsumer, StageCrashed, System, To, from_iterable
from headgate.flow.exchange import End, Packet, Spread, SpreadDispatcher, WorkDispatcher
from headgate.testing import run


class Adding(ProducerConsumer):
    """Adds up, and gives the sum when it is told to."""

    def __init__(self):
        self.total = 0

    def handle_events(self, events, source):
        self.stage.keep()
        self.total += sum(events)

    def handle_call(self, request):
        self.stage.emit([self.total] if request == "give" else [], settles=True)
        self.total = 0


class Keep(Consumer):
    """Writes down what it gets."""

    def __init__(self, got):
        self.got = got

    def handle_events(self, events, source):
        self.got.extend(events)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


@pytest.mark.parametrize("place", ["inline", "thread"])
def test_what_is_kept_is_acknowledged_with_what_was_made_of_it(place):
    async def main():
        got: list[Any] = []
        async with System() as system:
            source = await system.start(from_iterable(range(100), demand="accumulate"))
            adding = await system.start(Child(Adding, place=place, subscribe_to=[To(source, max_demand=10)]))
            await system.start(Child(Keep, got, subscribe_to=[adding]))
            source.set_demand("forward")
            await until(lambda: adding.statistics().handled == 100)
            await asyncio.sleep(0)
            assert source.statistics().in_flight == 100
            assert source.alive
            await adding.call("give")
            await until(lambda: not source.alive)
            assert got == [4950]

    asyncio.run(main())


def test_what_is_kept_goes_to_others_when_the_stage_dies():
    async def main():
        got: list[Any] = []
        async with System() as system:
            source = await system.start(from_iterable(range(100), demand="accumulate"))
            first = await system.start(Child(Adding, subscribe_to=[To(source, max_demand=100, cancel="temporary")]))
            await system.start(Child(Keep, [], subscribe_to=[To(first, cancel="temporary")]))
            source.set_demand("forward")
            await until(lambda: first.statistics().handled == 100)
            first.kill()
            with pytest.raises(StageCrashed):
                await first.wait()
            second = await system.start(Child(Adding, subscribe_to=[source]))
            await system.start(Child(Keep, got, subscribe_to=[second]))
            await until(lambda: second.statistics().handled == 100)
            await second.call("give")
            await until(lambda: not source.alive)
            assert got == [4950]
            await system.stop()

    run(main())


def test_nothing_made_of_it_settles_it_as_well():
    async def main():
        async with System() as system:
            source = await system.start(from_iterable(range(10), demand="accumulate"))
            adding = await system.start(Child(Adding, subscribe_to=[source]))
            await system.start(Child(Keep, [], subscribe_to=[adding]))
            source.set_demand("forward")
            await until(lambda: adding.statistics().handled == 10)
            await adding.call("forget")
            await until(lambda: not source.alive)

    run(main())


class Bits(ProducerConsumer):
    """Gives each event as many times as it says, one at a time."""

    def __init__(self, calls):
        self.calls = calls
        self.given = 0

    def handle_events(self, events, source):
        self.calls.append(list(events))
        first = events[0]
        self.given += 1
        if self.given < first:
            self.stage.again(events)
        else:
            self.given = 0
            if len(events) > 1:
                self.stage.again(events[1:])
        return [first]


@pytest.mark.parametrize("place", ["inline", "thread"])
def test_an_event_is_handled_bit_by_bit_as_its_results_are_wanted(place):
    async def main():
        got: list[Any] = []
        calls: list[Any] = []
        async with System() as system:
            source = await system.start(from_iterable([3, 1, 2, 5], demand="accumulate"))
            bits = await system.start(Child(Bits, calls, place=place, subscribe_to=[To(source, max_demand=4)]))
            keep = await system.start(Child(Keep, got, subscribe_to=[To(bits, mode="manual")]))
            source.set_demand("forward")
            (subscription,) = bits.driver.context.consumers
            keep.ask(subscription, 2)
            await until(lambda: len(got) == 2)
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(calls) == 2
            assert source.statistics().in_flight == 4
            keep.ask(subscription, 9)
            await until(lambda: len(got) == 11)
            assert got == [3, 3, 3, 1, 2, 2, 5, 5, 5, 5, 5]
            await until(lambda: not source.alive)

    asyncio.run(main())


def test_there_has_to_be_a_batch():
    class Early(Adding):
        def started(self):
            self.stage.keep()

    async def main():
        async with System() as system:
            with pytest.raises(StageCrashed) as caught:
                await (await system.start(Child(Early))).wait()
            assert isinstance(caught.value.__cause__, HandlerError)

    run(main())


def test_a_spread_goes_to_all_of_its_lanes_when_all_want_something():
    async def main():
        one: list[Any] = []
        two: list[Any] = []
        async with System() as system:
            spreads = [Spread({"a": Packet([n]), **({"b": Packet([-n])} if n % 2 else {})}) for n in range(10)]
            recipe = from_iterable(spreads, demand="accumulate", dispatcher=SpreadDispatcher(("a", "b")))
            source = await system.start(recipe)
            await system.start(Child(Keep, one, subscribe_to=[To(source, partition="a")]))
            source.set_demand("forward")
            for _ in range(10):
                await asyncio.sleep(0)
            assert one == []  # nobody takes what is for the other lane
            late = await system.start(Child(Keep, two, subscribe_to=[To(source, partition="b", mode="manual")]))
            late.ask(source.driver.context.consumers[1], 3)
            await until(lambda: len(two) == 3)
            assert [each.events[0] for each in one] == [0, 1, 2, 3, 4, 5]
            late.ask(source.driver.context.consumers[1], 20)
            await until(lambda: not source.alive)
            assert [each.events[0] for each in one] == list(range(10))
            assert [each.events[0] for each in two] == [-1, -3, -5, -7, -9]

    run(main())


def test_the_last_word_of_a_source_goes_to_all_and_work_that_comes_back_to_others():
    async def main():
        got: list[Any] = []
        gone: list[Any] = []
        async with System() as system:
            work = [1, 2, 3, 4, End(0)]
            recipe = from_iterable(
                work, demand="accumulate", dispatcher=WorkDispatcher(lambda name, total: gone.append((name, total)))
            )
            source = await system.start(recipe)
            first = await system.start(
                Child(Adding, name="first", subscribe_to=[To(source, max_demand=2, min_demand=1, cancel="temporary")])
            )
            await system.start(Child(Keep, [], subscribe_to=[To(first, cancel="temporary")]))
            await system.start(Child(Keep, got, subscribe_to=[To(source, max_demand=2, min_demand=1)]))
            source.set_demand("forward")
            await until(lambda: got[-1:] == [End(0)])
            first.kill()
            with pytest.raises(StageCrashed):
                await first.wait()
            await until(lambda: not source.alive)
            assert sorted(each for each in got if type(each) is int) == [1, 2, 3, 4]
            assert gone == [("first", 0)]

    run(main())
