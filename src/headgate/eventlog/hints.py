"""From what JSON gave to what an annotation says: a reader for each type, made once.

What is written has to come back as it was. JSON has seven forms (text, integers, other numbers, booleans, null, lists,
objects), and a reader knows which of them its type has: two members of a union that have one form, as ``str | date``,
cannot be told apart. Such a type is refused before anything is written with it.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import dataclasses
import enum
import functools
import inspect
import json
import sys
import types
import typing
import uuid
from collections import abc
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

_FORMS: Final[dict[type[Any], str]] = {
    str: "text",
    int: "integers",
    float: "numbers",
    bool: "booleans",
    type(None): "null",
    list: "lists",
    dict: "objects",
}
_WRAPPERS: Final = (typing.Annotated, typing.Final, typing.Required, typing.NotRequired)
_LISTS: Final = (list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable, abc.Reversible)
_SETS: Final = (set, abc.Set, abc.MutableSet)
_OBJECTS: Final = (dict, abc.Mapping, abc.MutableMapping)

Make = Callable[[Any], Any]


class UnreadableError(Exception):
    """What is written of a type does not come back as it was.

    Attributes:
        path: The field, and the fields within it.
        why: Why not.
        hint: Its type.
    """

    def __init__(self, why: str, hint: Any, path: str = "") -> None:
        """Keep them."""
        super().__init__(path, why)
        self.why = why
        self.hint = hint
        self.path = path

    def within(self, name: str) -> UnreadableError:
        """Return the same of a field that has it."""
        return UnreadableError(self.why, self.hint, f"{name}.{self.path}" if self.path else name)


class Reader(NamedTuple):
    """How values of one type are read.

    Attributes:
        forms: Which forms they have in JSON.
        make: A function that makes one of what JSON gave; None: that is right as it is.
        also: Forms that are taken where no other member of a union has them.
    """

    forms: frozenset[str]
    make: Make | None = None
    also: frozenset[str] = frozenset()


_ANYTHING: Final = Reader(frozenset(_FORMS.values()))


class Builder:
    """Makes instances of a dataclass of what JSON gave."""

    def __init__(self, cls: type[Any]) -> None:
        """Begin without fields: those of a tree of nodes have the class itself in them."""
        self._cls = cls
        self._makers: dict[str, Make | None] = {}
        self._late: dict[str, Make | None] = {}  # of fields that __init__ does not take

    def look(self, readers: Readers) -> None:
        """Look at the fields.

        Raises:
            UnreadableError: A field does not come back as it was.
        """
        fields = dataclasses.fields(self._cls)
        _check_call(self._cls, [each.name for each in fields if each.init])
        hints = typing.get_type_hints(self._cls)
        for each in fields:
            try:
                make = readers.reader(hints[each.name]).make
            except UnreadableError as error:
                raise error.within(each.name) from None
            (self._makers if each.init else self._late)[each.name] = make

    def build(self, fields: Any) -> Any:
        """Make an instance; fields that the class does not have (any more) are left out."""
        if not isinstance(fields, dict):
            if isinstance(fields, self._cls):  # an upcaster may have made it already
                return fields
            raise TypeError(f"expected an object with the fields of {self._cls.__name__}")
        makers = self._makers
        given = {}
        for name, value in fields.items():
            if name in makers:
                make = makers[name]
                given[name] = value if make is None else make(value)
        made = self._cls(**given)
        for name, make in self._late.items():
            if name in fields:
                value = fields[name]
                object.__setattr__(made, name, value if make is None else make(value))
        return made


def _check_call(cls: type[Any], fields: list[str]) -> None:
    """Refuse a class that cannot be made of its fields."""
    parameters = inspect.signature(cls).parameters.values()
    rest = any(each.kind is each.VAR_KEYWORD for each in parameters)
    named = [each.name for each in parameters if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]
    for name in named:
        if name not in fields:
            raise UnreadableError("a field, as what it is made of is not kept (an InitVar, an own __init__)", cls, name)
    for name in fields:
        if name not in named and not rest:
            raise UnreadableError("taken by __init__", cls, name)


class Readers:
    """Makes readers, those of dataclasses once.

    Args:
        written: A function that returns what JSON gives back of a value.
    """

    def __init__(self, written: Make) -> None:
        """Know no dataclass yet."""
        self._written = written
        self._builders: dict[type[Any], Builder] = {}
        self._aliases: list[Any] = []  # that are being looked at

    def builder(self, cls: type[Any]) -> Builder:
        """Return what makes instances of a dataclass.

        Raises:
            UnreadableError: A field of it, or of those within, does not come back as it was.
            NameError: A type is not defined yet.
        """
        found = self._builders.get(cls)
        if found is None:
            found = self._builders[cls] = Builder(cls)
            found.look(self)
        return found

    def reader(self, hint: Any) -> Reader:
        """Return how values of a type are read.

        Args:
            hint: A type as it stands in an annotation.

        Raises:
            UnreadableError: They do not come back as they were.
        """
        if isinstance(hint, typing.NewType):
            return self.reader(hint.__supertype__)
        if type(hint).__name__ == "TypeAliasType":  # of Python 3.12
            return self._alias(hint)
        if isinstance(hint, typing.TypeVar):
            return _ANYTHING if hint.__bound__ is None else self.reader(hint.__bound__)
        if hint is Any or hint is object:
            return _ANYTHING
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin in _WRAPPERS:
            return self.reader(arguments[0])
        if origin is typing.Literal:
            return self._constants(arguments, lambda value: value)
        if origin in (typing.Union, types.UnionType):
            return self._union(hint, arguments)
        kind = origin or (type(None) if hint is None else hint)
        found = None
        if isinstance(kind, type):
            found = _scalar(kind) or self._object(kind, hint, arguments) or self._several(kind, arguments)
        if found is None:
            raise UnreadableError("of a type that JSON can hold, and that can be made of it again", hint)
        return found

    def _alias(self, hint: Any) -> Reader:
        if hint in self._aliases:
            raise UnreadableError("of a type that is not defined by itself", hint)
        self._aliases.append(hint)
        found = self.reader(hint.__value__)
        self._aliases.pop()
        return found

    def _union(self, hint: Any, arguments: tuple[Any, ...]) -> Reader:
        # A datetime is a date, and read as one where both are allowed.
        readers = [self.reader(each) for each in arguments if each is not datetime or date not in arguments]
        makers: dict[str, Make] = {}
        for form in _FORMS.values():
            takers = [each for each in readers if form in each.forms] or [each for each in readers if form in each.also]
            makes = [each.make for each in takers if each.make is not None]
            if makes and len(takers) > 1:
                raise UnreadableError(
                    f"of types that can be told apart in JSON, where several of them are {form}", hint
                )
            if makes:
                makers[form] = makes[0]
        forms = frozenset().union(*(each.forms for each in readers))
        also = frozenset().union(*(each.also for each in readers)) - forms
        return Reader(forms, _by_form(makers) if makers else None, also)

    def _constants(self, values: Iterable[Any], otherwise: Make) -> Reader:
        """Return how some values, and no others, are read."""
        table: dict[Any, Any] = {}
        forms = set()
        for value in values:
            written = self._written(value)
            forms.add(_FORMS[type(written)])
            if _key(written) in table:
                raise UnreadableError("of values that can be told apart in JSON", value)
            table[_key(written)] = value

        def make(value: Any) -> Any:
            key = _key(value)
            return table[key] if key in table else otherwise(value)

        plain = all(type(value) is type(self._written(value)) for value in table.values())
        return Reader(frozenset(forms), None if plain else make)

    def _object(self, kind: type[Any], hint: Any, arguments: tuple[Any, ...]) -> Reader | None:
        """Return how classes with fields are read, and enumerations."""
        objects = frozenset(("objects",))
        if issubclass(kind, enum.Enum):
            found = self._constants(kind, kind)  # it takes its own members, and what a Flag is put together of
            return found._replace(forms=found.forms or frozenset(("integers",)))
        if typing.is_typeddict(kind):
            return Reader(objects, self._typed_dict(typing.get_type_hints(kind)))
        msgspec = sys.modules.get("msgspec")
        if msgspec is not None and issubclass(kind, msgspec.Struct):
            forms = frozenset(("lists",)) if kind.__struct_config__.array_like else objects
            return Reader(forms, functools.partial(msgspec.convert, type=hint, strict=False))
        if hasattr(kind, "model_validate_json"):
            forms = _ANYTHING.forms if getattr(kind, "__pydantic_root_model__", False) else objects
            return Reader(forms, _unless_made(kind, lambda value: kind.model_validate_json(json.dumps(value))))
        if dataclasses.is_dataclass(kind):
            if any(self.reader(each).make for each in arguments):
                raise UnreadableError("without types in brackets that are not JSON's own", hint)
            return Reader(objects, self.builder(kind).build)
        return None

    def _typed_dict(self, hints: dict[str, Any]) -> Make | None:
        makers = {name: make for name, hint in hints.items() if (make := self.reader(hint).make) is not None}
        if not makers:
            return None
        return lambda found: {name: makers[name](each) if name in makers else each for name, each in found.items()}

    def _several(self, kind: type[Any], arguments: tuple[Any, ...]) -> Reader | None:
        """Return how lists, tuples, sets and dicts are read; abstract ones as the plainest."""
        lists = frozenset(("lists",))
        if issubclass(kind, tuple):
            return Reader(lists, self._tuple(kind, arguments))
        if issubclass(kind, dict) or kind in _OBJECTS:
            return Reader(frozenset(("objects",)), self._mapping(kind, arguments))
        make = self.reader(arguments[0]).make if arguments else None
        if issubclass(kind, list) or kind in _LISTS:
            return Reader(lists, None if make is None else _gathered(list, make))
        if issubclass(kind, (set, frozenset)) or kind in _SETS:
            gather: type[Any] = frozenset if issubclass(kind, frozenset) else set
            return Reader(lists, gather if make is None else _gathered(gather, make))
        return None

    def _tuple(self, kind: type[Any], arguments: tuple[Any, ...]) -> Make:
        names = getattr(kind, "_fields", None)
        if names is not None:
            hints = typing.get_type_hints(kind)
            makers = [self.reader(hints.get(name, Any)).make for name in names]
            return lambda values: values if isinstance(values, kind) else kind(*_each(makers, values))
        if not arguments:
            return _unless_made(kind, kind)
        if arguments[-1] is Ellipsis:
            make = self.reader(arguments[0]).make
            return lambda values: kind(values if make is None else map(make, values))
        makers = [self.reader(each).make for each in arguments]
        return lambda values: kind(_each(makers, values))

    def _mapping(self, kind: type[Any], arguments: tuple[Any, ...]) -> Make | None:
        if not arguments:
            return None
        key = self._key_maker(arguments[0])
        value = self.reader(int if issubclass(kind, collections.Counter) else arguments[1]).make
        if key is None and value is None:
            return None
        return lambda found: {
            (name if key is None else key(name)): (each if value is None else value(each))
            for name, each in found.items()
        }

    def _key_maker(self, hint: Any) -> Make | None:
        """Return what makes a key of text: in JSON there are no others."""
        while isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        found = self.reader(hint)
        kind = hint if isinstance(hint, type) else object
        if found is _ANYTHING or (found.forms == {"text"} and found.make is None):
            return None
        if issubclass(kind, enum.Enum):
            with contextlib.suppress(TypeError):  # it is no key
                return {next(iter(self._written({each: 0}))): each for each in kind}.__getitem__
        elif issubclass(kind, (int, float)):
            return {"true": True, "false": False}.__getitem__ if kind is bool else kind
        raise UnreadableError("a dict whose keys are text or numbers", hint)


def _scalar(kind: type[Any]) -> Reader | None:
    """Return how a single value is read."""
    if issubclass(kind, enum.Enum):
        return None
    for base in (bool, int, str, type(None)):
        if issubclass(kind, base):
            return Reader(frozenset((_FORMS[base],)))
    if issubclass(kind, float):
        return Reader(frozenset(("numbers",)), _float, frozenset(("integers",)))
    if issubclass(kind, timedelta):
        return Reader(frozenset(("numbers", "text")), _unless_made(kind, _duration), frozenset(("integers",)))
    for base, make in _FROM_TEXT.items():
        if issubclass(kind, base):
            return Reader(frozenset(("text",)), _unless_made(kind, make(kind)))
    return None


_FROM_TEXT: Final[dict[type[Any], Callable[[Any], Make]]] = {
    datetime: lambda kind: kind.fromisoformat,
    date: lambda kind: lambda text: datetime.fromisoformat(text) if "T" in text else kind.fromisoformat(text),
    time: lambda kind: kind.fromisoformat,
    Decimal: lambda kind: kind,
    uuid.UUID: lambda kind: kind,
    bytes: lambda kind: lambda text: kind(base64.b64decode(text)),
    bytearray: lambda kind: lambda text: kind(base64.b64decode(text)),
}


def _float(value: Any) -> Any:
    return float(value) if type(value) is int else value


def _duration(value: Any) -> timedelta:
    """Seconds, or microseconds as text where a float has too few digits."""
    if isinstance(value, str):
        return timedelta(microseconds=int(value.removesuffix("e-6")))
    return timedelta(seconds=value)


def _unless_made(kind: type[Any], make: Make) -> Make:
    """An upcaster may have made it already."""
    return lambda value: value if isinstance(value, kind) else make(value)


def _gathered(gather: Callable[[Iterable[Any]], Any], make: Make) -> Make:
    def made(values: Any) -> Any:
        return gather(map(make, values))

    return made


def _by_form(makers: dict[str, Make]) -> Make:
    def make(value: Any) -> Any:
        found = makers.get(_FORMS.get(type(value), ""))
        return value if found is None else found(value)

    return make


def _key(value: Any) -> Any:
    """Return what tells JSON values apart: 1 is neither true nor 1.0."""
    return json.dumps(value) if isinstance(value, (list, dict)) else (type(value), value)


def _each(makers: list[Make | None], values: Any) -> Iterable[Any]:
    return [value if make is None else make(value) for value, make in zip(values, makers, strict=True)]
