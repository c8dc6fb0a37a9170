"""A pipeline of two processors and a batcher of 100, beside workers by hand that keep the same books.

The books: each message is in flight until it has its outcome, has one outcome, is counted by it, and its source is told
in batches. The source either counts (as Broadway's own benchmark does) or is the queue in memory, which keeps what was
handed out until it is acknowledged.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.model import WrongResultError
from headgate import Batcher, Message, Pipeline, Processors, Source
from headgate.connectors.memory import MemoryQueue
from headgate.types import ACKNOWLEDGED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    MakeSource = Callable[[int], Source]

PROCESSORS = 2
BATCH = 100


class Counting(Source):
    """Hands out numbers."""

    redelivers = True

    def __init__(self, events: int) -> None:
        """Start at 0."""
        self._numbers = iter(range(events))

    def fetch(self, count: int) -> list[Message] | None:
        """Hand out the next ones."""
        return list(map(Message, islice(self._numbers, count))) or None


def queue(events: int) -> MemoryQueue:
    """Return the queue in memory with so many numbers in it."""
    made = MemoryQueue()
    made.put_many(range(events))
    made.close_input()
    return made


class Counted(Pipeline):
    """Counts what its batches have."""

    handled = 0
    total = 0

    def handle_message(self, message: Message) -> Message:
        """Add one to the payload."""
        message.data += 1
        return message

    def handle_batch(self, messages: list[Message], batch: object) -> list[Message]:
        """Count."""
        self.handled += len(messages)
        self.total += sum([message.data for message in messages])
        return messages


def headgate(events: int, max_demand: int, make: MakeSource) -> float:
    """Run the pipeline; return the seconds."""
    source = make(events)
    pipeline = Counted(
        source=source,
        processors=Processors(concurrency=PROCESSORS, max_demand=max_demand),
        batchers=Batcher(size=BATCH),
    )

    async def run() -> float:
        async with pipeline as running:
            started = perf_counter()
            await running.wait()
            seconds = perf_counter() - started
            acknowledged = running.statistics().outcomes[ACKNOWLEDGED]
        _check(events, pipeline.handled, pipeline.total, acknowledged)
        return seconds

    return asyncio.run(run())


class Books:
    """The books, by hand."""

    def __init__(self, source: Source) -> None:
        """Begin with nothing."""
        self.source = source
        self.in_flight: set[Message] = set()
        self.acknowledged = 0
        self.handled = 0
        self.total = 0
        self.batch: list[Message] = []

    def take_in(self, messages: Sequence[Message]) -> None:
        """Open them about what was fetched."""
        for message in messages:
            message.keeper = self  # type: ignore[assignment]  # what it is for the library as well
        self.in_flight.update(messages)

    def handle_message(self, message: Message) -> Message:
        """Add one to the payload."""
        message.data += 1
        return message

    def handle_batch(self, messages: list[Message]) -> list[Message]:
        """Count."""
        self.handled += len(messages)
        self.total += sum([message.data for message in messages])
        return messages

    def process(self, messages: Sequence[Message]) -> None:
        """Handle messages, and the batch when it is complete."""
        handle, batch = self.handle_message, self.batch
        for message in messages:
            try:
                result = handle(message)
            except Exception as error:  # noqa: BLE001 (as a user's handler)
                message.reason = error
                continue
            if result is message and message.reason is None and message.outcome is None:
                batch.append(message)
        while len(batch) >= BATCH:
            self.finish(batch[:BATCH])
            del batch[:BATCH]

    def finish(self, messages: list[Message]) -> None:
        """Handle a batch, and settle it."""
        try:
            self.handle_batch(messages)
        except Exception as error:  # noqa: BLE001 (as above)
            for message in messages:
                message.reason = error
            return
        for message in messages:
            if message.outcome is None and message.reason is None:
                message.outcome = ACKNOWLEDGED
        self.in_flight.difference_update(messages)
        self.acknowledged += len(messages)
        self.source.ack(messages)


def by_hand(events: int, max_demand: int, make: MakeSource) -> float:
    """Run workers that take lists from queues: as many messages of a list as a processor asks for at a time."""
    books = Books(make(events))

    async def run() -> float:
        work: asyncio.Queue[Any] = asyncio.Queue(PROCESSORS)

        async def worker() -> None:
            while (messages := await work.get()) is not None:
                books.process(messages)

        started = perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(PROCESSORS):
                group.create_task(worker())
            while messages := books.source.fetch(max(1, max_demand // 2)):
                books.take_in(messages)
                await work.put(messages)
            for _ in range(PROCESSORS):
                await work.put(None)
        if books.batch:
            books.finish(books.batch)
        seconds = perf_counter() - started
        _check(events, books.handled, books.total, books.acknowledged)
        return seconds

    return asyncio.run(run())


def loop(events: int, max_demand: int, make: MakeSource) -> float:
    """Do the same in one loop, without queues or tasks."""
    books = Books(make(events))
    started = perf_counter()
    while messages := books.source.fetch(max(1, max_demand // 2)):
        books.take_in(messages)
        books.process(messages)
    if books.batch:
        books.finish(books.batch)
    seconds = perf_counter() - started
    _check(events, books.handled, books.total, books.acknowledged)
    return seconds


def _check(events: int, handled: int, total: int, acknowledged: int) -> None:
    if (handled, total, acknowledged) != (events, events * (events + 1) // 2, events):
        raise WrongResultError(f"{handled} handled and {acknowledged} acknowledged of {events}, total {total}")
