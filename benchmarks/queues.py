"""Durable queues on SQLite: put, claim and acknowledge, next to the same statements by hand and to other libraries.

Every contender has a file of its own in WAL mode, on the same disk, with the same `synchronous`. So many messages wait
in it from the beginning; then a batch is put, a batch claimed (oldest first) and acknowledged, over and over. What a
library cannot do for a batch it does for one message after the other. huey and diskcache have no acknowledgement: they
delete what they hand out, and a crash loses it.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import time
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import diskcache
import litequeue
import persistqueue
import persistqueue.serializers.json
from huey.storage import SqliteStorage

from benchmarks.model import WrongResultError
from headgate.connectors.sqlite import SQLiteQueue

if TYPE_CHECKING:
    from collections.abc import Callable

WAITING = 1_000
"""Messages that wait in the queue from the beginning."""

PAYLOAD = {"conversation": 123_456, "author": "somebody", "text": "x" * 160}
"""About 210 bytes of JSON."""

LEASE = 30.0


class Queue(Protocol):
    """What is measured."""

    def put(self, count: int) -> None:
        """Put so many messages."""

    def take(self, count: int) -> list[Any]:
        """Claim so many and acknowledge them; return their payloads."""

    def close(self) -> None:
        """Give everything back."""


class Statements:
    """The statements of a queue with leases, by hand: a table, an index of what is ready, one of what is leased."""

    def __init__(self, folder: str, synchronous: str = "NORMAL") -> None:
        self._db = sqlite3.connect(Path(folder, "queue.db"), isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(f"PRAGMA synchronous = {synchronous}")
        self._db.execute(
            "CREATE TABLE jobs (id INTEGER PRIMARY KEY AUTOINCREMENT, state INTEGER NOT NULL, "
            "priority INTEGER NOT NULL, lease REAL, claim INTEGER, deliveries INTEGER NOT NULL, body TEXT NOT NULL)"
        )
        self._db.execute("CREATE INDEX ready ON jobs (priority DESC) WHERE state = 0")
        self._db.execute("CREATE INDEX leased ON jobs (lease) WHERE state = 1")
        self._claim = 0

    def put(self, count: int) -> None:
        sql = "INSERT INTO jobs (state, priority, deliveries, body) VALUES (0, 0, 0, ?)"
        if count == 1:
            self._db.execute(sql, (json.dumps(PAYLOAD),))
            return
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(sql, ((json.dumps(PAYLOAD),) for _ in range(count)))
        self._db.execute("COMMIT")

    def take(self, count: int) -> list[Any]:
        self._claim += 1
        rows = self._db.execute(
            "UPDATE jobs SET state = 1, lease = ?, claim = ?, deliveries = deliveries + 1 WHERE id IN "
            "(SELECT id FROM jobs WHERE state = 0 ORDER BY priority DESC, id LIMIT ?) RETURNING id, deliveries, body",
            (time.time() + LEASE, self._claim, count),
        ).fetchall()
        payloads = [json.loads(body) for _, _, body in rows]
        sql = "DELETE FROM jobs WHERE id = ? AND claim = ? AND state = 1"
        if count == 1:
            self._db.execute(sql, (rows[0][0], self._claim))
            return payloads
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(sql, [(row[0], self._claim) for row in rows])
        self._db.execute("COMMIT")
        return payloads

    def close(self) -> None:
        self._db.close()


class Headgate:
    """`SQLiteQueue` as a source."""

    def __init__(self, folder: str, **options: Any) -> None:
        self._queue = SQLiteQueue(Path(folder, "queue.db"), lease=LEASE, **options)
        self._queue.open()
        self._keys: dict[str, Any] = {}
        self._number = 0
        if options.get("ordered"):
            self._keys["key"] = self._next
        if options.get("fair"):
            self._keys["user"] = self._next

    def _next(self, payload: Any) -> int:
        self._number += 1
        return self._number % 5_000

    def put(self, count: int) -> None:
        if count == 1 and not self._keys:
            self._queue.put(PAYLOAD)
        else:
            self._queue.put_many([PAYLOAD] * count, **self._keys)

    def take(self, count: int) -> list[Any]:
        messages = self._queue.fetch(count) or []
        self._queue.ack(messages)
        return [message.data for message in messages]

    def close(self) -> None:
        self._queue.close()


class PersistQueue:
    """`persistqueue.SQLiteAckQueue`: one at a time."""

    def __init__(self, folder: str) -> None:
        self._queue = persistqueue.SQLiteAckQueue(folder, serializer=persistqueue.serializers.json)
        for connection in (self._queue._putter, self._queue._getter):  # noqa: SLF001 (there is no option)
            connection.execute("PRAGMA synchronous = NORMAL")  # type: ignore[attr-defined]

    def put(self, count: int) -> None:
        for _ in range(count):
            self._queue.put(PAYLOAD)

    def take(self, count: int) -> list[Any]:
        items = [self._queue.get(block=False, raw=True) for _ in range(count)]
        for item in items:
            self._queue.ack(id=item["pqid"])
        self._queue.clear_acked_data(max_delete=count + 1_000, keep_latest=0)
        return [item["data"] for item in items]

    def close(self) -> None:
        self._queue.close()


class LiteQueue:
    """`litequeue.LiteQueue`: one at a time, in one transaction where it can be."""

    def __init__(self, folder: str) -> None:
        self._queue = litequeue.LiteQueue(str(Path(folder, "queue.db")))
        self._queue.conn.execute("PRAGMA synchronous = NORMAL")

    def put(self, count: int) -> None:
        if count == 1:
            self._queue.put(json.dumps(PAYLOAD))
            return
        with self._queue.transaction():
            for _ in range(count):
                self._queue.put(json.dumps(PAYLOAD))

    def take(self, count: int) -> list[Any]:
        tasks = [self._queue.pop() for _ in range(count)]
        for task in tasks:
            self._queue.done(task.message_id)
        self._queue.prune()
        return [json.loads(task.data) for task in tasks]

    def close(self) -> None:
        self._queue.close()


class Huey:
    """The storage of `huey.SqliteHuey`: one at a time, without acknowledgement."""

    def __init__(self, folder: str) -> None:
        self._storage = SqliteStorage("queue", str(Path(folder, "queue.db")))
        self._storage.conn.execute("PRAGMA synchronous = NORMAL")

    def put(self, count: int) -> None:
        for _ in range(count):
            self._storage.enqueue(json.dumps(PAYLOAD).encode())

    def take(self, count: int) -> list[Any]:
        return [json.loads(bytes(self._storage.dequeue())) for _ in range(count)]

    def close(self) -> None:
        self._storage.close()


class DiskCache:
    """`diskcache.Deque`: in one transaction, without acknowledgement."""

    def __init__(self, folder: str) -> None:
        cache = diskcache.Cache(folder, disk=diskcache.JSONDisk, disk_compress_level=0, eviction_policy="none")
        self._deque = diskcache.Deque.fromcache(cache)

    def put(self, count: int) -> None:
        with self._deque.transact():
            self._deque.extend([PAYLOAD] * count)

    def take(self, count: int) -> list[Any]:
        with self._deque.transact():
            return [self._deque.popleft() for _ in range(count)]

    def close(self) -> None:
        self._deque.cache.close()


def run(events: int, make: Callable[[str], Queue], batch: int, waiting: int = WAITING) -> float:
    """Move that many messages through a queue in a fresh file; return the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        queue = make(folder)
        try:
            queue.put(waiting)
            moved = 0
            started = perf_counter()
            while moved < events:
                queue.put(batch)
                payloads = queue.take(batch)
                moved += len(payloads)
                if len(payloads) != batch or payloads[0] != PAYLOAD or payloads[-1] != PAYLOAD:
                    message = f"{len(payloads)} messages of {batch} came"
                    raise WrongResultError(message)
            return perf_counter() - started
        finally:
            queue.close()
