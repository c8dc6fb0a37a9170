"""Groups: several processes share the events of a log, each stream always with one of them at a time.

The streams are divided into partitions. A member holds some of them by a lease, reads their events, and moves their
checkpoints on when they are handled. When it dies, its leases pass, and others take its partitions up where its
checkpoints are; should it only have been slow, its old epoch keeps it from moving them. What was not yet marked is
handled again: at least once, and exactly once in effect when handler and checkpoint share a transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import itertools
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from headgate.errors import FencedError, OptionError
from headgate.eventlog import checkpoints
from headgate.eventlog.bell import Bell
from headgate.eventlog.checkpoints import Checkpoint
from headgate.eventlog.record import Recorded, Row
from headgate.eventlog.source import LogSource
from headgate.eventlog.stages import Pumped
from headgate.eventlog.store import Query, Statement
from headgate.protocol.dispatch.partition import stable_hash
from headgate.runtime.options import Child, check_count, check_name, check_seconds
from headgate.stage import Consumer

if TYPE_CHECKING:
    from headgate.eventlog.log import EventLog


class Held:
    """A partition that this member holds.

    Attributes:
        checkpoint: Where it is in the store.
        read: Up to which position its events were handed out.
        open: Positions that were handed out and are not handled yet, in order; with those handled out of order.
        leaving: It is to go to somebody else when nothing of it is open.
    """

    __slots__ = ("checkpoint", "done", "leaving", "open", "read")

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Begin behind the checkpoint."""
        self.checkpoint = checkpoint
        self.read = checkpoint.position
        self.open: deque[int] = deque()
        self.done: set[int] = set()
        self.leaving = False

    def handled(self, position: int) -> None:
        """Take note that an event is handled; they may be so in any order."""
        self.done.add(position)
        while self.open and self.open[0] in self.done:
            self.done.discard(self.open.popleft())

    @property
    def reached(self) -> int:
        """Up to where everything is handled."""
        return self.open[0] - 1 if self.open else self.read


class Group:
    """A member of a group. Make it by `EventLog.group`; each process has one of its own.

    Args:
        log: The log.
        name: The group's.
        partitions: Into how many parts the streams are divided: the same for all members, and for good.
        types: Only events of these types.
        streams: Only events of these streams.
        lease: Seconds after which a member that is not heard of is replaced.
        batch: How many events are read at once.
    """

    def __init__(
        self,
        log: EventLog,
        name: str,
        *,
        partitions: int = 16,
        types: tuple[str, ...] = (),
        streams: tuple[str, ...] = (),
        lease: float = 30.0,
        batch: int = 1000,
    ) -> None:
        """Check the options."""
        where = f"group {name!r}"
        check_name(where, "name", name)
        check_count(where, "partitions", partitions, 1)
        check_count(where, "batch", batch, 1)
        self.name = name
        self.owner = uuid.uuid4().hex
        self.partitions = partitions
        self.lease = check_seconds(where, "lease", lease)
        self._log = log
        self._types = types
        self._streams = streams
        self._batch = batch
        self._most_open = 10 * batch  # one event that is never handled stops its partition here, not the others
        self._held: dict[int, Held] = {}
        self._changed = Bell()
        self._keeper: asyncio.Task[None] | None = None
        self._failed: BaseException | None = None

    # -- stages -------------------------------------------------------------------------------------------------------

    def producer(self, **options: Any) -> Child:
        """Return the recipe of a stage that gives the events of this member's partitions.

        Args:
            **options: The options of `Child`. With several consumers, a `PartitionDispatcher` by stream keeps their
                order.
        """
        options.setdefault("id", options.get("name") or f"group {self.name}")
        return Child(GroupProducer, self, **options)

    def source(self) -> LogSource:
        """Return a source for a pipeline: its messages are the events, with their stream as key."""
        return LogSource(self)

    def consumer(self, handler: Callable[..., Any], *, transaction: bool = False, **options: Any) -> Child:
        """Return the recipe of a stage that hands batches to a function, and marks them as handled when it returns.

        Args:
            handler: Of a list of `Recorded`, plain or async. With ``transaction``: of a list and a connection.
            transaction: Run the handler in the transaction that moves the checkpoints: what it writes there is written
                exactly once. On SQLite the handler is then plain and runs in the writer's thread.
            **options: The options of `Child`.
        """
        options.setdefault("id", options.get("name") or f"group {self.name} consumer")
        return Child(GroupConsumer, self, handler, transaction, **options)

    # -- membership ---------------------------------------------------------------------------------------------------

    async def join(self) -> None:
        """Take part: from now on this member takes its share of the partitions, and keeps its leases."""
        if self._keeper is None:
            self._failed = None
            await self._balance()
            self._keeper = asyncio.create_task(self._keep(), name=f"headgate: group {self.name}")

    async def leave(self) -> None:
        """Give all partitions back, where they are, at once."""
        if self._keeper is None:
            return
        self._keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keeper
        self._keeper = None
        for partition in list(self._held):
            await self._release(partition)
        member = "DELETE FROM ~checkpoints WHERE name = ? AND owner = ?"
        await self._log.store.transact([Statement(member, (self._members, self.owner))])

    @property
    def held(self) -> list[int]:
        """The partitions that this member holds."""
        return sorted(self._held)

    @property
    def _members(self) -> str:
        return f"{self.name}:members"

    def partition_of(self, stream: str) -> int:
        """Return the partition of a stream."""
        return stable_hash(stream) % self.partitions

    async def _keep(self) -> None:
        """Renew the leases, and take or give partitions so that all members have about the same."""
        while True:
            await asyncio.sleep(self.lease / 4)
            try:
                await self._balance()
            except Exception as error:  # noqa: BLE001 (whoever takes events gets it)
                self._failed = error
                self._changed.ring()
                return

    async def _balance(self) -> None:
        store, now = self._log.store, int(self._log.clock() * 1e6)
        until = now + int(self.lease * 1e6)
        present = (
            "INSERT INTO ~checkpoints (name, partition, position, epoch, owner, lease_until, updated_at) "
            "VALUES (?, ?, 0, 0, ?, ?, ?) "
            "ON CONFLICT (name, partition) DO UPDATE SET lease_until = excluded.lease_until"
        )
        number = int(self.owner[:7], 16)
        # One by one, in order, as `done_in` does: else the two could wait for each other in the database.
        renew = "UPDATE ~checkpoints SET lease_until = ? WHERE name = ? AND owner = ? AND partition = ?"
        there = "SELECT owner FROM ~checkpoints WHERE name = ? AND lease_until >= ?"
        mine = "SELECT partition FROM ~checkpoints WHERE name = ? AND owner = ?"
        add = (
            "INSERT INTO ~checkpoints (name, partition, position, epoch, updated_at) VALUES (?, ?, 0, 0, ?) "
            "ON CONFLICT (name, partition) DO NOTHING"
        )
        takeable = "name = ? AND (owner IS NULL OR lease_until < ?)"
        free = f"SELECT partition FROM ~checkpoints WHERE {takeable} ORDER BY partition"  # noqa: S608 (a constant)
        *_, members, owned, available = await store.transact(
            [
                Statement(present, (self._members, number, self.owner, until, now)),
                Statement(renew, many=[(until, self.name, self.owner, each) for each in self.held]),
                Statement(add, many=[(self.name, each, now) for each in range(self.partitions)]),
                Statement(there, (self._members, now)),
                Statement(mine, (self.name, self.owner)),
                Statement(free, (self.name, now)),
            ]
        )
        kept = {row[0] for row in owned}
        for partition in [each for each in self._held if each not in kept]:
            del self._held[partition]  # somebody else has it by now
        share = -(-self.partitions // max(len(members), 1))
        staying = [each for each, held in self._held.items() if not held.leaving]
        for partition in staying[share:]:
            self._held[partition].leaving = True
        for partition in [each for each, held in self._held.items() if held.leaving and not held.open]:
            await self._release(partition)
        for (partition,) in available[: max(0, share - len(self._held))]:
            await self._claim(partition, now, until)

    async def _claim(self, partition: int, now: int, until: int) -> None:
        sql = (
            "UPDATE ~checkpoints SET owner = ?, epoch = epoch + 1, lease_until = ?, updated_at = ? "
            "WHERE name = ? AND partition = ? AND (owner IS NULL OR lease_until < ?) RETURNING position, epoch"
        )
        values = (self.owner, until, now, self.name, partition, now)
        (rows,) = await self._log.store.transact([Statement(sql, values)])
        if rows:  # nobody was quicker
            self._held[partition] = Held(Checkpoint(self.name, partition, *rows[0]))
            self._changed.ring()

    async def _release(self, partition: int) -> None:
        held = self._held.pop(partition)
        sql = (
            "UPDATE ~checkpoints SET owner = NULL, lease_until = NULL, position = ? "
            "WHERE name = ? AND partition = ? AND owner = ? AND epoch = ?"
        )
        values = (held.reached, self.name, partition, self.owner, held.checkpoint.epoch)
        await self._log.store.transact([Statement(sql, values)])

    # -- events -------------------------------------------------------------------------------------------------------

    async def take(self, count: int) -> list[Recorded]:
        """Return up to ``count`` events of this member's partitions, at least one: wait until there is one.

        Each is to be given to `done` when it is handled.
        """
        store = self._log.store
        while True:
            if self._failed is not None:
                raise self._failed
            changed = self._changed.next()
            active = {
                partition: held
                for partition, held in self._held.items()
                if not held.leaving and len(held.open) < self._most_open
            }
            head = (await store.head()).position
            behind = min((held.read for held in active.values()), default=head)
            if behind >= head:
                await self._until_news(head if active else None, changed)
                continue
            limit = self._batch
            rows = await self._log.rows(Query(behind + 1, head, self._streams, self._types), None, limit)
            upto = rows[-1][0] if len(rows) == limit else head
            chosen = self._choose(rows, active, count, upto)
            if chosen:
                return list(await self._log.page(chosen))

    def _choose(self, rows: list[Row], active: dict[int, Held], count: int, upto: int) -> list[Row]:
        """Pick the rows of this member's partitions, and note that they are handed out."""
        chosen: list[Row] = []
        for row in rows:
            held = active.get(self.partition_of(row[1]))
            if held is None or row[0] <= held.read:
                continue
            if len(chosen) == count:
                upto = row[0] - 1
                break
            chosen.append(row)
            held.open.append(row[0])
        for held in active.values():
            held.read = max(held.read, upto)
        return chosen

    async def _until_news(self, head: int | None, changed: asyncio.Future[None]) -> None:
        """Wait for new events, or for other partitions."""
        if head is None:
            await asyncio.shield(changed)
            return
        news = asyncio.ensure_future(self._log.store.wait(head))
        try:
            await asyncio.wait([news, changed], return_when=asyncio.FIRST_COMPLETED)
            if news.done():
                news.result()
        finally:
            news.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await news

    async def done(self, events: Iterable[Recorded]) -> None:
        """Mark events as handled, and move the checkpoints.

        Raises:
            FencedError: A partition of these belongs to somebody else by now, who will handle them again.
        """
        touched, lost = self._mark(events)
        now = int(self._log.clock() * 1e6)
        for held in touched:
            try:
                await self._move(held, now)
            except FencedError:
                lost.append(held.checkpoint.partition)
        if lost:
            raise FencedError(
                self._log.store.name, f"group {self.name!r}: partitions {lost} are somebody else's by now"
            )

    async def done_in(self, events: list[Recorded], work: Callable[[Any], Any]) -> Any:
        """Run a function in the transaction that marks the events as handled.

        Raises:
            FencedError: As for `done`; nothing is written then. What is left of them can be handled again: `mine`.
        """
        now = int(self._log.clock() * 1e6)
        moves: list[tuple[Held, int]] = []
        for partition, positions in sorted(self._by_partition(events).items()):
            held = self._held.get(partition)
            if held is None or not held.open or positions[0] < held.open[0]:
                raise self._lost([partition])
            if positions != list(itertools.islice(held.open, len(positions))):
                expected = "handled in order: one consumer, or a PartitionDispatcher by the partition of the stream"
                raise OptionError(f"group {self.name!r}", "transaction", expected, f"events of partition {partition}")
            moves.append((held, positions[-1]))
        steps = [checkpoints.moved(self._log.store, held.checkpoint, position, now) for held, position in moves]
        try:
            result = await self._log.store.run(work, steps)
        except FencedError:
            await self._forget_lost()
            raise
        for held, position in moves:
            held.checkpoint = held.checkpoint._replace(position=position)
        self._mark(events)
        return result

    def mine(self, events: Iterable[Recorded]) -> list[Recorded]:
        """Return those events that were handed out and are not handled yet, and whose partitions are still held."""
        found: list[Recorded] = []
        for event in events:
            held = self._held.get(self.partition_of(event.stream))
            if held is not None and event.position in held.open and event.position not in held.done:
                found.append(event)
        return found

    async def _forget_lost(self) -> None:
        """Let go of the partitions that somebody else has taken."""
        sql = "SELECT partition, epoch FROM ~checkpoints WHERE name = ? AND owner = ?"
        (rows,) = await self._log.store.transact([Statement(sql, (self.name, self.owner))])
        epochs = dict(rows)
        for partition, held in list(self._held.items()):
            if epochs.get(partition) != held.checkpoint.epoch:
                del self._held[partition]

    def _by_partition(self, events: Iterable[Recorded]) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for event in events:
            found.setdefault(self.partition_of(event.stream), []).append(event.position)
        return found

    def _lost(self, partitions: list[int]) -> FencedError:
        which = ", ".join(map(str, partitions))
        return FencedError(self._log.store.name, f"group {self.name!r}: partition {which} is somebody else's by now")

    def _mark(self, events: Iterable[Recorded]) -> tuple[list[Held], list[int]]:
        touched: dict[int, Held] = {}
        lost: set[int] = set()
        for event in events:
            partition = self.partition_of(event.stream)
            held = self._held.get(partition)
            if held is None or not held.open or event.position < held.open[0]:
                lost.add(partition)
                continue
            full = len(held.open) >= self._most_open
            held.handled(event.position)
            if full and len(held.open) < self._most_open:
                self._changed.ring()
            touched[partition] = held
        return list(touched.values()), sorted(lost)

    async def _move(self, held: Held, now: int) -> None:
        old, reached = held.checkpoint, held.reached
        if reached <= old.position:
            return
        held.checkpoint = old._replace(position=reached)
        try:
            await self._log.store.transact([checkpoints.moved(self._log.store, old, reached, now)])
        except FencedError:
            self._held.pop(old.partition, None)
            raise


class GroupProducer(Pumped):
    """Gives the events of a member's partitions."""

    def __init__(self, group: Group) -> None:
        """Keep the member."""
        super().__init__()
        self._group = group

    async def started(self) -> None:
        """Join."""
        await self._group.join()

    async def take(self, count: int) -> list[Recorded]:
        """Wait for events."""
        return await self._group.take(count)

    async def terminate(self, reason: Any) -> None:
        """Leave."""
        await super().terminate(reason)
        await self._group.leave()


class GroupConsumer(Consumer):
    """Hands events to a function, and marks them as handled."""

    def __init__(self, group: Group, handler: Callable[..., Any], transaction: bool) -> None:  # noqa: FBT001 (of a recipe)
        """Keep the function."""
        self._group = group
        self._handler = handler
        self._transaction = transaction

    async def handle_events(self, events: Any, source: Any) -> None:  # noqa: ARG002 (a callback's form)
        """Handle, then mark."""
        batch = list(events)
        if self._transaction:
            await self._handle_in_transaction(batch)
            return
        result = self._handler(batch)
        if inspect.isawaitable(result):
            await result
        with contextlib.suppress(FencedError):  # who has them by now handles them again
            await self._group.done(batch)

    async def _handle_in_transaction(self, batch: list[Recorded]) -> None:
        while batch:
            try:
                await self._group.done_in(batch, functools.partial(self._handler, batch))
            except FencedError:  # who has some of them by now handles them
                left = self._group.mine(batch)
                if len(left) == len(batch):
                    raise
                batch = left
            else:
                return
