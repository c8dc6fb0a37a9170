"""What is given to a log, and what it says about itself."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from headgate.eventlog.record import from_micros
from headgate.eventlog.store import Statement, Store, after_prefix

if TYPE_CHECKING:
    from headgate.eventlog.reading import Reading


class Append(NamedTuple):
    """Events for one stream, as a part of an append to several; see `EventLog.append`."""

    stream: str
    events: Iterable[Any]
    expected_version: int | None = None
    unless: Reading | None = None
    after: int = 0


class StreamInfo(NamedTuple):
    """What is known about a stream.

    Attributes:
        name: Its name.
        version: That of its last event.
        events: How many it has (less than its version when a part was archived or left out of a fork).
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


async def list_streams(store: Store, prefix: str, limit: int | None) -> list[StreamInfo]:
    """Return the streams whose names begin so, by name; at most so many."""
    sql = (
        "SELECT stream, max(version), count(*), min(position), max(position) FROM ~events "
        "WHERE stream >= ? AND stream < ? GROUP BY stream ORDER BY stream"
    )
    values = (prefix, after_prefix(prefix))
    (rows,) = await store.transact([Statement(sql if limit is None else f"{sql} LIMIT {int(limit)}", values)])
    times: dict[Any, Any] = {}
    for at in range(0, len(rows), 500):
        last = tuple(row[4] for row in rows[at : at + 500])
        marks = ", ".join("?" * len(last))
        found = f"SELECT position, recorded_at FROM ~events WHERE position IN ({marks})"  # noqa: S608 (marks only)
        (pairs,) = await store.transact([Statement(found, last)])
        times.update(dict(pairs))
    return [StreamInfo._make((*row, from_micros(times[row[4]]))) for row in rows]
