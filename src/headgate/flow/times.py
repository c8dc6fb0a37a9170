"""Event times: what they may be, and how they are counted. Pure.

An event time is a number (int or float, in seconds or in whatever unit the sizes of windows are given in) or a
datetime, aware or naive. Which of the three, the first event says; they are never mixed. Inside, times are numbers:
numbers are left as they are, datetimes are whole microseconds since 1970-01-01 (of UTC, or of no zone if naive), so
that windows of any size fall exactly where they should, on either side of the epoch.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, Final

from headgate.errors import HeadgateError, OptionError, short

Time = int | float | datetime
Duration = int | float | timedelta
Field = Callable[[Any], Any] | str | int
"""A function of the event, the name of one of its fields, or the index of one of its items."""

NEVER: Final = math.inf
BEGINNING: Final = -math.inf

_MICROSECOND: Final = timedelta(microseconds=1)
_AWARE: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE: Final = datetime(1970, 1, 1)  # noqa: DTZ001 (naive times have no zone)
_EXPECTED: Final = "a finite int or float, or a datetime, of the same kind (number, aware, naive) for all events"


class ExtractionError(HeadgateError):
    """What is to be read off an event (its time, its key) cannot be. ``__cause__`` is what the function raised.

    Nothing of the batch has been taken when this is raised: it can be given again without the event.

    Attributes:
        where: Who wanted it.
        option: The function: ``"by"``, ``"key"``, ...
        expected: What it has to give.
        event: The event.
        index: Its place in the batch.
        got: What the function gave; the exception, if it raised.
    """

    def __init__(self, where: str, option: str, expected: str, event: Any, index: int, got: Any) -> None:
        """Name the function, the event and its place, and what came."""
        super().__init__(where, option, expected, event, index, got)
        self.where = where
        self.option = option
        self.expected = expected
        self.event = event
        self.index = index
        self.got = got
        if isinstance(got, BaseException):
            self.__cause__ = got

    def __str__(self) -> str:
        """Say it in one line."""
        if isinstance(self.got, BaseException):
            came = f"it raised {type(self.got).__name__}: {' '.join(str(self.got).split())}"
        else:
            came = f"got {type(self.got).__name__}: {short(self.got)}"
        return f"{self.where}: expected {self.option!r} to give {self.expected}, for {short(self.event)} {came}"


class _Named:
    """Reads a field by its name: an item of a mapping, an attribute of everything else."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, event: Any) -> Any:
        if isinstance(event, Mapping):
            return event[self.name]
        return getattr(event, self.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Named, (self.name,))


def reader(field: Field, where: str, option: str) -> Callable[[Any], Any]:
    """Return the function that reads a field off an event.

    Args:
        field: A function; or the name of an item or attribute; or the index of an item.
        where: What errors call its owner.
        option: What errors call it.

    Raises:
        OptionError: It is none of these.
    """
    if callable(field):
        return field
    if isinstance(field, str):
        return _Named(field)
    if isinstance(field, int) and not isinstance(field, bool):
        return itemgetter(field)
    raise OptionError(where, option, "a function, the name of a field, or an index", field)


def extract(read: Callable[[Any], Any], events: Iterable[Any], where: str, option: str, expected: str) -> list[Any]:
    """Read something off every event of a batch.

    Raises:
        ExtractionError: The function raised, at this event.
    """
    values: list[Any] = []
    try:
        values.extend(map(read, events))  # keeps what came before the one that raises
    except Exception as error:
        index = len(values)
        event = next(event for place, event in enumerate(events) if place == index)
        raise ExtractionError(where, option, expected, event, index, error) from error
    return values


def keys_of(read: Callable[[Any], Any], events: Iterable[Any], where: str, option: str = "key") -> list[Hashable]:
    """Read the key off every event of a batch; all of them can be hashed.

    Raises:
        ExtractionError: The function raised, or gave what cannot be hashed.
    """
    keys = extract(read, events, where, option, "a hashable key")
    try:
        deque(map(hash, keys), 0)
    except TypeError:
        for index, (key, event) in enumerate(zip(keys, events, strict=True)):
            try:
                hash(key)
            except TypeError:
                raise ExtractionError(where, option, "a hashable key", event, index, key) from None
        raise
    return keys


def seconds(value: Any, where: str, option: str, *, zero: bool = False) -> Duration:
    """Check a duration.

    Raises:
        OptionError: It is no number and no timedelta, not finite, negative, or zero unless that is allowed.
    """
    expected = f"a {'' if zero else 'positive '}number of seconds or a timedelta{', 0 or more' if zero else ''}"
    if isinstance(value, timedelta):
        good = value > timedelta(0) or (zero and not value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        good = math.isfinite(value) and (value > 0 or (zero and not value))
    else:
        good = False
    if not good:
        raise OptionError(where, option, expected, value)
    return value  # type: ignore[no-any-return]


def in_seconds(value: Duration) -> int | float:
    """Return a duration in seconds, as a whole number where it is one."""
    if not isinstance(value, timedelta):
        return value
    whole, rest = divmod(value, timedelta(seconds=1))
    return whole if not rest else value.total_seconds()


class Timeline:
    """The times of one stream: fixes their kind, turns them into numbers and back.

    Args:
        where: What errors call its owner.

    Attributes:
        kind: ``"number"``, ``"aware"``, ``"naive"``; ``""`` as long as no time has been seen.
    """

    __slots__ = ("_epoch", "kind", "where")

    def __init__(self, where: str) -> None:
        """Begin without a kind."""
        self.where = where
        self.kind = ""
        self._epoch = _NAIVE

    def read(self, by: Callable[[Any], Any], events: Any, option: str = "by") -> list[Any]:
        """Return the times of a batch as numbers.

        Raises:
            ExtractionError: ``by`` raised, or gave what is no time, or not one of the same kind as before.
        """
        times = extract(by, events, self.where, option, _EXPECTED)
        kinds = set(map(type, times))
        if not kinds:
            return times
        if kinds <= {int, float}:
            # A sum is finite if all are; one that is not need not mean anything, so it is looked into.
            if self.kind in ("number", "") and (float not in kinds or math.isfinite(sum(times))):
                self.kind = "number"
                return times
        elif kinds == {datetime} and self.kind != "number":
            if not self.kind:
                self._fix(times[0])
            epoch = self._epoch
            try:
                return [(time - epoch) // _MICROSECOND for time in times]
            except TypeError:  # naive and aware
                pass
        return self._one_by_one(times, events, option)

    def number(self, time: Any) -> int | float:
        """Return one time as a number.

        Raises:
            TypeError: It is no time, or of another kind.
        """
        if isinstance(time, datetime):
            kind = "naive" if time.utcoffset() is None else "aware"
        elif isinstance(time, (int, float)) and not isinstance(time, bool) and math.isfinite(time):
            kind = "number"
        else:
            raise TypeError(time)
        if not self.kind:
            self._fix(time)
        if kind != self.kind:
            raise TypeError(time)
        if isinstance(time, datetime):
            return (time - self._epoch) // _MICROSECOND
        number: int | float = time
        return number

    def agree(self, kind: str) -> None:
        """Have times of this kind, as somebody else has seen some.

        Raises:
            TypeError: They are of another kind.
        """
        if self.kind not in ("", kind):
            raise TypeError(f"expected times that are all {self.kind!r}, got some that are {kind!r}")
        self.kind = kind
        self._epoch = _AWARE if kind == "aware" else _NAIVE

    def length(self, duration: Duration) -> int | float:
        """Return a duration in the unit of the numbers. The kind must be known."""
        if self.kind == "number":
            number = in_seconds(duration)
            return int(number) if number == int(number) else number  # whole numbers are exact for longer
        if isinstance(duration, timedelta):
            return duration // _MICROSECOND
        return round(duration * 1_000_000)

    def time(self, number: float) -> Any:
        """Return a number as a time: a datetime where times are datetimes, in UTC if aware."""
        if self.kind == "number" or not math.isfinite(number):
            return number
        return self._epoch + timedelta(microseconds=number)

    def _fix(self, time: Any) -> None:
        if isinstance(time, datetime):
            self.kind, self._epoch = ("naive", _NAIVE) if time.utcoffset() is None else ("aware", _AWARE)
        else:
            self.kind = "number"

    def _one_by_one(self, times: list[Any], events: Any, option: str) -> list[Any]:
        """Read what is not as usual (subclasses, infinities, a mixture), and name the event that is wrong."""
        kind, epoch = self.kind, self._epoch
        numbers: list[Any] = []
        for index, (time, event) in enumerate(zip(times, events, strict=True)):
            try:
                numbers.append(self.number(time))
            except (TypeError, OverflowError):
                self.kind, self._epoch = kind, epoch
                raise ExtractionError(self.where, option, _EXPECTED, event, index, time) from None
        return numbers
