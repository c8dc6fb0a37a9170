"""Checks of the options of connectors, and the sources' clock: delays that pass on an event loop or without one."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from typing import Any

from headgate.errors import OptionError


def check_count(where: str, option: str, value: Any, least: int, *, optional: bool = False) -> None:
    """Refuse what is no integer of at least ``least`` (nor None, if that is allowed)."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(where, option, f"an integer of at least {least}{', or None' if optional else ''}", value)


def check_seconds(where: str, option: str, value: Any) -> float:
    """Refuse what is no number of seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:  # nan too
        raise OptionError(where, option, "a number of seconds of at least 0", value)
    return float(value)


def check_choice(where: str, option: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Refuse what is none of these."""
    if not any(value is each or (type(value) is type(each) and value == each) for each in allowed):
        raise OptionError(where, option, "one of " + ", ".join(map(repr, allowed)), value)


def check_function(where: str, option: str, value: Any, expected: str) -> None:
    """Refuse what is neither None nor can be called."""
    if value is not None and not callable(value):
        raise OptionError(where, option, expected, value)


class Delays:
    """What is to wait for a while. Where an event loop runs, it wakes the source when the first of it is due.

    Not safe between threads: its owner locks.

    Args:
        clock: Seconds. Default: the clock of the event loop on which `open` is called, else ``time.monotonic``.
    """

    def __init__(self, clock: Callable[[], float] | None) -> None:
        """Begin with nothing."""
        self._given = clock
        self.clock = clock or time.monotonic
        self.waiting: list[tuple[float, int, Any]] = []  # a heap
        self._number = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._alarm = 0.0

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self.waiting)

    def open(self) -> None:
        """Go by the clock of the loop that runs here, if one does."""
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:  # in a thread
            return
        if self._given is None:
            self._go_by(self._loop.time)

    def close(self) -> None:
        """Set no alarm any more; what waits goes on waiting."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop = None
        if self._given is None:
            self._go_by(time.monotonic)

    def add(self, due: float, what: Any) -> None:
        """Let something wait."""
        self._number += 1
        heapq.heappush(self.waiting, (due, self._number, what))

    def due(self) -> list[Any]:
        """Take out whatever is due, what was due first before the others."""
        heap = self.waiting
        found: list[Any] = []
        if heap:
            now = self.clock()
            while heap and heap[0][0] <= now:
                found.append(heapq.heappop(heap)[2])
        return found

    def clear(self) -> list[Any]:
        """Take out everything."""
        found = [what for _, _, what in sorted(self.waiting, key=lambda each: each[:2])]
        self.waiting.clear()
        return found

    def left(self) -> float | None:
        """Return the seconds until the first is due; None: nothing waits."""
        return max(0.0, self.waiting[0][0] - self.clock()) if self.waiting else None

    def arm(self, wake: Callable[[], None]) -> None:
        """Have the source woken when the first is due. To be called on the loop."""
        if self._loop is None or not self.waiting:
            return
        due = self.waiting[0][0]
        if self._timer is not None:
            if self._alarm <= due:
                return
            self._timer.cancel()
        self._alarm = due
        self._timer = self._loop.call_later(max(0.0, due - self.clock()), self._fire, wake)

    def _fire(self, wake: Callable[[], None]) -> None:
        self._timer = None
        wake()

    def _go_by(self, clock: Callable[[], float]) -> None:
        """Change the clock: what waits goes on for as long as it would have."""
        moved = clock() - self.clock()
        self.waiting = [(due + moved, number, what) for due, number, what in self.waiting]
        self.clock = clock
