"""The log in a SQLite file, or in memory.

One thread writes and another reads, each with its own connection, in WAL mode: readers never wait for writers. What
several tasks append while a transaction is under way goes into the next one together. Other processes write to the same
file: ``BEGIN IMMEDIATE`` is tried again after a short random time, since SQLite's own way of waiting lets some starve.
That they have written is noticed by a look at ``PRAGMA data_version``, microseconds each, only while somebody waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import random
import sqlite3
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from headgate.errors import DamagedLogError, EventLogError, HeadgateError, OptionError
from headgate.eventlog import schema
from headgate.eventlog.bell import Bell
from headgate.eventlog.closing import Closing
from headgate.eventlog.committing import Committer, Result
from headgate.eventlog.planning import Appended, Condition, Found, Needs, Order, Plan, needs
from headgate.eventlog.record import Head, Row
from headgate.eventlog.sqlite_statements import (
    among,
    execute,
    field_is,
    field_sql,
    head_of,
    here,
    insert,
    plain_rows,
    statements,
    version_of,
)
from headgate.eventlog.store import SCHEMA_VERSION, Query, Statement, index_name, select
from headgate.sources import cancelled

T = TypeVar("T")

MEMORY: Final = ":memory:"
_CACHED: Final = 100_000  # streams whose versions are remembered
_LOOKS: Final = (0.002, 0.05)  # seconds between looks for what others wrote: just after something came, and later on
_CHANGE: Final = (  # something: only a commit that changes a page forces what is written to the disk, all of it
    "INSERT INTO headgate_meta VALUES ('changed', '0') ON CONFLICT (name) DO UPDATE SET value = 1 - headgate_meta.value"
)


class SqliteStore:
    """A store in a SQLite file.

    Args:
        path: The file, or ``":memory:"``.
        durability: ``"normal"``: what is appended survives the end of the process, and the last of it may be lost when
            the power fails; ``"power"``: it survives that too (one fsync for each transaction).
        busy_timeout: Seconds to wait for other processes' transactions.
        create: False: the tables have to be there already.
        clock: Unix time in seconds.
    """

    awaits = False  # a function of a connection runs in the writer's thread

    def __init__(
        self,
        path: str,
        *,
        durability: str = "normal",
        busy_timeout: float = 30.0,
        create: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep the options."""
        self.name = path
        self._memory = path == MEMORY
        self._durability = durability
        self._busy_timeout = busy_timeout
        self._create = create
        self._clock = clock
        self._bell = Bell()
        self._watch: asyncio.Task[None] | None = None
        self._committer = Committer(self._commit, self._bell.ring)
        self._taken = False  # from before it is opened until after it is closed
        self._opened = False
        self._end_once = Closing(self._end)
        self._connections: list[sqlite3.Connection] = []

        # Of the writer's thread:
        self._db: sqlite3.Connection
        self._seen = -1  # data_version when the cache was right
        self._head = Head()
        self._versions: dict[str, int] = {}

    # -- opening and closing ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Make or bring up the tables, and be ready."""
        if self._taken:
            raise EventLogError(self.name, "the log is open already")
        self._taken = True
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="headgate: log writer")
        self._readers = (
            self._writer if self._memory else ThreadPoolExecutor(1, thread_name_prefix="headgate: log reader")
        )
        try:
            await self._write_there(self._open)
        except BaseException:
            await self._shut()
            raise
        self._opened = True

    def _open(self) -> None:
        self._seen, self._versions = -1, {}  # others may have written since it was open before
        with self._translated():
            if not self._memory and not Path(self.name).resolve().parent.is_dir():
                raise EventLogError(self.name, "there is no such folder")
            if not self._create and not Path(self.name).is_file():
                raise EventLogError(self.name, "there is no such file")
            self._db = self._connect()
            if not self._create and not self._schema_version():
                raise EventLogError(self.name, "there is no event log in it")
            if not self._memory:
                self._again_while_busy(lambda: self._db.execute("PRAGMA journal_mode = WAL"))
            self._db.execute(f"PRAGMA synchronous = {'FULL' if self._durability == 'power' else 'NORMAL'}")
            self._migrate()
            if self._durability == "power" and not self._memory:
                # One who was killed between writing and fsync has left what can be read from here on, and can be lost.
                self._transact(None, [Statement(_CHANGE)])
            self._reader = self._db if self._memory else self._connect()
            self._watcher = self._db if self._memory else self._connect()
            if not self._memory:
                self._reader.execute("PRAGMA query_only = 1")

    def _connect(self) -> sqlite3.Connection:
        # Only one thread at a time uses a connection, but not always the one that has made it.
        db = sqlite3.connect(self.name, timeout=0, isolation_level=None, check_same_thread=False)
        self._connections.append(db)
        db.execute("PRAGMA secure_delete = 1")  # destroyed keys leave nothing behind
        return db

    def _migrate(self) -> None:
        begun = self._schema_version()
        if begun == SCHEMA_VERSION:
            return
        self._begin()
        try:
            version = self._schema_version()  # somebody else may have been quicker
            if version > SCHEMA_VERSION:
                why = f"its tables are of version {version}, and this Headgate knows up to {SCHEMA_VERSION}"
                raise EventLogError(self.name, why)  # noqa: TRY301 (within the transaction)
            for script in schema.MIGRATIONS[version:]:
                for statement in statements(script):
                    self._db.execute(statement)
            self._db.execute(
                "INSERT INTO headgate_meta VALUES ('schema', ?) "
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (str(SCHEMA_VERSION),),
            )
            self._db.execute("COMMIT")
        except BaseException:
            self._rollback()
            raise

    def _schema_version(self) -> int:
        there = self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'headgate_meta'").fetchone()
        if there is None:
            return 0
        return int(self._db.execute("SELECT value FROM headgate_meta WHERE name = 'schema'").fetchone()[0])

    async def close(self) -> None:
        """Write what waits, and give everything back."""
        await self._end_once.wait(opened=self._opened)

    async def _end(self) -> None:
        self._opened = False
        self._bell.ring()  # whoever waits for events learns that there will be none
        await self._committer.drained()
        if self._watch is not None:
            await cancelled(self._watch)
        await self._shut()

    async def _shut(self) -> None:
        """Close the connections when whoever uses them is done, and end the threads."""
        await self._read_there(lambda: None)
        await self._write_there(self._close)
        self._end_threads()
        self._taken = False

    def _end_threads(self) -> None:
        self._writer.shutdown(wait=False)
        self._readers.shutdown(wait=False)

    def _close(self) -> None:
        while self._connections:
            self._connections.pop().close()

    # -- appending ----------------------------------------------------------------------------------------------------

    async def append(self, orders: Sequence[Order]) -> list[Appended]:
        """Append events to streams: all, or none. What several tasks append at the same time is one transaction."""
        self._check_open()
        return await self._committer.append(orders)

    async def _commit(self, jobs: list[Sequence[Order]]) -> list[Result]:
        return await self._write_there(functools.partial(self._write, jobs))

    def _write(self, jobs: list[Sequence[Order]]) -> list[Result]:
        """Write some appends in one transaction; one that is refused does not take back the others."""
        with self._translated():
            self._begin()
            try:
                plan = self._plan(self._db, needs(order for orders in jobs for order in orders))
                results: list[Result] = []
                for orders in jobs:
                    try:
                        results.append(plan.place(orders))
                    except HeadgateError as error:
                        results.append(error)
                insert(self._db, plan.rows)
                if self._durability == "power" and not plan.rows and any(type(each) is list for each in results):
                    self._db.execute(_CHANGE)  # what is there already may be of one who does not force it to the disk
                self._db.execute("COMMIT")
            except BaseException:
                self._rollback()
                raise
            self._head = plan.head
            if len(self._versions) > _CACHED:
                self._versions.clear()
            self._versions.update(plan.versions)
            return results

    def _plan(self, db: sqlite3.Connection, need: Needs) -> Plan:
        """Look up what has to be known; the write lock is held."""
        if db is self._db:
            (now,) = db.execute("PRAGMA data_version").fetchone()
            if now != self._seen:  # somebody else has written
                self._versions.clear()
                self._head = head_of(db)
                self._seen = now
            head, cached = self._head, self._versions
        else:
            head, cached = head_of(db), {}
        versions = {stream: cached[stream] if stream in cached else version_of(db, stream) for stream in need.streams}
        known = {
            row[0]: Found(*row[1:])
            for table in ("events", "archived_ids")
            for row in among(db, table, "event_id, position, stream, version", "event_id", need.ids)
        }
        reversed_by = dict(
            row
            for table in ("events", "archived_ids")
            for row in among(db, table, "reverses, position", "reverses", need.reversals)
        )
        archived = 0
        if need.conditions:
            (archived,) = db.execute("SELECT coalesce(max(last), 0) FROM headgate_archives").fetchone()
        unmet: dict[Condition, int] = {}
        for condition in need.conditions:
            sql, values = select(condition.query, None, 1, field_is)
            row = db.execute(here(sql), values).fetchone()
            if row is not None:
                unmet[condition] = row[0]
        return Plan(self.name, head, int(self._clock() * 1e6), versions, known, reversed_by, unmet, archived)

    async def append_in(self, connection: Any, orders: Sequence[Order]) -> list[Appended]:
        """Append in a transaction of somebody else, who commits it. It blocks like any statement of that connection."""
        if not isinstance(connection, sqlite3.Connection) or not connection.in_transaction:
            expected = "a sqlite3.Connection to the same file on which a transaction was begun"
            raise OptionError("EventLog.append", "connection", expected, connection)
        with self._translated(), plain_rows(connection):
            connection.execute("UPDATE headgate_meta SET value = value WHERE 0")  # takes the write lock before it reads
            connection.execute("SAVEPOINT headgate_append")
            try:
                plan = self._plan(connection, needs(orders))
                results = plan.place(orders)
                insert(connection, plan.rows)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK TO headgate_append")
                    connection.execute("RELEASE headgate_append")
                raise
            connection.execute("RELEASE headgate_append")
            return results

    async def adopt(self, rows: Sequence[Row]) -> None:
        """Write rows of another log as they are."""
        self._check_open()
        await self._write_there(functools.partial(self._adopt, rows))
        self._bell.ring()

    def _adopt(self, rows: Sequence[Row]) -> None:
        with self._translated():
            self._transact(lambda db: insert(db, rows), ())

    async def index(self, field: str) -> None:
        """Make an index of a field of the data, if there is none."""
        self._check_open()
        text, _ = field_sql(field)
        sql = f"CREATE INDEX IF NOT EXISTS ~{index_name(field)} ON ~events (CAST({text.format('->>')} AS TEXT), type)"
        await self._write_there(functools.partial(self._transact, None, [Statement(sql)]))

    # -- transactions -------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._again_while_busy(lambda: self._db.execute("BEGIN IMMEDIATE"))

    def _again_while_busy(self, step: Callable[[], Any]) -> None:
        deadline = None
        while True:
            try:
                step()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                now = time.monotonic()
                deadline = deadline or now + self._busy_timeout
                if now >= deadline:
                    why = f"another process has held its write lock for {self._busy_timeout:g} s"
                    raise EventLogError(self.name, why) from error
                time.sleep(random.uniform(0.0001, 0.002))  # noqa: S311 (no secret)
            else:
                return

    def _rollback(self) -> None:
        self._seen = -1  # the cache may know what was never written
        with contextlib.suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    async def transact(self, statements: Sequence[Statement]) -> list[list[tuple[Any, ...]]]:
        """Run statements in one transaction, and give the rows of each."""
        self._check_open()
        if all(each.sql.startswith("SELECT") for each in statements):
            return await self._read_there(functools.partial(self._looked_up, statements))
        return await self._write_there(functools.partial(self._transact, None, statements))

    def _looked_up(self, statements: Sequence[Statement]) -> list[list[tuple[Any, ...]]]:
        with self._translated():
            self._reader.execute("BEGIN")
            try:
                return [execute(self._reader, each) for each in statements]
            finally:
                self._reader.execute("COMMIT")

    async def run(self, work: Callable[[Any], Any], statements: Sequence[Statement] = ()) -> Any:
        """Run a function of the connection in a transaction, and some statements after it in the same one."""
        self._check_open()
        result = await self._write_there(functools.partial(self._transact, work, statements))
        self._bell.ring()
        return result

    def _transact(self, work: Callable[[Any], Any] | None, statements: Sequence[Statement]) -> Any:
        with self._translated(user=work is not None):
            self._begin()
            try:
                result = None if work is None else self._work(work)
                rows = [execute(self._db, each) for each in statements]
                self._db.execute("COMMIT")
            except BaseException:
                self._rollback()
                raise
            if work is not None:
                self._seen = -1  # it may have appended
            return rows if work is None else result

    def _work(self, work: Callable[[Any], Any]) -> Any:
        """Run a user's function within the transaction that is open, and see that it still is."""
        result = work(self._db)
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            expected = "plain in a transaction on SQLite, where it runs in the writer's thread"
            raise OptionError(self.name, "handler", expected, work)
        if not self._db.in_transaction:
            why = "the function that was run in a transaction has ended it: it must not commit, roll back or use 'with'"
            raise EventLogError(self.name, why)
        return result

    # -- reading ------------------------------------------------------------------------------------------------------

    async def read(self, query: Query, cursor: Row | None, limit: int) -> list[Row]:
        """Read some rows."""
        self._check_open()
        sql, values = select(query, cursor, limit, field_is)
        return await self._read_there(functools.partial(self._fetch, here(sql), values))

    def _fetch(self, sql: str, values: tuple[Any, ...]) -> list[Row]:
        with self._translated():
            return self._reader.execute(sql, values).fetchall()

    async def head(self) -> Head:
        """Say where the log ends."""
        self._check_open()
        return await self._read_there(self._read_head)

    def _read_head(self) -> Head:
        with self._translated():
            return head_of(self._reader)

    async def check(self) -> list[str]:
        """Let SQLite look at its own structures; an empty list: it found nothing wrong."""
        return await self._read_there(self._check)

    def _check(self) -> list[str]:
        try:
            found = [row[0] for row in self._reader.execute("PRAGMA integrity_check")]
        except sqlite3.DatabaseError as error:
            return [str(error)]
        return [] if found == ["ok"] else [line for each in found for line in each.splitlines() if line]

    async def scrub(self) -> None:
        """Empty the -wal file, which has what was overwritten until it is used anew."""
        deadline = time.monotonic() + self._busy_timeout
        while not await self._write_there(self._emptied):
            if time.monotonic() >= deadline:
                why = "it is done, but others who read keep what was there before in the -wal file: do it again"
                raise EventLogError(self.name, why)
            await asyncio.sleep(_LOOKS[0])

    def _emptied(self) -> bool:
        with self._translated():
            (busy, _, _) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    async def wait(self, after: int) -> None:
        """Wait until there may be something after this position."""
        while True:
            self._check_open()
            rung = self._bell.next()
            if self._watch is None or self._watch.done():
                # From here on changes of others ring; what came before is seen by the read that follows.
                self._watch = None if self._memory else self._begin_to_look()
            if (await self.head()).position > after:
                return
            await asyncio.shield(rung)

    async def now(self) -> int:
        """Say what time it is: all who use a file have the clock of its machine."""
        return int(self._clock() * 1e6)

    def _begin_to_look(self) -> asyncio.Task[None]:
        (seen,) = self._watcher.execute("PRAGMA data_version").fetchone()
        return asyncio.create_task(self._look(seen), name="headgate: log watch")

    async def _look(self, seen: int) -> None:
        """Look whether other connections have written, as long as somebody waits."""
        look = self._watcher.execute
        pause, longest = _LOOKS
        while self._bell.awaited:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, longest)
            (now,) = look("PRAGMA data_version").fetchone()
            if now != seen:
                seen, pause = now, _LOOKS[0]
                self._bell.ring()
                await asyncio.sleep(0)  # let those who were woken wait again, if they have to

    # -- threads ------------------------------------------------------------------------------------------------------

    async def _write_there(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    async def _read_there(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    def _check_open(self) -> None:
        if not self._opened:
            why = "the log is not open; use it within 'async with', or open it by EventLog.open"
            raise EventLogError(self.name, why)

    @contextlib.contextmanager
    def _translated(self, *, user: bool = False) -> Generator[None]:
        """Turn what SQLite raises into errors of ours; a user's function may raise what it likes."""
        try:
            yield
        except UnicodeDecodeError as error:
            if user:
                raise
            raise DamagedLogError(self.name, f"SQLite gives text that is none: {error}") from error
        except (UnicodeEncodeError, OverflowError) as error:
            if user:
                raise
            raise EventLogError(self.name, f"SQLite cannot hold what it is given: {error}") from error
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "decode to UTF-8" in str(error):
                raise DamagedLogError(self.name, f"SQLite says: {error}") from error
            if user and code not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY):
                raise
            raise EventLogError(self.name, f"SQLite says: {error}") from error
