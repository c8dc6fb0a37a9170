"""A step that runs many messages in one stage, as `augment` is one: how full it gets, and how it drains."""

import asyncio

import pytest

from headgate import Pipeline, Processors, augment, testing
from headgate.connectors.memory import MemoryQueue


class TwoSteps(Pipeline):
    async def deliver(self, message):
        await asyncio.sleep(0.003)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("keys", [None, 7])
def test_what_waits_before_a_wide_step_goes_back_in_a_drain_and_holds_up_nothing(ordered, keys):
    """Messages that were handed out and not begun were counted as in the processors for ever."""

    async def look_up(key):
        await asyncio.sleep(0.02)

    async def main():
        queue = MemoryQueue(range(1000), ordered=keys is not None, key=keys and (lambda data: data % keys))
        steps = {
            "users": augment(look_up, concurrency=2, ordered=ordered),
            "deliver": Processors("deliver", concurrency=4),
        }
        pipeline = TwoSteps(source=queue, processors=steps, partition_by=keys and "key")
        async with pipeline as running:
            await asyncio.sleep(0.1)
            drained = await running.system.drain(timeout=5)
            assert drained.complete
            statistics = running.statistics()
            assert (statistics.in_flight, statistics.processing, statistics.unbalanced) == (0, 0, 0)
            assert statistics.outcomes["acknowledged"] + statistics.outcomes["requeued"] == statistics.fetched

    for seed in range(10):
        testing.run(main(), seed=seed)


def test_a_step_takes_in_what_it_takes_to_fill_its_calls():
    calls = []

    async def look_up(keys):
        calls.append(len(keys))
        await asyncio.sleep(1)
        return keys

    async def main():
        await TwoSteps(
            source=_closed(range(20)),
            processors={
                "users": augment(look_up, concurrency=2, batch=5, linger=0.5),
                "deliver": Processors("deliver"),
            },
        )

    testing.run(main())
    assert calls == [5, 5, 5, 5]


def _closed(payloads):
    queue = MemoryQueue(payloads)
    queue.close_input()
    return queue
