"""A world of stages without time, tasks or threads: cores, and the channels between them.

Every message goes through the channel of its (sender, receiver), first in, first out; which channel moves next is free.
A callback stays outstanding until the schedule finishes it. The world only carries out single actions; who chooses them
is the seeded `headgate.testing.simulation.schedule` or the exhaustive search. After each action the oracles look at the
one stage that it touched (`headgate.testing.simulation.oracles`).
"""

# ruff: noqa: SLF001 (a white-box test kit)
# pyright: reportPrivateUsage=false
from __future__ import annotations

from collections import Counter, deque
from random import Random
from typing import TYPE_CHECKING, Any

from headgate.errors import BufferOverflowError, Stop, SubscriptionError
from headgate.protocol import messages as m
from headgate.protocol.lane import LANES
from headgate.protocol.messages import Message, Subscription, Terms
from headgate.protocol.stage import StageCore, refuse
from headgate.testing.simulation import oracles
from headgate.testing.simulation.blame import Blame
from headgate.testing.simulation.history import History
from headgate.testing.simulation.oracles import Violation
from headgate.testing.simulation.scenario import Poisoned

if TYPE_CHECKING:
    from headgate.testing.simulation.scenario import Scenario, Slot

_EVENTS = (m.EVENTS, m.REDELIVERED)
Event = tuple[Any, ...]
"""(source, sequence), and further numbers for what middle stages made of it."""


class Channel:
    """What is on its way from one stage to another, in order."""

    __slots__ = ("at", "messages", "receiver", "sender")

    def __init__(self, sender: Site, receiver: Site) -> None:
        """Start empty."""
        self.sender = sender
        self.receiver = receiver
        self.messages: deque[Message] = deque()
        self.at = -1  # index in World.busy


class Edge(Subscription):
    """A subscription, and what the world has seen go along it.

    Attributes:
        asked: Total of the last ask on its way.
        acked: Total of the last acknowledgement on its way.
        asks: Asks that the producer's core was not given yet.
        sent: Events sent.
        taken: Events that the consumer's core was given.
        stream: The events sent, in order.
        starts: Where in it a message began.
        begun: How many of them the consumer's handler was given.
        first: Emission number of the newest event that went along here before anywhere else, by key.
        at: When that was, by key.
        newest: Place of the last event that went along here again among those that came back with it, by key.
        answers: How often the subscriber was told how the subscription came out.
    """

    __slots__ = (
        "acked",
        "answers",
        "asked",
        "asks",
        "at",
        "begun",
        "first",
        "newest",
        "sent",
        "starts",
        "stream",
        "taken",
    )

    def __init__(self, number: int, producer: Site, consumer: Site, terms: Terms) -> None:
        """Join two sites."""
        super().__init__(number, producer, consumer, terms)
        self.asked = 0
        self.acked = 0
        self.asks = 0
        self.sent = 0
        self.taken = 0
        self.begun = 0
        self.answers = 0
        self.stream: list[Event] = []
        self.starts: set[int] = set()
        self.first: dict[Any, int] = {}
        self.at: dict[Any, int] = {}
        self.newest: dict[Any, int] = {}


class Site:
    """One incarnation of a stage: its core, and the port of that core.

    Attributes:
        callback: The outstanding callback that the world knows of.
        at: Index in ``World.running``, or -1.
        inbound: How many messages are on their way to it.
        working: Its core is at work, so that nothing may enter it.
        emitted: Emission number by event, for all that it emitted and was not refused.
        delivered: Events that it has sent to anybody.
        returned: When events came back from a consumer, and in which order.
        gone: Subscriptions whose consumers have left or are about to.
        infos: Infos given and not handled, oldest first, each with what had to come before it.
        rest: What an inner emission has left of the outputs of the batch in the handler.
        orderly: False when order cannot be judged any more: it got an input again and emitted the same once more, or a
            consumer that it expelled may hand events back after its successor has come.
        steady: Who was subscribed before its first event.
    """

    def __init__(self, world: World, slot: Slot, name: str) -> None:
        """Make the core; it is not started."""
        self.world = world
        self.slot = slot
        self.name = name
        self.channels: dict[Site, Channel] = {}
        self.callback: Any = None
        self.at = -1
        self.inbound = 0
        self.working = False
        self.owes = False
        self.ended_with: Any = None
        self.has_ended = False
        self.edges: list[Edge] = []
        self.emitted: dict[Event, int] = {}
        self.emissions = 0
        self.delivered: set[Event] = set()
        self.returned: dict[Event, tuple[int, int]] = {}
        self.gone: list[Edge] = []
        self.infos: deque[tuple[Any, int, list[tuple[Edge, int]]]] = deque()
        self.orderly = True
        self.steady: set[Any] = set()
        self.rest: list[Event] | None = None
        self.script = slot.script
        dispatcher = slot.dispatcher() if slot.dispatcher is not None else None
        options: dict[str, Any] = slot.options
        if world.healed and options.get("accumulate"):
            options = {**options, "accumulate": False}
        lanes = world.scenario.lanes and not slot.plain
        kind: type[StageCore] = LANES[slot.role] if lanes else StageCore
        self.core: Any = kind(self, slot.role, slot.defined, dispatcher, **options)

    def __repr__(self) -> str:
        """Show the name."""
        return self.name

    # -- the port -----------------------------------------------------------------------------------------------------

    def send(self, to: Site, message: Message) -> None:
        """Put a message on its way."""
        channel = self.channels.get(to)
        if channel is None:
            channel = self.channels[to] = Channel(self, to)
        if not channel.messages:
            busy = self.world.busy
            channel.at = len(busy)
            busy.append(channel)
        channel.messages.append(message)
        to.inbound += 1
        tag = message[0]
        if tag in _EVENTS:
            oracles.sent(self, message[1], message[2])
            self.world.blame.sent(self, message)
        elif tag == m.ASK:
            oracles.asked(self, message)
        elif tag == m.CANCEL:
            oracles.left(self, message)

    def hand(self, to: Site, message: Message) -> None:
        """Put events on their way; a scenario may say that an idle receiver has them at once, as a node does."""
        self.send(to, message)
        world = self.world
        if world.scenario.hands and to.inbound == 1 and not to.working and to.callback is None and not to.has_ended:
            world.deliver(self.channels[to])

    def ask(self, to: Site, message: Message) -> None:
        """Put an ask on its way; where `hand` is the short one, a middle stage takes it while its handler runs, too."""
        self.send(to, message)
        world = self.world
        if not world.scenario.hands or to.inbound != 1 or to.working or to.has_ended:
            return
        if to.callback is None or to.core.role == m.PRODUCER_CONSUMER:
            world.deliver(self.channels[to])

    def reply(self, token: Any, value: Any, error: BaseException | None) -> None:  # noqa: ARG002 (the port's form)
        """Count the answers of a call."""
        self.world.answered[token] += 1
        if self.world.answered[token] > 1:
            raise Violation("call-twice", f"{self} answered call {token} twice")

    def subscribed(self, subscription: Any, error: BaseException | None) -> None:  # noqa: ARG002 (the port's form)
        """Count the answers of a subscription: there may be a second when it was cancelled meanwhile."""
        subscription.answers += 1

    def owe(self) -> None:
        """Let the schedule flush at any later moment."""
        if not self.owes:
            self.owes = True
            self.world.owing.append(self)

    def report(self, error: Exception) -> None:
        """Take back what the buffer refused; all else is expected of the faults that are on."""
        if isinstance(error, BufferOverflowError):
            self.take_back(error)
        elif not isinstance(error, SubscriptionError):
            self.world.reports[type(error).__name__] += 1

    def warn(self, text: str) -> None:
        """Ignore warnings."""

    def shuffle(self, items: list[Any]) -> None:
        """Shuffle by the schedule."""
        self.world.user.shuffle(items)

    def spill(self, name: str) -> Store:  # noqa: ARG002 (the port's form)
        """Open a store."""
        return Store()

    def lost(self, subscription: Subscription, error: BaseException | None) -> bool:  # noqa: ARG002 (the port's form)
        """Wait for nobody: the schedule restarts stages."""
        return False

    def bury(self, letter: m.DeadLetter, token: Any) -> None:
        """Keep a dead letter; the schedule says when it is safe."""
        self.world.blame.buried(self, letter, token)

    def ended(self, reason: Any) -> None:
        """Note the end."""
        if self.has_ended:
            raise Violation("ended-twice", f"{self} ended twice")
        self.has_ended = True
        self.ended_with = reason
        oracles.ended(self)

    # -- helpers ------------------------------------------------------------------------------------------------------

    def note(self, events: list[Event]) -> list[Event]:
        """Number events that are about to be emitted."""
        emitted, number = self.emitted, self.emissions
        if not number and self.core.out is not None:
            self.steady = set(self.core.out.subscribers)
        for event in events:
            if event in emitted:
                self.orderly = False
            emitted[event] = number
            number += 1
        self.emissions = number
        return events

    def take_back(self, error: BufferOverflowError) -> None:
        """Keep refused events for another time."""
        for event in error.refused:
            del self.emitted[event]
            self.delivered.discard(event)  # whatever came of it before, it is new when it is given again
        self.script.stock.extend(error.refused)
        self.world.returned += len(error.refused)

    def emit(self, events: list[Event]) -> None:
        """Emit from outside or from inside of a callback."""
        self.note(events)
        try:
            self.core.emit(events)
        except BufferOverflowError as error:
            self.take_back(error)


class Store:
    """A spill store."""

    def __init__(self) -> None:
        """Start empty."""
        self._batches: deque[Any] = deque()

    def append(self, batch: Any) -> None:
        """Add at the end."""
        self._batches.append(batch)

    def popleft(self) -> Any:
        """Take the oldest."""
        return self._batches.popleft()

    def __iter__(self) -> Any:
        """Show the batches, for the oracles."""
        return iter(self._batches)


class World:
    """All sites and channels of one run.

    Args:
        scenario: The slots, and what is expected of them.
        seed: For the user's and the faults' choices; the schedule has its own.

    Attributes:
        busy: Channels with messages.
        running: Sites with an outstanding callback that may end.
        owing: Sites that have asked to be flushed.
        healed: True in the liveness phase: no more faults, everything moves.
        allowed: How many events may be handled once more, for crashes of middle stages so far.
        excused: Events that were lost with the source that emitted them.
        blame: Which events handlers have failed with.
        hung: Sites whose handler will never return.
        clock: Counts batches sent and consumers gone, to tell what was before what.
        kept: What drained sources have not sent.
    """

    def __init__(self, scenario: Scenario, seed: int, *, tail: int = 60) -> None:
        """Start every slot."""
        self.scenario = scenario
        self.seed = seed
        self.user = Random(seed * 4 + 1)  # noqa: S311 (chance for tests)
        self.chance = Random(seed * 4 + 2)  # noqa: S311 (chance for tests)
        self.busy: list[Channel] = []
        self.running: list[Site] = []
        self.owing: list[Site] = []
        self.sites: list[Site] = []
        self.edges = 0
        self.calls = 0
        self.answered: Counter[int] = Counter()
        self.blame = Blame()
        self.hung: list[Site] = []
        self.kept: set[Event] = set()
        self.reports: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.returned = 0
        self.steps = 0
        self.clock = 0
        self.healed = False
        self.allowed = 0
        self.excused: set[Event] = set()
        self.history = History()
        self.trace: deque[tuple[Any, ...]] = deque(maxlen=tail)
        self.outside = Outside()
        for slot in scenario.slots:
            if slot.extra:
                slot.site = NOBODY
            else:
                self.start(slot)

    # -- actions ------------------------------------------------------------------------------------------------------

    def start(self, slot: Slot) -> Site:
        """Start a slot, or start it again, and subscribe it to the living sites that it wants."""
        slot.starts += 1
        slot.script.owed = 0
        name = slot.name if slot.starts == 1 else f"{slot.name}#{slot.starts}"
        site = slot.site = Site(self, slot, name)
        self.sites.append(site)
        self.trace.append(("start", site))
        site.working = True
        site.core.start()
        self.after(site)
        for up, terms in slot.upstream:
            if not up.done and up.site is not None and not up.site.has_ended and not site.has_ended:
                self.subscribe(site, up.site, terms)
        return site

    def subscribe(self, site: Site, producer: Site, terms: Terms) -> Edge:
        """Begin a subscription."""
        self.edges += 1
        edge = Edge(self.edges, producer, site, terms)
        site.edges.append(edge)
        self.trace.append(("subscribe", site, edge))
        site.working = True
        site.core.subscribe(edge)
        self.after(site)
        return edge

    def deliver(self, channel: Channel) -> None:
        """Give the next message of a channel to its receiver."""
        messages = channel.messages
        message = messages.popleft()
        if not messages:
            busy = self.busy
            last = busy.pop()
            if last is not channel:
                busy[channel.at] = last
                last.at = channel.at
        site = channel.receiver
        site.inbound -= 1
        self.trace.append(("deliver", channel.sender, site, message))
        tag = message[0]
        if tag in _EVENTS:
            message[1].taken += len(message[2])
        elif tag == m.ASK:
            message[1].asks -= 1
        elif tag == m.INFO:
            oracles.info_given(site, message[1])
        if site.has_ended:
            refuse(site, message)
        else:
            unknown = tag == m.CANCEL and message[2].reason == "unknown_subscription"  # it has come back before
            if tag in (m.CANCEL, m.CLOSED) and not unknown:
                oracles.back(site, message[1])
            elif tag == m.KILL:
                self.blame.failed(site, message[1])
            site.working = True
            site.core.receive(message)
            self.after(site)

    def post(self, site: Site, message: Message) -> None:
        """Send a message from outside of all stages."""
        self.outside.post(self, site, message)

    def finish(self, site: Site) -> None:
        """Let the outstanding callback of a site return."""
        name, args = site.callback
        site.working = True
        try:
            value = site.script.run(site, name, args)
        except Poisoned as error:
            self.fail(site, error)
            return
        self.trace.append(("return", site, name))
        site.core.returned(value)
        self.after(site)

    def fail(self, site: Site, error: BaseException) -> None:
        """Let the outstanding callback of a site raise."""
        self.trace.append(("raise", site, site.callback[0], error))
        if not isinstance(error, Stop):
            self.blame.failed(site, error)
        site.rest = None
        site.working = True
        site.core.failed(error)
        self.after(site)

    def kill(self, site: Site, reason: str = "killed") -> None:
        """Kill a site at once."""
        self.trace.append(("kill", site, reason, site.callback))
        self.blame.failed(site, reason)
        site.working = True
        site.core.receive((m.KILL, reason))
        self.after(site)

    def pause(self, site: Site, *, on: bool) -> None:
        """Pause a site, or let it go on."""
        self.trace.append(("pause" if on else "resume", site))
        site.working = True
        if on:
            site.core.pause()
        else:
            site.core.resume()
        self.after(site)

    def flush(self, site: Site) -> None:
        """Let a site give the acknowledgements that it owes."""
        self.trace.append(("flush", site))
        self.owing.remove(site)
        site.owes = False
        site.working = True
        site.core.flush()
        self.after(site)

    def safe(self, index: int) -> None:
        """Let a dead letter be kept."""
        site, event, token = self.blame.unsafe.pop(index)
        self.trace.append(("safe", site, event))
        site.working = True
        site.core.safe(token)
        self.after(site)

    def after(self, site: Site) -> None:
        """Note what an action has changed at a site, and look at it."""
        site.working = False
        callback = site.core.callback
        if callback is not site.callback:
            site.callback = callback
            if site in self.hung:
                self.hung.remove(site)
            if callback is None:
                if site.at >= 0:
                    self._halt(site)
            else:
                site.rest = None
                self._run(site, callback)
                oracles.begun(site, callback)
        oracles.look(site)

    def _run(self, site: Site, callback: Any) -> None:
        """Let a callback be outstanding; it may be one that will not return, or not for now."""
        events = callback[0] == m.HANDLE_EVENTS
        if events and site.script.hangs(callback[1][0]):
            self.hung.append(site)
            if site.at >= 0:
                self._halt(site)
        elif site.at < 0 and (self.healed or not site.slot.stuck or not events):
            site.at = len(self.running)
            self.running.append(site)

    def heal(self) -> None:
        """Begin the liveness phase: nothing stays stuck or held back."""
        self.healed = True
        self.trace.append(("heal",))
        for site in self.sites:
            if site.callback is not None and site.at < 0 and site not in self.hung:
                site.at = len(self.running)
                self.running.append(site)
            out = site.core.out
            if site.has_ended:
                continue
            if site.core.paused:
                self.pause(site, on=False)
            if out is not None and out.accumulating and not site.core._draining:
                site.working = True
                site.core.set_demand("forward")
                self.after(site)

    def _halt(self, site: Site) -> None:
        running = self.running
        last = running.pop()
        if last is not site:
            running[site.at] = last
            last.at = site.at
        site.at = -1


class _Core:
    """The core of a stage that was not started yet."""

    into = out = None
    state = "ended"


class Nobody:
    """The site of a slot that was not started yet."""

    has_ended = True
    core = _Core()
    edges: tuple[Edge, ...] = ()


NOBODY = Nobody()


class Outside:
    """The sender of what comes from outside of all stages."""

    def __init__(self) -> None:
        """Start with no channel."""
        self.name = "outside"
        self._channels: dict[Site, Channel] = {}

    def __repr__(self) -> str:
        """Show the name."""
        return self.name

    def post(self, world: World, site: Site, message: Message) -> None:
        """Put a message on its way."""
        channel = self._channels.get(site)
        if channel is None:
            channel = self._channels[site] = Channel(self, site)  # type: ignore[arg-type]  # only its name is used
        if not channel.messages:
            channel.at = len(world.busy)
            world.busy.append(channel)
        channel.messages.append(message)
        site.inbound += 1
