"""The open sessions of every key. Pure.

A session is ``[first event, last event + gap)``; sessions of a key do not overlap, and those that come to overlap
become one. A key has a list of them in order of time, nearly always of one; a late one is found from the newest end.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from heapq import heappop, heappush
from itertools import repeat
from operator import attrgetter
from typing import Any, Final

from headgate.flow._trigger_states import NOTHING, TriggerState
from headgate.flow.panes import Pane, Reducing
from headgate.flow.times import BEGINNING, NEVER
from headgate.flow.windows import Window

Show = Callable[[Any, Any, Any], Window]
_START: Final = attrgetter("start")


class Session(Pane):
    """One session: a pane that is its own place.

    Attributes:
        start: The time of its first event.
        end: A gap after its last one.
        waiting: Events that it has, but that have not been folded yet.
        gone: It has closed, or is part of another one.
    """

    __slots__ = ("end", "gone", "show", "start", "waiting")

    def __init__(self, key: Hashable, start: Any, end: Any, acc: Any, state: TriggerState, show: Show) -> None:
        """Begin it with one event's time."""
        super().__init__(key, self, acc, state)
        self.start, self.end = start, end
        self.show = show
        self.waiting: list[Any] = []
        self.gone = False

    @property
    def window(self) -> Window:
        """How it is shown, as it is now."""
        return self.show(self.start, self.start, self.end)


class SessionWindows:
    """The open sessions of one worker.

    Args:
        gap: How long a key has to be silent.
        reducing: What folds, combines and gives.
        show: Says how a session is shown.
        lateness: How far the mark may have passed a session's end before that closes.

    Attributes:
        in_bulk: As `GridWindows`: events that are older than the mark matter by the moment at which they come.
        phased: As `GridWindows`.
        closed: How many sessions have closed.
    """

    in_bulk = False

    def __init__(self, gap: float, reducing: Reducing, show: Show, lateness: float) -> None:
        """Begin without sessions."""
        self._gap = gap
        self._reducing = reducing
        self._show = show
        self._lateness = lateness
        trigger = reducing.trigger
        self._tells = trigger is not None and trigger.needs_watermark()
        self.phased = self._tells and lateness > 0
        self._singly = trigger is not None and trigger.counts()  # what is given has to be of the session as it was then
        self._sessions: dict[Hashable, list[Session]] = {}
        # Heaps of (end, number, session). Sessions only grow: an end that is too early is put right in its turn.
        self._closing: list[tuple[Any, int, Session]] = []
        self._ending: list[tuple[Any, int, Session]] = []  # those that the mark has not passed
        self._number = 0
        self._mark = BEGINNING
        self.closed = 0

    def __len__(self) -> int:
        """Return how many sessions are open."""
        return sum(map(len, self._sessions.values()))

    @property
    def panes(self) -> int:
        """How many accumulators there are."""
        return len(self)

    def gone_at(self, times: list[Any]) -> list[Any]:
        """Return from which mark on each time is late: when a session of it alone would have closed."""
        reach = self._gap + self._lateness
        return [time + reach for time in times]

    def soonest(self, times: list[Any]) -> list[Any]:
        """Return the first mark at which something happens to a session of each time alone."""
        reach = self._gap + (0 if self.phased else self._lateness)
        return [time + reach for time in times]

    def gone(self, span: tuple[Any, Any]) -> Any:
        """Return the mark at which a session closes."""
        return span[1] + self._lateness

    def next_mark(self) -> Any:
        """Return a mark before which nothing happens; ``inf``: nothing ever does."""
        close = self._closing[0][0] + self._lateness if self._closing else NEVER
        return min(close, self._ending[0][0]) if self._ending else close

    # --- events -----------------------------------------------------------------------------------------------------

    def put(self, events: Sequence[Any], times: list[Any] | None, keys: Sequence[Hashable] | None, now: float) -> None:
        """Take events that are not late, as `GridWindows.put`."""
        gap, sessions = self._gap, self._sessions
        touched: dict[Session, None] = {}
        for event, time, key in zip(events, times or (), keys or repeat(None), strict=False):
            mine = sessions.get(key)
            newest = mine[-1] if mine else None
            if newest is not None and newest.start <= time < newest.end:  # as nearly all do
                session = newest
                if time + gap > session.end:
                    self._grow(session, time + gap, now)
            else:
                session = self._place(key, time, time + gap, now)
            if not session.waiting:
                touched[session] = None
            session.waiting.append(event)
            if self._singly:
                self._settle(session, now)
        for session in touched:
            if not session.gone:
                self._settle(session, now)

    def merge(self, k: Any, key: Hashable, accumulator: Any, now: float) -> None:
        """Take a session that was put together elsewhere, from ``k[0]`` to ``k[1]``, that is not late."""
        session = self._place(key, k[0], k[1], now)
        combine = self._reducing.reduce.combine
        assert combine is not None  # noqa: S101 (it is, or nobody would have come here)
        session.acc = combine(session.acc, accumulator) if session.fresh or session.told else accumulator
        session.fresh = True
        fired = session.state.added(1, now)
        if fired is not None:
            self._reducing.give(session, fired)
        self._reducing.watch(session)

    def _settle(self, session: Session, now: float) -> None:
        """Fold what waits."""
        if session.waiting:
            events, session.waiting = session.waiting, []
            self._reducing.feed(session, events, now)

    def _place(self, key: Hashable, start: Any, end: Any, now: float) -> Session:
        """Return the session that a span of time belongs to: a new one, a longer one, or one made of several."""
        mine = self._sessions.setdefault(key, [])
        place = len(mine)
        if place and mine[-1].start >= end:
            place = bisect_left(mine, end, key=_START)
        if not place or mine[place - 1].end <= start:
            return self._begin(mine, place, key, start, end, now)
        session = mine[place - 1]
        session.start = min(session.start, start)
        if end > session.end:
            self._grow(session, end, now)
        while place > 1 and mine[place - 2].end > session.start:
            earlier = mine[place - 2]
            self._join(earlier, session, now)
            del mine[place - 1]
            place -= 1
            session = earlier
        return session

    def _begin(self, mine: list[Session], place: int, key: Hashable, start: Any, end: Any, now: float) -> Session:
        reducing = self._reducing
        state = NOTHING if reducing.trigger is None else reducing.trigger.begin(now)
        session = Session(key, start, end, reducing.reduce.init(), state, self._show)
        mine.insert(place, session)
        self._push(self._closing, session)
        if self._tells:
            self._push(self._ending, session)
        return session

    def _push(self, heap: list[tuple[Any, int, Session]], session: Session) -> None:
        self._number += 1
        heappush(heap, (session.end, self._number, session))

    def _grow(self, session: Session, end: Any, now: float) -> None:
        session.end = end
        if session.passed and end > self._mark:
            # Its trigger begins again before the watermark, as if a new session had become one with it.
            assert self._reducing.trigger is not None  # noqa: S101 (it is, or nobody would have come here)
            self._settle(session, now)
            session.state.merge(self._reducing.trigger.begin(now))
            session.passed = False
            self._push(self._ending, session)
            self._reducing.watch(session)

    def _join(self, session: Session, later: Session, now: float) -> None:
        """Make one of two."""
        reducing = self._reducing
        self._settle(session, now)
        self._settle(later, now)
        combine = reducing.reduce.combine
        assert combine is not None  # noqa: S101 (it is, or nobody would have come here)
        session.acc = combine(session.acc, later.acc)
        session.fresh = session.fresh or later.fresh
        session.told = session.told or later.told
        both = session.passed and later.passed
        session.state.merge(later.state)
        if session.passed and not both:
            self._push(self._ending, session)
        session.passed = both
        session.start, session.end = min(session.start, later.start), max(session.end, later.end)
        later.gone = True
        later.due = NEVER
        reducing.watch(session)

    # --- time -------------------------------------------------------------------------------------------------------

    def advance(self, mark: float, now: float) -> None:
        """Give what the mark makes sessions give, and close those that it closes; the earliest first."""
        self._mark = max(self._mark, mark)
        while True:
            gone = self._closing[0][0] + self._lateness if self._closing else NEVER
            if self._ending and self._ending[0][0] <= min(gone, mark):
                self._pass(heappop(self._ending), now)
            elif gone <= mark:
                self._close(heappop(self._closing))
            else:
                break

    def _pass(self, entry: tuple[Any, int, Session], now: float) -> None:
        end, _, session = entry
        if session.gone or session.passed:
            return
        if session.end > end:
            self._push(self._ending, session)
        else:
            self._reducing.passed(session, now)

    def _close(self, entry: tuple[Any, int, Session]) -> None:
        end, _, session = entry
        if session.gone:
            return
        if session.end > end:
            self._push(self._closing, session)
            return
        session.gone = True
        mine = self._sessions[session.key]
        mine.remove(session)
        if not mine:
            del self._sessions[session.key]
        self.closed += 1
        self._reducing.close(session)

    def finish(self, now: float) -> None:  # noqa: ARG002 (its form)
        """Close all sessions, the earliest first."""
        self._ending.clear()
        while self._closing:
            self._close(heappop(self._closing))

    def fire(self, name: Any, accumulator: str) -> None:
        """Give what all sessions have, for a reason of the user's."""
        for mine in list(self._sessions.values()):
            for session in mine:
                self._reducing.give(session, (name, accumulator))

    def flush(self) -> list[tuple[Any, Hashable, Any]]:
        """Take out all accumulators without giving them, as ((start, end), key, accumulator)."""
        taken = [((s.start, s.end), key, s.acc) for key, mine in self._sessions.items() for s in mine]
        self._sessions.clear()
        self._closing.clear()
        return taken
