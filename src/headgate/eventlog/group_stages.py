"""A group as stages: a producer of a member's events, and a consumer that marks them as handled."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headgate.errors import FencedError
from headgate.eventlog.record import Recorded
from headgate.eventlog.stages import Taking
from headgate.stage import Consumer

if TYPE_CHECKING:
    from headgate.eventlog.groups import Group


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a call of it gives something to await, as far as can be seen without one."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


class GroupProducer(Taking):
    """Gives the events of a member's partitions."""

    def __init__(self, group: Group) -> None:
        """Keep the member."""
        super().__init__()
        self._group = group

    async def started(self) -> None:
        """Join."""
        await self._group.join()

    async def take(self, count: int) -> list[Recorded]:
        """Wait for events."""
        return await self._group.take(count)

    async def terminate(self, reason: Any) -> None:
        """Leave."""
        try:
            await super().terminate(reason)
        finally:
            await self._group.leave()


class GroupConsumer(Consumer):
    """Hands events to a function, and marks them as handled."""

    def __init__(self, group: Group, handler: Callable[..., Any], transaction: bool) -> None:  # noqa: FBT001 (of a recipe)
        """Keep the function."""
        self._group = group
        self._handler = handler
        self._transaction = transaction

    async def handle_events(self, events: Any, source: Any) -> None:  # noqa: ARG002 (a callback's form)
        """Handle, then mark."""
        batch = list(events)
        if self._transaction:
            await self._handle_in_transaction(batch)
            return
        result = self._handler(batch)
        if inspect.isawaitable(result):
            await result
        with contextlib.suppress(FencedError):  # who has them by now handles them again
            await self._group.done(batch)

    async def _handle_in_transaction(self, batch: list[Recorded]) -> None:
        while batch:
            try:
                await self._group.done_in(batch, functools.partial(self._handler, batch))
            except FencedError:  # who has some of them by now handles them
                left = self._group.mine(batch)
                if len(left) == len(batch):
                    raise
                batch = left
            else:
                return
