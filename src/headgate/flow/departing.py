"""What several partitions give for a window becomes one event. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headgate.flow.folds import Fold, FoldAll
from headgate.flow.program import Origin, Program, Step, StepSpec
from headgate.flow.steps import NOTHING, STATE
from headgate.flow.timed import Occasion, Reached, Tagged, arguments
from headgate.flow.windows import Window


@dataclass(frozen=True)
class Departition(StepSpec):
    """What all partitions give for a window, put together when each of them is done with it.

    A partition that has nothing of a window never says so; what counts is how far its windows have closed.

    Attributes:
        init: () -> state.
        merge: (state, what a partition gave) -> state.
        done: (state[, window]) -> one event.
        partitions: How many there are.
    """

    where: str
    init: Callable[[], Any]
    merge: Callable[[Any, Any], Any]
    done: Callable[..., Any]
    partitions: int

    def begin(self, program: Program) -> Step:  # noqa: ARG002
        """Start with no windows."""
        return _Departition(self)


class _Departition(Step):
    def __init__(self, spec: Departition) -> None:
        self._spec = spec
        self._states: dict[Window, Any] = {}
        self._reached: dict[int, Any] = dict.fromkeys(range(spec.partitions))
        needed, most = arguments(spec.done)
        self._with_window = needed > 1 or most == math.inf

    def feed(self, events: Any, origin: Origin, now: float) -> Any:  # noqa: ARG002
        spec, states, moved = self._spec, self._states, False
        for each in events:
            if type(each) is Reached:
                self._reached[origin.source[1] if spec.partitions > 1 else 0] = each.mark
                moved = True
                continue
            window = each.occasion.window
            state = states[window] if window in states else spec.init()
            for given in each.events:
                state = spec.merge(state, given)
            states[window] = state
        return self._finish() if moved else []

    def ended(self, origin: Origin, now: float) -> Any:  # noqa: ARG002
        if self._spec.partitions > 1:
            self._reached.pop(origin.source[1], None)
        return self._finish()

    def done(self, now: float) -> Any:  # noqa: ARG002
        return [self._give(window) for window in sorted(self._states)]

    def gauges(self) -> dict[str, int]:
        return {"windows": len(self._states)}

    def _finish(self) -> list[Any]:
        """Give the windows that have closed in all partitions, the earliest first."""
        marks = self._reached.values()
        if not marks or any(mark is None for mark in marks):
            return []
        mark = min(marks)
        over = [window for window in self._states if (window.id + 1 if window.end is None else window.end) <= mark]
        return [self._give(window) for window in sorted(over)]

    def _give(self, window: Window) -> Any:
        state = self._states.pop(window)
        return self._spec.done(state, window) if self._with_window else self._spec.done(state)


def as_one(fold: Fold, emit: str, *, keyed: bool) -> Callable[[Any], list[Any]]:
    """Return what a reduce of everything gives to a departition: its accumulator, tagged with the only window."""
    window = Window("global", "global")
    occasion = Occasion(window.kind, window.id, "done", window)

    def give(accumulator: Any) -> list[Any]:
        if emit == NOTHING:
            events = []
        elif emit == STATE or (isinstance(fold, FoldAll) and fold.finish is None):
            events = [accumulator]
        else:
            events = fold.results(accumulator)
            events = [dict(events)] if keyed else events
        return [Tagged(occasion, events)]

    return give
