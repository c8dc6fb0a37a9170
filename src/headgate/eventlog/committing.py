"""Group commit: what several tasks append at the same time is written in one transaction."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from headgate.eventlog.bell import Bell
from headgate.eventlog.planning import Appended, Order

Result = list[Appended] | Exception
Write = Callable[[list[Sequence[Order]]], Awaitable[list[Result]]]

AT_ONCE: Final = 20_000
"""Events in one transaction, unless a single append has more."""


class Committer:
    """Hands appends to a writer, one transaction at a time.

    Args:
        write: Writes some appends in one transaction, and says for each what became of it.
        written: Called after each transaction.
    """

    def __init__(self, write: Write, written: Callable[[], None]) -> None:
        """Begin with nothing to do."""
        self._write = write
        self._written = written
        self._queue: deque[tuple[Sequence[Order], asyncio.Future[list[Appended]]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._idle = Bell()

    async def append(self, orders: Sequence[Order]) -> list[Appended]:
        """Wait until an append is written. Cancelled while it waits for its turn, it is not written."""
        future: asyncio.Future[list[Appended]] = asyncio.get_running_loop().create_future()
        job = (orders, future)
        self._queue.append(job)
        if self._task is None:  # it begins in the next turn: what is appended in this one goes together
            self._task = asyncio.get_running_loop().create_task(self._run(), name="headgate: log committer")
        try:
            return await future
        except asyncio.CancelledError:
            if job in self._queue:
                self._queue.remove(job)
            raise

    async def drained(self) -> None:
        """Wait until nothing is left to write."""
        while self._task is not None:
            await self._idle.next()

    async def _run(self) -> None:
        try:
            while self._queue:
                await self._turn()
        finally:
            self._task = None
            self._idle.ring()
            while self._queue:  # this task was cancelled: the loop ends
                self._queue.popleft()[1].cancel()

    async def _turn(self) -> None:
        batch: list[tuple[Sequence[Order], asyncio.Future[list[Appended]]]] = []
        size = 0
        while self._queue and (not batch or size < AT_ONCE):
            job = self._queue.popleft()
            batch.append(job)
            size += sum(order.size for order in job[0])
        results: Sequence[Any]
        try:
            results = await self._write([orders for orders, _ in batch])
        except Exception as error:  # noqa: BLE001 (whoever appends gets it)
            results = [error] * len(batch)
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():  # cancelled meanwhile
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)
        self._written()
