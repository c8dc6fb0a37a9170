"""Forking: a new log from a part of another, for tests: small, consistent, and without anybody's personal data.

Positions, versions, ids and times stay those of the original, so that "position 4711" means the same event in both;
what was left out leaves gaps. Digests are made anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from headgate.errors import EventLogError, OptionError
from headgate.eventlog import checks
from headgate.eventlog.codecs import dumps
from headgate.eventlog.events import check_text
from headgate.eventlog.masking import ERASED, MASK, SEALED, Policy
from headgate.eventlog.record import Recorded, Row, digest_of
from headgate.eventlog.registry import BOX
from headgate.eventlog.store import Statement
from headgate.protocol.dispatch.partition import stable_hash

if TYPE_CHECKING:
    from headgate.eventlog.log import EventLog
    from headgate.eventlog.reading import At

References = Callable[[Recorded], Iterable[str]]


class Forked(NamedTuple):
    """What a fork has copied.

    Attributes:
        events: How many events,
        streams: of how many streams.
        of: How many events there are in the original's part.
    """

    events: int
    streams: int
    of: int


async def fork(  # noqa: PLR0913 (each is a choice of its own)
    source: EventLog,
    target: EventLog,
    *,
    start: At = None,
    until: At = None,
    streams: str | Iterable[str] | None = None,
    types: Any = None,
    sample: int | None = None,
    depth: int | None = 1,
    seed: int = 0,
    references: References | None = None,
    policy: Policy | None = None,
) -> Forked:
    """Copy a part of a log into an empty one.

    Args:
        source: The log. It is only read.
        target: An open log without events.
        start: First position or time.
        until: Last position or time.
        streams: Only these streams. With ``sample``: those that are drawn from.
        types: Only events of these types.
        sample: So many streams, drawn by ``seed``; with them come the events of other streams that refer to them, and,
            in full, the streams that any of these refer to.
        depth: How often that last step is made. 1 (default): once, so that what was drawn refers to nothing that is
            missing. None: until nothing in the copy does; where everything hangs together, that is everything.
        seed: Another one draws others.
        references: Which streams an event refers to. Default: all whose name is a value in its data.
        policy: What becomes of fields. Default: everything is copied as it is; sealed fields stay sealed, without the
            keys. With a policy, sealed fields are opened (if the log has the master key), and masked.

    Raises:
        EventLogError: The target has events.
        OptionError: The policy gives two streams one name; what was copied before that stays.
        EventError: It makes something of a column that cannot be one.
    """
    checks.check_log("fork", source, "source")
    checks.check_log("fork", target, "target")
    streams = checks.stream_names(streams, "fork") or None
    types = source.types.names_of(types) or None
    _check(sample, depth, seed, references, policy)
    if (await target.store.head()).position:
        raise EventLogError(target.store.name, "a fork needs a log without events")
    first, last = await source.bounds(start, until)
    last = await source.head() if last is None else last
    chosen = None
    if sample is not None:
        chosen = await _Sample(source, first, last, types, references).drawn(sample, depth, seed, streams)
    copied = of = 0
    names: dict[str, str] = {}  # of the original's streams, by what they are called in the copy
    before = b"\0" * 16
    selection = streams if chosen is None else None
    async for page in source.read(selection, start=first, until=last, types=types).pages():
        rows: list[Row] = []
        for event in page:
            of += 1
            if chosen is not None and not chosen.has(event):
                continue
            row = event.row if policy is None else _masked(source, event, policy)
            before = digest_of(before, row)
            rows.append((*row[:15], before))
            if names.setdefault(row[1], event.stream) != event.stream:
                expected = f"such that streams keep names of their own: two of them became {row[1]!r}"
                raise OptionError("fork", "policy", expected, [names[row[1]], event.stream])
        await target.store.adopt(rows)
        copied += len(rows)
    origin = {"log": source.store.name, "first": first, "last": last, "events": copied, "of": of, "sample": sample}
    sql = "INSERT INTO ~meta (name, value) VALUES ('forked_from', ?) ON CONFLICT (name) DO NOTHING"
    await target.store.transact([Statement(sql, (json.dumps(origin),))])
    return Forked(copied, len(names), of)


def _check(sample: Any, depth: Any, seed: Any, references: Any, policy: Any) -> None:
    if sample is not None:
        checks.check_number("fork", "sample", sample, 1, ", or None")
    if depth is not None:
        checks.check_number("fork", "depth", depth, 0, ", or None")
    checks.check_number("fork", "seed", seed, -checks.LAST)
    if references is not None:
        checks.check_function("fork", "references", references, "a function of an event, or None")
    if policy is not None:
        checks.check_kind("fork", "policy", policy, Policy, "a Policy, or None")


class Chosen(NamedTuple):
    """What a sample has chosen: whole streams, and single events that refer to them."""

    streams: set[str]
    positions: set[int]

    def has(self, event: Recorded) -> bool:
        """Whether an event is in it."""
        return event.row[1] in self.streams or event.row[0] in self.positions


class _Sample:
    """Draws streams, and finds what belongs to them."""

    def __init__(self, log: EventLog, first: int, last: int, types: Any, references: References | None) -> None:
        self._log = log
        self._first = first
        self._last = last
        self._types = types
        self._references = references
        self._known: set[str] = set()
        self._edges: list[tuple[int, str, set[str]]] = []  # events that refer to something: position, stream, what

    async def drawn(self, count: int, depth: int | None, seed: int, streams: list[str] | None) -> Chosen:
        """Draw so many streams, and choose what belongs to them."""
        names = {info.name for info in await self._log.streams()}
        self._known = names
        candidates: set[str] = set()
        async for page in self._log.read(start=self._first, until=self._last, types=self._types).pages():
            for event in page:
                if streams is None or any(_fits(event.stream, each) for each in streams):
                    candidates.add(event.stream)
                found = self._refers(event)
                if found:
                    self._edges.append((event.position, event.stream, found))
        drawn = sorted(candidates, key=lambda name: (stable_hash(f"{seed}:{name}"), name))[:count]
        return self._closed(set(drawn), depth)

    def _refers(self, event: Recorded) -> set[str]:
        if self._references is not None:
            return {each for each in self._references(event) if each != event.stream}
        found: set[str] = set()
        _values(event.plain, self._known, found)
        found.discard(event.stream)
        return found

    def _closed(self, drawn: set[str], depth: int | None) -> Chosen:
        """Add the events that refer to the drawn streams, and the streams that what is chosen refers to."""
        chosen = Chosen(set(drawn), {position for position, _, found in self._edges if found & drawn})
        step = 0
        while depth is None or step < depth:
            step += 1
            referred: set[str] = set()
            for position, stream, found in self._edges:
                if stream in chosen.streams or position in chosen.positions:
                    referred.update(found & self._known)
            if referred <= chosen.streams:
                break
            chosen.streams.update(referred)
        return chosen


def _fits(stream: str, name: str) -> bool:
    return stream.startswith(name[:-1]) if name.endswith("*") else stream == name


def _values(value: Any, known: set[str], found: set[str]) -> None:
    if isinstance(value, str):
        if value in known:
            found.add(value)
    elif isinstance(value, dict):
        for each in value.values():
            _values(each, known, found)
    elif isinstance(value, list):
        for each in value:
            _values(each, known, found)


def _masked(log: EventLog, event: Recorded, policy: Policy) -> Row:
    """Return the row as a test environment may have it."""
    fields = policy.data(event.type, event.plain, log.types.personal_of(event.row))
    fields.pop(BOX, None)
    meta = policy.data("", event.meta)
    row = list(event.row)
    row[1] = check_text("Policy", "@stream", policy.column("stream", row[1]))
    for index, name in ((8, "correlation_id"), (9, "causation_id"), (11, "actor")):
        row[index] = policy.column(name, row[index])
    # Nothing is sealed any more. Where there are marks, it has a subject, so that they are known as such.
    marks = any(isinstance(each, str) and each in (ERASED, SEALED) for each in fields.values())
    row[12] = policy.column("subject", row[12], MASK) or ERASED if row[12] is not None and marks else None
    row[13] = dumps(fields)
    row[14] = dumps(meta) if meta else None
    return tuple(row)
