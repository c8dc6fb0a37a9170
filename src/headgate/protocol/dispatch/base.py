"""What a dispatcher is: it decides which subscriber gets which events, and how many events are wanted at all.

This is a public extension point. A dispatcher is plain state: it is called by the producing side of one stage, acts
through its `Outlet`, and never waits. `headgate.testing.check_dispatcher` checks the contract for any of them.

The contract (docs/spec.md, rules D1 to D9):

* deliver to a subscriber no more than its ``pending``;
* `dispatch` takes a prefix of the batch and says how long it was; every event of that prefix is delivered, discarded,
  or queued inside (and counted by `queued`);
* ``wanted`` is true after each call: derived from the subscribers as they are then, never kept by adding up what
  happened; as long as it is positive `dispatch` takes at least one event;
* hand each event's token along with it, to `Outlet.deliver` or `Outlet.discard`;
* a subscriber that is refused is refused by raising `SubscriptionError` from `subscribe`, before any change.
"""

from __future__ import annotations

from typing import Any, Protocol, Self

from headgate.protocol.batching import Batch
from headgate.protocol.buffer import Buffer, Queue
from headgate.protocol.ledger import Piece, Subscriber


class Outlet(Protocol):
    """What the producing side of a stage lets its dispatcher do."""

    name: str
    """The stage's name, for errors."""

    def deliver(self, subscriber: Subscriber, batch: Batch, size: int, token: Any) -> None:
        """Send a batch of ``size`` events to a subscriber that has asked for at least so many."""

    def discard(self, size: int, token: Any, reason: str) -> None:
        """Count events that go nowhere, by reason."""

    def detach(self, subscriber: Subscriber, reason: Any) -> None:
        """Cancel a subscription from the producer's side, once the dispatcher has returned."""

    def release(self, info: Any) -> None:
        """Hand back an info that `Dispatcher.hold` kept."""

    def report(self, error: Exception) -> None:
        """Make an error known that does not end the stage."""

    def warn(self, text: str) -> None:
        """Make a doubtful thing known."""

    def shuffle(self, items: list[Any]) -> None:
        """Shuffle in place with the driver's seeded random numbers."""

    def spill(self, name: str) -> Any:
        """Open a store outside of memory: ``append(batch)``, ``popleft()``."""


class Dispatcher:
    """Base of all dispatchers.

    An instance given to ``Child`` is a prototype: each start of the stage makes a `fresh` one.
    """

    outlet: Outlet
    _made_with: tuple[tuple[Any, ...], dict[str, Any]]
    wanted: int = 0
    """How many more events could be taken right now."""
    absorbed: bool = False
    """Whether there is unmet demand that is not in ``wanted``, as something is likely to change first.

    When the stage has nothing else to do, `idle` is called.
    """
    holds = False
    """Whether events may wait inside; an ask may then send several batches, which go out as one."""
    copies = False
    """Whether a subscriber has events of its own, which nobody else is to get when it leaves."""

    pools = False
    """Whether asks of several subscribers are looked at together; else each ask of a source is a demand of its own."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remember what it is made with, for `fresh`."""
        self = super().__new__(cls)
        self._made_with = (args, kwargs)
        return self

    def fresh(self) -> Self:
        """Make another one with the same options: what they hold (functions, mappings) is shared, the state is not."""
        args, kwargs = self._made_with
        return type(self)(*args, **kwargs)

    def bind(self, outlet: Outlet) -> None:
        """Connect it to its stage; called once, before anything else."""
        self.outlet = outlet

    def queue(self) -> Queue:
        """Return the queue in which the stage keeps what nobody has demanded: first in, first out by default."""
        return Buffer()

    def subscribe(self, subscriber: Subscriber) -> None:
        """Accept a subscriber, or raise `SubscriptionError`.

        Args:
            subscriber: Its record; nothing is asked yet.
        """
        raise NotImplementedError

    def cancel(self, subscriber: Subscriber, pieces: list[Piece]) -> list[Piece]:
        """Forget a subscriber.

        Args:
            subscriber: Its record, with whatever it had still pending.
            pieces: What it was sent and did not handle, oldest first.

        Returns:
            Those pieces that are to go in front of the stage's queue, in order.
        """
        raise NotImplementedError

    def give_back(self, subscriber: Subscriber, pieces: list[Piece]) -> list[Piece]:  # noqa: ARG002 (a hook)
        """Take what a subscriber that was forgotten before did not handle in the end.

        Args:
            subscriber: Its record; `cancel` was called for it.
            pieces: What comes back, oldest first.

        Returns:
            Those pieces that are to go in front of the stage's queue, in order.
        """
        return pieces

    def forget(self, heir: tuple[str, ...]) -> None:
        """Drop what is kept for subscribers that were ``away`` when they left, and will not come back.

        Args:
            heir: The beginning of their ``terms.heir``.
        """

    def asked(self, subscriber: Subscriber, count: int) -> None:
        """Take note that a subscriber's ``pending`` has just grown by ``count``."""
        raise NotImplementedError

    def dispatch(self, batch: Batch, size: int, token: Any) -> int:
        """Take events from the front of a batch.

        Args:
            batch: Any sequence.
            size: Its length, at least 1.
            token: Where the events came from; goes along with each piece.

        Returns:
            How many events were taken.
        """
        raise NotImplementedError

    def idle(self) -> None:
        """Take back into ``wanted`` what was ``absorbed``: nothing else has happened."""

    def queued(self) -> dict[Any, int]:
        """Return how many events wait inside the dispatcher, by the name of their queue."""
        return {}

    def hold(self, info: Any) -> bool:  # noqa: ARG002 (a hook)
        """Keep an info until the events queued inside now have left; False when there are none."""
        return False
