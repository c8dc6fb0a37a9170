"""What may be given to a log: checked at its public methods, so that nothing wrong gets as far as a database."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from headgate.errors import OptionError
from headgate.eventlog.events import NAME, is_name

ONE_STREAM: Final = "a name that does not end in '*'"
"""What the name of a single stream is besides, for messages: reads take another for the beginning of names."""
LAST: Final = 2**63 - 1
"""The last position that there can be: databases count in 64 bits."""


def check_option_name(where: str, option: str, value: Any, more: str = "") -> str:
    """Refuse what cannot be the name of anything in a log.

    Args:
        where: What the option belongs to.
        option: Its name.
        value: What came.
        more: What would be accepted besides, for the message.
    """
    if not is_name(value):
        raise OptionError(where, option, NAME + more, value)
    return str(value)


def check_stream(where: str, option: str, value: Any) -> None:
    """Refuse what is not the name of a single stream."""
    check_option_name(where, option, value)
    if value.endswith("*"):
        raise OptionError(where, option, ONE_STREAM, value)


def check_number(where: str, option: str, value: Any, least: int = 0, more: str = "") -> int:
    """Refuse what is no integer from ``least`` to `LAST`."""
    if type(value) is not int or not least <= value <= LAST:
        raise OptionError(where, option, f"an integer from {least} to 2**63 - 1{more}", value)
    return value


def check_kind(where: str, option: str, value: Any, kind: type[Any], expected: str) -> None:
    """Refuse what is not of a class."""
    if not isinstance(value, kind):
        raise OptionError(where, option, expected, value)


def check_text_or_none(where: str, option: str, value: Any) -> None:
    """Refuse what is neither None nor text that a database can hold, in lines or not."""
    if value is None:
        return
    if type(value) is not str or "\0" in value or value.encode(errors="ignore").decode() != value:  # a lone surrogate
        raise OptionError(where, option, "text that UTF-8 can hold, without NUL, or None", value)


def check_at(where: str, option: str, value: Any) -> None:
    """Refuse what is no place in a log, nor None."""
    if value is not None and not is_place(value):
        raise OptionError(where, option, "a position, a datetime with a time zone, or None", value)


def is_place(value: Any) -> bool:
    """Whether it is a place in a log: a position, or a time."""
    if isinstance(value, datetime):
        return value.utcoffset() is not None
    return type(value) is int and 0 <= value <= LAST


def listed(where: str, option: str, values: Any, expected: str) -> list[Any]:
    """Return what is given as one text or class, or as several, in a list."""
    if isinstance(values, (str, type)):
        return [values]
    if not isinstance(values, Iterable):
        raise OptionError(where, option, expected, values)
    return list(values)
