"""The database fails under a group, and comes back: members lose what they cannot renew, and go on by themselves."""

import asyncio
import contextlib

import pytest

from headgate import DamagedLogError, EventLogError, Pipeline, Supervisor, To, testing
from headgate.eventlog import EventLog
from tests.eventlog.conftest import run
from tests.eventlog.test_faults_groups import events, numbers
from tests.eventlog.test_groups_lost import owners

LEASE = 8.0


def gone(store):
    """What is raised when the database cannot be reached."""
    error = EventLogError(store.name, "PostgreSQL says: the connection is closed")
    error.__cause__ = OSError("the connection is closed")
    return error


@contextlib.contextmanager
def failing(store, *names, error=None):
    """These methods of a store fail meanwhile."""

    async def fail(*_):
        raise error or gone(store)

    for name in names:
        setattr(store, name, fail)
    try:
        yield
    finally:
        for name in names:
            delattr(store, name)


@pytest.mark.parametrize("what", ["head", "read"])
def test_a_source_reads_again_after_a_read_has_failed(place, what):
    @run
    async def _():
        async with place.log() as log:
            await log.append("s", events(1))
            source = log.group("g", partitions=1).source()
            await source.open()
            with failing(log.store, what):
                for _ in range(2):
                    with pytest.raises(EventLogError):
                        await source.fetch(10)
            (message,) = await source.fetch(10)
            assert await source.ack([message]) == []
            await source.close()


def test_a_source_is_closed_and_has_left_after_a_read_has_failed(place):
    @run
    async def _():
        async with place.log() as log:
            await log.append("s", events(1))
            group = log.group("g", partitions=2)
            source = group.source()
            await source.open()
            failed = asyncio.Event()

            async def fail():
                failed.set()
                raise gone(log.store)

            setattr(log.store, "head", fail)  # noqa: B010
            fetching = asyncio.create_task(source.fetch(10))
            await failed.wait()
            fetching.cancel()  # before it has looked at what its read has raised
            await asyncio.wait([fetching])
            delattr(log.store, "head")
            await source.close()
            assert group.held == []
            assert await owners(log) == [None, None]
            assert await owners(log, "members of g") == []


def in_virtual_time(scenario):
    """Run a scenario on a log in memory whose clock is that of a virtual loop."""

    async def main():
        loop = asyncio.get_running_loop()
        async with EventLog(":memory:", clock=lambda: 1e9 + loop.time()) as log:
            await scenario(log)

    testing.run(main())


def fails(store, name, times):
    """The first calls of a method of a store fail."""
    original, left = getattr(store, name), iter(range(times))

    async def method(*given):
        if next(left, None) is not None:
            raise gone(store)
        return await original(*given)

    setattr(store, name, method)


def test_a_pipeline_goes_on_when_the_database_is_back():
    @in_virtual_time
    async def _(log):
        got, done = [], asyncio.Event()

        class Taking(Pipeline):
            def handle_message(self, message):
                got.append(message.data.data["n"])
                done.set()

        await log.append("s", events(1))
        fails(log.store, "read", 3)
        async with Taking(source=log.group("g", partitions=1).source()):
            await done.wait()
        assert got == [1]
        assert await owners(log, "members of g") == []


def test_a_member_holds_on_as_long_as_its_leases_do():
    @in_virtual_time
    async def _(log):
        group = log.group("g", partitions=2, lease=LEASE)
        await group.join()
        with failing(log.store, "transact"):
            await asyncio.sleep(0.6 * LEASE)
            assert group.held == [0, 1]
        await asyncio.sleep(LEASE)
        assert group.held == [0, 1]
        await log.append("s", events(1))
        taken = await group.take(1)
        await group.done(taken)
        await group.leave()


@pytest.mark.parametrize("hangs", [False, True])
def test_what_a_member_cannot_renew_it_lets_go_of_before_another_may_take_it(hangs):
    @in_virtual_time
    async def _(log):
        group, other = (log.group("g", partitions=2, lease=LEASE) for _ in range(2))
        await group.join()
        await log.append("s", events(1))
        begun = await group.take(1)
        renew = group._leases.renew

        async def fail(*_):
            if hangs:
                await asyncio.Event().wait()
            raise gone(log.store)

        group._leases.renew = fail
        await asyncio.sleep(LEASE + 0.1)
        assert group.held == []
        assert group.mine(begun) == []
        await other.join()
        assert other.held == [0, 1]
        again = await other.take(1)
        assert numbers(again) == [1]
        await other.done(again)
        group._leases.renew = renew
        await asyncio.sleep(2 * LEASE)
        assert len(group.held) == len(other.held) == 1, "it has joined again"
        await group.leave()
        await other.leave()


def test_what_does_not_pass_is_told_to_who_takes_and_is_over_when_it_is_mended():
    @in_virtual_time
    async def _(log):
        group = log.group("g", partitions=1, lease=LEASE)
        await group.join()
        taking = asyncio.create_task(group.take(1))
        damaged = DamagedLogError(log.store.name, "SQLite says: database disk image is malformed")
        with failing(log.store, "transact", error=damaged):
            with pytest.raises(DamagedLogError):
                await taking
            with pytest.raises(DamagedLogError):
                await group.take(1)
        await asyncio.sleep(LEASE)
        await log.append("s", events(1))
        await group.done(await group.take(1))
        await group.leave()


def test_a_member_that_could_not_join_holds_nothing_and_can_join_later(place):
    @run
    async def _():
        async with place.log() as log:
            group = log.group("g", partitions=2)
            claim = group._leases.claim

            async def once(partition):
                if partition == 1:
                    raise gone(log.store)
                return await claim(partition)

            group._leases.claim = once
            with pytest.raises(EventLogError):
                await group.join()
            assert group.held == []
            group._leases.claim = claim
            await group.join()
            assert group.held == [0, 1]
            await group.leave()


def test_stages_of_a_group_read_again_without_a_restart(place):
    @run
    async def _():
        async with place.log() as log:
            await log.append("s", events(1))
            group = log.group("g", partitions=1)
            got, done = [], asyncio.Event()

            def handle(batch):
                got.extend(numbers(batch))
                done.set()

            fails(log.store, "read", 3)
            stages = [group.producer(name="events"), group.consumer(handle, subscribe_to=[To("events", max_demand=10)])]
            async with Supervisor(stages, max_restarts=0):
                await done.wait()
            assert got == [1]
