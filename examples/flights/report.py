"""What a run found, read back from its database and checked: every row that was read is in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import sqlite3


class LostRowsError(Exception):
    """The totals in the database are not those of the rows that were read. The message names the numbers."""


class Group(NamedTuple):
    """The statistics of one carrier or airport. Delays in minutes; None where no flight departed or arrived.

    Attributes:
        code: Of the carrier or airport.
        name: Its name, or the code again.
        flights: Flights, cancelled and diverted ones among them.
        cancelled: Those that never departed.
        diverted: Those that departed, and are not known to have landed where they should.
        mean_departure_delay: Of those that departed.
        mean_arrival_delay: Of those that arrived.
        share_late: Share, 0 to 1, of those that arrived, that came more than 15 minutes late.
        worst: The longest arrival delay.
    """

    code: str
    name: str
    flights: int
    cancelled: int
    diverted: int
    mean_departure_delay: float | None
    mean_arrival_delay: float | None
    share_late: float | None
    worst: int | None


class RejectReason(NamedTuple):
    """Rejects of one kind.

    Attributes:
        column: The column at fault; empty when it is the row as a whole.
        expected: What should have stood there.
        rows: How many there are.
        example: The first one's reason in full.
        first_line: And its line in the file.
    """

    column: str
    expected: str
    rows: int
    example: str
    first_line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome of one run.

    Attributes:
        source: The file that was read.
        database: Where everything is kept.
        seconds: How long it took.
        rows_read: Rows of the file: `flights` + `rejected`.
        flights: Good rows: `flown` + `cancelled` + `diverted`.
        cancelled: Never departed.
        diverted: Departed, and not known to have landed where they should.
        rejected: Rows that make no sense.
        carriers: One group per carrier, busiest first.
        origins: One group per airport of departure, busiest first.
        destinations: One group per airport of arrival, longest mean delay first.
        reasons: Rejects by kind, most frequent first.
    """

    source: Path
    database: Path
    seconds: float
    rows_read: int
    flights: int
    cancelled: int
    diverted: int
    rejected: int
    carriers: tuple[Group, ...]
    origins: tuple[Group, ...]
    destinations: tuple[Group, ...]
    reasons: tuple[RejectReason, ...]

    @property
    def flown(self) -> int:
        """Flights that landed where they should."""
        return self.flights - self.cancelled - self.diverted


_MEASURES: Final = "name, flights, cancelled, diverted, mean_departure_delay, mean_arrival_delay, share_late, worst"
_CARRIERS: Final = f"SELECT carrier, {_MEASURES} FROM carrier_delays ORDER BY flights DESC, carrier"  # noqa: S608
_ORIGINS: Final = f"""SELECT airport, {_MEASURES} FROM airport_delays
    WHERE role = 'origin' ORDER BY flights DESC, airport"""  # noqa: S608
_DESTINATIONS: Final = f"""SELECT airport, {_MEASURES} FROM airport_delays
    WHERE role = 'destination' ORDER BY mean_arrival_delay DESC, airport"""  # noqa: S608
# Beside min(), SQLite takes the other columns (the example's reason) from the row that has the minimum.
_REASONS: Final = """SELECT "column", expected, count(*), reason, min(line) FROM rejects
    GROUP BY "column", expected ORDER BY count(*) DESC, min(line)"""
_TOTALS: Final = "SELECT rows_read, flights, cancelled, diverted, rejected FROM run_summary"


def read_report(connection: sqlite3.Connection, source: Path, database: Path, seconds: float) -> Report:
    """Read a finished run from its database.

    Args:
        connection: To the database, after `note_finish`.
        source: The file that was read.
        database: The file that was written.
        seconds: How long it took.

    Returns:
        Its totals and statistics.

    Raises:
        LostRowsError: The numbers of rows do not add up.
    """
    query = connection.execute
    rows_read, flights, cancelled, diverted, rejected = query(_TOTALS).fetchone()
    report = Report(
        source=source,
        database=database,
        seconds=seconds,
        rows_read=rows_read,
        flights=flights,
        cancelled=cancelled,
        diverted=diverted,
        rejected=rejected,
        carriers=_groups(query(_CARRIERS)),
        origins=_groups(query(_ORIGINS)),
        destinations=_groups(query(_DESTINATIONS)),
        reasons=tuple(RejectReason(*row) for row in query(_REASONS)),
    )
    _check(report)
    return report


def _groups(rows: sqlite3.Cursor) -> tuple[Group, ...]:
    return tuple(Group(*row) for row in rows)


def _check(report: Report) -> None:
    """Every row is a flight or a reject; every flight has one carrier, one origin and one destination."""
    kept = report.flights + report.rejected
    by_origin = sum(group.flights for group in report.origins)
    by_destination = sum(group.flights for group in report.destinations)
    if report.rows_read != kept or not report.flights == by_origin == by_destination:
        message = (
            f"{report.database}: the numbers do not add up: {report.rows_read} rows read, {report.rejected} "
            f"rejects, flights {report.flights} by carrier, {by_origin} by origin, {by_destination} by "
            "destination; did another program write to these tables?"
        )
        raise LostRowsError(message)
