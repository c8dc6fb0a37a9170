"""What only a server can do: drop connections, make others wait, run out of connections."""

import asyncio
from typing import Any

import pytest

from headgate import EventLogError
from headgate.eventlog import Event, EventLog
from tests.eventlog.conftest import run
from tests.eventlog.server import server

asyncpg = pytest.importorskip("asyncpg")
pytestmark = pytest.mark.slow

OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture
def url():
    return server().database()


def test_whoever_waits_is_told_however_often_connections_are_dropped(url):
    """One that was dropped between connecting and listening ended the listener for good."""

    @run
    async def _():
        db = await asyncpg.connect(url)
        async with EventLog(url) as log, EventLog(url) as other:
            for _ in range(300):
                await db.execute(OTHERS)
            waiting = asyncio.create_task(log.store.wait(0))
            while True:
                try:
                    await other.append("a", [Event("e", {})])
                except EventLogError:  # its connection was dropped, which it has just learned
                    continue
                break
            try:
                await waiting
            except EventLogError:
                await log.store.wait(0)
        await db.close()


def test_handlers_in_transactions_may_look_at_the_log(url):
    """Each had one of four connections, and waited for another one."""

    @run
    async def _():
        everybody = asyncio.Barrier(6)
        async with EventLog(url) as log:
            await log.append("a", [Event("e", {})])

            async def member(number):
                group = log.group(f"g{number}", partitions=1)
                await group.join()
                events = await group.take(1)

                async def handler(db):
                    await everybody.wait()
                    return await db.fetchval("SELECT 1") + await log.version("a")

                return await group.done_in(events, handler)

            assert await asyncio.gather(*map(member, range(6))) == [2] * 6


def test_nobody_waits_longer_for_others_than_was_said(url):
    """Only appends had an end; 0 was for ever."""

    @run
    async def _():
        db = await asyncpg.connect(url)
        for seconds in (0, 0.2):
            async with EventLog(url, busy_timeout=seconds) as log:
                transaction = db.transaction()
                await transaction.start()
                await db.execute("LOCK TABLE headgate.checkpoints, headgate.events")
                with pytest.raises(EventLogError, match="lock timeout"):
                    await log.save_checkpoint("c", 1)
                with pytest.raises(EventLogError, match="lock timeout"):
                    await log.append("a", [Event("e", {})])
                with pytest.raises(EventLogError, match="lock timeout"):
                    await log.head()
                await transaction.rollback()
                await log.append("a", [Event("e", {})])
        await db.close()


def test_what_goes_wrong_in_a_transaction_of_ours_is_our_error_and_in_a_handler_the_users(url):
    @run
    async def _():
        async with EventLog(url) as log:

            async def wrong(db):
                await db.execute("SELECT no_such_thing")

            with pytest.raises(asyncpg.UndefinedColumnError):
                await log.store.run(wrong)

            async def dropped(db):
                db.terminate()

            with pytest.raises(EventLogError, match="PostgreSQL says"):
                await log.store.run(dropped)


def test_the_server_may_be_down_when_a_log_is_closed(url):
    @run
    async def _():
        log = await EventLog.open(url)
        await log.append("a", [Event("e", {})])
        db = await asyncpg.connect(url)
        await db.execute(OTHERS)
        await db.close()
        await log.close()
        with pytest.raises(EventLogError, match="not open"):
            await log.head()


def test_no_plan_is_kept_from_when_the_log_was_small(url):
    """After some reads of an empty log, its plan was to sort everything; a reader then never caught up with writers."""

    @run
    async def _():
        async with EventLog(url) as log:
            for _ in range(20):
                assert await log.read(start=1).all() == []
            store: Any = log.store
            async with store._pool.acquire() as db:
                plans = await db.fetch("SELECT statement, generic_plans, custom_plans FROM pg_prepared_statements")
            reads = [each for each in plans if "ORDER BY position LIMIT" in each["statement"]]
            assert sum(each["custom_plans"] for each in reads) >= 20
            assert sum(each["generic_plans"] for each in reads) == 0
