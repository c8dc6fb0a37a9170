"""A message that goes back to its source is not overtaken by later ones of its key, however the calls of it interleave.

The source here keeps what `Source.ordered` promises, except that one consumer may have several of one key (as
`SQLiteQueue` with ``per_key``), and each call of it takes a while.
"""

import asyncio
import random

import pytest

from headgate import Message, Pipeline, Processors, Source, testing
from tests.pipeline.helpers import running

KEYS, EACH = 3, 12


class Slow(Source):
    redelivers = True
    ordered = True

    def __init__(self, chance):
        self.chance = chance
        self.line = [(number, key) for number in range(1, EACH + 1) for key in range(KEYS)]
        self.delayed = {}
        self.out = {}

    async def pause(self):
        await asyncio.sleep(self.chance.random() * 0.02)

    async def fetch(self, count):
        await self.pause()
        blocked = {key for _, key in self.delayed}
        found = [each for each in self.line if each[1] not in blocked][:count]
        for each in found:
            self.line.remove(each)
        messages = [Message(number, key=key) for number, key in found]
        self.out.update(zip(messages, found, strict=True))
        await self.pause()
        return messages if messages or self.line or self.delayed or self.out else None

    async def ack(self, messages):
        await self.pause()
        for message in messages:
            del self.out[message]
        self.wake()

    async def nack(self, messages, delay=0.0, *, counted=True):
        await self.pause()
        for message in messages:
            each = self.out.pop(message)
            self.delayed[each] = True
            asyncio.get_running_loop().call_later(delay, self.back, each)

    def back(self, each):
        del self.delayed[each]
        self.line = sorted([*self.line, each])
        self.wake()


class Deliver(Pipeline):
    partition_by = "key"
    processors = Processors(concurrency=4)
    max_deliveries = 1000

    def __init__(self, chance):
        self.chance = chance
        self.delivered: dict[int, list[int]] = {key: [] for key in range(KEYS)}
        super().__init__(source=Slow(chance), max_waiting=100, lookahead=20)

    async def handle_message(self, message):
        await asyncio.sleep(self.chance.random() * 0.01)
        if self.chance.random() < 0.2:
            raise LookupError("later perhaps")
        self.delivered[message.key].append(message.data)


@pytest.mark.parametrize("seed", range(20))
def test_what_goes_back_is_not_overtaken(seed):
    async def main():
        pipeline = Deliver(random.Random(seed))
        async with running(pipeline) as started:
            await started.wait()
        return pipeline.delivered

    expected = list(range(1, EACH + 1))
    assert testing.run(main(), seed=seed) == dict.fromkeys(range(KEYS), expected)
