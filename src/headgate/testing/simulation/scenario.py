"""What a run is made of: slots (recipes of stages), and the scripts that play the user's part in them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headgate.protocol import messages as m
from headgate.protocol.dispatch.base import Dispatcher
from headgate.protocol.messages import Terms
from headgate.testing.simulation.oracles import UNORDERED

if TYPE_CHECKING:
    from headgate.testing.simulation.world import Event, Site, World

Transform = Callable[[Any], list[Any]]


class Poisoned(Exception):  # noqa: N818 (what a handler raises in the simulation)
    """What a handler raises for an event that nobody can handle."""


RAISES = "raises"
HANGS = "hangs"


class Script:
    """What the handlers of a slot's stages do. It outlives a crash of its stage."""

    def __init__(self) -> None:
        """Start with nothing refused."""
        self.owed = 0
        """Events that its stage was asked for and has not given."""
        self.stock: deque[Event] = deque()
        """Events that were refused since the buffer was full, to be given again."""
        self.bad: dict[Event, str] = {}
        """Events that nobody can handle: `RAISES` or `HANGS`."""

    def run(self, site: Site, name: str, args: tuple[Any, ...]) -> Any:
        """Return what a callback of this name returns."""
        raise NotImplementedError

    def hangs(self, batch: Any) -> bool:
        """Say whether a handler that is given these events will never return."""
        return bool(self.bad) and any(self.bad.get(event) == HANGS for event in batch)

    def check(self, name: str, args: tuple[Any, ...]) -> None:
        """Raise `Poisoned` if a batch has an event that nobody can handle."""
        if self.bad and name == m.HANDLE_EVENTS:
            for event in args[0]:
                if event in self.bad:
                    raise Poisoned(event)

    def given(self) -> list[Event]:
        """Return what was emitted and not refused."""
        return []

    @property
    def left(self) -> int:
        """How many events are still to be given."""
        return 0


class Source(Script):
    """Gives ``total`` events: all that are asked for, or a part, or none now and some later, or too many.

    Args:
        name: The first part of its events.
        total: How many there are.
        part: How often it gives only a part; ``late``: how often nothing now; ``over``: how often too many.
        push: It emits without being asked.
    """

    def __init__(
        self, name: str, total: int, *, part: float = 0.0, late: float = 0.0, over: float = 0.0, push: float = 0.0
    ) -> None:
        """Begin with event 0."""
        super().__init__()
        self.name = name
        self.total = total
        self.next = 0
        self.part = part
        self.late = late
        self.over = over
        self.push = push

    def all(self) -> list[Event]:
        """Return all events that there are."""
        return [(self.name, number) for number in range(self.total)]

    @property
    def left(self) -> int:
        """How many events are still to be given."""
        return self.total - self.next + len(self.stock)

    def given(self) -> list[Event]:
        """Return what was emitted and not refused."""
        refused = set(self.stock)
        return [event for event in ((self.name, number) for number in range(self.next)) if event not in refused]

    def take(self, count: int) -> list[Event]:
        """Take the next events, up to ``count``: first what was refused."""
        events: list[Event] = []
        stock = self.stock
        while stock and len(events) < count:
            events.append(stock.popleft())
        more = min(count - len(events), self.total - self.next)
        if more > 0:
            name, first = self.name, self.next
            self.next = first + more
            events += [(name, number) for number in range(first, self.next)]
        self.owed = max(0, self.owed - len(events))
        return events

    def run(self, site: Site, name: str, args: tuple[Any, ...]) -> Any:
        """Answer a demand in one of the possible ways."""
        if name != m.HANDLE_DEMAND:
            return None
        count = args[0]
        self.owed += count
        x = site.world.user.random()
        if x < self.late:
            return None
        x -= self.late
        if x < self.part:
            count = 1 + int(x / self.part * count)
        elif self.over and x - self.part < self.over:
            count += 1 + int((x - self.part) / self.over * 4)
        return site.note(self.take(count))


class Middle(Script):
    """Turns each event into others; may emit the first of them while its handler still runs."""

    def __init__(self, transform: Transform) -> None:
        """Keep the transformation."""
        super().__init__()
        self.transform = transform

    def outputs(self, events: Iterable[Event]) -> list[Event]:
        """Return what a batch becomes."""
        transform = self.transform
        return [output for event in events for output in transform(event)]

    def run(self, site: Site, name: str, args: tuple[Any, ...]) -> Any:
        """Return the outputs that were not emitted before."""
        self.check(name, args)
        if name != m.HANDLE_EVENTS:
            return None
        if site.rest is not None:
            rest, site.rest = site.rest, None
            return rest
        return site.note(self.outputs(args[0]))

    def begin(self, site: Site) -> bool:
        """Emit a part of the outputs while the handler runs; False when it has done so already, or there are none."""
        name, args = site.callback
        if name != m.HANDLE_EVENTS or site.rest is not None:
            return False
        outputs = site.note(self.outputs(args[0]))
        if not outputs:
            return False
        at = 1 + int(site.world.user.random() * len(outputs))
        site.rest = outputs[at:]
        site.working = True
        site.core.emit(outputs[:at])
        return True


class Sink(Script):
    """Handles events and writes it down."""

    def run(self, site: Site, name: str, args: tuple[Any, ...]) -> Any:
        """Note what was handled."""
        self.check(name, args)
        if name == m.HANDLE_EVENTS:
            site.world.history.handle(site, args[1], args[0])


class Later(Sink):
    """Defers: each event is settled by itself, in any order, when the schedule says so.

    Args:
        share: How often a batch is deferred; else it is done when its handler returns.
        held: An event that is not settled before the liveness phase.
        limit: For subscriptions in manual mode: so many may be asked for and not settled.
    """

    def __init__(self, share: float, held: Event | None, limit: int) -> None:
        """Keep nothing yet."""
        super().__init__()
        self.share = share
        self.held = held
        self.limit = limit
        self.waiting: list[tuple[Site, Any, Event, Any]] = []

    def run(self, site: Site, name: str, args: tuple[Any, ...]) -> Any:
        """Defer a batch, or handle it."""
        if name != m.HANDLE_EVENTS or site.rest is not None:
            return
        if site.world.user.random() < self.share:
            self.begin(site)
            return
        super().run(site, name, args)
        self._ask(site, args[1], len(args[0]))

    def begin(self, site: Site) -> bool:
        """Defer while the handler runs; False when it has been done, or there is nothing to defer."""
        name, args = site.callback
        if name != m.HANDLE_EVENTS or site.rest is not None or not self.share:
            return False
        site.rest = []
        origins = site.core.into.defer()
        self.waiting += [(site, args[1], event, origin) for event, origin in zip(args[0], origins, strict=True)]
        return True

    def settle(self, world: World) -> bool:
        """Settle any of those that wait; False when there is none that may be."""
        ready = [index for index, each in enumerate(self.waiting) if world.healed or each[2] != self.held]
        if not ready:
            return False
        site, edge, event, origin = self.waiting.pop(ready[int(world.user.random() * len(ready))])
        world.trace.append(("settle", site, edge, event))
        site.working = True
        if not site.has_ended:  # else it is given to somebody else
            world.history.handle(site, edge, [event])
        site.core.settled(origin)
        if not site.has_ended:
            self._ask(site, edge, 1)
        world.after(site)
        return True

    @staticmethod
    def _ask(site: Site, edge: Any, count: int) -> None:
        window = site.core.into.windows.get(edge)
        if window is not None and window.manual and window.open and window.asked:
            site.core.ask(edge, count)


@dataclass(eq=False)
class Slot:
    """The recipe of a stage that is started again when it has crashed.

    Attributes:
        name: Its name.
        role: As in the protocol.
        script: Its handlers.
        dispatcher: Makes a fresh dispatcher.
        options: For the core.
        upstream: Slots that it subscribes to, and on what terms.
        defined: The callbacks that it has.
        stuck: Its handler does not return before the liveness phase.
        extra: It joined later and need not come back when it has left.
        steady: It is expected to see everything (a broadcast).
        crashes: It may crash, be killed or stopped.
        key: Event -> what shares an order; None: all of them; UNORDERED: nothing.
        ranked: An oracle for the order in which events leave.
        factor: How many outputs at the end one input here can become.
        retries: Subscriptions that may be tried although they were refused.
        plain: Its core is never the fast lane: it defers.
    """

    name: str
    role: str
    script: Any
    dispatcher: Callable[[], Dispatcher] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    upstream: list[tuple[Slot, Terms]] = field(default_factory=list)
    defined: frozenset[str] = frozenset({m.HANDLE_EVENTS, m.HANDLE_DEMAND})
    stuck: bool = False
    extra: bool = False
    steady: bool = False
    crashes: bool = True
    copies: bool = False
    key: Any = None
    ranked: Any = None
    factor: int = 1
    sinks: list[Slot] = field(default_factory=list)
    site: Any = None
    starts: int = 0
    done: bool = False
    plain: bool = False

    def sites(self, world: World) -> list[Site]:
        """Return all incarnations of the slot."""
        return [site for site in world.sites if site.slot is self]


@dataclass(eq=False)
class Scenario:
    """A topology and the swarm's draw for one run.

    Attributes:
        slots: In the order of their start: producers first.
        transforms: What becomes of an event on its way, in order.
        copies: Every consumer gets its own copy of each event.
        unbroken: A subscription of a broadcast has no gaps.
        faults: Names of the faults that may happen, and their number.
        weights: How eager callbacks, flushes and all else are, next to 1 for a channel.
        lanes: The cores take their fast lane.
        hands: Events and asks go straight into a core that is idle.
        lossy: A source delivers at most once.
        drops: Event -> True for those that are dropped on purpose (a hash that gives none, ...).
    """

    slots: list[Slot]
    transforms: list[Transform] = field(default_factory=list)
    copies: bool = False
    unbroken: bool = True
    faults: list[str] = field(default_factory=list)
    budget: int = 0
    rate: float = 0.05
    weights: tuple[float, float, float] = (1.0, 0.5, 0.5)
    drops: Callable[[Any], bool] | None = None
    factor: int = 1
    lossy: bool = False
    lanes: bool = True
    hands: bool = False
    at_end: Callable[[World], None] | None = None
    before_heal: Callable[[World], None] | None = None

    def outputs(self, events: Iterable[Event]) -> list[Event]:
        """Return what is expected to be handled for these events of a source."""
        drops = self.drops
        found = [event for event in events if drops is None or not drops(event)]
        for transform in self.transforms:
            found = [output for event in found for output in transform(event)]
        return found


__all__ = [
    "HANGS",
    "RAISES",
    "UNORDERED",
    "Later",
    "Middle",
    "Poisoned",
    "Scenario",
    "Script",
    "Sink",
    "Slot",
    "Source",
    "Transform",
]
