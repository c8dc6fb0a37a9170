"""Families about delivery: crashes, poison, handlers that hang, drains, deferred acknowledgements, pauses, windows.

In most of them sources live through it all and buffers have room, so that every event is accounted for: handled, in a
dead letter, or with the source that was drained.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from headgate.protocol import messages as m
from headgate.protocol.dispatch.base import Dispatcher
from headgate.protocol.dispatch.demand import DemandDispatcher
from headgate.protocol.dispatch.keyed import FairDispatcher
from headgate.protocol.dispatch.partition import PartitionDispatcher
from headgate.protocol.messages import Terms
from headgate.testing.simulation import draw
from headgate.testing.simulation.oracles import Violation
from headgate.testing.simulation.scenario import HANGS, RAISES, Later, Middle, Scenario, Sink, Slot, Source, Transform
from headgate.testing.simulation.world import World

SMALL = tuple((most, least) for most in range(1, 7) for least in range(most))
"""Every window (max_demand, min_demand) of up to six events."""
LARGE = ((1000, 0), (1000, 500), (1000, 999))


def three(event: Any) -> list[Any]:
    """Make three of one."""
    return [(*event, number) for number in range(3)]


def _key(event: Any) -> Any:
    return event[1] % 3


def _terms(rng: Random, windows: Any = SMALL, **options: Any) -> Terms:
    most, least = rng.choice(windows)
    return Terms(most, least, rng.choice(("permanent", "transient", "temporary")), **options)


def _head(rng: Random, count: int) -> tuple[str, Callable[[], Dispatcher]]:
    """Draw a dispatcher that loses nothing."""
    kind = rng.choice(("demand", "demand", "partition", "fair"))
    if kind == "partition":
        return kind, lambda: PartitionDispatcher(count, hash=lambda event: event[1] % count, queue_size=100)
    if kind == "fair":
        cap, quantum = rng.choice((None, 1, 2, 5)), rng.choice((1, 2))
        return kind, lambda: FairDispatcher(_key, cap=cap, quantum=quantum)
    return kind, draw.any_demand(rng)


def _source(rng: Random, name: str, total: int, dispatcher: Callable[[], Dispatcher], **options: Any) -> Slot:
    script = Source(name, total)
    script.part, script.late = rng.choice(((0, 0), (0, 0), (0.5, 0), (0.3, 0.3)))
    return Slot(name, m.PRODUCER, script, dispatcher, options, crashes=False)


def _topology(rng: Random, most: int | None, *, total: int = 14, windows: Any = SMALL) -> tuple[Scenario, list[Slot]]:
    """Draw a chain with fan-out, several producers, partitions or fair turns; and its last producing slots."""
    consumers = rng.choice((1, 1, 2, 3))
    layers = [
        [
            _source(rng, f"p{number}", rng.randint(1, total), draw.any_demand(rng), max_deliveries=most)
            for number in range(rng.choice((1, 1, 2)))
        ]
    ]
    transforms: list[Transform] = []
    for depth in range(rng.choice((0, 0, 1, 1, 2))):
        transforms.append(rng.choice((draw.one_to_one, draw.one_to_one, draw.evens, draw.twice)))
        layer = [
            Slot(
                f"m{depth}{number}",
                m.PRODUCER_CONSUMER,
                Middle(transforms[-1]),
                draw.any_demand(rng),
                {"max_deliveries": most},
            )
            for number in range(rng.choice((1, 1, 2)))
        ]
        for slot in layer:
            slot.upstream = [(up, _terms(rng, windows)) for up in layers[-1]]
        layers.append(layer)
    kind, dispatcher = _head(rng, consumers)
    for slot in layers[-1]:
        slot.dispatcher = dispatcher
        slot.key = _key if kind == "fair" else None
    layers.append([Slot(f"c{number}", m.CONSUMER, Sink()) for number in range(consumers)])
    for number, slot in enumerate(layers[-1]):
        slot.upstream = [(up, _terms(rng, windows, partition=number)) for up in layers[-2]]
    factor = 1
    for layer, transform in zip(reversed(layers[1:-1]), reversed(transforms), strict=True):
        factor *= max(1, len(transform(("p", 1))))
        for slot in layer:
            slot.factor = factor
    slots = [slot for layer in layers for slot in layer]
    for slot in slots:
        slot.defined = draw.defined(rng)
    scenario = Scenario(slots, transforms, factor=factor)
    scenario.lanes, scenario.hands = rng.random() < 0.7, rng.random() < 0.3  # noqa: PLR2004 (as drivers do)
    scenario.weights = (rng.choice((0.2, 1.0, 4.0)), rng.choice((0.1, 0.5, 2.0)), rng.choice((0.2, 0.5, 1.0)))
    return scenario, layers[-2]


def _faults(rng: Random, scenario: Scenario, kinds: tuple[str, ...], most: int) -> Scenario:
    """Let some faults happen, again and again."""
    scenario.faults = rng.sample(kinds, rng.randint(1, len(kinds)))
    scenario.budget = rng.randint(1, most)
    scenario.rate = rng.choice((0.05, 0.1, 0.3))
    return scenario


def crashes(rng: Random) -> Scenario:
    """Every stage but the sources crashes, is killed or stopped, again and again."""
    scenario, _ = _topology(rng, rng.choice((None, 1, 2, 3, 4)))
    return _faults(rng, scenario, ("crash", "kill", "kill_gently", "stop"), 25)


def _spoil(rng: Random, scenario: Scenario, kinds: tuple[str, ...]) -> None:
    """Choose events that nobody can handle, on any level; see at the end that exactly those are dead."""
    events = [event for slot in scenario.slots if not slot.upstream for event in Source.all(slot.script)]
    levels: list[dict[Any, str]] = []
    scripts = [[slot.script for slot in scenario.slots if slot.script.__class__ is Sink]]
    for depth in range(len(scenario.transforms)):
        scripts.insert(depth, [slot.script for slot in scenario.slots if slot.name.startswith(f"m{depth}")])
    expected: set[Any] = set()
    for depth, level in enumerate(scripts):
        share = rng.choice((0.0, 0.1, 0.3, 1.0)) if depth < len(scripts) - 1 else rng.choice((0.1, 0.2, 0.5))
        bad = {event: rng.choice(kinds) for event in events if rng.random() < share and len(expected) < 8}  # noqa: PLR2004 (they take time)
        expected.update(bad)
        levels.append(bad)
        for script in level:
            script.bad = bad
        events = [event for event in events if event not in bad]
        if depth < len(scenario.transforms):
            events = [output for event in events for output in scenario.transforms[depth](event)]

    def check(world: World) -> None:
        dead = world.blame.dead()
        innocent = dead - expected
        left = {event for event in expected if not any(event[:size] in dead for size in range(2, len(event) + 1))}
        if left:
            raise Violation("poison", f"these were to be dead letters: {left}, and only those are: {dead}")
        if innocent and not any(world.faults[kind] for kind in ("crash", "kill")):
            raise Violation("poison", f"these are innocent: {innocent}")

    scenario.at_end = check


def poison(rng: Random) -> Scenario:
    """Some events crash whoever handles them, on any level: exactly those become dead letters."""
    scenario, _ = _topology(rng, rng.randint(1, 4), windows=(*SMALL, (20, 0), (20, 10), (1000, 500)))
    _spoil(rng, scenario, (RAISES,))
    if rng.random() < 0.4:  # noqa: PLR2004 (some)
        _faults(rng, scenario, ("kill", "crash", "kill_gently", "stop"), 5)
    return scenario


def hang(rng: Random) -> Scenario:
    """Handlers of some events never return and are killed; others are slow."""
    scenario, _ = _topology(rng, rng.randint(1, 3))
    _spoil(rng, scenario, (HANGS, HANGS, RAISES))
    if rng.random() < 0.4:  # noqa: PLR2004 (some)
        scenario.slots[-1].stuck = True
    if rng.random() < 0.4:  # noqa: PLR2004 (some)
        _faults(rng, scenario, ("kill", "kill_gently", "stop"), 3)
    return scenario


def drain(rng: Random) -> Scenario:
    """Stages are drained at any moment: a source, a stage that another replaces, everything."""
    scenario, _ = _topology(rng, rng.choice((None, 2, 3)), total=30)
    _faults(rng, scenario, ("drain", "drain_all", "crash", "pause"), 8)
    if "drain" not in scenario.faults:
        scenario.faults.append("drain")
    return scenario


def deferred(rng: Random) -> Scenario:
    """Consumers that settle events one by one, in any order, late; one event may be the last of all."""
    scenario, _ = _topology(rng, rng.choice((None, 1, 2, 3)), total=25, windows=(*SMALL, (20, 0), (20, 10)))
    manual = rng.random() < 0.5  # noqa: PLR2004 (half)
    held = None
    if rng.random() < 0.5:  # noqa: PLR2004 (half)
        events = [event for slot in scenario.slots if not slot.upstream for event in Source.all(slot.script)]
        held = rng.choice(scenario.outputs(events) or [None])
    for slot in scenario.slots:
        if slot.role == m.CONSUMER:
            slot.script = Later(rng.choice((0.5, 1.0, 1.0)), held, rng.randint(1, 6))
            slot.plain = True
            slot.upstream = [(up, terms._replace(manual=manual)) for up, terms in slot.upstream]
    if rng.random() < 0.7:  # noqa: PLR2004 (most)
        _faults(rng, scenario, ("crash", "kill", "stop", "cancel", "resubscribe", "drain", "expel"), 6)
    else:
        scenario.before_heal = _nearly_done
    return scenario


def _nearly_done(world: World) -> None:
    """See that what one event holds up is that event alone."""
    for slot in world.scenario.slots:
        out = slot.site.core.out
        if out is None or slot.done:
            continue
        for edge, subscriber in out.subscribers.items():
            script = edge.consumer.slot.script
            if type(script) is not Later:
                continue
            waiting = sum(1 for _, other, _, _ in script.waiting if other is edge)
            if subscriber.in_flight != waiting or len(subscriber.ledger) > 2 * waiting + 1:
                raise Violation("ledger", f"{edge}: {subscriber.ledger} for {waiting} events that are not settled")


def pausing(rng: Random) -> Scenario:
    """Stages are paused and go on, at any moment."""
    scenario, _ = _topology(rng, rng.choice((None, 2)), total=25)
    _faults(rng, scenario, ("pause", "pause", "pause", "pause", "crash", "cancel", "info"), 20)
    if "pause" not in scenario.faults:
        scenario.faults.append("pause")
    return scenario


def windows(rng: Random) -> Scenario:
    """Windows of any sizes one above the other, and middle stages that give nothing, one or three for one."""
    depth = rng.randint(1, 3)
    transforms: list[Transform] = [rng.choice((draw.nothing, draw.evens, draw.one_to_one, three)) for _ in range(depth)]
    pick = rng.choice((SMALL, (*SMALL, *LARGE), (*LARGE, (1, 0))))
    slots = [_source(rng, "p", rng.randint(1, 40 if three not in transforms else 12), DemandDispatcher)]
    for number, transform in enumerate(transforms):
        upstream = [(slots[-1], Terms(*rng.choice(pick)))]
        size = rng.choice((10_000, 10_000, None, 0, 3))
        slots.append(
            Slot(
                f"m{number}", m.PRODUCER_CONSUMER, Middle(transform), DemandDispatcher, {"buffer_size": size}, upstream
            )
        )
    slots.append(Slot("c", m.CONSUMER, Sink(), upstream=[(slots[-1], Terms(*rng.choice(pick)))]))
    scenario = Scenario(slots, transforms)
    scenario.lanes, scenario.hands = rng.random() < 0.7, rng.random() < 0.3  # noqa: PLR2004 (as drivers do)
    scenario.weights = (rng.choice((0.1, 1.0, 5.0)), rng.choice((0.01, 0.5, 2.0)), rng.choice((0.1, 0.5)))
    return scenario


DELIVERY: dict[str, Callable[[Random], Scenario]] = {
    each.__name__: each for each in (crashes, poison, hang, drain, deferred, pausing, windows)
}  # fmt: skip
