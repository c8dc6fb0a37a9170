"""What crosses between the layers of a flow, and how it finds its way.

Layers do not send each other single events but packets: what a batch of input led to, for one worker of the next layer.
A `Spread` is what a worker has for all of them at once. Its input is acknowledged when all of them are done with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from headgate.errors import SubscriptionError
from headgate.protocol.batching import Batch, cut
from headgate.protocol.dispatch.base import Dispatcher
from headgate.protocol.dispatch.demand import DemandDispatcher
from headgate.protocol.ledger import Piece, Subscriber

CLERK: Final = "clerk"
"""The lane of what is counted, and of side outputs."""


class _Joint:
    """The token of a spread: settled when all of its packets are."""

    __slots__ = ("left", "token")

    def __init__(self, left: int, token: Any) -> None:
        self.left = left
        self.token = token

    def settle(self, count: int) -> None:
        """Count, and pass it on with the last."""
        self.left -= count
        if self.left == 0:
            self.token.settle(1)

    def part(self, start: int, stop: int) -> _Joint:  # noqa: ARG002 (a token's form)
        """Return itself: each packet is one."""
        return self


class Packet(NamedTuple):
    """Events for one worker of the next layer.

    Attributes:
        events: A list of events, or a batch of columns; of a partial result: accumulators.
        source: Whom they come from, for watermarks: the worker.
        watermark: How far event time has come there (`headgate.flow.watermarks`), or None.
        about: What else belongs to all of them; of a departition: the window and what made it give them.
    """

    events: Any
    source: Any = None
    watermark: Any = None
    about: Any = None


class Spread(NamedTuple):
    """What one worker has for the next layers.

    Attributes:
        packets: By lane.
    """

    packets: dict[Any, Any]


class End(NamedTuple):
    """The last event of a source of work: there is no more, but for what others leave behind."""

    source: int


class SpreadDispatcher(Dispatcher):
    """Each `Spread` to all the lanes that it has packets for, at once. ``To(partition=)`` is the lane.

    Nothing is wanted before every lane has a subscriber, nor while one of them wants nothing: the slowest sets the
    pace.

    Args:
        lanes: The names of the lanes.
    """

    def __init__(self, lanes: tuple[Any, ...]) -> None:
        """Start with nobody."""
        self._lanes = lanes
        self._subscribers: dict[Any, Subscriber] = {}

    def subscribe(self, subscriber: Subscriber) -> None:
        """Give it its lane.

        Raises:
            SubscriptionError: There is no such lane, or it is taken.
        """
        lane = subscriber.terms.partition
        consumer, producer = subscriber.names()
        if lane not in self._lanes or lane in self._subscribers:
            raise SubscriptionError(consumer, producer, f"expected a free lane of {self._lanes!r}, got: {lane!r}")
        self._subscribers[lane] = subscriber
        self._look()

    def cancel(self, subscriber: Subscriber, pieces: list[Piece]) -> list[Piece]:  # noqa: ARG002 (nothing is kept)
        """Forget it; the flow ends without it."""
        self._subscribers.pop(subscriber.terms.partition, None)
        self._look()
        return []

    def asked(self, subscriber: Subscriber, count: int) -> None:  # noqa: ARG002 (the contract's form)
        """See what is wanted now."""
        self._look()

    def dispatch(self, batch: Batch, size: int, token: Any) -> int:
        """Send spreads as long as every lane wants something."""
        taken = 0
        subscribers = self._subscribers
        for spread in batch:
            if self.wanted <= 0:
                break
            one = token if token is None or size == 1 else token.part(taken, taken + 1)
            if one is not None and len(spread.packets) > 1:
                one = _Joint(len(spread.packets), one)
            for lane, packet in spread.packets.items():
                self.outlet.deliver(subscribers[lane], [packet], 1, one)
            taken += 1
            self._look()
        return taken

    def _look(self) -> None:
        subscribers = self._subscribers
        if len(subscribers) < len(self._lanes):
            self.wanted = 0
        else:
            self.wanted = min([each.asked - each.sent for each in subscribers.values()])


class WorkDispatcher(DemandDispatcher):
    """Work to whoever wants it, in turn; an `End` to all, each behind what it was sent before.

    Args:
        gone: Called with a worker that has left with work undone: its name, and how many events it was done with.
    """

    def __init__(self, gone: Callable[[str, int], None] | None = None) -> None:
        """Start with nobody."""
        super().__init__()
        self._gone = gone
        self._all: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> None:
        """Take it in."""
        super().subscribe(subscriber)
        self._all.append(subscriber)

    def cancel(self, subscriber: Subscriber, pieces: list[Piece]) -> list[Piece]:
        """Forget it; its work goes to others. Who is to get an `End` has got it, or gets another."""
        if subscriber in self._all:
            self._all.remove(subscriber)
        if pieces and self._gone is not None:
            self._gone(subscriber.names()[0], subscriber.acked)
        return super().cancel(subscriber, pieces)

    def dispatch(self, batch: Batch, size: int, token: Any) -> int:
        """Serve in turn, up to the end."""
        last = batch[size - 1] if size and type(batch) is list else None
        if type(last) is not End:
            return super().dispatch(batch, size, token)
        if size > 1:
            taken = super().dispatch(cut(batch, 0, size - 1), size - 1, token)
            if taken < size - 1:
                return taken
        if not self._all or any(each.asked <= each.sent for each in self._all):
            return size - 1
        for subscriber in list(self._all):
            self.outlet.deliver(subscriber, [last], 1, None)
            self.wanted -= 1
            if subscriber.asked == subscriber.sent:
                self._line.remove(subscriber)
        return size
