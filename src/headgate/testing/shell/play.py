"""What goes on around the stages: those that start them again, those that disturb them, and the checks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from headgate import HeadgateError, Ref, StageCrashed, SubscriptionError, System
from headgate.testing.shell.world import LIVENESS, Boom, Slot, Violation, World

Fault = Callable[[World, Ref, Slot], Coroutine[Any, Any, None]]

SOON = 30.0
"""Virtual seconds within which a pipeline without a supervisor, which may wait long before a restart, is done."""
CALM = 0.2
"""Virtual seconds after which there are no more faults."""
PROMPT = 0.1
"""Virtual seconds that something may take which waits for nobody."""
WAYS = ("leave", "raise in the block", "stop", "stop twice", "stop each", "kill", "hurry", "wait")
"""How a system comes to its end."""
EDGES = ("asked", "sent", "acked")


# -- keeping the stages alive ------------------------------------------------------------------------------------------


async def keep(world: World, slot: Slot) -> None:
    """Start a stage, and start it again whenever it ends while there is still something to come for it."""
    while not world.closing:
        slot.starts += 1
        try:
            slot.ref = await world.system.start(slot.child(world))
        except HeadgateError as error:
            world.note("no start", slot.name, type(error).__name__)
            if world.patient and slot.next >= world.given.get(slot.name, slot.next + 1):
                slot.gone = True  # it broke at its end before anybody heard that it had started
            if slot.refused == slot.starts and not isinstance(error, StageCrashed):
                raise world.break_rule("start", f"{slot.name} raised in `started`, got {error!r}") from error
        else:
            world.note("start", slot.name, slot.ref.name)
            try:
                await slot.ref.wait()
            except StageCrashed as error:
                world.note("crashed", slot.name, type(error.reason).__name__)
                check_cause(world, error)
            else:
                world.note("ended", slot.name)
        if slot.over(world):
            world.note("over", slot.name)
            return
        await world.sleep(0.01)


def check_cause(world: World, error: StageCrashed) -> None:
    """Check that a stage has crashed of something that was done to it.

    Raises:
        Violation: It has not.
    """
    cause: Any = error
    while isinstance(cause, StageCrashed):
        cause = cause.reason
    if isinstance(cause, asyncio.CancelledError):
        known = world.faults["cancelled"] + world.faults["cancel task"] > 0
    else:
        known = isinstance(cause, (Boom, SubscriptionError, str))
    if not known:
        raise world.break_rule("cause", f"{error} ({cause!r}), and nothing of the kind was done to it")


async def mend(world: World) -> None:
    """Subscribe those that have lost a producer: their cancel mode lets them live on without."""
    while True:
        await asyncio.sleep(0.02)
        for slot in world.slots:
            for up, options in slot.upstream:
                ref, above = slot.living, up.living
                if ref is None or above is None or _is_subscribed(ref, above):
                    continue
                if ref.driver.core.state != "running" or above.driver.core.state not in ("running", "finishing"):
                    continue
                world.note("mend", slot.name, up.name)
                with contextlib.suppress(HeadgateError):
                    await ref.subscribe(slot.to(up, options))


def _is_subscribed(ref: Ref, above: Ref) -> bool:
    into = ref.driver.core.into
    return into is None or any(each.open and each.producer is above for each in into.windows.values())


# -- disturbing them ---------------------------------------------------------------------------------------------------


async def disturb(world: World, faults: Mapping[str, Fault]) -> None:
    """Hit stages at random moments, until the budget is used up."""
    while not world.calm:
        await world.sleep(0.02)
        kinds = [kind for kind in world.kinds if kind in faults]
        if world.calm or world.budget <= 0 or not kinds:
            return
        slots = [slot for slot in world.slots if slot.living is not None and slot.crashes]
        if not slots:
            continue
        kind = kinds[int(world.chance.random() * len(kinds))]
        slot = slots[int(world.chance.random() * len(slots))]
        ref = slot.living
        assert ref is not None  # noqa: S101 (just chosen for it)
        await faults[kind](world, ref, slot)


async def kill(world: World, ref: Ref, slot: Slot) -> None:
    """Kill a stage."""
    world.count("kill")
    world.note("kill", slot.name)
    ref.kill()


async def stop(world: World, ref: Ref, slot: Slot) -> None:
    """Stop a stage, for a normal reason or another."""
    world.count("stop")
    world.note("stop", slot.name)
    await ref.stop(world.chance.choice(("normal", "shutdown", "on purpose")))


async def hurry(world: World, ref: Ref, slot: Slot) -> None:
    """Stop a stage that is killed if it does not end at once."""
    world.count("hurry")
    world.note("hurry", slot.name)
    await _hurried(world, ref, world.chance.choice((0.0, 0.0005, 0.002)))


async def _hurried(world: World, ref: Ref, limit: float) -> None:
    began = world.loop.time()
    await ref.stop(timeout=limit)
    if world.loop.time() - began > limit + PROMPT:
        raise world.break_rule("slow", f"stopping {ref.name} within {limit} s took {world.loop.time() - began:.3f} s")


async def cancel(world: World, ref: Ref, slot: Slot) -> None:
    """Let a consumer leave a producer; it is subscribed again later."""
    into = ref.driver.core.into
    windows = [] if into is None else [each for each in into.windows.values() if each.open]
    if windows:
        world.count("cancel")
        window = windows[int(world.chance.random() * len(windows))]
        world.note("cancel", slot.name, window.subscription.id)
        ref.cancel(window.subscription)


async def expel(world: World, ref: Ref, slot: Slot) -> None:
    """Let a producer end a subscription."""
    out = ref.driver.core.out
    if out is not None and out.subscribers:
        world.count("expel")
        subscriptions = list(out.subscribers)
        subscription = subscriptions[int(world.chance.random() * len(subscriptions))]
        world.note("expel", slot.name, subscription.id)
        ref.cancel(subscription, world.chance.choice(("normal", "expelled")))


async def move(world: World, ref: Ref, slot: Slot) -> None:
    """Let a consumer cancel and subscribe anew at one go."""
    into = ref.driver.core.into
    pairs = [
        (window, up, options)
        for window in ([] if into is None else into.windows.values())
        for up, options in slot.upstream
        if window.open and up.living is window.producer
    ]
    if pairs:
        world.count("move")
        window, up, options = pairs[int(world.chance.random() * len(pairs))]
        world.note("move", slot.name, window.subscription.id)
        with contextlib.suppress(HeadgateError):
            await ref.resubscribe(window.subscription, slot.to(up, options))


async def cancel_task(world: World, ref: Ref, slot: Slot) -> None:
    """Cancel a stage's own task from outside, as a framework that winds up does."""
    task = getattr(ref.driver, "_task", None)
    if task is not None:
        world.count("cancel task")
        world.note("cancel task", slot.name)
        ref.driver.instance.excused = True
        task.cancel()


async def hold(world: World, ref: Ref, slot: Slot) -> None:
    """Hold a stage's demand for a while."""
    if ref.driver.core.out is not None and ref.demand == "forward":
        world.count("hold")
        world.note("hold", slot.name)
        ref.set_demand("accumulate")
        try:
            await world.sleep(0.02)
        finally:
            ref.set_demand("forward")


FAULTS: dict[str, Fault] = {
    "kill": kill,
    "stop": stop,
    "hurry": hurry,
    "cancel": cancel,
    "expel": expel,
    "move": move,
    "cancel task": cancel_task,
    "hold": hold,
}


# -- checking ----------------------------------------------------------------------------------------------------------


async def audit(world: World, most: float = 0.04) -> None:
    """Read everybody's numbers at random moments: they have to be true at every one."""
    while True:
        await world.sleep(most)
        check_numbers(world)


def check_numbers(world: World) -> None:
    """Check that the statistics of every stage add up, and that nothing is acknowledged that is not done.

    Raises:
        Violation: They do not.
    """
    for ref in world.system.stages():
        check_conservation(world, ref)
    for slot in world.slots:
        if slot.name in world.given and slot.ref is not None and slot.starts == 1:
            handled, complete = slot.ref.statistics().handled, world.complete[slot.name]
            if handled > complete:
                raise world.break_rule(
                    "acknowledged", f"{slot.name}: {handled} acknowledged, {complete} done, of {world.given[slot.name]}"
                )


def check_conservation(world: World, ref: Ref) -> None:
    """Check that what a stage emitted is handled, in flight, waiting or discarded."""
    seen, out = ref.statistics(), ref.driver.core.out
    if out is not None:
        waits = seen.buffered + sum(seen.queued.values())
        discarded = sum(seen.discarded.values())
        if seen.emitted != out.handled + seen.in_flight + waits + discarded:
            raise world.break_rule("conservation", f"{seen}")
    for edge in seen.producers:
        if not 0 <= edge.acked <= edge.sent <= edge.asked:
            raise world.break_rule("conservation", f"{seen.name} as a consumer: {edge}")
    for edge in seen.consumers:
        if not 0 <= edge.acked <= edge.sent <= edge.asked:
            raise world.break_rule("conservation", f"{seen.name} as a producer: {edge}")


async def quiet(world: World) -> None:
    """Wait until nobody is at work any more: copies of what is done may still be under way."""
    await asyncio.sleep(0.1)
    drivers = world.system.node.drivers.values()
    for _ in range(100):
        if not any(each.inbox or each.core.callback or (each.core.into and each.core.into.work) for each in drivers):
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.01)


def check_edges(world: World) -> None:
    """Check that both ends of every subscription say the same, now that nothing is under way.

    Raises:
        Violation: They do not.
    """
    for ref in world.system.stages():
        into = ref.driver.core.into
        for subscription, window in () if into is None else into.windows.items():
            above = subscription.producer.driver.core.out if isinstance(subscription.producer, Ref) else None
            record = None if above is None else above.subscribers.get(subscription)
            mine = (window.asked, window.received, window.acked)
            theirs = None if record is None else (record.asked, record.sent, record.acked)
            if window.open and mine != theirs:
                raise world.break_rule("edge", f"{subscription!r}: consumer {mine}, producer {theirs} {EDGES}")


def check_nobody_waits(world: World, refs: list[Ref]) -> None:
    """Check that no stage, living or not, has somebody hanging on it."""
    for ref in refs:
        driver = ref.driver
        if driver.calls:
            raise world.break_rule("hanging", f"{driver.name} still owes {len(driver.calls)} answers")
        waiting = [future for future in driver.__dict__.get("_subscribing", {}).values() if not future.done()]
        if waiting:
            raise world.break_rule("hanging", f"{driver.name} has {len(waiting)} subscriptions that nobody answered")


def check_outcome(world: World) -> None:
    """Check that nothing is lost."""
    lost = world.lost()
    if lost:
        raise world.break_rule("lost", f"{len(lost)} of {sum(world.given.values())} events, first {lost[:5]}")


# -- one pipeline from its start to its end ----------------------------------------------------------------------------


async def play(
    world: World,
    *,
    faults: Mapping[str, Fault] | None = None,
    clients: list[Callable[[World], Awaitable[None]]] | None = None,
) -> None:
    """Run the slots until everything is done, disturbed by faults and clients for a while; then check.

    Args:
        world: The run.
        faults: What may hit stages from outside. Default: all of `FAULTS`.
        clients: Those who talk to the system from outside.

    Raises:
        Violation: A rule is broken.
    """
    async with System(seed=world.seed, on_error=world.reported, on_dead_letter=world.bury) as system:
        world.system = system
        spawn = world.loop.create_task
        keepers = [spawn(keep(world, slot), name=f"keep {slot.name}") for slot in world.slots]
        helpers = [spawn(mend(world), name="mend"), spawn(audit(world), name="audit")]
        others = [spawn(disturb(world, FAULTS if faults is None else faults), name="disturb")]
        others += [spawn(_client(world, client), name=f"client {n}") for n, client in enumerate(clients or ())]
        calming = world.loop.call_later(CALM, _calm, world)
        try:
            async with asyncio.timeout(SOON):
                await _all_done([k for k, s in zip(keepers, world.slots, strict=True) if not s.upstream], helpers)
                world.calm = True
                await asyncio.gather(*others)
                for _ in range(50 if world.patient else 0):
                    if not world.lost():
                        break
                    await asyncio.sleep(0.1)
                check_outcome(world)
                await quiet(world)
                strangers = [ref.name for ref in system.stages() if all(ref is not slot.ref for slot in world.slots)]
                if strangers:
                    raise world.break_rule("left behind", f"{strangers} live on though whoever started them has left")
                check_numbers(world)
                check_edges(world)
                check_nobody_waits(world, system.stages())
                world.closing = True
                await system.stop()
                guests = [crash for crash in system.node.unseen() if getattr(crash, "stage", "").startswith("x-")]
                system.node.observed.extend(guests)  # whoever wanted to start them was cut short
                await asyncio.gather(*keepers)
        except TimeoutError:
            raise world.break_rule("stalled", explain(world)) from None
        finally:
            calming.cancel()
            await _cancel([*keepers, *helpers, *others])


async def play_stop(world: World) -> None:
    """Run the slots and end the system at a random moment, in one of many ways; then check.

    Raises:
        Violation: A rule is broken.
    """
    world.loop.call_later(CALM, _calm, world)
    task = world.loop.create_task(_until_stopped(world), name="until stopped")
    if world.user.random() < 0.3:  # noqa: PLR2004 (some)
        world.loop.call_later(world.user.random() * 0.1, task.cancel)
        if world.user.random() < 0.3:  # noqa: PLR2004 (some of these)
            world.loop.call_later(world.user.random() * 0.1, task.cancel)
    done, _ = await asyncio.wait([task], timeout=LIVENESS)
    if not done:
        raise world.break_rule("stalled", explain(world))
    if not task.cancelled():
        error = task.exception()
        if isinstance(error, Violation):
            raise error
    while world.system.node.drivers:  # a second cancellation leaves it to the stages to end by themselves
        await asyncio.sleep(1.0)
        if world.loop.time() > LIVENESS:
            raise world.break_rule("left behind", explain(world))
    for slot in world.slots:
        if slot.ref is not None:
            check_conservation(world, slot.ref)
            check_nobody_waits(world, [slot.ref])


async def _until_stopped(world: World) -> None:
    async with System(seed=world.seed, on_error=world.reported, on_dead_letter=world.bury) as system:
        world.system = system
        for slot in world.slots:
            slot.starts += 1
            slot.ref = await system.start(slot.child(world))
        helper = world.loop.create_task(audit(world), name="audit")
        try:
            await world.sleep(0.1)
            await _end(world, system)
        finally:
            helper.cancel()


async def _end(world: World, system: System) -> None:
    way = world.user.choice(WAYS)
    world.note("end", way)
    world.faults[way] += 1
    refs = system.stages()
    if way == "raise in the block":
        raise Boom("the block")
    if way == "stop":
        await system.stop()
    elif way == "stop twice":
        await asyncio.gather(system.stop(), system.stop("on purpose"))
    elif way == "stop each":
        await asyncio.gather(*(ref.stop() for ref in refs))
    elif way == "hurry":
        await asyncio.gather(*(_hurried(world, ref, world.user.random() * 0.01) for ref in refs))
    elif way == "kill":
        for ref in refs:
            ref.kill()
    elif way == "wait":
        async with asyncio.timeout(20.0):
            await system.wait()


async def _client(world: World, client: Callable[[World], Awaitable[None]]) -> None:
    await client(world)


def _calm(world: World) -> None:
    world.calm = True
    world.note("calm")


async def _all_done(tasks: list[asyncio.Task[None]], helpers: list[asyncio.Task[None]]) -> None:
    """Wait for all of the tasks; raise what a helper raises."""
    waiting: set[asyncio.Task[None]] = set(tasks)
    while waiting:
        done, _ = await asyncio.wait([*waiting, *helpers], return_when=asyncio.FIRST_COMPLETED)
        for task in [*tasks, *helpers]:
            if task in done:
                task.result()
        waiting -= done


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError, Violation):
            await task


def check_end(world: World) -> None:
    """Check after the system's end that it holds nothing any more."""
    node = world.system.node
    if node.drivers or node.names or node.ready or node.owing:
        raise world.break_rule(
            "left behind", f"{list(node.names)} {len(node.drivers)} stages {list(node.ready)} {node.owing}"
        )


def explain(world: World) -> str:
    """Say how things stand."""
    lines = [f"not done after {world.loop.time():.0f} s; {len(world.lost())} events to go"]
    lines += [f"  {ref.driver.core.callback} {ref.statistics()}" for ref in world.system.stages()]
    lines += [f"  {slot.name}: over {slot.over(world)}, starts {slot.starts}, {slot.ref}" for slot in world.slots]
    return "\n".join(lines)
