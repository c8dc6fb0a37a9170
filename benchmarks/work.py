"""The work that all contenders share: sources, steps, sums, and the checks of the results.

Everything that is not moving events is here once, so that contenders differ in the moving only.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.model import WrongResultError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

WAYS = 4
"""Consumers of the fan-out, broadcast and partition rows."""

KEYS = 1_000
"""Keys of the fair row."""

RUN_OF_KEY = 4
"""Consecutive events with the same key in the fair row: arrival order is visibly unfair."""

NUMPY_BATCH = 50_000
"""Rows per array: half of the numpy row's max_demand, like the batches of the other rows."""

WAVE: NDArray[np.float64] = (np.arange(1_000_000) % 1_000).astype(np.float64)
"""The numpy source, walked through again and again: small whole numbers, so that sums of floats are exact."""


def batch_size(max_demand: int) -> int:
    """Return the size of the batches that the demand protocol makes: max_demand - max_demand // 2."""
    return max_demand - max_demand // 2


def batches(events: int, size: int) -> Iterator[range]:
    """Cut ``range(events)`` into ranges of at most ``size``."""
    whole = range(events)
    for start in range(0, events, size):
        yield whole[start : start + size]


def plus_one(event: int) -> int:
    """Do the middle stage's work on one event."""
    return event + 1


async def plus_one_async(event: int) -> int:
    """Do the middle stage's work on one event, as a coroutine that does not suspend."""
    return event + 1


def plus_one_each(events: Sequence[int]) -> list[int]:
    """Do the middle stage's work on a batch."""
    return [event + 1 for event in events]


async def plus_one_each_async(events: Sequence[int]) -> list[int]:
    """Do the middle stage's work on a batch, as a coroutine that does not suspend."""
    return [event + 1 for event in events]


def way_of(event: int) -> int:
    """Return the partition of an event."""
    return event % WAYS


def key_of(event: int) -> int:
    """Return the key of an event in the fair row."""
    return event // RUN_OF_KEY % KEYS


def sum_from_zero(events: int) -> int:
    """Return the sum of ``range(events)``: what a sink sees when nothing was added."""
    return events * (events - 1) // 2


def sum_from_one(events: int) -> int:
    """Return the sum of ``range(1, events + 1)``: what a sink sees behind `plus_one`."""
    return events * (events + 1) // 2


def sum_of_way(events: int, way: int) -> int:
    """Return the sum of the events of one partition."""
    return sum(range(way, events, WAYS))


def wave_sum(events: int) -> float:
    """Return what a sink must have summed after ``events`` of `WAVE`, each plus one."""
    cycles, rest = divmod(events, len(WAVE))
    return cycles * float(WAVE.sum()) + float(WAVE[:rest].sum()) + events


def waves(events: int) -> Iterator[NDArray[np.float64]]:
    """Cut ``events`` values out of `WAVE` as views of at most `NUMPY_BATCH` rows."""
    for start in range(0, events, NUMPY_BATCH):
        first = start % len(WAVE)
        yield WAVE[first : first + min(NUMPY_BATCH, events - start)]


class Tally:
    """What sinks count, and when the last event was handled.

    Sinks update the fields themselves: a method call a batch would be charged to every contender with small
    batches.
    """

    __slots__ = ("count", "ended", "expected", "first", "shares", "total")

    def __init__(self, expected: int) -> None:
        """Await ``expected`` events."""
        self.expected = expected
        self.count = 0
        self.total: float = 0
        self.ended = 0.0
        self.shares = [0] * WAYS
        self.first: list[int] = []

    def close(self, count: int, total: float) -> None:
        """Record the end, for sinks that know it from the end of their input."""
        self.ended = perf_counter()
        self.count = count
        self.total = total

    def seconds_since(self, started: float, total: float) -> float:
        """Check the sums and return the duration.

        Args:
            started: Clock before the first event was asked.
            total: The right sum.

        Returns:
            Seconds until the last event was handled.

        Raises:
            WrongResultError: Count or sum differ from what they must be.
        """
        if self.count != self.expected or self.total != total:
            message = f"{self.count} events with sum {self.total}, expected {self.expected} with sum {total}"
            raise WrongResultError(message)
        return self.ended - started


def check_shares(tally: Tally) -> None:
    """Raise WrongResultError unless each of the `WAYS` consumers got events: else it was no fan-out."""
    if 0 in tally.shares or sum(tally.shares) != tally.expected:
        message = f"shares {tally.shares} of {tally.expected} events"
        raise WrongResultError(message)


def check_fair(events: Sequence[int]) -> None:
    """Raise WrongResultError unless keys take turns in the first events that a fair contender delivered.

    In order of arrival, three of four neighbours share a key; in turn, next to none do.
    """
    same = sum(key_of(left) == key_of(right) for left, right in pairwise(events))
    if len(events) <= RUN_OF_KEY or same * 10 > len(events):
        message = f"not fair: {same} of the first {len(events)} events have the same key as the one before"
        raise WrongResultError(message)


class RoundRobin:
    """What one writes by hand for fairness: a queue a key, and the keys take turns."""

    __slots__ = ("_queues", "_turns", "size")

    def __init__(self) -> None:
        """Start empty."""
        self._queues: dict[int, deque[int]] = {}
        self._turns: deque[int] = deque()
        self.size = 0

    def add(self, events: Sequence[int]) -> None:
        """Queue each event behind those of its key."""
        queues = self._queues
        for event in events:
            key = key_of(event)
            queue = queues.get(key)
            if queue is None:
                # Idle keys are forgotten: with unbounded sets of keys (users) everything else would leak.
                queues[key] = deque((event,))
                self._turns.append(key)
            else:
                queue.append(event)
        self.size += len(events)

    def take(self, limit: int) -> list[int]:
        """Return at most ``limit`` events, one of each key in turn."""
        queues, turns = self._queues, self._turns
        taken: list[int] = []
        for _ in range(min(limit, self.size)):
            key = turns.popleft()
            queue = queues[key]
            taken.append(queue.popleft())
            if queue:
                turns.append(key)
            else:
                del queues[key]
        self.size -= len(taken)
        return taken
