"""Departitions: one event for each window, when all partitions are done with it."""

import asyncio
import operator
from typing import Any

import pytest

from headgate import OperatorError, OptionError
from headgate.flow import Flow, triggers, watermarks, windows

NUMBERS = Flow.from_iterable(range(100), max_demand=10)
HOURS = windows.fixed(10, by=lambda x: x, watermark=watermarks.out_of_order(0))


def thirds(x):
    return x % 3


def ordered(parts, window):
    return window.id, sorted(parts)


def listed(parts, part):
    return [*parts, part]


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize(
    "reduce",
    [
        lambda flow: flow.reduce(dict, lambda counts, x: {**counts, thirds(x): counts.get(thirds(x), 0) + 1}),
        lambda flow: flow.count_by(thirds),
        lambda flow: flow.reduce_by(thirds, int, lambda count, x: count + 1),
        lambda flow: flow.count_by(thirds).emit("state"),
        lambda flow: flow.window(windows.global_()).count_by(thirds),
        lambda flow: flow.window(windows.fixed(1000, by=lambda x: x)).count_by(thirds),
    ],
)
def test_a_partition_gives_its_accumulator_as_it_is(workers, reduce):
    flow = reduce(NUMBERS.partition(thirds, workers=workers))
    whole = flow.departition(dict, operator.or_, lambda counts: sorted(counts.items()))
    assert whole.to_list() == [[(0, 34), (1, 33), (2, 33)]]


def test_words_give_their_values():
    flow = NUMBERS.partition(lambda x: x % 2, workers=2)
    assert flow.count().departition(list, listed, sorted).to_list() == [[50, 50]]
    assert flow.mean().departition(list, listed, sorted).to_list() == [[49, 50]]
    assert flow.take_sort(2).departition(list, listed, sorted).to_list() == [[[0, 2], [1, 3]]]
    assert flow.window(HOURS).count().departition(int, operator.add, int).to_list() == [10] * 10
    assert flow.mean_by(thirds).departition(list, listed, len).to_list() == [2]
    assert flow.sum().emit("nothing").departition(list, listed, list).to_list() == [[]]


def test_without_partitions_there_is_one_part():
    flow = NUMBERS.options(workers=3)
    assert flow.count().departition(list, listed, list).to_list() == [[100]]
    assert flow.group_by(thirds).departition(list, listed, len).to_list() == [1]
    assert flow.reduce(int, operator.add).departition(list, listed, list).to_list() == [[4950]]


def test_a_function_gets_the_window_if_it_needs_one():
    flow = NUMBERS.partition(thirds, workers=2).window(windows.fixed(50, by=lambda x: x)).count()
    assert flow.departition(list, listed, sum).to_list() == [50, 50]
    assert flow.departition(list, listed, lambda parts, times=2: sum(parts) * times).to_list() == [100, 100]
    assert flow.departition(list, listed, lambda parts, window: (window.start, sum(parts))).to_list() == [
        (0, 50),
        (50, 50),
    ]


@pytest.mark.parametrize("reduce", ["count", "count_by"])
@pytest.mark.parametrize("trigger", [None, triggers.every(2)])
async def test_a_window_is_finished_on_an_endless_flow_even_if_partitions_have_nothing_of_it(reduce, trigger):
    wait = asyncio.Event()

    async def some():
        for number in range(45):
            yield number
        await wait.wait()

    spec = windows.fixed(10, by=lambda x: x, watermark=watermarks.out_of_order(0), trigger=trigger)
    flow = Flow.from_iterable(some()).partition(lambda x: x // 10, workers=3, window=spec)
    whole = getattr(flow, reduce)().departition(list, listed, lambda parts, window: (window.start, len(parts) > 0))
    got: list[Any] = []
    async with whole.app(consume=got.extend) as running:
        while len(got) < 4:  # or the deadline of the test
            await asyncio.sleep(0)
        assert got == [(0, True), (10, True), (20, True), (30, True)]
        wait.set()
        await running.wait()
    assert got[4:] == [(40, True)]


def test_windows_of_several_keys_are_finished_once():
    flow = NUMBERS.partition(thirds, workers=2).window(
        windows.fixed(50, by=lambda x: x, watermark=watermarks.out_of_order(0), trigger=triggers.every(3))
    )
    whole = flow.count_by(lambda x: x % 5).departition(dict, lambda all_, part: {**all_, **part}, ordered)
    assert [window for window, _ in whole.to_list()] == [0, 50]


def test_count_windows_are_finished_when_all_partitions_have_closed_them():
    flow = Flow.from_iterable(range(10)).partition(hash=lambda x: int(x >= 4), workers=2, window=windows.count(2))
    whole = flow.reduce(int, operator.add).departition(list, listed, ordered)
    assert whole.to_list() == [(0, [1, 9]), (1, [5, 13]), (2, [17])]


def test_what_cannot_be_put_together_is_refused():
    both = NUMBERS.emit_and_reduce(int, lambda total, x: ([x], total))
    for flow in (NUMBERS, NUMBERS.map(str), NUMBERS.count().map(str), both):
        with pytest.raises(OptionError, match="departition"):
            flow.departition(list, listed, list).explain()
    with pytest.raises(OptionError, match="merge"):
        NUMBERS.count().departition(list, None, list)  # type: ignore[arg-type]
    with pytest.raises(OperatorError, match="departition"):
        NUMBERS.count().departition(list, lambda parts, part: part / 0, list).to_list()
