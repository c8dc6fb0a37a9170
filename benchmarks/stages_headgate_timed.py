"""Headgate's side of the rows that run for a given time: latency and memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import headgate
from benchmarks.latency import Arrivals, Timer, events_in
from benchmarks.memory import CONSUMER_SECONDS, MAX_DEMAND, Gauge
from benchmarks.stages_headgate import HANG_SECONDS
from headgate import Child, Consumer, Producer, ProducerConsumer, To

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.model import Sample


class TimerSource(Producer):
    """Emits from a timer, whatever is asked; starts at the first cast."""

    def __init__(self, events: int) -> None:
        """Emit that many events."""
        self.events = events

    def handle_demand(self, demand: int) -> None:
        """Return nothing: events come when they come."""

    def handle_cast(self, message: object) -> None:
        """Start the timer."""
        Timer(self.events, lambda clock: self.stage.emit([clock]), self.stage.finish).start()


class PlusZero(ProducerConsumer):
    """Hands events on through a list comprehension, without touching the clock in them."""

    def handle_events(self, events: Sequence[int], source: object) -> list[int]:
        """Return equal events."""
        return [event + 0 for event in events]


class ArrivalSink(Consumer):
    """Records latencies."""

    def __init__(self, arrivals: Arrivals) -> None:
        """Record in ``arrivals``."""
        self.arrivals = arrivals

    def handle_events(self, events: Sequence[int], source: object) -> None:
        """Record each event of a batch."""
        for event in events:
            self.arrivals.record(event)


def latency(seconds: float) -> Sample:
    """Emit 1,000 events a second through three stages with plain handlers; return the latencies in us."""

    async def run() -> Sample:
        arrivals = Arrivals(events_in(seconds))
        async with asyncio.timeout(HANG_SECONDS + seconds), headgate.System() as system:
            source = await system.start(Child(TimerSource, arrivals.expected))
            middle = await system.start(Child(PlusZero, subscribe_to=[source]))
            await system.start(Child(ArrivalSink, arrivals, subscribe_to=[middle]))
            await source.cast("start")
            await arrivals.complete.wait()
            await system.wait()
        return arrivals.sample()

    return asyncio.run(run())


class EndlessSource(Producer):
    """Always has as much as is asked."""

    def __init__(self, gauge: Gauge) -> None:
        """Count in ``gauge``."""
        self.gauge = gauge

    def handle_demand(self, demand: int) -> list[int]:
        """Return exactly what was asked, as a list of fresh objects that take memory."""
        first = self.gauge.made
        self.gauge.make(demand)
        return list(range(first, first + demand))


class SlowSink(Consumer):
    """Takes `CONSUMER_SECONDS` for each batch."""

    def __init__(self, gauge: Gauge) -> None:
        """Count in ``gauge``."""
        self.gauge = gauge

    async def handle_events(self, events: Sequence[int], source: object) -> None:
        """Take time."""
        await asyncio.sleep(CONSUMER_SECONDS)
        self.gauge.handle(events[0], len(events))


def memory(seconds: float) -> Sample:
    """Run an endless producer before a slow consumer; return growth, most events waiting, and rate."""

    async def run() -> Sample:
        gauge = Gauge()
        async with headgate.System() as system:
            source = await system.start(Child(EndlessSource, gauge))
            await system.start(Child(SlowSink, gauge, subscribe_to=[To(source, max_demand=MAX_DEMAND)]))
            await gauge.watch(seconds)
        return gauge.sample(seconds)

    return asyncio.run(run())
