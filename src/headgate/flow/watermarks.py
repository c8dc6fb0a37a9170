"""Watermarks: how far event time has come, source by source. Pure: processing time comes in as ``now``.

A watermark of a source says that no more events from before it are expected of that source. The watermark of a worker
is the lowest of those of its sources. Not counted are sources that have ended and those that are idle; if all that are
left are idle, the highest of theirs counts, as nobody is left to wait for. It never goes back. A source that has sent
nothing yet holds it at the beginning until it sends, ends, or is idle.

The method is that of MillWheel (Akidau et al., VLDB 2013) and of the Dataflow model (VLDB 2015); idle sources are as in
Flink's status watermark valve.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

from headgate.errors import OptionError
from headgate.flow.times import BEGINNING, NEVER, Duration, ExtractionError, Timeline, extract, in_seconds, seconds


@dataclass(frozen=True)
class Strategy:
    """How the watermark of a source follows from its events."""


@dataclass(frozen=True)
class AtEnd(Strategy):
    """Nothing is late, and every window stays open until the input ends: for input that does end, in any order."""


@dataclass(frozen=True)
class OutOfOrder(Strategy):
    """The highest event time that the source has sent, less ``bound``.

    Attributes:
        bound: How far behind the newest event another one may come, in seconds or as a timedelta.
    """

    bound: Duration = 0

    def __post_init__(self) -> None:
        """Check the bound."""
        seconds(self.bound, "watermarks.out_of_order", "bound", zero=True)


@dataclass(frozen=True)
class Told(Strategy):
    """A function of yours says it.

    Attributes:
        function: Event -> the watermark after it (a time of the same kind as event times), or None: it is as before.
            It is asked once for each event. One that goes back is taken for none.
    """

    function: Callable[[Any], Any]

    def __post_init__(self) -> None:
        """Check the function."""
        if not callable(self.function):
            raise OptionError("watermarks.told", "function", "a function of an event", self.function)


def at_end() -> AtEnd:
    """Keep every window open until the input ends. See `AtEnd`."""
    return AtEnd()


def out_of_order(bound: Duration = 0) -> OutOfOrder:
    """Expect events at most ``bound`` behind the newest one of their source. See `OutOfOrder`."""
    return OutOfOrder(bound)


def told(function: Callable[[Any], Any]) -> Told:
    """Ask a function for the watermark after each event. See `Told`."""
    return Told(function)


class _Source:
    """One source. ``heard``: when it last sent something; ``idle``: it holds nothing back."""

    __slots__ = ("heard", "idle", "watermark")

    def __init__(self, now: float) -> None:
        self.watermark: float = BEGINNING
        self.heard = now
        self.idle = False


class Course:
    """Where a batch of one source would bring the watermark. Nothing has been taken yet.

    Attributes:
        own: The watermark of the source after the batch.
        value: That of the worker.
        before: That of the worker before the batch.
        trailing: No event brings the watermark beyond its own time.
    """

    __slots__ = ("_bound", "_marks", "_others", "before", "own", "trailing", "value")

    def __init__(
        self, before: float, others: float, own: float, marks: list[Any], bound: float, *, trailing: bool = True
    ) -> None:
        """Take the watermark before, that of the other sources, and what the source's follows from."""
        self._others = others
        self._marks = marks
        self._bound = bound
        self.before = before
        self.own = own
        self.value = max(before, min(others, own))
        self.trailing = trailing

    def each(self) -> list[float]:
        """Return the watermark of the worker after each event of the batch."""
        value, others, bound = self.before, self._others, self._bound
        if self.value == value:
            return [value] * len(self._marks)
        newest = accumulate(self._marks, max)
        marks = [mark - bound for mark in newest] if bound else newest
        # What the source had before does not matter: the worker's watermark is not below the lowest of all sources.
        return [value if mark < value else min(mark, others) for mark in marks]

    def around(self) -> list[tuple[float, float]]:
        """Return the watermark of the worker before and after each event of the batch."""
        after = self.each()
        return list(zip(chain((self.before,), after), after, strict=False))


class Watermarks:
    """The watermark of one worker. Times are numbers, those of its `Timeline`.

    Args:
        strategy: How the watermark of a source follows from its events.
        timeline: What times are.
        idle_after: Seconds of processing time after which a source that sends nothing is idle; None: never.

    Attributes:
        value: The watermark; ``-inf`` before there is one. It never goes back.
    """

    __slots__ = ("_idle_after", "_sources", "_strategy", "_timeline", "value")

    def __init__(self, strategy: Strategy, timeline: Timeline, idle_after: Duration | None = None) -> None:
        """Begin without sources."""
        self._strategy = strategy
        self._timeline = timeline
        self._idle_after = NEVER if idle_after is None else in_seconds(idle_after)
        self._sources: dict[Hashable, _Source] = {}
        self.value: float = BEGINNING

    @property
    def sources(self) -> dict[Hashable, float]:
        """The watermark of each source that has not ended."""
        return {name: source.watermark for name, source in self._sources.items()}

    @property
    def idle_sources(self) -> list[Hashable]:
        """The sources that hold nothing back, as they send nothing."""
        return [name for name, source in self._sources.items() if source.idle]

    def open(self, source: Hashable, now: float) -> None:
        """Expect a source: until it sends, ends or is idle, the watermark stays where it is."""
        if source not in self._sources:
            self._sources[source] = _Source(now)

    def look(self, source: Hashable, events: Any, times: list[Any]) -> Course:
        """Say where a batch (not empty) would bring the watermark.

        Raises:
            ExtractionError: The function of `Told` raised, or gave what is no time.
        """
        known = self._sources.get(source)
        before = known.watermark if known is not None else BEGINNING
        strategy, marks, bound = self._strategy, times, 0.0
        if isinstance(strategy, OutOfOrder):
            bound = self._timeline.length(strategy.bound)
        elif isinstance(strategy, Told):
            marks = self._told(strategy.function, events, before)
        else:
            return Course(self.value, BEGINNING, before, times, 0)
        own = max(before, max(marks) - bound)
        trailing = marks is times
        return Course(self.value, self._without(source), own, marks, bound, trailing=trailing)

    def take(self, source: Hashable, mark: float, now: float) -> None:
        """Take note that a source has sent something, after which its watermark is ``mark`` (or what it was)."""
        known = self._sources.get(source)
        if known is None:
            known = self._sources[source] = _Source(now)
        known.heard = now
        known.idle = False
        known.watermark = max(known.watermark, mark)
        self._update()

    def idle(self, source: Hashable, now: float) -> None:
        """Take note that a source says it has nothing to send; what it sends next ends that."""
        self.open(source, now)
        self._sources[source].idle = True
        self._update()

    def end(self, source: Hashable) -> None:
        """Take note that a source has ended: it does not count any more."""
        if self._sources.pop(source, None) is not None:
            self._update()

    def tick(self, now: float) -> None:
        """Take note of the time."""
        changed = False
        for source in self._sources.values():
            if not source.idle and source.heard + self._idle_after <= now:
                source.idle = changed = True
        if changed:
            self._update()

    def deadline(self) -> float:
        """Return when `tick` has something to do; ``inf``: never."""
        if self._idle_after == NEVER:
            return NEVER
        return min((s.heard + self._idle_after for s in self._sources.values() if not s.idle), default=NEVER)

    def _without(self, source: Hashable) -> float:
        """Return the lowest watermark of the other sources that count; ``inf``: there are none."""
        return min((s.watermark for name, s in self._sources.items() if name != source and not s.idle), default=NEVER)

    def _update(self) -> None:
        counting = [source.watermark for source in self._sources.values() if not source.idle]
        if counting:
            self.value = max(self.value, min(counting))
        elif self._sources:
            self.value = max(self.value, *(source.watermark for source in self._sources.values()))

    def _told(self, function: Callable[[Any], Any], events: Any, before: float) -> list[Any]:
        marks: list[Any] = []
        expected = "None, or a time of the same kind as event times"
        for said, (index, event) in zip(
            extract(function, events, self._timeline.where, "watermark", expected), enumerate(events), strict=True
        ):
            if said is None:
                marks.append(before)
                continue
            try:
                before = max(before, self._timeline.number(said))
            except TypeError:
                raise ExtractionError(self._timeline.where, "watermark", expected, event, index, said) from None
            marks.append(before)
        return marks
