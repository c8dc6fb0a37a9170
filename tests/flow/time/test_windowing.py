"""What windows give, and when: what users rely on, and what Flow's own tests pin."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import HandlerError, OptionError
from headgate.flow import triggers, watermarks, windows
from headgate.flow.panes import Reduce, pairs, values
from headgate.flow.times import ExtractionError
from headgate.flow.windowing import Windowing
from tests.flow.time.helpers import COUNT, LIST, SUM, emptied, named, run

HOUR = 3600
SIZES = [1, 3, 5, 7, 12, 100, 1000]


def said(key, acc, window, firing):
    return [(acc, window.kind, window.id, firing.name)], acc


def reset(key, acc, window, firing):
    return [(acc, window.kind, window.id, firing.name)], 0


# --- the global window ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_global_with_every_ten_kept(size):
    """F139, F143: partial sums by tens, the same in batches of any size; named every 10, the last one done."""
    engine = Windowing(windows.global_(trigger=triggers.every(10)), SUM, on_trigger=said)
    assert run(engine, list(range(1, 101)), size) == [
        (sum(range(1, n + 1)), "global", "global", ("every", 10)) for n in range(10, 101, 10)
    ] + [(5050, "global", "global", "done")]


@pytest.mark.parametrize("size", SIZES)
def test_global_with_every_ten_reset(size):
    """F140: sums of ten each, and nothing at the end."""
    engine = Windowing(windows.global_(trigger=triggers.every(10)), SUM, on_trigger=reset)
    assert [sums for sums, *_ in run(engine, list(range(1, 101)), size)] == [
        *(sum(range(n, n + 10)) for n in range(1, 101, 10)),
        0,
    ]


@pytest.mark.parametrize("size", SIZES)
def test_reset_without_a_hook_gives_what_is_new_and_not_what_is_not(size):
    engine = Windowing(windows.global_(trigger=triggers.every(10, accumulator="reset")), SUM, emit=values)
    assert run(engine, list(range(1, 26)), size) == [55, 155, 115]
    assert run(engine, list(range(1, 21)), size) == [55, 155]


def test_keep_without_a_hook_does_not_say_the_same_twice():
    engine = Windowing(windows.global_(trigger=triggers.every(10)), SUM, emit=values)
    assert run(engine, list(range(1, 21)), 4) == [55, 210]


@pytest.mark.parametrize("size", SIZES)
def test_mappers_of_the_stage_can_come_after_the_trigger(size):
    """F142: the trigger counts raw events; what the step makes of them is its own affair."""
    odd = Reduce(int, lambda acc, event: acc + event + 1 if event % 2 == 0 else acc)
    engine = Windowing(windows.global_(trigger=triggers.every(10)), odd, on_trigger=reset)
    out = run(engine, list(range(1, 101)), size)
    assert len(out) == 11
    assert sum(acc for acc, *_ in out) == sum(event + 1 for event in range(2, 101, 2))


def test_a_periodic_trigger_fires_while_more_is_to_come():
    """F144, FL-067: every so many seconds of processing time; but only if there is something new."""
    engine = Windowing(windows.global_(trigger=triggers.periodically(0.1)), SUM, on_trigger=said)
    assert engine.deadline() == float("inf")
    assert engine.add([1, 2, 3], now=5.0) == []
    assert engine.deadline() == pytest.approx(5.1)
    assert engine.tick(5.05) == []
    assert engine.tick(5.1) == [(6, "global", "global", ("periodically", 0.1))]
    assert engine.deadline() == float("inf")
    assert engine.tick(9.0) == []
    assert engine.add([4], now=9.03) == []
    assert engine.deadline() == pytest.approx(9.1)  # the periods go on as they began
    assert [acc for acc, *_ in engine.tick(engine.deadline())] == [10]
    assert [acc for acc, *_ in engine.done(10.0)] == [10]


def test_a_periodic_trigger_has_nothing_to_say_when_another_one_has_said_it():
    trigger = triggers.any_of(triggers.every(2), triggers.periodically(10))
    engine = Windowing(windows.global_(trigger=trigger), SUM, on_trigger=said)
    assert engine.add([1, 2], now=0.0) == [(3, "global", "global", ("every", 2))]
    assert engine.tick(10.0) == []
    engine.add([3], now=11.0)
    assert engine.tick(20.0) == [(6, "global", "global", ("periodically", 10))]


def test_a_timer_by_hand():
    """F154, F167, FL-068: any name, at any time, with or without a trigger."""
    engine = Windowing(windows.global_(), SUM, on_trigger=said)
    assert engine.add([1, 2]) == []
    assert engine.fire("sample", 0.0) == [(3, "global", "global", "sample")]
    assert engine.add([3]) == []
    assert run(engine, [4]) == [(10, "global", "global", "done")]


def test_a_timer_by_hand_that_resets():
    engine = Windowing(windows.fixed(10, by=0), COUNT, key=1, emit=pairs, bounded=True)
    engine.add([(1, "a"), (2, "a"), (11, "b")])
    assert engine.fire("now", 0.0, "reset") == [("a", 2), ("b", 1)]
    assert engine.fire("now", 0.0, "reset") == []
    engine.add([(3, "a")])
    assert engine.done(0.0) == [("a", 1)]
    with pytest.raises(OptionError):
        engine.fire("now", 0.0, "discard")


def test_the_global_window_is_there_without_events_and_with_keys_is_not():
    assert Windowing(windows.global_(), SUM, emit=values).done(0.0) == [0]
    assert Windowing(windows.global_(trigger=triggers.every(3)), SUM, emit=values).done(0.0) == [0]
    assert Windowing(windows.global_(), SUM, key=0, emit=values).done(0.0) == []
    assert Windowing(windows.fixed(1, by=0), SUM, emit=values).done(0.0) == []


def test_what_is_emitted_before_a_trigger_comes_before_it():
    """FL-069, the other way round: in the order in which it happened."""
    both = Reduce(int, lambda acc, event: ([f"saw {event}"], acc + event), emits=True)
    engine = Windowing(windows.global_(trigger=triggers.every(2)), both, emit=values)
    assert run(engine, [1, 2, 3]) == ["saw 1", "saw 2", 3, "saw 3", 6]


def test_emit_and_reduce_with_keys_and_without_a_trigger():
    """F023: what the step emits, and what is left at the end."""
    uniq = Reduce(set, lambda acc, event: ([] if event in acc else [event], acc | {event}), emits=True)
    engine = Windowing(windows.fixed(10, by=0), uniq, key=1, bounded=True, emit=lambda *_: ())
    assert run(engine, [(1, "a"), (1, "a"), (1, "b"), (11, "a"), (11, "a"), (1, "a")], 4) == [
        (1, "a"),
        (1, "b"),
        (11, "a"),
    ]


# --- custom triggers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_a_moving_trigger(size):
    """F136: overlapping pairs, and nothing of the last one that is alone."""

    def moving(events, before):
        events = before + events
        if len(events) >= 2:
            return triggers.Fire("moving", events[:2], events[1:], [])
        return triggers.Continue(events, [])

    spec = windows.global_(trigger=triggers.custom(list, moving))
    engine = Windowing(spec, LIST, on_trigger=emptied)
    out = run(engine, [1, 2, 3, 4], size)
    assert out[:-1] == [("global", "moving", [1, 2]), ("global", "moving", [2, 3]), ("global", "moving", [3, 4])]
    assert out[-1] == ("global", "done", [])


def test_a_custom_trigger_may_give_other_events():
    """F137."""
    spec = windows.global_(
        trigger=triggers.custom(int, lambda events, seen: triggers.Continue(seen, [0] * len(events)))
    )
    assert run(Windowing(spec, LIST, emit=values), [1, 2, 3]) == [[0, 0, 0]]


def test_a_custom_trigger_that_never_stops_or_says_nonsense_is_named():
    for answer in (triggers.Fire("x", [], [1], 0), "fire", None, triggers.Fire("x", [], [], 0, "discard")):
        spec = windows.global_(trigger=triggers.custom(int, lambda *_, answer=answer: answer))
        with pytest.raises(HandlerError, match=r"triggers\.custom"):
            Windowing(spec, LIST).add([1])


# --- count windows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_two_count_windows(size):
    """F155, F157, FL-061: the empty one after them comes if it is asked for."""
    for fill, more in ((False, []), (True, [(0, "count", 2, "done")])):
        engine = Windowing(windows.count(50, fill=fill), SUM, on_trigger=said)
        assert run(engine, list(range(1, 101)), size) == [
            (1275, "count", 0, "done"),
            (3775, "count", 1, "done"),
            *more,
        ]


@pytest.mark.parametrize("size", SIZES)
def test_every_twelve_in_two_count_windows(size):
    """F156, F158, F152: the trigger begins anew in each window."""
    engine = Windowing(windows.count(50, trigger=triggers.every(12)), SUM, on_trigger=said)
    expected: list[Any] = []
    for number, first in ((0, 1), (1, 51)):
        expected += [(sum(range(first, first + n)), "count", number, ("every", 12)) for n in (12, 24, 36, 48)]
        expected.append((sum(range(first, first + 50)), "count", number, "done"))
    assert run(engine, list(range(1, 101)), size) == expected


def test_count_windows_of_each_key():
    engine = Windowing(windows.count(2), LIST, key=lambda event: event % 3, on_trigger=named)
    assert run(engine, [0, 1, 3, 4, 2, 6, 5]) == [
        (0, 0, "done", [0, 3]),
        (0, 1, "done", [1, 4]),
        (0, 2, "done", [2, 5]),
        (1, 0, "done", [6]),
    ]


def test_a_periodic_trigger_and_one_by_hand_in_a_count_window():
    """F153, F154."""
    engine = Windowing(windows.count(5, trigger=triggers.periodically(1)), SUM, on_trigger=said)
    engine.add([1, 2], now=0.0)
    assert engine.tick(1.0) == [(3, "count", 0, ("periodically", 1))]
    assert engine.fire("hand", 1.5) == [(3, "count", 0, "hand")]
    assert engine.add([3, 4, 5, 6], now=1.5) == [(15, "count", 0, "done")]
    assert engine.deadline() == 2.5  # the new window's own
    assert engine.done(2.0) == [(6, "count", 1, "done")]


# --- windows of processing time ---------------------------------------------------------------------------------------


def test_periodic_windows_close_by_the_clock():
    """FL-062, F160: numbered from when the worker began; triggers count within each."""
    engine = Windowing(windows.periodic(10, trigger=triggers.every(2)), SUM, on_trigger=said, now=100.0)
    assert engine.add([1, 2, 3], now=101.0) == [(3, "periodic", 0, ("every", 2))]
    assert engine.deadline() == 110.0
    assert engine.tick(110.0) == [(6, "periodic", 0, "done")]
    assert engine.deadline() == float("inf")
    assert engine.add([4], now=135.0) == []
    assert engine.add([5], now=140.0) == [(4, "periodic", 3, "done")]
    assert engine.done(140.0) == [(5, "periodic", 4, "done")]


def test_periodic_windows_begin_with_the_worker_unless_it_is_said_when():
    for begin in (lambda engine: engine.open("a", 1000.0), lambda engine: engine.add([1], "a", 1000.0)):
        engine = Windowing(windows.periodic(10), COUNT, emit=lambda w, f, accs: [w.id])
        begin(engine)
        engine.add([2], "a", 1011.0)
        assert engine.deadline() == 1020.0
        assert engine.done(1011.0) == [1]


@given(st.floats(0, 1e6), st.floats(0.001, 100), st.lists(st.floats(0, 1000), max_size=5))
def test_a_tick_at_the_deadline_is_never_too_early(begin, period, waits):
    """Whoever waits for the deadline and ticks then gets what is due, whatever the last bit of a float says."""
    trigger = triggers.periodically(period / 3)
    periodic = Windowing(windows.periodic(period, trigger=trigger), COUNT)
    timed = Windowing(windows.fixed(10, by=0, idle_after=period, trigger=trigger), COUNT)
    now = begin
    for wait in [0.0, *waits]:
        now += wait
        for engine in (periodic, timed):
            engine.add([(1,)], "a", now)
            for _ in range(3):
                deadline = engine.deadline()
                if deadline < float("inf"):
                    engine.tick(deadline)
                    assert engine.deadline() > deadline
                    now = max(now, deadline)


def test_empty_periodic_windows_on_request():
    engine = Windowing(
        windows.periodic(timedelta(seconds=10), fill=3), SUM, emit=lambda w, f, accs: [(w.id, *accs.values())]
    )
    engine.add([1], now=0.0)
    engine.add([2], now=35.0)
    assert engine.add([3], now=99.0) == [(1, 0), (2, 0), (3, 2)]
    assert engine.done(99.0) == [(9, 3)]  # five empty ones in a row are too many


# --- windows of event time --------------------------------------------------------------------------------------------

EARLY, LATER, AFTER = range(1, 41), range(41, 81), range(81, 101)
UNORDERED = [(0, n) for n in EARLY] + [(2 * HOUR, n) for n in LATER] + [(0, n) for n in AFTER]
SECOND = Reduce(int, lambda acc, event: acc + event[1])


@pytest.mark.parametrize("size", SIZES)
def test_two_ordered_windows(size):
    """F168, F170: sums of both at their starts."""
    items = [(0 if n <= 50 else HOUR, n) for n in range(1, 101)]
    engine = Windowing(windows.fixed(HOUR, by=0), SECOND, on_trigger=said)
    assert run(engine, items, size) == [(1275, "fixed", 0, "done"), (3775, "fixed", HOUR, "done")]


@pytest.mark.parametrize("size", SIZES)
def test_every_twelve_in_two_ordered_windows(size):
    """F169, F171: there the first closes before or after the second fires, by the size of batches; here before."""
    items = [(0 if n <= 50 else HOUR, n) for n in range(1, 101)]
    engine = Windowing(windows.fixed(HOUR, by=0, trigger=triggers.any_of(triggers.every(12))), SECOND, on_trigger=said)
    out = run(engine, items, size)
    for start, first in ((0, 1), (HOUR, 51)):
        assert [one for one in out if one[2] == start] == [
            *((sum(range(first, first + n)), "fixed", start, ("every", 12)) for n in (12, 24, 36, 48)),
            (sum(range(first, first + 50)), "fixed", start, "done"),
        ]


@pytest.mark.parametrize("size", SIZES)
def test_what_comes_too_late_is_late_whatever_the_size_of_batches(size):
    """F173, F175, F178, FL-078: 820 in any batches, where Flow says 2630 in large ones; told, not dropped silently."""
    spec = windows.fixed(HOUR, by=0, watermark=watermarks.out_of_order(0))
    engine = Windowing(spec, SECOND, on_trigger=said, keep_late=True)
    assert run(engine, UNORDERED, size) == [(820, "fixed", 0, "done"), (2420, "fixed", 2 * HOUR, "done")]
    assert engine.take_late() == [(0, n) for n in AFTER]
    assert engine.take_late() == []
    assert engine.late_count == engine.statistics().late == 20


@pytest.mark.parametrize("size", SIZES)
def test_the_empty_window_between_on_request(size):
    """F173, FL-077: as Flow has it, if it is wanted."""
    spec = windows.fixed(HOUR, by=0, fill=1)
    engine = Windowing(spec, SECOND, emit=values)
    assert run(engine, UNORDERED, size) == [820, 0, 2420]


def test_a_gap_of_a_year_makes_no_storm():
    """W54: with windows of a second, two; with filling, still two as that is bounded."""
    for fill in (0, 1000):
        engine = Windowing(windows.fixed(1, by=0, fill=fill), SECOND, emit=values)
        assert run(engine, [(0, 1), (365 * 24 * HOUR, 2)]) == [1, 2]


@pytest.mark.parametrize("size", SIZES)
def test_bounded_input_in_any_order_has_nothing_late(size):
    engine = Windowing(windows.fixed(HOUR, by=0), SECOND, emit=values, bounded=True)
    assert run(engine, UNORDERED, size) == [2630, 2420]
    assert engine.late_count == 0


@pytest.mark.parametrize("size", SIZES)
def test_lateness_with_one_result(size):
    """F182, FL-081: without a trigger the window gives once, when it closes: no duplicates (W52)."""
    engine = Windowing(windows.fixed(HOUR, by=0, allowed_lateness=2 * HOUR), SECOND, emit=values)
    assert run(engine, UNORDERED, size) == [2630, 2420]


@pytest.mark.parametrize("size", SIZES)
def test_lateness_with_a_result_at_the_watermark(size):
    """F182, F184: watermark first, then what late data made of it; in batches of any size as there in small ones."""
    spec = windows.fixed(HOUR, by=0, allowed_lateness=2 * HOUR, trigger=triggers.on_watermark())
    engine = Windowing(spec, SECOND, on_trigger=said)
    assert run(engine, [*UNORDERED, (3 * HOUR, 0)], size) == [
        (820, "fixed", 0, "watermark"),
        (2420, "fixed", 2 * HOUR, "watermark"),
        (2630, "fixed", 0, "done"),
        (2420, "fixed", 2 * HOUR, "done"),
        (0, "fixed", 3 * HOUR, "done"),
    ]


@pytest.mark.parametrize("size", SIZES)
def test_early_and_late_firings(size):
    """F183, F185: every twelve before the watermark, every five after it."""
    trigger = triggers.on_watermark(early=triggers.every(12), late=triggers.every(5))
    spec = windows.fixed(HOUR, by=0, allowed_lateness=9 * HOUR, trigger=trigger)
    engine = Windowing(spec, SECOND, on_trigger=said)
    first = [(acc, name) for acc, _, start, name in run(engine, UNORDERED, size) if start == 0]
    assert first == [
        *((sum(range(1, n + 1)), ("every", 12)) for n in (12, 24, 36)),
        (820, "watermark"),
        *((820 + sum(range(81, 81 + n)), ("every", 5)) for n in (5, 10, 15, 20)),
        (2630, "done"),
    ]


def test_a_window_that_comes_after_the_watermark_but_in_time_says_so_at_once():
    """FL-079: dropped by Flow, as it has no state."""
    spec = windows.fixed(1000, by=0, allowed_lateness=3600_000, trigger=triggers.on_watermark())
    engine = Windowing(spec, COUNT, on_trigger=named)
    assert engine.add([(9000,), (3000,)]) == [(3000, None, "watermark", 1)]
    assert engine.add([(3001,)]) == []  # it has said so; more is said at the end
    assert engine.done(0.0) == [(3000, None, "done", 2), (9000, None, "done", 1)]


def test_an_upstream_that_is_ahead_loses_nothing_while_another_is_behind():
    """FL-079: 7 s after 10 s of the same upstream, while the other has sent nothing."""
    engine = Windowing(windows.fixed(1, by=0), COUNT, emit=values)
    for source in "ab":
        engine.open(source, 0.0)
    assert engine.add([(10,)], "a") == []
    assert engine.add([(7,)], "a") == []
    assert engine.add([(12,)], "b") == [1]
    assert engine.done(0.0) == [1, 1]
    assert engine.late_count == 0


def test_an_idle_upstream_does_not_block():
    """FL-076, W51: after the timeout, or as soon as it says so; what it sends later is judged by the watermark."""
    engine = Windowing(windows.fixed(10, by=0, idle_after=30), COUNT, emit=values)
    for source in "ab":
        engine.open(source, 0.0)
    assert engine.add([(5,), (25,)], "a", 10.0) == []
    assert engine.deadline() == 30.0
    assert engine.tick(29.0) == []
    assert engine.tick(30.0) == [1]
    assert engine.statistics().idle_sources == ["b"]
    assert engine.watermark == 25
    assert engine.add([(26,), (5,)], "b", 31.0) == []
    assert (engine.late_count, engine.statistics().idle_sources) == (1, [])
    assert engine.add([(99,)], "a", 32.0) == []  # b counts again
    assert engine.idle("b", 33.0) == [2]
    assert engine.done(40.0) == [1]


def test_an_upstream_that_has_ended_does_not_count():
    engine = Windowing(windows.fixed(10, by=0), COUNT, emit=values)
    for source in "ab":
        engine.open(source, 0.0)
    engine.add([(5,), (25,)], "a")
    assert engine.end("b", 0.0) == [1]
    assert engine.end("a", 0.0) == []
    assert engine.end("never there", 0.0) == []
    assert engine.done(0.0) == [1]


def test_a_watermark_that_travels_with_the_events():
    start = datetime(2026, 1, 1, tzinfo=UTC)
    engine = Windowing(windows.fixed(timedelta(hours=1), by=0, watermark=watermarks.at_end()), COUNT, emit=values)
    engine.add([(start,), (start + timedelta(minutes=59),)], "a")
    assert engine.advance("a", start + timedelta(minutes=59), 0.0) == []
    assert engine.advance("a", None, 0.0) == []
    assert engine.advance("a", start + timedelta(hours=1), 0.0) == [2]
    assert engine.watermark == start + timedelta(hours=1)
    assert engine.advance("a", start, 0.0) == []  # it does not go back
    assert engine.watermark == start + timedelta(hours=1)
    with pytest.raises(TypeError):
        engine.advance("a", 17, 0.0)


def test_a_watermark_before_the_first_event():
    engine = Windowing(windows.fixed(10, by=0), COUNT, emit=values, keep_late=True)
    assert engine.advance("a", 20, 0.0) == []
    assert engine.add([(5,), (15,), (25,)], "a") == []
    assert engine.take_late() == [(5,), (15,)]


def test_sliding_windows():
    """An event is in each window that has it; late for one is not late for all."""
    for reduce in (COUNT, Reduce(int, lambda acc, _: acc + 1)):
        spec = windows.sliding(30, 10, by=0, watermark=watermarks.out_of_order(0))
        engine = Windowing(spec, reduce, emit=lambda w, f, accs: [(w.start, w.end, *accs.values())])
        assert engine.add([(5,), (25,)]) == [(-20, 10, 1), (-10, 20, 1)]
        assert engine.add([(12,)]) == []
        assert engine.statistics().clipped == 1
        assert engine.done(0.0) == [(0, 30, 3), (10, 40, 2), (20, 50, 1)]


def test_sessions_of_each_key():
    spec = windows.session(30, by=0, watermark=watermarks.out_of_order(100))
    engine = Windowing(spec, LIST, key=1, emit=lambda w, f, accs: [(w.start, w.end, *accs.items())])
    batch = [(0, "ann"), (10, "bob"), (29, "ann"), (59, "ann"), (100, "bob"), (70, "bob"), (40, "bob")]
    assert engine.add(batch) == []
    assert engine.statistics().open_windows == 6  # those exactly a gap apart are two
    assert engine.add([(85, "bob")]) == []
    assert engine.statistics().open_windows == 5
    assert [(start, end, key, len(acc)) for start, end, (key, acc) in engine.done(0.0)] == [
        (10, 40, "bob", 1),
        (0, 59, "ann", 2),
        (40, 70, "bob", 1),
        (59, 89, "ann", 1),
        (70, 130, "bob", 3),
    ]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_session_that_has_closed_is_not_joined_by_what_comes_in_the_same_batch(size):
    """17 is before the watermark less the lateness, but a session of its own would be open: it has one of its own."""
    spec = windows.session(5, by=0, allowed_lateness=3, watermark=watermarks.out_of_order(0))
    engine = Windowing(spec, COUNT, emit=lambda w, f, accs: [(w.start, w.end, *accs.values())])
    assert run(engine, [(13,), (21,), (17,)], size) == [(13, 18, 1), (17, 26, 2)]
    engine = Windowing(spec, COUNT, emit=lambda w, f, accs: [(w.start, w.end, *accs.values())])
    assert engine.add([(13,)]) == []
    assert engine.add([(21,), (17,)]) == [(13, 18, 1)]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_sessions_that_become_one_are_put_together_in_order(size):
    engine = Windowing(windows.session(10, by=0), LIST, emit=values, bounded=True)
    assert run(engine, [(0,), (12,), (6,)], size) == [[(0,), (12,), (6,)]]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_sliding_window_that_has_closed_is_not_opened_again(size):
    for trigger in (None, triggers.on_watermark()):
        options: dict[str, Any] = {"allowed_lateness": 3, "watermark": watermarks.out_of_order(0), "trigger": trigger}
        engine = Windowing(windows.sliding(10, 5, by=0, **options), COUNT, on_trigger=named)
        out = run(engine, [(4,), (12,), (9,)], size)
        assert [(start, count) for start, _, name, count in out if name == "done"] == [(-5, 1), (0, 2), (5, 2), (10, 1)]
        assert engine.statistics().clipped == 0
        engine = Windowing(windows.sliding(10, 5, by=0, **options), COUNT, on_trigger=named)
        out = run(engine, [(4,), (17,), (9,)], size)
        assert [(start, count) for start, _, name, count in out if name == "done"] == [
            (-5, 1),
            (0, 1),
            (5, 1),
            (10, 1),
            (15, 1),
        ]
        assert engine.statistics().clipped == 1


def test_a_session_that_grows_after_the_watermark_is_before_it_again():
    spec = windows.session(10, by=0, allowed_lateness=50, trigger=triggers.on_watermark())
    engine = Windowing(spec, COUNT, on_trigger=lambda key, acc, w, f: ([(w.start, w.end, f.name, acc)], acc))
    engine.open("a", 0.0)
    engine.open("b", 0.0)
    engine.add([(0,), (100,)], "a")
    assert engine.add([(12,)], "b") == [(0, 10, "watermark", 1)]
    assert engine.add([(9,)], "a") == []  # to 22 with b's, in time
    assert engine.add([(23,)], "b") == [(0, 22, "watermark", 3)]
    assert engine.done(0.0) == [(0, 22, "done", 3), (23, 33, "done", 1), (100, 110, "done", 1)]


def test_a_session_that_grows_by_itself_after_the_watermark_is_before_it_again():
    spec = windows.session(10, by=0, allowed_lateness=50, trigger=triggers.on_watermark(late=triggers.every(1)))
    engine = Windowing(spec, COUNT, key=1, on_trigger=lambda key, acc, w, f: ([(w.start, w.end, f.name, acc)], acc))
    assert engine.add([(0, "a"), (12, "b")]) == [(0, 10, "watermark", 1)]
    assert engine.add([(1, "a")]) == [(0, 11, ("every", 1), 2)]  # to 11, which the watermark has passed: late
    assert engine.add([(9, "a")]) == []  # to 19, which it has not
    assert engine.add([(19, "b")]) == [(0, 19, "watermark", 3)]
    assert engine.done(0.0) == [(0, 19, "done", 3), (12, 29, "done", 2)]


# --- state, and what is passed on -------------------------------------------------------------------------------------


def test_memory_is_bounded_by_what_is_open():
    spec = windows.fixed(10, by=0, watermark=watermarks.out_of_order(20), trigger=triggers.periodically(5))
    engine = Windowing(spec, COUNT, key=1, emit=values)
    most = 0
    for time in range(0, 20_000, 5):
        engine.add([(time, time % 7), (time + 1, time)], 0, float(time))
        most = max(most, engine.statistics().accumulators)
    assert most <= 4 * 10
    assert engine.statistics().closed_windows > 1900


def test_what_was_given_does_not_change_afterwards():
    """A trigger that keeps gives a copy of a list, a set or a dictionary of these: the window goes on with its own."""

    def append(acc, event):
        acc.setdefault(event % 2, []).append(event)
        return acc

    engine = Windowing(windows.global_(trigger=triggers.every(2)), Reduce(dict, append), emit=values)
    out = run(engine, [1, 2, 3])
    assert out == [{1: [1], 0: [2]}, {1: [1, 3], 0: [2]}]


def test_errors_of_by_and_key_come_before_anything_is_taken():
    engine = Windowing(windows.fixed(10, by=0), COUNT, key=1, bounded=True, emit=pairs)
    batch = [(1, "a"), ("soon", "a"), (2, [])]
    with pytest.raises(ExtractionError) as caught:
        engine.add(batch)
    assert (caught.value.option, caught.value.index) == ("key", 2)
    with pytest.raises(
        ExtractionError, match=r"expected 'by' to give .* for \('soon', 'a'\) got str: 'soon'"
    ) as caught:
        engine.add(batch[:2])
    assert caught.value.index == 1
    assert engine.statistics().events == 0
    engine.add(batch[:1])
    assert engine.done(0.0) == [("a", 1)]


def test_a_hook_has_to_return_a_pair():
    for answer in (None, [1], ([1], 2, 3), (5, 0)):
        engine = Windowing(windows.global_(), SUM, on_trigger=lambda *_, answer=answer: answer)
        with pytest.raises(HandlerError, match="on_trigger to return a pair"):
            run(engine, [1])


@pytest.mark.parametrize(
    ("spec", "reduce", "options", "option"),
    [
        (windows.session(5, by=0), SUM, {}, "combine"),
        (windows.fixed(5, by=0, fill=3), SUM, {"key": 0}, "fill"),
        (windows.count(5, fill=True), SUM, {"key": 0}, "fill"),
        (windows.fixed(5, by=0), SUM, {"key": 1.5}, "key"),
    ],
)
def test_options_that_do_not_go_together(spec, reduce, options, option):
    with pytest.raises(OptionError) as caught:
        Windowing(spec, reduce, **options)
    assert caught.value.option == option


@pytest.mark.parametrize(
    "options",
    [
        {"step": None},
        {"init": 0},
        {"fold": 1},
        {"tally": 1},
        {"combine": 1},
        {"emits": True, "fold": lambda acc, _: acc},
    ],
)
def test_a_reduce_is_made_of_functions(options):
    with pytest.raises(OptionError):
        Reduce(**{"init": int, "step": lambda acc, _: acc, **options})


def test_empty_batches_and_nothing_at_all():
    engine = Windowing(windows.fixed(5, by=0), SUM)
    assert engine.add([]) == []
    assert engine.tick(1.0) == []
    assert engine.fire("x", 1.0) == []
    assert engine.statistics().watermark is None
    assert engine.done(1.0) == []
