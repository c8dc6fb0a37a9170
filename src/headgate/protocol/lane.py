"""The fast lane: `receive` and `returned` spelt out, role by role, for what happens nearly always.

Everything here is a shortcut of `StageCore`, to the same state and the same messages; whatever is not expected goes the long
way by ``super()``. The lane is open while no callback is outstanding, nothing waits (no agenda, no held messages, no
work, an empty queue) and nothing says that the stage should end.

Why it exists: at the default demand a batch of 500 events may cost a few microseconds in all, and the calls between the
parts of the core would be most of that (benchmarks, rows passthrough). Why it is apart: the core stays readable, and is
the reference that the lane is checked against (tests/simulation/test_lane.py).
"""

from __future__ import annotations

from typing import Any

from headgate.protocol import messages as m
from headgate.protocol.ledger import Origin, Subscriber
from headgate.protocol.messages import ASK, EVENTS, HANDLE_DEMAND, HANDLE_EVENTS, Message
from headgate.protocol.producer import ProducerSide
from headgate.protocol.stage import StageCore


class _Lane(StageCore):
    """Common to the three: whether the lane is open."""

    lane = False

    def _advance(self) -> None:
        super()._advance()
        out, into = self.out, self.into
        self.lane = (
            self.callback is None
            and self.plain
            and (into is None or not into.work)
            and (out is None or (out.direct and not out.queue.size))
        )


class ConsumerLane(_Lane):
    """A consumer: events in, an ask out."""

    def receive(self, message: Message) -> None:
        """Give the events to the handler at once."""
        if self.lane and message[0] == EVENTS:
            into = self.into
            window = into.windows.get(message[1])  # type: ignore[union-attr]  # a consumer has that side
            if window is not None:
                batch = message[2]
                size = len(batch)
                if 0 < size <= window.size:
                    window.received += size
                    into.window = window  # type: ignore[union-attr]
                    into.size = size  # type: ignore[union-attr]
                    self.callback = (HANDLE_EVENTS, (batch, message[1]))
                    self.lane = False
                    return
        super().receive(message)

    def returned(self, value: Any) -> None:
        """Ask for more, or remember the acknowledgement."""
        into = self.into
        window = into.window  # type: ignore[union-attr]  # a consumer has that side
        if value is not None or window is None or not self.plain or self.agenda or self.held:
            super().returned(value)
            return
        self.callback = None
        into.window = None  # type: ignore[union-attr]
        window.handled = window.acked = handled = window.handled + into.size  # type: ignore[union-attr]
        if window.asked - handled <= window.least:
            window.asked = asked = handled + window.most
            window.told = handled
            into.hand(window.producer, (ASK, window.subscription, asked, handled))  # type: ignore[union-attr]
        else:
            into.later(window)  # type: ignore[union-attr]
        if into.work:  # type: ignore[union-attr]
            self._advance()
        else:
            self.lane = True


class ProducerLane(_Lane):
    """A producer: an ask in, events out."""

    def receive(self, message: Message) -> None:
        """Settle what is acknowledged, note what is asked, and ask the callback for it."""
        if self.lane and message[0] == ASK:
            out = self.out
            subscriber = out.subscribers.get(message[1])  # type: ignore[union-attr]  # a producer has that side
            if subscriber is not None:
                count = _note(out, subscriber, message[2], message[3]) - out.requested  # type: ignore[arg-type, union-attr]
                if self.agenda:
                    self._advance()
                elif count > 0:
                    out.requested += count  # type: ignore[union-attr]
                    if self.answers:
                        self.callback = (HANDLE_DEMAND, (count,))
                        self.lane = False
                return
        super().receive(message)

    def returned(self, value: Any) -> None:
        """Send the events."""
        out = self.out
        kind = type(value)
        if (kind is list or kind is range) and self.plain and out.direct and not out.queue.size:  # type: ignore[union-attr]
            size = len(value)
            if 0 < size <= out.requested and self.callback[0] is HANDLE_DEMAND and not self.agenda and not self.held:  # type: ignore[union-attr, index]
                self.callback = None
                single = out.single  # type: ignore[union-attr]
                if single is not None and size <= single.asked - single.sent:
                    out.emitted += size  # type: ignore[union-attr]
                    out.requested -= size  # type: ignore[union-attr]
                    out.pass_on(single, value, size, None)  # type: ignore[union-attr]
                    count = single.asked - single.sent - out.requested  # type: ignore[union-attr]
                else:
                    out.emit(value, size, None)  # type: ignore[union-attr]
                    if self.agenda or out.queue.size:  # type: ignore[union-attr]
                        self._advance()
                        return
                    count = out.need()  # type: ignore[union-attr]
                if count > 0:
                    self._invoke_demand(out, count)  # type: ignore[arg-type]
                self.lane = self.callback is None
                return
        super().returned(value)


class MiddleLane(_Lane):
    """A middle stage: events in and out, asks in and out."""

    def receive(self, message: Message) -> None:
        """Give the events to the handler at once if their output is wanted; note what is asked and acknowledged."""
        if self.lane:
            out = self.out
            if message[0] == EVENTS:
                into = self.into
                window = into.windows.get(message[1])  # type: ignore[union-attr]  # a middle stage has both sides
                if window is not None:
                    single = out.single  # type: ignore[union-attr]
                    batch = message[2]
                    size = len(batch)
                    if (
                        0 < size <= window.size
                        and (out.dispatcher.wanted if single is None else single.asked - single.sent) > 0  # type: ignore[union-attr]
                    ):
                        window.received += size
                        into.window = window  # type: ignore[union-attr]
                        into.size = size  # type: ignore[union-attr]
                        into.origin = origin = Origin(size, into, window)  # type: ignore[union-attr]
                        window.origins.append(origin)
                        self.callback = (HANDLE_EVENTS, (batch, message[1]))
                        self.lane = False
                        return
            elif message[0] == ASK:
                subscriber = out.subscribers.get(message[1])  # type: ignore[union-attr]
                if subscriber is not None:
                    _note(out, subscriber, message[2], message[3])  # type: ignore[arg-type]
                    if self.agenda:
                        self._advance()
                    return
        super().receive(message)

    def returned(self, value: Any) -> None:
        """Send the output, and ask for more input."""
        out, into = self.out, self.into
        window = into.window  # type: ignore[union-attr]  # a middle stage has both sides
        if window is None or type(value) is not list or not value or not self.plain or self.agenda or self.held:
            super().returned(value)
            return
        self.callback = None
        size = len(value)
        origin = into.origin  # type: ignore[union-attr]
        single = out.single  # type: ignore[union-attr]
        if single is not None and size <= single.asked - single.sent and out.direct and not out.queue.size:  # type: ignore[union-attr]
            origin.left = size  # type: ignore[union-attr]  # the handler has returned: the one for it comes off
            out.emitted += size  # type: ignore[union-attr]
            out.pass_on(single, value, size, origin)  # type: ignore[union-attr]
            into.window = into.origin = None  # type: ignore[union-attr]
            window.handled = handled = window.handled + into.size  # type: ignore[union-attr]
            if window.asked - handled <= window.least:
                window.asked = asked = handled + window.most
                window.told = acked = window.acked
                into.hand(window.producer, (ASK, window.subscription, asked, acked))  # type: ignore[union-attr]
            else:
                into.later(window)  # type: ignore[union-attr]
            if not into.work:  # type: ignore[union-attr]
                self.lane = True
                return
        else:
            origin.left += size  # type: ignore[union-attr]
            out.emit(value, size, origin, soft=True)  # type: ignore[union-attr]
            into.done()  # type: ignore[union-attr]
        self._advance()


def _note(out: ProducerSide, subscriber: Subscriber, asked: int, acked: int) -> int:
    """Take in a consumer's totals (`ProducerSide.ask` without its rarities); return what is wanted now."""
    done = acked - subscriber.acked
    if done > 0:
        ledger = subscriber.ledger
        if ledger and ledger[0][1] == done and not subscriber.head:  # one whole batch
            token = ledger.popleft()[2]
            subscriber.acked = acked
            if token is not None:  # an `Origin`, as the queue is first in, first out
                left = token.left = token.left - done
                if not left:
                    token.owner.origin_settled(token.window)
        else:
            subscriber.ack(acked)
    if out.single is not None:
        if asked > subscriber.asked:
            subscriber.asked = asked
        return subscriber.asked - subscriber.sent
    more = asked - subscriber.asked
    if more > 0:
        subscriber.asked = asked
        out.dispatcher.asked(subscriber, more)
    return out.dispatcher.wanted


LANES = {m.PRODUCER: ProducerLane, m.PRODUCER_CONSUMER: MiddleLane, m.CONSUMER: ConsumerLane}
