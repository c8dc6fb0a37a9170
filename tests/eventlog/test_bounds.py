"""What a log takes just so, and what it does not take any more: names, times, addresses, schemas, clocks."""

import asyncio
import math
import sqlite3
from datetime import UTC, datetime, timedelta, timezone
from unittest.mock import Mock

import pytest

from headgate import EventError, EventLogError, OptionError
from headgate.eventlog import Appended, Event, EventLog, Projection
from headgate.eventlog.store import Query
from tests.eventlog.conftest import run
from tests.eventlog.server import server

LONGEST = ("x" * 1000, "\N{EURO SIGN}" * 333 + "x", "\U0001f600" * 250)
EARLIEST = datetime.min.replace(tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)


def everywhere(name):
    """An event that has this name wherever it can."""
    return Event(name, {}, correlation_id=name, causation_id=name, actor=name, subject=name)


@pytest.mark.parametrize("name", LONGEST)
def test_the_longest_name_is_taken_everywhere(place, name):
    @run
    async def _():
        async with place.log() as log:
            await log.append(name, [everywhere(name)])
            (event,) = await log.read(name, types=name, correlation_id=name).all()
            assert (event.type, event.actor, event.subject, event.causation_id) == (name, name, name, name)
            assert [each.name for each in await log.streams(name)] == [name]
            await log.save_checkpoint(name, 1)
            assert await log.checkpoint(name) == 1
            await log.projector(Projection("last", lambda state, event: {"at": event.position})).catch_up()
            assert (await log.fold(Projection("kinds", lambda state, event: [event.type]), name)).state == [name]


@pytest.mark.parametrize("name", [each + "x" for each in LONGEST])
def test_a_longer_name_is_refused_and_nobody_elses_append_fails_of_it(place, name):
    """It failed in an index of PostgreSQL, with all that was appended in the same transaction."""

    @run
    async def _():
        async with place.log() as log:
            for option in ("correlation_id", "causation_id", "actor", "subject"):
                with pytest.raises(EventError, match=f"{option} to be text .* of at most 1,000 bytes"):
                    Event("e", {}, **{option: name})
            with pytest.raises(EventError, match="type"):
                Event(name, {})
            for wrong in (log.append(name, [Event("e", {})]), log.append("s", [Event("e", {})], actor=name)):
                right = log.append("others", [Event("e", {})])
                found = await asyncio.gather(right, wrong, return_exceptions=True)
                assert [type(each) for each in found] == [Appended, EventError]
            assert [each.name for each in await log.streams()] == ["others"]


def test_the_first_and_the_last_time_of_all_are_recorded_and_read(place):
    """The year 1 of another time zone could be appended, and never be read again."""

    @run
    async def _():
        async with place.log() as log:
            for moment in (EARLIEST, LATEST):
                done = await log.append("s", [Event("e", {}, effective_at=moment)])
                assert (await log.event(done.last)).effective_at == moment
            both = await log.read(start=EARLIEST, until=LATEST).all()
            assert both == await log.read().all()
            assert len(both) == 2
            assert await log.read(start=LATEST).all() == await log.read(until=EARLIEST).all() == []
            assert await log.position_at(LATEST) == both[-1].position
            assert await log.position_at(EARLIEST) == 0
            far = timezone(timedelta(hours=14))
            assert len(await log.read(start=datetime(1, 1, 1, tzinfo=far)).all()) == 2


def test_the_last_position_of_all_is_one(place):
    last = 2**63 - 1

    @run
    async def _():
        async with place.log() as log:
            await log.append("s", [Event("e", {})])
            assert len(await log.read(until=last, limit=last).all()) == 1
            assert await log.read(start=last).all() == []
            with pytest.raises(EventError, match="in the log"):
                await log.event(last)
            await log.append("s", [Event("e", {})], unless=log.read(), after=last)
            await log.save_checkpoint("c", last)
            assert await log.checkpoint("c") == last


def test_what_gets_as_far_as_a_database_and_does_not_fit_is_an_error_of_the_log(place):
    """SQLite's module raised an OverflowError or a UnicodeEncodeError for it."""

    @run
    async def _():
        async with place.log() as log:
            for query in (Query(start=2**63), Query(types=("\ud800",))):
                with pytest.raises(EventLogError):
                    await log.store.read(query, None, 1)


FACTORIES = {
    "dict": lambda cursor, row: {name[0]: value for name, value in zip(cursor.description, row, strict=True)},
    "row": sqlite3.Row,
    "list": lambda cursor, row: [*row, "more"],
}


@pytest.mark.parametrize("factory", FACTORIES)
def test_the_rows_of_a_users_connection_are_as_he_wants_them(tmp_path, factory):
    @run
    async def _():
        path = str(tmp_path / "log.db")
        async with EventLog(path) as log:
            event = Event("e", {"n": 1})
            await log.append("s", [event])
            db = sqlite3.connect(path, isolation_level=None)
            db.row_factory, db.text_factory = FACTORIES[factory], bytes
            db.execute("BEGIN")
            done = await log.append("s", [event, Event("e", {})], connection=db, expected_version=1)
            assert done == ("s", 2, 2, 2, 1)
            assert (db.row_factory, db.text_factory) == (FACTORIES[factory], bytes)
            db.execute("COMMIT")
            db.close()
            assert await log.version("s") == 2


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:log.db", "log.db"),
        ("sqlite:///log.db", "log.db"),
        ("sqlite:{}/log.db", "{}/log.db"),
        ("sqlite:///{}/log.db", "{}/log.db"),
        ("./log.db", "log.db"),
    ],
)
def test_an_address_of_sqlite_is_a_path(tmp_path, monkeypatch, url, file):
    monkeypatch.chdir(tmp_path)

    @run
    async def _():
        async with EventLog(url.format(tmp_path)) as log:
            await log.append("s", [Event("e", {})])

    assert {each.name for each in tmp_path.iterdir()} == {"log.db"}
    assert (tmp_path / file.format(tmp_path)).stat().st_size


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:secret@h:abc/db",
        "postgresql://ada:secret@h:99999/db",
        "postgresql://ada:secret@[::1/db",
        "postgres://ada:secret/with@h/db",
        "postgresql://ada:secret@h/d\0b",
        "postgresql://ada:secret@h/\ud800",
    ],
)
def test_an_address_of_a_server_that_is_none_is_refused_and_not_shown(url):
    with pytest.raises(OptionError, match="url") as caught:
        EventLog(url)
    assert "secret" not in repr(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.slow
@pytest.mark.parametrize("schema", ["order", "user", "s" * 54])
def test_a_schema_may_have_the_name_of_a_word_of_sql_and_be_long(schema):
    @run
    async def _():
        url = server().database()
        async with EventLog(url, schema=schema) as log, EventLog(url, schema=schema, create=False) as other:
            waiting = asyncio.create_task(other.store.wait(0))
            await asyncio.gather(
                *(log.append(f"s{number}", [Event("e", {}) for _ in range(250)]) for number in range(2))
            )
            await waiting
            assert len(await other.read().all()) == 500


def test_a_clock_that_gives_no_time_is_named_and_nothing_is_written(place):
    @run
    async def _():
        clock = Mock(return_value=0.0)
        async with place.log(clock=clock) as log:
            for clock.return_value in (math.nan, math.inf, -1.0, 1e300, None, "12:00"):
                for step in (log.append("s", [Event("e", {})]), log.save_checkpoint("c", 1)):
                    with pytest.raises(OptionError, match="clock"):
                        await step
            clock.return_value = 5.0
            assert (await log.head(), await log.checkpoint("c")) == (0, 0)
            await log.append("s", [Event("e", {})])
            assert (await log.event(1)).recorded_at == datetime.fromtimestamp(5, UTC)
