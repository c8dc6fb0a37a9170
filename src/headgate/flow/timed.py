"""The parts of programs that have to do with time, partitions and several inputs. Pure."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

from headgate.errors import HandlerError, OptionError
from headgate.flow.combining import Combiner, Segment
from headgate.flow.folds import PART, spread
from headgate.flow.joining import Join
from headgate.flow.panes import Reduce
from headgate.flow.program import Holding, Key, Origin, Program, Step, StepSpec
from headgate.flow.steps import EVENTS, LARGEST, NOTHING, STATE, WINDOWED
from headgate.flow.triggers import Firing
from headgate.flow.windowing import Windowing
from headgate.flow.windows import EventTimeSpec, GlobalSpec, Window, WindowSpec
from headgate.protocol.batching import rows

# -- windows ----------------------------------------------------------------------------------------------------------


class Partition(NamedTuple):
    """Which worker of a layer it is, as a trigger's function is told.

    Attributes:
        number: From 0.
        total: How many there are.
    """

    number: int
    total: int


class Occasion(NamedTuple):
    """What made a window give something, as a trigger's function is told.

    Attributes:
        kind: Of the window: ``"global"``, ``"fixed"``, ...
        id: Of the window: its start, its number, ...
        name: Of the trigger: ``"done"``, ``("every", 10)``, ...
        window: The window.
        key: Whose accumulator it is; None: there are no keys.
    """

    kind: str
    id: Any
    name: Any
    window: Window
    key: Hashable = None


class Windowed(NamedTuple):
    """A result of a window. One of a reduce without keys has no key (None)."""

    window: Window
    key: Any
    value: Any


@dataclass(frozen=True)
class Windowing_(StepSpec):  # noqa: N801 (the description of `Windowing`)
    """A reduce within windows.

    Attributes:
        where: What errors call it.
        spec: The windows.
        reduce: What becomes of their events.
        key: Event -> key; None: there are no keys.
        keyed: There are keys.
        emit: ``"events"``, ``"state"``, ``"nothing"``, or ``"windowed"``: `Windowed` for each.
        finish: Accumulator -> value.
        on_trigger: Of the user: (accumulator[, partition[, occasion]]) -> (events, accumulator).
        late: The number of the side output of late events; -1: none.
        tagged: Each result is told apart by its window and trigger, for a departition.
        bounded: The input is known to end.
        merging: What comes are segments of `Combining` workers.
    """

    where: str
    spec: WindowSpec
    reduce: Reduce
    key: Key = None
    keyed: bool = False
    emit: str = EVENTS
    finish: Callable[[Any], Any] | None = None
    on_trigger: Callable[..., Any] | None = None
    late: int = -1
    tagged: bool = False
    bounded: bool = True
    merging: bool = False

    def begin(self, program: Program) -> Step:
        """Start with no windows."""
        return _Windowing(self, program)

    def describe(self) -> str:
        """Name the windows."""
        return self.where if isinstance(self.spec, GlobalSpec) else f"{self.where} in {self.spec.where}"


class Tagged(NamedTuple):
    """What a window gives, for a departition.

    Attributes:
        occasion: Of which window it is, and what made it give it.
        events: What it gives.
    """

    occasion: Occasion
    events: list[Any]


class Reached(NamedTuple):
    """How far a worker's windows have closed, for a departition: as `Windowing.reached`."""

    mark: Any


class _Windowing(Step):
    def __init__(self, spec: Windowing_, program: Program) -> None:
        self._spec = spec
        self._program = program
        self._partition = Partition(program.index, program.spec.total)
        self._arity = 0 if spec.on_trigger is None else arity(spec.on_trigger, spec.where)
        self._late = 0
        self._reached: Any = None
        self._engine = Windowing(
            spec.spec,
            spec.reduce,
            key=(spec.key or _itself) if spec.keyed else None,
            bounded=spec.bounded,
            emit=self._emit,
            on_trigger=None if spec.on_trigger is None else self._on_trigger,
            keep_late=spec.late >= 0,
            where=spec.where,
        )

    def opened(self, origin: Origin, now: float) -> None:
        self._engine.open((origin.port, origin.source), now)

    def feed(self, events: Any, origin: Origin, now: float) -> Any:
        source = (origin.port, origin.source)
        if self._spec.merging:
            return self._told([each for part in events for each in self._engine.merge(part, source, now)], now)
        events = rows(events)
        if type(events) is not list:
            events = list(events)
        out = self._engine.add(events, source, now) if events else []
        if origin.watermark is not None:
            out += self._engine.advance(source, origin.watermark, now)
        if self._engine.late_count > self._late:
            self._program.report.late += self._engine.late_count - self._late
            self._late = self._engine.late_count
            self._program.aside(self._spec.late, self._engine.take_late())
        return self._told(out, now)

    def ended(self, origin: Origin, now: float) -> Any:
        return self._told(self._engine.end((origin.port, origin.source), now), now)

    def tick(self, now: float) -> Any:
        return self._told(self._engine.tick(now), now)

    def _told(self, out: list[Any], now: float) -> list[Any]:
        """Tell a departition how far windows have closed, also those that this worker has nothing of."""
        if self._spec.tagged:
            mark = self._engine.reached(now)
            if mark is not None and mark != self._reached:
                self._reached = mark
                out.append(Reached(mark))
        return out

    def call(self, name: Any, now: float) -> Any:
        return self._engine.fire(name, now)

    def done(self, now: float) -> Any:
        return self._engine.done(now)

    def gauges(self) -> dict[str, Any]:
        statistics = self._engine.statistics()
        found = {"windows": statistics.open_windows, "accumulated": statistics.accumulators}
        return {**found, "watermark": statistics.watermark} if isinstance(self._spec.spec, EventTimeSpec) else found

    def _emit(self, window: Window, firing: Firing, accumulators: dict[Hashable, Any]) -> list[Any]:
        spec, finish = self._spec, self._spec.finish
        out: list[Any] = []
        if spec.tagged:
            if spec.emit != NOTHING:
                out = self._whole(accumulators)
            return [Tagged(Occasion(window.kind, window.id, firing.name, window), out)]
        if spec.emit == NOTHING:
            return []
        if spec.emit == WINDOWED:
            for key, accumulator in accumulators.items():
                out.append(Windowed(window, key, accumulator if finish is None else finish(accumulator)))
        elif spec.emit == STATE:
            out.extend(accumulators.values())
        else:
            for accumulator in accumulators.values():
                out.extend(spread(accumulator if finish is None else finish(accumulator)))
        return out

    def _whole(self, accumulators: dict[Hashable, Any]) -> list[Any]:
        """Return what a departition gets: the accumulator, or what there is by key."""
        spec, finish = self._spec, self._spec.finish
        if spec.emit == EVENTS and finish is not None:
            return [each for accumulator in accumulators.values() for each in finish(accumulator)]
        shown = {
            key: each if finish is None or spec.emit == STATE else finish(each) for key, each in accumulators.items()
        }
        return [shown] if spec.keyed else list(shown.values())

    def _on_trigger(self, key: Hashable, accumulator: Any, window: Window, firing: Firing) -> tuple[Any, Any]:
        occasion = Occasion(window.kind, window.id, firing.name, window, key)
        function = self._spec.on_trigger
        assert function is not None  # noqa: S101 (else it is not called)
        returned = function(*(accumulator, self._partition, occasion)[: self._arity])
        try:
            events, accumulator = returned
            events = list(events)
        except (TypeError, ValueError):
            expected = "a pair: the events to send on, and the accumulator to go on with"
            raise HandlerError(self._spec.where, "on_trigger", expected, returned) from None
        if self._spec.tagged:
            events = [Tagged(occasion, events)]
        return events, accumulator


@dataclass(frozen=True)
class Combining(StepSpec):
    """What one worker sees, put together by window and key before it crosses to who has the windows."""

    where: str
    spec: WindowSpec
    reduce: Reduce
    key: Key = None
    keyed: bool = False

    def begin(self, program: Program) -> Step:  # noqa: ARG002
        """Start with no windows."""
        return _Combining(self)

    def describe(self) -> str:
        """Say that it is a part."""
        return f"part of {self.where} in {self.spec.where}"


class _Combining(Holding):
    def __init__(self, spec: Combining) -> None:
        key = (spec.key or _itself) if spec.keyed else None
        self._combiner = Combiner(spec.spec, spec.reduce, key=key, bounded=True, where=spec.where)

    def feed(self, events: Any, origin: Origin, now: float) -> Any:
        events = rows(events)
        self._combiner.add(events if type(events) is list else list(events), (origin.port, origin.source), now)
        return ()

    def full(self) -> bool:
        return len(self._combiner) >= LARGEST

    def flush(self) -> list[Any]:
        parts: list[Segment] = []
        for segment in self._combiner.flush():
            kind, before, partials, after = segment
            for start in range(0, len(partials), PART):
                last = start + PART >= len(partials)
                part = partials[start : start + PART]
                parts.append(Segment(kind, None if start else before, part, after if last else None))
        return parts


def _itself(event: Any) -> Any:
    return event


_ASKED = ("accumulator", "partition", "occasion")


def arguments(function: Callable[..., Any]) -> tuple[int, float]:
    """Return how many arguments by place a function cannot do without, and how many it takes (``inf``: any number)."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # one that is not written in Python and does not say
        return 1, 1
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return 0, math.inf
    given = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return sum(each.default is each.empty for each in given), len(given)


def arity(function: Callable[..., Any], where: str) -> int:
    """Return how many of (accumulator, partition, occasion) a trigger's function takes; defaults stay as they are.

    Raises:
        OptionError: It takes none, or more.
    """
    needed, most = arguments(function)
    count = len(_ASKED) if most == math.inf else needed or min(1, int(most))
    if not 1 <= count <= len(_ASKED):
        expected = "a function of the accumulator, or of it and the partition, or of these and the occasion"
        raise OptionError(where, "on_trigger", expected, function)
    return count


# -- joins ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Joining(StepSpec):
    """Two inputs, put together by key.

    Attributes:
        options: What `Join` is made with.
        late: The number of the side output of late elements; -1: none.
    """

    where: str
    mode: str
    left_key: Callable[[Any], Any]
    right_key: Callable[[Any], Any]
    join: Callable[[Any, Any], Any] | None
    window: WindowSpec | None
    options: tuple[tuple[str, Any], ...] = ()
    late: int = -1

    def begin(self, program: Program) -> Step:
        """Start with nothing on either side."""
        return _Joining(self, program)

    def describe(self) -> str:
        """Name the windows."""
        return self.where if self.window is None else f"{self.where} in {self.window.where}"


class _Joining(Step):
    def __init__(self, spec: Joining, program: Program) -> None:
        self._spec = spec
        self._program = program
        self._late = 0
        self._join = Join(
            spec.mode,
            spec.left_key,
            spec.right_key,
            spec.join,
            window=spec.window,
            keep_late=spec.late >= 0,
            where=spec.where,
            **dict(spec.options),
        )

    def opened(self, origin: Origin, now: float) -> None:
        self._join.open(origin.port, origin.source, now)

    def feed(self, events: Any, origin: Origin, now: float) -> Any:
        events = rows(events)
        out = self._join.add(origin.port, list(events), origin.source, now) if len(events) else []
        if origin.watermark is not None:
            out = [*out, *self._join.advance(origin.port, origin.source, origin.watermark, now)]
        late = self._join.late_count
        if late > self._late:
            self._program.report.late += late - self._late
            self._late = late
            self._program.aside(self._spec.late, self._join.take_late())
        return out

    def ended(self, origin: Origin, now: float) -> Any:
        return self._join.end(origin.port, origin.source, now)

    def tick(self, now: float) -> Any:
        return self._join.tick(now)

    def done(self, now: float) -> Any:
        return self._join.done(now)

    def gauges(self) -> dict[str, int]:
        return {"kept": self._join.statistics().kept}
