"""The parts that programs are made of; those that have to do with time are in `timed`. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from headgate.flow.folds import Fold
from headgate.flow.fusing import fuse
from headgate.flow.operators import Element
from headgate.flow.program import Holding, Key, Origin, Program, Step, StepSpec
from headgate.protocol.batching import rows

EVENTS: Final = "events"
STATE: Final = "state"
NOTHING: Final = "nothing"
WINDOWED: Final = "windowed"
MANY: Final = 50_000
"""Keys of an accumulator with which it is passed on, to be merged while the next is made: a small one is faster."""
WORTH: Final = 3
"""Events for each of its keys that make this worth while; if there were fewer, the next may have more keys."""
GROWTH: Final = 1.5
"""How many times as many: keys that come again and again do not cross again and again."""
LARGEST: Final = 4_000_000
"""With so many it is passed on in any case."""


@dataclass(frozen=True)
class Elements(StepSpec):
    """Neighbouring element-wise operators, as one loop."""

    elements: tuple[Element, ...]

    def begin(self, program: Program) -> Step:
        """Fuse them."""
        return _Elements(self.elements, program)

    def describe(self) -> str:
        """Name them all."""
        return ", ".join(each.where for each in self.elements)


class _Elements(Step):
    def __init__(self, elements: tuple[Element, ...], program: Program) -> None:
        self.elements = elements
        self._loop = fuse(elements, program)

    def feed(self, events: Any, origin: Origin, now: float) -> Any:  # noqa: ARG002
        return self._loop(events)


# -- reduces of everything --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folding(StepSpec):
    """A reduce of all that comes.

    Attributes:
        fold: Which.
        emit: What comes out of it: ``"events"``, ``"state"`` (the accumulator as one event) or ``"nothing"``.
        merging: What comes are accumulators of other workers.
        give: Accumulator -> what comes out of it, whatever ``emit`` says; None: as that says.
    """

    fold: Fold
    emit: str = EVENTS
    merging: bool = False
    give: Callable[[Any], list[Any]] | None = None

    @property
    def where(self) -> str:
        """What errors call it."""
        return self.fold.where

    def begin(self, program: Program) -> Step:  # noqa: ARG002
        """Start with nothing."""
        return _Folding(self)

    def describe(self) -> str:
        """Say whether it merges."""
        return f"merge of {self.where}" if self.merging else self.where


class _Folding(Step):
    def __init__(self, spec: Folding) -> None:
        self._spec = spec
        self._fold = spec.fold
        self._accumulator = spec.fold.begin()

    def feed(self, events: Any, origin: Origin, now: float) -> Any:  # noqa: ARG002
        if self._spec.merging:
            for other in events:
                self._accumulator = self._fold.merge(self._accumulator, other)
        else:
            self._accumulator = self._fold.add(self._accumulator, events if self._fold.columns else rows(events))
        return ()

    def done(self, now: float) -> Any:  # noqa: ARG002
        accumulator, self._accumulator = self._accumulator, None
        if self._spec.give is not None:
            return self._spec.give(accumulator)
        if self._spec.emit == NOTHING:
            return ()
        return [accumulator] if self._spec.emit == STATE else self._fold.results(accumulator)

    def gauges(self) -> dict[str, int]:
        return {"accumulated": 0 if self._accumulator is None else self._fold.size(self._accumulator)}


@dataclass(frozen=True)
class Partial(StepSpec):
    """A reduce of what one worker sees, whose accumulator goes to those of others."""

    fold: Fold

    @property
    def where(self) -> str:
        """What errors call it."""
        return self.fold.where

    def begin(self, program: Program) -> Step:  # noqa: ARG002
        """Start with nothing."""
        return _Partial(self.fold)

    def describe(self) -> str:
        """Say that it is a part."""
        return f"part of {self.where}"


class _Partial(Holding):
    def __init__(self, fold: Fold) -> None:
        self._fold = fold
        self._accumulator = fold.begin()
        self._limit = MANY

    def feed(self, events: Any, origin: Origin, now: float) -> Any:  # noqa: ARG002
        self._accumulator = self._fold.add(self._accumulator, events if self._fold.columns else rows(events))
        return ()

    def full(self) -> bool:
        size = self._fold.size(self._accumulator)
        if size < self._limit:
            return False
        if self._fold.taken(self._accumulator) < WORTH * size:
            self._limit = min(int(self._limit * GROWTH), LARGEST)
        return True

    def flush(self) -> list[Any]:
        accumulator, self._accumulator = self._accumulator, self._fold.begin()
        return [] if self._fold.empty(accumulator) else self._fold.parts(accumulator)


@dataclass(frozen=True)
class Unique(StepSpec):
    """The first event of each key."""

    where: str
    key: Key

    def begin(self, program: Program) -> Step:  # noqa: ARG002
        """Start with no keys."""
        return _Unique(self.key)


class _Unique(Step):
    def __init__(self, key: Key) -> None:
        self._key = key
        self._seen: set[Any] = set()

    def feed(self, events: Any, origin: Origin, now: float) -> Any:  # noqa: ARG002
        events, key, seen = rows(events), self._key, self._seen
        if key is None:
            fresh = [event for event in dict.fromkeys(events) if event not in seen]
            seen.update(fresh)
            return fresh
        fresh = []
        for event in events:
            name = key(event)
            if name not in seen:
                seen.add(name)
                fresh.append(event)
        return fresh

    def gauges(self) -> dict[str, int]:
        return {"keys": len(self._seen)}
