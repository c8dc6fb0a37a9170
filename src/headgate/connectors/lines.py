"""What waits in a `MemoryQueue`: lines by priority, keys that keep their order, and what is to wait for a while."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from headgate.connectors.options import Delays
from headgate.types import Message

_CHUNK: Final = 1000


class Entry:
    """A message that is more than its payload. One that is not waits as the bare payload."""

    __slots__ = ("data", "deliveries", "due", "key", "metadata", "priority")

    def __init__(
        self,
        data: Any,
        key: Any = None,
        metadata: dict[str, Any] | None = None,
        priority: int = 0,
        deliveries: int = 0,
        due: float = 0.0,
    ) -> None:
        """Keep everything."""
        self.data = data
        self.key = key
        self.metadata = metadata
        self.priority = priority
        self.deliveries = deliveries  # that counted, so far
        self.due = due  # 0: at once

    def message(self) -> Message:
        """Make what is handed out."""
        metadata = None if self.metadata is None else dict(self.metadata)
        return Message(self.data, metadata, self.key, deliveries=self.deliveries + 1)


class Line:
    """First in, first out, and what comes back to the front. Many are taken as slices, not one by one."""

    __slots__ = ("_at", "_back", "_chunks", "_front", "_head")

    def __init__(self) -> None:
        """Begin with nothing."""
        self._front: deque[Any] = deque()
        self._head: list[Any] = []  # of which everything before `at` is gone
        self._at = 0
        self._chunks: deque[list[Any]] = deque()  # behind the head; short ones, so that what is gone is let go soon
        self._back = self._head  # the last of them all

    def __bool__(self) -> bool:
        """Say whether there is anything."""
        return bool(self._front) or self._at < len(self._head) or bool(self._chunks)

    def append(self, item: Any) -> None:
        """Add one at the end."""
        if len(self._back) >= _CHUNK:
            self._back = []
            self._chunks.append(self._back)
        self._back.append(item)

    def extend(self, items: list[Any]) -> None:
        """Add many at the end."""
        if items:
            self._chunks.extend(items[at : at + _CHUNK] for at in range(0, len(items), _CHUNK))
            self._back = self._chunks[-1]

    def appendleft(self, item: Any) -> None:
        """Add one at the front."""
        self._front.appendleft(item)

    def take(self, count: int) -> list[Any]:
        """Take out the first ones, at most so many."""
        if not self._front:
            at = self._at
            stop = at + count
            if stop < len(self._head):
                self._at = stop
                return self._head[at:stop]
        items: list[Any] = []
        while self._front and len(items) < count:
            items.append(self._front.popleft())
        while (left := count - len(items)) > 0:
            at = self._at
            part = self._head[at : at + left]
            self._at = at + len(part)
            if items:
                items += part
            else:
                items = part
            if self._at == len(self._head):
                if not self._chunks:
                    self._head.clear()  # it is the last, and goes on being filled
                    self._at = 0
                    break
                self._head, self._at = self._chunks.popleft(), 0
        return items


class Lines:
    """Everything that waits. Not safe between threads: its owner locks.

    Args:
        ordered: Whether one entry of a key waits for the one before it to be released.
        clock: As of `Delays`.

    Attributes:
        size: How many wait.
        delays: Those of them that are to wait for a while.
        under_way: What was taken and is not back, and for each message its entry or bare payload.
    """

    def __init__(self, *, ordered: bool, clock: Callable[[], float] | None) -> None:
        """Begin with nothing."""
        self.size = 0
        self.delays = Delays(clock)
        self.under_way: dict[Message, Any] = {}
        self._ordered = ordered
        self._line = Line()  # of priority 0: bare payloads and entries
        self._lines: dict[int, Line] = {0: self._line}  # highest priority first
        self._bare = True  # there are only bare payloads in the line of priority 0, and no other line
        self._held: dict[Any, deque[Entry] | None] = {}  # a key that is at work, and who waits for it

    def add_bare(self, payloads: list[Any]) -> None:
        """Add payloads that have nothing else."""
        self._line.extend(payloads)
        self.size += len(payloads)

    def add(self, entry: Any, delay: float) -> None:
        """Add an entry or a bare payload at the end."""
        if type(entry) is not Entry:
            self._line.append(entry)
        else:
            if delay:
                entry.due = self.delays.clock() + delay
            if not self._ordered or entry.key is None:
                self._place(entry)
            elif entry.key in self._held:
                line = self._held[entry.key]
                if line is None:
                    line = self._held[entry.key] = deque()
                line.append(entry)
            else:
                self._held[entry.key] = None
                self._place(entry)
        self.size += 1

    def put_back(self, entries: list[Entry], delay: float) -> None:
        """Add entries that were taken in front of the others."""
        due = self.delays.clock() + delay if delay else 0.0
        for entry in reversed(entries):
            entry.due = due
            self._place(entry, first=True)
        self.size += len(entries)

    def take(self, count: int) -> list[Message]:
        """Take out messages; they are under way then."""
        if self._bare and not self.delays.waiting:  # by far the most frequent
            payloads = self._line.take(count)
            messages = list(map(Message, payloads))
            # The payload is kept too: a handler may put another one into the message.
            self.under_way.update(zip(messages, payloads, strict=True))
            self.size -= len(messages)
            return messages
        if self.delays:
            for entry, first in self.delays.due():
                entry.due = 0.0
                self._place(entry, first=first)
        messages = self._take(count)
        self.size -= len(messages)
        return messages

    def give_back(self, message: Message, entry: Any, *, counted: bool) -> Entry:
        """Return the entry of a message that is under way no more.

        Args:
            message: The message.
            entry: Its entry or bare payload.
            counted: Whether that delivery counts.
        """
        back = entry if type(entry) is Entry else Entry(entry, deliveries=message.deliveries - 1)
        if counted:
            back.deliveries += 1
        return back

    def release(self, entries: Iterable[Any]) -> None:
        """Let the next of their keys go, if keys keep their order."""
        if not self._ordered:
            return
        for entry in entries:
            if type(entry) is not Entry or entry.key is None:
                continue
            line = self._held[entry.key]
            if line:
                self._place(line.popleft())
            else:
                del self._held[entry.key]

    def _take(self, count: int) -> list[Message]:
        messages: list[Message] = []
        for line in self._lines.values():
            for entry in line.take(count - len(messages)):
                message = entry.message() if type(entry) is Entry else Message(entry)
                self.under_way[message] = entry
                messages.append(message)
        if not any(self._lines.values()):  # the fast way again
            self._lines = {0: self._line}
            self._bare = True
        return messages

    def _place(self, entry: Entry, *, first: bool = False) -> None:
        """Put an entry where it waits to be taken."""
        if entry.due:
            self.delays.add(entry.due, (entry, first))
            return
        self._bare = False
        line = self._lines.get(entry.priority)
        if line is None:
            lines = {**self._lines, entry.priority: Line()}
            self._lines = dict(sorted(lines.items(), reverse=True))
            line = self._lines[entry.priority]
        if first:
            line.appendleft(entry)
        else:
            line.append(entry)
