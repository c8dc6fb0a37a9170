"""One queue in an SQLite file, as those see it who put messages into it or look at it."""

# ruff: noqa: S608 (statements are made of constants of this module)

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from headgate.connectors.sqlite_database import SCHEMA_VERSION, Database
from headgate.connectors.sqlite_records import COLUMNS, Codec, QueueCounts, QueuedMessage, Row
from headgate.errors import OptionError, StoreError
from headgate.types import Message

BULK: Final = 10_000
"""From so many messages on that are put at once, SQLite is told about the new sizes (ANALYZE)."""

_INSERT: Final = """INSERT INTO headgate_messages
    (deliveries, queue, state, priority, due, key, user, dedupe, deadline, put_at, metadata, body)
    VALUES (0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_INSERT_UNLESS: Final = f"{_INSERT} ON CONFLICT (queue, dedupe) WHERE dedupe IS NOT NULL AND state <> 5 DO NOTHING"

_COUNT: Final = """SELECT
    (SELECT count(*) FROM headgate_messages INDEXED BY headgate_ready WHERE queue = ?1 AND state = 0)
    + (SELECT count(*) FROM headgate_messages INDEXED BY headgate_behind WHERE queue = ?1 AND state = 3),
    (SELECT count(*) FROM headgate_messages INDEXED BY headgate_delayed WHERE queue = ?1 AND state = 1 AND due <= ?2),
    (SELECT count(*) FROM headgate_messages INDEXED BY headgate_delayed WHERE queue = ?1 AND state = 1 AND due > ?2),
    (SELECT count(*) FROM headgate_messages INDEXED BY headgate_leased WHERE queue = ?1 AND state = 2 AND due > ?2),
    (SELECT count(*) FROM headgate_messages INDEXED BY headgate_leased WHERE queue = ?1 AND state = 2 AND due <= ?2),
    (SELECT count(*) FROM headgate_messages INDEXED BY headgate_dead WHERE queue = ?1 AND state = 4),
    (SELECT count(*) FROM headgate_messages INDEXED BY headgate_done WHERE queue = ?1 AND state = 5)"""
_PEEK: Final = f"""SELECT {COLUMNS} FROM headgate_messages INDEXED BY headgate_ready
    WHERE queue = ? AND state = 0 ORDER BY priority DESC, id LIMIT ?"""
_LETTERS: Final = f"""SELECT {COLUMNS} FROM headgate_messages INDEXED BY headgate_dead
    WHERE queue = ? AND state = 4 AND id > ? ORDER BY id LIMIT ?"""
_GET: Final = f"SELECT {COLUMNS} FROM headgate_messages WHERE queue = ? AND id = ?"
_RETRY: Final = """UPDATE headgate_messages SET deliveries = 0, suspect = 0, ended_at = NULL, state = ?, due = ?
    WHERE queue = ? AND state = 4"""
_DELETE: Final = "DELETE FROM headgate_messages WHERE queue = ? AND state = 4"
_THESE: Final = " AND id IN (SELECT value FROM json_each(?))"
_PURGES: Final = {
    "waiting": "state IN (0, 3)",
    "delayed": "state = 1",
    "dead": "state = 4",
    "done": "state = 5",
}


class Store:
    """The part of `SQLiteQueue` for which no message is leased.

    Args:
        where: Its name in errors.
        path: The absolute path of the file.
        queue: The name of the queue.
        database: The file.
        codec: For payloads.
        clock: Unix time in seconds.
    """

    def __init__(
        self, where: str, path: str, queue: str, database: Database, codec: Codec, clock: Callable[[], float]
    ) -> None:
        """Touch nothing yet."""
        self.where = where
        self.path = path
        self.queue = queue
        self.database = database
        self.codec = codec
        self.clock = clock
        self._number: int | None = None

    # -- the queue in the file ----------------------------------------------------------------------------------------

    def number(self) -> int:
        """Return the queue's number in the file, where it is made when it is new."""
        if self._number is None:
            database = self.database
            with database.lock:
                rows = database.run("open", "SELECT id FROM headgate_queues WHERE name = ?", (self.queue,))
                if not rows:
                    if not database.create:
                        there = ", ".join(map(repr, self.names())) or "none"
                        why = f"there is no queue {self.queue!r} in it"
                        raise StoreError(self.path, "open", why, f"these are there: {there}")
                    with database.transaction("open"):
                        sql = "INSERT INTO headgate_queues (name) VALUES (?) ON CONFLICT DO NOTHING"
                        database.run("open", sql, (self.queue,))
                        rows = database.run("open", "SELECT id FROM headgate_queues WHERE name = ?", (self.queue,))
            number: int = rows[0][0]
            self._number = number
        return self._number

    def names(self) -> list[str]:
        """Return the names of the file's queues."""
        with self.database.lock:
            return [name for (name,) in self.database.run("list", "SELECT name FROM headgate_queues ORDER BY name")]

    # -- putting ------------------------------------------------------------------------------------------------------

    def rows(self, payloads: Iterable[Any], *, key: Any, user: Any, dedupe: Any, **options: Any) -> list[Row]:
        """Return rows of payloads, or of messages."""
        now = self.clock()
        made: list[Row] = []
        row = self.codec.row
        key_of: Any = key if callable(key) else None
        user_of: Any = user if callable(user) else None
        for payload in payloads:
            its = options
            data, its_key = payload, key
            if isinstance(payload, Message):
                data, its_key = payload.data, key if key is not None else payload.key
                its = {**options, **_of_message(payload, options)}
            made.append(
                row(
                    data,
                    now,
                    key=key_of(data) if key_of else its_key,
                    user=user_of(data) if user_of else user,
                    dedupe=None if dedupe is None else dedupe(data),
                    **its,
                )
            )
        return made

    def insert(self, rows: Sequence[Row]) -> list[int | None]:
        """Insert rows in one transaction; return their ids, None for one whose dedupe key is taken."""
        database = self.database
        number = self.number()
        with database.lock:
            if len(rows) == 1:
                (row,) = rows
                sql = _INSERT if row[5] is None else _INSERT_UNLESS
                count, last = database.change("put", sql, (number, *row))
                return [last if count else None]
            with database.transaction("put"):
                if all(row[5] is None for row in rows):
                    database.many("put", _INSERT, ((number, *row) for row in rows))
                    last = database.run("put", "SELECT last_insert_rowid()")[0][0]
                    ids: list[int | None] = list(range(last - len(rows) + 1, last + 1))
                else:
                    ids = []
                    for row in rows:
                        count, last = database.change("put", _INSERT_UNLESS, (number, *row))
                        ids.append(last if count else None)
            if len(rows) >= BULK:
                with suppress(StoreError):  # it is put all the same
                    database.run("analyze", "PRAGMA analysis_limit = 400")
                    database.run("analyze", "ANALYZE headgate_messages")
        return ids

    def insert_by(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> list[int | None]:
        """Insert rows by somebody else's connection, in whatever transaction that is in."""
        if not isinstance(connection, sqlite3.Connection):
            raise OptionError(self.where, "connection", "an sqlite3.Connection, or None", connection)
        schema = self._schema_of(connection)
        plain, unless = (sql.replace("INTO ", f'INTO "{schema}".', 1) for sql in (_INSERT, _INSERT_UNLESS))
        ids: list[int | None] = []
        try:
            number = self._number or self._number_by(connection, schema)
            for row in rows:
                cursor = connection.execute(plain if row[5] is None else unless, (number, *row))
                ids.append(cursor.lastrowid if cursor.rowcount else None)
        except sqlite3.Error as error:
            advice = "see what the transaction of that connection is at"
            raise StoreError(self.path, "put by the connection given", str(error), advice) from error
        return ids

    def _schema_of(self, connection: sqlite3.Connection) -> str:
        """Return under which name that connection has our file."""
        files = [(row[1], row[2]) for row in connection.execute("PRAGMA database_list").fetchall()]
        for name, file in files:
            try:
                if file and Path(file).samefile(self.path):
                    return str(name).replace('"', '""')
            except OSError:  # one of the two is not there (any more)
                continue
        expected = f"a connection to {self.path}"
        raise OptionError(self.where, "connection", expected, [file or ":memory:" for _, file in files])

    def _number_by(self, connection: sqlite3.Connection, schema: str) -> int:
        """Find the queue, or make it, by somebody else's connection: ours would wait for its transaction."""
        named = f'"{schema}".'
        try:
            sql = f"SELECT value FROM {named}headgate_queue_meta WHERE name = 'schema_version'"
            row = connection.execute(sql).fetchone()
            version = row[0]
        except (sqlite3.OperationalError, TypeError):
            why = "it has no queue yet"
            raise StoreError(self.path, "put by the connection given", why, "call setup() before") from None
        if version > SCHEMA_VERSION:
            why = f"its queue was written by a newer version of headgate (schema {version})"
            raise StoreError(self.path, "put", why, "install that version here as well")
        sql = f"INSERT INTO {named}headgate_queues (name) VALUES (?) ON CONFLICT DO NOTHING"
        connection.execute(sql, (self.queue,))
        sql = f"SELECT id FROM {named}headgate_queues WHERE name = ?"
        number: int = connection.execute(sql, (self.queue,)).fetchone()[0]
        return number  # not to be kept: the transaction may be taken back

    # -- looking ------------------------------------------------------------------------------------------------------

    def counts(self) -> QueueCounts:
        """Count the messages by state."""
        number, now = self.number(), self.clock()
        with self.database.lock:
            ready, due, delayed, leased, expired, dead, done = self.database.run("count", _COUNT, (number, now))[0]
        return QueueCounts(ready + due, delayed, leased, expired, dead, done)

    def peek(self, limit: int) -> list[QueuedMessage]:
        """Return what is to be handed out next."""
        return self._records(_PEEK, (self.number(), limit))

    def letters(self, limit: int, after: int) -> list[QueuedMessage]:
        """Return dead letters, in the order of their ids."""
        return self._records(_LETTERS, (self.number(), after, limit))

    def get(self, number: int) -> QueuedMessage | None:
        """Return one message."""
        found = self._records(_GET, (self.number(), number))
        return found[0] if found else None

    def _records(self, sql: str, values: Any) -> list[QueuedMessage]:
        with self.database.lock:
            rows = self.database.run("look", sql, values)
        return [self.codec.record(row) for row in rows]

    # -- dead letters -------------------------------------------------------------------------------------------------

    def retry(self, ids: Iterable[int] | None, delay: float) -> int:
        """Send dead letters back; return how many."""
        state, due = (1, self.clock() + delay) if delay else (0, None)
        return self._change("retry", _RETRY, [state, due, self.number()], ids)

    def delete_dead(self, ids: Iterable[int] | None) -> int:
        """Delete dead letters; return how many."""
        return self._change("delete", _DELETE, [self.number()], ids)

    def purge(self, states: Sequence[str], before: float | None) -> int:
        """Delete messages of some states; return how many."""
        number, total = self.number(), 0
        with self.database.transaction("purge"):
            for state in states:
                sql = f"DELETE FROM headgate_messages WHERE queue = ? AND {_PURGES[state]}"
                values: list[Any] = [number]
                if before is not None:
                    sql += " AND coalesce(ended_at, put_at) < ?"
                    values.append(before)
                count, _ = self.database.change("purge", sql, values)
                total += count
            # Those that stood behind one that is gone would wait for nothing.
            self.database.run(
                "purge", "UPDATE headgate_messages SET state = 0 WHERE queue = ? AND state = 3", (number,)
            )
        return total

    def _change(self, doing: str, sql: str, values: list[Any], ids: Iterable[int] | None) -> int:
        if ids is not None:
            numbers = list(ids)
            for each in numbers:
                if isinstance(each, bool) or not isinstance(each, int):
                    raise OptionError(self.where, "ids", "ids of messages, or None for all of them", each)
            sql += _THESE
            values.append(str(numbers))
        with self.database.lock:
            count, _ = self.database.change(doing, sql, values)
        return count


def _of_message(message: Message, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a message brings along, where nothing else is said."""
    found: dict[str, Any] = {}
    if options.get("metadata") is None and message.metadata:
        found["metadata"] = message.metadata
    if options.get("deadline") is None and message.deadline is not None:
        found["deadline"] = message.deadline
    return found
