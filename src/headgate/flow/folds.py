"""Folds: what a reduce does with events, how what several workers have is put together, and what comes out of it.

A fold that can be merged is done where the events are, worker by worker, over all that a worker sees; only what it has
then crosses. Accumulators are plain dictionaries and lists, so that they cross fast.
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from operator import add
from typing import Any, Final, NamedTuple

Read = Callable[[Any], Any] | None
"""What reads a key or a value off an event; None: the event itself."""

_NOTHING: Final[Any] = object()
PART: Final = 100_000
"""Keys that cross in one piece."""


@dataclass(frozen=True)
class Fold:
    """A reduce of all events that a worker sees.

    Attributes:
        where: What errors and plans call it.
    """

    where: str

    merges = False
    """Whether accumulators of several workers can be put together."""
    columns = False
    """Whether it takes batches of columns as they are."""

    def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the columns that it looks at, where it takes these, and those of them that it groups by."""
        return (), ()

    def begin(self) -> Any:
        """Return an empty accumulator."""
        raise NotImplementedError

    def add(self, accumulator: Any, events: Iterable[Any]) -> Any:
        """Take events in, and return the accumulator."""
        raise NotImplementedError

    def merge(self, accumulator: Any, other: Any) -> Any:
        """Put what another worker has into an accumulator, and return it."""
        raise NotImplementedError

    def results(self, accumulator: Any) -> list[Any]:
        """Return the events that come out of an accumulator."""
        return spread(accumulator)

    def empty(self, accumulator: Any) -> bool:
        """Say whether it has taken nothing in, so that it need not cross."""
        return not accumulator

    def parts(self, accumulator: Any) -> list[Any]:
        """Cut an accumulator into parts that are small enough to cross one by one, while others are made."""
        if isinstance(accumulator, dict) and len(accumulator) > PART:
            items = iter(accumulator.items())
            return [dict(islice(items, PART)) for _ in range(0, len(accumulator), PART)]
        return [accumulator]

    def size(self, accumulator: Any) -> int:
        """Return about how much an accumulator holds."""
        return len(accumulator) if hasattr(accumulator, "__len__") else 1

    def taken(self, accumulator: Any) -> int:
        """Return how many events are in an accumulator, as far as it knows."""
        return self.size(accumulator)


def spread(accumulator: Any) -> list[Any]:
    """Return an accumulator's events: the pairs of a mapping, the elements of a collection, else itself."""
    if isinstance(accumulator, dict):
        return list(accumulator.items())
    if isinstance(accumulator, (list, set, frozenset)) or type(accumulator) is tuple:
        return list(accumulator)
    if hasattr(accumulator, "items") and hasattr(accumulator, "keys"):
        return list(accumulator.items())
    if hasattr(accumulator, "popleft"):  # a deque
        return list(accumulator)
    return [accumulator]


def _merge_with(mine: dict[Any, Any], other: dict[Any, Any], combine: Callable[[Any, Any], Any]) -> dict[Any, Any]:
    """Merge two dictionaries, in a loop: finding the keys that both have as sets takes twice the time."""
    if not mine:
        return other
    get = mine.get
    for key, value in other.items():
        before = get(key, _NOTHING)
        mine[key] = value if before is _NOTHING else combine(before, value)
    return mine


@dataclass(frozen=True)
class CountBy(Fold):
    """How many events there are of each key. Accumulator: key -> count."""

    key: Read
    merges = True

    def begin(self) -> dict[Any, int]:
        """Start with no keys."""
        return Counter()

    def add(self, accumulator: Any, events: Iterable[Any]) -> Any:
        """Count in the interpreter's own loop."""
        accumulator.update(events if self.key is None else map(self.key, events))
        return accumulator

    def merge(self, accumulator: Any, other: Tally) -> Any:
        """Add the counts up."""
        if not accumulator:
            dict.update(accumulator, other.items())
            return accumulator
        get = accumulator.get
        for key, count in other.items():
            accumulator[key] = get(key, 0) + count
        return accumulator

    def parts(self, accumulator: Any) -> list[Tally]:
        """Make tallies of it."""
        keys, counts = list(accumulator), array("q", accumulator.values())
        text = set(map(type, keys)) == {str}
        starts = range(0, len(keys), PART)
        return [Tally.of(keys[at : at + PART], counts[at : at + PART], text=text) for at in starts]

    def taken(self, accumulator: Any) -> int:
        """Add up the counts."""
        return sum(accumulator.values())


class Tally(NamedTuple):
    """Counts of keys on their way: they cross in a part of the time that a dictionary takes.

    Attributes:
        keys: In order; if they are text, as one text, with line breaks between them.
        counts: As 64-bit integers.
    """

    keys: str | list[Any]
    counts: array[int]

    @classmethod
    def of(cls, keys: list[Any], counts: array[int], *, text: bool) -> Tally:
        """Make one of at least one key; ``text``: all of them are."""
        joined = "\n".join(keys) if text else ""
        return cls(joined if text and joined.count("\n") == len(keys) - 1 else keys, counts)

    def items(self) -> Iterable[tuple[Any, int]]:
        """Return pairs of key and count."""
        return zip(self.keys.split("\n") if isinstance(self.keys, str) else self.keys, self.counts, strict=True)


@dataclass(frozen=True)
class FoldBy(Fold):
    """A reduce for each key. Accumulator: key -> accumulator of the key.

    Attributes:
        key: Event -> key.
        start: Event -> accumulator of a key that has only this event.
        step: (accumulator, event) -> accumulator.
        combine: (accumulator, accumulator) -> accumulator, the first being of events that came before, if order is
            known; None: it cannot be merged.
        finish: Accumulator -> value; None: as it is.
    """

    key: Read
    start: Callable[[Any], Any]
    step: Callable[[Any, Any], Any]
    combine: Callable[[Any, Any], Any] | None
    finish: Callable[[Any], Any] | None = None

    @property
    def merges(self) -> bool:  # type: ignore[override]
        """Whether there is a function for it."""
        return self.combine is not None

    def begin(self) -> dict[Any, Any]:
        """Start with no keys."""
        return {}

    def add(self, accumulator: Any, events: Iterable[Any]) -> Any:
        """Take events in one by one."""
        key, start, step, get = self.key, self.start, self.step, accumulator.get
        for event in events:
            name = event if key is None else key(event)
            before = get(name, _NOTHING)
            accumulator[name] = start(event) if before is _NOTHING else step(before, event)
        return accumulator

    def merge(self, accumulator: Any, other: Any) -> Any:
        """Combine the accumulators of keys that both have."""
        assert self.combine is not None  # noqa: S101 (asked before)
        return _merge_with(accumulator, other, self.combine)

    def results(self, accumulator: Any) -> list[Any]:
        """Return a pair for each key."""
        finish = self.finish
        if finish is None:
            return list(accumulator.items())
        return [(key, finish(value)) for key, value in accumulator.items()]


@dataclass(frozen=True)
class GroupBy(Fold):
    """The values of each key, in the order of their coming. Accumulator: key -> list."""

    key: Read
    value: Read
    merges = True

    def begin(self) -> dict[Any, list[Any]]:
        """Start with no keys."""
        return {}

    def add(self, accumulator: Any, events: Iterable[Any]) -> Any:
        """Append."""
        key, value = self.key, self.value
        groups: defaultdict[Any, list[Any]] = defaultdict(list, accumulator)
        for event in events:
            groups[event if key is None else key(event)].append(event if value is None else value(event))
        return dict(groups)

    def merge(self, accumulator: Any, other: Any) -> Any:
        """Join the lists."""
        return _merge_with(accumulator, other, add)


@dataclass(frozen=True)
class FoldAll(Fold):
    """A reduce of everything into one accumulator.

    Attributes:
        init: () -> accumulator.
        step: (accumulator, event) -> accumulator.
        combine: (accumulator, accumulator) -> accumulator; None: it cannot be merged.
        finish: Accumulator -> events; None: `spread`.
    """

    init: Callable[[], Any]
    step: Callable[[Any, Any], Any]
    combine: Callable[[Any, Any], Any] | None
    finish: Callable[[Any], list[Any]] | None = None

    @property
    def merges(self) -> bool:  # type: ignore[override]
        """Whether there is a function for it."""
        return self.combine is not None

    def begin(self) -> Any:
        """Start."""
        return self.init()

    def add(self, accumulator: Any, events: Iterable[Any]) -> Any:
        """Take events in one by one."""
        step = self.step
        for event in events:
            accumulator = step(accumulator, event)
        return accumulator

    def merge(self, accumulator: Any, other: Any) -> Any:
        """Combine."""
        assert self.combine is not None  # noqa: S101 (asked before)
        return self.combine(accumulator, other)

    def results(self, accumulator: Any) -> list[Any]:
        """Return what comes out of it."""
        return spread(accumulator) if self.finish is None else self.finish(accumulator)

    def empty(self, accumulator: Any) -> bool:  # noqa: ARG002 (nothing can be said of an accumulator of the user's)
        """Say no."""
        return False


@dataclass(frozen=True)
class Batched(Fold):
    """A reduce that takes whole batches at once: (accumulator, events) -> accumulator."""

    init: Callable[[], Any]
    many: Callable[[Any, Iterable[Any]], Any]
    combine: Callable[[Any, Any], Any]
    finish: Callable[[Any], list[Any]]
    merges = True

    def begin(self) -> Any:
        """Start."""
        return self.init()

    def add(self, accumulator: Any, events: Iterable[Any]) -> Any:
        """Take events in."""
        return self.many(accumulator, events)

    def merge(self, accumulator: Any, other: Any) -> Any:
        """Combine."""
        return self.combine(accumulator, other)

    def results(self, accumulator: Any) -> list[Any]:
        """Return what comes out of it."""
        return self.finish(accumulator)

    def empty(self, accumulator: Any) -> bool:  # noqa: ARG002 (an accumulator may be 0)
        """Say no."""
        return False


@dataclass(frozen=True)
class Top(Fold):
    """The first ``count`` events in an order. Accumulator: a sorted list.

    Attributes:
        count: How many; None: all.
        by: Event -> what it is ordered by; None: the event itself.
        largest: The largest come first.
        whole: One list comes out of it, else its events.
    """

    count: int | None
    by: Read
    largest: bool
    whole: bool
    merges = True

    def begin(self) -> list[Any]:
        """Start with none."""
        return []

    def add(self, accumulator: Any, events: Iterable[Any]) -> Any:
        """Keep the first of both."""
        if self.count is None:
            accumulator.extend(events)
            accumulator.sort(key=self.by, reverse=self.largest)
            return accumulator
        choose = heapq.nlargest if self.largest else heapq.nsmallest
        return choose(self.count, _chain(accumulator, events), key=self.by)

    def merge(self, accumulator: Any, other: Any) -> Any:
        """Keep the first of both."""
        return self.add(accumulator, other)

    def results(self, accumulator: Any) -> list[Any]:
        """Return the events, or all of them as one."""
        return [accumulator] if self.whole else accumulator

    def empty(self, accumulator: Any) -> bool:
        """Say whether there are none; one list comes out of it all the same."""
        return not accumulator and not self.whole


def _chain(first: Iterable[Any], second: Iterable[Any]) -> Iterable[Any]:
    yield from first
    yield from second
