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
    for source in sources:
        source.act(source.core.drain, SHUTDOWN)
    for driver in list(node.drivers.values()):
        if driver.core.into is not None:
            _leave_sources(driver)
        if driver.core.paused and driver.core.state == "running":  # what came from other stages was begun
            driver.act(driver.core.resume)
    unfinished = tuple(each.name for each, ended in zip(supervisions, concluded, strict=True) if not ended)
    while node.drivers:
        for driver in list(node.drivers.values()):
            _finish(driver)
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
        out = source.core.out
        if out is not None:
            handled += out.handled
            returned += out.emitted - out.handled - sum(out.discarded.values())
    return Drained(not unfinished, handled, returned, unfinished)


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


def _finish(driver: Driver) -> None:
    """Let a stage end that nobody sends anything any more, and that goes on by its cancel mode."""
    core = driver.core
    into: Any = core.into
    if core.state == "running" and into is not None and not any(each.open for each in into.windows.values()):
        driver.act(core.drain, SHUTDOWN)
