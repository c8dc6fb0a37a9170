# mypy: disable-error-code="var-annotated, arg-type, override"
"""Whose message is next: keys in order, fair turns, priorities, in all combinations; and rate limits."""

import asyncio
import itertools

import pytest

from headgate import Pipeline, Processors, RateLimiter
from headgate.testing import StubSource
from tests.pipeline.helpers import AsyncNoting, Noting, batcher, ended, now, running, until, virtually


def user(message):
    return message.data[0]


def urgency(message):
    return int(message.data[1])


def number(message):
    return int(message.data[2:])


class Checked(Pipeline):
    """Checks that messages of one key are handled one at a time and in order."""

    def __init__(self, **options):
        super().__init__(**options)
        self.busy = set()
        self.handled = []
        self.batched = []

    async def handle_message(self, message):
        key = user(message)
        assert key not in self.busy
        self.busy.add(key)
        await asyncio.sleep(0.001 * (number(message) % 3))
        self.busy.remove(key)
        self.handled.append(message.data)

    def handle_batch(self, messages, batch):
        self.batched += [message.data for message in messages]


PAYLOADS = [f"{each}{index % 3}{index}" for index, each in enumerate("aaaaaaaabbbbccaabbccddee" * 4)]
COMBINATIONS = [
    dict(pairs)
    for count in range(3)
    for pairs in itertools.combinations([("fair_by", user), ("priority_by", urgency), ("lookahead", 20)], count)
]


@pytest.mark.parametrize("options", COMBINATIONS, ids=lambda options: ",".join(options) or "alone")
@pytest.mark.parametrize("kind", [StubSource, "ordered", "leased"])
def test_order_by_key_with_everything_else(options, kind):
    @virtually
    async def scenario():
        made = {"ordered": {"ordered": True, "key": lambda data: data[0]}, "leased": {"lease": 30.0}}.get(kind, {})
        source = StubSource(*PAYLOADS, **made)
        source.finish()
        pipeline = Checked(
            source=source,
            processors=Processors(concurrency=4),
            batchers=batcher(size=7, concurrency=1),
            partition_by=user,
            **options,
        )
        await ended(pipeline)
        by_urgency = "priority_by" in options
        for each in "abcde":
            expected = [data for data in PAYLOADS if data[0] == each]
            found = [data for data in pipeline.handled if data[0] == each]
            assert sorted(found) == sorted(expected)
            if not by_urgency:
                assert found == expected
            assert [data for data in pipeline.batched if data[0] == each] == found

    scenario()


@virtually
async def test_users_take_turns():
    """One with many messages does not hold up one with a few."""
    source = StubSource(*[f"a0{index}" for index in range(1000)], *[f"b0{index}" for index in range(5)])
    source.finish()
    pipeline = Noting(source=source, processors=Processors(concurrency=1, max_demand=1), fair_by=user, lookahead=2000)
    async with running(pipeline) as started:
        await started.wait()
    places = [place for place, data in enumerate(pipeline.handled) if data[0] == "b"]
    assert places[-1] <= 15


@virtually
async def test_the_most_urgent_go_first():
    source = StubSource(*[f"a{index % 3}{index}" for index in range(30)])
    source.finish()
    pipeline = Noting(source=source, processors=Processors(concurrency=1, max_demand=1), priority_by=urgency)
    await ended(pipeline)
    classes = [int(data[1]) for data in pipeline.handled]
    assert classes[1:] == sorted(classes[1:])


@virtually
async def test_one_key_that_is_stuck_holds_up_nobody_else():
    class Stuck(AsyncNoting):
        gate = asyncio.Event()

        async def handle_message(self, message):
            self.handled.append(message.data)
            if message.data == "a00":
                await self.gate.wait()

    payloads = [f"{each}0{index}" for index in range(500) for each in "ab"]
    source = StubSource(*payloads)
    pipeline = Stuck(source=source, processors=Processors(concurrency=2), partition_by=user)
    async with running(pipeline):
        await until(lambda: len(source.acked) == 500)
        assert {data[0] for data in source.acked} == {"b"}
        pipeline.gate.set()
        await until(lambda: len(source.acked) == 1000)
    assert [data for data in pipeline.handled if data[0] == "a"] == payloads[::2]


@virtually
async def test_what_one_key_has_too_much_of_goes_back_to_a_source_that_keeps_its_order():
    class Stuck(AsyncNoting):
        gate = asyncio.Event()

        async def handle_message(self, message):
            self.handled.append(message.data)
            if message.data[0] == "a":
                await self.gate.wait()

    payloads = [f"a0{index}" for index in range(300)] + [f"b0{index}" for index in range(50)]
    source = StubSource(*payloads)
    pipeline = Stuck(
        source=source, processors=Processors(concurrency=2), partition_by=user, max_waiting=100, lookahead=100
    )
    async with running(pipeline) as started:
        await asyncio.sleep(5)
        assert started.statistics().waiting <= 100
        pipeline.gate.set()
        await until(lambda: len(source.acked) == 350)
    assert [data for data in pipeline.handled if data[0] == "a"] == payloads[:300]


@virtually
async def test_no_key_is_no_order():
    source = StubSource(*range(10))

    class Slow(AsyncNoting):
        async def handle_message(self, message):
            await asyncio.sleep(1)

    options = {"processors": Processors(concurrency=10), "partition_by": "key"}
    async with running(Slow(source=source, **options)):
        await until(lambda: len(source.acked) == 10)
        assert now() < 1.5


@virtually
async def test_the_key_of_a_message():
    source = StubSource()
    for index in range(10):
        source.push(index, key=index % 2)

    class Slow(AsyncNoting):
        async def handle_message(self, message):
            await asyncio.sleep(1)

    async with running(Slow(source=source, processors=Processors(concurrency=10), partition_by="key")):
        await until(lambda: len(source.acked) == 10)
        assert now() == pytest.approx(5, abs=0.1)


@pytest.mark.parametrize("ending", ["skip", "split", "new", "nothing", "recover", "defer", "ack", "requeue", "unknown"])
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("place", [None, "thread"])
def test_a_key_goes_on_however_its_messages_end(ending, steps, place):
    from headgate import Message, Skip  # noqa: PLC0415 (of this test only)

    class Ending(Noting):
        def handle_failed(self, messages):
            for message in messages:
                if ending == "recover":
                    message.recover()

        def one(self, message):
            self.handled.append(message.data)
            if message.data != 1:
                return None
            if ending == "skip":
                raise Skip
            if ending == "requeue":
                message.configure_ack(delay=1.0)
            if ending in ("recover", "requeue"):
                raise ValueError("bad")
            if ending == "defer":
                self.handle = message.defer(timeout=5.0)
            if ending == "ack":
                message.ack_immediately()
            if ending == "unknown":
                message.put_batcher("nowhere")
            return {"split": lambda: message.split([7, 8]), "new": lambda: [message, Message(9)], "nothing": list}.get(
                ending, lambda: None
            )()

        def two(self, message):
            pass

    @virtually
    async def scenario():
        source = StubSource(1, 2, 3)
        names = {"one": Processors("one", concurrency=1, place=place), "two": Processors("two", concurrency=1)}
        if steps == 1:
            del names["two"]
        on_failure = "requeue" if ending == "requeue" else "discard"
        pipeline = Ending(
            source=source,
            processors=names,
            partition_by=lambda _: "key",
            batchers=batcher(size=1),
            on_failure=on_failure,
        )
        async with running(pipeline):
            await until(lambda: {2, 3} <= set(source.acked), 30)

    scenario()


# -- rate limits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"fair_by": user}, {"partition_by": user}], ids=["plain", "fair", "partition"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_rate_by_key(options, asynchronous):
    """A key without tokens holds up no other, and not more than a bounded number of its messages wait."""

    class Later(StubSource):
        async def fetch(self, count):
            await asyncio.sleep(0.001)
            return super().fetch(count)

    @virtually
    async def scenario():
        payloads = [f"a0{index}" for index in range(400)] + [f"b0{index}" for index in range(5)]
        source = (Later if asynchronous else StubSource)(*payloads)
        limiter = RateLimiter(1, burst=1, key=user)
        pipeline = Noting(source=source, rate_limit=limiter, max_waiting=450, **options)
        async with running(pipeline) as started:
            await asyncio.sleep(20)
            assert [data for data in pipeline.handled if data[0] == "b"] == payloads[400:]
            assert 18 <= sum(data[0] == "a" for data in pipeline.handled) <= 21
            assert started.statistics().waiting <= 450
            limiter.update(rate=1000, burst=1000)
            await until(lambda: len(source.acked) == 405)
        assert [data for data in pipeline.handled if data[0] == "a"] == payloads[:400]

    scenario()


@virtually
async def test_two_limits():
    """Of all together, and of each key."""
    payloads = [f"{each}0{index}" for index in range(20) for each in "abc"]
    source = StubSource(*payloads)
    limits = [RateLimiter(2, burst=1), RateLimiter(1, burst=1, key=user)]
    pipeline = Noting(source=source, rate_limit=limits)
    async with running(pipeline):
        await asyncio.sleep(10)
        assert 19 <= len(pipeline.handled) <= 21
        assert all(sum(data[0] == each for data in pipeline.handled) <= 11 for each in "abc")


@virtually
async def test_a_limit_that_two_pipelines_share():
    from headgate import Supervisor  # noqa: PLC0415 (of this test only)

    limiter = RateLimiter(4, burst=1)
    pipelines = [Noting(name=name, source=StubSource(*range(1000)), rate_limit=limiter) for name in "ab"]
    async with running(Supervisor(pipelines, name="app")):
        await asyncio.sleep(25)
        counts = [len(each.handled) for each in pipelines]
    assert 96 <= sum(counts) <= 104
    assert min(counts) > 10


@virtually
async def test_tokens_that_a_source_has_no_messages_for_are_given_back():
    limiter = RateLimiter(10, per=1000.0)
    source = StubSource()
    async with running(Noting(source=source, rate_limit=limiter)):
        await asyncio.sleep(50)
        source.push(*range(10))
        await until(lambda: len(source.acked) == 10)
        assert now() < 51


@virtually
async def test_a_handler_that_waits_for_a_limit():
    """One of an outside resource, which several steps share."""
    limiter = RateLimiter(2, burst=1)

    class Calling(AsyncNoting):
        async def one(self, message):
            await limiter.acquire()

        two = one

    source = StubSource(*range(10))
    steps = {"one": Processors("one", concurrency=5), "two": Processors("two", concurrency=5)}
    async with running(Calling(source=source, processors=steps)):
        await until(lambda: len(source.acked) == 10)
        assert now() == pytest.approx(9.5, abs=0.2)


@virtually
async def test_a_rate_of_nothing_and_a_stop():
    source = StubSource(1, 2, 3)
    limiter = RateLimiter(1, burst=1)
    limiter.update(rate=0)
    pipeline = Noting(source=source, rate_limit=limiter)
    async with running(pipeline) as started:
        await asyncio.sleep(10_000)
        assert pipeline.handled == [1]
        await started.stop()
        assert now() < 10_001
    assert source.nacked == []


@virtually
async def test_messages_by_hand_do_not_come_past_the_limit():
    pipeline = Noting(rate_limit=RateLimiter(1, burst=1))
    async with running(pipeline) as started:
        await started.test_batch(range(5))
        assert now() == pytest.approx(4, abs=0.1)
