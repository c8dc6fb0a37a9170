"""One run: a system on a virtual loop, what its stages were seen to do, and the rules that it is held to.

Events are tuples: the source's name, a number, and one mark for each middle stage that the event has passed. What led
to an event is therefore a prefix of it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable
from random import Random
from typing import TYPE_CHECKING, Any

from headgate import Child, DeadLetter, HookError, Ref, StageCrashed, Subscription, SubscriptionError, System, To
from headgate.testing.clock import VirtualLoop

if TYPE_CHECKING:
    from headgate.testing.shell.stages import Part

Event = tuple[Any, ...]

LIVENESS = 300.0
"""Virtual seconds within which everything must be done; runs take one or two."""


class Violation(AssertionError):  # noqa: N818 (as in the simulation of the protocol)
    """A rule is broken.

    Attributes:
        rule: Which.
    """

    def __init__(self, rule: str, text: str) -> None:
        """Name the rule and say what was seen."""
        super().__init__(f"{rule}: {text}")
        self.rule = rule


class Boom(Exception):  # noqa: N818 (what an injected fault raises)
    """What handlers raise when they are made to fail."""


class Slot:
    """The recipe of a stage that is started again when it has ended too early.

    Args:
        name: Its name.
        cls: The stage's class; it is given the world and the slot.
        upstream: Slots that it subscribes to, each with the options of `To`.
        options: The options of `Child`.

    Attributes:
        ref: Its current incarnation.
        starts: How often it was started.
        next: The number of the event that it gives next, if it is a source.
        pace: How slow its handlers are.
        make: Makes its recipe in another way.
        hook: Is told of each incarnation when it starts, and may raise.
        crashes: Faults may hit it.
    """

    def __init__(
        self, name: str, cls: type[Any] | None, upstream: Iterable[tuple[Slot, dict[str, Any]]] = (), **options: Any
    ) -> None:
        """Begin with no incarnation."""
        self.name = name
        self.cls = cls
        self.upstream = list(upstream)
        self.options = options
        self.ref: Ref | None = None
        self.starts = 0
        self.crashes = True
        self.pace = 1.0
        self.next = 0  # what a source gives next
        self.gone = False
        self.refused = 0  # the incarnation whose `started` raised last
        self.make: Callable[[], Child] | None = None
        self.hook: Callable[[Any], None] | None = None

    @property
    def living(self) -> Ref | None:
        """Its current incarnation, if that lives."""
        return self.ref if self.ref is not None and self.ref.alive else None

    def over(self, world: World) -> bool:
        """Say whether it has ended and nothing more can come for it."""
        if self.gone:
            return True
        if self.ref is None or self.ref.alive:
            return False
        if self.upstream:
            return all(up.over(world) for up, _ in self.upstream)
        return self.next >= world.given[self.name]

    def to(self, up: Slot, options: dict[str, Any]) -> To:
        """Return the subscription to a slot above."""
        return To(up.name, **options)

    def child(self, world: World) -> Child:
        """Return the recipe, subscribed to those above that live right now."""
        if self.make is not None:
            return self.make()
        assert self.cls is not None  # noqa: S101 (one of the two is given)
        wanted = [self.to(up, options) for up, options in self.upstream if not up.over(world)]
        return Child(self.cls, world, self, name=self.name, subscribe_to=wanted, **self.options)


class World:
    """What a run is made of.

    Args:
        family: Its name.
        seed: Chooses everything that the family leaves open.
        loop: The virtual loop.

    Attributes:
        draw: Random numbers of the topology; ``chance``: of faults; ``user``: of what handlers do.
        slots: The stages; ``last``: those at the end.
        transforms: What becomes of an event on its way, layer by layer.
        kinds: The faults that may happen; ``budget``: how many; ``faults``: those that did.
        calm: True from when on there are no more faults; ``closing``: nobody is started again.
        supervised: A supervisor starts the stages; sources give again what is not done.
        patient: A source may end before all is done (it breaks).
        expected: Outputs that are expected for each event of a source.
        finished: How often handlers at the end have finished each event.
        attempts: How often handlers were given each event.
        returned: How often each event was given back by a consumer that left.
    """

    def __init__(self, family: str, seed: int, loop: VirtualLoop) -> None:
        """Begin with no stage."""
        self.family = family
        self.seed = seed
        self.loop = loop
        self.draw, self.chance, self.user = (Random(seed * 5 + number) for number in range(3))  # noqa: S311
        self.slots: list[Slot] = []
        self.last: list[Slot] = []
        self.transforms: list[Callable[[Event], list[Event]]] = []
        self.kinds: list[str] = []
        self.budget = 0
        self.rate = 0.05
        self.faults: Counter[str] = Counter()
        self.calm = False
        self.closing = False
        self.patient = False
        self.supervised = False
        self.finished: Counter[Event] = Counter()
        self.attempts: Counter[Event] = Counter()
        self.returned: Counter[Event] = Counter()
        self.complete: Counter[str] = Counter()
        self.given: dict[str, int] = {}
        self.most: dict[str, int | None] = {}
        self.reports: list[Exception] = []
        self.log: deque[tuple[Any, ...]] = deque(maxlen=60)
        self.keep_log = False
        self.hash = hashlib.blake2b(digest_size=16)
        self.killed: set[Any] = set()  # drivers
        self.broken: Violation | None = None
        self._single: dict[str, bool] = {}
        self._left: dict[Event, int] = {}
        self._last: dict[tuple[int, Any], tuple[Any, ...]] = {}
        self._system: System | None = None
        self.running: Any = None  # the supervisor

    @property
    def system(self) -> System:
        """The system, once it has begun."""
        assert self._system is not None  # noqa: S101 (the family begins with it)
        return self._system

    @system.setter
    def system(self, system: System) -> None:
        self._system = system

    # -- what happened ------------------------------------------------------------------------------------------------

    def note(self, *what: Any) -> None:
        """Write down that something happened; the digest of a run is over all of these."""
        entry = (round(self.loop.time(), 9), *what)
        self.log.append(entry)
        self.hash.update(repr(entry).encode())

    def digest(self) -> str:
        """Return the digest of the run so far."""
        last = repr((self.loop.steps, round(self.loop.time(), 9), sorted(self.faults.items()))).encode()
        done = self.hash.copy()
        done.update(last)
        return done.hexdigest()

    def break_rule(self, rule: str, text: str) -> Violation:
        """Keep the first violation: stages may swallow what is raised in their handlers."""
        violation = Violation(rule, text)
        if self.broken is None:
            self.broken = violation
            self.note("VIOLATION", str(violation))
        return violation

    def fault(self, *kinds: str) -> str | None:
        """Draw whether one of these faults happens now."""
        if self.calm or self.budget <= 0 or self.chance.random() >= self.rate:
            return None
        possible = [kind for kind in self.kinds if kind in kinds]
        if not possible:
            return None
        kind = possible[int(self.chance.random() * len(possible))]
        self.count(kind)
        return kind

    def count(self, kind: str) -> None:
        """Note that a fault happens."""
        self.budget -= 1
        self.faults[kind] += 1
        self.note("fault", kind)

    def reported(self, error: Exception) -> None:
        """Take what the system reports; only missing producers are expected."""
        self.note("report", type(error).__name__)
        self.reports.append(error)
        cut_off = isinstance(error, StageCrashed) and self.faults["cancel task"]  # its `terminate` was cancelled
        if not isinstance(error, (SubscriptionError, HookError)) and not cut_off:
            self.break_rule("reports", f"{type(error).__name__}: {error}")

    # -- the life of an event -----------------------------------------------------------------------------------------

    def source(self, name: str, total: int) -> None:
        """Expect the outputs of a source."""
        for number in range(total):
            event = (name, number)
            outputs = self.outputs([event])
            self._left[event] = len(outputs)
            if not outputs:
                self.complete[name] += 1
        self.given[name] = total

    def outputs(self, events: Iterable[Event], layer: int = 0) -> list[Event]:
        """Return what is to be handled at the end for these events."""
        found = list(events)
        for transform in self.transforms[layer:]:
            found = [output for event in found for output in transform(event)]
        return found

    def copies(self, event: Event) -> int:
        """Return how often this event may be handed to a handler: once, and once for each time it was given back."""
        returned = self.returned
        return 1 + sum(returned[event[:length]] for length in range(2, len(event) + 1))

    def attempt(self, part: Part, events: Iterable[Event], source: Subscription) -> None:
        """Take note that a handler is given events; check that they may be, and that they are in order.

        Raises:
            Violation: They may not, or are not.
        """
        events = list(events)
        if len(events) > source.terms.max_demand - source.terms.min_demand:
            raise self.break_rule("batch", f"{part.label} got {len(events)} events on {source.terms}")
        self.give(part, events, source.id)

    def give(self, part: Part, events: list[Event], way: int) -> None:
        """Take note that somebody is given events by a subscription of this number.

        Raises:
            Violation: They were given too often already, or they are out of order.
        """
        self.note("given", part.label, way, [event[1] for event in events])
        for event in events:
            self.attempts[event] += 1
            copies = self.copies(event)
            if self.attempts[event] > copies:
                raise self.break_rule("doubled", f"{event} was given {self.attempts[event]} times, may be {copies}")
            if copies == 1 and self.in_order(part.slot):
                key = (way, event[0])
                last = self._last.get(key)
                if last is not None and last >= event:
                    raise self.break_rule("order", f"{part.label} was given {event} after {last}")
                self._last[key] = event

    def in_order(self, slot: Slot) -> bool:
        """Say whether there is only one way from each source to the stages right above this one."""
        known = self._single.get(slot.name)
        if known is None:
            merged = slot.cls is None  # a stream reads from all of them by one way
            known = self._is_single(slot) if merged else all(self._is_single(up) for up, _ in slot.upstream)
            self._single[slot.name] = known
        return known

    def _is_single(self, slot: Slot) -> bool:
        ups = [up for up, _ in slot.upstream]
        return all(not up.upstream for up in ups) or (len(ups) == 1 and self._is_single(ups[0]))

    def finish(self, part: Part, events: Iterable[Event], source: Subscription) -> None:
        """Take note that a handler at the end is done with events."""
        self.note("done", part.label, source.id)
        for event in events:
            part.finished.add((source.id, event))
            self.settle(event)

    def settle(self, event: Event) -> None:
        """Take note that nothing more is to be done for an event that has arrived at the end."""
        self.finished[event] += 1
        if self.finished[event] == 1:
            root = event[:2]
            self._left[root] -= 1
            if not self._left[root]:
                self.complete[root[0]] += 1

    def bury(self, letter: DeadLetter) -> None:
        """Take a dead letter: what would have become of the event is not expected any more."""
        event = letter.event
        self.note("dead letter", letter.stage, letter.consumer, event, letter.deliveries)
        self.faults["dead letter"] += 1
        most = self.most[letter.stage]
        if most is None or letter.deliveries < most or self.returned[event] < letter.deliveries:
            self.break_rule("dead letter", f"{letter.deliveries} deliveries of {event}, expected {most}")
        for output in self.outputs([event], layer=len(event) - 2):
            self.settle(output)
        if self.user.random() < 0.3:  # noqa: PLR2004 (some)
            raise Boom(letter.stage)

    def gave_back(self, subscription: Subscription, pieces: list[Any], in_flight: int) -> None:
        """Take note of what a producer got back from a consumer that left; check that it may."""
        events = [event for batch, _, _ in pieces for event in batch]
        self.note("back", subscription.id, len(events))
        self.returned.update(events)
        driver = subscription.consumer.driver
        most = in_flight if driver.middle or subscription.terms.manual else subscription.terms.max_demand
        if len(events) > in_flight or in_flight > most:
            self.break_rule("in flight", f"{subscription!r} gave {len(events)} back, {in_flight} were in flight")
        finished = getattr(driver.instance, "finished", None)
        if finished and not driver.instance.excused and driver not in self.killed:
            for event in events:
                if (subscription.id, event) in finished and self.copies(event[:-1]) == 1:  # else it was made twice
                    self.break_rule("given back", f"{driver.name} was done with {event}, and gave it back")

    def is_done(self, event: Event) -> bool:
        """Say whether all that was to come of an event of a source has been handled."""
        return not self._left[event]

    def lost(self) -> list[Event]:
        """Return the events of sources that are not done."""
        return [event for event, left in self._left.items() if left]

    async def sleep(self, most: float) -> None:
        """Sleep for some virtual time."""
        await asyncio.sleep(self.user.random() * most)
