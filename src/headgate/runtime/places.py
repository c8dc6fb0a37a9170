"""Places: where a stage runs. Some are words (``"inline"``, ``"task"``, ``"thread"``), others have options."""

from __future__ import annotations

import os
from dataclasses import dataclass

from headgate.errors import OptionError


class Place:
    """A place outside of this process. The stage itself is the same everywhere."""

    word = ""
    """What statistics and pictures call it."""


@dataclass(frozen=True)
class Process(Place):
    """A worker process on this machine, for handlers that keep a core busy.

    Workers are fresh interpreters (``spawn``: nothing is inherited but the environment). One whose stages have ended is
    used again. The stage's class, its arguments and the events have to be such that pickle or cloudpickle can take them
    across. Needs ``headgate[process]``.

    Args:
        group: Stages of the same group share one worker; events between them do not leave it. Default None: this stage
            has a worker of its own.
        max_bytes: The most that one message of events may weigh, in bytes; a larger batch goes in several messages.
            A single event that is larger crashes the stage that sends it. Default 64 MiB.
        budget: Bytes of events that may be on the way to one stage and not handled yet, beside its ``max_demand``.
            At least one batch is always let through. Default 256 MiB.
    """

    group: str | None = None
    max_bytes: int = 64 << 20
    budget: int = 256 << 20

    word = "process"

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            OptionError: One is of the wrong type or out of range.
        """
        if self.group is not None and (not isinstance(self.group, str) or not self.group):
            raise OptionError("Process", "group", "a string that is not empty, or None", self.group)
        for option in ("max_bytes", "budget"):
            value = getattr(self, option)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise OptionError("Process", option, "a number of bytes of at least 1", value)


def cores() -> int:
    """Return how many cores this process may use, at least 1: the number of workers that keeps them busy."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not every system has it
        return os.cpu_count() or 1
