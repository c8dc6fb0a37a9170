"""Closing once: it goes on when whoever waits for it is cancelled, and who comes later waits for the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Closing:
    """The end of a store, which may come again after it was opened again.

    Args:
        end: Gives everything back.
    """

    def __init__(self, end: Callable[[], Awaitable[None]]) -> None:
        """Begin with nothing to do."""
        self._end = end
        self._task: asyncio.Task[None] | None = None

    async def wait(self, *, opened: bool) -> None:
        """Wait until it is closed; it begins now where that is not under way.

        Args:
            opened: Whether there is something to close.
        """
        if self._task is None:
            if not opened:
                return
            self._task = asyncio.create_task(self._run(), name="headgate: log closing")
        await asyncio.shield(self._task)

    async def _run(self) -> None:
        try:
            await self._end()
        finally:
            self._task = None
