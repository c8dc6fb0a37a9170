"""A flow that runs: its stages under one supervisor, and what happens when one of them ends."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from headgate.errors import (
    CrossingError,
    FlowError,
    FlowInterruptedError,
    HeadgateError,
    OperatorError,
    OptionError,
    StageCrashed,
    WorkerLostError,
    short,
)
from headgate.flow.graph import Node
from headgate.flow.placing import plan_of
from headgate.flow.plan import OUT, Layer, Plan
from headgate.flow.program import SAMPLES, Report
from headgate.flow.stages import Stages
from headgate.flow.timed import Joining, Windowing_
from headgate.flow.times import in_seconds
from headgate.flow.triggers import Periodically, Trigger
from headgate.flow.windows import EventTimeSpec, PeriodicSpec
from headgate.flow.workers import FIRE, MISS, TICK
from headgate.protocol.messages import NORMAL, is_normal
from headgate.runtime.options import Child, To
from headgate.runtime.reference import Ref
from headgate.supervision.running import Supervision
from headgate.supervision.supervisor import Supervisor

if TYPE_CHECKING:
    from headgate.system import System

SHORTEST_TICK: Final = 0.005
TICKS: Final = 10
"""How often windows look at the clock within the shortest of their times: so late a trigger may be at most."""

REMEDY: Final = 'To keep the flow in this process: options(place="inline")'

_numbers = itertools.count(1)


@dataclass
class FlowStatistics:
    """What a run of a flow has done, true at this moment as far as workers have told.

    Attributes:
        read: Events that were read from sources.
        volume: Bytes that were read from files.
        emitted: By layer: events that it has given to the next.
        skipped: By operator: how many events were left out since it has failed with them.
        samples: By operator: some of these events, each with its error.
        late: Events that were late for their windows.
        lost: Workers that were lost, and whose work others have done again.
        gauges: By layer and worker: what its steps (numbered from 0) hold, as far as it has been told. ``"windows of
            0"`` are open, with ``"accumulated of 0"`` accumulators, one for each window and key; ``"watermark of 0"``
            is how far event time has come (None: not known yet).
        restarts: How often all of it was done again from the beginning.
        seconds: How long it took, when it is over.
    """

    read: int = 0
    volume: int = 0
    emitted: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[tuple[Any, str]]] = field(default_factory=dict)
    late: int = 0
    lost: int = 0
    gauges: dict[str, dict[str, Any]] = field(default_factory=dict)
    restarts: int = 0
    seconds: float = 0.0

    def take(self, report: Report) -> None:
        """Add what a worker tells."""
        self.read += report.read
        self.volume += report.volume
        self.late += report.late
        self.emitted[report.layer] = self.emitted.get(report.layer, 0) + report.emitted
        for operator, (count, samples) in report.skipped.items():
            self.skipped[operator] = self.skipped.get(operator, 0) + count
            kept = self.samples.setdefault(operator, [])
            kept.extend(samples[: SAMPLES - len(kept)])
        if report.gauges:
            self.gauges[f"{report.layer}[{report.index}]"] = report.gauges


class FlowApp(Supervisor):
    """The recipe of a running flow: an app, as a `Supervisor` is one, and a child of supervisors.

    Made by `Flow.app`.

    Args:
        node: The end of the flow.
        workers: How many a layer has; None: see `Flow.options`.
        place: Where they run; None: see `Flow.options`.
        name: What its results can be subscribed to by; also the name of the app.
        id: Names it among its siblings.
        restart: For the supervisor above.
        shutdown: Seconds for stopping.
        demand: ``"forward"``, or ``"accumulate"``: nothing flows before `FlowRun.forward`.
        consume: ``"drain"`` (default): results go where the flow says, or nowhere; ``"stages"``: they wait for whoever
            subscribes; or a function that gets them in batches.
        watch: Seconds between two reports of the workers; None: they report at the end.
    """

    def __init__(  # noqa: PLR0913 (each is a choice of its own)
        self,
        node: Node,
        *,
        workers: int | None = None,
        place: Any = None,
        name: str | None = None,
        id: str | None = None,  # noqa: A002 (the field's word)
        restart: str = "permanent",
        shutdown: float = 30.0,
        demand: str = "forward",
        consume: str | Callable[[Any], Any] = "drain",
        watch: float | None = None,
    ) -> None:
        """Plan it, so that what cannot be built is known at once."""
        super().__init__([], name=name, id=id or name or "flow", restart=restart, shutdown=shutdown)
        if demand not in ("forward", "accumulate"):
            raise OptionError(self.where, "demand", "'forward' or 'accumulate'", demand)
        if watch is not None and (isinstance(watch, bool) or not isinstance(watch, (int, float)) or not watch > 0):
            raise OptionError(self.where, "watch", "a number of seconds above 0, or None", watch)
        self.auto_shutdown = True
        self.node = node
        self.workers = workers
        self.place = place
        self.demand = demand
        self.consume = consume
        self.watch = watch
        self.plan = plan_of(node, workers=workers, place=place)

    def names(self) -> Iterator[str]:
        """Return the name of the stage that has the results."""
        if self.name is not None:
            yield self.name

    def supervise(self, system: System, path: tuple[str, ...]) -> FlowRun:
        """Make what runs it."""
        return FlowRun(self, system, path)


class _Built(Supervisor):
    """The stages of one run."""

    def __init__(self, app: FlowApp, children: list[Child]) -> None:
        super().__init__(children, name=app.name, id=app.id, restart=app.restart, shutdown=app.shutdown)
        self.auto_shutdown = True


class FlowRun(Supervision):
    """A flow that runs: all of `Supervision`, its statistics, and its results.

    Attributes:
        app: What it was started from.
        plan: Its layers.
        numbers: What workers have told.
        base: How the names of its stages begin.
        layer_of: The layers of stages, by id.
        failure: The error that it ends with, if it does.
    """

    def __init__(self, app: FlowApp, system: System, path: tuple[str, ...]) -> None:
        """Make the recipes of the stages."""
        self.app = app
        self.plan = app.plan
        self.numbers = FlowStatistics()
        self.base = app.name or f"{app.id}-{next(_numbers)}"
        self.layer_of: dict[str, Layer] = {}
        self._living: dict[Layer, set[str]] = {}
        self._forwarded = False
        self._cut = False
        self.failure: HeadgateError | None = None
        self._back: dict[tuple[str, int], int] = {}
        self._arrived: dict[tuple[str, int], int] = {}
        self._children = Stages(self)
        super().__init__(_Built(app, self._children.children), system, path)
        self._began = self.node.loop.time()

    async def start(self, hold: list[Any] | None = None) -> None:
        """Start the stages; then let events flow, unless somebody else is to.

        Raises:
            CrossingError: Something of it cannot go to another process.
            HeadgateError: A stage could not be started.
        """
        try:
            await super().start([])
        except CrossingError as error:
            raise CrossingError(f"{error}. {REMEDY}") from error
        for member in self._members:
            if isinstance(member.handle, Ref):
                self._watch(member.recipe.id, member.handle)
        try:
            for stage, outlet in self._children.externals:
                ref = stage if isinstance(stage, Ref) else self.system.ref(stage)
                await ref.subscribe(To(outlet, cancel="transient"))
        except BaseException:  # it is not there, or refuses
            self.kill()
            await asyncio.shield(self.done)
            raise
        if any(member.handle is None for member in self._members):  # a source that did not want to run
            for member in self._members:
                if member.recipe.id in self.layer_of and isinstance(member.handle, Ref):
                    member.handle.cast((MISS,))
        self._ticking()
        if self.app.demand == "forward":
            if hold is None:
                self.forward()
            else:
                hold.append(_Held(self))

    def forward(self) -> None:
        """Let events flow."""
        if not self._forwarded:
            self._forwarded = True
            for member in self._members:
                handle = member.handle
                if isinstance(handle, Ref) and handle.alive and member.recipe.id in self._children.sources:
                    handle.set_demand("forward")
            for stage in self._children.outside:
                ref = stage if isinstance(stage, Ref) else self.node.names.get(stage)
                if ref is not None and ref.demand == "accumulate":
                    ref.set_demand("forward")

    @property
    def outlet(self) -> Ref:
        """The stage that has the results.

        Raises:
            FlowError: They go somewhere else.
        """
        name = self._children.outlet
        if name is None:
            raise FlowError(f"flow {self.base!r}: its results go where it says; nobody can subscribe to them")
        return self.system.ref(name)

    def flow_statistics(self) -> FlowStatistics:
        """Return what workers have told so far."""
        self.numbers.seconds = self.node.loop.time() - self._began
        return self.numbers

    def fire(self, name: Any) -> None:
        """Fire a trigger by hand: all open windows give what they have, under this name."""
        self._cast((FIRE, name))

    async def wait(self) -> Any:
        """Wait until it has ended.

        Raises:
            OperatorError: A function of the user's has raised.
            FlowError: It did not get to its end for another reason.
        """
        reason = await asyncio.shield(self.done)
        self.numbers.seconds = self.node.loop.time() - self._began
        if isinstance(reason, HeadgateError):
            self.node.observed.append(reason)
            raise reason
        return reason

    # -- stages that end ----------------------------------------------------------------------------------------------

    def _watch(self, id: str, ref: Ref) -> None:  # noqa: A002 (the field's word)
        layer = self.layer_of.get(id)
        if layer is not None:
            self._living.setdefault(layer, set()).add(id)
        if ref.alive:
            ref.driver.monitors.insert(0, lambda reason: self._gone(id, ref, reason))
        else:
            self._gone(id, ref, ref.reason)

    def _gone(self, id: str, ref: Ref, reason: Any) -> None:  # noqa: A002 (the field's word)
        """See what the end of a stage means for the others."""
        layer = self.layer_of.get(id)
        living = self._living.get(layer, set()) if layer is not None else set()
        living.discard(id)
        if self._stopping.done() or self._draining:
            return
        if is_normal(reason):
            if self._cut and id in (self._children.outlet, f"{self.base}.{OUT}"):
                self._end_early()
            return
        self.node.see(ref.driver)
        cause = reason.__cause__ if isinstance(reason, StageCrashed) else reason
        if isinstance(cause, HeadgateError) and not isinstance(cause, (StageCrashed, WorkerLostError)):
            self.fail(cause)
        elif layer is None:
            self.fail(reason if isinstance(reason, HeadgateError) else FlowError(f"stage {id!r} ended: {reason}"))
        elif layer.recovers and living:
            self.numbers.lost += 1
        else:
            why = "it was the last of its layer" if layer.recovers else "what it had cannot be had again"
            error = FlowInterruptedError(
                id, ", ".join(each.describe() for each in layer.steps) or layer.name, short(reason), why
            )
            error.__cause__ = cause if isinstance(cause, BaseException) else None
            self.fail(error)

    def left(self, reason: Any, *, through: bool = False) -> None:
        """Take note that nobody is left who takes what there is: the flow ends, after what is behind `through`."""
        if self._stopping.done() or self._draining:
            return
        if not is_normal(reason):
            self.fail(FlowError(f"flow {self.base!r}: the last stage that took its events has ended: {short(reason)}"))
        elif through:
            self._cut = True
        elif len(self.plan.ends) > 1:
            self.fail(FlowError(f"flow {self.base!r}: nobody is left who takes the results of one of its branches"))
        else:
            self._end_early()

    def _end_early(self) -> None:
        self._stopping.set_result(NORMAL)
        self._wake.set()

    def given_back(self, source: int, worker: str, total: int) -> None:
        """Take note that work has gone back to a source, and how much that worker was done with."""
        self._back[worker, source] = total
        self._compare(worker, source)

    def reported(self, report: Report) -> None:
        """Take note of what a worker tells."""
        self.numbers.take(report)
        for number, events in report.sides.items():
            self.plan.sides[number].take(events)
        for source, total in report.done.items():
            worker = f"{self.base}.{report.layer}.{report.index + 1}"
            self._arrived[worker, source] = total
            self._compare(worker, source)

    def _compare(self, worker: str, source: int) -> None:
        """See whether results have arrived of work that has gone back, and would be there twice."""
        back = self._back.get((worker, source))
        if back is not None and self._arrived.get((worker, source), 0) > back and not self._stopping.done():
            why = "some of its results had arrived, and were not acknowledged yet"
            self.fail(FlowInterruptedError(worker, "work", "it has ended", why))

    def fail(self, error: HeadgateError) -> None:
        """End the flow with an error."""
        if isinstance(error, OperatorError) and error.__cause__ is None:
            error.add_note(error.traceback)
        if isinstance(error.__cause__, CrossingError):
            error.add_note(REMEDY)
        if self.failure is None:
            self.failure = error
        if not self._stopping.done():
            self._stopping.set_result(error)
            self._wake.set()

    # -- time ---------------------------------------------------------------------------------------------------------

    def _ticking(self) -> None:
        """Let windows know the time, as often as they want to."""
        every = tick_of(self.plan)
        if every is not None:
            self.node.job(self._tick(every), f"time of {self.base}")

    async def _tick(self, every: float) -> None:
        loop = self.node.loop
        number, began = 1, loop.time()
        while self.alive:
            await asyncio.wait([self.done], timeout=max(0.0, began + number * every - loop.time()))
            number = max(number + 1, math.floor((loop.time() - began) / every))
            if self.alive:
                self._cast((TICK,))

    def _cast(self, message: tuple[Any, ...]) -> None:
        for member in self._members:
            layer = self.layer_of.get(member.recipe.id)
            timed = layer is not None and any(isinstance(each, (Windowing_, Joining)) for each in layer.steps)
            if timed and isinstance(member.handle, Ref) and member.handle.alive:
                member.handle.cast(message)


class _Held:
    """What a supervisor above lets go when everything is there."""

    def __init__(self, run: FlowRun) -> None:
        self._run = run

    def set_demand(self, mode: str) -> None:  # noqa: ARG002 (as of a reference)
        self._run.forward()


def tick_of(plan: Plan) -> float | None:
    """Return how often windows are told the time; None: none of them goes by it."""
    spans: list[float] = []
    for layer in plan.layers:
        for step in layer.steps:
            spec = step.spec if isinstance(step, Windowing_) else step.window if isinstance(step, Joining) else None
            if isinstance(spec, PeriodicSpec):
                spans.append(in_seconds(spec.every))
            if isinstance(spec, EventTimeSpec) and spec.idle_after is not None:
                spans.append(in_seconds(spec.idle_after))
            if spec is not None and spec.trigger is not None:
                spans += _periods(spec.trigger)
    return max(SHORTEST_TICK, min(spans) / TICKS) if spans else None


def _periods(trigger: Trigger) -> list[float]:
    """Return the processing times that a trigger goes by, and those that it is made of."""
    found: list[float] = []
    for each in fields(trigger):
        value = getattr(trigger, each.name)
        if isinstance(value, Trigger):
            found += _periods(value)
        elif isinstance(value, tuple):
            found += [period for part in value if isinstance(part, Trigger) for period in _periods(part)]
    if isinstance(trigger, Periodically):
        found.append(in_seconds(trigger.period))
    return found
