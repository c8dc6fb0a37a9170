"""Keys have the same partition in every process, and equal keys have the same."""

import datetime as dt
import enum
import os
import subprocess
import sys
import uuid  # noqa: F401 (of the keys below)
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import OptionError
from headgate.flow.keys import Partitioner, stable_hash

KEYS = """[1, -5, 2**70, "word", "", b"bytes", None, True, 1.5, float("inf"), (1, "a", (None, 2.0)), ("x",),
    frozenset({"a", "b", 3}), dt.date(2020, 1, 2), dt.datetime(2020, 1, 2, 3), dt.timedelta(1), dt.time(3, 4),
    dt.datetime(2020, 1, 2, tzinfo=dt.UTC), Decimal("1.25"), Fraction(1, 3), uuid.UUID(int=7), 1 + 2j, float("nan")]"""


def test_every_process_agrees():
    code = (
        "import datetime as dt, uuid\nfrom decimal import Decimal\nfrom fractions import Fraction\n"
        f"from headgate.flow.keys import stable_hash\nprint([stable_hash(key) for key in {KEYS}])"
    )
    expected = str([stable_hash(key) for key in eval(KEYS)])
    for seed in ("0", "1"):
        out = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert out.stdout.strip() == expected


def test_equal_keys_are_one():
    zone = dt.timezone(dt.timedelta(hours=2))
    for group in (
        [1, 1.0, True, Decimal(1), Fraction(1), np.int64(1), 1 + 0j],
        ["a", np.str_("a")],
        [(1, "a"), (1.0, "a")],
        [dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(2020, 1, 1, 2, tzinfo=zone)],
        [frozenset({1, "a"}), frozenset({"a", 1.0})],
    ):
        assert len({stable_hash(key) for key in group}) == 1


class Color(enum.Enum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: int


class Own:
    def __stable_hash__(self):
        return 7


def test_what_else_may_be_a_key():
    assert stable_hash(Color.RED) == stable_hash(Color.RED)
    assert stable_hash(Point(1, 2)) == stable_hash((1, 2))
    assert stable_hash(Own()) == 7
    with pytest.raises(OptionError, match="__stable_hash__"):
        stable_hash(object())


@given(st.lists(st.one_of(st.integers(), st.text(), st.tuples(st.integers(), st.text()))), st.integers(1, 8))
def test_a_split_keeps_all_events_in_order(keys, count):
    lanes = Partitioner(count).split(list(range(len(keys))), keys)
    assert sorted(event for lane in lanes for event in lane) == list(range(len(keys)))
    assert all(lane == sorted(lane) for lane in lanes)
    places = {key: number for number, lane in enumerate(lanes) for key in [keys[event] for event in lane]}
    assert all(places[keys[event]] == number for number, lane in enumerate(lanes) for event in lane)


def test_many_keys_are_not_remembered_for_ever():
    partitioner = Partitioner(4)
    partitioner.of([str(n) for n in range(250_000)])
    assert len(partitioner) <= 100_000


def test_keys_spread_evenly():
    for keys in (range(10_000), [str(n) for n in range(10_000)], [(n, str(n)) for n in range(10_000)]):
        sizes = [len(lane) for lane in Partitioner(4).split(keys, keys)]
        assert max(sizes) < 1.2 * min(sizes)
