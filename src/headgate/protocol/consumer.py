"""The consuming side of a stage: its windows, and the work that lies before its handler.

Work is kept in the order in which it came. A message of events is cut into batches of at most the window's size; the
end of a subscription, and an info of a middle stage, wait behind the events that came before them.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from headgate.protocol.batching import Batch, cut
from headgate.protocol.ledger import Origin
from headgate.protocol.messages import (
    ASK,
    CANCEL,
    CLOSED,
    FAILED,
    SETTLED,
    SUBSCRIBE,
    End,
    Subscription,
    is_normal,
)
from headgate.protocol.port import Port
from headgate.protocol.window import Window

Work = tuple[Window | None, Any, int]
"""Events and their number; or an `End` and -1; or an info (without a window) and -1."""


class ConsumerSide:
    """The half of a stage that receives events.

    Attributes:
        windows: The subscriptions that are open, and those that this stage still owes acknowledgements.
        work: What lies before the handler, oldest first.
        at: How many events of the first message in `work` are handled already.
        window: Whose events the handler has right now.
        size: How many events it has.
        hand: The port's way for asks.
        origin: The record of that input batch, in a middle stage.
    """

    def __init__(self, port: Port, *, tracked: bool) -> None:
        """Start with no subscription; ``tracked``: inputs are acknowledged when their outputs are."""
        self.windows: dict[Subscription, Window] = {}
        self.work: deque[Work] = deque()
        self.at = 0
        self.window: Window | None = None
        self.size = 0
        self.origin: Origin | None = None
        self._handled = 0  # through windows that are gone
        self._tracked = tracked
        self._send = port.send
        self.hand = port.ask
        self._owe = port.owe
        self._resting = False
        self._due = False  # there are acknowledgements that no ask has carried yet
        self._early = False  # there are some that no total can carry, as others before them are missing
        self._deferred = False

    def subscribe(self, subscription: Subscription) -> None:
        """Open a window and tell the producer."""
        self.windows[subscription] = Window(subscription)
        self._send(subscription.producer, (SUBSCRIBE, subscription))

    def opened(self, subscription: Subscription, *, manual: bool) -> None:
        """Begin to ask."""
        window = self.windows.get(subscription)
        if window is None or not window.open:
            return
        if manual:
            window.set_manual()
        if not window.manual and not self._resting:
            window.asked = window.most
            self.hand(window.producer, window.ask())

    def ask(self, subscription: Subscription, count: int) -> bool:
        """Ask for more by hand; False when the subscription is not open (then it is no error, and nothing happens)."""
        window = self.windows.get(subscription)
        if window is None or not window.open:
            return False
        window.asked += count
        if count:
            self.hand(window.producer, window.ask())
        return True

    def rest(self) -> None:
        """Ask for nothing more: the stage is finishing."""
        self._resting = True
        for window in self.windows.values():
            window.least = -1  # never reached

    def receive(self, subscription: Subscription, batch: Batch, deliveries: int = 1) -> bool:
        """Put events into the work; False when nobody knows the subscription."""
        window = self.windows.get(subscription)
        if window is None:
            return False
        if not window.open:  # this stage is leaving: they go back with its leave
            return True
        size = len(batch)
        if deliveries > 1:
            window.suspects.append((window.received, window.received + size, deliveries))
        window.received += size
        if size:
            self.work.append((window, batch, size))
        return True

    def next_batch(self) -> tuple[Batch, Subscription]:
        """Take the next batch for the handler; the first of the work must be events."""
        window, batch, size = self.work[0]
        assert window is not None  # noqa: S101 (for the type checker: events have a window)
        at, limit = self.at, window.size
        if size - at > limit:
            self.at = at + limit
            batch = cut(batch, at, self.at)
            size = limit
        else:
            self.work.popleft()
            if at:
                batch = cut(batch, at, size)
                size -= at
                self.at = 0
        return self.begin(window, batch, size)

    def begin(self, window: Window, batch: Batch, size: int) -> tuple[Batch, Subscription]:
        """Note whose events the handler has, and return its arguments."""
        self.window = window
        self.size = size
        if self._tracked:
            self.origin = origin = Origin(size, self, window)
            window.origins.append(origin)
        return batch, window.subscription

    def done(self) -> None:
        """Take note that the handler has returned: ask for more, and acknowledge what can be.

        An acknowledgement goes along with the next ask, or when the driver has nothing better to do (`flush`).
        """
        window = self.window
        assert window is not None  # noqa: S101 (a batch was out)
        self.window = None
        size = self.size
        window.handled = handled = window.handled + size
        origin = self.origin
        if origin is None:
            if not window.origins:
                window.acked = handled
            elif not self._deferred:  # earlier events are not done yet
                window.origins.append(Origin(size, self, window, left=0))
                self._note_early()
            else:
                self.origin_settled(window)
            self._deferred = False  # also when all that was deferred is done by now
        else:
            self.origin = None
            origin.left -= 1
            if not origin.left:
                self.origin_settled(window)
        if window.asked - handled <= window.least:
            window.asked = asked = handled + window.most
            window.told = acked = window.acked
            ask = self.hand
            ask(window.producer, (ASK, window.subscription, asked, acked))
        else:
            self.later(window)

    def later(self, window: Window) -> None:
        """Note that a window may have acknowledgements to give which no ask has carried."""
        if not window.open:
            if window.leaving is not None:
                self._leave(window, window.leaving)
            else:
                self._last_words(window)
        elif not self._due and window.acked != window.told:
            self._due = True
            self._owe()

    def flush(self) -> None:
        """Send the acknowledgements that no ask has carried."""
        self._due = False
        for window in self.windows.values():
            if window.acked != window.told and window.open:
                self.hand(window.producer, window.ask())
            if self._early:
                self._settle_early(window)
        self._early = False

    def open_origin(self) -> Origin:
        """Return the record of the input batch that the handler has; it is made now if it was not needed before."""
        origin = self.origin
        if origin is None:
            window = self.window
            assert window is not None  # noqa: S101 (a batch is out)
            self.origin = origin = Origin(self.size, self, window)
            window.origins.append(origin)
        return origin

    def defer(self) -> list[Origin]:
        """Let each event of the batch that the handler has be acknowledged by itself, whenever it is done.

        Returns:
            One record for each event, to be settled by ``settle(1)``, in any order.
        """
        window = self.window
        assert window is not None  # noqa: S101 (a batch is out)
        origins = [Origin(1, self, window) for _ in range(self.size)]
        window.origins.extend(origins)
        self._deferred = True
        return origins

    def give_back(self, rest: Batch) -> None:
        """Put the end of the batch that the handler has back before all other work: it was not handled after all."""
        window, size = self.window, len(rest)
        if window is None or not size:
            return
        self.size -= size
        if self.origin is not None:
            self.origin.count -= size
        if self.at:
            self.at -= size
        else:
            self.work.appendleft((window, rest, size))

    def origin_settled(self, window: Window) -> None:
        """Acknowledge inputs whose last output was settled (called by an `Origin`)."""
        origins, acked = window.origins, window.acked
        while origins and not origins[0].left:
            acked += origins.popleft().count
        if acked == window.acked:
            if self._tracked:  # totals will do: its inputs are done nearly in order
                return
            self._note_early()
            return
        window.acked = acked
        if not window.open:
            self._last_words(window)
        elif not self._due:
            self._due = True
            self._owe()

    def _note_early(self) -> None:
        """See to it that what is done ahead of others is told: it may be so for long."""
        self._early = True
        if not self._due:
            self._due = True
            self._owe()

    def unsettled(self) -> bool:
        """Say whether events that were deferred are not done."""
        return not self._tracked and any(window.origins for window in self.windows.values())

    def end(self, window: Window) -> None:
        """Close a window whose producer has ended it; the acknowledgements that it still owes come later."""
        window.close()
        self._last_words(window)

    @property
    def handled(self) -> int:
        """Events handled, in total."""
        return self._handled + sum(window.handled for window in self.windows.values())

    def cancel(self, subscription: Subscription, end: End) -> bool:
        """Leave a subscription: what was not handled goes back. A batch that is in the handler is finished first.

        Returns:
            False when it was not open.
        """
        window = self.windows.get(subscription)
        if window is None or not window.open:
            return False
        head = self.work[0] if self.work else None
        if head is not None and head[0] is window:
            self.at = 0
        self.work = deque(item for item in self.work if item[0] is not window)
        window.close()
        if self.window is window:
            window.leaving = end
        else:
            self._leave(window, end)
        return True

    def leave(self, end: End) -> None:
        """Leave every subscription: the stage has ended, and answers for nothing that is not acknowledged."""
        for subscription, window in reversed(self.windows.items()):  # what was sent first comes to stand in front
            if self._early:
                self._settle_early(window)
            if self.window is window and not is_normal(end.reason):
                at = window.handled
                self._send(window.producer, (FAILED, subscription, at, at + self.size, end.reason))
            self._send(window.producer, (CANCEL, subscription, end, window.acked, window.acked))
            self._handled += window.handled
        self.windows.clear()
        self.work.clear()

    def _leave(self, window: Window, end: End) -> None:
        window.leaving = None
        self._send(window.producer, (CANCEL, window.subscription, end, window.acked, window.handled))
        if window.acked == window.handled:
            self._forget(window)
        window.received = window.handled  # the rest has gone back

    def _settle_early(self, window: Window) -> None:
        """Tell a producer what is done ahead of other events; neighbours become one record."""
        at = window.acked
        ranges: list[tuple[int, int]] = []
        kept: deque[Origin] = deque()
        for origin in window.origins:
            stop = at + origin.count
            if origin.left:
                kept.append(origin)
            else:
                if not origin.told:
                    if ranges and ranges[-1][1] == at:
                        ranges[-1] = (ranges[-1][0], stop)
                    else:
                        ranges.append((at, stop))
                    origin.told = True
                if kept and not kept[-1].left:
                    kept[-1].count += origin.count
                else:
                    kept.append(origin)
            at = stop
        window.origins = kept
        if ranges:
            self._send(window.producer, (SETTLED, window.subscription, tuple(ranges)))

    def _last_words(self, window: Window) -> None:
        """Confirm that everything is done, when it is."""
        if window.leaving is None and window.acked == window.received and window.subscription in self.windows:
            self._forget(window)
            self._send(window.producer, (CLOSED, window.subscription, window.acked))

    def _forget(self, window: Window) -> None:
        self._handled += window.handled
        del self.windows[window.subscription]
