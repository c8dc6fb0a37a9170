"""A log as the source of a pipeline: each event a message, acknowledged into the checkpoints of a group."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headgate.errors import FencedError
from headgate.eventlog.bell import Bell
from headgate.eventlog.record import Recorded
from headgate.sources import cancelled
from headgate.types import Message, Source

if TYPE_CHECKING:
    from headgate.eventlog.groups import Group


class LogSource(Source):
    """Hands out the events of a member's partitions. Make it by `Group.source`.

    The data of a message is the `Recorded`, its key the stream. What is not acknowledged when the member ends, by
    whatever end, is handed out to the one that takes its partitions up; so is what was acknowledged behind it.

    Args:
        group: The member.
    """

    redelivers = True
    keeps_letters = True

    def __init__(self, group: Group) -> None:
        """Keep the member."""
        self.name = f"group {group.name}"
        self._group = group
        self._taking: asyncio.Task[list[Recorded]] | None = None
        self._back: list[tuple[float, int, Message]] = []  # when, in which order, what
        self._nacks = 0
        self._changed = Bell()
        self._drained = False
        self._timers: set[asyncio.TimerHandle] = set()

    async def open(self) -> None:
        """Join the group."""
        self._drained = False
        await self._group.join()

    async def close(self) -> None:
        """Leave it: what is not acknowledged goes to others."""
        for timer in self._timers:
            timer.cancel()
        self._back.clear()
        taking, self._taking = self._taking, None
        try:
            if taking is not None:
                await cancelled(taking)
        finally:
            await self._group.leave()

    async def fetch(self, count: int) -> list[Message]:
        """Wait for events."""
        loop = asyncio.get_running_loop()
        while not self._drained:
            changed = self._changed.next()
            due = self._due(loop.time(), count)
            if due:
                return due
            if self._taking is None:
                # It goes on when this fetch ends without it: what it has taken is there for the next one.
                self._taking = asyncio.create_task(self._group.take(count), name=f"headgate: {self.name}")
            waiting: list[asyncio.Future[Any]] = [self._taking, changed]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if self._taking.done():
                taking, self._taking = self._taking, None
                messages = [Message(event, key=event.stream, receipt=event) for event in taking.result()]
                for message in messages[count:]:  # it was asked for when more was wanted
                    self._put_back(message, loop.time())
                return messages[:count]
        return []

    def _due(self, now: float, count: int) -> list[Message]:
        due: list[Message] = []
        for each in sorted((each for each in self._back if each[0] <= now), key=lambda each: each[1]):
            if len(due) == count:
                break
            self._back.remove(each)
            if self._group.holds(each[2].receipt):  # else who has its partition by now hands it out
                due.append(each[2])
        return due

    def _put_back(self, message: Message, due: float) -> None:
        self._nacks += 1
        self._back.append((due, self._nacks, message))

    async def ack(self, messages: Sequence[Message]) -> list[Message]:
        """Move the checkpoints; those whose partition was lost are returned."""
        try:
            await self._group.done([message.receipt for message in messages])
        except FencedError:
            held = set(self._group.held)
            return [each for each in messages if self._group.partition_of(each.receipt.stream) not in held]
        return []

    async def nack(self, messages: Sequence[Message], delay: float = 0.0, *, counted: bool = True) -> list[Message]:
        """Hand them out again, here."""
        loop = asyncio.get_running_loop()
        due = loop.time() + delay
        for message in messages:
            event: Recorded = message.receipt
            deliveries = message.deliveries + 1 if counted else message.deliveries
            self._put_back(Message(event, key=event.stream, receipt=event, deliveries=deliveries), due)
        if delay > 0:
            timer = loop.call_later(delay, self._changed.ring)
            self._timers = {each for each in self._timers if each.when() > loop.time() and not each.cancelled()}
            self._timers.add(timer)
        else:
            self._changed.ring()
        return []

    async def dead_letter(self, messages: Sequence[Message]) -> list[Message]:
        """Park them, and go on behind them; those whose partition was lost are returned, and parked all the same."""
        await self._group.parking.put(messages)
        return await self.ack(messages)

    def drain(self) -> None:
        """Hand out nothing more."""
        self._drained = True
        self._changed.ring()
