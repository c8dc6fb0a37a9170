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


Piece = tuple[Batch, int, Any]
"""A batch, its length, and its token (or None)."""


class Origin:
    """One input batch of a middle stage, until everything that it led to is settled.

    Attributes:
        count: Events in the input batch.
        left: Outputs that are not settled yet, plus one as long as the handler has not returned.
        owner: Whom to tell when nothing is left, by ``origin_settled(window)``.
        window: The subscription that the input came by.
    """

    __slots__ = ("count", "left", "owner", "window")

    def __init__(self, count: int, owner: Any, window: Any) -> None:
        """Open the origin; it counts itself as one left until the handler returns."""
        self.count = count
        self.left = 1
        self.owner = owner
        self.window = window

    def settle(self, count: int) -> None:
        """Take ``count`` off what is left, and tell the owner when that was the last."""
        self.left -= count
        if self.left == 0:
            self.owner.origin_settled(self.window)

    def part(self, start: int, stop: int) -> Origin:  # noqa: ARG002 (a Token's form)
        """Return itself: an origin only counts."""
        return self


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
        slot: Free for the dispatcher.
        corked: Pieces that wait to go out as one message, while a buffer is drained.
    """

    __slots__ = ("acked", "address", "asked", "corked", "head", "ledger", "sent", "slot", "subscription", "terms")

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
        self.slot: Any = None
        self.corked: list[Batch] = []

    @property
    def pending(self) -> int:
        """Events that it asked for and was not sent."""
        return self.asked - self.sent

    @property
    def in_flight(self) -> int:
        """Events that it was sent and is not done with."""
        return self.sent - self.acked

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
            _, size, token = ledger[0]
            size -= self.head
            if left < size:
                self.head += left
                if token is not None:
                    token.settle(left)
                break
            ledger.popleft()
            self.head = 0
            left -= size
            if token is not None:
                token.settle(size)
        return done

    def unacked(self, handled: int = 0) -> list[Piece]:
        """Take out what is in flight, oldest first.

        Args:
            handled: A total: what the consumer handled stays in the ledger, although it is not acknowledged yet.
        """
        keep = max(0, handled - self.acked) + self.head
        kept: deque[Piece] = deque()
        ledger = self.ledger
        while ledger and keep >= ledger[0][1]:
            kept.append(ledger.popleft())
            keep -= kept[-1][1]
        pieces = list(ledger)
        if pieces and keep:
            batch, size, token = pieces[0]
            head, rest = (token.part(0, keep), token.part(keep, size)) if token is not None else (None, None)
            pieces[0] = (cut(batch, keep, size), size - keep, rest)
            if handled > self.acked:
                kept.append((cut(batch, 0, keep), keep, head))
        self.ledger = kept
        if not kept:
            self.head = 0
        return pieces
