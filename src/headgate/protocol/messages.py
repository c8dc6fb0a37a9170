"""What stages say to each other, and the names of the callbacks of a stage.

A message is a plain tuple: a tag from this module, then its fields. It can be pickled when its events and options can.

To a producer (or to the producing side of a middle stage):

* ``(ASK, subscription, asked, acked)``: *totals* since the subscription began, not differences: how many events the
  consumer has asked for and how many it is done with. A total says the same twice and never drifts.
* ``(SUBSCRIBE, subscription)``
* ``(CANCEL, subscription, end, acked, handled)``: the consumer leaves; what is beyond ``handled`` comes back. What a
  middle stage has handled and not acknowledged is acknowledged, or given back, by ``CLOSED``.
* ``(CLOSED, subscription, acked)``: the last word after the producer ended a subscription.
* ``(FAILED, subscription, start, stop, reason)``: totals; the handler failed with these events. The leave follows.
* ``(SETTLED, subscription, ranges)``: pairs of totals; these events are done, although some before them are not.

To a consumer (or to the consuming side of a middle stage):

* ``(EVENTS, subscription, batch)``
* ``(REDELIVERED, subscription, batch, deliveries)``: events that a handler has failed with before, by themselves
* ``(SUBSCRIBED, subscription)`` and ``(REFUSED, subscription, error)``
* ``(CANCELLED, subscription, end)``

To any stage: ``(CALL, request, token)``, ``(CAST, message)``, ``(INFO, message)`` (comes after what is buffered),
``(TELL, message)`` (does not), ``(STOP, reason)``, ``(KILL, reason)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from traceback import format_exception
from typing import Any, Final, NamedTuple

from headgate.errors import StageCrashed

ASK: Final = 1
EVENTS: Final = 2
SUBSCRIBE: Final = 3
SUBSCRIBED: Final = 4
REFUSED: Final = 5
CANCEL: Final = 6
CANCELLED: Final = 7
CLOSED: Final = 8
CALL: Final = 9
CAST: Final = 10
INFO: Final = 11
TELL: Final = 12
STOP: Final = 13
KILL: Final = 14
FAILED: Final = 15
SETTLED: Final = 16
REDELIVERED: Final = 17

TAG_NAMES: Final = {
    ASK: "ask",
    EVENTS: "events",
    SUBSCRIBE: "subscribe",
    SUBSCRIBED: "subscribed",
    REFUSED: "refused",
    CANCEL: "cancel",
    CANCELLED: "cancelled",
    CLOSED: "closed",
    CALL: "call",
    CAST: "cast",
    INFO: "info",
    TELL: "tell",
    STOP: "stop",
    KILL: "kill",
    FAILED: "failed",
    SETTLED: "settled",
    REDELIVERED: "redelivered",
}

Message = tuple[Any, ...]
Address = Any
"""Where a message goes: opaque to the protocol; the driver's reference, or a plain name in the simulator."""

HANDLE_EVENTS: Final = "handle_events"
HANDLE_DEMAND: Final = "handle_demand"
HANDLE_SUBSCRIBE: Final = "handle_subscribe"
HANDLE_CANCEL: Final = "handle_cancel"
HANDLE_CALL: Final = "handle_call"
HANDLE_CAST: Final = "handle_cast"
HANDLE_INFO: Final = "handle_info"
HANDLE_DISCARDED: Final = "handle_discarded"
STARTED: Final = "started"
TERMINATE: Final = "terminate"

CALLBACKS: Final = (
    HANDLE_EVENTS,
    HANDLE_DEMAND,
    HANDLE_SUBSCRIBE,
    HANDLE_CANCEL,
    HANDLE_CALL,
    HANDLE_CAST,
    HANDLE_INFO,
    HANDLE_DISCARDED,
    STARTED,
    TERMINATE,
)

PRODUCER: Final = "producer"
PRODUCER_CONSUMER: Final = "producer_consumer"
CONSUMER: Final = "consumer"

NORMAL: Final = "normal"
SHUTDOWN: Final = "shutdown"


def is_normal(reason: Any) -> bool:
    """Say whether a stage that ends for this reason ended as it should.

    ``"normal"``, ``"shutdown"`` and ``("shutdown", anything)`` are normal; all else is a crash.
    """
    if type(reason) is tuple:
        return len(reason) == 2 and reason[0] == SHUTDOWN  # noqa: PLR2004 (a pair)
    return isinstance(reason, str) and reason in (NORMAL, SHUTDOWN)


def crash(stage: str, reason: Any) -> StageCrashed | None:
    """Return the error by which an end for this reason surfaces, or None when the end is normal."""
    if is_normal(reason):
        return None
    return reason if isinstance(reason, StageCrashed) else StageCrashed(stage, reason)


class End(NamedTuple):
    """Why a subscription ended: what ``handle_cancel`` is given.

    Attributes:
        kind: ``"cancel"`` when one side asked for it, ``"down"`` when one side itself ended.
        reason: The reason that was given, or for which the other side ended. Never wrapped.
        finished: True when a producer ended since it had no more events and every one of them was handled.
    """

    kind: str
    reason: Any
    finished: bool = False


class Down(NamedTuple):
    """What ``handle_info`` is given when a monitored stage ends.

    Attributes:
        ref: The stage's reference.
        reason: Why it ended.
    """

    ref: Any
    reason: Any


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that is given up: whoever was given it failed, again and again.

    Attributes:
        event: The event.
        stage: Name of the stage that sent it (of a `ConsumerSupervisor`: that one's).
        consumer: Name of the stage (or the child's id) that failed with it last.
        deliveries: How often a handler was given it.
        reason: Why the last one ended: a `StageCrashed`, or the reason that it was killed with.
    """

    event: Any
    stage: str
    consumer: str
    deliveries: int
    reason: Any

    @property
    def error(self) -> BaseException | None:
        """What the handler raised; None when it was killed."""
        reason = self.reason
        cause = reason.__cause__ if isinstance(reason, StageCrashed) else None
        return cause or (reason if isinstance(reason, BaseException) else None)

    @property
    def traceback(self) -> str:
        """The traceback of `error` as text; of a stage that was killed, its reason."""
        error = self.error
        return f"{self.reason!r}\n" if error is None else "".join(format_exception(error))


class Terms(NamedTuple):
    """The terms of one subscription, as the consumer asked for them.

    Attributes:
        max_demand: The most events that may be out at any moment; at least 1.
        min_demand: More is asked when no more than this many are out; 0 to ``max_demand - 1``.
        cancel: ``"permanent"``, ``"transient"`` or ``"temporary"``.
        manual: True: nothing is asked but by ``ask``.
        partition: For a partition dispatcher: the partition's name.
        selector: For a broadcast dispatcher: event -> truth; only chosen events are delivered.
        weight: For dispatchers that serve in turn: turns in a row.
        key: A name of the subscriber for dispatchers that remember one.
        retry: Seconds for which the consumer waits for another stage of the producer's name when there is none (any
            more); None: it does not.
        heir: Who succeeds the consumer when it ends, since a supervisor starts it again: a tuple of ids, from the top.
    """

    max_demand: int = 1000
    min_demand: int = 500
    cancel: str = "permanent"
    manual: bool = False
    partition: Any = None
    selector: Any = None
    weight: int = 1
    key: Any = None
    retry: float | None = None
    heir: tuple[str, ...] | None = None


class Subscription:
    """One subscription: the handle that users hold, and the key by which both sides know it.

    It never changes. Two are the same only when they are the same object (a link between processes keeps one
    object on each side).

    Attributes:
        id: A number that no other subscription of this system has.
        producer: Reference of the stage that sends.
        consumer: Reference of the stage that asks.
        terms: The options that it was made with.
    """

    __slots__ = ("__weakref__", "consumer", "id", "producer", "terms")

    def __init__(self, id: int, producer: Address, consumer: Address, terms: Terms) -> None:  # noqa: A002 (the field's word)
        """Join a consumer to a producer under these terms."""
        self.id = id
        self.producer = producer
        self.consumer = consumer
        self.terms = terms

    def __repr__(self) -> str:
        """Show who asks whom."""
        return f"<Subscription {self.id}: {_name(self.consumer)} <- {_name(self.producer)}>"

    def ask(self, count: int) -> Any:
        """Ask for ``count`` more events on behalf of the consumer (manual mode). See ``Ref.ask``."""
        return self.consumer.ask(self, count)

    def cancel(self, reason: Any = NORMAL) -> Any:
        """Cancel on behalf of the consumer, which lives on. See ``Ref.cancel``."""
        return self.consumer.cancel(self, reason)


def _name(address: Address) -> str:
    return str(getattr(address, "name", address))
