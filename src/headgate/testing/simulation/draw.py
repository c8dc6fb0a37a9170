"""What families draw their scenarios from: windows, callbacks, sources, stages, and a swarm of faults."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from headgate.protocol import messages as m
from headgate.protocol.dispatch.base import Dispatcher
from headgate.protocol.dispatch.demand import DemandDispatcher
from headgate.protocol.messages import Terms
from headgate.testing.simulation.scenario import Middle, Scenario, Sink, Slot, Source, Transform

ALWAYS = ("crash", "kill", "stop", "cancel", "expel", "both", "resubscribe", "stale", "missing")
"""Faults that every family has; the others are named by the family."""
OPTIONAL = (
    m.STARTED,
    m.TERMINATE,
    m.HANDLE_SUBSCRIBE,
    m.HANDLE_CANCEL,
    m.HANDLE_INFO,
    m.HANDLE_CALL,
    m.HANDLE_CAST,
    m.HANDLE_DISCARDED,
)
_WINDOWS = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (5, 2), (5, 4), (10, 5), (10, 9), (10, 0), (40, 20))


def one_to_one(event: Any) -> list[Any]:
    """Pass an event on, as another one."""
    return [(*event, 0)]


def evens(event: Any) -> list[Any]:
    """Drop two events of three."""
    return [(*event, 0)] if event[1] % 3 == 1 else []


def nothing(event: Any) -> list[Any]:  # noqa: ARG001 (a transformation)
    """Drop everything."""
    return []


def twice(event: Any) -> list[Any]:
    """Make two of one."""
    return [(*event, 0), (*event, 1)]


def fifty(event: Any) -> list[Any]:
    """Make fifty of one."""
    return [(*event, number) for number in range(50)]


def terms(rng: Random, *, modes: bool = True, **options: Any) -> Terms:
    """Draw a window and a cancel mode."""
    most, least = _WINDOWS[int(rng.random() * len(_WINDOWS))]
    mode = "permanent"
    if modes and rng.random() < 0.5:  # noqa: PLR2004 (half of them)
        mode = rng.choice(("transient", "temporary"))
    return Terms(most, least, mode, **options)


def defined(rng: Random, *always: str) -> frozenset[str]:
    """Draw which callbacks a stage has."""
    names = {m.HANDLE_EVENTS, m.HANDLE_DEMAND, *always}
    if rng.random() < 0.5:  # noqa: PLR2004 (half of them)
        names.update(name for name in OPTIONAL if rng.random() < 0.4)  # noqa: PLR2004 (some)
    return frozenset(names)


def source(rng: Random, name: str, total: int, dispatcher: Callable[[], Dispatcher], **options: Any) -> Slot:
    """Draw a source: how it answers, and what its buffer does."""
    script = Source(name, total)
    style = rng.random()
    if style < 0.6:  # noqa: PLR2004 (most of them)
        script.part, script.late = rng.choice(((0, 0), (0.5, 0), (0.3, 0.3), (0, 0.5), (0.2, 0.8)))
    if rng.random() < 0.3:  # noqa: PLR2004 (some)
        script.over = 0.4
        script.part = min(script.part, 0.3)
    if rng.random() < 0.15:  # noqa: PLR2004 (a few)
        script.push = 0.3
    size, keep = rng.choice(
        ((10_000, None), (10_000, None), (None, None), (4, None), (2, "first"), (3, "last"), (0, None))
    )
    slot = Slot(name, m.PRODUCER, script, dispatcher, {"buffer_size": size, "buffer_keep": keep, **options})
    slot.defined = defined(rng)
    slot.crashes = rng.random() < 0.25  # noqa: PLR2004 (a source's events go with it)
    if rng.random() < 0.05:  # noqa: PLR2004 (events come by emit alone)
        slot.defined -= {m.HANDLE_DEMAND}
    return slot


def sink(rng: Random, name: str, upstream: list[tuple[Slot, Terms]]) -> Slot:
    """Draw a consumer."""
    slot = Slot(name, m.CONSUMER, Sink(), upstream=upstream)
    slot.defined = defined(rng)
    return slot


def middle(rng: Random, name: str, transform: Transform, dispatcher: Callable[[], Dispatcher], **options: Any) -> Slot:
    """Draw a middle stage."""
    size = rng.choice((10_000, 10_000, None, 3, 0))
    slot = Slot(name, m.PRODUCER_CONSUMER, Middle(transform), dispatcher, {"buffer_size": size, **options})
    slot.defined = defined(rng)
    return slot


def swarm(rng: Random, scenario: Scenario, *more: str) -> Scenario:
    """Draw the faults and the eagerness of everything."""
    kinds = [*ALWAYS, *more]
    scenario.faults = []
    if rng.random() < 0.8:  # noqa: PLR2004 (one run of five has no faults)
        scenario.faults = rng.sample(kinds, rng.randint(1, min(5, len(kinds))))
        scenario.budget = rng.choice((1, 1, 2, 3, 5))
        scenario.rate = rng.choice((0.02, 0.05, 0.1))
    scenario.lanes, scenario.hands = rng.random() < 0.7, rng.random() < 0.3  # noqa: PLR2004 (as drivers do)
    scenario.weights = (rng.choice((0.2, 1.0, 4.0)), rng.choice((0.1, 0.5, 2.0)), rng.choice((0.2, 0.5, 1.0)))
    most = rng.choice((None, None, 1, 2, 3))
    for slot in scenario.slots:
        if slot.role != m.CONSUMER:
            slot.options["max_deliveries"] = most
    return scenario


def any_demand(rng: Random) -> Callable[[], Dispatcher]:
    """Draw a demand dispatcher."""
    largest, shuffle = rng.random() < 0.3, rng.random() < 0.2  # noqa: PLR2004 (some)
    return lambda: DemandDispatcher(order="largest" if largest else "turn", shuffle=shuffle)
