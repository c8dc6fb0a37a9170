"""Reading a part of a log."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import datetime
from types import NoneType
from typing import TYPE_CHECKING, Any

from headgate.errors import OptionError
from headgate.eventlog.checks import LAST, check_kind, check_option_name, check_text_or_none
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
        return Condition(replace(self._query, start=min(after + 1, LAST), until=None, backwards=False), after)

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


async def position_at(log: EventLog, micros: int) -> int:
    """Return the position of the last event that was recorded up to a time; 0: none was.

    Found by halves, as times never go back with positions.
    """
    low, high = 0, await log.head()
    while low < high:
        middle = (low + high + 1) // 2
        # The first event from there on: positions may have gaps, in a fork or after a write that was taken back.
        rows = await log.rows(Query(start=middle, until=high), None, 1)
        if rows and rows[0][6] <= micros:
            low = rows[0][0]
        else:
            high = middle - 1
    return low


def correlation(value: str | uuid.UUID | None) -> str | None:
    """Return what a correlation is stored as, checked."""
    if value is None or isinstance(value, uuid.UUID):
        return None if value is None else str(value)
    return check_option_name("EventLog.read", "correlation_id", value, ", or a UUID, or None")


def field_values(fields: Mapping[str, FieldValue] | None) -> tuple[tuple[str, FieldValue], ...]:
    """Return what fields have to have, checked."""
    if fields is None:
        return ()
    check_kind("EventLog.read", "fields", fields, Mapping, "a mapping of names and values, or None")
    for name, value in fields.items():
        check_field("EventLog.read", "fields", name)
        if not isinstance(value, (str, int, NoneType)):
            raise OptionError("EventLog.read", f"fields[{name!r}]", "text, an integer, a boolean or None", value)
        if isinstance(value, str):
            check_text_or_none("EventLog.read", f"fields[{name!r}]", value)
    return tuple(fields.items())


def check_field(where: str, option: str, name: Any) -> None:
    """Refuse what is no name of a field that can be compared."""
    if not isinstance(name, str) or not name or not name.isprintable() or '"' in name or "\\" in name:
        raise OptionError(where, option, "names of fields, without quotes or backslashes", name)
