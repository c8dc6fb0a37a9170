"""What the log says to SQLite: the statements, and the functions that run them on a connection."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Final

from headgate.errors import EventLogError
from headgate.eventlog.record import COLUMNS, Head, Row
from headgate.eventlog.store import FieldValue, Statement, is_literal

INSERT: Final = f"INSERT INTO headgate_events VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608 (a constant)
_TOGETHER: Final = 20  # rows in one statement; 32,766 values are allowed
_INSERT_SEVERAL: Final = INSERT + f", ({', '.join('?' * len(COLUMNS))})" * (_TOGETHER - 1)
_CHUNK: Final = 500  # values in one IN (...)


@contextlib.contextmanager
def plain_rows(db: sqlite3.Connection) -> Generator[None]:
    """Let a connection of somebody else give rows as tuples, and text as text."""
    before = db.row_factory, db.text_factory
    db.row_factory, db.text_factory = None, str
    try:
        yield
    finally:
        db.row_factory, db.text_factory = before


def insert(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Insert rows; several with one statement, which takes an eighth less time."""
    whole = len(rows) - len(rows) % _TOGETHER
    if whole:
        join = itertools.chain.from_iterable
        together = [tuple(join(rows[at : at + _TOGETHER])) for at in range(0, whole, _TOGETHER)]
        db.executemany(_INSERT_SEVERAL, together)
    if whole < len(rows):
        db.executemany(INSERT, rows[whole:])


def head_of(db: sqlite3.Connection) -> Head:
    """Return where the log ends."""
    row = db.execute(
        "SELECT position, recorded_at, digest FROM headgate_events ORDER BY position DESC LIMIT 1"
    ).fetchone()
    return Head() if row is None else Head(row[0], row[1], row[2] or b"")


def version_of(db: sqlite3.Connection, stream: str) -> int:
    """Return the version of a stream; 0: there is none."""
    (version,) = db.execute("SELECT max(version) FROM headgate_events WHERE stream = ?", (stream,)).fetchone()
    if version is None:
        row = db.execute("SELECT version FROM headgate_archived_streams WHERE stream = ?", (stream,)).fetchone()
        return 0 if row is None else int(row[0])
    return int(version)


def among(db: sqlite3.Connection, table: str, columns: str, column: str, values: set[bytes]) -> Iterator[Any]:
    """Give rows of a table of ours in which a column has one of these values."""
    wanted = list(values)
    for at in range(0, len(wanted), _CHUNK):
        some = wanted[at : at + _CHUNK]
        marks = ", ".join("?" * len(some))
        yield from db.execute(f"SELECT {columns} FROM headgate_{table} WHERE {column} IN ({marks})", some)  # noqa: S608


def field_is(name: str, value: FieldValue) -> tuple[str, tuple[str, ...]]:
    """Compare what is indexed, text; then the kind, where it is no text."""
    field, given = field_sql(name)
    if isinstance(value, str):
        return f"CAST({field.format('->>')} AS TEXT) = ?", (*given, value)
    alike = f"{field.format('->')} = ?"
    if value is None:
        return alike, (*given, "null")
    text = str(int(value))  # true is 1
    return f"CAST({field.format('->>')} AS TEXT) = ? AND {alike}", (*given, text, *given, json.dumps(value))


def field_sql(name: str) -> tuple[str, tuple[str, ...]]:
    """Return the SQL of a field of the data, with its operator left out, and what is to be put in for ``?``."""
    path = f'$."{name}"'  # a name alone would be taken for a path, too
    if is_literal(name):
        return f"data {{}} '{path}'", ()
    return "data {} ?", (path,)


@functools.lru_cache(maxsize=256)
def here(sql: str) -> str:
    """Return a statement with the names of our tables."""
    return sql.replace("~", "headgate_")


def execute(db: sqlite3.Connection, statement: Statement) -> list[tuple[Any, ...]]:
    """Run a statement, see that it changes as many rows as it has to, and return what it gives."""
    sql = here(statement.sql)
    if statement.many is not None:
        db.executemany(sql, statement.many)
        return []
    cursor = db.execute(sql, statement.values)
    rows: list[tuple[Any, ...]] = cursor.fetchall()
    if statement.changes is not None and (len(rows) if rows else cursor.rowcount) != statement.changes:
        raise statement.otherwise or EventLogError("", f"expected {statement.changes} rows to change: {sql}")
    return rows


def statements(script: str) -> Iterator[str]:
    """Cut a script into statements; unlike ``executescript``, running them does not commit what was begun."""
    text = ""
    for line in script.splitlines(keepends=True):
        text += line
        if text.strip() and sqlite3.complete_statement(text):
            yield text
            text = ""
