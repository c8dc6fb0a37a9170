"""`from_iterable`: a producer over anything that can be iterated, plain or async."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any, Final

from headgate.errors import OptionError
from headgate.protocol.batching import cut, is_batch
from headgate.protocol.messages import End, Subscription
from headgate.runtime.options import Child
from headgate.stage import Producer

LINGER: Final = 0.02
"""Seconds after which a slow iterable's events are sent although more were asked for."""
_MORE: Final = object()


def from_iterable(
    iterable: Iterable[Any] | AsyncIterable[Any], *, on_cancel: str = "continue", **options: Any
) -> Child:
    """Make a producer that gives the elements of an iterable, and ends when they are all handled.

    Elements are taken only as they are asked for. A sequence is cut into batches without copying; a slow iterable gives
    what it has instead of waiting until it has all that was asked for. One whose ``next`` blocks belongs in
    ``place="thread"``.

    Args:
        iterable: A sequence (also a numpy array), an iterable or an async iterable.
        on_cancel: When the last consumer leaves: ``"continue"`` (default) or ``"stop"``.
        **options: The options of `Child`.

    Raises:
        OptionError: It cannot be iterated, or an option is wrong.
    """
    if on_cancel not in ("continue", "stop"):
        raise OptionError("from_iterable", "on_cancel", "'continue' or 'stop'", on_cancel)
    options.setdefault("id", options.get("name") or "from_iterable")
    if isinstance(iterable, AsyncIterable):
        return Child(AsyncIterableProducer, iterable, on_cancel, **options)
    if is_batch(iterable):
        return Child(SequenceProducer, iterable, on_cancel, **options)
    if isinstance(iterable, Iterable):
        return Child(IterableProducer, iterable, on_cancel, **options)
    raise OptionError("from_iterable", "iterable", "a sequence, an iterable or an async iterable", iterable)


class _Source(Producer):
    """What the three have in common."""

    def __init__(self, on_cancel: str) -> None:
        self._on_cancel = on_cancel

    def handle_cancel(self, reason: End, peer: Subscription) -> None:  # noqa: ARG002 (a callback's form)
        """End with the last consumer, if that was asked for."""
        if self._on_cancel == "stop" and not self.stage.consumers:
            self.stage.stop()

    def finish(self) -> None:
        """Say that there is nothing more; what the callback at work returns still goes out."""
        self.stage.finish()


class SequenceProducer(_Source):
    """Gives slices of a sequence."""

    def __init__(self, sequence: Any, on_cancel: str) -> None:
        """Start at the beginning."""
        super().__init__(on_cancel)
        self._sequence = sequence
        self._at = 0

    def handle_demand(self, demand: int) -> Any:
        """Give the next slice."""
        start, self._at = self._at, min(self._at + demand, len(self._sequence))
        if self._at == len(self._sequence):
            self.finish()
        return cut(self._sequence, start, self._at)


class IterableProducer(_Source):
    """Gives elements of a plain iterator."""

    def __init__(self, iterable: Iterable[Any], on_cancel: str) -> None:
        """Begin to iterate."""
        super().__init__(on_cancel)
        self._iterator: Iterator[Any] = iter(iterable)
        self._slow = False

    def handle_demand(self, demand: int) -> list[Any]:
        """Take what is asked for, or what comes within the linger time; the rest follows by and by."""
        if self._slow:  # a cast is on its way, which serves all that is owed
            return []
        return self._pull(demand)

    def handle_info(self, message: Any) -> None:
        """Crash with what the iterator raised, after all that came before it."""
        if isinstance(message, BaseException):
            raise message

    def handle_cast(self, message: Any) -> list[Any]:  # noqa: ARG002 (a callback's form)
        """Go on for what is still owed."""
        self._slow = False
        return self._pull(self.stage.demand)

    def _pull(self, count: int) -> list[Any]:
        clock = time.monotonic
        begun = clock()
        events: list[Any] = []
        chunk = 1  # grows as long as the iterator is quick, so that the clock costs nothing
        while len(events) < count:
            wanted = min(chunk, count - len(events))
            before = len(events)
            try:
                events.extend(itertools.islice(self._iterator, wanted))  # keeps what came before one that raises
            except Exception as error:  # noqa: BLE001 (the user's iterator)
                self.stage.info(error)
                self._iterator = iter(())
                break
            if len(events) - before < wanted:
                self.finish()
                break
            if clock() - begun > LINGER:
                if len(events) < count:
                    self._slow = True
                    self.stage.cast(_MORE)
                break
            chunk *= 2
        return events


async def cancelled(task: asyncio.Future[Any]) -> None:
    """Cancel a task, and wait until it has ended: by that, or by what it has raised.

    Unlike ``await task``, it does not take the cancellation of the one who waits here for that of the task.
    """
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # it has been looked at


class Pumped(Producer):
    """A producer with a task of its own, its pump, which emits events as they come, as long as they are wanted."""

    def __init__(self) -> None:
        """Begin without a task."""
        self._wanted = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    async def handle_demand(self, demand: int) -> None:  # noqa: ARG002 (what is owed is on the stage)
        """Let the pump run."""
        if self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._run(), name=f"headgate: {self.stage.name} pump")
        self._wanted.set()

    async def handle_info(self, message: Any) -> None:
        """Crash with what the pump raised, after all that came before it."""
        if isinstance(message, BaseException):
            raise message

    async def terminate(self, reason: Any) -> None:  # noqa: ARG002 (a callback's form)
        """Stop the pump."""
        if self._pump is not None:
            await cancelled(self._pump)

    async def demanded(self) -> None:
        """Wait until something is owed."""
        while self.stage.demand <= 0:
            self._wanted.clear()
            await self._wanted.wait()

    async def pump(self) -> None:
        """Emit what is owed, for ever or until the stage is finished; what it raises crashes the stage."""
        raise NotImplementedError

    async def _run(self) -> None:
        try:
            await self.pump()
        except Exception as error:  # noqa: BLE001 (the stage crashes with it)
            self.stage.info(error)


class AsyncIterableProducer(_Source, Pumped):
    """Gives elements of an async iterator as they come."""

    def __init__(self, iterable: AsyncIterable[Any], on_cancel: str) -> None:
        """Keep the iterable; it is iterated from the first demand on."""
        _Source.__init__(self, on_cancel)
        Pumped.__init__(self)
        self._iterator: AsyncIterator[Any] = aiter(iterable)
        self._events: list[Any] = []
        self._flushing = False

    async def terminate(self, reason: Any) -> None:
        """Stop iterating."""
        await super().terminate(reason)
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()

    async def pump(self) -> None:
        """Iterate, up to what is owed."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                if self.stage.demand <= len(self._events):
                    self._flush()
                    await self.demanded()
                event = await anext(self._iterator)  # meanwhile there may be another list of events
                self._events.append(event)
                if not self._flushing:  # all that comes before the iterator waits goes out together
                    self._flushing = True
                    loop.call_soon(self._flush)
        except StopAsyncIteration:
            self._flush()
            self.finish()
        except Exception:
            self._flush()
            raise

    def _flush(self) -> None:
        self._flushing = False
        if self._events:
            events, self._events = self._events, []
            self.stage.emit(events)
