"""`IterableSource`: messages from anything that can be iterated, plain or async."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Final, Self

from headgate.connectors.options import Delays, check_choice, check_function
from headgate.errors import OptionError
from headgate.types import Message, Source

POLL: Final = 0.2
"""Seconds after which a source that blocks looks whether a delay is over."""


class IterableSource(Source):
    """Hands out the elements of an iterable, and is at its end when they are all handed out.

    Elements are taken only as they are asked for; of an async iterable one more, as soon as it is there. What goes back
    is kept in memory and handed out again, before newer ones and in the order of the iterable.

    When the iterable raises, `fetch` raises the same after everything before it was handed out. If the iterable ends
    with that, as a generator does, it has not come to its end: each further `fetch` raises again.

    Opened again, it goes on where it was, with what had no outcome first. An async iterator is closed with it, and
    then has nothing more.

    Args:
        iterable: A sequence (also an array, of which slices are taken), an iterable or an async iterable.
        key: A function of an element: the key of its message. One that raises fails the message.
        blocking: Its ``next`` blocks: it is called in a thread. Not for async iterables.
        name: For statistics and errors.
        clock: Seconds, for delays. Default: the event loop's time, or ``time.monotonic`` where none runs.

    Raises:
        OptionError: It cannot be iterated, or an option is wrong.
    """

    redelivers = True

    def __new__(cls, iterable: Any = None, **options: Any) -> Self:  # noqa: ARG004 (for __init__)
        """Choose how it is read."""
        kind: Any = cls
        if cls is IterableSource:
            if isinstance(iterable, AsyncIterable):
                kind = AsyncIterableSource
            elif _is_sequence(iterable):
                kind = SequenceSource
        made: Self = super().__new__(kind)
        return made

    def __init__(  # pyright: ignore[reportInconsistentConstructor]  # it checks what __new__ only looks at
        self,
        iterable: Iterable[Any] | AsyncIterable[Any],
        *,
        key: Callable[[Any], Any] | None = None,
        blocking: bool = False,
        name: str = "",
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Check the options, and begin to iterate."""
        where = "IterableSource"
        check_function(where, "key", key, "a function of an element, or None")
        check_choice(where, "blocking", blocking, (True, False))
        check_function(where, "clock", clock, "a function without arguments that returns seconds, or None")
        if not isinstance(name, str):
            raise OptionError(where, "name", "a string", name)
        self.name = name or where
        self.blocking = blocking
        self.poll = POLL if blocking else None
        self._key = key
        self._delays = Delays(clock)
        self._returned: list[tuple[int, Any, int]] = []  # a heap: place in the iterable, element, deliveries so far
        self._under_way: dict[Message, Any] = {}  # and where each comes from, as `_origin` knows it
        self._place = 0  # of the next element
        self._over = False
        self._error: Exception | None = None  # raised by the iterable, which has given nothing since
        self._told = False  # and `fetch` has raised it
        self._draining = False
        self._begin(iterable)

    def _begin(self, iterable: Any) -> None:
        if not isinstance(iterable, Iterable):
            expected = "a sequence, an iterable or an async iterable"
            raise OptionError("IterableSource", "iterable", expected, iterable)
        self._iterator: Iterator[Any] = iter(iterable)

    # -- the source ---------------------------------------------------------------------------------------------------

    def open(self) -> Any:
        """Begin, or begin again: what has no outcome is waiting again."""
        self._draining = False
        self._delays.open()
        for message, origin in self._under_way.items():
            heapq.heappush(self._returned, (*self._origin(origin), message.deliveries))
        self._under_way.clear()

    def close(self) -> Any:
        """Set no alarms any more."""
        self._delays.close()

    def drain(self) -> Any:
        """Hand out nothing more, until it is opened again."""
        self._draining = True

    def fetch(self, count: int) -> Any:
        """Hand out what came back, then new elements."""
        if self._draining:
            return []
        messages = self._again(count)
        if len(messages) < count and not self._over and (self._error is None or self._told):
            self._took(messages, self._read(count - len(messages)))
        return messages or self._nothing()

    def ack(self, messages: Sequence[Message]) -> Any:
        """Forget messages that were handled."""
        return self._take_back(messages)[1]

    def nack(self, messages: Sequence[Message], delay: float = 0.0, *, counted: bool = True) -> Any:
        """Take messages back: they go out again before newer ones."""
        origins, lost = self._take_back(messages)
        due = self._delays.clock() + delay if delay else 0.0
        for message, origin in zip(messages, origins, strict=True):
            if origin is None:
                continue
            back = (*self._origin(origin), message.deliveries if counted else message.deliveries - 1)
            if delay:
                self._delays.add(due, back)
            else:
                heapq.heappush(self._returned, back)
        self._delays.arm(self.wake)
        self.wake()
        return lost

    # -- inside -------------------------------------------------------------------------------------------------------

    def _take_back(self, messages: Sequence[Message]) -> tuple[list[Any], list[Message] | None]:
        """Return where messages come from that are under way no more (None: it was not), and those that were not."""
        before = len(self._under_way)
        origins = list(map(self._under_way.pop, messages, repeat(None)))
        if before - len(self._under_way) == len(messages):
            return origins, None
        return origins, [message for message, origin in zip(messages, origins, strict=True) if origin is None]

    def _origin(self, origin: Any) -> tuple[int, Any]:
        """Return the place in the iterable and the element."""
        place, element = origin
        return place, element

    def _origins(self, place: int, elements: Sequence[Any]) -> Iterable[Any]:
        """Return what to remember of elements, from a place on."""
        return zip(itertools.count(place), elements, strict=False)

    def _again(self, count: int) -> list[Message]:
        """Hand out what came back."""
        messages: list[Message] = []
        if self._delays:
            for back in self._delays.due():
                heapq.heappush(self._returned, back)
        while self._returned and len(messages) < count:
            place, element, deliveries = heapq.heappop(self._returned)
            message = self._message(element, deliveries + 1)
            self._under_way[message] = next(iter(self._origins(place, [element])))
            messages.append(message)
        return messages

    def _message(self, element: Any, deliveries: int = 1) -> Message:
        message = Message(element, deliveries=deliveries)
        if self._key is not None:
            try:
                message.key = self._key(element)
            except Exception as error:  # noqa: BLE001 (the user's function)
                message.fail(error)
        return message

    def _read(self, count: int) -> Sequence[Any]:
        """Take new elements."""
        elements: list[Any] = []
        try:
            elements.extend(itertools.islice(self._iterator, count))  # keeps what came before one that raises
        except Exception as error:  # noqa: BLE001 (the user's iterator)
            self._failed(error)
        else:
            if elements:
                self._error = None
            if len(elements) < count:
                self._end()
        return elements

    def _took(self, messages: list[Message], elements: Sequence[Any]) -> None:
        """Hand out new elements."""
        fresh = list(map(Message if self._key is None else self._message, elements))
        self._under_way.update(zip(fresh, self._origins(self._place, elements), strict=True))
        self._place += len(fresh)
        messages.extend(fresh)

    def _failed(self, error: Exception) -> None:
        self._error, self._told = error, False

    def _end(self) -> None:
        """Take note that the iterable gives nothing more; right after an error that is no end."""
        if self._error is None:
            self._over = True
        elif self._told:
            self.failed = True
        self._told = False

    def _nothing(self) -> list[Message] | None:
        """Say why there is nothing to hand out.

        Raises:
            Exception: The iterable has raised it.
        """
        if self._error is not None and not self._told:
            self._told = True  # next time the iterable is asked again
            raise self._error
        self._delays.arm(self.wake)
        return None if self._over and not self._delays else []


class SequenceSource(IterableSource):
    """Hands out slices of a sequence."""

    def _begin(self, iterable: Any) -> None:
        self._sequence = iterable

    def _read(self, count: int) -> Sequence[Any]:
        stop = self._place + count
        elements: Sequence[Any] = self._sequence[self._place : stop]
        if stop >= len(self._sequence):
            self._end()
        return elements

    def _origin(self, origin: Any) -> tuple[int, Any]:
        return origin, self._sequence[origin]

    def _origins(self, place: int, elements: Sequence[Any]) -> Iterable[Any]:
        return range(place, place + len(elements))


class AsyncIterableSource(IterableSource):
    """Hands out elements of an async iterator as they come."""

    def _begin(self, iterable: Any) -> None:
        if self.blocking:
            raise OptionError("IterableSource", "blocking", "False, as the iterable is async", self.blocking)
        self._async_iterator: AsyncIterator[Any] = aiter(iterable)
        self._ready: deque[Any] = deque()
        self._wanted = 0
        self._asked = asyncio.Event()
        self._stirred = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin, or begin again."""
        super().open()
        self._asked, self._stirred = asyncio.Event(), asyncio.Event()  # of this loop
        self._start()

    async def close(self) -> None:
        """Stop iterating, and close the iterator."""
        super().close()
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait([self._pump])
            self._pump = None
        if self._error is None:
            self._over = True
        close = getattr(self._async_iterator, "aclose", None)
        if close is not None:
            await close()

    async def drain(self) -> None:
        """Hand out nothing more, until it is opened again; a `fetch` that waits returns."""
        super().drain()
        self._stirred.set()

    async def nack(self, messages: Sequence[Message], delay: float = 0.0, *, counted: bool = True) -> Any:
        """Take messages back: they go out again before newer ones, also by a `fetch` that waits."""
        lost = super().nack(messages, delay, counted=counted)
        self._stirred.set()
        return lost

    async def fetch(self, count: int) -> list[Message] | None:
        """Hand out what is there, at least one; wait until there is."""
        self._wanted = count
        self._asked.set()
        if self._told:
            self._start()
        try:
            while not self._draining:
                self._stirred.clear()
                messages = self._again(count)
                room = min(count - len(messages), len(self._ready))
                self._took(messages, [self._ready.popleft() for _ in range(room)])
                if messages:
                    return messages
                if self._over or (self._error is not None and not self._told):
                    return self._nothing()
                await self._wait()
        finally:
            self._wanted = 0
        return []

    def _start(self) -> None:
        if self._pump is None and not self._over:
            self._pump = asyncio.get_running_loop().create_task(self._run(), name=f"headgate: {self.name} pump")

    async def _wait(self) -> None:
        """Wait for an element, for something that comes back, or until a delay is over."""
        left = self._delays.left()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left):
                await self._stirred.wait()

    async def _run(self) -> None:
        """Take elements as long as somebody waits for them; one that is there is kept, whatever becomes of `fetch`."""
        try:
            while True:
                while len(self._ready) >= self._wanted:
                    self._asked.clear()
                    await self._asked.wait()
                self._ready.append(await anext(self._async_iterator))
                self._error = None
                self._stirred.set()
        except StopAsyncIteration:
            self._end()
        except Exception as error:  # noqa: BLE001 (the user's iterator)
            self._failed(error)
        self._pump = None
        self._stirred.set()


def _is_sequence(value: Any) -> bool:
    """Say whether slices of it can be taken."""
    if isinstance(value, Sequence):
        return True
    return hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, Mapping)
