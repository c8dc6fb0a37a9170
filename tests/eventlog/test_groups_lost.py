"""Calls of a member that are cut short, or overtaken: nothing stays open that nobody has, nothing is handled twice."""

import asyncio
import functools

import pytest

from headgate import FencedError
from headgate.eventlog.leases import Leases
from headgate.eventlog.store import Statement
from tests.eventlog.conftest import run
from tests.eventlog.test_faults_groups import checkpoints, events, numbers, streams_of, take_away


async def owners(log, name="group g"):
    sql = "SELECT owner FROM ~checkpoints WHERE name = ? ORDER BY partition"
    return [row[0] for row in (await log.store.transact([Statement(sql, (name,))]))[0]]


async def from_the_beginning():
    return 0


def leases(log, owner, partitions=2):
    return Leases(log.store, "g", owner, partitions, 30.0)


async def cancelled(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def write(batch, connection):
    values = ", ".join(f"({each})" for each in numbers(batch))
    return connection.execute(f"INSERT INTO applied VALUES {values}")


async def applied(log):
    return [row[0] for row in (await log.store.transact([Statement("SELECT n FROM applied ORDER BY n")]))[0]]


def prepared(shared):
    """A log with a table to write to."""

    async def prepare(db):
        await db.execute("CREATE TABLE applied (n bigint)")

    async def open_log():
        log = shared.log()
        await log.store.open()
        work = prepare if shared.kind == "postgres" else lambda db: db.execute("CREATE TABLE applied (n bigint)")
        await log.store.run(work)
        return log

    return open_log()


def test_a_take_that_is_cancelled_has_taken_nothing(shared):
    @run
    async def _():
        async with shared.log() as log:
            group = log.group("g", partitions=2)
            await group.join()
            one, two = streams_of(group)
            await log.append_all([(one, events(1)), (two, events(2)), (one, events(3))])
            original = log.page
            begun = asyncio.Event()

            async def page(rows):
                begun.set()
                await asyncio.Event().wait()

            log.page = page
            task = asyncio.create_task(group.take(2))
            await begun.wait()
            await cancelled(task)
            log.page = original
            begun_anew = await group.take(10)
            assert numbers(begun_anew) == [1, 2, 3]
            await group.done(begun_anew)
            assert await checkpoints(log) == {0: 3, 1: 3}
            await group.leave()


def test_events_of_a_partition_that_was_lost_meanwhile_are_not_handed_out(shared):
    @run
    async def _():
        async with shared.log() as log:
            group = log.group("g", partitions=2)
            await group.join()
            one, two = streams_of(group)
            await log.append_all([(one, events(1)), (two, events(2))])
            original = log.page

            async def page(rows):
                await take_away(log, 0)
                await group._balance()
                return await original(rows)

            log.page = page
            assert numbers(await group.take(10)) == [2]
            await group.leave()


def test_a_checkpoint_does_not_go_back_when_its_partition_is_let_go(shared):
    @run
    async def _():
        async with shared.log() as log:
            mine = leases(log, "a" * 32)
            await mine.begin(from_the_beginning)
            await mine.renew([])
            first, second = [await mine.claim(partition) for partition in (0, 1)]
            sql = "UPDATE ~checkpoints SET position = 7 WHERE name = 'group g'"
            await log.store.transact([Statement(sql)])  # as a transaction does that was under way
            await mine.release([(first, 3)])
            await mine.leave([(second, 9)])
            assert await checkpoints(log) == {0: 7, 1: 9}
            assert await owners(log) == [None, None]


def test_who_leaves_while_a_batch_is_written_does_not_let_it_be_handled_again(shared):
    @run
    async def _():
        log = await prepared(shared)
        group = log.group("g", partitions=2)
        await group.join()
        await log.append_all([(stream, events(number)) for number, stream in enumerate(streams_of(group))])
        batch = await group.take(10)
        writing = asyncio.create_task(group.done_in(batch, functools.partial(write, batch)))
        await asyncio.sleep(0)
        await group.leave()
        await asyncio.gather(writing, return_exceptions=True)
        other = log.group("g", partitions=2)
        await other.join()
        await log.append(streams_of(group)[0], events(9))
        while (found := await asyncio.wait_for(other.take(10), 5)) and numbers(found)[-1] != 9:
            await other.done_in(found, functools.partial(write, found))
        await other.done_in(found, functools.partial(write, found))
        assert await applied(log) == [0, 1, 9]
        await other.leave()
        await log.close()


def test_what_was_written_by_a_call_that_was_not_told_is_not_handled_again(shared):
    """It was cancelled, or the connection was lost, after the commit."""

    @run
    async def _():
        log = await prepared(shared)
        group = log.group("g", partitions=2)
        await group.join()
        one, two = streams_of(group)
        await log.append_all([(one, events(1)), (two, events(2)), (one, events(3))])
        batch = await group.take(10)
        original = log.store.run

        async def lost(work, statements=()):
            await original(work, statements)
            raise ConnectionError

        log.store.run = lost
        with pytest.raises(ConnectionError):
            await group.done_in(batch[:2], functools.partial(write, batch[:2]))
        log.store.run = original
        with pytest.raises(FencedError):
            await group.done_in(batch, functools.partial(write, batch))
        left = group.mine(batch)
        assert numbers(left) == [3]
        await group.done_in(left, functools.partial(write, left))
        assert await applied(log) == [1, 2, 3]
        assert await checkpoints(log) == {0: 3, 1: 2}
        assert group.held == [0, 1]
        await group.leave()
        await log.close()


@pytest.mark.parametrize("committed", [True, False])
def test_a_checkpoint_is_moved_on_after_a_call_without_an_answer(shared, committed):
    @run
    async def _():
        async with shared.log() as log:
            group = log.group("g", partitions=1)
            await group.join()
            await log.append("s", events(1, 2))
            one, two = await group.take(10)
            original = log.store.transact

            async def lost(statements):
                if committed:
                    await original(statements)
                raise ConnectionError

            log.store.transact = lost
            with pytest.raises(ConnectionError):
                await group.done([one])
            log.store.transact = original
            await group.done([two])
            assert await checkpoints(log) == {0: 2}
            await group.leave()


def test_acknowledgements_at_the_same_time_move_a_checkpoint_one_after_the_other(shared):
    @run
    async def _():
        async with shared.log() as log:
            group = log.group("g", partitions=2)
            await group.join()
            await log.append_all([(stream, events(*range(20))) for stream in streams_of(group)])
            batch = await group.take(100)
            await asyncio.gather(*(group.done([event]) for event in batch))
            assert await checkpoints(log) == {0: 40, 1: 40}
            assert group.held == [0, 1]
            await group.leave()


def test_a_partition_that_is_taken_up_while_the_lost_are_looked_for_stays(shared):
    @run
    async def _():
        async with shared.log() as log:
            group = log.group("g", partitions=2)
            sql = "UPDATE ~checkpoints SET owner = 'other', lease_until = ? WHERE name = 'group g' AND partition = 1"
            await group.join()
            one, two = streams_of(group)
            await log.append_all([(one, events(1)), (two, events(2))])
            batch = await group.take(10)
            await take_away(log, 1)
            await log.store.transact([Statement(sql, (2**60,))])
            await group._balance()
            assert group.held == [0]
            original = group._leases.own

            async def own():
                found = await original()
                await log.store.transact([Statement(sql, (0,))])
                await group._balance()
                return found

            group._leases.own = own
            with pytest.raises(FencedError):
                await take_away(log, 0)
                await group.done([batch[0]])
            assert group.held == [1]
            group._leases.own = original
            await group.leave()


def test_who_joins_again_takes_up_what_is_still_its_own(shared):
    """A call to leave has failed, or one that took a partition up was cancelled."""

    @run
    async def _():
        async with shared.log() as log:
            group = log.group("g", partitions=2)
            await group.join()
            await log.append_all([(stream, events(1)) for stream in streams_of(group)])
            await group.take(10)
            original = log.store.transact

            async def lost(statements):
                raise ConnectionError

            log.store.transact = lost
            with pytest.raises(ConnectionError):
                await group.leave()
            log.store.transact = original
            assert group.held == []
            await group.join()
            assert group.held == [0, 1]
            assert numbers(await group.take(10)) == [1, 1]
            await group.leave()
            assert await owners(log) == [None, None]


def test_who_leaves_gives_back_what_a_cancelled_call_took_up(shared):
    @run
    async def _():
        async with shared.log() as log:
            group = log.group("g", partitions=2)
            await group.join()
            del group._held[1]
            await group.leave()
            assert await owners(log) == [None, None]
            assert await owners(log, "members of g") == []


def test_members_that_are_long_dead_are_forgotten(shared):
    now = 1e9

    @run
    async def _():
        nonlocal now
        async with shared.log(clock=lambda: now) as log:
            dead, slow, alive = [leases(log, letter * 32) for letter in "abc"]
            await dead.renew([])
            now += 250
            for each in (slow, alive):
                await each.renew([])
            assert await owners(log, "members of g") == ["a" * 32, "b" * 32, "c" * 32]
            now += 90
            standing = await alive.renew([])
            assert standing.members == 1
            assert await owners(log, "members of g") == ["b" * 32, "c" * 32]
            now += 1000
            await alive.renew([])
            assert await owners(log, "members of g") == ["c" * 32]
            assert (await slow.renew([])).members == 2


def test_long_dead_members_are_removed_by_many_at_once(shared):
    now = 1e9

    @run
    async def _():
        nonlocal now
        async with shared.log(clock=lambda: now) as log:
            for number in range(20):
                await leases(log, f"{number:07x}{'0' * 25}").renew([])
            now += 1000
            those = [leases(log, f"{number:07x}{'0' * 25}") for number in range(100, 106)]
            await asyncio.gather(*(each.renew([]) for each in those))
            assert len(await owners(log, "members of g")) == len(those)
