"""Replaying a log with other logic, and seeing what would change before anything does."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from headgate.errors import EventError, OptionError
from headgate.eventlog.checks import check_at, check_function, check_kind, check_log
from headgate.eventlog.codecs import loads, plain
from headgate.eventlog.projection import Projection
from headgate.eventlog.reading import At
from headgate.eventlog.record import Recorded
from headgate.eventlog.store import matches

if TYPE_CHECKING:
    from headgate.eventlog.log import EventLog

MISSING: Final = "(nothing)"
"""Stands in a difference for what is not there."""


class FieldChange(NamedTuple):
    """One field that differs: its path (``"address.city"``), its value before and after."""

    path: str
    before: Any
    after: Any


class EntityChange(NamedTuple):
    """An entity whose state differs.

    Attributes:
        entity: Its name.
        before: Its state by the old logic; None: there is none.
        after: Its state by the new one.
        since: The position of the event after which they differed for good; None: of stored states it is not known.
        fields: What differs.
    """

    entity: str
    before: Any
    after: Any
    since: int | None
    fields: list[FieldChange]


class Difference(NamedTuple):
    """What a replay has found.

    Attributes:
        events: How many events were replayed.
        entities: How many entities there are.
        changes: Those that differ, by name.
        position: Up to where it was replayed.
    """

    events: int
    entities: int
    changes: list[EntityChange]
    position: int

    def __str__(self) -> str:
        """Show it as text: a line for each entity, and for each field of it."""
        lines = [f"{len(self.changes)} of {self.entities} entities differ after {self.events} events"]
        for change in self.changes:
            since = "" if change.since is None else f" (since position {change.since})"
            lines.append(f"{change.entity}{since}")
            lines += [f"  {path}: {_shown(before)} -> {_shown(after)}" for path, before, after in change.fields]
        return "\n".join(lines)


class OutputChange(NamedTuple):
    """An event for which two handlers give something else."""

    event: Recorded
    before: Any
    after: Any


async def compare(
    log: EventLog,
    new: Projection,
    old: Projection | None = None,
    *,
    start: At = None,
    until: At = None,
) -> Difference:
    """Replay events by a new logic, and say which entities come out otherwise. Nothing is written.

    Args:
        log: The log.
        new: The new logic.
        old: The old logic. Default: the states that are stored for the projection of this name; the new logic is then
            replayed from the beginning up to where those are.
        start: Where the new logic begins: what was before is folded by the old one for both. Needs ``old``.
        until: Where to end. Default: now. Needs ``old``, as stored states are those of one position.

    Raises:
        OptionError: An option is not what it has to be.
    """
    check_log("compare", log)
    check_kind("compare", "new", new, Projection, "a Projection")
    if old is not None:
        check_kind("compare", "old", old, Projection, "a Projection, or None for the states that are stored")
    for name, given in (("start", start), ("until", until)):
        check_at("compare", name, given)
        if old is None and given is not None:
            raise OptionError(
                "compare", name, "left out without 'old': the states that are stored are as they are", given
            )
    if old is None:
        return await _against_stored(log, new)
    first, last = await log.bounds(start, until)
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    since: dict[str, int] = {}
    events = 0
    of_old, of_new = old.query(log), new.query(log)
    head = await log.head()
    last = head if last is None else min(last, head)
    async for page in log.read(until=last).pages():
        for event in page:
            if event.position >= first:
                if not events:
                    after = _copies(old, new, before)
                events += 1
            touched: set[str] = set()
            if matches(of_old, event.row):
                touched.update(old.step(before, event))
            if event.position < first:
                continue
            if matches(of_new, event.row):
                touched.update(new.step(after, event))
            for entity in touched:
                if _text(before.get(entity)) == _text(after.get(entity)):
                    since.pop(entity, None)
                else:
                    since.setdefault(entity, event.position)
    changes = [_change(entity, before.get(entity), after.get(entity), position) for entity, position in since.items()]
    return Difference(events, len(_named(before, after)), sorted(changes, key=lambda each: each.entity), last)


def _named(*several: dict[str, Any]) -> list[str]:
    """Return the entities that have a state in any of these, by name."""
    return sorted({entity for states in several for entity, state in states.items() if state is not None})


async def _against_stored(log: EventLog, new: Projection) -> Difference:
    position, before = await log.projector(new).stored(functools.partial(_load, new))
    after: dict[str, Any] = {}
    events = 0
    async for page in new.pages(log, None, position):
        for event in page:
            new.step(after, event)
            events += 1
    names = _named(before, after)
    changes = [_change(name, before.get(name), after.get(name), None) for name in names]
    differing = [each for each in changes if _text(each.before) != _text(each.after)]
    return Difference(events, len(names), differing, position)


def _load(projection: Projection, text: str) -> Any:
    """Return a stored state; as JSON has it, if the old logic had states of another class."""
    try:
        return projection.load(text)
    except EventError:
        return loads(text)


async def compare_handlers(
    log: EventLog,
    new: Callable[[Recorded], Any],
    old: Callable[[Recorded], Any],
    *,
    start: At = None,
    until: At = None,
    types: Any = None,
) -> list[OutputChange]:
    """Run two versions of a handler over events, and return those for which they give something else.

    Args:
        log: The log.
        new: What would be run: a plain function of a `Recorded` that returns what it would do, and does not do it.
        old: What was run.
        start: First position or time.
        until: Last position or time.
        types: Only events of these types.
    """
    check_log("compare_handlers", log)
    for name, given in (("new", new), ("old", old)):
        check_function("compare_handlers", name, given, "a function of a recorded event")
    found: list[OutputChange] = []
    async for event in log.read(start=start, until=until, types=types):
        before, after = old(event), new(event)
        if _text(before) != _text(after):
            found.append(OutputChange(event, before, after))
    return found


def _copies(old: Projection, new: Projection, states: dict[str, Any]) -> dict[str, Any]:
    """Let both begin from the same states; through JSON, so that they share nothing."""
    return {name: new.load(old.dump(state)) for name, state in states.items() if state is not None}


def differences(before: Any, after: Any, path: str = "") -> Iterator[FieldChange]:
    """Give the fields of two values that differ, as far down as both are dicts."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}, key=str):
            below = f"{path}.{name}" if path else str(name)
            yield from differences(before.get(name, MISSING), after.get(name, MISSING), below)
    elif _text(before) != _text(after):
        yield FieldChange(path or "state", before, after)


def _change(entity: str, before: Any, after: Any, since: int | None) -> EntityChange:
    one, two = (MISSING if each is None else json.loads(_text(each)) for each in (before, after))
    return EntityChange(entity, before, after, since, list(differences(one, two)))


def _text(state: Any) -> str:
    return json.dumps(state, default=plain, sort_keys=True)


def _shown(value: Any) -> str:
    return value if value is MISSING else json.dumps(value, default=plain, ensure_ascii=False)
