"""Who reads a log, and how far they have come: groups, projections, and checkpoints of a user's own."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from headgate.eventlog.checkpoints import kind_of
from headgate.eventlog.checks import check_log
from headgate.eventlog.record import from_micros
from headgate.eventlog.store import Statement

if TYPE_CHECKING:
    from headgate.eventlog.log import EventLog


class Reader(NamedTuple):
    """One who reads a log.

    Attributes:
        kind: ``"group"``, ``"projection"``, ``"rebuild"`` (of a projection, under way) or ``"checkpoint"``.
        name: Its name.
        position: Up to where it is done with all events; of a group, with those of its slowest partition.
        behind: How many positions that is behind the end of the log.
        members: How many members of a group are alive; None: it is no group.
        parked: How many events of a group are parked; None: it is no group.
        updated_at: When it came on last.
    """

    kind: str
    name: str
    position: int
    behind: int
    members: int | None
    parked: int | None
    updated_at: datetime


async def readers(log: EventLog) -> list[Reader]:
    """Return who reads a log, by kind and name.

    Args:
        log: The log.
    """
    check_log("readers", log)
    checkpoints = "SELECT name, position, lease_until, updated_at FROM ~checkpoints ORDER BY name"
    live = "SELECT name, generation FROM ~projections"
    parked = "SELECT name, count(*) FROM ~parked GROUP BY name"
    statements = [Statement(checkpoints), Statement(live), Statement(parked)]
    rows, generations, letters = await log.store.transact(statements)
    head, now = await log.head(), await log.store.now()
    lives, counts = dict(generations), dict(letters)
    members: dict[str, int] = {}
    found: dict[tuple[str, str], list[Any]] = {}
    for whose, position, leased, updated in rows:
        kind, name = kind_of(whose)
        alive = leased is not None and leased >= now
        if kind == "members":
            members[name] = members.get(name, 0) + alive
            continue
        if kind == "projection":
            name, _, generation = name.rpartition("#")
            if int(generation) != lives.get(name):
                if not alive:
                    continue  # it was read once, or is what a rebuild has left that did not come to its end
                kind = "rebuild"
        at = found.setdefault((kind, name), [position, updated])
        at[:] = min(at[0], position), max(at[1], updated)
    return [
        Reader(
            kind,
            name,
            position,
            max(0, head - position),
            members.get(name, 0) if kind == "group" else None,
            counts.get(name, 0) if kind == "group" else None,
            from_micros(updated),
        )
        for (kind, name), (position, updated) in sorted(found.items())
    ]
