"""What one worker does: operators and reducers in a row, from the events that it gets to what it has for others. Pure.

A `Program` is fed batches and gives spreads. It knows nothing of stages, loops and processes: time comes in as ``now``.
Its description (`ProgramSpec`) is frozen data plus the user's functions, and is sent to where the worker runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from headgate.errors import DispatchError, FlowError
from headgate.flow.exchange import CLERK, Packet, Spread
from headgate.flow.fusing import blame, failure
from headgate.flow.keys import Partitioner
from headgate.flow.operators import MAP_BATCHES, Element, failed
from headgate.protocol.batching import rows

if TYPE_CHECKING:
    from headgate.flow.event_time import EventTime

SAMPLES: Final = 5
"""Events of each operator that are shown among those it has skipped."""

Key = Callable[[Any], Any] | None


@dataclass(frozen=True)
class Route:
    """Where the results of a layer go.

    Attributes:
        name: Of the layer that they go to.
        lanes: How many workers that has.
        by_key: Each event to the worker of its key; else a batch to each in turn.
        key: Event -> key; None: the event itself.
        hash: Instead: event -> number of the worker.
        where: Which operator wants it so, for errors.
        watermark: The windows of the next layer, and whether its input is known to end, if it needs to be told how
            far event time has come; else None.
    """

    name: str
    lanes: int
    by_key: bool = False
    key: Key = None
    hash: Callable[[Any], Any] | None = None
    watermark: Any = None
    where: str = ""

    def names(self) -> list[tuple[str, int]]:
        """Return the names of its lanes."""
        return [(self.name, index) for index in range(self.lanes)]


class Origin(NamedTuple):
    """Where a batch comes from.

    Attributes:
        port: Which input of the layer: ``"in"``, or of a join ``"left"`` and ``"right"``.
        source: Who has sent it, for watermarks.
        watermark: How far event time has come there, or None.
        about: What else it belongs to.
        now: The time when it came.
    """

    port: str = "in"
    source: Any = None
    watermark: Any = None
    about: Any = None
    now: float = 0.0


class Step:
    """One part of a program that is at work."""

    elements: tuple[Element, ...] = ()
    """The operators in it, for whoever looks for the one that has raised."""

    def feed(self, events: Any, origin: Origin, now: float) -> Any:
        """Take a batch in; return what goes on, as anything to iterate over."""
        raise NotImplementedError

    def opened(self, origin: Origin, now: float) -> None:
        """Take note that a source is there from which something may come."""

    def ended(self, origin: Origin, now: float) -> Any:  # noqa: ARG002 (a hook)
        """Take note that nothing more comes from a source; return what goes on."""
        return ()

    def tick(self, now: float) -> Any:  # noqa: ARG002 (a hook)
        """Take note of the time; return what goes on."""
        return ()

    def call(self, name: Any, now: float) -> Any:  # noqa: ARG002 (a hook)
        """Fire a trigger by hand; return what goes on."""
        return ()

    def done(self, now: float) -> Any:  # noqa: ARG002 (a hook)
        """Take note that nothing more comes at all; return what goes on."""
        return ()

    def take_about(self) -> Any:
        """Return what belongs to all that was just returned, or None."""
        return None


class Holding(Step):
    """A last step that keeps what it takes in, to give it away in one piece."""

    def full(self) -> bool:
        """Whether it should let go of what it holds, since it has much and gains little by holding on."""
        raise NotImplementedError

    def flush(self) -> list[Any]:
        """Return what it holds, and start anew."""
        raise NotImplementedError


class StepSpec:
    """The description of a step. It has a ``where``: what errors and plans call it."""

    def begin(self, program: Program) -> Step:
        """Make it."""
        raise NotImplementedError

    def describe(self) -> str:
        """Return what plans call it."""
        return str(getattr(self, "where", ""))


@dataclass(frozen=True)
class ProgramSpec:
    """The description of a program.

    Attributes:
        name: Of its layer.
        steps: What is done, in order.
        routes: Where the results go: all of them to each.
        total: How many workers do this.
        bounded: Its input is known to end.
        reports: Seconds between two reports of what it has read, for whoever watches; None: only at the end.
        recovers: Others do again what a worker had when it dies, so it has to be known what has arrived.
    """

    name: str
    steps: tuple[StepSpec, ...] = ()
    routes: tuple[Route, ...] = ()
    total: int = 1
    bounded: bool = True
    reports: float | None = None
    recovers: bool = False

    def lanes(self) -> tuple[Any, ...]:
        """Return the names of all lanes of its results."""
        return (*(lane for route in self.routes for lane in route.names()), CLERK)

    def begin(self, index: int) -> Program:
        """Make the program of one worker."""
        return Program(self, index)


@dataclass
class Report:
    """What a worker has to tell since the last time.

    Attributes:
        layer: Its layer.
        index: Which of its workers.
        read: Events of its sources that it has read.
        volume: Bytes of them, where they come from files.
        emitted: Events that it has given to the next layer.
        skipped: By operator: how many events it has left out, and some of them as (event, error).
        late: Events of windows that were late.
        sides: By side output: what goes there.
        gauges: Other numbers of its steps, by name.
    """

    layer: str
    index: int
    read: int = 0
    volume: int = 0
    emitted: int = 0
    skipped: dict[str, tuple[int, list[tuple[Any, str]]]] = field(default_factory=dict)
    late: int = 0
    sides: dict[int, list[Any]] = field(default_factory=dict)
    gauges: dict[str, Any] = field(default_factory=dict)
    done: dict[int, int] = field(default_factory=dict)
    """By source: how much of the work that it was handed is in what it has emitted."""


class Program:
    """One worker's program.

    Attributes:
        spec: What it was made from.
        index: Which of the workers it is.
        report: What is to be told.
        holding: Its last step, if that keeps what it takes in.
    """

    def __init__(self, spec: ProgramSpec, index: int) -> None:
        """Make the steps."""
        self.spec = spec
        self.index = index
        self.report = Report(spec.name, index)
        self._told = 0.0
        self._steps = [each.begin(self) for each in spec.steps]
        last = self._steps[-1] if self._steps else None
        self.holding: Holding | None = last if isinstance(last, Holding) else None
        self._routes = [_Router(route, spec.name, index) for route in spec.routes]
        self._timed = [i for i, step in enumerate(self._steps) if type(step).tick is not Step.tick]

    # -- what comes in ------------------------------------------------------------------------------------------------

    def feed(self, events: Any, origin: Origin, now: float) -> None:
        """Take a batch in. What it has for others then is to be taken by `take`."""
        self._run(0, events, origin, now)

    def opened(self, origin: Origin, now: float) -> None:
        """Take note of a source."""
        for step in self._steps:
            step.opened(origin, now)
        for router in self._routes:
            router.opened(origin, now)

    def ended(self, origin: Origin, now: float) -> None:
        """Take note that a source has nothing more."""
        for at, step in enumerate(self._steps):
            events = self._guarded(step, step.ended, origin, now)
            self._pass_on(at, events, origin, now)
        for router in self._routes:
            router.ended(origin)

    def tick(self, now: float) -> None:
        """Take note of the time."""
        for at in self._timed:
            step = self._steps[at]
            self._pass_on(at, self._guarded(step, step.tick, now), Origin(), now)

    def call(self, name: Any, now: float) -> None:
        """Fire a trigger by hand."""
        for at, step in enumerate(self._steps):
            self._pass_on(at, self._guarded(step, step.call, name, now), Origin(), now)

    def done(self, now: float) -> None:
        """Take note that nothing more comes."""
        for at, step in enumerate(self._steps):
            self._pass_on(at, self._guarded(step, step.done, now), Origin(), now)

    def flush(self, now: float, done: dict[int, int]) -> list[Spread]:
        """Let go of what the last step holds.

        Args:
            now: The time.
            done: By source: how much of the work that it was handed is in this.

        Returns:
            A spread for each part of it.
        """
        spreads: list[Spread] = []
        for part in self.holding.flush() if self.holding is not None else ():
            self._send([part], Origin())
            spreads += self.take(now, done=done)
        return spreads

    # -- what goes out ------------------------------------------------------------------------------------------------

    def take(self, now: float, *, last: bool = False, done: dict[int, int] | None = None) -> list[Spread]:
        """Return what there is for others since the last time: one spread, or nothing.

        Args:
            now: The time.
            last: Tell everything that is to be told.
            done: By source: how much of the work that it was handed is in this.
        """
        packets: dict[Any, Packet] = {}
        for router in self._routes:
            router.take(packets)
        report, every = self.report, self.spec.reports
        due = every is not None and now - self._told >= every
        if last or due or report.sides or (packets and done and self.spec.recovers):
            self._told = now
            report.done = dict(done or {})
            for at, step in enumerate(self._steps):
                gauges = getattr(step, "gauges", None)
                if gauges is not None:
                    report.gauges.update({f"{name} of {at}": value for name, value in gauges().items()})
            # First of all: what has arrived without being reported would be done again, unnoticed.
            packets = {CLERK: Packet([report]), **packets}
            self.report = Report(self.spec.name, self.index)
        return [Spread(packets)] if packets else []

    def skipped(self, operator: Element, event: Any, error: Exception) -> None:
        """Count an event that an operator has failed with."""
        skipped = self.report.skipped
        count, samples = skipped.get(operator.where, (0, []))
        if len(samples) < SAMPLES:
            samples.append((event, f"{type(error).__name__}: {error}"))
        skipped[operator.where] = (count + 1, samples)
        if operator.number >= 0:
            self.aside(operator.number, [failure(operator, event, error)])

    def aside(self, number: int, events: list[Any]) -> None:
        """Send events to a side output."""
        if number >= 0 and events:
            self.report.sides.setdefault(number, []).extend(events)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _run(self, at: int, events: Any, origin: Origin, now: float) -> None:
        """Lead a batch through the steps from ``at`` on. They may be lazy: what raises may be any of them."""
        steps, first = self._steps, at
        batch = events
        elements: tuple[Element, ...] = ()
        iterator: Iterator[Any] | None = None
        try:
            while at < len(steps):
                step = steps[at]
                if step.elements:
                    if iterator is None and step.elements[0].kind != MAP_BATCHES:
                        events = iterator = iter(rows(events))
                    elements += step.elements
                events = step.feed(events, origin, now)
                about = step.take_about()
                if about is not None:
                    origin = origin._replace(about=about)
                at += 1
            if type(events) is not list and not hasattr(events, "__len__"):
                events = list(events)
        except Exception as error:
            raise self._blame(error, elements, batch, iterator, first, at) from error
        self._send(events, origin)

    def _pass_on(self, at: int, events: Any, origin: Origin, now: float) -> None:
        if hasattr(events, "__len__") and not len(events):
            return
        step = self._steps[at]
        about = step.take_about()
        self._run(at + 1, events, origin if about is None else origin._replace(about=about), now)

    def _guarded(self, step: Step, function: Callable[..., Any], *args: Any) -> Any:
        try:
            events = function(*args)
            return events if hasattr(events, "__len__") else list(events)
        except Exception as error:
            raise self._own(step, error) from error

    def _send(self, events: Any, origin: Origin) -> None:
        self.report.emitted += len(events)
        for router in self._routes:
            router.put(events, origin)

    def _blame(
        self, error: Exception, elements: tuple[Element, ...], batch: Any, iterator: Any, first: int, at: int
    ) -> Exception:
        """Return the error that names the operator."""
        found = blame(elements, batch, iterator, error)
        if found is not error:
            return found
        at = min(at, len(self._steps) - 1)
        steps = [each for each in self._steps[first : at + 1] if not each.elements] or self._steps[at : at + 1]
        return self._own(steps[-1], error) if steps else error

    def _own(self, step: Step, error: Exception) -> Exception:
        """Return the error of a step that is no element-wise operator."""
        if isinstance(error, FlowError):
            return error
        where = getattr(self.spec.steps[self._steps.index(step)], "where", "")
        return failed(where or type(step).__name__, getattr(error, "event", None), error)


class _Router:
    """Puts results into the lanes of one route."""

    def __init__(self, route: Route, layer: str, index: int) -> None:
        self._route = route
        self._names = route.names()
        self._source = (layer, index)
        self._next = index % route.lanes
        self._partitioner = Partitioner(route.lanes) if route.by_key and route.lanes > 1 else None
        self._lanes: list[list[Packet]] = [[] for _ in self._names]
        self._ours: set[int] = set()  # lists that are in no other lane
        self._time: EventTime | None = None
        if route.watermark is not None:
            from headgate.flow.event_time import EventTime  # noqa: PLC0415 (most workers have no use for it)

            spec, bounded = route.watermark
            self._time = EventTime(spec, spec.where, bounded=bounded)
        self._behind = False  # the watermark has moved since it was sent

    def put(self, events: Any, origin: Origin) -> None:
        """Sort events into lanes."""
        if not len(events):
            return
        if self._time is not None:
            self._watch(self._time, events, origin)
        if self._partitioner is None and self._route.hash is None:
            lane = 0
            if len(self._lanes) > 1:  # in turn
                lane = self._next
                self._next = (lane + 1) % len(self._lanes)
            self._add(lane, events, origin)
            return
        events = rows(events)
        for lane, part in enumerate(self._split(events)):
            if part:
                self._add(lane, part, origin)

    def _split(self, events: Any) -> list[list[Any]]:
        route = self._route
        if route.hash is not None:
            lanes: list[list[Any]] = [[] for _ in self._names]
            for event in events:
                self._put_by_hash(route.hash, event, lanes)
            return lanes
        assert self._partitioner is not None  # noqa: S101 (there is a key)
        keys = events if route.key is None else self._keys(route.key, events)
        return self._partitioner.split(events, keys)

    def _put_by_hash(self, hash: Callable[[Any], Any], event: Any, lanes: list[list[Any]]) -> None:  # noqa: A002
        try:
            where = hash(event)
        except Exception as error:
            raise failed(self._route.where, event, error) from error
        if where is None:
            return
        if isinstance(where, bool) or not isinstance(where, int) or not 0 <= where < len(lanes):
            expected = f"a number from 0 to {len(lanes) - 1}, or None"
            raise failed(self._route.where, event, DispatchError(self._source[0], "hash", expected, repr(where), event))
        lanes[where].append(event)

    def _keys(self, read: Callable[[Any], Any], events: Any) -> list[Any]:
        keys: list[Any] = []
        try:
            keys.extend(map(read, events))  # keeps what came before the one that raises
        except Exception as error:
            event = next(event for at, event in enumerate(events) if at == len(keys))
            raise failed(self._route.where, event, error) from error
        return keys

    def _add(self, lane: int, events: Any, origin: Origin) -> None:
        packets = self._lanes[lane]
        if packets:
            last = packets[-1]
            if type(last.events) is list and type(events) is list and last.about is origin.about:
                if id(last.events) not in self._ours:  # it may be in other lanes as well
                    last = packets[-1] = last._replace(events=last.events.copy())
                    self._ours.add(id(last.events))
                last.events.extend(events)
                return
        packets.append(Packet(events, self._source, None, origin.about))

    def take(self, packets: dict[Any, Packet]) -> None:
        """Move what there is into a spread."""
        watermark = self._time.shown_watermark() if self._time is not None and self._behind else None
        for name, lane in zip(self._names, self._lanes, strict=True):
            if watermark is not None:
                lane.append(lane.pop()._replace(watermark=watermark) if lane else Packet([], self._source, watermark))
            if lane:
                packets[name] = lane[0] if len(lane) == 1 else Packet(list(lane), about=_SEVERAL)
                lane.clear()
        self._ours.clear()
        self._behind = False

    def opened(self, origin: Origin, now: float) -> None:
        """Take note of a source."""
        if self._time is not None:
            self._time.watermarks.open(origin.source, now)

    def ended(self, origin: Origin) -> None:
        """Take note that nothing more comes from a source."""
        if self._time is not None:
            before = self._time.watermarks.value
            self._time.watermarks.end(origin.source)
            self._behind = self._behind or self._time.watermarks.value > before

    def _watch(self, time: EventTime, events: Any, origin: Origin) -> None:
        """See how far event time has come."""
        marks = time.watermarks
        before = marks.value
        course = marks.look(origin.source, events, time.read(events))
        marks.take(origin.source, course.own, origin.now)
        self._behind = self._behind or marks.value > before


_SEVERAL: Final = "several packets"


def unpack(packet: Packet) -> list[Packet]:
    """Return the packets that one stands for."""
    return packet.events if packet.about == _SEVERAL else [packet]
