"""The stages of the simulated systems: what users would write, with faults drawn by the seed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from headgate import Consumer, End, Producer, ProducerConsumer, Stop, Subscription
from headgate.testing.shell.world import Boom, Event, Slot, World

IN_HANDLER = ("raise", "raise late", "cancelled", "stop signal", "stop self")
"""Faults that happen inside of handlers."""


class Part:
    """What all stages here have in common.

    Attributes:
        finished: (number of the subscription, event) of what its handler has finished.
        excused: It was cut off from outside, so that what it had finished may come back.
    """

    stage: Any

    def __init__(self, world: World, slot: Slot) -> None:
        """Belong to a slot of a world."""
        self.world = world
        self.slot = slot
        if world.supervised:
            slot.starts += 1
        self.label = f"{slot.name}.{slot.starts}"
        self.finished: set[tuple[int, Event]] = set()
        self.excused = False

    def started(self) -> None:
        """Fail sometimes. Nobody else of this recipe may live."""
        slot, world = self.slot, self.world
        ref = slot.ref = self.stage.ref
        world.note("started", self.label)
        for driver in world.system.node.drivers.values():
            if driver.child.id == ref.id and driver is not ref.driver and driver.core.state != "ended":
                world.break_rule("twice", f"{self.label} is started, {driver.name} of the same recipe lives")
        if slot.hook is not None:
            slot.hook(self)
        if self.slot.crashes and self.world.fault("raise in started"):
            self.slot.refused = self.slot.starts
            raise Boom(self.label)

    def fail(self, *, early: bool) -> None:
        """Raise, if that is drawn: before the work, or after it and before the handler returns."""
        world = self.world
        if not self.slot.crashes:
            return
        kind = world.fault("raise", "cancelled") if early else world.fault("raise late", "stop signal", "stop self")
        if kind in ("raise", "raise late"):
            raise Boom(self.label)
        if kind == "cancelled":
            raise asyncio.CancelledError(self.label)
        if kind == "stop self":
            self.stage.stop()
        elif kind == "stop signal":
            self.leaving = True

    leaving = False

    async def pause(self) -> None:
        """Wait for something, in one of the ways in which handlers wait."""
        world = self.world
        x = world.user.random()
        if x < 0.35:  # noqa: PLR2004 (the rest waits)
            return
        if x < 0.5:  # noqa: PLR2004 (one of six ways)
            await asyncio.sleep(0)
        elif x < 0.75:  # noqa: PLR2004 (one of six ways)
            await world.sleep(0.01 * self.slot.pace)
        elif x < 0.85:  # noqa: PLR2004 (one of six ways)
            try:
                async with asyncio.timeout(world.user.choice((0.0, 0.0, 0.001, 0.005))):
                    await world.sleep(0.01)
            except TimeoutError:
                world.note("timeout", self.label)
        elif x < 0.95:  # noqa: PLR2004 (one of six ways)
            await asyncio.to_thread(world.note, "to thread", self.label)
        else:
            await asyncio.gather(world.sleep(0.002), asyncio.sleep(0))

    def handle_call(self, request: Any) -> Any:
        """Give the request back, now, or a little later."""
        world = self.world
        world.note("call", self.label, request)
        if world.user.random() < 0.4:  # noqa: PLR2004 (some)
            caller = self.stage.caller()
            world.loop.call_later(world.user.random() * 0.03, self._answer, caller, request)
            return None
        return request

    def _answer(self, caller: Any, request: Any) -> None:
        if self.stage.ref.alive:
            self.stage.reply_to(caller, request)

    def handle_cast(self, message: Any) -> None:
        """See that each sender's messages come in order."""
        sender, number = message
        world = self.world
        world.note("cast", self.label, sender, number)
        last = world.__dict__.setdefault("casts", {}).get((self.label, sender), -1)
        if number <= last:
            raise world.break_rule("casts", f"{self.label} got message {number} of {sender} after {last}")
        world.__dict__["casts"][self.label, sender] = number

    def handle_info(self, message: Any) -> None:
        """Take any."""

    def handle_cancel(self, reason: End, peer: Subscription) -> None:
        """Take note."""
        self.world.note("cancelled", self.label, peer.id, reason.kind)


class Source(Part, Producer):
    """Gives numbered events: as many as asked for, or fewer now and the rest later. It goes on where it was."""

    def __init__(self, world: World, slot: Slot, total: int, late: float) -> None:
        """Begin where the one before has ended."""
        super().__init__(world, slot)
        self.total = total
        self.late = late
        self.owed = 0
        self.again: list[Event] = []
        if world.supervised:  # what its predecessor had given and is not done: as a source that knows its position
            self.again = [event for n in range(slot.next) if not world.is_done(event := (slot.name, n))]
            world.returned.update(self.again)

    def take(self, count: int) -> list[Event]:
        """Take the next events."""
        slot, again = self.slot, self.again[:count]
        del self.again[:count]
        first = slot.next
        slot.next = min(self.total, first + count - len(again))
        self.world.note("emits", self.label, len(again), first, slot.next)
        return [*again, *((slot.name, number) for number in range(first, slot.next))]

    def check_finished(self) -> None:
        """Finish after the last event."""
        if self.slot.next == self.total and not self.again:
            self.stage.finish()

    def handle_demand(self, demand: int) -> list[Event] | None:
        """Give events, or promise them."""
        world = self.world
        now = demand
        if world.user.random() < self.late:
            now = int(world.user.random() * demand)
            self.owed += demand - now
            world.loop.call_later(world.user.random() * 0.01, self.more)
        events = self.take(now)
        self.check_finished()
        return events or None

    def more(self) -> None:
        """Give what was promised."""
        if self.stage.ref.alive:
            count, self.owed = self.owed, 0
            if count:
                events = self.take(count)
                if events:
                    self.stage.emit(events)
                self.check_finished()


class AsyncSource(Source):
    """The same with an async handler."""

    async def handle_demand(self, demand: int) -> list[Event] | None:  # type: ignore[override]  # either is fine
        """Wait a little, then give events."""
        await self.pause()
        return super().handle_demand(demand)


class _Middle(Part):
    """What plain and async middle stages have in common."""

    def __init__(self, world: World, slot: Slot, layer: int) -> None:
        super().__init__(world, slot)
        self.transform = world.transforms[layer]

    def steps(self, events: Any, source: Subscription) -> Iterator[Any]:
        """Do the work; where this yields, an async handler may wait. The last thing that is yielded is the result."""
        self.world.attempt(self, events, source)
        yield None
        self.fail(early=True)
        outputs = [output for event in events for output in self.transform(event)]
        if len(outputs) > 1 and self.world.user.random() < 0.15:  # noqa: PLR2004 (some)
            at = 1 + int(self.world.user.random() * (len(outputs) - 1))
            self.stage.emit(outputs[:at])
            outputs = outputs[at:]
            yield None
        self.fail(early=False)
        if self.leaving:
            self.stage.emit(outputs)
            raise Stop
        yield outputs


class Middle(_Middle, ProducerConsumer):
    """A middle stage with plain handlers."""

    def handle_events(self, events: Any, source: Subscription) -> Any:
        """Pass events on."""
        outputs = None
        for outputs in self.steps(events, source):  # noqa: B007 (the last one counts)
            pass
        return outputs


class AsyncMiddle(_Middle, ProducerConsumer):
    """A middle stage with async handlers."""

    async def handle_events(self, events: Any, source: Subscription) -> Any:
        """Pass events on."""
        outputs = None
        for outputs in self.steps(events, source):  # noqa: B007 (the last one counts)
            await self.pause()
        return outputs


class _Sink(Part):
    """What plain and async consumers have in common."""

    def steps(self, events: Any, source: Subscription) -> Iterator[None]:
        """Do the work; where this yields, an async handler may wait."""
        self.world.attempt(self, events, source)
        yield None
        self.fail(early=True)
        yield None
        self.fail(early=False)
        self.world.finish(self, events, source)
        if self.leaving:
            raise Stop


class Sink(_Sink, Consumer):
    """A consumer with plain handlers."""

    def handle_events(self, events: Any, source: Subscription) -> None:
        """Handle events."""
        for _ in self.steps(events, source):
            pass


class AsyncSink(_Sink, Consumer):
    """A consumer with async handlers."""

    async def handle_events(self, events: Any, source: Subscription) -> None:
        """Handle events."""
        for _ in self.steps(events, source):
            await self.pause()

    async def terminate(self, reason: Any) -> None:
        """Take a little time."""
        self.world.note("terminate", self.label, str(reason)[:20])
        if self.world.user.random() < 0.3:  # noqa: PLR2004 (some)
            await self.world.sleep(0.002)


STAGES = {"middle": (Middle, AsyncMiddle), "sink": (Sink, AsyncSink)}
"""Each as (plain, async)."""
