"""Handing a batch straight down a chain of stages on one loop, in one go.

A batch that a stage has just given can be handled at once by the stage below, when that one is on this loop, idle,
the only subscriber, has asked for so much, and has nothing in flight: then there is nobody whom a message could
overtake. The handler is called right here, and both ends take note of the outcome: events sent, handled, acknowledged,
and asked for again. It is the schedule in which the consumer runs next, without the messages, the ledger's entry and
the callback that this schedule would make and drop again.

Whatever is not expected (the handler raises, stops its stage, emits, returns something else; the stage below it is
busy) *derails*: the batch goes into the ledger, as if it had been sent by a message, and the core goes on the long way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from headgate.protocol.messages import HANDLE_DEMAND, HANDLE_EVENTS

if TYPE_CHECKING:
    from headgate.protocol.consumer import ConsumerSide
    from headgate.protocol.ledger import Subscriber
    from headgate.protocol.stage import StageCore
    from headgate.protocol.window import Window
    from headgate.runtime.driver import Driver
    from headgate.runtime.node import Node

DEPTH: Final = 16
"""Stages that a batch goes down in one go; those below get it by a message."""

SUSPENDED: Final = object()
"""What ``on_events`` gives when an async handler has suspended."""
_NOT_TAKEN: Final = 0
_TAKEN: Final = 1
"""It was delivered, and is in the ledger."""
_SETTLED: Final = 2
"""It was handled, with all that came of it."""

_PASSING: Final[tuple[str, tuple[Any, ...]]] = (HANDLE_EVENTS, ())


def offer(node: Node, driver: Driver, name: str, value: Any) -> bool:
    """Try to hand down what a callback has returned; False when nothing was done, and the core is to be told.

    Args:
        node: The scheduler.
        driver: The stage whose callback has returned; it is still outstanding.
        name: The callback's name.
        value: A list or range of events.
    """
    core = driver.core
    out = core.out
    if out is None or out.single is None:
        return False
    if driver.inbox:  # acknowledgements may lie there
        driver.take_in()
    if not core.plain or core.agenda:
        return False
    if name is HANDLE_DEMAND:
        size = len(value)
        if size > out.requested or not _pass_down(node, core, value, DEPTH):
            return False
        out.requested -= size
        single = out.single
        if single is None or core.agenda or core.held or not core.plain or not out.direct or out.queue.size:
            core.returned(None)
            return True
        count = single.asked - single.sent - out.requested
        if out.accumulated:
            count = min(count, out.accumulated.popleft())
        if count > 0:
            out.requested += count
            core.callback = (HANDLE_DEMAND, (count,))
        else:
            core.callback = None
            core.reopen()
        return True
    into = core.into
    if name is HANDLE_EVENTS and into is not None and not into.work and _pass_down(node, core, value, DEPTH):
        core.callback = None
        into.done()
        core.reopen()
        return True
    return False


def _pass_down(node: Node, core: StageCore, batch: Any, depth: int) -> int:
    out = core.out
    single = out.single  # type: ignore[union-attr]  # it has given events
    size = len(batch)
    if (
        single is None
        or not size
        or not depth
        or single.sent != single.acked
        or size > single.asked - single.sent
        or out.queue.size  # type: ignore[union-attr]
        or not out.direct  # type: ignore[union-attr]
    ):
        return _NOT_TAKEN
    driver = single.address.driver
    below = driver.core
    if driver.queued or not driver.express or not below.lane:
        return _NOT_TAKEN
    into, under = below.into, below.out
    window = into.windows.get(single.subscription)
    if window is None or size > window.size or window.origins or (under is not None and not under.hungry()):
        return _NOT_TAKEN
    driver.queued = True
    below.lane = False
    below.callback = _PASSING
    into.window = window
    into.size = size
    window.received += size
    single.sent += size
    out.emitted += size  # type: ignore[union-attr]
    on_events = driver.on_events
    try:
        value = on_events(batch, single.subscription)
    except BaseException as error:
        _derail(core, single, batch, size)
        _tell(node, driver, batch, single, error=error)
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        return _TAKEN
    if value is SUSPENDED:
        return _suspend(node, core, driver, batch, single)
    outcome = _NOT_TAKEN
    if _smooth(core, below, into, window, single):
        if value is None:
            outcome = _SETTLED
        elif type(value) is list and under is not None:
            outcome = _pass_down(node, below, value, depth - 1) if value else _SETTLED
            if outcome == _SETTLED and not _smooth(core, below, into, window, single):
                outcome, value = _NOT_TAKEN, None  # its outputs are handled; all else goes the long way
    if outcome == _SETTLED:
        below.callback = into.window = None
        single.acked += size
        window.handled = window.acked = window.told = handled = window.handled + size
        if window.asked - handled <= window.least:
            asked = handled + window.most
            if core.source:  # it is asked for each refill by itself
                out.accumulated.append(asked - window.asked)  # type: ignore[union-attr]
            window.asked = single.asked = asked
        below.lane = True
        if driver.inbox:
            node.ready.append(driver)
        else:
            driver.queued = False
        return _SETTLED
    _derail(core, single, batch, size)
    if outcome == _TAKEN:
        below.callback = None
        into.done()
        below.reopen()
        _requeue(node, driver)
    else:
        _tell(node, driver, batch, single, value=value)
    return _TAKEN


def _suspend(node: Node, core: StageCore, driver: Driver, batch: Any, single: Subscriber) -> int:
    """Leave an async handler outstanding that waits for something: it goes on in its own task."""
    below = driver.core
    _derail(core, single, batch, len(batch))
    below.callback = (HANDLE_EVENTS, (batch, single.subscription))
    if below.out is not None and below.into is not None:
        below.into.open_origin()
    if driver.inbox:
        node.ready.append(driver)
    else:
        driver.queued = False
    return _TAKEN


def _smooth(core: StageCore, below: Any, into: ConsumerSide, window: Window, single: Subscriber) -> bool:
    """Say whether a handler did nothing but handle its events."""
    return (
        below.plain
        and not below.agenda
        and not below.held
        and into.origin is None
        and into.window is window
        and window.open
        and core.out.single is single  # type: ignore[union-attr]  # it has given events
    )


def _derail(core: StageCore, single: Subscriber, batch: Any, size: int) -> None:
    """Put the batch into the ledger, as if it had been sent by a message."""
    token = None
    if core.into is not None:
        token = core.into.open_origin()
        token.left += size
    if core.out.keeps:  # type: ignore[union-attr]  # it has given events
        single.ledger.append((batch, size, token))
    elif token is not None:
        token.settle(size)


def _tell(node: Node, driver: Driver, batch: Any, single: Subscriber, value: Any = None, error: Any = None) -> None:
    """Let the core below go on from what its handler gave or raised."""
    below = driver.core
    below.callback = (HANDLE_EVENTS, (batch, single.subscription))
    if below.out is not None and below.into is not None:
        below.into.open_origin()
    try:
        if error is not None:
            below.failed(error)
        else:
            driver.odd_value(value)
    except Exception as fault:  # noqa: BLE001 (a dispatcher of the user's, or a fault of ours)
        driver.break_down(fault)
        return
    _requeue(node, driver)


def _requeue(node: Node, driver: Driver) -> None:
    if driver.core.callback is None and not driver.inbox:
        driver.queued = False
    else:
        node.ready.append(driver)
