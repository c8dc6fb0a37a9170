"""The demand dispatcher: each event to one subscriber, the subscribers in turn.

A batch goes whole to the subscriber whose turn it is when that one's demand allows, and what exceeds it to the next.
Whoever was served goes behind the others, so nobody starves whatever the sizes of their demands. ``order="largest"`` is
gen_stage's rule: the largest outstanding demand first (it lets a demand of 1,000 starve one of 10).
"""

from __future__ import annotations

from collections import deque
from typing import Any

from headgate.errors import OptionError
from headgate.protocol.batching import Batch, cut
from headgate.protocol.dispatch.base import Dispatcher
from headgate.protocol.ledger import Piece, Subscriber


class DemandDispatcher(Dispatcher):
    """Each event to one subscriber.

    Args:
        order: ``"turn"`` (default): in turn, each up to its demand, ``To(weight=)`` turns in a row;
            ``"largest"``: the largest outstanding demand first.
        shuffle: Shuffle the subscribers once, at the first dispatch, so that the first to subscribe has no advantage.
        max_demand: Warn when one ask exceeds this. Default: no limit.

    Raises:
        OptionError: ``order`` or ``max_demand`` is none of these.
    """

    def __init__(self, *, order: str = "turn", shuffle: bool = False, max_demand: int | None = None) -> None:
        """Check and keep the options."""
        if order not in ("turn", "largest"):
            raise OptionError(type(self).__name__, "order", "'turn' or 'largest'", order)
        if max_demand is not None and (type(max_demand) is not int or max_demand < 1):
            raise OptionError(type(self).__name__, "max_demand", "an integer of at least 1, or None", max_demand)
        self._largest = order == "largest"
        self._shuffle = shuffle
        self._max_demand = max_demand
        self._unusual = self._largest or max_demand is not None
        self.simple = max_demand is None  # a single subscriber needs no dispatching
        self._line: deque[Subscriber] = deque()  # those with pending demand, the next one first
        self.wanted = 0  # the sum of their pending demands

    def sync(self, subscriber: Subscriber) -> None:
        """Take note of how things stand with the only subscriber, which was served without this dispatcher."""
        self._line.clear()
        self.wanted = subscriber.asked - subscriber.sent
        if self.wanted:
            self._line.append(subscriber)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Accept everybody; one stage may subscribe several times."""
        subscriber.slot = subscriber.terms.weight

    def cancel(self, subscriber: Subscriber, pieces: list[Piece]) -> list[Piece]:
        """Forget it; what it did not handle goes to the next taker."""
        if subscriber in self._line:
            self._line.remove(subscriber)
            self.wanted -= subscriber.pending
        return pieces

    def asked(self, subscriber: Subscriber, count: int) -> None:
        """Put it in line if it was not."""
        self.wanted += count
        if self._unusual:
            self._asked_unusual(subscriber, count)
        elif subscriber.asked - subscriber.sent == count:  # it had none, so it was not in line
            self._line.append(subscriber)

    def dispatch(self, batch: Batch, size: int, token: Any) -> int:
        """Serve the line from its head."""
        if self._shuffle:
            self._shuffle_once()
        line = self._line
        taken = 0
        while line:
            subscriber = line[0]
            pending = subscriber.asked - subscriber.sent
            left = size - taken
            if pending > left:
                self.wanted -= left
                if taken:
                    batch, token = cut(batch, taken, size), _part(token, taken, size)
                self.outlet.deliver(subscriber, batch, left, token)
                if len(line) > 1 or self._unusual:
                    self._served(subscriber)
                return size
            line.popleft()
            self.wanted -= pending
            if pending == size:
                self.outlet.deliver(subscriber, batch, size, token)
                return size
            stop = taken + pending
            self.outlet.deliver(subscriber, cut(batch, taken, stop), pending, _part(token, taken, stop))
            if stop == size:
                return size
            taken = stop
        return taken

    def serve(self, size: int) -> Subscriber | None:
        """Return who is to get ``size`` events now, and take note of it.

        None when there is nobody who would get them all: then they are for `dispatch`.
        """
        line = self._line
        if not line or self._shuffle or self._unusual:
            return None
        subscriber = line[0]
        pending = subscriber.asked - subscriber.sent
        if pending < size:
            return None
        self.wanted -= size
        if pending == size:
            line.popleft()
        elif len(line) > 1:
            self._served(subscriber)
        return subscriber

    def _served(self, subscriber: Subscriber) -> None:
        """Send it behind the others, or let it stay for its next turn."""
        if self._largest:
            self._line.popleft()
            self._place(subscriber)
            return
        if subscriber.terms.weight > 1:
            subscriber.slot -= 1
            if subscriber.slot > 0:
                return
            subscriber.slot = subscriber.terms.weight
        self._line.rotate(-1)

    def _asked_unusual(self, subscriber: Subscriber, count: int) -> None:
        if self._max_demand is not None and count > self._max_demand:
            self.outlet.warn(
                f"{subscriber.subscription!r} asked for {count} at once, more than the dispatcher's max_demand "
                f"of {self._max_demand}: with different maximum demands the greedy consumer gets the larger batches"
            )
        known = subscriber.asked - subscriber.sent > count
        if self._largest:
            if known:
                self._line.remove(subscriber)
            self._place(subscriber)
        elif not known:
            self._line.append(subscriber)

    def _place(self, subscriber: Subscriber) -> None:
        """Put it in front of those with a strictly smaller demand, behind its equals."""
        pending = subscriber.pending
        for index, other in enumerate(self._line):
            if other.pending < pending:
                self._line.insert(index, subscriber)
                return
        self._line.append(subscriber)

    def _shuffle_once(self) -> None:
        self._shuffle = False
        order = list(self._line)
        self.outlet.shuffle(order)
        self._line = deque(order)


def _part(token: Any, start: int, stop: int) -> Any:
    return None if token is None else token.part(start, stop)
