"""Reversing: undoing events by others that say what they undo. Nothing is deleted, and nothing is undone twice."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from headgate.errors import EventError, OptionError, ReversalError
from headgate.eventlog.checks import check_log, check_place, check_stream
from headgate.eventlog.events import Event
from headgate.eventlog.log_types import Append
from headgate.eventlog.planning import Appended
from headgate.eventlog.reading import Reading
from headgate.eventlog.record import Recorded
from headgate.eventlog.store import Statement

if TYPE_CHECKING:
    from headgate.eventlog.log import EventLog

Inverse = Callable[[Recorded], Any]


async def reverse(log: EventLog, which: int | uuid.UUID | Recorded, *, inverse: Any = None, **options: Any) -> Appended:
    """Undo one event.

    Args:
        log: The log.
        which: Its position, its id, or itself.
        inverse: What undoes it: data or an `Event`, or a function of the event. Default: what is registered for its
            type (`Types.inverse`).
        options: For `EventLog.append`: ``actor``, ``reason``, ...

    Raises:
        ReversalError: It was reversed already, or is archived, or nothing is known that undoes it.
        AppendConflictError: Somebody has appended to the stream at the same time.
    """
    check_log("reverse", log)
    event = which if isinstance(which, Recorded) else await log.event(which)
    (done,) = await _undo(log, [event], inverse, options, {})
    return done


async def reverse_correlation(
    log: EventLog, correlation_id: str | uuid.UUID, *, inverse: Any = None, **options: Any
) -> list[Appended]:
    """Undo all events of a command or request, the last one first, in one transaction.

    What was undone already is left as it is.

    Args:
        log: The log.
        correlation_id: Of the command.
        inverse: As for `reverse`.
        options: As for `reverse`.

    Raises:
        ReversalError: For one of them nothing is known that undoes it: none is undone.
        AppendConditionError: The command has gone on at the same time; none is undone.
        AppendConflictError: Somebody has appended to one of the streams at the same time; none is undone.
    """
    check_log("reverse_correlation", log)
    if correlation_id is None:  # of a caller without types; it would stand for everything
        raise OptionError("reverse_correlation", "correlation_id", "that of an event in the log", correlation_id)
    head = await log.head()
    command = log.read(correlation_id=correlation_id, until=head)
    events = await command.all()
    if not events:
        raise EventError(log.store.name, "correlation_id", "that of an event in the log", correlation_id)
    return await _undo(log, await in_effect(log, events), inverse, options, {}, command, head)


async def reverse_stream(
    log: EventLog, stream: str, back_to: int | datetime, *, inverse: Any = None, **options: Any
) -> list[Appended]:
    """Undo everything of a stream that came after some time, the last one first, in one transaction.

    What was done and undone since is left as it is; what stood before and was undone since is done again, if what undid
    it has an inverse itself.

    Args:
        log: The log.
        stream: Which one.
        back_to: A time, or a position: what was recorded up to there stays.
        inverse: As for `reverse`.
        options: As for `reverse`.

    Raises:
        ReversalError: For one of them nothing is known that undoes it: none is undone.
        AppendConflictError: Somebody has appended to the stream at the same time; none is undone.
    """
    check_log("reverse_stream", log)
    check_stream("reverse_stream", "stream", stream)
    check_place("reverse_stream", "back_to", back_to)
    _, last = await log.bounds(None, back_to)
    events = await log.read(stream, start=(last or 0) + 1).all()
    # The last version that was read, be it of an event that needs no undoing: what comes after it would stay.
    read = {event.stream: event.version for event in events}
    return await _undo(log, await in_effect(log, events), inverse, options, read)


async def in_effect(log: EventLog, events: list[Recorded]) -> list[Recorded]:
    """Return what is to be undone so that some events have no effect.

    An event, what undoes it, what undoes that, ... are a chain, of which only the last can be undone. From the first
    one that is to have no effect on, an even number of them cancel each other out; of an odd number, the last is to be
    undone.
    """
    chain = {event.row[5]: event for event in events}
    undone: set[bytes] = set()
    ahead = list(chain)
    while ahead:
        found = await reversals(log, ahead)
        undone.update(found)
        ahead = []
        for position in found.values():
            event = await log.event(position)
            if event.row[5] not in chain:
                chain[event.row[5]] = event
                ahead.append(event.row[5])
    result: list[Recorded] = []
    for identity, event in chain.items():
        if identity in undone:
            continue
        length, before = 1, event.row[10]
        while before in chain:
            length, before = length + 1, chain[before].row[10]
        if length % 2:
            result.append(event)
    return result


async def reversals(log: EventLog, ids: Iterable[bytes]) -> dict[bytes, int]:
    """Return which events were undone, and at which position."""
    wanted = list(ids)
    found: dict[bytes, int] = {}
    for at in range(0, len(wanted), 500):
        some = tuple(wanted[at : at + 500])
        marks = ", ".join("?" * len(some))
        sql = "SELECT reverses, position FROM ~{} WHERE reverses IN ({})"
        both = [Statement(sql.format(table, marks), some) for table in ("events", "archived_ids")]
        for rows in await log.store.transact(both):
            found.update((bytes(row[0]), row[1]) for row in rows)
    return found


async def _undo(
    log: EventLog,
    events: list[Recorded],
    inverse: Any,
    options: dict[str, Any],
    read: dict[str, int],
    unless: Reading | None = None,
    after: int = 0,
) -> list[Appended]:
    """Append what undoes these events, in reverse order.

    Args:
        log: The log.
        events: Those.
        inverse: As for `reverse`.
        options: As for `reverse`.
        read: The versions up to which streams were read; each has to be there still. Others: where they are now.
        unless: Nothing of this may be ...
        after: ... behind this position.
    """
    versions = dict(read)
    streams: dict[str, list[Event]] = {}
    archived = max((each.last for each in await log.archives.known()), default=0)
    for event in sorted(events, key=lambda each: -each.position):
        if event.position <= archived:  # so may what has undone it be
            raise ReversalError(f"event {event.position} ({event.type})", "it is archived")
        if event.stream not in versions:
            versions[event.stream] = await log.version(event.stream)
        made = _inverse(log, event, inverse)
        made.reverses = event.row[5]
        made.causation_id = made.causation_id or str(event.event_id)
        streams.setdefault(event.stream, []).append(made)
    appends = [Append(stream, made, versions[stream]) for stream, made in streams.items()]
    if not appends:
        return []
    # Only the first one, as those after it would find what it appends.
    appends[0] = appends[0]._replace(unless=unless, after=after)
    return await log.append_all(appends, **options)


def _inverse(log: EventLog, event: Recorded, inverse: Any) -> Event:
    what = f"event {event.position} ({event.type})"
    if inverse is None:
        kind = log.types.find(event.type)
        inverse = None if kind is None else kind.inverse
        if inverse is None:
            raise ReversalError(what, "nothing is known that undoes it; register it by Types.inverse, or give inverse=")
    made = inverse(event) if callable(inverse) else inverse
    if made is None:
        raise ReversalError(what, "its inverse says that it cannot be undone")
    if not isinstance(made, Event):
        return Event(made)
    if made.reverses is not None or made.event_id is not None:
        raise ReversalError(what, "its inverse has to be an event without 'event_id' and 'reverses'")
    return copy.copy(made)  # so that it can be given again, when this is refused
