"""Options that are written on the class: functions, methods, static methods."""

import pytest

from headgate import DeadLetter, Pipeline, Reject, testing
from headgate.connectors.memory import MemoryQueue


class Method(Pipeline):
    keys = 2
    letters: list[DeadLetter]

    def partition_by(self, message):
        return message.data % self.keys

    def dead_letters(self, letter):
        self.letters.append(letter)


class Plain(Pipeline):
    partition_by = lambda message: message.data % 2
    dead_letters = None


class Static(Pipeline):
    @staticmethod
    def partition_by(message):
        return message.data % 2


@pytest.mark.parametrize("base", [Method, Plain, Static])
def test_a_function_on_the_class_is_called_as_it_was_written(base):
    class Kind(base):  # type: ignore[misc, valid-type]
        def __init__(self, **options):
            super().__init__(**options)
            self.letters: list[DeadLetter] = []

        def handle_message(self, message):
            if message.data == 3:
                raise Reject

    async def run():
        queue = MemoryQueue(range(5))
        queue.close_input()
        pipeline = Kind(source=queue)
        async with pipeline as running:
            await running.wait()
            assert running.statistics().outcomes["acknowledged"] == 4
        return pipeline, queue

    pipeline, queue = testing.run(run())
    assert [letter.event.data for letter in pipeline.letters] == ([3] if base is Method else [])
    assert [letter.data for letter in queue.dead_letters] == [3], "its source keeps it as well"
