"""Those who talk to a system from outside: requests that are cut short, streams that are left, feeds that are slow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

from headgate import HeadgateError, NameTakenError, Ref, To, stream
from headgate.testing.shell.stages import Part
from headgate.testing.shell.world import Boom, Event, Slot, World

PROMPT = 0.5
"""Virtual seconds within which a stream is left: it waits for nobody else."""
LONG = 5.0
"""Virtual seconds within which every call is answered, also when its stage ends."""
Request = Callable[[World, Ref, Slot, tuple[str, int]], Coroutine[Any, Any, None]]


# -- requests ----------------------------------------------------------------------------------------------------------


async def ask(world: World, ref: Ref, slot: Slot, request: tuple[str, int]) -> None:  # noqa: ARG001 (a request's form)
    """Call a stage, and see that the answer is the one to this call."""
    limit = world.user.choice((0.001, 0.01, LONG))
    try:
        answer = await ref.call(request, timeout=limit)
    except TimeoutError:
        if limit == LONG:
            raise world.break_rule("hanging", f"{ref.name} left {request} without an answer") from None
        raise
    if answer != request:
        raise world.break_rule("answer", f"{ref.name} answered {request} with {answer}")


async def tell(world: World, ref: Ref, slot: Slot, request: tuple[str, int]) -> None:  # noqa: ARG001 (a request's form)
    """Send a stage messages."""
    for number in range(3):
        ref.cast((request[0], request[1] * 10 + number))
        ref.info(request)
        await world.sleep(0.001)


async def wait(world: World, ref: Ref, slot: Slot, request: tuple[str, int]) -> None:  # noqa: ARG001 (a request's form)
    """Wait for a stage's end, not for long."""
    async with asyncio.timeout(0.01):
        await ref.wait()


async def subscribe(world: World, ref: Ref, slot: Slot, request: tuple[str, int]) -> None:  # noqa: ARG001 (a request's form)
    """Subscribe a stage anew: first cancel, so that it has not two."""
    into = ref.driver.core.into
    for window in [] if into is None else list(into.windows.values()):
        for up, options in slot.upstream:
            if window.open and up.living is window.producer:
                ref.cancel(window.subscription)
                await ref.subscribe(slot.to(up, options), timeout=world.user.choice((0.0, 0.001, 5.0)))


async def end(world: World, ref: Ref, slot: Slot, request: tuple[str, int]) -> None:  # noqa: ARG001 (a request's form)
    """Stop a stage."""
    if slot.crashes:
        await ref.stop(timeout=world.user.choice((None, 0.0, 0.001)))


async def visit(world: World, ref: Ref, slot: Slot, request: tuple[str, int]) -> None:  # noqa: ARG001 (a request's form)
    """Start one more consumer for a while; one whose start was cut short is gone, and so is its name."""
    guest = Slot(f"x-{request[0]}", slot.cls, slot.upstream, **slot.options)
    if not slot.upstream or slot not in world.slots[-len(world.last) :]:
        return
    guest.starts = request[1]
    node = world.system.node
    try:
        found = await world.system.start(guest.child(world))
    except NameTakenError as error:
        raise world.break_rule("name", f"{guest.name} is taken, though nobody should have it") from error
    if node.names.get(guest.name) is not found and found.alive:
        raise world.break_rule("name", f"{guest.name} lives and has lost its name")
    try:
        await world.sleep(0.01)
    finally:
        await asyncio.shield(world.loop.create_task(_see_out(found)))


async def _see_out(ref: Ref) -> None:
    """Stop a stage, and look at how it ended."""
    await ref.stop()
    with contextlib.suppress(HeadgateError):
        await ref.wait()


REQUESTS: dict[str, Request] = {
    "call": ask,
    "tell": tell,
    "wait": wait,
    "subscribe": subscribe,
    "end": end,
    "visit": visit,
}


def client(name: str, requests: int) -> Callable[[World], Coroutine[Any, Any, None]]:
    """Make somebody who sends so many requests to stages that live or do not, and cuts many of them short."""

    async def run(world: World) -> None:
        kinds = list(REQUESTS)
        for number in range(requests):
            await world.sleep(0.02)
            slots = [slot for slot in world.slots if slot.ref is not None]
            if not slots:
                continue
            slot = slots[int(world.user.random() * len(slots))]
            kind = kinds[int(world.user.random() * len(kinds))]
            if world.calm and kind == "end":
                continue
            assert slot.ref is not None  # noqa: S101 (just looked)
            world.note(kind, name, number, slot.name)
            task = world.loop.create_task(REQUESTS[kind](world, slot.ref, slot, (name, number)), name=f"{kind} {name}")
            if world.user.random() < 0.5:  # noqa: PLR2004 (half of them)
                world.faults["cut short"] += 1
                world.loop.call_later(world.user.random() * 0.01, task.cancel)
            await asyncio.wait([task])
            if not task.cancelled():
                with contextlib.suppress(HeadgateError, TimeoutError):
                    task.result()
            world.note("after", kind, name)

    return run


# -- streams -----------------------------------------------------------------------------------------------------------


class Reader(Part):
    """Whoever iterates over a stream."""


def reader(slot: Slot) -> Callable[[World], Coroutine[Any, Any, None]]:
    """Make somebody who reads streams and leaves them, in all ways, until everything is read."""

    async def run(world: World) -> None:
        while not all(up.over(world) for up, _ in slot.upstream):
            slot.starts += 1
            await world.sleep(0.01)
            task = world.loop.create_task(_read(world, Reader(world, slot)), name=f"read {slot.name}")
            cut: list[float] = []
            if world.fault("cancel reader"):
                for _ in range(world.user.choice((1, 1, 2))):  # the second one comes in the midst of the leave
                    world.loop.call_later(world.user.random() * 0.02, _cut, world, task, cut)
            await asyncio.wait([task])
            if cut and world.loop.time() - cut[0] > PROMPT:
                raise world.break_rule("slow", f"leaving a stream took {world.loop.time() - cut[0]:.3f} s")
            if not task.cancelled():
                with contextlib.suppress(HeadgateError, Boom):
                    task.result()

    return run


def _cut(world: World, task: asyncio.Task[None], cut: list[float]) -> None:
    if not task.done():
        cut.append(world.loop.time())
        task.cancel()


async def _read(world: World, part: Reader) -> None:
    wanted = [To(up.name, **options) for up, options in part.slot.upstream if up.living is not None]
    if not wanted or any(up.living is None and not up.over(world) for up, _ in part.slot.upstream):
        return  # one that comes later would have nobody to read from it
    way = world.__dict__["ways"] = world.__dict__.get("ways", 0) - 1
    events = stream(wanted, system=world.system)
    aside = False
    try:
        async for event in events:
            world.give(part, [event], way)
            if world.attempts[event] > 1:
                raise world.break_rule("doubled", f"the streams gave {event} twice")
            world.settle(event)
            kind = world.fault("leave", "reader raises")
            if kind == "reader raises":
                raise Boom(part.label)
            if kind == "leave":
                aside = world.user.random() < 0.3  # noqa: PLR2004 (some leave the closing to the loop)
                return
            if world.user.random() < 0.3:  # noqa: PLR2004 (some)
                await world.sleep(0.003)
    finally:
        if not aside:
            await events.aclose()


# -- feeds -------------------------------------------------------------------------------------------------------------


class Feed:
    """An iterable of numbered events that sees that it is not asked for more than is wanted."""

    def __init__(self, world: World, slot: Slot, total: int, *, breaks: bool) -> None:
        """Begin with the first."""
        self.world = world
        self.slot = slot
        self.total = total
        self.breaks = breaks
        self.closed = False
        self.wants_closing = False

    def pull(self, number: int) -> Event:
        """Note that one more is taken; check that it may be.

        Raises:
            Violation: It is not wanted.
        """
        ref = self.slot.living
        found = self.world.system.node.names.get(self.slot.name) if ref is None else ref
        if found is not None:
            out = found.driver.core.out
            if out is not None and number + 1 - out.emitted > out.requested:
                text = f"{self.slot.name} took event {number}, {out.emitted} are emitted, {out.requested} wanted"
                raise self.world.break_rule("eager", text)
        return (self.slot.name, number)

    def __iter__(self) -> Iterator[Event]:
        """Give all events; some take long."""
        world = self.world
        for number in range(self.total):
            event = self.pull(number)
            if world.user.random() < 0.2:  # noqa: PLR2004 (some)
                world.loop.advance(world.user.random() * 0.03)
            self.slot.next = number + 1
            yield event
        if self.breaks:
            raise Boom(self.slot.name)

    async def slowly(self) -> AsyncIterator[Event]:
        """Give all events; most are waited for."""
        world = self.world
        try:
            for number in range(self.total):
                event = self.pull(number)
                if world.user.random() < 0.7:  # noqa: PLR2004 (most)
                    await world.sleep(world.user.choice((0.0, 0.001, 0.01)))
                self.slot.next = number + 1
                yield event
            if self.breaks:
                raise Boom(self.slot.name)
        finally:
            if world.user.random() < 0.3:  # noqa: PLR2004 (some)
                await asyncio.sleep(0)
            self.closed = True
