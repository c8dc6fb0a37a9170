"""Triggers: when a window gives something before it closes, and what becomes of its accumulator. Pure.

A trigger is frozen data; what it remembers of one window (of one key) is a `TriggerState`. When a window closes for
good, it gives what it has (``"done"``), whatever its trigger says.

Triggers repeat by themselves: ``every(10)`` fires with the 10th event, the 20th, the 30th. In ``any_of`` each part goes
by its own count; ``repeat(any_of(...))`` begins all of it anew after each firing. Parts that fire at the same moment
are one firing, of the first of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Final, NamedTuple

from headgate.errors import HandlerError, OptionError
from headgate.flow._trigger_states import (
    KEEP,
    NOTHING,
    RESET,
    AllState,
    AnyState,
    EveryState,
    Fired,
    PeriodicState,
    RepeatState,
    TriggerState,
    WatermarkState,
)
from headgate.flow.times import NEVER, Duration, in_seconds, seconds

DONE: Final = "done"


class Firing(NamedTuple):
    """That a window gives something, and why.

    Attributes:
        name: ``"done"``: it closes, and will never give anything again; ``"watermark"``: the watermark has passed its
            end; ``("every", n)``; ``("periodically", seconds)``; or what a custom trigger, or `Windowing.fire`, says.
        accumulator: ``"keep"`` or ``"reset"``: what becomes of the accumulator, unless ``on_trigger`` returns another.
        changed: Whether it has taken events since it last gave something.
    """

    name: Any
    accumulator: str = KEEP
    changed: bool = True


@dataclass(frozen=True)
class Trigger:
    """What all triggers have in common."""

    def needs_watermark(self) -> bool:
        """Say whether it waits for a watermark."""
        return False

    def counts(self) -> bool:
        """Say whether it goes by single events."""
        return False

    def begin(self, now: float) -> TriggerState:  # noqa: ARG002 (its form)
        """Return its state for a new window."""
        return NOTHING


@dataclass(frozen=True)
class _Simple(Trigger):
    """A trigger that is not made of others.

    Attributes:
        accumulator: ``"keep"`` (default) or ``"reset"``: after a firing the window goes on with what it has, or anew.
    """

    _: KW_ONLY
    accumulator: str = KEEP

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            OptionError: It is neither.
        """
        if self.accumulator not in (KEEP, RESET):
            where = f"triggers.{_NAMES[type(self).__name__]}"
            raise OptionError(where, "accumulator", f"{KEEP!r} or {RESET!r}", self.accumulator)


@dataclass(frozen=True)
class Every(_Simple):
    """Fires with every ``count``-th event of the window."""

    count: int

    def __post_init__(self) -> None:
        """Check the number."""
        super().__post_init__()
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise OptionError("triggers.every", "count", "a whole number, 1 or more", self.count)

    def counts(self) -> bool:
        """It does."""
        return True

    def begin(self, now: float) -> TriggerState:  # noqa: ARG002 (its form)
        """Count from 0."""
        return EveryState(self.count, ("every", self.count), self.accumulator)


@dataclass(frozen=True)
class Periodically(_Simple):
    """Fires every ``period`` of processing time, counted from the window's first event, if there were events since."""

    period: Duration

    def __post_init__(self) -> None:
        """Check the period."""
        super().__post_init__()
        seconds(self.period, "triggers.periodically", "period")

    def begin(self, now: float) -> TriggerState:
        """Begin a period now."""
        return PeriodicState(in_seconds(self.period), self.accumulator, now)


@dataclass(frozen=True)
class OnWatermark(_Simple):
    """Fires when the watermark passes the window's end; before that ``early`` may fire, after it ``late``."""

    early: Trigger | None = None
    late: Trigger | None = None

    def __post_init__(self) -> None:
        """Check both."""
        super().__post_init__()
        for option, part in (("early", self.early), ("late", self.late)):
            if part is not None:
                _check_part(part, "triggers.on_watermark", option)

    def needs_watermark(self) -> bool:
        """It does."""
        return True

    def counts(self) -> bool:
        """Say whether one of its parts does."""
        return any(part is not None and part.counts() for part in (self.early, self.late))

    def begin(self, now: float) -> TriggerState:
        """Wait."""
        early = NOTHING if self.early is None else self.early.begin(now)
        return WatermarkState(early, _nothing if self.late is None else self.late.begin, self.accumulator)


@dataclass(frozen=True)
class AnyOf(Trigger):
    """Fires when one of its parts does; each goes by its own count."""

    parts: tuple[Trigger, ...]

    def __post_init__(self) -> None:
        """Check the parts."""
        _check_parts(self.parts, "triggers.any_of")

    def needs_watermark(self) -> bool:
        """Say whether one of the parts does."""
        return any(part.needs_watermark() for part in self.parts)

    def counts(self) -> bool:
        """Say whether one of the parts does."""
        return any(part.counts() for part in self.parts)

    def begin(self, now: float) -> TriggerState:
        """Begin all parts."""
        return AnyState([part.begin(now) for part in self.parts])


@dataclass(frozen=True)
class AllOf(Trigger):
    """Fires when all of its parts have fired since it last did."""

    parts: tuple[Trigger, ...]

    def __post_init__(self) -> None:
        """Check the parts."""
        _check_parts(self.parts, "triggers.all_of")

    def needs_watermark(self) -> bool:
        """Say whether one of the parts does."""
        return any(part.needs_watermark() for part in self.parts)

    def counts(self) -> bool:
        """Say whether one of the parts does."""
        return any(part.counts() for part in self.parts)

    def begin(self, now: float) -> TriggerState:
        """Begin all parts."""
        return AllState([part.begin(now) for part in self.parts])


@dataclass(frozen=True)
class Repeat(Trigger):
    """Begins its part anew after each firing; after ``times`` firings it never fires again."""

    part: Trigger
    times: int | None = None

    def __post_init__(self) -> None:
        """Check both."""
        _check_part(self.part, "triggers.repeat", "part")
        if self.times is not None and (
            isinstance(self.times, bool) or not isinstance(self.times, int) or self.times < 1
        ):
            raise OptionError("triggers.repeat", "times", "a whole number, 1 or more, or None", self.times)

    def needs_watermark(self) -> bool:
        """Say whether the part does."""
        return self.part.needs_watermark()

    def counts(self) -> bool:
        """Say whether the part does."""
        return self.part.counts()

    def begin(self, now: float) -> TriggerState:
        """Begin the part."""
        return RepeatState(self.part.begin, NEVER if self.times is None else self.times, now)


class Continue(NamedTuple):
    """What a custom trigger answers when it does not fire.

    Attributes:
        state: Its next state.
        events: What the window is to take instead of the events; None: the events.
    """

    state: Any
    events: list[Any] | None = None


class Fire(NamedTuple):
    """What a custom trigger answers when it fires.

    Attributes:
        name: What the firing is called.
        before: Events that the window takes before it.
        after: Events to go on with: the trigger is asked about them next.
        state: Its next state.
        accumulator: ``"keep"`` or ``"reset"``.
    """

    name: Any
    before: list[Any]
    after: list[Any]
    state: Any
    accumulator: str = KEEP


@dataclass(frozen=True)
class Custom(Trigger):
    """Asks a function of yours. It cannot be part of another trigger.

    Attributes:
        init: Gives the state to begin with, for each window.
        function: (events, state) -> `Continue` or `Fire`. How many events it is given at a time is not said.
    """

    init: Callable[[], Any]
    function: Callable[[list[Any], Any], Continue | Fire]

    def __post_init__(self) -> None:
        """Check both."""
        for option, function in (("init", self.init), ("function", self.function)):
            if not callable(function):
                raise OptionError("triggers.custom", option, "a function", function)

    def counts(self) -> bool:
        """It does."""
        return True

    def begin(self, now: float) -> CustomState:  # noqa: ARG002 (its form)
        """Ask for a state."""
        return CustomState(self)


class CustomState(TriggerState):
    """What a custom trigger remembers of one window."""

    __slots__ = ("_state", "_trigger")

    def __init__(self, trigger: Custom) -> None:
        """Ask for a state."""
        self._trigger = trigger
        self._state = trigger.init()

    def split(self, events: list[Any]) -> list[tuple[list[Any], Fired | None]]:
        """Return what the window is to take, piece by piece, and what fires after each.

        Raises:
            HandlerError: The function returned neither `Continue` nor `Fire`, or fires again and again for nothing.
        """
        pieces: list[tuple[list[Any], Fired | None]] = []
        most = 1_000 + 10 * len(events)
        while events:
            answer = self._trigger.function(events, self._state)
            if isinstance(answer, Continue):
                self._state = answer.state
                pieces.append((events if answer.events is None else answer.events, None))
                break
            if not isinstance(answer, Fire) or answer.accumulator not in (KEEP, RESET):
                raise HandlerError("triggers.custom", "function", "Continue or Fire", answer)
            self._state = answer.state
            pieces.append((answer.before, (answer.name, answer.accumulator)))
            events = answer.after
            if len(pieces) > most:
                raise HandlerError("triggers.custom", "function", "Continue some time: it fires without end", answer)
        return pieces


def every(count: int, *, accumulator: str = KEEP) -> Every:
    """Fire with every so many events of a window. See `Every`."""
    return Every(count, accumulator=accumulator)


def periodically(period: Duration, *, accumulator: str = KEEP) -> Periodically:
    """Fire every so many seconds of processing time, if there were events since. See `Periodically`."""
    return Periodically(period, accumulator=accumulator)


def on_watermark(*, early: Trigger | None = None, late: Trigger | None = None, accumulator: str = KEEP) -> OnWatermark:
    """Fire when the watermark passes the window's end; ``early`` before that, ``late`` after it. See `OnWatermark`."""
    return OnWatermark(early, late, accumulator=accumulator)


def any_of(*parts: Trigger) -> AnyOf:
    """Fire whenever one of these does. See `AnyOf`."""
    return AnyOf(parts)


def all_of(*parts: Trigger) -> AllOf:
    """Fire when all of these have fired. See `AllOf`."""
    return AllOf(parts)


def repeat(part: Trigger, times: int | None = None) -> Repeat:
    """Begin a trigger anew after each firing, so many times at most. See `Repeat`."""
    return Repeat(part, times)


def once(part: Trigger) -> Repeat:
    """Let a trigger fire once for each window, and never again."""
    return Repeat(part, 1)


def custom(init: Callable[[], Any], function: Callable[[list[Any], Any], Continue | Fire]) -> Custom:
    """Ask a function. See `Custom`."""
    return Custom(init, function)


def _check_part(part: object, where: str, option: str) -> None:
    if not isinstance(part, Trigger) or isinstance(part, Custom):
        raise OptionError(where, option, "a trigger, but no custom one", part)


def _check_parts(parts: tuple[Trigger, ...], where: str) -> None:
    if not parts:
        raise OptionError(where, "parts", "one trigger or more", parts)
    for part in parts:
        _check_part(part, where, "parts")


_NAMES: Final = {"Every": "every", "Periodically": "periodically", "OnWatermark": "on_watermark"}


def _nothing(now: float) -> TriggerState:  # noqa: ARG001 (its form)
    return NOTHING
