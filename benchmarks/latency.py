"""Latency of one event through three stages, 1,000 a second: plain calls, asyncio.Queue, anyio.

An event is the clock (ns) at the moment when the timer emitted it. All contenders share the timer and the
sink, so that what differs is the way between: how late the timer fires is not part of the figures.
"""

from __future__ import annotations

import asyncio
from time import perf_counter_ns
from typing import TYPE_CHECKING

import anyio

from benchmarks.model import Metric, Sample, WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

RATE_HZ = 1_000
"""Events emitted per second."""

COLD = 50
"""First events that are not counted: they pay for cold code, and only the maximum would tell."""

CAPACITY = 1_000
"""Bound of the peers' queues, like the default max_demand."""

METRICS = (
    Metric("p50", "us", "lower"),
    Metric("p99", "us", "lower"),
    Metric("max", "us", "lower"),
)


class Arrivals:
    """What the sink records: the latency of each event."""

    def __init__(self, events: int) -> None:
        """Await ``events`` events; to be made inside the loop."""
        self.expected = events
        self.nanoseconds: list[int] = []
        self.complete = asyncio.Event()

    def record(self, emitted: int) -> None:
        """Record one event that was emitted at ``emitted`` on the `perf_counter_ns` clock."""
        self.nanoseconds.append(perf_counter_ns() - emitted)
        if len(self.nanoseconds) >= self.expected:
            self.complete.set()

    def sample(self) -> Sample:
        """Return the percentiles in microseconds.

        Raises:
            WrongResultError: Not every event arrived exactly once.
        """
        if len(self.nanoseconds) != self.expected:
            message = f"{len(self.nanoseconds)} events arrived, {self.expected} were emitted"
            raise WrongResultError(message)
        ordered = sorted(self.nanoseconds[COLD:])
        last = len(ordered) - 1
        return {
            "p50": ordered[last // 2] / 1e3,
            "p99": ordered[round(last * 0.99)] / 1e3,
            "max": ordered[last] / 1e3,
        }


class Timer:
    """Emits the clock `RATE_HZ` times a second from callbacks of the running loop."""

    def __init__(self, events: int, emit: Callable[[int], object], then: Callable[[], object] | None = None) -> None:
        """Prepare.

        Args:
            events: How many to emit.
            emit: Called with the clock in ns.
            then: Called once after the last.
        """
        self._left = events
        self._emit = emit
        self._then = then
        self._due = 0.0

    def start(self) -> None:
        """Begin one period from now."""
        loop = asyncio.get_running_loop()
        # Due times are absolute: a late callback does not lower the rate.
        self._due = loop.time() + 1 / RATE_HZ
        loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._left -= 1
        if self._left:
            self._due += 1 / RATE_HZ
            asyncio.get_running_loop().call_at(self._due, self._tick)
        self._emit(perf_counter_ns())
        if not self._left and self._then:
            self._then()


def events_in(seconds: float) -> int:
    """Return how many events to emit in that time, some more than are discarded as cold."""
    return max(2 * COLD, round(seconds * RATE_HZ))


def plain(seconds: float) -> Sample:
    """Call the three stages' methods from the timer."""

    async def run() -> Sample:
        arrivals = Arrivals(events_in(seconds))

        def middle(events: list[int]) -> list[int]:
            return [event + 0 for event in events]

        def sink(events: list[int]) -> None:
            for event in events:
                arrivals.record(event)

        Timer(arrivals.expected, lambda clock: sink(middle([clock]))).start()
        await arrivals.complete.wait()
        return arrivals.sample()

    return asyncio.run(run())


def asyncio_queues(seconds: float) -> Sample:
    """Two tasks behind two queues."""

    async def middle(into: asyncio.Queue[int], out: asyncio.Queue[int]) -> None:
        while True:
            await out.put(await into.get() + 0)

    async def sink(into: asyncio.Queue[int], arrivals: Arrivals) -> None:
        while True:
            arrivals.record(await into.get())

    async def run() -> Sample:
        arrivals = Arrivals(events_in(seconds))
        first: asyncio.Queue[int] = asyncio.Queue(CAPACITY)
        second: asyncio.Queue[int] = asyncio.Queue(CAPACITY)
        tasks = [asyncio.create_task(middle(first, second)), asyncio.create_task(sink(second, arrivals))]
        Timer(arrivals.expected, first.put_nowait).start()
        await arrivals.complete.wait()
        for task in tasks:
            task.cancel()
        return arrivals.sample()

    return asyncio.run(run())


def anyio_streams(seconds: float) -> Sample:
    """Two tasks behind two memory object streams."""

    async def middle(into: MemoryObjectReceiveStream[int], out: MemoryObjectSendStream[int]) -> None:
        async with into, out:
            async for event in into:
                await out.send(event + 0)

    async def sink(into: MemoryObjectReceiveStream[int], arrivals: Arrivals) -> None:
        async with into:
            async for event in into:
                arrivals.record(event)

    async def run() -> Sample:
        arrivals = Arrivals(events_in(seconds))
        send_first, first = anyio.create_memory_object_stream[int](CAPACITY)
        send_second, second = anyio.create_memory_object_stream[int](CAPACITY)
        async with anyio.create_task_group() as group:
            group.start_soon(middle, first, send_second)
            group.start_soon(sink, second, arrivals)
            Timer(arrivals.expected, send_first.send_nowait, send_first.close).start()
        return arrivals.sample()

    return asyncio.run(run())
