"""A bell: whoever waits for it goes on when it rings."""

from __future__ import annotations

import asyncio


class Bell:
    """Wakes everybody who waits; who comes later waits for the next time. For one event loop."""

    __slots__ = ("_future",)

    def __init__(self) -> None:
        """Begin silent."""
        self._future: asyncio.Future[None] | None = None

    @property
    def awaited(self) -> bool:
        """Whether somebody waits."""
        return self._future is not None

    def ring(self) -> None:
        """Wake everybody."""
        future, self._future = self._future, None
        if future is not None and not future.done():
            future.set_result(None)

    def next(self) -> asyncio.Future[None]:
        """Return what is done when it rings; take it before you look whether you have to wait at all."""
        if self._future is None:
            self._future = asyncio.get_running_loop().create_future()
        return self._future
