# mypy: disable-error-code="var-annotated"
"""What handlers return and raise, in every kind of step: whatever it is, the message ends and nothing hangs."""

import asyncio
import time

import pytest

from headgate import (
    HandlerError,
    HandlerTimeoutError,
    Message,
    Pipeline,
    Processors,
    Reject,
    Retry,
    RetryPolicy,
    Skip,
)
from headgate.testing import StubSource
from tests.pipeline.helpers import ONE, Noting, batcher, ended, now, running, until, virtually


class Plain(Noting):
    """A plain handler."""


class Async(Noting):
    async def handle_message(self, message):
        await asyncio.sleep(0.01)
        return super().handle_message(message)


class Threaded(Noting):
    processors = Processors(concurrency=1, place="thread")


class Second(Noting):
    """The handler is that of the second of three steps, which are of different kinds."""

    processors = {  # noqa: RUF012 (a declaration)
        "first": Processors(concurrency=1),
        "message": Processors(concurrency=1),
        "third": Processors(concurrency=1),
    }

    async def handle_first(self, message):
        assert message.batcher == "default"

    def handle_third(self, message):
        assert message.ok


kinds = pytest.mark.parametrize("kind", [Plain, Async, Threaded, Second])


async def outcome(pipeline, payload, **options):
    """Put one message in, between two others, and return it."""
    async with running(pipeline, **options) as started:
        first, message, last = await started.test_batch([1, payload, 2], flush=True)
        assert first.outcome == last.outcome == "acknowledged"
        assert (await started.test_message(3)).outcome == "acknowledged"
    return message


OTHER = Message("of nobody")
WRONG = {
    "a number": lambda _: 5,
    "True": lambda _: True,
    "a text": lambda _: "text",
    "a dict": lambda _: {},
    "a list with something else": lambda message: [message, 5],
    "a tuple of two numbers": lambda _: (1, 2),
    "itself twice": lambda message: [message, message],
    "a list in a list": lambda message: [[message]],
    "a part of a split": lambda message: message.split([str, str])[:1],
    "a generator": lambda message: (each for each in [message]),
    "a class": lambda _: Message,
}


@kinds
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_return_fails_the_message(kind, batched, answer):
    @virtually
    async def scenario():
        pipeline = kind(**({"batchers": batcher()} if batched else {}))
        message = await outcome(pipeline, answer)
        assert message.outcome == "failed"
        assert isinstance(message.reason, HandlerError)
        assert message.reason.expected.startswith("the message, None for it, or a list")
        assert message.reason.callback == "handle_message"

    scenario()


@kinds
def test_another_message_that_is_under_way_is_a_wrong_return(kind):
    @virtually
    async def scenario():
        kept = []

        def keep(message):
            kept.append(message)

        pipeline = kind(batchers=batcher(size=2))
        async with running(pipeline) as started:
            first, second, third = await started.test_batch([keep, lambda _: kept[0], 1])
        assert [each.outcome for each in (first, second, third)] == ["acknowledged", "failed", "acknowledged"]
        assert isinstance(second.reason, HandlerError)

    scenario()


@kinds
def test_a_coroutine_of_a_plain_handler_is_a_wrong_return(kind):
    """It was to be declared as async; that is said, and Python has nothing to warn of."""

    async def never():
        raise AssertionError

    @virtually
    async def scenario():
        message = await outcome(kind(), lambda _: never())
        assert message.outcome == "failed"
        assert "coroutine" in str(message.reason)

    scenario()


FINE = {
    "itself": (lambda message: message, 1),
    "None": (lambda _: None, 1),
    "a list of itself": (lambda message: [message], 1),
    "nothing": (lambda _: [], 0),
    "a new one": (lambda _: Message(str), 1),
    "two new ones": (lambda _: [Message(str), Message(str)], 2),
    "itself and a new one": (lambda message: [message, Message(str)], 2),
    "a tuple": (lambda message: (message,), 1),
    "a split": (lambda message: message.split([str, str, str]), 3),
    "an empty split": (lambda message: message.split([]), 0),
}


@kinds
@pytest.mark.parametrize(("answer", "count"), FINE.values(), ids=FINE.keys())
def test_a_return_that_is_fine(kind, answer, count):
    @virtually
    async def scenario():
        pipeline = kind(batchers=batcher(timeout=0.5))
        message = await outcome(pipeline, answer)
        assert message.outcome == "acknowledged"
        assert sum(map(len, pipeline.payloads)) == 3 + count

    scenario()


def raising(error):
    def payload(_):
        raise error

    return payload


@kinds
def test_signals(kind):
    @virtually
    async def scenario():
        skipped = raising(Skip())
        rejected = raising(Reject("no good"))
        source = StubSource(skipped, rejected, raising(ValueError("bad")))
        pipeline = kind(source=source, batchers=batcher(size=1), on_failure="discard")
        async with running(pipeline) as started:
            await until(lambda: source.acked and source.lettered == [] and len(source.discarded) == 2)
            assert started.statistics().in_flight == 0
        assert source.acked == [skipped]
        assert pipeline.payloads == []
        source = StubSource(rejected)
        async with running(kind(source=source)):
            await until(lambda: source.lettered)
        [(_, reason)] = source.lettered
        assert isinstance(reason, Reject)
        assert reason.reason == "no good"
        assert source.nacked == []

    scenario()


@kinds
def test_a_signal_to_try_again(kind):
    @virtually
    async def scenario():
        times = []

        def twice(_):
            times.append(now())
            if len(times) < 3:
                raise Retry(after=5.0)

        async with running(kind(batchers=batcher(size=1))) as started:
            message = await started.test_message(twice)
            assert started.statistics().retried == 2
        assert message.outcome == "acknowledged"
        assert message.attempts == 2
        assert [time // 5 for time in times] == [0, 1, 2]

    scenario()


@kinds
def test_a_signal_to_try_again_ends_some_time(kind):
    @virtually
    async def scenario():
        seen = []

        def always(_):
            seen.append(1)
            raise Retry

        async with running(kind()) as started:
            message = await started.test_message(always)
        assert message.outcome == "failed"
        assert isinstance(message.reason, Retry)
        assert len(seen) == 10

    scenario()


class Timed(Pipeline):
    processors = Processors(concurrency=1, timeout=2.0)

    async def handle_message(self, message):
        await asyncio.sleep(message.data)


@virtually
async def test_a_handler_that_takes_too_long():
    async with running(Timed()) as started:
        messages = await started.test_batch([1, 10, 1.5])
        assert now() < 6
    assert [each.outcome for each in messages] == ["acknowledged", "failed", "acknowledged"]
    reason = messages[1].reason
    assert isinstance(reason, HandlerTimeoutError)
    assert (reason.stage, reason.callback, reason.seconds) == ("Timed.default-1", "handle_message", 2.0)


@virtually
async def test_a_timeout_of_the_handlers_own_is_no_other_error():
    class Own(Pipeline):
        processors = Processors(concurrency=1, timeout=100.0)

        async def handle_message(self, message):
            async with asyncio.timeout(1):
                await asyncio.sleep(10)

    async with running(Own()) as started:
        message = await started.test_message(1)
    assert type(message.reason) is TimeoutError


@virtually
async def test_a_thread_that_takes_too_long_is_left_to_itself():
    class Blocking(Noting):
        processors = Processors(concurrency=1, place="thread", timeout=1e-9)

    async with running(Blocking()) as started:
        message = await started.test_message(1)
        assert started.statistics().abandoned == 1
    assert isinstance(message.reason, HandlerTimeoutError)


def late(message):
    message.deadline = 99.0


@kinds
def test_a_message_whose_deadline_is_over_is_not_handled(kind):
    class Late(StubSource):
        def fetch(self, count):
            messages = super().fetch(count)
            for message in messages or ():
                message.deadline = {"late": 99.0, "early": 1e9}[message.data]
            return messages

    @virtually
    async def scenario():
        source = Late("late", "early")
        pipeline = kind(source=source, clock=lambda: 100.0)
        async with running(pipeline):
            await until(lambda: source.acked and source.lettered)
        assert pipeline.handled == ["early"]
        [(data, reason)] = source.lettered
        assert data == "late"
        assert isinstance(reason, HandlerTimeoutError)
        assert reason.callback == "deadline"

    scenario()


@virtually
async def test_a_deadline_ends_a_handler():
    class Slow(Pipeline):
        processors = ONE

        async def handle_message(self, message):
            await asyncio.sleep(10)

    pipeline = Slow(clock=now)
    async with running(pipeline) as started:
        message = Message(1)
        message.deadline = now() + 3
        started.push([message])
        await until(lambda: message.outcome)
        assert now() == pytest.approx(3, abs=0.1)
    assert isinstance(message.reason, HandlerTimeoutError)


PREPARED = {
    "fewer": lambda messages: messages[1:],
    "others": lambda messages: [Message(1) for _ in messages],
    "a text": lambda _: "text",
    "lists": lambda messages: [[] for _ in messages],
    "doubles": lambda messages: [messages[0]] * len(messages),
}


@pytest.mark.parametrize("answer", PREPARED.values(), ids=PREPARED.keys())
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_wrong_return_of_a_preparation(answer, asynchronous):
    class Preparing(Noting):
        def prepare_messages(self, messages):
            return answer(messages) if messages[0].data == 1 else messages

    class PreparingLater(Preparing):
        async def prepare_messages(self, messages):
            await asyncio.sleep(1)
            return super().prepare_messages(messages)

    @virtually
    async def scenario():
        processors = Processors(concurrency=1, max_demand=2, min_demand=0)
        pipeline = (PreparingLater if asynchronous else Preparing)(processors=processors)
        async with running(pipeline) as started:
            messages = await started.test_batch([1, 2])
            assert (await started.test_message(3)).ok
        assert [each.outcome for each in messages] == ["failed", "failed"]
        for message in messages:
            assert isinstance(message.reason, HandlerError)
            assert message.reason.callback == "prepare_messages"
        assert pipeline.handled == [3]

    scenario()


@virtually
async def test_a_preparation_may_change_the_order():
    class Sorting(Noting):
        processors = Processors(concurrency=1, max_demand=3, min_demand=0)

        def prepare_messages(self, messages):
            return messages[::-1]

    pipeline = Sorting()
    async with running(pipeline) as started:
        await started.test_batch([1, 2, 3])
    assert pipeline.handled == [3, 2, 1]


@virtually
async def test_a_message_that_fails_in_its_preparation_goes_on_to_its_handler():
    """As in Broadway: whoever wants it otherwise looks at ``ok``."""

    class Failing(Noting):
        def prepare_messages(self, messages):
            for message in messages:
                message.fail("not prepared")

    pipeline = Failing()
    async with running(pipeline) as started:
        message = await started.test_message(1)
    assert (pipeline.handled, message.outcome, message.reason) == ([1], "failed", "not prepared")


FAILED = {
    "a text": lambda _: "text",
    "fewer": lambda _: [],
    "more": lambda messages: [*messages, Message(1)],
    "others": lambda messages: [Message(1) for _ in messages],
    "lists": lambda messages: [[] for _ in messages],
}


@pytest.mark.parametrize("answer", FAILED.values(), ids=FAILED.keys())
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_wrong_return_of_the_failure_hook_is_reported(answer, asynchronous):
    class Failing(Noting):
        def handle_failed(self, messages):
            return answer(messages)

    class FailingLater(Failing):
        async def handle_failed(self, messages):
            await asyncio.sleep(1)
            return super().handle_failed(messages)

    @virtually
    async def scenario():
        source, errors = StubSource(raising(ValueError("bad")), 1), []
        kind = FailingLater if asynchronous else Failing
        async with running(kind(source=source, on_failure="discard"), errors=errors):
            await until(lambda: source.discarded and source.acked)
        [error] = errors
        assert isinstance(error, HandlerError)
        assert error.callback == "handle_failed"
        assert error.expected == "the 1 messages that it was given, or None"

    scenario()


def test_functions_of_the_users_that_raise_fail_their_message():
    """Of messages: partition_by, fair_by, priority_by, the key of a batcher, its sizer, its splitter, a limit's key."""
    from headgate import Batcher, RateLimiter  # noqa: PLC0415 (of this test only)

    def bad(message, *_):
        if message.data == 2:
            raise ValueError("bad")
        return 1

    def splits(message, state):
        bad(message)
        return (True, state)

    cases = [
        {"partition_by": bad},
        {"fair_by": bad},
        {"priority_by": bad},
        {"partition_by": bad, "fair_by": bad, "priority_by": bad},
        {"batchers": {"default": Batcher(size=1, key=bad)}},
        {"batchers": {"default": Batcher(size=1, sizer=bad, max_bytes=10)}},
        {"batchers": {"default": Batcher(size=(0, splits))}},
        {"rate_limit": RateLimiter(100, key=bad)},
    ]
    for options in cases:

        @virtually
        async def scenario(options=options):
            source = StubSource(1, 2, 3)
            async with running(Noting(source=source, on_failure="dead_letter", **options)) as started:
                await until(lambda: len(source.acked) == 2 and source.lettered, 20)
                assert started.statistics().in_flight == 0
            assert sorted(source.acked) == [1, 3]
            [(data, reason)] = source.lettered
            assert data == 2
            assert str(reason) == "bad"

        scenario()


@virtually
async def test_places_of_handlers():
    """A plain handler in a thread, and an object that is async to call."""
    seen = []

    class Callable:
        async def __call__(self, message):
            seen.append(message.data)
            await asyncio.sleep(0)

    await ended_with(Noting(processors=Processors(Callable(), concurrency=1)), 1)
    assert seen == [1]
    pipeline = Threaded()
    await ended_with(pipeline, 2)
    assert pipeline.handled == [2]
    assert time.monotonic() > 0


async def ended_with(pipeline, payload):
    async with running(pipeline) as started:
        assert (await started.test_message(payload)).outcome == "acknowledged"


@virtually
async def test_a_policy_by_class_of_error():
    errors = {1: KeyError("a"), 2: ValueError("b"), 3: LookupError("c"), 4: OSError("d")}
    seen = []

    def broken(message):
        seen.append(message.data)
        raise errors[message.data]

    retry = {LookupError: RetryPolicy(attempts=4, first=1.0), KeyError: None, OSError: RetryPolicy(attempts=2)}
    source = StubSource(1, 2, 3, 4)
    source.finish()
    pipeline = Noting(source=source, processors=Processors(broken, concurrency=1, retry=retry), on_failure="discard")
    statistics = await ended(pipeline)
    assert [seen.count(each) for each in errors] == [1, 1, 4, 2]
    assert statistics.retried == 4
