"""The open windows of a grid: fixed, sliding and periodic ones, and the global one. Pure.

Windows are kept by number, and in each its keys. Without a trigger a key has nothing but its accumulator, and events
are folded group by group; with one it has a `Pane`. There is one heap entry for a window, however many keys it has.

Sliding windows without a trigger whose reduce can combine are kept as slices of ``every``, each event in one of them,
and put together when a window closes (Li et al., "No pane, no gain", SIGMOD Record 2005).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from heapq import heappop, heappush
from itertools import repeat
from typing import Any

from headgate.flow._trigger_states import NOTHING
from headgate.flow.grid import Grid
from headgate.flow.panes import Pane, Reducing
from headgate.flow.times import BEGINNING, NEVER
from headgate.flow.windows import Window

Show = Callable[[Any, Any, Any], Window]
"""(number, start, end) -> the window, as users see it."""


class _Open:
    """One window. ``accs``: key -> accumulator, or -> `Pane`."""

    __slots__ = ("accs", "window")

    def __init__(self, window: Window) -> None:
        self.window = window
        self.accs: dict[Hashable, Any] = {}


class GridWindows:
    """The open windows of one worker.

    Args:
        grid: Where they lie; None: there is one, which closes at the end.
        reducing: What folds and gives.
        show: Says how a window is shown.
        lateness: How far the mark may have passed a window's end before that closes.
        fill: How many empty windows in a row are given.
        sliced: Keep windows as slices where that can be done.

    Attributes:
        in_bulk: A batch can be put as a whole before the mark follows it, as long as what is late is left out.
        phased: Events may come between when the mark passes a window's end and when that closes, and it matters.
        closed: How many windows have closed.
    """

    def __init__(
        self,
        grid: Grid | None,
        reducing: Reducing,
        show: Show,
        lateness: float = 0,
        fill: int = 0,
        *,
        sliced: bool = True,
    ) -> None:
        """Begin without windows."""
        self._grid = grid
        self._reducing = reducing
        self._show = show
        self._lateness = lateness
        self._fill = fill
        trigger = reducing.trigger
        self._plain = trigger is None
        self._tells = trigger is not None and trigger.needs_watermark()
        self.phased = self._tells and lateness > 0
        can = grid is not None and self._plain and reducing.reduce.combine is not None and not reducing.reduce.emits
        self._slices = (grid.overlap or 1) if grid is not None and can and sliced else 1
        self._merged = self._slices  # windows that a partial is for
        self.in_bulk = not self.phased and (grid is None or grid.overlap == 1)
        self._windows: dict[Any, _Open] = {}
        self._closing: list[Any] = []  # a heap of numbers; those of slices: of the windows that they are in
        self._ending: list[Any] = []  # as above: those whose end the mark has not passed
        self._behind: list[Pane] = []  # panes that came when it had
        self._listed: set[Any] = set()  # what is in `_closing`, where several slices bring the same window
        self._given: Any = None  # the number of the window that has closed last
        self._mark = BEGINNING
        self.closed = 0

    # --- what the engine asks ---------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return how many windows (or slices) are open."""
        return len(self._windows)

    @property
    def panes(self) -> int:
        """How many accumulators there are."""
        return sum(len(window.accs) for window in self._windows.values())

    def gone_at(self, times: list[Any]) -> list[Any]:
        """Return from which mark on each time is late."""
        assert self._grid is not None  # noqa: S101 (it is, or nobody would have come here)
        return self._grid.ends(self._grid.lasts(times), self._lateness)

    def soonest(self, times: list[Any]) -> list[Any]:
        """Return the first mark at which something happens to a window of each time."""
        assert self._grid is not None  # noqa: S101 (it is, or nobody would have come here)
        firsts = self._grid.firsts(times, self._grid.lasts(times))
        return self._grid.ends(firsts, 0 if self.phased else self._lateness)

    def gone(self, k: Any) -> Any:
        """Return the mark at which a window closes."""
        return self._grid.end(k) + self._lateness if self._grid is not None else NEVER

    def next_mark(self) -> Any:
        """Return the first mark at which something happens; ``inf``: none."""
        if self._behind:
            return BEGINNING
        grid = self._grid
        if grid is None:
            return NEVER
        close = grid.end(self._closing[0]) + self._lateness if self._closing else NEVER
        return min(close, grid.end(self._ending[0])) if self._ending else close

    # --- events -----------------------------------------------------------------------------------------------------

    def put(self, events: Sequence[Any], times: list[Any] | None, keys: Sequence[Hashable] | None, now: float) -> None:
        """Take events that are not late.

        Args:
            events: The events.
            times: Their times; None: there are none.
            keys: Their keys; None: there are none.
            now: The time.
        """
        grid = self._grid
        if grid is None:
            self._put_one(0, events, keys, now)
        elif grid.overlap == 1 or self._slices > 1:
            self._put_lasts(events, grid.lasts(times or []), keys, now)
        else:
            self._put_spans(events, times or [], keys, now)

    def merge(self, k: Any, key: Hashable, accumulator: Any, now: float) -> None:
        """Take an accumulator of a window (of a slice) that is not late."""
        combine = self._reducing.reduce.combine
        assert combine is not None  # noqa: S101 (it is, or nobody would have come here)
        if self._plain:
            accs = self._open(k).accs
            accs[key] = combine(accs[key], accumulator) if key in accs else accumulator
            return
        for number in range(k - self._merged + 1, k + 1) if self._merged > 1 else (k,):
            if self.gone(number) > self._mark:
                pane = self._pane(number, key, now)
                pane.acc = combine(pane.acc, accumulator)
                pane.fresh = True
                fired = pane.state.added(1, now)
                if fired is not None:
                    self._reducing.give(pane, fired)
                self._reducing.watch(pane)

    def exist(self, now: float) -> None:
        """Have the global window without keys, whether it has events or not."""
        if self._plain:
            self._open(0).accs.setdefault(None, self._reducing.reduce.init())
        else:
            self._pane(0, None, now)

    def _put_lasts(self, events: Sequence[Any], ks: list[Any], keys: Sequence[Hashable] | None, now: float) -> None:
        """Take each event into one window."""
        if not ks:
            return
        if min(ks) == max(ks):
            self._put_one(ks[0], events, keys, now)
            return
        reduce = self._reducing.reduce
        if not self._plain:
            for (k, key), group in _groups(zip(ks, keys or repeat(None), strict=False), events).items():
                self._feed(k, key, group, now)
        elif reduce.tally is not None:
            init, tally = reduce.init, reduce.tally
            before: Any = None
            accs: dict[Hashable, Any] = {}
            for (k, key), count in Counter(zip(ks, keys or repeat(None), strict=False)).items():
                if k != before:
                    accs, before = self._open(k).accs, k
                accs[key] = tally(accs[key] if key in accs else init(), count)
        elif reduce.fold is not None:
            for (k, key), group in _groups(zip(ks, keys or repeat(None), strict=False), events).items():
                self._fold(k, key, group)
        else:
            self._step_each(events, ks, keys or repeat(None))

    def _step_each(self, events: Sequence[Any], ks: list[Any], keys: Any) -> None:
        reduce, out = self._reducing.reduce, self._reducing.out
        init, step, emits = reduce.init, reduce.step, reduce.emits
        before: Any = None
        accs: dict[Hashable, Any] = {}
        for event, k, key in zip(events, ks, keys, strict=False):
            if k != before:
                accs, before = self._open(k).accs, k
            if emits:
                given, accs[key] = step(accs[key] if key in accs else init(), event)
                out.extend(given)
            else:
                accs[key] = step(accs[key] if key in accs else init(), event)

    def _put_one(self, k: Any, events: Sequence[Any], keys: Sequence[Hashable] | None, now: float) -> None:
        """Take all events into one and the same window."""
        reduce = self._reducing.reduce
        if keys is None:
            if self._plain:
                self._fold(k, None, events)
            else:
                self._feed(k, None, list(events), now)
        elif self._plain and reduce.tally is not None:
            accs, init, tally = self._open(k).accs, reduce.init, reduce.tally
            for key, count in Counter(keys).items():
                accs[key] = tally(accs[key] if key in accs else init(), count)
        elif self._plain and reduce.fold is None:
            self._step_each(events, [k] * len(keys), keys)
        else:
            for key, group in _groups(keys, events).items():
                if self._plain:
                    self._fold(k, key, group)
                else:
                    self._feed(k, key, group, now)

    def _put_spans(self, events: Sequence[Any], times: list[Any], keys: Sequence[Hashable] | None, now: float) -> None:
        """Take each event into all windows that it is in and that have not closed."""
        grid = self._grid
        assert grid is not None  # noqa: S101 (it is, or nobody would have come here)
        lowest = grid.first(self._mark - self._lateness) if self._mark > BEGINNING else BEGINNING
        groups: defaultdict[Any, list[Any]] = defaultdict(list)
        lasts = grid.lasts(times)
        firsts = grid.firsts(times, lasts)
        for event, first, last, key in zip(events, firsts, lasts, keys or repeat(None), strict=False):
            k = max(lowest, first)
            while k <= last:
                groups[k, key].append(event)
                k += 1
        for (k, key), group in groups.items():
            if self._plain:
                self._fold(k, key, group)
            else:
                self._feed(k, key, group, now)

    def _fold(self, k: Any, key: Hashable, group: Sequence[Any]) -> None:
        accs = self._open(k).accs
        accs[key] = self._reducing.fold(accs[key] if key in accs else self._reducing.reduce.init(), group)

    def _feed(self, k: Any, key: Hashable, group: list[Any], now: float) -> None:
        self._reducing.feed(self._pane(k, key, now), group, now)

    def _open(self, k: Any) -> _Open:
        """Return a window, opened if need be."""
        window = self._windows.get(k)
        if window is None:
            grid = self._grid
            shown = self._show(k, grid.start(k), grid.end(k)) if grid is not None else self._show(k, None, None)
            window = self._windows[k] = _Open(shown)
            if grid is not None:
                if self._slices > 1:
                    self._list(int(k))
                else:
                    heappush(self._closing, k)
                if self._tells and grid.end(k) > self._mark:
                    heappush(self._ending, k)
        return window

    def _list(self, k: int) -> None:
        """Have the windows closed that a slice is in, those that have not been."""
        for number in range(k - self._slices + 1, k + 1):
            if number not in self._listed and self.gone(number) > self._mark:
                self._listed.add(number)
                heappush(self._closing, number)

    def _pane(self, k: Any, key: Hashable, now: float) -> Pane:
        window = self._open(k)
        pane: Pane | None = window.accs.get(key)
        if pane is None:
            pane = window.accs[key] = self._reducing.pane(key, window, now)
            if self._tells and self._grid is not None and self._grid.end(k) <= self._mark:
                self._behind.append(pane)
        return pane

    # --- time -------------------------------------------------------------------------------------------------------

    def advance(self, mark: float, now: float) -> None:
        """Give what the mark makes windows give, and close those that it closes; the earliest first."""
        self._mark = max(self._mark, mark)
        behind, self._behind = self._behind, []
        for pane in behind:
            self._reducing.passed(pane, now)
        grid, closing, ending = self._grid, self._closing, self._ending
        if grid is None:
            return
        while True:
            gone = self.gone(closing[0]) if closing else NEVER
            if ending and grid.end(ending[0]) <= min(gone, mark):
                for pane in list(self._windows[heappop(ending)].accs.values()):
                    self._reducing.passed(pane, now)
            elif gone <= mark:
                self._close(heappop(closing))
            else:
                break

    def finish(self, now: float) -> None:  # noqa: ARG002 (its form)
        """Close all windows, the earliest first."""
        self._ending.clear()
        self._behind.clear()
        if self._grid is None:
            window = self._windows.pop(0, None)
            if window is not None:
                self._end(window)
        while self._closing:
            self._close(heappop(self._closing))
        self._given = None

    def fire(self, name: Any, accumulator: str) -> None:
        """Give what all windows have, for a reason of the user's."""
        if self._plain:
            self._adopt()
        for k in sorted(self._windows):
            for pane in list(self._windows[k].accs.values()):
                self._reducing.give(pane, (name, accumulator))

    def flush(self) -> list[tuple[Any, Hashable, Any]]:
        """Take out all accumulators without giving them, as (number, key, accumulator). Only without a trigger."""
        taken = [(k, key, acc) for k, window in self._windows.items() for key, acc in window.accs.items()]
        self._windows.clear()
        self._closing.clear()
        self._listed.clear()
        return taken

    def _close(self, k: Any) -> None:
        self._fill_up_to(k)
        self._given = k
        if self._slices == 1:
            self._end(self._windows.pop(k))
            return
        self._listed.discard(k)
        shown = _Open(self._show(k, self._grid.start(k), self._grid.end(k))) if self._grid is not None else None
        assert shown is not None  # noqa: S101 (it is, or nobody would have come here)
        shown.accs = self._assemble(k)
        self._windows.pop(k, None)
        self._end(shown)

    def _end(self, window: _Open) -> None:
        self.closed += 1
        if self._plain:
            self._reducing.close_all(window.window, window.accs)
        else:
            for pane in window.accs.values():
                self._reducing.close(pane)

    def _assemble(self, k: Any) -> dict[Hashable, Any]:
        """Put a window together from its slices, which stay as they are."""
        reduce = self._reducing.reduce
        assert reduce.combine is not None  # noqa: S101 (it is, or nobody would have come here)
        whole: dict[Hashable, Any] = {}
        for number in range(int(k), int(k) + self._slices):
            part = self._windows.get(number)
            for key, acc in part.accs.items() if part is not None else ():
                whole[key] = reduce.combine(whole[key] if key in whole else reduce.init(), acc)
        return whole

    def _fill_up_to(self, k: Any) -> None:
        """Give the empty windows before this one, if they are to be given and not too many."""
        grid, before = self._grid, self._given
        if not self._fill or before is None or grid is None or not 1 < k - before <= self._fill + 1:
            return
        number = before + 1
        while number < k:
            window = self._show(number, grid.start(number), grid.end(number))
            self._reducing.close_all(window, {None: self._reducing.reduce.init()}, changed=False)
            number += 1

    def _adopt(self) -> None:
        """Go on with panes where there were only accumulators."""
        if self._slices > 1:
            whole = {k: self._assemble(k) for k in self._closing}
            self._slices = 1
            self._windows.clear()
            self._closing.clear()
            self._listed.clear()
            for k, accs in whole.items():
                self._open(k).accs = accs
        self._plain = False
        for window in self._windows.values():
            for key, acc in window.accs.items():
                pane = window.accs[key] = Pane(key, window, acc, NOTHING)
                pane.fresh = True


def _groups(keys: Iterable[Any], events: Iterable[Any]) -> dict[Any, list[Any]]:
    """Return the events by key, each group and the keys in the order in which they come."""
    groups: defaultdict[Any, list[Any]] = defaultdict(list)
    for key, event in zip(keys, events, strict=False):
        groups[key].append(event)
    return groups
