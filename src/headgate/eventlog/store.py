"""What a store of a log has to be able to do: a small protocol, so that everything above is written once.

A store appends, reads and waits. Everything else that is kept with a log (checkpoints, states of projections, keys,
...) goes through `Store.transact`: a few statements in the SQL that both databases speak, with ``?`` for values and
``~`` before the name of a table of ours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from headgate.errors import EventLogError
from headgate.eventlog.record import COLUMNS, Head, Row

if TYPE_CHECKING:
    from headgate.eventlog.planning import Appended, Order

FieldValue = str | int | bool | None
"""What a field of the data can be compared with."""
FieldIs = Callable[[str, FieldValue], tuple[str, tuple[str, ...]]]
"""How a database says that a field has a value: SQL with ``?``, and the texts for them."""

SCHEMA_VERSION = 3
"""Of our own tables. `Store.open` brings older ones up, and refuses newer ones."""


class Statement(NamedTuple):
    """One statement of a transaction.

    Attributes:
        sql: With ``?`` and ``~``.
        values: For the ``?``.
        many: Run it once for each of these instead.
        changes: How many rows it has to change; another number takes the whole transaction back.
        otherwise: What to raise then.
    """

    sql: str
    values: tuple[Any, ...] = ()
    many: Sequence[tuple[Any, ...]] | None = None
    changes: int | None = None
    otherwise: Exception | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """Which events to read.

    Attributes:
        start: First position, inclusive.
        until: Last position, inclusive; None: the end.
        streams: Names of streams, or prefixes that end in ``*``; empty: all.
        types: Names of types; empty: all.
        correlation_id: Only those of one correlation.
        backwards: From ``until`` down to ``start``.
        fields: Values that fields of the data have to have.
    """

    start: int = 1
    until: int | None = None
    streams: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    correlation_id: str | None = None
    backwards: bool = False
    fields: tuple[tuple[str, FieldValue], ...] = ()

    @property
    def single(self) -> bool:
        """Whether it reads exactly one stream, by the index that says its order."""
        return len(self.streams) == 1 and not self.streams[0].endswith("*")


class Store(Protocol):
    """Where the events of a log are.

    Attributes:
        name: For errors: a path, or an address without its password.
        awaits: What is given to `run` may be async.
    """

    name: str
    awaits: bool

    async def open(self) -> None:
        """Make or bring up the tables, and be ready."""
        ...

    async def close(self) -> None:
        """Write what waits, and give everything back."""
        ...

    async def append(self, orders: Sequence[Order]) -> list[Appended]:
        """Append events to streams: all, or none. What several tasks append at the same time is one transaction."""
        ...

    async def append_in(self, connection: Any, orders: Sequence[Order]) -> list[Appended]:
        """The same in a transaction of somebody else, who commits it."""
        ...

    async def read(self, query: Query, cursor: Row | None, limit: int) -> list[Row]:
        """Read some rows.

        Args:
            query: Which.
            cursor: The last row that was read; None: from the beginning.
            limit: How many at most.
        """
        ...

    async def adopt(self, rows: Sequence[Row]) -> None:
        """Write rows of another log as they are, positions included; nobody else writes to this one meanwhile."""
        ...

    async def index(self, field: str) -> None:
        """Make an index of a field of the data, if there is none."""
        ...

    async def check(self) -> list[str]:
        """Let the database look at its own structures; an empty list: it found nothing wrong."""
        ...

    async def scrub(self) -> None:
        """Leave nothing behind, as far as it is in our hands, of what was overwritten or deleted."""
        ...

    async def head(self) -> Head:
        """Say where the log ends, by what is committed."""
        ...

    async def wait(self, after: int) -> None:
        """Wait until there may be something after this position."""
        ...

    async def now(self) -> int:
        """Say what time it is, in microseconds of Unix time, by the clock that all who use it have in common."""
        ...

    async def transact(self, statements: Sequence[Statement]) -> list[list[tuple[Any, ...]]]:
        """Run statements in one transaction, and give the rows of each."""
        ...

    async def run(self, work: Callable[[Any], Any], statements: Sequence[Statement] = ()) -> Any:
        """Run a function of a connection in a transaction, and some statements after it in the same one.

        On SQLite it is a plain function of a ``sqlite3.Connection``, run in the writer's thread; on PostgreSQL it may
        be async, of an ``asyncpg.Connection``.
        """
        ...


def passing(error: BaseException) -> bool:
    """Whether it is a failure of the database, or of the way to it, that may be over when it is tried again.

    What we say ourselves has no cause (the log is not open), or is of a kind of its own (it is damaged, ...).
    """
    return type(error) is EventLogError and error.__cause__ is not None


def select(query: Query, cursor: Row | None, limit: int, field_is: FieldIs) -> tuple[str, tuple[Any, ...]]:
    """Return the SQL and the values that read the next rows of a query."""
    where: list[str] = []
    values: list[Any] = []

    def condition(sql: str, *given: Any) -> None:
        where.append(sql)
        values.extend(given)

    start, until = query.start, query.until
    if query.single:
        condition("stream = ?", query.streams[0])
        if cursor is not None:
            condition("version < ?" if query.backwards else "version > ?", cursor[2])
    elif cursor is not None:
        if query.backwards:
            until = cursor[0] - 1
        else:
            start = cursor[0] + 1
    if start > 1 or not (query.single or query.backwards):  # a value, so that each read is planned by PostgreSQL anew
        condition("position >= ?", start)
    if until is not None:
        condition("position <= ?", until)
    if query.streams and not query.single:
        sql, names = in_streams(query.streams)
        condition(sql, *names)
    if query.types:
        condition(f"type IN ({', '.join('?' * len(query.types))})", *query.types)
    if query.correlation_id is not None:
        condition("correlation_id = ?", query.correlation_id)
    for name, value in query.fields:
        sql, texts = field_is(name, value)
        condition(sql, *texts)
    order = "version" if query.single else "position"
    text = (
        f"SELECT {', '.join(COLUMNS)} FROM ~events{' WHERE ' if where else ''}{' AND '.join(where)} "  # noqa: S608 (no value is in it)
        f"ORDER BY {order}{' DESC' if query.backwards else ''} LIMIT {int(limit)}"
    )
    return text, tuple(values)


def in_streams(streams: Sequence[str]) -> tuple[str, list[str]]:
    """Return the SQL that says that a stream is one of these (names, or prefixes that end in ``*``), and its values."""
    parts: list[str] = []
    values: list[str] = []
    for each in streams:
        if each.endswith("*"):
            parts.append("(stream >= ? AND stream < ?)")
            values.extend((each[:-1], after_prefix(each[:-1])))
        else:
            parts.append("stream = ?")
            values.append(each)
    return f"({' OR '.join(parts)})", values


def index_name(field: str) -> str:
    """Return what the index of a field is called: any field can be a part of it."""
    return f"events_field_{hashlib.sha256(field.encode()).hexdigest()[:16]}"


def is_literal(name: str) -> bool:
    """Whether the name of a field can stand in SQL as it is, so that an index of it is found."""
    return not set(name) & set("?~'{}")


def after_prefix(prefix: str) -> str:
    """Return a text that comes after everything with this prefix."""
    return prefix + "\U0010ffff"


def matches(query: Query, row: Row) -> bool:
    """Whether a row is one of those that a query is about; its bounds are not looked at, but for the upper one."""
    if query.until is not None and row[0] > query.until:
        return False
    if query.types and row[3] not in query.types:
        return False
    if query.correlation_id is not None and row[8] != query.correlation_id:
        return False
    if query.fields:
        data = json.loads(row[13])
        if any(name not in data or not _is(data[name], value) for name, value in query.fields):
            return False
    if not query.streams:
        return True
    return any(row[1].startswith(each[:-1]) if each.endswith("*") else row[1] == each for each in query.streams)


def _is(found: Any, value: FieldValue) -> bool:
    """Whether a field has a value, as the databases see it: text has to be alike, anything else alike as JSON."""
    if isinstance(value, str):
        return (found if isinstance(found, str) else json.dumps(found)) == value
    return not isinstance(found, str) and json.dumps(found) == json.dumps(value)
