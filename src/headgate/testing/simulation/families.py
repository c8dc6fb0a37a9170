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
from headgate.testing.simulation import draw, orders
from headgate.testing.simulation.delivery import DELIVERY
from headgate.testing.simulation.scenario import UNORDERED, Scenario, Transform


def demand(rng: Random) -> Scenario:
    """Some producers, some consumers, everybody with everybody."""
    sources = [
        draw.source(rng, f"p{number}", rng.randint(1, 14), draw.any_demand(rng)) for number in range(rng.randint(1, 3))
    ]
    lossy = rng.random() < 0.1  # noqa: PLR2004 (a few)
    for source in sources:
        source.options["delivery"] = "at_most_once" if lossy else "at_least_once"
    sinks = []
    for number in range(rng.randint(1, 4)):
        upstream = [(source, draw.terms(rng, weight=rng.choice((1, 1, 3)))) for source in sources]
        sinks.append(draw.sink(rng, f"c{number}", upstream))
        sinks[-1].extra = number > 0 and rng.random() < 0.3  # noqa: PLR2004 (some)
    return draw.swarm(rng, Scenario([*sources, *sinks], lossy=lossy), "again", "join", "stop_signal")


def chain(rng: Random) -> Scenario:
    """One to three layers of middle stages that filter, pass on or expand, with any windows."""
    layers = [
        [
            draw.source(rng, f"p{number}", rng.randint(1, 12), draw.any_demand(rng))
            for number in range(rng.randint(1, 2))
        ]
    ]
    transforms: list[Transform] = []
    for depth in range(rng.randint(1, 3)):
        transform: Transform = rng.choice(
            (
                draw.one_to_one,
                draw.one_to_one,
                draw.evens,
                draw.twice,
                draw.fifty if draw.fifty not in transforms else draw.one_to_one,
                draw.nothing,
            )
        )
        transforms.append(transform)
        layer = [
            draw.middle(rng, f"m{depth}{number}", transform, draw.any_demand(rng))
            for number in range(rng.randint(1, 2))
        ]
        for slot in layer:
            slot.upstream = [(up, draw.terms(rng)) for up in layers[-1]]
        layers.append(layer)
    sinks = [draw.sink(rng, f"c{number}", []) for number in range(rng.randint(1, 2))]
    for slot in sinks:
        slot.upstream = [(up, _chain_end(rng)) for up in layers[-1]]
    layers.append(sinks)
    factor = 1
    for layer, transform in zip(reversed(layers[1:-1]), reversed(transforms), strict=True):
        factor *= max(1, len(transform(("p", 1))))
        for slot in layer:
            slot.factor = factor
    if draw.fifty in transforms:  # a few events are many here
        for slot in layers[0]:
            slot.script.total = 1 + slot.script.total % 3
    scenario = Scenario([slot for layer in layers for slot in layer], transforms, factor=factor)
    return draw.swarm(rng, scenario, "again", "call")


def _chain_end(rng: Random) -> Terms:
    return Terms(1000, rng.choice((0, 500, 999))) if rng.random() < 0.3 else draw.terms(rng)  # noqa: PLR2004 (some)


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

    source = draw.source(rng, "p", rng.randint(1, 14), make)
    slots = [source]
    head = source
    if rng.random() < 0.4:  # noqa: PLR2004 (some)
        source.dispatcher = DemandDispatcher
        head = draw.middle(rng, "m", rng.choice((draw.one_to_one, draw.evens, draw.twice)), make)
        head.upstream = [(source, draw.terms(rng))]
        slots.append(head)
    head.copies = True
    for number in range(max(wait_for, rng.randint(1, 4))):
        selector = None
        if rng.random() < 0.4:  # noqa: PLR2004 (some)
            raises = rng.randint(0, 8) if rng.random() < 0.4 and wait_for < 2 else None  # noqa: PLR2004 (a few)
            selector = Selector(rng.randint(1, 3), raises)
        slot = draw.sink(rng, f"c{number}", [(head, draw.terms(rng, selector=selector))])
        slot.steady = selector is None or selector.raises_at is None
        slot.extra = number >= max(1, wait_for) and rng.random() < 0.4  # noqa: PLR2004 (some)
        slots.append(slot)
    scenario = Scenario(slots, copies=True, unbroken=slow == "block")
    scenario.unbroken = slow != "drop"
    return draw.swarm(rng, scenario, "again", "join")


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

    source = draw.source(
        rng, "p", rng.randint(1, 16), lambda: PartitionDispatcher(count, hash=route, queue_size=queue_size, stuck=stuck)
    )
    source.crashes = False
    slots = [source]
    if rng.random() < 0.3:  # noqa: PLR2004 (some)
        middle = draw.middle(rng, "m", _same, source.dispatcher or DemandDispatcher)
        source.dispatcher, middle.upstream = DemandDispatcher, [(source, draw.terms(rng))]
        slots.append(middle)
    head = slots[-1]
    slots += [draw.sink(rng, f"c{number}", [(head, draw.terms(rng, partition=number))]) for number in range(count)]
    scenario = Scenario(slots, drops=dropped)
    if rng.random() < 0.3 and count > 1:  # noqa: PLR2004 (some)
        slots[-1].stuck = True
        if stuck != "block" or queue_size == 100:  # noqa: PLR2004 (more than there are events)
            scenario.before_heal = orders.others_done
    return draw.swarm(rng, scenario, "again", "info")


def _same(event: Any) -> list[Any]:
    return [event]


def _key(event: Any) -> Any:
    return event[1] % 3


def fair(rng: Random) -> Scenario:
    """Keys take turns, by weight; none has more in flight than its cap."""
    weights = rng.choice((None, {0: 2}, {1: 3, 2: 2}))
    cap = rng.choice((None, None, 1, 2, 4))
    quantum = rng.choice((1, 1, 2))
    source = draw.source(
        rng, "p", rng.randint(1, 18), lambda: FairDispatcher(_key, weights=weights, cap=cap, quantum=quantum)
    )
    source.key = _key
    slots = [source]
    if rng.random() < 0.5:  # noqa: PLR2004 (half)
        middle = draw.middle(rng, "m", rng.choice((draw.one_to_one, draw.twice)), DemandDispatcher)
        middle.upstream = [(source, draw.terms(rng))]
        middle.factor = 2
        slots.append(middle)
    head = slots[-1]
    slots += [draw.sink(rng, f"c{number}", [(head, draw.terms(rng))]) for number in range(rng.randint(1, 3))]
    transforms = [head.script.transform] if head is not source else []
    scenario = draw.swarm(rng, Scenario(slots, transforms, factor=2), "again", "hold", "info")
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
    source = draw.source(rng, "p", rng.randint(1, 18), lambda: PriorityDispatcher(_priority, ageing=ageing))
    source.key = UNORDERED
    sinks = [draw.sink(rng, f"c{number}", [(source, draw.terms(rng))]) for number in range(rng.randint(1, 3))]
    scenario = draw.swarm(rng, Scenario([source, *sinks]), "again", "hold", "info")
    if rng.random() < 0.3:  # noqa: PLR2004 (some)
        orders.preload(source)
        scenario.faults = []
        scenario.at_end = orders.by_rank(source, _priority, ageing)
    return scenario


def manual(rng: Random) -> Scenario:
    """Consumers that ask by hand, next to automatic ones."""
    sources = [
        draw.source(rng, f"p{number}", rng.randint(1, 12), draw.any_demand(rng)) for number in range(rng.randint(1, 2))
    ]
    head = sources
    slots = list(sources)
    transforms: list[Transform] = []
    if rng.random() < 0.4:  # noqa: PLR2004 (some)
        middle = draw.middle(rng, "m", rng.choice((draw.one_to_one, draw.evens, draw.twice)), draw.any_demand(rng))
        middle.upstream = [(source, draw.terms(rng, manual=rng.random() < 0.5)) for source in sources]  # noqa: PLR2004 (half)
        middle.factor = 2
        transforms.append(middle.script.transform)
        head = [middle]
        slots.append(middle)
    slots += [
        draw.sink(rng, f"c{number}", [(up, draw.terms(rng, manual=rng.random() < 0.7)) for up in head])  # noqa: PLR2004 (most)
        for number in range(rng.randint(1, 3))
    ]
    return draw.swarm(rng, Scenario(slots, transforms, factor=2), "again", "stop_signal", "call")


def accumulate(rng: Random) -> Scenario:
    """Demand and events that are held and let go."""
    scenario = rng.choice((chain, demand, fair, partition, broadcast))(rng)
    for slot in scenario.slots:
        if slot.role != m.CONSUMER and rng.random() < 0.6:  # noqa: PLR2004 (most)
            slot.options["accumulate"] = True
    scenario.before_heal = None
    draw.swarm(rng, scenario, "hold", "hold", "hold", "cast")
    if scenario.at_end is not None:
        scenario.faults = []
    else:
        scenario.budget = max(2, scenario.budget)
    return scenario


def infos(rng: Random) -> Scenario:
    """Infos, calls and casts among the events; streams that finish."""
    scenario = rng.choice((chain, demand, partition, fair, priority, broadcast))(rng)
    for slot in scenario.slots:
        slot.defined = draw.defined(rng, m.HANDLE_INFO, m.HANDLE_CALL)
    draw.swarm(rng, scenario, "info", "info", "info", "call", "hang_up", "cast")
    if scenario.at_end is not None:
        scenario.faults = []
    return scenario


FAMILIES: dict[str, Callable[[Random], Scenario]] = {
    each.__name__: each
    for each in (demand, chain, broadcast, partition, fair, priority, manual, accumulate, infos)
} | DELIVERY  # fmt: skip


def build(family: str, seed: int) -> Scenario:
    """Draw the scenario of a seed."""
    return FAMILIES[family](Random(seed * 4))  # noqa: S311 (chance for tests)
