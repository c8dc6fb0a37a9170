"""The mapper's side of a reduce: events are put together before they cross to the worker that they belong to. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import repeat
from typing import Any, NamedTuple

from headgate.errors import OptionError
from headgate.flow.event_time import EventTime
from headgate.flow.grid_windows import GridWindows
from headgate.flow.panes import Reduce, Reducing, rows
from headgate.flow.sessions import SessionWindows
from headgate.flow.times import BEGINNING, NEVER, Field, keys_of, reader
from headgate.flow.windows import CountSpec, EventTimeSpec, SessionSpec, Window, WindowSpec


class Segment(NamedTuple):
    """What a `Combiner` gives. Whoever splits it by key gives each part the same marks.

    Attributes:
        kind: What times are; "": unknown, or there are none.
        before: The watermark (a number) before all of it; None: none.
        partials: (window, key, accumulator); the window as a number, or as (start, end) of a session.
        after: The watermark after all of it; None: none.
    """

    kind: str
    before: float | None
    partials: list[tuple[Any, Hashable, Any]]
    after: float | None


def check_combinable(spec: WindowSpec, reduce: Reduce, where: str) -> None:
    """Check that events may be put together before they get to their window.

    Raises:
        OptionError: The windows or the trigger go by single events, or the reduce cannot combine.
    """
    if reduce.combine is None or reduce.emits:
        raise OptionError(where, "combine", "a function, and a step that emits nothing", reduce.combine)
    if isinstance(spec, CountSpec):
        raise OptionError(where, "window", "one that does not count events", spec)
    if spec.trigger is not None and spec.trigger.counts():
        raise OptionError(where, "trigger", "one that does not count events", spec.trigger)


class Combiner:
    """Accumulators of windows and keys, as far as one mapper's events go.

    Args:
        spec: The windows.
        reduce: What becomes of their events; it has ``combine``.
        key: As `Windowing`.
        bounded: As `Windowing`.
        where: What errors call it.

    Raises:
        OptionError: As `check_combinable`.
    """

    def __init__(
        self, spec: WindowSpec, reduce: Reduce, *, key: Field | None = None, bounded: bool = False, where: str = ""
    ) -> None:
        """Begin with nothing."""
        self.where = where = where or spec.where
        check_combinable(spec, reduce, where)
        self._spec = spec
        self._key = None if key is None else reader(key, where, "key")
        self._reducing = Reducing(reduce, None, rows, None, where)
        self._time = EventTime(spec, where, bounded=bounded) if isinstance(spec, EventTimeSpec) else None
        self._store: Any = None if self._time else GridWindows(None, self._reducing, _anything)
        self._before = BEGINNING
        self._sealed: list[Segment] = []

    def __len__(self) -> int:
        """Return how many accumulators it holds."""
        held = self._store.panes if self._store is not None else 0
        return held + sum(len(segment.partials) for segment in self._sealed)

    @property
    def watermark(self) -> Any:
        """The mapper's watermark, as a time; None before there is one."""
        return None if self._time is None else self._time.shown_watermark()

    def add(self, events: Sequence[Any], source: Hashable = None, now: float = 0.0) -> None:
        """Take a batch.

        Raises:
            ExtractionError: As `Windowing.add`; nothing was taken.
        """
        if not len(events):
            return
        keys = keys_of(self._key, events, self.where) if self._key is not None else None
        time = self._time
        if time is None:
            self._store.put(events, None, keys, now)
            return
        times = time.read(events)
        course = time.watermarks.look(source, events, times)
        if self._store is None:
            self._store = self._make_store(time)
        if self._lowest(time, [min(times)])[0] <= course.value:
            self._add_in_pieces(time, events, times, keys, course.around(), now)
        else:
            self._store.put(events, times, keys, now)
        time.watermarks.take(source, course.own, now)

    def flush(self) -> list[Segment]:
        """Take out all that has been put together, in the order in which it is to be merged."""
        self._seal(BEGINNING if self._time is None else self._time.watermarks.value)
        sealed, self._sealed = self._sealed, []
        return sealed

    def _seal(self, mark: float) -> None:
        partials = [] if self._store is None else self._store.flush()
        if not partials and mark == self._before:
            return
        kind = "" if self._time is None else self._time.timeline.kind
        before, after = (None if at == BEGINNING else at for at in (self._before, mark))
        self._sealed.append(Segment(kind, before, partials, after))
        self._before = mark

    def _add_in_pieces(
        self, time: EventTime, events: Any, times: list[Any], keys: Any, marks: list[tuple[float, float]], now: float
    ) -> None:
        """Keep events apart that come when the mark has passed their windows: they may be late where they get to.

        What is late is late as a whole window of a grid; but a session has to be judged event by event.
        """
        begin = 0
        gone = self._store.gone_at(times) if isinstance(self._spec, SessionSpec) else repeat(NEVER)
        cases = zip(self._lowest(time, times), gone, marks, strict=False)
        for index, (lowest, end, (before, mark)) in enumerate(cases):
            alone = end <= before
            if alone or (lowest <= before and before > self._before):
                self._put(events, times, keys, slice(begin, index), now)
                self._seal(before)
                begin = index
            if alone:
                self._put(events, times, keys, slice(index, index + 1), now)
                self._seal(mark)
                begin = index + 1
        self._put(events, times, keys, slice(begin, len(times)), now)

    def _put(self, events: Any, times: list[Any], keys: Any, part: slice, now: float) -> None:
        if part.start < part.stop:
            self._store.put(events[part], times[part], None if keys is None else keys[part], now)

    def _lowest(self, time: EventTime, times: list[Any]) -> list[Any]:
        """Return the first mark at which it matters that an event of each time comes no earlier."""
        soonest = self._store.soonest(times)
        if self._store.in_bulk:
            return soonest  # type: ignore[no-any-return]
        return [min(mark, at + time.lateness) for mark, at in zip(soonest, times, strict=True)]

    def _make_store(self, time: EventTime) -> Any:
        spec = self._spec
        phased = spec.trigger is not None and spec.trigger.needs_watermark() and time.lateness > 0
        if isinstance(spec, SessionSpec):
            store: Any = SessionWindows(time.timeline.length(spec.gap), self._reducing, time.show, time.lateness)
        else:
            sliced = spec.trigger is None
            store = GridWindows(time.grid(), self._reducing, time.show, time.lateness, sliced=sliced)
        store.phased = phased
        store.in_bulk = store.in_bulk and not phased
        return store


def _anything(*_: Any) -> Window:
    return Window("", None)
