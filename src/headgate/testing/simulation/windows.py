"""No combination of windows can deadlock: every small one is tried, each under the schedules that hold back the most.

A chain without chance is run to its end under four fixed orders: what can be put off (callbacks, acknowledgements that
wait for the driver to be idle) is put off until nothing else moves, or comes first. A stage that waited for an
acknowledgement before it asks, or for a demand threshold before it acknowledges, would stand still in one of them.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from headgate.protocol import messages as m
from headgate.protocol.dispatch.demand import DemandDispatcher
from headgate.protocol.messages import Terms
from headgate.testing.simulation.delivery import LARGE, SMALL, three
from headgate.testing.simulation.draw import nothing, one_to_one
from headgate.testing.simulation.exhaustive import NoChance
from headgate.testing.simulation.oracles import Violation
from headgate.testing.simulation.scenario import Middle, Scenario, Sink, Slot, Source, Transform
from headgate.testing.simulation.schedule import check_end, tend
from headgate.testing.simulation.world import World

Window = tuple[int, int]
THROUGH: dict[int, Transform] = {0: nothing, 1: one_to_one, 3: three}
"""What a middle stage makes of one event."""
ORDERS = ("deliver finish flush", "finish deliver flush", "deliver flush finish", "flush finish deliver")
"""What comes first, second and last, wherever there is a choice."""
LIMIT = 5000


def pairs() -> Iterator[tuple[Sequence[Window], Sequence[int]]]:
    """Give every window of up to six above every other, and 1,000 above and below all of them."""
    for above, below, outputs in itertools.product((*SMALL, *LARGE), (*SMALL, *LARGE), THROUGH):
        yield (above, below), (outputs,)


def triples() -> Iterator[tuple[Sequence[Window], Sequence[int]]]:
    """Give windows of up to three, and 1,000, in chains with two middle stages."""
    few = (*(each for each in SMALL if each[0] <= 3), LARGE[1])  # noqa: PLR2004 (up to three)
    yield from itertools.product(itertools.product(few, repeat=3), itertools.product(THROUGH, repeat=2))


def chain(windows: Sequence[Window], outputs: Sequence[int], events: int) -> World:
    """Build source -> middle stages -> sink, with a window for each subscription and what each middle stage makes."""
    slots = [Slot("p", m.PRODUCER, Source("p", events), DemandDispatcher)]
    for number, (window, count) in enumerate(zip(windows, outputs, strict=False)):
        upstream = [(slots[-1], Terms(*window))]
        slots.append(
            Slot(f"m{number}", m.PRODUCER_CONSUMER, Middle(THROUGH[count]), DemandDispatcher, upstream=upstream)
        )
    slots.append(Slot("c", m.CONSUMER, Sink(), upstream=[(slots[-1], Terms(*windows[-1]))]))
    world = World(Scenario(slots, [THROUGH[count] for count in outputs]), 0, tail=30)
    world.user = world.chance = NoChance()  # type: ignore[assignment]  # it has what is used
    return world


def run(windows: Sequence[Window], outputs: Sequence[int], order: str, events: int = 9) -> int:
    """Run a chain to its end.

    Returns:
        The number of actions.

    Raises:
        Violation: Something was left, or another rule was broken.
    """
    world = chain(windows, outputs, events)
    kinds = order.split()
    for count in range(LIMIT):
        if not _act(world, kinds):
            check_end(world)
            return count
    raise Violation("no-end", f"{windows} {outputs}: {LIMIT} actions, and still going on")


def _act(world: World, kinds: Sequence[str]) -> bool:
    for kind in kinds:
        if kind == "deliver" and world.busy:
            world.deliver(world.busy[0])
        elif kind == "finish" and world.running:
            world.finish(world.running[0])
        elif kind == "flush" and world.owing:
            world.flush(world.owing[0])
        else:
            continue
        return True
    return any(tend(world, slot) for slot in world.scenario.slots)


def search(order: str) -> tuple[int, str | None]:
    """Try all pairs under one of the orders, and its part of the triples.

    Returns:
        How many runs there were, and what broke first.
    """
    runs = 0
    part = itertools.islice(triples(), ORDERS.index(order), None, len(ORDERS))
    for windows, outputs in itertools.chain(pairs(), part):
        runs += 1
        try:
            run(windows, outputs, order, events=9 if len(outputs) == 1 else 5)
        except Exception as error:  # noqa: BLE001 (whatever the protocol raises is a finding)
            return runs, f"windows {windows}, outputs {outputs}, {order}: {type(error).__name__}: {error}"
    return runs, None


def search_all(*, jobs: int | None = None) -> tuple[int, list[str]]:
    """Try them all on all cores.

    Returns:
        How many runs there were, and what broke first under each order.
    """
    with ProcessPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        found = list(pool.map(search, ORDERS))
    return sum(runs for runs, _ in found), [failure for _, failure in found if failure is not None]
