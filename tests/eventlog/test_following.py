"""A producer that follows a log: bounds that are still to come, reads that fail, and stages that are started again."""

import asyncio
from datetime import UTC, datetime

import pytest

import headgate
from headgate import Child, Consumer, DamagedLogError, PartitionDispatcher, Supervisor, System, To, testing
from headgate.eventlog import Event, EventLog, Projection
from tests.eventlog.conftest import run
from tests.eventlog.test_faults_groups import events, numbers
from tests.eventlog.test_groups_outage import fails
from tests.eventlog.test_stages import Take, taking


def at(seconds):
    return datetime.fromtimestamp(seconds, UTC)


async def given(log, events_later, **options):
    """What a producer gives of what is there and of what is appended once it has started; it has to finish."""
    async with System() as system:
        ref = await system.start(log.producer(**options))
        for each in events_later:
            await each()
        found = [event async for event in headgate.stream([To(ref, max_demand=2)])]
    return numbers(found)


@pytest.mark.parametrize("checkpoint", [None, "there"])
def test_from_the_end_up_to_a_position(place, checkpoint):
    @run
    async def _():
        async with place.log() as log:
            await log.append("a", events(1, 2))
            await log.save_checkpoint("there", 2)

            async def append():
                await log.append("a", events(3, 4, 5))

            assert await given(log, [append], start="end", until=4, checkpoint=checkpoint) == [3, 4]


@pytest.mark.parametrize("live", [True, False])
def test_bounds_that_are_times_still_to_come(place, live):
    now = 1000.0

    @run
    async def _():
        nonlocal now

        def appending(*moments):
            async def append():
                nonlocal now
                for each in moments:
                    now = each
                    await log.append("a", events(int(each)))

            return append

        async with place.log(clock=lambda: now) as log:
            await appending(1000)()
            later = [appending(1001, 1002, 1003, 1004)]
            bounds = {"start": at(1002), "until": at(1003)}
            assert await given(log, later, live=live, **bounds) == ([1002, 1003] if live else [])
            assert await given(log, [], live=live, **bounds) == [1002, 1003], "as when the times are over"
            now = 1010.0
            later = [appending(1011, 1012, 1013)]
            assert await given(log, later, start="end", until=at(1012), live=live) == ([1011, 1012] if live else [])


def test_times_that_come_while_it_waits(place):
    """Each event comes when the producer has given all that came before."""
    now = 1000.0

    @run
    async def _():
        nonlocal now
        async with place.log(clock=lambda: now) as log, System() as system:
            found = []
            ref = await system.start(log.producer(start=at(1002), until=at(1004)))
            stream = headgate.stream([To(ref, max_demand=1)])
            for moment in (1001, 1002, 1004):
                now = moment
                await log.append("a", events(moment))
                if moment >= 1002:
                    found.append(await anext(stream))
            now = 1005
            await log.append("a", events(1005))
            found += [event async for event in stream]
            assert numbers(found) == [1002, 1004]


def test_when_nothing_comes_it_finishes_all_the_same():
    async def main():
        loop = asyncio.get_running_loop()
        async with EventLog(":memory:", clock=lambda: 1e9 + loop.time()) as log:
            await log.append("a", events(1))
            assert await given(log, [], until=at(1e9 + 60)) == [1]
            assert 60 < loop.time() < 61

    testing.run(main())


@pytest.mark.slow
def test_when_nothing_comes_it_finishes_on_a_server(place):
    """By its clock, and behind those who append at that moment."""

    @run
    async def _():
        async with place.log() as log:
            await log.append("a", events(1))
            assert await given(log, [], until=datetime.now(UTC)) == [1]


@pytest.mark.parametrize("what", ["head", "read"])
def test_a_read_that_fails_is_tried_again(place, what):
    @run
    async def _():
        async with place.log() as log:
            got, done = taking()
            stages = [
                log.producer(name="log", batch=2),
                Child(Take, got, 3, done, subscribe_to=[To("log", max_demand=10)]),
            ]
            async with Supervisor(stages, max_restarts=0):
                fails(log.store, what, 2)
                await log.append("a", events(1, 2, 3))
                await done
            assert numbers(got) == [1, 2, 3]


def test_a_page_that_fails_is_not_passed_over(place):
    @run
    async def _():
        async with place.log() as log:
            await log.append("a", events(1, 2, 3))
            got, done = taking()
            fails(log, "page", 1)
            stages = [log.producer(name="log"), Child(Take, got, 3, done, subscribe_to=["log"])]
            async with Supervisor(stages, max_restarts=0):
                await done
            assert numbers(got) == [1, 2, 3]


# -- started again ----------------------------------------------------------------------------------------------------


def crash_once(log):
    """The next look for rows finds the log damaged: nothing that passes."""
    original = log.rows

    async def rows(*given):
        log.rows = original
        raise DamagedLogError(log.store.name, "it is damaged")

    log.rows = rows


@pytest.mark.parametrize("start", ["end", None, 1])
def test_a_producer_that_is_started_again_goes_on_where_it_was(place, start):
    @run
    async def _():
        async with place.log() as log:
            got, done = taking()
            stages = [
                log.producer(name="log", start=start),
                Child(Take, got, 6, done, subscribe_to=[To("log", max_demand=10)]),
            ]
            async with Supervisor(stages):
                for number in range(1, 7):
                    if number % 2:
                        crash_once(log)
                    await log.append("a", events(number))
                    while len(got) < number:
                        await asyncio.sleep(0)
                await done
            assert sorted(set(numbers(got))) == [1, 2, 3, 4, 5, 6]
            assert len(got) <= 6 + 3, "what was under way at a crash may come twice, and no more than that"


class Failing(Consumer):
    """Fails once with the third event, in the midst of a batch."""

    def __init__(self, got, wanted, done, failed):
        self.got, self.wanted, self.done, self.failed = got, wanted, done, failed

    def handle_events(self, events, source):
        for event in events:
            if event.data["n"] == 3 and not self.failed:
                self.failed.append(event)
                raise ValueError("once")
            self.got.append(event)
        if len(set(numbers(self.got))) >= self.wanted and not self.done.done():
            self.done.set_result(None)


@pytest.mark.parametrize("dispatcher", [None, PartitionDispatcher(1, hash=lambda event: 0)])
@pytest.mark.parametrize("start", ["end", None])
def test_what_was_not_acknowledged_comes_again_when_all_are_started_again(place, start, dispatcher):
    @run
    async def _():
        async with place.log() as log:
            got, done = taking()
            failed: list[object] = []
            to = To("log", max_demand=4, partition=0 if dispatcher else None)
            stages = [
                log.producer(name="log", start=start, dispatcher=dispatcher),
                Child(Failing, got, 20, done, failed, subscribe_to=[to]),
            ]
            async with Supervisor(stages, strategy="one_for_all"):
                for number in range(1, 21):
                    await log.append("a", events(number))
                await done
            assert failed
            assert sorted(set(numbers(got))) == list(range(1, 21))


def test_one_that_was_killed_loses_nothing(place):
    @run
    async def _():
        async with place.log() as log:
            got, done = taking()
            stages = [
                log.producer(name="log", start="end"),
                Child(Take, got, 2, done, subscribe_to=[To("log", max_demand=10)]),
            ]
            async with Supervisor(stages) as running:
                await log.append("a", events(1))
                running.child("log").kill()
                await log.append("a", events(2))
                while len(set(numbers(got))) < 2:
                    await asyncio.sleep(0)
            assert sorted(set(numbers(got))) == [1, 2]


def test_what_has_finished_begins_anew(place):
    @run
    async def _():
        async with place.log() as log, System() as system:
            await log.append("a", events(1, 2, 3))
            recipe = log.producer(name="log", live=False)
            for _ in range(2):
                ref = await system.start(recipe)
                found = [event async for event in headgate.stream([To(ref, max_demand=2)])]
                assert numbers(found) == [1, 2, 3]


# -- what a projection learns -----------------------------------------------------------------------------------------


def count(state, event):
    return {"n": (state or {}).get("n", 0) + 1}


def test_a_projection_of_some_types_is_not_behind_for_the_others(place):
    @run
    async def _():
        async with place.log() as log:
            projector = log.projector(Projection("counts", count, types=["mine"]))
            async with Supervisor(projector.stages(), max_restarts=0):
                for step in range(1, 4):
                    await log.append("a", [Event("mine", {})])
                    await log.append("a", [Event("other", {}) for _ in range(50)])
                    while (await projector.lag()).positions:
                        await asyncio.sleep(0)
                    assert (await projector.get("a"))["n"] == step


def test_who_learns_how_far_was_looked_and_has_seen_nothing_catches_up(place):
    @run
    async def _():
        async with place.log() as log:
            await log.append("a", [Event("mine", {}), Event("other", {}), Event("mine", {})])
            projector = log.projector(Projection("counts", count, types=["mine"]))
            await projector.handle([], upto=3)
            assert await projector.get("a") == {"n": 2}
            assert (await projector.lag()).positions == 0
