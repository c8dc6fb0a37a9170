"""Messages that were fetched and wait for a processor: whose turn is next. Pure.

Three rules, in any combination, and plain first come, first served without any:

* ``priority``: the lowest class first, with ageing so that no class starves;
* ``fair``: within a class, users take turns (deficit round robin), whatever each has waiting;
* ``serial``: of one key one item is out at a time, in order; what waits behind it waits apart and is in nobody's way.

An item behind another of its key has no turn before that one is released, however urgent it is.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Final

from headgate.errors import OptionError
from headgate.protocol.turns import ITEM, KEY, NUMBER, Classes, Entry, Fair, Line, Turns

_COMPACT: Final = 1000
"""Places of items that were taken which a plain intake may keep, whatever else it has."""


class Intake:
    """Waiting items, in the order in which they are to be handled.

    Args:
        fair: Item -> its user (hashable). Default: no turns.
        weights: User -> items of a round, an integer of at least 1, as a mapping (1 for those that are not in it) or a
            function. Default: 1.
        serial: Item -> its key (hashable). None is no key: such items wait for nobody. Default: none has one.
        priority: Item -> its class, an integer; the lowest is the most urgent. Default: all have the same.
        ageing: A class that waits gains on the others by one for each ``ageing`` items that are taken meanwhile.
            None: it never does.
        limit: How many items may wait; `room` counts down from it. It is up to the caller to fetch no more; what is
            offered all the same is not lost.
        key_limit: How many items of one key may wait; `overflow` gives the others back. Default: any number.
        where: What errors call it.

    Attributes:
        errors: Items for which a function of the user's has failed, with what it raised: they do not wait any more.
            For the caller to take out.
        waiting: Items that wait.

    Raises:
        OptionError: An option is of the wrong type or out of range.
    """

    def __init__(
        self,
        *,
        fair: Callable[[Any], Any] | None = None,
        weights: Mapping[Any, int] | Callable[[Any], int] | None = None,
        serial: Callable[[Any], Any] | None = None,
        priority: Callable[[Any], int] | None = None,
        ageing: int | None = 1000,
        limit: int = 1000,
        key_limit: int | None = None,
        where: str = "Intake",
    ) -> None:
        """Check the options and start empty."""
        for option, function in (("fair", fair), ("serial", serial), ("priority", priority)):
            if function is not None and not callable(function):
                raise OptionError(where, option, "a function of an item, or None", function)
        _check_count(where, "limit", limit)
        _check_count(where, "ageing", ageing, or_none=True)
        _check_count(where, "key_limit", key_limit, or_none=True)
        if key_limit is not None and serial is None:
            raise OptionError(where, "key_limit", "left out, as there is no serial key", key_limit)
        share = None if weights is None else _share(where, weights)
        if share is not None and fair is None:
            raise OptionError(where, "weights", "left out, as it is not fair between users", weights)
        self._fair = fair
        self._serial = serial
        self._priority = priority
        self._limit = limit
        self._key_limit = key_limit
        self._plain = fair is None and serial is None and priority is None
        self._items: list[Any] = []  # plain: what waits, behind places of what was taken
        self._first = 0  # plain: where it begins
        self._turns = _turns(fair is not None, share, priority is not None, ageing)
        self._put = self._turns.put
        self._last = 0  # number of arrival
        self._before = 0  # number of the last one that was put back: the higher, the earlier
        self._heads: dict[Any, Entry] = {}  # by key: the only one that has its turn, or is out
        self._lines: dict[Any, deque[Entry]] = {}  # by key: those behind it, if any
        self._out: dict[int, Entry] = {}  # by the item's id: those of keys that were taken
        self._many: dict[Any, None] = {}  # keys that may have more than they may
        self.errors: list[tuple[Any, Exception]] = []
        self.waiting = 0

    @property
    def ready(self) -> int:
        """How many could be taken now."""
        return self.waiting if self._plain else self._turns.size

    @property
    def room(self) -> int:
        """How many more may be fetched."""
        return max(0, self._limit - self.waiting)

    @property
    def out(self) -> int:
        """How many items of keys were taken and not released."""
        return len(self._out)

    @property
    def keys(self) -> int:
        """How many keys have items that wait or are out."""
        return len(self._heads)

    # -- what comes in ------------------------------------------------------------------------------------------------

    def offer(self, items: Sequence[Any]) -> None:
        """Put items behind what waits, in order."""
        if self._plain:
            self._items += items
            self.waiting += len(items)
            return
        last, self._last = self._last, self._last + len(items)
        entries = self._entries(items, range(last + 1, self._last + 1))
        if self._serial is None:
            before = self._turns.size
            self._turns.put_all(entries, self.errors)
            self.waiting += self._turns.size - before
            return
        for entry in entries:
            try:
                self._add(entry)
            except Exception as error:  # noqa: BLE001 (the user's: a hash, a weight)
                self.errors.append((entry[ITEM], error))

    def _add(self, entry: Entry) -> None:
        key = entry[KEY]
        if key is None:
            self._put(entry)
        elif key in self._heads:
            line = self._lines.get(key)
            if line is None:
                line = self._lines[key] = deque()
            line.append(entry)
            if self._key_limit is not None and len(line) >= self._key_limit:
                self._many[key] = None
        else:
            self._put(entry)  # may raise: then nothing has happened
            self._heads[key] = entry
        self.waiting += 1

    def put_back(self, items: Sequence[Any]) -> None:
        """Put items that were taken before all that wait, in order; a key that one of them had is free again.

        Each goes to the front of its key, or else of its user and class; whose turn it is does not change.
        """
        if self._plain:
            first = self._first
            keep = max(0, first - len(items))
            self._items[keep:first] = items
            self._first = keep
            self.waiting += len(items)
            return
        for item in reversed(items):
            self._before -= 1
            entry = self._out.pop(id(item), None)
            if entry is not None:
                self._put_first((self._before, *entry[1:]))
                continue
            for made in self._entries((item,), (self._before,)):
                try:
                    self._put_before(made)
                except Exception as error:  # noqa: BLE001 (the user's: a hash, a weight)
                    self.errors.append((item, error))

    def _put_first(self, entry: Entry) -> None:
        """Put back the one of its key that was out."""
        self._heads[entry[KEY]] = entry
        self.waiting += 1
        self._note(entry[KEY])
        try:
            self._turns.put_front(entry)
        except Exception as error:  # noqa: BLE001 (the user's: a weight)
            self._failed(entry, error)

    def _put_before(self, entry: Entry) -> None:
        """Put back one that nobody knows to be out."""
        key = entry[KEY]
        head = None if key is None else self._heads.get(key)
        if head is not None and id(head[ITEM]) in self._out:
            behind: Entry | None = entry
        else:
            self._turns.put_front(entry)  # may raise: then nothing has happened
            behind = head
            if head is not None:
                self._turns.remove(head)
            if key is not None:
                self._heads[key] = entry
        if behind is not None:
            self._lines.setdefault(key, deque()).appendleft(behind)
            self._note(key)
        self.waiting += 1

    def is_out(self, item: Any) -> bool:
        """Say whether an item of a key was taken and not released."""
        return id(item) in self._out

    def _note(self, key: Any) -> None:
        """Take note that a key may have more than it may."""
        if self._key_limit is not None and len(self._lines.get(key, ())) >= self._key_limit:
            self._many[key] = None

    def _entries(self, items: Sequence[Any], numbers: Iterable[int]) -> Iterator[Entry] | list[Entry]:
        """Return entries of items; report those for which a function fails."""
        fair, serial, priority = self._fair, self._serial, self._priority
        try:
            users = repeat(None) if fair is None else list(map(fair, items))
            keys = repeat(None) if serial is None else list(map(serial, items))
            classes = repeat(0) if priority is None else list(map(operator.index, map(priority, items)))
        except Exception:  # noqa: BLE001 (the user's function: one by one, then)
            return self._entries_one_by_one(items, numbers)
        return zip(numbers, users, keys, classes, items, strict=False)

    def _entries_one_by_one(self, items: Sequence[Any], numbers: Iterable[int]) -> list[Entry]:
        fair, serial, priority = self._fair, self._serial, self._priority
        entries: list[Entry] = []
        for item, number in zip(items, numbers, strict=True):
            try:
                user = None if fair is None else fair(item)
                key = None if serial is None else serial(item)
                entries.append((number, user, key, 0 if priority is None else operator.index(priority(item)), item))
            except Exception as error:  # noqa: BLE001 (the user's function)
                self.errors.append((item, error))
        return entries

    # -- what goes out ------------------------------------------------------------------------------------------------

    def take(self, limit: int) -> list[Any]:
        """Take out up to so many items that may be handled now, in order. Those of a key are to be released."""
        if self._plain:
            return self._take_plain(limit)
        entries = self._turns.take(limit)
        self.waiting -= len(entries)
        if self._serial is not None:
            out = self._out
            for entry in entries:
                if entry[KEY] is not None:
                    out[id(entry[ITEM])] = entry
        return [entry[ITEM] for entry in entries]

    def _take_plain(self, limit: int) -> list[Any]:
        items, first = self._items, self._first
        if limit >= self.waiting:
            taken = items[first:] if first else items
            self._items, self._first, self.waiting = [], 0, 0
            return taken
        stop = first + limit
        taken = items[first:stop]
        items[first:stop] = [None] * limit  # nobody else is to keep them alive
        self._first = stop
        self.waiting -= limit
        if stop > _COMPACT and stop > self.waiting:
            del items[:stop]
            self._first = 0
        return taken

    def release(self, items: Iterable[Any]) -> int:
        """Take note that items which were taken are done: the next of their keys have their turns.

        Those without a key, and those that are not out, are passed over.

        Returns:
            How many have become ready.
        """
        out = self._out
        if not out:
            return 0
        before = self._turns.size
        heads, lines = self._heads, self._lines
        for item in items:
            entry = out.pop(id(item), None)
            if entry is None:
                continue
            key = entry[KEY]
            if key in lines:
                self._next(key)
            else:
                del heads[key]
        return self._turns.size - before

    def release_key(self, key: Any) -> bool:
        """Take note that the item of this key that was taken is done; return whether there was one."""
        head = self._heads.get(key)
        if head is None or self._out.pop(id(head[ITEM]), None) is None:
            return False
        self._next(key)
        return True

    def _next(self, key: Any) -> None:
        """Give the next of a key its turn; forget a key that has none."""
        line = self._lines.get(key)
        while line:
            entry = line.popleft()
            if not line:
                del self._lines[key]
            try:
                self._turns.put(entry)
            except Exception as error:  # noqa: BLE001 (the user's: a hash, a weight)
                self.waiting -= 1
                self.errors.append((entry[ITEM], error))
                continue
            self._heads[key] = entry
            return
        del self._heads[key]

    def _failed(self, entry: Entry, error: Exception) -> None:
        """Leave out the head of a key, for which a function has failed."""
        self.waiting -= 1
        self.errors.append((entry[ITEM], error))
        self._next(entry[KEY])

    def overflow(self) -> dict[Any, list[Any]]:
        """Take out what keys have beyond ``key_limit``: the newest of each.

        Returns:
            By key, in order of arrival.
        """
        limit, many = self._key_limit, self._many
        if not many or limit is None:
            return {}
        found: dict[Any, list[Any]] = {}
        for key in many:
            line = self._lines.get(key)
            if line is None:
                continue
            over = len(line) + (id(self._heads[key][ITEM]) not in self._out) - limit
            if over > 0:
                found[key] = [line.pop()[ITEM] for _ in range(over)][::-1]
                self.waiting -= over
                if not line:
                    del self._lines[key]
        many.clear()
        return found

    def withdraw(self, key: Any) -> list[Any]:
        """Take out what waits behind the item of a key that is out.

        Returns:
            In order of arrival.
        """
        line = self._lines.pop(key, None)
        if not line:
            return []
        self._many.pop(key, None)
        self.waiting -= len(line)
        return [entry[ITEM] for entry in line]

    def clear(self) -> list[Any]:
        """Take out all that waits.

        Returns:
            In order of arrival; what was put back comes first.
        """
        if self._plain:
            return self._take_plain(self.waiting)
        entries = self._turns.take(self._turns.size)
        for line in self._lines.values():
            entries += line
        entries.sort(key=operator.itemgetter(NUMBER))
        self._lines.clear()
        self._many.clear()
        self._heads = {entry[KEY]: entry for entry in self._out.values()}
        self.waiting = 0
        return [entry[ITEM] for entry in entries]


def _turns(fair: bool, share: Callable[[Any], int] | None, priority: bool, ageing: int | None) -> Turns:  # noqa: FBT001 (our own)
    """Return the order of what is ready."""

    def within() -> Turns:
        return Fair(share) if fair else Line()

    return Classes(within, ageing) if priority else within()


def _share(where: str, weights: Any) -> Callable[[Any], int]:
    """Return the function from user to weight that the option stands for; it refuses what is no weight."""
    if isinstance(weights, Mapping):
        for user, weight in weights.items():
            if type(weight) is not int or weight < 1:
                raise OptionError(where, "weights", f"integers of at least 1 (here for user {user!r})", weight)
        known: Mapping[Any, int] = weights
        return lambda user: known.get(user, 1)
    if not callable(weights):
        raise OptionError(where, "weights", "a mapping or a function from user to weight, or None", weights)

    def share(user: Any) -> int:
        weight = weights(user)
        if type(weight) is not int or weight < 1:
            raise TypeError(f"expected the weight of user {user!r} to be an integer of at least 1, got {weight!r}")
        return weight

    return share


def _check_count(where: str, option: str, value: Any, *, or_none: bool = False) -> None:
    if (value is not None or not or_none) and (type(value) is not int or value < 1):
        raise OptionError(where, option, "an integer of at least 1" + ", or None" * or_none, value)
