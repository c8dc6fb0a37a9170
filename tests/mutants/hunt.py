"""One hunt: plant a bug in this process, and run seeds until one of them fails."""

from __future__ import annotations

import signal
import time

from headgate.testing.simulation import FAMILIES, SimulationError, run_seed
from tests.mutants.planted import MUTANTS

SEEDS = 1000
SECONDS = 10
"""A seed that takes so long hangs: the mutant counts as found."""


class _HangError(BaseException):
    """The alarm has gone off."""


def hunt(name: str | None) -> tuple[str, str, int, float]:
    """Plant a bug (None: no bug) and run seeds until one fails.

    Returns:
        Its name, the rule that was found to be broken ("" if none), the number of that family's seeds it took, and
        seconds.
    """
    began = time.perf_counter()
    if name is not None:
        MUTANTS[name]()
    families = list(FAMILIES)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, _alarm)
    for seed in range(SEEDS * len(families)):
        family = families[seed % len(families)]
        _watch(SECONDS)
        try:
            run_seed(family, seed // len(families))
        except SimulationError as failure:
            return name or "", f"{family}: {failure.rule}", seed // len(families) + 1, time.perf_counter() - began
        except _HangError:
            return name or "", f"{family}: it hangs", seed // len(families) + 1, time.perf_counter() - began
    _watch(0)
    return name or "", "", SEEDS * len(families), time.perf_counter() - began


def _watch(seconds: int) -> None:
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def _alarm(*_: object) -> None:
    raise _HangError
