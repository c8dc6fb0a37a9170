# mypy: disable-error-code="assignment,var-annotated"
"""Ends of streams: finish through chains, iterables of every kind, and `stream`."""

import asyncio
import contextlib
import inspect

import numpy as np
import pytest

from headgate import Child, CrossingError, OptionError, StageCrashed, SubscriptionError, from_iterable, stream
from headgate import sources as source_module
from tests.places.helpers import (
    NEAR,
    System,
    To,
    calm,
    child,
    clear,
    lend,
    run,
    shows,
    spot,
    spread,
    until,
)
from tests.places.stages import Collect, Counter, Emitter, Ending, Lines, Times

aclosing = contextlib.aclosing


def test_the_end_of_a_stream_travels_through_a_chain_when_all_is_handled(place):
    async def scenario():
        seen, ends = [], []
        async with System() as system:
            counter = await system.start(child(place, Counter, 100))
            stage = counter
            for _ in range(3):
                stage = await system.start(child(place, Ending, ends, subscribe_to=[To(stage, max_demand=10)]))
            sink = await system.start(child(place, Collect, seen, subscribe_to=[To(stage, max_demand=10)]))
            await system.wait()
            assert [ref.reason for ref in (counter, stage, sink)] == ["normal"] * 3
        assert seen == list(range(100))
        assert ends == ["normal"] * 3

    run(scenario)


def test_a_finished_producer_waits_for_a_consumer_of_what_it_has(place):
    async def scenario():
        seen = []
        async with System() as system:
            counter = await system.start(child(place, Counter, 5))
            sink = await system.start(child(place, Collect, seen))
            subscription = await sink.subscribe(counter, mode="manual")
            sink.ask(subscription, 5)
            await until(lambda: not counter.alive)
            assert seen == [0, 1, 2, 3, 4]
            await until(lambda: not sink.alive)

    run(scenario)


@spread([(3, 50), (50, 3), (0, 5), (1, 1)])
def test_a_consumer_of_several_streams_ends_with_the_last(place, cases):
    async def scenario():
        async with System() as system:
            for ends in cases:
                seen = []
                counters = [await system.start(child(place, Counter, end, demand="accumulate")) for end in ends]
                sink = await system.start(child(place, Collect, seen, subscribe_to=counters))
                for counter in counters:
                    counter.set_demand("forward")
                await system.wait()
                assert sink.reason == "normal"
                assert sorted(seen) == sorted(number for end in ends for number in range(end))
                await clear(system)

    run(scenario)


ITERABLES = {
    "list": lambda: list(range(50)),
    "tuple": lambda: tuple(range(50)),
    "range": lambda: range(50),
    "numpy": lambda: np.arange(50),
    "generator": lambda: (number for number in range(50)),
    "set": lambda: set(range(50)),
    "dict": lambda: dict.fromkeys(range(50)),
    "own": lambda: Lines(50),
}


@pytest.mark.parametrize("make", ITERABLES.values(), ids=ITERABLES.keys())
def test_every_iterable_is_given_whole_and_ends(place, make):
    async def scenario():
        async with System() as system:
            if place == "process" and inspect.isgenerator(make()):
                with pytest.raises(CrossingError, match=r"argument 1 .*generator"):
                    await system.start(from_iterable(make(), place=spot(place)))
                return
            for most in (1, 7, 1000):
                seen = []
                source = await system.start(from_iterable(make(), place=spot(place)))
                sink = await system.start(child(place, Collect, seen, subscribe_to=[To(source, max_demand=most)]))
                assert await sink.wait() == "normal"
                assert sorted(map(int, seen)) == list(range(50))
            await system.wait()

    run(scenario)


def test_an_empty_iterable_ends_at_once(place):
    async def scenario():
        async with System() as system:
            for empty in ([], (), range(0), iter([]), np.arange(0), ""):
                seen = []
                source = await system.start(from_iterable(empty, place=spot(place)))
                sink = await system.start(child(place, Collect, seen, subscribe_to=[source]))
                assert await sink.wait() == "normal"
                assert seen == []
            await system.wait()

    run(scenario)


def test_elements_are_taken_only_as_they_are_asked_for(place):
    async def scenario():
        given, seen = [], []
        async with System() as system:
            source = await system.start(from_iterable(Lines(1000, lend(place, given)), place=spot(place)))
            sink = await system.start(child(place, Collect, seen))
            subscription = await sink.subscribe(source, mode="manual")
            await calm(source, sink)
            assert not given
            sink.ask(subscription, 7)
            await until(lambda: len(seen) == 7)
            assert len(given) == 7

    run(scenario)


@spread([0, 1, 5, 500])
def test_an_iterable_that_raises_gives_what_came_before_and_crashes(place, cases):
    async def scenario():
        async with System() as system:
            for count in cases:
                seen = []
                source = await system.start(from_iterable(Lines(count, broken=True), place=spot(place), name="lines"))
                await system.start(
                    child(place, Collect, seen, subscribe_to=[To(source, max_demand=1000, cancel="temporary")])
                )
                with pytest.raises(StageCrashed, match="lines") as caught:
                    await source.wait()
                assert str(caught.value.__cause__) == "broken"
                await until(lambda seen=seen, count=count: len(seen) == count)
                await clear(system)

    run(scenario)


@pytest.mark.parametrize("place", NEAR)  # the clock is that of this process
def test_a_slow_iterable_gives_what_it_has(monkeypatch, place):
    """It does not wait until it has all that was asked for; the clock stands for the time that `next` takes."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()

    def slow():
        for number in range(20):
            clock.now += 1.0
            yield number

    async def scenario():
        seen, batches = [], []
        async with System() as system:
            source = await system.start(from_iterable(slow(), place=place))
            await system.start(child(place, Collect, seen, batches, subscribe_to=[To(source, max_demand=1000)]))
            await system.wait()
        assert seen == list(range(20))
        assert len(batches) == 20

    monkeypatch.setattr(source_module, "time", clock)
    run(scenario)


@pytest.mark.parametrize(("on_cancel", "lives"), [("continue", True), ("stop", False)])
def test_what_happens_when_the_last_consumer_leaves(place, on_cancel, lives):
    async def scenario():
        async with System() as system:
            source = await system.start(from_iterable(range(10**9), on_cancel=on_cancel, place=spot(place)))
            sinks = [await system.start(child(place, Collect)) for _ in range(2)]
            subscriptions = [await sink.subscribe(source, mode="manual") for sink in sinks]
            sinks[0].cancel(subscriptions[0])
            await calm(source, *sinks)
            assert source.alive
            sinks[1].cancel(subscriptions[1])
            await until(lambda: source.alive is lives)
            await calm(*sinks)
            assert source.alive is lives

    run(scenario)


def test_an_async_iterable():
    async def numbers():
        for number in range(100):
            if number % 10 == 0:
                await asyncio.sleep(0)
            yield number

    async def scenario():
        seen = []
        async with System() as system:
            source = await system.start(from_iterable(numbers()))
            await system.start(child("task", Collect, seen, subscribe_to=[To(source, max_demand=7)]))
            await system.wait()
        assert seen == list(range(100))

    run(scenario)


def test_a_slow_async_iterable_gives_what_it_has_and_is_closed_when_stopped():
    async def scenario():
        seen, closed, go = [], [], asyncio.Event()

        async def numbers():
            try:
                yield 1
                yield 2
                await go.wait()
                yield 3
                await asyncio.Event().wait()
            finally:
                closed.append(True)

        async with System() as system:
            source = await system.start(from_iterable(numbers()))
            await system.start(child("inline", Collect, seen, subscribe_to=[source]))
            await until(lambda: seen == [1, 2])
            go.set()
            await until(lambda: seen == [1, 2, 3])
        assert closed == [True]

    run(scenario)


def test_an_async_iterable_that_raises_gives_what_came_before_and_crashes():
    async def numbers():
        yield 1
        yield 2
        raise ValueError("broken")

    async def scenario():
        seen = []
        async with System() as system:
            source = await system.start(from_iterable(numbers()))
            await system.start(child("inline", Collect, seen, subscribe_to=[To(source, cancel="temporary")]))
            with pytest.raises(StageCrashed, match="broken"):
                await source.wait()
            await until(lambda: seen == [1, 2])

    run(scenario)


# --- stream -----------------------------------------------------------------------------------------------------------


def test_a_stream_gives_everything_and_ends(place):
    async def scenario():
        async with System() as system:
            counter = await system.start(child(place, Counter, 100))
            times = await system.start(child(place, Times, 2, subscribe_to=[counter]))
            async with aclosing(stream([To(times, max_demand=7)])) as events:
                seen = [event async for event in events]
            assert seen == list(range(0, 200, 2))
            await system.wait()

    run(scenario)


@spread([(30, 50), (1, 50), (3, 3), (0, 2)])
def test_a_stream_of_several_producers_ends_with_the_last(place, cases):
    async def scenario():
        async with System() as system:
            for ends in cases:
                counters = [await system.start(child(place, Counter, end)) for end in ends]
                async with aclosing(stream(counters)) as events:
                    seen = [event async for event in events]
                assert sorted(seen) == sorted(number for end in ends for number in range(end))
                await clear(system)

    run(scenario)


def test_leaving_a_stream_hands_back_the_rest(place):
    async def scenario():
        seen = []
        async with System() as system:
            counter = await system.start(child(place, Counter, 40))
            first = []
            async with aclosing(stream([To(counter, max_demand=20)])) as events:
                async for event in events:
                    first.append(event)
                    if event == 6:
                        break
            await system.start(child(place, Collect, seen, subscribe_to=[counter]))
            await system.wait()
        assert first == list(range(7))
        assert seen == list(range(7, 40))

    run(scenario)


def test_a_slow_reader_slows_the_producer(place):
    async def scenario():
        demands = []
        async with System() as system:
            counter = await system.start(child(place, Counter, None, demands))
            async with aclosing(stream([To(counter, max_demand=4, min_demand=2)])) as events:
                for _ in range(3):
                    await anext(events)
                await calm(counter)
                assert sum(demands) == 6, "genstage.md GS-125"

    run(scenario)


def test_a_stream_raises_what_its_producer_crashed_with(place):
    async def scenario():
        async with System() as system:
            source = await system.start(from_iterable(Lines(0, broken=True), place=spot(place), demand="accumulate"))
            with pytest.raises(StageCrashed) as caught:
                async with aclosing(stream([source])) as events:
                    [event async for event in events]
            cause = caught.value
            while isinstance(cause, StageCrashed):
                cause = cause.__cause__
            assert str(cause) == "broken"

    run(scenario)


def test_a_temporary_stream_just_ends(place):
    async def scenario():
        async with System() as system:
            source = await system.start(child(place, Emitter))
            events = stream([To(source, cancel="temporary")])
            reading = asyncio.ensure_future(anext(events, "the end"))
            await shows(source, lambda read: read.consumers)
            with contextlib.suppress(StageCrashed):
                await source.stop("oops")
                await source.wait()
            assert await reading == "the end"
            await events.aclose()

    run(scenario)


def test_a_stream_of_nobody(place):
    async def scenario():
        async with System() as system:
            source = await system.start(child(place, Emitter, name="source"))
            await source.stop()
            for what in (source, "unknown"):
                with pytest.raises(SubscriptionError):
                    await anext(stream([what], system=system))
            async with aclosing(stream([To(source, cancel="temporary")])) as events:
                assert [event async for event in events] == []
            living = await system.start(child(place, Emitter))
            with pytest.raises(OptionError):
                await anext(stream([living], demand="fast"))

    run(scenario)


def test_a_stream_lets_an_accumulating_producer_go(place):
    async def scenario():
        async with System() as system:
            counter = await system.start(child(place, Counter, 10, demand="accumulate"))
            async with aclosing(stream([counter])) as events:
                assert [event async for event in events] == list(range(10))

    run(scenario)


def test_a_recipe_of_an_iterable_is_an_ordinary_one():
    recipe = from_iterable([1], name="lines", buffer_size=5, dispatcher="broadcast")
    assert isinstance(recipe, Child)
    assert (recipe.name, recipe.id, recipe.buffer_size) == ("lines", "lines", 5)
