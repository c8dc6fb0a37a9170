"""A year of flights: what a flow makes of them equals an independent computation, with any workers at any place."""

import csv
import io
import random
import zipfile
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from typing import Any

import pytest

from examples.flights.source import packaged
from headgate import Flow, Process
from headgate.flow import Side, watermarks, windows

pytestmark = pytest.mark.slow

PLACES = [(1, None), (2, None), (4, None), (2, Process())]
HOUR = timedelta(hours=1)


def moment(row):
    return datetime.fromisoformat(row["time_hour"])


def late_departure(row):
    return float(row["dep_delay"])


def has_departed(row):
    return row["dep_delay"] not in ("", "NA")


@pytest.fixture(scope="module")
def flights():
    path = packaged("flights.csv.zip")
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as raw:  # type: ignore[arg-type]
        return list(csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8")))


def flow_of(name, workers, place):
    return Flow.from_csv(packaged(name)).options(workers=workers, place=place)  # type: ignore[arg-type]


@pytest.mark.parametrize(("workers", "place"), PLACES)
def test_delays_by_carrier(flights, workers, place):
    delays = defaultdict(list)
    for row in flights:
        if has_departed(row):
            delays[row["carrier"]].append(late_departure(row))
    expected = {carrier: sum(values) / len(values) for carrier, values in delays.items()}
    flow = flow_of("flights.csv.zip", workers, place).filter(has_departed)
    assert dict(flow.mean_by("carrier", late_departure).to_list()) == expected


@pytest.mark.parametrize(("workers", "place"), [*PLACES, (2, "thread")])
def test_hours_by_origin_count_every_row(flights, workers, place):
    expected = Counter((moment(row), row["origin"]) for row in flights)
    flow = flow_of("flights.csv.zip", workers, place).window(windows.fixed(HOUR, by=moment)).count_by("origin")
    results = flow.to_list()
    assert {(each.window.start, each.key): each.value for each in results} == expected
    assert len(results) == len(expected)
    assert sum(expected.values()) == 336_776


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_flights_shuffled_within_the_lateness_are_all_counted(flights, workers):
    ordered = sorted(flights, key=moment)
    draw = random.Random(7)
    shuffled = sorted(ordered, key=lambda row: moment(row).timestamp() + draw.uniform(0, 7200))
    late = Side()
    window = windows.fixed(HOUR, by=moment, watermark=watermarks.out_of_order(0), allowed_lateness=timedelta(hours=2))
    # One source, so that its order is the one that its watermark goes by; the windows have several workers.
    flow = Flow.from_iterable(iter(shuffled)).options(workers=1).partition("origin", workers=workers).window(window)
    got: Counter[Any] = Counter()
    for each in flow.count_by("origin", late=late).to_list():
        got[each.window.start, each.key] += each.value
    assert got == Counter((moment(row), row["origin"]) for row in flights)
    assert late.events == []


@pytest.mark.parametrize("place", ["thread", Process()])
def test_a_part_of_them_shuffled_within_the_lateness_at_other_places(flights, place):
    rows = [(moment(row), row["origin"]) for row in flights[::17]]
    draw = random.Random(8)
    shuffled = sorted(rows, key=lambda row: row[0].timestamp() + draw.uniform(0, 7200))
    late = Side()
    window = windows.fixed(HOUR, by=0, watermark=watermarks.out_of_order(0), allowed_lateness=timedelta(hours=2))
    flow = Flow.from_iterable(iter(shuffled)).options(workers=1).partition(1, workers=2, place=place).window(window)
    got = {(each.window.start, each.key): each.value for each in flow.count_by(1, late=late).to_list()}
    assert got == Counter(rows)
    assert late.events == []


@pytest.mark.parametrize(("workers", "place"), PLACES)
def test_flights_with_their_planes(flights, workers, place):
    with packaged("planes.csv").open(encoding="utf-8", newline="") as file:  # type: ignore[union-attr]
        makers = {row["tailnum"]: row["manufacturer"] for row in csv.DictReader(file)}
    expected = Counter(makers.get(row["tailnum"]) for row in flights)
    planes = flow_of("planes.csv", workers, place)
    joined = flow_of("flights.csv.zip", workers, place).join(
        planes, "tailnum", how="left", join=lambda flight, plane: plane and plane["manufacturer"]
    )
    assert dict(joined.count_by().to_list()) == expected


def test_flights_with_the_weather_of_their_hour(flights):
    with packaged("weather.csv").open(encoding="utf-8", newline="") as file:  # type: ignore[union-attr]
        weather = {(row["origin"], row["time_hour"]): row["visib"] for row in csv.DictReader(file)}
    expected = sum((row["origin"], row["time_hour"]) in weather for row in flights)
    key = lambda row: (row["origin"], row["time_hour"])
    joined = flow_of("flights.csv.zip", 2, None).join(flow_of("weather.csv", 2, None), key)
    assert joined.count().to_list() == [expected]
    assert expected > 300_000
