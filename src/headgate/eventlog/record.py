"""Events as they are stored: rows, pages of rows, and the sum that chains each row to the one before it.

A row is a tuple with the columns of `COLUMNS`, the same for every store. `Recorded` is a view of one: what costs time
(times as ``datetime``, data as objects) is made when somebody looks at it.
"""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final, NamedTuple, overload

if TYPE_CHECKING:
    from headgate.eventlog.registry import Types

COLUMNS: Final = (
    "position",  # counts up over the whole log
    "stream",
    "version",  # counts 1, 2, ... within the stream
    "type",
    "schema_version",
    "event_id",  # 16 bytes; the idempotency key
    "recorded_at",  # microseconds since 1970, UTC; never goes back from one position to the next
    "effective_at",  # the same, when it differs from recorded_at; else NULL
    "correlation_id",
    "causation_id",
    "reverses",  # event_id of the event that this one undoes
    "actor",
    "subject",  # whose key the protected fields of data are sealed with
    "data",  # JSON text
    "meta",  # JSON text of an object, or NULL
    "digest",  # 16 bytes: sums this row and the digest before it
)
POSITION, STREAM, VERSION, TYPE, SCHEMA, EVENT_ID, RECORDED_AT, EFFECTIVE_AT = range(8)
CORRELATION_ID, CAUSATION_ID, REVERSES, ACTOR, SUBJECT, DATA, META, DIGEST = range(8, 16)

Row = tuple[Any, ...]
"""The values of `COLUMNS`."""

ORIGIN: Final = b"\0" * 16
"""The digest before the first event."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 (one name less to import)
_MICROSECOND: Final = timedelta(microseconds=1)


class Head(NamedTuple):
    """Where a log ends: what the next event has to be chained to."""

    position: int = 0
    recorded_at: int = 0
    digest: bytes = ORIGIN


def digest_of(before: bytes, row: Sequence[Any]) -> bytes:
    """Sum a row and the digest before it.

    The text is unambiguous: no field but the last two may hold a control character, and JSON text holds none either.

    Args:
        before: The digest of the row before it, 16 bytes.
        row: At least the columns before ``digest``.
    """
    position, stream, version, kind, schema, event_id, recorded, effective = row[:8]
    correlation, causation, reverses, actor, subject, data, meta = row[8:15]
    text = (
        f"{position}\x1f{stream}\x1f{version}\x1f{kind}\x1f{schema}\x1f{event_id.hex()}\x1f{recorded}"
        f"\x1f{'' if effective is None else effective}\x1f{correlation or ''}\x1f{causation or ''}"
        f"\x1f{'' if reverses is None else reverses.hex()}\x1f{actor or ''}\x1f{subject or ''}"
        f"\x1f{data}\x1f{meta or ''}"
    )
    return hashlib.sha256(before + text.encode()).digest()[:16]


def to_micros(moment: datetime) -> int:
    """Return microseconds since 1970 of an aware time."""
    return (moment - EPOCH) // _MICROSECOND


_FIRST_OF_ALL: Final = to_micros(datetime.min.replace(tzinfo=EPOCH.tzinfo))
_LAST_OF_ALL: Final = to_micros(datetime.max.replace(tzinfo=EPOCH.tzinfo))


def is_moment(value: Any) -> bool:
    """Whether it is an aware time that UTC has too, so that `from_micros` gives it back."""
    aware = isinstance(value, datetime) and value.utcoffset() is not None
    return aware and _FIRST_OF_ALL <= to_micros(value) <= _LAST_OF_ALL


def from_micros(micros: int) -> datetime:
    """Return the time, in UTC, of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=micros)


class Recorded:
    """One event as it was recorded.

    Attributes:
        row: The columns as stored.
    """

    __slots__ = ("_data", "_types", "row")
    _data: Any

    def __init__(self, row: Row, types: Types) -> None:
        """View a row with the help of a registry of types."""
        self.row = row
        self._types = types

    @property
    def position(self) -> int:
        """Its place in the whole log."""
        return self.row[0]  # type: ignore[no-any-return]

    @property
    def stream(self) -> str:
        """The stream that it belongs to."""
        return self.row[1]  # type: ignore[no-any-return]

    @property
    def version(self) -> int:
        """Its place in its stream, from 1."""
        return self.row[2]  # type: ignore[no-any-return]

    @property
    def type(self) -> str:
        """The name of its type."""
        return self.row[3]  # type: ignore[no-any-return]

    @property
    def schema_version(self) -> int:
        """The version of its type when it was written; `data` is brought up to the newest."""
        return self.row[4]  # type: ignore[no-any-return]

    @property
    def event_id(self) -> uuid.UUID:
        """Its identity, the same in every fork and archive."""
        return uuid.UUID(bytes=self.row[5])

    @property
    def recorded_at(self) -> datetime:
        """When it was written, in UTC; never earlier than that of the position before it."""
        return from_micros(self.row[6])

    @property
    def effective_at(self) -> datetime:
        """When it is meant to count from; as `recorded_at` unless it was given."""
        return from_micros(self.row[6] if self.row[7] is None else self.row[7])

    @property
    def correlation_id(self) -> str | None:
        """What command or request it belongs to."""
        return self.row[8]  # type: ignore[no-any-return]

    @property
    def causation_id(self) -> str | None:
        """What caused it, mostly the id of another event."""
        return self.row[9]  # type: ignore[no-any-return]

    @property
    def reverses(self) -> uuid.UUID | None:
        """The `event_id` of the event that it undoes."""
        return None if self.row[10] is None else uuid.UUID(bytes=self.row[10])

    @property
    def actor(self) -> str | None:
        """Who did it."""
        return self.row[11]  # type: ignore[no-any-return]

    @property
    def subject(self) -> str | None:
        """Whose personal data it holds."""
        return self.row[12]  # type: ignore[no-any-return]

    @property
    def meta(self) -> dict[str, Any]:
        """What else was said about it."""
        return self._types.parse(self.row[14]) if self.row[14] is not None else {}

    @property
    def reason(self) -> str | None:
        """Why it was done, if somebody said so."""
        return self.meta.get("reason")

    @property
    def digest(self) -> bytes | None:
        """The sum of this row and of all before it."""
        return self.row[15]  # type: ignore[no-any-return]

    @property
    def plain(self) -> dict[str, Any]:
        """Its data as it was written, without types, in a fresh dict."""
        return self._types.open(self.row)

    @property
    def data(self) -> Any:
        """Its data, of the newest version of its type; a dict when the type is not registered."""
        try:
            return self._data
        except AttributeError:
            self._data = self._types.decode(self.row)
            return self._data

    def __eq__(self, other: object) -> bool:
        """Be equal when the rows are."""
        return isinstance(other, Recorded) and self.row == other.row

    def __hash__(self) -> int:
        """Hash by identity of the event."""
        return hash((self.row[0], self.row[5]))

    def __repr__(self) -> str:
        """Show where it stands and what it is."""
        return f"<Recorded {self.row[0]} {self.row[1]}@{self.row[2]} {self.row[3]} {self.row[13]}>"


class Page(Sequence[Recorded]):
    """Consecutive events: a sequence that holds rows, and makes a `Recorded` when it is looked at.

    Args:
        rows: In the order of positions (or against it, when read backwards).
        types: The registry that decodes their data.
    """

    __slots__ = ("rows", "types")

    def __init__(self, rows: list[Row], types: Types) -> None:
        """Keep the rows."""
        self.rows = rows
        self.types = types

    def __len__(self) -> int:
        """Count the events."""
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Recorded: ...

    @overload
    def __getitem__(self, index: slice) -> Page: ...

    def __getitem__(self, index: int | slice) -> Recorded | Page:
        """Give an event, or a page of some of them."""
        if isinstance(index, slice):
            return Page(self.rows[index], self.types)
        return Recorded(self.rows[index], self.types)

    def __iter__(self) -> Iterator[Recorded]:
        """Give each event."""
        return map(Recorded, self.rows, itertools.repeat(self.types))  # one at a time, each gone when it was used

    def __repr__(self) -> str:
        """Show which positions it holds."""
        rows = self.rows
        return f"<Page of {len(rows)}{f': {rows[0][0]} to {rows[-1][0]}' if rows else ''}>"
