"""Pipelines of tasks and anyio's memory object streams, per item, on the asyncio backend."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from time import perf_counter
from typing import TYPE_CHECKING

import anyio

from benchmarks.work import (
    WAYS,
    Tally,
    plus_one,
    plus_one_async,
    sum_from_one,
    sum_from_zero,
    sum_of_way,
    way_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Any

    from anyio.streams.memory import MemoryObjectReceiveStream as Receive
    from anyio.streams.memory import MemoryObjectSendStream as Send


async def _wait(coroutine: Coroutine[Any, Any, None]) -> None:
    await coroutine


def _timed(*coroutines: Coroutine[Any, Any, None]) -> float:
    """Run coroutines in a task group of a fresh loop until all ended; return the clock at their start."""

    async def together() -> float:
        started = perf_counter()
        async with anyio.create_task_group() as group:
            for coroutine in coroutines:
                group.start_soon(_wait, coroutine)
        return started

    return asyncio.run(together())


async def _feed(events: int, out: Send[int]) -> None:
    async with out:
        for event in range(events):
            await out.send(event)


async def _apply(into: Receive[int], out: Send[int], work: Callable[[int], int]) -> None:
    async with into, out:
        async for event in into:
            await out.send(work(event))


async def _apply_async(into: Receive[int], out: Send[int], work: Callable[[int], Awaitable[int]]) -> None:
    async with into, out:
        async for event in into:
            await out.send(await work(event))


async def _add(into: Receive[int], tally: Tally) -> None:
    count = total = 0
    async with into:
        async for event in into:
            count += 1
            total += event
    tally.close(count, total)


def passthrough(events: int, max_demand: int) -> float:
    """Move single events through three tasks and two streams; return the seconds."""
    tally = Tally(events)
    send_first, first = anyio.create_memory_object_stream[int](max_demand)
    send_second, second = anyio.create_memory_object_stream[int](max_demand)
    started = _timed(_feed(events, send_first), _apply(first, send_second, plus_one), _add(second, tally))
    return tally.seconds_since(started, sum_from_one(events))


def passthrough_async(events: int, max_demand: int) -> float:
    """Move single events through tasks that await a handler for each; return the seconds."""
    tally = Tally(events)
    send_first, first = anyio.create_memory_object_stream[int](max_demand)
    send_second, second = anyio.create_memory_object_stream[int](max_demand)
    started = _timed(_feed(events, send_first), _apply_async(first, send_second, plus_one_async), _add(second, tally))
    return tally.seconds_since(started, sum_from_one(events))


def fan_out(events: int, max_demand: int) -> float:
    """Let four tasks receive from one stream, however unevenly; return the seconds."""
    parts = [Tally(events) for _ in range(WAYS)]
    send, receive = anyio.create_memory_object_stream[int](max_demand)
    with receive:
        readers = [receive.clone() for _ in parts]
    started = _timed(_feed(events, send), *(_add(reader, part) for reader, part in zip(readers, parts, strict=True)))
    whole = Tally(events)
    whole.shares = [part.count for part in parts]
    whole.close(sum(whole.shares), sum(part.total for part in parts))
    whole.ended = max(part.ended for part in parts)
    return whole.seconds_since(started, sum_from_zero(events))


async def _feed_all(events: int, outs: list[Send[int]]) -> None:
    async with AsyncExitStack() as stack:
        for out in outs:
            await stack.enter_async_context(out)
        for event in range(events):
            for out in outs:
                await out.send(event)


def broadcast(events: int, max_demand: int) -> float:
    """Send each event into four streams; return the seconds."""
    tallies = [Tally(events) for _ in range(WAYS)]
    streams = [anyio.create_memory_object_stream[int](max_demand) for _ in tallies]
    sinks = (_add(receive, tally) for (_, receive), tally in zip(streams, tallies, strict=True))
    started = _timed(_feed_all(events, [send for send, _ in streams]), *sinks)
    return max(tally.seconds_since(started, sum_from_zero(events)) for tally in tallies)


async def _route(events: int, outs: list[Send[int]]) -> None:
    async with AsyncExitStack() as stack:
        for out in outs:
            await stack.enter_async_context(out)
        for event in range(events):
            await outs[way_of(event)].send(event)


def partition(events: int, max_demand: int) -> float:
    """Hash each event into one of four streams; return the seconds."""
    tallies = [Tally(events // WAYS) for _ in range(WAYS)]
    streams = [anyio.create_memory_object_stream[int](max_demand) for _ in tallies]
    sinks = (_add(receive, tally) for (_, receive), tally in zip(streams, tallies, strict=True))
    started = _timed(_route(events, [send for send, _ in streams]), *sinks)
    return max(tally.seconds_since(started, sum_of_way(events, way)) for way, tally in enumerate(tallies))
