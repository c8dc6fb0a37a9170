"""Reduces: the general ones, and those that people really write, as one word each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from operator import add
from typing import Any, Self

from headgate.errors import OptionError
from headgate.flow.folds import Batched, CountBy, Fold, FoldAll, FoldBy, GroupBy, Top
from headgate.flow.graph import KEYED, FoldNode, Node, ReduceNode
from headgate.flow.operators import Side, place, reading
from headgate.flow.panes import Reduce
from headgate.flow.program import Key
from headgate.flow.steps import WINDOWED
from headgate.flow.times import Field
from headgate.flow.windows import WindowSpec
from headgate.runtime.options import check_count


@dataclass(frozen=True)
class _Words:
    """A reduce of the values of one key: how it is done event by event, and how parts of it are put together."""

    init: Callable[[], Any]
    start: Callable[[Any], Any]
    step: Callable[[Any, Any], Any]
    combine: Callable[[Any, Any], Any]
    finish: Callable[[Any], Any] | None = None
    tally: Callable[[Any, int], Any] | None = None


class Aggregating:
    """The part of `Flow` that reduces.

    A reduce that can be done in parts (all of the words; `reduce` and `reduce_by` with ``combine``) is done by each
    worker for what it sees, and gives one result for all (for each window and key). One that cannot is done where
    events come together: by key, within a `partition`, or by one worker for all.

    Within a `window`, words give `Windowed` results: (window, key, value).
    """

    __slots__ = ()

    _node: Node
    _window: WindowSpec | None

    def _with(self, node: Node) -> Self:
        raise NotImplementedError

    # -- the general ones ---------------------------------------------------------------------------------------------

    def reduce(
        self,
        init: Callable[[], Any],
        step: Callable[[Any, Any], Any],
        *,
        combine: Callable[[Any, Any], Any] | None = None,
        late: Side | None = None,
    ) -> Self:
        """Put events into one accumulator; behind `partition`, one for each partition.

        What comes out of it, at the end or when a window gives something, are the pairs of a mapping, the elements of a
        list, set or tuple, else the accumulator itself; see `emit` and `on_trigger`.

        Args:
            init: () -> accumulator.
            step: (accumulator, event) -> accumulator.
            combine: (accumulator, accumulator) -> accumulator: the reduce may be done in parts, in any order of these.
            late: Within a window: a side output for events that come too late.

        Raises:
            OptionError: One is no function.
        """
        where = _functions("reduce", step, init=init, step=step, combine=combine)
        if self._window is None:
            return self._with(FoldNode((self._node,), FoldAll(where, init, step, combine)))
        return self._with(
            ReduceNode((self._node,), where, self._window, Reduce(init, step, combine=combine), late=late)
        )

    def emit_and_reduce(
        self,
        init: Callable[[], Any],
        step: Callable[[Any, Any], tuple[Iterable[Any], Any]],
        *,
        late: Side | None = None,
    ) -> Self:
        """Put events into an accumulator, and give events while doing so.

        Args:
            init: () -> accumulator.
            step: (accumulator, event) -> (events to send on, accumulator).
            late: As of `reduce`.

        Raises:
            OptionError: One is no function.
        """
        where = _functions("emit_and_reduce", step, init=init, step=step)
        reduce = Reduce(init, step, emits=True)
        return self._with(ReduceNode((self._node,), where, self._window, reduce, late=late))

    def reduce_by(
        self,
        key: Field | None,
        init: Callable[[], Any],
        step: Callable[[Any, Any], Any],
        *,
        combine: Callable[[Any, Any], Any] | None = None,
        late: Side | None = None,
    ) -> Self:
        """Put the events of each key into an accumulator of its own; gives (key, accumulator).

        Args:
            key: Event -> key, or the name of a field, or an index; None: the event itself.
            init: () -> accumulator.
            step: (accumulator, event) -> accumulator.
            combine: As of `reduce`.
            late: As of `reduce`.

        Raises:
            OptionError: One is no function.
        """
        where = _functions("reduce_by", step, init=init, step=step, combine=combine)
        read = reading(key, where, "key")
        if self._window is None:
            fold = FoldBy(where, read, lambda event: step(init(), event), step, combine)
            return self._with(FoldNode((self._node,), fold, read, KEYED))
        reduce = Reduce(init, step, combine=combine)
        return self._with(ReduceNode((self._node,), where, self._window, reduce, read, KEYED, WINDOWED, late=late))

    def group_by(self, key: Field | None, value: Field | None = None, *, late: Side | None = None) -> Self:
        """Collect the values of each key; gives (key, list of values).

        Args:
            key: Event -> key, or the name of a field, or an index; None: the event itself.
            value: The same for what is collected; None: the event itself.
            late: As of `reduce`.
        """
        where = place("group_by", key, 2)
        read, get = reading(key, where, "key"), reading(value, where, "value")
        if self._window is None:
            return self._with(FoldNode((self._node,), GroupBy(where, read, get), read, KEYED))

        def step(values: list[Any], event: Any) -> list[Any]:
            values.append(event if get is None else get(event))
            return values

        reduce = Reduce(list, step, combine=add)
        return self._with(ReduceNode((self._node,), where, self._window, reduce, read, KEYED, WINDOWED, late=late))

    # -- words for each key -------------------------------------------------------------------------------------------

    def count_by(self, key: Field | None = None, *, late: Side | None = None) -> Self:
        """Count the events of each key; gives (key, count).

        Args:
            key: Event -> key, or the name of a field, or an index. Default: the event itself.
            late: As of `reduce`.
        """
        where = place("count_by", key, 2)
        read = reading(key, where, "key")
        if self._window is None:
            return self._with(FoldNode((self._node,), CountBy(where, read), read, KEYED))
        reduce = Reduce(int, _count, tally=add, combine=add)
        return self._with(ReduceNode((self._node,), where, self._window, reduce, read, KEYED, WINDOWED, late=late))

    def sum_by(self, key: Field | None, value: Field | None = None, *, late: Side | None = None) -> Self:
        """Add up the values of each key; gives (key, sum)."""
        get = reading(value, "sum_by", "value")
        return self._word("sum_by", key, _sum(get), late)

    def mean_by(self, key: Field | None, value: Field | None = None, *, late: Side | None = None) -> Self:
        """Average the values of each key; gives (key, mean)."""
        get = reading(value, "mean_by", "value")
        return self._word("mean_by", key, _mean(get), late)

    def min_by(self, key: Field | None, value: Field | None = None, *, late: Side | None = None) -> Self:
        """Find the least value of each key; gives (key, value)."""
        get = reading(value, "min_by", "value")
        return self._word("min_by", key, _least(get), late)

    def max_by(self, key: Field | None, value: Field | None = None, *, late: Side | None = None) -> Self:
        """Find the greatest value of each key; gives (key, value)."""
        get = reading(value, "max_by", "value")
        return self._word("max_by", key, _greatest(get), late)

    def _word(self, name: str, key: Field | None, words: _Words, late: Side | None) -> Self:
        where = place(name, key, 3)
        read = reading(key, where, "key")
        if self._window is None:
            fold = FoldBy(where, read, words.start, words.step, words.combine, words.finish)
            return self._with(FoldNode((self._node,), fold, read, KEYED))
        return self._windowed(where, words, late, read, keyed=True)

    def _windowed(self, where: str, words: _Words, late: Side | None, key: Key, *, keyed: bool) -> Self:
        reduce = Reduce(words.init, words.step, tally=words.tally, combine=words.combine)
        node = ReduceNode((self._node,), where, self._window, reduce, key, keyed, WINDOWED, words.finish, late=late)
        return self._with(node)

    # -- words for everything -----------------------------------------------------------------------------------------

    def count(self, *, late: Side | None = None) -> Self:
        """Count the events; gives one number."""
        return self._total("count", _Words(int, lambda _: 1, _count, add, tally=add), late, _count_many)

    def sum(self, value: Field | None = None, *, late: Side | None = None) -> Self:
        """Add up values; gives one number, 0 if there are none."""
        get = reading(value, "sum", "value")
        return self._total("sum", _sum(get), late, lambda total, events: sum(_values(get, events), total))

    def mean(self, value: Field | None = None, *, late: Side | None = None) -> Self:
        """Average values; gives one number, or nothing if there are none."""
        return self._total("mean", _mean(reading(value, "mean", "value")), late)

    def min(self, value: Field | None = None, *, late: Side | None = None) -> Self:
        """Find the least value; gives it, or nothing if there are none."""
        return self._total("min", _least(reading(value, "min", "value")), late)

    def max(self, value: Field | None = None, *, late: Side | None = None) -> Self:
        """Find the greatest value; gives it, or nothing if there are none."""
        return self._total("max", _greatest(reading(value, "max", "value")), late)

    def _total(
        self, name: str, words: _Words, late: Side | None, many: Callable[[Any, Iterable[Any]], Any] | None = None
    ) -> Self:
        where = place(name, None, 3)
        if self._window is not None:
            return self._windowed(where, words, late, None, keyed=False)
        if many is None:
            step = words.step

            def each(total: Any, events: Iterable[Any]) -> Any:
                for event in events:
                    total = step(total, event)
                return total

            many = each
        fold: Fold = Batched(where, words.init, many, words.combine, _finish(words))
        return self._with(FoldNode((self._node,), fold))

    def top(self, count: int, by: Field | None = None) -> Self:
        """Find the greatest events; gives them one by one, the greatest first.

        Args:
            count: How many.
            by: Event -> what it is ordered by, or the name of a field, or an index. Default: the event itself.

        Raises:
            OptionError: An option is wrong.
        """
        return self._sorted("top", count, by, largest=True, whole=False)

    def take_sort(self, count: int | None = None, by: Field | None = None, *, reverse: bool = False) -> Self:
        """Sort the events and keep the first; gives one list.

        Args:
            count: How many; None: all.
            by: As of `top`.
            reverse: The greatest come first.

        Raises:
            OptionError: An option is wrong.
        """
        return self._sorted("take_sort", count, by, largest=reverse, whole=True)

    def sort(self, by: Field | None = None, *, reverse: bool = False) -> Self:
        """Sort the events; gives them one by one. All of them are in memory.

        Args:
            by: As of `top`.
            reverse: The greatest come first.
        """
        return self._sorted("sort", None, by, largest=reverse, whole=False)

    def _sorted(self, name: str, count: int | None, by: Field | None, *, largest: bool, whole: bool) -> Self:
        where = place(name, by, 3)
        if count is not None:
            check_count(where, "count", count, 1)
        fold = Top(where, count, reading(by, where, "by"), largest, whole)
        if self._window is None:
            return self._with(FoldNode((self._node,), fold))
        return self._with(self._as_reduce(FoldNode((self._node,), fold)))

    def _as_reduce(self, node: FoldNode) -> ReduceNode:
        """Return a reduce of everything as one with windows and triggers; several keys are in one mapping."""
        fold = node.fold
        assert fold is not None  # noqa: S101 (given)
        if isinstance(fold, FoldAll):
            reduce = Reduce(fold.init, fold.step, combine=fold.combine)
        else:
            combine = fold.merge if fold.merges else None
            reduce = Reduce(fold.begin, _one(fold), fold=fold.add, combine=combine)
        finish = None if isinstance(fold, FoldAll) and fold.finish is None else fold.results
        return ReduceNode(node.before, fold.where, self._window, reduce, emit=node.emit, finish=finish)


def _one(fold: Fold) -> Callable[[Any, Any], Any]:
    return lambda accumulator, event: fold.add(accumulator, (event,))


def _functions(name: str, shown: Any, **functions: Any) -> str:
    """Check functions, and return what errors call their operator."""
    where = place(name, shown, 3)
    for option, function in functions.items():
        if not callable(function) and not (option == "combine" and function is None):
            raise OptionError(where, option, "a function", function)
    return where


def _values(get: Key, events: Iterable[Any]) -> Iterable[Any]:
    return events if get is None else map(get, events)


def _count(total: int, event: Any) -> int:  # noqa: ARG001 (a step)
    return total + 1


def _count_many(total: int, events: Iterable[Any]) -> int:
    if hasattr(events, "__len__"):
        return total + len(events)  # type: ignore[arg-type]
    numbers = count()
    deque(zip(events, numbers, strict=False), 0)  # the interpreter's own loop
    return total + next(numbers)


def _finish(words: _Words) -> Callable[[Any], list[Any]]:
    finish = words.finish

    def results(total: Any) -> list[Any]:
        if total is None:
            return []
        return [total if finish is None else finish(total)]

    return results


def _sum(get: Key) -> _Words:
    if get is None:
        return _Words(int, _same, add, add)
    return _Words(int, get, lambda total, event: total + get(event), add)


def _same(event: Any) -> Any:
    return event


def _mean(get: Key) -> _Words:
    read = get or _same

    def step(total: tuple[Any, int] | None, event: Any) -> tuple[Any, int]:
        return (read(event), 1) if total is None else (total[0] + read(event), total[1] + 1)

    def combine(one: Any, other: Any) -> Any:
        if one is None or other is None:
            return one or other
        return (one[0] + other[0], one[1] + other[1])

    return _Words(_none, lambda event: (read(event), 1), step, combine, lambda total: total[0] / total[1])


def _none() -> None:
    return None


def _least(get: Key) -> _Words:
    return _extreme(get, min)


def _greatest(get: Key) -> _Words:
    return _extreme(get, max)


def _extreme(get: Key, choose: Callable[[Any, Any], Any]) -> _Words:
    read = get or _same

    def step(found: tuple[Any] | None, event: Any) -> tuple[Any]:
        return (read(event),) if found is None else (choose(found[0], read(event)),)

    def combine(one: Any, other: Any) -> Any:
        if one is None or other is None:
            return one or other
        return (choose(one[0], other[0]),)

    return _Words(_none, lambda event: (read(event),), step, combine, lambda found: found[0])
