"""The SQLite database: its tables, and the writes that add one batch to what is there already.

Every batch is one transaction, and a row of a statistics table holds sums and counts in whole numbers. So
however many workers, batches and writers there are, they add up to the same. Means and shares are generated
columns: divisions that SQLite makes when somebody looks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .source import InputError
from .tally import Tally

if TYPE_CHECKING:
    from .flight import Reject

_SUMS: Final = """
    flights INTEGER NOT NULL, cancelled INTEGER NOT NULL, departed INTEGER NOT NULL,
    diverted INTEGER NOT NULL, arrived INTEGER NOT NULL,
    departure_minutes INTEGER NOT NULL, arrival_minutes INTEGER NOT NULL,
    late INTEGER NOT NULL, worst INTEGER,
    mean_departure_delay REAL AS (1.0 * departure_minutes / departed),
    mean_arrival_delay REAL AS (1.0 * arrival_minutes / arrived),
    share_late REAL AS (1.0 * late / arrived)"""
_CREATE: Final = {
    "carrier_delays": f"CREATE TABLE carrier_delays (carrier TEXT PRIMARY KEY, name TEXT NOT NULL,{_SUMS})",
    "airport_delays": f"""CREATE TABLE airport_delays (
    role TEXT NOT NULL CHECK (role IN ('origin', 'destination')), airport TEXT NOT NULL,
    name TEXT NOT NULL,{_SUMS},
    PRIMARY KEY (role, airport))""",
    "rejects": """CREATE TABLE rejects (
    line INTEGER PRIMARY KEY, "column" TEXT NOT NULL, value TEXT NOT NULL, expected TEXT NOT NULL,
    reason TEXT NOT NULL, "row" TEXT NOT NULL)""",
    "run_summary": """CREATE TABLE run_summary (
    file TEXT NOT NULL, workers INTEGER NOT NULL, max_demand INTEGER NOT NULL,
    started TEXT NOT NULL, finished TEXT,
    rows_read INTEGER, flights INTEGER, cancelled INTEGER, diverted INTEGER, rejected INTEGER)""",
}
TABLES: Final = tuple(_CREATE)

_START: Final = """
    INSERT INTO run_summary (file, workers, max_demand, started)
    VALUES (?, ?, ?, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))"""
_FINISH: Final = """
    UPDATE run_summary SET finished = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), rows_read = ?,
    flights = (SELECT ifnull(sum(flights), 0) FROM carrier_delays),
    cancelled = (SELECT ifnull(sum(cancelled), 0) FROM carrier_delays),
    diverted = (SELECT ifnull(sum(diverted), 0) FROM carrier_delays),
    rejected = (SELECT count(*) FROM rejects)"""

_MEASURES: Final = tuple(field.name for field in fields(Tally))
_values: Final = attrgetter(*_MEASURES)
_MARKS: Final = ", ".join("?" * len(_MEASURES))
_SUM: Final = ", ".join(f"{name} = {name} + excluded.{name}" for name in _MEASURES if name != "worst")
_MAX: Final = "worst = max(ifnull(worst, excluded.worst), ifnull(excluded.worst, worst))"
_ADD: Final = f"ON CONFLICT DO UPDATE SET {_SUM}, {_MAX}"
_ADD_CARRIER: Final = f"INSERT INTO carrier_delays VALUES (?, ?, {_MARKS}) {_ADD}"  # noqa: S608 - names of ours
_ADD_AIRPORT: Final = f"INSERT INTO airport_delays VALUES (?, ?, ?, {_MARKS}) {_ADD}"  # noqa: S608 - as above
_ADD_REJECT: Final = "INSERT OR REPLACE INTO rejects VALUES (?, ?, ?, ?, ?, ?)"


def connect(path: Path) -> sqlite3.Connection:
    """Open the database; only `transaction` begins transactions."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = NORMAL")  # no commit waits for the disk; none is ever torn
    except sqlite3.Error:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit all that is written inside or, after an error, none of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def add_carriers(connection: sqlite3.Connection, groups: Mapping[str, Tally], names: Mapping[str, str]) -> None:
    """Add one batch to the sums of the carriers, in one transaction.

    Args:
        connection: From `connect`.
        groups: Sums by carrier.
        names: Names by carrier; a code without one stands for itself.
    """
    rows = [(code, names.get(code, code), *_values(sums)) for code, sums in groups.items()]
    with transaction(connection):
        connection.executemany(_ADD_CARRIER, rows)


def add_airports(
    connection: sqlite3.Connection, groups: Mapping[tuple[str, str], Tally], names: Mapping[str, str]
) -> None:
    """Add one batch to the sums of the airports, in one transaction.

    Args:
        connection: From `connect`.
        groups: Sums by role (`origin` or `destination`) and airport.
        names: Names by airport; a code without one stands for itself.
    """
    rows = [(role, code, names.get(code, code), *_values(sums)) for (role, code), sums in groups.items()]
    with transaction(connection):
        connection.executemany(_ADD_AIRPORT, rows)


def add_rejects(connection: sqlite3.Connection, rejects: Sequence[Reject]) -> None:
    """Keep one batch of rejects, in one transaction. A line that comes twice is kept once."""
    rows = [(each.line, each.column, each.value, each.expected, each.reason, each.row) for each in rejects]
    with transaction(connection):
        connection.executemany(_ADD_REJECT, rows)


@contextmanager
def new_tables(path: Path, source: Path) -> Iterator[sqlite3.Connection]:
    """Open the database of a run, with the tables of the run before it replaced and all others untouched.

    Args:
        path: The SQLite file; made if it is not there.
        source: The file of flights, which must be another.

    Yields:
        A connection, for the length of the run.

    Raises:
        InputError: It cannot be opened or written, is no SQLite database, or has one of these tables from
            somebody else.
    """
    with suppress(OSError):  # there is no database yet
        if path.samefile(source):
            raise InputError(f"{path}: this is the file of flights; name another one for the database")
    try:
        with closing(connect(path)) as connection:
            (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
            _replace_tables(connection, path)
            try:
                yield connection
            finally:
                with suppress(sqlite3.OperationalError):  # somebody else is reading it
                    connection.execute(f"PRAGMA journal_mode = {journal}")
    except sqlite3.Error as error:
        raise InputError(f"{path}: cannot be used as the database: {error}") from error


def _replace_tables(connection: sqlite3.Connection, path: Path) -> None:
    there = dict(connection.execute("SELECT name, sql FROM sqlite_master"))
    for name, create in _CREATE.items():
        if there.get(name, create) != create:
            raise InputError(f"{path}: has a table {name} that is not of this example; name another database")
    connection.execute("PRAGMA journal_mode = WAL")
    with transaction(connection):
        for name, create in _CREATE.items():
            connection.execute(f"DROP TABLE IF EXISTS {name}")
            connection.execute(create)


def note_start(connection: sqlite3.Connection, source: Path, workers: int, max_demand: int) -> None:
    """Write into the summary of the run that it has begun, and with what."""
    connection.execute(_START, (str(source), workers, max_demand))


def note_finish(connection: sqlite3.Connection, rows_read: int) -> None:
    """Write into the summary of the run that it is complete, and its totals. Without them it is not."""
    connection.execute(_FINISH, (rows_read,))
