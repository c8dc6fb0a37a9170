"""What a node has to do with other nodes: its links, and who is known by which number.

A stage's number is unique in the system, as the home node gives them out; a subscription's begins with the number of
the node that made it. What crosses a link is numbers; each side keeps one object for each, as long as anybody uses it.

The walk of an ask and of a batch. A consumer's core here hands its port an ask for a producer whose reference points at
a `FarDriver`; that one's mailbox posts it to the link, as four numbers. Over there `deliver` finds the producer's
driver and gives it the ask, as `Node.ask` does for one from next door. The batch comes back the same way. Neither core
knows.

The home node starts the others and is told how their stages end; it alone decides about names. The others have copies
of what it knows of them, so that a consumer can find out at once whether a producer will come back.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headgate.errors import CrossingError, HandlerError, NoStageError, StageCrashed, SubscriptionError, short
from headgate.protocol import messages as m
from headgate.protocol.messages import ASK, EVENTS, End, Message, Subscription
from headgate.protocol.stage import refuse
from headgate.runtime.budget import Inflow, watching
from headgate.runtime.driver import Endpoint
from headgate.runtime.far import FarDriver
from headgate.runtime.link import Link
from headgate.runtime.reference import Nobody, Ref
from headgate.runtime.wire import HINT, Bare, Codes

if TYPE_CHECKING:
    from headgate.runtime.board import Held
    from headgate.runtime.node import Node

_LEAVES = frozenset({m.CANCEL, m.CANCELLED, m.FAILED, m.STOP, m.KILL})


class Caller:
    """Somebody on another node who waits for an answer. It stands where a future would."""

    __slots__ = ("_answered", "_exchange", "among", "node", "number")

    def __init__(self, exchange: Exchange, node: int, number: int) -> None:
        """Know whom to answer."""
        self._exchange = exchange
        self._answered = False
        self.among: set[Any] | None = None  # those who wait for the same stage
        self.node = node
        self.number = number

    def done(self) -> bool:
        """Say whether it was answered."""
        return self._answered

    def set_result(self, value: Any) -> None:
        """Answer."""
        self._answer(value, None)

    def set_exception(self, error: BaseException) -> None:
        """Answer with an error."""
        self._answer(None, error)

    def _answer(self, value: Any, error: BaseException | None) -> None:
        self._answered = True
        if self.among is not None:
            self.among.discard(self)
        link = self._exchange.link(self.node)
        packed = None
        if error is None:
            try:
                packed = link.pack(value)
            except Exception as wrong:  # noqa: BLE001 (whatever cannot be pickled)
                text = f"the answer cannot come back from another process: {short(value)} ({wrong}). {HINT}"
                error = CrossingError(text)
        link.tell("answer", self.number, packed, error)


class Exchange:
    """The links of one node.

    Args:
        node: The node.
        number: Its number; 0 is home.

    Attributes:
        links: By the number of the other node.
        known: Stages by number: those of this node, and those elsewhere that somebody here refers to.
    """

    local = True
    max_bytes = 64 << 20

    def __init__(self, node: Node, number: int) -> None:
        """Begin without links."""
        self.node = node
        self.loop = node.loop
        self.number = number
        self.links: dict[int, Link] = {}
        self.known: weakref.WeakValueDictionary[int, Endpoint] = weakref.WeakValueDictionary()
        self._subscriptions: weakref.WeakValueDictionary[int, Subscription] = weakref.WeakValueDictionary()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._tokens = itertools.count(1)
        self._lost: dict[int, Any] = {}  # nodes that have ended, and why
        self.inflows: dict[int, Inflow] = {}
        self._crashes: weakref.WeakValueDictionary[tuple[int, int], StageCrashed] = weakref.WeakValueDictionary()
        self._crash_numbers = itertools.count(1)
        self.pending: list[Link] = []  # links that have something to write
        self._watched: weakref.WeakSet[Endpoint] = weakref.WeakSet()
        node.exchange = self

    # -- what crosses -------------------------------------------------------------------------------------------------

    def codes(self, link: Link) -> Codes:  # noqa: ARG002 (each link has its own)
        """Return what is known of code on a link: nothing yet."""
        return Codes(self._name, self._find)

    def _name(self, value: Any) -> tuple[Any, ...] | None:
        """Say what crosses in the stead of an object of ours."""
        kind = type(value)
        if kind is Subscription:
            self._subscriptions[value.id] = value
            producer = value.producer
            if isinstance(producer, Nobody):
                producer = producer.name
            return ("subscription", value.id, producer, value.consumer, value.terms)
        if issubclass(kind, Ref):
            driver: Any = value.driver
            where = driver.where if driver.far else self.number
            if not driver.far:
                self.known[driver.number] = driver
            return ("ref", where, driver.number, driver.name, driver.core.role, driver.child.id, driver.registered)
        if kind is Caller:
            return ("caller", value.node, value.number)
        if issubclass(kind, asyncio.Future):
            return ("caller", self.number, self._await(value))
        if issubclass(kind, StageCrashed):  # it may come by several ways, and is one crash
            name = value.__dict__.get("_crossing")
            if name is None:
                name = value._crossing = (self.number, next(self._crash_numbers))  # noqa: SLF001 (our own mark)
            self._crashes[name] = value
            return ("crash", name, Bare(value))
        return None

    def _find(self, name: tuple[Any, ...]) -> Any:
        """Return the object of this side."""
        kind = name[0]
        if kind == "ref":
            return self._ref(*name[1:])
        if kind == "caller":
            _, node, number = name
            if node == self.number:
                return self._waiting.get(number) or Caller(self, node, number)
            return Caller(self, node, number)
        if kind == "crash":
            _, crossing, crash = name
            crash._crossing = crossing  # noqa: SLF001 (as above)
            return self._crashes.setdefault(crossing, crash)
        _, number, producer, consumer, terms = name
        found = self._subscriptions.get(number)
        if found is None:
            if isinstance(producer, str):
                producer = Nobody(producer, consumer)
            found = Subscription(number, producer, consumer, terms)
            self._subscriptions[number] = found
        return found

    def _ref(self, where: int, number: int, name: str, role: str, id: str, registered: bool) -> Ref:  # noqa: A002, FBT001 (as it crosses)
        driver = self.known.get(number)
        if driver is None:
            driver = FarDriver(self, where, number, name, role, id=id, registered=registered)
            self.known[number] = driver
            if where == self.number:
                self.forgotten(driver)
            elif where in self._lost:
                driver.ended(self._lost[where])
        return driver.ref

    def forgotten(self, far: FarDriver) -> None:
        """Take note that somebody refers to a stage that was one of ours, and has ended long ago."""
        far.ended("noproc")

    def _await(self, future: asyncio.Future[Any]) -> int:
        """Give somebody who waits for an answer a number."""
        number = next(self._tokens)
        self._waiting[number] = future
        future.add_done_callback(lambda _: self._waiting.pop(number, None))
        return number

    def keep(self, subscription: Subscription) -> None:
        """Know a subscription by its number, as long as somebody has it."""
        self._subscriptions[subscription.id] = subscription

    def subscription(self, number: int) -> Subscription | None:
        """Return a subscription that is known here."""
        return self._subscriptions.get(number)

    # -- sending ------------------------------------------------------------------------------------------------------

    def link(self, where: int) -> Link:
        """Return the link to a node."""
        raise NotImplementedError

    def post(self, far: FarDriver, message: Message) -> None:
        """Send a message to a stage elsewhere."""
        self.link(far.where).post(far.number, message)

    def tell(self, where: int, *what: Any) -> None:
        """Tell a node something."""
        self.link(where).tell(*what)

    def flush(self) -> None:
        """Write what waits for the end of the turn."""
        pending, self.pending[:] = list(self.pending), []
        for link in pending:
            link.flush()

    async def request(self, where: int, *what: Any) -> Any:
        """Ask a node something, and wait for the answer; None when it has ended meanwhile."""
        future = self.loop.create_future()
        self.link(where).tell(*what, future)
        return await future

    def refused(self, link: Link, number: int, message: Message, error: Exception) -> None:
        """Take note that something cannot cross, and tell those whom it concerns."""
        if number < 0:
            self._untold(link, message, error)
            return
        node, tag = self.node, message[0]
        crossing = error if isinstance(error, CrossingError) else CrossingError(f"{type(error).__name__}: {error}")
        if tag in (EVENTS, m.REDELIVERED):
            subscription = message[1]
            driver: Any = subscription.producer.driver
            culprit = next((each for each in message[2] if not self._crosses(each)), message[2])
            text = f"events that can go to another process ({error})"
            wrong = HandlerError(driver.name, m.HANDLE_EVENTS, text, culprit)
            wrong.__cause__ = crossing
            node.send(subscription.producer, (m.KILL, StageCrashed(driver.name, wrong)))
        elif tag == m.SUBSCRIBE:
            subscription = message[1]
            refusal = SubscriptionError(
                subscription.consumer.name, subscription.producer.name, f"its terms cannot go there: {error}. {HINT}"
            )
            node.send(subscription.consumer, (m.REFUSED, subscription, refusal))
        elif tag == m.CALL:
            if not message[2].done():
                text = f"the request cannot go to another process: {short(message[1])} ({error}). {HINT}"
                message[2].set_exception(CrossingError(text))
        elif tag in _LEAVES:  # whatever the reason is, the fact has to be told
            reason = message[-1] if tag in (m.FAILED, m.STOP, m.KILL) else message[2].reason
            plain = short(reason)
            if tag in (m.CANCEL, m.CANCELLED):
                end: End = message[2]
                message = (tag, message[1], end._replace(reason=plain), *message[3:])
            else:
                message = (*message[:-1], plain)
            link.post(number, message)
        else:
            text = f"a message cannot go to another process: {short(message)} ({error}). {HINT}"
            node.report(CrossingError(text))

    def _crosses(self, value: Any) -> bool:
        try:
            Codes(self._name, self._find).encode(value)
        except Exception:  # noqa: BLE001 (that is the question)
            return False
        return True

    def _untold(self, link: Link, what: Message, error: Exception) -> None:
        """See to what a node was to be told and cannot."""
        text = f"{error}. {HINT}"
        if what[0] in ("ended", "down"):  # whatever the reason is, the fact has to be told
            link.tell(what[0], what[1], short(what[2]), *what[3:])
        else:
            self.node.report(CrossingError(f"what a node was to be told cannot go there: {short(what)} ({text})"))

    # -- receiving ----------------------------------------------------------------------------------------------------

    def deliver(self, link: Link, number: int, message: Message) -> None:  # noqa: ARG002 (an owner's form)
        """Hand a message to a stage of this node."""
        driver = self.known.get(number)
        if driver is None:
            self.missing(number, message)
            return
        tag = message[0]
        if tag == EVENTS:
            self.node.hand(driver.ref, message)
        elif tag == ASK:
            self.node.ask(driver.ref, message)
        else:
            if tag in (m.STOP, m.KILL):
                driver.told_to_end.append(message[1])
            elif tag == m.CALL and message[2].__class__ is Caller:
                message[2].among = driver.calls
                driver.calls.add(message[2])  # type: ignore[arg-type]  # it stands where a future would
            self.node.send(driver.ref, message)

    def watch(self, number: int) -> None:
        """See to it that a stage notes which messages of events it is done with."""
        driver: Any = self.known.get(number)
        if driver is None or driver.far or driver in self._watched:
            return
        handler = driver.handlers.get(m.HANDLE_EVENTS)
        if handler is not None:
            self._watched.add(driver)
            driver.wrap(watching(driver, handler, self))

    def missing(self, number: int, message: Message) -> None:
        """Refuse a message for a stage that is not here."""
        refuse(_Gone(self.node, number, message), message)  # type: ignore[arg-type]  # as much of a port as that needs

    def undelivered(self, number: int, subscription: Subscription, count: int, error: Exception) -> None:
        """Give back events that cannot be read here: their consumer crashes, as if its handler had failed with them."""
        driver: Any = self.known.get(number)
        if driver is None or driver.core.into is None:
            return
        window = driver.core.into.windows.get(subscription)
        if window is not None:
            at = window.received
            crash = StageCrashed(driver.name, error)
            self.node.send(subscription.producer, (m.FAILED, subscription, at, at + count, crash))
            self.node.send(driver.ref, (m.KILL, crash))

    def heard(self, link: Link, what: tuple[Any, ...]) -> None:
        """Take in what another node tells."""
        try:
            getattr(self, f"_on_{what[0]}")(link, *what[1:])
        except Exception as error:  # noqa: BLE001 (the link goes on)
            self.node.report(error)

    def _here(self, number: int) -> Any:
        """Return what drives a stage of this node."""
        driver = self.known.get(number)
        return None if driver is None or driver.far else driver

    def _on_subscribe(self, link: Link, number: int, subscription: Subscription, hasty: bool) -> None:  # noqa: FBT001
        driver = self._here(number)
        if driver is None:
            link.tell("subscribed", number, subscription.id, NoStageError("the stage has ended"))
            return
        answer: Any = _Answer(lambda error: link.tell("subscribed", number, subscription.id, error))
        driver.subscribe(subscription, answer, hasty=hasty)

    def _on_subscribed(self, link: Link, number: int, known: int, error: BaseException | None) -> None:  # noqa: ARG002
        driver = self.known.get(number)
        if isinstance(driver, FarDriver):
            driver.subscribed(known, error)

    def _on_wait(self, link: Link, number: int, name: str, terms: Any) -> None:  # noqa: ARG002 (a listener's form)
        driver = self._here(number)
        if driver is not None:
            driver.wait(name, terms)

    def _on_act(self, link: Link, number: int, method: str, args: tuple[Any, ...]) -> None:  # noqa: ARG002
        driver = self._here(number)
        if driver is not None:
            driver.act(getattr(driver.core, method), *args)

    def _on_statistics(self, link: Link, number: int, caller: Any) -> None:  # noqa: ARG002 (a listener's form)
        driver = self._here(number)
        caller.set_result(None if driver is None else driver.statistics())

    def _on_answer(self, link: Link, number: int, packed: tuple[Any, ...] | None, error: BaseException | None) -> None:
        future = self._waiting.pop(number, None)
        if future is None or future.done():
            return
        value = None
        if packed is not None:
            try:
                value = link.unpack(packed)
            except CrossingError as unreadable:
                error = unreadable
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    def _on_garbled(self, link: Link, error: Exception) -> None:  # noqa: ARG002 (a listener's form)
        self.node.report(error)

    def _on_monitor(self, link: Link, number: int) -> None:
        """Tell a node when a stage of ours ends."""
        driver: Any = self.known.get(number)
        if driver is None:
            self.unknown(link, number)
        elif driver.done.done():
            link.tell("down", number, driver.done.result())
        else:
            driver.monitors.append(functools.partial(link.tell, "down", number))

    def unknown(self, link: Link, number: int) -> None:
        """Answer a node that wants to be told of the end of a stage that was one of ours, long ago."""
        link.tell("down", number, "noproc")

    def _on_down(self, link: Link, number: int, reason: Any) -> None:  # noqa: ARG002 (a listener's form)
        driver = self.known.get(number)
        if isinstance(driver, FarDriver):
            driver.ended(reason)

    def left(self, far: FarDriver) -> None:
        """Take note that a stage elsewhere has ended."""

    # -- the end of a node --------------------------------------------------------------------------------------------

    def node_lost(self, where: int, reason: Any, failed: dict[int, Held]) -> None:
        """Take note that a node has ended: its stages have, and whoever dealt with them is told.

        Args:
            where: The node.
            reason: Why.
            failed: What the handlers of its stages had, by the numbers of subscriptions.
        """
        self._lost[where] = reason
        link = self.links.pop(where, None)
        if link is not None:
            link.close()
        for subscription in list(self._subscriptions.values()):
            if not isinstance(subscription.producer, Ref):  # there was nobody
                continue
            if where in (
                getattr(subscription.producer.driver, "where", -1),
                getattr(subscription.consumer.driver, "where", -1),
            ):
                self.inflows.pop(subscription.id, None)
            producer: Any = subscription.producer.driver
            consumer: Any = subscription.consumer.driver
            if consumer.far and consumer.where == where and not producer.far:
                crash = _end_of(consumer, reason)
                had = failed.get(subscription.id)
                done = 0
                if had is not None:
                    if had.stop > had.start:
                        self.node.send(subscription.producer, (m.FAILED, subscription, had.start, had.stop, crash))
                    if consumer.core.role == m.CONSUMER:  # else what it was done with may not have got on
                        done = had.start
                self.node.send(subscription.producer, (m.CANCEL, subscription, End("down", crash), done, done))
            elif producer.far and producer.where == where and not consumer.far:
                crash = _end_of(producer, reason)
                self.node.send(subscription.consumer, (m.CANCELLED, subscription, End("down", crash)))
        failures = {
            each.stage: (each.stop - each.start, each.deliveries) for each in failed.values() if each.stop > each.start
        }
        for known in list(self.known.values()):
            if isinstance(known, FarDriver) and known.where == where:
                known.ended(_end_of(known, reason), failure=failures.get(known.number))


def _end_of(far: FarDriver, reason: Any) -> Any:
    """Return the reason that a stage has ended with whose node has."""
    return StageCrashed(far.name, reason) if far.killed is None else far.killed[0]


class _Answer:
    """Stands where a future would, and tells at once: before whatever comes after it."""

    def __init__(self, tell: Callable[[BaseException | None], None]) -> None:
        self._tell = tell
        self._done = False
        self._after: list[Callable[[Any], None]] = []

    def done(self) -> bool:
        return self._done

    def set_result(self, value: Any) -> None:  # noqa: ARG002 (a future's form)
        self.set_exception(None)

    def set_exception(self, error: BaseException | None) -> None:
        self._done = True
        for each in self._after:
            each(self)
        self._tell(error)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._after.append(callback)


class _Gone:
    """As much of a port as it takes to refuse a message for a stage that is not here."""

    def __init__(self, node: Node, number: int, message: Message) -> None:
        self.send = node.send
        self.name = message[1].producer.name if message[0] == m.SUBSCRIBE else f"number {number}"

    def reply(self, token: Any, value: Any, error: BaseException | None) -> None:  # noqa: ARG002 (a port's form)
        """Answer a call with the error."""
        if not token.done():
            token.set_exception(error or NoStageError(f"stage {self.name!r} has ended"))
