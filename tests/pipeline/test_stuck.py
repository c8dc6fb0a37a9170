"""What is stuck holds nobody else up: a key, a batcher, a user with a mountain of messages."""

import asyncio

import pytest

from headgate import Batcher, Pipeline, Processors, testing
from headgate.connectors.memory import MemoryQueue

MESSAGES = 2_000


class Keyed(Pipeline):
    """Every handler takes 10 ms, and one of key 0 for ever."""

    processors = Processors(concurrency=25)
    partition_by = staticmethod(lambda message: message.data % 100)

    def __init__(self, *, stuck: bool, **options):
        super().__init__(**options)
        self.stuck = stuck
        self.done: list[int] = []

    async def handle_message(self, message):
        if self.stuck and message.data % 100 == 0:
            await asyncio.Event().wait()
        await asyncio.sleep(0.01)
        self.done.append(message.data)


async def seconds_of(pipeline, wanted):
    """Return the virtual seconds until that many are done."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with pipeline as running:
        while len(pipeline.done) < wanted:
            await asyncio.sleep(0.001)
        seconds = loop.time() - begun
        await running.stop(timeout=0)
        assert running.statistics().unbalanced == 0
    return seconds


def queue_of(count):
    queue = MemoryQueue()
    queue.put_many(range(count))
    return queue


def test_a_stuck_key_takes_one_processor_and_no_more():
    others = MESSAGES * 99 // 100
    free = testing.run(seconds_of(Keyed(stuck=False, source=queue_of(MESSAGES)), MESSAGES))
    stuck = testing.run(seconds_of(Keyed(stuck=True, source=queue_of(MESSAGES)), others))
    assert others / stuck >= 0.95 * MESSAGES / free


class Routed(Pipeline):
    """One message in a hundred goes to a batcher whose handler never returns."""

    processors = Processors(concurrency=4)
    batchers = {"fast": Batcher(size=10, timeout=0.1), "stuck": Batcher(size=2, timeout=0.1)}  # noqa: RUF012

    def __init__(self, **options):
        super().__init__(**options)
        self.done: list[int] = []

    async def handle_message(self, message):
        await asyncio.sleep(0.001)
        return message.put_batcher("stuck" if message.data % 100 == 0 else "fast")

    async def handle_batch(self, messages, batch):
        if batch.batcher == "stuck":
            await asyncio.Event().wait()
        self.done += [message.data for message in messages]


@pytest.mark.slow
def test_a_stuck_batcher_holds_up_no_other():
    pipeline = Routed(source=queue_of(20_000))

    async def run():
        async with pipeline as running:
            while len(pipeline.done) < 19_800:
                await asyncio.sleep(0.01)
            numbers = running.statistics()
            await running.stop(timeout=0)
            return numbers

    numbers = testing.run(run())
    assert sorted(pipeline.done) == [number for number in range(20_000) if number % 100]
    assert numbers.batchers["stuck"].overflowed > 0
    held = numbers.batchers["stuck"]
    assert held.open + 2 * (held.waiting + held.running) <= 2 * 5  # no more than it may hold


class Serial(Pipeline):
    """A batcher that handles the batches of each key one after the other; those of key 0 never end."""

    processors = Processors(concurrency=1)
    batchers = Batcher(size=5, timeout=0.1, concurrency=4, serial=True, max_waiting=2)
    partition_by = "key"

    def __init__(self, **options):
        super().__init__(**options)
        self.done: dict[int, list[int]] = {}

    def handle_message(self, message):
        message.batch_key = message.key

    async def handle_batch(self, messages, batch):
        if batch.key == 0:
            await asyncio.Event().wait()
        await asyncio.sleep(0.01)
        self.done.setdefault(batch.key, []).extend(message.data for message in messages)


def test_a_stuck_key_of_a_serial_batcher_holds_up_no_other():
    queue = MemoryQueue(ordered=True)
    for number in range(1_000):
        queue.put(number, key=number % 10)
    pipeline = Serial(source=queue)

    async def run():
        async with pipeline as running:
            while sum(map(len, pipeline.done.values())) < 900:
                await asyncio.sleep(0.01)
            numbers = running.statistics()
            await running.stop(timeout=0)
            return numbers

    numbers = testing.run(run())
    assert pipeline.done == {key: list(range(key, 1_000, 10)) for key in range(1, 10)}
    assert numbers.unbalanced == 0


@pytest.mark.parametrize("mountain", [1_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_user_with_ten_messages_waits_less_than_a_round_behind_a_mountain(mountain):
    order: list[str] = []

    class Fair(Pipeline):
        processors = Processors(concurrency=1, max_demand=1)
        fair_by = staticmethod(lambda message: message.data[0])

        async def handle_message(self, message):
            await asyncio.sleep(0.001)
            order.append(message.data[0])

    async def run():
        queue = MemoryQueue()
        queue.put_many([("big", number) for number in range(mountain)])
        queue.put_many([("small", number) for number in range(10)])
        async with Fair(source=queue) as running:
            while order.count("small") < 10:
                await asyncio.sleep(0.001)
            await running.stop(timeout=0)

    testing.run(run())
    last = max(at for at, user in enumerate(order) if user == "small")
    # Each of its ten has waited for at most one of the other's; what was handed out before it came is under way.
    assert order[: last + 1].count("big") <= 10 + 2
