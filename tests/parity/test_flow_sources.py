"""Flows of producers: running ones, and those that are started with the flow."""

import contextlib

import pytest

from headgate import Child, Flow, Ignore, Producer, System
from tests.parity.flows import even
from tests.parity.stages import Counter


class Declines(Producer):
    """Does not want to run."""

    def started(self):
        raise Ignore

    def handle_demand(self, demand):
        raise AssertionError("it does not run")


async def first(flow, count):
    """Return the first results."""
    got = []
    async with contextlib.aclosing(aiter(flow)) as events:
        async for event in events:
            got.append(event)
            if len(got) == count:
                return got
    return got


OPERATORS = [
    (lambda flow: flow, [0, 1, 2, 3, 4]),
    (lambda flow: flow.filter(even), [0, 2, 4, 6, 8]),
    (lambda flow: flow.reject(even), [1, 3, 5, 7, 9]),
    (lambda flow: flow.flat_map(lambda n: [n, n]), [0, 0, 1, 1, 2]),
    (lambda flow: flow.map(lambda n: n * 2), [0, 2, 4, 6, 8]),
    (lambda flow: flow.filter(even).map(lambda n: n + 1).map(lambda n: n * 2), [2, 6, 10, 14, 18]),
]


@pytest.mark.parametrize(("apply", "expected"), OPERATORS)
@pytest.mark.parametrize("demand", [1000, 3, 1])
async def test_a_running_producer(apply, expected, demand):
    """F081, F082, F083, F084, F086: one worker takes its events in order; it is not the flow's, and lives on."""
    async with System() as system:
        stage = await system.start(Child(Counter))
        assert await first(apply(Flow.from_stages([stage], max_demand=demand)), 5) == expected
        assert stage.alive


async def test_several_running_producers():
    """F081: and those of several, which all serve the same workers."""
    async with System() as system:
        stages = [await system.start(Child(Counter)) for _ in range(2)]
        got = await first(Flow.from_stages(stages, max_demand=2).options(workers=2), 20)
        assert len(got) == 20
        assert {0, 1} <= {*got}


@pytest.mark.parametrize(("apply", "expected"), OPERATORS)
async def test_a_producer_of_the_flow(apply, expected):
    """F087, F089, F090, F092, F093: the flow starts it, and it ends with the flow."""
    flow = apply(Flow.from_children([Child(Counter)]))
    assert await first(flow, 5) == expected
    assert await first(flow, 5) == expected  # each run begins anew


async def test_batches_of_a_producer():
    """F091: a batch is what a worker asks for at one time: half of its demand, which is 1000 if nobody says more."""
    summed = Flow.from_children([Child(Counter)]).map_batches(lambda batch: [sum(batch)])
    assert await first(summed, 4) == [sum(range(start, start + 500)) for start in (0, 500, 1000, 1500)]
    sizes = Flow.from_children([Child(Counter)], max_demand=10).map_batches(lambda batch: [len(batch)])
    assert await first(sizes, 4) == [5, 5, 5, 5]


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_producer_that_declines(workers):
    """F094: it is left out; where there is no other, there are no events."""
    flow = Flow.from_children([Child(Declines)]).options(workers=workers)
    assert await flow.collect() == []
    assert await flow.count().collect() == [0]
    assert [event async for event in flow] == []
    assert await first(Flow.from_children([Child(Declines), Child(Counter)]), 3) == [0, 1, 2]
