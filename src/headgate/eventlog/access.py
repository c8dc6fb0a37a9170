"""Who has looked at a log: written with the log, and never changed."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from headgate.errors import OptionError
from headgate.eventlog.checks import check_kind, check_log, check_number, check_option_name, check_text_or_none
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

    Raises:
        OptionError: It cannot be written down so.
    """
    check_log("note_access", log)
    for option, value in (("actor", actor), ("command", command)):
        check_option_name("note_access", option, value)
    check_kind("note_access", "details", details, dict, "a dict")
    check_text_or_none("note_access", "reason", reason)
    try:
        text = json.dumps(details, default=str, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError("note_access", "details", f"such that JSON can hold it ({error})", details) from error
    sql = "INSERT INTO ~accesses (at, actor, reason, command, details) VALUES (?, ?, ?, ?, ?)"
    values = (int(log.clock() * 1e6), actor, reason, command, text)
    await log.store.transact([Statement(sql, values)])


async def accesses(log: EventLog, limit: int = 100) -> list[Access]:
    """Return the last looks, the newest first; at most so many."""
    check_log("accesses", log)
    check_number("accesses", "limit", limit)
    sql = f"SELECT at, actor, reason, command, details FROM ~accesses ORDER BY id DESC LIMIT {limit}"  # noqa: S608
    (rows,) = await log.store.transact([Statement(sql)])
    return [Access(from_micros(row[0]), row[1], row[2], row[3], json.loads(row[4])) for row in rows]
