"""The log in PostgreSQL, by asyncpg. It needs the extra ``[postgres]``.

The order of positions is the order of commits: whoever inserts events holds an advisory lock until his transaction
ends, taken by a trigger, so that it holds for ``COPY`` and for statements typed by hand too. A reader that is at
position N will never find something new before N. Readers are told by ``NOTIFY``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import json
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from headgate.errors import EventLogError, HeadgateError, OptionError
from headgate.eventlog.bell import Bell
from headgate.eventlog.closing import Closing
from headgate.eventlog.committing import Committer, Result
from headgate.eventlog.planning import Appended, Condition, Found, Needs, Order, Plan, needs
from headgate.eventlog.postgres_schema import migrations
from headgate.eventlog.record import COLUMNS, Head, Row
from headgate.eventlog.store import SCHEMA_VERSION, FieldValue, Query, Statement, index_name, is_literal, select
from headgate.sources import cancelled

_HEAD: Final = "SELECT position, recorded_at, digest FROM ~events ORDER BY position DESC LIMIT 1"
KINDS: Final = (
    *("bigint", "text", "bigint", "text", "int", "bytea", "bigint", "bigint"),
    *("text", "text", "bytea", "text", "text", "text", "text", "bytea"),
)
# PostgreSQL keeps a NUL character in JSON, but looks into no JSON that has one.
_DATA: Final = (
    r"(CASE WHEN strpos(data::text, '\u0000') = 0 THEN data ELSE replace(data::text, '\u0000', '\ufffd')::json END)"
)
_COPY_FROM: Final = 200  # rows from which on COPY is quicker than INSERT
_OURS, _USERS = 4, 64  # connections of the two pools, made when they are needed
_CONNECT: Final = 10.0  # seconds that a connection may take at least
_RETRIES: Final = (0.1, 5.0)  # seconds between attempts to listen again: at first, and at the most


class PostgresStore:
    """A store in a PostgreSQL database.

    Args:
        url: ``postgresql://user:password@host:port/database``.
        durability: ``"power"``: with ``synchronous_commit``; ``"normal"``: as the server is set.
        busy_timeout: Seconds to wait for other writers, and for a connection.
        schema: Where our tables are.
        create: False: the tables have to be there already.
        clock: Unix time in seconds; ``time.time`` stands for the server's clock.
    """

    awaits = True

    def __init__(
        self,
        url: str,
        *,
        durability: str = "normal",
        busy_timeout: float = 30.0,
        create: bool = True,
        schema: str = "headgate",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep the options."""
        self.name = without_password(url)
        self._url = url
        self._durability = durability
        self._busy_timeout = busy_timeout
        self._patience = max(busy_timeout, _CONNECT)  # for a connection
        self._create = create
        self._schema = schema
        self._clock = clock
        self._bell = Bell()
        self._committer = Committer(self._commit, self._bell.ring)
        self._taken = False  # from before it is opened until after it is closed
        self._closing = False
        self._pool: Any = None  # for statements of ours
        self._users: Any = None  # for transactions in which a user's function runs
        self._end_once = Closing(self._end)
        self._known: tuple[type[Exception], ...] = ()  # what asyncpg raises
        self._failures: tuple[type[Exception], ...] = ()  # and what comes from the system beneath it
        self._writer: Any = None
        self._listener: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()
        self._asyncpg: Any = None

    # -- opening and closing ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Make or bring up the tables, and be ready."""
        if self._taken:
            raise EventLogError(self.name, "the log is open already")
        try:
            import asyncpg  # noqa: PLC0415 (an extra)
        except ImportError:
            expected = "a path, or the extra installed: pip install 'headgate[postgres]'"
            raise OptionError("EventLog", "url", expected, self.name) from None
        self._asyncpg = asyncpg
        self._known = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
        self._failures = (*self._known, OSError, TimeoutError)
        self._taken, self._closing = True, False
        try:
            async with self._translated():
                self._writer = await self._connect()
                try:
                    await self._migrate()
                    self._users = await self._make_pool(_USERS)
                    # A plan that was made when the log was small would be kept, and sort it as a whole for each page.
                    self._pool = await self._make_pool(_OURS, plan_cache_mode="force_custom_plan")
                except BaseException:
                    await self._writer.close()
                    raise
        except BaseException:
            self._taken = False
            raise
        self._listening.clear()
        self._listener = asyncio.create_task(self._listen(), name="headgate: log listener")

    @property
    def _settings(self) -> dict[str, Any]:
        return {
            "timeout": self._patience,
            "server_settings": {
                **({"synchronous_commit": "on"} if self._durability == "power" else {}),
                "lock_timeout": f"{max(1, int(self._busy_timeout * 1000))}",  # 0 would be for ever
                "application_name": "headgate",
            },
        }

    async def _connect(self) -> Any:
        return await self._asyncpg.connect(self._url, **self._settings)

    async def _make_pool(self, size: int, **more: str) -> Any:
        settings = self._settings
        settings["server_settings"].update(more)
        return await self._asyncpg.create_pool(self._url, min_size=0, max_size=size, **settings)

    async def _migrate(self) -> None:
        db = self._writer
        async with db.transaction():
            await db.execute("SELECT pg_advisory_xact_lock(7236, hashtext($1))", self._schema)
            there = await db.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{self._schema}.meta")
            version = 0
            if there:
                version = int(await db.fetchval(self._here("SELECT value FROM ~meta WHERE name = 'schema'")))
            if not version and not self._create:
                raise EventLogError(self.name, f"there is no event log in its schema {self._schema!r}")
            if version > SCHEMA_VERSION:
                why = f"its tables are of version {version}, and this Headgate knows up to {SCHEMA_VERSION}"
                raise EventLogError(self.name, why)
            if version == SCHEMA_VERSION:
                return
            for script in migrations(self._schema)[version:]:
                await db.execute(script)
            sql = "INSERT INTO ~meta VALUES ('schema', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
            await db.execute(self._here(sql), str(SCHEMA_VERSION))

    async def close(self) -> None:
        """Write what waits, and give everything back."""
        await self._end_once.wait(opened=self._pool is not None)

    async def _end(self) -> None:
        try:
            self._closing = True
            pool, self._pool = self._pool, None
            self._bell.ring()  # whoever waits for events learns that there will be none
            self._listening.set()
            await self._committer.drained()
            assert self._listener is not None  # noqa: S101 (it is there when the pool is)
            await cancelled(self._listener)
            with contextlib.suppress(*self._failures):  # what is broken is gone
                await self._writer.close()
            for each in (self._users, pool):
                await each.close()
        finally:
            self._taken = False

    # -- appending ----------------------------------------------------------------------------------------------------

    async def append(self, orders: Sequence[Order]) -> list[Appended]:
        """Append events to streams: all, or none. What several tasks append at the same time is one transaction."""
        self._check_open()
        return await self._committer.append(orders)

    async def _commit(self, jobs: list[Sequence[Order]]) -> list[Result]:
        """Write some appends in one transaction; one that is refused does not take back the others."""
        async with self._translated():
            if self._writer.is_closed():
                self._writer = await self._connect()
            async with self._writer.transaction():
                everything = [order for orders in jobs for order in orders]
                plan = await self._plan(self._writer, everything)
                results: list[Result] = []
                for orders in jobs:
                    try:
                        results.append(plan.place(orders))
                    except HeadgateError as error:
                        results.append(error)
                await self._insert(self._writer, plan.rows)
            return results

    async def _plan(self, db: Any, orders: Sequence[Order]) -> Plan:
        """Take the lock of the log's end, and look up what has to be known."""
        need: Needs = needs(orders)
        streams, ids, reversals = list(need.streams), list(need.ids), list(need.reversals)
        count = sum(order.size for order in orders)
        sql = self._here("SELECT * FROM ~begin_append($1, $2, $3, $4)")
        found = await db.fetchrow(sql, streams, ids, reversals, count)
        known: dict[bytes, Found] = {
            each: Found(*place)
            for each, *place in zip(
                found["known_ids"] or (),
                found["known_positions"] or (),
                found["known_streams"] or (),
                found["known_versions"] or (),
                strict=True,
            )
        }
        reversed_by: dict[bytes, int] = dict(zip(found["reversed_ids"] or (), found["reversed_at"] or (), strict=True))
        now = found["now"] if self._clock is time.time else int(self._clock() * 1e6)
        # Numbers come from a sequence, which is ahead of the last event when something was taken back.
        head = Head(found["first"] - 1, found["recorded_at"], found["digest"])
        archived = 0
        if need.conditions:
            archived = await db.fetchval(self._here("SELECT coalesce(max(last), 0) FROM ~archives"))
        unmet: dict[Condition, int] = {}
        for condition in need.conditions:
            sql, values = select(condition.query, None, 1, _field_is)
            position = await db.fetchval(numbered(self._here(sql)), *values)
            if position is not None:
                unmet[condition] = position
        versions = dict(zip(streams, found["versions"] or (), strict=True))
        return Plan(self.name, head, now, versions, known, reversed_by, unmet, archived)

    async def _insert(self, db: Any, rows: list[Row]) -> None:
        if not rows:
            return
        if len(rows) >= _COPY_FROM:
            await db.copy_records_to_table("events", records=rows, columns=COLUMNS, schema_name=self._schema)
            return
        marks = ", ".join(f"${index}::{kind}[]" for index, kind in enumerate(KINDS, 1))
        names = ", ".join(COLUMNS)
        values = names.replace(", data,", ", data::json,").replace(", meta,", ", meta::json,")
        sql = f"INSERT INTO ~events ({names}) SELECT {values} FROM unnest({marks}) AS t ({names}) ORDER BY position"  # noqa: S608 (names only)
        await db.execute(self._here(sql), *map(list, zip(*rows, strict=True)))

    async def append_in(self, connection: Any, orders: Sequence[Order]) -> list[Appended]:
        """Append in a transaction of somebody else, who commits it."""
        if not hasattr(connection, "is_in_transaction") or not connection.is_in_transaction():
            expected = "an asyncpg.Connection to the same database on which a transaction was begun"
            raise OptionError("EventLog.append", "connection", expected, connection)
        async with self._translated(), connection.transaction():  # a savepoint
            plan = await self._plan(connection, orders)
            results = plan.place(orders)
            await self._insert(connection, plan.rows)
            return results

    async def adopt(self, rows: Sequence[Row]) -> None:
        """Write rows of another log as they are."""
        self._check_open()
        if not rows:
            return
        async with self._translated(), self._writer.transaction():
            await self._insert(self._writer, list(rows))
            await self._writer.execute("SELECT setval($1, $2)", f"{self._schema}.positions", rows[-1][0])

    # -- transactions -------------------------------------------------------------------------------------------------

    async def transact(self, statements: Sequence[Statement]) -> list[list[tuple[Any, ...]]]:
        """Run statements in one transaction, and give the rows of each."""
        self._check_open()
        async with self._translated(), self._ours() as db:
            if len(statements) == 1 and statements[0].many is None and statements[0].changes is None:
                return [await self._execute(db, statements[0])]
            async with db.transaction():
                return [await self._execute(db, each) for each in statements]

    async def _execute(self, db: Any, statement: Statement) -> list[tuple[Any, ...]]:
        sql = numbered(self._here(statement.sql))
        if statement.many is not None:
            await db.executemany(sql, statement.many)
            return []
        rows: list[tuple[Any, ...]] = []
        if sql.startswith("SELECT") or " RETURNING " in sql:
            rows = [tuple(row) for row in await db.fetch(sql, *statement.values)]
            changes = len(rows)
        else:
            changes = int((await db.execute(sql, *statement.values)).rpartition(" ")[2])
        if statement.changes is not None and changes != statement.changes:
            raise statement.otherwise or EventLogError(self.name, f"expected {statement.changes} rows to change: {sql}")
        return rows

    async def run(self, work: Callable[[Any], Any], statements: Sequence[Statement] = ()) -> Any:
        """Run a function of a connection in a transaction, and some statements after it in the same one."""
        self._check_open()
        raised: list[BaseException] = []  # by the user's function: it may raise what it likes

        async with self._translated(raised), self._users.acquire(timeout=self._patience) as db, db.transaction():
            try:
                result = work(db)
                if inspect.isawaitable(result):
                    result = await result
            except BaseException as error:
                raised.append(error)
                raise
            for each in statements:
                await self._execute(db, each)
            return result

    # -- reading ------------------------------------------------------------------------------------------------------

    async def read(self, query: Query, cursor: Row | None, limit: int) -> list[Row]:
        """Read some rows."""
        self._check_open()
        sql, values = select(_one_sided(query), cursor, limit, _field_is)
        async with self._translated(), self._ours() as db:
            rows = [tuple(row) for row in await db.fetch(numbered(self._here(sql)), *values)]
        until = query.until
        while rows and (rows[-1][0] < query.start or (until is not None and rows[-1][0] > until)):
            rows.pop()
        return rows

    async def head(self) -> Head:
        """Say where the log ends."""
        self._check_open()
        async with self._translated(), self._ours() as db:
            row = await db.fetchrow(self._here(_HEAD))
        return Head() if row is None else Head(row[0], row[1], row[2] or b"")

    async def index(self, field: str) -> None:
        """Make an index of a field of the data, if there is none."""
        self._check_open()
        text, _ = _field(field)
        sql = f"CREATE INDEX IF NOT EXISTS {index_name(field)} ON ~events ({text.format('->>')}, type, position)"
        async with self._translated(), self._ours() as db:
            await db.execute(self._here(sql))

    async def check(self) -> list[str]:
        """Nothing is to be looked at: the server sums its pages itself."""
        return []

    async def scrub(self) -> None:
        """Nothing can be done: when old rows, its WAL and its backups go is up to the server and who keeps it."""

    async def wait(self, after: int) -> None:
        """Wait until there may be something after this position."""
        await self._listening.wait()
        while True:
            self._check_open()
            rung = self._bell.next()
            if (await self.head()).position > after:
                return
            await asyncio.shield(rung)

    async def now(self) -> int:
        """Say what time it is, by the server's clock as for appends."""
        if self._clock is not time.time:
            return int(self._clock() * 1e6)
        self._check_open()
        async with self._translated(), self._ours() as db:
            return int(await db.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"))

    async def _listen(self) -> None:
        """Ring when something was appended; connect again when the connection is lost."""
        pause, longest = _RETRIES
        while True:
            lost, db = asyncio.Event(), None
            try:
                db = await self._connect()
                db.add_termination_listener(functools.partial(_set, lost))
                await db.add_listener(f"headgate_{self._schema}", self._told)
                self._listening.set()
                self._bell.ring()  # what came while nobody listened
                pause = _RETRIES[0]
                await lost.wait()
            except self._failures:
                pass  # again
            finally:
                if db is not None:
                    db.terminate()
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    def _told(self, *_: Any) -> None:
        self._bell.ring()

    def _ours(self) -> Any:
        """Borrow a connection for statements of ours: nobody waits for anything else while he has one."""
        return self._pool.acquire(timeout=self._patience)

    # -- helpers ------------------------------------------------------------------------------------------------------

    def _here(self, sql: str) -> str:
        return sql.replace("~", f'"{self._schema}".')  # it may be a word of SQL

    def _check_open(self) -> None:
        if self._pool is None:
            why = "the log is not open; use it within 'async with', or open it by EventLog.open"
            raise EventLogError(self.name, why)

    @contextlib.asynccontextmanager
    async def _translated(self, raised: Sequence[BaseException] = ()) -> AsyncGenerator[None]:
        """Turn what asyncpg raises into errors of ours, but for what somebody else has raised."""
        try:
            yield
        except self._failures as error:
            if error in raised:
                raise
            if self._closing and isinstance(error, self._asyncpg.InterfaceError):  # the pool takes no more
                self._check_open()
            why = "PostgreSQL says" if isinstance(error, self._known) else f"no connection: {type(error).__name__}"
            raise EventLogError(self.name, f"{why}: {error}") from error


def _one_sided(query: Query) -> Query:
    """Leave out the bound that a read of plain positions comes to last; what is behind it has to be cut off.

    With both, PostgreSQL takes them for few as long as it has no statistics: it would then collect and sort everything
    between them for each page, in a new log of 100,000 events in ten times the time.
    """
    if query.streams or query.types or query.correlation_id is not None or query.fields:
        return query
    return replace(query, start=1) if query.backwards else replace(query, until=None)


def _field_is(name: str, value: FieldValue) -> tuple[str, tuple[str, ...]]:
    """Compare what is indexed, text; then the kind, where it is no text."""
    field, given = _field(name)
    if isinstance(value, str):
        return f"{field.format('->>')} = ?", (*given, value)
    alike, text = f"({field.format('->')})::text = ?", json.dumps(value)
    if value is None:
        return alike, (*given, text)
    return f"{field.format('->>')} = ? AND {alike}", (*given, text, *given, text)


def _field(name: str) -> tuple[str, tuple[str, ...]]:
    """Return the SQL of a field of the data, with its operator left out, and what is to be put in for ``?``."""
    if is_literal(name):
        return f"({_DATA} {{}} '{name}')", ()
    return f"({_DATA} {{}} ?::text)", (name,)


def _set(event: asyncio.Event, _: Any) -> None:
    event.set()


@functools.lru_cache(maxsize=256)
def numbered(sql: str) -> str:
    """Return SQL with ``$1``, ``$2``, ... for each ``?``."""
    parts = sql.split("?")
    return "".join(f"{part}${index}" for index, part in enumerate(parts[:-1], 1)) + parts[-1]


def without_password(url: str) -> str:
    """Return an address that can be shown."""
    parts = urlsplit(url)
    place = parts.hostname or ""
    if parts.port:
        place += f":{parts.port}"
    if parts.username:
        place = f"{parts.username}@{place}"
    return urlunsplit((parts.scheme, place, parts.path, "", ""))
