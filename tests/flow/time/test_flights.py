"""Real data, 336,776 flights, against computations that know nothing of windows."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from itertools import islice
from operator import itemgetter
from typing import Any

import pytest

from headgate.flow import triggers, watermarks, windows
from headgate.flow.combining import Combiner
from headgate.flow.joining import Join
from headgate.flow.windowing import Windowing
from tests.flow.time.flights import flights, table
from tests.flow.time.helpers import COUNT, LIST

pytestmark = pytest.mark.slow

HOUR = timedelta(hours=1)
YEAR = timedelta(days=366)


def batches(rows, size=500):
    rows = iter(rows)
    while batch := list(islice(rows, size)):
        yield batch


def hourly(**options):
    return windows.fixed(HOUR, by=0, **options)


@pytest.fixture(scope="module")
def expected():
    return Counter((moment.replace(minute=0, second=0), origin) for moment, origin, *_ in flights())


def counted(engine, rows, size=500):
    out = []
    for batch in batches(rows, size):
        out += engine.add(batch)
    out += engine.done(0.0)
    return out


def as_counter(out):
    assert all(window.end - window.start == HOUR for window, _, _ in out)
    assert len({(window, key) for window, key, _ in out}) == len(out)  # each said once
    return Counter({(window.start, key): count for window, key, count in out})


@pytest.mark.parametrize("size", [20, 500, 10_000])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"watermark": watermarks.out_of_order(YEAR)},
        {"watermark": watermarks.out_of_order(0), "allowed_lateness": YEAR},
    ],
    ids=["at the end", "bound", "lateness"],
)
def test_in_the_order_of_the_file_every_flight_is_counted(options, size, expected):
    """Elixir's Flow counts 46,511 to 87,000 of them."""
    engine = Windowing(hourly(**options), COUNT, key=1, bounded=True)
    out = counted(engine, flights(), size)
    assert engine.late_count == 0
    assert as_counter(out) == expected
    assert sum(count for _, _, count in out) == 336_776


def test_what_is_late_is_counted_and_is_all_that_is_missing(expected):
    engine = Windowing(hourly(watermark=watermarks.out_of_order(0)), COUNT, key=1, keep_late=True)
    out = as_counter(counted(engine, flights()))
    late = Counter((moment.replace(minute=0, second=0), origin) for moment, origin, *_ in engine.take_late())
    assert late.total() == engine.late_count > 200_000  # months are in the order of their names
    assert out + late == expected


def test_shuffled_within_the_allowed_lateness_nothing_changes(expected):
    shuffle = random.Random(7)
    rows = sorted(flights(), key=lambda row: row[0].timestamp() + shuffle.uniform(0, 6 * 3600))
    for bound in (0, 2, 6):
        spec = hourly(watermark=watermarks.out_of_order(bound * HOUR), allowed_lateness=(6 - bound) * HOUR)
        engine = Windowing(spec, COUNT, key=1)
        out, most = [], 0
        for batch in batches(rows):
            out += engine.add(batch)
            most = max(most, engine.statistics().accumulators)
        out += engine.done(0.0)
        assert engine.late_count == 0
        assert as_counter(out) == expected
        assert most <= 3 * 20  # of 19,486: what is open


def test_four_sources_each_with_a_part_of_the_file(expected):
    """As in parallel: parts interleaved, each in order, one of them far ahead."""
    rows = sorted(flights(), key=itemgetter(0))
    parts = [batches(rows[n::4], 100 + 57 * n) for n in range(4)]
    engine = Windowing(hourly(watermark=watermarks.out_of_order(0)), COUNT, key=1)
    for source in range(4):
        engine.open(source, 0.0)
    out, waiting = [], [3, 3, 3, *range(4)]
    while waiting:
        source = waiting.pop(0)
        batch = next(parts[source], None)
        if batch is None:
            out += engine.end(source, 0.0)
            waiting = [one for one in waiting if one != source]
        else:
            out += engine.add(batch, source)
            waiting.append(source)
    out += engine.done(0.0)
    assert engine.late_count == 0
    assert as_counter(out) == expected


def test_early_results_and_the_last_one(expected):
    spec = hourly(
        watermark=watermarks.out_of_order(0),
        trigger=triggers.on_watermark(early=triggers.every(10, accumulator="reset")),
    )
    engine = Windowing(spec, COUNT, key=1)
    out: Counter[Any] = Counter()
    for window, key, count in counted(engine, sorted(flights(), key=itemgetter(0))):
        out[window.start, key] += count
    # Tens are given and forgotten, and what is left comes with the watermark; "done" has nothing new to say.
    assert out == expected


def test_put_together_by_mappers(expected):
    reducer = Windowing(hourly(), COUNT, key=1, bounded=True)
    out = []
    for source, part in enumerate(batches(flights(), 50_000)):
        combiner = Combiner(hourly(), COUNT, key=1, bounded=True)
        for batch in batches(part):
            combiner.add(batch)
        assert len(combiner) < 5_000
        for segment in combiner.flush():
            out += reducer.merge(segment, source, 0.0)
    out += reducer.done(0.0)
    assert as_counter(out) == expected


def test_a_sliding_day_is_the_sum_of_its_hours(expected):
    out = counted(Windowing(windows.sliding(24 * HOUR, HOUR, by=0), COUNT, key=1, bounded=True), flights())
    days: Counter[Any] = Counter()
    for (start, origin), count in expected.items():
        for hours in range(24):
            days[start - hours * HOUR, origin] += count
    assert Counter({(window.start, origin): count for window, origin, count in out}) == days


def test_sessions_of_planes():
    """Of flights less than two days after the one before: gaps looked for in sorted lists."""
    gap = timedelta(days=2)
    moments = defaultdict(list)
    for moment, _, _, plane in flights():
        moments[plane].append(moment)
    expected: Counter[Any] = Counter()
    for plane, its in moments.items():
        its.sort()
        first, count = its[0], 0
        for before, moment in zip([None, *its], its, strict=False):
            if before is not None and moment - before >= gap:
                expected[plane, first, before + gap, count] += 1
                first, count = moment, 0
            count += 1
        expected[plane, first, its[-1] + gap, count] += 1
    out = counted(Windowing(windows.session(gap, by=0), COUNT, key=3, bounded=True), flights())
    assert Counter((plane, window.start, window.end, count) for window, plane, count in out) == expected


@pytest.mark.parametrize("mode", ["inner", "left", "right", "full"])
@pytest.mark.parametrize("first", ["left", "right", "both"])
def test_flights_and_planes(mode, first):
    planes = [(row["tailnum"], row["manufacturer"]) for row in table("planes.csv")]
    by_number = dict(planes)
    assert len(by_number) == len(planes)
    flown = {plane for *_, plane in flights()}
    expected = Counter(
        (row[3], by_number.get(row[3])) for row in flights() if row[3] in by_number or mode in ("left", "full")
    )
    if mode in ("right", "full"):
        expected += Counter((None, maker) for plane, maker in planes if plane not in flown)
    join = Join(mode, 3, 0, lambda flight, plane: (flight and flight[3], plane and plane[1]))
    sides = {"left": batches(flights()), "right": batches(planes)}
    out: Counter[Any] = Counter()
    order = {"left": ["left", "right"], "right": ["right", "left"], "both": ["left", "right"]}[first]
    while order:
        side = order[0]
        batch = next(sides[side], None)
        if batch is None:
            out.update(join.end_side(side, 0.0))
            order.pop(0)
        else:
            out.update(join.add(side, batch))
            if first == "both":
                order.append(order.pop(0))
    out.update(join.done(0.0))
    assert out == expected
    assert join.statistics().kept == 0


def test_flights_and_the_weather_of_the_hour(expected):
    """Windowed and by key gives what a key of both, without windows, gives: matching is by hour."""
    weather = [(datetime.fromisoformat(row["time_hour"]), row["origin"], row["temp"]) for row in table("weather.csv")]
    by_hour = Counter((moment, origin) for moment, origin, _ in weather)
    pairs = sum(count * by_hour[place] for place, count in expected.items())
    lonely = sum(count for place, count in expected.items() if place not in by_hour)
    calm = sum(count for place, count in by_hour.items() if place not in expected)
    for spec in (
        hourly(watermark=watermarks.out_of_order(0)),
        hourly(watermark=watermarks.at_end()),
        hourly(watermark=watermarks.out_of_order(3 * HOUR), allowed_lateness=HOUR),
    ):
        join = Join("full", 1, window=spec)
        join.open("left", 0, 0.0)
        join.open("right", 0, 0.0)
        out, most = [], 0
        sides = {
            "left": batches(sorted(flights(), key=itemgetter(0))),
            "right": batches(sorted(weather, key=itemgetter(0)), 40),
        }
        while sides:
            for side in list(sides):
                batch = next(sides[side], None)
                if batch is None:
                    del sides[side]
                    out += join.end(side, 0, 0.0)
                else:
                    out += join.add(side, batch, 0)
            most = max(most, join.statistics().kept)
        out += join.done(0.0)
        assert join.late_count == 0
        assert sum(left is not None and right is not None for left, right in out) == pairs
        assert sum(right is None for _, right in out) == lonely
        assert sum(left is None for left, _ in out) == calm
        assert all(left is None or right is None or left[:2] == right[:2] for left, right in out)


def test_order_of_coming_is_kept_within_a_window():
    rows = flights()[:5_000]
    for _, origin, group in counted(Windowing(hourly(), LIST, key=1, bounded=True), rows, 700):
        assert all(row[1] == origin for row in group)
        places = [id(row) for row in group]
        assert places == [id(row) for row in rows if row in group and row[1] == origin and row[0] == group[0][0]]
