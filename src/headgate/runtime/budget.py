"""How many bytes of events may be on the way to one stage, beside how many events it asked for.

The sender counts what it has sent on a subscription and the receiver has not said to be through with; beyond half of
the budget nothing more is sent on it, as long as that is more than one message. The receiver is through with a message
when its handler is given the next one. It says so when that makes up an eighth of the budget, and for a large message
at once; so when it has nothing more to do, either one message is open or little is, and the sender goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headgate.protocol.messages import Message
    from headgate.runtime.driver import Driver
    from headgate.runtime.exchange import Exchange

PART = 8


class Outflow:
    """The sender's side of one subscription.

    Attributes:
        held: Messages that have to wait, oldest first.
    """

    __slots__ = ("_bytes", "_done", "_limit", "_weights", "held")

    def __init__(self, budget: int) -> None:
        """Begin with nothing on the way."""
        self.held: deque[tuple[int, Message]] = deque()
        self._limit = budget // 2
        self._weights: deque[int] = deque()
        self._bytes = 0
        self._done = 0

    @property
    def full(self) -> bool:
        """Whether nothing more may be sent now."""
        return self._bytes > self._limit and len(self._weights) > 1

    def sent(self, weight: int) -> None:
        """Count a message."""
        self._weights.append(weight)
        self._bytes += weight

    def done(self, total: int) -> None:
        """Take note of how many messages the receiver is through with, in all."""
        while self._done < total and self._weights:
            self._bytes -= self._weights.popleft()
            self._done += 1


class Inflow:
    """The receiver's side of one subscription.

    Args:
        budget: As the sender has it.
        tell: Tells the sender how many messages are done with, in all.
    """

    __slots__ = ("_done", "_open", "_part", "_tell", "_total", "_untold")

    def __init__(self, budget: int, tell: Callable[[int], None]) -> None:
        """Begin with nothing received."""
        self._part = budget // PART
        self._tell = tell
        self._open: deque[tuple[int, int]] = deque()  # the total of events after a message, and its weight
        self._total = 0
        self._done = 0
        self._untold = 0

    def received(self, count: int, weight: int) -> None:
        """Count a message of so many events."""
        self._total += count
        self._open.append((self._total, weight))

    def begin(self, handled: int) -> None:
        """Take note that a handler begins, when so many events were handled."""
        waiting = self._open
        while waiting and waiting[0][0] <= handled:
            self._untold += waiting.popleft()[1]
            self._done += 1
        if self._untold and (self._untold >= self._part or (waiting and waiting[0][1] > self._part)):
            self._untold = 0
            self._tell(self._done)


def watching(driver: Driver, handler: Callable[..., Any], exchange: Exchange) -> Callable[..., Any]:
    """Return a handler of events that notes which messages are done with, before it does what it does.

    What was to be told to other nodes goes out first: the next ask must not wait for the handler.
    """
    into: Any = driver.core.into
    inflows, pending = exchange.inflows, exchange.pending

    def watch(batch: Any, source: Any) -> Any:
        if pending:
            exchange.flush()
        inflow = inflows.get(source.id)
        if inflow is not None:
            inflow.begin(into.window.handled)
        return handler(batch, source)

    return watch
