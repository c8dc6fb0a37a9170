"""Events that are committed at the worst moment, between a read and what follows it, are not passed over."""

import asyncio

import pytest

from headgate import Child, Consumer, FencedError, System, To
from headgate.eventlog import Event, Projection
from tests.eventlog.conftest import run

COUNT = 12


def event(number):
    return Event("x", {"n": number})


def meddle(log, streams=("a",)):
    """Append one event after each read of events, before who reads gets to know what was read."""
    original, numbers = log.store.read, iter(range(1, COUNT))

    async def read(query, cursor, limit):
        rows = await original(query, cursor, limit)
        number = next(numbers, None)
        if number is not None:
            await log.append(streams[number % len(streams)], [event(number), Event("y", {})])
        return rows

    log.store.read = read


class Take(Consumer):
    def __init__(self, got, done):
        self.got, self.done = got, done

    def handle_events(self, events, source):
        self.got.extend(each.data["n"] for each in events)
        if len(self.got) >= COUNT:
            self.done.set()


def test_by_a_producer(place):
    @run
    async def _():
        got: list[int] = []
        done = asyncio.Event()
        async with place.log() as log, System() as system:
            meddle(log)
            await log.append("a", [event(0)])
            await system.start(log.producer(name="log", types="x"))
            await system.start(Child(Take, got, done, subscribe_to=[To("log", max_demand=10)]))
            async with asyncio.timeout(20):
                await done.wait()
            assert got == list(range(COUNT))


def test_by_a_group(shared):
    @run
    async def _():
        got: list[int] = []
        async with shared.log() as log:
            meddle(log, "abc")
            await log.append("a", [event(0)])
            group = log.group("g", partitions=3, types="x")
            await group.join()
            async with asyncio.timeout(20):
                while len(got) < COUNT:
                    some = await group.take(10)
                    got += [each.data["n"] for each in some]
                    await group.done(some)
            assert got == list(range(COUNT))
            await group.leave()


def test_by_a_projection(place):
    @run
    async def _():
        counts = Projection("counts", lambda state, event: {"n": [*state.get("n", []), event.data["n"]]}, types=["x"])
        async with place.log() as log:
            meddle(log)
            await log.append("a", [event(0)])
            projector = log.projector(counts, batch=1)
            while (await projector.get("a") or {"n": []})["n"] != list(range(COUNT)):
                before = await projector.position()
                await projector.catch_up()
                assert await projector.position() > before


def test_a_rebuild_beside_one_who_goes_on_comes_to_its_end(place):
    """The one who keeps the old states moves on just before the swap."""

    @run
    async def _():
        counts = Projection("counts", lambda state, event: {"n": state.get("n", 0) + 1})
        async with place.log() as log:
            await log.append("a", [event(0)])
            running, rebuilding = log.projector(counts), log.projector(counts)
            await running.catch_up()
            transact, turns = log.store.transact, iter(range(1))

            async def just_before(statements):
                if any("~projections" in each.sql and "excluded" in each.sql for each in statements):
                    for number in turns:
                        await log.append("a", [event(number)])
                        await running.catch_up()
                return await transact(statements)

            log.store.transact = just_before
            await rebuilding.rebuild()
            assert await running.get("a") == {"n": 2}, "what came last of all is not missing until something else comes"
            await log.append("a", [event(1)])
            with pytest.raises(FencedError):
                await running.catch_up()
            await running.catch_up()
            assert await rebuilding.all() == {"a": {"n": 3}}
