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


def check_log(where: str, log: Any, option: str = "log") -> None:
    """Refuse what is no log."""
    from headgate.eventlog.log import EventLog  # noqa: PLC0415 (it imports this module)

    check_kind(where, option, log, EventLog, "an EventLog")


def check_function(where: str, option: str, value: Any, expected: str) -> None:
    """Refuse what cannot be called."""
    if not callable(value):
        raise OptionError(where, option, expected, value)


def check_text(where: str, option: str, value: Any, more: str = "") -> None:
    """Refuse what is no text that a database can hold, in lines or not."""
    if type(value) is not str or "\0" in value or value.encode(errors="ignore").decode() != value:  # a lone surrogate
        raise OptionError(where, option, f"text that UTF-8 can hold, without NUL{more}", value)


def check_text_or_none(where: str, option: str, value: Any) -> None:
    """Refuse what is neither None nor such text."""
    if value is not None:
        check_text(where, option, value, ", or None")


def check_at(where: str, option: str, value: Any) -> None:
    """Refuse what is no place in a log, nor None."""
    if value is not None and not is_place(value):
        raise OptionError(where, option, "a position, a datetime with a time zone, or None", value)


def check_place(where: str, option: str, value: Any) -> None:
    """Refuse what is no place in a log: None would stand for all of it."""
    if not is_place(value):
        raise OptionError(where, option, "a position or a datetime with a time zone", value)


def is_place(value: Any) -> bool:
    """Whether it is a place in a log: a position, or a time."""
    if isinstance(value, datetime):
        return value.utcoffset() is not None
    return type(value) is int and 0 <= value <= LAST


def stream_names(streams: Any, where: str = "read", option: str = "streams") -> list[str]:
    """Return names of streams, or prefixes that end in ``*``, as a list; an empty one for None."""
    several = _listed(where, option, streams, "the name of a stream")
    return [check_option_name(where, option, each) for each in several]


def listed_types(types: Any, where: str = "read") -> list[Any]:
    """Return classes, or names of types, as a list; an empty one for None."""
    several = _listed(where, "types", types, "a class or a name")
    for each in several:
        if not isinstance(each, type) and not is_name(each):
            raise OptionError(where, "types", "a class, or a name that can be one", each)
    return several


def _listed(where: str, option: str, values: Any, one: str) -> list[Any]:
    """Return what is given as one text or class, or as several, in a list.

    None stands for all. What is empty does not: whoever has filtered a list down to nothing would get everything.
    """
    if values is None:
        return []
    if isinstance(values, (str, type)):
        return [values]
    if not isinstance(values, Iterable):
        raise OptionError(where, option, f"{one}, or several, or None for all", values)
    several = list(values)
    if not several:
        raise OptionError(where, option, "None for all, or at least one", values)
    return several
