"""Members of a group that were replaced while they were at work: the others go on, and they too."""

import asyncio

import pytest

from headgate import FencedError, Supervisor, To
from headgate.eventlog import Event
from headgate.eventlog.store import Statement
from tests.eventlog.conftest import run


def events(*numbers):
    return [Event("counted", {"n": number}) for number in numbers]


def numbers(found):
    return [each.data["n"] for each in found]


def streams_of(group):
    """One stream for each partition."""
    found: dict[int, str] = {}
    for number in range(1000):
        found.setdefault(group.partition_of(f"s{number}"), f"s{number}")
    return [found[partition] for partition in range(group.partitions)]


async def checkpoints(log):
    sql = "SELECT partition, position FROM ~checkpoints WHERE name = 'group g' ORDER BY partition"
    return dict((await log.store.transact([Statement(sql)]))[0])


async def take_away(log, partition):
    """As another member does when a lease is over."""
    sql = "UPDATE ~checkpoints SET owner = 'other', epoch = epoch + 1 WHERE name = 'group g' AND partition = ?"
    await log.store.transact([Statement(sql, (partition,))])


def test_what_a_member_still_has_is_handled_when_another_partition_was_lost(shared):
    @run
    async def _():
        async with shared.log() as log:
            group = log.group("g", partitions=2)
            await group.join()
            one, two = streams_of(group)
            await log.append_all([(one, events(1)), (two, events(2)), (one, events(3))])
            begun = await group.take(10)
            await take_away(log, 0)
            ran: list[object] = []
            with pytest.raises(FencedError):
                await group.done_in(begun, ran.append)
            left = group.mine(begun)
            assert numbers(left) == [2]
            await group.done_in(left, lambda db: None)
            assert await checkpoints(log) == {0: 0, 1: 2}
            assert group.mine(begun) == []
            await log.append_all([(one, events(4)), (two, events(5))])
            assert numbers(await group.take(10)) == [5]
            await group.leave()


def test_all_checkpoints_are_moved_but_the_one_that_was_lost(shared):
    @run
    async def _():
        async with shared.log() as log:
            group = log.group("g", partitions=3)
            await group.join()
            await log.append_all([(stream, events(1)) for stream in streams_of(group)])
            begun = await group.take(10)
            await take_away(log, 0)
            with pytest.raises(FencedError, match=r"\[0\]"):
                await group.done(begun)
            assert await checkpoints(log) == {0: 0, 1: 3, 2: 3}
            await group.leave()


def test_a_stage_of_a_group_goes_on_when_a_partition_was_lost(shared):
    @run
    async def _():
        async with shared.log() as log:
            group = log.group("g", partitions=2)
            one, two = streams_of(group)
            await log.append_all([(one, events(1)), (two, events(2))])
            begun, going_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

            async def handle(batch):
                begun.set()
                await going_on.wait()
                if 4 in numbers(batch):
                    done.set()

            stages = [
                group.producer(name="events"),
                group.consumer(handle, subscribe_to=[To("events", max_demand=10)]),
            ]
            async with Supervisor(stages, max_restarts=0):
                await begun.wait()
                await take_away(log, 0)
                going_on.set()
                await log.append_all([(one, events(3)), (two, events(4))])
                await done.wait()
            assert await checkpoints(log) == {0: 0, 1: 4}


def test_a_stage_that_writes_with_its_checkpoint_goes_on_when_a_partition_was_lost(shared):
    @run
    async def _():
        async with shared.log() as log:
            await log.store.run(lambda db: db.execute("CREATE TABLE applied (n bigint)"))
            group = log.group("g", partitions=2)
            one, two = streams_of(group)
            await log.append_all([(one, events(1)), (two, events(2))])
            begun, going_on = asyncio.Event(), asyncio.Event()
            original = group.done_in

            async def after_the_loss(batch, work):
                begun.set()
                await going_on.wait()
                return await original(batch, work)

            def handle(batch, connection):
                values = ", ".join(f"({each})" for each in numbers(batch))
                return connection.execute(f"INSERT INTO applied VALUES {values}")

            group.done_in = after_the_loss
            stages = [
                group.producer(name="events"),
                group.consumer(handle, transaction=True, subscribe_to=[To("events", max_demand=10)]),
            ]
            async with Supervisor(stages, max_restarts=0):
                await begun.wait()
                await take_away(log, 0)
                going_on.set()
                await log.append_all([(one, events(3)), (two, events(4))])
                while await checkpoints(log) != {0: 0, 1: 4}:
                    await asyncio.sleep(0)
            (applied,) = await log.store.transact([Statement("SELECT n FROM applied ORDER BY n")])
            assert applied == [(2,), (4,)]


def test_leases_are_renewed_while_a_batch_is_written(shared):
    """On PostgreSQL both change the rows of the same partitions: they do it in the same order."""

    @run
    async def _():
        async with shared.log() as log:
            group = log.group("g", partitions=4)
            await group.join()
            streams = streams_of(group)
            touched = []
            original, run_ = log.store.transact, log.store.run

            def note(statements):
                for each in statements:
                    if each.sql.startswith("UPDATE"):
                        rows = each.many if each.many is not None else [each.values]
                        touched.append([next(value for value in row[::-1] if value in range(4)) for row in rows])

            async def transact(statements):
                note([each for each in statements if "lease_until = ?" in each.sql])
                return await original(statements)

            async def run_noted(work, statements=()):
                touched.append([each.values[3] for each in statements])
                return await run_(work, statements)

            await log.append_all([(streams[index], events(index)) for index in (2, 0, 3, 1)])
            begun = await group.take(10)
            setattr(log.store, "transact", transact)  # noqa: B010
            setattr(log.store, "run", run_noted)  # noqa: B010
            await group._balance()
            await group.done_in(begun, lambda db: None)
            assert touched == [[0, 1, 2, 3], [0, 1, 2, 3]]
            await group.leave()
