"""The log as a stage: a producer that catches up and then stays with it, and a consumer that appends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import uuid
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from headgate.errors import EventError, EventLogError, OptionError
from headgate.eventlog import checkpoints
from headgate.eventlog.checks import check_at
from headgate.eventlog.events import Event
from headgate.eventlog.reading import At
from headgate.eventlog.record import Page, Recorded, Row, to_micros
from headgate.eventlog.store import Query, passing
from headgate.protocol.children import Backoff
from headgate.protocol.messages import NORMAL
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
    """Something that knows where to go on, and is told how far was looked (`Looked`): a `Projector`."""

    async def take_up(self) -> int:
        """Return the position up to which everything is done with."""
        ...


class Looked(NamedTuple):
    """Among the events for one that is `TakenUp`: up to this position there are no others that were asked for."""

    position: int


class LogProducer(Taking):
    """Gives the events of a log as they are asked for: those that are there, then those that come.

    Args:
        log: The log; it is open before the stage starts, and stays so until it has ended.
        places: Where stages of this recipe go on when they are started again: by system, and by their name.
        start: First position, time from which on, or ``"end"``: only what is still to come. Default: the beginning.
        until: Last position or time; the stage then finishes. Default: it goes on for ever.
        query: Which events, wherever they are.
        checkpoint: The name of a checkpoint, or a `Projector`: begin behind it (see `EventLog.save_checkpoint`).
        live: False: finish when all that is there has been given.
        batch: How many events are read at once, at the most.
    """

    def __init__(
        self,
        log: EventLog,
        places: MutableMapping[Any, dict[str, int]],
        start: At | str = None,
        until: At = None,
        query: Query = Query(),  # noqa: B008 (it is never changed)
        checkpoint: str | TakenUp | None = None,
        live: bool = True,  # noqa: FBT001, FBT002 (arguments of a recipe)
        batch: int = 1000,
    ) -> None:
        """Keep what to read."""
        super().__init__()
        self._log = log
        self._places = places
        self._start = start
        self._begins = start if isinstance(start, datetime) else None  # until its position is known
        self._ends = until if isinstance(until, datetime) else None  # the same
        self._last = until if isinstance(until, int) else None
        self._query = query
        self._checkpoint = checkpoint
        self._live = live
        self._batch = batch
        self._next = 1  # where to go on
        self._head = 0  # up to where it is known that there is something
        self._told = 0  # up to where is known what there is to whoever gets the events
        self._cursor: Row | None = None
        self._begun = False
        self._over = False

    @property
    def _here(self) -> dict[str, int]:
        return self._places.setdefault(self.stage.ref.driver.node, {})

    async def started(self) -> None:
        """Find where to begin, or to go on."""
        log, start, here = self._log, self._start, self._here
        head = await log.head()
        if isinstance(self._checkpoint, str):
            self._next = (await checkpoints.load(log.store, self._checkpoint)).position + 1
        elif self._checkpoint is not None:
            self._next = await self._checkpoint.take_up() + 1
        elif self.stage.name in here:
            self._next = here[self.stage.name]
        elif start == END:
            self._next = head + 1
        if isinstance(start, int):
            self._next = max(self._next, start)
        self._told = self._next - 1
        if not self._live:
            self._last = head if self._last is None else min(self._last, head)
        await self._look()
        self._begun = True
        self._note()

    async def terminate(self, reason: Any) -> None:
        """Stop reading, and note where to go on."""
        await super().terminate(reason)
        if self._over and reason == NORMAL:  # everything is handled
            self._here.pop(self.stage.name, None)
        elif self._begun:
            self._note(self.stage.recall())

    def _note(self, waiting: Sequence[Any] = ()) -> None:
        """Note where one who is started again goes on: at the first event that nobody has acknowledged."""
        flying = self.stage.in_flight()
        if flying is not None:  # else it stays where it was
            batches = [batch for batch in (waiting, *flying) if len(batch)]
            self._here[self.stage.name] = min(map(_first, batches), default=self._next)

    async def take(self, count: int) -> Sequence[Recorded | Looked] | None:
        """Read the next page, or wait until there is one."""
        self._note()
        while not self._over:
            if self._last is not None and self._next > self._last:
                self._over = True
            elif self._next <= self._head:
                return await self._page(min(count, self._batch))
            elif self._told < self._next - 1 and not isinstance(self._checkpoint, str | None):
                self._told = self._next - 1
                return [Looked(self._told)]
            else:
                await self._news()
        return None

    async def _page(self, count: int) -> Page:
        log = self._log
        upto = self._head if self._last is None else min(self._head, self._last)
        query = replace(self._query, start=self._next, until=upto)
        rows = await log.rows(query, self._cursor, count)
        page = await log.page(rows)  # the last that is awaited: a call that fails has taken nothing
        if rows:
            self._cursor = rows[-1]
            self._told = rows[-1][0]
        # A short page: nothing more is there up to the head that was known before it was read.
        self._next = rows[-1][0] + 1 if len(rows) == count else upto + 1
        return page

    async def _news(self) -> None:
        """Wait until there may be something more, or until the time is over up to which there could be."""
        store = self._log.store
        left = None if self._ends is None else (to_micros(self._ends) - await store.now()) / 1e6
        if left is not None and left < 0:
            await store.append([])  # takes its turn: what began before it is there, what comes is recorded later
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if left is None else left + 0.001):
                    await store.wait(self._next - 1)
        await self._look()
        self._over = left is not None and left < 0 and self._next > self._head

    async def _look(self) -> None:
        """See up to where there is something, and find the positions of times that have come: they never go back."""
        log = self._log
        head = await log.store.head()
        if self._ends is not None and head.recorded_at > to_micros(self._ends):
            last = await log.position_at(self._ends)
            self._last, self._ends = last if self._last is None else min(self._last, last), None
        if self._begins is not None:
            if head.recorded_at < to_micros(self._begins):
                self._next = max(self._next, head.position + 1)
            else:
                self._next = max(self._next, await log.position_at(self._begins - timedelta(microseconds=1)) + 1)
                self._begins = None
        self._head = head.position


def check_start(where: str, start: Any) -> None:
    """Refuse what is no place to begin at."""
    if isinstance(start, str):
        if start != END:
            raise OptionError(where, "start", "a position, a datetime with a time zone, 'end', or None", start)
    else:
        check_at(where, "start", start)


def _first(batch: Any) -> int:
    """Return the first position in a batch, in whatever order a dispatcher has put it; no event is made for it."""
    positions: Iterable[int] = (
        (row[0] for row in batch.rows) if isinstance(batch, Page) else (event.position for event in batch)
    )
    return min(positions)


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
