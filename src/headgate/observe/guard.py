"""A thread that keeps the time when the event loop cannot: it ends the process when its time is over."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, NoReturn, Protocol

PATIENCE: Final = 0.5
"""Seconds in which a loop that is not blocked prints a diagnosis by itself, and in which a last line is logged."""


class Owner(Protocol):
    """What a guard guards."""

    def too_late(self) -> None:
        """Say that the process ends now, as the loop has not managed to in time."""

    def print_diagnosis(self) -> None:
        """Print what everybody waits for; also when the loop is blocked."""

    def print_soon(self, printed: threading.Event) -> None:
        """Print it in the loop, if that runs and nobody else has."""


class Guard:
    """A thread that ends the process when its time is over, whatever the loop is doing. Signal handlers talk to it."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        # The one queue that may be put into by a signal handler, whatever the thread under it is doing.
        self._requests: queue.SimpleQueue[tuple[float, int] | str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._watch, name="headgate: guard", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread: the process has made it."""
        self._requests.put(None)
        self._thread.join(1.0)

    def expect(self, deadline: float, code: int) -> None:
        """End the process with this status if it still runs then (on the monotonic clock)."""
        self._requests.put((deadline, code))

    def tell(self) -> None:
        """Print a diagnosis."""
        self._requests.put("diagnosis")

    def _watch(self) -> None:
        deadline, code = float("inf"), 0
        while True:
            try:
                left = min(deadline - time.monotonic(), threading.TIMEOUT_MAX)
                request = self._requests.get(timeout=max(0.0, left))
            except queue.Empty:
                self._bounded(self._owner.too_late)
                leave_now(code)
            if request is None:
                return
            if isinstance(request, str):
                self._diagnose()
            else:
                deadline, code = request

    def _diagnose(self) -> None:
        printed = threading.Event()
        self._owner.print_soon(printed)
        if not printed.wait(PATIENCE):
            printed.set()
            try:
                self._owner.print_diagnosis()
            except RuntimeError:  # the loop's thread has changed what was looked at
                self._owner.print_soon(threading.Event())

    def _bounded(self, function: Callable[[], None]) -> None:
        """Call something that could wait for a lock of the blocked thread."""
        thread = threading.Thread(target=function, daemon=True)
        thread.start()
        thread.join(PATIENCE)


def leave_now(code: int) -> NoReturn:
    """End the process without waiting for threads; what was printed is not lost, if that is possible at all."""

    def flush() -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()

    thread = threading.Thread(target=flush, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    os._exit(code)
