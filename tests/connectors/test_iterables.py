# mypy: disable-error-code="union-attr,misc,arg-type,index,operator,var-annotated"
"""`IterableSource`: plain and async iterables, slow ones, and those that raise. The kit checks what all sources do."""

import asyncio
import itertools

import numpy as np
import pytest

from headgate import testing
from headgate.connectors.iterables import AsyncIterableSource, IterableSource, SequenceSource
from headgate.errors import OptionError


def data(messages):
    return [message.data for message in messages]


@pytest.mark.parametrize("iterable", [5, None, object()])
def test_what_cannot_be_iterated_is_refused(iterable):
    with pytest.raises(OptionError, match="expected option 'iterable' to be a sequence, an iterable or an async"):
        IterableSource(iterable)


@pytest.mark.parametrize(("option", "value"), [("key", "team"), ("blocking", None), ("clock", 1), ("name", 3)])
def test_a_wrong_option_is_refused(option, value):
    with pytest.raises(OptionError, match=f"IterableSource: expected option '{option}'"):
        IterableSource([], **{option: value})


def test_an_async_iterable_cannot_block():
    async def values():
        yield 1

    with pytest.raises(OptionError, match="blocking"):
        IterableSource(values(), blocking=True)


def test_the_kind_follows_from_the_iterable():
    async def values():
        yield 1

    assert type(IterableSource(range(3))) is SequenceSource
    assert type(IterableSource(np.arange(3))) is SequenceSource
    assert type(IterableSource({1: 2})) is IterableSource
    assert type(IterableSource({1, 2})) is IterableSource
    assert type(IterableSource(values())) is AsyncIterableSource
    assert isinstance(IterableSource(values()), IterableSource)


@pytest.mark.parametrize("make", [list, tuple, iter, np.array, dict.fromkeys, lambda values: (v for v in values)])
def test_elements_come_in_order_and_then_the_end(make):
    source = IterableSource(make(list(range(7))))
    source.open()
    assert data(source.fetch(3)) == [0, 1, 2]
    assert data(source.fetch(3)) == [3, 4, 5]
    assert data(source.fetch(3)) == [6]
    assert source.fetch(3) is None
    assert source.fetch(3) is None
    source.close()


def test_no_more_is_taken_than_is_asked_for():
    numbers = itertools.count()
    source = IterableSource(numbers)
    assert data(source.fetch(3)) == [0, 1, 2]
    assert next(numbers) == 3


def test_a_sequence_is_not_copied():
    class Big:
        def __len__(self):
            return 10**12

        def __getitem__(self, part):
            return range(10**12)[part]

    source = IterableSource(Big())
    assert data(source.fetch(2)) == [0, 1]


def test_what_comes_back_goes_first_in_the_order_of_the_iterable():
    source = IterableSource(range(10))
    messages = source.fetch(6)
    source.nack([messages[4]])
    source.nack([messages[1], messages[2]])
    assert data(source.fetch(4)) == [1, 2, 4, 6]


def test_keys():
    source = IterableSource([{"team": "a"}, {}, {"team": "b"}], key=lambda element: element["team"])
    first, bad, third = source.fetch(5)
    assert (first.key, third.key) == ("a", "b")
    assert first.ok
    assert isinstance(bad.reason, KeyError)


class Broken:
    """Raises at some elements, and goes on after that."""

    def __init__(self, at, size=6):
        self.values = iter(range(size))
        self.at = at

    def __iter__(self):
        return self

    def __next__(self):
        value = next(self.values)
        if value in self.at:
            raise OSError(value)
        return value


def broken(at, size=6):
    for value in range(size):
        if value == at:
            raise OSError(value)
        yield value


def test_an_error_comes_after_everything_before_it_and_is_no_end():
    source = IterableSource(broken(2))
    assert data(source.fetch(10)) == [0, 1]
    for _ in range(3):
        with pytest.raises(OSError, match="2"):
            source.fetch(10)


def test_an_iterator_that_goes_on_after_an_error_is_read_on():
    source = IterableSource(Broken({2, 3}))
    assert data(source.fetch(10)) == [0, 1]
    for number in (2, 3):
        with pytest.raises(OSError, match=str(number)):
            source.fetch(10)
    assert data(source.fetch(10)) == [4, 5]
    assert source.fetch(10) is None


def test_what_came_back_goes_before_an_error():
    source = IterableSource(broken(2))
    messages = source.fetch(10)
    source.nack(messages[:1])
    assert data(source.fetch(10)) == [0]
    with pytest.raises(OSError, match="2"):
        source.fetch(10)


def test_one_that_blocks_says_so_and_looks_after_delays_by_polling():
    source = IterableSource(iter([1]), blocking=True)
    assert source.blocking
    assert source.poll
    assert IterableSource([1]).poll is None


# -- async iterables --------------------------------------------------------------------------------------------------


async def every_second(count):
    for number in range(count):
        await asyncio.sleep(1)
        yield number


async def fetches(source, count):
    got = []
    while (messages := await source.fetch(count)) is not None:
        got.append((asyncio.get_running_loop().time(), data(messages)))
        source.ack(messages)
    return got


def test_a_slow_one_gives_what_it_has_at_once():
    async def main():
        source = IterableSource(every_second(3))
        await source.open()
        assert await fetches(source, 10) == [(1, [0]), (2, [1]), (3, [2])]
        await source.close()

    testing.run(main(), tick=0)


def test_a_quick_one_gives_as_many_as_are_asked_for():
    taken = []

    async def quick():
        for number in range(10):
            taken.append(number)
            yield number

    async def main():
        source = IterableSource(quick())
        await source.open()
        assert data(await source.fetch(4)) == [0, 1, 2, 3]
        assert len(taken) <= 5
        assert [each for _, each in await fetches(source, 4)] == [[4, 5, 6, 7], [8, 9]]
        await source.close()

    testing.run(main())


def test_what_comes_while_nobody_asks_is_kept():
    async def main():
        source = IterableSource(every_second(3))
        await source.open()
        fetch = asyncio.create_task(source.fetch(5))
        await asyncio.sleep(0.5)
        fetch.cancel()
        await asyncio.wait([fetch])
        await asyncio.sleep(5)
        assert data(await source.fetch(5)) == [0]
        assert [each for _, each in await fetches(source, 5)] == [[1], [2]]
        await source.close()

    for seed in range(10):
        testing.run(main(), seed=seed)


def test_a_fetch_that_waits_gets_what_comes_back():
    async def main():
        source = IterableSource(every_second(2))
        await source.open()
        first = await source.fetch(1)
        await source.nack(first, delay=0.3)
        assert data(await source.fetch(1)) == [0]
        assert asyncio.get_running_loop().time() == pytest.approx(1.3)
        fetch = asyncio.create_task(source.fetch(5))
        await asyncio.sleep(0.1)
        other = IterableSource([1])
        other.open()
        assert not fetch.done()
        await source.drain()
        assert await fetch == []
        await source.close()

    testing.run(main(), tick=0)


def test_an_error_of_an_async_one_comes_after_everything_before_it():
    async def failing():
        yield 0
        yield 1
        raise OSError("away")

    async def main():
        source = IterableSource(failing())
        await source.open()
        messages = await source.fetch(10)
        assert data(messages) == [0, 1]
        for _ in range(3):
            with pytest.raises(OSError, match="away"):
                await source.fetch(10)
        await source.nack(messages)
        assert data(await source.fetch(10)) == [0, 1]
        await source.close()

    testing.run(main())


def test_an_async_iterator_that_goes_on_after_an_error_is_read_on():
    class Flaky:
        def __init__(self):
            self.values = iter([0, OSError("away"), 1])

        def __aiter__(self):
            return self

        async def __anext__(self):
            await asyncio.sleep(1)
            value = next(self.values, None)
            if value is None:
                raise StopAsyncIteration
            if isinstance(value, Exception):
                raise value
            return value

    async def main():
        source = IterableSource(Flaky())
        await source.open()
        assert data(await source.fetch(10)) == [0]
        with pytest.raises(OSError, match="away"):
            await source.fetch(10)
        assert data(await source.fetch(10)) == [1]
        assert await source.fetch(10) is None
        await source.close()

    testing.run(main())


def test_closing_it_closes_the_iterator_wherever_it_is():
    closed = []

    async def values():
        try:
            for number in itertools.count():
                await asyncio.sleep(1)
                yield number
        finally:
            closed.append(True)

    async def main(seconds):
        source = IterableSource(values())
        await source.open()
        messages = await source.fetch(1)
        fetch = asyncio.create_task(source.fetch(1))
        await asyncio.sleep(seconds)
        await source.drain()
        await fetch
        await source.close()
        await source.open()  # it hands out what had no outcome, and ends
        again = await source.fetch(5)
        assert data(again)[:1] == data(messages)
        assert await source.fetch(1) is None
        await source.close()

    for seconds in (0, 0.5, 1.5):
        testing.run(main(seconds))
    assert closed == [True] * 3


def test_one_that_was_never_opened_leaves_nothing_behind():
    async def main():
        IterableSource(every_second(1))

    testing.run(main())
