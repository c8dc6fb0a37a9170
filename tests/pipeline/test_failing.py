# mypy: disable-error-code="var-annotated"
"""What becomes of messages that fail: tried again, handed out again, given up, kept, discarded, recovered."""

import asyncio
import itertools
import threading

import pytest

from headgate import (
    Backoff,
    HandlerTimeoutError,
    HookError,
    OptionError,
    Pipeline,
    Processors,
    RetryPolicy,
    merge,
)
from headgate.testing import StubSource
from tests.pipeline.helpers import AsyncNoting, Noting, batcher, ended, fails, now, running, until, virtually

# -- tried again ------------------------------------------------------------------------------------------------------


class Failing(Noting):
    """Fails with a message as often as its payload says; notes the times."""

    def __init__(self, **options):
        super().__init__(**options)
        self.times = []

    def handle_message(self, message):
        self.times.append(now())
        self.handled.append(message.data)
        if message.attempts < message.data:
            raise ValueError("bad")


def steps(times):
    return [later - earlier for earlier, later in itertools.pairwise(times)]


@virtually
async def test_waits_between_attempts():
    retry = RetryPolicy(attempts=5, first=1.0, factor=2.0, most=3.0, jitter=0)
    pipeline = Failing(processors=Processors(concurrency=1, retry=retry))
    async with running(pipeline) as started:
        message = await started.test_message(4)
        assert message.outcome == "acknowledged"
        assert steps(pipeline.times) == [pytest.approx(each, abs=0.01) for each in (1, 2, 3, 3)]
        assert started.statistics().retried == 4
        message = await started.test_message(10)
        assert message.outcome == "failed"
        assert message.attempts == 5


@virtually
async def test_a_message_that_waits_holds_up_nobody_else():
    retry = RetryPolicy(attempts=2, first=10.0, jitter=0)
    source = StubSource(1, 0, 0, 0)
    pipeline = Failing(source=source, processors=Processors(concurrency=1, retry=retry))
    async with running(pipeline) as started:
        await until(lambda: len(source.acked) == 3)
        assert now() < 1
        assert started.statistics().retrying == 1
        await until(lambda: len(source.acked) == 4)
    assert pipeline.handled == [1, 0, 0, 0, 1]


class Ordered(Noting):
    """Fails once with the first message of each key."""

    def handle_message(self, message):
        self.handled.append(message.data)
        if message.data.endswith("0") and not message.attempts:
            raise ValueError("bad")


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("number", [0, 1])
def test_later_messages_of_a_key_wait_for_one_that_is_tried_again(ordered, number):
    """Unless they may pass; also when a later step has failed with it."""

    @virtually
    async def scenario():
        retry = RetryPolicy(attempts=3, first=5.0, jitter=0, ordered=ordered)
        retrying = Processors(handler="handle_message", concurrency=1, retry=retry)
        passing = Processors(lambda _: None, concurrency=1)
        source = StubSource("a0", "a1", "b0", "a2", "b1")
        source.finish()
        pipeline = Ordered(
            source=source,
            processors={"one": retrying, "two": passing} if not number else {"one": passing, "two": retrying},
            partition_by=lambda message: message.data[0],
            batchers=batcher(size=1),
        )
        await ended(pipeline)
        order = "a0 b0 a0 a1 b0 a2 b1" if ordered else "a0 b0 a1 b1 a2 a0 b0"
        for key in "ab":
            assert [each for each in pipeline.handled if each[0] == key] == [
                each for each in order.split() if each[0] == key
            ]
        batched = [data for [data] in pipeline.payloads]
        if ordered:
            assert [each for each in batched if each[0] == "a"] == ["a0", "a1", "a2"]
        assert sorted(batched) == ["a0", "a1", "a2", "b0", "b1"]

    scenario()


@virtually
async def test_a_message_that_was_tried_again_is_not_handled_again_by_earlier_steps():
    first, second = [], []

    def one(message):
        first.append(message.data)

    async def two(message):
        second.append(message.data)
        if not message.attempts:
            raise ValueError("bad")

    steps = {
        "one": Processors(one, concurrency=2),
        "two": Processors(two, concurrency=2, retry=RetryPolicy(attempts=2, first=1.0)),
    }
    source = StubSource(1, 2, 3)
    source.finish()
    await ended(Pipeline(source=source, processors=steps))
    assert sorted(first) == [1, 2, 3]
    assert sorted(second) == [1, 1, 2, 2, 3, 3]


# -- handed out again, or given up ------------------------------------------------------------------------------------


@virtually
async def test_a_message_that_fails_is_handed_out_again_and_is_a_dead_letter_in_the_end():
    payload = fails()
    source = StubSource(payload, max_deliveries=3)
    pipeline = Noting(source=source, redelivery=Backoff(first=2.0, factor=3.0, jitter=0))
    async with running(pipeline) as started:
        await until(lambda: source.lettered)
        assert started.statistics().outcomes == {
            "acknowledged": 0,
            "failed": 0,
            "requeued": 2,
            "dead_lettered": 1,
        }
    assert source.nacked == [(payload, 2.0, True), (payload, 6.0, True)]
    assert pipeline.handled == [payload] * 3
    [(_, reason)] = source.lettered
    assert str(reason) == "bad"


@virtually
async def test_the_pipeline_says_how_often_when_its_source_does_not():
    source = StubSource(fails())
    pipeline = Noting(source=source, max_deliveries=2)
    async with running(pipeline):
        await until(lambda: source.lettered)
    assert len(pipeline.handled) == 2


@virtually
async def test_a_source_that_takes_nothing_back():
    """What fails is a dead letter at once: of the system, if the source keeps none."""
    letters = []
    source = StubSource(fails(), redelivers=False, keeps_letters=False)
    async with running(Noting(source=source), letters=letters):
        await until(lambda: letters)
    [letter] = letters
    assert (letter.stage, letter.deliveries, str(letter.reason)) == ("Noting", 1, "bad")
    assert "ValueError: bad" in letter.traceback
    assert len(source.discarded) == 1


KINDS = {
    "retry": lambda source: source.nacked and source.nacked[0][1] > 0,
    "requeue": lambda source: source.nacked and source.nacked[0][1] > 0,
    "dead_letter": lambda source: source.lettered,
    "discard": lambda source: source.discarded,
}


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(("kind", "check"), KINDS.items())
def test_what_becomes_of_it(kind, check, own):
    """By the pipeline's option, or that of the message."""

    @virtually
    async def scenario():
        payload = (lambda message: message.configure_ack(on_failure=kind).fail("bad")) if own else fails()
        source = StubSource(payload)
        async with running(Noting(source=source, on_failure="discard" if own and kind != "discard" else kind)):
            await until(lambda: check(source))
        assert source.acked == []

    scenario()


@virtually
async def test_a_delay_of_its_own():
    source = StubSource(lambda message: message.configure_ack(on_failure="requeue", delay=7.0).fail("bad"))
    async with running(Noting(source=source)):
        await until(lambda: source.nacked)
    assert source.nacked[0][1:] == (7.0, True)


def test_wrong_options_of_a_message():
    @virtually
    async def scenario():
        async with running(Noting()) as started:
            for options in ({"on_failure": "explode"}, {"delay": -1}, {"unknown": 1}, {"delay": "soon"}):
                message = await started.test_message(lambda message, options=options: message.configure_ack(**options))
                assert message.outcome == "failed"
                assert isinstance(message.reason, OptionError)
                assert message.reason.where == "configure_ack"

    scenario()


@virtually
async def test_the_options_of_a_message_count_for_its_parts():
    source = StubSource(1)

    def split(message):
        parts = message.configure_ack(on_failure="discard").split([1, 2])
        parts[1].fail("bad")
        return parts

    async with running(Noting(source=source, processors=Processors(split, concurrency=1))):
        await until(lambda: source.discarded)
    assert (source.acked, source.nacked) == ([], [])


# -- dead letters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_hook_for_dead_letters(asynchronous):
    @virtually
    async def scenario():
        letters = []

        def plain(letter):
            letters.append(letter)

        async def later(letter):
            await asyncio.sleep(5)
            letters.append(letter)

        source = StubSource(fails(), keeps_letters=False)
        pipeline = Noting(
            source=source, on_failure="dead_letter", dead_letters=later if asynchronous else plain, context=1
        )
        async with running(pipeline) as started:
            await until(lambda: source.discarded)
            assert started.statistics().outcomes["dead_lettered"] == 1
        [letter] = letters
        assert (letter.event.outcome, letter.stage, letter.consumer) == ("dead_lettered", "Noting", "handle_message")
        assert isinstance(letter.error, ValueError)

    scenario()


@virtually
async def test_a_hook_for_dead_letters_that_raises_is_reported_and_the_letter_is_kept_by_the_system():
    errors = []

    def broken(letter):
        raise RuntimeError("full")

    source = StubSource(fails(), keeps_letters=False)
    async with running(Noting(source=source, on_failure="dead_letter", dead_letters=broken), errors=errors) as started:
        await until(lambda: source.discarded)
        assert len(started.system.letters) == 1
    [error] = errors
    assert isinstance(error, HookError)
    assert error.hook == "dead_letter"


# -- handle_failed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_failure_that_is_taken_back(asynchronous):
    """The message is acknowledged, or goes to the batcher that it is put to."""

    class Recovering(Noting):
        def handle_failed(self, messages):
            for message in messages:
                message.recover("rescued" if message.data == "rescue" else None)

        def handle_message(self, message):
            raise ValueError("bad")

    class RecoveringLater(Recovering):
        async def handle_failed(self, messages):
            await asyncio.sleep(1)
            super().handle_failed(messages)

    @virtually
    async def scenario():
        source = StubSource("rescue", "ignore")
        kind = RecoveringLater if asynchronous else Recovering
        options = {"rescued": {"size": 1}, "default": {"size": 1}}
        pipeline = kind(source=source, batchers=options, partition_by=lambda _: "one key")
        async with running(pipeline):
            await until(lambda: len(source.acked) == 2)
        found = {(tuple(data), info.batcher) for data, info in pipeline.batches}
        assert found == {(("rescue",), "rescued"), (("ignore",), "default")}

    scenario()


@virtually
async def test_a_failure_that_is_taken_back_without_batchers():
    class Recovering(Noting):
        def handle_failed(self, messages):
            messages[0].recover()

    source = StubSource(fails(), 2, 3)
    async with running(Recovering(source=source, partition_by=lambda _: "one key")):
        await until(lambda: len(source.acked) == 3)


@virtually
async def test_a_batch_that_failed_is_rescued_by_another_batcher():
    class Rerouting(Noting):
        def handle_batch(self, messages, batch):
            super().handle_batch(messages, batch)
            if batch.batcher == "default":
                raise ValueError("bad")

        def handle_failed(self, messages):
            for message in messages:
                message.recover("other")

    source = StubSource(1, 2)
    batchers = {"default": {"size": 2, "isolate": False}, "other": {"size": 2}}
    pipeline = Rerouting(source=source, batchers=batchers)
    async with running(pipeline):
        await until(lambda: len(source.acked) == 2)
    assert [(data, info.batcher) for data, info in pipeline.batches] == [([1, 2], "default"), ([1, 2], "other")]


# -- one into many, many into one -------------------------------------------------------------------------------------


class Splitting(Noting):
    """Makes parts of a message; a part that says so fails."""

    def handle_message(self, message):
        return message.split(message.data)

    def handle_batch(self, messages, batch):
        super().handle_batch(messages, batch)
        for message in messages:
            if message.data == "bad":
                message.fail("a part is bad")


@virtually
async def test_a_message_ends_when_all_of_its_parts_have():
    source = StubSource([1, 2, 3], [4])
    pipeline = Splitting(source=source, batchers=batcher(size=2, timeout=10.0))
    async with running(pipeline) as started:
        await until(lambda: len(pipeline.batches) == 2)
        await asyncio.sleep(0)
        await until(lambda: source.acked)
        assert sorted(map(len, source.acked)) == [1, 3]
        assert started.statistics().fetched == 2
        assert started.statistics().outcomes["acknowledged"] == 2
    assert pipeline.payloads == [[1, 2], [3, 4]]


@virtually
async def test_a_message_is_acknowledged_only_with_its_last_part():
    source = StubSource([1, 2, 3])
    pipeline = Splitting(source=source, batchers=batcher(size=2, timeout=10.0))
    async with running(pipeline):
        await until(lambda: pipeline.batches)
        await asyncio.sleep(5)
        assert source.acked == []
        await until(lambda: source.acked)
        assert now() == pytest.approx(10, abs=0.1)


@virtually
async def test_a_message_ends_as_the_worst_of_its_parts():
    source = StubSource([1, "bad", 3])
    pipeline = Splitting(source=source, batchers=batcher(size=3), on_failure="dead_letter")
    async with running(pipeline) as started:
        await until(lambda: source.lettered)
        assert started.statistics().outcomes["dead_lettered"] == 1
    assert source.lettered == [([1, "bad", 3], "a part is bad")]
    assert source.acked == []


@virtually
async def test_parts_of_parts():
    first = Processors(lambda message: message.split([[1, 2], [3]]), concurrency=1)
    second = Processors(lambda message: message.split(message.data), concurrency=1)
    source = StubSource("all")
    pipeline = Noting(source=source, processors={"first": first, "second": second}, batchers=batcher(size=2))
    async with running(pipeline):
        await until(lambda: source.acked)
        assert now() >= 1
    assert pipeline.payloads == [[1, 2], [3]]


@virtually
async def test_parts_that_are_tried_again():
    """Only the part that failed is."""
    seen = []

    def second(message):
        seen.append(message.data)
        if message.data == 2 and not message.attempts:
            raise ValueError("bad")

    steps = {
        "first": Processors(lambda message: message.split([1, 2, 3]), concurrency=1),
        "second": Processors(second, concurrency=1, retry=RetryPolicy(attempts=2, first=1.0)),
    }
    source = StubSource("all")
    async with running(Noting(source=source, processors=steps)):
        await until(lambda: source.acked)
    assert seen == [1, 2, 3, 2]


class Merging(Noting):
    """Makes one of a batch, as a batch handler that writes one row for several messages."""

    def handle_batch(self, messages, batch):
        merged = merge(messages, [message.data for message in messages])
        self.merged = merged
        if "bad" in merged.data:
            merged.fail("not written")
        return [merged]


@virtually
async def test_many_end_as_the_one_that_was_made_of_them():
    source = StubSource(1, 2, "bad", 3)
    pipeline = Merging(source=source, batchers=batcher(size=2), on_failure="discard")
    async with running(pipeline):
        await until(lambda: source.acked and source.discarded)
    assert (source.acked, source.discarded) == ([1, 2], ["bad", 3])


class Collecting(Noting):
    """Lets messages wait until there are three, and goes on with one for all of them."""

    def __init__(self, **options):
        super().__init__(**options)
        self.held = []

    def handle_message(self, message):
        self.held.append(message)
        if len(self.held) < 3:
            message.defer(timeout=1000.0)
            return None
        held, self.held = self.held, []
        return merge(held, [each.data for each in held])

    def handle_batch(self, messages, batch):
        super().handle_batch(messages, batch)
        for message in messages:
            if "bad" in message.data:
                message.fail("not good")


@virtually
async def test_messages_that_wait_to_be_merged():
    source = StubSource(1, 2, 3, 4, "bad", 6)
    source.finish()
    pipeline = Collecting(source=source, batchers=batcher(size=1), on_failure="discard")
    statistics = await ended(pipeline)
    assert now() < 1, "nobody waits for their time to be over"
    assert pipeline.payloads == [[[1, 2, 3]], [[4, "bad", 6]]]
    assert (source.acked, source.discarded) == ([1, 2, 3], [4, "bad", 6])
    assert statistics.duplicates == 0


@virtually
async def test_a_handle_of_a_message_that_was_merged_is_of_no_use():
    errors, handles = [], []

    class Keeping(Noting):
        def handle_message(self, message):
            if not handles:
                handles.append(message.defer())
                self.first = message
                return None
            return merge([self.first, message], 5)

    source = StubSource(1, 2)
    async with running(Keeping(source=source), errors=errors) as started:
        await until(lambda: source.acked == [1, 2])
        handles[0].fail("too late")
        assert started.statistics().duplicates == 1
        assert started.statistics().deferred == 0
    assert [type(each).__name__ for each in errors] == ["DuplicateSettlementError"]


def test_nothing_cannot_be_merged():
    with pytest.raises(ValueError, match="expected at least one message"):
        merge([], 1)


# -- settled later ----------------------------------------------------------------------------------------------------


class Deferring(Noting):
    """Keeps the handles of all its messages."""

    def __init__(self, **options):
        super().__init__(**options)
        self.handles = []

    def handle_message(self, message):
        self.handled.append(message.data)
        self.handles.append(message.defer(timeout=20.0))


class DeferringBatches(Deferring):
    def handle_message(self, message):
        pass

    def handle_batch(self, messages, batch):
        self.handled += [message.data for message in messages]
        self.handles += [message.defer(timeout=20.0) for message in messages]


deferring = pytest.mark.parametrize(
    "make",
    [Deferring, lambda **options: DeferringBatches(batchers=batcher(size=4), **options)],
    ids=["processor", "batch"],
)


@deferring
def test_messages_that_are_settled_later(make):
    @virtually
    async def scenario():
        source, errors = StubSource(1, 2, 3, 4), []
        pipeline = make(source=source, on_failure="discard")
        async with running(pipeline, errors=errors) as started:
            await until(lambda: len(pipeline.handles) == 4)
            await asyncio.sleep(5)
            assert started.statistics().deferred == 4
            assert source.acked == []
            ack, fail, requeue, _ = pipeline.handles
            ack.ack()
            fail.fail("bad")
            requeue.requeue(100.0)
            await until(lambda: source.acked and source.discarded and source.nacked)
            assert started.statistics().deferred == 1
            await until(lambda: len(source.discarded) == 2)  # its time is over
            assert now() == pytest.approx(20, abs=0.1)
            ack.fail("too late")
            await until(lambda: errors)
            assert started.statistics().duplicates == 1
        assert (source.acked, source.discarded) == ([1], [2, 4])
        assert source.nacked == [(3, 100.0, True)]

    scenario()


@virtually
async def test_the_reason_when_nobody_settles_it():
    pipeline = Deferring()
    async with running(pipeline) as started:
        message = await started.test_message(1)
    assert isinstance(message.reason, HandlerTimeoutError)
    assert message.reason.seconds == 20.0


def test_a_handle_may_be_used_by_a_thread():
    async def scenario():
        source = StubSource(1)
        pipeline = Deferring(source=source)
        async with pipeline:
            await until(lambda: pipeline.handles)
            thread = threading.Thread(target=pipeline.handles[0].ack)
            thread.start()
            await until(lambda: source.acked == [1])
            thread.join()

    asyncio.run(scenario())


@deferring
def test_a_stop_waits_for_what_was_deferred(make):
    @virtually
    async def scenario():
        source, errors = StubSource(1, 2, 3, 4), []
        pipeline = make(source=source, shutdown=10.0)
        async with running(pipeline, errors=errors) as started:
            await until(lambda: len(pipeline.handles) == 4)
            stopping = asyncio.ensure_future(started.stop())
            await asyncio.sleep(5)
            assert not stopping.done()
            for handle in pipeline.handles[:3]:
                handle.ack()
            await stopping
            assert now() < 12
            pipeline.handles[3].ack()  # too late
        assert [type(each).__name__ for each in errors] == ["DuplicateSettlementError"]
        assert source.acked == [1, 2, 3]
        assert [data for data, _, _ in source.nacked] == [4]

    scenario()


@virtually
async def test_parts_may_be_deferred():
    handles = []

    def split(message):
        parts = message.split([1, 2])
        handles.extend(part.defer() for part in parts)
        return parts

    source = StubSource("all")
    async with running(Noting(source=source, processors=Processors(split, concurrency=1))) as started:
        await until(lambda: len(handles) == 2)
        handles[0].ack()
        await asyncio.sleep(1)
        assert source.acked == []
        handles[1].ack()
        await until(lambda: source.acked)
        assert started.statistics().deferred == 0


def test_a_message_of_nobody_cannot_be_deferred():
    from headgate import Message  # noqa: PLC0415 (of this test only)

    with pytest.raises(RuntimeError, match="expected a message of a pipeline that runs"):
        Message(1).defer()


@virtually
async def test_deferred_messages_of_a_key():
    """The next one waits until it is settled."""
    pipeline = Deferring(source=StubSource(1, 2), partition_by=lambda _: "key")
    async with running(pipeline):
        await until(lambda: pipeline.handles)
        await asyncio.sleep(5)
        assert pipeline.handled == [1]
        pipeline.handles[0].ack()
        await until(lambda: len(pipeline.handles) == 2)
        pipeline.handles[1].ack()


# -- settled twice, or too late ---------------------------------------------------------------------------------------


@virtually
async def test_a_message_whose_lease_is_over_is_reported_and_counted():
    class Leased(StubSource):
        def ack(self, messages):
            super().ack(messages)
            return [message for message in messages if message.data == 2]

    errors = []
    source = Leased(1, 2, 3)
    async with running(Noting(source=source), errors=errors) as started:
        await until(lambda: len(source.acked) == 3)
        await until(lambda: errors)
        statistics = started.statistics()
        assert statistics.expired == 1
        assert (statistics.outcomes["acknowledged"], statistics.outcomes["requeued"]) == (2, 1)
    [error] = errors
    assert type(error).__name__ == "LeaseExpiredError"
    assert error.event.data == 2


@virtually
async def test_leases_are_extended_while_messages_are_under_way():
    async def slow(_):
        await asyncio.sleep(100)

    source = StubSource(slow, lease=30.0)
    async with running(AsyncNoting(source=source)):
        await until(lambda: source.acked, 200)
        count = len(source.extended)
        await asyncio.sleep(100)
        assert len(source.extended) == count, "nothing is under way"
    assert 9 <= count <= 11
    assert source.extended[0] == ([slow], 30.0)
