"""The pure part of rate limits: never more than the burst and what has come since, in any window."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.protocol.limits import UNLIMITED, Bucket, KeyedBuckets

rates = st.floats(0.01, 1e5)
bursts = st.integers(1, 1000)
pauses = st.floats(0, 30) | st.just(0.0)


def admitted(burst, rate, uses, extra=0):
    """See that in every window at most ``burst + rate * T`` were admitted; ``uses``: when, and how many."""
    sums = [0.0]
    for _, n in uses:
        sums.append(sums[-1] + n)
    for first in range(len(uses)):
        for last in range(first, len(uses)):
            most = burst * (1 + extra) + rate * (uses[last][0] - uses[first][0])
            assert sums[last + 1] - sums[first] <= most * (1 + 1e-6), (uses[first], uses[last], most)


# -- taking -----------------------------------------------------------------------------------------------------------


def test_a_bucket_starts_full_and_fills_by_and_by():
    bucket = Bucket(2, 1.0, 5)
    assert bucket.available(0.0) == 5
    assert [bucket.take(1, 0.0) for _ in range(6)] == [0, 0, 0, 0, 0, 0.5]
    assert bucket.available(0.4) == 0
    assert bucket.available(0.5) == 1
    assert bucket.available(100.0) == 5


def test_a_take_that_fails_takes_nothing():
    bucket = Bucket(1, 1.0, 3)
    assert bucket.take(2, 0.0) == 0
    assert bucket.take(3, 0.0) == 2
    assert bucket.take(1, 0.0) == 0


def test_a_rate_is_given_for_any_time():
    assert Bucket(30, 60.0, 1).rate == 0.5


def test_more_than_the_burst_never_fits():
    bucket = Bucket(1, 1.0, 3)
    assert bucket.take(4, 0.0) == math.inf
    assert bucket.reserve(4, 0.0) == math.inf
    assert bucket.available(0.0) == 3


@given(rates, bursts, st.lists(st.tuples(pauses, st.integers(1, 50)), max_size=40))
def test_no_window_admits_more_than_burst_and_rate(rate, burst, tries):
    bucket, now, uses = Bucket(rate, 1.0, burst), 0.0, []
    for pause, n in tries:
        now += pause
        before = bucket.available(now)
        wait = bucket.take(n, now)
        assert (wait == 0) == (before >= n)
        if not wait:
            uses.append((now, n))
    admitted(burst, rate, uses)


@given(rates, bursts, st.lists(st.tuples(pauses, st.integers(1, 50)), min_size=1, max_size=30))
def test_who_waits_as_told_gets_it(rate, burst, tries):
    bucket, now, uses = Bucket(rate, 1.0, burst), 0.0, []
    for pause, n in tries:
        now += pause
        wait = 1.0
        for _ in range(4):  # as often as a sum may miss by the last bit
            wait = bucket.take(n, now)
            if not wait or wait == math.inf:
                break
            assert now + wait > now
            now += wait
        assert (wait == math.inf) == (n > burst)
        if not wait:
            uses.append((now, n))
    admitted(burst, rate, uses)


@given(rates, bursts, st.lists(st.tuples(pauses, st.integers(1, 50)), max_size=40))
def test_uses_of_what_was_reserved_keep_to_the_limit(rate, burst, tries):
    bucket, now, uses = Bucket(rate, 1.0, burst), 0.0, []
    for pause, n in tries:
        now += pause
        wait = bucket.reserve(n, now)
        if wait != math.inf:
            uses.append((now + wait, n))
    assert all(earlier[0] <= later[0] * (1 + 1e-9) for earlier, later in pairwise(uses))
    admitted(burst, rate, uses)


@given(rates, bursts)
def test_what_is_asked_for_all_the_time_gets_the_whole_rate(rate, burst):
    """It is no limit below the one that was asked for either."""
    bucket, now = Bucket(rate, 1.0, burst), 0.0
    count = burst + 50
    for _ in range(count):
        while wait := bucket.take(1, now):
            now += wait
    assert now == pytest.approx(50 / rate, rel=1e-6)


# -- giving back ------------------------------------------------------------------------------------------------------


def test_what_is_given_back_can_be_taken_again():
    bucket = Bucket(1, 1.0, 3)
    bucket.take(3, 0.0)
    bucket.give_back(2, 0.0)
    assert bucket.available(0.0) == 2
    bucket.give_back(5, 0.0)
    assert bucket.available(0.0) == 3


def test_room_that_was_used_meanwhile_is_not_given_back():
    bucket = Bucket(1, 1.0, 10)
    bucket.take(5, 0.0)
    bucket.take(8, 3.0)
    bucket.give_back(5, 3.0, taken=0.0)
    assert bucket.available(3.0) == 2  # without the first five: 10 - 8


def test_nothing_is_given_back_when_the_clock_was_set_back():
    bucket = Bucket(1, 1.0, 5)
    bucket.take(5, 100.0)
    bucket.give_back(3, 99.0, taken=100.0)
    assert bucket.available(100.0) == 0


@given(rates, bursts, st.lists(st.tuples(pauses, st.integers(1, 50), st.booleans()), max_size=40), st.randoms())
def test_what_is_not_given_back_keeps_to_the_limit(rate, burst, tries, chance):
    bucket, now = Bucket(rate, 1.0, burst), 0.0
    uses: list[tuple[float, int]] = []
    unused: list[tuple[float, int]] = []
    for pause, n, keeps in tries:
        now += pause
        if not bucket.take(n, now):
            (uses if keeps else unused).append((now, n))
        if unused and chance.random() < 0.5:
            taken, count = unused.pop(int(chance.random() * len(unused)))
            bucket.give_back(count, now, taken)
    admitted(burst, rate, uses)


# -- changes ----------------------------------------------------------------------------------------------------------


def test_a_new_rate_counts_from_now_on():
    bucket = Bucket(1, 1.0, 10)
    bucket.take(10, 0.0)
    bucket.update(rate=100, per=10.0, now=2.0)
    assert bucket.available(2.0) == 2
    assert bucket.available(2.3) == 5


def test_a_smaller_burst_is_waited_for():
    bucket = Bucket(1, 1.0, 10)
    bucket.take(10, 0.0)
    bucket.update(burst=2, now=0.0)
    assert bucket.take(1, 0.0) == 9
    assert bucket.available(9.0) == 1


def test_no_limit_and_nothing_at_all():
    bucket = Bucket(math.inf, 1.0, 1)
    assert bucket.available(0.0) == UNLIMITED
    assert bucket.take(1000, 0.0) == bucket.reserve(1000, 0.0) == 0
    bucket.update(rate=0, now=1.0)
    assert bucket.take(1, 1.0) == 0, "what came while there was no limit is there"
    assert bucket.take(1, 1.0) == bucket.take(1, 1e9) == math.inf
    bucket.update(rate=1, now=1e9)
    assert bucket.take(1, 1e9) == 1


@given(
    st.floats(0.01, 100),
    st.integers(1, 20),
    st.lists(
        st.tuples(pauses, st.integers(1, 5), st.none() | st.tuples(st.floats(0.01, 100), st.integers(1, 20))),
        max_size=40,
    ),
)
def test_no_window_admits_more_than_the_largest_limit_within_it(rate, burst, tries):
    bucket, now, uses = Bucket(rate, 1.0, burst), 0.0, []
    most_rate, most_burst = rate, burst
    for pause, n, change in tries:
        now += pause
        if change is not None:
            bucket.update(rate=change[0], burst=change[1], now=now)
            most_rate, most_burst = max(most_rate, change[0]), max(most_burst, change[1])
        if not bucket.take(n, now):
            uses.append((now, n))
    admitted(most_burst, most_rate, uses)


# -- clocks that jump -------------------------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_stops_nobody():
    bucket = Bucket(1, 1.0, 2)
    bucket.take(2, 10_000.0)
    assert bucket.take(1, 50.0) == 1
    assert bucket.take(1, 51.0) == 0


def test_times_a_little_out_of_order_admit_no_more():
    bucket = Bucket(1, 1.0, 2)
    bucket.take(2, 10.0)
    for _ in range(10):
        assert bucket.take(1, 9.0) == 2
        assert bucket.take(1, 10.5) == 0.5
    assert bucket.take(1, 11.0) == 0


@given(
    st.floats(0.01, 1000),
    bursts,
    st.lists(st.tuples(st.floats(0, 30), st.integers(1, 50), st.none() | st.floats(-1e6, 1e6)), max_size=40),
)
def test_a_jump_of_the_clock_lets_at_most_one_burst_more_pass(rate, burst, tries):
    bucket, real, shift, uses, jumps = Bucket(rate, 1.0, burst, 1e7), 0.0, 1e7, [], 0
    for pause, n, jump in tries:
        real += pause
        if jump is not None:
            shift, jumps = shift + jump, jumps + 1
        while not bucket.take(n, real + shift):
            uses.append((real, n))
            if len(uses) > 200:
                break
    admitted(burst, rate, uses, extra=jumps)


@given(st.floats(0.01, 1000), bursts, st.lists(st.floats(-1e6, 1e6), max_size=10))
def test_after_any_jumps_it_goes_on_within_two_fillings(rate, burst, jumps):
    bucket, shift = Bucket(rate, 1.0, burst, 1e7), 1e7
    for jump in jumps:
        shift += jump
        bucket.take(burst, shift)
    assert bucket.wait(1, shift) <= 2 * burst / rate * (1 + 1e-6) + 1e-6


# -- keys -------------------------------------------------------------------------------------------------------------


def test_each_key_has_its_own():
    buckets = KeyedBuckets(1, 1.0, 2)
    assert buckets.use("a", 0.0).take(2, 0.0) == 0
    assert buckets.use("a", 0.0).take(1, 0.0) == 1
    assert buckets.use("b", 0.0).take(2, 0.0) == 0


def test_looking_remembers_nothing():
    buckets = KeyedBuckets(1, 1.0, 2)
    assert buckets.look("a", 0.0).available(0.0) == 2
    assert len(buckets) == 0
    buckets.use("a", 0.0).take(2, 0.0)
    assert buckets.look("a", 1.0).available(1.0) == 1


def test_only_full_buckets_are_forgotten():
    buckets = KeyedBuckets(1, 1.0, 1, most=3)
    for number in range(5):
        assert buckets.use(number, 0.0).take(1, 0.0) == 0
    assert (len(buckets), buckets.crowded) == (5, 2)
    assert buckets.use(0, 0.5).take(1, 0.5) == 0.5
    for number in range(5, 9):  # by now those are full: two go for each that comes, until there are three
        buckets.use(number, 2.0).take(1, 2.0)
    assert len(buckets) == 4  # the last one found none that was full
    assert buckets.crowded == 3


@given(
    st.floats(0.1, 10),
    st.integers(1, 5),
    st.lists(st.tuples(st.floats(0, 3), st.integers(0, 8)), max_size=80),
    st.integers(1, 4),
)
def test_no_key_gets_more_by_being_forgotten(rate, burst, tries, most):
    buckets, now = KeyedBuckets(rate, 1.0, burst, most=most), 0.0
    uses: dict[int, list[tuple[float, int]]] = {}
    for pause, key in tries:
        now += pause
        if not buckets.use(key, now).take(1, now):
            uses.setdefault(key, []).append((now, 1))
    for each in uses.values():
        admitted(burst, rate, each)


def test_nothing_is_given_back_to_a_key_that_was_forgotten_meanwhile():
    buckets = KeyedBuckets(4, 1.0, 1, most=1)
    buckets.use("a", 1.0).take(1, 1.0)
    buckets.use("b", 2.0)
    buckets.update(rate=0.5, now=2.0)
    assert buckets.use("a", 2.0).take(1, 2.0) == 0
    buckets.use("a", 2.0).give_back(1, 2.0, taken=1.0)
    assert buckets.use("a", 2.0).available(2.0) == 0


def test_a_change_holds_for_old_and_new_keys():
    buckets = KeyedBuckets(1, 1.0, 1)
    buckets.use("a", 0.0).take(1, 0.0)
    buckets.update(rate=10, burst=5, now=0.0)
    assert buckets.use("a", 0.1).available(0.1) == 5
    assert buckets.use("b", 0.1).available(0.1) == 5
