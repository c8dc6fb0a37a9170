"""Parked events: those that a pipeline over a group has given up, kept with the log until they are handled after all.

A pipeline over `Group.source` parks an event that is a dead letter, and the group goes on behind it. `Group.parked`
says what is there and why, and a pipeline over `Group.parked_source` handles it again, when what was wrong is mended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from headgate.eventlog.record import Recorded, from_micros
from headgate.eventlog.store import Query, Statement
from headgate.failures import why
from headgate.types import Message, Source

if TYPE_CHECKING:
    from headgate.eventlog.log import EventLog


class Parked(NamedTuple):
    """An event that was given up.

    Attributes:
        event: The event.
        reason: Why, in a line.
        traceback: Why, in full.
        deliveries: How often it had been handed out.
        at: When it was given up, in UTC.
    """

    event: Recorded
    reason: str
    traceback: str
    deliveries: int
    at: datetime


class Parking:
    """The parked events of a group.

    Args:
        log: The log.
        group: The group's name.
    """

    def __init__(self, log: EventLog, group: str) -> None:
        """Keep where they are."""
        self.log = log
        self.group = group

    async def put(self, messages: Iterable[Message]) -> None:
        """Park the events of messages that have failed for good."""
        sql = (
            "INSERT INTO ~parked (name, position, reason, traceback, deliveries, parked_at) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (name, position) DO UPDATE SET reason = excluded.reason, traceback = excluded.traceback, "
            "deliveries = excluded.deliveries, parked_at = excluded.parked_at"
        )
        now = int(self.log.clock() * 1e6)
        rows = [
            (self.group, each.receipt.position, *map(_storable, why(each)), each.deliveries, now) for each in messages
        ]
        await self.log.store.transact([Statement(sql, many=sorted(rows))])

    async def events(self, limit: int, after: int) -> list[Parked]:
        """Return some of them, in the order of their positions; those that are in the log no more are left out."""
        sql = (
            "SELECT position, reason, traceback, deliveries, parked_at FROM ~parked "
            "WHERE name = ? AND position > ? ORDER BY position LIMIT ?"
        )
        found: list[Parked] = []
        while len(found) < limit:
            (rows,) = await self.log.store.transact([Statement(sql, (self.group, after, limit - len(found)))])
            if not rows:
                break
            for position, reason, traceback, deliveries, at in rows:
                page = await self.log.page(await self.log.rows(Query(start=position, until=position), None, 1))
                found.extend(Parked(event, reason, traceback, deliveries, from_micros(at)) for event in page)
                after = position
        return found

    async def forget(self, positions: Iterable[int] | None) -> int:
        """Remove some of them, by default all, and say how many there were."""
        if positions is None:
            sql = "DELETE FROM ~parked WHERE name = ? RETURNING position"
            (rows,) = await self.log.store.transact([Statement(sql, (self.group,))])
            return len(rows)
        sql = "DELETE FROM ~parked WHERE name = ? AND position = ? RETURNING position"
        steps = [Statement(sql, (self.group, each)) for each in sorted(set(positions))]
        return sum(map(len, await self.log.store.transact(steps))) if steps else 0


class ParkedSource(Source):
    """Hands out the parked events of a group, each once, and ends. Make it by `Group.parked_source`.

    What is acknowledged is parked no more; what fails for good again stays, with the new reason.

    Args:
        parking: Which.
    """

    redelivers = True
    keeps_letters = True

    def __init__(self, parking: Parking) -> None:
        """Begin at the beginning."""
        self.name = f"parked events of group {parking.group}"
        self._parking = parking
        self._after = 0
        self._back: list[Message] = []
        self._timers: set[asyncio.TimerHandle] = set()
        self._drained = False

    def open(self) -> None:
        """Begin anew."""
        self._after, self._back, self._drained = 0, [], False

    def close(self) -> None:
        """What is still to come back stays parked."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    async def fetch(self, count: int) -> list[Message] | None:
        """Hand out what came back, else what comes next; None: that was all."""
        if self._drained:
            return []
        back, self._back = self._back[:count], self._back[count:]
        if back:
            return back
        found = await self._parking.events(count, self._after)
        if not found:
            return None
        self._after = found[-1].event.position
        return [Message(each.event, key=each.event.stream, receipt=each.event) for each in found]

    async def ack(self, messages: Sequence[Message]) -> None:
        """Park them no more."""
        await self._parking.forget(each.receipt.position for each in messages)

    def nack(self, messages: Sequence[Message], delay: float = 0.0, *, counted: bool = True) -> None:
        """Hand them out again."""
        back = [
            Message(each.receipt, key=each.receipt.stream, receipt=each.receipt, deliveries=each.deliveries + counted)
            for each in messages
        ]
        if delay <= 0:
            self._come_back(back)
            return
        loop = asyncio.get_running_loop()
        self._timers = {each for each in self._timers if each.when() > loop.time() and not each.cancelled()}
        self._timers.add(loop.call_later(delay, self._come_back, back))

    def _come_back(self, messages: list[Message]) -> None:
        self._back += messages
        self.wake()

    async def dead_letter(self, messages: Sequence[Message]) -> None:
        """Leave them parked, for the new reason."""
        await self._parking.put(messages)

    def drain(self) -> None:
        """Hand out nothing more."""
        self._drained = True


def _storable(text: str | None) -> str:
    return (text or "").replace("\0", "\ufffd")  # PostgreSQL stores no NUL
