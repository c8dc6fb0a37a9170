"""What can go wrong, and what users do from outside. A fault returns whether it happened.

Each one draws from the world's own stream for faults, which has nothing to do with the one that orders messages.
"""

# ruff: noqa: SLF001 (a white-box test kit)
# pyright: reportPrivateUsage=false
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headgate.errors import Stop
from headgate.protocol import messages as m
from headgate.protocol.dispatch.partition import PartitionDispatcher

if TYPE_CHECKING:
    from headgate.testing.simulation.world import Edge, Site, World


class Crash(Exception):  # noqa: N818 (what a handler raises in the simulation)
    """What a handler raises when the schedule says so."""


def _one(world: World, items: list[Any]) -> Any:
    return items[int(world.chance.random() * len(items))] if items else None


def _living(world: World, *, crashes: bool = False) -> list[Site]:
    return [slot.site for slot in world.scenario.slots if not slot.site.has_ended and (slot.crashes or not crashes)]


def _edges(world: World) -> list[Edge]:
    """Return the subscriptions that are open at their consumer."""
    return [
        edge
        for site in _living(world)
        if site.core.into is not None and site.core.state == "running"
        for edge, window in site.core.into.windows.items()
        if window.open
    ]


def crash(world: World) -> bool:
    """A handler raises."""
    site = _one(world, [site for site in world.running if site.slot.crashes])
    if site is None:
        return False
    world.fail(site, Crash("boom"))
    return True


def stop_signal(world: World) -> bool:
    """A consumer's handler raises `Stop`: what it had counts as handled."""
    sites = [each for each in world.running if each.slot.crashes and each.core.role == m.CONSUMER]
    site = _one(world, [each for each in sites if each.callback[0] != m.HANDLE_EVENTS])
    if site is None:
        return False
    world.fail(site, Stop("enough"))
    return True


def kill(world: World) -> bool:
    """A stage is killed: at some time, or right now in the middle of a callback."""
    if world.chance.random() < 0.5:  # noqa: PLR2004 (half of them)
        site = _one(world, [site for site in world.running if site.slot.crashes])
        if site is not None:
            world.kill(site)
            return True
    site = _one(world, _living(world, crashes=True))
    if site is None:
        return False
    world.post(site, (m.KILL, "killed"))
    return True


def kill_gently(world: World) -> bool:
    """A stage is killed in the middle of a callback, for a normal reason: nobody is to blame."""
    site = _one(world, [site for site in world.running if site.slot.crashes])
    if site is None:
        return False
    world.kill(site, _one(world, ["normal", "shutdown"]))
    return True


def stop(world: World) -> bool:
    """A stage is stopped after its callback."""
    site = _one(world, _living(world, crashes=True))
    if site is None:
        return False
    world.post(site, (m.STOP, _one(world, ["normal", "shutdown", "oops"])))
    return True


def cancel(world: World) -> bool:
    """A consumer leaves a subscription and lives on."""
    edge = _one(world, _edges(world))
    if edge is None:
        return False
    site: Site = edge.consumer
    world.trace.append(("cancel", site, edge))
    site.working = True
    site.core.cancel(edge, "normal")
    world.after(site)
    return True


def expel(world: World) -> bool:
    """A producer ends a subscription and lives on."""
    sites = [each for each in _living(world) if each.core.out is not None and each.core.state == "running"]
    site = _one(world, [each for each in sites if each.core.out.subscribers])
    if site is None:
        return False
    edge = _one(world, list(site.core.out.subscribers))
    _expels(site)
    world.trace.append(("expel", site, edge))
    site.working = True
    site.core.cancel(edge, _one(world, ["normal", "oops"]))
    world.after(site)
    return True


def _expels(site: Site) -> None:
    """A partition's events come back out of order when the successor has left before the one that was expelled."""
    if type(site.core.out.dispatcher) is PartitionDispatcher:
        site.orderly = False


def both(world: World) -> bool:
    """Both ends of a subscription end it at the same time."""
    open_at_both = [
        edge
        for edge in _edges(world)
        if edge.producer.core.out is not None
        and edge in edge.producer.core.out.subscribers
        and not edge.producer.has_ended
    ]
    edge = _one(world, open_at_both)
    if edge is None:
        return False
    world.trace.append(("both", edge))
    _expels(edge.producer)
    edge.producer.working = True
    edge.producer.core.cancel(edge, "normal")
    world.after(edge.producer)
    edge.consumer.working = True
    edge.consumer.core.cancel(edge, "normal")
    world.after(edge.consumer)
    return True


def resubscribe(world: World) -> bool:
    """A consumer leaves and comes back at one go."""
    edge = _one(world, _edges(world))
    if edge is None or edge.producer.has_ended:
        return False
    site: Site = edge.consumer
    world.trace.append(("resubscribe", site, edge))
    site.working = True
    site.core.cancel(edge, "normal")
    world.after(site)
    world.subscribe(site, edge.producer, edge.terms)
    return True


def again(world: World) -> bool:
    """A consumer subscribes a second time to a producer that it has."""
    edge = _one(world, _edges(world))
    if edge is None or edge.producer.has_ended:
        return False
    world.subscribe(edge.consumer, edge.producer, edge.terms._replace(manual=False))
    return True


def join(world: World) -> bool:
    """A consumer joins that was not there at the start."""
    slots = [slot for slot in world.scenario.slots if slot.extra and slot.site.has_ended]
    slot = _one(world, slots)
    if slot is None or slot.done:
        return False
    world.start(slot)
    return True


def hold(world: World) -> bool:
    """A stage holds demand and events, or lets them go."""
    site = _one(world, [each for each in _living(world) if each.core.out is not None and each.core.state == "running"])
    if site is None:
        return False
    mode = "forward" if site.core.out.accumulating else "accumulate"
    world.trace.append((mode, site))
    site.working = True
    site.core.set_demand(mode)
    world.after(site)
    return True


def pause(world: World) -> bool:
    """A stage is paused, or goes on."""
    site = _one(world, [each for each in _living(world) if each.core.state in ("starting", "running", "finishing")])
    if site is None:
        return False
    world.pause(site, on=not site.core.paused)
    return True


def drain(world: World) -> bool:
    """A stage is drained."""
    sites = [each for each in _living(world) if each.core.state in ("starting", "running", "finishing")]
    site = _one(world, [each for each in sites if not each.core._draining])
    if site is None:
        return False
    _drain(world, site)
    return True


def drain_all(world: World) -> bool:
    """Everything that gives events to others is drained at once."""
    sites = [each for each in _living(world) if each.core.out is not None and not each.core._draining]
    for site in sites:
        if not site.has_ended:
            _drain(world, site)
    return bool(sites)


def _drain(world: World, site: Site) -> None:
    world.trace.append(("drain", site))
    site.working = True
    site.core.drain("shutdown")
    world.after(site)


def info(world: World) -> bool:
    """A stage gets one or two infos, to be handled after what is buffered."""
    site = _one(world, _living(world))
    if site is None:
        return False
    for _ in range(1 + int(world.chance.random() * 2)):
        world.calls += 1
        world.answered[world.calls] += 1
        world.post(site, (m.INFO, ("info", world.calls)))
    return True


def call(world: World) -> bool:
    """A stage is called."""
    site = _one(world, _living(world))
    if site is None:
        return False
    world.calls += 1
    world.post(site, (m.CALL, "how are you?", world.calls))
    return True


def hang_up(world: World) -> bool:
    """A stage is killed while it handles a call."""
    sites = [each for each in _living(world, crashes=True) if each.callback is None and each.core.state == "running"]
    site = _one(world, [each for each in sites if m.HANDLE_CALL in each.slot.defined])
    if site is None:
        return False
    world.calls += 1
    site.working = True
    site.core.receive((m.CALL, "are you there?", world.calls))
    world.after(site)
    world.kill(site)
    return True


def cast(world: World) -> bool:
    """A stage gets a cast."""
    site = _one(world, _living(world))
    if site is None:
        return False
    world.post(site, (m.CAST, "hello"))
    return True


def stale(world: World) -> bool:
    """An ask of a subscription that has ended comes again."""
    edges = [edge for site in world.sites for edge in site.edges if edge.asked and edge.producer.core.out is not None]
    edge = _one(world, [each for each in edges if each not in each.producer.core.out.subscribers])
    if edge is None:
        return False
    world.post(edge.producer, (m.ASK, _Stale(edge), edge.asked + 5, edge.acked))
    return True


def missing(world: World) -> bool:
    """A consumer subscribes to a stage that has ended."""
    gone = _one(world, [site for site in world.sites if site.has_ended])
    site = _one(world, [each for each in _living(world) if each.core.into is not None and each.core.state == "running"])
    if gone is None or site is None:
        return False
    world.subscribe(site, gone, m.Terms(4, 2, "temporary"))
    return True


class _Stale(m.Subscription):
    """A name of an edge that nobody knows any more; asks of it are not counted."""

    __slots__ = ("asks",)

    def __init__(self, edge: Edge) -> None:
        super().__init__(-1, edge.producer, edge.consumer, edge.terms)
        self.asks = 0


FAULTS: dict[str, Callable[[Any], bool]] = {
    each.__name__: each
    for each in (
        crash,
        stop_signal,
        kill,
        kill_gently,
        stop,
        cancel,
        expel,
        both,
        resubscribe,
        again,
        join,
        hold,
        pause,
        drain,
        drain_all,
        info,
        call,
        hang_up,
        cast,
        stale,
        missing,
    )
}
