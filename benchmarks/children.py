"""One child for each event, 100 at a time: `ConsumerSupervisor` beside what one writes by hand, and beside anyio."""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from typing import TYPE_CHECKING

import anyio

from benchmarks.model import Metric, Sample, WrongResultError
from headgate import Backoff, ConsumerSupervisor, System, To, from_iterable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Child = Callable[[int], Awaitable[None]]
    Runner = Callable[[int, Child], Awaitable[None]]

AT_ONCE = 100
"""Children at a time."""

EVENTS = 2_000
"""Events of the row whose children take time."""

CHILD_SECONDS = 0.005
"""How long each of these takes."""

IDEAL_SECONDS = EVENTS * CHILD_SECONDS / AT_ONCE
"""How long all of them take when a slot is never empty."""

RATIO = (Metric("time", "x ideal", "lower"),)


class Tally:
    """What the children count; a child of one event may fail first."""

    def __init__(self, *, fails: bool = False) -> None:
        """Begin with none; ``fails``: the first child of each event raises."""
        self.count = 0
        self.failed: set[int] = set()
        self.fails = fails

    async def child(self, event: int) -> None:
        """Handle one event."""
        if self.fails and event not in self.failed:
            self.failed.add(event)
            raise ValueError(event)
        self.count += 1

    async def slow_child(self, event: int) -> None:
        """Handle one event in `CHILD_SECONDS`."""
        await asyncio.sleep(CHILD_SECONDS)
        self.count += 1

    def check(self, events: int) -> None:
        """Raise WrongResultError unless every event has had its child, and each failed once if it was to."""
        if self.count != events or len(self.failed) != (events if self.fails else 0):
            message = f"{self.count} children came to their end and {len(self.failed)} failed, of {events}"
            raise WrongResultError(message)


async def plain(events: int, child: Child) -> None:
    """Await one after the other: no child runs beside another."""
    for event in range(events):
        await child(event)


async def headgate(events: int, child: Child) -> None:
    """Start them by a `ConsumerSupervisor`."""
    async with System() as system:
        source = await system.start(from_iterable(range(events)))
        to = To(source, max_demand=AT_ONCE, min_demand=0)
        backoff = Backoff(first=0.0)
        recipe = ConsumerSupervisor(child, child_restart="transient", backoff=backoff, subscribe_to=[to])
        await (await system.start(recipe)).wait()


async def semaphore(events: int, child: Child) -> None:
    """Create a task for each event, behind a semaphore."""
    free = asyncio.Semaphore(AT_ONCE)
    tasks: set[asyncio.Task[None]] = set()

    async def run(event: int) -> None:
        try:
            await child(event)
        finally:
            free.release()

    for event in range(events):
        await free.acquire()
        task = asyncio.create_task(run(event))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    while tasks:
        await asyncio.wait(tasks)


async def workers(events: int, child: Child) -> None:
    """Let the workers of a task group take from a queue."""
    queue: asyncio.Queue[int | None] = asyncio.Queue(AT_ONCE)

    async def work() -> None:
        while (event := await queue.get()) is not None:
            await child(event)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
        for event in range(events):
            await queue.put(event)
        for _ in range(AT_ONCE):
            await queue.put(None)


async def anyio_limiter(events: int, child: Child) -> None:
    """Start each in an anyio task group, behind its limiter."""
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def run(event: int) -> None:
        try:
            await child(event)
        finally:
            limiter.release_on_behalf_of(event)

    async with anyio.create_task_group() as group:
        for event in range(events):
            await limiter.acquire_on_behalf_of(event)
            group.start_soon(run, event)


def no_op(events: int, runner: Runner) -> float:
    """Run that many children that do nothing; return the seconds."""
    tally = Tally()
    started = perf_counter()
    asyncio.run(runner(events, tally.child))  # type: ignore[arg-type]  # they are coroutine functions
    seconds = perf_counter() - started
    tally.check(events)
    return seconds


def slow(seconds: float, runner: Runner) -> Sample:  # noqa: ARG001 (a row's form; this one has its own size)
    """Run children of 5 ms; return how much longer than the ideal it took."""
    tally = Tally()

    async def run() -> float:
        started = perf_counter()
        await runner(EVENTS, tally.slow_child)
        return perf_counter() - started

    taken = asyncio.run(run())
    tally.check(EVENTS)
    return {"time": taken / IDEAL_SECONDS}


def failing(events: int, runner: Runner) -> float:
    """Run children of which the first of each event fails; return the seconds."""
    tally = Tally(fails=True)
    child: Child = tally.child
    if runner is not headgate:  # it has no restarts of its own

        async def again(event: int) -> None:
            try:
                await tally.child(event)
            except ValueError:
                await tally.child(event)

        child = again
    logging.disable(logging.CRITICAL)
    try:
        started = perf_counter()
        asyncio.run(runner(events, child))  # type: ignore[arg-type]  # as above
        seconds = perf_counter() - started
    finally:
        logging.disable(logging.NOTSET)
    tally.check(events)
    return seconds
