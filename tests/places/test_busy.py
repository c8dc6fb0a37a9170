# mypy: disable-error-code="var-annotated"
"""What can wait for a quiet moment does not wait for ever when another stage is always busy."""

import pytest

from headgate import Child, Consumer, FairDispatcher, PartitionDispatcher, Producer, System, To, from_iterable

from .helpers import run, until


class Endless(Producer):
    def handle_demand(self, demand):
        return range(demand)


class Sink(Consumer):
    def __init__(self, seen=None):
        self.seen = [] if seen is None else seen

    def handle_events(self, events, source):
        self.seen[len(self.seen) :] = list(events)[:100]


async def _busy(system):
    endless = await system.start(Child(Endless))
    await system.start(Child(Sink, subscribe_to=[endless]))


def test_a_finite_stream_ends_beside_an_endless_one():
    async def scenario():
        async with System() as system:
            await _busy(system)
            numbers = await system.start(from_iterable(range(3)))
            sink = await system.start(Child(Sink, subscribe_to=[numbers]))
            assert await sink.wait() == "normal"

    run(scenario)


def test_a_cap_is_lifted_beside_an_endless_stream():
    async def scenario():
        seen = []
        async with System() as system:
            await _busy(system)
            numbers = await system.start(from_iterable(range(30), dispatcher=FairDispatcher(lambda _: "one", cap=1)))
            sink = await system.start(Child(Sink, seen, subscribe_to=[numbers]))
            assert await sink.wait() == "normal"
        assert seen == list(range(30))

    run(scenario)


def test_a_healthy_partition_goes_on_beside_a_stuck_one_and_an_endless_stream():
    async def scenario():
        seen = []
        async with System() as system:
            await _busy(system)
            dispatcher = PartitionDispatcher(2, hash=lambda event: event % 2, queue_size=100)
            numbers = await system.start(from_iterable(range(1000), dispatcher=dispatcher))
            stuck = await system.start(Child(Sink))
            await stuck.subscribe(numbers, mode="manual", partition=0)
            await system.start(Child(Sink, seen, subscribe_to=[To(numbers, partition=1, max_demand=10)]))
            await until(lambda: len(seen) >= 90)

    run(scenario)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_stages_started_together_miss_nothing(count):
    async def scenario():
        seen = [[] for _ in range(count)]
        async with System() as system:
            numbers = from_iterable(range(20), name="numbers", dispatcher="broadcast")
            await system.start_all([numbers, *(Child(Sink, each, subscribe_to=["numbers"]) for each in seen)])
            await system.wait()
        assert seen == [list(range(20))] * count

    run(scenario)
