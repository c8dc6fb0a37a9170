"""The queue of a producing stage: events that nobody has demanded yet, and infos in their place among them.

Rules (docs/spec.md, B1 to B6): events leave in the order in which they came; what a consumer hands back goes in front;
an info leaves right after the event that was last when it came, delivered or dropped; infos are never dropped and do
not count; the bound is kept by the producer side, which asks `shed` to drop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

from headgate.protocol.batching import Batch, cut
from headgate.protocol.ledger import Piece


class Info:
    """An info that waits among the events."""

    __slots__ = ("message",)

    def __init__(self, message: Any) -> None:
        """Keep the message."""
        self.message = message


class Queue(Protocol):
    """What a producer side needs of a queue; `Buffer` is the plain one, dispatchers may bring their own order."""

    ordered: bool
    """True: first in, first out, so that events may go past it while it is empty."""
    size: int
    """The number of events; infos do not count."""

    def ready(self) -> int:
        """Return how many events could be taken now."""
        ...

    def put(self, batch: Batch, size: int, token: Any) -> None:
        """Add events at the end."""

    def put_front(self, pieces: Iterable[Piece]) -> None:
        """Put events that came back ahead of all others, in order."""

    def take(self, limit: int) -> Piece:
        """Take the next events, at least one and at most ``limit``; there must be one ready."""
        ...

    def shed(self, count: int) -> list[Piece]:
        """Take out ``count`` events that are to be dropped, the oldest first."""
        ...

    def hold(self, message: Any) -> bool:
        """Keep an info until the events that are here now have left; False when there are none."""
        ...

    def released(self) -> list[Any]:
        """Take out the infos whose turn has come, in order."""
        ...


class Buffer:
    """First in, first out."""

    __slots__ = ("_free", "_items", "size")
    ordered = True

    def __init__(self) -> None:
        """Start empty."""
        self._items: deque[Piece | Info] = deque()
        self.size = 0
        self._free: list[Any] = []

    def ready(self) -> int:
        """Return the number of events: all of them can be taken."""
        return self.size

    def put(self, batch: Batch, size: int, token: Any) -> None:
        """Add ``size`` events at the end."""
        if size:
            self._items.append((batch, size, token))
            self.size += size

    def put_front(self, pieces: Iterable[Piece]) -> None:
        """Put events that came back ahead of all others, in order."""
        while self._free:  # infos that were about to leave right behind these events
            self._items.appendleft(Info(self._free.pop()))
        for piece in reversed(list(pieces)):
            self._items.appendleft(piece)
            self.size += piece[1]

    def take(self, limit: int) -> Piece:
        """Take the first batch, or the first ``limit`` events of it.

        Args:
            limit: The most events to take, at least 1.

        Returns:
            A batch, its length and its token. Infos that stood right behind it are ready in `released`.
        """
        piece = self._items.popleft()
        assert not isinstance(piece, Info)  # noqa: S101 (infos at the head are always released already)
        batch, size, token = piece
        if size > limit:
            rest = token.part(limit, size) if token is not None else None
            self._items.appendleft((cut(batch, limit, size), size - limit, rest))
            self.size -= limit
            return cut(batch, 0, limit), limit, token.part(0, limit) if token is not None else None
        self.size -= size
        self._release()
        return piece

    def shed(self, count: int) -> list[Piece]:
        """Take out the ``count`` oldest events; infos that stood behind them are released."""
        pieces: list[Piece] = []
        while count > 0:
            pieces.append(self.take(count))
            count -= pieces[-1][1]
        return pieces

    def hold(self, message: Any) -> bool:
        """Keep an info behind the last event; False when there is no event to wait for."""
        if not self._items:
            return False
        self._items.append(Info(message))
        return True

    def released(self) -> list[Any]:
        """Take out the infos whose turn has come, in order."""
        if not self._free:
            return self._free
        free, self._free = self._free, []
        return free

    def _release(self) -> None:
        items = self._items
        while items and type(items[0]) is Info:
            self._free.append(items.popleft().message)  # type: ignore[union-attr]
