"""From an address and options to a store; what is no option is refused here, for both stores alike."""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import urlsplit

from headgate.errors import OptionError
from headgate.eventlog.store import Store
from headgate.runtime.options import check_choice

_SCHEMA: Final = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,53}")  # longer, there is no channel of that name to listen to
_OTHER: Final = re.compile(r"//|[A-Za-z][A-Za-z0-9+.-]*://")
_LONGEST_WAIT: Final = 1e6  # seconds; PostgreSQL counts milliseconds in 32 bits
_YEAR_10000: Final = 253_402_300_800
_ADDRESS: Final = "a path, ':memory:', sqlite:PATH, or postgresql://USER:PASSWORD@HOST:PORT/DATABASE"


def make_store(url: str, schema: str, *, durability: str, busy_timeout: float, create: bool, clock: Any) -> Store:
    """Return the store of an address, which is not open yet.

    Args:
        url: A path, ``":memory:"``, ``sqlite:PATH``, ``sqlite:///PATH`` or ``postgresql://...``.
        schema: PostgreSQL: where our tables are.
        durability: ``"normal"`` or ``"power"``.
        busy_timeout: Seconds to wait for other writers.
        create: False: the tables have to be there already.
        clock: Unix time in seconds.

    Raises:
        OptionError: One of these is not what it has to be.
    """
    check_choice("EventLog", "durability", durability, ("normal", "power"))
    check_choice("EventLog", "create", create, (True, False))
    if type(busy_timeout) not in (int, float) or not 0 <= busy_timeout <= _LONGEST_WAIT:
        raise OptionError("EventLog", "busy_timeout", "a number of seconds from 0 to 1,000,000", busy_timeout)
    if not isinstance(schema, str) or not _SCHEMA.fullmatch(schema):
        expected = "a plain name in small letters, of at most 54, that does not begin with 'pg_'"
        raise OptionError("EventLog", "schema", expected, schema)
    if not isinstance(url, str):
        raise OptionError("EventLog", "url", _ADDRESS, url)
    options: dict[str, Any] = {
        "durability": durability,
        "busy_timeout": busy_timeout,
        "create": create,
        "clock": clock,
    }
    if url.startswith(("postgresql:", "postgres:")):
        from headgate.eventlog.postgres import PostgresStore  # noqa: PLC0415 (an extra)

        return PostgresStore(_server(url), schema=schema, **options)
    from headgate.eventlog.sqlite import SqliteStore  # noqa: PLC0415 (who uses PostgreSQL needs no sqlite3)

    return SqliteStore(_file(url), **options)


def _server(url: str) -> str:
    try:
        sound = url.isprintable() and urlsplit(url).port != 0  # reading the port raises what is wrong with it
    except ValueError:
        sound = False
    if not sound:
        raise OptionError("EventLog", "url", _ADDRESS, "another (not shown, as it may hold a password)")
    return url


def _file(url: str) -> str:
    path = url
    if url.startswith("sqlite:"):
        path = url.removeprefix("sqlite:").removeprefix("///")  # what has two slashes only is refused below
    try:
        sound = bool(path) and b"\0" not in os.fsencode(path) and not _OTHER.match(path)
    except UnicodeEncodeError:
        sound = False
    if not sound:
        raise OptionError("EventLog", "url", _ADDRESS, url)
    return path


def members(option: str, values: Any, kind: type[Any] | tuple[type[Any], ...], expected: str) -> list[Any]:
    """Return what `EventLog` is given several of, as a list."""
    found = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [None]
    if not all(isinstance(each, kind) for each in found):
        raise OptionError("EventLog", option, f"a list of {expected}", values)
    return found


def checked_clock(clock: Callable[[], float]) -> Callable[[], float]:
    """Return a clock whose times can be recorded.

    Raises:
        OptionError: It is no function.
    """
    if not callable(clock):
        raise OptionError("EventLog", "clock", "a function that returns Unix time in seconds", clock)
    return clock if clock is time.time else functools.partial(_read, clock)


def _read(clock: Callable[[], float]) -> float:
    now = clock()
    if not isinstance(now, (int, float)) or not 0 <= now < _YEAR_10000:  # nan too
        raise OptionError("EventLog", "clock", "a function that returns Unix time in seconds", now)
    return now
