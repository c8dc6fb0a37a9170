"""`Projector`: keeps the states of a projection, and its checkpoint, in the log's own database.

States and checkpoint are written in one transaction, so each event counts exactly once, whatever crashes. The states of
one *generation* belong together; a rebuild makes another generation beside the one that is read, and swaps them when it
has caught up.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from headgate.errors import EventLogError, FencedError, OptionError, RebuildingError
from headgate.eventlog import checkpoints, checks
from headgate.eventlog.checkpoints import Checkpoint
from headgate.eventlog.projection import Projection
from headgate.eventlog.record import Page, Recorded
from headgate.eventlog.stages import Looked
from headgate.eventlog.store import Statement, after_prefix, matches
from headgate.runtime.options import Child, To, check_count
from headgate.stage import Consumer

if TYPE_CHECKING:
    from headgate.eventlog.log import EventLog

_CACHED: Final = 50_000  # states that are kept in memory
_CHUNK: Final = 500
_LEASE: Final = 30_000_000  # microseconds without progress after which another may build a projection anew
_LIVE: Final = (  # as checkpoint_name
    "FROM ~projections AS p LEFT JOIN ~checkpoints AS c "
    "ON c.name = 'projection ' || p.name || '#' || p.generation AND c.partition = 0"
)
_OF: Final = "WHERE p.name = ?"


class Lag(NamedTuple):
    """How far a projection is behind.

    Attributes:
        positions: How many positions of the log it has not seen.
        seconds: The age of the oldest of them.
    """

    positions: int
    seconds: float


class Projector:
    """Keeps a projection up to date. Make it by `EventLog.projector`. What several tasks do with it goes in turn.

    Args:
        log: The log.
        projection: What to keep.
        batch: How many events are folded in one transaction.
    """

    def __init__(self, log: EventLog, projection: Projection, *, batch: int = 1000) -> None:
        """Keep them; nothing is read yet."""
        check_count("EventLog.projector", "batch", batch, 1)
        self.log = log
        self.projection = projection
        self.batch = batch
        self._generation = 0
        self._checkpoint: Checkpoint | None = None
        self._states: dict[str, Any] = {}
        self._turn = asyncio.Lock()  # states in memory are those of one batch at a time

    def __repr__(self) -> str:
        """Show the projection."""
        return f"<Projector of {self.projection!r}>"

    @property
    def _own(self) -> str:
        return checkpoint_name(self.projection, self._generation)

    # -- keeping up ---------------------------------------------------------------------------------------------------

    async def take_up(self) -> int:
        """Go on from where the projection is, and fence off whoever else was at it.

        Returns:
            The position that it is at.

        Raises:
            EventLogError: It was built with another logic: `rebuild` it.
        """
        async with self._turn:
            return await self._take_up()

    async def _take_up(self) -> int:
        store, projection = self.log.store, self.projection
        self._checkpoint = None
        self._states.clear()
        while True:
            generation, logic = await self._entered()
            if logic != projection.logic:
                why = f"projection {projection.name!r} was built with logic {logic!r}, and this is {projection.logic!r}"
                raise EventLogError(store.name, f"{why}; rebuild it")
            name = checkpoint_name(projection, generation)
            taken = checkpoints.taken_over(name, int(self.log.clock() * 1e6))
            # After that: a swap moves the old checkpoint before it changes this.
            live = Statement("SELECT generation FROM ~projections WHERE name = ?", (projection.name,))
            *_, ((position, epoch),), ((now_live,),) = await store.transact([*taken, live])
            if now_live == generation:
                self._generation = generation
                self._checkpoint = Checkpoint(name, 0, position, epoch)
                return int(position)

    async def _entered(self) -> tuple[int, str]:
        """Return the generation that is live, and its logic; a projection that is new begins with this logic."""
        name, logic = self.projection.name, self.projection.logic
        add = "INSERT INTO ~projections (name, generation, logic) VALUES (?, 1, ?) ON CONFLICT (name) DO NOTHING"
        sql = "SELECT generation, logic FROM ~projections WHERE name = ?"
        _, (found,) = await self.log.store.transact([Statement(add, (name, logic)), Statement(sql, (name,))])
        return found[0], found[1]

    async def handle(self, events: Sequence[Recorded], *, upto: int | None = None) -> int:
        """Fold a batch of events, and write states and checkpoint in one transaction.

        Args:
            events: In order. Those that were folded already are left out, and those that it is not about; if some are
                missing before the first one, they are read.
            upto: The position that it is at then. Default, and at least: that of the last event.

        Returns:
            How many were folded.

        Raises:
            FencedError: Somebody else keeps this projection by now.
        """
        expected = "a list of recorded events"
        checks.check_kind("Projector.handle", "events", events, Sequence, expected)
        if not isinstance(events, Page) and not all(isinstance(each, Recorded) for each in events):
            raise OptionError("Projector.handle", "events", expected, events)
        _check_place("Projector.handle", "upto", upto)
        async with self._turn:
            return await self._handle(events, upto)

    async def _handle(self, events: Sequence[Recorded], upto: int | None) -> int:
        at = await self._at()
        before = events[0].position - 1 if events else upto or 0
        # Where a rebuild of somebody else is taken up, it may be behind the one who has these events.
        count = await self._read(at + 1, before) if before > at else 0
        return count + await self._fold(events, upto)

    async def _at(self) -> int:
        """Return the position that it is at; take it up where nobody has."""
        return await self._take_up() if self._checkpoint is None else self._checkpoint.position

    async def _read(self, start: int, until: int) -> int:
        """Fold what is there, and return how many that were."""
        count = 0
        async for page in self.projection.pages(self.log, start, until, self.batch):
            count += await self._fold(list(page))
        return count

    async def _fold(self, events: Sequence[Recorded], upto: int | None = None) -> int:
        checkpoint = self._checkpoint
        assert checkpoint is not None  # noqa: S101 (it was taken up)
        fresh = [event for event in events if event.position > checkpoint.position]
        position = max(upto or 0, fresh[-1].position if fresh else 0)
        if position <= checkpoint.position:
            return 0
        projection = self.projection
        query = projection.query(self.log)
        if query.streams or query.types:
            fresh = [event for event in fresh if matches(query, event.row)]
        await self._fetch({entity for event in fresh for entity in projection.entities(event)})
        states = self._states
        changed: dict[str, int] = {}
        try:
            for event in fresh:
                for entity in projection.step(states, event):
                    changed[entity] = event.position
            await self._write(changed, checkpoint, position)
        except BaseException:
            self._checkpoint = None  # what is in memory may be ahead of what is written, or behind it
            raise
        self._checkpoint = checkpoint._replace(position=position)
        if len(states) > _CACHED:
            states.clear()
        return len(fresh)

    async def _fetch(self, entities: set[str]) -> None:
        """Get the states that are not in memory."""
        missing = [each for each in entities if each not in self._states]
        for at in range(0, len(missing), _CHUNK):
            some = tuple(missing[at : at + _CHUNK])
            for entity, _, data in await self._rows(f"entity IN ({', '.join('?' * len(some))})", some):
                self._states[entity] = self.projection.load(data)

    async def _write(self, changed: dict[str, int], checkpoint: Checkpoint, position: int) -> None:
        name, generation, states = self.projection.name, self._generation, self._states
        dump = self.projection.dump
        kept = [
            (name, generation, entity, at, dump(states[entity]))
            for entity, at in changed.items()
            if states[entity] is not None
        ]
        gone = [(name, generation, entity) for entity in changed if states[entity] is None]
        steps = [checkpoints.moved(self.log.store, checkpoint, position, int(self.log.clock() * 1e6))]
        if kept:
            sql = (
                "INSERT INTO ~states (projection, generation, entity, position, data) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (projection, generation, entity) "
                "DO UPDATE SET position = excluded.position, data = excluded.data"
            )
            steps.append(Statement(sql, many=kept))
        if gone:
            sql = "DELETE FROM ~states WHERE projection = ? AND generation = ? AND entity = ?"
            steps.append(Statement(sql, many=gone))
        steps += self._also()
        await self.log.store.transact(steps)

    def _also(self) -> list[Statement]:
        """Return what else belongs into the transaction of each batch."""
        return []

    async def catch_up(self, until: int | None = None) -> int:
        """Fold all that is there.

        Args:
            until: Up to this position. Default: the end of the log as it is now.

        Returns:
            How many events were folded.
        """
        _check_place("Projector.catch_up", "until", until)
        async with self._turn:
            return await self._catch_up(until)

    async def _catch_up(self, until: int | None) -> int:
        at = await self._at()
        head = await self.log.head()
        last = head if until is None else min(until, head)
        if at >= last:
            await self._confirm()
            return 0
        count = await self._read(at + 1, last)
        await self._fold([], last)  # what is not of its types is behind it too
        return count

    async def _confirm(self) -> None:
        """Notice that somebody else keeps it, where there is nothing to write: what is read then may be behind."""
        checkpoint = self._checkpoint
        assert checkpoint is not None  # noqa: S101 (it was taken up)
        sql = "SELECT 1 FROM ~checkpoints WHERE name = ? AND partition = 0 AND position = ? AND epoch = ?"
        values = (checkpoint.name, checkpoint.position, checkpoint.epoch)
        (rows,) = await self.log.store.transact([Statement(sql, values)])
        if not rows:
            self._checkpoint = None
            raise checkpoints.fenced(self.log.store, checkpoint)

    def stages(self, name: str | None = None, **options: Any) -> list[Child]:
        """Return recipes of two stages that keep the projection up to date: a producer, and a consumer of it.

        Args:
            name: What the producer is called; the consumer is ``NAME projector``. Default: the projection's name.
            **options: The options of `Child`, for both.
        """
        name = name or self.projection.name
        return [
            self.log.producer(
                streams=self.projection.streams,
                types=self.projection.types,
                checkpoint=self,
                batch=self.batch,
                name=name,
                **options,
            ),
            Child(
                _ProjectorStage,
                self,
                name=f"{name} projector",
                subscribe_to=[To(name, max_demand=2 * self.batch, min_demand=self.batch)],
                **options,
            ),
        ]

    # -- looking ------------------------------------------------------------------------------------------------------

    async def get(self, entity: str) -> Any:
        """Return the state of an entity as it was written last; None: there is none."""
        checks.check_text("Projector.get", "entity", entity)
        rows = await self._rows("entity = ?", (entity,), live=True)
        return self.projection.load(rows[0][2]) if rows else None

    async def all(self, prefix: str = "") -> dict[str, Any]:
        """Return all states, or those of entities whose names begin so."""
        checks.check_text("Projector.all", "prefix", prefix)
        rows = await self._rows("entity >= ? AND entity < ?", (prefix, after_prefix(prefix)), live=True)
        return {entity: self.projection.load(data) for entity, _, data in rows}

    async def position(self) -> int:
        """Return the position that the states are at."""
        sql = f"SELECT c.position {_LIVE} {_OF}"
        (rows,) = await self.log.store.transact([Statement(sql, (self.projection.name,))])
        return rows[0][0] or 0 if rows else 0

    async def stored(self, load: Callable[[str], Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Return the position, and all states as they are at it, however they are kept meanwhile.

        Args:
            load: What makes a state of its JSON text. Default: as the projection says.
        """
        load = load or self.projection.load
        # One statement: in PostgreSQL, each one of a transaction sees what was committed before it.
        states = "LEFT JOIN ~states AS s ON s.projection = p.name AND s.generation = p.generation"
        sql = f"SELECT c.position, s.entity, s.data {_LIVE} {states} {_OF} ORDER BY s.entity"
        (rows,) = await self.log.store.transact([Statement(sql, (self.projection.name,))])
        found = {entity: load(data) for _, entity, data in rows if entity is not None}
        return (rows[0][0] or 0 if rows else 0), found

    async def lag(self) -> Lag:
        """Return how far it is behind."""
        at = await self.position()
        head = await self.log.head()
        if at >= head:
            return Lag(0, 0.0)
        oldest = await self.log.read(start=at + 1, limit=1).first()
        if oldest is None:
            return Lag(0, 0.0)
        return Lag(head - at, max(0.0, self.log.clock() - oldest.recorded_at.timestamp()))

    async def _rows(self, where: str, values: tuple[Any, ...], *, live: bool = False) -> list[tuple[Any, ...]]:
        """Read states: those of the generation that is live, or those that this one works at."""
        name = self.projection.name
        if live:
            generation, given = "(SELECT generation FROM ~projections WHERE name = ?)", (name, name, *values)
        else:
            generation, given = "?", (name, self._generation, *values)
        sql = (
            f"SELECT entity, position, data FROM ~states WHERE projection = ? AND generation = {generation} "  # noqa: S608
            f"AND {where} ORDER BY entity"
        )
        (rows,) = await self.log.store.transact([Statement(sql, given)])
        return rows

    # -- building anew ------------------------------------------------------------------------------------------------

    async def rebuild(self, *, until: int | None = None) -> int:
        """Build the states anew from the beginning, beside those that are read, and swap them when they are complete.

        This one may go on with the old states meanwhile. Whoever else keeps them is fenced off at the swap: he gets a
        `FencedError`, and goes on with the new ones when he is started again, if he has this logic. One rebuild at a
        time: it is taken for dead after thirty seconds without a batch, and fenced off when another begins then.

        Args:
            until: Fold up to this position before the swap. Default: until no more than a batch is left.

        Returns:
            How many events were folded.

        Raises:
            RebuildingError: Somebody else is at it.
            FencedError: It was taken for dead.
        """
        _check_place("Projector.rebuild", "until", until)
        live, _ = await self._entered()  # so that what is built is never what others take up
        new = _Beside(self.log, self.projection, live, batch=self.batch)
        try:
            await new.begin()
            count = await new.catch_up(until)
            more = self.batch
            while until is None and more >= self.batch:  # where events come all the time, something is always left
                more = await new.catch_up()
                count += more
            async with self._turn:  # this one writes nothing to the old states then, and goes on with the new ones
                self._checkpoint = None
                await new.swap()
        except BaseException:
            with contextlib.suppress(Exception):  # it ends by itself
                await new.give_up()
            raise
        if until is None:  # what the old states had that came last; who has taken up the new ones does it himself
            with contextlib.suppress(FencedError):
                count += await new.catch_up()
        return count


class _Beside(Projector):
    """Builds a generation that nobody reads yet. The lease on its checkpoint says that somebody does."""

    def __init__(self, log: EventLog, projection: Projection, live: int, *, batch: int) -> None:
        super().__init__(log, projection, batch=batch)
        self._live_one = live
        self._generation = live + 1
        self._owner = uuid.uuid4().hex
        self._swapped = False

    def _now(self) -> int:
        return int(self.log.clock() * 1e6)

    async def begin(self) -> None:
        """Be the only one who builds it, and remove what an attempt before this one has left.

        Raises:
            RebuildingError: There is one already, or was a moment ago.
        """
        now, name = self._now(), self.projection.name
        other = RebuildingError(self.log.store.name, name)
        claim = (
            "INSERT INTO ~checkpoints AS old (name, partition, position, epoch, owner, lease_until, updated_at) "
            "VALUES (?, 0, 0, 1, ?, ?, ?) ON CONFLICT (name, partition) DO UPDATE "
            "SET position = 0, epoch = old.epoch + 1, owner = excluded.owner, lease_until = excluded.lease_until, "
            "updated_at = excluded.updated_at WHERE old.lease_until IS NULL OR old.lease_until < excluded.updated_at"
        )
        # After the claim: one who has swapped meanwhile held it.
        unchanged = "SELECT 1 WHERE coalesce((SELECT generation FROM ~projections WHERE name = ?), 0) = ?"
        clear = "DELETE FROM ~states WHERE projection = ? AND generation = ?"
        epoch = "SELECT epoch FROM ~checkpoints WHERE name = ? AND partition = 0"
        *_, ((taken,),) = await self.log.store.transact(
            [
                Statement(claim, (self._own, self._owner, now + _LEASE, now), changes=1, otherwise=other),
                Statement(unchanged, (name, self._live_one), changes=1, otherwise=other),
                Statement(clear, (name, self._generation)),
                Statement(epoch, (self._own,)),
            ]
        )
        self._checkpoint = Checkpoint(self._own, epoch=taken)

    def _also(self) -> list[Statement]:
        return [] if self._swapped else [self._leased(self._now() + _LEASE)]

    def _leased(self, until: int | None) -> Statement:
        sql = "UPDATE ~checkpoints SET lease_until = ? WHERE name = ? AND partition = 0 AND owner = ?"
        return Statement(sql, (until, self._own, self._owner))

    async def give_up(self) -> None:
        """Let another one begin."""
        await self.log.store.transact([self._leased(None)])

    async def swap(self) -> None:
        """Let it be read from now on."""
        store, projection, now = self.log.store, self.projection, self._now()
        checkpoint = self._checkpoint
        assert checkpoint is not None  # noqa: S101 (`begin` sets it)
        # Wherever he is who keeps the old states, or if he has yet to begin.
        fence = (
            "INSERT INTO ~checkpoints AS old (name, partition, position, epoch, updated_at) VALUES (?, 0, 0, 1, ?) "
            "ON CONFLICT (name, partition) DO UPDATE SET epoch = old.epoch + 1, updated_at = excluded.updated_at"
        )
        swap = (
            "INSERT INTO ~projections (name, generation, logic) VALUES (?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET generation = excluded.generation, logic = excluded.logic"
        )
        drop = "DELETE FROM ~states WHERE projection = ? AND generation <> ?"
        await store.transact(
            [
                checkpoints.moved(store, checkpoint, checkpoint.position, now),
                self._leased(None),
                Statement(fence, (checkpoint_name(projection, self._live_one), now)),
                Statement(swap, (projection.name, self._generation, projection.logic)),
                Statement(drop, (projection.name, self._generation)),
            ]
        )
        self._swapped = True


class _ProjectorStage(Consumer):
    """Folds what it is given."""

    def __init__(self, projector: Projector) -> None:
        self._projector = projector

    async def handle_events(self, events: Any, source: Any) -> None:  # noqa: ARG002 (a callback's form)
        batch = list(events)
        folded = [event for event in batch if not isinstance(event, Looked)]
        await self._projector.handle(folded, upto=batch[-1].position)  # what is not of its types is behind it too


def _check_place(where: str, option: str, position: int | None) -> None:
    """Refuse what is neither a position nor None."""
    if position is not None:
        checks.check_number(where, option, position, 0, ", or None")


def checkpoint_name(projection: Projection, generation: int) -> str:
    """Return the name of the checkpoint of a generation."""
    return checkpoints.projection_name(projection.name, generation)
