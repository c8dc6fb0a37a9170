"""Appending: order, versions, atomicity, idempotency, other people's transactions. On every store."""

import asyncio
import sqlite3
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from headgate import AppendConditionError, AppendConflictError, EventError, OptionError, ReversalError, StoreError
from headgate.eventlog import Append, Event, EventLog
from headgate.eventlog.events import new_ids
from headgate.eventlog.record import ORIGIN, digest_of
from tests.eventlog.conftest import run


@dataclass
class Plain:
    text: str


def events(*numbers):
    return [Event("counted", {"n": number}) for number in numbers]


def test_events_get_positions_and_versions_in_order(place):
    @run
    async def _():
        async with place.log() as log:
            assert await log.append("a", events(1, 2)) == ("a", 2, 1, 2, 0)
            assert await log.append("b", events(3)) == ("b", 1, 3, 3, 0)
            assert await log.append("a", events(4)) == ("a", 3, 4, 4, 0)
            found = await log.read().all()
            assert [(each.position, each.stream, each.version, each.data["n"]) for each in found] == [
                (1, "a", 1, 1),
                (2, "a", 2, 2),
                (3, "b", 1, 3),
                (4, "a", 3, 4),
            ]
            assert await log.head() == 4
            assert [await log.version(each) for each in ("a", "b", "c")] == [3, 1, 0]


def test_an_expected_version_is_checked_and_a_refusal_names_the_stream_and_both_versions(place):
    @run
    async def _():
        async with place.log() as log:
            await log.append("a", events(1), expected_version=0)
            await log.append("a", events(2), expected_version=1)
            with pytest.raises(AppendConflictError, match="stream 'a': expected version 1, it is at 2") as caught:
                await log.append("a", events(3), expected_version=1)
            assert (caught.value.stream, caught.value.expected_version, caught.value.version) == ("a", 1, 2)
            assert await log.head() == 2


def test_an_append_to_several_streams_is_all_or_nothing(place):
    @run
    async def _():
        async with place.log() as log:
            done = await log.append_all([Append("a", events(1), 0), ("b", events(2, 3))])
            assert [each.version for each in done] == [1, 2]
            with pytest.raises(AppendConflictError, match="'b'"):
                await log.append_all([Append("a", events(4), 1), Append("b", events(5), 0)])
            assert await log.head() == 3
            assert [await log.version(each) for each in ("a", "b")] == [1, 2]


def test_a_refused_append_does_not_take_back_those_of_the_same_transaction(place):
    @run
    async def _():
        async with place.log() as log:
            results = await asyncio.gather(
                log.append("a", events(1), expected_version=0),
                log.append("a", events(2), expected_version=0),
                log.append("a", events(3), expected_version=1),
                log.append("b", events(4)),
                return_exceptions=True,
            )
            assert isinstance(results[1], AppendConflictError)
            assert [each.data["n"] for each in await log.read().all()] == [1, 3, 4]


def test_what_many_tasks_append_keeps_each_ones_order(place):
    @run
    async def _():
        async with place.log() as log:

            async def writer(name):
                for number in range(20):
                    await log.append(name, events(number), expected_version=number)

            await asyncio.gather(*(writer(f"w{index}") for index in range(10)))
            found = await log.read().all()
            assert [each.position for each in found] == list(range(1, 201))
            for index in range(10):
                mine = [each.data["n"] for each in found if each.stream == f"w{index}"]
                assert mine == list(range(20))


def test_an_event_that_is_in_the_log_already_is_not_appended_again(place):
    @run
    async def _():
        async with place.log() as log:
            one, two = events(1, 2)
            first = await log.append("a", [one, two], expected_version=0)
            again = await log.append("a", [one, two], expected_version=0)
            assert again == first._replace(duplicates=2)
            mixed = await log.append("a", [two, *events(3)])
            assert mixed == ("a", 3, mixed.first, mixed.last, 1)
            assert [each.data["n"] for each in await log.read().all()] == [1, 2, 3]
            with pytest.raises(EventError, match="it is in stream 'a' at position 1 already"):
                await log.append("b", [one])


def test_the_same_event_twice_in_one_append_or_in_one_transaction_is_one(place):
    @run
    async def _():
        async with place.log() as log:
            same = uuid.uuid4()
            twins = [Event("counted", {"n": 1}, event_id=same), Event("counted", {"n": 1}, event_id=same)]
            assert (await log.append("a", twins)).duplicates == 1
            other = Event("counted", {"n": 2}, event_id=uuid.uuid4())
            await asyncio.gather(log.append("a", [other]), log.append("a", [other]))
            assert [each.data["n"] for each in await log.read().all()] == [1, 2]


def test_an_event_is_reversed_once(place):
    @run
    async def _():
        async with place.log() as log:
            await log.append("a", events(1))
            (event,) = await log.read().all()
            await log.append("a", [Event("undone", {}, reverses=event)])
            with pytest.raises(ReversalError, match="by position 2"):
                await log.append("a", [Event("undone", {}, reverses=event)])
            assert (await log.event(2)).reverses == event.event_id
            again = [Event("undone", {}, reverses=(await log.event(2)).event_id) for _ in range(2)]
            with pytest.raises(ReversalError, match="twice"):
                await log.append("a", again)
            assert await log.head() == 2


def test_everything_that_is_said_about_an_event_is_kept(place):
    @run
    async def _():
        async with place.log(clock=lambda: 1_700_000_000.25) as log:
            then = datetime(2020, 2, 3, 4, 5, 6, 7, tzinfo=UTC)
            cause = uuid.uuid4()
            await log.append(
                "a",
                [
                    Event("noted", {"n": 1}, effective_at=then, causation_id=cause, subject="ada", meta={"ip": "::1"}),
                    Event("noted", {"n": 2}, actor="bob", reason="because", correlation_id="other"),
                ],
                actor="eve",
                reason="a ticket",
                correlation_id="request-1",
            )
            one, two = await log.read().all()
            assert one.recorded_at == datetime(2023, 11, 14, 22, 13, 20, 250000, tzinfo=UTC)
            assert (one.effective_at, two.effective_at) == (then, two.recorded_at)
            assert (one.causation_id, two.causation_id) == (str(cause), None)
            assert (one.actor, two.actor) == ("eve", "bob")
            assert (one.reason, two.reason) == ("a ticket", "because")
            assert (one.correlation_id, two.correlation_id) == ("request-1", "other")
            assert (one.subject, one.meta["ip"], two.meta) == ("ada", "::1", {"reason": "because"})
            assert (await log.event(one.event_id)).position == 1


def test_recorded_times_never_go_back(place):
    times = iter([100.0, 100.0, 50.0, 50.0, 200.0, 200.0])

    @run
    async def _():
        async with place.log(clock=lambda: next(times)) as log:
            for _ in range(3):
                await log.append("a", events(1))
            assert [each.recorded_at.timestamp() for each in await log.read().all()] == [100, 100, 200]


def test_each_digest_sums_all_that_was_before(place):
    @run
    async def _():
        async with place.log() as log:
            await log.append("a", [Event("noted", {"ä": "\u2028\x1f"}, actor="x", reason="y"), *events(1)])
            await log.append("b", [Event("undone", {}, reverses=await log.event(1), subject="s")])
            log.types.add(Plain)
            for options in ({}, {"actor": "ada", "reason": "why", "correlation_id": "c", "causation_id": "d"}):
                await log.append("b", [Plain("x"), Plain("y")], **options)
                await log.append("b", [Plain("ä"), Plain("\u2028")], **options)
            before = ORIGIN
            async for event in log.read():
                before = digest_of(before, event.row)
                assert event.digest == before


def test_an_append_in_a_transaction_of_the_users_own_is_part_of_it(shared):
    @run
    async def _():
        async with shared.log() as log:
            await log.append("a", events(1))
            if shared.kind == "file":
                mine = sqlite3.connect(shared.url, isolation_level=None)
                with pytest.raises(OptionError, match="a transaction was begun"):
                    await log.append("a", events(2), connection=mine)
                mine.execute("CREATE TABLE orders (id INTEGER)")
                for end in ("ROLLBACK", "COMMIT"):
                    mine.execute("BEGIN")
                    mine.execute("INSERT INTO orders VALUES (1)")
                    await log.append("a", events(2), expected_version=1, connection=mine)
                    assert await log.head() == 1
                    mine.execute(end)
                mine.close()
            else:
                mine = await asyncpg.connect(shared.url)
                with pytest.raises(OptionError, match="a transaction was begun"):
                    await log.append("a", events(2), connection=mine)
                for end in ("rollback", "commit"):
                    transaction = mine.transaction()
                    await transaction.start()
                    await log.append("a", events(2), expected_version=1, connection=mine)
                    assert await log.head() == 1
                    await getattr(transaction, end)()
                await mine.close()
            await log.append("a", events(3), expected_version=2)
            assert [each.data["n"] for each in await log.read().all()] == [1, 2, 3]


def test_two_logs_on_one_store_see_each_others_versions(shared):
    @run
    async def _():
        async with shared.log() as one, shared.log() as two:
            for number in range(10):
                log = (one, two)[number % 2]
                await log.append("a", events(number), expected_version=number)
            with pytest.raises(AppendConflictError):
                await one.append("a", events(0), expected_version=9)
            assert [each.data["n"] for each in await two.read().all()] == list(range(10))


def test_a_decision_can_rest_on_more_than_one_stream(place):
    """A student may take a course while there is room: what must not have come since is told by types and fields."""

    @run
    async def _():
        async with place.log() as log:

            async def look(course):
                taken = log.read(types="enrolled", fields={"course": course})
                return taken, await log.head(), len(await taken.all())

            async def enrol(student, course, seen):
                taken, head, count = seen
                if count < 2:
                    event = Event("enrolled", {"student": student, "course": course, "room": 7})
                    await log.append(f"student-{student}", [event], unless=taken, after=head)

            await enrol("a", "c1", await look("c1"))
            seen, other = await look("c1"), await look("c2")
            decided = [*(enrol(name, "c1", seen) for name in "bcde"), enrol("x", "c2", other)]
            results = await asyncio.gather(*decided, return_exceptions=True)
            assert sum(isinstance(each, AppendConditionError) for each in results) == 3
            assert results[4] is None
            refused = next(each for each in results if isinstance(each, AppendConditionError))
            assert (refused.after, refused.position) == (1, 2)
            assert [each.data["student"] for each in await log.read(fields={"course": "c1"}).all()] == ["a", "b"]
            assert len(await log.read(fields={"course": "c1", "room": 7}).all()) == 2
            assert await log.read(fields={"course": "c3"}).all() == []
            await enrol("y", "c1", await look("c1"))
            assert await log.head() == 3


def test_events_are_never_changed_or_deleted(shared):
    @run
    async def _():
        async with shared.log() as log:
            await log.append("a", events(1))
            table = "headgate_events" if shared.kind == "file" else "headgate.events"
            for sql in (f"UPDATE {table} SET actor = 'x'", f"DELETE FROM {table}"):
                with pytest.raises(Exception, match=r"never|stays"):
                    await log.store.run(lambda db, sql=sql: db.execute(sql))
            assert await log.head() == 1


def test_a_large_append_is_one_transaction(place):
    @run
    async def _():
        async with place.log() as log:
            done = await log.append("a", events(*range(2500)))
            assert (done.first, done.last, done.version) == (1, 2500, 2500)
            with pytest.raises(EventError):
                await log.append("a", [*events(*range(1000)), Event("bad", {"n": float("nan")})])
            assert await log.head() == 2500


@pytest.mark.parametrize("stream", ["", "a\nb", "a\x1fb", "\u2028", "\ud800", 5, None])
def test_a_stream_needs_a_name_that_can_be_shown(stream):
    @run
    async def _():
        async with EventLog(":memory:") as log:
            with pytest.raises(EventError, match="stream"):
                await log.append(stream, events(1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Event("x", [1]), "a dict"),  # type: ignore[arg-type]
        (lambda: Event("x", {"n": {1, 2}, "o": object()}), "no form in JSON"),
        (lambda: Event("x", {"n": float("inf")}), "JSON"),
        (lambda: Event("x", {"n": "\ud800"}), r"surrogate|JSON"),
        (object, "registered"),
        (lambda: {"n": 1}, "registered"),
        (lambda: Event("x", {}, meta={"n": object()}), "meta"),
    ],
)
def test_an_event_that_cannot_be_recorded_is_refused_and_nothing_of_its_append_is_written(make, message):
    @run
    async def _():
        async with EventLog(":memory:") as log:
            with pytest.raises(EventError, match=message):
                await log.append("a", [*events(1), make()])
            assert await log.head() == 0
            await log.append("a", events(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"event_id": "x"}, "event_id"),
        ({"effective_at": datetime(2020, 1, 1)}, "time zone"),  # noqa: DTZ001
        ({"correlation_id": 5}, "correlation_id"),
        ({"reverses": 5}, "reverses"),
        ({"actor": ""}, "actor"),
        ({"meta": []}, "meta"),
    ],
)
def test_a_wrong_option_of_an_event_is_named(options, message):
    with pytest.raises(EventError, match=message):
        Event("x", {}, **options)


def test_an_event_has_a_largest_size():
    @run
    async def _():
        async with EventLog(":memory:", max_event_size=100) as log:
            with pytest.raises(EventError, match="at most 100"):
                await log.append("a", [Event("x", {"n": "y" * 100})])


def test_a_log_that_is_not_open_says_so(place):
    @run
    async def _():
        log = place.log()
        with pytest.raises(StoreError, match="not open"):
            await log.append("a", events(1))
        async with log:
            await log.append("a", events(1))
        with pytest.raises(StoreError, match="not open"):
            await log.head()
        await log.close()


def test_closing_writes_what_waits(shared):
    @run
    async def _():
        log = await EventLog.open(shared.url)
        writes = [asyncio.ensure_future(log.append("a", events(number))) for number in range(20)]
        await asyncio.sleep(0)
        await log.close()
        await asyncio.gather(*writes)
        async with shared.log() as log:
            assert await log.head() == 20


def test_a_cancelled_append_that_has_not_begun_is_not_written():
    @run
    async def _():
        async with EventLog(":memory:") as log:
            waiting = asyncio.ensure_future(log.append("a", events(1)))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await log.append("a", events(2))
            assert await log.head() in (1, 2)
            assert (await log.read().all())[-1].data["n"] == 2


def test_a_writer_that_holds_the_lock_for_too_long_is_named(tmp_path):
    @run
    async def _():
        path = str(tmp_path / "log.db")
        async with EventLog(path, busy_timeout=0.05) as log:
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="write lock"):
                await log.append("a", events(1))
            other.execute("ROLLBACK")
            other.close()
            await log.append("a", events(1))


def test_what_is_no_log_of_ours_is_refused(tmp_path):
    @run
    async def _():
        (tmp_path / "text.db").write_text("not a database, but long enough to look at" * 100)
        with pytest.raises(StoreError, match="not a database"):
            await EventLog.open(str(tmp_path / "text.db"))
        with pytest.raises(StoreError, match="no such folder"):
            await EventLog.open(str(tmp_path / "missing" / "log.db"))


def test_tables_of_a_newer_version_are_refused(shared):
    @run
    async def _():
        async with shared.log() as log:
            table = "headgate_meta" if shared.kind == "file" else "headgate.meta"
            sql = f"UPDATE {table} SET value = '99' WHERE name = 'schema'"
            await log.store.run(lambda db: db.execute(sql))
        with pytest.raises(StoreError, match="version 99"):
            await EventLog.open(shared.url)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"durability": "high"}, "durability"),
        ({"max_event_size": 0}, "max_event_size"),
        ({"master_key": b"short"}, "master_key"),
    ],
)
def test_a_wrong_option_of_a_log_is_named(options, name):
    with pytest.raises(OptionError, match=name):
        EventLog(":memory:", **options)


def test_a_password_is_never_shown():
    log = EventLog("postgresql://ada:secret@db.example:5432/ledger?password=secret")
    assert "secret" not in repr(log)
    assert "ada@db.example:5432/ledger" in repr(log)


def test_ids_are_ordered_by_time():
    ids = [*new_ids(1000, 1.0), *new_ids(1000, 2.0)]
    assert ids == sorted(set(ids))
    assert {(uuid.UUID(bytes=each).version, uuid.UUID(bytes=each).variant) for each in ids} == {(7, uuid.RFC_4122)}
    assert timedelta(milliseconds=int.from_bytes(ids[0][:6], "big")) == timedelta(seconds=1)


def test_an_append_in_a_transaction_of_somebody_else_is_whole_or_not_there(tmp_path):
    """Whatever his connection makes of rows; and when he goes on after an error, nothing of it is there."""

    @run
    async def _():
        async with EventLog(str(tmp_path / "log.db")) as log:
            await log.append("a", [Event("e", {})])
            db = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
            for factory in (None, sqlite3.Row, lambda cursor, row: {"row": row}):
                db.row_factory = factory
                db.execute("BEGIN")
                await log.append("a", [Event("e", {})], connection=db)
                assert db.row_factory is factory
                db.execute("COMMIT")
            db.row_factory = None
            db.execute("BEGIN")
            db.execute(
                "CREATE TEMP TRIGGER no BEFORE INSERT ON headgate_events WHEN NEW.stream = 'c' "
                "BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
            with pytest.raises(StoreError, match="no"):
                await log.append_all([("b", events(*range(45))), ("c", events(1))], connection=db)
            db.execute("COMMIT")
            db.close()
            assert [(each.name, each.version) for each in await log.streams()] == [("a", 4)]
