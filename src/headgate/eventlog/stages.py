"""The log as a stage: a producer that catches up and then stays with it, and a consumer that appends."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from headgate.errors import EventError, EventLogError
from headgate.eventlog import checkpoints
from headgate.eventlog.events import Event
from headgate.eventlog.reading import At
from headgate.eventlog.record import Page, Row
from headgate.eventlog.store import Query, passing
from headgate.protocol.children import Backoff
from headgate.sources import Pumped
from headgate.stage import Consumer

if TYPE_CHECKING:
    from headgate.eventlog.log import EventLog

logger = logging.getLogger("headgate")

END: Final = "end"
_BACKOFF: Final = Backoff(first=0.1, most=5.0)


class Taking(Pumped):
    """Takes as much as is owed from somewhere, as it comes."""

    async def pump(self) -> None:
        """Take and emit, until there is no more; what fails for a while only is tried again until it works."""
        failures = 0
        while True:
            await self.demanded()
            try:
                events = await self.take(self.stage.demand)
            except EventLogError as error:
                if not passing(error):
                    raise
                if not failures:
                    logger.warning("stage %r: cannot read, and tries again: %s", self.stage.name, error)
                await asyncio.sleep(_BACKOFF.delay(failures, random.random()))  # noqa: S311 (no secret)
                failures += 1
                continue
            failures = 0
            if events is None:
                self.stage.finish()
                return
            if events:
                self.stage.emit(events)

    async def take(self, count: int) -> Any:
        """Give up to ``count`` events, at least one unless there is reason to look anew; None: there is no more."""
        raise NotImplementedError


class TakenUp(Protocol):
    """Something that knows where to go on: a `Projector`."""

    async def take_up(self) -> int:
        """Return the position up to which everything is done with."""
        ...


class LogProducer(Taking):
    """Gives the events of a log as they are asked for: those that are there, then those that come.

    Args:
        log: The log; it is open before the stage starts, and stays so until it has ended.
        start: First position, time from which on, or ``"end"``: only what is still to come. Default: the beginning.
        until: Last position or time; the stage then finishes. Default: it goes on for ever.
        streams: As for `EventLog.read`.
        types: As for `EventLog.read`.
        checkpoint: The name of a checkpoint, or a `Projector`: begin behind it (see `EventLog.save_checkpoint`).
        live: False: finish when all that is there has been given.
        batch: How many events are read at once, at the most.
    """

    def __init__(
        self,
        log: EventLog,
        start: At | str = None,
        until: At = None,
        streams: tuple[str, ...] = (),
        types: tuple[str, ...] = (),
        checkpoint: str | TakenUp | None = None,
        live: bool = True,  # noqa: FBT001, FBT002 (arguments of a recipe)
        batch: int = 1000,
    ) -> None:
        """Keep what to read."""
        super().__init__()
        self._log = log
        self._start = start
        self._until = until
        self._streams = streams
        self._types = types
        self._checkpoint = checkpoint
        self._live = live
        self._batch = batch
        self._next = 1  # where to go on
        self._head = 0  # up to where it is known that there is something
        self._last: int | None = None
        self._cursor: Row | None = None

    async def started(self) -> None:
        """Find the beginning."""
        log, start = self._log, self._start
        if self._checkpoint is not None:
            if isinstance(self._checkpoint, str):
                self._next = (await checkpoints.load(log.store, self._checkpoint)).position + 1
            else:
                self._next = await self._checkpoint.take_up() + 1
        elif start == END:
            self._next = await log.head() + 1
        self._head = self._next - 1
        if not isinstance(start, str):
            first, self._last = await log.bounds(start, self._until)
            self._next = max(self._next, first)
        if not self._live:
            head = await log.head()
            self._last = head if self._last is None else min(self._last, head)

    async def take(self, count: int) -> Page | None:
        """Read the next page, or wait until there is one."""
        log, store = self._log, self._log.store
        if self._last is not None and self._next > self._last:
            return None
        while self._next > self._head:
            await store.wait(self._next - 1)
            self._head = (await store.head()).position
        upto = self._head if self._last is None else min(self._head, self._last)
        count = min(count, self._batch)
        query = Query(self._next, upto, self._streams, self._types)
        rows = await log.rows(query, self._cursor, count)
        if rows:
            self._cursor = rows[-1]
        # A short page: nothing more is there up to the head that was known before it was read.
        self._next = rows[-1][0] + 1 if len(rows) == count else upto + 1
        return await log.page(rows)


class LogConsumer(Consumer):
    """Appends the events that it is given: each batch in one transaction.

    Args:
        log: The log; it is open before the stage starts, and stays so until it has ended.
        stream: The stream, or a function of an event that returns it. Default: the events are tuples of a stream and
            an event.
        event_id: A function of an event that returns what identifies it (a UUID, or anything with a fixed ``str``):
            when a batch comes twice, it is appended once all the same.
        options: For `EventLog.append_all`: ``actor``, ``reason``, ...
    """

    def __init__(
        self,
        log: EventLog,
        stream: str | Callable[[Any], str] | None = None,
        event_id: Callable[[Any], Any] | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Keep where events go."""
        self._log = log
        self._stream = stream
        self._event_id = event_id
        self._options = options or {}

    async def handle_events(self, events: Any, source: Any) -> None:  # noqa: ARG002 (a callback's form)
        """Append them."""
        streams: dict[str, list[Any]] = {}
        for each in events:
            if self._stream is None:
                stream, event = each
            else:
                stream, event = (self._stream if isinstance(self._stream, str) else self._stream(each)), each
            if self._event_id is not None:
                event = _identified(event, self._event_id(event), stream)
            streams.setdefault(stream, []).append(event)
        await self._log.append_all(list(streams.items()), **self._options)


def _identified(event: Any, identity: Any, stream: str) -> Event:
    if identity is None:
        raise EventError(stream, "event_id", "a function that returns what identifies an event", identity)
    if not isinstance(identity, uuid.UUID):
        identity = uuid.uuid5(uuid.NAMESPACE_URL, f"headgate:{stream}:{identity}")
    if not isinstance(event, Event):
        return Event(event, event_id=identity)
    event.event_id = identity.bytes
    return event
