"""Queues that choose whose event is next, and the two dispatchers that use them.

Routing is the demand dispatcher's: only the order in which events leave the stage differs, so fairness and priority are
orders of the *queue*, and all else (bounds, infos, what a consumer hands back) is what it is everywhere.

* `FairDispatcher`: deficit round robin over the keys (Shreedhar & Varghese, "Efficient fair queueing using deficit round
  robin", SIGCOMM 1995; every event costs 1). A key is in the round while it has events; a round gives each key
  ``quantum * weight`` of them.
* `PriorityDispatcher`: the lowest number first, with ageing: an event gains one class for each ``ageing`` events that
  came after it. Time cancels out of the comparison of two events, so the rank of an event,
  ``priority * ageing + arrival``, is fixed when it comes.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from headgate.errors import DispatchError, OptionError
from headgate.protocol.batching import Batch
from headgate.protocol.buffer import Queue
from headgate.protocol.dispatch.base import Outlet
from headgate.protocol.dispatch.demand import DemandDispatcher
from headgate.protocol.ledger import Piece

Entry = tuple[Any, Any, int]
"""An event, its token, and its number of arrival."""


class _Held:
    """An info, the arrival before which it came, and how many older events are still here."""

    __slots__ = ("arrival", "before", "message")

    def __init__(self, message: Any, arrival: int, before: int) -> None:
        self.message = message
        self.arrival = arrival
        self.before = before


class _Mixed:
    """The token of a batch that was put together from several keys and origins, in the order of its events."""

    __slots__ = ("_at", "_queue", "names", "tokens")

    def __init__(self, queue: OrderedQueue, names: list[Any], tokens: list[Any]) -> None:
        self._queue = queue
        self._at = 0
        self.names = names
        self.tokens = tokens

    def settle(self, count: int) -> None:
        start, self._at = self._at, self._at + count
        self._queue.landed(self.names[start : self._at])
        for token in self.tokens[start : self._at]:
            if token is not None:
                token.settle(1)

    def part(self, start: int, stop: int) -> _Mixed:
        return _Mixed(self._queue, self.names[start:stop], self.tokens[start:stop])


class OrderedQueue:
    """Common ground of both orders: the count, the infos, and what comes back."""

    ordered = False
    tracked = False
    """True: tokens are needed, to know which keys are in flight."""

    def __init__(self, outlet: Outlet, option: str, expected: str) -> None:
        """Start empty."""
        self._outlet = outlet
        self._option = option
        self._expected = expected
        self.size = 0
        self._arrival = 0
        self._infos: deque[_Held] = deque()
        self._free: list[Any] = []


    def ready(self) -> int:
        """Return how many could be taken now."""
        return self.size

    def put(self, batch: Batch, size: int, token: Any) -> None:  # noqa: ARG002 (the contract's form)
        """Put each event where it belongs."""
        for index, event in enumerate(batch):
            mark = token if token is None else token.part(index, index + 1)
            self._arrival += 1
            self._add((event, mark, self._arrival), front=False)

    def put_front(self, pieces: Iterable[Piece]) -> None:
        """Put what came back ahead of all of its kind."""
        for batch, size, token in reversed(list(pieces)):
            mixed = type(token) is _Mixed
            if mixed:
                self.landed(token.names)
            for index in range(size - 1, -1, -1):
                self._add((batch[index], token.tokens[index] if mixed else token, 0), front=True)
                for info in self._infos:
                    info.before += 1

    def take(self, limit: int) -> Piece:
        """Take up to ``limit`` events, whoever is next each time."""
        limit = 1 if self._infos else min(limit, self.ready())  # an info may be due after any of them
        entries: list[Entry] = []
        names: list[Any] = []
        self._select(limit, entries, names)
        size = len(entries)
        self.size -= size
        if self._infos:
            self._gone(entries[0])
        events = [entry[0] for entry in entries]
        if self.tracked or any(entry[1] is not None for entry in entries):
            return events, size, _Mixed(self, names, [entry[1] for entry in entries])
        return events, size, None

    def shed(self, count: int) -> list[Piece]:
        """Take out events of the key that has the most (fair), or of the lowest rank (priority)."""
        pieces: list[Piece] = []
        for _ in range(count):
            entry = self._worst()
            self.size -= 1
            self._gone(entry)
            pieces.append(([entry[0]], 1, entry[1]))
        return pieces

    def hold(self, message: Any) -> bool:
        """Keep an info until the events that are here now have left."""
        if not self.size:
            return False
        self._infos.append(_Held(message, self._arrival, self.size))
        return True

    def released(self) -> list[Any]:
        """Take out the infos whose turn has come, in order."""
        if not self._free:
            return self._free
        free, self._free = self._free, []
        return free

    def landed(self, names: list[Any]) -> None:
        """Take note that events of these keys are no longer in flight."""

    def _lost(self, entry: Entry, error: Exception) -> None:
        fault = DispatchError(self._outlet.name, self._option, self._expected, f"{type(error).__name__}: {error}", entry[0])
        fault.__cause__ = error
        self._outlet.report(fault)
        self._outlet.discard(1, entry[1], f"{self._option} raised")

    def _gone(self, entry: Entry) -> None:
        for info in self._infos:
            if entry[2] <= info.arrival:
                info.before -= 1
        while self._infos and not self._infos[0].before:
            self._free.append(self._infos.popleft().message)

    def _add(self, entry: Entry, *, front: bool) -> None:
        raise NotImplementedError

    def _select(self, limit: int, entries: list[Entry], names: list[Any]) -> None:
        raise NotImplementedError

    def _worst(self) -> Entry:
        raise NotImplementedError


class _Key:
    """The events of one key, oldest first."""

    __slots__ = ("active", "deficit", "entries", "in_flight", "name", "share")

    def __init__(self, name: Any, share: int) -> None:
        self.name = name
        self.share = share  # events of one round
        self.deficit = 0
        self.in_flight = 0
        self.active = False
        self.entries: deque[Entry] = deque()


class FairQueue(OrderedQueue):
    """Deficit round robin over keys."""

    def __init__(self, outlet: Outlet, key: Callable[[Any], Any], share: Callable[[Any], int], cap: int | None) -> None:
        """Start without keys."""
        super().__init__(outlet, "key", "a hashable key, whose weight is an integer of at least 1")
        self._key = key
        self._share = share
        self._cap = cap
        self.tracked = cap is not None
        self._blocked = 0  # events that cannot be taken as their key is at its cap
        self._keys: dict[Any, _Key] = {}
        self._round: deque[_Key] = deque()

    def ready(self) -> int:
        """Return how many could be taken now: what would take a key over its cap does not count."""
        return self.size - self._blocked

    def landed(self, names: list[Any]) -> None:
        """Let keys that were at their cap back into the round."""
        if self._cap is None:
            return
        for name in names:
            key = self._keys[name]
            before = self._excess(key)
            key.in_flight -= 1
            self._blocked += self._excess(key) - before
            self._activate(key)
            self._forget(key)

    def _excess(self, key: _Key) -> int:
        if self._cap is None:
            return 0
        return max(0, len(key.entries) + key.in_flight - self._cap)

    def _activate(self, key: _Key) -> None:
        if key.entries and not key.active and (self._cap is None or key.in_flight < self._cap):
            key.active = True
            self._round.append(key)

    def _forget(self, key: _Key) -> None:
        if not key.entries and not key.in_flight:
            self._keys.pop(key.name, None)

    def _add(self, entry: Entry, *, front: bool) -> None:
        try:
            name = self._key(entry[0])
            key = self._keys.get(name)
            if key is None:
                key = self._keys[name] = _Key(name, self._share(name))
        except Exception as error:  # noqa: BLE001 (the user's function)
            self._lost(entry, error)
            return
        before = self._excess(key)
        if front:
            key.entries.appendleft(entry)
        else:
            key.entries.append(entry)
        self._blocked += self._excess(key) - before
        self.size += 1
        if not key.active:
            self._activate(key)

    def _select(self, limit: int, entries: list[Entry], names: list[Any]) -> None:
        line = self._round
        while limit:
            key = line[0]
            if not key.deficit:
                key.deficit = key.share
            count = min(key.deficit, limit, len(key.entries))
            if self._cap is not None:
                count = min(count, self._cap - key.in_flight)
                key.in_flight += count
                names.extend([key.name] * count)
            if count == 1:
                entries.append(key.entries.popleft())
            else:
                entries.extend([key.entries.popleft() for _ in range(count)])
            limit -= count
            key.deficit -= count
            if not key.entries or key.in_flight == self._cap:
                line.popleft()
                key.active = False
                key.deficit = 0
                self._forget(key)
            elif not key.deficit:
                line.rotate(-1)

    def _worst(self) -> Entry:
        key = max(self._keys.values(), key=lambda each: len(each.entries))
        before = self._excess(key)
        entry = key.entries.popleft()
        self._blocked += self._excess(key) - before
        if not key.entries and key.active:
            self._round.remove(key)
            key.active = False
            key.deficit = 0
        self._forget(key)
        return entry


class PriorityQueue(OrderedQueue):
    """The lowest rank first."""

    def __init__(self, outlet: Outlet, priority: Callable[[Any], float], ageing: int | None) -> None:
        """Start empty."""
        super().__init__(outlet, "priority", "a number")
        self._priority = priority
        self._ageing = ageing
        self._front: deque[Entry] = deque()
        self._heap: list[tuple[float, int, Entry]] = []

    def _add(self, entry: Entry, *, front: bool) -> None:
        if front:
            self._front.appendleft(entry)
        else:
            try:
                rank = self._rank(self._priority(entry[0]), entry[2])
            except Exception as error:  # noqa: BLE001 (the user's function)
                self._lost(entry, error)
                return
            heapq.heappush(self._heap, (rank, entry[2], entry))
        self.size += 1

    def _rank(self, priority: float, arrival: int) -> float:
        if not isinstance(priority, (int, float)) or math.isnan(priority):
            raise TypeError(repr(priority))
        return priority if self._ageing is None else priority * self._ageing + arrival

    def _select(self, limit: int, entries: list[Entry], names: list[Any]) -> None:  # noqa: ARG002 (the base's form)
        while limit and self._front:
            entries.append(self._front.popleft())
            limit -= 1
        heap = self._heap
        for _ in range(limit):
            entries.append(heapq.heappop(heap)[2])

    def _worst(self) -> Entry:
        if not self._heap:
            return self._front.pop()
        worst = max(range(len(self._heap)), key=self._heap.__getitem__)
        entry = self._heap.pop(worst)[2]
        heapq.heapify(self._heap)
        return entry


class FairDispatcher(DemandDispatcher):
    """Each event to one subscriber, its keys (users, tenants) served in turn.

    Args:
        key: Event -> its key (hashable).
        weights: Key -> weight, as a mapping (1 for keys that are not in it) or a function; integers of at least 1.
        cap: The most events of one key that may be in flight (delivered, not handled) at once. Default: no limit.
        quantum: Events that a key of weight 1 gets in a round. Default 1.

    Raises:
        OptionError: An option is of the wrong type or out of range.
    """

    def __init__(
        self,
        key: Callable[[Any], Any],
        *,
        weights: Mapping[Any, int] | Callable[[Any], int] | None = None,
        cap: int | None = None,
        quantum: int = 1,
    ) -> None:
        """Check and keep the options."""
        super().__init__()
        where = type(self).__name__
        if not callable(key):
            raise OptionError(where, "key", "a function of an event", key)
        if weights is not None and not callable(weights) and not isinstance(weights, Mapping):
            raise OptionError(where, "weights", "a mapping or a function from key to weight", weights)
        if isinstance(weights, Mapping):
            for name, weight in weights.items():
                if type(weight) is not int or weight < 1:
                    raise OptionError(where, "weights", f"integers of at least 1 (here for key {name!r})", weight)
        if cap is not None and (type(cap) is not int or cap < 1):
            raise OptionError(where, "cap", "an integer of at least 1, or None", cap)
        if type(quantum) is not int or quantum < 1:
            raise OptionError(where, "quantum", "an integer of at least 1", quantum)
        self._key = key
        self._weights = weights
        self._cap = cap
        self._quantum = quantum

    def queue(self) -> Queue:
        """Return the fair queue."""
        return FairQueue(self.outlet, self._key, self._share, self._cap)

    def _share(self, name: Any) -> int:
        weights = self._weights
        if weights is None:
            return self._quantum
        weight = weights.get(name, 1) if isinstance(weights, Mapping) else weights(name)
        if type(weight) is not int or weight < 1:
            raise TypeError(f"the weight of key {name!r} is {weight!r}")
        return self._quantum * weight


class PriorityDispatcher(DemandDispatcher):
    """Each event to one subscriber, the most urgent event first.

    Args:
        priority: Event -> a number; the lowest goes first, equals in the order of their arrival.
        ageing: An event gains one class for each ``ageing`` events that came after it, so that no class waits for ever.
            Default 1000; None: strict priority.

    Raises:
        OptionError: An option is of the wrong type or out of range.
    """

    def __init__(self, priority: Callable[[Any], float], *, ageing: int | None = 1000) -> None:
        """Check and keep the options."""
        super().__init__()
        if not callable(priority):
            raise OptionError(type(self).__name__, "priority", "a function of an event", priority)
        if ageing is not None and (type(ageing) is not int or ageing < 1):
            raise OptionError(type(self).__name__, "ageing", "an integer of at least 1, or None", ageing)
        self._priority = priority
        self._ageing = ageing

    def queue(self) -> Queue:
        """Return the priority queue."""
        return PriorityQueue(self.outlet, self._priority, self._ageing)
