"""The partition dispatcher: each event to the subscriber of its partition.

Every partition has its own demand and its own queue. Events are wanted as long as any partition has unmet demand, so a
stuck partition costs the others nothing until its own queue is full; then its policy decides: the source waits
(``"block"``), the partition's oldest events are dropped and counted (``"shed"``), or its queue goes on outside of
memory (``"spill"``). A partition whose subscriber leaves keeps its queue for the successor.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from headgate.errors import DispatchError, OptionError, SubscriptionError
from headgate.protocol.batching import Batch, cut, pick, rows
from headgate.protocol.dispatch.base import Dispatcher
from headgate.protocol.ledger import Piece, Subscriber


def stable_hash(value: Any) -> int:
    """Return a hash that is the same in every process: of integers themselves, of all else CRC-32 of text or bytes."""
    if hasattr(value, "__index__"):  # also the whole numbers of numpy
        return int(value)
    if isinstance(value, str):
        return zlib.crc32(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, bytes):
        return zlib.crc32(value)
    return zlib.crc32(repr(value).encode("utf-8", "surrogatepass"))


class _Barrier:
    """An info that waits in several lanes until each has passed it."""

    __slots__ = ("info", "lanes")

    def __init__(self, info: Any, lanes: int) -> None:
        self.info = info
        self.lanes = lanes


class _Lane:
    """One partition."""

    __slots__ = ("name", "pieces", "seen", "size", "spilled", "store", "subscriber", "want")

    def __init__(self, name: Hashable) -> None:
        self.name = name
        self.subscriber: Subscriber | None = None
        self.pieces: deque[Piece | _Barrier] = deque()
        self.size = 0  # events in `pieces` and in `store`
        self.want = 0  # its unmet demand when it was looked at last
        self.seen = 0  # its size then
        self.store: Any = None
        self.spilled: deque[tuple[int, Any] | _Barrier] = deque()  # length and token of each batch in `store`

    def room(self) -> int:
        subscriber = self.subscriber
        return subscriber.asked - subscriber.sent if subscriber is not None else 0


class PartitionDispatcher(Dispatcher):
    """Each event to the one subscriber of its partition (``To(partition=)``).

    Args:
        partitions: How many (their names are 0, 1, ...), or a sequence of names.
        hash: Event -> the name of its partition, or None to drop the event. Default: `stable_hash` modulo the number of
            partitions; names other than 0, 1, ... need a hash of their own.
        queue_size: Events that one partition may keep waiting. Default 1000.
        stuck: What happens when a partition's queue is full: ``"block"`` (default), ``"shed"`` or ``"spill"``.

    Raises:
        OptionError: An option is missing, of the wrong type or out of range.
    """

    holds = True
    pools = True

    def __init__(
        self,
        partitions: int | Sequence[Hashable],
        *,
        hash: Callable[[Any], Any] | None = None,  # noqa: A002 (the field's word)
        queue_size: int = 1000,
        stuck: str = "block",
    ) -> None:
        """Check and keep the options."""
        where = type(self).__name__
        if (
            isinstance(partitions, bool)
            or not isinstance(partitions, (int, Sequence))
            or isinstance(partitions, (str, bytes))
        ):
            raise OptionError(where, "partitions", "an integer of at least 1 or a sequence of names", partitions)
        names = list(range(partitions)) if isinstance(partitions, int) else list(partitions)
        if not names or not all(isinstance(each, Hashable) for each in names) or len(set(names)) != len(names):
            raise OptionError(
                where, "partitions", "at least one partition, each a hashable name, each once", partitions
            )
        if hash is None and names != list(range(len(names))):
            raise OptionError(where, "hash", "a function of an event, as the partitions have names of their own", hash)
        if hash is not None and not callable(hash):
            raise OptionError(where, "hash", "a function of an event", hash)
        if type(queue_size) is not int or queue_size < 1:
            raise OptionError(where, "queue_size", "an integer of at least 1", queue_size)
        if stuck not in ("block", "shed", "spill"):
            raise OptionError(where, "stuck", "'block', 'shed' or 'spill'", stuck)
        self._hash = hash
        self._count = len(names)
        self._queue_size = queue_size
        self._stuck = stuck
        self._lanes: dict[Any, _Lane] = {name: _Lane(name) for name in names}
        self._unmet = 0  # the sum of all `want`
        self._backed: dict[Any, _Lane] = {}  # the partitions that have a queue
        self._waiting = 0  # the sum of all `seen`
        self._written_off = 0
        self._room = queue_size

    def subscribe(self, subscriber: Subscriber) -> None:
        """Give it its partition.

        Raises:
            SubscriptionError: The option ``partition`` is missing, unknown, or taken.
        """
        consumer, producer = subscriber.names()
        name = subscriber.terms.partition
        names = ", ".join(map(repr, self._lanes))
        if name is None:
            raise SubscriptionError(
                consumer, producer, f"expected option 'partition' to be one of {names}; it is missing"
            )
        lane = self._lanes.get(name) if isinstance(name, Hashable) else None
        if lane is None:
            raise SubscriptionError(
                consumer, producer, f"expected option 'partition' to be one of {names}, got: {name!r}"
            )
        if lane.subscriber is not None:
            raise SubscriptionError(
                consumer, producer, f"expected option 'partition' to be a free partition, {name!r} is taken"
            )
        lane.subscriber = subscriber
        subscriber.slot = lane
        self._look(lane)

    def cancel(self, subscriber: Subscriber, pieces: list[Piece]) -> list[Piece]:
        """Free the partition; what was in flight goes back to the head of its queue, for the successor."""
        lane: _Lane = subscriber.slot
        lane.subscriber = None
        lane.pieces.extendleft(reversed(pieces))
        lane.size += sum(piece[1] for piece in pieces)
        self._look(lane)
        return []

    def give_back(self, subscriber: Subscriber, pieces: list[Piece]) -> list[Piece]:
        """Put it at the head of the partition's queue; a successor may be waiting for it already."""
        lane: _Lane = subscriber.slot
        lane.pieces.extendleft(reversed(pieces))
        lane.size += sum(piece[1] for piece in pieces)
        self._drain(lane)
        self._look(lane)
        return []

    def asked(self, subscriber: Subscriber, count: int) -> None:  # noqa: ARG002 (the contract's form)
        """Serve the partition's own queue first."""
        lane = subscriber.slot
        if lane.pieces or lane.size:
            self._drain(lane)
        self._look(lane)

    def dispatch(self, batch: Batch, size: int, token: Any) -> int:
        """Route events as long as any partition has unmet demand."""
        taken = 0
        while taken < size and self.wanted > 0:
            count = min(size - taken, self.wanted, self._room)
            self._route(batch if count == size else cut(batch, taken, taken + count), count, token)
            taken += count
        return taken

    def queued(self) -> dict[Any, int]:
        """Return the length of each partition's queue."""
        return {name: lane.size for name, lane in self._lanes.items() if lane.size}

    def hold(self, info: Any) -> bool:
        """Keep an info until every partition that is backed up has passed it."""
        backed_up = [lane for lane in self._lanes.values() if lane.size]
        barrier = _Barrier(info, len(backed_up))
        for lane in backed_up:
            (lane.spilled or lane.pieces).append(barrier)
        return bool(backed_up)

    def idle(self) -> None:
        """Write off what is queued now: its partitions do not ask, and the others shall not wait for them."""
        self._written_off = self._waiting
        self._sum_up()

    def _look(self, lane: _Lane) -> None:
        """See again how one partition stands, and with it what all want."""
        subscriber, size = lane.subscriber, lane.size
        want = 0
        if size:
            self._backed[lane.name] = lane
        else:
            if self._backed:
                self._backed.pop(lane.name, None)
            if subscriber is not None:
                want = subscriber.asked - subscriber.sent
        self._unmet += want - lane.want
        lane.want = want
        self._waiting += size - lane.seen
        lane.seen = size
        self._sum_up()

    def _sum_up(self) -> None:
        """See what all partitions want.

        What waits in queues is counted against the unmet demand of all: its partitions are likely to ask for it next,
        and what they ask is met by it. When the stage has nothing else to do and there is still unmet demand, they
        were not: then what waits is written off (`idle`). ``_room`` is how many events may come, all of them for the
        fullest partition, before a bound is passed.
        """
        waiting = self._waiting
        self._written_off = min(self._written_off, waiting)
        self._room = self._queue_size
        if self._backed and self._stuck == "block":
            self._room -= max([each.size for each in self._backed.values()])
        unmet = self._unmet
        wanted = unmet - waiting + self._written_off
        self.wanted = wanted if wanted > 0 and self._room > 0 else 0
        self.absorbed = unmet > 0 and self.wanted == 0 and self._room > 0

    def _route(self, batch: Batch, size: int, token: Any) -> None:
        lanes = self._lanes
        pieces = self._pieces(batch, token)
        for name, piece in pieces.items():
            count = len(piece)
            if not count:
                continue
            lane = lanes[name]
            subscriber = lane.subscriber
            if subscriber is not None and not lane.size and count <= subscriber.asked - subscriber.sent:
                self.outlet.deliver(subscriber, piece if count < size else batch, count, token)
            else:
                self._enqueue(lane, piece, count, token)
            self._look(lane)

    def _pieces(self, batch: Batch, token: Any) -> dict[Any, Any]:
        """Split a batch by partition."""
        if hasattr(batch, "dtype") or hasattr(batch, "num_rows"):  # arrays stay arrays
            where: dict[Any, list[int]] = {}
            for index, name in enumerate(self._names(batch, token)):
                if name is not _NOWHERE:
                    where.setdefault(name, []).append(index)
            return {name: pick(batch, indices) for name, indices in where.items()}
        route = self._hash or self._default
        pieces: dict[Any, list[Any]] = {name: [] for name in self._lanes} if len(self._lanes) <= len(batch) else {}
        try:
            if pieces:
                for event in batch:
                    pieces[route(event)].append(event)
                return pieces
        except Exception:  # noqa: BLE001 (none, an unknown partition or a fault: with more care, then)
            pieces = {}
        for event, name in zip(batch, self._names(batch, token), strict=True):
            if name is not _NOWHERE:
                pieces.setdefault(name, []).append(event)
        return pieces

    def _default(self, event: Any) -> int:
        return (event if type(event) is int else stable_hash(event)) % self._count

    def _names(self, batch: Batch, token: Any) -> list[Any]:
        """Return each event's partition; those that have none are discarded here."""
        route = self._hash or self._default
        names: list[Any] = []
        lanes = self._lanes
        for event in rows(batch):
            try:
                name = route(event)
                known = name in lanes
            except Exception as error:  # noqa: BLE001 (the user's function)
                names.append(self._lost(event, token, f"{type(error).__name__}: {error}", error))
                continue
            if known:
                names.append(name)
            elif name is None:
                self.outlet.discard(1, token, "hash gave none")
                names.append(_NOWHERE)
            else:
                names.append(self._lost(event, token, repr(name)))
        return names

    def _lost(self, event: Any, token: Any, got: str, cause: Exception | None = None) -> object:
        expected = f"one of the partitions {', '.join(map(repr, self._lanes))}, or None"
        error = DispatchError(self.outlet.name, "hash", expected, got, event)
        error.__cause__ = cause
        self.outlet.report(error)
        self.outlet.discard(1, token, "no such partition" if cause is None else "hash raised")
        return _NOWHERE

    def _enqueue(self, lane: _Lane, piece: Batch, size: int, token: Any) -> None:
        if self._stuck == "spill" and (lane.spilled or lane.size + size > self._queue_size + lane.room()):
            if lane.store is None:
                lane.store = self.outlet.spill(f"{self.outlet.name}-{lane.name}")
            lane.store.append(piece)
            lane.spilled.append((size, token))
        else:
            lane.pieces.append((piece, size, token))
        lane.size += size
        self._drain(lane)
        if self._stuck == "shed" and lane.size > self._queue_size:
            self._shed(lane, lane.size - self._queue_size)

    def _drain(self, lane: _Lane) -> None:
        while lane.pieces or lane.spilled:
            if not lane.pieces:
                oldest = lane.spilled.popleft()
                lane.pieces.append(oldest if isinstance(oldest, _Barrier) else (lane.store.popleft(), *oldest))
            piece = lane.pieces[0]
            if type(piece) is _Barrier:
                lane.pieces.popleft()
                self._pass(piece)
                continue
            room = lane.room()
            if room <= 0:
                return
            batch, size, token = lane.pieces.popleft()  # type: ignore[misc]  # no barrier
            if size > room:
                lane.pieces.appendleft((cut(batch, room, size), size - room, token))
                batch, size = cut(batch, 0, room), room
            lane.size -= size
            self.outlet.deliver(lane.subscriber, batch, size, token)  # type: ignore[arg-type]  # room > 0

    def _shed(self, lane: _Lane, excess: int) -> None:
        while excess > 0:
            piece = lane.pieces.popleft()
            if type(piece) is _Barrier:
                self._pass(piece)
                continue
            batch, size, token = piece  # type: ignore[misc]  # no barrier
            drop = min(size, excess)
            if drop < size:
                lane.pieces.appendleft((cut(batch, drop, size), size - drop, token))
            lane.size -= drop
            excess -= drop
            self.outlet.discard(drop, token, "partition full")

    def _pass(self, barrier: _Barrier) -> None:
        barrier.lanes -= 1
        if barrier.lanes == 0:
            self.outlet.release(barrier.info)


_NOWHERE = object()
