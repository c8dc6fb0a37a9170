"""The fast lane: `receive` and `returned` spelt out, role by role, for what happens nearly always.

Everything here is a shortcut of `StageCore`, to the same state and the same messages; whatever is not expected goes
the long way by ``super()``. The lane is open while no callback is outstanding, nothing waits (no agenda, no held
messages, no work, an empty queue) and nothing says that the stage should end.

Why it exists: at the default demand a batch of 500 events may cost a few microseconds in all, and the calls between the
parts of the core would be most of that (benchmarks, rows passthrough). (A callable that is an attribute is first put
into a local variable: CPython 3.11 specialises that, and not a call by way of the attribute.) Why it is apart: the
core stays readable, and is the reference that the lane is checked against (tests/simulation/test_lane.py).
"""

from __future__ import annotations

from typing import Any

from headgate.protocol import messages as m
from headgate.protocol.consumer import ConsumerSide
from headgate.protocol.ledger import Origin
from headgate.protocol.messages import ASK, EVENTS, HANDLE_DEMAND, HANDLE_EVENTS, Message
from headgate.protocol.producer import ProducerSide
from headgate.protocol.stage import StageCore


class _Lane(StageCore):
    """Common to the three: whether the lane is open."""

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

    into: ConsumerSide  # pyright: ignore[reportIncompatibleVariableOverride]  # there in this role

    def receive(self, message: Message) -> None:
        """Give the events to the handler at once."""
        if self.lane and message[0] == EVENTS:
            _, subscription, batch = message
            into = self.into
            window = into.windows.get(subscription)
            if window is not None and 0 < (size := len(batch)) <= window.size:
                window.received += size
                into.window = window
                into.size = size
                self.callback = (HANDLE_EVENTS, (batch, subscription))
                self.lane = False
                return
        super().receive(message)

    def returned(self, value: Any) -> None:
        """Ask for more, or remember the acknowledgement."""
        into = self.into
        window = into.window
        if value is not None or window is None or self.agenda or self.held or not self.plain:
            super().returned(value)
            return
        self.callback = into.window = None
        window.handled = window.acked = handled = window.handled + into.size
        if window.asked - handled <= window.least:
            window.asked = asked = handled + window.most
            window.told = handled
            ask = into.hand
            ask(window.producer, (ASK, window.subscription, asked, handled))
        else:
            into.later(window)
        if into.work:
            self._advance()
        else:
            self.lane = True


class ProducerLane(_Lane):
    """A producer: an ask in, events out."""

    out: ProducerSide  # pyright: ignore[reportIncompatibleVariableOverride]  # there in this role

    def receive(self, message: Message) -> None:
        """Settle what is acknowledged, note what is asked, and ask the callback for it."""
        if self.lane and message[0] == ASK:
            _, subscription, asked, acked = message
            out = self.out
            single = out.single
            if single is None or single.subscription is not subscription:
                if not self._asked(out, message):
                    super().receive(message)
                return
            done = acked - single.acked
            if done:
                ledger = single.ledger
                if ledger and ledger[0][1] == done and not single.head:  # one whole batch; a source has no tokens
                    ledger.popleft()
                    single.acked = acked
                else:
                    single.ack(acked)
            single.asked = max(single.asked, asked)
            requested = out.requested
            count = asked - single.sent - requested
            if count > 0:
                out.requested = requested + count
                if self.answers:
                    self.callback = (HANDLE_DEMAND, (count,))
                    self.lane = False
            return
        super().receive(message)

    def _asked(self, out: ProducerSide, message: Message) -> bool:
        """Do the same through the dispatcher; False when nobody is subscribed under this name."""
        if message[1] not in out.subscribers:
            return False
        out.ask(message[1], message[2], message[3])
        if self.agenda:
            self._advance()
        elif (count := out.dispatcher.wanted - out.requested) > 0:
            self._invoke_demand(out, count)
            self.lane = self.callback is None
        return True

    def returned(self, value: Any) -> None:
        """Send the events."""
        out = self.out
        kind = type(value)
        if (
            (kind is not range and kind is not list)
            or not 0 < (size := len(value)) <= (requested := out.requested)
            or self.callback[0] is not HANDLE_DEMAND  # type: ignore[index]  # one is outstanding
            or self.agenda
            or self.held
            or out.asks
            or not self.plain
            or out.queue.size
            or out.accumulated
            or not out.direct
        ):
            super().returned(value)
            return
        self.callback = None
        single = out.single
        if single is not None and size <= single.asked - single.sent:
            out.emitted += size
            out.requested = requested - size
            single.sent = sent = single.sent + size
            if out.keeps:
                single.ledger.append((value, size, None))
            hand = out.hand
            hand(single.address, (EVENTS, single.subscription, value))
            count = single.asked - sent - out.requested
        else:
            out.emit(value, size, None)
            if self.agenda or out.queue.size:
                self._advance()
                return
            count = out.need()
        if count > 0:
            self._invoke_demand(out, count)
            self.lane = self.callback is None
        else:
            self.lane = True


class MiddleLane(_Lane):
    """A middle stage: events in and out, asks in and out."""

    out: ProducerSide  # pyright: ignore[reportIncompatibleVariableOverride]  # there in this role
    into: ConsumerSide  # pyright: ignore[reportIncompatibleVariableOverride]  # there in this role

    def receive(self, message: Message) -> None:
        """Give the events to the handler at once if their output is wanted; note what is asked and acknowledged."""
        if self.lane:
            tag = message[0]
            out = self.out
            single = out.single
            if tag == EVENTS:
                _, subscription, batch = message
                into = self.into
                window = into.windows.get(subscription)
                if (
                    window is not None
                    and 0 < (size := len(batch)) <= window.size
                    and (single.asked > single.sent if single is not None else out.dispatcher.wanted > 0)
                ):
                    window.received += size
                    into.window = window
                    into.size = size
                    into.origin = origin = Origin(size, into, window)
                    window.origins.append(origin)
                    self.callback = (HANDLE_EVENTS, (batch, subscription))
                    self.lane = False
                    return
            elif tag == ASK:
                _, subscription, asked, acked = message
                if single is not None and single.subscription is subscription:
                    done = acked - single.acked
                    if done:
                        ledger = single.ledger
                        if ledger and ledger[0][1] == done and not single.head:  # one whole batch
                            single.acked = acked
                            token = ledger.popleft()[2]
                            if type(token) is Origin:
                                token.left -= done
                                if not token.left:
                                    self.into.origin_settled(token.window)
                            elif token is not None:  # a `Suspect`
                                token.settle(done)
                        else:
                            single.ack(acked)
                    single.asked = max(single.asked, asked)
                    return
                if subscription in out.subscribers:
                    out.ask(subscription, asked, acked)
                    if self.agenda:
                        self._advance()
                    return
        super().receive(message)

    def returned(self, value: Any) -> None:
        """Send the output, and ask for more input."""
        into = self.into
        window = into.window
        if window is None or type(value) is not list or not value or self.agenda or self.held or not self.plain:
            super().returned(value)
            return
        out = self.out
        self.callback = None
        size = len(value)
        origin = into.origin
        assert origin is not None  # noqa: S101 (a middle stage keeps one)
        single = out.single
        if single is not None and size <= single.asked - single.sent and not out.queue.size and out.direct:
            origin.left += size - 1  # the handler has returned: the one that stood for it comes off
            out.emitted += size
            single.sent += size
            if out.keeps:
                single.ledger.append((value, size, origin))
            else:
                origin.settle(size)
            hand = out.hand
            hand(single.address, (EVENTS, single.subscription, value))
            into.window = into.origin = None
            window.handled = handled = window.handled + into.size
            if window.asked - handled <= window.least:
                window.asked = asked = handled + window.most
                window.told = acked = window.acked
                ask = into.hand
                ask(window.producer, (ASK, window.subscription, asked, acked))
            else:
                into.later(window)
            if not into.work:
                self.lane = True
                return
        else:
            origin.left += size
            out.emit(value, size, origin, soft=True)
            into.done()
        self._advance()


LANES = {m.PRODUCER: ProducerLane, m.PRODUCER_CONSUMER: MiddleLane, m.CONSUMER: ConsumerLane}
