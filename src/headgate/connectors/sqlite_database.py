"""The file of `SQLiteQueue`: its tables, and how several processes share it.

States of a message::

    READY ---claim---> LEASED ---ack---> (deleted, or DONE)
      ^                  | nack, lease over        | dead_letter, too many deliveries
      |<--- DELAYED <----+                         +---> DEAD ---retry---> READY
      |<--- BEHIND  (ordered queues only: met by a claim while its key was not to be had)

Every index is partial: what has ended costs the living nothing, and a table of a million rows is claimed from as
quickly as one of ten. Each hot statement names its index, so that no statistics can lead the planner astray.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from weakref import WeakSet

from headgate.errors import StoreError

SCHEMA_VERSION: Final = 1

READY: Final = 0
DELAYED: Final = 1
LEASED: Final = 2
BEHIND: Final = 3
DEAD: Final = 4
DONE: Final = 5

_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS headgate_queue_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE IF NOT EXISTS headgate_queues (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        ordered INTEGER NOT NULL DEFAULT 0,
        turn)""",
    # The columns without a type hold what they are given: a key 1 is not the key '1'; a body is text (JSON) or bytes.
    # What changes stands in front, what is large at the end. Times are Unix seconds. AUTOINCREMENT: an id that a
    # producer was told never means another message.
    """CREATE TABLE IF NOT EXISTS headgate_messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        queue INTEGER NOT NULL,
        state INTEGER NOT NULL,
        priority INTEGER NOT NULL,
        due REAL,
        claim INTEGER,
        deliveries INTEGER NOT NULL,
        suspect INTEGER NOT NULL DEFAULT 0,
        key,
        user,
        dedupe TEXT,
        deadline REAL,
        put_at REAL NOT NULL,
        ended_at REAL,
        metadata TEXT,
        reason TEXT,
        traceback TEXT,
        body NOT NULL)""",
    """CREATE INDEX IF NOT EXISTS headgate_ready ON headgate_messages (queue, priority DESC) WHERE state = 0""",
    """CREATE INDEX IF NOT EXISTS headgate_suspect ON headgate_messages (queue) WHERE suspect > 0 AND state = 0""",
    """CREATE INDEX IF NOT EXISTS headgate_delayed ON headgate_messages (queue, due) WHERE state = 1""",
    """CREATE INDEX IF NOT EXISTS headgate_leased ON headgate_messages (queue, due) WHERE state = 2""",
    """CREATE INDEX IF NOT EXISTS headgate_behind ON headgate_messages (queue) WHERE state = 3""",
    """CREATE INDEX IF NOT EXISTS headgate_dead ON headgate_messages (queue) WHERE state = 4""",
    """CREATE INDEX IF NOT EXISTS headgate_done ON headgate_messages (queue) WHERE state = 5""",
    """CREATE UNIQUE INDEX IF NOT EXISTS headgate_dedupe ON headgate_messages (queue, dedupe)
        WHERE dedupe IS NOT NULL AND state <> 5""",
)

# For one queue alone, and made when it is first opened that way: nobody else pays for them.
ORDER_INDEX: Final = """CREATE INDEX IF NOT EXISTS headgate_order_$Q ON headgate_messages (state, key)
    WHERE queue = $Q AND key IS NOT NULL AND state < 4"""
FAIR_INDEX: Final = """CREATE INDEX IF NOT EXISTS headgate_fair_$Q ON headgate_messages (user, priority DESC)
    WHERE queue = $Q AND state = 0"""

_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_ADVICE: Final = {
    sqlite3.SQLITE_FULL: "make room on the disk, then go on: nothing that was committed is lost",
    sqlite3.SQLITE_CANTOPEN: "see that its folder exists and may be written to by this user",
    sqlite3.SQLITE_READONLY: "see that the file and its folder may be written to by this user",
    sqlite3.SQLITE_PERM: "see that the file and its folder may be written to by this user",
    sqlite3.SQLITE_NOTADB: "give the path of an SQLite file, or of none yet",
    sqlite3.SQLITE_CORRUPT: "restore it from a backup, or save what can be read by the command 'sqlite3 FILE .recover'",
    sqlite3.SQLITE_IOERR: "look at the disk and its free space; the file must not be on a network file system",
}


_databases: Final[WeakSet[Database]] = WeakSet()


def _free_locks() -> None:
    """After a fork: a thread that held a lock is not there to let it go."""
    for database in _databases:
        database.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_locks)


class Database:
    """One connection to the file, for all threads of this process, one at a time.

    Args:
        path: The file.
        create: Make the file and its tables when there are none.
        full: Whether a commit waits until the disk has it (``synchronous`` FULL; else NORMAL).
        patience: Seconds to try when other processes keep writing.
        sleep: Waits so many seconds.
        chance: Gives a number from 0 to 1, for how long to wait.
    """

    def __init__(
        self,
        path: str,
        *,
        create: bool = True,
        full: bool = False,
        patience: float = 10.0,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Touch nothing yet."""
        self.path = path
        self.lock = threading.RLock()
        self.waited = 0.0
        self.create = create
        self._full = full
        self._patience = patience
        self._sleep = sleep
        self._chance = chance
        self._connection: sqlite3.Connection | None = None
        self._inherited: sqlite3.Connection | None = None
        self._process = 0
        self._depth = 0
        _databases.add(self)

    # -- open and close -----------------------------------------------------------------------------------------------

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection; it is opened when there is none, and again after a fork. Hold the lock."""
        if self._connection is None or self._process != os.getpid():
            self._open()
        assert self._connection is not None  # noqa: S101 (for the type checkers)
        return self._connection

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None and self._process == os.getpid()

    def close(self) -> None:
        """Give the connection back; the next use opens it again."""
        with self.lock:
            connection, self._connection = self._connection, None
            if connection is not None and self._process == os.getpid():
                connection.close()

    def _open(self) -> None:
        if not self.create and not Path(self.path).is_file():
            raise StoreError(self.path, "open", "there is no such file", "see that the path is right")
        # A connection from before a fork belongs to the other process: it must not even be closed here.
        self._inherited, self._connection = self._connection, None
        self._process = os.getpid()
        self._depth = 0
        try:
            connection = sqlite3.connect(
                self.path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256
            )
        except sqlite3.Error as error:
            raise self._explained("open", error) from error
        self._connection = connection
        try:
            self._prepare()
        except BaseException:
            self._connection = None
            connection.close()
            raise

    def _prepare(self) -> None:
        waited = 0.0
        while (mode := self.run("open", "PRAGMA journal_mode = WAL")[0][0]) == "delete" and waited < self._patience:
            waited += self._nap()  # somebody else opens it at this moment
        if mode != "wal":
            why = f"it cannot be put into WAL mode (it is in {mode!r} mode)"
            raise StoreError(self.path, "open", why, "give a file on a local disk, not ':memory:' or a network path")
        self.run("open", f"PRAGMA synchronous = {'FULL' if self._full else 'NORMAL'}")
        self.run("open", "PRAGMA temp_store = MEMORY")
        version = self._version()
        if version == SCHEMA_VERSION:
            return
        if version is None and not self.create:
            raise StoreError(self.path, "open", "there is no queue in it", "see that the path is right")
        with self.transaction("open"):  # of several processes, the first one makes the tables
            if self._version() is None:
                for statement in _TABLES:
                    self.run("open", statement)
                sql = "INSERT INTO headgate_queue_meta VALUES ('schema_version', ?), ('workers', 0)"
                self.run("open", sql, (SCHEMA_VERSION,))

    def _version(self) -> int | None:
        sql = "SELECT 1 FROM sqlite_master WHERE name = 'headgate_queue_meta'"
        if not self.run("open", sql):
            return None
        rows = self.run("open", "SELECT value FROM headgate_queue_meta WHERE name = 'schema_version'")
        version: int = rows[0][0]
        if version > SCHEMA_VERSION:
            why = f"it was written by a newer version of headgate (schema {version}, here {SCHEMA_VERSION})"
            raise StoreError(self.path, "open", why, "install that version here as well")
        return version

    # -- statements ---------------------------------------------------------------------------------------------------

    def run(self, doing: str, sql: str, values: Any = ()) -> list[Any]:
        """Execute one statement and return its rows. Hold the lock.

        Outside of a transaction it is committed by itself. While other processes write, it is tried again.
        """
        waited = 0.0
        while True:
            try:
                return self.connection.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                waited = self._wait(doing, error, waited)

    def change(self, doing: str, sql: str, values: Any = ()) -> tuple[int, int]:
        """Execute one statement; return how many rows it has changed, and the id of the last one inserted."""
        waited = 0.0
        while True:
            try:
                cursor = self.connection.execute(sql, values)
            except sqlite3.Error as error:
                waited = self._wait(doing, error, waited)
            else:
                return cursor.rowcount, cursor.lastrowid or 0

    def many(self, doing: str, sql: str, rows: Iterable[Any]) -> None:
        """Execute one statement for each row, within a transaction."""
        try:
            self.connection.executemany(sql, rows)
        except sqlite3.Error as error:
            raise self._explained(doing, error) from error

    def transaction(self, doing: str) -> Transaction:
        """Return a context: everything in it is committed together, or not at all. It holds the lock."""
        return Transaction(self, doing)

    def begin(self, doing: str) -> None:
        """Begin a transaction; within one, do nothing."""
        self.lock.acquire()
        try:
            if not self._depth:
                self.run(doing, "BEGIN IMMEDIATE")
            self._depth += 1
        except BaseException:
            self.lock.release()
            raise

    def end(self, doing: str, *, failed: bool) -> None:
        """Commit, or take everything back."""
        try:
            self._depth -= 1
            if self._depth:
                return
            if failed:
                self._roll_back()
                return
            try:
                self.run(doing, "COMMIT")
            except BaseException:
                self._roll_back()
                raise
        finally:
            self.lock.release()

    def _roll_back(self) -> None:
        connection = self._connection
        if connection is not None and connection.in_transaction:  # SQLite itself may have done it
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")

    # -- trouble ------------------------------------------------------------------------------------------------------

    def _wait(self, doing: str, error: sqlite3.Error, waited: float) -> float:
        """Sleep for a moment when somebody else writes; raise when it is something else, or for too long.

        SQLite's own waiting doubles its naps, and a writer that naps is overtaken by those that do not: with four
        processes it starved for seconds. Short naps of random length do not.
        """
        code = getattr(error, "sqlite_errorcode", None)  # those that Python raises have none
        if code is None or code & 0xFF not in _BUSY:
            raise self._explained(doing, error) from error
        if waited >= self._patience:
            why = f"other connections have kept it locked for {self._patience:g} s"
            advice = "look for a transaction that somebody has left open, or give more patience="
            raise StoreError(self.path, doing, why, advice) from error
        return waited + self._nap()

    def _nap(self) -> float:
        nap = 0.0001 + 0.0019 * self._chance()
        self._sleep(nap)
        self.waited += nap
        return nap

    def _explained(self, doing: str, error: sqlite3.Error) -> StoreError:
        code = getattr(error, "sqlite_errorcode", None) or 0
        advice = _ADVICE.get(code & 0xFF, "this should not happen, please report it")
        return StoreError(self.path, doing, str(error), advice)


class Transaction:
    """What `Database.transaction` returns."""

    __slots__ = ("_database", "_doing")

    def __init__(self, database: Database, doing: str) -> None:
        """Begin nothing yet."""
        self._database = database
        self._doing = doing

    def __enter__(self) -> None:
        """Begin."""
        self._database.begin(self._doing)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Commit, or take everything back."""
        self._database.end(self._doing, failed=kind is not None)
