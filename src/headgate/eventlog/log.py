"""`EventLog`: every event kept, in order."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary

from headgate.errors import EventError, OptionError
from headgate.eventlog import checkpoints, checks, sealing
from headgate.eventlog.archive import Archives
from headgate.eventlog.drafting import Drafter, defaults
from headgate.eventlog.events import new_ids
from headgate.eventlog.groups import Group
from headgate.eventlog.log_types import Append, StreamInfo, as_append, list_streams
from headgate.eventlog.masking import Policy
from headgate.eventlog.opening import checked_clock, make_store, members
from headgate.eventlog.planning import Appended, ArchivedMeanwhileError, Order
from headgate.eventlog.projection import Folded, Projection, fold
from headgate.eventlog.projector import Projector
from headgate.eventlog.reading import At, Reading, check_field, correlation, field_values, position_at
from headgate.eventlog.record import Page, Recorded, Row, to_micros
from headgate.eventlog.registry import Types
from headgate.eventlog.stages import LogConsumer, LogProducer, TakenUp, check_start
from headgate.eventlog.store import FieldValue, Query, Statement, is_literal
from headgate.eventlog.vault import Vault
from headgate.runtime.options import Child, check_choice


class EventLog:
    """An append-only log of events, in a SQLite file, in memory or in PostgreSQL.

    ::

        async with EventLog("ledger.db", types=[Opened, Deposited]) as log:
            await log.append("account-1", [Opened("Ada"), Deposited(100)], expected_version=0)
            async for event in log.read("account-1"):
                print(event.position, event.data)

    Names (of streams, types, actors, subjects, correlations, checkpoints, ...) are text that is not empty and can be
    printed, of at most 1,000 bytes in UTF-8.

    Args:
        url: A path, ``":memory:"``, ``sqlite:PATH``, or ``postgresql://...`` (extra ``[postgres]``).
        types: The classes of its events, or a `Types` registry. What is not registered is read as a dict.
        durability: ``"normal"`` (default): what is appended survives the end of the process; ``"power"``: it also
            survives a power failure, at one fsync for each transaction. PostgreSQL: as the server is
            set, or with ``synchronous_commit``.
        master_key: 32 bytes that the keys of subjects are sealed with (extra ``[encryption]``). Types with personal
            fields need it.
        max_event_size: Characters that the JSON text of an event may have. Default 16 Mi.
        busy_timeout: Seconds to wait for other writers, at most 1,000,000.
        create: False: it has to be there already.
        projections: What is made of it, for tools that look at it.
        policy: What of it may be seen outside, for tools that export or fork it.
        schema: PostgreSQL: the schema of our tables; a plain name in small letters, of at most 54.
        clock: Unix time in seconds.

    Raises:
        OptionError: An option is not what it has to be.
    """

    def __init__(  # noqa: PLR0913 (each is a choice of its own)
        self,
        url: str,
        *,
        types: Types | Iterable[type[Any]] = (),
        durability: str = "normal",
        master_key: bytes | None = None,
        max_event_size: int = 16 * 1024 * 1024,
        busy_timeout: float = 30.0,
        create: bool = True,
        projections: Iterable[Projection] = (),
        policy: Policy | None = None,
        schema: str = "headgate",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Check the options; nothing is opened yet."""
        checks.check_number("EventLog", "max_event_size", max_event_size, 1)
        self.url = url
        self.types = types if isinstance(types, Types) else Types(*members("types", types, (type, str), "classes"))
        self.projections: list[Projection] = members("projections", projections, Projection, "Projections")
        if policy is not None:
            checks.check_kind("EventLog", "policy", policy, Policy, "a Policy, or None")
        self.policy = policy
        self.clock = clock = checked_clock(clock)
        options: dict[str, Any] = {"durability": durability, "busy_timeout": busy_timeout, "clock": clock}
        self.store = make_store(url, schema, create=create, **options)
        master = sealing.check_master(master_key)
        self._vault = None if master is None else Vault(self.store, master, clock)
        self.archives = Archives(self)
        self._drafter = Drafter(self.types, self._vault, max_event_size)

    @classmethod
    async def open(cls, url: str, **options: Any) -> Self:
        """Make a log and open it; it has to be closed by `close`.

        Args:
            url: See `EventLog`.
            **options: See `EventLog`.

        Raises:
            EventLogError: It cannot be opened.
        """
        log = cls(url, **options)
        await log.__aenter__()
        return log

    async def __aenter__(self) -> Self:
        """Open it; its tables are made, or brought up to date."""
        await self.store.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """Write what waits, and give everything back. A second time it does nothing."""
        await self.store.close()

    def __repr__(self) -> str:
        """Show where it is."""
        return f"<EventLog {self.store.name}>"

    # -- appending ----------------------------------------------------------------------------------------------------

    async def append(  # noqa: PLR0913 (each is a choice of its own)
        self,
        stream: str,
        events: Iterable[Any] | Any,
        *,
        expected_version: int | None = None,
        actor: str | None = None,
        reason: str | None = None,
        correlation_id: str | uuid.UUID | None = None,
        causation_id: Any = None,
        connection: Any = None,
        unless: Reading | None = None,
        after: int = 0,
    ) -> Appended:
        """Append events to a stream: all of them, or none.

        It returns when they are written. An `Event` whose id is in the log already is not written again, so that an
        append whose outcome is unknown can be repeated.

        Args:
            stream: Its name; without ``*`` at its end, by which `read` tells names from beginnings of names.
            events: Data, or `Event`; or one of them.
            expected_version: What the stream has to be at: the version of its last event, 0 for a new stream.
                Default: any.
            actor: Who does it; for all events that do not say otherwise.
            reason: Why; as ``actor``.
            correlation_id: What command or request it belongs to; as ``actor``.
            causation_id: What caused it; as ``actor``.
            connection: To append within a transaction of yours: a ``sqlite3.Connection`` to the same file, or an
                ``asyncpg.Connection``, on which one was begun. Let it be the last thing in it: other writers wait.
            unless: Refuse it if there is any of these events (``log.read(...)``; its bounds do not count) ...
            after: ... behind this position. So a decision can rest on more, or on less, than one stream.

        Raises:
            AppendConflictError: The stream is at another version than expected.
            AppendConditionError: There is an event that must not be there.
            ReversalError: An event that is to be reversed is reversed already.
            EventError: An event cannot be recorded.
            EventLogError: The store cannot write.
        """
        one = Append(stream, events, expected_version, unless, after)
        (done,) = await self.append_all(
            [one],
            actor=actor,
            reason=reason,
            correlation_id=correlation_id,
            causation_id=causation_id,
            connection=connection,
        )
        return done

    async def append_all(
        self,
        appends: Iterable[Append | tuple[str, Iterable[Any]]],
        *,
        actor: str | None = None,
        reason: str | None = None,
        correlation_id: str | uuid.UUID | None = None,
        causation_id: Any = None,
        connection: Any = None,
    ) -> list[Appended]:
        """Append events to several streams: all of them, or none.

        Args:
            appends: `Append`, or tuples of a stream and its events.
            actor: As for `append`.
            reason: As for `append`.
            correlation_id: As for `append`.
            causation_id: As for `append`.
            connection: As for `append`.

        Raises:
            HeadgateError: As for `append`.
        """
        checks.check_text_or_none("append", "reason", reason)
        common = defaults(actor, reason, correlation_id, causation_id)
        if not isinstance(appends, Iterable):
            raise OptionError("EventLog.append_all", "appends", "a list of Append(...) or tuples", appends)
        wanted = list(map(as_append, appends))
        several = [list(self._several(each.events)) for each in wanted]
        ids = iter(new_ids(sum(map(len, several)), self.clock()))
        orders: list[Order] = []
        for (stream, _, expected, unless, after), events in zip(wanted, several, strict=True):
            order = await self._drafter.order(stream, expected, events, common, ids)
            orders.append(order if unless is None else order._replace(condition=unless.condition(after)))
        while True:
            try:
                if connection is not None:
                    return await self.store.append_in(connection, orders)
                return await self.store.append(orders)
            except ArchivedMeanwhileError:
                orders = [await self._held_against_archives(each) for each in orders]

    async def _held_against_archives(self, order: Order) -> Order:
        """Look for what must not be there in the archives; in the database that is done while nobody else appends.

        Meanwhile its events may be appended by somebody else too.
        """
        if order.drafts:
            order = order._replace(special=True, drafts=[each._replace(known=True) for each in order.drafts])
        condition = order.condition
        if condition is None:
            return order
        ((last,),) = (await self.store.transact([Statement("SELECT coalesce(max(last), 0) FROM ~archives")]))[0]
        found: list[Row] = []
        if last > condition.after:
            found = await self.rows(replace(condition.query, until=last), None, 1)
        return order._replace(condition=condition._replace(archived=last, found=found[0][0] if found else 0))

    def _several(self, events: Any) -> Iterable[Any]:
        """A single event need not be in a list, even if it can be iterated over."""
        if self.types.has(type(events)) or isinstance(events, (dict, str)) or not hasattr(events, "__iter__"):
            return [events]
        # One whose class was not registered is told so, and not what is in it.
        return [events] if hasattr(events, "model_dump") else events

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(  # noqa: PLR0913 (each is a choice of its own)
        self,
        streams: str | Iterable[str] | None = None,
        *,
        start: At = None,
        until: At = None,
        types: str | type[Any] | Iterable[str | type[Any]] | None = None,
        correlation_id: str | uuid.UUID | None = None,
        fields: Mapping[str, FieldValue] | None = None,
        backwards: bool = False,
        limit: int | None = None,
        batch: int = 1000,
    ) -> Reading:
        """Read events, in the order of their positions.

        Args:
            streams: One stream or several; ``"account-*"`` for all whose names begin so. Default: all. An empty list is
                refused: it is not all.
            start: First position, or time from which on. Default: the beginning.
            until: Last position, or time up to which (both inclusive). Default: the end.
            types: Only events of these types: classes or names; as for ``streams``.
            correlation_id: Only events of this command or request.
            fields: Only events whose data has these values (text, integers, booleans, None) in these fields; sealed
                ones are not seen. It looks at every event that fits otherwise, unless there is an `index` of one.
            backwards: From the end to the beginning.
            limit: How many at most.
            batch: How many are fetched at once.

        Returns:
            The events, not read yet. Use ``async for event in log.read(...)``, or its pages.

        Raises:
            OptionError: An option is not what it has to be.
        """
        checks.check_number("EventLog.read", "batch", batch, 1)
        check_choice("EventLog.read", "backwards", backwards, (False, True))
        if limit is not None:
            checks.check_number("EventLog.read", "limit", limit, 0, ", or None")
        for name, value in (("start", start), ("until", until)):
            checks.check_at("EventLog.read", name, value)
        query = Query(
            streams=tuple(checks.stream_names(streams)),
            types=tuple(self.types.names_of(types)),
            correlation_id=correlation(correlation_id),
            backwards=backwards,
            fields=field_values(fields),
        )
        return Reading(self, query, start, until, limit, batch)

    async def index(self, field: str) -> None:
        """Make an index of a field of the data: ``read(fields=)`` and ``append(unless=)`` then find its values quickly.

        It is kept with the log, and costs a little with each append. A second time it does nothing. Making it on a
        large log takes a while, in which nobody can append.

        Args:
            field: Its name, at the top of the data.

        Raises:
            OptionError: It cannot be the name of one.
        """
        check_field("EventLog.index", "field", field)
        if not is_literal(field):
            raise OptionError("EventLog.index", "field", "a name without any of ? ~ ' { }", field)
        await self.store.index(field)

    async def event(self, which: int | uuid.UUID) -> Recorded:
        """Return one event, by its position or its id.

        Raises:
            EventError: There is none.
        """
        if isinstance(which, uuid.UUID):
            sql = "SELECT position FROM ~{} WHERE event_id = ?"
            both = [Statement(sql.format(table), (which.bytes,)) for table in ("events", "archived_ids")]
            found = [row for rows in await self.store.transact(both) for row in rows]
            position = int(found[0][0]) if found else 0
        else:
            checks.check_number("EventLog.event", "which", which, 0, ", or a UUID")
            position = which
        rows = await self.rows(Query(start=position, until=position), None, 1)
        if not rows:
            raise EventError(self.store.name, "event", "in the log", which)
        return (await self.page(rows))[0]

    async def head(self) -> int:
        """Return the position of the last event; 0: there is none."""
        return (await self.store.head()).position

    async def version(self, stream: str) -> int:
        """Return the version of the last event of a stream; 0: there is no such stream."""
        checks.check_stream("EventLog.version", "stream", stream)
        rows = await self.rows(Query(streams=(stream,), backwards=True), None, 1)
        return int(rows[0][2]) if rows else 0

    async def position_at(self, moment: datetime) -> int:
        """Return the position of the last event that was recorded up to a time; 0: none was."""
        if not isinstance(moment, datetime) or not checks.is_place(moment):
            raise OptionError("EventLog.position_at", "moment", "a datetime with a time zone", moment)
        return await position_at(self, to_micros(moment))

    async def streams(self, prefix: str = "", *, limit: int | None = None) -> list[StreamInfo]:
        """Return the streams whose names begin so, by name."""
        return await list_streams(self, prefix, limit)

    async def rows(self, query: Query, cursor: Row | None, limit: int) -> list[Row]:
        """Read some rows, archived ones included.

        Args:
            query: Which.
            cursor: The last row that was read; None: from the beginning.
            limit: How many at most.
        """
        return await self.archives.fill(query, cursor, limit, await self.store.read(query, cursor, limit))

    async def page(self, rows: list[Row]) -> Page:
        """Return rows as events, with the keys of those whose personal data they hold."""
        if self._vault is None:
            return Page(rows, self.types)
        subjects = {row[12] for row in rows}
        subjects.discard(None)
        if not subjects:
            return Page(rows, self.types)
        return Page(rows, self.types.unlocked(await self._vault.lookup(subjects)))

    async def bounds(self, start: At, until: At) -> tuple[int, int | None]:
        """Return the first and the last position (inclusive) of a part that is given by positions or times."""
        checks.check_at("EventLog", "start", start)
        checks.check_at("EventLog", "until", until)
        first = 1
        if isinstance(start, datetime):
            first = await position_at(self, to_micros(start) - 1) + 1
        elif start is not None:
            first = max(start, 1)
        if isinstance(until, datetime):
            return first, await position_at(self, to_micros(until))
        return first, until

    # -- as stages ----------------------------------------------------------------------------------------------------

    def producer(
        self,
        *,
        start: At | str = None,
        until: At = None,
        streams: str | Iterable[str] | None = None,
        types: str | type[Any] | Iterable[str | type[Any]] | None = None,
        checkpoint: str | TakenUp | None = None,
        live: bool = True,
        batch: int = 1000,
        **options: Any,
    ) -> Child:
        """Return the recipe of a stage that gives events: those that are there, then those that come, as asked for.

        A read that fails for a while only is tried again. Started again in the same system, under the same name, the
        stage goes on with the first event that was not acknowledged: none is lost, and what was under way may come
        twice. When it has finished it begins anew.

        Args:
            start: First position, time from which on, or ``"end"``: only what is still to come. Default: the beginning.
            until: Last position or time, which may be still to come; the stage then finishes. Default: it goes on for
                ever.
            streams: As for `read`.
            types: As for `read`.
            checkpoint: Begin behind this checkpoint (`save_checkpoint`).
            live: False: finish when all that is there has been given.
            batch: How many events are read at once, at the most.
            **options: The options of `Child`.

        Raises:
            OptionError: An option is not what it has to be.
        """
        check_start("EventLog.producer", start)
        checks.check_at("EventLog.producer", "until", until)
        if checkpoint is not None and not callable(getattr(checkpoint, "take_up", None)):
            checks.check_option_name("EventLog.producer", "checkpoint", checkpoint, ", or a Projector, or None")
        check_choice("EventLog.producer", "live", live, (False, True))
        checks.check_number("EventLog.producer", "batch", batch, 1)
        options.setdefault("id", options.get("name") or "log")
        query = Query(streams=tuple(checks.stream_names(streams)), types=tuple(self.types.names_of(types)))
        places: WeakKeyDictionary[Any, dict[str, int]] = WeakKeyDictionary()
        return Child(LogProducer, self, places, start, until, query, checkpoint, live, batch, **options)

    def consumer(
        self,
        stream: str | Callable[[Any], str] | None = None,
        *,
        event_id: Callable[[Any], Any] | None = None,
        actor: str | None = None,
        reason: str | None = None,
        **options: Any,
    ) -> Child:
        """Return the recipe of a stage that appends what it is given, each batch in one transaction.

        Args:
            stream: The stream, or a function of an event that returns it. Default: the events are tuples of a stream
                and an event.
            event_id: A function of an event that returns what identifies it: what comes twice is appended once.
            actor: Who does it.
            reason: Why.
            **options: The options of `Child`.
        """
        if stream is not None and not callable(stream):
            checks.check_option_name("EventLog.consumer", "stream", stream, ", or a function of an event, or None")
        if event_id is not None and not callable(event_id):
            raise OptionError("EventLog.consumer", "event_id", "a function of an event, or None", event_id)
        defaults(actor, reason, None, None)
        checks.check_text_or_none("EventLog.consumer", "reason", reason)
        options.setdefault("id", options.get("name") or "append")
        return Child(LogConsumer, self, stream, event_id, {"actor": actor, "reason": reason}, **options)

    def group(
        self,
        name: str,
        *,
        partitions: int = 16,
        types: str | type[Any] | Iterable[str | type[Any]] | None = None,
        streams: str | Iterable[str] | None = None,
        start: At | str = None,
        lease: float = 30.0,
        batch: int = 1000,
    ) -> Group:
        """Return a member of a group that shares the events of this log, divided by their streams.

        Args:
            name: The group's.
            partitions: Into how many parts the streams are divided: the same for all members, and for good.
            types: Only events of these types.
            streams: Only events of these streams.
            start: Where a new group begins: a position, a time, or ``"end"``: only what is still to come. Default: the
                beginning. A group that is there goes on where it is.
            lease: Seconds after which a member that is not heard of is replaced.
            batch: How many events are read at once.
        """
        check_start("EventLog.group", start)
        kinds, names = tuple(self.types.names_of(types)), tuple(checks.stream_names(streams))
        return Group(
            self, name, partitions=partitions, types=kinds, streams=names, start=start, lease=lease, batch=batch
        )

    async def checkpoint(self, name: str) -> int:
        """Return the position of a checkpoint; 0: there is none."""
        checks.check_option_name("EventLog.checkpoint", "name", name)
        return (await checkpoints.load(self.store, name)).position

    async def save_checkpoint(self, name: str, position: int) -> None:
        """Set a checkpoint: up to this position (inclusive) everything is done with.

        Raises:
            FencedError: Somebody else has moved it at the same time.
            OptionError: It is a name of ours: those of groups and projections begin with what they are.
        """
        checks.check_option_name("EventLog.save_checkpoint", "name", name)
        checks.check_number("EventLog.save_checkpoint", "position", position)
        checkpoints.check_own("EventLog.save_checkpoint", name)
        old = await checkpoints.load(self.store, name)
        now = int(self.clock() * 1e6)
        taken = old._replace(epoch=old.epoch + 1)
        steps = [*checkpoints.taken(self.store, old, now), checkpoints.moved(self.store, taken, position, now)]
        await self.store.transact(steps)

    # -- projections --------------------------------------------------------------------------------------------------

    def projector(self, projection: Projection, *, batch: int = 1000) -> Projector:
        """Return what keeps a projection up to date.

        Args:
            projection: What to keep.
            batch: How many events are folded in one transaction.
        """
        checks.check_kind("EventLog.projector", "projection", projection, Projection, "a Projection")
        checks.check_number("EventLog.projector", "batch", batch, 1)
        return Projector(self, projection, batch=batch)

    async def fold(
        self, projection: Projection, entity: str, *, until: At = None, snapshots: int | None = 1000
    ) -> Folded:
        """Return the state of one entity at a place in the log, folded from its events.

        Args:
            projection: How.
            entity: Whose.
            until: Position or time (inclusive). Default: now.
            snapshots: Keep a snapshot when more events than these were needed, so that the next time is quick. None:
                none are used or kept.
        """
        checks.check_kind("EventLog.fold", "projection", projection, Projection, "a Projection")
        checks.check_option_name("EventLog.fold", "entity", entity)
        checks.check_at("EventLog.fold", "until", until)
        if snapshots is not None:
            checks.check_number("EventLog.fold", "snapshots", snapshots, 0, ", or None")
        return await fold(self, projection, entity, until=until, snapshots=snapshots)

    # -- personal data ------------------------------------------------------------------------------------------------

    async def shred(self, subject: str) -> bool:
        """Make the personal fields of a subject unreadable for good, in this log and wherever it was copied to.

        Its key is destroyed; what was sealed with it stays as it is, and nothing opens it any more. Snapshots are
        deleted, since they may hold what was read before. States of projections that keep personal fields have to be
        made anew: `Projector.rebuild`.

        Returns:
            False when there is no such key (any more).

        Raises:
            OptionError: The log was opened without ``master_key``, or with another one.
            EventLogError: The key is destroyed, but others who read keep it in the ``-wal`` file: do it again.
        """
        checks.check_option_name("EventLog.shred", "subject", subject)
        if self._vault is None:
            raise OptionError("EventLog", "master_key", "given, to find the keys of subjects", None)
        return await self._vault.destroy(subject)
