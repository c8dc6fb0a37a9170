"""Groups: several processes share the events of a log, each stream always with one of them at a time.

The streams are divided into partitions. A member holds some of them by a lease, reads their events, and moves their
checkpoints on when they are handled. When it dies, its leases pass, and others take its partitions up where its
checkpoints are; should it only have been slow, its old epoch keeps it from moving them. What was not yet marked is
handled again: at least once, and exactly once in effect when handler and checkpoint share a transaction.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from headgate.errors import FencedError, OptionError
from headgate.eventlog import checkpoints
from headgate.eventlog.bell import Bell
from headgate.eventlog.checkpoints import Checkpoint
from headgate.eventlog.group_stages import GroupConsumer, GroupProducer, is_async
from headgate.eventlog.leases import Leases
from headgate.eventlog.parking import Parked, ParkedSource, Parking
from headgate.eventlog.reading import At
from headgate.eventlog.record import Page, Recorded, Row
from headgate.eventlog.source import LogSource
from headgate.eventlog.store import Query, passing
from headgate.protocol.dispatch.partition import stable_hash
from headgate.runtime.options import Child, check_count, check_name, check_seconds
from headgate.sources import cancelled

if TYPE_CHECKING:
    from headgate.eventlog.log import EventLog

logger = logging.getLogger("headgate")


class Held:
    """A partition that this member holds.

    Attributes:
        checkpoint: Where it is in the store.
        read: Up to which position its events were handed out.
        open: Positions that were handed out and are not handled yet, in order; with those handled out of order.
        leaving: It is to go to somebody else when nothing of it is open.
        moving: Held by whoever moves the checkpoint, one at a time.
    """

    __slots__ = ("checkpoint", "done", "leaving", "moving", "open", "read")

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Begin behind the checkpoint."""
        self.checkpoint = checkpoint
        self.read = checkpoint.position
        self.open: deque[int] = deque()
        self.done: set[int] = set()
        self.leaving = False
        self.moving = asyncio.Lock()

    def has(self, position: int) -> bool:
        """Whether it may be one that was handed out and is not handled; older and newer ones are of other times."""
        return bool(self.open) and self.open[0] <= position <= self.read

    def handled(self, position: int) -> None:
        """Take note that an event is handled; they may be so in any order."""
        self.done.add(position)
        while self.open and self.open[0] in self.done:
            self.done.discard(self.open.popleft())

    def moved(self, position: int) -> None:
        """Take note that the checkpoint was moved: everything up to it is handled."""
        self.checkpoint = self.checkpoint._replace(position=position)
        while self.open and self.open[0] <= position:
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
        start: Where a new group begins: a position, a time, or ``"end"``. One that is there goes on.
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
        start: At | str = None,
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
        self._start = start
        self._batch = batch
        self._most_open = 10 * batch  # one event that is never handled stops its partition here, not the others
        self._held: dict[int, Held] = {}
        self._changed = Bell()
        self._turn = asyncio.Lock()  # to join or to leave
        self._keeper: asyncio.Task[None] | None = None
        self._until = 0.0  # by the loop's clock: when the leases run out that were renewed last
        self._end: asyncio.TimerHandle | None = None  # of them
        self._failed: BaseException | None = None  # what the last renewal has, if it is nothing that passes
        self.parking = Parking(log, name)
        self._leases = Leases(log.store, name, self.owner, partitions, self.lease)

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

    async def parked(self, limit: int = 100, *, after: int = 0) -> list[Parked]:
        """Return up to ``limit`` events that pipelines over this group have given up, in the order of their positions.

        Args:
            limit: How many at most.
            after: Only those behind this position.
        """
        check_count(f"group {self.name!r}", "limit", limit, 1)
        check_count(f"group {self.name!r}", "after", after, 0)
        return await self.parking.events(limit, after)

    def parked_source(self) -> ParkedSource:
        """Return a source for a pipeline that handles what is parked again, each event once, and ends.

        What is handled is parked no more. It is for one pipeline at a time, and needs no part in the group.
        """
        return ParkedSource(self.parking)

    async def forget_parked(self, positions: Iterable[int] | None = None) -> int:
        """Park events no more, without handling them: those at these positions, by default all; return how many."""
        return await self.parking.forget(positions)

    def consumer(self, handler: Callable[..., Any], *, transaction: bool = False, **options: Any) -> Child:
        """Return the recipe of a stage that hands batches to a function, and marks them as handled when it returns.

        Args:
            handler: Of a list of `Recorded`, plain or async. With ``transaction``: of a list and a connection.
            transaction: Run the handler in the transaction that moves the checkpoints: what it writes there is written
                exactly once. It must not commit or roll back itself. On SQLite the handler is then plain and runs in
                the writer's thread.
            **options: The options of `Child`.

        Raises:
            OptionError: The handler is async, and the store runs plain ones only.
        """
        if transaction and not self._log.store.awaits and is_async(handler):
            expected = "a plain function with transaction=True, as it runs in the writer's thread of SQLite"
            raise OptionError(f"group {self.name!r}", "handler", expected, handler)
        options.setdefault("id", options.get("name") or f"group {self.name} consumer")
        return Child(GroupConsumer, self, handler, transaction, **options)

    # -- membership ---------------------------------------------------------------------------------------------------

    async def join(self) -> None:
        """Take part: from now on this member takes its share of the partitions, and keeps its leases.

        Raises:
            OptionError: The group has another number of partitions.
        """
        async with self._turn:
            if self._keeper is not None:
                return
            await self._leases.begin(self._first)
            try:
                await self._balance()
            except BaseException:
                self._let_go()
                raise
            self._failed = None
            self._keeper = asyncio.create_task(self._keep(), name=f"headgate: group {self.name}")

    async def _first(self) -> int:
        """Return the position behind which a new group begins."""
        if isinstance(self._start, str):  # it is END
            return await self._log.head()
        first, _ = await self._log.bounds(self._start, None)
        return min(first - 1, await self._log.head())

    async def leave(self) -> None:
        """Give all partitions back, where they are, at once.

        If the database cannot be told, this member holds nothing all the same: its leases run out.
        """
        async with self._turn:
            keeper, self._keeper = self._keeper, None
            if keeper is None:
                return
            held = self._let_go()
            await cancelled(keeper)
            await self._leases.leave((each.checkpoint, each.reached) for each in held.values())

    @property
    def held(self) -> list[int]:
        """The partitions that this member holds."""
        return sorted(self._held)

    def partition_of(self, stream: str) -> int:
        """Return the partition of a stream."""
        return stable_hash(stream) % self.partitions

    def _let_go(self) -> dict[int, Held]:
        """Hold nothing from now on; return what was held."""
        if self._end is not None:
            self._end.cancel()
        held, self._held = self._held, {}
        self._changed.ring()
        return held

    async def _keep(self) -> None:
        """Renew the leases, and take or give partitions so that all members have about the same, come what may."""
        failures = 0
        while True:
            await asyncio.sleep(self.lease / 4)
            try:
                async with asyncio.timeout(self.lease):
                    await self._balance()
            except Exception as error:  # noqa: BLE001 (it is tried again; what does not pass is told to who takes events)
                failures += 1
                if failures == 1:
                    why = "no answer" if isinstance(error, TimeoutError) else error
                    logger.warning("group %r: cannot renew its leases, and tries again: %s", self.name, why)
                self._failed = None if isinstance(error, TimeoutError) or passing(error) else error
                if self._failed is not None:
                    self._changed.ring()
            else:
                failures, self._failed = 0, None

    def _renewed(self, begun: float) -> None:
        """Hold what is held until its leases run out: then others may have it."""
        if self._end is not None:
            self._end.cancel()
        self._until = begun + self.lease
        self._end = asyncio.get_running_loop().call_at(self._until, self._let_go)

    async def _balance(self) -> None:
        clock = asyncio.get_running_loop().time
        begun = clock()
        before = dict(self._held)
        standing = await self._leases.renew(before)
        self._renewed(begun)
        self._compare(before, standing.own)
        share = -(-self.partitions // max(standing.members, 1))
        staying = [each for each, held in self._held.items() if not held.leaving]
        for partition in staying[share:]:
            self._held[partition].leaving = True
        # All at once: what is no longer held cannot be handed out or handled while others are let go.
        going = [self._held.pop(each) for each in self.held if self._held[each].leaving and not self._held[each].open]
        if going:
            await self._leases.release((each.checkpoint, each.reached) for each in going)
        # What is only in the database this member's, by a call that was cancelled, it takes up anew.
        lost = [each for each in standing.own if each not in before]
        for partition in [*lost, *standing.free][: max(0, share - len(self._held))]:
            checkpoint = await self._leases.claim(partition)
            if clock() >= self._until:
                break  # nothing would let go of it; the next time it is this member's already
            if checkpoint is not None:
                self._held[partition] = Held(checkpoint)
                self._changed.ring()

    async def _look_again(self) -> None:
        """See what became of the partitions, after a checkpoint was not where it was expected."""
        before = dict(self._held)
        self._compare(before, await self._leases.own())

    def _compare(self, before: dict[int, Held], own: dict[int, Checkpoint]) -> None:
        """Let go of what somebody else has taken of those that were held before the look into the database.

        A checkpoint that has moved on without it was moved by this member, in a transaction whose end it was not told:
        it was cancelled, or lost its connection.
        """
        for partition, held in before.items():
            found = own.get(partition)
            if self._held.get(partition) is not held:
                continue
            if found is None or found.epoch != held.checkpoint.epoch:
                del self._held[partition]
            elif found.position > held.checkpoint.position:
                self._moved(held, found.position)

    def _moved(self, held: Held, position: int) -> None:
        full = len(held.open) >= self._most_open
        held.moved(position)
        if full and len(held.open) < self._most_open:
            self._changed.ring()

    # -- events -------------------------------------------------------------------------------------------------------

    async def take(self, count: int) -> list[Recorded]:
        """Return up to ``count`` events of this member's partitions, at least one: wait until there is one.

        Each is to be given to `done` when it is handled.

        Raises:
            EventLogError: The log cannot be read. It can be called again.
        """
        check_count(f"group {self.name!r}", "count", count, 1)
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
            chosen, upto = self._choose(rows, active, count, upto)
            page = await self._log.page(chosen)  # the last that is awaited: a call that is cancelled has taken nothing
            events = self._hand_out(page, active, upto)
            if events:
                return events

    def _choose(self, rows: list[Row], active: dict[int, Held], count: int, upto: int) -> tuple[list[Row], int]:
        """Pick rows of this member's partitions; return them, and up to where they are all."""
        chosen: list[Row] = []
        for row in rows:
            held = active.get(self.partition_of(row[1]))
            if held is None or row[0] <= held.read:
                continue
            if len(chosen) == count:
                return chosen, row[0] - 1
            chosen.append(row)
        return chosen, upto

    def _hand_out(self, page: Page, active: dict[int, Held], upto: int) -> list[Recorded]:
        """Note that events are handed out, but for those whose partitions were lost since they were chosen."""
        current = {
            partition: held
            for partition, held in active.items()
            if self._held.get(partition) is held and not held.leaving
        }
        events: list[Recorded] = []
        for event in page:
            held = current.get(self.partition_of(event.stream))
            if held is not None and event.position > held.read:  # another call may have taken it meanwhile
                held.open.append(event.position)
                events.append(event)
        for held in current.values():
            held.read = max(held.read, upto)
        return events

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
            await cancelled(news)

    async def done(self, events: Iterable[Recorded]) -> None:
        """Mark events as handled, and move the checkpoints.

        Raises:
            FencedError: A partition of these belongs to somebody else by now, who will handle them again.
        """
        touched, lost = self._mark(events)
        for held in touched:
            try:
                await self._move(held)
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
            if held is None or not all(map(held.has, positions)):
                raise self._lost([partition])
            if positions != list(itertools.islice(held.open, len(positions))):
                expected = "handled in order: one consumer, or a PartitionDispatcher by the partition of the stream"
                raise OptionError(f"group {self.name!r}", "transaction", expected, f"events of partition {partition}")
            moves.append((held, positions[-1]))
        steps = [checkpoints.moved(self._log.store, held.checkpoint, position, now) for held, position in moves]
        try:
            result = await self._log.store.run(work, steps)
        except FencedError:
            await self._look_again()
            raise
        for held, position in moves:
            self._moved(held, position)
        return result

    def holds(self, event: Recorded) -> bool:
        """Whether an event that was handed out is still this member's to handle."""
        held = self._held.get(self.partition_of(event.stream))
        return held is not None and held.has(event.position)

    def mine(self, events: Iterable[Recorded]) -> list[Recorded]:
        """Return those events that were handed out and are not handled yet, and whose partitions are still held."""
        found: list[Recorded] = []
        for event in events:
            held = self._held.get(self.partition_of(event.stream))
            if held is not None and event.position in held.open and event.position not in held.done:
                found.append(event)
        return found

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
            if held is None or not held.has(event.position):
                lost.add(partition)
                continue
            full = len(held.open) >= self._most_open
            held.handled(event.position)
            if full and len(held.open) < self._most_open:
                self._changed.ring()
            touched[partition] = held
        return list(touched.values()), sorted(lost)

    async def _move(self, held: Held) -> None:
        """Move a checkpoint to where its partition has come, while that goes on."""
        store = self._log.store
        async with held.moving:
            while (reached := held.reached) > (old := held.checkpoint).position:
                try:
                    await store.transact([checkpoints.moved(store, old, reached, int(self._log.clock() * 1e6))])
                except FencedError:
                    await self._look_again()
                    if self._held.get(old.partition) is not held or held.checkpoint == old:
                        raise
                else:
                    held.moved(reached)
