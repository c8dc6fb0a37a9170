"""Fixed windows: in order and out of order, with lateness and triggers, from one source and from two.

The two hours of the originals are windows of 1000 here. In `ORDERED` the numbers up to 50 are of the first window, the
others of the second. In `MIXED` those up to 40 and those above 80 are of the first, the others of the third: what comes
last is late for a watermark that follows events.
"""

import asyncio

import pytest

from headgate import Flow
from headgate.flow import Side, triggers, watermarks, windows
from headgate.testing import run
from tests.parity.flows import HUNDRED, named, states, total
from tests.parity.registry import different
from tests.parity.stages import Log

DEMANDS = pytest.mark.parametrize("demand", [1000, 5])
FOLLOWS = watermarks.out_of_order(0)


def ordered(**options):
    return windows.fixed(1000, by=lambda n: 0 if n <= 50 else 1000, **options)


def mixed(**options):
    return windows.fixed(1000, by=lambda n: 0 if n <= 40 or n > 80 else 2000, fill=1, **options)


def hundred(demand=1000):
    return Flow.from_iterable(HUNDRED, max_demand=demand)


def every_12(start, numbers):
    """Return what ``every(12)`` gives for these numbers."""
    numbers = list(numbers)
    return [(start, ("every", 12), sum(numbers[:stop])) for stop in range(12, len(numbers) + 1, 12)]


def by_window(firings):
    """Return them window by window, those of each in their order."""
    return sorted(firings, key=lambda firing: firing[0])


LOW, HIGH = range(1, 51), range(51, 101)
OUTER, INNER = [*range(1, 41), *range(81, 101)], range(41, 81)


# -- in order ---------------------------------------------------------------------------------------------------------


@DEMANDS
def test_two_windows(demand):
    """F168, F170: each has its sum, under its start; in batches of any size."""
    for options in ({}, {"watermark": FOLLOWS}):
        flow = named(total(hundred(demand).window(ordered(**options))))
        assert flow.to_list() == [(0, "done", 1275), (1000, "done", 3775)]


@DEMANDS
def test_two_windows_that_are_open_to_the_end(demand):
    """F169: where nothing can be late, all triggers fire before both windows close."""
    flow = named(total(hundred(demand).window(ordered(trigger=triggers.every(12)))))
    fired = [*every_12(0, LOW), *every_12(1000, HIGH)]
    assert flow.to_list() == [*fired, (0, "done", 1275), (1000, "done", 3775)]


@different("F171", "whether a window closes before the input ends says its watermark, not the size of batches")
@DEMANDS
def test_two_windows_one_after_the_other(demand):
    """F171: where the watermark follows events, the first window closes before the second one's triggers."""
    spec = ordered(trigger=triggers.every(12), watermark=FOLLOWS)
    expected = [*every_12(0, LOW), (0, "done", 1275), *every_12(1000, HIGH), (1000, "done", 3775)]
    got = named(total(hundred(demand).window(spec))).to_list()
    assert by_window(got) == by_window(expected)  # of each window the same, in batches of any size
    if demand == 5:
        assert got == expected


def test_the_clock_while_one_window_is_done():
    """F172: a trigger that goes by the clock fires for windows that are open, not for those that have closed."""

    async def main():
        got, wait = Log(), asyncio.Event()

        async def source():
            for number in HUNDRED:
                yield number
            await wait.wait()

        spec = ordered(trigger=triggers.periodically(0.1), watermark=FOLLOWS)
        async with named(total(Flow.from_iterable(source()).window(spec))).app(consume=got.extend) as running:
            await asyncio.sleep(0.5)
            assert got[0] == (0, "done", 1275)
            assert {*got[1:]} == {(1000, ("periodically", 0.1), 3775)}
            wait.set()
            await running.wait()
        assert got[-1] == (1000, "done", 3775)

    run(main())


# -- out of order -----------------------------------------------------------------------------------------------------

ALONE = "what is late says the watermark alone, not the size of batches: nothing, where the input is known to end"
SEEN = "late events are counted, and can be had; which are late does not depend on batches"


@different("F173", ALONE)
@different("F174", ALONE)
@different("F178", ALONE)
@different("F179", ALONE)
@DEMANDS
@pytest.mark.parametrize("sources", [1, 2])
def test_nothing_is_late_where_the_input_ends(demand, sources):
    """F173, F174, F178, F179: what comes out of order counts; the empty window in between is given if asked for."""
    lists = [HUNDRED] if sources == 1 else [HUNDRED[:50], HUNDRED[50:]]
    flow = Flow.from_iterables(lists, max_demand=demand).options(workers=sources).shuffle(workers=1)
    done = [(0, "done", 2630), (1000, "done", 0), (2000, "done", 2420)]
    assert named(total(flow.window(mixed()))).to_list() == done
    got = named(total(flow.window(mixed(trigger=triggers.every(12))))).to_list()
    assert got[-3:] == done
    assert [name for _, name, _ in got[:-3]] == [("every", 12)] * 8
    if sources == 1:
        assert [each for each in got[:-3] if each[0] == 0] == every_12(0, OUTER)
        assert [each for each in got[:-3] if each[0] == 2000] == every_12(2000, INNER)


@different("F175", SEEN)
@different("F176", SEEN)
@DEMANDS
def test_what_is_late_where_the_watermark_follows(demand):
    """F175, F176: it is left out, counted, and in the side output."""
    side = Side()
    flow = hundred(demand).window(mixed(watermark=FOLLOWS)).reduce(int, lambda state, n: state + n, late=side)
    assert named(flow).to_list() == [(0, "done", 820), (1000, "done", 0), (2000, "done", 2420)]
    assert side.events == list(range(81, 101))
    assert flow.run().late == 20
    spec = mixed(watermark=FOLLOWS, trigger=triggers.every(12))
    first = [*every_12(0, range(1, 41)), (0, "done", 820)]
    rest = [*every_12(2000, INNER), (1000, "done", 0), (2000, "done", 2420)]
    got = named(total(hundred(demand).window(spec))).to_list()
    assert by_window(got) == by_window([*first, *rest])
    if demand == 5:
        assert got == [*first, *rest]


@DEMANDS
def test_two_sources_in_small_batches(demand):
    """F180, F181: a window closes when both have moved on, so that what is late depends on which is quicker."""
    flow = Flow.from_iterables([HUNDRED[:50], HUNDRED[50:]], max_demand=demand).options(workers=2).shuffle(workers=1)
    for spec in (mixed(watermark=FOLLOWS), mixed(watermark=FOLLOWS, trigger=triggers.every(12))):
        side = Side()
        got = named(flow.window(spec).reduce(int, lambda state, n: state + n, late=side)).to_list()
        done = [(window, state) for window, name, state in got if name == "done"]
        assert [window for window, _ in done] == [0, 1000, 2000]
        assert done[1][1] == 0
        assert done[2][1] == 2420
        assert done[0][1] + sum(side.events) == 2630
        assert {*side.events} <= {*OUTER}


def test_two_sources_of_which_one_is_behind():
    """F180: while one has not moved on, nothing is late, whatever the other sends."""

    async def main():
        ahead = asyncio.Event()

        async def quick():
            for at in (9000, 500, 9500):
                yield at
            ahead.set()

        async def slow():
            yield 100
            await ahead.wait()
            await asyncio.sleep(1)
            yield 200

        spec = windows.fixed(1000, by=lambda at: at, watermark=FOLLOWS)
        flow = Flow.from_iterables([quick(), slow()], max_demand=1).window(spec).count()
        assert [(each.window.start, each.value) for each in await flow.collect()] == [(0, 3), (9000, 2)]

    run(main())


# -- with lateness ----------------------------------------------------------------------------------------------------

LATENESS = "lateness is event time, and 'watermark' fires when the watermark passes a window's end, before late data"


@different("F182", LATENESS)
@different("F184", LATENESS)
@DEMANDS
def test_lateness(demand):
    """F182, F184: the window gives what it has when the watermark passes it, and again with what came late."""
    spec = mixed(watermark=FOLLOWS, allowed_lateness=3600, trigger=triggers.on_watermark())
    got = named(total(hundred(demand).window(spec))).to_list()
    assert got == [(0, "watermark", 820), (0, "done", 2630), (1000, "done", 0), (2000, "done", 2420)]
    once = mixed(watermark=FOLLOWS, allowed_lateness=3600)
    assert states(total(hundred(demand).window(once))).to_list() == [2630, 0, 2420]


@different("F183", LATENESS)
@different("F185", LATENESS)
@DEMANDS
def test_lateness_and_a_trigger(demand):
    """F183, F185: triggers go on before, between and after."""
    trigger = triggers.any_of(triggers.on_watermark(), triggers.every(12))
    spec = mixed(watermark=FOLLOWS, allowed_lateness=3600, trigger=trigger)
    assert named(total(hundred(demand).window(spec))).to_list() == [
        *every_12(0, range(1, 41)),
        (0, "watermark", 820),
        *every_12(2000, INNER),
        *every_12(0, OUTER)[3:],
        (0, "done", 2630),
        (1000, "done", 0),
        (2000, "done", 2420),
    ]


def test_lateness_is_over():
    """F182: what comes later than that is late."""
    events = [0, 500, 2000, 600, 4700, 700]
    side = Side()
    spec = windows.fixed(
        1000, by=lambda at: at, watermark=FOLLOWS, allowed_lateness=3000, trigger=triggers.on_watermark()
    )
    flow = Flow.from_iterable(events).window(spec).reduce(int, lambda count, _: count + 1, late=side)
    assert named(flow).to_list() == [
        (0, "watermark", 2),
        (2000, "watermark", 1),
        (0, "done", 3),
        (2000, "done", 1),
        (4000, "done", 1),
    ]
    assert side.events == [700]
