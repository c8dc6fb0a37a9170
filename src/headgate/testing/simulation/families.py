"""The families of scenarios. Each seed draws a topology, options, scripts and a swarm of faults of its own."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from headgate.protocol import messages as m
from headgate.protocol.dispatch.base import Dispatcher
from headgate.protocol.dispatch.broadcast import BroadcastDispatcher
from headgate.protocol.dispatch.demand import DemandDispatcher
from headgate.protocol.dispatch.keyed import FairDispatcher, PriorityDispatcher
from headgate.protocol.dispatch.partition import PartitionDispatcher
from headgate.protocol.messages import Terms
from headgate.testing.simulation import orders
from headgate.testing.simulation.scenario import UNORDERED, Middle, Scenario, Sink, Slot, Source, Transform

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


def _terms(rng: Random, *, modes: bool = True, **options: Any) -> Terms:
    most, least = _WINDOWS[int(rng.random() * len(_WINDOWS))]
    mode = "permanent"
    if modes and rng.random() < 0.5:  # noqa: PLR2004 (half of them)
        mode = rng.choice(("transient", "temporary"))
    return Terms(most, least, mode, **options)


def _defined(rng: Random, *always: str) -> frozenset[str]:
    """Draw which callbacks a stage has."""
    names = {m.HANDLE_EVENTS, m.HANDLE_DEMAND, *always}
    if rng.random() < 0.5:  # noqa: PLR2004 (half of them)
        names.update(name for name in OPTIONAL if rng.random() < 0.4)  # noqa: PLR2004 (some)
    return frozenset(names)


def _source(rng: Random, name: str, total: int, dispatcher: Callable[[], Dispatcher], **options: Any) -> Slot:
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
    slot.defined = _defined(rng)
    slot.crashes = rng.random() < 0.25  # noqa: PLR2004 (a source's events go with it)
    if rng.random() < 0.05:  # noqa: PLR2004 (events come by emit alone)
        slot.defined -= {m.HANDLE_DEMAND}
    return slot


def _sink(rng: Random, name: str, upstream: list[tuple[Slot, Terms]]) -> Slot:
    slot = Slot(name, m.CONSUMER, Sink(), upstream=upstream)
    slot.defined = _defined(rng)
    return slot


def _middle(rng: Random, name: str, transform: Transform, dispatcher: Callable[[], Dispatcher], **options: Any) -> Slot:
    size = rng.choice((10_000, 10_000, None, 3, 0))
    slot = Slot(name, m.PRODUCER_CONSUMER, Middle(transform), dispatcher, {"buffer_size": size, **options})
    slot.defined = _defined(rng)
    return slot


def _swarm(rng: Random, scenario: Scenario, *more: str) -> Scenario:
    """Draw the faults and the eagerness of everything."""
    kinds = [*ALWAYS, *more]
    scenario.faults = []
    if rng.random() < 0.8:  # noqa: PLR2004 (one run of five has no faults)
        scenario.faults = rng.sample(kinds, rng.randint(1, min(5, len(kinds))))
        scenario.budget = rng.choice((1, 1, 2, 3, 5))
        scenario.rate = rng.choice((0.02, 0.05, 0.1))
    scenario.lanes, scenario.hands = rng.random() < 0.7, rng.random() < 0.3  # noqa: PLR2004 (as drivers do)
    scenario.weights = (rng.choice((0.2, 1.0, 4.0)), rng.choice((0.1, 0.5, 2.0)), rng.choice((0.2, 0.5, 1.0)))
    return scenario


def _demand(rng: Random) -> Callable[[], Dispatcher]:
    largest, shuffle = rng.random() < 0.3, rng.random() < 0.2  # noqa: PLR2004 (some)
    return lambda: DemandDispatcher(order="largest" if largest else "turn", shuffle=shuffle)


def demand(rng: Random) -> Scenario:
    """Some producers, some consumers, everybody with everybody."""
    sources = [_source(rng, f"p{number}", rng.randint(1, 14), _demand(rng)) for number in range(rng.randint(1, 3))]
    lossy = rng.random() < 0.1  # noqa: PLR2004 (a few)
    for source in sources:
        source.options["delivery"] = "at_most_once" if lossy else "at_least_once"
    sinks = []
    for number in range(rng.randint(1, 4)):
        upstream = [(source, _terms(rng, weight=rng.choice((1, 1, 3)))) for source in sources]
        sinks.append(_sink(rng, f"c{number}", upstream))
        sinks[-1].extra = number > 0 and rng.random() < 0.3  # noqa: PLR2004 (some)
    return _swarm(rng, Scenario([*sources, *sinks], lossy=lossy), "again", "join", "stop_signal")


def chain(rng: Random) -> Scenario:
    """One to three layers of middle stages that filter, pass on or expand, with any windows."""
    layers = [[_source(rng, f"p{number}", rng.randint(1, 12), _demand(rng)) for number in range(rng.randint(1, 2))]]
    transforms: list[Transform] = []
    for depth in range(rng.randint(1, 3)):
        transform: Transform = rng.choice(
            (one_to_one, one_to_one, evens, twice, fifty if fifty not in transforms else one_to_one, nothing)
        )
        transforms.append(transform)
        layer = [_middle(rng, f"m{depth}{number}", transform, _demand(rng)) for number in range(rng.randint(1, 2))]
        for slot in layer:
            slot.upstream = [(up, _terms(rng)) for up in layers[-1]]
        layers.append(layer)
    sinks = [_sink(rng, f"c{number}", []) for number in range(rng.randint(1, 2))]
    for slot in sinks:
        slot.upstream = [(up, _chain_end(rng)) for up in layers[-1]]
    layers.append(sinks)
    factor = 1
    for layer, transform in zip(reversed(layers[1:-1]), reversed(transforms), strict=True):
        factor *= max(1, len(transform(("p", 1))))
        for slot in layer:
            slot.factor = factor
    if fifty in transforms:  # a few events are many here
        for slot in layers[0]:
            slot.script.total = 1 + slot.script.total % 3
    scenario = Scenario([slot for layer in layers for slot in layer], transforms, factor=factor)
    return _swarm(rng, scenario, "again", "call")


def _chain_end(rng: Random) -> Terms:
    return Terms(1000, rng.choice((0, 500, 999))) if rng.random() < 0.3 else _terms(rng)  # noqa: PLR2004 (some)


class Selector:
    """Chooses events by their number; may raise once for good."""

    def __init__(self, modulus: int, raises_at: int | None) -> None:
        """Choose the multiples; raise at one event, if any."""
        self.modulus = modulus
        self.raises_at = raises_at

    def peek(self, event: Any) -> bool:
        """Say what it chooses, without raising."""
        return bool(event[1] % self.modulus == 0)

    def __call__(self, event: Any) -> bool:
        """Choose."""
        if event[1] == self.raises_at:
            self.raises_at = None  # or else it would be refused again and again
            raise ValueError(event)
        return self.peek(event)


def broadcast(rng: Random) -> Scenario:
    """Every event to everybody, or to those that choose it; slow ones block, lose events, or are detached."""
    slow = rng.choice(("block", "block", "drop", "detach"))
    lag = rng.choice((1, 3, 20))
    replay = rng.choice((0, 0, 0, 2))
    wait_for = rng.choice((0, 0, 1, 2))

    def make() -> Dispatcher:
        return BroadcastDispatcher(slow=slow, lag=lag, replay=replay, wait_for=wait_for)

    source = _source(rng, "p", rng.randint(1, 14), make)
    slots = [source]
    head = source
    if rng.random() < 0.4:  # noqa: PLR2004 (some)
        source.dispatcher = DemandDispatcher
        head = _middle(rng, "m", rng.choice((one_to_one, evens, twice)), make)
        head.upstream = [(source, _terms(rng))]
        slots.append(head)
    head.copies = True
    for number in range(max(wait_for, rng.randint(1, 4))):
        selector = None
        if rng.random() < 0.4:  # noqa: PLR2004 (some)
            raises = rng.randint(0, 8) if rng.random() < 0.4 and wait_for < 2 else None  # noqa: PLR2004 (a few)
            selector = Selector(rng.randint(1, 3), raises)
        slot = _sink(rng, f"c{number}", [(head, _terms(rng, selector=selector))])
        slot.steady = selector is None or selector.raises_at is None
        slot.extra = number >= max(1, wait_for) and rng.random() < 0.4  # noqa: PLR2004 (some)
        slots.append(slot)
    scenario = Scenario(slots, copies=True, unbroken=slow == "block")
    scenario.unbroken = slow != "drop"
    return _swarm(rng, scenario, "again", "join")


def partition(rng: Random) -> Scenario:
    """Every event to its partition; some have none; one partition may be stuck."""
    count = rng.randint(1, 4)
    stuck = rng.choice(("block", "shed", "spill"))
    queue_size = rng.choice((1, 3, 10, 100))
    nowhere = rng.choice((0, 2, 3, 5))
    how = rng.choice(("none", "raise", "unknown"))

    def route(event: Any) -> Any:
        number = event[1]
        if nowhere and number % nowhere == nowhere - 1:
            if how == "raise":
                raise ValueError(event)
            return None if how == "none" else "elsewhere"
        return (number // 2) % count

    def dropped(event: Any) -> bool:
        return bool(nowhere) and event[1] % nowhere == nowhere - 1

    source = _source(
        rng, "p", rng.randint(1, 16), lambda: PartitionDispatcher(count, hash=route, queue_size=queue_size, stuck=stuck)
    )
    source.crashes = False
    slots = [source]
    if rng.random() < 0.3:  # noqa: PLR2004 (some)
        middle = _middle(rng, "m", _same, source.dispatcher or DemandDispatcher)
        source.dispatcher, middle.upstream = DemandDispatcher, [(source, _terms(rng))]
        slots.append(middle)
    head = slots[-1]
    slots += [_sink(rng, f"c{number}", [(head, _terms(rng, partition=number))]) for number in range(count)]
    scenario = Scenario(slots, drops=dropped)
    if rng.random() < 0.3 and count > 1:  # noqa: PLR2004 (some)
        slots[-1].stuck = True
        if stuck != "block" or queue_size == 100:  # noqa: PLR2004 (more than there are events)
            scenario.before_heal = orders.others_done
    return _swarm(rng, scenario, "again", "info")


def _same(event: Any) -> list[Any]:
    return [event]


def _key(event: Any) -> Any:
    return event[1] % 3


def fair(rng: Random) -> Scenario:
    """Keys take turns, by weight; none has more in flight than its cap."""
    weights = rng.choice((None, {0: 2}, {1: 3, 2: 2}))
    cap = rng.choice((None, None, 1, 2, 4))
    quantum = rng.choice((1, 1, 2))
    source = _source(
        rng, "p", rng.randint(1, 18), lambda: FairDispatcher(_key, weights=weights, cap=cap, quantum=quantum)
    )
    source.key = _key
    slots = [source]
    if rng.random() < 0.5:  # noqa: PLR2004 (half)
        middle = _middle(rng, "m", rng.choice((one_to_one, twice)), DemandDispatcher)
        middle.upstream = [(source, _terms(rng))]
        middle.factor = 2
        slots.append(middle)
    head = slots[-1]
    slots += [_sink(rng, f"c{number}", [(head, _terms(rng))]) for number in range(rng.randint(1, 3))]
    transforms = [head.script.transform] if head is not source else []
    scenario = _swarm(rng, Scenario(slots, transforms, factor=2), "again", "hold", "info")
    if rng.random() < 0.3:  # noqa: PLR2004 (some)
        orders.preload(source)
        scenario.faults = []
        if cap is None:
            scenario.at_end = orders.fair_turns(source, _key, weights or {}, quantum)
    return scenario


def _priority(event: Any) -> int:
    return int(event[1] * 7 % 4)


def priority(rng: Random) -> Scenario:
    """The most urgent first, with ageing."""
    ageing = rng.choice((None, 1, 3, 1000))
    source = _source(rng, "p", rng.randint(1, 18), lambda: PriorityDispatcher(_priority, ageing=ageing))
    source.key = UNORDERED
    sinks = [_sink(rng, f"c{number}", [(source, _terms(rng))]) for number in range(rng.randint(1, 3))]
    scenario = _swarm(rng, Scenario([source, *sinks]), "again", "hold", "info")
    if rng.random() < 0.3:  # noqa: PLR2004 (some)
        orders.preload(source)
        scenario.faults = []
        scenario.at_end = orders.by_rank(source, _priority, ageing)
    return scenario


def manual(rng: Random) -> Scenario:
    """Consumers that ask by hand, next to automatic ones."""
    sources = [_source(rng, f"p{number}", rng.randint(1, 12), _demand(rng)) for number in range(rng.randint(1, 2))]
    head = sources
    slots = list(sources)
    transforms: list[Transform] = []
    if rng.random() < 0.4:  # noqa: PLR2004 (some)
        middle = _middle(rng, "m", rng.choice((one_to_one, evens, twice)), _demand(rng))
        middle.upstream = [(source, _terms(rng, manual=rng.random() < 0.5)) for source in sources]  # noqa: PLR2004 (half)
        middle.factor = 2
        transforms.append(middle.script.transform)
        head = [middle]
        slots.append(middle)
    slots += [
        _sink(rng, f"c{number}", [(up, _terms(rng, manual=rng.random() < 0.7)) for up in head])  # noqa: PLR2004 (most)
        for number in range(rng.randint(1, 3))
    ]
    return _swarm(rng, Scenario(slots, transforms, factor=2), "again", "stop_signal", "call")


def accumulate(rng: Random) -> Scenario:
    """Demand and events that are held and let go."""
    scenario = rng.choice((chain, demand, fair, partition, broadcast))(rng)
    for slot in scenario.slots:
        if slot.role != m.CONSUMER and rng.random() < 0.6:  # noqa: PLR2004 (most)
            slot.options["accumulate"] = True
    scenario.before_heal = None
    _swarm(rng, scenario, "hold", "hold", "hold", "cast")
    if scenario.at_end is not None:
        scenario.faults = []
    else:
        scenario.budget = max(2, scenario.budget)
    return scenario


def infos(rng: Random) -> Scenario:
    """Infos, calls and casts among the events; streams that finish."""
    scenario = rng.choice((chain, demand, partition, fair, priority, broadcast))(rng)
    for slot in scenario.slots:
        slot.defined = _defined(rng, m.HANDLE_INFO, m.HANDLE_CALL)
    _swarm(rng, scenario, "info", "info", "info", "call", "hang_up", "cast")
    if scenario.at_end is not None:
        scenario.faults = []
    return scenario


FAMILIES: dict[str, Callable[[Random], Scenario]] = {
    each.__name__: each
    for each in (demand, chain, broadcast, partition, fair, priority, manual, accumulate, infos)
}  # fmt: skip


def build(family: str, seed: int) -> Scenario:
    """Draw the scenario of a seed."""
    return FAMILIES[family](Random(seed * 4))  # noqa: S311 (chance for tests)
