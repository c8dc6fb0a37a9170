"""What helps to test: virtual time, the simulators of protocol and shell, and checks for parts that you write yourself.

Nothing in the library imports this package.
"""

from headgate.testing.clock import (
    CallbackError,
    DeadlockError,
    LeftoverError,
    LoopError,
    RunawayError,
    VirtualLoop,
    run,
)
from headgate.testing.conformance import ConformanceError, check_dispatcher
from headgate.testing.sources import SourceReport, StubSource, check_source

__all__ = [
    "CallbackError",
    "ConformanceError",
    "DeadlockError",
    "LeftoverError",
    "LoopError",
    "RunawayError",
    "SourceReport",
    "StubSource",
    "VirtualLoop",
    "check_dispatcher",
    "check_source",
    "run",
]
