"""Exhaustive search: every order in which the actions of a small world can happen, and one fault at any point.

A world without chance (a source answers in full, a handler returns what it must) is a graph: its states, and an edge
for each enabled action. The search visits every state once, by cloning worlds (`pickle`) and comparing fingerprints.
The oracles look after every step; in every state where nothing moves, everything that was emitted has to be handled.
"""

# ruff: noqa: SLF001 (a white-box test kit)
# pyright: reportPrivateUsage=false
from __future__ import annotations

import io
import itertools
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from headgate.protocol import messages as m
from headgate.protocol.dispatch.base import Dispatcher
from headgate.protocol.dispatch.broadcast import BroadcastDispatcher
from headgate.protocol.dispatch.demand import DemandDispatcher
from headgate.protocol.dispatch.partition import PartitionDispatcher
from headgate.protocol.ledger import Origin, Suspect
from headgate.protocol.messages import Terms
from headgate.testing.simulation import faults
from headgate.testing.simulation.delivery import three
from headgate.testing.simulation.draw import nothing, one_to_one
from headgate.testing.simulation.oracles import Violation
from headgate.testing.simulation.scenario import Middle, Scenario, Sink, Slot, Source, Transform
from headgate.testing.simulation.schedule import check_end, tend
from headgate.testing.simulation.world import World

STATES = 250_000
"""All configurations together have at least so many; fewer would mean that the search has become blind to something."""
WINDOWS = ((1, 0), (2, 0), (2, 1), (3, 1))
"""(max_demand, min_demand) of every consumer."""


def _partition() -> Dispatcher:
    return PartitionDispatcher(2, hash=_parity, queue_size=2)


def _parity(event: Any) -> Any:
    return None if event[1] == 2 else event[1] % 2  # noqa: PLR2004 (the third event goes nowhere)


def _dropped(event: Any) -> bool:
    return _parity(event) is None


DISPATCHERS: dict[str, Callable[[], Dispatcher]] = {
    "demand": DemandDispatcher,
    "broadcast": BroadcastDispatcher,
    "partition": _partition,
}


THROUGH: dict[int, Transform] = {0: nothing, 1: one_to_one, 3: three}


@dataclass(frozen=True)
class Case:
    """One small configuration.

    Attributes:
        dispatcher: Key of `DISPATCHERS`.
        producers: How many.
        consumers: How many.
        events: How many events each producer has.
        window: (max_demand, min_demand).
        through: With a middle stage between: how many it gives for one event (key of `THROUGH`), and its own window.
        fault: ``"none"``, ``"crash"``, ``"cancel"`` or ``"expel"``; it happens at most once, anywhere.
    """

    dispatcher: str
    producers: int
    consumers: int
    events: int
    window: tuple[int, int]
    fault: str
    through: tuple[int, tuple[int, int]] | None = None

    def __str__(self) -> str:
        """Name it in one word."""
        most, least = self.window
        name = f"{self.dispatcher}-{self.producers}x{self.consumers}-{self.events}events-{most},{least}-{self.fault}"
        if self.through is None:
            return name
        outputs, (most, least) = self.through
        return f"{name}-below-{most},{least}x{outputs}"


@dataclass
class Found:
    """The outcome of one search.

    Attributes:
        states: How many there are.
        ends: In how many of them nothing moves any more.
        whole: False when the search was given up at its limit.
        failure: What broke first, with the actions that lead to it; or None.
    """

    case: Case
    states: int = 0
    ends: int = 0
    whole: bool = True
    failure: str | None = None


def cases(*, small: bool = False) -> list[Case]:
    """Return the configurations: all of them, or the few that take about a second together."""
    found: list[Case] = []
    kinds = ("none", "crash", "cancel", "expel")
    for dispatcher, window, fault in itertools.product(DISPATCHERS, WINDOWS, kinds):
        for producers, consumers, events in ((1, 1, 3), (1, 2, 2), (1, 2, 3), (2, 1, 1), (2, 2, 1)):
            if dispatcher == "partition" and consumers == 1:
                continue
            if small and (producers * consumers > 2 or events > 2 or window not in ((1, 0), (2, 1))):  # noqa: PLR2004
                continue
            usual = window in ((1, 0), (2, 1))
            if (producers, consumers) == (2, 2) and not (
                window == (2, 1) and fault == "none" and dispatcher != "broadcast"
            ):
                continue  # too many states for the budget
            if (producers, consumers, fault) == (2, 1, "expel") and not usual and dispatcher == "broadcast":
                continue  # with one consumer it is the demand dispatcher's
            if (producers, consumers, events) == (1, 2, 2) and not usual and not small:
                continue  # the same with three events is there
            found.append(Case(dispatcher, producers, consumers, events, window, fault))
    return found + _chains(small=small)


def _chains(*, small: bool) -> list[Case]:
    """Return the configurations with a middle stage: any window above any other, none, one or three events for one."""
    found: list[Case] = []
    some = ((1, 0), (2, 1), (3, 1))
    for above, below, outputs in itertools.product(some, some, THROUGH):
        if small and (above, below, outputs) != ((1, 0), (2, 1), 1):
            continue
        found.append(Case("demand", 1, 1, 2 if outputs > 1 else 3, below, "none", (outputs, above)))
        if (above, below, outputs) in (((2, 1), (1, 0), 0), ((1, 0), (2, 1), 1)):
            found.append(Case("demand", 1, 1, 2, below, "crash", (outputs, above)))
    return found


def make(case: Case) -> World:
    """Build the world of a configuration."""
    most, least = case.window
    sources = [
        Slot(f"p{number}", m.PRODUCER, Source(f"p{number}", case.events), DISPATCHERS[case.dispatcher], crashes=False)
        for number in range(case.producers)
    ]
    for source in sources:
        source.options["max_deliveries"] = 2
    transforms: list[Transform] = []
    heads = sources
    if case.through is not None:
        outputs, above = case.through
        transforms.append(THROUGH[outputs])
        upstream = [(source, Terms(*above)) for source in sources]
        heads = [Slot("m", m.PRODUCER_CONSUMER, Middle(THROUGH[outputs]), DISPATCHERS["demand"], upstream=upstream)]
        heads[0].factor = outputs
    sinks = [
        Slot(
            f"c{number}",
            m.CONSUMER,
            Sink(),
            upstream=[(head, Terms(most, least, partition=number)) for head in heads],
        )
        for number in range(case.consumers)
    ]
    copies = case.dispatcher == "broadcast"
    for source in sources:
        source.copies = copies
        source.steady = copies
    drops = _dropped if case.dispatcher == "partition" else None
    middles = heads if case.through is not None else []
    scenario = Scenario([*sources, *middles, *sinks], transforms, copies=copies, drops=drops)
    world = World(scenario, 0, tail=0)
    world.user = world.chance = NoChance()  # type: ignore[assignment]  # small, where worlds are copied
    world.faults["left"] = 0 if case.fault == "none" else 1
    return world


def actions(world: World, case: Case) -> list[tuple[Any, ...]]:
    """Return what can happen next.

    A message that changes nothing for anybody else (a confirmation, or what comes too late for a stage that has ended)
    is not tried in every order: it comes at once.
    """
    for index, channel in enumerate(world.busy):
        tag = channel.messages[0][0]
        if tag == m.SUBSCRIBED or (channel.receiver.has_ended and tag != m.SUBSCRIBE):
            return [("deliver", index)]
    found: list[tuple[Any, ...]] = [("deliver", index) for index in range(len(world.busy))]
    found += [("finish", index) for index in range(len(world.running))]
    found += [("flush", index) for index in range(len(world.owing))]
    if world.faults["left"]:
        if case.fault == "crash":
            found += [("crash", index) for index, site in enumerate(world.running) if site.slot.crashes]
        elif case.fault == "cancel":
            found += [("cancel", index) for index in range(len(faults._edges(world)))]
        elif case.fault == "expel":
            found += [("expel", index) for index in range(len(_subscribed(world)))]
    if not world.busy and not world.running and not world.owing:
        found += [("tend", index) for index in range(len(world.scenario.slots))]
    return found


def _subscribed(world: World) -> list[Any]:
    return [
        (site, edge)
        for site in world.sites
        if not site.has_ended and site.core.out is not None and site.core.state == "running"
        for edge in site.core.out.subscribers
    ]


def act(world: World, action: tuple[Any, ...]) -> bool:
    """Carry out one action; False when it turns out that there was nothing to do."""
    kind, index = action
    if kind == "deliver":
        world.deliver(world.busy[index])
    elif kind == "finish":
        world.finish(world.running[index])
    elif kind == "flush":
        world.flush(world.owing[index])
    elif kind == "tend":
        return tend(world, world.scenario.slots[index])
    else:
        world.faults["left"] = 0
        if kind == "crash":
            world.fail(world.running[index], faults.Crash("boom"))
        else:
            site, edge = _subscribed(world)[index] if kind == "expel" else (None, faults._edges(world)[index])
            site = site or edge.consumer
            site.working = True
            site.core.cancel(edge, "normal")
            world.after(site)
    return True


def search(case: Case, limit: int = 200_000) -> Found:
    """Visit every state of a configuration, depth first.

    Args:
        case: The configuration.
        limit: Give up after so many states.
    """
    found = Found(case)
    world = make(case)
    seen = {fingerprint(world)}
    stack: list[tuple[World, tuple[tuple[Any, ...], ...]]] = [(world, ())]
    while stack:
        live, path = stack.pop()
        left = actions(live, case)
        frozen = _freeze(live) if len(left) > 1 else b""
        moved = False
        for number, action in enumerate(left, 1):
            world = live if number == len(left) else _thaw(frozen)
            try:
                if not act(world, action):
                    continue
                moved = True
                mark = fingerprint(world)
            except Exception as error:  # noqa: BLE001 (whatever the protocol raises is a finding)
                found.failure = f"{case}: {type(error).__name__}: {error}\n{retrace(case, (*path, action))}"
                return found
            if mark not in seen:
                seen.add(mark)
                found.states += 1
                stack.append((world, (*path, action)))
        if not moved:
            found.ends += 1
            try:
                check_end(live)
            except Violation as error:
                found.failure = f"{case}: {error}\n{retrace(case, path)}"
                return found
        if found.states >= limit:
            found.whole = False
            return found
    return found


def retrace(case: Case, path: Iterable[tuple[Any, ...]]) -> str:
    """Show what happened on the way to a failure."""
    world = make(case)
    world.trace = type(world.trace)(maxlen=1000)
    try:
        for action in path:
            act(world, action)
    except Exception:  # noqa: BLE001, S110 (it is known)
        pass
    return "\n".join(f"  {' '.join(map(str, action))}" for action in world.trace)


class NoChance:
    """Stands in for a random generator: the user's handlers do what is usual."""

    def random(self) -> float:
        """Return the same every time."""
        return 0.999


def _thaw(frozen: bytes) -> World:
    world: World = pickle.loads(frozen)  # noqa: S301 (our own, made here)
    for site in world.sites:  # names of callbacks are compared by identity in the fast lane
        callback = site.core.callback
        if callback is not None:
            site.callback = site.core.callback = (sys.intern(callback[0]), callback[1])
    return world


def _freeze(world: World) -> bytes:
    buffer = io.BytesIO()
    pickle.Pickler(buffer, protocol=5).dump(world)
    return buffer.getvalue()


def fingerprint(world: World) -> int:
    """Return a number that two worlds share when they behave alike from here on."""
    return hash(
        (
            tuple(_site(site) for site in world.sites),
            tuple(
                sorted(
                    (channel.sender.name, channel.receiver.name, _messages(channel.messages)) for channel in world.busy
                )
            ),
            tuple(sorted(site.name for site in world.owing)),
            tuple(sorted(world.history.handled.items())),
            tuple((slot.done, slot.starts, slot.script.left) for slot in world.scenario.slots),
            world.faults["left"],
            world.allowed,
        )
    )


def _site(site: Any) -> tuple[Any, ...]:
    core = site.core
    out, into = core.out, core.into
    callback = core.callback
    shown: tuple[Any, ...] = (
        core.state,
        None if callback is None else (callback[0], _value(callback[1])),
        tuple((name, _value(args)) for name, args in core.agenda),
        _messages(core.held),
        repr(core._ending),
        core._finished,
        tuple((edge.asked, edge.acked, edge.sent, edge.taken, edge.begun, bool(edge.answers)) for edge in site.edges),
    )
    if out is not None:
        dispatcher = out.dispatcher
        shown += (
            _messages(out.asks),
            out.requested,
            out.emitted,
            tuple(sorted(out.discarded.items())),
            tuple(_value(item) for item in out.queue._items),
            tuple((edge.id, _subscriber(each)) for edge, each in out.subscribers.items()),
            tuple((edge.id, _subscriber(each)) for edge, each in out.closing.items()),
            dispatcher.wanted,
            tuple(each.subscription.id for each in getattr(dispatcher, "_line", ())),
            tuple((name, tuple(map(_value, lane.pieces))) for name, lane in getattr(dispatcher, "_lanes", {}).items()),
            dispatcher.absorbed,
            getattr(dispatcher, "_written_off", 0),
        )
    if into is not None:
        shown += (
            into.at,
            into.size if into.window is not None else 0,
            tuple(_value(item) for item in into.work),
            tuple(
                (
                    edge.id,
                    each.asked,
                    each.received,
                    each.handled,
                    each.acked,
                    each.told,
                    each.open,
                    each.leaving is None,
                    _value(tuple(each.origins)),
                    _value(tuple(each.suspects)),
                )
                for edge, each in into.windows.items()
            ),
        )
    return shown


def _subscriber(each: Any) -> tuple[Any, ...]:
    slot = each.slot
    lane = tuple(map(_value, slot.pieces)) if hasattr(slot, "pieces") else slot
    return (each.asked, each.sent, each.acked, each.head, tuple(_value(piece) for piece in each.ledger), lane)


def _messages(messages: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(_value(message) for message in messages)


def _value(value: Any) -> Any:
    """Return something that can be compared: events as they are, all else by name."""
    if type(value) in (tuple, list, m.End):
        return tuple(_value(item) for item in value)
    if isinstance(value, m.Subscription):
        return value.id
    if type(value) is Origin:
        return ("origin", value.window.subscription.id, value.count, value.left)
    if type(value) is Suspect:
        return ("suspect", value.deliveries, _value(value.token))
    if value is None or isinstance(value, (int, str)):
        return value
    if hasattr(value, "subscription"):
        return value.subscription.id
    return repr(value)


def search_all(chosen: Iterable[Case], *, jobs: int | None = None) -> tuple[list[Found], float]:
    """Search configurations on all cores.

    Returns:
        What was found in each, and the seconds it took.
    """
    began = time.perf_counter()
    jobs = jobs or os.cpu_count() or 1
    ordered = sorted(chosen, key=lambda case: -case.events * case.consumers * case.producers - case.window[0])
    if jobs == 1:
        return [search(case) for case in ordered], time.perf_counter() - began
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(search, ordered)), time.perf_counter() - began
