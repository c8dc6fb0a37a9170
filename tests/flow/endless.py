"""Endless flows, whose memory has to stay flat: each has ever new keys, which are forgotten when their windows close.

The test (`test_endless.py`) runs them for some ten thousand events. For longer, and for memory as the system sees it::

    python -m tests.flow.endless                  # each for a million events
    python -m tests.flow.endless --events 50000000 --flow sessions --workers 2 --process

It prints what is held, four times for each flow, and ends with exit code 1 if the last is much more than the first.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from headgate import Flow, Process
from headgate.flow import triggers, watermarks, windows

PER_SECOND = 100
"""Events of one second of event time."""
BEHIND = 4
"""Seconds that an event may be older than one before it."""
LIFE = 4
"""Events of a key, one after the other; then it does not come again."""


class Event(NamedTuple):
    """One event.

    Attributes:
        at: Seconds.
        key: A number that only grows.
        value: Some number.
    """

    at: float
    key: int
    value: int


def events(look: Callable[[int], Any], every: int, total: int) -> Iterator[Event]:
    """Yield events, a little out of order.

    Args:
        look: Called with the number of events so far, each time that there are ``every`` more.
        every: How often.
        total: How many events.
    """
    for number in range(total):
        if number and not number % every:
            look(number)
        yield Event(number / PER_SECOND + number * 7919 % (BEHIND * 100) / 100, number // LIFE, number)
    look(total)


def _behind() -> Any:
    return watermarks.out_of_order(BEHIND)


def _sum(flow: Flow, spec: windows.WindowSpec) -> Flow:
    return flow.window(spec).sum_by("key", "value")


FLOWS: dict[str, Callable[[Flow, Flow], Flow]] = {
    "fixed": lambda flow, _: _sum(flow, windows.fixed(10, by="at", watermark=_behind())),
    "sliding": lambda flow, _: _sum(flow, windows.sliding(20, 10, by="at", watermark=_behind())),
    "sessions": lambda flow, _: _sum(flow, windows.session(5, by="at", watermark=_behind())),
    "triggers": lambda flow, _: _sum(
        flow,
        windows.fixed(10, by="at", watermark=_behind(), allowed_lateness=5, trigger=triggers.every(3)),
    ),
    "lists": lambda flow, _: flow.window(windows.fixed(10, by="at", watermark=_behind())).group_by("key"),
    "join": lambda flow, other: flow.join(
        other.filter(lambda event: event.value % 3 == 0),
        "key",
        window=windows.fixed(10, by="at", watermark=_behind()),
    ),
}
"""From a flow of events, and another one of the same, to one that holds something."""


def endless(name: str, look: Callable[[int], Any], every: int, total: int) -> Flow:
    """Return one of the flows. Its sources end after all, so that it can be seen how they do."""
    other = Flow.from_iterable(events(lambda _: None, total, total))
    return FLOWS[name](Flow.from_iterable(events(look, every, total)), other)


class Held:
    """Watches what a flow holds.

    Attributes:
        most: The most accumulators at a time, as far as the flow has told.
        results: How many there were.
    """

    def __init__(self) -> None:
        self.most = 0
        self.results = 0
        self._run: Any = None

    async def run(self, flow: Flow) -> Any:
        """Run a flow to its end, and return its statistics."""
        async with flow.app(consume=self._take, watch=0.001) as run:
            self._run = run
            await run.wait()
        return self._run.flow_statistics()

    def _take(self, results: Any) -> None:
        self.results += len(results)
        self.look()

    def look(self) -> int:
        """Return how many accumulators (or kept events of a join) there are in all workers."""
        gauges = self._run.flow_statistics().gauges.values()
        now: int = sum(worker.get("accumulated of 0", 0) + worker.get("kept of 0", 0) for worker in gauges)
        self.most = max(self.most, now)
        return now


# -- the program ------------------------------------------------------------------------------------------------------


def resident() -> float:
    """Return the memory of this process and its children, in MB."""
    pages = 0
    me = Path("/proc/self")
    children = (me / "task" / me.readlink().name / "children").read_text().split()
    for process in ("self", *children):
        pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def watched(name: str, total: int, **options: Any) -> bool:
    """Run one flow, print what it holds four times, and say whether that was flat."""
    import asyncio  # noqa: PLC0415

    held, seen = Held(), []
    began = time.perf_counter()

    def look(number: int) -> None:
        gc.collect()
        seen.append(resident())
        rate = number / (time.perf_counter() - began)
        print(f"{name:>9}  {number:>12,} events  {rate:>9,.0f} a second  {held.look():>6,} open  {seen[-1]:>7.1f} MB")

    asyncio.run(held.run(endless(name, look, total // 4, total).options(**options)))
    return seen[-1] < 1.1 * seen[0] + 5


def main() -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.flow.endless")
    parser.add_argument("--flow", choices=sorted(FLOWS), help="which (all)")
    parser.add_argument("--events", type=int, default=1_000_000, help="how many for each (%(default)s)")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--process", action="store_true", help="in worker processes")
    chosen = parser.parse_args()
    options = {"workers": chosen.workers, "place": Process() if chosen.process else None}
    names = [chosen.flow] if chosen.flow else list(FLOWS)
    flat = [watched(name, chosen.events, **options) for name in names]
    print("flat" if all(flat) else "it grows: " + ", ".join(n for n, each in zip(names, flat, strict=True) if not each))
    return 0 if all(flat) else 1


if __name__ == "__main__":
    sys.exit(main())
