"""Reducing: what becomes of the events of a window, and what it gives. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Protocol

from headgate.errors import HandlerError, OptionError
from headgate.flow._trigger_states import KEEP, NOTHING, RESET, Fired, TriggerState
from headgate.flow.times import NEVER
from headgate.flow.triggers import DONE, CustomState, Firing, Trigger
from headgate.flow.windows import Window

Emit = Callable[[Window, Firing, dict[Hashable, Any]], Iterable[Any]]
OnTrigger = Callable[[Hashable, Any, Window, Firing], tuple[Iterable[Any], Any]]


@dataclass(frozen=True)
class Reduce:
    """How events become one accumulator.

    Attributes:
        init: Gives the accumulator to begin with; for each window and key a new one.
        step: (accumulator, event) -> accumulator; if ``emits``: -> (events to send on at once, accumulator).
        fold: (accumulator, list of events) -> accumulator: the same as ``step`` with one after the other, but quicker.
        tally: (accumulator, count) -> accumulator: the same, where events matter only by how many they are.
        combine: (accumulator, accumulator) -> accumulator: of the events of both, those of the first before those of
            the second. It may change the first one, never the second. Sessions need it, and so does `Combiner`.
        emits: Whether ``step`` gives events, too; then there is neither ``fold`` nor ``tally`` nor ``combine``.
    """

    init: Callable[[], Any]
    step: Callable[[Any, Any], Any]
    fold: Callable[[Any, list[Any]], Any] | None = None
    tally: Callable[[Any, int], Any] | None = None
    combine: Callable[[Any, Any], Any] | None = None
    emits: bool = False

    def __post_init__(self) -> None:
        """Check the functions.

        Raises:
            OptionError: One is no function, or does not go with ``emits``.
        """
        for option in ("init", "step", "fold", "tally", "combine"):
            function = getattr(self, option)
            needed = option in ("init", "step")
            if not callable(function) and (needed or function is not None):
                raise OptionError("Reduce", option, "a function" if needed else "a function or None", function)
        for option in ("fold", "tally"):
            if self.emits and getattr(self, option) is not None:
                raise OptionError("Reduce", option, "None, as step gives events (emits)", getattr(self, option))


def rows(window: Window, firing: Firing, accumulators: dict[Hashable, Any]) -> Iterable[Any]:  # noqa: ARG001 (its form)
    """Emit (window, key, accumulator)."""
    return [(window, key, accumulator) for key, accumulator in accumulators.items()]


def pairs(window: Window, firing: Firing, accumulators: dict[Hashable, Any]) -> Iterable[Any]:  # noqa: ARG001 (its form)
    """Emit (key, accumulator)."""
    return accumulators.items()


def values(window: Window, firing: Firing, accumulators: dict[Hashable, Any]) -> Iterable[Any]:  # noqa: ARG001 (its form)
    """Emit accumulators."""
    return accumulators.values()


class Place(Protocol):
    """What a pane belongs to."""

    @property
    def window(self) -> Window:
        """The window."""
        ...


class Pane:
    """One key in one window, where there is more to remember than an accumulator.

    Attributes:
        key: The key; None if there are none.
        place: What knows its window.
        acc: The accumulator.
        state: That of the trigger.
        fresh: It has taken events since it last gave something.
        told: It has given something.
        passed: The watermark has passed the window's end, and the trigger knows.
        due: The deadline under which it waits for the time; ``inf``: under none.
    """

    __slots__ = ("acc", "due", "fresh", "key", "passed", "place", "state", "told")

    def __init__(self, key: Hashable, place: Place, acc: Any, state: TriggerState) -> None:
        """Begin it, without events."""
        self.key = key
        self.place = place
        self.acc = acc
        self.state = state
        self.fresh = self.told = self.passed = False
        self.due = NEVER


class Reducing:
    """Folds events into accumulators, and gives what windows give.

    Args:
        reduce: How events become one accumulator.
        trigger: When a pane gives something before its window closes.
        emit: What is given, for whole windows.
        on_trigger: What is given, and what becomes of the accumulator, key by key; instead of ``emit``.
        where: What errors call it.

    Attributes:
        out: What is to be sent on. Whoever takes it puts another list in its place.
        firings: How many times something was given, or left out as it had been given before.
    """

    __slots__ = ("_count", "_emit", "_on_trigger", "_timers", "_where", "firings", "out", "reduce", "trigger")

    def __init__(
        self, reduce: Reduce, trigger: Trigger | None, emit: Emit, on_trigger: OnTrigger | None, where: str
    ) -> None:
        """Begin with nothing to send."""
        self.reduce = reduce
        self.trigger = trigger
        self._emit = emit
        self._on_trigger = on_trigger
        self._where = where
        self.out: list[Any] = []
        self.firings = 0
        self._timers: list[tuple[float, int, Pane]] = []  # a heap; only those count that a pane still waits for
        self._count = 0

    def pane(self, key: Hashable, place: Place, now: float) -> Pane:
        """Begin a pane."""
        state = NOTHING if self.trigger is None else self.trigger.begin(now)
        return Pane(key, place, self.reduce.init(), state)

    def fold(self, acc: Any, events: Sequence[Any]) -> Any:
        """Take events, in order, into one accumulator."""
        reduce = self.reduce
        if reduce.tally is not None:
            return reduce.tally(acc, len(events))
        if reduce.fold is not None:
            return reduce.fold(acc, events if type(events) is list else list(events))
        step = reduce.step
        if reduce.emits:
            out = self.out
            for event in events:
                given, acc = step(acc, event)
                out.extend(given)
        else:
            for event in events:
                acc = step(acc, event)
        return acc

    def feed(self, pane: Pane, events: list[Any], now: float) -> None:
        """Take events into a pane, and give what its trigger says, in the right places."""
        state = pane.state
        if state is NOTHING:
            pane.acc = self.fold(pane.acc, events)
            pane.fresh = True
        elif isinstance(state, CustomState):
            for taken, fired in state.split(events):
                if taken:
                    pane.acc = self.fold(pane.acc, taken)
                    pane.fresh = True
                if fired is not None:
                    self.give(pane, fired)
        else:
            self._feed_by_count(pane, state, events, now)
            self.watch(pane)

    def _feed_by_count(self, pane: Pane, state: TriggerState, events: list[Any], now: float) -> None:
        start, size = 0, len(events)
        while start < size:
            stop = int(min(size, start + state.room()))
            pane.acc = self.fold(pane.acc, events[start:stop] if stop - start < size else events)
            pane.fresh = True
            fired = state.added(stop - start, now)
            if fired is not None:
                self.give(pane, fired)
            start = stop

    def give(self, pane: Pane, fired: Fired, *, last: bool = False) -> None:
        """Give what a pane has, unless it would only say the same again."""
        name, accumulator = fired
        firing = Firing(name, accumulator, pane.fresh)
        self.firings += 1
        if self._on_trigger is not None:
            pane.acc = self._ask(pane.key, pane.acc, pane.place.window, firing)
        elif pane.fresh or not pane.told:
            shown = pane.acc if last or accumulator == RESET else _snapshot(pane.acc)
            self.out.extend(self._emit(pane.place.window, firing, {pane.key: shown}))
            if accumulator == RESET and not last:
                pane.acc = self.reduce.init()
        pane.fresh, pane.told = False, True

    def passed(self, pane: Pane, now: float) -> None:
        """Tell a pane's trigger, once, that the watermark has passed the end of its window."""
        if not pane.passed:
            pane.passed = True
            fired = pane.state.passed(now)
            if fired is not None:
                self.give(pane, fired)
            self.watch(pane)

    def close(self, pane: Pane) -> None:
        """Give what a pane has for the last time."""
        pane.due = NEVER
        self.give(pane, (DONE, KEEP), last=True)

    # --- the time ---------------------------------------------------------------------------------------------------

    def watch(self, pane: Pane) -> None:
        """See to it that `tick` comes to a pane when its trigger waits for a time."""
        due = pane.state.deadline()
        if due != pane.due:
            pane.due = due
            if due != NEVER:
                self._count += 1
                heappush(self._timers, (due, self._count, pane))

    def deadline(self) -> float:
        """Return when `tick` has something to do, at the latest; ``inf``: never."""
        timers = self._timers
        while timers and timers[0][2].due != timers[0][0]:  # closed, or waiting for something else by now
            heappop(timers)
        return timers[0][0] if timers else NEVER

    def tick(self, now: float) -> None:
        """Give what the time makes panes give, if they have something new."""
        while self.deadline() <= now:
            pane = heappop(self._timers)[2]
            pane.due = NEVER
            fired = pane.state.tick(now)
            if fired is not None and pane.fresh:
                self.give(pane, fired)
            self.watch(pane)

    # --- what is given ----------------------------------------------------------------------------------------------

    def close_all(self, window: Window, accumulators: dict[Hashable, Any], *, changed: bool = True) -> None:
        """Give what a whole window has for the last time."""
        firing = Firing(DONE, KEEP, changed)
        self.firings += len(accumulators)
        if self._on_trigger is None:
            self.out.extend(self._emit(window, firing, accumulators))
            return
        for key, accumulator in accumulators.items():
            self._ask(key, accumulator, window, firing)

    def _ask(self, key: Hashable, accumulator: Any, window: Window, firing: Firing) -> Any:
        """Ask the hook; send what it gives, and return the accumulator to go on with."""
        assert self._on_trigger is not None  # noqa: S101 (it is, or nobody would have come here)
        answer = self._on_trigger(key, accumulator, window, firing)
        if not isinstance(answer, tuple) or len(answer) != 2:  # noqa: PLR2004 (a pair)
            raise HandlerError(self._where, "on_trigger", "a pair: events, accumulator", answer)
        events, accumulator = answer
        try:
            self.out.extend(events)
        except TypeError:
            raise HandlerError(self._where, "on_trigger", "a pair: events, accumulator", answer) from None
        return accumulator


def _snapshot(accumulator: Any) -> Any:
    """Return what is to be sent on while the accumulator goes on changing: a copy of builtin collections, two deep."""
    kind = type(accumulator)
    if kind is list or kind is set:
        return accumulator.copy()
    if isinstance(accumulator, dict):
        copy: Any = accumulator.copy()
        if any(type(value) in _COLLECTIONS for value in copy.values()):
            for key, value in copy.items():
                if type(value) in _COLLECTIONS:
                    copy[key] = value.copy()
        return copy
    return accumulator


_COLLECTIONS = frozenset({list, set, dict})
