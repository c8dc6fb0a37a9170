# mypy: disable-error-code="override, var-annotated"
"""Sources: what a pipeline calls, what they may return, and how what comes from outside gets in."""

import asyncio
import threading

import pytest

from headgate import HandlerError, Message, OptionError, Source, SourceError
from headgate.testing import StubSource
from tests.parity.registry import different
from tests.pipeline.helpers import Noting, ended, running, until, virtually


class Outside(Source):
    """Is told numbers from outside, and makes messages of them."""

    def __init__(self):
        self.numbers = []
        self.life = []
        self.settled = []

    def tell(self, *numbers):
        """Take numbers, answer, and have them fetched."""
        self.numbers += numbers
        self.wake()
        return len(self.numbers)

    def fetch(self, count):
        taken, self.numbers = self.numbers[:count], self.numbers[count:]
        return [Message(number * 10) for number in taken]

    def ack(self, messages):
        self.settled += [message.data for message in messages]


TRANSFORMS = "there is no transformer: a source makes its messages itself, in the one place where they come from, fetch"


@different("B059", TRANSFORMS)
@virtually
async def test_what_a_source_is_told():
    """B059: becomes messages."""
    source = Outside()
    pipeline = Noting(source=source)
    async with running(pipeline):
        await asyncio.sleep(1)
        source.tell(1, 2)
        await until(lambda: source.settled == [10, 20])


@different("B060", TRANSFORMS)
@virtually
async def test_what_a_source_is_asked():
    """B060: becomes messages, and is answered."""
    source = Outside()
    async with running(Noting(source=source)):
        await asyncio.sleep(1)
        assert source.tell(1, 2, 3) == 3
        await until(lambda: source.settled == [10, 20, 30])


@different("B061", TRANSFORMS)
def test_what_a_source_is_told_by_a_thread():
    """B061: becomes messages, and nobody waits for an answer. (Threads are real, so is the loop.)"""

    async def scenario():
        source = Outside()
        async with Noting(source=source):
            thread = threading.Thread(target=source.tell, args=(1, 2))
            thread.start()
            await until(lambda: source.settled == [10, 20])
            thread.join()

    asyncio.run(scenario())


@virtually
async def test_a_pipeline_without_a_source():
    """B116: has no messages of its own, and carries those that are put in."""
    pipeline = Noting()
    async with running(pipeline) as started:
        await asyncio.sleep(10)
        assert started.statistics().fetched == 0
        assert (await started.test_message(1)).outcome == "acknowledged"
    assert pipeline.handled == [1]


@pytest.mark.parametrize("source", [5, "queue", Source, [1], iter(())])
def test_what_is_no_source(source):
    """B117: is refused when the pipeline is made."""
    got = source[0] if isinstance(source, list) else source
    with pytest.raises(OptionError) as caught:
        Noting(source=source)
    assert str(caught.value) == str(
        OptionError("Pipeline(Noting)", "source", "a Source, a Pipeline, or a list of them", got)
    )


class Counting(Source):
    """Counts on with every fetch."""

    def __init__(self, most):
        self.next, self.most = 0, most

    def fetch(self, count):
        first, self.next = self.next, min(self.next + count, self.most)
        return [Message(number) for number in range(first, self.next)] or None


@virtually
async def test_a_source_keeps_its_state():
    """B118: from one fetch to the next."""
    pipeline = Noting(source=Counting(25))
    await ended(pipeline)
    assert pipeline.handled == list(range(25))


@different("B120", "a source says that there is nothing more by None; the pipeline then finishes all that is under way")
@virtually
async def test_a_source_that_is_over():
    """B120: ends the pipeline."""
    pipeline = Noting(source=Counting(0))
    statistics = await ended(pipeline)
    assert statistics.fetched == 0


class Wrong(StubSource):
    """Returns what it must not, once."""

    answers = ()

    def fetch(self, count):
        if self.answers:
            [answer] = self.answers
            self.answers = ()
            return answer
        return super().fetch(count)


class WrongLater(Wrong):
    async def fetch(self, count):
        await asyncio.sleep(1)
        return super().fetch(count)


@pytest.mark.parametrize("answer", [[1], 5, "text", (Message(1),), [Message(1)] * 11, [Message(1), None]])
@pytest.mark.parametrize("kind", [Wrong, WrongLater])
def test_a_source_that_returns_no_messages(kind, answer):
    """B121, B126: is told what it has to return; it is asked again after a while. It may be async."""

    @virtually
    async def scenario():
        source, errors = kind(1), []
        source.answers = [answer]
        async with running(Noting(source=source), errors=errors) as started:
            await until(lambda: source.acked == [1])
            assert started.statistics().source_errors == 1
        [error] = errors
        assert isinstance(error, SourceError)
        assert isinstance(error.__cause__, HandlerError)
        assert error.__cause__.expected == "a list of at most 10 Message, or None"
        assert error.__cause__.got is answer

    scenario()


@different("B122", TRANSFORMS)
@virtually
async def test_a_source_that_makes_something_of_what_it_has():
    """B122: a subclass, or one that asks another."""

    class Doubling(Counting):
        def fetch(self, count):
            messages = super().fetch(count)
            for message in messages or ():
                message.data *= 2
            return messages

    pipeline = Noting(source=Doubling(3))
    await ended(pipeline)
    assert pipeline.handled == [0, 2, 4]


@virtually
async def test_a_source_that_has_something_again():
    """B123: says so, and is fetched from."""
    source = Outside()
    pipeline = Noting(source=source)
    async with running(pipeline):
        for number in range(3):
            await asyncio.sleep(1)
            source.tell(number)
            await until(lambda number=number: pipeline.handled[-1:] == [number * 10])


@different("B127", TRANSFORMS)
@virtually
async def test_an_async_source_that_makes_something_of_what_it_has():
    """B127: the same."""

    class Later(Outside):
        async def fetch(self, count):
            await asyncio.sleep(1)
            return super().fetch(count)

    source = Later()
    async with running(Noting(source=source)):
        source.tell(1)
        await until(lambda: source.settled == [10])


@virtually
async def test_a_source_is_closed_at_the_end():
    """B128: last, when everything else has ended."""
    source = StubSource(1)
    async with running(Noting(source=source)) as started:
        await until(lambda: source.acked)
        assert source.life == ["open"]
    assert source.life[0] == "open"
    assert source.life[-1] == "close"
    assert source.life.count("close") == 1
    assert not started.alive


@virtually
async def test_a_source_need_not_be_closed():
    """B129: nor opened, nor drained."""
    await ended(Noting(source=Counting(1)))
