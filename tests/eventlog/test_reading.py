"""Reading: by stream, position, time, type, correlation, forwards and backwards; against an obvious model."""

import pickle
import random
import uuid
from datetime import UTC, datetime

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import EventError, OptionError
from headgate.eventlog import Event, EventLog, Page, archive
from headgate.eventlog.postgres import _field_is, _one_sided, numbered
from headgate.eventlog.sqlite_statements import field_is as _is
from headgate.eventlog.store import Query, select
from tests.eventlog.conftest import run
from tests.eventlog.server import server


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


async def fill(log, clock, count=60):
    chance = random.Random(3)
    for number in range(count):
        clock.now += chance.choice([0, 0, 1])
        stream = chance.choice(["a-1", "a-2", "b-1", "a", "c"])
        event = Event(chance.choice(["one", "two", "three"]), {"n": number})
        await log.append(stream, [event], correlation_id=f"c{number % 5}")


places = st.one_of(
    st.none(), st.integers(0, 70), st.integers(999, 1035).map(lambda each: datetime.fromtimestamp(each, UTC))
)


@given(
    st.sampled_from([None, "a-1", "a-*", ["a-1", "c"], ["b*", "a"], "none"]),
    places,
    places,
    st.sampled_from([None, "one", ["one", "three"], "none"]),
    st.sampled_from([None, "c1"]),
    st.booleans(),
    st.sampled_from([None, 0, 1, 7]),
    st.sampled_from([1, 3, 1000]),
)
def test_a_part_is_what_a_filter_gives(streams, start, until, types, correlation, backwards, limit, batch):
    clock = Clock()

    def wanted(event):
        def past(place, key):
            return key(event) if isinstance(place, datetime) else event.position

        names = [streams] if isinstance(streams, str) else streams
        kinds = [types] if isinstance(types, str) else types
        return (
            (
                names is None
                or any(event.stream == n or (n[-1] == "*" and event.stream.startswith(n[:-1])) for n in names)
            )
            and (start is None or past(start, lambda each: each.recorded_at) >= start)
            and (until is None or past(until, lambda each: each.recorded_at) <= until)
            and (kinds is None or event.type in kinds)
            and (correlation is None or event.correlation_id == correlation)
        )

    @run
    async def _():
        async with EventLog(":memory:", clock=clock) as log:
            await fill(log, clock)
            everything = await log.read().all()
            expected = [each for each in everything if wanted(each)]
            if backwards:
                expected.reverse()
            options = {"start": start, "until": until, "types": types, "correlation_id": correlation, "limit": limit}
            reading = log.read(streams, backwards=backwards, batch=batch, **options)
            assert await reading.all() == (expected if limit is None else expected[:limit])
            assert await reading.first() == next(iter(expected[:limit]), None)


@pytest.mark.parametrize("streams", [None, "a-1", "a-*", ["a-1", "c"]])
@pytest.mark.parametrize("backwards", [False, True])
def test_every_store_reads_the_same(place, streams, backwards):
    clock, another = Clock(), Clock()

    @run
    async def _():
        async with place.log(clock=clock) as log, EventLog(":memory:", clock=another) as other:
            await fill(log, clock)
            await fill(other, another)
            for options in ({}, {"types": "one"}, {"start": 20, "until": 40}, {"correlation_id": "c2"}):
                here = await log.read(streams, backwards=backwards, batch=7, **options).all()
                there = await other.read(streams, backwards=backwards, batch=7, **options).all()
                assert [each.data for each in here] == [each.data for each in there]


def test_the_position_at_a_time(place):
    clock = Clock()

    @run
    async def _():
        async with place.log(clock=clock) as log:
            assert await log.position_at(datetime.now(UTC)) == 0
            await fill(log, clock, 40)
            events = await log.read().all()
            for second in range(998, 1030):
                moment = datetime.fromtimestamp(second, UTC)
                expected = max((each.position for each in events if each.recorded_at <= moment), default=0)
                assert await log.position_at(moment) == expected


def test_streams_are_listed_with_what_is_known_about_them(place):
    clock = Clock()

    @run
    async def _():
        async with place.log(clock=clock) as log:
            await log.append_all([("b", [Event("x", {}), Event("x", {})]), ("a-1", [Event("x", {})])])
            clock.now = 2000.0
            await log.append("b", [Event("x", {})])
            one, two = await log.streams()
            assert (one.name, one.version, one.events, one.first, one.last) == ("a-1", 1, 1, 3, 3)
            assert (two.name, two.version, two.events, two.first, two.last) == ("b", 3, 3, 1, 4)
            assert two.changed_at == datetime.fromtimestamp(2000, UTC)
            assert [each.name for each in await log.streams("a")] == ["a-1"]
            assert [each.name for each in await log.streams(limit=1)] == ["a-1"]


def test_one_event_by_position_or_id(place):
    @run
    async def _():
        async with place.log() as log:
            await log.append("a", [Event("x", {"n": 1}), Event("x", {"n": 2})])
            event = await log.event(2)
            assert (await log.event(event.event_id)) == event
            for missing in (3, 0, uuid.uuid4()):
                with pytest.raises(EventError, match="in the log"):
                    await log.event(missing)


@pytest.mark.parametrize(
    "options",
    [{"start": "x"}, {"until": datetime(2020, 1, 1)}, {"batch": 0}, {"limit": -1}, {"start": True}],  # noqa: DTZ001
)
def test_options_of_a_reading_are_checked(options):
    with pytest.raises(OptionError):
        EventLog(":memory:").read(**options)


def test_a_page_is_a_sequence_that_makes_events_when_they_are_looked_at():
    @run
    async def _():
        async with EventLog(":memory:") as log:
            await log.append("a", [Event("x", {"n": number}) for number in range(10)])
            async for page in log.read().pages():
                assert len(page) == 10
                assert page[3].data == {"n": 3}
                assert isinstance(page[2:5], Page)
                assert [each.data["n"] for each in page[2:5]] == [2, 3, 4]
                assert page[-1] == page[9]
                assert hash(page[0]) == hash(page[0])
                assert "1 to 10" in repr(page)
                assert "a@1 x" in repr(page[0])
                there = pickle.loads(pickle.dumps(page))
                assert list(there) == list(page)
                assert there[0].data == page[0].data


ODD = {
    "text": "5",
    "number": 5,
    "yes": True,
    "no": False,
    "none": None,
    "a.b": "dot",
    "$.text": "path",
    "7": "digit",
    "[0]": "index",
    "nul": "a\0b",
    "quote": 'a"b\\c',
    "lines": "a\nb\u2028c",
}


def test_fields_are_compared_alike_in_every_store_and_in_archives(place, tmp_path):
    """Names are taken literally, values by their kind; what an event has in other fields does not matter."""

    @run
    async def _():
        async with place.log() as log:
            for fields in (ODD, dict.fromkeys(ODD, "other"), {"unlike": 1}, {}):
                await log.append("a", [Event("e", fields)])
            for _ in range(2):  # in the database, then in an archive
                for name, value in ODD.items():
                    if name != "nul":  # PostgreSQL takes no such text as a value
                        found = await log.read(fields={name: value}).all()
                        assert [each.position for each in found] == [1], name
                for name, value in {
                    "yes": 1,
                    "number": True,
                    "no": None,
                    "none": False,
                    "text": "6",
                    "a": "dot",
                }.items():
                    assert await log.read(fields={name: value}).all() == [], name
                assert len(await log.read(fields={"yes": True, "number": 5}).all()) == 1
                assert await log.read(fields={"yes": True, "number": 6}).all() == []
                await archive(log, tmp_path / place.kind, 3)


def test_an_index_of_a_field_changes_nothing_but_the_way(place):
    @run
    async def _():
        async with place.log() as log:
            for name in ODD:
                if set(name) & set("?~'{}"):
                    continue
                await log.index(name)
                await log.index(name)
            for fields in (ODD, dict.fromkeys(ODD, "other"), {"unlike": 1}, {}):
                await log.append("a", [Event("e", fields)])
            for name, value in ODD.items():
                if name != "nul":
                    assert [each.position for each in await log.read(fields={name: value}).all()] == [1], name
            assert await log.read(fields={"yes": 1}).all() == []
            assert await log.read(fields={"number": True}).all() == []
            with pytest.raises(OptionError, match="field"):
                await log.index("what?")
            with pytest.raises(OptionError, match="field"):
                await log.index('"')


@pytest.mark.parametrize("value", ["c777", 777, True])
def test_an_index_of_a_field_is_used(shared, value):
    @run
    async def _():
        async with shared.log() as log:
            await log.index("course")
            many = [Event("enrolled", {"course": number if number % 2 else f"c{number}"}) for number in range(20_000)]
            await log.append("a", many)
            await log.append("a", [Event("enrolled", {"course": True}), Event("enrolled", {"course": "c777"})])
            reading = log.read(types="enrolled", fields={"course": value})
            assert len(await reading.all()) == 1
            sql, values = select(reading.condition(5).query, None, 1, _field_is if shared.kind == "postgres" else _is)
            if shared.kind == "postgres":
                db = await asyncpg.connect(shared.url)
                await db.execute("ANALYZE headgate.events")
                sql = numbered(sql.replace("~", "headgate."))
                plan = "\n".join(row[0] for row in await db.fetch(f"EXPLAIN {sql}", *values))
                await db.close()
            else:
                sql = f"EXPLAIN QUERY PLAN {sql.replace('~', 'headgate_')}"
                plan = str(await log.store.run(lambda db: db.execute(sql, values).fetchall()))
            assert "events_field_" in plan


@pytest.mark.parametrize("fields", [{"": 1}, {'a"b': 1}, {"a\\b": 1}, {"a\n": 1}, {7: 1}, {"a": 1.5}, {"a": []}])
def test_fields_that_cannot_be_compared_are_refused(fields):
    with pytest.raises(OptionError, match="fields"):
        EventLog(":memory:").read(fields=fields)


def test_an_event_is_found_by_its_id_wherever_it_is(place, tmp_path):
    @run
    async def _():
        async with place.log() as log:
            made = [Event("e", {"n": number}) for number in range(3)]
            await log.append("a", made)
            await archive(log, tmp_path / place.kind, 2)
            ids = [uuid.UUID(bytes=each.event_id) for each in made]
            assert [(await log.event(each)).position for each in ids] == [1, 2, 3]
            with pytest.raises(EventError, match="in the log"):
                await log.event(uuid.uuid4())


@pytest.mark.slow
@pytest.mark.parametrize("backwards", [False, True])
def test_a_page_of_a_new_log_in_postgresql_is_read_without_sorting_the_rest(backwards):
    """Without statistics both bounds together seemed to be few rows: each page then sorted all that was left."""
    url = server().database()

    @run
    async def _():
        async with EventLog(url) as log:
            await log.append("a", [Event("e", {"n": number}) for number in range(30_000)])
            assert len(await log.read(start=9000, until=29_990, backwards=backwards).all()) == 20_991
        query = _one_sided(Query(9000, 29_990, backwards=backwards))
        sql, values = select(query, None, 1000, _field_is)
        pool = await asyncpg.create_pool(url, min_size=1, max_size=1)
        async with pool, pool.acquire() as db:
            for mode in ("force_generic_plan", "force_custom_plan"):
                await db.execute(f"SET plan_cache_mode = {mode}")
                await db.execute(f"PREPARE {mode} (bigint) AS {numbered(sql.replace('~', 'headgate.'))}")
                plan = "\n".join(row[0] for row in await db.fetch(f"EXPLAIN EXECUTE {mode} ({values[0]})"))
                assert "Index Scan" in plan
                assert "Sort" not in plan
