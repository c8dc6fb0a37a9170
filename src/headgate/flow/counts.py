"""Windows of so many events, key by key. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

from headgate.flow.panes import Pane, Reducing
from headgate.flow.windows import Window


class _Count:
    """A window of one key."""

    __slots__ = ("number", "pane", "taken")

    def __init__(self, number: int) -> None:
        self.number = number
        self.taken = 0
        self.pane: Pane | None = None

    @property
    def window(self) -> Window:
        return Window("count", self.number)


class CountWindows:
    """The count windows of one worker: of each key the one that is open, and its number.

    Args:
        size: Events of a window.
        reducing: What folds and gives.
        fill: Whether a key whose last window is full gets an empty one at the end.

    Attributes:
        closed: How many windows have closed.
    """

    def __init__(self, size: int, reducing: Reducing, *, fill: bool) -> None:
        """Begin without windows."""
        self._size = size
        self._reducing = reducing
        self._fill = fill
        self._counts: dict[Hashable, _Count] = {}
        self.closed = 0

    def __len__(self) -> int:
        """Return how many windows are open."""
        return sum(count.pane is not None for count in self._counts.values())

    @property
    def number(self) -> int:
        """The number of the window that is open, or will be next, where there are no keys."""
        count = self._counts.get(None)
        return 0 if count is None else count.number

    @property
    def panes(self) -> int:
        """How many accumulators there are."""
        return len(self)

    def put(self, events: Sequence[Any], _: Any, keys: Sequence[Hashable] | None, now: float) -> None:
        """Take events, as `GridWindows.put`; their times do not matter."""
        if keys is None:
            self._put(None, list(events), now)
            return
        groups: defaultdict[Hashable, list[Any]] = defaultdict(list)
        for key, event in zip(keys, events, strict=True):
            groups[key].append(event)
        for key, group in groups.items():
            self._put(key, group, now)

    def _put(self, key: Hashable, events: list[Any], now: float) -> None:
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = _Count(0)
        start = 0
        while start < len(events):
            if count.pane is None:
                count.pane = self._reducing.pane(key, count, now)
            piece = events[start : start + self._size - count.taken]
            self._reducing.feed(count.pane, piece, now)
            start += len(piece)
            count.taken += len(piece)
            if count.taken == self._size:
                self._close(count)

    def _close(self, count: _Count) -> None:
        assert count.pane is not None  # noqa: S101 (it is, or nobody would have come here)
        self._reducing.close(count.pane)
        self.closed += 1
        count.pane, count.taken = None, 0
        count.number += 1

    def finish(self, now: float) -> None:
        """Close all windows."""
        if self._fill and not self._counts:
            self._counts[None] = _Count(0)
        for key, count in self._counts.items():
            if count.pane is None and self._fill:
                count.pane = self._reducing.pane(key, count, now)
            if count.pane is not None:
                self._close(count)
        self._counts.clear()

    def fire(self, name: Any, accumulator: str) -> None:
        """Give what all windows have, for a reason of the user's."""
        for count in self._counts.values():
            if count.pane is not None:
                self._reducing.give(count.pane, (name, accumulator))
