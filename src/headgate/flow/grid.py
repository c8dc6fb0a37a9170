"""Where fixed and sliding windows lie: plain arithmetic on numbers."""

from __future__ import annotations

from typing import Any


class Grid:
    """Windows ``[offset + k * every, offset + k * every + size)`` for every whole ``k``.

    Args:
        size: How long each is.
        every: How far apart they begin, at most ``size``.
        offset: Where the one with ``k = 0`` begins.

    Attributes:
        overlap: How many windows each time is in; 0: not the same number for all times.
    """

    __slots__ = ("_exact", "every", "offset", "overlap", "size")

    def __init__(self, size: float, every: float, offset: float) -> None:
        """Look whether it is simple."""
        self.size, self.every, self.offset = size, every, offset
        self._exact = all(isinstance(number, int) for number in (size, every, offset))
        self.overlap = int(size // every) if self._exact and not size % every else 0

    def start(self, k: float) -> Any:
        """Return where a window begins."""
        return self.offset + k * self.every

    def end(self, k: float) -> Any:
        """Return the first moment after a window."""
        return self.offset + k * self.every + self.size

    def last(self, time: float) -> Any:
        """Return the last window that a time is in."""
        k = (time - self.offset) // self.every
        if not self._exact:  # products of fractions are rounded: what counts is where windows begin, as they say
            if time < self.start(k):
                return k - 1
            if time >= self.start(k + 1):
                return k + 1
        return k

    def first(self, time: float) -> Any:
        """Return the first window that a time is in."""
        if self.overlap:
            return self.last(time) - self.overlap + 1
        k = (time - self.offset - self.size) // self.every
        while self.end(k) <= time:
            k += 1
        return k

    def lasts(self, times: list[Any]) -> list[Any]:
        """Return the last window of each time."""
        if not self._exact:
            return [self.last(time) for time in times]
        every, offset = self.every, self.offset
        return [(time - offset) // every for time in times] if offset else [time // every for time in times]

    def firsts(self, times: list[Any], lasts: list[Any]) -> list[Any]:
        """Return the first window of each time, of which the last one is known."""
        if self.overlap == 1:
            return lasts
        if self.overlap:
            before = self.overlap - 1
            return [k - before for k in lasts]
        return [self.first(time) for time in times]

    def ends(self, ks: list[Any], after: float = 0) -> list[Any]:
        """Return the first moment after each window, and so much more."""
        every, base = self.every, self.offset + self.size + after
        return [k * every + base for k in ks] if self._exact else [self.end(k) + after for k in ks]
