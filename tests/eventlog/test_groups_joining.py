"""Members that come and go: their names, their number of partitions, their clocks, and calls that are cancelled."""

import asyncio
import time

import pytest

from headgate import FencedError, OptionError
from headgate.eventlog.store import Statement
from headgate.sources import cancelled
from tests.eventlog.conftest import Place, run
from tests.eventlog.server import server
from tests.eventlog.test_faults_groups import events, numbers, streams_of
from tests.eventlog.test_groups_lost import owners


@pytest.fixture
def postgres(tmp_path):
    server()
    return Place("postgres", tmp_path)


def keepers():
    return [each for each in asyncio.all_tasks() if each.get_name().startswith("headgate: group")]


@pytest.mark.slow
def test_a_member_does_not_wait_for_rows_that_another_one_changes(postgres):
    """Two that hold rows of their own and wait for those of the other would never end."""

    @run
    async def _():
        async with postgres.log() as log, postgres.log() as there:
            one, two = log.group("g", partitions=4), there.group("g", partitions=4)
            await one.join()
            await two.join()
            await one._balance()
            await two._balance()
            assert len(one.held) == len(two.held) == 2
            await log.append(streams_of(one)[one.held[0]], events(1))
            taken = await one.take(1)

            async def renewed_meanwhile(db):
                await db.execute(f"UPDATE headgate.checkpoints SET updated_at = 0 WHERE partition = {one.held[0]}")
                await asyncio.wait_for(two._leases.renew(two.held), 20)

            await one.done_in(taken, renewed_meanwhile)
            await one.leave()
            await two.leave()


def test_another_number_of_partitions_is_refused(place):
    @run
    async def _():
        async with place.log() as log:
            one = log.group("g", partitions=4)
            await one.join()
            for number in (1, 5):
                other = log.group("g", partitions=number)
                with pytest.raises(OptionError, match="to be 4, as for those who came before"):
                    await other.join()
                assert other.held == []
            assert len(await owners(log, "members of g")) == 1
            assert len(await owners(log)) == 4
            await one.leave()


def test_of_two_who_begin_a_group_with_other_numbers_at_once_one_is_refused(shared):
    @run
    async def _():
        async with shared.log() as here, shared.log() as there:
            for number in range(5):
                name = f"g{number}"
                groups = [here.group(name, partitions=3), there.group(name, partitions=5)]
                results = await asyncio.gather(*(each.join() for each in groups), return_exceptions=True)
                assert [type(each) for each in results].count(OptionError) == 1
                (joined,) = [each for each, result in zip(groups, results, strict=True) if result is None]
                assert len(await owners(here, f"group {name}")) == joined.partitions
                await joined.leave()


def test_who_joins_twice_at_once_is_one_member(place):
    @run
    async def _():
        async with place.log() as log:
            group = log.group("g", partitions=2)
            await asyncio.gather(group.join(), group.join())
            assert len(keepers()) == 1
            joining, leaving = asyncio.create_task(group.join()), asyncio.create_task(group.leave())
            await asyncio.gather(joining, leaving)
            assert keepers() == []
            assert group.held == []
            assert await owners(log, "members of g") == []


def test_a_take_ends_when_it_is_cancelled_at_any_moment(place):
    @run
    async def _():
        async with place.log() as log:
            group = log.group("g", partitions=1)
            await group.join()
            for turns in range(8):
                waits = asyncio.Event()
                wait = type(log.store).wait

                async def watched(after, wait=wait, waits=waits):
                    waits.set()
                    await wait(log.store, after)

                setattr(log.store, "wait", watched)  # noqa: B010
                taking = asyncio.create_task(group.take(1))
                await waits.wait()
                group._changed.ring()  # as when a partition comes
                for _ in range(turns):
                    await asyncio.sleep(0)
                taking.cancel()
                done, _ = await asyncio.wait([taking], timeout=10)
                assert done, f"cancelled {turns} turns after a partition came"
            await group.leave()


def test_who_waits_for_a_cancelled_task_can_be_cancelled():
    @run
    async def _():
        going_on = asyncio.Event()

        async def stubborn():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await going_on.wait()
                raise

        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        waiting = asyncio.create_task(cancelled(task))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not task.done()
        going_on.set()
        await cancelled(task)
        assert task.cancelled()


def test_nothing_is_not_taken(place):
    @run
    async def _():
        async with place.log() as log:
            group = log.group("g", partitions=1)
            await group.join()
            await log.append("s", events(1))
            for count in (0, -1):
                with pytest.raises(OptionError, match="count"):
                    await group.take(count)
            await group.leave()


def test_checkpoints_groups_and_members_of_one_name_are_apart(place):
    @run
    async def _():
        async with place.log() as log:
            await log.append("s", events(1, 2, 3))
            groups = [log.group(name, partitions=2) for name in ("billing", "billing:members", "members of billing")]
            for group in groups:
                await group.join()
                assert group.held == [0, 1]
            await log.save_checkpoint("billing", 3)
            for group in groups:
                taken = await group.take(3)
                assert numbers(taken) == [1, 2, 3]
                await group.done(taken)
            assert await log.checkpoint("billing") == 3
            for name in ("group billing", "members of billing", "projection billing#1"):
                with pytest.raises(OptionError, match="name"):
                    await log.save_checkpoint(name, 1)
            for group in groups:
                await group.leave()


@pytest.mark.slow
def test_leases_are_by_the_clock_of_the_server(postgres):
    """Its clock, as this database sees it, is an hour ahead."""

    @run
    async def _():
        async with postgres.log() as log:
            later = "$$ SELECT pg_catalog.clock_timestamp() + interval '1 hour' $$"
            for sql in (
                "CREATE SCHEMA fake",
                f"CREATE FUNCTION fake.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS {later}",
                f"ALTER DATABASE {postgres.url.rpartition('/')[2]} SET search_path = fake, pg_catalog",
            ):
                await log.store.run(lambda db, sql=sql: db.execute(sql))
        async with postgres.log() as log, postgres.log(clock=lambda: time.time()) as own:  # noqa: PLW0108 (another clock)
            ahead, behind = log.group("g", partitions=1, lease=60), own.group("g", partitions=1, lease=60)
            await behind.join()
            await ahead.join()
            assert (behind.held, ahead.held) == ([0], [0]), "the lease is over by the server's clock"
            with pytest.raises(FencedError):
                await log.append("s", events(1))
                await behind.done(await behind.take(1))
            sql = "SELECT lease_until FROM ~checkpoints WHERE name = 'group g'"
            (((until,),),) = await log.store.transact([Statement(sql)])
            assert until > (time.time() + 1800) * 1e6
            await ahead.leave()
            await behind.leave()
