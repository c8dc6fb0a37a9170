"""Between objects and JSON text: dicts, dataclasses, msgspec structs and pydantic models.

Text is compact, and keeps what is not ASCII as it is. What JSON does not know is written as text: times in ISO 8601,
``Decimal`` and ``UUID`` as they print, bytes in base64, an ``Enum`` by its value; sets and tuples as lists. A dataclass
gets the types of its fields back when it is read.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import functools
import json
import sys
import types
import typing
import uuid
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from json import encoder as json_encoder
from typing import Any, Final, Protocol


def plain(value: Any) -> Any:
    """Return what stands in JSON for a value that it does not know.

    Raises:
        TypeError: There is nothing that does.
    """
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, (set, frozenset)):
        return sorted(value) if all(isinstance(each, str) for each in value) else list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    msgspec = sys.modules.get("msgspec")
    if msgspec is not None and isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    dump: Any = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json", by_alias=True)
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


def _make_dumps() -> Callable[[Any], str]:
    options: dict[str, Any] = {"separators": (",", ":"), "ensure_ascii": False, "allow_nan": False, "default": plain}
    slow = json.JSONEncoder(**options).encode
    make: Any = getattr(json_encoder, "c_make_encoder", None)
    if make is None:
        return slow
    # What JSONEncoder.encode does, without making the encoder anew each time: it takes half of the time.
    quick = make(None, plain, json_encoder.encode_basestring, None, ":", ",", False, False, False)  # noqa: FBT003 (it is so made)
    join = "".join

    def dumps(value: Any) -> str:
        return join(quick(value, 0))

    return dumps


dumps: Final = _make_dumps()
"""Write JSON text. NaN and the infinities are refused by a ``ValueError``, as JSON has none."""
loads: Final = json.loads


class Codec(Protocol):
    """Turns instances of one class into JSON text and back.

    Attributes:
        array_like: They are a list in JSON, without names.
        omits: A field that has its default may be missing in JSON.
    """

    array_like: bool
    omits: bool

    def encode(self, value: Any) -> str:
        """Return JSON text of an object."""
        ...

    def decode(self, fields: dict[str, Any]) -> Any:
        """Make an instance of what JSON gave; raise anything when it does not fit."""
        ...

    def names(self) -> dict[str, tuple[str, ...]]:
        """Return each field with the names that it may have in JSON: first the one that it is encoded by.

        Raises:
            ValueError: They cannot be told.
        """
        ...


class DataclassCodec:
    """For dataclasses: each field by its type."""

    array_like = omits = False

    def __init__(self, cls: type[Any]) -> None:
        """Look at the fields once."""
        self._cls = cls
        self._names = [each.name for each in dataclasses.fields(cls)]
        self._set = set(self._names)
        self._quick: Callable[[Any], bytes] | None = None
        self._looked = False
        self._converters: dict[str, Callable[[Any], Any] | None] | None = None

    def encode(self, value: Any) -> str:
        """Return JSON text of an object."""
        if not self._looked:
            self._quick, self._looked = _quick_encoder(self._cls), True
        if self._quick is not None:
            try:
                text = str(self._quick(value), "utf-8")
            except (TypeError, ValueError, OverflowError):
                text = "null"
            if "null" not in text:  # it may have been NaN, which msgspec does not refuse
                return text
        fields: dict[str, Any] | None = getattr(value, "__dict__", None)
        if fields is None or fields.keys() != self._set:  # it has slots, or other attributes than its fields
            fields = {name: getattr(value, name) for name in self._names}
        return dumps(fields)

    def decode(self, fields: dict[str, Any]) -> Any:
        """Make an instance."""
        if self._converters is None:  # not before it is needed: the types may be defined later in a module
            self._converters = _field_converters(self._cls)
        return _build(self._cls, self._converters, fields)

    def names(self) -> dict[str, tuple[str, ...]]:
        """Return the fields: each is encoded by its own name."""
        return {name: (name,) for name in self._names}


_SIMPLE: Final = (str, int, bool, type(None))


def _quick_encoder(cls: type[Any]) -> Callable[[Any], bytes] | None:
    """Return msgspec's encoder, where it is installed and writes the same text: four times as quick."""
    try:
        hints = typing.get_type_hints(cls)
        import msgspec  # noqa: PLC0415 (it need not be there)
    except (ImportError, NameError, TypeError):
        return None
    return msgspec.json.Encoder().encode if all(map(_is_simple, hints.values())) else None


def _is_simple(hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType, list):
        return all(map(_is_simple, arguments))
    if origin is dict:
        return arguments[0] is str and _is_simple(arguments[1])
    return hint in _SIMPLE


def _field_converters(cls: type[Any]) -> dict[str, Callable[[Any], Any] | None]:
    hints = typing.get_type_hints(cls)
    return {each.name: converter(hints[each.name]) for each in dataclasses.fields(cls) if each.init}


def _build(cls: type[Any], converters: Mapping[str, Callable[[Any], Any] | None], fields: dict[str, Any]) -> Any:
    """Make an instance; fields that the class does not have (any more) are left out."""
    made = {}
    for name, value in fields.items():
        if name in converters:
            convert = converters[name]
            made[name] = value if convert is None else convert(value)
    return cls(**made)


_FROM_TEXT: Final[dict[Any, Callable[[Any], Any]]] = {
    datetime: datetime.fromisoformat,
    date: date.fromisoformat,
    time: time.fromisoformat,
    timedelta: lambda value: timedelta(seconds=value),
    Decimal: Decimal,
    uuid.UUID: uuid.UUID,
    bytes: base64.b64decode,
}


def converter(hint: Any) -> Callable[[Any], Any] | None:
    """Return a function that makes a value of this type of what JSON gave; None: it is right as it is.

    Args:
        hint: A type as it stands in an annotation.
    """
    if hint in _FROM_TEXT:
        return _unless_made(hint, _FROM_TEXT[hint])
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return converter(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return _union(arguments)
    if origin in (list, set, frozenset, tuple) or hint in (set, frozenset, tuple):
        return _collection(origin or hint, arguments)
    if origin is dict:
        return _mapping(arguments)
    if isinstance(hint, type):
        if issubclass(hint, enum.Enum):
            return hint
        if dataclasses.is_dataclass(hint):
            return _nested(hint)
        if hint is float:
            return lambda value: float(value) if type(value) is int else value
    return None


def _unless_made(hint: type[Any], make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """An upcaster may have made it already."""
    return lambda value: value if isinstance(value, hint) else make(value)


def _nested(cls: type[Any]) -> Callable[[Any], Any]:
    found: dict[str, Callable[[Any], Any] | None] = {}

    def convert(value: Any) -> Any:
        if not found:
            found.update(_field_converters(cls))
        return _build(cls, found, value) if isinstance(value, dict) else value

    return convert


def _union(arguments: tuple[Any, ...]) -> Callable[[Any], Any] | None:
    converters = [converter(each) for each in arguments if each is not type(None)]
    if not any(converters):
        return None

    def convert(value: Any) -> Any:
        if value is None:
            return None
        for each in converters:
            if each is None:
                continue
            try:
                return each(value)
            except (ValueError, TypeError, ArithmeticError):
                continue
        return value

    return convert


def _collection(kind: type[Any], arguments: tuple[Any, ...]) -> Callable[[Any], Any] | None:
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        each = [converter(one) for one in arguments]
        return functools.partial(_tuple, each)
    convert = converter(arguments[0]) if arguments else None
    if convert is None:
        return None if kind is list else kind
    return functools.partial(_made_of, kind, convert)


def _made_of(kind: type[Any], convert: Callable[[Any], Any], values: Any) -> Any:
    return kind(map(convert, values))


def _tuple(converters: list[Callable[[Any], Any] | None], values: Any) -> tuple[Any, ...]:
    return tuple(item if convert is None else convert(item) for item, convert in zip(values, converters, strict=True))


def _mapping(arguments: tuple[Any, ...]) -> Callable[[Any], Any] | None:
    key = converter(arguments[0]) if arguments[0] is not int else int
    value = converter(arguments[1])
    if key is None and value is None:
        return None
    return lambda found: {
        (name if key is None else key(name)): (item if value is None else value(item)) for name, item in found.items()
    }


class StructCodec:
    """For msgspec structs."""

    def __init__(self, cls: type[Any]) -> None:
        """Keep the class and an encoder."""
        self._msgspec: Any = sys.modules["msgspec"]
        self._cls = cls
        self._encode = self._msgspec.json.Encoder().encode
        config, unset = cls.__struct_config__, self._msgspec.UNSET
        self.array_like: bool = config.array_like
        self.omits: bool = config.omit_defaults or any(each is unset for each in cls.__struct_defaults__)

    def encode(self, value: Any) -> str:
        """Return JSON text of an object."""
        return str(self._encode(value), "utf-8")

    def decode(self, fields: dict[str, Any]) -> Any:
        """Make an instance."""
        return self._msgspec.convert(fields, self._cls, strict=False)

    def names(self) -> dict[str, tuple[str, ...]]:
        """Return the fields with the names that ``rename`` has given them."""
        own, encoded = self._cls.__struct_fields__, self._cls.__struct_encode_fields__
        return {name: (alias, name) for name, alias in zip(own, encoded, strict=True)}


class ModelCodec:
    """For pydantic models."""

    array_like = omits = False

    def __init__(self, cls: type[Any]) -> None:
        """Keep the class."""
        self._cls = cls

    def encode(self, value: Any) -> str:
        """Return JSON text of an object."""
        text: str = value.model_dump_json(by_alias=True)
        return text

    def decode(self, fields: dict[str, Any]) -> Any:
        """Make an instance, by the rules for JSON."""
        return self._cls.model_validate_json(dumps(fields))

    def names(self) -> dict[str, tuple[str, ...]]:
        """Return the fields, computed ones too, with their aliases."""
        cls = self._cls
        if getattr(cls, "__pydantic_root_model__", False):
            return {}
        if cls.__pydantic_decorators__.model_serializers:
            raise ValueError("its model_serializer may name them as it likes")
        if not cls.__pydantic_complete__ and not cls.model_rebuild(raise_errors=False):
            raise ValueError("some of its types are not defined yet, and aliases are not known before they are")
        found = {}
        for name, each in cls.model_fields.items():
            aliases = (each.serialization_alias or name, name, each.alias, each.validation_alias)
            found[name] = tuple(dict.fromkeys(alias for alias in aliases if isinstance(alias, str)))
        for name, each in cls.model_computed_fields.items():
            found[name] = (each.alias or name, name)
        return found


def codec_for(cls: type[Any]) -> Codec | None:
    """Return the codec of a class; None: there is none.

    Args:
        cls: A dataclass, a msgspec struct or a pydantic model.
    """
    msgspec = sys.modules.get("msgspec")
    if msgspec is not None and issubclass(cls, msgspec.Struct):
        return StructCodec(cls)
    if hasattr(cls, "model_validate_json") and hasattr(cls, "model_dump_json"):
        return ModelCodec(cls)
    if dataclasses.is_dataclass(cls):
        return DataclassCodec(cls)
    return None
