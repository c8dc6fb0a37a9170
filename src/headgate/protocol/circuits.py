"""When to stop asking an outside system that fails, and when to try again. Pure: time comes in.

The circuit breaker of Michael T. Nygard, *Release It!* (2nd edition, 2018, chapter 5): closed, it counts failures in a
row; after too many it is open, and nobody asks; after a while it is half open, and few try: the first that succeeds
closes it, one that fails opens it again. What was begun before it changed says nothing about it now.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from headgate.errors import OptionError

CLOSED: Final = "closed"
OPEN: Final = "open"
HALF_OPEN: Final = "half_open"


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """When to stop asking an outside system that fails, and when to try again.

    Attributes:
        failures: After so many failures in a row nobody asks any more. Default 5.
        seconds: After so many seconds somebody tries again. Default 30.
        trials: How many try at once then. Default 1.
        errors: Which exceptions are failures of the outside system: a class or a tuple of them. Others are answers. A
            time-out always is a failure. Default: every ``Exception``.
        waits: True: who asks meanwhile waits until the system is well again, so that nothing more is asked for from
            further up. Default False: it fails at once.

    Raises:
        OptionError: An option is of the wrong type or out of range.
    """

    failures: int = 5
    seconds: float = 30.0
    trials: int = 1
    errors: type[BaseException] | tuple[type[BaseException], ...] = Exception
    waits: bool = False

    def __post_init__(self) -> None:
        """Check the options."""
        for option in ("failures", "trials"):
            value: Any = getattr(self, option)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise OptionError("CircuitBreaker", option, "an integer of at least 1", value)
        seconds: Any = self.seconds
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
            raise OptionError("CircuitBreaker", "seconds", "a number of seconds above 0", seconds)
        errors: Any = self.errors if isinstance(self.errors, tuple) else (self.errors,)
        if not all(isinstance(each, type) and issubclass(each, BaseException) for each in errors):
            raise OptionError("CircuitBreaker", "errors", "a class of exceptions, or a tuple of them", self.errors)
        if not isinstance(self.waits, bool):
            raise OptionError("CircuitBreaker", "waits", "True or False", self.waits)


class Circuit:
    """One circuit breaker at work.

    Each call is given a ticket when it is admitted, and its result comes with that.

    Args:
        options: When it opens and closes.

    Attributes:
        options: The same.
        opened: How often it has opened.
    """

    __slots__ = ("_era", "_failed", "_state", "_trying", "_until", "opened", "options")

    def __init__(self, options: CircuitBreaker) -> None:
        """Begin closed."""
        self.options = options
        self.opened = 0
        self._state = CLOSED
        self._failed = 0  # in a row
        self._trying = 0
        self._until = 0.0  # when it is half open
        self._era = 0  # counts its changes: what was admitted in another era does not count

    def state(self, now: float) -> str:
        """Return ``"closed"``, ``"open"`` or ``"half_open"``."""
        return HALF_OPEN if self._state == OPEN and now >= self._until else self._state

    def wait(self, now: float) -> float:
        """Return the seconds until a call may be admitted, 0 if now; ``math.inf``: when the trials have ended."""
        state = self.state(now)
        if state == OPEN:
            return self._until - now
        if self._state == HALF_OPEN and self._trying >= self.options.trials:
            return math.inf
        return 0.0

    def admit(self, now: float) -> int | None:
        """Admit a call, and return its ticket; None if it must not be made."""
        if self.wait(now):
            return None
        if self._state == OPEN:
            self._become(HALF_OPEN)
        if self._state == HALF_OPEN:
            self._trying += 1
        return self._era

    def succeeded(self, ticket: int) -> None:
        """Take note that a call was answered."""
        if ticket != self._era:
            return
        self._failed = 0
        if self._state == HALF_OPEN:
            self._become(CLOSED)

    def failed(self, ticket: int, now: float) -> None:
        """Take note that a call has failed."""
        if ticket != self._era:
            return
        self._failed += 1
        if self._state == HALF_OPEN or self._failed >= self.options.failures:
            self._become(OPEN)
            self._until = now + self.options.seconds
            self.opened += 1

    def abandoned(self, ticket: int) -> None:
        """Take note that nobody knows how a call would have ended: another may try."""
        if ticket == self._era and self._state == HALF_OPEN:
            self._trying -= 1

    def _become(self, state: str) -> None:
        self._state = state
        self._era += 1
        self._failed = self._trying = 0
