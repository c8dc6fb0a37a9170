"""Headgate's side of every row: stages with the same work as the plain loops, wired and timed.

Sources start in the mode "accumulate": everything is subscribed before the clock starts, and
``set_demand("forward")`` opens the gate. Start-up and shut-down are thereby outside of the times, as they are
for the peers.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import headgate
from benchmarks.work import (
    NUMPY_BATCH,
    WAVE,
    WAYS,
    Tally,
    check_fair,
    check_shares,
    key_of,
    sum_from_one,
    sum_from_zero,
    sum_of_way,
    wave_sum,
    way_of,
)
from headgate import Child, Consumer, Producer, ProducerConsumer, To

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

Delivery = Literal["at_least_once", "at_most_once"]

HANG_SECONDS = 60.0
"""A run that takes longer hangs: it fails instead of stopping the whole benchmark."""


class Source(Producer):
    """Slices a range and ends when it is used up."""

    def __init__(self, events: int) -> None:
        """Hold ``range(events)``."""
        self.left = range(events)

    def handle_demand(self, demand: int) -> range:
        """Return the next events."""
        batch = self.left[:demand]
        self.left = self.left[demand:]
        if not batch:
            self.stage.finish()
        return batch


class PlusOne(ProducerConsumer):
    """Adds one to each event."""

    def handle_events(self, events: Sequence[int], source: object) -> list[int]:
        """Return the sums."""
        return [event + 1 for event in events]


class Sink(Consumer):
    """Counts and sums, and records when the last event was handled."""

    def __init__(self, tally: Tally, way: int = 0) -> None:
        """Count in ``tally``, as the consumer number ``way``."""
        self.tally = tally
        self.way = way

    def handle_events(self, events: Sequence[int], source: object) -> None:
        """Add a batch."""
        tally = self.tally
        tally.count += len(events)
        tally.total += sum(events)
        if tally.count >= tally.expected:
            tally.ended = perf_counter()


class SharingSink(Sink):
    """One of several sinks that share the events."""

    def handle_events(self, events: Sequence[int], source: object) -> None:
        """Add a batch."""
        self.tally.shares[self.way] += len(events)
        super().handle_events(events, source)


class FairSink(Sink):
    """Keeps the first batch, whose order shows whether keys took turns."""

    def handle_events(self, events: Sequence[int], source: object) -> None:
        """Add a batch."""
        self.tally.first = self.tally.first or list(events)
        super().handle_events(events, source)


class AsyncSource(Source):
    """The source with an async handler."""

    async def handle_demand(self, demand: int) -> range:  # type: ignore[override]
        """Return the next events."""
        return super().handle_demand(demand)


class AsyncPlusOne(ProducerConsumer):
    """The middle with an async handler."""

    async def handle_events(self, events: Sequence[int], source: object) -> list[int]:
        """Return the sums."""
        return [event + 1 for event in events]


class AsyncSink(Sink):
    """The sink with an async handler."""

    async def handle_events(self, events: Sequence[int], source: object) -> None:  # type: ignore[override]
        """Add a batch."""
        super().handle_events(events, source)


class WaveSource(Producer):
    """Slices arrays out of `WAVE`, again and again."""

    def __init__(self, events: int) -> None:
        """Hold that many values."""
        self.left = events
        self.at = 0

    def handle_demand(self, demand: int) -> NDArray[np.float64]:
        """Return the next values, fewer than asked at the end of the wave."""
        batch = WAVE[self.at : self.at + min(demand, self.left)]
        self.left -= len(batch)
        self.at = (self.at + len(batch)) % len(WAVE)
        if not len(batch):
            self.stage.finish()
        return batch


class WavePlusOne(ProducerConsumer):
    """Adds one to each value of an array."""

    def handle_events(self, events: NDArray[np.float64], source: object) -> NDArray[np.float64]:
        """Return the sums as a new array."""
        return events + 1.0


class WaveSink(Sink):
    """Counts and sums arrays."""

    def handle_events(self, events: NDArray[np.float64], source: object) -> None:  # type: ignore[override]
        """Add an array."""
        tally = self.tally
        tally.count += len(events)
        tally.total += float(events.sum())
        if tally.count >= tally.expected:
            tally.ended = perf_counter()


def _time(source: Child, middle: Child | None, sinks: list[Child], subscriptions: list[dict[str, Any]]) -> float:
    """Run a finite pipeline; return the clock at the opening of the gate.

    Args:
        source: Recipe of the source, in the mode "accumulate".
        middle: Recipe of the stage behind it, if any.
        sinks: Recipes of the last stages.
        subscriptions: Options of each sink's subscription; the middle's has the options of the first.
    """

    async def run() -> float:
        async with asyncio.timeout(HANG_SECONDS), headgate.System() as system:
            first = last = await system.start(source)
            if middle is not None:
                last = await system.start(middle)
                await last.subscribe(To(first, **subscriptions[0]))
            for sink, options in zip(sinks, subscriptions, strict=True):
                ref = await system.start(sink)
                await ref.subscribe(To(last, **options))
            started = perf_counter()
            await first.set_demand("forward")
            await system.wait()
        return started

    return asyncio.run(run())


def passthrough(
    events: int,
    max_demand: int,
    place: Literal["inline", "task", "thread"] = "inline",
    delivery: Delivery = "at_least_once",
) -> float:
    """Move events through three stages with plain handlers; return the seconds."""
    tally = Tally(events)
    started = _time(
        Child(Source, events, demand="accumulate", place=place, delivery=delivery),
        Child(PlusOne, place=place, delivery=delivery),
        [Child(Sink, tally, place=place, delivery=delivery)],
        [{"max_demand": max_demand}],
    )
    return tally.seconds_since(started, sum_from_one(events))


def passthrough_async(events: int, max_demand: int) -> float:
    """Move events through three stages with async handlers, each in its task; return the seconds."""
    tally = Tally(events)
    started = _time(
        Child(AsyncSource, events, demand="accumulate", place="task"),
        Child(AsyncPlusOne, place="task"),
        [Child(AsyncSink, tally, place="task")],
        [{"max_demand": max_demand}],
    )
    return tally.seconds_since(started, sum_from_one(events))


def fan_out(events: int, max_demand: int) -> float:
    """Share events between four consumers; return the seconds."""
    tally = Tally(events)
    source = Child(Source, events, demand="accumulate", dispatcher="demand")
    sinks = [Child(SharingSink, tally, way) for way in range(WAYS)]
    started = _time(source, None, sinks, [{"max_demand": max_demand}] * WAYS)
    seconds = tally.seconds_since(started, sum_from_zero(events))
    check_shares(tally)
    return seconds


def broadcast(events: int, max_demand: int) -> float:
    """Send every event to four consumers; return the seconds."""
    tallies = [Tally(events) for _ in range(WAYS)]
    source = Child(Source, events, demand="accumulate", dispatcher="broadcast")
    started = _time(source, None, [Child(Sink, tally) for tally in tallies], [{"max_demand": max_demand}] * WAYS)
    return max(tally.seconds_since(started, sum_from_zero(events)) for tally in tallies)


def partition(events: int, max_demand: int) -> float:
    """Hash each event to one of four consumers; return the seconds."""
    tallies = [Tally(events // WAYS) for _ in range(WAYS)]
    dispatcher = headgate.PartitionDispatcher(WAYS, hash=way_of)
    source = Child(Source, events, demand="accumulate", dispatcher=dispatcher)
    subscriptions: list[dict[str, Any]] = [{"max_demand": max_demand, "partition": way} for way in range(WAYS)]
    started = _time(source, None, [Child(Sink, tally) for tally in tallies], subscriptions)
    return max(tally.seconds_since(started, sum_of_way(events, way)) for way, tally in enumerate(tallies))


def fair(events: int, max_demand: int) -> float:
    """Let 1,000 keys take turns before one consumer; return the seconds."""
    tally = Tally(events)
    source = Child(Source, events, demand="accumulate", dispatcher=headgate.FairDispatcher(key=key_of))
    started = _time(source, None, [Child(FairSink, tally)], [{"max_demand": max_demand}])
    seconds = tally.seconds_since(started, sum_from_zero(events))
    check_fair(tally.first)
    return seconds


def arrays(events: int) -> float:
    """Move arrays through three stages; return the seconds."""
    tally = Tally(events)
    source = Child(WaveSource, events, demand="accumulate")
    started = _time(source, Child(WavePlusOne), [Child(WaveSink, tally)], [{"max_demand": 2 * NUMPY_BATCH}])
    return tally.seconds_since(started, wave_sum(events))
