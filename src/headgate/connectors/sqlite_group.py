"""Puts of many tasks at once are committed together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

from headgate.connectors.sqlite_records import Row

Insert = Callable[[Sequence[Row]], list[int | None]]


class Group:
    """Collects rows on each event loop while the ones before are being committed, in a thread, then commits them.

    A commit costs as much for a hundred messages as for one; so tasks that each put one message are as quick together
    as one that puts a batch.

    Args:
        insert: Commits rows, and returns their ids.
    """

    def __init__(self, insert: Insert) -> None:
        """Begin with nothing."""
        self._insert = insert
        self._waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, list[tuple[Row, asyncio.Future[int | None]]]] = (
            WeakKeyDictionary()
        )
        self._tasks: set[asyncio.Task[None]] = set()

    async def put(self, row: Row) -> int | None:
        """Wait until a row is committed; return its id."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int | None] = loop.create_future()
        waiting = self._waiting.get(loop)
        if waiting is None:  # nobody commits on this loop
            self._waiting[loop] = [(row, future)]
            task = loop.create_task(self._commit(loop), name="headgate: group commit")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            waiting.append((row, future))
        return await future

    async def _commit(self, loop: asyncio.AbstractEventLoop) -> None:
        batch: list[tuple[Row, asyncio.Future[int | None]]] = []
        try:
            while batch := self._waiting[loop]:
                self._waiting[loop] = []
                try:
                    ids = await asyncio.to_thread(self._insert, [row for row, _ in batch])
                except Exception as error:  # noqa: BLE001 (it is for those who wait)
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                else:
                    for (_, future), number in zip(batch, ids, strict=True):
                        if not future.done():
                            future.set_result(number)
        finally:
            for _, future in (*batch, *self._waiting.pop(loop)):  # only when this task was cancelled
                future.cancel()
