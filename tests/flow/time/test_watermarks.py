"""How far event time has come, by source."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.flow.times import ExtractionError, Timeline
from headgate.flow.watermarks import Watermarks, at_end, out_of_order, told
from tests.flow.time.models import Marks


def itself(event):
    return event


def make(strategy, idle_after=None):
    timeline = Timeline("x")
    return Watermarks(strategy, timeline, idle_after), timeline


def take(marks, timeline, source, events, now=0.0):
    """Take a batch as engines do; return the watermark after each event, and after all."""
    course = marks.look(source, events, timeline.read(itself, events))
    each = course.each()
    assert course.around() == list(zip([marks.value, *each[:-1]], each, strict=True))
    marks.take(source, course.own, now)
    assert marks.value == course.value == max([*each, marks.value]) if each else True
    return each, marks.value


def test_the_newest_less_the_bound():
    marks, timeline = make(out_of_order(5))
    assert marks.value == -math.inf
    assert take(marks, timeline, "a", [10, 3, 20]) == ([5, 5, 15], 15)
    assert take(marks, timeline, "a", [1, 21]) == ([15, 16], 16)


def test_the_lowest_of_those_that_are_there():
    marks, timeline = make(out_of_order())
    marks.open("b", 0.0)
    assert take(marks, timeline, "a", [10]) == ([-math.inf], -math.inf)
    assert take(marks, timeline, "b", [4, 12, 20]) == ([4, 10, 10], 10)
    marks.end("a")
    assert marks.value == 20
    assert marks.sources == {"b": 20}
    marks.end("b")
    assert marks.value == 20


def test_a_newcomer_that_is_behind_does_not_bring_it_back():
    marks, timeline = make(out_of_order())
    take(marks, timeline, "a", [10])
    assert take(marks, timeline, "b", [4])[1] == 10
    assert take(marks, timeline, "a", [30])[1] == 10
    assert take(marks, timeline, "b", [20])[1] == 20


def test_idle_ones_hold_nothing_back_and_count_again_when_they_send():
    marks, timeline = make(out_of_order(), idle_after=10)
    marks.open("a", 0.0)
    marks.open("b", 0.0)
    take(marks, timeline, "a", [100], 5.0)
    assert (marks.value, marks.deadline()) == (-math.inf, 10.0)
    marks.tick(9.9)
    assert marks.value == -math.inf
    marks.tick(10.0)
    assert (marks.value, marks.idle_sources, marks.deadline()) == (100, ["b"], 15.0)
    marks.idle("a", 11.0)
    assert marks.deadline() == math.inf
    take(marks, timeline, "b", [50], 12.0)
    assert (marks.value, marks.idle_sources) == (100, ["a"])
    take(marks, timeline, "a", [120], 12.0)
    assert marks.value == 100
    take(marks, timeline, "b", [110], 13.0)
    assert marks.value == 110


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_when_all_are_idle_nobody_is_waited_for_whoever_was_first(order):
    marks, timeline = make(out_of_order())
    marks.open("b", 0.0)
    take(marks, timeline, "a", [100])
    take(marks, timeline, "b", [50])
    for source in order:
        marks.idle(source, 0.0)
    assert marks.value == 100


def test_at_the_end_there_is_none():
    marks, timeline = make(at_end())
    assert take(marks, timeline, "a", [1, 2]) == ([-math.inf] * 2, -math.inf)
    marks.idle("a", 0.0)
    assert marks.value == -math.inf


def test_told_by_a_function():
    said = iter([None, 5, 3, None, 9])
    marks, timeline = make(told(lambda event: next(said)))
    assert take(marks, timeline, "a", [1, 2, 3, 4]) == ([-math.inf, 5, 5, 5], 5)
    assert take(marks, timeline, "a", [5]) == ([9], 9)


def test_a_function_that_fails_or_says_no_time():
    for function, got in ((lambda event: 1 // event, ZeroDivisionError), (lambda event: None if event else "x", str)):
        marks, timeline = make(told(function))
        with pytest.raises(ExtractionError) as caught:
            take(marks, timeline, "a", [1, 0])
        assert (caught.value.option, caught.value.index, type(caught.value.got)) == ("watermark", 1, got)
        assert marks.sources == {}


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from("xyz"), st.lists(st.integers(-20, 40), min_size=1, max_size=5)),
            st.tuples(st.sampled_from("xyz"), st.sampled_from(["idle", "end"])),
            st.tuples(st.just(""), st.integers(0, 9)),
        ),
        max_size=30,
    ),
    st.integers(0, 9),
)
def test_it_is_that_of_the_definition_after_each_event(steps, bound):
    marks, timeline = make(out_of_order(bound), idle_after=8)
    model = Marks(bound, idle_after=8)
    now, before = 0.0, -math.inf
    for source, what in steps:
        if not source:
            now += what
            marks.tick(now)
            model.tick(now)
        elif what == "idle":
            marks.idle(source, now)
            model.idle(source, now)
        elif what == "end":
            marks.end(source)
            model.end(source)
        else:
            expected = []
            for time in what:
                model.event(source, time, now)
                expected.append(model.value)
            assert take(marks, timeline, source, what, now)[0] == expected
        assert marks.value == model.value
        assert marks.value >= before
        before = marks.value
        assert marks.deadline() > now
