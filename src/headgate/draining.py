"""Bringing a system to its end in order: what was begun is finished, what was not goes back to its source."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headgate.protocol.messages import PRODUCER, SHUTDOWN
from headgate.runtime.reference import Ref

if TYPE_CHECKING:
    from headgate.runtime.driver import Driver
    from headgate.runtime.node import Node


@dataclass(frozen=True, slots=True)
class Drained:
    """How a drain has come out.

    Attributes:
        complete: Everything that was begun was finished in time.
        handled: Events that sources' consumers have handled in all, from the start of the system.
        returned: Events that were not begun: their sources have them.
        unfinished: The names of stages that had to be killed.
    """

    complete: bool
    handled: int
    returned: int
    unfinished: tuple[str, ...] = ()


async def drain(node: Node, timeout: float) -> Drained:  # noqa: ASYNC109 (the wait is ours)
    """Let sources rest, give back what nobody has begun, and wait for the rest.

    A pipeline first brings its messages to their end by itself. A source is asked for nothing more. Whoever gets events
    straight from a source finishes the batch that its handler has, and gives back those behind it. What such a stage
    has emitted is handled to the end by those below. Then each stage ends, from the sources downwards. Supervisors
    start nobody again.

    Args:
        node: Whose stages.
        timeout: Seconds. What has not ended by then is killed; its events count as not handled.
    """
    deadline = node.loop.time() + timeout
    supervisions = list(node.supervisions.values())
    concluded = await asyncio.gather(*(each.conclude(timeout) for each in supervisions))
    for supervision in supervisions:
        supervision.drain()
    sources = [each for each in node.drivers.values() if each.core.role == PRODUCER]
    begin(node)
    if node.exchange is not None:
        node.exchange.drain()
    unfinished = tuple(each.name for each, ended in zip(supervisions, concluded, strict=True) if not ended)
    while node.drivers:
        _finish(node)
        if not node.drivers:
            break
        left = deadline - node.loop.time()
        if left <= 0:
            unfinished = (*unfinished, *(driver.name for driver in node.drivers.values()))
            for driver in reversed(list(node.drivers.values())):
                driver.ref.kill("deadline")
            break
        waiting = node.change()  # at once: a task would begin to wait after the next turn, which may be the last
        await asyncio.wait([waiting], timeout=left)
        waiting.cancel()
    handled = returned = 0
    for source in sources:
        numbers = source.statistics()
        handled += numbers.handled
        returned += numbers.emitted - numbers.handled - sum(numbers.discarded.values())
    return Drained(not unfinished, handled, returned, unfinished)


def begin(node: Node) -> None:
    """Let the sources of one node rest, and let those who get events from sources leave them."""
    here = [each for each in node.drivers.values() if not each.far]
    for driver in here:
        if driver.core.role == PRODUCER:
            driver.act(driver.core.drain, SHUTDOWN)
    for driver in here:
        if driver.core.into is not None:
            _leave_sources(driver)
        if driver.core.paused and driver.core.state == "running":  # what came from other stages was begun
            driver.act(driver.core.resume)


async def settle(node: Node) -> None:
    """Let the stages of one node end when nobody sends them anything any more."""
    while node.drivers:
        changed = node.change()
        _finish(node)
        if node.drivers:
            await changed


def _leave_sources(driver: Driver) -> None:
    """Let a stage leave its sources; if it has no other producers it ends when what it has begun is finished."""
    into = driver.core.into
    assert into is not None  # noqa: S101 (it consumes)
    sources = [
        subscription
        for subscription in into.windows
        if isinstance(subscription.producer, Ref) and subscription.producer.driver.core.role == PRODUCER
    ]
    if sources:
        driver.act(driver.core.drain, SHUTDOWN, sources)


def _finish(node: Node) -> None:
    """Let stages end that nobody sends anything any more, and that go on by their cancel mode."""
    for driver in list(node.drivers.values()):
        core = driver.core
        into: Any = core.into
        if (
            core.state == "running"
            and into is not None
            and not driver.far
            and not any(each.open for each in into.windows.values())
        ):
            driver.act(core.drain, SHUTDOWN)
