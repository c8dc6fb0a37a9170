"""What a trigger remembers of one window: see `triggers` for what they mean. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from headgate.flow.times import NEVER

KEEP: Final = "keep"
RESET: Final = "reset"
WATERMARK: Final = "watermark"

Fired = tuple[Any, str]
"""The name of a firing, and what becomes of the accumulator."""


Begin = Callable[[float], "TriggerState"]
"""Gives a state for a new window, at a time."""


class TriggerState:
    """What a trigger remembers of one window. As it is, it never fires."""

    __slots__ = ()

    def room(self) -> float:
        """Return how many events can be taken at once: with that many it may fire; ``inf``: it goes by no count."""
        return NEVER

    def added(self, count: int, now: float) -> Fired | None:  # noqa: ARG002 (its form)
        """Take note of so many events, at most `room`."""
        return None

    def deadline(self) -> float:
        """Return when `tick` may fire; ``inf``: it does not wait for a time."""
        return NEVER

    def tick(self, now: float) -> Fired | None:  # noqa: ARG002 (its form)
        """Take note of the time."""
        return None

    def passed(self, now: float) -> Fired | None:  # noqa: ARG002 (its form)
        """Take note that the watermark has passed the window's end. It is said once."""
        return None

    def merge(self, other: Any) -> None:
        """Go on for two windows that have become one, ``other`` being of the same trigger.

        If the watermark has not passed the end of both, it has not passed that of the one that they become.
        """


NOTHING: Final = TriggerState()
"""It never fires."""


class EveryState(TriggerState):
    __slots__ = ("_accumulator", "_count", "_name", "_taken")

    def __init__(self, count: int, name: Any, accumulator: str) -> None:
        self._count, self._name, self._accumulator = count, name, accumulator
        self._taken = 0

    def room(self) -> float:
        return max(1, self._count - self._taken)

    def added(self, count: int, now: float) -> Fired | None:  # noqa: ARG002 (its form)
        self._taken += count
        if self._taken < self._count:
            return None
        self._taken = 0
        return self._name, self._accumulator

    def merge(self, other: EveryState) -> None:
        self._taken += other._taken


class PeriodicState(TriggerState):
    """``at``: the end of the period; it is waited for only when events have come (``armed``)."""

    __slots__ = ("_accumulator", "_armed", "_at", "_period")

    def __init__(self, period: float, accumulator: str, now: float) -> None:
        self._period, self._accumulator = period, accumulator
        self._at = now + period
        self._armed = False

    def added(self, count: int, now: float) -> Fired | None:  # noqa: ARG002 (its form)
        if not self._armed:
            self._armed = True
            self._skip(now)
        return None

    def deadline(self) -> float:
        return self._at if self._armed else NEVER

    def tick(self, now: float) -> Fired | None:
        if not self._armed or now < self._at:
            return None
        self._armed = False
        self._skip(now)
        return ("periodically", self._period), self._accumulator

    def merge(self, other: PeriodicState) -> None:
        self._at = min(self._at, other._at)
        self._armed = self._armed or other._armed

    def _skip(self, now: float) -> None:
        """Go on to the first end of a period that is still to come."""
        if self._at <= now:
            self._at += self._period * ((now - self._at) // self._period + 1)
            if self._at <= now:  # the last bit of a float
                self._at = now + self._period


class WatermarkState(TriggerState):
    __slots__ = ("_accumulator", "_begin_late", "_early", "_late")

    def __init__(self, early: TriggerState, begin_late: Begin, accumulator: str) -> None:
        self._early = early
        self._begin_late = begin_late
        self._accumulator = accumulator
        self._late: TriggerState | None = None

    def room(self) -> float:
        return (self._late or self._early).room()

    def added(self, count: int, now: float) -> Fired | None:
        return (self._late or self._early).added(count, now)

    def deadline(self) -> float:
        return (self._late or self._early).deadline()

    def tick(self, now: float) -> Fired | None:
        return (self._late or self._early).tick(now)

    def passed(self, now: float) -> Fired | None:
        self._late = self._begin_late(now)
        return WATERMARK, self._accumulator

    def merge(self, other: WatermarkState) -> None:
        self._early.merge(other._early)
        if self._late is not None and other._late is not None:
            self._late.merge(other._late)
        else:
            self._late = None


class _Parts(TriggerState):
    """Asks all parts, and leaves it to a subclass what follows from their answers."""

    __slots__ = ("parts",)

    def __init__(self, parts: list[TriggerState]) -> None:
        self.parts = parts

    def room(self) -> float:
        return min(part.room() for part in self.parts)

    def added(self, count: int, now: float) -> Fired | None:
        return self.weigh([part.added(count, now) for part in self.parts])

    def deadline(self) -> float:
        return min(part.deadline() for part in self.parts)

    def tick(self, now: float) -> Fired | None:
        return self.weigh([part.tick(now) for part in self.parts])

    def passed(self, now: float) -> Fired | None:
        return self.weigh([part.passed(now) for part in self.parts])

    def weigh(self, answers: list[Fired | None]) -> Fired | None:
        raise NotImplementedError

    def merge(self, other: Any) -> None:
        for part, its in zip(self.parts, other.parts, strict=True):
            part.merge(its)


class AnyState(_Parts):
    __slots__ = ()

    def weigh(self, answers: list[Fired | None]) -> Fired | None:
        fired = [answer for answer in answers if answer is not None]
        return (fired[0][0], _strongest(fired)) if fired else None


class AllState(_Parts):
    __slots__ = ("_fired",)

    def __init__(self, parts: list[TriggerState]) -> None:
        super().__init__(parts)
        self._fired: list[Fired | None] = [None] * len(parts)

    def weigh(self, answers: list[Fired | None]) -> Fired | None:
        self._fired = [answer or before for answer, before in zip(answers, self._fired, strict=True)]
        fired = [answer for answer in self._fired if answer is not None]
        if len(fired) < len(self.parts):
            return None
        self._fired = [None] * len(fired)
        return ("all", *(name for name, _ in fired)), _strongest(fired)

    def merge(self, other: Any) -> None:
        super().merge(other)
        that: AllState = other
        self._fired = [ours or its for ours, its in zip(self._fired, that._fired, strict=True)]


class RepeatState(TriggerState):
    __slots__ = ("_begin", "_fired", "_part", "_past", "_times")

    def __init__(self, begin: Begin, times: float, now: float) -> None:
        self._begin = begin
        self._times = times
        self._part = begin(now)
        self._past = False
        self._fired = 0

    def room(self) -> float:
        return self._part.room()

    def added(self, count: int, now: float) -> Fired | None:
        return self._after(self._part.added(count, now), now)

    def deadline(self) -> float:
        return self._part.deadline()

    def tick(self, now: float) -> Fired | None:
        return self._after(self._part.tick(now), now)

    def passed(self, now: float) -> Fired | None:
        self._past = True
        return self._after(self._part.passed(now), now)

    def merge(self, other: RepeatState) -> None:
        self._past = self._past and other._past
        self._fired += other._fired
        if self._is_over():
            self._part = NOTHING
        else:
            self._part.merge(other._part)

    def _after(self, fired: Fired | None, now: float) -> Fired | None:
        if fired is not None:
            self._fired += 1
            self._part = NOTHING if self._is_over() else self._begin(now)
            if self._past:  # it begins where the window is
                self._part.passed(now)
        return fired

    def _is_over(self) -> bool:
        return self._fired >= self._times


def _strongest(fired: list[Fired]) -> str:
    return RESET if any(accumulator == RESET for _, accumulator in fired) else KEEP
