"""The families of runs. Each seed draws a topology, options, a pace and a swarm of faults of its own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from headgate import Child, PartitionDispatcher, Supervisor, from_iterable
from headgate.testing.shell.clients import Feed, client, reader
from headgate.testing.shell.pipelines import EXPECTED as EXPECTED_OF_PIPELINES
from headgate.testing.shell.pipelines import PIPELINES, PipelineWorld
from headgate.testing.shell.play import FAULTS, WAYS, cancel_task, hurry, kill, play, play_stop, stop
from headgate.testing.shell.stages import STAGES, AsyncSource, Source
from headgate.testing.shell.supervised import (
    Found,
    Storm,
    check_storm,
    children,
    play_drain,
    play_supervised,
    recipe,
    restart,
    tree,
)
from headgate.testing.shell.world import Event, Slot, World

WINDOWS = ((1, 0), (2, 0), (2, 1), (3, 1), (3, 2), (5, 2), (5, 4), (10, 5), (10, 9), (10, 0), (40, 20))
CRASHES = ("raise", "raise late", "cancelled", "stop signal", "stop self", "raise in started")
"""Faults of handlers."""
EXPECTED: dict[str, tuple[str, ...]] = {
    "chain": (*CRASHES, *FAULTS),
    "suspended": ("cancel", "expel", "move", "stop", "hurry", "kill", "cancel task", "cancelled"),
    "requests": (*CRASHES, "kill", "stop"),
    "threads": (*CRASHES, "kill", "hurry", "stop", "cancel", "move", "expel"),
    "iterables": (*CRASHES, "kill", "stop", "cancel", "move", "expel", "hold"),
    "streams": ("leave", "reader raises", "cancel reader"),
    "stops": ("raise", "stop self", *WAYS),
    "supervised": (*CRASHES, "kill", "stop", "hurry", "cancel task", "restart"),
    "storms": ("storm",),
    "nursery": ("raise", "cancelled", "kill", "stop", "hurry"),
    "drains": ("complete", "deadline", "raise"),
    **EXPECTED_OF_PIPELINES,
}
"""The faults of each family: all of them have to happen."""


def same(event: Event) -> list[Event]:
    """Pass an event on."""
    return [(*event, 0)]


def twice(event: Event) -> list[Event]:
    """Make two of one."""
    return [(*event, 0), (*event, 1)]


def some(event: Event) -> list[Event]:
    """Drop one event of three."""
    return [(*event, 0)] if event[1] % 3 else []


def _window(world: World, **options: Any) -> dict[str, Any]:
    most, least = WINDOWS[int(world.draw.random() * len(WINDOWS))]
    mode = world.draw.choice(("permanent", "permanent", "transient", "temporary"))
    return {"max_demand": most, "min_demand": least, "cancel": mode, **options}


def _stage(world: World, kind: str, places: tuple[str, ...]) -> tuple[type[Any], dict[str, Any]]:
    place = world.draw.choice(places)
    plain, asynchronous = STAGES[kind]
    return (asynchronous if place == "task" else plain), {"place": place}


def _route(event: Event) -> int:
    return int(event[1]) % 2


def topology(world: World, places: tuple[str, ...], *, events: int = 30, layers: int = 2) -> None:
    """Draw one or two sources, up to so many layers of middle stages, and one to three consumers."""
    draw = world.draw
    depth = int(draw.random() * (layers + 1))
    world.transforms = [draw.choice((same, same, same, twice, some)) for _ in range(depth)]
    above: list[Slot] = []
    for number in range(draw.choice((1, 1, 2))):
        cls = AsyncSource if "task" in places and draw.random() < 0.3 else Source  # noqa: PLR2004 (some)
        slot = Slot(f"s{number}", cls)
        slot.options = {"total": 1 + int(draw.random() * events), "late": draw.choice((0.0, 0.0, 0.3, 0.8))}
        slot.crashes = False
        above.append(slot)
        world.slots.append(slot)
    for layer in range(depth):
        width = draw.choice((1, 1, 2))
        row: list[Slot] = []
        for number in range(width):
            cls, options = _stage(world, "middle", places)
            row.append(Slot(f"m{layer}{number}", cls, [(up, _window(world)) for up in above], layer=layer, **options))
        above = row
        world.slots += row
    split = len(above) == 1 and draw.random() < 0.25  # noqa: PLR2004 (some)
    if split:
        above[0].options["dispatcher"] = PartitionDispatcher([0, 1], hash=_route)
    for number in range(2 if split else draw.choice((1, 1, 2, 3))):
        cls, options = _stage(world, "sink", places)
        terms = {"partition": number} if split else {}
        world.last.append(Slot(f"c{number}", cls, [(up, _window(world, **terms)) for up in above], **options))
    world.slots += world.last
    for slot in world.slots:
        slot.pace = draw.choice((0.1, 1.0, 1.0, 3.0))
        world.most[slot.name] = slot.options["max_deliveries"] = draw.choice((None, None, 1, 2, 3))
        if not slot.upstream:
            world.source(slot.name, slot.options["total"])


def swarm(world: World, *kinds: str, budget: int = 4) -> None:
    """Draw which faults may happen, how many, and how eager they are; one run in eight has none."""
    draw = world.draw
    if draw.random() < 0.125:  # noqa: PLR2004 (one in eight)
        return
    share = draw.choice((0.3, 0.6, 1.0))
    world.kinds = [kind for kind in kinds if draw.random() < share] or [draw.choice(kinds)]
    world.budget = 1 + int(draw.random() * budget)
    world.rate = draw.choice((0.02, 0.1, 0.3))


async def chain(world: World) -> None:
    """Stages in all places crash, are killed or stopped, and are started again by hand."""
    topology(world, ("inline", "task", "task", "thread"))
    swarm(world, *EXPECTED["chain"])
    await play(world)


async def suspended(world: World) -> None:
    """Everything happens while handlers wait: subscriptions end, stages stop, tasks are cancelled."""
    topology(world, ("task",), events=20)
    for slot in world.slots:
        slot.pace = 3.0
    swarm(world, *EXPECTED["suspended"], budget=6)
    await play(world)


async def requests(world: World) -> None:
    """Calls, waits, subscriptions, stops and starts from outside, most of them cut short."""
    topology(world, ("inline", "task", "thread"), events=20)
    swarm(world, *EXPECTED["requests"], budget=2)
    await play(world, clients=[client(f"k{number}", 6) for number in range(world.draw.choice((1, 2, 3)))])


async def threads(world: World) -> None:
    """Blocking handlers, which nobody can interrupt; they are killed, stopped and left all the same."""
    topology(world, ("thread", "thread", "thread", "task"))
    swarm(world, *EXPECTED["threads"], budget=5)
    await play(world, clients=[client("k0", 3)])


async def iterables(world: World) -> None:
    """Sources over iterables, plain and async, slow and broken: not pulled beyond demand, nothing lost, closed."""
    topology(world, ("inline", "task", "thread"))
    alone = len(world.last[0].upstream) == 1 and not world.transforms  # else a source's end takes others along
    breaks = world.draw.random() < 0.3 and alone  # noqa: PLR2004 (some)
    world.patient = breaks
    feeds = [_feed(world, slot, breaks=breaks) for slot in world.slots if not slot.upstream]
    if not breaks:
        swarm(world, *EXPECTED["iterables"])
    await play(world)
    for feed in feeds:
        if feed.wants_closing and not feed.closed:
            raise world.break_rule("closed", f"the iterator of {feed.slot.name} was not closed")


def _feed(world: World, slot: Slot, *, breaks: bool) -> Feed:
    total = slot.options["total"]
    form = world.draw.choice(("sequence", "plain", "async", "async"))
    breaks = breaks and form != "sequence"
    feed = Feed(world, slot, total, breaks=breaks)
    feed.wants_closing = form == "async"
    if form == "sequence":
        slot.next = total
    place = {"place": world.draw.choice(("inline", "thread"))} if form != "async" else {}

    def make() -> Child:
        iterable: Any = [(slot.name, number) for number in range(total)]
        if form != "sequence":
            iterable = iter(feed) if form == "plain" else feed.slowly()
        return from_iterable(iterable, name=slot.name, max_deliveries=slot.options["max_deliveries"], **place)

    slot.make = make
    return feed


async def streams(world: World) -> None:
    """`stream`: readers come and go in all ways, and every event is read exactly once."""
    topology(world, ("inline", "task", "thread"), layers=1)
    above = world.last[0].upstream
    del world.slots[-len(world.last) :]
    for slot in world.slots:  # no end, no end of the stream
        slot.upstream = [(up, {**options, "cancel": "permanent"}) for up, options in slot.upstream]
    readers = [Slot(f"r{number}", None, _fresh_windows(world, above)) for number in range(world.draw.choice((1, 1, 2)))]
    if world.draw.random() < 0.875:  # noqa: PLR2004 (most)
        world.kinds, world.budget, world.rate = list(EXPECTED["streams"]), 8, world.draw.choice((0.05, 0.2))
    await play(world, clients=[reader(slot) for slot in readers])


def _fresh_windows(world: World, above: list[tuple[Slot, dict[str, Any]]]) -> list[tuple[Slot, dict[str, Any]]]:
    for up, _ in above:
        up.options.pop("dispatcher", None)
    return [(up, _window(world)) for up, _ in above]


async def stops(world: World) -> None:
    """A system is stopped at a random moment, in one of many ways: everybody ends, and the accounts are true."""
    topology(world, ("inline", "task", "thread"), events=60)
    for slot in world.slots:
        slot.pace = world.draw.choice((0.1, 1.0, 10.0, 2000.0))  # the last ones sleep for longer than they may
    swarm(world, "raise", "stop self", budget=1)
    await play_stop(world)


def _permanent(world: World) -> None:
    """Let everybody follow those above: nobody would ever end who does not."""
    world.supervised = True
    for slot in world.slots:
        slot.upstream = [(up, {**options, "cancel": "permanent"}) for up, options in slot.upstream]


async def supervised(world: World) -> None:
    """Stages that crash, are killed or stopped, under trees of supervisors of all strategies."""
    topology(world, ("inline", "task", "thread"))
    _permanent(world)
    for slot in world.slots:
        slot.crashes = True
    swarm(world, *EXPECTED["supervised"])
    faults = {"kill": kill, "stop": stop, "hurry": hurry, "cancel task": cancel_task, "restart": restart}
    await play_supervised(world, tree(world, max_restarts=world.draw.choice((None, None, 3))), faults=faults)


async def storms(world: World) -> None:
    """A stage that cannot be started for long: it is tried ever more rarely, and the others go on."""
    topology(world, ("inline", "task", "thread"), layers=1)
    _permanent(world)
    bad = world.draw.choice([slot for slot in world.slots if slot.upstream])
    storm = Storm(world, bad, until=world.draw.choice((0.1, 1.0, 10.0, 60.0)))
    await play_supervised(world, tree(world, max_restarts=None), faults={}, audits=1.0)
    check_storm(world, storm)


async def nursery(world: World) -> None:
    """`ConsumerSupervisor`: never more children than asked for, every event done or a dead letter."""
    source = Slot("s0", Source, total=1 + int(world.draw.random() * 40), late=world.draw.choice((0.0, 0.3)))
    source.crashes = False
    world.slots.append(source)
    world.most["s0"] = 3
    world.supervised = True
    world.source("s0", source.options["total"])
    kids = Found(world, "kids")
    world.slots.append(kids)
    swarm(world, *EXPECTED["nursery"], budget=6)
    app = Supervisor([recipe(world, source), children(world, kids, source)], max_restarts=None)
    await play_supervised(world, app, faults={"kill": kill, "stop": stop, "hurry": hurry})


async def drains(world: World) -> None:
    """A system is drained at a random moment: what was begun is finished and acknowledged, the rest goes back."""
    topology(world, ("inline", "task", "thread"), events=60)
    _permanent(world)
    for slot in world.slots:
        slot.pace = world.draw.choice((0.1, 1.0, 3.0))
    swarm(world, "raise", "raise late", budget=2)
    await play_drain(world, tree(world, max_restarts=None))


FAMILIES: dict[str, Callable[[World], Coroutine[Any, Any, None]]] = {
    "chain": chain,
    "suspended": suspended,
    "requests": requests,
    "threads": threads,
    "iterables": iterables,
    "streams": streams,
    "stops": stops,
    "supervised": supervised,
    "storms": storms,
    "nursery": nursery,
    "drains": drains,
    **PIPELINES,
}
WORLDS: dict[str, type[World]] = dict.fromkeys(PIPELINES, PipelineWorld)
"""What runs are made of, where it is not a plain `World`."""
