"""The outcome as text that people read: aligned columns, numbers with separators. No I/O."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from .flight import LATE_AFTER

if TYPE_CHECKING:
    from .report import Group, RejectReason, Report

_HEADINGS: Final = ("", "flights", "cancelled", "departure", "arrival", "late", "worst")
_SHOWN: Final = 10  # lines of a table
_GAP: Final = "  "
_SHORTEST_NAME: Final = 12


def summary(report: Report, width: int = 80) -> str:
    """Write down the outcome of a run.

    Args:
        report: The outcome.
        width: Columns of the screen. Names are cut to fit.

    Returns:
        Several lines, without a line end at the end.
    """
    parts = [_totals(report, width)]
    if report.flights:
        parts += _groups(report, width)
        parts.append(
            "departure, arrival: mean delay in minutes, negative when early.\n"
            f"late: arrived more than {LATE_AFTER} minutes late. worst: longest arrival delay."
        )
    parts += [_rejects(report), f"Database: {report.database.resolve()}"]
    return "\n\n".join(parts)


def number(value: float | None, digits: int = 0) -> str:
    """A number with separators; a dash when there is none."""
    return "-" if value is None else f"{value:,.{digits}f}"


def percent(part: float | None) -> str:
    """A share from 0 to 1 as a percentage; a dash when there is none."""
    return "-" if part is None else f"{100 * part:.1f} %"


def columns(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Align rows: the first column left, cut to what the others leave of `width`; the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    others = sum(widths[1:]) + len(_GAP) * len(widths)
    widths[0] = min(widths[0], max(_SHORTEST_NAME, width - others))
    return [_line(row, widths) for row in rows]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first = row[0] if len(row[0]) <= widths[0] else row[0][: widths[0] - 3].rstrip() + "..."
    others = [cell.rjust(size) for cell, size in zip(row[1:], widths[1:], strict=True)]
    return _GAP + _GAP.join([first.ljust(widths[0]), *others])


def _totals(report: Report, width: int) -> str:
    rate = report.rows_read / report.seconds if report.seconds else 0.0
    kinds = {
        "flown": report.flown,
        "cancelled": report.cancelled,
        "diverted": report.diverted,
        "rejected": report.rejected,
    }
    rows = [(name, number(count), percent(count / report.rows_read)) for name, count in kinds.items()]
    pace = f"{number(report.rows_read)} rows in {report.seconds:.1f} s, {number(rate)} rows/s"
    return "\n".join([f"{report.source.name}: {pace}", "", *columns(rows, width)])


def _groups(report: Report, width: int) -> list[str]:
    """Write one table per kind of group, all with the same columns."""
    fewest = max(1, report.flights // 1000)  # the mean of a handful of flights says little
    frequent = [group for group in report.destinations if group.flights >= fewest]
    arrivals = "Arrivals at, longest mean delay first"
    if fewest > 1:
        arrivals += f"; airports with {number(fewest)} flights or more"
    tables = {
        _title("Carriers, busiest first", report.carriers): report.carriers[:_SHOWN],
        "Departures from": report.origins,
        arrivals: frequent[:_SHOWN],
    }
    rows = [row for groups in tables.values() for row in [_HEADINGS, *map(_row, groups)]]
    lines = iter(columns(rows, width))
    return ["\n".join([title, *itertools.islice(lines, 1 + len(groups))]) for title, groups in tables.items()]


def _title(title: str, groups: Sequence[Group]) -> str:
    return f"{title}; {len(groups) - _SHOWN} more in the database" if len(groups) > _SHOWN else title


def _row(group: Group) -> Sequence[str]:
    return (
        group.name if group.name == group.code else f"{group.code} {group.name}",
        number(group.flights),
        number(group.cancelled),
        number(group.mean_departure_delay, 1),
        number(group.mean_arrival_delay, 1),
        percent(group.share_late),
        number(group.worst),
    )


def _rejects(report: Report) -> str:
    if not report.rejected:
        return "Rejected rows: none"
    lines = [f"Rejected rows: {number(report.rejected)}; each with its line and reason in the table rejects"]
    size = len(number(report.reasons[0].rows))
    lines += [_reason(reason, size) for reason in report.reasons[:_SHOWN]]
    rest = report.reasons[_SHOWN:]
    if rest:
        others = number(sum(reason.rows for reason in rest))
        lines.append(f"{_GAP}{others.rjust(size)}{_GAP}for other reasons")
    return "\n".join(lines)


def _reason(reason: RejectReason, size: int) -> str:
    what = f"{reason.column or 'row'}: expected {reason.expected}"
    example = f"such as line {number(reason.first_line)}: {reason.example}"
    return f"{_GAP}{number(reason.rows).rjust(size)}{_GAP}{what}\n{_GAP}{' ' * size}{_GAP}{example}"
