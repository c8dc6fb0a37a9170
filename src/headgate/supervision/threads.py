"""Threads for children that are plain functions."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any

from headgate.errors import HandlerError

_Job = tuple[Callable[[], Any], Callable[[BaseException | None], None]]


class Threads:
    """As many threads as there are functions to run; one that has nothing to run waits for the next.

    An executor of the standard library waits for its threads when the interpreter ends, so that one child that never
    ends keeps the whole program; and it has a bound of its own, which a child like that would use up.

    Args:
        loop: Where outcomes are told; everything but the functions runs there.
        name: Of the stage.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        """Start with none."""
        self._loop = loop
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._count = 0
        self._idle = 0

    def run(self, call: Callable[[], Any], came: Callable[[BaseException | None], None]) -> None:
        """Run a function, then tell on the loop how it came out."""
        self._jobs.put((call, came))
        if self._idle:
            self._idle -= 1
            return
        self._count += 1
        name = f"headgate: {self._name} child {self._count}"
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def close(self) -> None:
        """Let every thread end, those that are busy after what they are at."""
        for _ in range(self._count):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            call, came = job
            error: BaseException | None = None
            try:
                value = call()
                if hasattr(type(value), "__await__"):
                    if hasattr(value, "close"):  # a coroutine that nobody awaits warns unless it is closed
                        value.close()
                    hint = "a value, not an awaitable (a plain function runs in a thread; declare it with 'async def')"
                    error = HandlerError(self._name, "the child", hint, value)
                value = None
            except BaseException as raised:  # noqa: BLE001 (the user's function)
                error = raised
            try:
                self._loop.call_soon_threadsafe(self._over, came, error)
            except RuntimeError:  # the loop is closed: there is nobody left to tell
                return
            job = call = came = error = None  # type: ignore[assignment]  # nothing is kept while it waits

    def _over(self, came: Callable[[BaseException | None], None], error: BaseException | None) -> None:
        self._idle += 1
        came(error)
