"""What is given to a log, and what it says about itself."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from headgate.errors import EventError, OptionError
from headgate.eventlog.archive import discarded
from headgate.eventlog.checks import ONE_STREAM, check_kind, check_number, check_option_name
from headgate.eventlog.events import check_text
from headgate.eventlog.reading import Reading
from headgate.eventlog.record import from_micros
from headgate.eventlog.store import Query, Statement, after_prefix

if TYPE_CHECKING:
    from headgate.eventlog.log import EventLog


class Append(NamedTuple):
    """Events for one stream, as a part of an append to several; see `EventLog.append`."""

    stream: str
    events: Iterable[Any]
    expected_version: int | None = None
    unless: Reading | None = None
    after: int = 0


def as_append(given: Any) -> Append:
    """Return a part of an append to several; a tuple stands for one."""
    if not isinstance(given, (tuple, list)) or not 2 <= len(given) <= len(Append._fields):  # noqa: PLR2004
        raise OptionError("append", "appends", "Append(...), or tuples of a stream and its events", given)
    append = Append(*given)
    if check_text("append", "stream", append.stream).endswith("*"):
        raise EventError("append", "stream", ONE_STREAM, append.stream)
    where = f"append to {append.stream!r}"
    if append.expected_version is not None:
        check_number(where, "expected_version", append.expected_version, 0, ", or None")
    if append.unless is not None:
        check_kind(where, "unless", append.unless, Reading, "EventLog.read(...), or None")
    check_number(where, "after", append.after)
    return append


class StreamInfo(NamedTuple):
    """What is known about a stream.

    Attributes:
        name: Its name.
        version: That of its last event.
        events: How many it has (less than its version when a part was left out of a fork).
        first: Position of its first event.
        last: Position of its last event.
        changed_at: When that was recorded.
    """

    name: str
    version: int
    events: int
    first: int
    last: int
    changed_at: datetime


async def list_streams(log: EventLog, prefix: str, limit: int | None) -> list[StreamInfo]:
    """Return the streams whose names begin so, by name, archived ones included; at most so many."""
    if prefix != "":
        check_option_name("EventLog.streams", "prefix", prefix, ", or nothing")
    if limit is not None:
        check_number("EventLog.streams", "limit", limit, 0, ", or None")
    values: tuple[Any, ...] = (prefix, after_prefix(prefix))
    every = "SELECT stream, version, position FROM ~events WHERE stream >= ? AND stream < ?"
    if await log.archives.known():  # only then, as the index of the streams does not help with both
        archived = (
            "SELECT stream, version, position FROM ~archived_ids WHERE stream >= ? AND stream < ? AND position > ?"
        )
        gone, _ = await discarded(log)
        every, values = f"{every} UNION ALL {archived}", (*values, *values, gone)
    sql = (
        "SELECT stream, max(version), count(*), min(position), max(position) "  # noqa: S608 (no value is in it)
        f"FROM ({every}) AS every GROUP BY stream ORDER BY stream"
    )
    (rows,) = await log.store.transact([Statement(sql if limit is None else f"{sql} LIMIT {limit}", values)])
    times: dict[Any, Any] = {}
    for at in range(0, len(rows), 500):
        last = tuple(row[4] for row in rows[at : at + 500])
        marks = ", ".join("?" * len(last))
        found = f"SELECT position, recorded_at FROM ~events WHERE position IN ({marks})"  # noqa: S608 (marks only)
        (pairs,) = await log.store.transact([Statement(found, last)])
        times.update(dict(pairs))
    for position in sorted(row[4] for row in rows if row[4] not in times):  # in an archive; each is read once
        (row,) = await log.rows(Query(start=position, until=position), None, 1)
        times[position] = row[6]
    return [StreamInfo._make((*row, from_micros(times[row[4]]))) for row in rows]
