"""Opening and closing: once at a time, anew as often as one likes, and nothing stays behind when it fails."""

import asyncio
import gc
import sqlite3
import threading
import warnings

import pytest

from headgate import EventLogError, RestartLimitError, Supervisor
from headgate.eventlog import Event, EventLog
from tests.eventlog.conftest import run


def test_what_others_wrote_while_a_log_was_closed_is_seen_when_it_is_opened_again(shared):
    """The end of the log was remembered from the time before."""

    @run
    async def _():
        log = shared.log()
        for number in range(4):
            async with log:
                appended = await log.append("a", [Event("e", {})])
                assert appended.version == 2 * number + 1
            async with shared.log() as other:
                await other.append("a", [Event("e", {})])
        async with log:
            assert [(each.position, each.version) for each in await log.read().all()] == [(n, n) for n in range(1, 9)]


def test_a_log_is_open_once_at_a_time(place):
    @run
    async def _():
        log = place.log()
        async with log:
            await log.append("a", [Event("e", {})])
            with pytest.raises(EventLogError, match="open already"):
                await log.__aenter__()
            assert await log.head() == 1
        await log.close()
        async with log:
            await log.append("b", [Event("e", {})])


def test_an_open_that_fails_leaves_nothing_behind(tmp_path):
    path = tmp_path / "new.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE headgate_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
        db.execute("INSERT INTO headgate_meta VALUES ('schema', '999')")
    db.close()
    before = threading.active_count()

    @run
    async def _():
        log = EventLog(str(path))
        for _ in range(3):
            with pytest.raises(EventLogError, match="version 999"):
                await log.__aenter__()

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        gc.collect()
    assert [str(each.message) for each in found] == []
    assert threading.active_count() == before


async def awaited(log):
    """Until somebody waits for events."""
    while not log.store._bell.awaited:
        await asyncio.sleep(0.001)


def test_whoever_waits_for_events_learns_that_the_log_was_closed(place):
    @run
    async def _():
        log = await EventLog.open(place.url)
        group = log.group("g")
        await group.join()
        waiting = [asyncio.create_task(each) for each in (log.store.wait(0), log.store.wait(0), group.take(1))]
        await awaited(log)
        await log.close()
        for each in waiting:
            with pytest.raises(EventLogError, match="not open"):
                await each


def test_stages_of_a_log_that_is_closed_end_with_an_error(place):
    @run
    async def _():
        log = await EventLog.open(place.url)

        async def close():
            await awaited(log)
            await log.close()

        closing = asyncio.create_task(close())
        with pytest.raises(RestartLimitError, match="not open"):
            await Supervisor([log.producer(name="log"), log.consumer(subscribe_to=["log"])], max_restarts=0)
        await closing


@pytest.mark.parametrize("turns", range(6))
def test_a_close_that_is_cancelled_goes_on(place, turns):
    """It was left half done, and a second one did nothing."""

    @run
    async def _():
        log = await EventLog.open(place.url)
        await log.append("a", [Event("e", {})])
        closing = asyncio.create_task(log.close())
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        await log.close()
        assert not any(task.get_name().startswith("headgate: log") for task in asyncio.all_tasks())
        for each in threading.enumerate():
            if each.name.startswith("headgate: log"):
                await asyncio.to_thread(each.join)
        if place.kind != "memory":
            async with log:  # it was given back as a whole
                assert await log.head() == 1
