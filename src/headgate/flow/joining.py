"""Joins: pairs of the elements of two sides that have the same key. Pure: processing time comes in as ``now``.

Both sides are kept, by key, and each element is paired at once with all that are there of the other side. What has no
partner is known, and given by outer joins, when the window closes, or when the other side has ended. Then nothing
has to be kept of a side any more: it only looks for partners (a symmetric hash join that becomes a one-sided one;
Wilschut and Apers, "Dataflow query execution in a parallel main-memory environment", PDIS 1991).

None as a key has no partner, not even None, as in SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import starmap
from typing import Any, Final

from headgate.errors import OptionError
from headgate.flow.event_time import EventTime
from headgate.flow.grid import Grid
from headgate.flow.times import BEGINNING, NEVER, Field, in_seconds, keys_of, reader
from headgate.flow.windows import EventTimeSpec, FixedSpec, GlobalSpec, PeriodicSpec, SlidingSpec, WindowSpec

LEFT: Final = "left"
RIGHT: Final = "right"
MODES: Final = ("inner", "left", "right", "full")
_OTHER: Final = {LEFT: RIGHT, RIGHT: LEFT}


@dataclass(frozen=True)
class JoinStatistics:
    """What a `Join` has done and holds.

    Attributes:
        left: Elements of the left side that came, late ones included.
        right: Those of the right side.
        late: Those of both that came when their window had closed.
        pairs: Pairs that were given.
        unmatched: Elements without a partner that were given.
        kept: Elements that are kept, in all open windows; an element in several windows counts in each.
        open_windows: Windows that are open.
        watermark: A time, or None before there is one.
    """

    left: int
    right: int
    late: int
    pairs: int
    unmatched: int
    kept: int
    open_windows: int
    watermark: Any


class _Side:
    """The elements of one side of one window.

    Attributes:
        kept: Key -> elements.
        matched: Keys that have had partners which are not kept any more.
    """

    __slots__ = ("kept", "matched")

    def __init__(self) -> None:
        self.kept: dict[Hashable, list[Any]] = {}
        self.matched: set[Hashable] = set()


class _Window:
    """The sides of one window."""

    __slots__ = ("left", "right")

    def __init__(self) -> None:
        self.left, self.right = _Side(), _Side()

    def sides(self, side: str) -> tuple[_Side, _Side]:
        """Return this side, and the other one."""
        return (self.left, self.right) if side == LEFT else (self.right, self.left)


class Join:
    """A join of two sides in one worker. Methods that return a list return what is to be sent on.

    Memory: all elements of both sides of all windows that are open; without a window, of both sides until one has
    ended, then of that side alone.

    Args:
        mode: ``"inner"``: pairs; ``"left"``, ``"right"``, ``"full"``: also what has no partner on the left, on the
            right, on either side.
        left_key: Element -> key, or the name of a field, or an index.
        right_key: The same, for the right side; None: as ``left_key``.
        join: (left, right) -> what to send on; what is not there is None. None: the pair itself.
        window: A fixed, sliding, periodic or global one, without a trigger; None: global.
        left_by: Element of the left -> its time; None: the window's ``by``.
        right_by: The same, for the right side.
        bounded: As `Windowing`.
        keep_late: Keep late elements until they are taken by `take_late`, as (side, element).
        where: What errors call it.
        now: The time from which periodic windows are numbered; None: that of the first call that tells one.

    Raises:
        OptionError: An option is wrong.
    """

    def __init__(  # noqa: PLR0913 (each is a choice of its own)
        self,
        mode: str,
        left_key: Field,
        right_key: Field | None = None,
        join: Callable[[Any, Any], Any] | None = None,
        *,
        window: WindowSpec | None = None,
        left_by: Field | None = None,
        right_by: Field | None = None,
        bounded: bool = False,
        keep_late: bool = False,
        where: str = "join",
        now: float | None = None,
    ) -> None:
        """Check all of it."""
        if mode not in MODES:
            raise OptionError(where, "mode", f"one of {', '.join(MODES)}", mode)
        if join is not None and not callable(join):
            raise OptionError(where, "join", "a function of two elements, or None", join)
        spec = window if window is not None else GlobalSpec()
        if not isinstance(spec, (GlobalSpec, FixedSpec, SlidingSpec, PeriodicSpec)) or spec.trigger is not None:
            raise OptionError(where, "window", "a fixed, sliding, periodic or global one, without a trigger", window)
        self.where = where
        self._join = join
        self._windowed = not isinstance(spec, GlobalSpec)
        self._outer = {LEFT: mode in ("left", "full"), RIGHT: mode in ("right", "full")}
        self._keys = {LEFT: reader(left_key, where, "left_key")}
        self._keys[RIGHT] = self._keys[LEFT] if right_key is None else reader(right_key, where, "right_key")
        self._by = {
            LEFT: None if left_by is None else reader(left_by, where, "left_by"),
            RIGHT: None if right_by is None else reader(right_by, where, "right_by"),
        }
        self._time = EventTime(spec, where, bounded=bounded) if isinstance(spec, EventTimeSpec) else None
        self._period = in_seconds(spec.every) if isinstance(spec, PeriodicSpec) else None
        self._grid: Grid | None = None  # made when it is known what times are, or what time it is
        if now is not None:
            self._begin(now)
        self._windows: dict[Any, _Window] = {}
        self._closing: list[Any] = []  # a heap of their numbers
        self._ended: set[str] = set()
        self._keep_late = keep_late
        self._late: list[tuple[str, Any]] = []
        self._out: list[Any] = []
        self._came = {LEFT: 0, RIGHT: 0}
        self._late_count = self._pairs = self._unmatched = self._kept = 0

    # --- sources ----------------------------------------------------------------------------------------------------

    def open(self, side: str, source: Hashable, now: float) -> None:
        """Expect a source of a side, as `Windowing.open`."""
        self._begin(now)
        if self._time is not None:
            self._time.watermarks.open((side, source), now)

    def end(self, side: str, source: Hashable, now: float) -> list[Any]:
        """Take note that a source has ended: the watermark does not wait for it any more."""
        if self._time is not None:
            self._time.watermarks.end((side, source))
        return self._follow(now)

    def idle(self, side: str, source: Hashable, now: float) -> list[Any]:
        """Take note that a source has nothing to send for now, as `Windowing.idle`."""
        if self._time is not None:
            self._time.watermarks.idle((side, source), now)
        return self._follow(now)

    def advance(self, side: str, source: Hashable, watermark: Any, now: float) -> list[Any]:
        """Take a source's word for how far it has come, as `Windowing.advance`."""
        if self._time is not None and watermark is not None:
            self._time.watermarks.take((side, source), self._time.timeline.number(watermark), now)
        return self._follow(now)

    def end_side(self, side: str, now: float) -> list[Any]:
        """Take note that nothing more will come of a side.

        Without a window, what the other side has kept is not needed any more, nor what it will bring.
        """
        self._ended.add(side)
        window = self._windows.get(0)
        if not self._windowed and window is not None:
            ended, other = window.sides(side)
            ended.matched.update(key for key in other.kept if key in ended.kept)
            if self._outer[_OTHER[side]]:
                self._give_unmatched(_OTHER[side], other, ended)
            self._kept -= sum(map(len, other.kept.values()))
            other.kept = {}
        return self._follow(now)

    # --- elements ---------------------------------------------------------------------------------------------------

    def add(self, side: str, events: Sequence[Any], source: Hashable = None, now: float = 0.0) -> list[Any]:
        """Take a batch of one source of a side, ``"left"`` or ``"right"``.

        Raises:
            ExtractionError: The key, the time or the watermark's function failed for an element; nothing was taken.
        """
        if not len(events):
            return self.tick(now)
        keys = keys_of(self._keys[side], events, self.where, f"{side}_key")
        if self._time is not None:
            self._add_timed(self._time, side, events, keys, source, now)
        else:
            grid = self._begin(now)
            self._close_up_to(now)
            k = 0 if grid is None else grid.last(now)
            self._put(side, self._open(k), list(zip(events, keys, strict=True)))
        self._came[side] += len(events)
        return self._follow(now)

    def _add_timed(self, time: EventTime, side: str, events: Any, keys: Any, source: Hashable, now: float) -> None:
        times = time.read(events, self._by[side], "by" if self._by[side] is None else f"{side}_by")
        course = time.watermarks.look((side, source), events, times)
        grid = self._grid
        if grid is None:
            grid = self._grid = time.grid()
        lasts = grid.lasts(times)
        late = time.lateness
        if grid.end(grid.first(min(times))) + late <= course.value:  # some may come when windows have closed
            spans = [
                (max(grid.first(at), self._lowest(grid, mark - late)), last)
                for at, last, (mark, _) in zip(times, lasts, course.around(), strict=True)
            ]
            self._leave_out(side, [event for event, (k, last) in zip(events, spans, strict=True) if k > last])
        elif grid.overlap == 1:
            spans = []
        else:
            spans = [(grid.first(at), last) for at, last in zip(times, lasts, strict=True)]
        groups: dict[Any, list[Any]] = {}
        if spans:
            for (first, last), pair in zip(spans, zip(events, keys, strict=True), strict=True):
                k = first
                while k <= last:
                    groups.setdefault(k, []).append(pair)
                    k += 1
        else:
            for k, pair in zip(lasts, zip(events, keys, strict=True), strict=True):
                groups.setdefault(k, []).append(pair)
        for k, group in groups.items():
            self._put(side, self._open(k), group)
        time.watermarks.take((side, source), course.own, now)

    def _put(self, side: str, window: _Window, elements: list[tuple[Any, Hashable]]) -> None:
        """Pair elements with what is there, and keep them if there is more to come."""
        mine, other = window.sides(side)
        join, out, find = self._join, self._out, other.kept.get  # nothing is kept under None
        if side == LEFT:
            pairs = [(element, it) for element, key in elements for it in find(key, ())]
        else:
            pairs = [(it, element) for element, key in elements for it in find(key, ())]
        self._pairs += len(pairs)
        out += pairs if join is None else starmap(join, pairs)
        if self._windowed or _OTHER[side] not in self._ended:
            self._keep(side, mine.kept, elements)
        else:
            if self._outer[_OTHER[side]]:
                other.matched.update(key for _, key in elements if key in other.kept)
            if self._outer[side]:
                for element, key in elements:
                    if key not in other.kept:
                        self._give_one(side, element)

    def _keep(self, side: str, kept: dict[Hashable, list[Any]], elements: list[tuple[Any, Hashable]]) -> None:
        for element, key in elements:
            if key in kept:
                kept[key].append(element)
            elif key is not None:
                kept[key] = [element]
            else:
                self._kept -= 1
                if self._outer[side]:
                    self._give_one(side, element)
        self._kept += len(elements)

    def _give_one(self, side: str, element: Any) -> None:
        """Give an element without a partner."""
        self._unmatched += 1
        pair = (element, None) if side == LEFT else (None, element)
        self._out.append(pair if self._join is None else self._join(*pair))

    def _give_unmatched(self, side: str, mine: _Side, other: _Side) -> None:
        """Give those elements of a side that have no partner, and will have none."""
        for key, elements in mine.kept.items():
            if key not in other.kept and key not in mine.matched:
                for element in elements:
                    self._give_one(side, element)

    def _leave_out(self, side: str, late: list[Any]) -> None:
        self._late_count += len(late)
        if self._keep_late:
            self._late += [(side, element) for element in late]

    @property
    def late_count(self) -> int:
        """How many elements have come when their window had closed."""
        return self._late_count

    def take_late(self) -> list[tuple[str, Any]]:
        """Return the late elements that have come since this was last asked for, as (side, element)."""
        late, self._late = self._late, []
        return late

    # --- windows ----------------------------------------------------------------------------------------------------

    def _open(self, k: Any) -> _Window:
        window = self._windows.get(k)
        if window is None:
            window = self._windows[k] = _Window()
            heappush(self._closing, k)
        return window

    def _lowest(self, grid: Grid, mark: float) -> Any:
        """Return the first window that ends after a mark."""
        return grid.first(mark) if mark > BEGINNING else BEGINNING

    def _close_up_to(self, mark: float) -> None:
        """Close the windows that end at a mark or before it, the earliest first."""
        grid = self._grid
        while grid is not None and self._closing and grid.end(self._closing[0]) <= mark:
            self._close(heappop(self._closing))

    def _close(self, k: Any) -> None:
        window = self._windows.pop(k)
        for side in (LEFT, RIGHT):
            mine, other = window.sides(side)
            if self._outer[side]:
                self._give_unmatched(side, mine, other)
            self._kept -= sum(map(len, mine.kept.values()))

    # --- time -------------------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        """Return when `tick` has something to do; ``inf``: it never has, as things are."""
        if self._time is not None:
            return self._time.watermarks.deadline()
        if self._grid is not None and self._closing:
            return float(self._grid.end(self._closing[0]))
        return NEVER

    def tick(self, now: float) -> list[Any]:
        """Take note of the time."""
        if self._time is not None:
            self._time.watermarks.tick(now)
        return self._follow(now)

    def done(self, now: float) -> list[Any]:
        """Close all windows, as nothing more will come of either side."""
        self._follow_marks(now)
        while self._closing:
            self._close(heappop(self._closing))
        self._ended.clear()
        return self._take()

    def _follow(self, now: float) -> list[Any]:
        self._follow_marks(now)
        return self._take()

    def _follow_marks(self, now: float) -> None:
        time = self._time
        self._close_up_to(now if time is None else time.watermarks.value - time.lateness)

    def _begin(self, now: float) -> Grid | None:
        """Return where periodic windows lie, from now on if they have not begun; None: there are none."""
        if self._period is not None and self._grid is None:
            self._grid = Grid(self._period, self._period, now)
        return self._grid

    def _take(self) -> list[Any]:
        out, self._out = self._out, []
        return out

    # --- looking ----------------------------------------------------------------------------------------------------

    @property
    def watermark(self) -> Any:
        """The watermark, as a time; None before there is one, and where there are no event times."""
        return None if self._time is None else self._time.shown_watermark()

    def statistics(self) -> JoinStatistics:
        """Return what has been done, and what is held."""
        return JoinStatistics(
            left=self._came[LEFT],
            right=self._came[RIGHT],
            late=self._late_count,
            pairs=self._pairs,
            unmatched=self._unmatched,
            kept=self._kept,
            open_windows=len(self._windows),
            watermark=self.watermark,
        )
