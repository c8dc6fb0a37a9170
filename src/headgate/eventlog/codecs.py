"""Between objects and JSON text: dicts, dataclasses, msgspec structs and pydantic models.

Text is compact, and keeps what is not ASCII as it is. What JSON does not know is written as text: times in ISO 8601,
``Decimal`` and ``UUID`` as they print, bytes in base64, an ``Enum`` by its value; sets and tuples as lists. A dataclass
gets the types of its fields back when it is read (`hints`).
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import enum
import json
import sys
import types
import typing
import uuid
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from json import encoder as json_encoder
from typing import Any, Final, NoReturn, Protocol

from headgate.errors import OptionError
from headgate.eventlog.hints import Builder, Readers, UnreadableError


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
        seconds = value.total_seconds()  # of a long one, microseconds are lost
        return seconds if timedelta(seconds=seconds) == value else f"{value // timedelta(microseconds=1)}e-6"
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
    if hasattr(value, "model_dump_json"):
        return loads(_model_text(value))
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
    """For dataclasses: each field by its type.

    Raises:
        OptionError: A field would not come back as it was.
    """

    array_like = omits = False

    def __init__(self, cls: type[Any]) -> None:
        """Look at the fields once."""
        self._cls = cls
        self._names = [each.name for each in dataclasses.fields(cls)]
        self._set = set(self._names)
        self._quick: Callable[[Any], bytes] | None = None
        self._looked = False
        self._builder: Builder | None = None
        with contextlib.suppress(NameError):  # types may be defined later in a module: then before the first use
            self._look()

    def encode(self, value: Any) -> str:
        """Return JSON text of an object."""
        if not self._looked:
            self._made()  # nothing is written that cannot be read
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
        return self._made().build(fields)

    def names(self) -> dict[str, tuple[str, ...]]:
        """Return the fields: each is encoded by its own name."""
        return {name: (name,) for name in self._names}

    def _made(self) -> Builder:
        if self._builder is not None:
            return self._builder
        try:
            return self._look()
        except NameError as error:
            raise self._unknown(error) from error

    def _unknown(self, error: Exception) -> OptionError:
        expected = f"such that their types can be looked up ({error})"
        return OptionError(f"dataclass {self._cls.__name__}", "fields", expected, self._names)

    def _look(self) -> Builder:
        try:
            self._builder = Readers(lambda value: loads(dumps(value))).builder(self._cls)
        except UnreadableError as error:
            raise OptionError(f"dataclass {self._cls.__name__}", error.path, error.why, error.hint) from None
        except (TypeError, AttributeError, SyntaxError) as error:
            raise self._unknown(error) from error
        return self._builder


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


def _model_text(model: Any) -> str:
    text: str = model.model_dump_json(by_alias=True)
    if "null" in text or "NaN" in text or "Infinity" in text:  # as the model's ser_json_inf_nan says
        dumped = model.model_dump(by_alias=True)
        try:
            dumps(dumped)  # the quick way to see that there is none
        except (TypeError, ValueError):
            _refuse_lost(dumped, json.loads(text, parse_constant=_refuse))
    return text


def _refuse(constant: Any) -> NoReturn:
    raise ValueError(f"{constant} has no form in JSON")


def _refuse_lost(value: Any, written: Any) -> None:
    """Refuse a value in which NaN or an infinity was written as null."""
    if written is None:
        if isinstance(value, float):
            _refuse(value)
    elif isinstance(written, dict) and isinstance(value, dict):  # in the same order; keys may have become text
        _refuse_lost(list(value.values()), list(written.values()))
    elif isinstance(written, list) and isinstance(value, (list, tuple, set, frozenset)):
        for each, one in zip(value, written, strict=False):
            _refuse_lost(each, one)


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
        text = str(self._encode(value), "utf-8")
        if "null" in text:  # it may have been NaN or an infinity, which msgspec does not refuse
            dumps(self._msgspec.to_builtins(value, str_keys=True, enc_hook=self._msgspec.json.decode))  # of Raw
        return text

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
        return _model_text(value)

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
            aliases = (each.serialization_alias or name, name, each.alias, *_first_names(each.validation_alias))
            found[name] = tuple(dict.fromkeys(alias for alias in aliases if isinstance(alias, str)))
        for name, each in cls.model_computed_fields.items():
            found[name] = (each.alias or name, name)
        return found


def _first_names(alias: Any) -> list[Any]:
    """Return the names at the top of an object that a validation alias stands for."""
    if alias is None or isinstance(alias, str):
        return [alias]
    paths = alias.convert_to_aliases()  # of AliasPath: one, of AliasChoices: several
    return [each[0] if isinstance(each, list) else paths[0] for each in paths]


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
