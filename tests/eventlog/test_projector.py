"""A projector under hard use: by several tasks, cancelled, taken over, and swapped by a rebuild at any moment."""

import asyncio
import contextlib
import itertools

import pytest

from headgate import EventLog, EventLogError, FencedError, OptionError
from headgate.eventlog import Event, Projection
from tests.eventlog.conftest import run


def count(state, event):
    return {"n": state.get("n", 0) + 1}


def counts(logic="1", function=count):
    return Projection("counts", function, logic=logic)


async def fill(log, number, stream="a"):
    await log.append(stream, [Event("t", {}) for _ in range(number)])


@contextlib.contextmanager
def cancelled_at(log, number):
    """The task that runs this transaction of the log is cancelled when it is under way."""
    transact, numbers = log.store.transact, itertools.count(1)

    async def cancelling(statements):
        task = asyncio.current_task()
        if next(numbers) == number and task is not None:
            task.cancel()
        return await transact(statements)

    log.store.transact = cancelling
    try:
        yield
    finally:
        log.store.transact = transact


def test_several_at_once_on_one_projector_fold_each_event_once(place):
    @run
    async def _():
        async with place.log() as log:
            await fill(log, 300)
            for batch in (7, 30, 99):
                projector = log.projector(Projection(f"p{batch}", count), batch=batch)
                events = await log.read().all()
                done = [projector.catch_up(), projector.handle(events), projector.take_up(), projector.catch_up(250)]
                await asyncio.gather(*done, projector.rebuild(), *(projector.catch_up() for _ in range(3)))
                await projector.catch_up()
                assert await projector.get("a") == {"n": 300}


def test_whatever_is_cancelled_counts_nothing_twice_and_leaves_nothing_out(place):
    """Cancelled while each of its transactions is under way, which go on in a thread, or end in the server."""

    @run
    async def _():
        async with place.log() as log:
            await fill(log, 40)
            projector = log.projector(counts(), batch=5)
            for number in range(1, 12):
                with cancelled_at(log, number), contextlib.suppress(asyncio.CancelledError):
                    await asyncio.create_task(projector.catch_up())
                await fill(log, 3)
            await projector.catch_up()
            assert await projector.get("a") == {"n": 73}


def test_one_who_takes_up_what_is_just_swapped_keeps_the_new_states(shared):
    @run
    async def _():
        async with shared.log() as log:
            await fill(log, 10)
            projector, other = log.projector(counts()), log.projector(counts())
            await other.catch_up()
            entered = projector._entered

            async def swapped():
                found = await entered()
                projector._entered = entered
                await other.rebuild()
                return found

            projector._entered = swapped
            await projector.take_up()
            await fill(log, 5)
            await projector.catch_up()
            assert await projector.get("a") == {"n": 15}
            assert await projector.position() == 15


def test_it_is_taken_over_from_one_who_is_in_the_middle_of_it(place):
    @run
    async def _():
        async with place.log() as log:
            await fill(log, 10)
            one, two = log.projector(counts()), log.projector(counts())
            await one.catch_up(3)
            entered = two._entered

            async def moved():
                found = await entered()
                await one.catch_up(6)
                return found

            two._entered = moved
            assert await two.take_up() == 6
            with pytest.raises(FencedError):
                await one.catch_up()
            await two.catch_up()
            assert await two.get("a") == {"n": 10}


def test_a_rebuild_that_was_cancelled_anywhere_does_not_stand_in_the_way(place):
    @run
    async def _():
        async with place.log() as log:
            await fill(log, 20)
            projector = log.projector(counts(), batch=5)
            for number in range(1, 12):
                with cancelled_at(log, number), contextlib.suppress(asyncio.CancelledError):
                    await asyncio.create_task(projector.rebuild())
                assert await projector.rebuild() == 20
                assert await projector.get("a") == {"n": 20}


def test_what_is_handled_is_what_it_is_about_whatever_it_is_given(place):
    @run
    async def _():
        async with place.log() as log:
            await log.append_all([("a", [Event("t", {}), Event("u", {})]), ("b", [Event("t", {})])])
            projector = log.projector(Projection("p", count, streams="a", types="t"))
            events = await log.read().all()
            assert await projector.handle(events, upto=1) == 1
            assert await projector.position() == 3, "what was given is behind it, or it would be counted again"
            assert await projector.handle(events, upto=7) == 0
            assert await projector.all() == {"a": {"n": 1}}
            assert await projector.position() == 7


def test_one_who_has_seen_all_learns_that_what_is_read_by_now_is_behind(place):
    @run
    async def _():
        async with place.log() as log:
            await fill(log, 10)
            projector = log.projector(counts())
            await projector.catch_up()
            assert await projector.catch_up() == 0
            await log.projector(counts()).rebuild(until=5)
            with pytest.raises(FencedError):
                await projector.catch_up()
            assert await projector.catch_up() == 5
            assert await projector.stored() == (10, {"a": {"n": 10}})


def test_what_is_missing_before_a_batch_is_read(place):
    """As when somebody has swapped states that are behind those that were kept."""

    @run
    async def _():
        async with place.log() as log:
            await fill(log, 20)
            projector = log.projector(counts(), batch=3)
            await projector.catch_up()
            await log.projector(counts()).rebuild(until=8)
            await fill(log, 5)
            assert await projector.take_up() == 8
            assert await projector.handle(await log.read(start=21).all()) == 17
            assert await projector.get("a") == {"n": 25}
            await log.projector(counts()).rebuild(until=8)
            await projector.take_up()
            assert await projector.handle([], upto=22) == 14
            assert await projector.stored() == (22, {"a": {"n": 22}})


@pytest.mark.parametrize("until", [-1, "5", True, 1.5])
def test_where_it_is_to_catch_up_to_is_checked(until):
    @run
    async def _():
        async with EventLog(":memory:") as log:
            for make in (log.projector(counts()).catch_up, log.projector(counts()).rebuild):
                with pytest.raises(OptionError, match="'until' to be an integer from 0 to "):
                    await make(until=until)


def test_a_first_rebuild_that_failed_leaves_nothing_to_another_logic(place):
    def fails(state, event):
        if event.position == 8:
            raise ValueError("8")
        return {"n": state.get("n", 0) + 100}

    @run
    async def _():
        async with place.log() as log:
            await fill(log, 10)
            with pytest.raises(ValueError, match="8"):
                await log.projector(counts("2", fails), batch=5).rebuild()
            old = log.projector(counts("1"))
            assert await old.all() == {}
            with pytest.raises(EventLogError, match="logic '2', and this is '1'"):
                await old.catch_up()
            await old.rebuild()
            assert await old.all() == {"a": {"n": 10}}


def test_a_projector_goes_on_while_it_is_rebuilt_and_with_the_new_states(place):
    @run
    async def _():
        async with place.log() as log:
            await fill(log, 100)
            projector = log.projector(counts(), batch=5)
            rebuilding = asyncio.create_task(projector.rebuild())
            while not rebuilding.done():
                await fill(log, 1)
                await projector.catch_up()
            await rebuilding
            await projector.catch_up()
            assert await projector.get("a") == {"n": await log.head()}


def test_a_rebuild_ends_though_there_is_always_something_new(place):
    class Busy(Projection):
        async def pages(self, *args):
            await fill(args[0], 1)
            async for page in super().pages(*args):
                yield page

    @run
    async def _():
        async with place.log() as log:
            await fill(log, 10)
            projector = log.projector(Busy("counts", count), batch=5)
            await projector.rebuild()
            await log.projector(counts()).catch_up()
            assert await projector.get("a") == {"n": await log.head()}


def test_states_and_their_position_are_of_one_moment(shared):
    @run
    async def _():
        async with shared.log() as log, shared.log() as other:
            projector = log.projector(counts())
            assert await projector.stored() == (0, {})
            assert await projector.position() == 0

            async def keep():
                for number in range(30):
                    await fill(log, 1, f"s{number % 2}")
                    await projector.catch_up()

            keeping = asyncio.create_task(keep())
            while not keeping.done():
                position, states = await other.projector(counts()).stored()
                assert sum(each["n"] for each in states.values()) == position
            await keeping
            assert await other.projector(counts()).position() == 30


@pytest.mark.parametrize("batch", [0, -1, "5", True])
def test_the_batch_of_a_projector_is_checked(batch):
    log = EventLog(":memory:")
    with pytest.raises(OptionError, match="batch"):
        log.projector(counts(), batch=batch)
