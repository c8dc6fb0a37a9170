# mypy: disable-error-code="var-annotated"
"""A running pipeline: pause, resume, quiesce, resize, messages by hand, stops at any moment, life under supervisors."""

import asyncio

import pytest

from headgate import (
    Batcher,
    Message,
    NoStageError,
    OptionError,
    Processors,
    RateLimiter,
    RestartLimitError,
    Source,
    SourceError,
    Supervisor,
    System,
)
from headgate.testing import StubSource
from tests.pipeline.helpers import AsyncNoting, Noting, balanced, batcher, ended, now, running, until, virtually


class Slow(AsyncNoting):
    """Takes a second for each message."""

    async def handle_message(self, message):
        self.handled.append(message.data)
        await asyncio.sleep(1)


# -- pause ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"partition_by": lambda message: message.data % 3},
        {"fair_by": lambda message: message.data % 3},
        {"rate_limit": RateLimiter(1000, key=lambda message: message.data % 3)},
        {"rate_limit": RateLimiter(1000)},
    ],
    ids=["plain", "partition", "fair", "rates by key", "rate"],
)
@virtually
async def test_nothing_is_fetched_or_handed_out_while_it_is_paused(options):
    source = StubSource()
    pipeline = Noting(source=source, **options)
    async with running(pipeline) as started:
        source.push(*range(5))
        await until(lambda: len(source.acked) == 5)
        started.pause()
        await asyncio.sleep(0)
        fetches = len(source.fetched)
        source.push(*range(5, 10))
        await asyncio.sleep(100)
        assert (len(pipeline.handled), len(source.fetched)) == (5, fetches)
        started.resume()
        await until(lambda: len(source.acked) == 10)


@virtually
async def test_messages_that_wait_for_tokens_are_not_handed_out_while_it_is_paused():
    limiter = RateLimiter(1, per=10.0, burst=1, key=lambda _: "key")
    source = StubSource(1, 2, 3)
    pipeline = Noting(source=source, rate_limit=limiter)
    async with running(pipeline) as started:
        await until(lambda: source.acked == [1])
        started.pause()
        await asyncio.sleep(100)
        assert pipeline.handled == [1]
        started.resume()
        await until(lambda: len(source.acked) == 3)


@virtually
async def test_what_was_begun_is_finished_while_it_is_paused():
    source = StubSource(1, 2, 3)
    pipeline = Slow(source=source)
    async with running(pipeline) as started:
        await until(lambda: pipeline.handled)
        started.pause()
        await asyncio.sleep(10)
        assert source.acked == [1]


@virtually
async def test_to_quiesce():
    """Open batches are handled as well; what waits for a processor waits on."""
    source = StubSource(*range(7))
    pipeline = Noting(source=source, batchers=batcher(size=5, timeout=1000.0))
    async with running(pipeline) as started:
        await until(lambda: started.statistics().batchers["default"].open == 2)
        assert await started.quiesce()
        assert started.statistics().in_flight == 0
        assert pipeline.payloads == [[0, 1, 2, 3, 4], [5, 6]]
        source.push(7)
        await asyncio.sleep(10)
        assert started.statistics().in_flight == 0
        started.resume()
        await until(lambda: len(pipeline.handled) == 8)


@virtually
async def test_to_quiesce_may_take_too_long():
    async def long(_):
        await asyncio.sleep(100)

    source = StubSource(long)
    pipeline = AsyncNoting(source=source)
    async with running(pipeline) as started:
        await until(lambda: pipeline.handled)
        assert not await started.quiesce(timeout=5.0)
        assert now() < 6
        assert await started.quiesce(timeout=500.0)
        assert source.acked == [long]


# -- resize -----------------------------------------------------------------------------------------------------------


@virtually
async def test_more_and_fewer_processors():
    """While they work; nothing is lost, and nothing is handled twice."""
    source = StubSource(*range(60))
    pipeline = Slow(source=source, processors=Processors(concurrency=2), batchers=batcher(size=7))
    async with running(pipeline) as started:
        await asyncio.sleep(3.5)
        refs = await started.resize("default", 6)
        assert [ref.name for ref in refs] == [f"Slow.default-{number}" for number in range(1, 7)]
        await asyncio.sleep(3)
        assert len(await started.resize("default", 1)) == 1
        assert started.topology()["processors"][0]["concurrency"] == 1
        assert len(await started.resize("default", 5)) == 5
        await until(lambda: len(source.acked) == 60)
    assert sorted(pipeline.handled) == list(range(60))


@virtually
async def test_more_and_fewer_batch_processors():
    class SlowBatches(AsyncNoting):
        most = busy = 0

        async def handle_batch(self, messages, batch):
            self.busy += 1
            self.most = max(self.most, self.busy)
            await asyncio.sleep(1)
            self.busy -= 1

    source = StubSource(*range(60))
    pipeline = SlowBatches(source=source, batchers=batcher(size=2, max_waiting=10))
    async with running(pipeline) as started:
        await asyncio.sleep(2.5)
        assert pipeline.most == 1
        await started.resize("default", 3)  # a step comes first when it has the same name
        await asyncio.sleep(2.5)
        assert pipeline.most == 1
    source = StubSource(*range(60))
    async with running(ToOut(source=source, batchers={"out": Batcher(size=2, max_waiting=10)})) as started:
        await started.resize("out", 4)
        await until(lambda: len(source.acked) == 60)
        assert await started.resize("out", 1)


class ToOut(Noting):
    def handle_message(self, message):
        message.put_batcher("out")


@virtually
async def test_only_what_is_there_is_resized():
    async with running(Noting(batchers={"out": Batcher()})) as started:
        with pytest.raises(OptionError, match="a step or a batcher: 'default', 'out', got: 'other'"):
            await started.resize("other", 2)
        with pytest.raises(OptionError, match="'count' to be an integer of at least 1, got: 0"):
            await started.resize("out", 0)


# -- by hand ----------------------------------------------------------------------------------------------------------


@virtually
async def test_what_is_put_in_has_to_be_messages():
    async with running(Noting()) as started:
        for wrong in ([1], ["text"], [None], [Message(1), 2]):
            with pytest.raises(OptionError, match="'messages' to be "):
                started.push(wrong)
        assert started.statistics().fetched == 0


@virtually
async def test_a_message_is_put_in_once():
    async with running(Slow()) as started:
        message = Message(1)
        started.push([message])
        with pytest.raises(OptionError, match="'messages' to be "):
            started.push([message])


@virtually
async def test_messages_that_are_put_in_while_it_stops_go_back():
    pipeline = Slow()
    async with running(pipeline) as started:
        started.push([Message(1)])
        await until(lambda: pipeline.handled)
        stopping = asyncio.ensure_future(started.stop())
        await asyncio.sleep(0.5)
        late = Message(2)
        started.push([late])
        await stopping
        assert now() < 2
        assert late.outcome == "requeued"
    assert pipeline.handled == [1]


@virtually
async def test_nothing_is_put_into_a_pipeline_that_does_not_run():
    pipeline = Noting()
    with pytest.raises(NoStageError, match="does not run"):
        await pipeline.test_message(1)
    async with running(pipeline) as started:
        assert (await pipeline.test_message(1)).ok
        assert len(await pipeline.test_batch([1, 2])) == 2
    for call in (lambda: pipeline.test_message(1), lambda: started.test_message(1), lambda: started.test_batch([1])):
        with pytest.raises(NoStageError):
            await call()
    with pytest.raises(NoStageError):
        started.push([Message(1)])


@virtually
async def test_test_messages_of_all_outcomes():
    async with running(Noting(batchers=batcher(size=2, timeout=50.0))) as started:
        before = now()
        messages = await started.test_batch([1, 2, 3], key="a", metadata={"b": 1})
        assert now() - before == pytest.approx(50, abs=1), "batches wait as always"
        assert [(each.key, each.metadata) for each in messages] == [("a", {"b": 1})] * 3
        assert messages[0].metadata is not messages[1].metadata
        before = now()
        await started.test_batch([1, 2, 3], flush=True)
        assert now() - before < 1


# -- stops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [0, 0.0005, 0.01, 0.5, 1.0, 1.5, 2.0, 7.3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batchers": batcher(size=3)},
        {"partition_by": lambda message: message.data % 3, "batchers": batcher(size=3)},
        {"fair_by": lambda message: message.data % 3},
        {"processors": {"one": Processors("handle_message", concurrency=2), "two": Processors("other", concurrency=1)}},
    ],
    ids=["plain", "batches", "partition", "fair", "steps"],
)
def test_a_stop_at_any_moment(moment, options):
    """What was handled to the end is acknowledged, everything else goes back in order; at once, and uncounted."""

    class Pipeline(Slow):
        processors = Processors(concurrency=2)

        def other(self, message):
            message.metadata["other"] = True

    @virtually
    async def scenario():
        source = StubSource(*range(30))
        pipeline = Pipeline(source=source, **options)
        async with running(pipeline) as started:
            await asyncio.sleep(moment)
            begun = now()
            await started.stop()
            assert now() - begun < 1.1
            assert started.statistics().outcomes["acknowledged"] == len(source.acked)
        assert sorted(source.acked) == sorted(pipeline.handled)
        assert {counted for _, _, counted in source.nacked} <= {False}
        back = [data for data, _, _ in source.nacked]
        assert back == sorted(back)
        assert source.life[-1] == "close"
        source.open()
        again = [message.data for message in source.fetch(100) or ()]
        assert sorted(again) == [each for each in range(30) if each not in source.acked]

    scenario()


@virtually
async def test_nothing_that_is_not_finished_is_acknowledged():
    """One total limit for all of it."""

    class Stuck(AsyncNoting):
        async def handle_message(self, message):
            if message.data:
                await asyncio.sleep(1000)

        async def handle_batch(self, messages, batch):
            await asyncio.sleep(1000)

    source = StubSource(0, 0, 1)
    pipeline = Stuck(source=source, batchers=batcher(size=1), shutdown=10.0)
    async with running(pipeline) as started:
        await asyncio.sleep(5)
        before = now()
        await started.stop()
        assert now() - before < 16
    assert source.acked == []
    assert sorted(data for data, _, _ in source.nacked) == [0, 0, 1]


@virtually
async def test_a_stop_may_have_less_time():
    source = StubSource(1)
    pipeline = Slow(source=source)
    async with running(pipeline) as started:
        await until(lambda: pipeline.handled)
        before = now()
        await started.stop(timeout=0.2)
        assert now() - before < 1
    assert (source.acked, [data for data, _, _ in source.nacked]) == ([], [1])


@virtually
async def test_messages_that_wait_to_be_tried_again_when_it_is_stopped_go_back():
    from headgate import RetryPolicy  # noqa: PLC0415 (of this test only)

    def bad(message):
        raise ValueError("bad")

    retry = RetryPolicy(first=1000.0, most=1000.0)
    source = StubSource(1)
    async with running(Noting(source=source, processors=Processors(bad, concurrency=1, retry=retry))) as started:
        await until(lambda: started.statistics().retrying)
        await started.stop()
        assert now() < 1
    assert [data for data, _, _ in source.nacked] == [1]


@virtually
async def test_a_finite_source_ends_the_pipeline():
    for options in ({}, {"batchers": batcher(size=3, timeout=1000.0)}, {"partition_by": lambda m: m.data % 2}):
        source = StubSource(*range(10))
        source.finish()
        pipeline = Noting(source=source, **options)
        assert (await ended(pipeline, errors=None)).outcomes["acknowledged"] == 10
        assert source.life[-1] == "close"
        if "batchers" in options:
            assert pipeline.triggers == ["size", "size", "size", "end"]


@virtually
async def test_it_can_be_run_again_but_not_twice_at_once():
    source = StubSource(1)
    pipeline = Noting(source=source)
    async with running(pipeline) as started:
        await until(lambda: source.acked == [1])
        with pytest.raises(OptionError, match="as this object runs already"):
            await started.system.start(pipeline)
    source.push(2)
    async with running(pipeline):
        await until(lambda: source.acked == [1, 2])
    assert source.life.count("open") == 2


# -- under supervisors ------------------------------------------------------------------------------------------------


@virtually
async def test_a_pipeline_that_gives_up_is_started_again_by_its_supervisor():
    source = StubSource(*range(8))
    pipeline = Slow(source=source, max_restarts=0)
    app = Supervisor([pipeline], name="app")
    async with running(app) as supervision:
        await until(lambda: len(source.acked) == 3)
        before = supervision.child("Slow")
        supervision.system.ref("Slow.default-1").kill()
        await until(lambda: not before.alive)
        assert isinstance(before.reason, RestartLimitError)
        balanced(before)
        await until(lambda: len(source.acked) == 8)
        balanced(before)
    assert source.life.count("open") == 2
    assert sorted(source.acked) == list(range(8))


@virtually
async def test_a_source_that_cannot_be_opened_ends_the_start():
    class Broken(StubSource):
        def open(self):
            super().open()
            raise OSError("no such queue")

    first, broken = StubSource(), Broken()
    pipeline = Noting(source=[first, broken])
    async with System() as system:
        for _ in range(2):  # it may be tried again
            with pytest.raises(SourceError, match="expected open to return, it raised OSError: no such queue"):
                await system.start(pipeline)
    assert first.life.count("open") == first.life.count("close") == 2


@virtually
async def test_a_source_that_cannot_be_closed_is_reported():
    class Broken(StubSource):
        def close(self):
            raise OSError("no such queue")

        def drain(self):
            raise OSError("no such queue")

    errors = []
    async with running(Noting(source=Broken()), errors=errors):
        pass
    assert [each.method for each in errors] == ["drain", "close"]


@virtually
async def test_a_source_that_fails_is_fetched_from_again_after_a_while():
    source, errors = StubSource(1), []
    async with running(Noting(source=source), errors=errors) as started:
        await until(lambda: source.acked)
        source.fail_next_fetch(times=5)
        source.push(2)
        await until(lambda: source.acked == [1, 2])
        assert started.statistics().source_errors == 5
        assert 1 < now() < 10
    assert {str(each.__cause__) for each in errors} == {"the source is away"}


@pytest.mark.parametrize("method", ["ack", "nack", "discard", "dead_letter", "extend"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_source_that_cannot_be_told_is_told_again(method, asynchronous):
    class Broken(StubSource):
        left = 3

    def broken(self, messages, *args, **options):
        if self.left:
            self.left -= 1
            raise OSError("away")
        return getattr(StubSource, method)(self, messages, *args, **options)

    async def later(self, *args, **options):
        await asyncio.sleep(0.1)
        return broken(self, *args, **options)

    setattr(Broken, method, later if asynchronous else broken)

    def act(message):
        kinds = {"nack": "requeue", "discard": "discard", "dead_letter": "dead_letter"}
        if method in kinds:
            message.configure_ack(on_failure=kinds[method], delay=1000.0).fail("bad")

    async def wait(message):
        await asyncio.sleep(60)
        act(message)

    @virtually
    async def scenario():
        source, errors = Broken(wait, lease=30.0), []
        async with running(AsyncNoting(source=source), errors=errors) as started:
            told = {
                "ack": source.acked,
                "nack": source.nacked,
                "discard": source.discarded,
                "dead_letter": source.lettered,
                "extend": source.extended,
            }[method]
            await until(lambda: told, 200)
            assert started.statistics().source_errors == 3
            assert started.statistics().unacknowledged == 0
        assert [each.method for each in errors] == [method] * 3

    scenario()


@virtually
async def test_a_source_that_can_never_be_told_is_left_alone_after_some_time():
    class Broken(StubSource):
        def ack(self, messages):
            raise OSError("away")

    errors = []
    async with running(Noting(source=Broken(1, 2)), errors=errors) as started:
        await until(lambda: started.statistics().unacknowledged == 2)
    assert len(errors) == 5


# -- sources of all kinds ---------------------------------------------------------------------------------------------


class Own(Source):
    """Notes how it is called: no fetch within another, none after the drain, none of more than was asked for."""

    def __init__(self, count):
        self.left = list(range(count))
        self.busy = False
        self.drained = False
        self.acked = []

    def begin(self):
        assert not self.busy
        assert not self.drained
        self.busy = True

    def take(self, count):
        self.busy = False
        taken, self.left = self.left[:count], self.left[count:]
        return [Message(each) for each in taken] or None

    def fetch(self, count):
        self.begin()
        return self.take(count)

    def ack(self, messages):
        self.acked += [message.data for message in messages]

    def drain(self):
        self.drained = True


class OwnAsync(Own):
    async def fetch(self, count):
        self.begin()
        await asyncio.sleep(0.01)
        return self.take(count)

    async def ack(self, messages):
        await asyncio.sleep(0.05)
        super().ack(messages)


class OwnBlocking(Own):
    blocking = True


@pytest.mark.parametrize("kind", [Own, OwnAsync, OwnBlocking])
@pytest.mark.parametrize("keyed", [False, True])
def test_sources_of_all_kinds(kind, keyed):
    @virtually
    async def scenario():
        options = {"partition_by": lambda message: message.data % 7} if keyed else {}
        sources = [kind(100), kind(50)]
        statistics = await ended(
            Noting(source=sources, processors=Processors(concurrency=3), batchers=batcher(size=10), **options)
        )
        assert statistics.outcomes["acknowledged"] == 150
        assert [sorted(source.acked) for source in sources] == [list(range(100)), list(range(50))]

    scenario()


@pytest.mark.parametrize("kind", [Own, OwnAsync, OwnBlocking])
def test_nothing_is_fetched_after_the_drain(kind):
    @virtually
    async def scenario():
        source = kind(1000)
        errors = []
        pipeline = Slow(source=source, processors=Processors(concurrency=3, max_demand=2))
        async with running(pipeline, errors=errors) as started:
            await asyncio.sleep(2.5)
            await started.stop()
        assert errors == []
        plain = kind(5_000)
        quick = Noting(source=plain, processors=Processors(concurrency=3), batchers=batcher(size=10))
        async with running(quick, errors=errors) as started:
            await until(lambda: quick.handled)
            await started.stop()
        assert errors == []

    scenario()


@virtually
async def test_a_source_is_polled():
    class Polled(StubSource):
        poll = 5.0

        def put(self, *args, **options):
            wake, self.wake = self.wake, lambda: None
            super().put(*args, **options)
            self.wake = wake

    source = Polled()
    async with running(Noting(source=source)):
        await asyncio.sleep(1)
        source.push(1)
        await until(lambda: source.acked)
        assert now() == pytest.approx(5, abs=0.1)
        assert len(source.fetched) <= 3


@virtually
async def test_no_more_is_fetched_than_is_asked_for():
    source = StubSource(*range(100))
    pipeline = Slow(source=source, processors=Processors(concurrency=3, max_demand=2))
    async with running(pipeline) as started:
        await asyncio.sleep(0.5)
        assert started.statistics().fetched == 6
