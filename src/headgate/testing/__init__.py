"""What helps to test: the simulator of the protocol, and checks for parts that you write yourself.

Nothing in the library imports this package.
"""

from headgate.testing.conformance import ConformanceError, check_dispatcher

__all__ = ["ConformanceError", "check_dispatcher"]
