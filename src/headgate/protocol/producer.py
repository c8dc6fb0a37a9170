"""The producing side of a stage: who is subscribed, what is wanted, what waits, what is in flight.

Demand is derived, never accumulated: what the stage asks of its own callback (or, in a middle stage, of its input) is
always ``dispatcher.wanted() - what could be taken from the queue - what was asked before and has not come``. Whoever
joins or leaves, whatever is discarded, overflows or comes back: the next look at the state gives the right number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from headgate.errors import PeerError
from headgate.protocol.batching import Batch, cut, join, rows
from headgate.protocol.buffer import Queue
from headgate.protocol.dispatch.base import Dispatcher
from headgate.protocol.dispatch.demand import DemandDispatcher
from headgate.protocol.ledger import Origin, Piece, Subscriber, Suspect, split
from headgate.protocol.messages import CANCELLED, EVENTS, REDELIVERED, DeadLetter, End, Message, Subscription
from headgate.protocol.port import Port

AT_LEAST_ONCE = "at_least_once"
AT_MOST_ONCE = "at_most_once"

Share = tuple[Subscriber, Batch, int, Any, int]
"""Whom a batch is for, the batch, its length, its token, and how many events were sent to that one before it."""


class ProducerSide:
    """The half of a stage that sends events. It is the `Outlet` of its dispatcher.

    Attributes:
        requested: Events that the callback was asked for and has not given yet (it may give them later by ``emit``).
        emitted: Events that the stage gave, in total.
        direct: Events may go past the queue while it is empty.
        keeps: Delivered events are kept until they are acknowledged.
        hand: The port's way for events.
        single: The only subscriber of a plain demand dispatcher: it gets everything, in order, so that asks and events
            need not go through the dispatcher. Before the dispatcher is used, `_sync` tells it how things stand.
        discarded: Events that went nowhere, by reason.
        accumulating: Demand and events are held until the mode is ``"forward"``.
        accumulated: Demands that wait for that, each as it came.
        buried: Dead letters that are not safe yet; the stage does not finish before they are.
        dropped: Events dropped by the buffer since the stage was last told.
        asks: Asks that came while the handler of a source ran: each is a demand of its own, unless the dispatcher pools
            them.
        shares: While the driver hands batches straight down: what it has still to hand down, which counts as sent and
            is in nobody's mailbox and ledger. Else None.
    """

    def __init__(
        self,
        port: Port,
        dispatcher: Dispatcher,
        agenda: deque[tuple[str, tuple[Any, ...]]],
        *,
        buffer_size: int | None,
        buffer_keep: str | None,
        delivery: str,
        max_deliveries: int | None = None,
    ) -> None:
        """Connect the dispatcher and start with nothing."""
        self.port = port
        self.name = port.name
        self.agenda = agenda
        self.dispatcher = dispatcher
        dispatcher.bind(self)
        self.queue: Queue = dispatcher.queue()
        self.subscribers: dict[Subscription, Subscriber] = {}
        self.closing: dict[Subscription, Subscriber] = {}
        self.requested = 0
        self.emitted = 0
        self._sent = 0  # by subscribers that are gone
        self._acked = 0
        self.discarded: dict[str, int] = {}
        self.dropped = 0
        self.accumulating = False
        self.single: Subscriber | None = None
        self.direct = self.queue.ordered
        self.accumulated: deque[int] = deque()
        self._size = buffer_size
        self._keep = buffer_keep
        self.asks: deque[Message] = deque()
        self.shares: deque[Share] | None = None
        self.keeps = delivery == AT_LEAST_ONCE
        self._most = max_deliveries
        self.buried = 0
        self._corked: list[Subscriber] | None = None
        self._detached: list[tuple[Subscriber, Any]] = []
        self._send = port.send
        self.hand = port.hand

    # -- the outlet of the dispatcher ---------------------------------------------------------------------------------

    def deliver(self, subscriber: Subscriber, batch: Batch, size: int, token: Any) -> None:
        """Send events, and keep them in the ledger until they are acknowledged."""
        subscriber.sent += size
        if subscriber.sent > subscriber.asked:
            raise PeerError(f"stage {self.name!r}: its dispatcher sent more than {subscriber.subscription!r} asked for")
        if self.shares is not None and self._corked is None:
            if type(token) is not Suspect:
                self.shares.append((subscriber, batch, size, token, subscriber.sent - size))
                return
            self.flush()
        if self.keeps:
            subscriber.ledger.append((batch, size, token))
        elif token is not None:
            token.settle(size)
        if type(token) is Suspect:
            self._redeliver(subscriber, batch, token)
            return
        if self._corked is None:
            hand = self.hand
            hand(subscriber.address, (EVENTS, subscriber.subscription, batch))
            return
        if not subscriber.corked:
            self._corked.append(subscriber)
        subscriber.corked.append(batch)

    def send(self, subscriber: Subscriber, batch: Batch, size: int, token: Any) -> None:
        """Send events that count as sent."""
        if self.keeps:
            subscriber.ledger.append((batch, size, token))
        elif token is not None:
            token.settle(size)
        self.hand(subscriber.address, (EVENTS, subscriber.subscription, batch))

    def flush(self) -> None:
        """Send all shares: something else comes, and must not overtake them."""
        while self.shares:
            self.send(*self.shares.popleft()[:4])

    def discard(self, size: int, token: Any, reason: str) -> None:
        """Count events that go nowhere."""
        self.discarded[reason] = self.discarded.get(reason, 0) + size
        if token is not None:
            token.settle(size)

    def detach(self, subscriber: Subscriber, reason: Any) -> None:
        """Cancel a subscription once the dispatcher has returned."""
        if all(subscriber is not other for other, _ in self._detached):
            self._detached.append((subscriber, reason))

    def release(self, info: Any) -> None:
        """Let an info through that waited in the dispatcher."""
        self.agenda.append(("handle_info", (info,)))

    def report(self, error: Exception) -> None:
        """Pass an error on to the driver."""
        self.port.report(error)

    def warn(self, text: str) -> None:
        """Pass a warning on to the driver."""
        self.port.warn(text)

    def shuffle(self, items: list[Any]) -> None:
        """Shuffle with the driver's random numbers."""
        self.port.shuffle(items)

    def spill(self, name: str) -> Any:
        """Open a store outside of memory."""
        return self.port.spill(name)

    def accumulate(self, hold: bool) -> None:  # noqa: FBT001 (it is the state)
        """Hold demand and events, or not."""
        self.accumulating = hold
        self.direct = self.queue.ordered and not hold

    # -- demand -------------------------------------------------------------------------------------------------------

    def ask(self, subscription: Subscription, asked: int, acked: int) -> bool:
        """Take in a consumer's totals.

        Returns:
            False when nobody is subscribed under this name.
        """
        subscriber = self.subscribers.get(subscription)
        if subscriber is None:
            closing = self.closing.get(subscription)
            if closing is None:
                return False
            closing.ack(acked)
            if self.queue.size and not self.accumulating:  # it may have lifted a cap
                self.drain()
            return True
        if acked > subscriber.acked:
            ledger, done = subscriber.ledger, acked - subscriber.acked
            if ledger and ledger[0][1] == done and not subscriber.head:  # by far the most frequent: one whole batch
                token = ledger.popleft()[2]
                subscriber.acked = acked
                if type(token) is Origin:  # `settle`, spelt out
                    token.left -= done
                    if not token.left:
                        token.owner.origin_settled(token.window)
                elif token is not None:
                    token.settle(done)
            else:
                subscriber.ack(acked)
        more = asked - subscriber.asked
        if more > 0:
            subscriber.asked = asked
            if self.single is None:
                self.asked(subscriber, more)
        if self.queue.size and not self.accumulating:  # after a mere acknowledgement too: it may lift a cap
            self.drain()
        return True

    def asked(self, subscriber: Subscriber, more: int) -> None:
        """Tell the dispatcher of an ask, and see to what it may have absorbed."""
        dispatcher = self.dispatcher
        if dispatcher.holds and self._corked is None:
            self._corked = []
            dispatcher.asked(subscriber, more)
            self._uncork()
            if dispatcher.absorbed:
                self.port.owe()
        else:
            dispatcher.asked(subscriber, more)

    def hungry(self) -> bool:
        """Say whether more is wanted right now than is on hand."""
        if self.queue.size or not self.direct:
            return not self.accumulating and self.need() > 0
        single = self.single
        return (self.dispatcher.wanted if single is None else single.asked - single.sent) > 0

    def need(self) -> int:
        """Return how many events are wanted, not on hand, and not asked for yet."""
        single = self.single
        need = (self.dispatcher.wanted if single is None else single.asked - single.sent) - self.requested
        if self.queue.size:
            need -= self.queue.ready()
            if self._size is not None:  # what waits for a cap must not grow beyond the bound
                need = min(need, self._size - self.queue.size - self.requested)
        return need

    # -- events -------------------------------------------------------------------------------------------------------

    def emit(self, batch: Batch, size: int, token: Any, *, soft: bool = False) -> Batch | None:
        """Dispatch events; what nobody has demanded goes to the queue.

        Args:
            batch: The events.
            size: How many, at least 1.
            token: Where they came from.
            soft: The bound may be exceeded (output of a middle stage: it waits instead of dropping).

        Returns:
            The events that were refused since the buffer is full, or None.
        """
        self.emitted += size
        requested = self.requested
        if requested:
            self.requested = requested - size if requested > size else 0
        queue = self.queue
        if self.direct and not queue.size:
            single = self.single
            if single is not None and size <= single.asked - single.sent:
                self.deliver(single, batch, size, token)
                return None
            self._sync()
            taken = self.dispatcher.dispatch(batch, size, token)
            while self._detached:
                self._detach()
                if taken < size and self.dispatcher.wanted > 0:  # the one that was detached had held the others up
                    rest = None if token is None else token.part(taken, size)
                    taken += self.dispatcher.dispatch(cut(batch, taken, size), size - taken, rest)
            if self.dispatcher.absorbed:
                self.port.owe()
            if taken == size:
                return None
            rest = None if token is None else token.part(taken, size)
            return self._store(cut(batch, taken, size), size - taken, rest, soft=soft)
        refused = self._store(batch, size, token, soft=soft)
        if not self.accumulating:
            self.drain()
        return refused if queue.ordered or soft else self._bound()

    def drain(self) -> None:
        """Send from the queue as far as demand goes. Lists for one subscriber go out as one."""
        self.flush()
        self._sync()
        queue = self.queue
        self._corked = []
        while True:
            self.agenda.extend(("handle_info", (info,)) for info in queue.released() if not self.dispatcher.hold(info))
            ready = queue.ready()
            wanted = self.dispatcher.wanted if ready else 0
            if wanted <= 0:
                break
            batch, size, token = queue.take(wanted)
            taken = self.dispatcher.dispatch(batch, size, token)
            if taken < size:
                rest = None if token is None else token.part(taken, size)
                queue.put_front([(cut(batch, taken, size), size - taken, rest)])
                if not taken:
                    break
        self._uncork()
        if self._detached:
            self._detach()
        if self.dispatcher.absorbed:
            self.port.owe()

    def _uncork(self) -> None:
        """Send what a drain has collected: the lists for one subscriber as one."""
        corked, self._corked = self._corked or (), None
        for subscriber in corked:
            self._send_corked(subscriber)

    def _send_corked(self, subscriber: Subscriber) -> None:
        batches, subscriber.corked = subscriber.corked, []
        for joined in join(batches):
            self.hand(subscriber.address, (EVENTS, subscriber.subscription, joined))

    def _redeliver(self, subscriber: Subscriber, batch: Batch, suspect: Suspect) -> None:
        """Send events that a handler has failed with: by themselves, so that it is known who is to blame."""
        if subscriber.corked:
            self._send_corked(subscriber)
        self.hand(subscriber.address, (REDELIVERED, subscriber.subscription, batch, suspect.deliveries + 1))

    def info(self, message: Any) -> bool:
        """Keep an info until what waits has left; False when nothing waits."""
        return self.queue.hold(message) or self.dispatcher.hold(message)

    def recall(self) -> list[Any]:
        """Take back what was emitted and not sent; it counts as discarded."""
        queue = self.queue
        taken: list[Any] = []
        while queue.size:
            batch, size, token = queue.take(queue.size)
            self.discard(size, token, "recalled")
            taken.extend(rows(batch))
        return taken

    def flying(self) -> list[Batch] | None:
        """Return the batches that are in flight; None: events wait here, in the dispatcher, or for a letter."""
        self.flush()
        if self.waits() or self.buried:
            return None
        return [batch for each in (*self.subscribers.values(), *self.closing.values()) for batch in each.flying()]

    # -- subscribers --------------------------------------------------------------------------------------------------

    def subscribe(self, subscription: Subscription) -> None:
        """Accept a subscriber, or raise `SubscriptionError`."""
        subscriber = Subscriber(subscription)
        self._sync()
        self.dispatcher.subscribe(subscriber)
        self.subscribers[subscription] = subscriber
        self._find_single()
        self._return([])  # the others may have waited for it

    def leave(self, subscription: Subscription, acked: int, handled: int, *, down: bool = False) -> bool:
        """Forget a consumer that leaves; what it did not handle comes back, in order, ahead of newer events.

        Args:
            subscription: Its name.
            acked: Events that it is done with, in total.
            handled: Events that went through its handler, in total. A middle stage that lives on still answers for
                those between the two; it acknowledges them when their outputs are safe.
            down: The consumer itself has ended.

        Returns:
            False when nobody was subscribed under this name.
        """
        subscriber = self.subscribers.pop(subscription, None)
        expelled = subscriber is None  # both sides ended it at the same time, or it is a stage that had left before
        if subscriber is None:
            subscriber = self.closing.pop(subscription, None)
        if subscriber is None:
            return False
        subscriber.ack(acked)
        pieces = self._unacked(subscriber, handled)
        if expelled:
            returned = self.dispatcher.give_back(subscriber, pieces)
        else:
            self._sync()
            subscriber.away = down and subscriber.terms.heir is not None
            returned = self.dispatcher.cancel(subscriber, pieces)
            self._find_single()
        if handled > acked:
            if not self.keeps:
                self.discard(subscriber.sent - handled, None, "consumer left")
            subscriber.sent = handled
            self.closing[subscription] = subscriber
        else:
            self._forget(subscriber)
        self._return(returned)
        return True

    def cancel(self, subscription: Subscription, end: End) -> bool:
        """End a subscription from this side: the consumer handles what it has and confirms. False when unknown."""
        subscriber = self.subscribers.pop(subscription, None)
        if subscriber is None:
            return False
        self.flush()
        self._sync()
        returned = self.dispatcher.cancel(subscriber, [])
        self._find_single()
        self._return(returned)
        self.closing[subscription] = subscriber
        self._send(subscriber.address, (CANCELLED, subscription, end))
        return True

    def close(self, subscription: Subscription, acked: int) -> bool:
        """Settle the rest of a subscription that this side ended; what was not handled goes to the next taker."""
        subscriber = self.closing.pop(subscription, None)
        if subscriber is None:
            return False
        subscriber.ack(acked)
        pieces = self._unacked(subscriber, 0)
        self._forget(subscriber)
        self._return(self.dispatcher.give_back(subscriber, pieces))
        return True

    def forget(self, heir: tuple[str, ...]) -> None:
        """Keep nothing any longer for consumers that will not be started again."""
        self.dispatcher.forget(heir)
        self._return([])

    def fail(self, subscription: Subscription, start: int, stop: int, reason: Any) -> None:
        """Take note of what a consumer's handler had when it failed, before that consumer leaves."""
        subscriber = self.subscribers.get(subscription) or self.closing.get(subscription)
        if subscriber is not None:
            subscriber.failed = (start, stop, reason)

    def settle(self, subscription: Subscription, ranges: Iterable[tuple[int, int]]) -> None:
        """Settle events ahead of others that a consumer got before them."""
        subscriber = self.subscribers.get(subscription) or self.closing.get(subscription)
        if subscriber is not None and self.keeps:
            subscriber.settle(ranges)
            if self.queue.size and not self.accumulating:  # it may have lifted a cap
                self.drain()

    def safe(self, token: Any) -> None:
        """Settle an event whose dead letter is safe."""
        self.buried -= 1
        if token is not None:
            token.settle(1)
            if self.queue.size and not self.accumulating:  # it may have lifted a cap
                self.drain()

    @property
    def delivered(self) -> int:
        """Events sent to subscribers, in total; copies count."""
        return self._sent + sum(each.sent for each in (*self.subscribers.values(), *self.closing.values()))

    @property
    def handled(self) -> int:
        """Events that subscribers acknowledged, in total; copies count."""
        return self._acked + sum(
            each.acked + each.early for each in (*self.subscribers.values(), *self.closing.values())
        )

    def in_flight(self) -> int:
        """Return how many delivered events nobody has acknowledged."""
        return sum(each.in_flight for each in (*self.subscribers.values(), *self.closing.values()))

    def waits(self) -> bool:
        """Say whether events wait, here or in the dispatcher."""
        return self.queue.size > 0 or any(self.dispatcher.queued().values())

    def empty(self) -> bool:
        """Say whether nothing waits and nothing is in flight."""
        return not self.waits() and self.quiet()

    def quiet(self) -> bool:
        """Say whether nothing is in flight."""
        if self.buried:
            return False
        if not self.keeps:
            return True
        return not any(each.in_flight for each in self.subscribers.values()) and not self.closing

    def _sync(self) -> None:
        """Tell the dispatcher how things stand with the only subscriber, when it was passed by."""
        if self.single is not None:
            assert isinstance(self.dispatcher, DemandDispatcher)  # noqa: S101 (else there is no single)
            self.dispatcher.sync(self.single)

    def _find_single(self) -> None:
        self.single = None
        if len(self.subscribers) == 1 and self.queue.ordered and type(self.dispatcher) is DemandDispatcher:
            self.single = next(iter(self.subscribers.values())) if self.dispatcher.simple else None

    # -- inside -------------------------------------------------------------------------------------------------------

    def _forget(self, subscriber: Subscriber) -> None:
        """Keep the totals of a consumer that is gone; count what it did not handle, when nothing is kept for it."""
        self._sent += subscriber.sent
        self._acked += subscriber.acked + subscriber.early
        if not self.keeps and subscriber.in_flight:
            self.discard(subscriber.in_flight, None, "consumer left")

    def _unacked(self, subscriber: Subscriber, handled: int) -> list[Piece]:
        """Take out what a consumer that leaves did not handle; mark what it failed with."""
        at = max(subscriber.acked, handled)
        pieces = subscriber.unacked(handled)
        if subscriber.failed is not None and self._most is not None:
            start, stop, reason = subscriber.failed
            pieces = self._blame(pieces, start - at, stop - at, reason, subscriber)
        return [piece for piece in pieces if piece[0] is not None]

    def _blame(self, pieces: list[Piece], start: int, stop: int, reason: Any, subscriber: Subscriber) -> list[Piece]:
        """Mark the events that a handler has failed with (spec, rules R11 to R13).

        They come back as they were; from the `max_deliveries`-th time on in halves, until it is one event alone that a
        handler fails with: that one is a dead letter.
        """
        before, rest = _split_all(pieces, max(0, start))
        tried, after = _split_all(rest, max(0, stop) - max(0, start))
        suspects: list[Piece] = []
        for batch, size, token in tried:
            known = type(token) is Suspect
            suspects.append(
                (batch, size, Suspect(token.deliveries + 1 if known else 1, token.token if known else token))
            )
        worst = max((piece[2].deliveries for piece in suspects), default=0)
        if self._most is not None and worst >= self._most and len(suspects) == 1:
            size = suspects[0][1]
            if size == 1:
                self._bury(suspects.pop(), reason, subscriber)
            else:
                suspects[:] = split(suspects[0], size // 2)
        return [*before, *suspects, *after]

    def _bury(self, piece: Piece, reason: Any, subscriber: Subscriber) -> None:
        batch, _, suspect = piece
        self.buried += 1
        self.discard(1, None, "dead letter")
        (event,) = rows(batch)
        consumer, stage = subscriber.names()
        self.port.bury(DeadLetter(event, stage, consumer, suspect.deliveries, reason), suspect.token)

    def _return(self, pieces: list[Piece]) -> None:
        if pieces:
            self.queue.put_front(pieces)
        if self.queue.size and not self.accumulating:
            self.drain()
        elif self.dispatcher.absorbed:
            self.port.owe()

    def _detach(self) -> None:
        detached, self._detached = self._detached, []
        for subscriber, reason in detached:
            if self.cancel(subscriber.subscription, End("cancel", reason)):
                self.agenda.append(("handle_cancel", (End("cancel", reason), subscriber.subscription)))

    def _store(self, batch: Batch, size: int, token: Any, *, soft: bool) -> Batch | None:
        """Queue events within the bound; return those that are refused."""
        queue = self.queue
        if soft or self._size is None or not queue.ordered or queue.size + size <= self._size:
            queue.put(batch, size, token)
            return None
        if self._keep == "last":
            queue.put(batch, size, token)
            self._bound()
            return None
        room = max(0, self._size - queue.size)
        if room:
            queue.put(cut(batch, 0, room), room, None if token is None else token.part(0, room))
        rest = None if token is None else token.part(room, size)
        return self._drop([(cut(batch, room, size), size - room, rest)])

    def _bound(self) -> Batch | None:
        """Shed what is above the bound: the oldest first, or as a queue with an order of its own decides."""
        excess = 0 if self._size is None else self.queue.size - self._size
        return self._drop(self.queue.shed(excess)) if excess > 0 else None

    def _drop(self, pieces: list[Piece]) -> Batch | None:
        """Count what the buffer cannot keep; return it when that is an error."""
        for _, size, token in pieces:
            self.discard(size, token, "buffer full")
            self.dropped += size
        if self._keep is not None:
            return None
        batches = join([piece[0] for piece in pieces])
        return batches[0] if len(batches) == 1 else [event for batch in batches for event in rows(batch)]


def _split_all(pieces: list[Piece], at: int) -> tuple[list[Piece], list[Piece]]:
    """Cut a list of pieces after so many events."""
    before: list[Piece] = []
    for index, piece in enumerate(pieces):
        if at <= 0:
            return before, pieces[index:]
        if piece[1] > at:
            head, rest = split(piece, at)
            return [*before, head], [rest, *pieces[index + 1 :]]
        before.append(piece)
        at -= piece[1]
    return before, []
