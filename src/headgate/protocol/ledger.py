"""What is in flight: every delivered event stays its producer's until the consumer is done with it.

A `Subscriber` is the producer's record of one subscription. It counts in totals (asked, sent, acked), so demand and
what is in flight are always differences of state, and it keeps the delivered batches in order until they are
acknowledged. When the consumer leaves, `Subscriber.unacked` gives back exactly what it was not done with.

A *token* says where events came from. It is handed along with each piece of a batch and is told when events of it are
settled, that is handled downstream or dropped on purpose. A middle stage's token is an `Origin`: one input batch; it
is settled when every output that the batch led to is. Events of a source carry None.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

from headgate.protocol.batching import Batch, cut
from headgate.protocol.messages import Address, Subscription, Terms


class Token(Protocol):
    """Is told, in the order of the events, how many of them are settled."""

    def settle(self, count: int) -> None:
        """Take note that the next ``count`` events are handled or dropped."""

    def part(self, start: int, stop: int) -> Token:
        """Return the token for the events from ``start`` up to ``stop`` of these."""
        ...


_NONE = (0, 0)
"""A range of no events."""

Piece = tuple[Batch, int, Any]
"""A batch, its length, and its token (or None)."""


class Origin:
    """One input batch of a middle stage, until everything that it led to is settled.

    Attributes:
        count: Events in the input batch.
        left: Outputs that are not settled yet, plus one as long as the handler has not returned.
        owner: Whom to tell when nothing is left, by ``origin_settled(window)``.
        window: The subscription that the input came by.
        told: The producer knows that it is settled, although others before it are not.
    """

    __slots__ = ("count", "left", "owner", "told", "window")

    def __init__(self, count: int, owner: Any, window: Any, left: int = 1) -> None:
        """Open the origin; it counts itself as one left until the handler returns."""
        self.count = count
        self.left = left
        self.owner = owner
        self.window = window
        self.told = False

    def settle(self, count: int) -> None:
        """Take ``count`` off what is left, and tell the owner when that was the last."""
        self.left -= count
        if self.left == 0:
            self.owner.origin_settled(self.window)

    def part(self, start: int, stop: int) -> Origin:  # noqa: ARG002 (a Token's form)
        """Return itself: an origin only counts."""
        return self


class Kept:
    """The token of what a middle stage has made of several input batches that it had kept unacknowledged.

    Attributes:
        left: Outputs that are not settled yet.
        origins: The input batches: each of them has one more left for this.
    """

    __slots__ = ("left", "origins")

    def __init__(self, left: int, origins: list[Origin]) -> None:
        """Open it; without outputs everything is settled at once."""
        self.left = left
        self.origins = origins
        self.settle(0)

    def settle(self, count: int) -> None:
        """Take ``count`` off what is left, and settle the inputs when that was the last."""
        self.left -= count
        if self.left == 0:
            origins, self.origins = self.origins, []
            for origin in origins:
                origin.settle(1)

    def part(self, start: int, stop: int) -> Kept:  # noqa: ARG002 (a Token's form)
        """Return itself: it only counts."""
        return self


class Suspect:
    """The token of events that a handler has failed with. They are delivered apart from others.

    Attributes:
        deliveries: How many handlers have failed with them.
        token: Their own token, or None.
    """

    __slots__ = ("deliveries", "token")

    def __init__(self, deliveries: int, token: Any) -> None:
        """Mark events."""
        self.deliveries = deliveries
        self.token = token

    def settle(self, count: int) -> None:
        """Pass it on."""
        if self.token is not None:
            self.token.settle(count)

    def part(self, start: int, stop: int) -> Suspect:
        """Return the token for some of them."""
        return Suspect(self.deliveries, None if self.token is None else self.token.part(start, stop))


def split(piece: Piece, at: int) -> tuple[Piece, Piece]:
    """Cut a piece in two, neither of them empty."""
    batch, size, token = piece
    if batch is None:
        return (None, at, None), (None, size - at, None)
    if token is None:
        return (cut(batch, 0, at), at, None), (cut(batch, at, size), size - at, None)
    return (cut(batch, 0, at), at, token.part(0, at)), (cut(batch, at, size), size - at, token.part(at, size))


class Subscriber:
    """The producer's record of one subscription.

    Attributes:
        subscription: The key by which both sides know it.
        address: Where its events go.
        terms: What it was made with.
        asked: Events that the consumer has asked for, in total.
        sent: Events that it was sent, in total.
        acked: Events that it is done with, in total.
        ledger: The batches that are in flight, oldest first.
        head: How many events of the first of them are acknowledged already.
        early: Events among those in flight that are settled already, ahead of others before them. In the ledger they
            are holes: pieces without a batch.
        failed: What the consumer's handler has failed with: totals from and to, and the reason; or None.
        away: Its consumer has ended, and is expected to be started again (its ``terms.heir``).
        slot: Free for the dispatcher.
        corked: Pieces that wait to go out as one message, while a buffer is drained.
    """

    __slots__ = (
        "acked",
        "address",
        "asked",
        "away",
        "corked",
        "early",
        "failed",
        "head",
        "ledger",
        "sent",
        "slot",
        "subscription",
        "terms",
    )

    def __init__(self, subscription: Subscription) -> None:
        """Start at zero."""
        self.subscription = subscription
        self.address: Address = subscription.consumer
        self.terms: Terms = subscription.terms
        self.asked = 0
        self.sent = 0
        self.acked = 0
        self.ledger: deque[Piece] = deque()
        self.head = 0
        self.early = 0
        self.away = False
        self.failed: tuple[int, int, Any] | None = None
        self.slot: Any = None
        self.corked: list[Batch] = []

    @property
    def pending(self) -> int:
        """Events that it asked for and was not sent."""
        return self.asked - self.sent

    @property
    def in_flight(self) -> int:
        """Events that it was sent and is not done with."""
        return self.sent - self.acked - self.early

    def names(self) -> tuple[str, str]:
        """Return the names of the consumer and of the producer, for errors."""
        subscription = self.subscription
        return (
            str(getattr(subscription.consumer, "name", subscription.consumer)),
            str(getattr(subscription.producer, "name", subscription.producer)),
        )

    def ack(self, total: int) -> int:
        """Settle what is newly acknowledged.

        Args:
            total: Events that the consumer is done with since the subscription began.

        Returns:
            How many of them are new. A total that was said before, or that goes beyond what was sent, changes nothing
            more than it can.
        """
        done = min(total, self.sent) - self.acked
        if done <= 0:
            return 0
        self.acked += done
        ledger, left = self.ledger, done
        while left and ledger:
            batch, size, token = ledger[0]
            size -= self.head
            count = min(size, left)
            if batch is None:
                self.early -= count
            elif token is not None:
                token.settle(count)
            if left < size:
                self.head += left
                break
            ledger.popleft()
            self.head = 0
            left -= size
        return done

    def settle(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Settle events ahead of others that were sent before them: they leave holes in the ledger.

        All of them in one pass, however many there are: children that end in any order settle many at a time.

        Args:
            ranges: Totals of events sent before the first and after the last of neighbouring events, ascending.
        """
        rest = iter(ranges)
        start, stop = next(rest, _NONE)
        kept: deque[Piece] = deque()
        ledger = self.ledger
        at = self.acked - self.head
        hole = 0  # the size of the one that `kept` ends with; it is put there when it is complete
        while ledger and start < stop:
            if stop <= at:
                start, stop = next(rest, _NONE)
                continue
            piece = ledger.popleft()
            size = piece[1]
            end = at + size
            if piece[0] is None:
                hole += size
                at = end
            elif end <= start:
                if hole:
                    kept.append((None, hole, None))
                    hole = 0
                kept.append(piece)
                at = end
            elif start > at:  # cut off what comes before
                before, piece = split(piece, start - at)
                if hole:
                    kept.append((None, hole, None))
                    hole = 0
                kept.append(before)
                ledger.appendleft(piece)
                at = start
            else:
                if stop < end:
                    piece, after = split(piece, stop - at)
                    ledger.appendleft(after)
                    size = piece[1]
                    end = stop
                if piece[2] is not None:
                    piece[2].settle(size)
                self.early += size
                hole += size
                at = end
        while hole and ledger and ledger[0][0] is None:
            hole += ledger.popleft()[1]
        if hole:
            kept.append((None, hole, None))
        kept.extend(ledger)
        self.ledger = kept

    def flying(self) -> list[Batch]:
        """Return what is in flight, oldest first; it stays in the ledger."""
        found: list[Batch] = []
        done = self.head
        for batch, size, _ in self.ledger:
            if batch is not None:
                found.append(cut(batch, done, size) if done else batch)
            done = 0
        return found

    def unacked(self, handled: int = 0) -> list[Piece]:
        """Take out what is in flight, oldest first.

        Args:
            handled: A total: what the consumer handled stays in the ledger, although it is not acknowledged yet.

        Returns:
            The pieces from there on, holes among them.
        """
        keep = max(0, handled - self.acked) + self.head
        kept: deque[Piece] = deque()
        ledger = self.ledger
        while ledger and keep >= ledger[0][1]:
            kept.append(ledger.popleft())
            keep -= kept[-1][1]
        pieces = list(ledger)
        if pieces and keep:
            head, pieces[0] = split(pieces[0], keep)
            if handled > self.acked:
                kept.append(head)
        self.ledger = kept
        if not kept:
            self.head = 0
        return pieces
