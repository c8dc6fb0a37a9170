"""Who chooses the next action: a seeded schedule, in two phases.

In the first phase anything may happen, faults included. In the second everything is let go and nothing fails any more:
now all that was emitted has to be handled, every finite topology has to end, and nothing may be left in flight.
"""

# ruff: noqa: SLF001 (a white-box test kit)
# pyright: reportPrivateUsage=false
from __future__ import annotations

from random import Random
from typing import Any

from headgate.protocol import messages as m
from headgate.testing.simulation import history
from headgate.testing.simulation.faults import FAULTS
from headgate.testing.simulation.oracles import Violation
from headgate.testing.simulation.scenario import Later, Middle, Slot, Source
from headgate.testing.simulation.world import Site, World

PHASE_STEPS = 600
"""Steps of the first phase, at the most."""
LIMIT = 30_000
"""A run that takes more steps than this has no end."""


class Schedule:
    """Runs a world to its end."""

    def __init__(self, world: World, seed: int) -> None:
        """Draw from a stream of its own."""
        self.world = world
        self.random = Random(seed * 4 + 3).random  # noqa: S311 (chance for tests)

    def run(self) -> None:
        """Run both phases and the checks at the end.

        Raises:
            Violation: A rule was broken.
        """
        world = self.world
        scenario = world.scenario
        budget, rate = scenario.budget if scenario.faults else 0, scenario.rate
        chance = world.chance.random
        limit = PHASE_STEPS
        while limit:
            limit -= 1
            if budget and chance() < rate:
                budget -= self._fault()
            if not self._step():
                if not budget or not self._fault():
                    break
                budget -= 1
        if scenario.before_heal is not None and limit:
            scenario.before_heal(world)
        world.heal()
        limit = LIMIT
        while self._step():
            limit -= 1
            if not limit:
                raise Violation("no-end", f"{LIMIT} steps without faults, and still going on")
        check_end(world)

    def _step(self) -> bool:
        """Carry out one action; False when there is none."""
        world = self.world
        busy, running, owing = world.busy, world.running, world.owing
        eager, flush, other = world.scenario.weights
        channels = len(busy)
        callbacks = len(running) * eager
        total = channels + callbacks + len(owing) * flush
        world.steps += 1
        x = self.random() * (total + other)
        if x < channels:
            world.deliver(busy[int(x)])
            return True
        x -= channels
        if x < callbacks:
            site = running[int(x / eager)]
            if type(site.script) in (Middle, Later) and world.user.random() < 0.15 and inner(site):  # noqa: PLR2004
                return True
            world.finish(site)
            return True
        x -= callbacks
        if owing and x < len(owing) * flush:
            world.flush(owing[int(x / flush)])
            return True
        letters = len(world.blame.unsafe)
        if letters and (not total or x < len(owing) * flush + 1):
            world.safe(int(world.user.random() * letters))
            return True
        if self._other():
            return True
        if not total:
            return False
        if busy:
            world.deliver(busy[int(self.random() * len(busy))])
        elif running:
            world.finish(running[int(self.random() * len(running))])
        else:
            world.flush(owing[0])
        return True

    def _fault(self) -> int:
        world = self.world
        kinds = world.scenario.faults
        kind = kinds[int(world.chance.random() * len(kinds))]
        if FAULTS[kind](world):
            world.faults[kind] += 1
            return 1
        return 0

    def _other(self) -> bool:
        """Do something that neither a message nor a callback leads to: repair, emit late, ask by hand, finish."""
        slots = self.world.scenario.slots
        start = int(self.random() * len(slots))
        return any(tend(self.world, slots[index - start]) for index in range(len(slots)))


def inner(site: Site) -> bool:
    """Let a middle stage emit while its handler runs."""
    if not site.script.begin(site):
        return False
    site.world.trace.append(("emit inside", site))
    site.world.after(site)
    return True


def tend(world: World, slot: Slot) -> bool:
    """Do what one slot needs from outside; False when that is nothing."""
    site = slot.site
    if site in world.hung:  # somebody watches
        world.kill(site)
        return True
    if type(slot.script) is Later and slot.script.waiting and slot.script.settle(world):
        return True
    if slot.done:
        return False
    if site.has_ended:
        return _restart(world, slot, site)
    core = site.core
    if core.state == "ending" or core._ending is not None:
        return False
    if slot.upstream:
        if _join(world, slot, site) or _ask(world, site):
            return True
        if core.out is not None and core.state == "running" and _orphaned(slot, site):
            world.trace.append(("finish", site))
            site.working = True
            core.finish()
            world.after(site)
            return True
        return False
    return _give(world, slot.script, site)


def _restart(world: World, slot: Slot, site: Site) -> bool:
    if slot.upstream:
        slot.done = all(up.done for up, _ in slot.upstream)
    else:
        slot.done = site.core._finished and (site.core._draining or not slot.script.left)
    if slot.done:
        return True
    if slot.extra and not world.healed:
        return False
    world.start(slot)
    return True


def _join(world: World, slot: Slot, site: Site) -> bool:
    """Subscribe to an upstream stage that it has no open subscription to."""
    if site.core.state == "finishing":
        return False
    windows = site.core.into.windows
    for up, terms in slot.upstream:
        target = up.site
        if up.done or target.has_ended:
            continue
        if not any(window.open and edge.producer is target for edge, window in windows.items()):
            world.subscribe(site, target, terms)
            return True
    return False


def _ask(world: World, site: Site) -> bool:
    """Ask by hand when nothing is out any more."""
    for edge, window in site.core.into.windows.items():
        later = type(site.script) is Later
        if window.manual and window.open and window.asked == (0 if later else window.handled) and edge.answers:
            count = site.script.limit if later else 1 + int(world.user.random() * 4)
            world.trace.append(("ask", site, edge, count))
            site.working = True
            site.core.ask(edge, count)
            world.after(site)
            return True
    return False


def _orphaned(slot: Slot, site: Site) -> bool:
    return all(up.done for up, _ in slot.upstream) and not any(each.open for each in site.core.into.windows.values())


def _give(world: World, script: Any, site: Site) -> bool:
    """Let a source emit what it still owes, push, or finish."""
    if type(script) is not Source:
        return False
    core = site.core
    left = script.left
    if core.state != "running":
        return False
    if not left:
        world.trace.append(("finish", site))
        site.working = True
        core.finish()
        world.after(site)
        return True
    out = core.out
    owed = min(out.requested, script.owed) if core.answers else out.requested  # it knows of what it was asked for
    x = world.user.random()
    count = 0
    if owed:
        count = 1 + int(x * min(owed, left))
        if script.over and x < script.over:
            count += 2
    elif script.push and x < script.push:
        limit = core._limit
        room = left if limit is None else limit - out.queue.size - sum(out.dispatcher.queued().values())
        count = min(1 + int(x * 100) % 4, room)
    if count <= 0:
        return False
    events = script.take(count)
    world.trace.append(("emit", site, events))
    site.working = True
    site.emit(events)
    world.after(site)
    return True


def check_end(world: World) -> None:
    """See that everything has ended, that nothing is in flight, and that the history holds.

    Raises:
        Violation: Something was left, or was lost on the way.
    """
    for slot in world.scenario.slots:
        site = slot.site
        core = site.core
        if slot.done:
            continue
        into, out = core.into, core.out
        if into is None or out is not None or site.has_ended or any(each.open for each in into.windows.values()):
            raise Violation("stall", f"{site} is left {core.state}: {describe(site)}")
    for site in world.sites:
        for edge in site.edges:
            if not edge.answers and not site.has_ended:
                raise Violation("unanswered", f"{edge} was neither accepted nor refused")
        if site.infos and not site.has_ended:
            raise Violation("info-lost", f"{site} never got {site.infos[0][0]}")
    missing = world.calls - len(world.answered)
    if missing:
        raise Violation("call-lost", f"{missing} of {world.calls} calls were never answered")
    history.check(world)
    if world.scenario.at_end is not None:
        world.scenario.at_end(world)


def describe(site: Site) -> str:
    """Show the numbers of a stage, for a failure."""
    core = site.core
    parts = [f"callback {core.callback}"]
    if core.out is not None:
        out = core.out
        parts.append(
            f"wanted {out.dispatcher.wanted}, requested {out.requested}, buffered {out.queue.size}, "
            f"queued {out.dispatcher.queued()}, in flight {out.in_flight()}, accumulating {out.accumulating}"
        )
        parts += [
            f"{edge}: asked {each.asked} sent {each.sent} acked {each.acked}" for edge, each in out.subscribers.items()
        ]
        parts += [f"closing {edge}: sent {each.sent} acked {each.acked}" for edge, each in out.closing.items()]
    if core.into is not None:
        parts.append(f"work {list(core.into.work)} at {core.into.at}")
        parts += [
            f"{edge}: asked {each.asked} received {each.received} handled {each.handled} "
            f"acked {each.acked} open {each.open}"
            for edge, each in core.into.windows.items()
        ]
    return "; ".join(parts)


__all__ = ["Schedule", "check_end", "describe", "m", "tend"]
