"""Handles that are used early, late, or for what their source cannot do."""

import asyncio

from headgate import DeadLetter, Message, Pipeline, Source, testing
from headgate.connectors.memory import MemoryQueue


class Once(Source):
    """Hands out one message, and takes nothing back."""

    def __init__(self):
        self.left = [Message("only")]

    def fetch(self, count):
        taken, self.left = self.left, []
        return taken or None


class Early(Pipeline):
    """Uses the handle before its handler returns."""

    def __init__(self, **options):
        super().__init__(**options)
        self.failures: list[str] = []

    async def handle_message(self, message):
        message.defer().fail("at once")
        await asyncio.sleep(0.01)
        return message

    async def handle_failed(self, messages):
        await asyncio.sleep(1)
        self.failures += [message.reason for message in messages]


def test_a_handle_that_fails_before_its_handler_returns_fails_once():
    async def run():
        queue = MemoryQueue([1])
        queue.close_input()
        pipeline = Early(source=queue, on_failure="discard")
        async with pipeline as running:
            await running.wait()
            numbers = running.statistics()
        assert pipeline.failures == ["at once"]
        assert numbers.outcomes["failed"] == 1
        assert numbers.duplicates == numbers.unbalanced == 0

    testing.run(run())


def test_what_cannot_go_back_is_a_dead_letter_when_it_is_requeued():
    letters: list[DeadLetter] = []

    class Requeues(Pipeline):
        async def handle_message(self, message):
            asyncio.get_running_loop().call_later(1, message.defer().requeue)

    async def run():
        pipeline = Requeues(source=Once(), dead_letters=letters.append)
        async with pipeline as running:
            await running.wait()
            assert running.statistics().outcomes["dead_lettered"] == 1

    testing.run(run())
    assert ["takes nothing back" in str(letter.reason) for letter in letters] == [True]
