"""`Projection`: state for each entity, folded from events."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from headgate.errors import EventError, OptionError
from headgate.eventlog import checks
from headgate.eventlog.codecs import codec_for, loads
from headgate.eventlog.record import Page, Recorded
from headgate.eventlog.store import Query, Statement, matches
from headgate.eventlog.vault import LAST_SHRED, no_shred_since

if TYPE_CHECKING:
    from headgate.eventlog.log import EventLog
    from headgate.eventlog.reading import At

_strict: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


class Folded(NamedTuple):
    """The state of an entity at some place in the log.

    Attributes:
        state: What the projection has made of its events; None: there was none.
        version: The version of the last event that it is made of; for an entity that is a stream, that of the stream.
        position: The position of that event; 0: there was none.
    """

    state: Any
    version: int
    position: int


class Projection:
    """How events become state: a function of a state and an event that returns the next state.

    Args:
        name: Its name in the log; without ``#``.
        apply: ``apply(state, event)``, or ``apply(state, event, entity)`` if it needs a third argument; a state of
            None is removed. It may change the state that it is given, and has to return it. It is run as often as
            needed, and does nothing else.
        initial: Returns the state before the first event. Default: an empty dict.
        entity: Which entity an event is about: its name, several, or None. Default: the event's stream.
        streams_of: Which streams an entity's events are in (all of them, and at least one), to look at one entity
            quickly. Default: the stream of its name, when ``entity`` is left out; else all.
        types: Only events of these types: a class or a name, or several.
        streams: Only events of these streams: a name, a prefix that ends in ``*``, or several.
        state: The class of the states: a dataclass, msgspec struct or pydantic model. Default: what JSON holds.
        logic: The version of ``apply``, a name: another one does not go on with the states of this one.

    Raises:
        OptionError: An option is not what it has to be.
    """

    def __init__(  # noqa: PLR0913 (each is a choice of its own)
        self,
        name: str,
        apply: Callable[..., Any],
        *,
        initial: Callable[[], Any] = dict,
        entity: Callable[[Recorded], Any] | None = None,
        streams_of: Callable[[str], Iterable[str]] | None = None,
        types: str | type[Any] | Iterable[str | type[Any]] | None = None,
        streams: Iterable[str] | str | None = None,
        state: type[Any] | None = None,
        logic: str = "1",
    ) -> None:
        """Check the options."""
        where = f"Projection({name!r})"
        checks.check_option_name(where, "name", name, ", without '#'")
        if "#" in name:
            raise OptionError(where, "name", "without '#'", name)
        checks.check_function(where, "apply", apply, "a function of a state and an event")
        checks.check_function(where, "initial", initial, "a function that returns a state")
        if entity is not None:
            checks.check_function(where, "entity", entity, "a function of an event, or None")
        if streams_of is not None:
            checks.check_function(where, "streams_of", streams_of, "a function of an entity's name, or None")
        checks.check_option_name(where, "logic", logic)
        self.name = name
        self.logic = logic
        self.initial = initial
        self.types: list[Any] | None = checks.listed_types(types, where) or None
        self.streams = checks.stream_names(streams, where) or None
        self.streams_of = streams_of
        self._entity = entity
        self._apply = apply
        self._with_entity = _takes_entity(apply)
        self._class = state
        self._codec = None
        if state is not None:
            self._codec = codec_for(state) if isinstance(state, type) else None
            if self._codec is None:
                raise OptionError(where, "state", "a dataclass, a msgspec struct or a pydantic model", state)

    def __repr__(self) -> str:
        """Show its name and version."""
        return f"<Projection {self.name!r} logic {self.logic!r}>"

    def entities(self, event: Recorded) -> list[str]:
        """Return the names of the entities that an event is about, each once.

        Raises:
            EventError: A name is no text: it would be another one when it is read from the database.
        """
        if self._entity is None:
            return [event.stream]
        found = self._entity(event)
        if found is None:
            return []
        if isinstance(found, str):
            return [found]
        several = list(found) if isinstance(found, Iterable) else [found]
        if not all(isinstance(each, str) for each in several):
            raise EventError(f"projection {self.name!r}", "its entity", "text, several of them, or None", found)
        return list(dict.fromkeys(several))

    def step(self, states: dict[str, Any], event: Recorded) -> list[str]:
        """Apply an event to states, and return the entities that it was about.

        Args:
            states: By entity; an entity that is not there is at its beginning.
            event: The event.
        """
        entities = self.entities(event)
        for entity in entities:
            states[entity] = self.next(states.get(entity), event, entity)
        return entities

    def next(self, state: Any, event: Recorded, entity: str) -> Any:
        """Return the state of an entity after an event; None stands for the beginning, before and after."""
        if state is None:
            state = self.initial()
        return self._apply(state, event, entity) if self._with_entity else self._apply(state, event)

    def dump(self, state: Any) -> str:
        """Return the JSON text of a state.

        Raises:
            EventError: JSON cannot hold it, or gives something else back.
        """
        if self._class is not None and not isinstance(state, self._class):
            raise EventError(f"projection {self.name!r}", "its state", f"a {self._class.__name__}, or None", state)
        try:
            if self._codec is not None:
                return self._codec.encode(state)
            _check_keys(state)
            return _strict(state)
        except (TypeError, ValueError, RecursionError) as error:
            expected = f"such that JSON can hold it, or declared by 'state=' ({error})"
            raise EventError(f"projection {self.name!r}", "its state", expected, state) from error

    def load(self, text: str) -> Any:
        """Return the state of a JSON text.

        Raises:
            EventError: It does not fit the class of the states.
        """
        found = loads(text)
        if self._codec is None:
            return found
        try:
            return self._codec.decode(found)
        except Exception as error:
            expected = f"fit for the class of the states; rebuild it ({type(error).__name__}: {error})"
            raise EventError(f"projection {self.name!r}", "what is stored", expected, found) from error

    def query(self, log: EventLog) -> Query:
        """Return which events of a log it is about."""
        return Query(streams=tuple(self.streams or ()), types=tuple(log.types.names_of(self.types)))

    async def pages(self, log: EventLog, start: At, until: At, batch: int = 1000) -> AsyncIterator[Page]:
        """Read the events that it is about."""
        async for page in log.read(self.streams, start=start, until=until, types=self.types, batch=batch).pages():
            yield page

    def reads(self, entity: str) -> list[str] | None:
        """Return the streams that hold all events of an entity, and maybe others; None: any may."""
        if self.streams_of is not None:
            where = f"Projection({self.name!r})"
            return checks.stream_names(self.streams_of(entity), where, "streams_of") or None
        return [entity] if self._entity is None else self.streams


async def fold(
    log: EventLog, projection: Projection, entity: str, *, until: At = None, snapshots: int | None = 1000
) -> Folded:
    """Return the state of one entity at a place in the log.

    Args:
        log: The log.
        projection: How.
        entity: Whose.
        until: Position or time (inclusive). Default: now.
        snapshots: Keep a snapshot when more events than these were needed, so that the next time is quick. None: none
            are used or kept.
    """
    _, last = await log.bounds(None, until)
    last = await log.head() if last is None else last
    state, position, version, shredded = None, 0, 0, ""
    if snapshots is not None:
        state, position, version, shredded = await _snapshot(log, projection, entity, last)
    query = projection.query(log)  # the streams of the entity need not be among its
    streams = projection.reads(entity)
    count = 0
    async for page in log.read(streams, start=position + 1, until=last, types=projection.types).pages():
        for event in page:
            if entity in projection.entities(event) and matches(query, event.row):
                state = projection.next(state, event, entity)
                position, version = event.position, event.version
            count += 1
    folded = Folded(state, version, position)
    if snapshots is not None and count > snapshots and folded.state is not None:
        await _keep(log, projection, entity, folded, shredded)
    return folded


async def _snapshot(log: EventLog, projection: Projection, entity: str, last: int) -> tuple[Any, int, int, str]:
    """Return the state, position and version of the last snapshot, and which key was destroyed last before it."""
    sql = (
        f"SELECT ({LAST_SHRED}), position, data FROM (SELECT 1) AS one LEFT JOIN "  # noqa: S608 (a constant)
        "(SELECT position, data FROM ~snapshots WHERE name = ? AND logic = ? AND entity = ? AND position <= ? "
        "ORDER BY position DESC LIMIT 1) AS last ON 1 = 1"
    )
    (rows,) = await log.store.transact([Statement(sql, (projection.name, projection.logic, entity, last))])
    shredded, position, data = rows[0]
    if data is None:
        return None, 0, 0, shredded or ""
    kept = loads(data)
    return projection.load(kept["state"]), position, kept["version"], shredded or ""


class _ShreddedError(Exception):
    """A key was destroyed since a fold began: it may hold what was read with it."""


async def _keep(log: EventLog, projection: Projection, entity: str, folded: Folded, shredded: str) -> None:
    """Keep a snapshot, unless a key was destroyed meanwhile: its holder wants nothing left that was read with it."""
    sql = (
        "INSERT INTO ~snapshots (name, logic, entity, position, data) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (name, logic, entity, position) DO NOTHING"
    )
    data = json.dumps({"version": folded.version, "state": projection.dump(folded.state)})
    values = (projection.name, projection.logic, entity, folded.position, data)
    with contextlib.suppress(_ShreddedError):
        await log.store.transact([no_shred_since(shredded, _ShreddedError()), Statement(sql, values)])


def _check_keys(state: Any) -> None:
    """Refuse keys that JSON makes text of: ``{1: ...}`` would be ``{"1": ...}`` after a restart."""
    if isinstance(state, dict):
        for key, value in state.items():
            if not isinstance(key, str):
                raise TypeError(f"a key is {key!r}, and no text")
            if not isinstance(value, str):
                _check_keys(value)
    elif isinstance(state, (list, tuple)):
        for value in state:
            _check_keys(value)


def _takes_entity(apply: Callable[..., Any]) -> bool:
    """Whether a function takes the entity too; an option of its own that has a default is none."""
    try:
        parameters = inspect.signature(apply).parameters.values()
    except ValueError:  # some that are not written in Python do not say
        return False
    places = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return sum(each.default is each.empty or each.name == "entity" for each in places) > 2  # noqa: PLR2004 (state, event)
