# mypy: disable-error-code="union-attr, var-annotated"
"""Batchers: which messages come together, why a batch is complete, and order by key through the whole pipeline."""

import asyncio

import pytest

from headgate import Batcher, HandlerError, OptionError, Processors
from headgate.testing import StubSource
from tests.parity.registry import different
from tests.pipeline.helpers import AsyncNoting, Noting, batcher, ended, running, until, virtually


class Sorting(Noting):
    """Odd numbers and even ones go to batchers of their own."""

    def handle_message(self, message):
        message.put_batcher("odd" if message.data % 2 else "even")


class ByKey(Noting):
    """Odd numbers and even ones have keys of their own, in one batcher."""

    def handle_message(self, message):
        message.put_batch_key("odd" if message.data % 2 else "even")


def sizes(pipeline, name=None):
    return [info.size for _, info in pipeline.batches if name in (None, info.batcher)]


def two(odd, even):
    return {"odd": odd, "even": even}


@virtually
async def test_two_batchers():
    """B042: of 40 numbers one gets two full batches, the other four."""
    pipeline = Sorting(source=StubSource(*range(1, 41)), batchers=two(Batcher(size=10), Batcher(size=5)))
    async with running(pipeline):
        await until(lambda: len(pipeline.batches) == 6)
    assert sizes(pipeline, "odd") == [10, 10]
    assert sizes(pipeline, "even") == [5] * 4
    assert set(pipeline.triggers) == {"size"}
    assert [each for data, info in pipeline.batches if info.batcher == "odd" for each in data] == list(range(1, 41, 2))


@virtually
async def test_the_rest_is_flushed():
    """B043: of messages that are to be flushed; without waiting for the time to be up."""
    pipeline = Sorting(batchers=two(Batcher(size=10, timeout=1000), Batcher(size=5, timeout=1000)))
    async with running(pipeline) as started:
        await started.test_batch(range(1, 6), flush=True)
    assert set(pipeline.triggers) == {"flush"}
    assert sorted(each for data in pipeline.payloads for each in data) == [1, 2, 3, 4, 5]
    assert all(len({each % 2 for each in data}) == 1 for data in pipeline.payloads)


@virtually
async def test_keys_in_one_batcher():
    """B044: have batches of their own."""
    pipeline = ByKey(source=StubSource(*range(1, 11)), batchers=batcher(size=2))
    async with running(pipeline):
        await until(lambda: sum(sizes(pipeline)) == 10)
    for data, info in pipeline.batches:
        assert {each % 2 for each in data} == {info.key == "odd"}
    assert [data for data, info in pipeline.batches if info.key == "odd"] == [[1, 3], [5, 7], [9]]


@virtually
async def test_keys_and_flush():
    """B045: one batch for each key."""
    processors = Processors(concurrency=1, max_demand=10, min_demand=0)
    pipeline = ByKey(batchers=batcher(size=100, timeout=1000), processors=processors)
    async with running(pipeline) as started:
        await started.test_batch(range(1, 6), flush=True)
    assert [(data, info.key, info.trigger) for data, info in pipeline.batches] == [
        ([1, 3, 5], "odd", "flush"),
        ([2, 4], "even", "flush"),
    ]


def weighing(limit):
    """Complete a batch when its numbers come to as much."""

    def emit(message, weight):
        weight += message.data
        return (True, 0) if weight >= limit else (False, weight)

    return (0, emit)


@virtually
async def test_a_splitter_and_two_keys():
    """B046: each key is weighed by itself."""
    pipeline = ByKey(source=StubSource(12, 1, 3, 7), batchers=batcher(size=weighing(11)))
    async with running(pipeline):
        await until(lambda: sum(sizes(pipeline)) == 4)
    assert pipeline.payloads == [[12], [1, 3, 7]]
    assert pipeline.triggers == ["size", "size"]


@virtually
async def test_splitters_of_two_batchers():
    """B047: exact sizes, and the rest when the time is up."""
    batchers = two(Batcher(size=weighing(9)), Batcher(size=weighing(6)))
    pipeline = Sorting(source=StubSource(1, 2, 3, 4, 5, 6, 7, 8, 1), batchers=batchers)
    async with running(pipeline):
        await until(lambda: sum(sizes(pipeline)) == 9)
    found = [(info.batcher, data, info.trigger) for data, info in pipeline.batches]
    assert sorted(found) == [
        ("even", [2, 4], "size"),
        ("even", [6], "size"),
        ("even", [8], "size"),
        ("odd", [1, 3, 5], "size"),
        ("odd", [7, 1], "timeout"),
    ]


@virtually
async def test_splitters_and_flush():
    """B048: one batch for each batcher."""
    batchers = two(Batcher(size=weighing(1000)), Batcher(size=weighing(1000)))
    processors = Processors(concurrency=1, max_demand=10, min_demand=0)
    pipeline = Sorting(batchers=batchers, processors=processors)
    async with running(pipeline) as started:
        await started.test_batch([1, 2, 3, 4, 5], flush=True)
    assert sorted(pipeline.payloads) == [[1, 3, 5], [2, 4]]
    assert pipeline.triggers == ["flush", "flush"]


# -- order by key -----------------------------------------------------------------------------------------------------


class Partitioned(AsyncNoting):
    """Notes who handles what, and whether anybody else is at the same key."""

    def __init__(self, **options):
        super().__init__(**options)
        self.busy = set()
        self.most = 0

    async def handle_message(self, message):
        key = message.data % 4
        assert key not in self.busy
        self.busy.add(key)
        self.most = max(self.most, len(self.busy))
        await asyncio.sleep(0.01 * (1 + message.data % 3))
        self.busy.remove(key)
        self.handled.append(message.data)


class Batched(AsyncNoting):
    """The same for batches."""

    def __init__(self, **options):
        super().__init__(**options)
        self.busy = set()
        self.most = 0

    async def handle_batch(self, messages, batch):
        assert batch.key not in self.busy
        self.busy.add(batch.key)
        self.most = max(self.most, len(self.busy))
        await asyncio.sleep(0.01 * (1 + batch.size))
        self.busy.remove(batch.key)
        await super().handle_batch(messages, batch)


def by_four(message):
    return message.data % 4


@different(
    "B049", "a key is not bound to one processor: whoever is free takes its next message, in order, one at a time"
)
@virtually
async def test_messages_of_one_key_are_processed_in_order():
    """B049: one at a time; different keys at the same time."""
    source = StubSource(*range(40))
    source.finish()
    pipeline = Partitioned(source=source, processors=Processors(concurrency=4), partition_by=by_four)
    await ended(pipeline)
    for key in range(4):
        assert [each for each in pipeline.handled if each % 4 == key] == list(range(key, 40, 4))
    assert pipeline.most == 4


@different(
    "B050", "a key is not bound to one batch processor: with serial=True its batches are handled in order all the same"
)
@virtually
async def test_batches_of_one_key_are_handled_in_order():
    """B050: one at a time; those of different keys at the same time."""
    source = StubSource(*range(40))
    source.finish()
    options = {"size": 2, "concurrency": 4, "serial": True, "key": by_four}
    pipeline = Batched(source=source, partition_by=by_four, batchers=batcher(**options))
    await ended(pipeline)
    for key in range(4):
        handled = [each for data, info in pipeline.batches if info.key == key for each in data]
        assert handled == list(range(key, 40, 4))
    assert pipeline.most > 1


@virtually
async def test_keys_of_both_kinds():
    """B051: split batches by both, in a batcher that is told so."""

    class Both(Noting):
        def handle_message(self, message):
            message.put_batch_key("low" if message.data < 6 else "high")

    source = StubSource(*range(12))
    source.finish()
    options = {"size": 2, "key": lambda message: (message.data % 2, message.batch_key)}
    pipeline = Both(source=source, partition_by=lambda message: message.data % 2, batchers=batcher(**options))
    await ended(pipeline)
    for data, info in pipeline.batches:
        assert {(each % 2, "low" if each < 6 else "high") for each in data} == {info.key}
    assert len({info.key for _, info in pipeline.batches}) == 4


@virtually
async def test_keys_of_processors_and_of_batchers():
    """B052: may differ."""
    source = StubSource(*range(24))
    source.finish()
    options = {"size": 3, "serial": True, "concurrency": 2, "key": lambda message: message.data % 3}
    pipeline = Partitioned(
        source=source, processors=Processors(concurrency=4), partition_by=by_four, batchers=batcher(**options)
    )
    await ended(pipeline)
    for key in range(4):
        assert [each for each in pipeline.handled if each % 4 == key] == list(range(key, 24, 4))
    for data, info in pipeline.batches:
        assert {each % 3 for each in data} == {info.key}


# -- flush and bulk ---------------------------------------------------------------------------------------------------


class Acknowledging(StubSource):
    """Notes what it is told together."""

    def __init__(self, *payloads, **options):
        super().__init__(*payloads, **options)
        self.calls = []

    def ack(self, messages):
        self.calls.append([each.data for each in messages])
        return super().ack(messages)


class Flushing(Noting):
    def handle_message(self, message):
        message.put_batch_mode("flush")


@virtually
async def test_messages_that_are_flushed():
    """B053: are batches of their own, each as soon as it is there."""
    processors = Processors(concurrency=1, max_demand=1)
    pipeline = Flushing(source=StubSource(1, 2, 3, 4, 5), batchers=batcher(size=2), processors=processors)
    async with running(pipeline):
        await until(lambda: len(pipeline.batches) == 5)
    assert pipeline.payloads == [[1], [2], [3], [4], [5]]
    assert set(pipeline.triggers) == {"flush"}


@virtually
async def test_messages_that_are_not():
    """B054: come by two, and the last one when the time is up."""
    source = Acknowledging(1, 2, 3, 4, 5)
    pipeline = Noting(source=source, batchers=batcher(size=2))
    async with running(pipeline):
        await until(lambda: len(source.acked) == 5)
    assert pipeline.payloads == [[1, 2], [3, 4], [5]]
    assert pipeline.triggers == ["size", "size", "timeout"]
    assert [each for call in source.calls for each in call] == [1, 2, 3, 4, 5]


# -- acknowledgement --------------------------------------------------------------------------------------------------


@virtually
async def test_a_message_that_is_acknowledged_at_once():
    """B055: is acknowledged then, and not once more at the end."""
    source = StubSource(1)

    class Now(Noting):
        def handle_message(self, message):
            message.ack_immediately()
            assert message.outcome == "acknowledged"

    async with running(Now(source=source, batchers=batcher(size=1))) as pipeline:
        await until(lambda: source.acked)
        await asyncio.sleep(5)
        assert pipeline.statistics().duplicates == 0
    assert source.acked == [1]


@virtually
async def test_messages_that_are_settled_at_once():
    """B056: by how they are: acknowledged, or failed."""
    source = StubSource(1, 2, 3)

    class Now(Noting):
        def handle_batch(self, messages, batch):
            for message in messages:
                if message.data == 2:
                    message.fail("not good")
                message.ack_immediately()

    pipeline = Now(source=source, batchers=batcher(size=3))
    async with running(pipeline) as started:
        await until(lambda: len(source.acked) == 2)
        await asyncio.sleep(5)
        assert started.statistics().outcomes["failed"] == 1
    assert (source.acked, source.discarded) == ([1, 3], [2])


@virtually
async def test_options_that_a_source_does_not_have():
    """B057: raise in the handler, so that its message fails, which is logged."""
    source = StubSource(lambda message: message.configure_ack(priority=5))
    async with running(Noting(source=source, on_failure="dead_letter")):
        await until(lambda: source.lettered)
    [(_, reason)] = source.lettered
    assert isinstance(reason, OptionError)
    assert (reason.where, reason.option, reason.got) == ("configure_ack", "priority", 5)


@virtually
async def test_options_that_a_source_has():
    """B058: are passed on to it; ours are ours."""

    class Configured(StubSource):
        def configure(self, message, options):
            message.metadata.update(options)

    source = Configured(lambda message: message.configure_ack(priority=5, on_failure="discard").fail("not good"))
    message = None

    class Seeing(Noting):
        def handle_failed(self, messages):
            nonlocal message
            [message] = messages

    async with running(Seeing(source=source)):
        await until(lambda: source.discarded)
    assert message.metadata == {"priority": 5}


@different("B081", "a source is told of all that was acknowledged in one call, of the others by what becomes of them")
@virtually
async def test_who_is_told_what():
    """B081: each source of its own messages, those that were acknowledged apart from those that were not."""
    first, second = Acknowledging(1, 2, 3), Acknowledging(11, 12)

    class Failing(Noting):
        def handle_batch(self, messages, batch):
            for message in messages:
                if message.data % 10 == 2:
                    message.fail("not good")

    async with running(Failing(source=[first, second], batchers=batcher(size=5), on_failure="discard")):
        await until(lambda: first.discarded and second.discarded)
    assert (first.calls, first.discarded) == ([[1, 3]], [2])
    assert (second.calls, second.discarded) == ([[11]], [12])


@pytest.mark.parametrize("result", [[1], [None], "text", 5, {"a": 1}])
def test_a_batch_handler_that_returns_something_else(result):
    """B083: fails the whole batch."""
    source, errors = StubSource(1, 2), []

    class Wrong(Noting):
        def handle_batch(self, messages, batch):
            return result

    @virtually
    async def scenario():
        async with running(Wrong(source=source, batchers=batcher(size=2), on_failure="dead_letter"), errors=errors):
            await until(lambda: len(source.lettered) == 2)

    scenario()
    [error] = errors
    assert isinstance(error, HandlerError)
    assert (error.stage, error.callback, error.got) == ("Wrong.batch.default-1", "handle_batch", result)
    assert source.lettered == [(1, error), (2, error)]


@different("B085", "a batch that fails is handled in halves, so that only the messages that are to blame fail")
@virtually
async def test_a_crash_of_what_a_batch_handler_waits_for():
    """B085: fails the batch, and nothing else."""
    source = StubSource(1, 2, 3, 4)

    class Crashing(AsyncNoting):
        async def handle_batch(self, messages, batch):
            async def crash():
                if any(message.data == 2 for message in messages):
                    raise ValueError("in a task")

            async with asyncio.TaskGroup() as group:
                group.create_task(crash())

    for isolate, failed in ((True, [2]), (False, [1, 2])):
        source = StubSource(1, 2, 3, 4)
        pipeline = Crashing(source=source, batchers=batcher(size=2, isolate=isolate), on_failure="discard")
        async with running(pipeline) as started:
            stage = started.system.ref("Crashing.batch.default-1")
            await until(lambda source=source: len(source.acked) + len(source.discarded) == 4)
            assert stage.alive
        assert source.discarded == failed
