"""Pipelines of tasks and `asyncio.Queue`, the way one writes them by hand, per item and in lists.

A queue of items holds max_demand of them; a queue of lists holds as many lists as make max_demand events, so
that both have the bound that headgate has between two stages. ``None`` ends a stream.
"""

from __future__ import annotations

import asyncio
from asyncio import Queue
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from benchmarks.work import (
    WAYS,
    RoundRobin,
    Tally,
    batch_size,
    batches,
    check_fair,
    plus_one,
    plus_one_async,
    plus_one_each,
    plus_one_each_async,
    sum_from_one,
    sum_from_zero,
    sum_of_way,
    wave_sum,
    waves,
    way_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

LISTS_IN_QUEUE = 2
"""max_demand events are two batches of half of it."""


def _timed(*coroutines: Coroutine[Any, Any, None]) -> float:
    """Run coroutines as tasks of a fresh loop until all ended; return the clock at their start."""

    async def together() -> float:
        started = perf_counter()
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)
        return started

    return asyncio.run(together())


async def _feed(source: Iterable[T], out: Queue[T | None], readers: int = 1) -> None:
    for item in source:
        await out.put(item)
    for _ in range(readers):
        await out.put(None)


async def _apply(into: Queue[T | None], out: Queue[T | None], work: Callable[[T], T]) -> None:
    while (item := await into.get()) is not None:
        await out.put(work(item))
    await out.put(None)


async def _apply_async(into: Queue[T | None], out: Queue[T | None], work: Callable[[T], Awaitable[T]]) -> None:
    while (item := await into.get()) is not None:
        await out.put(await work(item))
    await out.put(None)


async def _add_items(into: Queue[int | None], tally: Tally) -> None:
    count = total = 0
    while (item := await into.get()) is not None:
        count += 1
        total += item
    tally.close(count, total)


async def _add_lists(into: Queue[Sequence[int] | None], tally: Tally) -> None:
    count = total = 0
    while (batch := await into.get()) is not None:
        count += len(batch)
        total += sum(batch)
    tally.close(count, total)


async def _add_arrays(into: Queue[NDArray[np.float64] | None], tally: Tally) -> None:
    count, total = 0, 0.0
    while (batch := await into.get()) is not None:
        count += len(batch)
        total += float(batch.sum())
    tally.close(count, total)


def passthrough_items(events: int, max_demand: int) -> float:
    """Move single events through three tasks and two queues; return the seconds."""
    tally = Tally(events)
    first: Queue[int | None] = Queue(max_demand)
    second: Queue[int | None] = Queue(max_demand)
    started = _timed(_feed(range(events), first), _apply(first, second, plus_one), _add_items(second, tally))
    return tally.seconds_since(started, sum_from_one(events))


def passthrough_lists(events: int, max_demand: int) -> float:
    """Move lists of half of max_demand through three tasks and two queues; return the seconds."""
    tally = Tally(events)
    first: Queue[Sequence[int] | None] = Queue(LISTS_IN_QUEUE)
    second: Queue[Sequence[int] | None] = Queue(LISTS_IN_QUEUE)
    source = batches(events, batch_size(max_demand))
    started = _timed(_feed(source, first), _apply(first, second, plus_one_each), _add_lists(second, tally))
    return tally.seconds_since(started, sum_from_one(events))


def async_items(events: int, max_demand: int) -> float:
    """Move single events through tasks that await a handler for each; return the seconds."""
    tally = Tally(events)
    first: Queue[int | None] = Queue(max_demand)
    second: Queue[int | None] = Queue(max_demand)
    started = _timed(
        _feed(range(events), first), _apply_async(first, second, plus_one_async), _add_items(second, tally)
    )
    return tally.seconds_since(started, sum_from_one(events))


def async_lists(events: int, max_demand: int) -> float:
    """Move lists through tasks that await a handler for each; return the seconds."""
    tally = Tally(events)
    first: Queue[Sequence[int] | None] = Queue(LISTS_IN_QUEUE)
    second: Queue[Sequence[int] | None] = Queue(LISTS_IN_QUEUE)
    source = batches(events, batch_size(max_demand))
    started = _timed(_feed(source, first), _apply_async(first, second, plus_one_each_async), _add_lists(second, tally))
    return tally.seconds_since(started, sum_from_one(events))


def _merge(parts: list[Tally], events: int) -> Tally:
    """Return one tally of sinks that shared the events between them.

    How evenly is not checked: a queue promises nothing, and one task often takes everything.
    """
    whole = Tally(events)
    whole.shares = [part.count for part in parts]
    whole.count = sum(whole.shares)
    whole.total = sum(part.total for part in parts)
    whole.ended = max(part.ended for part in parts)
    return whole


def fan_out_items(events: int, max_demand: int) -> float:
    """Let four tasks take single events from one queue; return the seconds."""
    parts = [Tally(events) for _ in range(WAYS)]
    shared: Queue[int | None] = Queue(max_demand)
    started = _timed(_feed(range(events), shared, WAYS), *(_add_items(shared, part) for part in parts))
    return _merge(parts, events).seconds_since(started, sum_from_zero(events))


def fan_out_lists(events: int, max_demand: int) -> float:
    """Let four tasks take lists from one queue with room for max_demand events a task; return the seconds."""
    parts = [Tally(events) for _ in range(WAYS)]
    shared: Queue[Sequence[int] | None] = Queue(LISTS_IN_QUEUE * WAYS)
    source = batches(events, batch_size(max_demand))
    started = _timed(_feed(source, shared, WAYS), *(_add_lists(shared, part) for part in parts))
    return _merge(parts, events).seconds_since(started, sum_from_zero(events))


async def _feed_all(source: Iterable[T], outs: list[Queue[T | None]]) -> None:
    for item in source:
        for out in outs:
            await out.put(item)
    for out in outs:
        await out.put(None)


def broadcast_items(events: int, max_demand: int) -> float:
    """Put single events into four queues; return the seconds."""
    tallies = [Tally(events) for _ in range(WAYS)]
    queues: list[Queue[int | None]] = [Queue(max_demand) for _ in tallies]
    sinks = (_add_items(queue, tally) for queue, tally in zip(queues, tallies, strict=True))
    started = _timed(_feed_all(range(events), queues), *sinks)
    return max(tally.seconds_since(started, sum_from_zero(events)) for tally in tallies)


def broadcast_lists(events: int, max_demand: int) -> float:
    """Put lists into four queues; return the seconds."""
    tallies = [Tally(events) for _ in range(WAYS)]
    queues: list[Queue[Sequence[int] | None]] = [Queue(LISTS_IN_QUEUE) for _ in tallies]
    sinks = (_add_lists(queue, tally) for queue, tally in zip(queues, tallies, strict=True))
    started = _timed(_feed_all(batches(events, batch_size(max_demand)), queues), *sinks)
    return max(tally.seconds_since(started, sum_from_zero(events)) for tally in tallies)


async def _route_items(source: Iterable[int], outs: list[Queue[int | None]]) -> None:
    for event in source:
        await outs[way_of(event)].put(event)
    for out in outs:
        await out.put(None)


async def _route_lists(source: Iterable[Sequence[int]], outs: list[Queue[Sequence[int] | None]]) -> None:
    for batch in source:
        parts: list[list[int]] = [[] for _ in outs]
        for event in batch:
            parts[way_of(event)].append(event)
        for out, part in zip(outs, parts, strict=True):
            await out.put(part)
    for out in outs:
        await out.put(None)


def partition_items(events: int, max_demand: int) -> float:
    """Hash single events into four queues; return the seconds."""
    tallies = [Tally(events // WAYS) for _ in range(WAYS)]
    queues: list[Queue[int | None]] = [Queue(max_demand) for _ in tallies]
    sinks = (_add_items(queue, tally) for queue, tally in zip(queues, tallies, strict=True))
    started = _timed(_route_items(range(events), queues), *sinks)
    return max(tally.seconds_since(started, sum_of_way(events, way)) for way, tally in enumerate(tallies))


def partition_lists(events: int, max_demand: int) -> float:
    """Hash lists into four queues of lists of half of max_demand; return the seconds."""
    tallies = [Tally(events // WAYS) for _ in range(WAYS)]
    queues: list[Queue[Sequence[int] | None]] = [Queue(LISTS_IN_QUEUE) for _ in tallies]
    sinks = (_add_lists(queue, tally) for queue, tally in zip(queues, tallies, strict=True))
    started = _timed(_route_lists(batches(events, batch_size(max_demand) * WAYS), queues), *sinks)
    return max(tally.seconds_since(started, sum_of_way(events, way)) for way, tally in enumerate(tallies))


async def _balance_items(into: Queue[int | None], out: Queue[int | None], bound: int, tally: Tally) -> None:
    turns = RoundRobin()
    more = True
    while more or turns.size:
        # Waits only when there is nothing to hand on; takes what is there up to the bound, so that keys can
        # take turns.
        while more and turns.size < bound and not (turns.size and into.empty()):
            if (item := await into.get()) is None:
                more = False
            else:
                turns.add((item,))
        for item in turns.take(1):
            if len(tally.first) < bound:
                tally.first.append(item)
            await out.put(item)
    await out.put(None)


async def _balance_lists(
    into: Queue[Sequence[int] | None], out: Queue[Sequence[int] | None], size: int, tally: Tally
) -> None:
    turns = RoundRobin()
    while (batch := await into.get()) is not None:
        turns.add(batch)
        taken = turns.take(size)
        tally.first = tally.first or taken
        await out.put(taken)
    await out.put(None)


def fair_items(events: int, max_demand: int) -> float:
    """Put a task with a deque a key between source and sink, per item; return the seconds."""
    tally = Tally(events)
    first: Queue[int | None] = Queue(max_demand)
    second: Queue[int | None] = Queue(max_demand)
    balance = _balance_items(first, second, max_demand, tally)
    started = _timed(_feed(range(events), first), balance, _add_items(second, tally))
    check_fair(tally.first)
    return tally.seconds_since(started, sum_from_zero(events))


def fair_lists(events: int, max_demand: int) -> float:
    """Put a task with a deque a key between source and sink, in lists; return the seconds."""
    tally = Tally(events)
    size = batch_size(max_demand)
    first: Queue[Sequence[int] | None] = Queue(LISTS_IN_QUEUE)
    second: Queue[Sequence[int] | None] = Queue(LISTS_IN_QUEUE)
    balance = _balance_lists(first, second, size, tally)
    started = _timed(_feed(batches(events, size), first), balance, _add_lists(second, tally))
    check_fair(tally.first)
    return tally.seconds_since(started, sum_from_zero(events))


def _plus_one_array(batch: NDArray[np.float64]) -> NDArray[np.float64]:
    return batch + 1.0


def arrays(events: int) -> float:
    """Move arrays through three tasks and two queues; return the seconds."""
    tally = Tally(events)
    first: Queue[NDArray[np.float64] | None] = Queue(LISTS_IN_QUEUE)
    second: Queue[NDArray[np.float64] | None] = Queue(LISTS_IN_QUEUE)
    started = _timed(_feed(waves(events), first), _apply(first, second, _plus_one_array), _add_arrays(second, tally))
    return tally.seconds_since(started, wave_sum(events))
