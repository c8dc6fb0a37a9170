"""`Types`: which classes events are, how old ones are read, what undoes them, what of them is personal."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar, overload

from headgate.errors import DamagedLogError, EventError, HeadgateError, OptionError
from headgate.eventlog import sealing
from headgate.eventlog.checks import listed_types
from headgate.eventlog.codecs import Codec, codec_for, dumps, loads
from headgate.eventlog.events import check_text
from headgate.eventlog.masking import ERASED, SEALED
from headgate.eventlog.record import DATA, EVENT_ID, POSITION, RECORDED_AT, SCHEMA, SUBJECT, TYPE, Row

C = TypeVar("C", bound=type[Any])
N = TypeVar("N", bound=type[Any] | str)
F = TypeVar("F", bound=Callable[..., Any])

BOX: Final = "$sealed"
"""The field that holds the sealed ones."""


_NEWEST: Final = 2**31 - 1
"""The last version of a schema that there can be: PostgreSQL counts them in 32 bits."""


class Kind:
    """One type of events."""

    __slots__ = ("cls", "codec", "inverse", "name", "personal", "subject", "upcasters", "version")

    def __init__(self, name: str) -> None:
        """Begin with nothing but a name: its data are dicts."""
        self.name = name
        self.cls: type[Any] | None = None
        self.codec: Codec | None = None
        self.version = 1
        self.personal: tuple[str, ...] = ()
        self.subject: str | Callable[[Any], str] | None = None
        self.upcasters: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
        self.inverse: Callable[[Any], Any] | None = None


class Types:
    """A registry of types of events. A type that is not in it is a dict.

    Args:
        *classes: Registered by `add`, under their own names.
    """

    def __init__(self, *classes: type[Any]) -> None:
        """Register the classes."""
        self._by_name: dict[str, Kind] = {}
        self._by_class: dict[type[Any], Kind] = {}
        self._keys: Mapping[str, bytes | None] = {}
        for each in classes:
            if each is None:  # `add` would wait for a class to decorate
                raise OptionError("Types", "classes", "classes, or names of types", each)
            self.add(each)

    @overload
    def add(
        self,
        cls: N,
        *,
        name: str | None = None,
        version: int = 1,
        personal: Iterable[str] = (),
        subject: str | Callable[[Any], str] | None = None,
    ) -> N: ...

    @overload
    def add(
        self,
        cls: None = None,
        *,
        name: str | None = None,
        version: int = 1,
        personal: Iterable[str] = (),
        subject: str | Callable[[Any], str] | None = None,
    ) -> Callable[[C], C]: ...

    def add(
        self,
        cls: Any = None,
        *,
        name: str | None = None,
        version: int = 1,
        personal: Iterable[str] = (),
        subject: str | Callable[[Any], str] | None = None,
    ) -> Any:
        """Register a class; as a decorator, or as a call. With a string: a type whose data are dicts.

        Args:
            cls: A dataclass, a msgspec struct or a pydantic model; or the name of a type without a class.
            name: What it is called in the log. Default: the class's name.
            version: Of its schema. What was written with an older one is brought up by `upcast`.
            personal: Names of fields that are sealed with the key of their subject, so that they can be made
                unreadable. Of a class they have to be its own, however they are encoded. Of a type without a class they
                are what stands in its dicts, and nothing can tell a misspelt one from one that an event does not have.
            subject: Whose: a field of it, or a function of the data. Default: what the `Event` says, or the stream.

        Raises:
            OptionError: It is of no such kind, its instances are not encoded as objects, the name is taken, or it has
                no such fields.
        """
        if cls is None:
            return functools.partial(self.add, name=name, version=version, personal=personal, subject=subject)
        where = f"Types.add({cls if isinstance(cls, str) else getattr(cls, '__name__', cls)})"
        if isinstance(cls, str):
            label, codec = check_text(where, "cls", cls), None
        else:
            codec = codec_for(cls) if isinstance(cls, type) else None
            if codec is None:
                raise OptionError(where, "cls", "a dataclass, a msgspec struct, a pydantic model or a name", cls)
            if codec.array_like:
                raise OptionError(where, "cls", "encoded as an object with names (without array_like)", cls)
            label = check_text(where, "name", cls.__name__ if name is None else name)
        _check_version(where, version)
        if subject is not None and not callable(subject) and (not isinstance(subject, str) or not subject):
            raise OptionError(where, "subject", "a field, a function of the data, or None", subject)
        kind = self._kind(label)
        if kind.cls is not None and kind.cls is not cls:
            raise OptionError(where, "name", f"a free one: {label!r} is {kind.cls.__qualname__}", label)
        found = _encoded(where, "personal", codec, _texts(where, personal))
        if isinstance(subject, str):
            subject = _encoded(where, "subject", codec, (subject,))[0]
        kind.codec, kind.version, kind.personal, kind.subject = codec, version, found, subject
        if not isinstance(cls, str):
            kind.cls = cls
            self._by_class[cls] = kind
        return cls

    def upcast(self, of: type[Any] | str, version: int) -> Callable[[F], F]:
        """Register how data of an old version become those of the next: a function of a dict that returns one.

        Args:
            of: The type, or its name.
            version: The version that the function takes; it gives the next.
        """
        kind = self.kind(of)
        _check_version(f"Types.upcast({kind.name})", version)

        def register(function: F) -> F:
            kind.upcasters[version] = function
            return function

        return register

    def inverse(self, of: type[Any] | str) -> Callable[[F], F]:
        """Register what undoes events of a type: a function of a `Recorded` that returns data or an `Event`."""
        kind = self.kind(of)

        def register(function: F) -> F:
            kind.inverse = function
            return function

        return register

    def kind(self, of: type[Any] | str) -> Kind:
        """Return what is known about a type; of a name that is new, a fresh entry.

        Raises:
            EventError: The class is not registered.
        """
        if isinstance(of, str):
            return self._kind(check_text("Types", "name", of))
        found = self._by_class.get(of) if isinstance(of, type) else None
        if found is None:
            known = ", ".join(sorted(self._by_name)) or "none"
            raise EventError(getattr(of, "__name__", repr(of)), "its type", f"registered (there are: {known})", of)
        return found

    def has(self, cls: type[Any]) -> bool:
        """Whether a class is registered."""
        return cls in self._by_class

    def known(self) -> list[str]:
        """Return the names."""
        return sorted(self._by_name)

    def names_of(self, types: Any) -> list[str]:
        """Return the names of types that are given as classes or names; None: an empty list."""
        return [each if isinstance(each, str) else self.kind(each).name for each in listed_types(types)]

    def find(self, name: str) -> Kind | None:
        """Return what is known about a name, or None."""
        return self._by_name.get(name)

    def _kind(self, name: str) -> Kind:
        found = self._by_name.get(name)
        if found is None:
            found = self._by_name[name] = Kind(name)
        return found

    # -- writing ------------------------------------------------------------------------------------------------------

    def named(self, data: Any, name: str | None) -> tuple[Kind | None, str]:
        """Return the kind (None: it is not registered) and the name of the type of an event.

        Raises:
            EventError: Its class is not registered.
        """
        if name is None:
            kind = self.kind(type(data))
            return kind, kind.name
        return self._by_name.get(name), name

    def encode(self, data: Any, kind: Kind | None, name: str = "") -> str:
        """Return the JSON text of an event's data.

        Raises:
            EventError: It cannot be JSON.
        """
        where = name if kind is None else kind.name
        try:
            if isinstance(data, dict):
                return dumps(data)
            if kind is None or kind.codec is None:
                raise EventError(name, "data", "a dict, as its type has no class", data)
            text = kind.codec.encode(data)
        except (ValueError, TypeError, RecursionError, OverflowError) as error:
            if isinstance(error, HeadgateError):
                raise
            raise EventError(where, "data", f"such that JSON can hold it ({error})", data) from error
        if text[0] != "{":
            raise EventError(where, "data", "encoded as an object with names", data)
        return text

    # -- reading ------------------------------------------------------------------------------------------------------

    def unlocked(self, keys: Mapping[str, bytes | None]) -> Types:
        """Return the same registry with the keys of some subjects; None stands for one that was destroyed."""
        made = copy.copy(self)
        made._keys = keys  # noqa: SLF001 (of another of this class)
        return made

    def parse(self, text: str) -> Any:
        """Read JSON text."""
        return loads(text)

    def open(self, row: Row) -> dict[str, Any]:
        """Return the data of a row as a fresh dict, as it was written; what there is no key for is marked.

        Raises:
            DamagedLogError: What was sealed, or its key, was changed.
        """
        fields: dict[str, Any] = loads(row[DATA])
        if BOX not in fields or row[SUBJECT] is None:
            return fields
        box = fields.pop(BOX)
        if row[SUBJECT] in self._keys:
            key = self._keys[row[SUBJECT]]
            if key == sealing.DAMAGED:
                raise sealing.damaged_key(row[SUBJECT], row[POSITION])
            if key is not None:
                try:
                    fields.update(_unsealed(key, box, row))
                except DamagedLogError:
                    # In a fork without keys, its own key of a subject is younger than what was copied.
                    if getattr(key, "created_at", 0) <= row[RECORDED_AT]:
                        raise
                    mark = SEALED
                else:
                    return fields
            else:
                mark = ERASED
        else:
            mark = SEALED
        fields.update(dict.fromkeys(box["fields"], mark))
        return fields

    def personal_of(self, row: Row) -> tuple[str, ...]:
        """Return the names of the personal fields of a row: those of its type, and those that are sealed in it.

        An old version may have had others than its type has now.
        """
        kind = self._by_name.get(row[TYPE])
        declared = () if kind is None else kind.personal
        if row[SUBJECT] is None or BOX not in row[DATA]:
            return declared
        box = loads(row[DATA]).get(BOX)
        sealed = box.get("fields") if isinstance(box, dict) else None
        return tuple(dict.fromkeys([*declared, *(sealed or ())]))

    def decode(self, row: Row) -> Any:
        """Return the data of a row as an object, of the newest version of its type; as a dict when that has no class.

        A field that is erased or sealed holds a mark; if the class does not take that, None; else the data is a dict,
        and so it is when a function that brings up an old version does not take a mark.

        Raises:
            EventError: The data cannot be brought up, or does not fit the class.
        """
        fields = self.open(row)
        kind = self._by_name.get(row[TYPE])
        if kind is None:
            return fields
        marked = _marked(row, fields)
        try:
            fields = _brought_up(kind, row, fields)
        except _UpcasterError as error:
            if marked:
                return self.open(row)  # the function may have changed the other one
            where = f"event {row[POSITION]} ({row[TYPE]})"
            expected = f"fit for the function that brings up version {error.version} ({error})"
            raise EventError(where, "data", expected, self.open(row)) from error.__cause__
        if kind.codec is None:
            return fields
        try:
            return kind.codec.decode(fields)
        except Exception as error:
            marked = _marked(row, fields)
            if marked:
                try:
                    return kind.codec.decode({**fields, **dict.fromkeys(marked)})
                except Exception:  # noqa: BLE001 (whatever a class does with what it is given)
                    return fields
            where = f"event {row[POSITION]} ({row[TYPE]})"
            expected = f"fit for {getattr(kind.cls, '__name__', kind.name)} ({type(error).__name__}: {error})"
            raise EventError(where, "data", expected, fields) from error


class _UpcasterError(Exception):
    """The function that brings up a version has raised."""

    def __init__(self, version: int, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.version = version


def _brought_up(kind: Kind, row: Row, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the data of a row as a dict of the newest version of its type."""
    where = f"event {row[POSITION]} ({row[TYPE]})"
    for version in range(row[SCHEMA], kind.version):
        upcaster = kind.upcasters.get(version)
        if upcaster is None:
            raise EventError(where, "its version", f"one that can be brought to {kind.version}", version)
        try:
            fields = upcaster(fields)
        except Exception as error:
            raise _UpcasterError(version, error) from error
        if not isinstance(fields, dict):
            raise EventError(where, "data", f"a dict after the function that brings up version {version}", fields)
    return fields


def _marked(row: Row, fields: dict[str, Any]) -> list[str]:
    """Return the names of the fields that could not be opened."""
    if row[SUBJECT] is None:
        return []
    return [name for name, value in fields.items() if isinstance(value, str) and value in (ERASED, SEALED)]


def _unsealed(key: bytes, box: Any, row: Row) -> dict[str, Any]:
    try:
        return sealing.unseal(key, box["box"], row[EVENT_ID])
    except (ValueError, TypeError, KeyError) as error:
        why = f"its sealed fields cannot be opened: {error}"
        raise DamagedLogError(f"event {row[EVENT_ID].hex()}", why, row[POSITION]) from error


def _check_version(where: str, version: Any) -> None:
    if type(version) is not int or not 1 <= version <= _NEWEST:
        raise OptionError(where, "version", "an integer from 1 to 2**31 - 1", version)


def _texts(where: str, names: Any) -> tuple[str, ...]:
    """Refuse what are no names of fields; a text would be taken for its letters."""
    found = None if isinstance(names, str) or not isinstance(names, Iterable) else tuple(names)
    if found is None or not all(isinstance(each, str) and each for each in found):
        raise OptionError(where, "personal", "a list of names of fields", names)
    return found


def _encoded(where: str, option: str, codec: Codec | None, fields: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that fields of a class may have in JSON text, that of its encoding first."""
    if codec is None or not fields:
        return fields
    try:
        names = codec.names()
    except ValueError as error:
        raise OptionError(where, option, f"left out: {error}", list(fields)) from error
    known = {alias: aliases for aliases in names.values() for alias in aliases} | names
    for each in fields:
        if each not in known:
            raise OptionError(where, option, f"of its fields ({', '.join(names) or 'it has none'})", each)
    return tuple(dict.fromkeys(alias for each in fields for alias in known[each]))
