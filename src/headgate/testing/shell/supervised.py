"""Systems under a `Supervisor`: who starts stages again, how soon, one child for each event, and a drain in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from headgate import Child, DeadLetter, HeadgateError, NoStageError, Ref, RestartLimitError, Supervisor, System, To
from headgate.supervision.consumer_supervisor import ConsumerSupervisor
from headgate.testing.shell.play import Fault, audit, check_numbers, check_outcome, disturb, explain
from headgate.testing.shell.stages import Part
from headgate.testing.shell.world import LIVENESS, Boom, Event, Slot, World

AT_MOST = 8
"""Starts of a stage that fails at once, in one second: at 0, 0, 0.04, 0.11, 0.26, 0.56, and as many as chance adds."""
STRATEGIES = ("one_for_one", "one_for_one", "rest_for_one", "one_for_all")


def recipe(world: World, slot: Slot) -> Child:
    """Return the recipe of a slot that a supervisor starts. Those at the end have no name: two of them could live."""
    assert slot.cls is not None  # noqa: S101 (topologies are of stages)
    wanted = [slot.to(up, options) for up, options in slot.upstream]
    options = dict(slot.options)
    if slot not in world.last:
        options["name"] = slot.name
    return Child(slot.cls, world, slot, id=slot.name, subscribe_to=wanted, **options)


def tree(world: World, *, max_restarts: int | None) -> Supervisor:
    """Draw a tree: one supervisor of all slots, or one whose last child is a supervisor of the lower ones."""
    draw = world.draw
    recipes: list[Any] = [recipe(world, slot) for slot in world.slots]
    if draw.random() < 0.4 and len(recipes) > 1:  # noqa: PLR2004 (some)
        at = 1 + int(draw.random() * (len(recipes) - 1))
        inner = Supervisor(recipes[at:], strategy=draw.choice(STRATEGIES), max_restarts=max_restarts, id="inner")
        recipes = [*recipes[:at], inner]
    return Supervisor(recipes, strategy=draw.choice(STRATEGIES), max_restarts=max_restarts, id="top")


async def restart(world: World, ref: Ref, slot: Slot) -> None:  # noqa: ARG001 (a fault's form)
    """Let somebody start a child again by hand."""
    if not slot.upstream:  # a source whose stream is over by then would wait for consumers that are done
        return
    while True:
        try:
            await world.running.restart_child(slot.name)
        except NoStageError:  # it is below another supervisor, or that ends right now
            return
        except HeadgateError:  # its start has failed: it stays stopped until somebody tries again
            await asyncio.sleep(0.01)
            continue
        world.count("restart")
        return


def family_tree(world: World) -> str:
    """Show every supervisor with its children, for people."""
    lines: list[str] = []
    for each in world.system.node.supervisions.values():
        lines.append(f"{each}:")
        lines += [f"  {child.id} {child.state}, {child.ref}, last: {child.reason}" for child in each.children()]
    return "\n".join(lines)


async def play_supervised(world: World, app: Supervisor, *, faults: Mapping[str, Fault], audits: float = 0.04) -> None:
    """Run a supervised app until it is done, disturbed for a while; then check.

    Raises:
        Violation: A rule is broken.
    """
    budget, world.budget = world.budget, 0  # an app that fails in its first start is not started again
    async with System(seed=world.seed, on_error=world.reported, on_dead_letter=world.bury) as system:
        world.system = system
        spawn = world.loop.create_task
        helpers: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(LIVENESS):
                running = world.running = await system.start(app)
                world.budget = budget
                helpers = [
                    spawn(disturb(world, faults), name="disturb"),
                    spawn(audit(world, audits), name="audit"),
                ]
                with contextlib.suppress(RestartLimitError):
                    await running.wait()
        except TimeoutError:
            raise world.break_rule("stalled", f"{family_tree(world)}\n{explain(world)}") from None
        finally:
            await _settle(helpers)
        if isinstance(world.running.reason, RestartLimitError):
            world.faults["limit"] += 1
        else:
            check_outcome(world)
        check_numbers(world)
        check_gone(world)


async def _settle(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel helpers, and raise what they have raised."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError):
            await task


def check_gone(world: World) -> None:
    """Check that a supervisor that has ended leaves nobody behind.

    Raises:
        Violation: It does.
    """
    node = world.system.node
    if node.drivers or node.supervisions or node.names:
        left = [driver.name for driver in node.drivers.values()]
        raise world.break_rule("left behind", f"{left}, {list(node.supervisions.values())}, names {list(node.names)}")


# -- restart storms ----------------------------------------------------------------------------------------------------


class Storm:
    """Lets a slot's stage fail until some time has passed: in its start, or with the first event.

    Attributes:
        tries: When each incarnation was started, in virtual seconds.
    """

    def __init__(self, world: World, slot: Slot, until: float) -> None:
        """Listen to the slot."""
        self.world = world
        self.slot = slot
        self.until = until
        self.tries: list[float] = []
        slot.hook = self.hook

    def hook(self, part: Part) -> None:
        """Note a start, and fail if it comes too early.

        Raises:
            Boom: It does.
        """
        now = self.world.loop.time()
        self.tries.append(now)
        if len(self.tries) == 1:  # the first start has to work
            self.world.loop.call_later(0.001, self._hit, part.stage.ref)
        elif now < self.until:
            self.world.faults["storm"] += 1
            raise Boom(part.label)

    def _hit(self, ref: Ref) -> None:
        if self.world.running is None:  # an app whose first start fails is not started again
            self.world.loop.call_later(0.001, self._hit, ref)
        else:
            ref.kill()


def check_storm(world: World, storm: Storm) -> None:
    """Check that the tries got rarer.

    Raises:
        Violation: They did not.
    """
    tries = storm.tries
    for index, when in enumerate(tries):
        within = [each for each in tries[index:] if each - when < 1.0]
        if len(within) > AT_MOST:
            name = storm.slot.name
            raise world.break_rule("storm", f"{name} was started {len(within)} times within a second: {tries}")


# -- one child for each event ------------------------------------------------------------------------------------------


class Children:
    """What the children of a `ConsumerSupervisor` do, and what was seen of them.

    Attributes:
        limit: How many there may be at the same time.
        retries: How often each is started again.
    """

    def __init__(self, world: World, part: Part, limit: int, retries: int) -> None:
        """Begin with none."""
        self.world = world
        self.part = part
        self.limit = limit
        self.retries = retries
        self.running = 0
        self.failed: Counter[Event] = Counter()

    def _begin(self, event: Event) -> None:
        world = self.world
        self.running += 1
        world.note("child", event)
        if self.running > self.limit * (1 + world.faults["kill"] + world.faults["hurry"]):
            raise world.break_rule("children", f"{self.running} children at a time, {self.limit} allowed")
        world.attempts[event] += 1
        if world.attempts[event] > world.copies(event) + self.failed[event]:
            raise world.break_rule("doubled", f"{event} has had {world.attempts[event]} children")

    def _end(self, event: Event) -> None:
        kind = self.world.fault("raise", "cancelled")
        if kind is not None:
            self.failed[event] += 1
            raise Boom(event) if kind == "raise" else asyncio.CancelledError(event)
        self.world.note("child done", event)
        self.world.settle(event)

    async def run(self, event: Event) -> None:
        """Be one that waits."""
        self._begin(event)
        try:
            await self.part.pause()
            self._end(event)
        finally:
            self.running -= 1

    def work(self, event: Event) -> None:
        """Be one in a thread."""
        self._begin(event)
        try:
            self._end(event)
        finally:
            self.running -= 1

    def bury(self, letter: DeadLetter) -> None:
        """Take a dead letter of a child."""
        self.world.faults["dead letter"] += 1
        if not letter.deliveries <= min(self.failed[letter.event], self.retries + 1):
            text = f"{letter.deliveries} deliveries of {letter.event}, it has failed {self.failed[letter.event]} times"
            self.world.break_rule("dead letter", text)
        self.world.settle(letter.event)

    async def bury_slowly(self, letter: DeadLetter) -> None:
        """Take one, and take some time for it."""
        await self.world.sleep(0.01)
        self.bury(letter)


class Found(Slot):
    """A slot that is found by asking its supervisor."""

    def __init__(self, world: World, name: str) -> None:
        """Belong to a world."""
        super().__init__(name, None)
        self.world = world

    @property
    def living(self) -> Ref | None:
        """Its current incarnation."""
        try:
            found: Ref = self.world.running.child(self.name)
        except HeadgateError:
            return None
        return found if found.alive else None


def children(world: World, slot: Slot, source: Slot) -> ConsumerSupervisor:
    """Draw a supervisor of one child for each event."""
    draw = world.draw
    most = draw.choice((1, 2, 5, 20))
    retries = draw.choice((0, 1, 3))
    restart = draw.choice(("temporary", "transient"))
    kids = Children(world, Part(world, slot), most, retries)
    function: Callable[..., Any] = kids.run if draw.random() < 0.7 else kids.work  # noqa: PLR2004 (most)
    return ConsumerSupervisor(
        function,
        child_restart=restart,
        retries=retries,
        dead_letter=draw.choice((kids.bury, kids.bury_slowly)),
        subscribe_to=[To(source.name, max_demand=most, min_demand=draw.choice((0, most // 2)))],
        id=slot.name,
    )


# -- draining ----------------------------------------------------------------------------------------------------------


async def play_drain(world: World, app: Supervisor) -> None:
    """Run an app and drain it at a random moment; what was begun is finished, and what is finished is acknowledged.

    Raises:
        Violation: It is not.
    """
    async with System(seed=world.seed, on_error=world.reported, on_dead_letter=world.bury) as system:
        world.system = system
        await system.start(app)
        helper = world.loop.create_task(audit(world), name="audit")
        await world.sleep(0.1)
        limit = world.user.choice((0.0, 0.01, 30.0, 30.0, 30.0))
        began = world.loop.time()
        world.note("drain", limit)
        world.calm = world.user.random() < 0.5  # noqa: PLR2004 (in half of them handlers fail meanwhile)
        try:
            drained = await system.drain(timeout=limit)
        finally:
            await _settle([helper])
        world.faults["complete" if drained.complete else "deadline"] += 1
        took = world.loop.time() - began
        if took > limit + 1.0:
            raise world.break_rule("slow", f"a drain within {limit} s took {took:.3f} s")
        check_numbers(world)
        _check_drained(world, clean=list(world.faults) == ["complete"])
        with contextlib.suppress(HeadgateError):
            await system.wait()
        await system.stop()
        check_gone(world)


def _check_drained(world: World, *, clean: bool) -> None:
    for slot in world.slots:
        if slot.upstream or slot.ref is None or slot.starts > 1:
            continue
        out = slot.ref.driver.core.out
        assert out is not None  # noqa: S101 (a source)
        events = [(slot.name, number) for number in range(slot.next)]
        done = sum(world.is_done(event) for event in events)
        if out.handled > done:
            raise world.break_rule("acknowledged", f"{slot.name}: {out.handled} acknowledged, {done} done")
        done = sum(world.is_done(event) and bool(world.outputs([event])) for event in events)
        if clean and out.handled < done:
            raise world.break_rule("drained", f"{slot.name}: {done} done, only {out.handled} acknowledged")
