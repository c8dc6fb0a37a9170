"""Windows without event time, and triggers. Where time matters, it is that of the test."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from headgate import Flow
from headgate.flow import Continue, Fire, triggers, windows
from headgate.testing import run
from tests.parity.flows import HUNDRED, named, resets, states, total
from tests.parity.registry import different
from tests.parity.stages import Log, refused

DEMANDS = pytest.mark.parametrize("demand", [1000, 5])
TENS = [sum(range(start, start + 10)) for start in range(1, 101, 10)]
SO_FAR = [sum(range(1, stop + 1)) for stop in range(10, 101, 10)]


def zero(_):
    """Say that all happened at once."""
    return 0


ALL_IN_ONE: dict[str, Any] = {
    "global": windows.global_,
    "count": lambda **options: windows.count(1000, **options),
    "fixed": lambda **options: windows.fixed(1, by=zero, **options),
}
IDS = {"global": "global", "count": 0, "fixed": 0}
KINDS = pytest.mark.parametrize("kind", ["global", "count", "fixed"])


def hundred(demand=1000):
    return Flow.from_iterable(HUNDRED, max_demand=demand)


# -- triggers by hand -------------------------------------------------------------------------------------------------


def pairs(events, state):
    """Fire with every event but the first, for it and the one before; begin the next pair with it."""
    events = [*state, *events]
    if len(events) < 2:
        return Continue(events, [])
    return Fire("pair", events[:2], events[1:], [], "reset")


def test_a_trigger_that_takes_nothing_for_now():
    """F136: what it has not given to the window is not reduced, and so an incomplete pair never comes."""
    flow = Flow.from_iterable(range(1, 6)).window(windows.global_(trigger=triggers.custom(list, pairs)))
    got = flow.reduce(list, lambda pair, n: [*pair, n]).on_trigger(lambda pair: ([pair], [])).to_list()
    assert got == [[1, 2], [2, 3], [3, 4], [4, 5], []]


def test_a_trigger_that_gives_other_events():
    """F137: these are what is reduced."""
    other = triggers.custom(int, lambda events, state: Continue(state, [n * 10 for n in events]))
    assert total(Flow.from_iterable([1, 2, 3]).window(windows.global_(trigger=other))).to_list() == [60]


@different("F135", "durations are seconds or a timedelta; the name of the trigger has the seconds")
def test_units():
    """F135: 10 seconds, 10 minutes, 10 hours."""

    async def main():
        for period, seconds in (
            (10, 10.0),
            (timedelta(minutes=10), 600.0),
            (timedelta(hours=10), 36_000.0),
            (timedelta(milliseconds=500), 0.5),
        ):

            async def slow(seconds=seconds):
                yield 1
                await asyncio.sleep(seconds * 1.5)

            flow = total(Flow.from_iterable(slow()).window(windows.global_(trigger=triggers.periodically(period))))
            assert await named(flow).collect() == [
                ("global", ("periodically", seconds), 1),
                ("global", "done", 1),
            ]

    run(main())
    wrongs: list[Any] = [0, -1, "second", None]
    for wrong in wrongs:
        with refused(ValueError, "triggers.periodically", "period"):
            triggers.periodically(wrong)


# -- every so many events ---------------------------------------------------------------------------------------------


@KINDS
@DEMANDS
def test_every_so_many_events_and_keep(kind, demand):
    """F139, F148, F162, F163: the sums so far, and that of all, in batches of any size."""
    spec = ALL_IN_ONE[kind](trigger=triggers.every(10))
    assert states(total(hundred(demand).window(spec))).to_list() == [*SO_FAR, 5050]


@KINDS
@DEMANDS
def test_every_so_many_events_and_begin_anew(kind, demand):
    """F140, F149, F150: the sum of each ten, and what is left, in batches of any size."""
    spec = ALL_IN_ONE[kind](trigger=triggers.every(10))
    assert resets(total(hundred(demand).window(spec))).to_list() == [*TENS, 0]
    told = ALL_IN_ONE[kind](trigger=triggers.every(10, accumulator="reset"))
    assert total(hundred(demand).window(told)).to_list()[:10] == TENS


@KINDS
def test_what_a_trigger_counts(kind):
    """F142, F151, F164: operators in between do their part, in the order in which they are written."""
    spec = ALL_IN_ONE[kind](trigger=triggers.every(10))
    flow = hundred().window(spec).map(lambda n: n + 1).map(lambda n: n * 2)
    expected = [sum((n + 1) * 2 for n in range(1, stop + 1)) for stop in range(10, 101, 10)]
    assert states(total(flow)).to_list() == [*expected, expected[-1]]


WHY = "a window and its trigger see what its reduce sees, so that they mean the same wherever operators are written"


@different("F142", WHY)
@different("F151", WHY)
@different("F164", WHY)
@KINDS
def test_what_is_filtered_out_does_not_count(kind):
    """F142, F151, F164: an event that never reaches the reduce fires nothing."""
    spec = ALL_IN_ONE[kind](trigger=triggers.every(10))
    got = states(total(hundred().window(spec).filter(lambda n: n % 2))).to_list()
    assert got == [100, 400, 900, 1600, 2500, 2500]


@KINDS
def test_the_names_of_triggers(kind):
    """F143, F152, F165: a function is told the window, and what fired."""
    spec = ALL_IN_ONE[kind](trigger=triggers.every(50))
    flow = total(hundred().window(spec)).on_trigger(
        lambda state, _, occasion: ([(occasion.kind, occasion.id, occasion.name, state)], state)
    )
    window = (kind, IDS[kind])
    assert flow.to_list() == [(*window, ("every", 50), 1275), (*window, ("every", 50), 5050), (*window, "done", 5050)]


@pytest.mark.parametrize("kind", ["count", "fixed"])
def test_a_window_that_is_larger_than_its_data(kind):
    """F146, F161: from four workers to four partitions nothing is lost."""
    lists = [range(start, 101, 4) for start in range(1, 5)]
    flow = Flow.from_iterables(lists).options(workers=4).map(int)
    assert sum(states(total(flow.partition(workers=4, window=ALL_IN_ONE[kind]()))).to_list()) == 5050
    assert sum(states(total(flow.window(ALL_IN_ONE[kind]()))).to_list()) == 5050


# -- by the clock -----------------------------------------------------------------------------------------------------


@KINDS
def test_every_so_many_seconds(kind):
    """F144, F153, F166: a window gives what it has, though its source has not ended."""

    async def main():
        got, wait = Log(), asyncio.Event()

        async def source():
            for number in HUNDRED:
                yield number
            await wait.wait()

        spec = ALL_IN_ONE[kind](trigger=triggers.periodically(0.1))
        flow = named(total(Flow.from_iterable(source()).window(spec)))
        async with flow.app(consume=got.extend) as running:
            await asyncio.sleep(0.35)
            assert got[0] == (IDS[kind], ("periodically", 0.1), 5050)
            wait.set()
            await running.wait()
        assert got[-1] == (IDS[kind], "done", 5050)

    run(main())


@pytest.mark.parametrize("kind", ["global", "count", "fixed"])
def test_a_trigger_that_is_fired_by_hand(kind):
    """F154, F167: whoever runs the flow may fire one, under a name of his own."""

    async def main():
        got, wait = Log(), asyncio.Event()

        async def source():
            for number in HUNDRED:
                yield number
            await wait.wait()

        flow = named(total(Flow.from_iterable(source()).window(ALL_IN_ONE[kind]())))
        async with flow.app(consume=got.extend) as running:
            await asyncio.sleep(1)
            running.fire("mine")
            await asyncio.sleep(1)
            assert got == [(IDS[kind], "mine", 5050)]
            wait.set()
            await running.wait()
        assert got[1:] == [(IDS[kind], "done", 5050)]

    run(main())


def test_every_so_many_events_in_windows_of_the_clock():
    """F160: triggers count within a window of processing time, too."""

    async def main():
        async def source():
            for number in range(1, 11):
                yield number
            await asyncio.sleep(1.5)
            for number in range(11, 16):
                yield number

        spec = windows.periodic(1, trigger=triggers.every(5))
        flow = named(total(Flow.from_iterable(source()).window(spec)))
        assert await flow.collect() == [
            (0, ("every", 5), 15),
            (0, ("every", 5), 55),
            (0, "done", 55),
            (1, ("every", 5), 65),
            (1, "done", 65),
        ]

    run(main())


# -- counts -----------------------------------------------------------------------------------------------------------

FILL = "an empty window at the end is given only if it is asked for (fill=True)"


@different("F155", FILL)
@different("F157", FILL)
@DEMANDS
def test_two_count_windows(demand):
    """F155, F157: the sum of each fifty; in batches of any size."""
    flow = hundred(demand)
    assert states(total(flow.window(windows.count(50)))).to_list() == [1275, 3775]
    assert states(total(flow.window(windows.count(50, fill=True)))).to_list() == [1275, 3775, 0]
    assert states(total(flow.window(windows.count(60)))).to_list() == [1830, 3220]
    assert states(total(flow.window(windows.count(60, fill=True)))).to_list() == [1830, 3220]


TWELVES = [
    (0, ("every", 12), 78),
    (0, ("every", 12), 300),
    (0, ("every", 12), 666),
    (0, ("every", 12), 1176),
    (0, "done", 1275),
    (1, ("every", 12), 678),
    (1, ("every", 12), 1500),
    (1, ("every", 12), 2466),
    (1, ("every", 12), 3576),
    (1, "done", 3775),
]


@different("F156", FILL)
@different("F158", FILL)
@DEMANDS
def test_two_count_windows_with_a_trigger(demand):
    """F156, F158: it begins to count anew with each window; in batches of any size."""
    flow = hundred(demand)
    spec = windows.count(50, trigger=triggers.every(12))
    assert named(total(flow.window(spec))).to_list() == TWELVES
    filled = windows.count(50, trigger=triggers.every(12), fill=True)
    assert named(total(flow.window(filled))).to_list() == [*TWELVES, (2, "done", 0)]
