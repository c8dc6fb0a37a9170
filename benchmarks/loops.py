"""The limit: plain loops that do the same work in the same batches, through method calls on three objects."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.work import (
    NUMPY_BATCH,
    WAVE,
    WAYS,
    RoundRobin,
    Tally,
    batch_size,
    check_fair,
    check_shares,
    sum_from_one,
    sum_from_zero,
    sum_of_way,
    wave_sum,
    way_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class _Source:
    """Slices a range, as headgate's source does."""

    def __init__(self, events: int) -> None:
        self.left = range(events)

    def handle_demand(self, demand: int) -> range:
        batch = self.left[:demand]
        self.left = self.left[demand:]
        return batch


class _PlusOne:
    def handle_events(self, events: Sequence[int]) -> list[int]:
        return [event + 1 for event in events]


class _Sink:
    def __init__(self, tally: Tally, way: int = 0) -> None:
        self.tally = tally
        self.way = way

    def handle_events(self, events: Sequence[int]) -> None:
        tally = self.tally
        tally.count += len(events)
        tally.total += sum(events)
        if tally.count >= tally.expected:
            tally.ended = perf_counter()


class _SharingSink(_Sink):
    def handle_events(self, events: Sequence[int]) -> None:
        self.tally.shares[self.way] += len(events)
        super().handle_events(events)


class _FairSink(_Sink):
    def handle_events(self, events: Sequence[int]) -> None:
        self.tally.first = self.tally.first or list(events)
        super().handle_events(events)


class _AsyncSource(_Source):
    async def handle_demand_async(self, demand: int) -> range:
        return self.handle_demand(demand)


class _AsyncPlusOne:
    async def handle_events(self, events: Sequence[int]) -> list[int]:
        return [event + 1 for event in events]


class _AsyncSink(_Sink):
    async def handle_events_async(self, events: Sequence[int]) -> None:
        self.handle_events(events)


def passthrough(events: int, max_demand: int) -> float:
    """Move events through three objects in one loop; return the seconds."""
    tally = Tally(events)
    source, middle, sink = _Source(events), _PlusOne(), _Sink(tally)
    size = batch_size(max_demand)
    started = perf_counter()
    while batch := source.handle_demand(size):
        sink.handle_events(middle.handle_events(batch))
    return tally.seconds_since(started, sum_from_one(events))


def passthrough_async(events: int, max_demand: int) -> float:
    """Await the three objects in one coroutine; return the seconds."""
    tally = Tally(events)

    async def loop() -> float:
        source, middle, sink = _AsyncSource(events), _AsyncPlusOne(), _AsyncSink(tally)
        size = batch_size(max_demand)
        started = perf_counter()
        while batch := await source.handle_demand_async(size):
            await sink.handle_events_async(await middle.handle_events(batch))
        return started

    return tally.seconds_since(asyncio.run(loop()), sum_from_one(events))


def fan_out(events: int, max_demand: int) -> float:
    """Hand each batch to the next of four sinks; return the seconds."""
    tally = Tally(events)
    source, sinks = _Source(events), [_SharingSink(tally, way) for way in range(WAYS)]
    size = batch_size(max_demand)
    turn = 0
    started = perf_counter()
    while batch := source.handle_demand(size):
        sinks[turn].handle_events(batch)
        turn = (turn + 1) % WAYS
    seconds = tally.seconds_since(started, sum_from_zero(events))
    check_shares(tally)
    return seconds


def broadcast(events: int, max_demand: int) -> float:
    """Hand each batch to all of four sinks; return the seconds."""
    tallies = [Tally(events) for _ in range(WAYS)]
    source, sinks = _Source(events), [_Sink(tally) for tally in tallies]
    size = batch_size(max_demand)
    started = perf_counter()
    while batch := source.handle_demand(size):
        for sink in sinks:
            sink.handle_events(batch)
    return max(tally.seconds_since(started, sum_from_zero(events)) for tally in tallies)


def partition(events: int, max_demand: int) -> float:
    """Hash each event to one of four sinks; return the seconds.

    The source is asked for what four sinks ask together, so that each sink gets batches of the usual size.
    """
    tallies = [Tally(events // WAYS) for _ in range(WAYS)]
    source, sinks = _Source(events), [_Sink(tally) for tally in tallies]
    size = batch_size(max_demand) * WAYS
    started = perf_counter()
    while batch := source.handle_demand(size):
        parts: list[list[int]] = [[] for _ in range(WAYS)]
        for event in batch:
            parts[way_of(event)].append(event)
        for sink, part in zip(sinks, parts, strict=True):
            sink.handle_events(part)
    return max(tally.seconds_since(started, sum_of_way(events, way)) for way, tally in enumerate(tallies))


def fair(events: int, max_demand: int) -> float:
    """Let the keys take turns, batch by batch; return the seconds."""
    tally = Tally(events)
    source, turns, sink = _Source(events), RoundRobin(), _FairSink(tally)
    size = batch_size(max_demand)
    started = perf_counter()
    while batch := source.handle_demand(size):
        turns.add(batch)
        sink.handle_events(turns.take(size))
    seconds = tally.seconds_since(started, sum_from_zero(events))
    check_fair(tally.first)
    return seconds


class _WaveSource:
    """Slices the wave, as headgate's numpy source does."""

    def __init__(self, events: int) -> None:
        self.left = events
        self.at = 0

    def handle_demand(self, demand: int) -> NDArray[np.float64]:
        batch = WAVE[self.at : self.at + min(demand, self.left)]
        self.left -= len(batch)
        self.at = (self.at + len(batch)) % len(WAVE)
        return batch


class _WavePlusOne:
    def handle_events(self, events: NDArray[np.float64]) -> NDArray[np.float64]:
        return events + 1.0


class _WaveSink(_Sink):
    def handle_wave(self, events: NDArray[np.float64]) -> None:
        tally = self.tally
        tally.count += len(events)
        tally.total += float(events.sum())
        if tally.count >= tally.expected:
            tally.ended = perf_counter()


def arrays(events: int) -> float:
    """Move arrays through three objects in one loop; return the seconds."""
    tally = Tally(events)
    source, middle, sink = _WaveSource(events), _WavePlusOne(), _WaveSink(tally)
    started = perf_counter()
    while len(batch := source.handle_demand(NUMPY_BATCH)):
        sink.handle_wave(middle.handle_events(batch))
    return tally.seconds_since(started, wave_sum(events))
