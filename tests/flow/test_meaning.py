"""Any flow of operators gives what they mean in plain Python, as a multiset, with any number of workers."""

import operator
import random
from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import Process, System
from headgate.flow import Flow, Side, watermarks, windows
from tests.flow.chains import IN_FLOW, PLAIN, halves

chains = st.lists(st.sampled_from(sorted(PLAIN)), max_size=6)
events = st.lists(st.integers(0, 1000), max_size=60)
workers = st.integers(1, 4)


@given(chains, events, workers, st.integers(1, 40))
def test_a_chain_of_operators_means_what_it_means(chain, given_events, count, demand):
    flow = Flow.from_iterable(given_events, max_demand=demand).options(workers=count)
    plain = list(given_events)
    for name in chain:
        flow, plain = IN_FLOW[name](flow), PLAIN[name](plain)  # type: ignore[operator]
    assert Counter(flow.to_list()) == Counter(plain)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "where", "times"), [(1, Process(), 12), (2, Process(), 12), (4, Process(), 2), (2, "thread", 12)]
)
async def test_chains_mean_the_same_at_every_place(count, where, times):
    draw = random.Random(count)
    async with System() as system:  # one, so that its worker processes are used again, up to one for each core
        for _ in range(times):
            chain = draw.choices(sorted(PLAIN), k=4)
            plain = [draw.randrange(1000) for _ in range(50)]
            flow = Flow.from_iterable(plain, max_demand=10).options(workers=count, place=where)
            for name in chain:
                flow, plain = IN_FLOW[name](flow), PLAIN[name](plain)  # type: ignore[operator]
            found: list[int] = []
            run: Any = await system.start(flow.app(consume=found.extend))
            await run.wait()
            assert Counter(found) == Counter(plain), chain


@given(events, workers)
def test_words_give_one_value_for_each_key(given_events, count):
    groups = defaultdict(list)
    for x in given_events:
        groups[x % 7].append(x)
    flow = Flow.from_iterable(given_events, max_demand=10).options(workers=count)
    key = lambda x: x % 7
    assert dict(flow.count_by(key).to_list()) == {k: len(v) for k, v in groups.items()}
    assert dict(flow.sum_by(key).to_list()) == {k: sum(v) for k, v in groups.items()}
    assert dict(flow.min_by(key, halves).to_list()) == {k: min(map(halves, v)) for k, v in groups.items()}
    assert dict(flow.max_by(key).to_list()) == {k: max(v) for k, v in groups.items()}
    assert dict(flow.mean_by(key).to_list()) == {k: sum(v) / len(v) for k, v in groups.items()}
    assert {k: sorted(v) for k, v in flow.group_by(key).to_list()} == {k: sorted(v) for k, v in groups.items()}
    assert dict(flow.reduce_by(key, int, operator.add).to_list()) == {k: sum(v) for k, v in groups.items()}
    assert sorted(flow.uniq(key).map(key).to_list()) == sorted(groups)


@given(events, events, workers, st.sampled_from(["inner", "left", "right", "full"]))
def test_a_join_gives_every_pair_of_equal_keys(left, right, count, how):
    flow = Flow.from_iterable(left, max_demand=10).options(workers=count)
    joined = flow.join(Flow.from_iterable(right, max_demand=10), lambda x: x % 11, how=how)
    pairs = [(x, y) for x in left for y in right if x % 11 == y % 11]
    if how in ("left", "full"):
        pairs += [(x, None) for x in left if all(x % 11 != y % 11 for y in right)]
    if how in ("right", "full"):
        pairs += [(None, y) for y in right if all(x % 11 != y % 11 for x in left)]
    assert Counter(joined.to_list()) == Counter(pairs)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_reduce_behind_a_partition_is_done_for_each(count):
    flow = Flow.from_iterable(range(100)).options(workers=count).partition(lambda x: x)
    totals = flow.reduce(int, operator.add).to_list()
    assert len(totals) == count
    assert sum(totals) == 4950


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_reduce_that_cannot_be_done_in_parts_is_done_by_one(count):
    flow = Flow.from_iterable(range(100)).options(workers=count)
    assert flow.reduce(int, operator.add).to_list() == [4950]


def test_a_flow_that_is_iterated_twice_runs_twice():
    flow = Flow.from_iterable([1, 2, 3]).map(lambda x: x * 2)
    assert list(flow) == list(flow) == flow.to_list() == [2, 4, 6]


def test_one_worker_keeps_the_order():
    assert Flow.from_iterable(range(5000)).map(str).filter(len).to_list() == [str(x) for x in range(5000)]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_what_is_unique_in_a_window(count):
    clicks = [(1, "ann"), (2, "bob"), (3, "ann"), (11, "ann"), (15, "ann"), (12, "eve")]
    flow = Flow.from_iterable(clicks, max_demand=2).options(workers=count)
    users = flow.window(windows.fixed(10, by=0)).uniq(1).map(lambda click: click[1])
    assert sorted(users.to_list()) == ["ann", "ann", "bob", "eve"]
    side = Side()
    strict = windows.fixed(10, by=0, watermark=watermarks.out_of_order(0))
    late = Flow.from_iterable([*clicks, (4, "joe")]).window(strict).uniq(1, late=side)
    assert len(late.to_list()) == 4
    assert side.events == [(4, "joe")]


def test_windows_for_a_branch_only():
    counts: list[Any] = []
    flow = Flow.from_iterable(range(10)).window(windows.count(5)).tee(lambda branch: branch.count().into(counts.extend))
    assert flow.map(str).to_list() == [str(x) for x in range(10)]
    assert [each.value for each in counts] == [5, 5]


def test_a_default_of_a_triggers_function_is_nothing_to_be_given():
    flow = Flow.from_iterable(range(4)).reduce(int, operator.add)
    assert flow.on_trigger(lambda total, times=2: ([total * times], total)).to_list() == [12]
    assert flow.on_trigger(lambda *given: ([len(given)], 0)).to_list() == [3]


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_words_give_one_result_for_a_window_also_behind_a_partition(count, bounded):
    def numbers():
        yield from range(100)

    events = range(100) if bounded else numbers()
    halves = windows.fixed(50, by=lambda x: x)
    flow = Flow.from_iterable(events, max_demand=10).partition(lambda x: x % 7, workers=count).window(halves)
    if bounded:
        assert [each.value for each in flow.sum().to_list()] == [1225, 3725]
        assert sorted(each[1:] for each in flow.count_by(lambda x: x % 2).to_list()) == [
            (0, 25),
            (0, 25),
            (1, 25),
            (1, 25),
        ]
        assert len(flow.reduce(int, operator.add).to_list()) == 2 * count
    assert flow.take_sort(2).to_list() == [[0, 1], [50, 51]]


def test_a_function_of_a_trigger_is_asked_in_each_partition():
    flow = Flow.from_iterable(range(10)).partition(lambda x: x % 2, workers=2)
    for counted in (flow.count(), flow.window(windows.global_()).count()):
        assert counted.on_trigger(lambda total, partition: ([(partition.number, total)], total)).to_list() == [
            (0, 5),
            (1, 5),
        ]


def test_a_function_of_a_trigger_is_told_the_key():
    flow = Flow.from_iterable(range(10)).window(windows.fixed(5, by=lambda x: x)).group_by(lambda x: x % 2)
    told = flow.on_trigger(lambda group, _, occasion: ([(occasion.id, occasion.key, group)], group))
    assert sorted(told.to_list()) == [(0, 0, [0, 2, 4]), (0, 1, [1, 3]), (5, 0, [6, 8]), (5, 1, [5, 7, 9])]
