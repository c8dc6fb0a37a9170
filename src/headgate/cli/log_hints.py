"""Why there is nothing to be seen: a name that was misspelt, a time outside of the log."""

from __future__ import annotations

import difflib
import itertools
import operator
from collections.abc import Iterable
from typing import Final

from headgate.cli.log_view import when
from headgate.eventlog import EventLog, Projection

_LOOKED_AT: Final = 1000  # streams among which one is looked for that may have been meant
_ALIKE: Final = 0.8
_NAMED: Final = 3


async def nothing_there(log: EventLog, streams: Iterable[str] = (), types: Iterable[str] = ()) -> str:
    """Return why a part of a log is empty, as well as it can be told.

    Args:
        log: The log.
        streams: The streams of the part, or beginnings that end in ``*``.
        types: Its types.
    """
    if not await log.head():
        return "the log is empty"
    for name in streams:
        missing = await no_stream(log, name)
        if missing is not None:
            return missing
    known = log.types.known()
    for name in types:
        if known and name not in known:
            return f"no type {name!r} is known{_alike(name, known)}"
    return f"no such events; {await extent(log)}"


async def extent(log: EventLog) -> str:
    """Return from where to where a log goes."""
    first, last = await log.read(limit=1).first(), await log.read(limit=1, backwards=True).first()
    if first is None or last is None:
        return "the log is empty"
    return f"the log goes from position {first.position}, {when(first)}, to {last.position}, {when(last)}"


async def no_stream(log: EventLog, name: str) -> str | None:
    """Return that there is no such stream, with those whose names are like it; None: there is one."""
    if await log.read(name, limit=1).first() is not None:
        return None
    if name.endswith("*"):
        return f"no stream begins with {name[:-1]!r}"
    near = await log.streams(name[:2], limit=_LOOKED_AT) or await log.streams(limit=_LOOKED_AT)
    return f"there is no stream {name!r}{_alike(name, [each.name for each in near])}"


async def no_state(log: EventLog, projection: Projection, entity: str) -> str:
    """Return why an entity has no state at some place in the log."""
    streams = projection.reads(entity)
    if not streams:
        return f"no event up to there is about {entity!r}"
    first = await log.read(streams, limit=1).first()
    if first is None:
        return await nothing_there(log, streams)
    return f"the first event of {entity!r} is at position {first.position}, {when(first)}"


def _alike(name: str, names: list[str]) -> str:
    """Name those that may have been meant: of those that are alike, first what begins and ends in the same way."""
    found = difflib.get_close_matches(name, names, n=max(len(names), 1), cutoff=_ALIKE)
    found.sort(key=lambda each: _shared(name, each) + _shared(name[::-1], each[::-1]), reverse=True)
    return f"; like it: {', '.join(found[:_NAMED])}" if found else ""


def _shared(one: str, two: str) -> int:
    """Return how many characters two texts have in common at their beginnings."""
    return sum(1 for _ in itertools.takewhile(lambda pair: operator.eq(*pair), zip(one, two, strict=False)))
