"""Partitions, keys, sorting, and what partitions have together."""

import operator
import random

import pytest

from headgate import Flow, System
from headgate.flow import Partition, Window, triggers, windows
from tests.parity.flows import HUNDRED, parted, states, total
from tests.parity.registry import different

HALVES = windows.fixed(1000, by=lambda n: 0 if n <= 50 else 1000)


def listed(state, part):
    return [*state, part]


def groups(flow):
    """Return the events of each partition."""
    return flow.reduce(list, listed).emit("state").to_list()


def test_a_hash():
    """F095: a function may say which partition an event is for; the others have what they begin with."""
    flow = Flow.from_iterable(HUNDRED).options(workers=4)
    assert sorted(states(total(flow.partition(hash=lambda _: 0, workers=4))).to_list()) == [0, 0, 0, 5050]
    kept = flow.partition(hash=lambda n: n % 4 or None, workers=4)
    assert sorted(states(total(kept)).to_list()) == [0, *sorted(sum(range(k, 101, 4)) for k in (1, 2, 3))]


KEYED = [
    (0, [(n % 7, n) for n in HUNDRED], lambda event: event[0]),
    (1, [(n, n % 7) for n in HUNDRED], lambda event: event[1]),
    ("key", [{"key": n % 7, "n": n} for n in HUNDRED], lambda event: event["key"]),
    (lambda n: n % 7, list(HUNDRED), lambda n: n % 7),
    (lambda n: str(n % 7), list(HUNDRED), lambda n: str(n % 7)),
]


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(("key", "events", "read"), KEYED)
def test_keys(key, events, read, shuffled):
    """F096, F097, F098, F099: by index, by field, by function, also behind a shuffle; equal keys are together."""
    flow = Flow.from_iterable(events, max_demand=10).options(workers=3)
    if shuffled:
        flow = flow.shuffle(workers=2)
    found = groups(flow.partition(key, workers=4))
    assert len(found) == 4
    assert sorted(map(repr, (event for group in found for event in group))) == sorted(map(repr, events))
    seen = [{read(event) for event in group} for group in found]
    assert sum(map(len, seen)) == 7
    assert sum(bool(keys) for keys in seen) > 1


def test_windows_of_partitions():
    """F100: each partition has its own windows."""
    flow = Flow.from_iterable(HUNDRED, max_demand=5).options(workers=4)
    sums = states(total(flow.partition(workers=4, window=HALVES))).to_list()
    assert len(sums) == 8
    assert sum(sums) == 5050
    assert sum(sorted(sums)[:4]) == 1275


def test_which_partition_it_is():
    """F104: a trigger's function is told."""
    flow = total(parted()).on_trigger(lambda state, partition: ([partition], state))
    assert sorted(flow.to_list()) == [Partition(number, 4) for number in range(4)]


def numbers():
    drawn = random.Random(7)
    return [[drawn.randint(0, 10_000) for _ in range(1000)] for _ in range(4)]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("behind", ["nothing", "partition", "reduce"])
def test_take_sort(reverse, behind):
    """F101, F102: the first hundred of all, up or down, as one list."""
    lists = numbers()
    flow = Flow.from_iterables(lists).options(workers=4)
    if behind == "partition":
        flow = flow.partition(workers=4)
    elif behind == "reduce":
        flow = flow.partition(workers=4).reduce(list, listed)
    expected = sorted((n for some in lists for n in some), reverse=reverse)[:100]
    assert flow.take_sort(100, reverse=reverse).to_list() == [expected]


def test_take_sort_of_nothing():
    """F101: of no events, one empty list; without a number, all of them."""
    assert Flow.from_iterable([]).options(workers=2).take_sort(100).to_list() == [[]]
    assert Flow.from_iterable([3, 1, 2]).options(workers=2).take_sort().to_list() == [[1, 2, 3]]


# -- together again ---------------------------------------------------------------------------------------------------


def test_a_departition():
    """F103: one state of each partition goes in, and one event comes out."""
    flow = total(parted()).departition(list, listed, sorted)
    (sums,) = flow.to_list()
    assert len(sums) == 4
    assert sum(sums) == 55
    (all_,) = parted().count_by(lambda n: n % 3).departition(dict, operator.or_, lambda counts: counts).to_list()
    assert {*all_} == {0, 1, 2}


def test_a_departition_is_told_the_window():
    """F104: its last function may ask for the window."""
    flow = total(parted()).departition(list, listed, lambda parts, window: (sum(parts), window))
    assert flow.to_list() == [(55, Window("global", "global"))]


def test_a_departition_of_uneven_windows():
    """F105: a window is finished when all partitions have closed it; the rest at the end, in the order of windows."""
    flow = Flow.from_iterable(range(1, 11)).partition(hash=lambda n: int(n > 4), workers=2, window=windows.count(2))
    together = total(flow).departition(list, listed, lambda parts, window: (window.id, sorted(parts)))
    assert together.to_list() == [(0, [3, 11]), (1, [7, 15]), (2, [19])]
    alone = Flow.from_iterable(HUNDRED).partition(hash=lambda _: 2, workers=4, window=windows.count(10))
    together = total(alone).departition(int, operator.add, lambda parts, window: (window.id, parts))
    assert together.to_list() == [(k, sum(range(10 * k + 1, 10 * k + 11))) for k in range(10)]


def test_a_departition_gets_what_triggers_give():
    """F106: each time that a partition gives something, that goes in."""
    flow = total(parted().window(windows.global_(trigger=triggers.every(2))))
    (parts,) = states(flow).departition(list, listed, list).to_list()
    apart = states(total(parted())).to_list()
    assert {*apart} <= {*parts}
    assert len(parts) > 4
    several = flow.on_trigger(lambda state: ([state, -state], state)).departition(list, listed, list)
    assert sorted(several.to_list()[0]) == sorted([*parts, *(-part for part in parts)])


@different("F106", "without on_trigger, the last firing is left out where it would say what the one before said")
def test_a_departition_gets_nothing_twice():
    """F106: without a function of one's own."""
    flow = total(
        Flow.from_iterable([2, 2, 2, 2]).partition(workers=2).window(windows.global_(trigger=triggers.every(2)))
    )
    assert flow.departition(list, listed, sorted).to_list() == [[0, 4, 8]]


@pytest.mark.parametrize("workers", [1, 4])
def test_what_follows_a_departition(workers):
    """F107, F108: it can be mapped, reduced, and put into windows again."""
    flow = total(parted()).departition(int, operator.add, lambda state: state).options(workers=workers)
    assert flow.map(lambda n: n * 2).to_list() == [110]
    assert states(total(flow)).to_list() == [55]
    each = total(parted()).departition(list, listed, sorted).flat_map(list)
    assert [found.value for found in each.window(windows.count(2)).count().to_list()] == [2, 2]


async def test_a_departition_runs_and_ends():
    """F109: as any flow."""
    got: list[int] = []
    async with System() as system:
        flow = total(parted()).departition(int, operator.add, lambda state: state)
        run = await system.start(flow.into(got.extend).app())
        assert await run.wait() == "normal"
    assert got == [55]


# -- several flows ----------------------------------------------------------------------------------------------------


def both():
    """The numbers up to a hundred, twice."""
    return Flow.merge(Flow.from_iterable(HUNDRED, max_demand=5), Flow.from_iterable(HUNDRED, max_demand=7).map(int))


def test_merged_into_partitions():
    """F110, F111: all of both comes, by key or by a function of one's own."""
    assert sum(states(total(both().partition(workers=4))).to_list()) == 10_100
    alone = states(total(both().partition(hash=lambda _: 0, workers=4)))
    assert sorted(alone.to_list()) == [0, 0, 0, 10_100]


def test_merged_into_windows_of_partitions():
    """F112: two windows in each of four partitions."""
    sums = states(total(both().partition(workers=4, window=HALVES))).to_list()
    assert len(sums) == 8
    assert sum(sums) == 10_100
    assert sum(sorted(sums)[:4]) == 2550


@pytest.mark.parametrize("workers", [1, 3])
def test_shuffled(workers):
    """F113: all of both comes, to whoever is next."""
    sums = states(total(both().shuffle(workers=workers))).to_list()
    assert len(sums) == workers
    assert sum(sums) == 10_100


def test_shuffled_into_windows():
    """F114: with one worker, each window has one sum."""
    assert states(total(both().shuffle(workers=1).window(HALVES))).to_list() == [2550, 7550]
