"""`MemoryQueue`: a queue within the process, for pipelines that are fed by the program itself, and for tests."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from threading import Lock
from typing import Any, Final

from headgate.connectors.lines import Entry, Lines
from headgate.connectors.options import check_choice, check_count, check_function, check_seconds
from headgate.errors import OptionError, QueueClosedError, QueueFullError
from headgate.types import Message, Source

_GONE: Final = object()


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that was given up.

    Attributes:
        data: The payload, as it was put.
        reason: Why it was given up.
        traceback: The same as text.
        deliveries: How often it had been handed out.
        key: As it was put.
        metadata: As it was put, or None.
        priority: As it was put.
        time: Unix time in seconds, when it was given up.
    """

    data: Any
    reason: Any
    traceback: str
    deliveries: int
    key: Any
    metadata: dict[str, Any] | None
    priority: int
    time: float


class _Putter:
    """Somebody who waits for room."""

    __slots__ = ("future", "granted", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()
        self.granted = False

    def grant(self) -> None:
        """Let it go on."""
        self.granted = True
        self.loop.call_soon_threadsafe(self._go_on)

    def _go_on(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class MemoryQueue(Source):
    """A queue in memory. What was fetched and not acknowledged is handed out again when it is opened again.

    It can be put to from any thread, before it is opened and after that. Handing out ``n`` messages costs about as much
    as making them.

    Args:
        payloads: What it has from the beginning.
        size: How many messages may wait in it, those that come back not counted; None (default): any number.
        ordered: Messages of one key go out in order, none of them while an earlier one is under way. The keys take
            turns then.
        key: A function of a payload: the key of messages that are put without one.
        max_deliveries: How often a message is handed out before it is a dead letter; None (default): up to the
            pipeline.
        letters_size: How many dead letters are kept; of more, the oldest are dropped, and counted.
        name: For statistics and errors.
        clock: Seconds, for delays. Default: the event loop's time, or ``time.monotonic`` where none runs.

    Raises:
        OptionError: An option is of the wrong type or out of range.
        QueueFullError: There are more payloads than it has room for.
    """

    redelivers = True
    lookahead = 1_000_000  # what is fetched ahead is in memory as before
    keeps_letters = True

    def __init__(
        self,
        payloads: Iterable[Any] = (),
        *,
        size: int | None = None,
        ordered: bool = False,
        key: Callable[[Any], Any] | None = None,
        max_deliveries: int | None = None,
        letters_size: int = 10_000,
        name: str = "",
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Check the options."""
        where = type(self).__name__
        check_count(where, "size", size, 1, optional=True)
        check_choice(where, "ordered", ordered, (True, False))
        check_function(where, "key", key, "a function of a payload, or None")
        check_count(where, "max_deliveries", max_deliveries, 1, optional=True)
        check_count(where, "letters_size", letters_size, 0)
        check_function(where, "clock", clock, "a function without arguments that returns seconds, or None")
        if not isinstance(name, str):
            raise OptionError(where, "name", "a string", name)
        self.name = name
        self.size = size
        self.ordered = ordered
        self.max_deliveries = max_deliveries
        self._key = key
        self._lock = Lock()
        self._lines = Lines(ordered=ordered, clock=clock)
        self._putters: deque[_Putter] = deque()
        self._granted = 0  # of those, who have a place and have not taken it yet
        self._closed = False
        self._draining = False
        self._letters: deque[Letter] = deque(maxlen=letters_size)
        self._counts: dict[str, int] = dict.fromkeys(
            ("put", "acknowledged", "failed", "dead_lettered", "requeued", "dropped"), 0
        )
        self.put_many(payloads)

    # -- what goes in -------------------------------------------------------------------------------------------------

    def put(
        self,
        data: Any,
        *,
        key: Any = None,
        metadata: dict[str, Any] | None = None,
        priority: int = 0,
        delay: float = 0.0,
    ) -> None:
        """Put one message. May be called from any thread.

        Args:
            data: The payload; None as well.
            key: What it belongs to. Default: what the option ``key`` says.
            metadata: To go along.
            priority: Those of a higher one go out first. With ``ordered`` a key keeps its order all the same.
            delay: Seconds from now on before which it is not handed out.

        Raises:
            QueueFullError: There is no room.
            QueueClosedError: `close_input` was called.
            OptionError: An option is out of range.
        """
        plain = key is None and metadata is None and not priority and not delay and self._key is None
        entry = data if plain and type(data) is not Entry else self._entry(data, key, metadata, priority, delay)
        with self._lock:
            if self._closed or self.size is not None:
                self._check_room(1)
            self._lines.add(entry, delay)
            self._counts["put"] += 1
        self.wake()

    async def aput(
        self,
        data: Any,
        *,
        key: Any = None,
        metadata: dict[str, Any] | None = None,
        priority: int = 0,
        delay: float = 0.0,
    ) -> None:
        """Put one message, and wait until there is room. Whoever waits first is served first.

        Args:
            data: As of `put`.
            key: As of `put`.
            metadata: As of `put`.
            priority: As of `put`.
            delay: As of `put`, from when there is room.

        Raises:
            QueueClosedError: `close_input` was called, perhaps meanwhile.
            OptionError: An option is out of range.
        """
        entry = self._entry(data, key, metadata, priority, delay)
        putter: _Putter | None = None
        with self._lock:
            try:
                self._check_room(1)
                self._enter(entry, delay)
            except QueueFullError:
                putter = _Putter(asyncio.get_running_loop())
                self._putters.append(putter)
        if putter is not None:
            await self._wait_for_room(putter)
            with self._lock:
                self._granted -= 1
                if self._closed:
                    raise QueueClosedError(self.name or type(self).__name__)
                self._enter(entry, delay)
        self.wake()

    def put_many(
        self,
        payloads: Iterable[Any],
        *,
        key: Callable[[Any], Any] | None = None,
        priority: int = 0,
        delay: float = 0.0,
    ) -> None:
        """Put many messages, or none of them. May be called from any thread.

        Args:
            payloads: Of each.
            key: A function of a payload: its key. Default: what the option ``key`` says.
            priority: As of `put`, of all of them.
            delay: As of `put`, of all of them.

        Raises:
            QueueFullError: There is not enough room; none was put.
            QueueClosedError: `close_input` was called.
            OptionError: An option is out of range.
        """
        check_function("put_many", "key", key, "a function of a payload, or None")
        payloads = list(payloads)
        key = key or self._key
        if key is None and not priority and not delay:
            with self._lock:
                self._check_room(len(payloads))
                self._lines.add_bare(payloads)
                self._counts["put"] += len(payloads)
        else:
            entries = [self._entry(data, key and key(data), None, priority, delay) for data in payloads]
            with self._lock:
                self._check_room(len(entries))
                for entry in entries:
                    self._enter(entry, delay)
        if payloads:
            self.wake()

    def close_input(self) -> None:
        """Take no more: `fetch` says that there is nothing more, once everything is handed out."""
        with self._lock:
            self._closed = True
            while self._putters:
                self._granted += 1
                self._putters.popleft().grant()  # it will see
        self.wake()

    def _entry(self, data: Any, key: Any, metadata: dict[str, Any] | None, priority: int, delay: float) -> Any:
        if self._key is not None and key is None:
            key = self._key(data)
        if key is None and metadata is None and not priority and not delay:
            return data if type(data) is not Entry else Entry(data)
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise OptionError("put", "priority", "an integer", priority)
        check_seconds("put", "delay", delay)
        return Entry(data, key, metadata, priority)

    def _check_room(self, count: int) -> None:
        name = self.name or type(self).__name__
        if self._closed:
            raise QueueClosedError(name)
        size = self.size
        if size is not None and count and (self._putters or self._lines.size + self._granted + count > size):
            raise QueueFullError(name, size, count)

    def _enter(self, entry: Any, delay: float) -> None:
        """Take a new message in."""
        self._lines.add(entry, delay)
        self._counts["put"] += 1

    async def _wait_for_room(self, putter: _Putter) -> None:
        try:
            await putter.future
        except BaseException:
            with self._lock:
                if putter.granted:
                    self._granted -= 1
                    self._admit()
                else:
                    self._putters.remove(putter)
            raise

    def _admit(self) -> None:
        """Let those in who wait for room, as far as there is some."""
        assert self.size is not None  # noqa: S101 (else nobody waits)
        while self._putters and self._lines.size + self._granted < self.size:
            putter = self._putters.popleft()
            if not putter.loop.is_closed():
                self._granted += 1
                putter.grant()

    # -- the source ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin, or begin again: what has no outcome is waiting again."""
        lines = self._lines
        with self._lock:
            self._draining = False
            lines.delays.open()
            taken = list(lines.under_way.items())
            lines.under_way.clear()
            lines.put_back([lines.give_back(message, entry, counted=True) for message, entry in taken], 0.0)

    def close(self) -> None:
        """Set no alarms any more."""
        with self._lock:
            self._lines.delays.close()

    def drain(self) -> None:
        """Hand out nothing more, until it is opened again."""
        self._draining = True

    def fetch(self, count: int) -> list[Message] | None:
        """Hand out the next messages, those of a higher priority first."""
        if self._draining:
            return []
        lines = self._lines
        with self._lock:
            messages = lines.take(count)
            if messages:
                if self._putters:
                    self._admit()
                return messages
            if self._closed and not lines.size:
                return None
            lines.delays.arm(self.wake)
        return messages

    def ack(self, messages: Sequence[Message]) -> list[Message] | None:
        """Forget messages that were handled."""
        return self._forget(messages, "acknowledged")

    def discard(self, messages: Sequence[Message]) -> list[Message] | None:
        """Forget messages that have failed for good."""
        return self._forget(messages, "failed")

    def nack(self, messages: Sequence[Message], delay: float = 0.0, *, counted: bool = True) -> list[Message] | None:
        """Take messages back: they go out again before all others of their priority."""
        lines = self._lines
        lost: list[Message] = []
        backs: list[Entry] = []
        with self._lock:
            for message in messages:
                entry = lines.under_way.pop(message, _GONE)
                if entry is _GONE:
                    lost.append(message)
                    continue
                back = lines.give_back(message, entry, counted=counted)
                if self.max_deliveries is not None and back.deliveries >= self.max_deliveries:
                    self._bury(message, back)
                else:
                    backs.append(back)
            lines.put_back(backs, delay)
            lines.delays.arm(self.wake)
            self._counts["requeued"] += len(backs)
        self.wake()
        return lost or None

    def dead_letter(self, messages: Sequence[Message]) -> list[Message] | None:
        """Keep messages that were given up."""
        lines = self._lines
        lost: list[Message] = []
        with self._lock:
            for message in messages:
                entry = lines.under_way.pop(message, _GONE)
                if entry is _GONE:
                    lost.append(message)
                else:
                    self._bury(message, lines.give_back(message, entry, counted=True))
        if self.ordered:
            self.wake()
        return lost or None

    def _forget(self, messages: Sequence[Message], outcome: str) -> list[Message] | None:
        under_way = self._lines.under_way
        with self._lock:
            before = len(under_way)
            entries = list(map(under_way.pop, messages, repeat(_GONE)))
            known = before - len(under_way)
            self._counts[outcome] += known
            self._lines.release(entries)
        if self.ordered:
            self.wake()
        if known == len(messages):
            return None
        return [message for message, entry in zip(messages, entries, strict=True) if entry is _GONE]

    # -- dead letters -------------------------------------------------------------------------------------------------

    @property
    def dead_letters(self) -> list[Letter]:
        """The messages that were given up, the oldest first."""
        with self._lock:
            return list(self._letters)

    def send_back(self, letters: Iterable[Letter] | None = None) -> int:
        """Put dead letters into the queue again, as if they were new. The bound does not count for them.

        Args:
            letters: Which; default: all of them.

        Returns:
            How many there were.
        """
        with self._lock:
            chosen = list(self._letters) if letters is None else list(letters)
            sent = 0
            for letter in chosen:
                at = next((index for index, each in enumerate(self._letters) if each is letter), None)
                if at is not None:
                    del self._letters[at]
                    self._enter(Entry(letter.data, letter.key, letter.metadata, letter.priority), 0.0)
                    sent += 1
        if sent:
            self.wake()
        return sent

    def _bury(self, message: Message, entry: Entry) -> None:
        reason, text = message.reason, message.traceback
        if reason is None:
            reason = text = f"it was handed out {entry.deliveries} times"
        letter = Letter(
            entry.data, reason, text, entry.deliveries, entry.key, entry.metadata, entry.priority, time.time()
        )
        if len(self._letters) == self._letters.maxlen:
            self._counts["dropped"] += 1
        self._letters.append(letter)
        self._counts["dead_lettered"] += 1
        self._lines.release([entry])

    def statistics(self) -> dict[str, Any]:
        """Return what is in it now, and what has gone through it: numbers of messages.

        Returns:
            ``waiting`` (``delayed`` of them), ``under_way``, ``letters``; in total ``put``, ``acknowledged``,
            ``failed``, ``requeued``, ``dead_lettered``, and ``dropped`` (dead letters that there was no room for).
        """
        with self._lock:
            return {
                "waiting": self._lines.size,
                "delayed": len(self._lines.delays),
                "under_way": len(self._lines.under_way),
                "letters": len(self._letters),
                **self._counts,
            }
