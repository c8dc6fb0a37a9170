"""A reduce on the mapper's side gives what it gives without."""

from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import OptionError
from headgate.flow import triggers, watermarks, windows
from headgate.flow.combining import Combiner
from headgate.flow.panes import Reduce
from headgate.flow.windowing import Windowing
from tests.flow.time.helpers import COUNT, LIST, SUM, split

times = st.integers(-30, 60)
events = st.lists(st.tuples(times, st.sampled_from("ab")), max_size=40)
kinds = st.sampled_from(["global", "fixed", "sliding", "jagged", "session"])


def spec_of(kind, size, **options):
    makers: dict[str, Any] = {
        "global": windows.global_,
        "fixed": lambda: windows.fixed(size, by=0, **options),
        "sliding": lambda: windows.sliding(3 * size, size, by=0, **options),
        "jagged": lambda: windows.sliding(2 * size + 1, size + 1, by=0, **options),
        "session": lambda: windows.session(size, by=0, **options),
    }
    return makers[kind]()


def content(out, trigger):
    """What each window has told in the end. After the watermark, partials fire where single events would."""
    told: dict[Any, Any] = {}
    for window, key, acc in out:
        kept = [] if trigger is None or trigger.accumulator == "keep" else told.get((window, key), [])
        told[window, key] = sorted(kept + acc)
    return told


@given(
    events,
    st.lists(st.tuples(st.integers(1, 9), st.booleans())),
    kinds,
    st.integers(1, 9),
    st.integers(0, 9),
    st.integers(0, 9),
    st.one_of(st.none(), st.builds(triggers.on_watermark, accumulator=st.sampled_from(["keep", "reset"]))),
)
def test_one_mapper_before_one_reducer_gives_what_the_reducer_gives_alone(
    pairs, steps, kind, size, bound, late, trigger
):
    """Whatever is late is late there too, and how often partials cross makes no difference."""
    options = {"watermark": watermarks.out_of_order(bound), "allowed_lateness": late, "trigger": trigger}
    spec = spec_of(kind, size, **options)
    items = [(time, key, number) for number, (time, key) in enumerate(pairs)]
    alone = Windowing(spec, LIST, key=1)
    expected = []
    for item in items:
        expected += alone.add([item], "mapper", 0.0)
    expected += alone.done(0.0)

    combiner, reducer = Combiner(spec, LIST, key=1), Windowing(spec, LIST, key=1)
    out = []
    for batch, flush in zip(
        split([n for n, _ in steps], items), [flush for _, flush in steps] + [True] * 99, strict=False
    ):
        combiner.add(batch, "source", 0.0)
        if flush:
            for segment in combiner.flush():
                out += reducer.merge(pickle.loads(pickle.dumps(segment)), "mapper", 0.0)
            assert len(combiner) == 0
            assert reducer.watermark == combiner.watermark
    for segment in combiner.flush():
        out += reducer.merge(segment, "mapper", 0.0)
    out += reducer.done(0.0)
    assert content(out, trigger) == content(expected, trigger)
    assert trigger is not None or len(out) == len(expected)
    if alone.statistics().late:
        assert reducer.statistics().late_partials


@given(st.lists(events, min_size=1, max_size=4), kinds, st.integers(1, 9), st.randoms(use_true_random=False))
def test_many_mappers_before_many_reducers_over_bounded_input(parts, kind, size, random):
    spec = spec_of(kind, size)
    whole = Windowing(spec, COUNT, key=1, bounded=True)
    expected = whole.add([event for part in parts for event in part], 0, 0.0) + whole.done(0.0)
    reducers = {key: Windowing(spec, COUNT, key=1, bounded=True) for key in "ab"}
    out = []
    for number, part in enumerate(parts):
        combiner = Combiner(spec, COUNT, key=1, bounded=True)
        start = 0
        while start < len(part):
            stop = start + random.randint(1, 9)
            combiner.add(part[start:stop], 0, 0.0)
            start = stop
        assert len(combiner) <= 200
        for segment in combiner.flush():
            for key, reducer in reducers.items():
                mine = [partial for partial in segment.partials if partial[1] == key]
                out += reducer.merge(segment._replace(partials=mine), number, 0.0)
    for reducer in reducers.values():
        out += reducer.done(0.0)
    assert Counter(out) == Counter(expected)


def test_a_late_event_does_not_hide_in_a_session_with_one_that_is_not():
    spec = windows.session(2, by=0, allowed_lateness=1, watermark=watermarks.out_of_order(0))
    combiner, reducer = Combiner(spec, COUNT), Windowing(spec, COUNT)
    combiner.add([(3,), (0,), (1,)])
    out = [result for segment in combiner.flush() for result in reducer.merge(segment, 0, 0.0)]
    out += reducer.done(0.0)
    assert [(window.start, window.end, n) for window, _, n in out] == [(1, 3, 1), (3, 5, 1)]
    assert reducer.statistics().late_partials == 1


def test_a_session_of_a_mapper_makes_one_of_those_that_it_overlaps():
    spec = windows.session(4, by=0)
    reducer = Windowing(spec, COUNT, bounded=True)
    for part in ([(1,), (5,), (9,)], [(0,), (2,), (6,)]):
        combiner = Combiner(spec, COUNT, bounded=True)
        combiner.add(part)
        for segment in combiner.flush():
            assert reducer.merge(segment, 0, 0.0) == []
    assert [(window.start, window.end, n) for window, _, n in reducer.done(0.0)] == [(0, 13, 6)]


def test_partials_of_slices_are_merged_after_a_trigger_by_hand_has_undone_the_slices():
    spec = windows.sliding(20, 10, by=0)
    combiner, reducer = Combiner(spec, COUNT, bounded=True), Windowing(spec, COUNT, bounded=True)
    combiner.add([(5,), (15,)])
    out = [segment for segment in combiner.flush() for _ in reducer.merge(segment, 0, 0.0)]
    assert out == []
    fired = reducer.fire("now", 0.0)
    assert [(window.start, n) for window, _, n in fired] == [(-10, 1), (0, 2), (10, 1)]
    combiner.add([(15,), (15,)])
    (segment,) = combiner.flush()
    assert reducer.merge(segment, 0, 0.0) == []
    assert [(window.start, n) for window, _, n in reducer.done(0.0)] == [(0, 4), (10, 3)]


def test_datetimes_and_numbers_do_not_meet():
    spec = windows.fixed(10, by=0)
    combiner, reducer = Combiner(spec, COUNT), Windowing(spec, COUNT)
    combiner.add([(5,)])
    reducer.add([(5.0,)])
    (segment,) = combiner.flush()
    with pytest.raises(TypeError, match="expected times that are all 'number'"):
        reducer.merge(segment._replace(kind="aware"), 0, 0.0)


@pytest.mark.parametrize(
    ("spec", "reduce", "option"),
    [
        (windows.global_(), SUM, "combine"),
        (
            windows.global_(),
            Reduce(list, lambda acc, event: ([event], acc), combine=list.__add__, emits=True),
            "combine",
        ),
        (windows.count(5), COUNT, "window"),
        (windows.global_(trigger=triggers.every(3)), COUNT, "trigger"),
        (windows.fixed(3, 0, trigger=triggers.on_watermark(early=triggers.every(3))), COUNT, "trigger"),
        (
            windows.global_(trigger=triggers.custom(list, lambda events, state: triggers.Continue(state))),
            COUNT,
            "trigger",
        ),
    ],
)
def test_what_goes_by_single_events_is_not_combined(spec, reduce, option):
    with pytest.raises(OptionError) as caught:
        Combiner(spec, reduce)
    assert caught.value.option == option
