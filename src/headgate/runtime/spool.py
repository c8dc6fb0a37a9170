"""What was written to a connection and may have to be written again: pure, and knows nothing of sockets.

A link over TCP is one stream of bytes in each direction, however many connections it takes. Its bytes are numbered from
0, from the first that was ever written. The receiver confirms from time to time how many it has, and says so at the
beginning of each connection; the sender keeps what is not confirmed and goes on from there. So no byte is lost or comes
twice, wherever the cut was: in the middle of a frame as well.
"""

from __future__ import annotations

from collections import deque
from typing import Any


class Spool:
    """The bytes that are written and not confirmed.

    What is kept is bounded by what the two ends of a connection can hold, and by what the receiver does not confirm:
    pieces are kept as they were given, not copied.

    Attributes:
        confirmed: How many bytes the other side is known to have.
        written: How many were written, in all.
    """

    __slots__ = ("_pieces", "confirmed", "written")

    def __init__(self) -> None:
        """Begin a stream."""
        self.confirmed = 0
        self.written = 0
        self._pieces: deque[Any] = deque()

    def __len__(self) -> int:
        """Return how many bytes are kept."""
        return self.written - self.confirmed

    def wrote(self, piece: Any) -> None:
        """Keep bytes that were written just now."""
        self._pieces.append(piece)
        self.written += len(piece)

    def confirm(self, total: int) -> None:
        """Let go of what the other side has.

        Args:
            total: Bytes from the very first. Less than was confirmed before is old news.

        Raises:
            ValueError: It claims more than was ever written.
        """
        if total > self.written:
            raise ValueError(f"expected at most the {self.written} bytes that were written, got: {total}")
        left = total - self.confirmed
        pieces = self._pieces
        while left > 0:
            size = len(pieces[0])
            if left < size:
                pieces[0] = memoryview(pieces[0])[left:]
                break
            pieces.popleft()
            left -= size
        self.confirmed = max(self.confirmed, total)

    def rewind(self, total: int) -> list[Any]:
        """Return what is to be written again, oldest first; it counts as not written.

        Args:
            total: How many bytes the other side has.

        Raises:
            ValueError: Those that it needs are not here: it is not the other side of this stream.
        """
        if total < self.confirmed:
            raise ValueError(f"expected at least the {self.confirmed} bytes that were confirmed before, got: {total}")
        self.confirm(total)
        pieces = list(self._pieces)
        self._pieces.clear()
        self.written = total
        return pieces
