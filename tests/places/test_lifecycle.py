# mypy: disable-error-code="union-attr,var-annotated"
"""Starting, stopping, killing; statistics that are true at every moment; nothing is left behind."""

import asyncio
import threading

import pytest

from headgate import Child, Consumer, Ignore, StageCrashed, Stop
from tests.places.helpers import (
    NEAR,
    System,
    To,
    calm,
    child,
    leftovers,
    run,
    shows,
    until,
)
from tests.places.stages import Closing, Collect, Counter, Emitter, Starting, Stopping, Times


def test_the_end_of_a_system_stops_everything(place):
    async def scenario():
        ends = []
        async with System() as system:
            counter = await system.start(child(place, Closing, ends))
            await system.start(child(place, Collect, subscribe_to=[To(counter, max_demand=5)]))
        assert ends == ["shutdown"]
        assert system.stages() == []

    run(scenario)


@pytest.mark.parametrize("reason", ["normal", "shutdown", ("shutdown", 5), "oops", None])
def test_a_stage_ends_with_the_reason_that_it_was_stopped_with(place, reason):
    async def scenario():
        ends = []
        async with System() as system:
            counter = await system.start(child(place, Closing, ends))
            assert await counter.stop(reason) == reason
            if reason in ("oops", None):
                with pytest.raises(StageCrashed):
                    await counter.wait()
        assert ends == [reason]

    run(scenario)


@pytest.mark.parametrize("reason", [["an", "object"], ValueError("given")], ids=["list", "error"])
def test_a_reason_that_somebody_outside_gave_is_no_news_to_them(place, reason):
    async def scenario():
        async with System() as system:
            counter = await system.start(child(place, Counter))
            sink = await system.start(child(place, Collect, subscribe_to=[To(counter, max_demand=5)]))
            await counter.stop(reason)
            await until(lambda: not sink.alive)

    run(scenario)  # and nothing is raised at its end


def test_a_kill_needs_no_terminate(place):
    async def scenario():
        ends = []
        async with System() as system:
            counter = await system.start(child(place, Closing, ends))
            counter.kill()
            with pytest.raises(StageCrashed, match="killed"):
                await counter.wait()
        assert ends == []

    run(scenario)


def test_a_stage_that_does_not_stop_in_time_is_killed_and_its_events_go_back():
    async def scenario():
        seen, entered = [], asyncio.Event()

        class Stuck(Consumer):
            async def handle_events(self, events, source):
                entered.set()
                await asyncio.Event().wait()

        async with System() as system:
            counter = await system.start(child("inline", Counter, 10))
            stuck = await system.start(Child(Stuck, subscribe_to=[counter]))
            await entered.wait()
            assert await stuck.stop(timeout=0.01) == "killed"
            with pytest.raises(StageCrashed):
                await stuck.wait()
            await (await system.start(child("inline", Collect, seen, subscribe_to=[counter]))).wait()
        assert seen == list(range(10))

    run(scenario)


def test_a_blocked_thread_is_given_up_and_its_events_go_back():
    async def scenario():
        seen, entered, go = [], threading.Event(), threading.Event()

        class Stuck(Consumer):
            def handle_events(self, events, source):
                entered.set()
                go.wait()

        async with System() as system:
            counter = await system.start(child("inline", Counter, 10))
            stuck = await system.start(child("thread", Stuck, subscribe_to=[counter]))
            await until(entered.is_set)
            assert await stuck.stop(timeout=0.01) == "killed"
            with pytest.raises(StageCrashed):
                await stuck.wait()
            await (await system.start(child("inline", Collect, seen, subscribe_to=[counter]))).wait()
            go.set()
        assert seen == list(range(10))

    run(scenario)


def test_started_has_run_when_start_returns(place):
    async def scenario():
        log = []
        async with System() as system:
            await system.start(child(place, Starting, None, log, name="one"))
            assert log == ["one"]

    run(scenario)


def test_a_stage_may_decide_not_to_run(place):
    async def scenario():
        async with System() as system:
            with pytest.raises(Ignore):
                await system.start(child(place, Starting, Ignore()))
            with pytest.raises(StageCrashed):
                await system.start(child(place, Starting, Stop("oops")))
            ref = await system.start(child(place, Starting, Stop()))
            assert (ref.alive, ref.reason) == (False, "normal")
            assert system.stages() == []

    run(scenario)


def test_a_stage_may_stop_by_itself_and_gives_back_what_it_did_not_handle(place):
    async def scenario():
        first, second = [], []
        async with System() as system:
            counter = await system.start(child(place, Counter, 50))
            stopping = await system.start(child(place, Stopping, first, subscribe_to=[To(counter, max_demand=10)]))
            assert await stopping.wait() == "normal"
            await system.start(child(place, Collect, second, subscribe_to=[counter]))
            await system.wait()
        assert len(first) == 10
        assert first + second == list(range(50))

    run(scenario)


def test_statistics_are_true_at_several_moments(place):
    async def scenario():
        async with System() as system:
            source = await system.start(child(place, Emitter, name="source"))
            times = await system.start(
                child(place, Times, 1, 2, name="times", subscribe_to=[To(source, max_demand=10)])
            )
            sink = await system.start(child(place, Collect, name="sink"))
            subscription = await sink.subscribe(times, mode="manual")
            await calm(source, times, sink)

            read = await source.statistics()
            assert (read.demand, read.emitted, read.delivered, read.buffered) == (10, 0, 0, 0)
            source.cast(list(range(12)))
            await shows(source, lambda read: read.emitted == 12)
            await calm(source, times, sink)
            read = await source.statistics()
            assert (read.demand, read.delivered, read.in_flight, read.buffered, read.handled) == (0, 10, 10, 2, 0)
            assert (await times.statistics()).waiting == 10

            sink.ask(subscription, 4)
            await shows(sink, lambda read: read.handled == 4)
            await calm(source, times, sink)
            numbers = {name: await read for name, read in system.statistics().items()}
            assert list(numbers) == ["source", "times", "sink"]
            middle = numbers["times"]
            assert middle.emitted == middle.delivered + middle.buffered
            assert middle.consumers[0].sent == 4
            assert middle.emitted == 2 * middle.handled
            assert numbers["source"].emitted == 12 == numbers["source"].delivered + numbers["source"].buffered
            assert (await sink.statistics()).handled == 4

            sink.ask(subscription, 100)
            await shows(sink, lambda read: read.handled == 24)
            await shows(source, lambda read: read.handled == 12)
            read = await source.statistics()
            assert (read.in_flight, read.buffered, read.demand) == (0, 0, 8)
            assert (await times.statistics()).in_flight == 0

    run(scenario)


def test_a_stage_that_is_started_and_stopped_many_times_leaves_nothing(place):
    async def scenario():
        async with System() as system:
            counter = await system.start(child(place, Counter))
            for _ in range(50):
                sink = await system.start(child(place, Collect, name="sink", subscribe_to=[To(counter, max_demand=3)]))
                await sink.stop()
            await calm(counter)
            assert (await counter.statistics()).consumers == ()
            if place in NEAR:
                core = counter.driver.core
                assert not core.out.subscribers
                assert not core.out.closing
            assert len(system.stages()) == 1
            await until(lambda: len(leftovers()) <= 1)

    run(scenario)
