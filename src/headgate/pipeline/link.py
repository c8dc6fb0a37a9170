"""The way to a source: called right here, awaited, or called in a thread of its own."""

from __future__ import annotations

import asyncio
import functools
import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from headgate.errors import HandlerError
from headgate.types import Message, Source

_BACK = ("ack", "nack", "discard", "dead_letter")


class Link:
    """Calls a source where it wants to be called.

    Args:
        source: The source.
        name: For errors and statistics.
        loop: The event loop.

    Attributes:
        direct: What tells it of outcomes is plain and does not block: it is called right here.
        fetches_directly: So is its `fetch`.
        lease: Seconds, or None.
    """

    def __init__(self, source: Source, name: str, loop: asyncio.AbstractEventLoop) -> None:
        """Look at how it is to be called."""
        self.source = source
        self.name = name
        self._loop = loop
        self._executor = ThreadPoolExecutor(1, f"headgate: source {name}") if source.blocking else None
        plain = not source.blocking
        self.direct = plain and not any(inspect.iscoroutinefunction(getattr(source, each)) for each in _BACK)
        self.fetches_directly = plain and not inspect.iscoroutinefunction(source.fetch)
        self.lease = source.lease

    def call(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a plain method right here."""
        return getattr(self.source, method)(*args, **options)

    async def acall(self, method: str, *args: Any, **options: Any) -> Any:
        """Call any method, wherever it belongs."""
        function = getattr(self.source, method)
        if self._executor is not None:
            return await self._loop.run_in_executor(self._executor, functools.partial(function, *args, **options))
        value = function(*args, **options)
        return await value if inspect.isawaitable(value) else value

    def check(self, messages: Any, count: int) -> list[Message] | None:
        """Refuse what `fetch` must not return.

        Raises:
            HandlerError: It is no list of messages, or longer than what was asked for.
        """
        if messages is None or (
            type(messages) is list
            and len(messages) <= count
            and (not messages or (isinstance(messages[0], Message) and isinstance(messages[-1], Message)))
        ):
            return messages
        expected = f"a list of at most {count} Message, or None"
        raise HandlerError(self.name, "fetch", expected, messages)

    def close(self) -> None:
        """Give the thread back."""
        if self._executor is not None:
            self._executor.shutdown(wait=False)
