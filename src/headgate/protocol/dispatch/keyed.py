"""Queues that choose whose event is next, and the two dispatchers that use them.

Routing is the demand dispatcher's: only the order in which events leave the stage differs, so fairness and priority are
orders of the *queue*, and all else (bounds, infos, what a consumer hands back) is what it is everywhere.

* `FairDispatcher`: deficit round robin over the keys (Shreedhar & Varghese, "Efficient fair queueing using deficit
  round robin", SIGCOMM 1995; every event costs 1). A key is in the round while it has events; a round gives each key
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
from typing import Any, Final

from headgate.errors import DispatchError, OptionError
from headgate.protocol.batching import Batch, rows
from headgate.protocol.buffer import Queue
from headgate.protocol.dispatch.base import Outlet
from headgate.protocol.dispatch.demand import DemandDispatcher
from headgate.protocol.ledger import Piece, Suspect, split

_SPARE: Final = 1000
"""Records of keys without events that are kept to be used again."""

Entry = tuple[Any, Any, int]
"""An event, its token, and its number of arrival."""


class _Mixed:
    """The token of a batch that was put together from several keys and origins, in the order of its events."""

    __slots__ = ("_at", "_queue", "names", "tokens")

    def __init__(self, queue: FairQueue, names: list[Any], tokens: list[Any]) -> None:
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
        part = _Mixed(self._queue, self.names[start:stop], self.tokens[start:stop])
        part._at = max(0, min(self._at, stop) - start)
        return part


def _lost(outlet: Outlet, option: str, expected: str, event: Any, token: Any, error: Exception) -> None:
    """Report and discard an event that a function of the user's failed for."""
    fault = DispatchError(outlet.name, option, expected, f"{type(error).__name__}: {error}", event)
    fault.__cause__ = error
    outlet.report(fault)
    outlet.discard(1, token, f"{option} raised")


class _Front(deque[Piece]):
    """Pieces that came back with events that a handler has failed with, and what came back before those.

    They leave first and as they are, so that it stays known which events failed together. What they hold of their keys'
    caps they keep meanwhile.
    """

    size = 0

    def put(self, pieces: list[Piece]) -> list[Piece]:
        """Keep those up to the last suspects; return the others."""
        last = len(pieces)
        while last and type(pieces[last - 1][2]) is not Suspect:
            last -= 1
        self.extendleft(reversed(pieces[:last]))
        self.size += sum(piece[1] for piece in pieces[:last])
        return pieces[last:]

    def take(self, limit: int) -> Piece:
        """Take the first piece, or as much of it as may go."""
        piece = self.popleft()
        if piece[1] > limit:
            piece, rest = split(piece, limit)
            self.appendleft(rest)
        self.size -= piece[1]
        return piece

    def shed(self) -> Piece:
        """Take out the last event."""
        piece = self.pop()
        if piece[1] > 1:
            rest, piece = split(piece, piece[1] - 1)
            self.append(rest)
        self.size -= 1
        return piece


class _Key(deque[Any]):
    """The events of one key, oldest first (with their tokens, when the queue is marked).

    Keys come and go all the time, so that one is made quickly: what is usual stands on the class.
    """

    name: Any
    share: int  # events of one round
    deficit = 0
    in_flight = 0
    active = False


class FairQueue:
    """Deficit round robin over keys. A `Queue`.

    As long as no event has a token (the stage is a source, and there is no cap), the bare events are kept; from the
    first token on, pairs of event and token.
    """

    ordered = False

    def __init__(
        self,
        outlet: Outlet,
        key: Callable[[Any], Any],
        share: Callable[[Any], int] | None,
        quantum: int,
        cap: int | None,
    ) -> None:
        """Start without keys. ``share``: a key's events of one round, or None: ``quantum`` for everybody."""
        self.size = 0
        self._outlet = outlet
        self._key = key
        self._share = share
        self._quantum = quantum
        self._cap = cap
        self._marked = cap is not None
        self._front = _Front()
        self._blocked = 0  # events that cannot be taken as their key is at its cap
        self._keys: dict[Any, _Key] = {}
        self._round: deque[_Key] = deque()
        self._spare: list[_Key] = []  # empty ones, to be used again: making one costs more than all else about an event
        self._infos: deque[tuple[Any, dict[Any, int]]] = deque()  # with how many events of each key go before them
        self._free: list[Any] = []

    def ready(self) -> int:
        """Return how many could be taken now: what would take a key over its cap does not count."""
        return self.size - self._blocked

    def put(self, batch: Batch, size: int, token: Any) -> None:
        """Put each event behind the others of its key."""
        if token is not None and not self._marked:
            self._mark()
        if self._marked:
            for index, event in enumerate(rows(batch)):
                self._add(event, None if token is None else token.part(index, index + 1), front=False)
            return
        if self._share is not None:
            for event in rows(batch):
                self._add(event, None, front=False)
            return
        key_of, keys, line, quantum, spare = self._key, self._keys, self._round, self._quantum, self._spare
        for event in rows(batch):
            try:
                name = key_of(event)
                key = keys.get(name)
            except Exception:  # noqa: BLE001 (a key that cannot be had: with more care, then)
                self._add(event, None, front=False)
                size -= 1
                continue
            if key is not None:
                key.append(event)
                continue
            if spare:
                key = spare.pop()
                key.append(event)
            else:
                key = _Key((event,))
                key.share = quantum
                key.active = True  # one that is here without a cap is in the round
            key.name = name
            keys[name] = key
            line.append(key)
        self.size += size

    def put_front(self, pieces: Iterable[Piece]) -> None:
        """Put what came back ahead of the others of its key; suspects ahead of everything."""
        kept = self._front.size
        rest = self._front.put(list(pieces))
        kept = self._front.size - kept
        if kept:
            self.size += kept
            for _, before in self._infos:
                before[_FRONT] = before.get(_FRONT, 0) + kept
        for batch, size, token in reversed(rest):
            mixed = type(token) is _Mixed
            if mixed:
                self.landed(token.names)
            elif token is not None and not self._marked:
                self._mark()
            for index in range(size - 1, -1, -1):
                name = self._add(batch[index], token.tokens[index] if mixed else token, front=True)
                for _, before in self._infos:
                    before[name] = before.get(name, 0) + 1

    def take(self, limit: int) -> Piece:
        """Take up to ``limit`` events, each key in its turn."""
        if self._front:
            piece = self._front.take(limit)
            self.size -= piece[1]
            for _ in range(piece[1] if self._infos else 0):
                self._gone(_FRONT)
            return piece
        limit = 1 if self._infos else min(limit, self.size - self._blocked)  # an info may be due after any of them
        if self._share is None and self._quantum == 1 and not self._marked and not self._infos:
            return self._take_evenly(limit), limit, None
        entries: list[Any] = []
        names: list[Any] = []
        self._select(limit, entries, names)
        self.size -= limit
        if self._infos:
            self._gone(names[0])
        if not self._marked:
            return entries, limit, None
        return [entry[0] for entry in entries], limit, _Mixed(self, names, [entry[1] for entry in entries])

    def shed(self, count: int) -> list[Piece]:
        """Take out the oldest events of whoever has the most."""
        pieces: list[Piece] = []
        for _ in range(count):
            if self.size == self._front.size:
                pieces.append(self._front.shed())
                self.size -= 1
                self._gone(_FRONT)
                continue
            key = max(self._keys.values(), key=len)
            before = self._excess(key)
            entry = key.popleft()
            self._blocked += self._excess(key) - before
            self.size -= 1
            if not key and key.active:
                self._round.remove(key)
                self._retire(key)
            self._gone(key.name)
            pieces.append(([entry[0]], 1, entry[1]) if self._marked else ([entry], 1, None))
        return pieces

    def hold(self, message: Any) -> bool:
        """Keep an info until the events that are here now have left."""
        if not self.size:
            return False
        before = {name: len(key) for name, key in self._keys.items() if key}
        if self._front:
            before[_FRONT] = self._front.size
        self._infos.append((message, before))
        return True

    def released(self) -> list[Any]:
        """Take out the infos whose turn has come, in order."""
        if not self._free:
            return self._free
        free, self._free = self._free, []
        return free

    def landed(self, names: list[Any]) -> None:
        """Take note that events of these keys are no longer in flight; keys that were at their cap may go on."""
        if self._cap is None:
            return
        for name in names:
            key = self._keys[name]
            before = self._excess(key)
            key.in_flight -= 1
            self._blocked += self._excess(key) - before
            self._activate(key)
            self._forget(key)

    def _take_evenly(self, limit: int) -> list[Any]:
        """Take one event of each key in turn: the round without deficits, which it is when every share is 1."""
        line, keys, spare = self._round, self._keys, self._spare
        taken: list[Any] = []
        next_key, again, take = line.popleft, line.append, taken.append
        for _ in range(limit):
            key = next_key()
            take(key.popleft())
            if key:
                again(key)
            else:
                del keys[key.name]
                spare.append(key)
        del spare[_SPARE:]
        self.size -= limit
        return taken

    def _select(self, limit: int, entries: list[Any], names: list[Any]) -> None:
        line, cap = self._round, self._cap
        while limit:
            key = line[0]
            if not key.deficit:
                key.deficit = key.share
            count = min(key.deficit, limit, len(key))
            if cap is not None:
                count = min(count, cap - key.in_flight)
                key.in_flight += count
            names.extend([key.name] * count)
            entries.extend([key.popleft() for _ in range(count)])
            limit -= count
            key.deficit -= count
            if not key or key.in_flight == cap:
                line.popleft()
                self._retire(key)
            elif not key.deficit:
                line.rotate(-1)

    def _new(self, name: Any) -> _Key:
        key = _Key()
        key.name = name
        key.share = self._quantum if self._share is None else self._share(name)
        return key

    def _add(self, event: Any, token: Any, *, front: bool) -> Any:
        """Put one event to its key and return the key's name; one whose key cannot be had is reported and discarded."""
        try:
            name = self._key(event)
            key = self._keys.get(name)
            if key is None:
                key = self._keys[name] = self._new(name)
        except Exception as error:  # noqa: BLE001 (the user's function)
            expected = "a hashable key, whose weight is an integer of at least 1"
            _lost(self._outlet, "key", expected, event, token, error)
            return None
        before = self._excess(key)
        (key.appendleft if front else key.append)((event, token) if self._marked else event)
        self._blocked += self._excess(key) - before
        self.size += 1
        self._activate(key)
        return name

    def _mark(self) -> None:
        """Go over to pairs of event and token."""
        self._marked = True
        for key in self._keys.values():
            for index in range(len(key)):
                key[index] = (key[index], None)

    def _excess(self, key: _Key) -> int:
        """Return how many events of the key cannot be taken."""
        return 0 if self._cap is None else max(0, len(key) + key.in_flight - self._cap)

    def _activate(self, key: _Key) -> None:
        if key and not key.active and (self._cap is None or key.in_flight < self._cap):
            key.active = True
            self._round.append(key)

    def _retire(self, key: _Key) -> None:
        """Take the key out of the round, with what was left of its share."""
        key.active = False
        key.deficit = 0
        self._forget(key)

    def _forget(self, key: _Key) -> None:
        if not key and not key.in_flight:
            self._keys.pop(key.name, None)

    def _gone(self, name: Any) -> None:
        """Count an event that left against the infos that wait for it, and release those whose last it was."""
        for _, before in self._infos:
            if name in before:
                before[name] -= 1
                if not before[name]:
                    del before[name]
        while self._infos and not self._infos[0][1]:
            self._free.append(self._infos.popleft()[0])


_FRONT = object()


class _Share:
    """The token of a batch that was put together from several origins, in the order of its events."""

    __slots__ = ("_at", "tokens")

    def __init__(self, tokens: list[Any]) -> None:
        self._at = 0
        self.tokens = tokens

    def settle(self, count: int) -> None:
        start, self._at = self._at, self._at + count
        for token in self.tokens[start : self._at]:
            if token is not None:
                token.settle(1)

    def part(self, start: int, stop: int) -> _Share:
        part = _Share(self.tokens[start:stop])
        part._at = max(0, min(self._at, stop) - start)
        return part


class PriorityQueue:
    """The lowest rank first. A `Queue`."""

    ordered = False

    def __init__(self, outlet: Outlet, priority: Callable[[Any], float], ageing: int | None) -> None:
        """Start empty."""
        self.size = 0
        self._outlet = outlet
        self._priority = priority
        self._ageing = ageing
        self._arrival = 0
        self._front = _Front()
        self._returned: deque[Entry] = deque()  # what came back besides
        self._heap: list[tuple[float, int, Entry]] = []
        self._infos: deque[list[Any]] = deque()  # message, arrival before which it came, events still before it
        self._free: list[Any] = []

    def ready(self) -> int:
        """Return the number of events: all of them can be taken."""
        return self.size

    def put(self, batch: Batch, size: int, token: Any) -> None:  # noqa: ARG002 (the contract's form)
        """Put each event where its rank belongs."""
        priority, ageing, heap = self._priority, self._ageing, self._heap
        for index, event in enumerate(rows(batch)):
            mark = None if token is None else token.part(index, index + 1)
            try:
                rank: Any = priority(event)
                if isinstance(rank, str) or math.isnan(rank):
                    raise TypeError(repr(rank))  # noqa: TRY301 (one way for all that is wrong with it)
            except Exception as error:  # noqa: BLE001 (the user's function)
                _lost(self._outlet, "priority", "a number", event, mark, error)
                continue
            self._arrival = arrival = self._arrival + 1
            heapq.heappush(heap, (rank if ageing is None else rank * ageing + arrival, arrival, (event, mark, arrival)))
            self.size += 1

    def put_front(self, pieces: Iterable[Piece]) -> None:
        """Put what came back ahead of everything."""
        pieces = list(pieces)
        for batch, size, token in reversed(self._front.put(pieces)):
            shared = type(token) is _Share
            for index in range(size - 1, -1, -1):
                self._returned.appendleft((batch[index], token.tokens[index] if shared else token, 0))
        count = sum(piece[1] for piece in pieces)
        self.size += count
        for info in self._infos:
            info[2] += count

    def take(self, limit: int) -> Piece:
        """Take up to ``limit`` events, the lowest rank first."""
        if self._front:
            piece = self._front.take(limit)
            self.size -= piece[1]
            for _ in range(piece[1] if self._infos else 0):
                self._gone((None, None, 0))
            return piece
        limit = 1 if self._infos else min(limit, self.size)  # an info may be due after any of them
        front, heap = self._returned, self._heap
        entries = [front.popleft() if front else heapq.heappop(heap)[2] for _ in range(limit)]
        self.size -= limit
        if self._infos:
            self._gone(entries[0])
        tokens = [entry[1] for entry in entries]
        mixed = any(token is not None for token in tokens)
        return [entry[0] for entry in entries], limit, _Share(tokens) if mixed else None

    def shed(self, count: int) -> list[Piece]:
        """Take out the events of the highest rank."""
        pieces: list[Piece] = []
        for _ in range(count):
            if self._heap:
                worst = max(range(len(self._heap)), key=self._heap.__getitem__)
                entry = self._heap.pop(worst)[2]
                heapq.heapify(self._heap)
            elif self._returned:
                entry = self._returned.pop()
            else:
                pieces.append(self._front.shed())
                self.size -= 1
                self._gone((None, None, 0))
                continue
            self.size -= 1
            self._gone(entry)
            pieces.append(([entry[0]], 1, entry[1]))
        return pieces

    def hold(self, message: Any) -> bool:
        """Keep an info until the events that are here now have left."""
        if not self.size:
            return False
        self._infos.append([message, self._arrival, self.size])
        return True

    def released(self) -> list[Any]:
        """Take out the infos whose turn has come, in order."""
        if not self._free:
            return self._free
        free, self._free = self._free, []
        return free

    def _gone(self, entry: Entry) -> None:
        for info in self._infos:
            if entry[2] <= info[1]:
                info[2] -= 1
        while self._infos and not self._infos[0][2]:
            self._free.append(self._infos.popleft()[0])


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
        share = None if self._weights is None else self._share
        return FairQueue(self.outlet, self._key, share, self._quantum, self._cap)

    def _share(self, name: Any) -> int:
        weights = self._weights
        assert weights is not None  # noqa: S101 (else nobody asks)
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
