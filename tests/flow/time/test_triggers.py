"""Triggers, one by one and composed, without windows."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from headgate.flow import triggers


def after(trigger, events, now=0.0):
    """The numbers of the events with which it fires, each given alone; and what they are called."""
    state = trigger.begin(now)
    fired = [(number, state.added(1, now)) for number in range(1, events + 1)]
    return [(number, answer[0]) for number, answer in fired if answer is not None]


def numbers(trigger, events):
    return [number for number, _ in after(trigger, events)]


def test_every():
    assert after(triggers.every(3), 10) == [(3, ("every", 3)), (6, ("every", 3)), (9, ("every", 3))]
    assert numbers(triggers.every(1), 3) == [1, 2, 3]


def test_any_of_goes_by_each_of_its_parts():
    assert numbers(triggers.any_of(triggers.every(3), triggers.every(4)), 12) == [3, 4, 6, 8, 9, 12]
    assert after(triggers.any_of(triggers.every(4), triggers.every(2)), 4) == [(2, ("every", 2)), (4, ("every", 4))]


def test_repeat_begins_anew():
    assert numbers(triggers.repeat(triggers.any_of(triggers.every(3), triggers.every(4))), 12) == [3, 6, 9, 12]
    assert numbers(triggers.repeat(triggers.every(2), times=3), 12) == [2, 4, 6]


def test_once():
    assert numbers(triggers.once(triggers.every(2)), 12) == [2]
    assert numbers(triggers.any_of(triggers.once(triggers.every(1)), triggers.every(5)), 12) == [1, 5, 10]


def test_all_of_waits_for_all():
    assert numbers(triggers.all_of(triggers.every(2), triggers.every(5)), 20) == [5, 10, 15, 20]
    assert numbers(triggers.all_of(triggers.every(4), triggers.every(3)), 12) == [4, 8, 12]
    state = triggers.all_of(triggers.every(2), triggers.periodically(10, accumulator="reset")).begin(0.0)
    assert state.added(2, 0.0) is None
    assert state.tick(9.0) is None
    assert state.tick(10.0) == (("all", ("every", 2), ("periodically", 10)), "reset")
    assert state.tick(20.0) is None


def test_the_strongest_accumulator_of_those_that_fire_together():
    trigger = triggers.any_of(triggers.every(2), triggers.every(4, accumulator="reset"))
    state = trigger.begin(0.0)
    assert [state.added(1, 0.0) for _ in range(4)] == [None, (("every", 2), "keep"), None, (("every", 2), "reset")]


def test_periods_are_those_of_the_window_and_only_those_with_events():
    state = triggers.periodically(10).begin(5.0)
    assert state.deadline() == math.inf
    state.added(1, 7.0)
    assert state.deadline() == 15.0
    state.added(1, 8.0)
    assert state.tick(14.9) is None
    assert state.tick(15.0) == (("periodically", 10), "keep")
    assert state.deadline() == math.inf
    state.added(1, 48.0)
    assert state.deadline() == 55.0
    assert state.tick(99.0) is not None
    state.added(1, 99.0)
    assert state.deadline() == 105.0


def test_on_watermark_before_and_after():
    trigger = triggers.on_watermark(early=triggers.every(2), late=triggers.every(3, accumulator="reset"))
    state = trigger.begin(0.0)
    assert state.room() == 2
    assert [state.added(1, 0.0) for _ in range(3)] == [None, (("every", 2), "keep"), None]
    assert state.passed(0.0) == ("watermark", "keep")
    assert state.room() == 3
    assert [state.added(1, 0.0) for _ in range(3)] == [None, None, (("every", 3), "reset")]


def test_what_is_repeated_after_the_watermark_is_after_it():
    state = triggers.repeat(triggers.on_watermark(late=triggers.every(2))).begin(0.0)
    assert state.added(5, 0.0) is None
    assert state.passed(0.0) == ("watermark", "keep")
    assert [state.added(1, 0.0) is not None for _ in range(5)] == [False, True, False, True, False]


trees = st.recursive(
    st.one_of(
        st.builds(triggers.every, st.integers(1, 6)),
        st.builds(triggers.periodically, st.integers(1, 9)),
        st.builds(triggers.on_watermark),
    ),
    lambda parts: st.one_of(
        st.lists(parts, min_size=1, max_size=3).map(lambda it: triggers.any_of(*it)),
        st.lists(parts, min_size=1, max_size=3).map(lambda it: triggers.all_of(*it)),
        st.builds(triggers.repeat, parts, st.one_of(st.none(), st.integers(1, 3))),
        st.builds(lambda early, late: triggers.on_watermark(early=early, late=late), parts, parts),
    ),
    max_leaves=6,
)


class Plain:
    """What triggers mean, as a function of all that has happened to the window: slow, and without any state."""

    @staticmethod
    def fires(trigger, history):
        """Whether it fires with the last of (what, now)s; the first is when the window begins."""
        kind = type(trigger).__name__
        return getattr(Plain, kind.lower())(trigger, history)

    @staticmethod
    def every(trigger, history):
        events = sum(what == "event" for what, _ in history)
        return history[-1][0] == "event" and events % trigger.count == 0

    @staticmethod
    def onwatermark(trigger, history):
        place = next((place for place, (what, _) in enumerate(history) if what == "pass"), None)
        if place is None:
            return trigger.early is not None and Plain.fires(trigger.early, history)
        if place == len(history) - 1:
            return True
        since = [("begin", history[place][1]), *history[place + 1 :]]
        return trigger.late is not None and Plain.fires(trigger.late, since)

    @staticmethod
    def anyof(trigger, history):
        return any(Plain.fires(part, history) for part in trigger.parts)

    @staticmethod
    def allof(trigger, history):
        fired, now = set(), False
        for end in range(2, len(history) + 1):
            fired |= {n for n, part in enumerate(trigger.parts) if Plain.fires(part, history[:end])}
            now = len(fired) == len(trigger.parts)
            if now:
                fired = set()
        return now

    @staticmethod
    def repeat(trigger, history):
        begin, times, now, past = 0, 0, False, False
        for end in range(2, len(history) + 1):
            what = history[end - 1][0]
            part = [history[0] if not begin else ("begin", history[begin][1])]
            part += [("pass", history[begin][1])] if begin and past else []
            part += history[begin + 1 : end]
            past = past or what == "pass"
            alive = trigger.times is None or times < trigger.times
            now = alive and len(part) > 1 and Plain.fires(trigger.part, part)
            if now:
                begin, times = end - 1, times + 1
        return now


counting = st.recursive(
    st.one_of(st.builds(triggers.every, st.integers(1, 4)), st.builds(triggers.on_watermark)),
    lambda parts: st.one_of(
        st.lists(parts, min_size=1, max_size=3).map(lambda it: triggers.any_of(*it)),
        st.lists(parts, min_size=1, max_size=3).map(lambda it: triggers.all_of(*it)),
        st.builds(triggers.repeat, parts, st.one_of(st.none(), st.integers(1, 3))),
        st.builds(lambda early, late: triggers.on_watermark(early=early, late=late), parts, parts),
    ),
    max_leaves=5,
)


@given(counting, st.integers(0, 14), st.integers(0, 14))
def test_composed_triggers_are_what_they_mean(trigger, before, later):
    history = [("begin", 0)] + [("event", 0)] * before + [("pass", 0)] + [("event", 0)] * later
    state = trigger.begin(0.0)
    for end in range(2, len(history) + 1):
        what = history[end - 1][0]
        answer = state.passed(0.0) if what == "pass" else state.added(1, 0.0)
        assert (answer is not None) == Plain.fires(trigger, history[:end]), history[:end]


@given(trees, st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_it_never_waits_for_less_than_it_says(trigger, steps):
    """Within its room it does not fire; before its deadline neither; after a tick the deadline lies ahead."""
    state = trigger.begin(0.0)
    now = 0.0
    for events, seconds in steps:
        for _ in range(events):
            room = state.room()
            assert room >= 1
            if room > 1:
                assert state.added(1, now) is None
            else:
                state.added(1, now)
        now += seconds
        if now < state.deadline():
            assert state.tick(now) is None
        else:
            state.tick(now)
        assert state.deadline() > now
