"""The consumer's side of one subscription: its demand window.

The window holds totals: ``asked``, ``received``, ``handled``, ``acked``. Nothing is ever added to a demand and taken
off again; what is out is ``asked - handled``, and more is asked when no more than ``min_demand`` of it is left. For
batches of at most ``max_demand - min_demand`` events this gives the ask amounts of gen_stage's formula (GS-084).
"""

from __future__ import annotations

from collections import deque

from headgate.protocol.ledger import Origin
from headgate.protocol.messages import ASK, End, Message, Subscription

_ALL = 1 << 62
"""More events than any message has."""


class Window:
    """One subscription as its consumer sees it.

    Attributes:
        subscription: The key by which both sides know it.
        most: Ask up to this many,
        least: when no more than this many are out.
        size: The most events of one batch given to the handler.
        manual: Nothing is asked but by hand, and a message is one batch.
        asked: Events asked for, in total.
        received: Events received, in total.
        handled: Events whose handler has returned, in total.
        acked: Events that the producer may forget, in total. In a middle stage an input is acknowledged when all that
            it led to is; everywhere else when it is handled.
        origins: A middle stage's input batches that are not acknowledged, oldest first.
        open: False when the subscription has ended (its last acknowledgements may be still to come).
        told: The total of acknowledgements that the producer was told last.
        suspects: Deliveries that are not the first: totals from and to, and the number of the delivery, oldest first.
        leaving: The `End` to give when the batch that is in the handler is done, after a cancel meanwhile.
    """

    __slots__ = (
        "acked",
        "asked",
        "handled",
        "least",
        "leaving",
        "manual",
        "most",
        "open",
        "origins",
        "producer",
        "received",
        "size",
        "subscription",
        "suspects",
        "told",
    )

    def __init__(self, subscription: Subscription) -> None:
        """Open it with nothing asked."""
        terms = subscription.terms
        self.subscription = subscription
        self.producer = subscription.producer
        self.most = terms.max_demand
        self.least = terms.min_demand
        self.size = self.most - self.least
        self.manual = False
        self.asked = 0
        self.received = 0
        self.handled = 0
        self.acked = 0
        self.told = 0
        self.origins: deque[Origin] = deque()
        self.open = True
        self.suspects: deque[tuple[int, int, int]] = deque()
        self.leaving: End | None = None
        if terms.manual:
            self.set_manual()

    @property
    def outstanding(self) -> int:
        """Events asked for and not received."""
        return self.asked - self.received

    @property
    def deliveries(self) -> int:
        """The number of the delivery of the next event to be handled: 1 for the first."""
        suspects = self.suspects
        while suspects and suspects[0][1] <= self.handled:
            suspects.popleft()
        return suspects[0][2] if suspects and suspects[0][0] <= self.handled else 1

    def set_manual(self) -> None:
        """Ask only by hand from now on, and take each message as one batch."""
        self.manual = True
        self.least = -1  # never reached
        self.size = _ALL

    def close(self) -> None:
        """Take no more events and ask for none."""
        self.open = False
        self.size = -1
        self.least = -1

    def ask(self) -> Message:
        """Return the message that tells the producer both totals."""
        self.told = self.acked
        return (ASK, self.subscription, self.asked, self.acked)
