"""The pure part of restarts: when, how soon, and when it is too much."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import OptionError, StageCrashed
from headgate.protocol.children import PERMANENT, TEMPORARY, TRANSIENT, Backoff, Ending, Life, Restarts, is_done

CRASH = StageCrashed("stage", ValueError("no"))

backoffs = st.builds(
    Backoff,
    first=st.floats(0, 10),
    factor=st.floats(1, 1e9),
    most=st.floats(0, 100),
    jitter=st.floats(0, 1),
    reset=st.floats(0, 100),
)
endings = st.builds(
    Ending,
    reason=st.just(CRASH),
    follows=st.booleans(),
    failure=st.none() | st.tuples(st.integers(1, 500), st.integers(1, 5)),
    progressed=st.booleans(),
)


def restarts(most=3, seconds=5.0, **backoff):
    return Restarts(most, seconds, Backoff(**{"jitter": 0, **backoff}))


# -- who is started again ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "reason", "done"),
    [
        (PERMANENT, "normal", False),
        (PERMANENT, "shutdown", False),
        (PERMANENT, ("shutdown", "why"), False),
        (PERMANENT, CRASH, False),
        (PERMANENT, "killed", False),
        (TRANSIENT, "normal", True),
        (TRANSIENT, "shutdown", True),
        (TRANSIENT, ("shutdown", "why"), True),
        (TRANSIENT, CRASH, False),
        (TRANSIENT, "killed", False),
        (TEMPORARY, "normal", True),
        (TEMPORARY, "shutdown", True),
        (TEMPORARY, CRASH, True),
        (TEMPORARY, "killed", True),
    ],
)
def test_the_restart_kind_and_the_reason_say_who_is_started_again(kind, reason, done):
    assert is_done(kind, Ending(reason)) is done
    assert is_done(kind, Ending(reason, completed=True))  # its stream is over, whatever its kind


# -- how soon ---------------------------------------------------------------------------------------------------------


@given(backoffs, st.integers(0, 10**6), st.floats(0, 1))
def test_a_wait_is_within_its_bounds(backoff, streak, chance):
    wait = backoff.delay(streak, chance)
    assert 0 <= wait <= backoff.most
    longest = backoff.delay(streak, 0)
    assert longest * (1 - backoff.jitter) <= wait * (1 + 1e-9)
    assert wait <= longest


@given(backoffs, st.integers(0, 200))
def test_waits_never_become_shorter_without_chance(backoff, streak):
    assert backoff.delay(streak, 0) <= backoff.delay(streak + 1, 0)


@given(backoffs, st.floats(0, 1))
def test_the_first_restart_comes_at_once(backoff, chance):
    assert backoff.delay(0, chance) == 0


def test_the_waits_by_default():
    assert [Backoff().delay(streak, 0) for streak in range(5)] == [0, 0.05, 0.1, 0.2, 0.4]
    assert Backoff().delay(100, 0) == 30
    assert Backoff().delay(1, 1) == pytest.approx(0.0375)


def test_a_child_that_fails_again_and_again_waits_longer_and_longer():
    limit, life, now, waits = restarts(None), Life(), 0.0, []
    for _ in range(20):
        waits.append(limit.decide(life, Ending(CRASH), now, 0))
        now += waits[-1] + 0.01
    assert waits[:4] == [0, 0.05, 0.1, 0.2]
    assert all(later >= sooner for sooner, later in pairwise(waits))
    assert waits[-1] == 30
    assert life.restarts == 20


def test_a_child_that_has_lived_for_long_is_started_at_once_again():
    limit, life = restarts(None, reset=10), Life()
    assert [limit.decide(life, Ending(CRASH), 0, 0), limit.decide(life, Ending(CRASH), 1, 0)] == [0, 0.05]
    assert limit.decide(life, Ending(CRASH), 1.05 + 10.1, 0) == 0


def test_a_child_that_gets_on_waits_the_same_each_time():
    limit, life = restarts(None), Life()
    waits = [limit.decide(life, Ending(CRASH, failure=(5, 1), progressed=True), n, 0) for n in range(6)]
    assert waits == [0, 0.05, 0.05, 0.05, 0.05, 0.05]


@given(backoffs, st.lists(st.tuples(st.floats(0, 20), endings, st.floats(0, 1)), max_size=30))
def test_every_wait_that_is_decided_is_within_the_bounds(backoff, script):
    limit, life, now = Restarts(None, 5.0, backoff), Life(), 0.0
    for pause, ending, chance in script:
        now += pause
        wait = limit.decide(life, ending, now, chance)
        assert wait is not None
        assert 0 <= wait <= backoff.most


# -- when it is too much ----------------------------------------------------------------------------------------------


@given(
    st.integers(0, 5),
    st.floats(0.1, 10),
    st.lists(st.tuples(st.floats(0, 3), st.integers(0, 2)), max_size=40),
)
def test_the_limit_is_never_exceeded_without_being_reported_nor_reported_too_early(most, seconds, script):
    """The reference is a plain list of times; children share the limit of their supervisor."""
    limit, lives, now = Restarts(most, seconds, Backoff(first=0)), [Life(), Life(), Life()], 0.0
    times: list[float] = []
    for pause, child in script:
        now += pause
        times.append(now)
        wait = limit.decide(lives[child], Ending(CRASH), now, 0.5)
        recent = [each for each in times if now - each <= seconds]
        assert (wait is None) == (len(recent) > most)
        if wait is None:
            return


@given(
    backoffs, st.integers(0, 5), st.floats(0.1, 10), st.lists(st.tuples(st.floats(0, 3), st.floats(0, 1)), max_size=40)
)
def test_whatever_the_waits_are_the_limit_is_not_exceeded(backoff, most, seconds, script):
    """Time in which a child waits does not count, so it can only be reported sooner."""
    limit, life, now = Restarts(most, seconds, backoff), Life(), 0.0
    times: list[float] = []
    for pause, chance in script:
        times.append(now)
        wait = limit.decide(life, Ending(CRASH), now, chance)
        if wait is None:
            assert len(times) > most
            return
        assert len([each for each in times if now - each <= seconds]) <= most
        now += wait + pause


def test_long_waits_do_not_hide_that_it_is_too_much():
    limit, life, now = Restarts(3, 5.0, Backoff(first=60, most=60, jitter=0)), Life(), 0.0
    waits = []
    while (wait := limit.decide(life, Ending(CRASH), now, 0)) is not None:
        waits.append(wait)
        now += wait + 0.1
    assert waits == [0, 60, 60]


@given(st.lists(st.tuples(st.floats(0, 3), endings), max_size=40))
def test_restarts_that_do_not_count_never_make_it_too_much(script):
    """What is left out can only be fewer: whoever is below the limit by all ends is below it by those that count."""
    limit, life, now = restarts(3, first=0), Life(), 0.0
    times: list[float] = []
    for pause, ending in script:
        now += pause
        times.append(now)
        if limit.decide(life, ending, now, 0) is None:
            assert len([each for each in times if now - each <= 5]) > 3
            return


def test_those_who_follow_their_producer_do_not_count():
    limit = restarts(0)
    lives = [Life() for _ in range(50)]
    assert all(limit.decide(life, Ending(CRASH, follows=True), 0, 0) == 0 for life in lives)
    assert limit.decide(Life(), Ending(CRASH), 0, 0) is None


def test_narrowing_does_not_count():
    limit, life = restarts(3), Life()
    sizes = [(500, 1), (500, 2), (500, 3), (250, 4), (125, 5), (62, 6), (31, 7), (15, 8), (7, 9), (3, 10), (1, 11)]
    assert all(limit.decide(life, Ending(CRASH, failure=each), 0, 0) is not None for each in sizes)


def test_a_handler_that_always_fails_is_too_much_soon_however_its_batches_are_halved():
    """Its waits must not become so long that the limit, which is one of time, is never reached."""
    limit, life, now = restarts(3), Life(), 0.0
    pieces = [(500, 1)]  # as a producer cuts them: sizes, and the deliveries that are to come
    for step in range(100):
        size, deliveries = pieces.pop(0)
        wait = limit.decide(life, Ending(CRASH, failure=(size, deliveries)), now, 0)
        if wait is None:
            assert step > 8
            assert now < 5
            return
        now += wait + 0.001
        if deliveries < 3:
            pieces.insert(0, (size, deliveries + 1))
        elif size > 1:
            pieces[:0] = [(size // 2, deliveries + 1), (size - size // 2, deliveries + 1)]
    raise AssertionError("it went on for ever")


def test_the_wait_does_not_grow_while_a_poison_event_is_narrowed_down():
    limit, life = restarts(3), Life()
    sizes = [(512, 1), (512, 2), (512, 3), (256, 4), (128, 5), (64, 6), (32, 7), (16, 8), (8, 9), (4, 10), (2, 11)]
    waits = [limit.decide(life, Ending(CRASH, failure=each), 0, 0) for each in sizes]
    assert waits[:3] == [0, 0.05, 0.1]
    assert set(waits[3:]) == {0.1}


def test_poison_in_several_batches_at_once_is_not_too_much():
    limit, lives = restarts(3), [Life(), Life(), Life()]
    for size, deliveries in [(500, 1), (500, 2), (500, 3), (250, 4), (125, 5), (62, 6), (31, 7), (15, 8)]:
        for life in lives:
            assert limit.decide(life, Ending(CRASH, failure=(size, deliveries)), 0, 0) is not None


def test_progress_of_others_makes_failures_forgotten_too():
    limit, lives = restarts(3), [Life() for _ in range(20)]
    for life in lives:
        assert limit.decide(life, Ending(CRASH, failure=(500, 1)), 0, 0, moved=True) is not None
    limit = restarts(3)
    assert [limit.decide(Life(), Ending(CRASH), 0, 0, moved=True) for _ in range(4)] == [0, 0, 0, None]


def test_failures_before_progress_are_forgotten_but_crashes_of_other_kinds_are_not():
    limit, life = restarts(3), Life()
    for n in range(100):
        assert limit.decide(life, Ending(CRASH, failure=(500, 1), progressed=True), n * 0.01, 0) is not None
    limit, life = restarts(3), Life()
    for _ in range(3):
        assert limit.decide(life, Ending(CRASH, progressed=True), 0, 0) is not None
    assert limit.decide(life, Ending(CRASH, progressed=True), 0, 0) is None


def test_no_limit_is_no_limit():
    limit, life = restarts(None), Life()
    assert all(limit.decide(life, Ending(CRASH), 0, 0) is not None for _ in range(1000))


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["first", "factor", "most", "jitter", "reset"])
@pytest.mark.parametrize("value", [-1, "1", None, math.nan, True, [1], 1j])
def test_what_is_no_number_of_its_range_is_refused(option, value):
    with pytest.raises(OptionError, match=rf"Backoff: expected option '{option}' to be a number") as caught:
        Backoff(**{option: value})
    assert (caught.value.where, caught.value.option) == ("Backoff", option)
    assert caught.value.got is value


@pytest.mark.parametrize(("option", "value"), [("factor", 0.5), ("jitter", 1.1), ("jitter", math.inf)])
def test_what_is_out_of_range_is_refused(option, value):
    with pytest.raises(OptionError, match=option):
        Backoff(**{option: value})


def test_the_edges_are_allowed():
    Backoff(0, 1, 0, 0, 0)
    Backoff(jitter=1, most=math.inf, reset=math.inf)
    assert Backoff(first=0).delay(1000, 0) == 0
    assert Backoff(factor=1e308).delay(10**6, 0) == 30
