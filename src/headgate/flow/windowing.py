"""The engine of windows: events in, results out; one for each worker. Pure: processing time comes in as ``now``.

What is late follows from the watermark after each single event, so it makes no difference how events are batched. A
batch is taken as a whole where that is the same as taking it event by event, which nearly always it is, and cut where
the watermark passes something that matters.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

from headgate.errors import OptionError
from headgate.flow._trigger_states import KEEP, RESET
from headgate.flow.combining import Segment, check_combinable
from headgate.flow.counts import CountWindows
from headgate.flow.event_time import EventTime
from headgate.flow.grid import Grid
from headgate.flow.grid_windows import GridWindows
from headgate.flow.panes import Emit, OnTrigger, Reduce, Reducing, rows
from headgate.flow.sessions import SessionWindows
from headgate.flow.times import BEGINNING, NEVER, Field, in_seconds, keys_of, reader
from headgate.flow.windows import (
    CountSpec,
    EventTimeSpec,
    FixedSpec,
    GlobalSpec,
    PeriodicSpec,
    SessionSpec,
    SlidingSpec,
    Window,
    WindowSpec,
)


@dataclass(frozen=True)
class WindowStatistics:
    """What a `Windowing` has done and holds.

    Attributes:
        events: Events that came, late ones included.
        late: Those of them that came when their window had closed.
        clipped: Those that came too late for some, but not for all of their (sliding) windows; not among ``late``.
        late_partials: Partials of a `Combiner` that came when their window had closed.
        open_windows: Windows that are open: of sessions and counts, those of each key.
        accumulators: One for each open window and key.
        closed_windows: Windows that have closed.
        firings: How many times a key of a window had something to give.
        watermark: A time, or None before there is one.
        source_watermarks: The watermark of each source that has not ended, or None.
        idle_sources: Those of them that hold nothing back.
    """

    events: int
    late: int
    clipped: int
    late_partials: int
    open_windows: int
    accumulators: int
    closed_windows: int
    firings: int
    watermark: Any
    source_watermarks: dict[Hashable, Any]
    idle_sources: list[Hashable]


class Windowing:
    """Windows and the reduce in them, for one worker.

    All methods that return a list return what is to be sent on, in order.

    Args:
        spec: The windows.
        reduce: What becomes of their events.
        key: Event -> what it is grouped by within a window (hashable), or the name of a field, or an index; None: not.
        bounded: The input is known to end: without a ``watermark`` of its own the description gets `watermarks.at_end`.
        emit: (window, firing, {key: accumulator}) -> what to send on. Without keys, the only key is None. Default:
            (window, key, accumulator) for each. Left out where it would say what was said before.
        on_trigger: (key, accumulator, window, firing) -> (what to send on, the accumulator to go on with), instead of
            ``emit``, for each key and firing. What it returns last, when the window closes, is dropped.
        keep_late: Keep late events until they are taken by `take_late`.
        where: What errors call it.
        now: The time from which periodic windows are numbered; None: that of the first call that tells one.

    Raises:
        OptionError: Options do not go together.
    """

    def __init__(  # noqa: PLR0913 (each is a choice of its own)
        self,
        spec: WindowSpec,
        reduce: Reduce,
        *,
        key: Field | None = None,
        bounded: bool = False,
        emit: Emit = rows,
        on_trigger: OnTrigger | None = None,
        keep_late: bool = False,
        where: str = "",
        now: float | None = None,
    ) -> None:
        """Check that all of it goes together."""
        self.where = where = where or spec.where
        self._spec = spec
        self._key = None if key is None else reader(key, where, "key")
        fill: int = getattr(spec, "fill", 0)
        if key is not None and fill:
            raise OptionError(where, "fill", "0 where there are keys, as nobody knows all keys", fill)
        if isinstance(spec, SessionSpec) and reduce.combine is None:
            raise OptionError(where, "combine", "a function, as sessions may become one", None)
        self._reducing = Reducing(reduce, spec.trigger, emit, on_trigger, where)
        self._keep_late = keep_late
        self._late: list[Any] = []
        self._events = self._late_count = self._clipped = self._late_partials = 0
        self._time = EventTime(spec, where, bounded=bounded) if isinstance(spec, EventTimeSpec) else None
        self._period: Grid | None = None  # where periodic windows lie
        self._store: Any = None  # where windows lie by time: made when it is known what times are, or what time it is
        if isinstance(spec, CountSpec):
            self._store = CountWindows(spec.count, self._reducing, fill=spec.fill)
        elif isinstance(spec, GlobalSpec):
            self._store = GridWindows(None, self._reducing, _globally)
        elif now is not None:
            self._begin(now)

    # --- sources ----------------------------------------------------------------------------------------------------

    def open(self, source: Hashable, now: float) -> None:
        """Expect a source: until it sends, ends, or is idle, the watermark waits for it."""
        self._begin(now)
        if self._time is not None:
            self._time.watermarks.open(source, now)

    def end(self, source: Hashable, now: float) -> list[Any]:
        """Take note that a source has ended: the watermark does not wait for it any more."""
        if self._time is not None:
            self._time.watermarks.end(source)
        return self._follow(now)

    def idle(self, source: Hashable, now: float) -> list[Any]:
        """Take note that a source has nothing to send for now: the watermark does not wait for it until it sends."""
        if self._time is not None:
            self._time.watermarks.idle(source, now)
        return self._follow(now)

    def advance(self, source: Hashable, watermark: Any, now: float) -> list[Any]:
        """Take a source's word for how far it has come; no word (None) is none.

        Args:
            source: The source.
            watermark: A time of the kind that ``by`` gives.
            now: The time.

        Raises:
            TypeError: It is no time, or of another kind than those of the events.
        """
        if self._time is not None and watermark is not None:
            self._time.watermarks.take(source, self._time.timeline.number(watermark), now)
        return self._follow(now)

    # --- events -----------------------------------------------------------------------------------------------------

    def add(self, events: Sequence[Any], source: Hashable = None, now: float = 0.0) -> list[Any]:
        """Take a batch of one source.

        Raises:
            ExtractionError: ``by``, ``key`` or the watermark's function failed for an event; nothing was taken.
        """
        if not len(events):
            return self.tick(now)
        keys = keys_of(self._key, events, self.where) if self._key is not None else None
        if self._time is not None:
            self._add_timed(self._time, events, keys, source, now)
        elif isinstance(self._spec, PeriodicSpec):
            self._begin(now)
            self._store.advance(now, now)
            self._store.put(events, [now] * len(events), keys, now)
        else:
            self._store.put(events, None, keys, now)
        self._events += len(events)
        return self._take()

    def _add_timed(self, time: EventTime, events: Any, keys: Any, source: Hashable, now: float) -> None:
        times = time.read(events)
        course = time.watermarks.look(source, events, times)
        store = self._make_store(time) if self._store is None else self._store
        mark, lowest = course.value, min(times)
        gone = store.gone_at([lowest])[0]
        # In order, no event of the batch is behind another one of it, but only behind what came before.
        ordered = course.trailing and (gone <= mark or not store.in_bulk) and times == sorted(times)
        oldest = course.before if ordered else mark
        marks: list[tuple[float, float]] | None = None
        if gone <= oldest:  # some may be late: look at each
            marks = course.around()
            good = [end > before for end, (before, _) in zip(store.gone_at(times), marks, strict=True)]
            if not all(good):
                self._leave_out(events, good)
                events, times = list(compress(events, good)), list(compress(times, good))
                keys = None if keys is None else list(compress(keys, good))
                marks = list(compress(marks, good))
        quiet = mark < store.next_mark() and mark < store.soonest([lowest])[0]
        in_order = not store.phased and (store.in_bulk or lowest >= oldest - time.lateness)
        if quiet or in_order:
            if times:
                store.put(events, times, keys, now)
        else:
            self._put_in_pieces(store, events, times, keys, course.around() if marks is None else marks, now)
        time.watermarks.take(source, course.own, now)
        store.advance(time.watermarks.value, now)

    def _put_in_pieces(
        self, store: Any, events: Any, times: list[Any], keys: Any, marks: list[tuple[float, float]], now: float
    ) -> None:
        """Put events so that each comes when the mark is where it was when it came."""
        assert self._time is not None  # noqa: S101 (it is, or nobody would have come here)
        begin, next_mark = 0, store.next_mark()
        lateness = self._time.lateness if store.phased else 0

        def put(end: int) -> None:
            if begin < end:
                store.put(events[begin:end], times[begin:end], None if keys is None else keys[begin:end], now)

        for index, (soonest, (before, mark)) in enumerate(zip(store.soonest(times), marks, strict=True)):
            if soonest <= before or next_mark <= before:  # it came when the mark had passed (one of) its windows
                put(index)
                store.advance(before, now)
                begin, next_mark = index, store.next_mark()
                self._clipped += soonest + lateness <= before
            next_mark = min(next_mark, soonest)
            if mark >= next_mark:
                put(index + 1)
                store.advance(mark, now)
                begin, next_mark = index + 1, store.next_mark()
        put(len(times))

    def _leave_out(self, events: Any, good: list[bool]) -> None:
        late = [event for event, in_time in zip(events, good, strict=True) if not in_time]
        self._late_count += len(late)
        if self._keep_late:
            self._late += late

    def merge(self, segment: Segment, source: Hashable, now: float) -> list[Any]:
        """Take what a `Combiner` of the same windows and reduce has put together, from one source.

        Raises:
            OptionError: The windows or the trigger go by single events, or there is no ``combine``.
        """
        check_combinable(self._spec, self._reducing.reduce, self.where)
        time = self._time
        if time is None:
            number: float = 0
            period = self._begin(now)
            if period is not None:
                self._store.advance(now, now)
                number = period.last(now)
            for _, key, accumulator in segment.partials:
                self._store.merge(number, key, accumulator, now)
            return self._take()
        if segment.kind:
            time.timeline.agree(segment.kind)
            time.settle()
        if segment.before is not None:
            time.watermarks.take(source, segment.before, now)
        store = self._make_store(time) if self._store is None and segment.kind else self._store
        if store is not None:
            store.advance(time.watermarks.value, now)
            for number, key, accumulator in segment.partials:
                if store.gone(number) <= time.watermarks.value:
                    self._late_partials += 1
                else:
                    store.merge(number, key, accumulator, now)
        if segment.after is not None:
            time.watermarks.take(source, segment.after, now)
        return self._follow(now)

    @property
    def late_count(self) -> int:
        """How many events have come when their window had closed."""
        return self._late_count

    def take_late(self) -> list[Any]:
        """Return the late events that have come since this was last asked for; empty unless ``keep_late``."""
        late, self._late = self._late, []
        return late

    # --- time -------------------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        """Return when `tick` has something to do; ``inf``: it never has, as things are."""
        deadline = self._reducing.deadline()
        if self._time is not None:
            return min(deadline, self._time.watermarks.deadline())
        if self._period is not None:
            return min(deadline, float(self._store.next_mark()))
        return deadline

    def tick(self, now: float) -> list[Any]:
        """Take note of the time."""
        self._reducing.tick(now)
        if self._time is not None:
            self._time.watermarks.tick(now)
        return self._follow(now)

    def fire(self, name: Any, now: float, accumulator: str = KEEP) -> list[Any]:
        """Have all open windows give what they have, for a reason of yours.

        Args:
            name: What the firing is called.
            now: The time.
            accumulator: ``"keep"`` or ``"reset"``.

        Raises:
            OptionError: ``accumulator`` is neither.
        """
        if accumulator not in (KEEP, RESET):
            raise OptionError(self.where, "accumulator", f"{KEEP!r} or {RESET!r}", accumulator)
        self._follow_store(now)
        if self._store is not None:
            self._store.fire(name, accumulator)
        return self._take()

    def done(self, now: float) -> list[Any]:
        """Close all windows, as nothing more will come. The global window without keys gives something in any case."""
        self._follow_store(now)
        if isinstance(self._spec, GlobalSpec) and self._key is None:
            self._store.exist(now)
        if self._store is not None:
            self._store.finish(now)
        return self._take()

    def _follow(self, now: float) -> list[Any]:
        self._follow_store(now)
        return self._take()

    def _follow_store(self, now: float) -> None:
        """Let windows follow the watermark, or the time."""
        if self._time is not None:
            if self._store is not None:
                self._store.advance(self._time.watermarks.value, now)
        elif self._begin(now) is not None:
            self._store.advance(now, now)

    def _begin(self, now: float) -> Grid | None:
        """Return where periodic windows lie, from now on if they have not begun; None: there are none."""
        if self._period is None and isinstance(self._spec, PeriodicSpec):
            period = in_seconds(self._spec.every)
            self._period = Grid(period, period, now)
            self._store = GridWindows(self._period, self._reducing, _by_number, fill=self._spec.fill)
        return self._period

    def _take(self) -> list[Any]:
        out, self._reducing.out = self._reducing.out, []
        return out

    def _make_store(self, time: EventTime) -> Any:
        spec, length = self._spec, time.timeline.length
        if isinstance(spec, SessionSpec):
            self._store = SessionWindows(length(spec.gap), self._reducing, time.show, time.lateness)
        else:
            assert isinstance(spec, (FixedSpec, SlidingSpec))  # noqa: S101 (it is, or nobody would have come here)
            self._store = GridWindows(time.grid(), self._reducing, time.show, time.lateness, spec.fill)
        self._store.advance(time.watermarks.value, 0.0)
        return self._store

    # --- looking ----------------------------------------------------------------------------------------------------

    @property
    def watermark(self) -> Any:
        """The watermark, as a time; None before there is one, and where there are no event times."""
        return None if self._time is None else self._time.shown_watermark()

    def reached(self, now: float) -> Any:
        """Return up to where windows have closed, and none will open again; None: nowhere, or nobody can say.

        Event times: all windows that end by this time. ``periodic``, and ``count`` without keys: all numbers below
        this one.
        """
        if self._time is not None:
            mark = self._time.watermarks.value
            return None if mark in (BEGINNING, NEVER) else self._time.show_mark(mark - self._time.lateness)
        if self._period is not None:
            return int(self._period.last(now))
        if isinstance(self._store, CountWindows) and self._key is None:
            return self._store.number
        return None

    def statistics(self) -> WindowStatistics:
        """Return what has been done, and what is held."""
        store, time = self._store, self._time
        marks = {} if time is None else time.watermarks.sources
        return WindowStatistics(
            events=self._events,
            late=self._late_count,
            clipped=self._clipped,
            late_partials=self._late_partials,
            open_windows=0 if store is None else len(store),
            accumulators=0 if store is None else store.panes,
            closed_windows=0 if store is None else store.closed,
            firings=self._reducing.firings,
            watermark=self.watermark,
            source_watermarks={} if time is None else {name: time.show_mark(mark) for name, mark in marks.items()},
            idle_sources=[] if time is None else time.watermarks.idle_sources,
        )


def _globally(*_: Any) -> Window:
    return Window("global", "global")


def _by_number(number: Any, *_: Any) -> Window:
    return Window("periodic", int(number))
