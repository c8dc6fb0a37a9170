"""Drives a source as a pipeline does: one fetch at a time, in a thread if it blocks, woken or by polling."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from headgate.testing.clock import VirtualLoop
from headgate.testing.conformance import ConformanceError
from headgate.types import ACKNOWLEDGED, DEAD_LETTERED, FAILED, REQUEUED, Message, Source


class Driver:
    """Calls one source, and looks at what it answers.

    Args:
        source: The source.
        rule: The rule that is being checked, for errors.
        seed: The seed, for errors.
        number: Tells the number of a message.
        patience: Seconds to wait for what has to come.

    Attributes:
        calls: What was called, for errors.
        ended: The last fetch said that there is nothing more.
    """

    def __init__(self, source: Source, rule: str, seed: int, number: Callable[[Message], int], patience: float) -> None:
        """Call it from the loop that runs here."""
        self.source = source
        self.rule = rule
        self.seed = seed
        self._number = number
        self._numbers: dict[Message, int] = {}  # they are given another payload, to see whether that comes back
        self.patience = patience
        self.calls: list[str] = []
        self.ended = False
        self.loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._pending: asyncio.Task[Any] | None = None
        self._wanted = 0
        self._executor: ThreadPoolExecutor | None = None
        if source.blocking and not isinstance(self.loop, VirtualLoop):
            self._executor = ThreadPoolExecutor(1)
        source.wake = self._wake

    def number(self, message: Message) -> int:
        """Return the number of a message."""
        found = self._numbers.get(message)
        if found is None:
            try:
                found = self._number(message)
            except Exception as error:
                raise self.broken(f"the number of {message!r} cannot be told: {error!r}", "fetch-data") from error
            self._numbers[message] = found
        return found

    def broken(self, text: str, rule: str | None = None) -> ConformanceError:
        """Make an error."""
        return ConformanceError(rule or self.rule, self.seed, text, self.calls)

    def check(self, holds: object, text: str, rule: str | None = None) -> None:
        """Raise unless it holds."""
        if not holds:
            raise self.broken(text, rule)

    def _wake(self) -> None:
        self.loop.call_soon_threadsafe(self._woken.set)

    async def call(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method where it wants to be called."""
        function = getattr(self.source, method)
        if self.source.blocking:
            return await self.loop.run_in_executor(self._executor, functools.partial(function, *args, **options))
        value = function(*args, **options)
        return await value if inspect.isawaitable(value) else value

    async def open(self) -> None:
        """Open it."""
        self.calls.append("open")
        self.ended = False
        await self.call("open")

    async def close(self) -> None:
        """Drain and close it, as at the end of a pipeline. What a late fetch brings goes back."""
        late = await self.drain()
        if late:
            await self.nack(late, counted=False)
        self.calls.append("close")
        await self.call("close")
        if self._executor is not None:
            self._executor.shutdown()

    async def drain(self) -> list[Message]:
        """Have it hand out nothing more; return what a fetch that was under way has brought.

        Raises:
            ConformanceError: That fetch does not return.
        """
        self.calls.append("drain")
        await self.call("drain")
        if self._pending is None:
            return []
        done, _ = await asyncio.wait([self._pending], timeout=self.patience)
        if not done:
            self._pending.cancel()
            await asyncio.wait([self._pending])
            raise self.broken("a fetch that was waiting did not return after drain", "drain")
        return self._result() or []

    async def fetch(self, count: int, within: float = 0.0) -> list[Message] | None:
        """Fetch once; of an async fetch that waits longer than that, the answer comes with a later call.

        Args:
            count: How many.
            within: Seconds.
        """
        self._woken.clear()
        if self._pending is None:
            self._wanted = count
            self._pending = self.loop.create_task(self.call("fetch", count))
        if inspect.iscoroutinefunction(self.source.fetch):
            timeout = max(within, self.patience / 100)
            await asyncio.wait([self._pending], timeout=timeout)
        else:
            await asyncio.wait([self._pending])
        if not self._pending.done():
            self.calls.append(f"fetch {self._wanted} -> (waits)")
            return []
        return self._result()

    def _result(self) -> list[Message] | None:
        assert self._pending is not None  # noqa: S101 (the callers see to it)
        task, self._pending = self._pending, None
        try:
            messages: list[Message] | None = task.result()
        except Exception as error:
            self.calls.append(f"fetch {self._wanted} -> {error!r}")
            raise
        self.ended = messages is None
        if messages is None:
            self.calls.append(f"fetch {self._wanted} -> None")
            return None
        shown = f"list of {len(messages)}" if isinstance(messages, list) else repr(messages)
        self.calls.append(f"fetch {self._wanted} -> {shown}")
        self.check(type(messages) is list, f"fetch returned {messages!r}, and no list", "fetch-list")
        strangers = [each for each in messages if not isinstance(each, Message)]
        self.check(not strangers, f"fetch returned {strangers[:1]}, and no Message", "fetch-list")
        self.check(len(messages) <= self._wanted, f"{self._wanted} were asked for, {len(messages)} came", "fetch-count")
        fresh = all(each.outcome is None and each.keeper is None and each.attempts == 0 for each in messages)
        self.check(fresh, "fetch returned a message that was handed out before; each time it is a new one", "fetch-new")
        if messages:
            self.calls[-1] += f": {[(self.number(each), each.deliveries) for each in messages]}"
        return messages

    async def gather(self, count: int, within: float | None = None, *, size: int | None = None) -> list[Message]:
        """Fetch until so many have come, or the time is over; wait as a pipeline does, by `wake` and `poll`.

        Args:
            count: How many.
            within: Seconds. Default: the patience.
            size: How many at a time. Default: all.
        """
        until = self.loop.time() + (self.patience if within is None else within)
        found: list[Message] = []
        while len(found) < count:
            left = until - self.loop.time()
            messages = await self.fetch(min(count - len(found), size or count), max(left, 0.0))
            found += messages or ()
            if messages:
                continue
            left = until - self.loop.time()
            if left <= 0 or not await self._rest(left):
                break
        return found

    async def _rest(self, left: float) -> bool:
        """Wait until there is a reason to fetch again; say whether there is one."""
        if self._pending is not None:
            done, _ = await asyncio.wait([self._pending], timeout=left)
            return bool(done)
        poll = None if self.ended else self.source.poll
        polls = poll is not None and poll <= left
        try:
            async with asyncio.timeout(poll if polls else left):
                await self._woken.wait()
        except TimeoutError:
            return polls
        return True

    async def expect(self, count: int, within: float | None = None, *, size: int | None = None) -> list[Message]:
        """Fetch so many; fail if they do not come."""
        found = await self.gather(count, within, size=size)
        numbers = [self.number(each) for each in found]
        self.check(len(found) == count, f"expected {count} messages, there came {len(found)}: {numbers}")
        return found

    async def nothing(self, within: float, text: str) -> None:
        """Fail if anything comes."""
        found = await self.gather(1, within)
        self.check(not found, f"{text}: {[self.number(each) for each in found]}")

    # -- outcomes -----------------------------------------------------------------------------------------------------

    async def ack(self, messages: list[Message]) -> Any:
        """Acknowledge."""
        return await self._settle("ack", ACKNOWLEDGED, messages)

    async def discard(self, messages: list[Message]) -> Any:
        """Give up."""
        for message in messages:
            message.fail(ValueError("given up"))
        return await self._settle("discard", FAILED, messages)

    async def dead_letter(self, messages: list[Message]) -> Any:
        """Give up, and keep."""
        for message in messages:
            message.fail(ValueError("given up"))
        return await self._settle("dead_letter", DEAD_LETTERED, messages)

    async def nack(self, messages: list[Message], delay: float = 0.0, *, counted: bool = True) -> Any:
        """Give back. A pipeline fetches again after that, unasked."""
        lost = await self._settle("nack", REQUEUED, messages, delay=delay, counted=counted)
        self.ended = False
        self._woken.set()
        return lost

    async def _settle(self, method: str, outcome: str, messages: list[Message], **options: Any) -> Any:
        shown = ", ".join([str([self.number(each) for each in messages]), *(f"{k}={v}" for k, v in options.items())])
        self.calls.append(f"{method} {shown}")
        for message in messages:
            message.outcome = outcome
            if outcome in (ACKNOWLEDGED, REQUEUED):
                message.data = "(put by a handler)"
                message.key = None
        lost = await self.call(method, messages, **options)
        known = lost is None or (isinstance(lost, list) and all(any(each is m for m in messages) for each in lost))
        self.check(known, f"{method} returned {lost!r}: it has to be None or a list of some of its messages", "lost")
        return lost or []
