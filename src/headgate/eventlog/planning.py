"""Where events go: pure functions from what is in a log, and what is to be appended, to rows.

Both stores use it while they hold the lock of the log's end, so that positions, versions, times and digests are made in
one place.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from headgate.errors import AppendConditionError, AppendConflictError, EventError, HeadgateError, ReversalError
from headgate.eventlog.record import Head, Row
from headgate.eventlog.store import Query, matches


class Draft(NamedTuple):
    """An event without its place.

    Attributes:
        known: It may be in the log already: it is not the first time that somebody appends it.
    """

    type: str
    schema_version: int
    event_id: bytes
    known: bool
    effective_at: int | None
    correlation_id: str | None
    causation_id: str | None
    reverses: bytes | None
    actor: str | None
    subject: str | None
    data: str
    meta: str | None


class Condition(NamedTuple):
    """No event of a query may be behind a position.

    Attributes:
        query: Which events.
        after: The position.
        archived: Up to where archives were looked at.
        found: The position of one of them that is in an archive; 0: none is.
    """

    query: Query
    after: int
    archived: int = 0
    found: int = 0


class ArchivedMeanwhileError(HeadgateError):
    """There is an archive that a condition has not been held against yet; it never leaves the log."""


class Alike(NamedTuple):
    """Events that differ in nothing but their id and their data: the most frequent kind of append, and the quickest."""

    type: str
    schema_version: int
    correlation_id: str | None
    causation_id: str | None
    actor: str | None
    meta: str | None
    ids: list[bytes]
    texts: list[str]


class Order(NamedTuple):
    """Events for one stream.

    Attributes:
        expected_version: The version that the stream has to be at; None: any.
        special: Some of the events may be in the log already, or reverse others.
        condition: What must not be in the log.
        alike: The events, instead of drafts.
    """

    stream: str
    expected_version: int | None
    drafts: list[Draft]
    special: bool = True
    condition: Condition | None = None
    alike: Alike | None = None

    @property
    def size(self) -> int:
        """How many events there are."""
        return len(self.drafts) if self.alike is None else len(self.alike.ids)


class Appended(NamedTuple):
    """What became of events that were appended.

    Attributes:
        stream: Their stream.
        version: The version of the last of them.
        first: Position of the first of them; 0: there were none.
        last: Position of the last of them.
        duplicates: How many of them were in the log already, and were not appended again.
    """

    stream: str
    version: int
    first: int
    last: int
    duplicates: int = 0


class Found(NamedTuple):
    """Where an event is that is in the log already."""

    position: int
    stream: str
    version: int


class Needs(NamedTuple):
    """What has to be looked up before a plan can be made."""

    streams: set[str]
    ids: set[bytes]
    reversals: set[bytes]
    conditions: set[Condition]


def needs(orders: Iterable[Order]) -> Needs:
    """Say what has to be looked up for these orders."""
    found = Needs(set(), set(), set(), set())
    for order in orders:
        found.streams.add(order.stream)
        if order.condition is not None:
            found.conditions.add(order.condition)
        for draft in order.drafts if order.special else ():
            if draft.known:
                found.ids.add(draft.event_id)
            if draft.reverses is not None:
                found.reversals.add(draft.reverses)
    return found


class Plan:
    """Rows for one transaction.

    Args:
        store: Its name, for errors.
        head: Where the log ends.
        now: The clock, in microseconds.
        versions: Of the streams; a stream that is not there is at 0.
        known: What is in the log already, by event_id.
        reversed_by: Which of the events that are to be reversed were already, and at which position.
        unmet: The conditions that do not hold, with the position of an event that is in their way.
        archived: The last position that is in an archive.

    Attributes:
        rows: What is to be inserted.
        head: Where the log will end.
        versions: Of all streams that were changed.
    """

    def __init__(
        self,
        store: str,
        head: Head,
        now: int,
        versions: Mapping[str, int],
        known: Mapping[bytes, Found],
        reversed_by: Mapping[bytes, int],
        unmet: Mapping[Condition, int],
        archived: int = 0,
    ) -> None:
        """Begin at the end of the log."""
        self.rows: list[Row] = []
        self.head = head
        self.versions: dict[str, int] = {}
        self._store = store
        self._now = max(now, head.recorded_at)
        self._stored = versions
        self._known = dict(known)
        self._reversed_by = dict(reversed_by)
        self._unmet = unmet
        self._archived = archived
        self._remembered = 0  # rows whose ids are among the known ones

    def place(self, orders: Iterable[Order]) -> list[Appended]:
        """Place the events of some orders: all of them, or none.

        Args:
            orders: They are one atomic append.

        Raises:
            AppendConflictError: A stream is at another version than expected.
            AppendConditionError: There is an event that must not be there.
            ReversalError: An event is reversed already.
            EventError: An event's id is another one's.
        """
        rows, head, versions, remembered = len(self.rows), self.head, dict(self.versions), self._remembered
        known, reversals = dict(self._known), dict(self._reversed_by)
        try:
            return [self._place(order) for order in orders]
        except Exception:
            del self.rows[rows:]
            self.head, self.versions, self._known, self._reversed_by = head, versions, known, reversals
            self._remembered = remembered
            raise

    def _place(self, order: Order) -> Appended:
        stream, expected, drafts, special, condition, alike = order
        version = self.versions.get(stream, self._stored.get(stream, 0))
        repeated = 0
        fresh = drafts
        if special:
            fresh = self._fresh(stream, drafts)
            repeated = len(drafts) - len(fresh)
            if not fresh and drafts:
                places = [self._known[draft.event_id] for draft in drafts]
                positions = [place.position for place in places]
                last = max(place.version for place in places)
                return Appended(stream, last, min(positions), max(positions), repeated)
        if expected is not None and expected != version:
            raise AppendConflictError(self._store, stream, expected, version)
        if condition is not None:
            self._check_condition(stream, condition)
        if alike is not None:
            return self._append_alike(stream, version, alike)
        if special:
            self._check_reversals(fresh)
        first = self._write(stream, version, fresh)
        version += len(fresh)
        self.versions[stream] = version
        return Appended(stream, version, first, self.head.position if fresh else 0, repeated)

    def _write(self, stream: str, version: int, drafts: list[Draft]) -> int:
        """Make the rows; the same sum as `record.digest_of`, written out here as this is the hot path."""
        position, _, digest = self.head
        now, sha256, add = self._now, hashlib.sha256, self.rows.append
        first = 0
        for (
            kind,
            schema,
            event_id,
            _,
            effective,
            correlation,
            causation,
            reverses,
            actor,
            subject,
            data,
            meta,
        ) in drafts:
            position += 1
            first = first or position
            version += 1
            text = (
                f"{position}\x1f{stream}\x1f{version}\x1f{kind}\x1f{schema}\x1f{event_id.hex()}\x1f{now}"
                f"\x1f{'' if effective is None else effective}\x1f{correlation or ''}\x1f{causation or ''}"
                f"\x1f{'' if reverses is None else reverses.hex()}\x1f{actor or ''}\x1f{subject or ''}"
                f"\x1f{data}\x1f{meta or ''}"
            )
            digest = sha256(digest + text.encode()).digest()[:16]
            add(
                (
                    position,
                    stream,
                    version,
                    kind,
                    schema,
                    event_id,
                    now,
                    effective,
                    correlation,
                    causation,
                    reverses,
                    actor,
                    subject,
                    data,
                    meta,
                    digest,
                )
            )
        if drafts:
            self.head = Head(position, now, digest)
        return first

    def _append_alike(self, stream: str, version: int, alike: Alike) -> Appended:
        """Make the rows of events that are alike; the same sum as `record.digest_of`, of parts made once."""
        kind, schema, correlation, causation, actor, meta, ids, texts = alike
        position, _, digest = self.head
        first = position + 1
        now, sha256, add = self._now, hashlib.sha256, self.rows.append
        one, two = f"\x1f{stream}\x1f", f"\x1f{kind}\x1f{schema}\x1f"
        three = f"\x1f{now}\x1f\x1f{correlation or ''}\x1f{causation or ''}\x1f\x1f{actor or ''}\x1f\x1f"
        four = f"\x1f{meta or ''}"
        named = (None, correlation, causation, None, actor, None)
        for event_id, data in zip(ids, texts, strict=True):
            position += 1
            version += 1
            text = f"{position}{one}{version}{two}{event_id.hex()}{three}{data}{four}"
            digest = sha256(digest + text.encode()).digest()[:16]
            add((position, stream, version, kind, schema, event_id, now, *named, data, meta, digest))
        self.head = Head(position, now, digest)
        self.versions[stream] = version
        return Appended(stream, version, first, position)

    def _fresh(self, stream: str, drafts: list[Draft]) -> list[Draft]:
        """Leave out what is in the log already, or was placed in this transaction."""
        for row in self.rows[self._remembered :]:
            self._known[row[5]] = Found(row[0], row[1], row[2])
        self._remembered = len(self.rows)
        fresh: list[Draft] = []
        here: set[bytes] = set()
        for draft in drafts:
            place = self._known.get(draft.event_id)
            if place is not None:
                if place.stream != stream:
                    taken = f"{place.stream!r} at position {place.position}"
                    identity = uuid.UUID(bytes=draft.event_id)
                    raise EventError(draft.type, "event_id", f"its own: it is in stream {taken} already", identity)
            elif draft.event_id not in here:
                here.add(draft.event_id)
                fresh.append(draft)
        return fresh

    def _check_condition(self, stream: str, condition: Condition) -> None:
        """Refuse when the log, or what was placed in this transaction, has what must not be there."""
        if self._archived > max(condition.after, condition.archived):
            raise ArchivedMeanwhileError
        position = condition.found or self._unmet.get(condition)
        if position is None:
            position = next((row[0] for row in self.rows if matches(condition.query, row)), None)
        if position is not None:
            raise AppendConditionError(self._store, stream, condition.after, position)

    def _check_reversals(self, drafts: list[Draft]) -> None:
        for draft in drafts:
            if draft.reverses is None:
                continue
            by = self._reversed_by.get(draft.reverses)
            if by is not None:
                what = f"event {uuid.UUID(bytes=draft.reverses)}"
                raise ReversalError(what, f"it was already, by position {by}" if by else "it is twice in this append")
            self._reversed_by[draft.reverses] = 0
