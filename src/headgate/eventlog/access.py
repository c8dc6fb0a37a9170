"""Who has looked at a log: written with the log, and never changed."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from headgate.eventlog.record import from_micros
from headgate.eventlog.store import Statement

if TYPE_CHECKING:
    from headgate.eventlog.log import EventLog


class Access(NamedTuple):
    """One look.

    Attributes:
        at: When.
        actor: Who.
        reason: Why, if it was said.
        command: How: e.g. ``"show"``.
        details: What was asked for.
    """

    at: datetime
    actor: str
    reason: str | None
    command: str
    details: dict[str, Any]


async def note_access(
    log: EventLog, actor: str, command: str, details: dict[str, Any], reason: str | None = None
) -> None:
    """Write down that somebody looks at a log, before he does.

    Args:
        log: The log.
        actor: Who.
        command: How.
        details: What is asked for, as JSON can hold it.
        reason: Why.
    """
    sql = "INSERT INTO ~accesses (at, actor, reason, command, details) VALUES (?, ?, ?, ?, ?)"
    values = (int(log.clock() * 1e6), actor, reason, command, json.dumps(details, default=str))
    await log.store.transact([Statement(sql, values)])


async def accesses(log: EventLog, limit: int = 100) -> list[Access]:
    """Return the last looks, the newest first."""
    sql = f"SELECT at, actor, reason, command, details FROM ~accesses ORDER BY id DESC LIMIT {int(limit)}"  # noqa: S608
    (rows,) = await log.store.transact([Statement(sql)])
    return [Access(from_micros(row[0]), row[1], row[2], row[3], json.loads(row[4])) for row in rows]
