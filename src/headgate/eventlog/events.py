"""`Event`: what is to be appended, with all that can be said about it."""

from __future__ import annotations

import os
import time
import uuid
from datetime import datetime
from typing import Any, Final

from headgate.errors import EventError
from headgate.eventlog.record import is_moment

_RANDOM_BITS: Final = 1 << 62
_ROOM: Final = 1 << 32  # ids that may follow one another before the random part would overflow
_LONGEST: Final = 1000  # bytes of a name: names are in indexes, and those of PostgreSQL take 2,700
NAME: Final = f"text that is not empty and can be printed, of at most {_LONGEST:,} bytes in UTF-8"
"""What a name is, for messages."""


def new_ids(count: int, now: float | None = None) -> list[bytes]:
    """Make ids (UUID version 7): ordered by time, and among themselves.

    Args:
        count: How many.
        now: Unix time in seconds. Default: the clock's.
    """
    millis = int((time.time() if now is None else now) * 1000)
    random = int.from_bytes(os.urandom(10), "big")
    tail = random % (_RANDOM_BITS - _ROOM)
    first = (millis & (1 << 48) - 1) << 80 | 0x7 << 76 | (random >> 64 & 0xFFF) << 64 | 0x2 << 62 | tail
    return [each.to_bytes(16, "big") for each in range(first, first + count)]


class Event:
    """An event that is to be appended. Where nothing more is to be said, its data can be appended as it is.

    Its type, ids, actor and subject are names: text that can be printed, of at most 1,000 bytes in UTF-8.

    Args:
        data: An instance of a registered type (dataclass, msgspec struct, pydantic model), or a dict. Or a string: the
            name of a type, with the data as the second argument.
        fields: The data when ``data`` is a name: a dict. Default: none.
        event_id: Its identity, a UUID: an event whose id is in the log already is not appended again. Default: a new
            one, which the object keeps.
        effective_at: When it is meant to count from, an aware time that UTC has too. Default: when it is recorded.
        correlation_id: What command or request it belongs to.
        causation_id: What caused it; a `Recorded` stands for its id.
        reverses: What it undoes: a `Recorded` or an ``event_id``. An event can be undone once.
        actor: Who does it.
        reason: Why.
        subject: Whose personal data it holds. Default: as its type says.
        meta: Anything else, as a dict that can be JSON.

    Raises:
        EventError: Something of this is not what it has to be.
    """

    __slots__ = (
        "actor",
        "causation_id",
        "correlation_id",
        "data",
        "effective_at",
        "event_id",
        "meta",
        "reverses",
        "subject",
        "type",
    )

    def __init__(  # noqa: PLR0913 (each is a thing of its own)
        self,
        data: Any,
        fields: dict[str, Any] | None = None,
        *,
        event_id: uuid.UUID | None = None,
        effective_at: datetime | None = None,
        correlation_id: str | uuid.UUID | None = None,
        causation_id: Any = None,
        reverses: Any = None,
        actor: str | None = None,
        reason: str | None = None,
        subject: str | None = None,
        meta: dict[str, Any] | None = None,
    ) -> None:
        """Check what can be checked without a log."""
        self.type: str | None = None
        if isinstance(data, str):
            self.type, data = check_text("Event", "type", data), {} if fields is None else fields
        elif fields is not None:
            raise EventError("Event", "fields", "left out, as the data is no name of a type", fields)
        self.data = data
        if event_id is not None and not isinstance(event_id, uuid.UUID):
            raise EventError("Event", "event_id", "a UUID", event_id)
        self.event_id: bytes | None = None if event_id is None else event_id.bytes
        if effective_at is not None and not is_moment(effective_at):
            expected = "a datetime with a time zone, in the years 1 to 9999 of UTC"
            raise EventError("Event", "effective_at", expected, effective_at)
        self.effective_at = effective_at
        self.correlation_id = reference("correlation_id", correlation_id)
        self.causation_id = reference("causation_id", causation_id)
        if reverses is not None:
            reverses = getattr(reverses, "event_id", reverses)
            if not isinstance(reverses, uuid.UUID):
                raise EventError("Event", "reverses", "a recorded event or its event_id", reverses)
        self.reverses: bytes | None = None if reverses is None else reverses.bytes
        self.actor = None if actor is None else check_text("Event", "actor", actor)
        self.subject = None if subject is None else check_text("Event", "subject", subject)
        if meta is not None and not isinstance(meta, dict):
            raise EventError("Event", "meta", "a dict", meta)
        if reason is not None:
            if type(reason) is not str:
                raise EventError("Event", "reason", "text", reason)
            meta = {"reason": reason, **(meta or {})}
        self.meta = meta

    def __repr__(self) -> str:
        """Show the data."""
        return f"Event({f'{self.type!r}, ' if self.type else ''}{self.data!r})"


def reference(name: str, value: Any) -> str | None:
    """Return what an id is stored as: text."""
    if value is None:
        return None
    value = getattr(value, "event_id", value)
    return str(value) if isinstance(value, uuid.UUID) else check_text("Event", name, value)


def check_text(where: str, name: str, value: Any) -> str:
    """Refuse what cannot be a name: it is shown, joined and summed, so it holds no control characters."""
    if not is_name(value):
        raise EventError(where, name, NAME, value)
    return value  # type: ignore[no-any-return]


def is_name(value: Any) -> bool:
    """Whether it is text that can be a name."""
    if type(value) is not str or not value or not value.isprintable():
        return False
    return len(value) <= _LONGEST // 4 or len(value.encode()) <= _LONGEST  # no character takes more than 4 bytes
