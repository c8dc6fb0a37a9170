"""Joins against nested loops."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import OptionError
from headgate.flow import triggers, watermarks, windows
from headgate.flow.joining import MODES, Join
from headgate.flow.times import ExtractionError
from tests.flow.time.models import Grid, Marks

keys = st.one_of(st.none(), st.integers(0, 3))
sides = st.sampled_from(["left", "right"])
modes = st.sampled_from(MODES)


def nested_loops(mode, left, right, same):
    """Pairs of two lists by a predicate, and what an outer join adds."""
    pairs = [(one, other) for one in left for other in right if same(one, other)]
    if mode in ("left", "full"):
        pairs += [(one, None) for one in left if not any(same(one, other) for other in right)]
    if mode in ("right", "full"):
        pairs += [(None, other) for other in right if not any(same(one, other) for one in left)]
    return pairs


def same_key(one, other):
    return one[0] is not None and one[0] == other[0]


def numbered(items):
    return [(*item, number) for number, item in enumerate(items)]


@given(
    modes,
    st.lists(st.tuples(sides, st.lists(st.tuples(keys), max_size=5)), max_size=12),
    st.sampled_from(["no", "left", "right"]),
)
def test_a_bounded_join_is_that_of_nested_loops(mode, batches, early_end):
    join = Join(mode, 0)
    items: dict[str, Any] = {"left": [], "right": []}
    out, ended = [], False
    for place, (side, drawn) in enumerate(batches):
        if early_end != "no" and place >= len(batches) // 2 and not ended:
            out += join.end_side(early_end, 0.0)
            ended = True
        if ended and side == early_end:
            continue
        batch = [(*item, side, len(items[side]) + index) for index, item in enumerate(drawn)]
        items[side] += batch
        out += join.add(side, batch)
    out += join.done(0.0)
    expected = nested_loops(mode, items["left"], items["right"], same_key)
    assert Counter(out) == Counter(expected)
    statistics = join.statistics()
    assert statistics.kept == statistics.open_windows == 0
    assert statistics.pairs + statistics.unmatched == len(out)
    assert statistics.left == len(items["left"])


def test_when_a_side_has_ended_the_other_one_is_not_kept():
    join = Join("full", 0)
    assert join.add("left", [(1, "a")]) == []
    assert join.add("right", [(1, "x"), (2, "y"), (None, "z")]) == [((1, "a"), (1, "x")), (None, (None, "z"))]
    assert join.statistics().kept == 3
    assert join.end_side("left", 0.0) == [(None, (2, "y"))]  # nothing will come for it any more
    assert join.statistics().kept == 1
    assert join.add("right", [(1, "u"), (3, "v")]) == [((1, "a"), (1, "u")), (None, (3, "v"))]
    assert join.statistics().kept == 1
    assert join.end_side("right", 0.0) == []
    assert join.done(0.0) == []


def test_what_has_had_a_partner_that_is_not_kept_is_not_without_one():
    join = Join("left", 0)
    join.add("left", [(1, "a"), (2, "b")])
    join.end_side("left", 0.0)
    assert join.add("right", [(1, "x")]) == [((1, "a"), (1, "x"))]
    assert join.statistics().kept == 2
    assert join.done(0.0) == [((2, "b"), None)]


times = st.integers(-20, 40)
GRIDS = st.one_of(
    st.tuples(st.integers(1, 15), st.integers(-3, 3)).map(lambda it: (it[0], it[0], it[1])),
    st.tuples(st.integers(1, 9), st.integers(0, 12), st.integers(-3, 3)).map(lambda it: (it[0] + it[1], it[0], it[2])),
)


@given(
    modes,
    GRIDS,
    st.lists(st.tuples(sides, st.sampled_from("xy"), st.lists(st.tuples(keys, times), max_size=5)), max_size=12),
    st.integers(0, 10),
    st.integers(0, 10),
)
def test_a_windowed_join_is_that_of_nested_loops_in_each_window(mode, grid, batches, bound, late):
    size, every, offset = grid
    options = {"by": 1, "offset": offset, "allowed_lateness": late, "watermark": watermarks.out_of_order(bound)}
    spec = windows.fixed(size, **options) if size == every else windows.sliding(size, every, **options)
    join = Join(mode, 0, window=spec, keep_late=True)
    marks, lates, out = Marks(bound), [], []
    places: dict[Any, Any] = {}
    number = 0
    for side in ("left", "right"):
        for source in "xy":
            join.open(side, source, 0.0)
            marks.open((side, source), 0.0)
    for side, source, drawn in batches:
        batch = [(*item, number + index) for index, item in enumerate(drawn)]
        number += len(batch)
        out += join.add(side, batch, source)
        for element in batch:
            mine = [span for span in Grid(*grid).windows(element[1]) if span[1] + late > marks.value]
            if not mine:
                lates.append((side, element))
            for span in mine:
                places.setdefault(span, {"left": [], "right": []})[side].append(element)
            marks.event((side, source), element[1], 0.0)
    open_now = [span for span in places if span[1] + late > marks.value]
    assert join.statistics().open_windows == len(open_now)
    out += join.done(0.0)
    expected = [pair for both in places.values() for pair in nested_loops(mode, both["left"], both["right"], same_key)]
    assert Counter(out) == Counter(expected)
    assert join.take_late() == lates
    assert join.statistics().late == len(lates)


def test_pairs_come_as_soon_as_both_are_there_and_what_is_unmatched_when_the_window_closes():
    join = Join("full", 0, window=windows.fixed(10, by=1, watermark=watermarks.out_of_order(0)))
    join.open("left", 0, 0.0)
    join.open("right", 0, 0.0)
    assert join.add("left", [("a", 1), ("b", 2)], 0) == []
    assert join.add("right", [("a", 9), ("c", 5)], 0) == [(("a", 1), ("a", 9))]
    assert join.add("left", [("a", 10)], 0) == []  # another window
    assert join.watermark == 9
    assert join.end("right", 0, 0.0) == [(("b", 2), None), (None, ("c", 5))]
    assert join.done(0.0) == [(("a", 10), None)]


def test_periodic_windows_join_what_comes_at_about_the_same_time():
    join = Join("left", 0, window=windows.periodic(10), now=100.0)
    assert join.deadline() == float("inf")
    assert join.add("left", [(1,), (2,)], now=101.0) == []
    assert join.deadline() == 110.0
    assert join.add("right", [(1,)], now=109.0) == [((1,), (1,))]
    assert join.tick(110.0) == [((2,), None)]
    assert join.add("right", [(2,)], now=111.0) == []
    assert join.done(111.0) == []


def test_the_join_function_the_keys_and_the_times_may_differ():
    join = Join(
        "full",
        lambda left: left["id"],
        "name",
        lambda left, right: (left and left["id"], right and right["when"]),
        window=windows.fixed(10, by="at"),
        right_by="when",
        bounded=True,
    )
    assert join.add("left", [{"id": 7, "at": 3}, {"id": 8, "at": 4}]) == []
    assert join.add("right", [{"name": 7, "when": 9}, {"name": 7, "when": 11}]) == [(7, 9)]
    assert join.done(0.0) == [(8, None), (None, 11)]


def test_a_key_or_a_time_that_cannot_be_had_is_told_before_anything_is_taken():
    join = Join("full", 0, window=windows.fixed(10, by=1), bounded=True)
    for bad, option in (((1,), "by"), ([], "left_key"), (([], 1), "left_key"), ((1, "noon"), "by")):
        with pytest.raises(ExtractionError) as caught:
            join.add("left", [(1, 2), bad])
        assert (caught.value.option, caught.value.index, caught.value.event) == (option, 1, bad)
    assert join.add("right", [(1, 2)]) == []
    assert join.done(0.0) == [(None, (1, 2))]


@pytest.mark.parametrize(
    ("arguments", "options", "option"),
    [
        (("outer", 0), {}, "mode"),
        (("inner", 1.5), {}, "left_key"),
        (("inner", 0, None, 5), {}, "join"),
        (("inner", 0), {"window": windows.count(5)}, "window"),
        (("inner", 0), {"window": windows.session(5, by=0)}, "window"),
        (("inner", 0), {"window": windows.global_(trigger=triggers.every(5))}, "window"),
        (("inner", 0), {"left_by": 2.5}, "left_by"),
    ],
)
def test_bad_options_are_named(arguments, options, option):
    with pytest.raises(OptionError) as caught:
        Join(*arguments, **options)
    assert caught.value.option == option
