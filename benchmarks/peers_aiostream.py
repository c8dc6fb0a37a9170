"""Pipelines of aiostream's operators.

They pull, so they have no queue to bound: the demand only sets the length of lists.

aiostream has no counterpart of the fan-out, broadcast and partition rows: its streams have one consumer.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from aiostream import pipe, stream

from benchmarks.work import (
    Tally,
    batch_size,
    batches,
    plus_one,
    plus_one_async,
    plus_one_each,
    sum_from_one,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiostream.core import Stream

# aiostream's types want functions of any number of arguments, which it passes only when streams are zipped.
_PLUS_ONE = cast("Any", plus_one)
_PLUS_ONE_EACH = cast("Any", plus_one_each)
_PLUS_ONE_ASYNC = cast("Any", plus_one_async)


def passthrough_items(events: int) -> float:
    """Map single events; return the seconds."""
    tally = Tally(events)

    async def run() -> float:
        count = total = 0
        started = perf_counter()
        mapped: Stream[int] = stream.iterate(range(events)) | pipe.map(_PLUS_ONE)
        async with mapped.stream() as streamer:
            async for event in streamer:
                count += 1
                total += event
        tally.close(count, total)
        return started

    return tally.seconds_since(asyncio.run(run()), sum_from_one(events))


def passthrough_lists(events: int, max_demand: int) -> float:
    """Map lists of half of max_demand; return the seconds."""
    tally = Tally(events)

    async def run() -> float:
        count = total = 0
        started = perf_counter()
        source = stream.iterate(batches(events, batch_size(max_demand)))
        mapped: Stream[Sequence[int]] = source | pipe.map(_PLUS_ONE_EACH)
        async with mapped.stream() as streamer:
            async for batch in streamer:
                count += len(batch)
                total += sum(batch)
        tally.close(count, total)
        return started

    return tally.seconds_since(asyncio.run(run()), sum_from_one(events))


def async_items(events: int) -> float:
    """Map single events by a coroutine function, one at a time as the others do; return the seconds."""
    tally = Tally(events)

    async def run() -> float:
        count = total = 0
        started = perf_counter()
        mapped: Stream[int] = stream.iterate(range(events)) | pipe.map(_PLUS_ONE_ASYNC, task_limit=1)
        async with mapped.stream() as streamer:
            async for event in streamer:
                count += 1
                total += event
        tally.close(count, total)
        return started

    return tally.seconds_since(asyncio.run(run()), sum_from_one(events))
