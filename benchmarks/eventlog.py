"""The event log beside raw sqlite3, beside hand-written statements on PostgreSQL, and beside `eventsourcing`.

::

    python -m benchmarks.eventlog [--events 100000] [--repeat 5] [--postgres URL]

Prints JSON lines: median, minimum and maximum of events per second. What is compared runs in turn, in one process, and
the ratios are taken round by round. "raw" inserts the very rows that the log has written (ids, versions, texts and
digests ready, nothing to encode) into the same tables; "raw from objects" also makes the JSON text, the id and the row,
and checks nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sqlite3
import statistics
import tempfile
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, time
from typing import Any

from benchmarks.environment import environment
from headgate.eventlog import Event, EventLog, Projection, Recorded, Types
from headgate.eventlog.record import COLUMNS
from headgate.eventlog.sqlite_statements import INSERT

BATCH = 1000
STREAMS = 1000
SELECT = f"SELECT {', '.join(COLUMNS)} FROM headgate_events WHERE position > ? ORDER BY position LIMIT {BATCH}"  # noqa: S608

Measure = Callable[[], Awaitable[float]]


@dataclass
class Ordered:
    """About 200 bytes."""

    order: int
    customer: str
    items: list[str]
    amount: int
    note: str


TYPES = Types(Ordered)


def ordered(number: int) -> Ordered:
    return Ordered(number, f"customer-{number % 977}", ["book", "pen", "lamp"], number % 5000, "n" * 90)


SHAPES: tuple[tuple[str, Callable[[Ordered], Any] | None, int], ...] = (
    ("dicts", lambda one: Event("Ordered", vars(one)), 1),
    ("with actor and correlation", lambda one: Event(one, actor="ada", correlation_id=f"c{one.order}"), 1),
    ("with all of that and a reason", lambda one: Event(one, actor="a", correlation_id=f"c{one.order}", reason="r"), 1),
    ("100 streams in each", None, 100),
    ("1000 streams in each", None, 1000),
)
"""Other appends than dataclasses of one kind to one stream."""


class Bench:
    """One folder, and the numbers that came out."""

    def __init__(self, folder: str, events: int, postgres: str | None) -> None:
        self.folder = Path(folder)
        self.events = events
        self.postgres = postgres
        self.data = [ordered(number) for number in range(events)]
        self.files = 0
        self.last = ""

    def path(self) -> str:
        self.files += 1
        return str(self.folder / f"{self.files}.db")

    async def filled(self, path: str) -> EventLog:
        log = await EventLog.open(path, types=TYPES)
        for at in range(0, self.events, BATCH):
            await log.append(f"s{at // BATCH % STREAMS}", self.data[at : at + BATCH])
        return log

    # -- appending ----------------------------------------------------------------------------------------------------

    def append(
        self,
        durability: str,
        batch: int = BATCH,
        events: int | None = None,
        make: Callable[[Ordered], Any] | None = None,
        streams: int = 1,
    ) -> Measure:
        """Append batches to one stream each, or to several at once; `make` wraps the data, outside of the clock."""
        count, each = events or self.events, batch // streams

        async def measure() -> float:
            data = self.data if make is None else [make(one) for one in self.data[:count]]
            self.last = self.path()
            async with EventLog(self.last, types=TYPES, durability=durability) as log:
                begun = perf_counter()
                for at in range(0, count, batch):
                    if streams == 1:
                        await log.append(f"s{at // batch % STREAMS}", data[at : at + batch])
                    else:
                        parts = [(f"s{one}", data[at + each * one : at + each * (one + 1)]) for one in range(streams)]
                        await log.append_all(parts)
                return count / (perf_counter() - begun)

        return measure

    def append_together(self, durability: str, tasks: int) -> Measure:
        """Many tasks, each of which appends one event at a time and waits for it."""

        async def measure() -> float:
            each = max(1, min(self.events, 20_000) // tasks)
            async with EventLog(self.path(), types=TYPES, durability=durability) as log:

                async def writer(name: str) -> None:
                    for number in range(each):
                        await log.append(name, [self.data[number]])

                begun = perf_counter()
                await asyncio.gather(*(writer(f"s{index}") for index in range(tasks)))
                return each * tasks / (perf_counter() - begun)

        return measure

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the rows of the log that was written last."""
        with contextlib.closing(sqlite3.connect(self.last)) as db:
            return db.execute(f"SELECT {', '.join(COLUMNS)} FROM headgate_events ORDER BY position").fetchall()  # noqa: S608

    async def empty(self) -> sqlite3.Connection:
        path = self.path()
        async with EventLog(path):
            pass
        return sqlite3.connect(path, isolation_level=None)

    def raw(self, synchronous: str, kept: dict[str, list[tuple[Any, ...]]], name: str) -> Measure:
        async def measure() -> float:
            rows = kept.setdefault(name, [])
            if not rows:  # the contender before this one has just written them
                rows += self.rows()
            db = await self.empty()
            db.execute(f"PRAGMA synchronous = {synchronous}")
            begun = perf_counter()
            for at in range(0, len(rows), BATCH):
                db.execute("BEGIN IMMEDIATE")
                db.executemany(INSERT, rows[at : at + BATCH])
                db.execute("COMMIT")
            took = perf_counter() - begun
            db.close()
            return len(rows) / took

        return measure

    def raw_from_objects(self, synchronous: str) -> Measure:
        async def measure() -> float:
            db = await self.empty()
            db.execute(f"PRAGMA synchronous = {synchronous}")
            dumps, digest = json.dumps, bytes(16)
            begun = perf_counter()
            for at in range(0, self.events, BATCH):
                now, stream, rows = int(time() * 1e6), f"s{at // BATCH % STREAMS}", []
                for index, data in enumerate(self.data[at : at + BATCH], at + 1):
                    text = dumps(vars(data), separators=(",", ":"))
                    place = (index, stream, index, "Ordered", 1, uuid.uuid4().bytes, now)
                    rows.append((*place, None, None, None, None, None, None, text, None, digest))
                db.execute("BEGIN IMMEDIATE")
                db.executemany(INSERT, rows)
                db.execute("COMMIT")
            took = perf_counter() - begun
            db.close()
            return self.events / took

        return measure

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(self, log: EventLog, look: Callable[[Recorded], Any] | None) -> Measure:
        async def measure() -> float:
            begun, count = perf_counter(), 0
            async for page in log.read(batch=BATCH).pages():
                for event in page:
                    if look is not None:
                        look(event)
                    count += 1
            return count / (perf_counter() - begun)

        return measure

    def select(self, path: str, *, decode: bool) -> Measure:
        async def measure() -> float:
            db = sqlite3.connect(path)
            begun, count = perf_counter(), 0
            while rows := db.execute(SELECT, (count,)).fetchall():
                for row in rows:
                    if decode:
                        json.loads(row[13])
                    count += 1
            took = perf_counter() - begun
            db.close()
            return count / took

        return measure

    # -- projections --------------------------------------------------------------------------------------------------

    def project(self, log: EventLog) -> Measure:
        names = iter(range(10**6))

        async def measure() -> float:
            def total(state: dict[str, int], event: Recorded) -> dict[str, int]:
                state["amount"] = state.get("amount", 0) + event.data.amount
                return state

            projection = Projection(f"p{next(names)}", total, entity=lambda event: event.data.customer)
            projector = log.projector(projection)
            begun = perf_counter()
            count = await projector.catch_up()
            return count / (perf_counter() - begun)

        return measure

    def project_eventsourcing(self) -> Measure:
        """A view of its own kind: one transaction for each event, as its `process_event` is called."""
        from eventsourcing.persistence import StoredEvent, Tracking  # noqa: PLC0415 (only here)
        from eventsourcing.sqlite import (  # noqa: PLC0415
            SQLiteApplicationRecorder,
            SQLiteDatastore,
            SQLiteTrackingRecorder,
        )

        count = min(self.events, 10_000)

        async def measure() -> float:
            store = SQLiteDatastore(self.path())
            events = SQLiteApplicationRecorder(store)
            events.create_table()
            view = SQLiteTrackingRecorder(store)
            view.create_table()
            with store.transaction(commit=True) as cursor:
                cursor.execute("CREATE TABLE amounts (customer TEXT PRIMARY KEY, amount INTEGER)")
            for at in range(0, count, BATCH):
                identity = uuid.uuid4()
                some = self.data[at : at + BATCH]
                events.insert_events(
                    [
                        StoredEvent(identity, n, "Ordered", json.dumps(vars(each)).encode())
                        for n, each in enumerate(some)
                    ]
                )
            begun, done = perf_counter(), 0
            while found := events.select_notifications(done + 1, BATCH):
                for notification in found:
                    data = json.loads(notification.state)
                    with store.transaction(commit=True) as cursor:
                        view._insert_tracking(cursor, Tracking("application", int(notification.id)))  # noqa: SLF001
                        cursor.execute(
                            "INSERT INTO amounts VALUES (?, ?) ON CONFLICT (customer) DO UPDATE "
                            "SET amount = amount + excluded.amount",
                            (data["customer"], data["amount"]),
                        )
                    done = int(notification.id)
            took = perf_counter() - begun
            store.close()
            return done / took

        return measure

    # -- PostgreSQL ---------------------------------------------------------------------------------------------------

    def append_postgres(self, schema: str) -> Measure:
        numbers = iter(range(10**6))

        async def measure() -> float:
            name = f"{schema}{next(numbers)}"
            async with EventLog(self.postgres or "", types=TYPES, schema=name) as log:
                begun = perf_counter()
                for at in range(0, self.events, BATCH):
                    await log.append(f"s{at // BATCH % STREAMS}", self.data[at : at + BATCH])
                return self.events / (perf_counter() - begun)

        return measure

    def raw_postgres(self, schema: str, how: str, rows: list[tuple[Any, ...]]) -> Measure:
        import asyncpg  # noqa: PLC0415 (only here)

        from headgate.eventlog.postgres import KINDS  # noqa: PLC0415

        numbers = iter(range(10**6))
        marks = ", ".join(f"${index}::{kind}[]" for index, kind in enumerate(KINDS, 1))
        names = ", ".join(COLUMNS)
        values = names.replace(", data,", ", data::json,").replace(", meta,", ", meta::json,")

        async def measure() -> float:
            name = f"{schema}{next(numbers)}"
            async with EventLog(self.postgres or "", schema=name):
                pass
            db = await asyncpg.connect(self.postgres)
            insert = f"INSERT INTO {name}.events ({names}) SELECT {values} FROM unnest({marks}) AS t ({names})"  # noqa: S608
            begun = perf_counter()
            for at in range(0, len(rows), BATCH):
                some = rows[at : at + BATCH]
                async with db.transaction():
                    if how == "copy":
                        await db.copy_records_to_table("events", records=some, columns=COLUMNS, schema_name=name)
                    else:
                        await db.execute(insert, *map(list, zip(*some, strict=True)))
            took = perf_counter() - begun
            await db.close()
            return len(rows) / took

        return measure


async def compare(name: str, contenders: dict[str, Measure], repeat: int) -> None:
    """Measure contenders in turn; the first is what the others are compared with."""
    found: dict[str, list[float]] = {each: [] for each in contenders}
    for measure in contenders.values():
        await measure()  # once, to warm up
    for _ in range(repeat):
        for each, measure in contenders.items():
            found[each].append(await measure())
    ours = next(iter(found))
    for each, rates in found.items():
        line: dict[str, Any] = {
            "row": name,
            "contender": each,
            "median": round(statistics.median(rates)),
            "min": round(min(rates)),
            "max": round(max(rates)),
            "unit": "events/s",
        }
        if each != ours:
            ratios = [mine / other for mine, other in zip(found[ours], rates, strict=True)]
            line[f"{ours} / {each}"] = round(statistics.median(ratios), 3)
        print(json.dumps(line), flush=True)


async def run(bench: Bench, repeat: int) -> None:
    rows: dict[str, list[tuple[Any, ...]]] = {}
    for durability, synchronous in (("normal", "NORMAL"), ("power", "FULL")):
        contenders = {
            "headgate": bench.append(durability),
            "raw": bench.raw(synchronous, rows, "alike"),
            "raw from objects": bench.raw_from_objects(synchronous),
        }
        await compare(f"append, batches of {BATCH}, {durability}", contenders, repeat)
        for name, make, streams in SHAPES if durability == "normal" else ():
            contenders = {
                "headgate": bench.append(durability, make=make, streams=streams),
                "raw": bench.raw(synchronous, rows, name),
            }
            await compare(f"append, batches of {BATCH}, {name}", contenders, repeat)
        ones: dict[str, Measure] = {"one by one": bench.append(durability, 1, 2000)}
        ones |= {f"{tasks} tasks": bench.append_together(durability, tasks) for tasks in (10, 100, 1000)}
        await compare(f"append, single events, {durability}", ones, repeat)
    path = bench.path()
    log = await bench.filled(path)
    pages = {"headgate": bench.read(log, None), "raw SELECT": bench.select(path, decode=False)}
    await compare("read, events not looked at", pages, repeat)
    decoded = {"headgate": bench.read(log, lambda event: event.plain), "raw": bench.select(path, decode=True)}
    await compare("read, data as dicts", decoded, repeat)
    await compare("read, data as dataclasses", {"headgate": bench.read(log, lambda event: event.data)}, repeat)
    projections = {"headgate": bench.project(log), "eventsourcing": bench.project_eventsourcing()}
    await compare("projection with its checkpoint", projections, repeat)
    await log.close()
    if bench.postgres:
        tag = f"b{uuid.uuid4().hex[:6]}"
        contenders = {
            "headgate": bench.append_postgres(f"{tag}h"),
            "INSERT": bench.raw_postgres(f"{tag}i", "insert", rows["alike"]),
            "COPY": bench.raw_postgres(f"{tag}c", "copy", rows["alike"]),
        }
        await compare(f"PostgreSQL: append, batches of {BATCH}", contenders, repeat)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.eventlog", description="The event log beside others.")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--postgres", metavar="URL", help="a database for the rows about PostgreSQL")
    options = parser.parse_args()
    print(json.dumps({"environment": environment(), "options": vars(options)}))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Bench(folder, options.events, options.postgres), options.repeat))
    print(json.dumps({"environment": environment()}))


if __name__ == "__main__":
    main()
