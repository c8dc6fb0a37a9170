# mypy: disable-error-code="var-annotated"
"""Batch handlers: what they return and raise, attempts, halves, limits; and what happens when batchers are full."""

import asyncio
from itertools import pairwise

import pytest

from headgate import (
    Batcher,
    HandlerError,
    HandlerTimeoutError,
    Message,
    Processors,
    Reject,
    Retry,
    RetryPolicy,
    Skip,
)
from headgate.testing import StubSource
from tests.pipeline.helpers import AsyncNoting, Noting, batcher, ended, now, running, until, virtually


class Plain(Noting):
    """Calls the payload of the first message that can be called with the batch."""

    def handle_batch(self, messages, batch):
        super().handle_batch(messages, batch)
        for message in messages:
            if callable(message.data):
                return message.data(messages)
        return None

    def handle_message(self, message):
        pass


class Async(Plain):
    async def handle_batch(self, messages, batch):
        await asyncio.sleep(0.1)
        return super().handle_batch(messages, batch)


class Threaded(Plain):
    """In a thread."""


def make(kind, **options):
    """Return the options of its batcher."""
    return batcher(**({"place": "thread"} if kind is Threaded else {}), **options)


kinds = pytest.mark.parametrize("kind", [Plain, Async, Threaded])


async def never():
    raise AssertionError


WRONG = {
    "a number": lambda _: 5,
    "a text": lambda _: "text",
    "True": lambda _: True,
    "something else in a list": lambda messages: [messages[0], 5],
    "a dict": dict.fromkeys,
    "lists": lambda messages: [messages],
}


@kinds
@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_return_fails_the_batch(kind, answer):
    @virtually
    async def scenario():
        errors = []
        source = StubSource(answer, 2)
        async with running(
            kind(source=source, batchers=make(kind, size=2), on_failure="dead_letter"), errors=errors
        ) as started:
            await until(lambda: len(source.lettered) == 2)
            assert (await started.test_message(3)).outcome == "acknowledged"
        [error] = errors
        assert isinstance(error, HandlerError)
        assert error.callback == "handle_batch"
        assert {reason for _, reason in source.lettered} == {error}

    scenario()


@virtually
async def test_a_coroutine_of_a_plain_function_is_awaited_in_a_thread_only():
    """A plain handler that returns a coroutine was to be async: the batch fails, and says so."""
    errors = []
    source = StubSource(lambda _: never())
    async with running(Plain(source=source, batchers=batcher(size=1), on_failure="discard"), errors=errors):
        await until(lambda: source.discarded)
    assert "coroutine" in str(errors[0])


FEWER = {
    "none": lambda _: [],
    "the first": lambda messages: messages[:1],
    "others": lambda _: [Message(1), Message(2)],
    "the first, twice": lambda messages: [messages[0], messages[0]],
    "a tuple": lambda messages: tuple(messages[:1]),
}


@kinds
@pytest.mark.parametrize("answer", FEWER.values(), ids=FEWER.keys())
def test_messages_that_are_missing_fail(kind, answer):
    @virtually
    async def scenario():
        errors = []
        source = StubSource(1, answer)
        async with running(
            kind(source=source, batchers=make(kind, size=2), on_failure="dead_letter"), errors=errors
        ) as started:
            await until(lambda: len(source.lettered) + len(source.acked) == 2)
            assert started.statistics().in_flight == 0
        [error] = errors
        assert f"{len(source.lettered)} are missing" in str(error)
        assert source.lettered[-1] == (answer, error)

    scenario()


@kinds
def test_halves_show_who_is_to_blame(kind):
    @virtually
    async def scenario():
        def bad(_):
            raise ValueError("bad")

        source = StubSource(1, 2, 3, bad, 5, 6, bad, 8)
        pipeline = kind(source=source, batchers=make(kind, size=8), on_failure="discard")
        async with running(pipeline):
            await until(lambda: len(source.acked) + len(source.discarded) == 8)
        assert source.acked == [1, 2, 3, 5, 6, 8]
        assert source.discarded == [bad, bad]
        assert [info.size for _, info in pipeline.batches] == [8, 4, 2, 2, 1, 1, 4, 2, 2, 1, 1]

    scenario()


@kinds
def test_a_batch_is_tried_again_where_it_is(kind):
    @virtually
    async def scenario():
        times = []

        def twice(_):
            times.append(now())
            if len(times) < 3:
                raise OSError("away")

        retry = RetryPolicy(attempts=3, first=1.0, jitter=0)
        source = StubSource(1, twice)
        pipeline = kind(source=source, batchers=make(kind, size=2, retry=retry), on_failure="discard")
        async with running(pipeline):
            await until(lambda: source.acked)
        assert pipeline.payloads == [[1, twice]] * 3
        assert [later - earlier for earlier, later in pairwise(times)] == [
            pytest.approx(each, abs=0.2) for each in (1, 2)
        ]

    scenario()


@kinds
def test_signals_in_a_batch(kind):
    """They are about all of its messages."""

    @virtually
    async def scenario():
        def again(_, seen=[]):  # noqa: B006 (it is to remember)
            seen.append(1)
            if len(seen) == 1:
                raise Retry(after=3.0)

        def reject(_):
            raise Reject("no good")

        source = StubSource(again)
        async with running(kind(source=source, batchers=make(kind, size=1))):
            await until(lambda: source.acked)
            assert now() >= 3
        source = StubSource(reject)
        async with running(kind(source=source, batchers=make(kind, size=1))):
            await until(lambda: source.lettered)
        assert source.nacked == []

        def skip(_):
            raise Skip

        source = StubSource(skip, 2)
        async with running(kind(source=source, batchers=make(kind, size=2))):
            await until(lambda: len(source.acked) == 2)

    scenario()


@virtually
async def test_a_batch_that_takes_too_long():
    class Slow(AsyncNoting):
        async def handle_batch(self, messages, batch):
            await asyncio.sleep(messages[0].data)

    source = StubSource(10, 1)
    pipeline = Slow(source=source, batchers=batcher(size=1, run_timeout=2.0), on_failure="dead_letter")
    async with running(pipeline):
        await until(lambda: source.lettered and source.acked)
        assert now() < 4
    [(data, reason)] = source.lettered
    assert (data, type(reason), reason.seconds) == (10, HandlerTimeoutError, 2.0)


@virtually
async def test_a_batch_in_a_thread_that_takes_too_long():
    source = StubSource(1)
    batchers = batcher(size=1, run_timeout=1e-9, place="thread")
    async with running(Threaded(source=source, batchers=batchers, on_failure="discard")) as started:
        await until(lambda: source.discarded)
        assert started.statistics().abandoned == 1


@virtually
async def test_something_cancelled_in_a_batch_handler_fails_the_batch():
    class Cancelled(AsyncNoting):
        async def handle_batch(self, messages, batch):
            task = asyncio.create_task(asyncio.sleep(10))
            task.cancel()
            await task

    source = StubSource(1)
    async with running(Cancelled(source=source, batchers=batcher(size=1), on_failure="discard")) as started:
        stage = started.system.ref("Cancelled.batch.default-1")
        await until(lambda: source.discarded)
        assert stage.alive


@virtually
async def test_batches_that_wait_to_be_tried_again_do_not_hold_up_a_stop():
    """There is nothing to wait for any more: they fail, and go back to their source."""

    class Failing(AsyncNoting):
        async def handle_batch(self, messages, batch):
            raise OSError("away")

    retry = RetryPolicy(attempts=10, first=1000.0, most=1000.0, jitter=0)
    for kind in (Failing, type("PlainFailing", (Failing,), {"handle_batch": _away})):
        source = StubSource(1, 2)
        pipeline = kind(source=source, batchers=batcher(size=2, retry=retry), shutdown=30.0)
        async with running(pipeline) as started:
            await asyncio.sleep(5)
            before = now()
            await started.stop()
            assert now() - before < 1
        assert [data for data, _, _ in source.nacked] == [1, 2]


def _away(self, messages, batch):
    raise OSError("away")


# -- order, and who handles how many ----------------------------------------------------------------------------------


class Counting(AsyncNoting):
    """Notes how many batches are handled at a time, of all and of each key."""

    def __init__(self, **options):
        super().__init__(**options)
        self.now = []
        self.most = 0

    async def handle_batch(self, messages, batch):
        self.now.append(batch.key)
        self.most = max(self.most, len(self.now))
        await asyncio.sleep(1 + messages[0].data % 3)
        self.now.remove(batch.key)
        await super().handle_batch(messages, batch)


@pytest.mark.parametrize("serial", [True, False])
def test_serial_batches(serial):
    @virtually
    async def scenario():
        source = StubSource(*range(30))
        source.finish()
        options = {"size": 2, "concurrency": 4, "key": lambda message: message.data % 3, "serial": serial}
        pipeline = Counting(source=source, batchers=batcher(**options))
        await ended(pipeline)
        assert pipeline.most == (3 if serial else 4)
        for key in range(3):
            data = [each for data, info in pipeline.batches if info.key == key for each in data]
            assert sorted(data) == list(range(key, 30, 3))
            if serial:
                assert data == sorted(data)

    scenario()


@virtually
async def test_many_keys_close_the_oldest_batch():
    source = StubSource(*range(10))
    pipeline = Noting(source=source, batchers=batcher(size=5, max_open=3, timeout=100.0, key=lambda m: m.data))
    async with running(pipeline) as started:
        await until(lambda: len(pipeline.batches) == 7)
        assert started.statistics().batchers["default"].open == 3
        assert set(pipeline.triggers) == {"limit"}


@virtually
async def test_bytes():
    source = StubSource("a" * 4, "b" * 4, "c" * 4, "d" * 20, "e")
    pipeline = Noting(source=source, batchers=batcher(max_bytes=10))
    async with running(pipeline):
        await until(lambda: len(source.acked) == 5)
    assert [[len(each) for each in data] for data in pipeline.payloads] == [[4, 4], [4], [20], [1]]
    assert pipeline.triggers == ["bytes", "bytes", "bytes", "timeout"]


# -- full batchers ----------------------------------------------------------------------------------------------------


class Stuck(AsyncNoting):
    """Never gets on with the batches of one batcher."""

    def __init__(self, **options):
        super().__init__(**options)
        self.gate = asyncio.Event()

    async def handle_message(self, message):
        message.put_batcher("stuck" if message.data % 10 == 0 else "free")

    async def handle_batch(self, messages, batch):
        if batch.batcher == "stuck":
            await self.gate.wait()
        await super().handle_batch(messages, batch)


@virtually
async def test_a_batcher_that_is_stuck_holds_up_nobody_else():
    """What is too much for it goes back to the source, uncounted, and comes again when there is room."""
    source = StubSource(*range(1000), max_deliveries=1)
    batchers = {"stuck": Batcher(size=10), "free": Batcher(size=10)}
    pipeline = Stuck(source=source, batchers=batchers)
    async with running(pipeline) as started:
        await until(lambda: len(source.acked) == 900)
        statistics = started.statistics()
        assert statistics.batchers["stuck"].overflowed > 0
        assert statistics.in_flight <= 50
        pipeline.gate.set()
        await until(lambda: len(source.acked) == 1000, 200)
    assert sorted(source.acked) == list(range(1000))
    assert {counted for _, _, counted in source.nacked} == {False}


@virtually
async def test_a_batcher_that_blocks():
    """Nothing more is fetched on its account until there is room."""
    source = StubSource(*range(1000))
    batchers = {"stuck": Batcher(size=10, overflow="block"), "free": Batcher(size=10)}
    pipeline = Stuck(source=source, batchers=batchers, processors=Processors(concurrency=2))
    async with running(pipeline) as started:
        await asyncio.sleep(100)
        assert source.nacked == []
        fetched = started.statistics().fetched
        assert fetched < 500
        await asyncio.sleep(100)
        assert started.statistics().fetched == fetched
        pipeline.gate.set()
        await until(lambda: len(source.acked) == 1000)


@virtually
async def test_the_only_batcher_blocks_by_default():
    class Slow(AsyncNoting):
        async def handle_batch(self, messages, batch):
            await asyncio.sleep(1)

    source = StubSource(*range(1000))
    async with running(Slow(source=source, batchers=batcher(size=10))) as started:
        await asyncio.sleep(10.5)
        statistics = started.statistics()
        assert statistics.outcomes["acknowledged"] == 100
        assert statistics.in_flight <= 60
        assert source.nacked == []


@virtually
async def test_a_stop_with_full_batchers():
    """Batches that wait are handled; what cannot be in time goes back."""
    source = StubSource(*range(100))
    batchers = {"stuck": Batcher(size=1), "free": Batcher(size=10)}
    pipeline = Stuck(source=source, batchers=batchers, shutdown=10.0)
    async with running(pipeline) as started:
        await until(lambda: len(source.acked) == 90)
        before = now()
        await started.stop()
        assert now() - before < 10.5 + 5
    assert sorted(source.acked) == [each for each in range(100) if each % 10]
    assert {data % 10 for data, _, _ in source.nacked} == {0}
