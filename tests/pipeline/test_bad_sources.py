"""What a source cannot read, and a source that is broken for good."""

import logging

import pytest

from headgate import DeadLetter, HeadgateError, Pipeline, SourceError, Supervisor, testing
from headgate.connectors.files import FileSource
from headgate.connectors.iterables import IterableSource


class Numbers(Pipeline):
    def __init__(self, **options):
        super().__init__(**options)
        self.got = []
        self.letters = []

    def handle_message(self, message):
        self.got.append(message.data)


@pytest.fixture(autouse=True)
def quiet():
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def broken():
    yield from range(7)
    raise ValueError("broken")


async def broken_async():
    for number in range(7):
        yield number
    raise ValueError("broken")


@pytest.mark.parametrize("make", [broken, broken_async])
def test_an_iterable_that_raises_ends_its_pipeline_when_what_came_before_is_handled(make):
    async def run():
        pipeline = Numbers(source=IterableSource(make()))
        with pytest.raises(SourceError, match="broken") as caught:
            await pipeline
        assert isinstance(caught.value.__cause__, ValueError)
        assert sorted(pipeline.got) == list(range(7))
        assert pipeline.current.feeds[0].books.outcomes["acknowledged"] == 7

    testing.run(run())


def test_a_supervisor_restarts_such_a_pipeline_and_gives_up():
    async def run():
        with pytest.raises(HeadgateError):
            await Supervisor([Numbers(source=IterableSource(broken()))])

    testing.run(run())


def test_what_cannot_be_read_is_a_dead_letter_at_once_and_no_handler_sees_it(tmp_path):
    file = tmp_path / "records.jsonl"
    file.write_text("1\n2\nno json\n4\n", encoding="utf-8")
    letters: list[DeadLetter] = []

    async def run():
        pipeline = Numbers(source=FileSource(file, format="jsonl"), dead_letters=letters.append)
        async with pipeline as running:
            await running.wait()
            numbers = running.statistics()
        assert sorted(pipeline.got) == [1, 2, 4]
        assert numbers.outcomes == {"acknowledged": 3, "failed": 0, "requeued": 0, "dead_lettered": 1}
        assert numbers.unbalanced == 0

    testing.run(run())
    assert [letter.deliveries for letter in letters] == [1]
    assert "records.jsonl" in letters[0].traceback
