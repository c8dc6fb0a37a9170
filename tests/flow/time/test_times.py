"""What event times may be, and what becomes of them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import OptionError
from headgate.flow.grid import Grid
from headgate.flow.times import ExtractionError, Timeline, extract, in_seconds, keys_of, reader, seconds

# ruff: noqa: DTZ001 (naive times have no zone)


def itself(event):
    return event


@pytest.mark.parametrize(
    ("times", "kind"),
    [
        ([3, -4, 2.5], "number"),
        ([True, 2], "?"),
        ([np.float64(2.5), 1], "number"),
        ([datetime(1970, 1, 1, 0, 0, 1), datetime(1969, 12, 31)], "naive"),
        ([datetime(1970, 1, 1, tzinfo=UTC), datetime(2026, 3, 29, 3, tzinfo=ZoneInfo("Europe/Berlin"))], "aware"),
    ],
)
def test_kinds(times, kind):
    timeline = Timeline("x")
    if kind == "?":
        with pytest.raises(ExtractionError):
            timeline.read(itself, times)
        assert timeline.kind == ""
        return
    numbers = timeline.read(itself, times)
    assert timeline.kind == kind
    assert numbers == [timeline.number(time) for time in times]
    assert [timeline.time(number) for number in numbers] == times


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1, datetime(2026, 1, 1)),
        (datetime(2026, 1, 1), 1.5),
        (datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC)),
        (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1)),
        (1, None),
        (1, "2026-01-01"),
        (1, float("nan")),
        (1.0, float("inf")),
        (1, date(2026, 1, 1)),
        (1, Decimal(1)),
        (1, np.datetime64("2026-01-01")),
        (1, True),
    ],
)
def test_kinds_are_not_mixed_and_other_things_are_no_times(first, second):
    for batches in ([[first, second]], [[first], [second]], [[first], [first, second]]):
        timeline = Timeline("windows.fixed")
        with pytest.raises(ExtractionError) as caught:
            for batch in batches:
                timeline.read(itself, batch)
        assert caught.value.index == len(batches[-1]) - 1
        assert caught.value.event is second
        assert "windows.fixed: expected 'by' to give a finite int or float, or a datetime" in str(caught.value)


def test_times_too_far_for_a_sum_are_times():
    timeline = Timeline("x")
    assert timeline.read(itself, [1.7e308, 1.7e308]) == [1.7e308, 1.7e308]


def test_a_failing_function_says_where():
    def by(event):
        return event["at"]

    with pytest.raises(ExtractionError, match=r"'by'.*for \{\} it raised KeyError: 'at'") as caught:
        Timeline("x").read(by, [{"at": 1}, {}])
    assert isinstance(caught.value.__cause__, KeyError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.index) == (str(caught.value), 1)


def test_keys_can_be_hashed():
    assert keys_of(itself, ["a", None, (1, 2)], "x") == ["a", None, (1, 2)]
    with pytest.raises(ExtractionError, match="a hashable key") as caught:
        keys_of(itself, ["a", {}, []], "x")
    assert caught.value.index == 1

    class Bad:
        def __hash__(self):
            raise TypeError("now it can")

    with pytest.raises(ExtractionError):
        keys_of(itself, [Bad()], "x")


def test_extract_stops_at_the_first():
    seen = []

    def read(event):
        seen.append(event)
        return 1 // event

    with pytest.raises(ExtractionError) as caught:
        extract(read, [1, 0, 0], "x", "by", "a number")
    assert (seen, caught.value.index) == ([1, 0], 1)


class Row:
    at = 5


class Lazy(Mapping[str, Any]):
    def __getitem__(self, name):
        return {"at": 6}[name]

    def __iter__(self):
        return iter(["at"])

    def __len__(self):
        return 1


@pytest.mark.parametrize(
    ("field", "event", "value"),
    [("at", Row(), 5), ("at", {"at": 4}, 4), ("at", Lazy(), 6), (1, (7, 8), 8), (len, "ab", 2)],
)
def test_readers(field, event, value):
    read = pickle.loads(pickle.dumps(reader(field, "x", "by")))
    assert read(event) == value


@pytest.mark.parametrize("field", [None, 1.5, True, b"at", ("a", "b")])
def test_no_readers(field):
    with pytest.raises(OptionError, match="expected option 'by' to be a function, the name of a field, or an index"):
        reader(field, "x", "by")


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "1", None, True, timedelta(0), timedelta(-1)])
def test_no_durations(value):
    with pytest.raises(OptionError, match="a positive number of seconds or a timedelta"):
        seconds(value, "x", "size")


def test_durations():
    assert seconds(0, "x", "bound", zero=True) == 0
    assert seconds(timedelta(0), "x", "bound", zero=True) == timedelta(0)
    assert type(in_seconds(timedelta(hours=1))) is int
    assert in_seconds(timedelta(milliseconds=1500)) == 1.5
    timeline = Timeline("x")
    timeline.number(datetime(2026, 1, 1))
    assert timeline.length(0.1) == timeline.length(timedelta(milliseconds=100)) == 100_000
    numbers = Timeline("x")
    numbers.number(1)
    assert type(numbers.length(3600.0)) is int


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5)), ZoneInfo("America/New_York")])))
def test_aware_times_are_moments(time):
    timeline = Timeline("x")
    (number,) = timeline.read(itself, [time])
    assert timeline.time(number) == time.astimezone(UTC)  # not `time`: in the hour that comes twice it equals nothing
    assert timeline.time(number).tzinfo is UTC
    assert type(number) is int


@given(st.datetimes())
def test_naive_times_stay_naive(time):
    timeline = Timeline("x")
    (number,) = timeline.read(itself, [time])
    assert timeline.time(number) == time
    assert timeline.time(number).tzinfo is None


numbers = st.one_of(st.integers(-(10**9), 10**9), st.floats(-1e6, 1e6, allow_nan=False))
sizes = st.one_of(st.integers(1, 10**6), st.floats(1e-3, 1e4, allow_nan=False))


@given(numbers, sizes, st.integers(1, 4), st.floats(0, 0.99), numbers)
def test_every_time_is_in_its_windows_and_in_no_others(time, every, times, more, offset):
    """Also where fractions are rounded: what windows say of themselves is what is so."""
    grid = Grid(every * (times + more), every, offset)
    (last,) = grid.lasts([time])
    (first,) = grid.firsts([time], [last])
    assert last == grid.last(time)
    assert first == grid.first(time)
    assert first <= last
    for k in (first, last):
        assert grid.start(k) <= time < grid.end(k)
    assert grid.end(first - 1) <= time
    assert grid.start(last + 1) > time


@given(st.integers(-100, 100), st.integers(1, 12), st.integers(0, 12), st.integers(-5, 5))
def test_whole_numbers_agree_with_counting(time, every, more, offset):
    grid = Grid(every + more, every, offset)
    expected = [k for k in range(-200, 200) if offset + k * every <= time < offset + k * every + every + more]
    (last,) = grid.lasts([time])
    assert [*range(grid.firsts([time], [last])[0], last + 1)] == expected
    if grid.overlap:
        assert len(expected) == grid.overlap


def test_tenths_of_a_second():
    """0.3 // 0.1 is 2: an event belongs where the windows say that they begin."""
    grid = Grid(0.1, 0.1, 0)
    for n in range(-1000, 1000):
        time = n * 0.1
        assert grid.start(grid.last(time)) == time
