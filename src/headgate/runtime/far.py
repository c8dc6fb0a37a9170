"""A stage that runs elsewhere, as it is seen from here.

`FarDriver` stands where a driver would: messages that are put into its mailbox go over a link, and what is done to its
core is done over there. `FarCore` keeps what has to be known at once: the state, the demand mode, how it ended.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Generator
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from headgate.errors import Ignore, NoStageError
from headgate.protocol import messages as m
from headgate.protocol.messages import Message, Subscription, crash
from headgate.protocol.stage import refuse
from headgate.protocol.statistics import StageStatistics
from headgate.runtime.driver import Endpoint, look_at
from headgate.runtime.reference import Ref

if TYPE_CHECKING:
    from headgate.protocol.messages import Terms
    from headgate.runtime.exchange import Exchange
    from headgate.runtime.options import Child

KILL_SECONDS = 0.25
"""How long a worker may take to carry out a kill before it is killed itself: a handler may be in its way."""


class FarOut:
    """What is known here of a far stage's producing side."""

    def __init__(self, *, accumulating: bool) -> None:
        self.accumulating = accumulating

    def accumulate(self, on: bool) -> None:  # noqa: FBT001 (as in the core)
        """Hold demand from the start."""
        self.accumulating = on


class FarCore:
    """What is known here of a far stage's core; what is done to it is done over there.

    Attributes:
        state: ``"starting"``, ``"running"`` or ``"ended"``.
        completed: As in the core, once it has ended. So are ``follows`` and ``failure``.
        handled: Events that it had handled when it was heard of last.
        awaited: It waits for producers that are to come.
    """

    callback = None
    lane = False
    plain = False
    paused = False

    def __init__(self, far: FarDriver, role: str, *, accumulating: bool) -> None:
        self._far = far
        self.role = role
        self.source = role == m.PRODUCER
        self.state = "starting"
        self.completed = False
        self.follows = False
        self.failure: tuple[int, int] | None = None
        self.awaited = 0
        self.out = None if role == m.CONSUMER else FarOut(accumulating=accumulating)
        self.into = None if role == m.PRODUCER else FarInto(self)
        self.statistics = _nothing(far.name, role)

    def set_demand(self, mode: str) -> None:
        """Hold demand, or let it go."""
        if self.out is not None:
            self.out.accumulating = mode == "accumulate"
        self._far.there("set_demand", mode)

    def cancel(self, subscription: Subscription, reason: Any) -> bool:
        """End a subscription from that side."""
        return self._far.there("cancel", subscription, reason)

    def ask(self, subscription: Subscription, count: int) -> bool:
        """Ask for more by hand."""
        return self._far.there("ask", subscription, count)

    def pause(self) -> None:
        """Give its handler nothing more."""
        self._far.there("pause")

    def resume(self) -> None:
        """Go on."""
        self._far.there("resume")

    def drain(self, reason: Any) -> None:
        """End when nothing is in flight."""
        self._far.there("drain", reason)

    def stop(self, reason: Any) -> None:
        """End after the callback that runs."""
        self._far.there("stop", reason)

    def unawaited(self) -> None:
        """Know that nobody else will come."""
        self._far.there("unawaited")


class FarInto:
    """What is known here of a far stage's consuming side."""

    def __init__(self, core: FarCore) -> None:
        self._core = core
        self.windows: dict[Subscription, Any] = {}  # nothing is handed down there

    @property
    def handled(self) -> int:
        """Events handled, when it was heard of last."""
        return self._core.statistics.handled


class FarStatistics(StageStatistics):
    """Numbers of a stage elsewhere, as it was heard of last; awaited, they are those of now."""

    _far: FarDriver

    def __await__(self) -> Generator[Any, None, StageStatistics]:
        """Ask for them."""
        return self._far.look().__await__()


class _Mailbox:
    """Where messages for a stage elsewhere are put: they go there."""

    __slots__ = ("append",)

    def __init__(self, append: Callable[[Message], None]) -> None:
        self.append = append

    def __len__(self) -> int:
        return 0


class FarDriver(Endpoint):
    """A stage elsewhere.

    Attributes:
        exchange: Knows the way.
        where: The number of its node.
        process: What sees to the worker that it runs in, for a stage that was started from here.
    """

    far = True
    queued = True  # the scheduler has nothing to do for it
    express = inline = middle = False
    mail = stirred = owes = False

    def __init__(
        self,
        exchange: Exchange,
        where: int,
        number: int,
        name: str,
        role: str,
        child: Child | None = None,
        *,
        id: str = "",  # noqa: A002 (the child's)
        registered: bool = False,
    ) -> None:
        """Know a stage by its address."""
        super().__init__(exchange.node, number, name, Ref if child is None else child.ref_class)
        self._done: asyncio.Future[Any] = self.node.loop.create_future()
        self._monitors: list[Callable[[Any], None]] = []
        self.exchange = exchange
        self.where = where
        self.child = child or _Unknown(id or name)
        self.registered = registered
        self.core: Any = FarCore(self, role, accumulating=child is not None and child.demand == "accumulate")
        self.inbox = _Mailbox(self._append)
        self.watched = child is not None  # its node says by itself when it ends
        self.process: Any = None
        self.at: tuple[Any, ...] | None = (
            None  # what it was at when it was heard of last: kind, words, for whom it waits
        )
        self.heard = self.node.loop.time()
        self.killed: tuple[Any] | None = None  # the reason, when it is to be killed
        self._subscribing: dict[int, tuple[Subscription, asyncio.Future[Subscription]]] = {}
        self._starting: asyncio.Future[None] | None = None

    # -- where a driver would be --------------------------------------------------------------------------------------

    def _append(self, message: Message) -> None:
        if self.core.state == "ended":
            refuse(self, message)  # type: ignore[arg-type]  # as much of a port as that needs
            return
        if message[0] == m.KILL and self.process is not None:
            self.process.insist(self, message[1])
        self.exchange.post(self, message)

    def send(self, to: Ref, message: Message) -> None:
        """Answer for it, when it has ended."""
        self.node.send(to, message)

    def act(self, change: Callable[..., Any], *args: Any) -> Any:
        """Change its core: over there."""
        return change(*args)

    def there(self, method: str, *args: Any) -> bool:
        """Do something to its core; False when it has ended."""
        if self.core.state == "ended":
            return False
        self.exchange.tell(self.where, "act", self.number, method, args)
        return True

    @property
    def done(self) -> asyncio.Future[Any]:
        """Resolves with the reason when it has ended; whoever looks at it wants to know."""
        self.watch()
        return self._done

    @property
    def monitors(self) -> list[Callable[[Any], None]]:
        """Who is told when it ends."""
        self.watch()
        return self._monitors

    def watch(self) -> None:
        """Ask its node to be told when it ends."""
        if not self.watched:
            self.watched = True
            self.exchange.tell(self.where, "monitor", self.number)

    # -- its life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Let it be built and started over there.

        Raises:
            CrossingError: Its class or an argument cannot go there.
            WorkerLostError: The worker ended meanwhile.
            Exception: What ``__init__`` raised.
        """
        self._starting = self.node.loop.create_future()
        self._starting.add_done_callback(look_at)
        self.node.drivers[self.number] = self  # type: ignore[assignment]  # it stands where a driver would
        hold = self.core.out is not None and self.core.out.accumulating
        await self.exchange.start(self, hold=hold)  # type: ignore[attr-defined]  # it is home's
        await self._starting
        if self.core.state == "starting":
            self.core.state = "running"

    def came_up(self, error: BaseException | None) -> None:
        """Take note of how the start came out."""
        if self._starting is not None and not self._starting.done():
            if error is None:
                self._starting.set_result(None)
            else:
                self._starting.set_exception(error)

    def abandon(self) -> None:
        """Forget a stage that could not be started, or is not wanted any more."""
        self.node.drivers.pop(self.number, None)
        if self.registered:
            self.node.unregister(self.name)
        if self.core.state != "ended":
            self.exchange.tell(self.where, "abandon", self.number)
            self.core.state = "ended"
        self.exchange.left(self)

    def subscribe(
        self, subscription: Subscription, future: asyncio.Future[Subscription] | None = None, *, hasty: bool = False
    ) -> asyncio.Future[Subscription]:
        """Let it subscribe; the future resolves when the producer has accepted."""
        if future is None:
            future = self.node.loop.create_future()
            future.add_done_callback(look_at)
        if self.core.state == "ended":
            future.set_exception(NoStageError(f"stage {self.name!r} has ended"))
            return future
        self._subscribing[subscription.id] = (subscription, future)
        self.exchange.keep(subscription)
        self.exchange.tell(self.where, "subscribe", self.number, subscription, hasty)
        return future

    def wait(self, name: str, terms: Terms) -> None:
        """Let it subscribe as soon as there is a stage of this name."""
        self.core.awaited += 1
        self.exchange.tell(self.where, "wait", self.number, name, terms)

    def subscribed(self, number: int, error: BaseException | None) -> None:
        """Take note of how a subscription came out."""
        subscription, future = self._subscribing.pop(number, (None, None))
        if subscription is not None and future is not None and not future.done():
            if error is None:
                future.set_result(subscription)
            else:
                future.set_exception(error)

    def ended(self, reason: Any, *, completed: bool = False, follows: bool = False, failure: Any = None) -> None:
        """Take note that it has ended, and let everybody know."""
        core = self.core
        if core.state == "ended":
            return
        core.state = "ended"
        core.completed, core.follows, core.failure = completed, follows, failure
        core.statistics = replace(core.statistics, state="ended", demand=0)
        self.fault = None if isinstance(reason, Ignore) else crash(self.name, reason)
        for _, future in self._subscribing.values():
            if not future.done():
                future.set_exception(NoStageError(f"stage {self.name!r} ended before its subscription was confirmed"))
        self._subscribing.clear()
        for token in list(self.calls):
            self.reply(token, None, NoStageError(f"stage {self.name!r} has ended"))
        self.came_up(None)
        self.watched = True
        if not self._done.done():
            self._done.set_result(reason)
        if isinstance(self.child, _Unknown):
            for monitor in self._monitors:
                monitor(reason)
        else:
            self.node.gone(self, reason)  # type: ignore[arg-type]  # as above
        self.exchange.left(self)

    def statistics(self) -> StageStatistics:
        """Return its numbers as they were last heard; they can be awaited for those of now."""
        known = self.core.statistics
        numbers = FarStatistics(**{each.name: getattr(known, each.name) for each in fields(known)})
        object.__setattr__(numbers, "_far", self)
        return numbers

    async def look(self) -> StageStatistics:
        """Ask for its numbers."""
        numbers: StageStatistics = self.core.statistics
        if self.core.state != "ended":
            numbers = await self.exchange.request(self.where, "statistics", self.number) or self.core.statistics
            self.core.statistics = numbers
        return numbers


class _Unknown:
    """The recipe of a stage that was started elsewhere."""

    shutdown = 5.0
    place = "elsewhere"

    def __init__(self, id: str) -> None:  # noqa: A002 (the child's)
        self.id = id


def stripped(child: Child) -> Child:
    """Return a recipe as its worker needs it: subscriptions are made from here, its place is the worker's loop."""
    child = copy.copy(child)
    child.subscribe_to = []
    child.template = None
    child.place = child.inner_place
    return child


def parts(child: Child) -> dict[str, Any]:
    """Name what of a recipe has to cross, for an error that says which part cannot."""
    named: dict[str, Any] = {f"its class {child.label}": child.cls}
    named |= {f"argument {index + 1}": value for index, value in enumerate(child.args)}
    named |= {f"argument {name!r}": value for name, value in child.kwargs.items()}
    named["its dispatcher"] = child.fresh_dispatcher()
    return named


def _nothing(name: str, role: str) -> StageStatistics:
    """Return the numbers of a stage that has not been heard of."""
    dispatcher = None if role == m.CONSUMER else ""
    return StageStatistics(name, role, dispatcher, "starting", 0, 0, {}, 0, 0, 0, 0, 0, {}, (), ())
