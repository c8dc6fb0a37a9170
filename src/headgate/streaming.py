"""`stream`: the events of stages as an async iterator, with back-pressure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Any

from headgate.errors import OptionError, SubscriptionError
from headgate.protocol.batching import cut, rows
from headgate.protocol.consumer import ConsumerSide
from headgate.protocol.messages import NORMAL, End, Subscription, is_normal
from headgate.runtime.driver import TaskDriver
from headgate.runtime.options import Child, To, as_to
from headgate.runtime.reference import Ref, make_subscription
from headgate.stage import Consumer
from headgate.system import System


class _Sink(Consumer):
    """Hands each batch to whoever iterates, and is done with it when they want the next."""

    def __init__(self) -> None:
        self.batch: Any = None
        self.left: ConsumerSide | None = None
        self.filled = asyncio.Event()
        self.taken = asyncio.Event()

    async def handle_events(self, events: Any, source: Subscription) -> None:  # noqa: ARG002 (a callback's form)
        """Wait until the batch is used up."""
        if self.left is not None:  # this batch was not shown to anybody
            self.left.give_back(events)
            return
        self.batch = events
        self.taken.clear()
        self.filled.set()
        await self.taken.wait()

    async def handle_cancel(self, reason: End, peer: Subscription) -> None:
        """End when this was the last producer, and its end is none that ends the stream with an error."""
        lives_on = peer.terms.cancel == "temporary" or is_normal(reason.reason)
        if lives_on and not self.stage.subscriptions:
            self.stage.stop()


async def stream(
    subscriptions: Iterable[Ref | To | str], *, system: System | None = None, demand: str = "forward"
) -> AsyncGenerator[Any, None]:
    """Iterate over the events of one or several stages.

    It asks for ``max_demand`` events of each, and for more when the caller has used up a batch, so a slow caller slows
    the producers. It ends when every producer has ended normally.

    Args:
        subscriptions: References or `To`; names too, if ``system`` is given.
        system: Where names are looked up. Default: that of the references.
        demand: The mode that the producers are switched to once it is subscribed. Default ``"forward"``.

    Yields:
        One event after the other.

    Raises:
        SubscriptionError: A producer refused or is missing (unless its cancel mode is ``"temporary"``).
        StageCrashed: A producer crashed (unless its cancel mode is ``"temporary"``).
        OptionError: ``subscriptions`` is empty or holds something else.
    """
    if isinstance(subscriptions, (str, Ref, To)) or not isinstance(subscriptions, Iterable):
        raise OptionError("stream", "subscriptions", "a list of references or To(...)", subscriptions)
    wanted = [as_to(each) for each in subscriptions]
    node = (
        system.node
        if system is not None
        else next((w.producer.driver.node for w in wanted if isinstance(w.producer, Ref)), None)
    )
    if node is None:
        raise OptionError("stream", "subscriptions", "at least one reference (or names, with system=)", subscriptions)
    driver = TaskDriver(node, Child(_Sink, id="stream"))
    try:
        await driver.start()
    except BaseException:
        driver.ref.kill()  # nobody else knows of it
        raise
    sink: _Sink = driver.instance
    driver.done.add_done_callback(lambda _: sink.filled.set())
    events, at = None, 0
    try:
        if not await _subscribe(driver, wanted, demand):
            return
        while True:
            await sink.filled.wait()
            sink.filled.clear()
            events, at, sink.batch = sink.batch, 0, None
            if events is None:  # it was woken by its end
                break
            for event in rows(events):
                at += 1
                yield event
            events = None
            sink.taken.set()
        if driver.fault is not None:
            raise driver.fault
    finally:
        rest = sink.batch if events is None else cut(events, at, len(events))
        if rest is not None and driver.core.into is not None:  # the caller has left in the middle of a batch
            driver.core.into.give_back(rest)
        sink.left = driver.core.into
        driver.act(driver.core.stop, NORMAL)  # before its handler returns: it is not to be given another batch
        sink.taken.set()
        await driver.ref.stop()
        node.see(driver)  # the caller has it, or does not want it any more


async def _subscribe(driver: TaskDriver, wanted: list[To], demand: str) -> int:
    """Subscribe to everybody, and return how many accepted."""
    begun: list[tuple[To, Subscription, asyncio.Future[Subscription]]] = []
    for to in wanted:
        subscription = make_subscription(driver.ref, to, {})
        if to.terms.cancel == "permanent":  # the normal end of one producer does not end the stream of the others
            subscription.terms = to.terms._replace(cancel="transient")
        begun.append((to, subscription, driver.subscribe(subscription)))
    accepted = 0
    for to, subscription, future in begun:
        try:
            await future
        except SubscriptionError:
            if to.terms.cancel != "temporary":
                raise
            continue
        accepted += 1
        producer = subscription.producer
        if isinstance(producer, Ref) and producer.demand != demand:
            producer.set_demand(demand)
    return accepted
