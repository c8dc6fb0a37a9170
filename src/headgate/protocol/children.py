"""When a supervised child is started again, how soon, and when a supervisor gives up. Pure: time and chance come in.

The limit is that of Erlang/OTP's supervisors ("Maximum Restart Intensity" in its design principles):
more than ``max_restarts`` restarts within ``max_seconds`` are too many. Three kinds of restarts do not count, since
what they come from has a bound of its own, or is counted already:

* that of a stage that has followed its producer: the producer's own restart counts;
* one that narrows down a poison event: a handler has failed with fewer events than the last time, and with the last of
  them the event becomes a dead letter;
* one after which events were handled again: the failures of handlers before it are forgotten.

So a poison event, or a handler that fails now and then, does not end a supervisor, and one that always fails does.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from headgate.protocol.messages import is_normal

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
    """

    first: float = 0.05
    factor: float = 2.0
    most: float = 30.0
    jitter: float = 0.25
    reset: float = 10.0

    def delay(self, streak: int, chance: float) -> float:
        """Return the seconds to wait.

        Args:
            streak: Restarts in a row before this one.
            chance: A random number, 0 to 1.
        """
        if streak < 1:
            return 0.0
        if self.factor > 1:  # no overflow, however long a child has been failing
            streak = min(streak, 64)
        return min(self.most, self.first * self.factor ** (streak - 1)) * (1 - self.jitter * chance)


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


class Life:
    """What is remembered of one child across its restarts.

    Attributes:
        restarts: How many, in all.
        streak: How many in a row.
        last: When the last one was decided.
    """

    __slots__ = ("last", "restarts", "streak")

    def __init__(self) -> None:
        """Start with none."""
        self.restarts = 0
        self.streak = 0
        self.last: float | None = None

    def note(self, now: float, ending: Ending, backoff: Backoff) -> int:
        """Count a restart, and return how many in a row came before it."""
        recent = self.last is not None and now - self.last <= backoff.reset
        if not recent:
            self.streak = 0
        elif ending.progressed:
            self.streak = 1
        else:
            self.streak += 1
        self.last = now
        self.restarts += 1
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

    def decide(self, life: Life, ending: Ending, now: float, chance: float) -> float | None:
        """Count one more restart.

        Args:
            life: The child's.
            ending: How it has ended.
            now: The time in seconds.
            chance: A random number, 0 to 1.

        Returns:
            The seconds to wait before it, or None when there were too many.
        """
        delay = self._backoff.delay(life.note(now, ending, self._backoff), chance)
        if ending.follows:
            return delay
        if ending.failure is not None:
            size, deliveries = ending.failure
            narrower = deliveries > 1 and size < self._size
            self._size = size
            if ending.progressed:
                self._counted = deque(each for each in self._counted if not each[1])
            if narrower:
                return delay
        if self._most is None:
            return delay
        counted = self._counted
        counted.append((now, ending.failure is not None))
        while now - counted[0][0] > self._seconds:
            counted.popleft()
        return None if len(counted) > self._most else delay
