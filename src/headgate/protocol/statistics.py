"""What can be seen of a stage at any moment: plain numbers, read off its state."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from headgate.protocol.stage import StageCore


@dataclass(frozen=True, slots=True)
class SubscriptionStatistics:
    """One subscription as one side sees it. All numbers are events since it began, or events right now.

    Attributes:
        peer: Name of the stage at the other end.
        asked: Asked for, in total.
        sent: Sent (as a consumer sees it: received), in total.
        acked: Acknowledged, in total.
        pending: Asked for and not sent, now.
        in_flight: Sent and not acknowledged, now.
    """

    peer: str
    asked: int
    sent: int
    acked: int
    pending: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class StageStatistics:
    """One stage. It can be awaited too, so that asking a stage elsewhere for its statistics reads the same.

    Attributes:
        name: The stage's name.
        role: ``"producer"``, ``"producer_consumer"`` or ``"consumer"``.
        dispatcher: The class of its dispatcher; None for a consumer.
        state: ``"starting"``, ``"running"``, ``"finishing"``, ``"ending"`` or ``"ended"``.
        demand: Events that its consumers want and it has not given yet.
        buffered: Events in its buffer.
        queued: Events inside its dispatcher, by the name of their queue (a partition, a subscription).
        emitted: Events it gave, in total.
        delivered: Events sent to consumers, in total; a broadcast counts every copy.
        handled: Events it handled (a producer: events that its consumers acknowledged), in total.
        waiting: Events that lie before its handler.
        in_flight: Events delivered to consumers and not acknowledged.
        discarded: Events that went nowhere, by reason.
        producers: Its subscriptions to producers.
        consumers: The subscriptions of its consumers.
    """

    name: str
    role: str
    dispatcher: str | None
    state: str
    demand: int
    buffered: int
    queued: dict[Any, int]
    emitted: int
    delivered: int
    handled: int
    waiting: int
    in_flight: int
    discarded: dict[str, int]
    producers: tuple[SubscriptionStatistics, ...]
    consumers: tuple[SubscriptionStatistics, ...]

    def __await__(self) -> Generator[Any, None, StageStatistics]:
        """Be itself, at once."""
        yield from ()
        return self


def statistics(core: StageCore) -> StageStatistics:
    """Read a stage's numbers off its state."""
    out, into = core.out, core.into
    producers: tuple[SubscriptionStatistics, ...] = ()
    consumers: tuple[SubscriptionStatistics, ...] = ()
    waiting = 0
    if into is not None:
        waiting = sum(size for _, _, size in into.work if size > 0) - into.at
        producers = tuple(
            SubscriptionStatistics(
                _name(each.producer),
                each.asked,
                each.received,
                each.acked,
                each.outstanding,
                each.received - each.acked,
            )
            for each in into.windows.values()
        )
    if out is not None:
        consumers = tuple(
            SubscriptionStatistics(_name(each.address), each.asked, each.sent, each.acked, each.pending, each.in_flight)
            for each in out.subscribers.values()
        )
    return StageStatistics(
        name=core.port.name,
        role=core.role,
        dispatcher=None if out is None else type(out.dispatcher).__name__,
        state=core.state,
        demand=0 if out is None or core.state in ("ending", "ended") else max(0, out.need() + out.requested),
        buffered=0 if out is None else out.queue.size,
        queued={} if out is None else out.dispatcher.queued(),
        emitted=0 if out is None else out.emitted,
        delivered=0 if out is None else out.delivered,
        handled=into.handled if into is not None else out.handled if out is not None else 0,
        waiting=waiting,
        in_flight=0 if out is None else out.in_flight(),
        discarded={} if out is None else dict(out.discarded),
        producers=producers,
        consumers=consumers,
    )


def _name(address: Any) -> str:
    return str(getattr(address, "name", address))
