"""When a supervised child is started again, how soon, and when a supervisor gives up. Pure: time and chance come in.

The limit is that of Erlang/OTP's supervisors ("Maximum Restart Intensity" in its design principles):
more than ``max_restarts`` restarts within ``max_seconds`` are too many. Three kinds of restarts do not count, since
what they come from has a bound of its own, or is counted already:

* that of a stage that has followed its producer: the producer's own restart counts;
* one that looks for a poison event: a handler has failed with several events that one had failed with before. They are
  halved until one is left, and with that the event becomes a dead letter, which counts;
* one after which events were handled again, by whichever child: the failures of handlers before it are forgotten.

Seconds in which a child waits to be started again do not count either: a longer back-off does not raise the limit.

So a poison event, or a handler that fails now and then, does not end a supervisor, and one that always fails does.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from headgate.errors import OptionError
from headgate.protocol.messages import is_normal

_PATIENCE: Final = 64
"""Deliveries of one batch after which its failures count in any case (with ``max_deliveries=None`` it is never cut)."""

PERMANENT: Final = "permanent"
TRANSIENT: Final = "transient"
TEMPORARY: Final = "temporary"

ONE_FOR_ONE: Final = "one_for_one"
ONE_FOR_ALL: Final = "one_for_all"
REST_FOR_ONE: Final = "rest_for_one"


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a child is started again: exponential, with jitter.

    The first restart comes at once. Each further one waits longer, unless the child has lived for ``reset`` seconds or
    has handled events in between.

    Attributes:
        first: Seconds before the second restart in a row. Default 0.05.
        factor: By how much each further wait is longer. Default 2.
        most: Seconds of the longest wait. Default 30.
        jitter: Share by which a wait is shortened at random, 0 to 1. Default 0.25.
        reset: Seconds after which a child that lives counts as well. Default 10.

    Raises:
        OptionError: An option is of the wrong type or out of range.
    """

    first: float = 0.05
    factor: float = 2.0
    most: float = 30.0
    jitter: float = 0.25
    reset: float = 10.0

    def __post_init__(self) -> None:
        """Check the options."""
        seconds = "a number of seconds of at least 0"
        self._check("first", seconds, 0)
        self._check("factor", "a number of at least 1", 1)
        self._check("most", seconds, 0)
        self._check("jitter", "a number from 0 to 1", 0, 1)
        self._check("reset", seconds, 0)

    def _check(self, option: str, expected: str, least: float, most: float = math.inf) -> None:
        value: Any = getattr(self, option)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not least <= value <= most:  # nan too
            raise OptionError("Backoff", option, expected, value)

    def delay(self, streak: int, chance: float) -> float:
        """Return the seconds to wait.

        Args:
            streak: Restarts in a row before this one.
            chance: A random number, 0 to 1.
        """
        if streak < 1 or not self.first:
            return 0.0
        try:
            wait = min(self.most, self.first * self.factor ** (streak - 1))
        except OverflowError:  # it has been failing for long
            wait = self.most
        return wait * (1 - self.jitter * chance)


class Ending(NamedTuple):
    """How a child has ended.

    Attributes:
        reason: Why.
        completed: Its stream was over: it is done, whatever its restart kind.
        follows: It ended since its producer did.
        failure: What its handler had when it failed: the number of events, and of their delivery; None: nothing.
        progressed: It had handled events before.
    """

    reason: Any
    completed: bool = False
    follows: bool = False
    failure: tuple[int, int] | None = None
    progressed: bool = False


def is_done(kind: str, ending: Ending) -> bool:
    """Say whether a child of this restart kind that has ended like this is not to be started again."""
    if ending.completed or kind == TEMPORARY:
        return True
    return kind == TRANSIENT and is_normal(ending.reason)


def _looks_for_poison(ending: Ending) -> bool:
    """Say whether a handler has failed with several events that one had failed with before, and not for ever so."""
    if ending.failure is None:
        return False
    size, deliveries = ending.failure
    return size > 1 and 1 < deliveries <= _PATIENCE


class Life:
    """What is remembered of one child across its restarts.

    Attributes:
        restarts: How many, in all.
        streak: How many in a row.
        last: When it was to be started again the last time.
    """

    __slots__ = ("last", "restarts", "streak")

    def __init__(self) -> None:
        """Start with none."""
        self.restarts = 0
        self.streak = 0
        self.last: float | None = None

    def note(self, now: float, backoff: Backoff, *, progressed: bool, grows: bool) -> int:
        """Count a restart, and return how many in a row came before it; ``grows``: the wait is to be longer."""
        recent = self.last is not None and now - self.last <= backoff.reset
        if not recent:
            self.streak = 0
        elif progressed:
            self.streak = 1
        elif grows:
            self.streak += 1
        return self.streak


class Restarts:
    """The restarts of one supervisor's children.

    Args:
        max_restarts: How many are allowed, or None: any number,
        max_seconds: within how many seconds.
        backoff: The waits before them.
    """

    def __init__(self, max_restarts: int | None, max_seconds: float, backoff: Backoff) -> None:
        """Start with none."""
        self._most = max_restarts
        self._seconds = max_seconds
        self._backoff = backoff
        self._counted: deque[tuple[float, bool]] = deque()  # when, and whether a handler had failed with events
        self._size = 0  # of the last batch that a handler failed with
        self._waited = 0.0  # seconds in which a child was waiting to be started again: they do not count
        self._until = 0.0  # the end of the last such wait

    def decide(self, life: Life, ending: Ending, now: float, chance: float, *, moved: bool = False) -> float | None:
        """Count one more restart.

        Args:
            life: The child's.
            ending: How it has ended.
            now: The time in seconds.
            chance: A random number, 0 to 1.
            moved: Some child of the supervisor has handled events since the last restart.

        Returns:
            The seconds to wait before it, or None when there were too many.
        """
        life.restarts += 1
        if ending.follows:  # it will wait for its producer
            return 0.0
        if ending.failure is not None and (ending.progressed or moved):
            self._counted = deque(each for each in self._counted if not each[1])
        streak = life.note(now, self._backoff, progressed=ending.progressed, grows=not self._is_narrower(ending))
        if not _looks_for_poison(ending) and not self._allows(now, failed=ending.failure is not None):
            return None
        delay = self._backoff.delay(streak, chance)
        life.last = now + delay  # a long wait is no long life
        self._waited += max(0.0, now + delay - max(now, self._until))
        self._until = max(self._until, now + delay)
        return delay

    def _is_narrower(self, ending: Ending) -> bool:
        """Say whether a handler has failed with fewer events than the last time: then the waits need not grow."""
        if ending.failure is None:
            return False
        size, deliveries = ending.failure
        narrower = deliveries > 1 and size < self._size
        self._size = size
        return narrower

    def _allows(self, now: float, *, failed: bool) -> bool:
        """Count a restart towards the limit."""
        if self._most is None:
            return True
        lived = now - self._waited
        counted = self._counted
        counted.append((lived, failed))
        while lived - counted[0][0] > self._seconds:
            counted.popleft()
        return len(counted) <= self._most
