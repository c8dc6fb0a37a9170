"""Joins of two flows."""

import operator

import pytest

from headgate import Flow
from headgate.flow import triggers, windows
from tests.parity.flows import states
from tests.parity.registry import different
from tests.parity.stages import refused

POSTS = [{"id": 1, "title": "hello"}, {"id": 2, "title": "world"}]
COMMENTS = [(1, "excellent"), (1, "outstanding"), (2, "great follow up"), (3, "unknown")]


def joined(left, right, how, workers=2, **options):
    """Join posts and comments."""
    flow = Flow.from_iterable(left).join(
        Flow.from_iterable(right),
        "id",
        0,
        how=how,
        workers=workers,
        join=lambda post, comment: (post and post["title"], comment and comment[1]),
        **options,
    )
    return sorted(flow.to_list(), key=str)


PAIRS = [("hello", "excellent"), ("hello", "outstanding"), ("world", "great follow up")]
STRANGE = [{"id": 7, "title": "strange"}]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_inner(workers):
    """F115, F116: pairs of equal keys; where there are none, nothing."""
    assert joined(POSTS, COMMENTS, "inner", workers) == PAIRS
    assert joined(STRANGE, COMMENTS, "inner", workers) == []


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_left(workers):
    """F117, F118: those on the left without a partner come, too."""
    assert joined(POSTS + STRANGE, COMMENTS, "left", workers) == sorted([*PAIRS, ("strange", None)], key=str)
    assert joined(STRANGE, COMMENTS, "left", workers) == [("strange", None)]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_right(workers):
    """F119, F120: those on the right without a partner come, too."""
    assert joined(POSTS, COMMENTS, "right", workers) == sorted([*PAIRS, (None, "unknown")], key=str)
    alone = [(None, text) for _, text in COMMENTS]
    assert joined(STRANGE, COMMENTS, "right", workers) == sorted(alone, key=str)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_full(workers):
    """F121, F122: both."""
    expected = [*PAIRS, ("strange", None), (None, "unknown")]
    assert joined(POSTS + STRANGE, COMMENTS, "full", workers) == sorted(expected, key=str)
    expected = [("strange", None), *((None, text) for _, text in COMMENTS)]
    assert joined(STRANGE, COMMENTS, "full", workers) == sorted(expected, key=str)


def numbers(how="inner", workers=2):
    """Join the numbers up to 6 with themselves, and take one of each pair."""
    flow = Flow.from_iterable(range(7))
    return flow.join(flow.map(int), lambda n: n, how=how, workers=workers, join=lambda left, _: left)


def test_mapped_behind_a_join():
    """F123: what comes of it can be mapped."""
    assert sorted(numbers().map(lambda n: n * 2).to_list()) == [0, 2, 4, 6, 8, 10, 12]


def test_reduced_behind_a_join():
    """F124: and reduced: in all, or in partitions."""
    assert states(numbers().reduce(int, operator.add)).to_list() == [21]
    apart = states(numbers().partition(workers=2).reduce(int, operator.add)).to_list()
    assert len(apart) == 2
    assert sum(apart) == 21


def test_a_join_of_flows_that_do_something():
    """F125: its sides may be partitioned, mapped, and so on."""
    left = Flow.from_iterable(range(20)).options(workers=2).partition(workers=2)
    right = Flow.from_iterable(range(20)).options(workers=3).map(lambda n: n)
    both = left.join(right, lambda n: n, workers=2, join=lambda one, other: one + other - other)
    apart = states(both.partition(workers=2).reduce(int, operator.add)).to_list()
    assert len(apart) == 2
    assert sum(apart) == 190


def test_a_join_in_windows():
    """F126: events of different windows are no partners; what has none comes when its window closes."""
    left, right = [(0, "a"), (5, "b"), (12, "c")], [(1, "a"), (13, "b"), (14, "c")]
    tens = windows.fixed(10, by=0)
    both = Flow.from_iterable(left).join(Flow.from_iterable(right), 1, how="full", window=tens, workers=1)
    assert sorted(both.to_list(), key=str) == [
        ((0, "a"), (1, "a")),
        ((12, "c"), (14, "c")),
        ((5, "b"), None),
        (None, (13, "b")),
    ]


@different("F126", "a trigger says when a reduce gives something; pairs of a join come as soon as both are there")
def test_a_join_takes_no_trigger():
    """F126: a reduce behind it may have one."""
    left, right = Flow.from_iterable(range(6)), Flow.from_iterable(range(6))
    with refused(ValueError, "join", "without a trigger"):
        left.join(right, lambda n: n, window=windows.fixed(10, by=lambda n: n, trigger=triggers.every(2)))
    both = left.join(right, lambda n: n, window=windows.fixed(10, by=lambda n: n), workers=1)
    counted = both.window(windows.global_(trigger=triggers.every(2))).count()
    assert [found.value for found in counted.to_list()] == [2, 4, 6]
