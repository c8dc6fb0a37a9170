"""Handing a batch straight down a chain of stages on one loop, in one go.

A batch that a stage has just given can be handled at once by the stage below, when that one is on this loop, idle, has
asked for so much, and has nothing in flight: then there is nobody whom a message could overtake. A source may have
several subscribers; other stages do it for an only one. The handler is called right here, and both ends take note of
the outcome: events sent, handled, acknowledged, and asked for again. It is the schedule in which the consumer runs
next, without the messages, the ledger's entry and the callback that this schedule would make and drop again.

Whatever is not expected (the handler raises, stops its stage, emits, returns something else; the stage below it is
busy) *derails*: the batch goes into the ledger, as if it had been sent by a message, and the core goes on the long way.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from headgate.errors import BufferOverflowError
from headgate.protocol.batching import cut, is_batch
from headgate.protocol.dispatch.demand import DemandDispatcher
from headgate.protocol.messages import ASK, HANDLE_DEMAND, HANDLE_EVENTS

if TYPE_CHECKING:
    from headgate.protocol.ledger import Subscriber
    from headgate.protocol.producer import ProducerSide, Share
    from headgate.protocol.stage import StageCore
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


def passes(value: Any) -> bool:
    """Say whether a value can be handed down: a sequence of events, and no awaitable."""
    kind = type(value)
    return kind is list or kind is range or (value is not None and not hasattr(kind, "__await__") and is_batch(value))


def offer(node: Node, driver: Driver, name: str, value: Any) -> bool:
    """Try to hand down what a callback has returned; False when nothing was done, and the core is to be told.

    Args:
        node: The scheduler.
        driver: The stage whose callback has returned; it is still outstanding.
        name: The callback's name.
        value: Events, of a kind that `passes`.
    """
    core = driver.core
    out = core.out
    if out is None:
        return False
    if driver.inbox:  # acknowledgements may lie there
        driver.take_in()
    if not core.plain or core.agenda or out.queue.size or not out.direct:
        return False
    driver.stirred = False
    if name is HANDLE_DEMAND:
        return _pour(node, driver, core, out, value)
    into = core.into
    if name is HANDLE_EVENTS and into is not None and not into.work and _pass_on(core, value, DEPTH):
        core.callback = None
        into.done()
        core.reopen()
        return True
    return False


def _pour(node: Node, driver: Driver, core: StageCore, out: ProducerSide, value: Any) -> bool:
    """Hand down the batch of a source, and find out what is wanted next."""
    size = len(value)
    if not 0 < size <= out.requested:
        return False
    single, dispatcher = out.single, out.dispatcher
    if single is not None:
        if not _pass_on(core, value, DEPTH):
            return False
        out.requested -= size
    elif type(dispatcher) is not DemandDispatcher:
        _share_out(node, core, out, value)
    elif (taker := dispatcher.serve(size)) is not None:
        start = taker.sent
        taker.sent = start + size
        out.emitted += size
        out.requested -= size
        if not _pass_down(core, taker, value, size, start, DEPTH):
            out.send(taker, value, size, None)
    else:
        return False
    asks = out.asks
    if (
        driver.stirred
        or core.agenda
        or core.held
        or out.queue.size
        or single is not out.single
        or (asks and asks[0][1] not in out.subscribers)
    ):
        core.returned(None)
        return True
    if asks and not out.accumulated:
        _, subscription, asked, acked = asks.popleft()
        out.ask(subscription, asked, acked)
    count = (dispatcher.wanted if single is None else single.asked - single.sent) - out.requested
    if out.accumulated:
        count = min(count, out.accumulated.popleft())
    if count > 0:
        out.requested += count
        core.callback = (HANDLE_DEMAND, (count,))
    else:
        core.callback = None
        core.reopen()
    return True


def _share_out(node: Node, core: StageCore, out: ProducerSide, value: Any) -> None:
    """Let the dispatcher of a source share a batch out, and hand down each share where that can be."""
    shares: deque[Share] = deque()
    out.shares = shares
    try:
        try:
            core.emit(value)
        except BufferOverflowError as error:
            node.report(error)
        while shares:
            taker, batch, size, token, start = shares.popleft()
            window = taker.address.driver.core.into.windows.get(taker.subscription)
            if window is not None and size > window.size > 0:  # it would be cut there in the same way
                most = window.size
                shares.appendleft((taker, cut(batch, most, size), size - most, token, start + most))
                batch, size = cut(batch, 0, most), most
            if not _pass_down(core, taker, batch, size, start, DEPTH):
                out.send(taker, batch, size, token)
    finally:
        out.flush()
        out.shares = None


def _pass_on(core: StageCore, batch: Any, depth: int) -> int:
    """Hand a batch down to the only subscriber, if it has asked for so much and has nothing in flight."""
    out = core.out
    single = out.single  # type: ignore[union-attr]  # it has given events
    size = len(batch)
    if (
        single is None
        or not size
        or not depth
        or size > single.asked - single.sent
        or out.queue.size  # type: ignore[union-attr]
        or not out.direct  # type: ignore[union-attr]
    ):
        return _NOT_TAKEN
    start = single.sent
    single.sent = start + size
    outcome = _pass_down(core, single, batch, size, start, depth)
    if outcome == _NOT_TAKEN:
        single.sent = start
    else:
        out.emitted += size  # type: ignore[union-attr]
    return outcome


def _pass_down(core: StageCore, taker: Subscriber, batch: Any, size: int, start: int, depth: int) -> int:
    """Hand down a batch, which counts as sent already; ``start`` were sent before it."""
    driver = taker.address.driver
    above: Any = core.port  # its driver
    if driver.queued or not driver.express:
        return _NOT_TAKEN
    below = driver.core
    if not below.lane:
        return _NOT_TAKEN
    into, under = below.into, below.out
    subscription = taker.subscription
    window = into.windows.get(subscription)
    if window is None or size > window.size or (under is not None and (window.origins or not under.hungry())):
        return _NOT_TAKEN
    if taker.acked != start:  # it may have handled all of it, and be about to say so
        if window.acked != start:
            return _NOT_TAKEN
        window.told = start
        taker.ack(start)
    driver.queued = True
    driver.stirred = below.lane = False
    below.callback = _PASSING
    into.window = window
    into.size = size
    window.received += size
    on_events = driver.on_events
    try:
        value = on_events(batch, subscription)
    except BaseException as error:
        _derail(core, taker, batch, size)
        _tell(driver, batch, taker, error=error)
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        return _TAKEN
    if value is SUSPENDED:
        return _suspend(core, driver, batch, taker)
    outcome = _NOT_TAKEN
    if not driver.stirred and not above.stirred:
        if value is None:
            outcome = _SETTLED
        elif under is not None and passes(value):
            outcome = _pass_on(below, value, depth - 1) if len(value) else _SETTLED
            if outcome == _SETTLED and (driver.stirred or above.stirred):
                outcome, value = _NOT_TAKEN, None  # its outputs are handled; all else goes the long way
    if outcome == _SETTLED:
        below.callback = into.window = None
        taker.acked += size
        window.handled = window.acked = window.told = handled = window.handled + size
        asked = window.asked
        if asked - handled <= window.least:
            window.asked = handled + window.most
            _refill(core, taker, window.asked, window.asked - asked)
        below.lane = True
        if driver.inbox:
            driver.node.put(driver)
        else:
            driver.queued = False
        return _SETTLED
    _derail(core, taker, batch, size)
    if outcome == _TAKEN:
        below.callback = None
        into.done()
        below.reopen()
        _requeue(driver)
    else:
        _tell(driver, batch, taker, value=value)
    return _TAKEN


def _refill(core: Any, taker: Subscriber, asked: int, more: int) -> None:
    """Let the stage above know what is asked for again."""
    out = core.out
    if out.single is taker:
        taker.asked = asked
        if core.source:  # it is asked for each refill by itself
            out.accumulated.append(more)
    elif out.dispatcher.pools:
        taker.asked = asked
        out.dispatcher.asked(taker, more)
    else:
        asks = core.held or out.asks  # behind what came before it
        asks.append((ASK, taker.subscription, asked, taker.acked))


def _suspend(core: StageCore, driver: Driver, batch: Any, single: Subscriber) -> int:
    """Leave an async handler outstanding that waits for something: it goes on in its own task."""
    below = driver.core
    _derail(core, single, batch, len(batch))
    below.callback = (HANDLE_EVENTS, (batch, single.subscription))
    if below.out is not None and below.into is not None:
        below.into.open_origin()
    if driver.inbox:
        driver.node.put(driver)
    else:
        driver.queued = False
    return _TAKEN


def _derail(core: StageCore, single: Subscriber, batch: Any, size: int) -> None:
    """Put the batch into the ledger, as if it had been sent by a message."""
    token = None
    if core.into is not None:
        token = core.into.open_origin()
        token.left += size
    if core.out.keeps:  # type: ignore[union-attr]  # it has given events
        single.ledger.appendleft((batch, size, token))  # its handler may have made the stage above emit more
    elif token is not None:
        token.settle(size)


def _tell(driver: Driver, batch: Any, single: Subscriber, value: Any = None, error: Any = None) -> None:
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
    _requeue(driver)


def _requeue(driver: Driver) -> None:
    if driver.core.callback is None and not driver.inbox:
        driver.queued = False
    else:
        driver.node.put(driver)
