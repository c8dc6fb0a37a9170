"""Windows against models that go event by event and look at everything."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.flow import triggers, watermarks, windows
from headgate.flow.panes import Reduce
from headgate.flow.windowing import Windowing
from tests.flow.time.helpers import COUNT, LIST, split
from tests.flow.time.models import Grid, GridModel, Marks, SessionModel

pytestmark = pytest.mark.slow

PLAIN_LIST = Reduce(list, lambda acc, event: [*acc, event])  # cannot combine: no slices
FOLDED = Reduce(list, lambda acc, event: [*acc, event], fold=lambda acc, events: acc + events)

times = st.integers(-30, 60)
events = st.lists(st.tuples(times, st.sampled_from("ab")), max_size=40)
lateness = st.integers(0, 12)
bounds = st.integers(0, 12)


def numbered(pairs):
    """(time, key, a number of its own) for each event."""
    return [(time, key, number) for number, (time, key) in enumerate(pairs)]


def content(results):
    """Results of an engine, as those of a model."""
    return Counter(
        (window.start, window.end, key, tuple(number for _, _, number in acc)) for window, key, acc in results
    )


def sorted_content(results):
    return Counter((start, end, key, tuple(sorted(values))) for start, end, key, values in results)


GRIDS = st.one_of(
    st.tuples(st.integers(1, 20), st.integers(-7, 25)).map(lambda it: (it[0], it[0], it[1])),
    st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(-3, 3)).map(lambda it: (it[0] * it[1], it[0], it[2])),
    st.tuples(st.integers(1, 12), st.integers(0, 12), st.integers(-3, 3)).map(lambda it: (it[0] + it[1], it[0], it[2])),
)


def grid_spec(size, every, offset, **options):
    if size == every:
        return windows.fixed(size, by=0, offset=offset, **options)
    return windows.sliding(size, every, by=0, offset=offset, **options)


def make_both(kind, size, options, marks) -> tuple[Any, Any]:
    """A description and its model."""
    if kind == "fixed":
        return windows.fixed(size, by=0, **options), GridModel(Grid(size, size), options["allowed_lateness"], marks)
    if kind == "sliding":
        far = 2 * size + 1
        return windows.sliding(far, size, by=0, **options), GridModel(
            Grid(far, size), options["allowed_lateness"], marks
        )
    return windows.session(size, by=0, **options), SessionModel(size, options["allowed_lateness"], marks)


def drive(engine, model, batches, marks):
    """Give the same to both: batches of (source, events)."""
    out = []
    for source, batch in batches:
        out += engine.add(batch, source, 0.0)
        for time, key, number in batch:
            model.event(time, key, number)
            marks.event(source, time, 0.0)
            model.close()
    engine_late = [number for _, _, number in engine.take_late()]
    out += engine.done(0.0)
    model.close(float("inf"))
    return out, engine_late


@given(events, st.lists(st.integers(1, 9)), GRIDS, lateness, bounds, st.sampled_from([LIST, PLAIN_LIST, FOLDED]))
def test_fixed_and_sliding_windows_are_those_of_the_model(pairs, sizes, grid, late, bound, reduce):
    spec = grid_spec(*grid, allowed_lateness=late, watermark=watermarks.out_of_order(bound))
    engine = Windowing(spec, reduce, key=1, keep_late=True)
    marks = Marks(bound)
    model = GridModel(Grid(*grid), late, marks)
    batches = [("s", batch) for batch in split(sizes, numbered(pairs))]
    out, engine_late = drive(engine, model, batches, marks)
    sliced = reduce is LIST and grid[0] != grid[1]  # slices are put together in order of time, not of coming
    if sliced:
        out = [(window, key, sorted(acc, key=lambda event: event[2])) for window, key, acc in out]
        expected = sorted_content(model.results)
    else:
        expected = Counter(model.results)
    assert content(out) == expected
    assert engine_late == model.late
    statistics = engine.statistics()
    assert statistics.late == len(model.late)
    assert statistics.clipped == model.clipped
    assert statistics.events == len(pairs)
    assert statistics.accumulators == 0


@given(events, st.lists(st.integers(1, 9)), st.integers(1, 15), lateness, bounds)
def test_sessions_are_those_of_the_model(pairs, sizes, gap, late, bound):
    spec = windows.session(gap, by=0, allowed_lateness=late, watermark=watermarks.out_of_order(bound))
    engine = Windowing(spec, LIST, key=1, keep_late=True)
    marks = Marks(bound)
    model = SessionModel(gap, late, marks)
    out, engine_late = drive(engine, model, [("s", batch) for batch in split(sizes, numbered(pairs))], marks)
    out = [(window, key, sorted(acc, key=lambda event: event[2])) for window, key, acc in out]
    assert content(out) == Counter(model.results)
    assert engine_late == model.late
    assert engine.statistics().accumulators == 0


@given(
    st.lists(st.tuples(times, st.sampled_from("ab"), st.one_of(st.none(), times)), max_size=30),
    st.lists(st.integers(1, 9)),
    st.sampled_from(["fixed", "sliding", "session"]),
    st.integers(1, 9),
    lateness,
)
def test_a_watermark_that_events_tell_may_be_beyond_their_own_times(triples, sizes, kind, size, late):
    """An event is not late by what it says itself, but by what those before it have said."""
    options: dict[str, Any] = {"allowed_lateness": late, "watermark": watermarks.told(lambda event: event[3])}
    marks = Marks(0)
    spec, model = make_both(kind, size, options, marks)
    engine = Windowing(spec, LIST if kind == "session" else PLAIN_LIST, key=1, keep_late=True)
    out = []
    for batch in split(sizes, [(time, key, number, mark) for number, (time, key, mark) in enumerate(triples)]):
        out += engine.add(batch, "s")
        for time, key, number, mark in batch:
            model.event(time, key, number)
            marks.event("s", -float("inf") if mark is None else mark, 0.0)
            model.close()
        assert len(out) == len(model.results)
    assert [event[2] for event in engine.take_late()] == model.late
    out += engine.done(0.0)
    model.close(float("inf"))
    out = [(window, key, sorted((event[:3] for event in acc), key=lambda event: event[2])) for window, key, acc in out]
    assert content(out) == sorted_content(model.results)


operations = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"), st.sampled_from("xyz"), st.lists(st.tuples(times, st.sampled_from("ab")), max_size=6)
        ),
        st.tuples(st.just("idle"), st.sampled_from("xyz")),
        st.tuples(st.just("end"), st.sampled_from("xyz")),
        st.tuples(st.just("tick"), st.integers(0, 8)),
    ),
    max_size=25,
)


@given(operations, st.sampled_from(["fixed", "sliding", "session"]), st.integers(1, 9), lateness, bounds)
def test_many_sources_some_of_them_idle(steps, kind, size, late, bound):
    """Model and engine are given the same, in the same order, and have the same at every step."""
    options = {"allowed_lateness": late, "watermark": watermarks.out_of_order(bound), "idle_after": 7}
    marks = Marks(bound, idle_after=7)
    spec, model = make_both(kind, size, options, marks)
    engine = Windowing(spec, LIST if kind == "session" else PLAIN_LIST, key=1, keep_late=True)
    now, number, out, gone = 0.0, 0, [], set()
    for source in "xyz":
        engine.open(source, now)
        marks.open(source, now)
    for step, *arguments in steps:
        source = arguments[0]
        if step == "add" and source not in gone:
            batch = [(time, key, number + index) for index, (time, key) in enumerate(arguments[1])]
            number += len(batch)
            out += engine.add(batch, source, now)
            for time, key, its in batch:
                model.event(time, key, its)
                marks.event(source, time, now)
                model.close()
            if not batch:
                marks.tick(now)
        elif step == "idle" and source not in gone:
            out += engine.idle(source, now)
            marks.idle(source, now)
        elif step == "end":
            gone.add(source)
            out += engine.end(source, now)
            marks.end(source)
        elif step == "tick":
            now += source
            out += engine.tick(now)
            marks.tick(now)
        model.close()
        assert engine.watermark == (None if marks.value == -float("inf") else marks.value)
        assert len(out) == len(model.results)
        assert engine.statistics().accumulators == len(model.open)
    late_events = [its for _, _, its in engine.take_late()]
    out += engine.done(now)
    model.close(float("inf"))
    out = [(window, key, sorted(acc, key=lambda event: event[2])) for window, key, acc in out]
    assert content(out) == sorted_content(model.results)
    assert late_events == model.late


@st.composite
def permuted_within(draw, kinds=("fixed", "sliding", "session")):
    """Events in two orders, in both of which none is more than a bound behind the newest before it."""
    bound = draw(st.integers(0, 15))
    base = sorted(draw(st.lists(times, max_size=40)))
    orders = []
    for _ in range(2):
        jitter = [time + draw(st.integers(0, bound)) for time in base]
        orders.append([time for _, time in sorted(zip(jitter, base, strict=True), key=lambda pair: pair[0])])
    return bound, orders, draw(st.sampled_from(kinds))


@given(permuted_within(), st.integers(0, 15), st.lists(st.integers(1, 7)), st.integers(1, 12))
def test_order_within_what_is_allowed_makes_no_difference(drawn, share, sizes, size):
    """How the slack is shared between the bound and the allowed lateness makes none either."""
    slack, orders, kind = drawn
    bound = min(share, slack)
    results = []
    for order, batches in zip(orders, ([1] * 40, sizes), strict=True):
        options = {"watermark": watermarks.out_of_order(bound), "allowed_lateness": slack - bound}
        spec = {
            "fixed": windows.fixed(size, by=0, **options),
            "sliding": windows.sliding(3 * size, size, by=0, **options),
            "session": windows.session(size, by=0, **options),
        }[kind]
        engine = Windowing(spec, COUNT, key=1)
        out = []
        for batch in split(batches, [(time, time % 2) for time in order]):
            out += engine.add(batch, "s", 0.0)
        out += engine.done(0.0)
        assert engine.statistics().late == 0
        results.append(Counter(out))
    assert results[0] == results[1]


leaves = st.one_of(
    st.builds(triggers.every, st.integers(1, 5), accumulator=st.sampled_from(["keep", "reset"])),
    st.builds(triggers.on_watermark, accumulator=st.sampled_from(["keep", "reset"])),
)
trees = st.recursive(
    leaves,
    lambda parts: st.one_of(
        st.lists(parts, min_size=1, max_size=3).map(lambda it: triggers.any_of(*it)),
        st.lists(parts, min_size=1, max_size=3).map(lambda it: triggers.all_of(*it)),
        st.builds(triggers.repeat, parts, st.one_of(st.none(), st.integers(1, 3))),
        st.builds(
            lambda early, late: triggers.on_watermark(early=early, late=late),
            st.one_of(st.none(), parts),
            st.one_of(st.none(), parts),
        ),
    ),
    max_leaves=5,
)


@given(events, st.lists(st.integers(1, 9)), GRIDS, lateness, bounds, trees)
def test_how_events_are_batched_makes_no_difference_to_any_trigger(pairs, sizes, grid, late, bound, trigger):
    """Of each key in each window, the same firings with the same content in the same order."""
    seen = []
    for batches in ([1] * len(pairs), sizes):
        options = {"allowed_lateness": late, "watermark": watermarks.out_of_order(bound), "trigger": trigger}
        engine = Windowing(
            grid_spec(*grid, **options),
            PLAIN_LIST,
            key=1,
            emit=lambda window, firing, accs: [(window, firing, key, tuple(acc)) for key, acc in accs.items()],
        )
        out = []
        for batch in split(batches, numbered(pairs)):
            out += engine.add(batch, "s", 0.0)
        out += engine.done(0.0)
        panes: dict[Any, Any] = {}
        for window, firing, key, acc in out:
            panes.setdefault((window, key), []).append((firing, acc))
        seen.append((panes, engine.statistics().late, engine.statistics().firings))
    assert seen[0] == seen[1]


@given(events, st.lists(st.integers(1, 9)), st.integers(1, 12), lateness, bounds, trees)
def test_how_events_are_batched_makes_no_difference_to_sessions_with_triggers(pairs, sizes, gap, late, bound, trigger):
    """Sessions that become one, with triggers that have counted; and what is given at the end is everything."""
    seen = []
    for batches in ([1] * len(pairs), sizes):
        spec = windows.session(
            gap, by=0, allowed_lateness=late, watermark=watermarks.out_of_order(bound), trigger=trigger
        )
        engine = Windowing(
            spec, LIST, key=1, on_trigger=lambda key, acc, window, firing: ([(window, key, firing, tuple(acc))], acc)
        )
        out = []
        for batch in split(batches, numbered(pairs)):
            out += engine.add(batch, "s", 0.0)
        out += engine.done(0.0)
        statistics = engine.statistics()
        assert sum(len(acc) for _, _, firing, acc in out if firing.name == "done") == len(pairs) - statistics.late
        seen.append((Counter((window, key, firing.name, acc) for window, key, firing, acc in out), statistics.late))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("kind", ["aware", "naive"])
def test_windows_of_datetimes_are_those_of_numbers(kind):
    epoch = datetime(1970, 1, 1, tzinfo=UTC if kind == "aware" else None)
    seconds = [-7200, -3601, -1, 0, 1, 3599, 3600, 10**9]
    counted = Windowing(windows.fixed(3600, by=0), COUNT)
    expected = counted.add([(time,) for time in seconds], 0, 0.0) + counted.done(0.0)
    engine = Windowing(windows.fixed(timedelta(hours=1), by=0), COUNT)
    out = engine.add([(epoch + timedelta(seconds=time),) for time in seconds], 0, 0.0) + engine.done(0.0)
    assert [((w.start - epoch).total_seconds(), (w.end - epoch).total_seconds(), n) for w, _, n in out] == [
        (w.start, w.end, n) for w, _, n in expected
    ]
    assert all(type(window.start) is datetime for window, _, _ in out)
