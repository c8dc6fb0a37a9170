"""Which partition a key is of: the same in every process, and fast on batches. Pure.

Python's own hash of text and bytes differs from process to process, so it cannot route. Keys that are equal have the
same hash here, whatever their types (1, 1.0, True and Fraction(1) are one key, as in a dictionary).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any, Final
from uuid import UUID

from headgate.errors import OptionError

_NONE: Final = 0x9E3779B9
_REMEMBERED: Final = 100_000
"""Keys whose partition is remembered before all of them are forgotten."""


def stable_hash(value: Any) -> int:
    """Return a hash of a key that is equal in every process of the same Python build.

    Numbers: their own. Text and bytes: CRC-32. Tuples, frozensets, named tuples, datetimes, enums, UUIDs: from their
    parts. Anything else has to have a ``__stable_hash__`` method.

    Raises:
        OptionError: It has none, so that no two processes would agree on its partition.
    """
    kind = type(value)
    special = _BY_TYPE.get(kind)
    if special is not None:
        return special(value)
    if hasattr(value, "__stable_hash__"):
        return int(value.__stable_hash__())
    for base, function in _BY_TYPE.items():
        if isinstance(value, base):
            return function(value)
    if hasattr(value, "item"):  # a scalar of numpy
        return stable_hash(value.item())
    expected = "a key of numbers, text, bytes, None, dates, enums, UUIDs, tuples of them, or with __stable_hash__"
    raise OptionError("partition", "key", expected, value)


def _number(value: Any) -> int:
    return hash(value) if value == value else _NONE  # noqa: PLR0124 (nan is the one that differs from itself)


def _text(value: str) -> int:
    return zlib.crc32(value.encode("utf-8", "surrogatepass"))


def _tuple(value: tuple[Any, ...]) -> int:
    return hash(tuple(map(stable_hash, value)))


def _datetime(value: datetime) -> int:
    if value.utcoffset() is not None:  # equal moments are equal keys, whatever their zone
        value = value.astimezone(UTC)
    return _text(value.replace(tzinfo=None, fold=0).isoformat())


_BY_TYPE: Final[dict[type, Callable[[Any], int]]] = {
    str: _text,
    int: hash,
    tuple: _tuple,
    bytes: zlib.crc32,
    float: _number,
    bool: hash,
    type(None): lambda _: _NONE,
    frozenset: lambda value: hash(frozenset(map(stable_hash, value))),
    datetime: _datetime,
    date: lambda value: value.toordinal(),
    time: lambda value: _text(repr(value.replace(fold=0))),
    timedelta: lambda value: _number(value.total_seconds()),
    Decimal: _number,
    Fraction: hash,
    complex: _number,
    Enum: lambda value: _text(f"{type(value).__qualname__}.{value.name}"),
    UUID: lambda value: hash(value.int),
}


class Partitioner(dict[Hashable, int]):
    """Key -> partition; remembers what it has computed, as keys come again.

    Args:
        count: How many partitions there are.
    """

    def __init__(self, count: int) -> None:
        """Start with nothing remembered."""
        super().__init__()
        self.count = count

    def __missing__(self, key: Hashable) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        partition = self[key] = stable_hash(key) % self.count
        return partition

    def of(self, keys: Sequence[Any]) -> list[int]:
        """Return the partition of each key."""
        return list(map(self.__getitem__, keys))

    def split(self, events: Sequence[Any], keys: Sequence[Any]) -> list[list[Any]]:
        """Put events into one list for each partition, in order."""
        lanes: list[list[Any]] = [[] for _ in range(self.count)]
        puts = [lane.append for lane in lanes]
        for partition, event in zip(map(self.__getitem__, keys), events, strict=True):
            puts[partition](event)
        return lanes
