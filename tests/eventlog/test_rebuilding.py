"""Rebuilds of one projection: one at a time, and one who was taken for dead does no harm."""

import asyncio
import pickle

import pytest

from headgate import FencedError, RebuildingError
from headgate.eventlog import Event, Projection
from headgate.eventlog.projector import _Beside
from tests.eventlog.conftest import run


def count(state, event):
    return {"n": state.get("n", 0) + 1}


class Paused(Projection):
    """Its pages wait until they may go on."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.begun, self.going_on = asyncio.Event(), asyncio.Event()

    async def pages(self, *args):
        self.begun.set()
        await self.going_on.wait()
        async for page in super().pages(*args):
            yield page


async def begun(log, **options):
    """A rebuild that is under way."""
    projection = Paused("counts", count, logic="2")
    task = asyncio.create_task(log.projector(projection, **options).rebuild())
    await projection.begun.wait()
    return projection, task


async def fill(log, number):
    await log.append("a", [Event("t", {}) for _ in range(number)])


def test_a_second_rebuild_is_refused_while_the_first_is_at_it(place):
    @run
    async def _():
        async with place.log() as log:
            await fill(log, 10)
            await log.projector(Projection("counts", count)).catch_up()
            first, rebuilding = await begun(log)
            second = log.projector(Projection("counts", count, logic="2"))
            with pytest.raises(
                RebuildingError, match="projection 'counts' is being built anew by somebody else"
            ) as found:
                await second.rebuild()
            assert found.value.projection == "counts"
            assert str(pickle.loads(pickle.dumps(found.value))) == str(found.value)
            other = log.projector(Projection("others", count))
            assert await other.rebuild() == 10  # another projection is another matter
            first.going_on.set()
            assert await rebuilding == 10
            assert await second.rebuild() == 10
            assert await second.get("a") == {"n": 10}


def test_of_several_that_begin_at_once_one_rebuilds(shared):
    @run
    async def _():
        async with shared.log() as log, shared.log() as another:
            await fill(log, 50)
            those = [each.projector(Projection("counts", count, logic="2"), batch=5) for each in (log, another) * 3]
            done = await asyncio.gather(*(each.rebuild() for each in those), return_exceptions=True)
            assert 50 in done
            assert all(each == 50 or isinstance(each, RebuildingError) for each in done)
            assert await those[0].get("a") == {"n": 50}


def test_a_rebuild_that_was_cancelled_or_failed_does_not_stand_in_the_way(place):
    def fails(state, event):
        raise ValueError

    @run
    async def _():
        async with place.log() as log:
            await fill(log, 10)
            _, rebuilding = await begun(log)
            rebuilding.cancel()
            with pytest.raises(asyncio.CancelledError):
                await rebuilding
            with pytest.raises(ValueError):
                await log.projector(Projection("counts", fails)).rebuild()
            assert await log.projector(Projection("counts", count)).rebuild() == 10


def test_one_who_was_taken_for_dead_is_fenced_off(place):
    now = 1e9

    @run
    async def _():
        nonlocal now
        async with place.log(clock=lambda: now) as log:
            await fill(log, 10)
            slow, rebuilding = await begun(log)
            now += 31
            quick, another = await begun(log)
            slow.going_on.set()
            with pytest.raises(FencedError):
                await rebuilding
            with pytest.raises(RebuildingError):  # it has not let go of what is no longer its own
                await log.projector(Projection("counts", count)).rebuild()
            quick.going_on.set()
            assert await another == 10
            assert await log.projector(slow).get("a") == {"n": 10}


def test_one_who_was_taken_for_dead_just_before_the_end_does_not_swap(place, monkeypatch):
    now = 1e9
    swap = _Beside.swap

    @run
    async def _():
        async with place.log(clock=lambda: now) as log:
            await fill(log, 10)

            async def overtaken(self):
                nonlocal now
                monkeypatch.setattr(_Beside, "swap", swap)
                now += 31
                other = log.projector(Projection("counts", count, logic="2"))
                assert await other.rebuild() == 10
                await swap(self)

            monkeypatch.setattr(_Beside, "swap", overtaken)
            with pytest.raises(FencedError):
                await log.projector(Projection("counts", count)).rebuild()
            await log.projector(Projection("counts", count, logic="2")).take_up()


def test_a_lease_goes_on_with_each_batch(place):
    now = 1e9

    @run
    async def _():
        nonlocal now
        async with place.log(clock=lambda: now) as log:
            await fill(log, 10)

            def slow(state, event):
                nonlocal now
                now += 20
                return count(state, event)

            async def try_another():
                with pytest.raises(RebuildingError):
                    await log.projector(Projection("counts", count)).rebuild()

            class Watched(Projection):
                async def pages(self, *args):
                    async for page in super().pages(*args):
                        await try_another()
                        yield page

            assert await log.projector(Watched("counts", slow), batch=1).rebuild() == 10


def test_a_rebuild_that_begins_when_another_has_just_swapped_leaves_its_states_alone(place):
    @run
    async def _():
        async with place.log() as log:
            await fill(log, 10)
            late = log.projector(Projection("counts", count))
            original = late._entered

            async def entered():
                found = await original()
                await log.projector(Projection("counts", count)).rebuild()
                return found

            late._entered = entered
            with pytest.raises(RebuildingError):
                await late.rebuild()
            assert await log.projector(Projection("counts", count)).get("a") == {"n": 10}
