"""Two systems on one loop: a stage of one subscribes to a stage of the other, and each runs its own."""

import asyncio
import itertools

import pytest

from headgate import Child, Consumer, Producer, ProducerConsumer, System, To


class Count(Producer):
    """Counts."""

    def __init__(self):
        self.numbers = itertools.count()

    def handle_demand(self, demand):
        return list(itertools.islice(self.numbers, demand))


class Pass(ProducerConsumer):
    """Passes on."""

    def handle_events(self, events, source):
        return events


class Keep(Consumer):
    """Writes down what it gets, and says when it has some."""

    def __init__(self, got, some):
        self.got = got
        self.some = some

    def handle_events(self, events, source):
        self.got.extend(events)
        if len(self.got) > 100:
            self.some.set()


@pytest.mark.parametrize("demand", [1, 2, 3, 7])
@pytest.mark.parametrize("middle", [True, False])
def test_a_stage_of_a_system_serves_one_of_another_and_outlives_it(demand, middle):
    async def main():
        async with System() as one:
            source = await one.start(Child(Count, place="inline"))
            for _ in range(2):
                async with System() as other:
                    last = source
                    if middle:
                        last = await other.start(Child(Pass, subscribe_to=[To(source, max_demand=demand)]))
                    got: list[int] = []
                    some = asyncio.Event()
                    await other.start(Child(Keep, got, some, subscribe_to=[To(last, max_demand=demand)]))
                    await some.wait()
                    assert got == list(range(got[0], got[0] + len(got)))
            assert source.alive

    asyncio.run(asyncio.wait_for(main(), 10))
