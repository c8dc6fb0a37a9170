"""Sources of a simulated broker, of all forms: plain, async, in a thread, or some of each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Final

from headgate import Message, Source
from headgate.testing.shell.pipelines.broker import Broker, Delivery

if TYPE_CHECKING:
    from headgate.testing.shell.pipelines.world import PipelineWorld


class SimSource(Source):
    """A source of a broker. Everything about it is plain here; `make_source` makes others.

    Args:
        world: The run.
        broker: Where it fetches from.
        form: ``"plain"``, ``"async"``, ``"blocking"``, ``"fetch"`` or ``"back"`` (only that is async).
    """

    def __init__(self, world: PipelineWorld, broker: Broker, form: str) -> None:
        """Be closed."""
        self.world = world
        self.broker = broker
        self.form = form
        self.name = broker.name
        self.redelivers = broker.redelivers
        self.keeps_letters = broker.keeps_letters
        self.ordered = broker.ordered
        self.lease = broker.lease
        self.max_deliveries = broker.max_deliveries
        self.state = "new"
        self.fetching = False
        self.came = asyncio.Event()
        self.draw = Random(world.seed * 7 + len(broker.name))  # noqa: S311 (chance for tests)
        self.slow = self.draw.choice((0.0, 0.001, 0.02, 0.3) if self.lease is None else (0.0, 0.001, 0.02))
        self.waits = self.draw.choice((0.0, 0.2, 5.0))  # long polling
        self._alarm: asyncio.TimerHandle | None = None
        broker.source = self

    # -- waking -------------------------------------------------------------------------------------------------------

    def stir(self) -> None:
        """Say that there may be something."""
        self.came.set()
        if self.state == "open" and self.poll is None:
            self.wake()

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        due = self.broker.next_due()
        if due is not None and self.state == "open":
            self._alarm = self.world.loop.call_at(max(due, self.world.loop.time()), self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self.broker.expire()
        self.stir()
        self._set_alarm()

    # -- the steps of its methods -------------------------------------------------------------------------------------

    def rule(self, method: str) -> None:
        """Check that a method may be called now."""
        allowed = {
            "open": ("new", "closed"),
            "fetch": ("open",),
            "drain": ("open", "drained"),
            "close": ("open", "drained"),
        }.get(method, ("open", "drained"))
        if self.state not in allowed:
            raise self.world.break_rule("source", f"{method} of {self.name} was called when it was {self.state}")

    def begin_fetch(self, count: int) -> None:
        """Check what a fetch is given."""
        self.rule("fetch")
        if self.fetching or type(count) is not int or count < 1:
            raise self.world.break_rule("source", f"fetch({count}) of {self.name}, another under way: {self.fetching}")
        self.world.fetch_begins(self, count)
        if self.world.fault("fetch raises"):
            raise OSError("the source is away")

    def end_fetch(self, count: int) -> Any:
        """Return what there is."""
        world, broker = self.world, self.broker
        self.came.clear()
        if world.fault("fetch garbage"):
            return world.user.choice(("messages", [1, 2], [Message(0)] * (count + 1), {}))
        if self.state != "open":
            return []
        deliveries = broker.take(count)
        self._set_alarm()
        if deliveries:
            world.fetched(self, len(deliveries))
            return [self._message(delivery) for delivery in deliveries]
        done = not broker.unsettled if broker.patient or broker.lease is not None else not broker.line
        return None if broker.closed and done else []

    def _message(self, delivery: Delivery) -> Message:
        message = Message(delivery.unit, None, delivery.item.key, receipt=delivery, deliveries=delivery.item.deliveries)
        message.deadline = delivery.deadline
        return message

    def do_open(self) -> None:
        """Open it."""
        self.rule("open")
        self.state = "open"
        self.broker.reopen()

    def do_close(self) -> None:
        """Close it."""
        self.rule("close")
        self.state = "closed"
        self._set_alarm()
        if self.world.fault("close raises"):
            raise OSError("cannot close")

    def do_drain(self) -> None:
        """Hand out nothing more."""
        self.rule("drain")
        self.state = "drained"
        self.came.set()
        if self.world.fault("drain raises"):
            raise OSError("cannot drain")

    def do_tell(self, method: str, messages: Sequence[Message], delay: float = 0.0, *, counted: bool = True) -> Any:
        """Take note of outcomes, or raise before or after that."""
        self.rule(method)
        if self.world.fault("back raises"):
            self.world.leases_at_risk()  # it is told again, after a while
            raise OSError(f"cannot {method}")
        lost = self.broker.tell(method, messages, delay, counted=counted)
        self._set_alarm()
        if self.world.fault("back raises late"):
            self.world.leases_at_risk()
            for message in messages:
                message.receipt.unsure = True
            raise OSError(f"{method} may have come through")
        return lost

    def do_extend(self, messages: Sequence[Message], seconds: float) -> None:
        """Prolong leases, or raise."""
        self.rule("extend")
        if self.world.fault("extend raises"):
            self.world.leases_at_risk()
            raise OSError("cannot extend")
        self.broker.extend(messages, seconds)
        self._set_alarm()

    # -- its methods, plain -------------------------------------------------------------------------------------------

    def open(self) -> Any:
        """Open it."""
        self.do_open()

    def close(self) -> Any:
        """Close it."""
        self.do_close()

    def drain(self) -> Any:
        """Hand out nothing more."""
        self.do_drain()

    def fetch(self, count: int) -> Any:
        """Hand out what there is."""
        self.begin_fetch(count)
        return self.end_fetch(count)

    def ack(self, messages: Sequence[Message]) -> Any:
        """Forget messages."""
        return self.do_tell("ack", messages)

    def nack(self, messages: Sequence[Message], delay: float = 0.0, *, counted: bool = True) -> Any:
        """Take messages back."""
        return self.do_tell("nack", messages, delay, counted=counted)

    def discard(self, messages: Sequence[Message]) -> Any:
        """Forget messages that have failed."""
        return self.do_tell("discard", messages)

    def dead_letter(self, messages: Sequence[Message]) -> Any:
        """Keep messages that have failed."""
        return self.do_tell("dead_letter", messages)

    def extend(self, messages: Sequence[Message], seconds: float) -> Any:
        """Prolong leases."""
        self.do_extend(messages, seconds)

    async def dawdle(self) -> None:
        """Be slow."""
        if self.slow:
            await asyncio.sleep(self.draw.random() * self.slow)
        elif self.draw.random() < 0.5:  # noqa: PLR2004 (some)
            await asyncio.sleep(0)


class _AsyncFetch:
    async def fetch(self: Any, count: int) -> Any:
        """Hand out what there is, in the end; what nobody waits for any more goes back."""
        self.begin_fetch(count)
        self.fetching = True
        try:
            await self.dawdle()
            self.came.clear()
            if self.waits and not self.broker.line and not self.broker.closed and self.state == "open":
                try:
                    async with asyncio.timeout(self.waits):
                        await self.came.wait()
                except TimeoutError:
                    pass
            found = self.end_fetch(count)
            try:
                await self.dawdle()
            except asyncio.CancelledError:
                for message in found if isinstance(found, list) else ():
                    if isinstance(message.receipt, Delivery) and not message.receipt.expired:
                        message.receipt.told = "cancelled"
                        self.broker.give_back(message.receipt, 0.0, counted=False)
                raise
        finally:
            self.fetching = False
        return found


class _AsyncBack:
    async def ack(self: Any, messages: Sequence[Message]) -> Any:
        await self.dawdle()
        return self.do_tell("ack", messages)

    async def nack(self: Any, messages: Sequence[Message], delay: float = 0.0, *, counted: bool = True) -> Any:
        await self.dawdle()
        return self.do_tell("nack", messages, delay, counted=counted)

    async def discard(self: Any, messages: Sequence[Message]) -> Any:
        await self.dawdle()
        return self.do_tell("discard", messages)

    async def dead_letter(self: Any, messages: Sequence[Message]) -> Any:
        await self.dawdle()
        return self.do_tell("dead_letter", messages)

    async def extend(self: Any, messages: Sequence[Message], seconds: float) -> None:
        await self.dawdle()
        self.do_extend(messages, seconds)

    async def open(self: Any) -> None:
        await self.dawdle()
        self.do_open()

    async def close(self: Any) -> None:
        await self.dawdle()
        self.do_close()

    async def drain(self: Any) -> None:
        await self.dawdle()
        self.do_drain()


_FORMS: Final[dict[str, type[SimSource]]] = {
    "plain": SimSource,
    "fetch": type("FetchSource", (_AsyncFetch, SimSource), {}),
    "back": type("BackSource", (_AsyncBack, SimSource), {}),
    "async": type("AsyncSource", (_AsyncFetch, _AsyncBack, SimSource), {}),
    "blocking": type("BlockingSource", (SimSource,), {"blocking": True}),
}
FORMS: Final = tuple(_FORMS)


def make_source(world: PipelineWorld, broker: Broker, form: str) -> SimSource:
    """Make a source that is to be called in this way: one of ``FORMS``."""
    return _FORMS[form](world, broker, form)
