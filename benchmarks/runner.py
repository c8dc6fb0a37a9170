"""Measuring: contenders of a row take turns, and every figure is kept beside its median and range."""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.model import Contender, Metric, Row


@dataclass(frozen=True, slots=True)
class Result:
    """All values of one metric of one contender.

    Attributes:
        row: The row's name.
        contender: The contender.
        metric: What was measured.
        values: One a repetition, in order: values at the same place of two contenders were taken one after
            the other.
        x_limit: Median divided by the plain loop's median, if the row has one that is not 0.
        x_best_peer: Median divided by the best peer's median, likewise.
    """

    row: str
    contender: Contender
    metric: Metric
    values: tuple[float, ...]
    x_limit: float | None = None
    x_best_peer: float | None = None

    @property
    def median(self) -> float:
        """The middle value."""
        return median(self.values)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON line."""
        return {
            "row": self.row,
            "contender": self.contender.name,
            "kind": self.contender.kind,
            "metric": self.metric.name,
            "unit": self.metric.unit,
            "better": self.metric.better,
            "values": list(self.values),
            "median": self.median,
            "min": min(self.values),
            "max": max(self.values),
            "x_limit": self.x_limit,
            "x_best_peer": self.x_best_peer,
        }


@dataclass(frozen=True, slots=True)
class Failure:
    """A contender that crashed, hung or computed something wrong: it has no figures and fails the run."""

    row: str
    contender: Contender
    error: str

    def as_json(self) -> dict[str, Any]:
        """Return the JSON line."""
        return {"row": self.row, "contender": self.contender.name, "error": self.error}


def run_row(row: Row, repeat: int, scale: float, log: Callable[[str], None]) -> tuple[list[Result], list[Failure]]:
    """Measure one row.

    Args:
        row: What to measure.
        repeat: Measurements of each contender.
        scale: Factor on the duration of each.
        log: Takes lines about the progress.

    Returns:
        The results, and the contenders that failed; one that fails takes no further turns, the others go on.
    """
    failures: list[Failure] = []
    taken: dict[str, list[dict[str, float]]] = {}

    def attempt(contender: Contender, *, prepare: bool) -> bool:
        # What an earlier contender left behind must not be collected in the time of the next one.
        gc.collect()
        try:
            if prepare:
                contender.measure.prepare(scale)
            else:
                taken.setdefault(contender.name, []).append(dict(contender.measure.take(scale)))
        except Exception as error:  # noqa: BLE001 - reported, and fails the run
            failures.append(Failure(row.name, contender, _describe(error)))
            log(f"{row.name}: {contender.name} FAILED: {failures[-1].error}")
            return False
        return True

    log(f"{row.name}: {row.summary}")
    able = [contender for contender in row.contenders if attempt(contender, prepare=True)]
    for _ in range(repeat):
        able = [contender for contender in able if attempt(contender, prepare=False)]
    results = [
        Result(row.name, contender, metric, tuple(sample[metric.name] for sample in taken[contender.name]))
        for metric in row.metrics
        for contender in able
    ]
    return _with_ratios(row.metrics, results), failures


def _describe(error: BaseException) -> str:
    """Return type and message of an error, of its causes, and of the errors in a group."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, BaseExceptionGroup):
        text += " [" + "; ".join(_describe(inner) for inner in error.exceptions) + "]"
    if error.__cause__ is not None:
        text += f" <- {_describe(error.__cause__)}"
    return text


def _with_ratios(metrics: Sequence[Metric], results: list[Result]) -> list[Result]:
    """Return the results with the ratios to the limit and to the best peer of the same metric."""
    complete: list[Result] = []
    for metric in metrics:
        same = [result for result in results if result.metric is metric]
        limit = next((result.median for result in same if result.contender.kind == "limit"), None)
        peers = [result.median for result in same if result.contender.kind == "peer"]
        best = (max if metric.better == "higher" else min)(peers, default=None)
        complete += [
            Result(
                result.row,
                result.contender,
                metric,
                result.values,
                x_limit=result.median / limit if limit else None,
                x_best_peer=result.median / best if best else None,
            )
            for result in same
        ]
    return complete


def table(results: Sequence[Result], failures: Sequence[Failure]) -> str:
    """Return the results as aligned text, a line a contender and metric, headgate marked by a star.

    The ratios are the contender's median divided by the plain loop's and by the best peer's: above 1 is
    better where the unit is a rate, below 1 where it is a time or a size.
    """
    header = ("row", "", "contender", "metric", "median", "min", "max", "unit", "x limit", "x best peer")
    lines: list[tuple[str, ...]] = [header]
    lines += [
        (
            result.row,
            "*" if result.contender.kind == "headgate" else "",
            result.contender.name,
            f"{result.metric.name} {'^' if result.metric.better == 'higher' else 'v'}",
            _short(result.median),
            _short(min(result.values)),
            _short(max(result.values)),
            result.metric.unit,
            _ratio(result.x_limit),
            _ratio(result.x_best_peer),
        )
        for result in results
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    numbers = {header.index(name) for name in ("median", "min", "max", "x limit", "x best peer")}
    text: list[str] = []
    previous = header[0]
    for line in lines:
        if line[0] != previous:
            text.append("")
        previous = line[0]
        cells = (
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        text.append("  ".join(cells).rstrip())
    text += ["", "^ higher is better, v lower is better; * headgate; x limit: to the plain loop; medians"]
    text += [f"FAILED {failure.row}: {failure.contender.name}: {failure.error}" for failure in failures]
    return "\n".join(text)


def _short(value: float) -> str:
    """Return a number with three or four significant digits and M or k."""
    for unit, factor in (("M", 1e6), ("k", 1e3)):
        if value >= factor * 10 or (unit == "M" and value >= factor):
            return f"{value / factor:.4g} {unit}" if value < factor * 1e4 else f"{value / factor:.0f} {unit}"
    return f"{value:.4g}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 1e3 else f"{value:.0f}"


def progress(line: str) -> None:
    """Write a line about the progress to the standard error, where it does not mix with the JSON."""
    print(line, file=sys.stderr, flush=True)
