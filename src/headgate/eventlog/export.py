"""Events for others to read: as JSON lines, with a policy applied."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from headgate.eventlog.checks import check_kind, check_log
from headgate.eventlog.masking import Policy
from headgate.eventlog.reading import Reading
from headgate.eventlog.record import Recorded

if TYPE_CHECKING:
    from headgate.eventlog.log import EventLog


def as_dict(event: Recorded, policy: Policy | None = None, personal: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return an event as JSON can hold it; what it does not have is left out.

    Args:
        event: The event.
        policy: What of it may be seen. Default: everything.
        personal: The personal fields of its type.
    """
    data, meta = event.plain, event.meta
    columns = {name: getattr(event, name) for name in ("stream", "correlation_id", "causation_id", "actor", "subject")}
    if policy is not None:
        data, meta = policy.data(event.type, data, personal), policy.data("", meta)
        columns = {name: policy.column(name, value) for name, value in columns.items()}
    made = {
        "position": event.position,
        "stream": columns.pop("stream"),
        "version": event.version,
        "type": event.type,
        "schema_version": event.schema_version,
        "event_id": str(event.event_id),
        "recorded_at": _time(event.recorded_at),
        "effective_at": _time(event.effective_at) if event.row[7] is not None else None,
        **columns,
        "reverses": _text(event.reverses),
        "data": data,
        "meta": meta or None,
    }
    return {name: value for name, value in made.items() if value is not None}


async def export_lines(log: EventLog, reading: Reading, policy: Policy | None = None) -> AsyncIterator[str]:
    """Give each event as a line of JSON.

    Args:
        log: The log.
        reading: Which events: `EventLog.read`.
        policy: What of them may be seen. Default: everything; `EventLog.policy` is the log's own.
    """
    check_log("export_lines", log)
    check_kind("export_lines", "reading", reading, Reading, "EventLog.read(...)")
    if policy is not None:
        check_kind("export_lines", "policy", policy, Policy, "a Policy, or None")
    async for event in reading:
        yield one_line(as_dict(event, policy, log.types.personal_of(event.row)))


def one_line(value: Any) -> str:
    """Return JSON text in one line, whatever is in it: what cannot be printed is escaped."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _text(value: uuid.UUID | None) -> str | None:
    return None if value is None else str(value)
