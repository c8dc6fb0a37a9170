"""Event time in one worker: what times are, how far they have come, and how late they may be. Pure."""

from __future__ import annotations

from typing import Any

from headgate.flow.grid import Grid
from headgate.flow.times import BEGINNING, Timeline, reader
from headgate.flow.watermarks import AtEnd, OutOfOrder, Watermarks
from headgate.flow.windows import EventTimeSpec, FixedSpec, SlidingSpec, Window


class EventTime:
    """What engines of windows of event time have in common.

    Args:
        spec: The windows.
        where: What errors call it.
        bounded: The input is known to end.

    Attributes:
        timeline: What times are.
        watermarks: How far they have come.
        lateness: The allowed lateness, as a number; known when the first time is.
    """

    def __init__(self, spec: EventTimeSpec, where: str, *, bounded: bool) -> None:
        """Begin without events."""
        self.spec = spec
        self.timeline = Timeline(where)
        strategy = spec.watermark or (AtEnd() if bounded else OutOfOrder())
        self.watermarks = Watermarks(strategy, self.timeline, spec.idle_after)
        self._by = reader(spec.by, where, "by")
        self.lateness: Any = 0

    def read(self, events: Any, by: Any = None, option: str = "by") -> list[Any]:
        """Return the times of events as numbers.

        Raises:
            ExtractionError: The function failed for an event.
        """
        known = self.timeline.kind
        times = self.timeline.read(by or self._by, events, option)
        if not known:
            self.settle()
        return times

    def settle(self) -> None:
        """Say what follows from what times are, which is known by now."""
        self.lateness = self.timeline.length(self.spec.allowed_lateness)

    def grid(self) -> Grid:
        """Return where fixed or sliding windows lie."""
        spec, length = self.spec, self.timeline.length
        assert isinstance(spec, (FixedSpec, SlidingSpec))  # noqa: S101 (it is, or nobody would have come here)
        size = length(spec.size)
        return Grid(size, length(spec.every) if isinstance(spec, SlidingSpec) else size, length(spec.offset))

    def show(self, _: Any, start: Any, end: Any) -> Window:
        """Return how a window is shown."""
        first = self.timeline.time(start)
        return Window(self.spec.kind, first, first, self.timeline.time(end))

    def shown_watermark(self) -> Any:
        """Return the watermark as a time; None: there is none yet."""
        return self.show_mark(self.watermarks.value)

    def show_mark(self, mark: float) -> Any:
        """Return a mark as a time; None: the beginning."""
        return None if mark == BEGINNING else self.timeline.time(mark)
