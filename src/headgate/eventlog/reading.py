"""Reading a part of a log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from types import NoneType
from typing import TYPE_CHECKING, Any

from headgate.errors import OptionError
from headgate.eventlog.events import check_text
from headgate.eventlog.planning import Condition
from headgate.eventlog.record import Page, Recorded, Row
from headgate.eventlog.store import FieldValue, Query

if TYPE_CHECKING:
    from headgate.eventlog.log import EventLog

At = int | datetime | None
"""A place in a log: a position, or a time."""


class Reading:
    """Some events of a log: iterate over it, or over its `pages`."""

    def __init__(self, log: EventLog, query: Query, start: At, until: At, limit: int | None, batch: int) -> None:
        """Keep what was asked for; nothing is read yet."""
        self._log = log
        self._query = query
        self._start = start
        self._until = until
        self._limit = limit
        self._batch = batch

    def condition(self, after: int) -> Condition:
        """Return what an append rests on: none of these events is behind a position."""
        return Condition(replace(self._query, start=after + 1, until=None, backwards=False), after)

    async def pages(self) -> AsyncIterator[Page]:
        """Give the events in pages: sequences of `Recorded`. It is the fast way."""
        log = self._log
        first, last = await log.bounds(self._start, self._until)
        given = self._query
        query = replace(given, start=first, until=last)
        left = self._limit
        cursor: Row | None = None
        while True:
            count = self._batch if left is None else min(self._batch, left)
            if not count:
                return
            rows = await log.rows(query, cursor, count)
            if rows:
                yield await log.page(rows)
                cursor = rows[-1]
            if len(rows) < count:
                return
            if left is not None:
                left -= count

    async def __aiter__(self) -> AsyncIterator[Recorded]:
        """Give the events one by one."""
        async for page in self.pages():
            for event in page:
                yield event

    async def all(self) -> list[Recorded]:
        """Return all of them in a list."""
        found: list[Recorded] = []
        async for page in self.pages():
            found.extend(page)
        return found

    async def first(self) -> Recorded | None:
        """Return the first of them, or None."""
        limit = 1 if self._limit is None else min(1, self._limit)
        async for event in Reading(self._log, self._query, self._start, self._until, limit, 1):
            return event
        return None


def check_at(where: str, name: str, value: Any) -> None:
    """Refuse what is no place in a log."""
    if value is None or (type(value) is int and value >= 0):
        return
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise OptionError(where, name, "a position, a datetime with a time zone, or None", value)


def stream_names(streams: str | Iterable[str] | None) -> list[str]:
    """Return names of streams, or prefixes that end in ``*``, as a list."""
    if streams is None:
        return []
    return [check_text("read", "streams", each) for each in ([streams] if isinstance(streams, str) else streams)]


def field_values(fields: Mapping[str, FieldValue] | None) -> tuple[tuple[str, FieldValue], ...]:
    """Return what fields have to have, checked."""
    for name, value in (fields or {}).items():
        check_field("EventLog.read", "fields", name)
        if not isinstance(value, (str, int, NoneType)):
            raise OptionError("EventLog.read", f"fields[{name!r}]", "text, an integer, a boolean or None", value)
    return tuple((fields or {}).items())


def check_field(where: str, option: str, name: Any) -> None:
    """Refuse what is no name of a field that can be compared."""
    if not isinstance(name, str) or not name or not name.isprintable() or '"' in name or "\\" in name:
        raise OptionError(where, option, "names of fields, without quotes or backslashes", name)
