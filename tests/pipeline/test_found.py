"""What the simulation of pipelines has found: each bug in the smallest form in which it shows."""

import asyncio
import contextlib
from typing import Any

from headgate import (
    Backoff,
    Batcher,
    NoStageError,
    Pipeline,
    Processors,
    RateLimiter,
    RetryPolicy,
    Supervisor,
    System,
    testing,
)
from headgate.connectors.memory import MemoryQueue
from headgate.testing import StubSource
from tests.pipeline.helpers import AsyncNoting, Noting, ended, running, until, virtually


def wide(**options):
    """Return a step that handles many messages in one stage."""
    step = Processors(**options)
    step.ordered = True
    return step


def kill(started, name):
    """Kill a stage, if it is there."""
    with contextlib.suppress(NoStageError):
        started.system.ref(name).kill()


@virtually
async def test_a_wide_step_returns_its_message_in_a_list_and_it_goes_to_its_batcher():
    """It failed with an UnknownBatcherError: there were no batchers at all where the result was looked at."""

    class Wide(AsyncNoting):
        async def handle_message(self, message):
            return [message]

    source = StubSource(1, 2)
    source.finish()
    pipeline = Wide(source=source, processors=wide(concurrency=2), batchers=Batcher(size=2))
    await ended(pipeline)
    assert source.acked == [1, 2]


@virtually
async def test_no_batch_is_tried_again_once_the_pipeline_has_ended():
    """Its handler was given no messages at all, and when it failed with those, halves of nothing without an end."""
    given = []

    class Failing(Noting):
        def handle_batch(self, messages, batch):
            given.append(len(messages))
            raise ValueError("again")

    pipeline = Failing(
        source=StubSource(1, 2),
        batchers=Batcher(size=2, retry=RetryPolicy(first=1.0, jitter=0.0)),
    )
    async with System(seed=7) as system:
        started = await system.start(pipeline)
        await until(lambda: given)
        started.kill()
        await asyncio.sleep(5.0)
    assert given == [2]


@virtually
async def test_a_message_whose_failure_is_taken_back_lets_the_next_of_its_key_go():
    """Nothing of that key was ever handled again."""

    class Recovering(Noting):
        def handle_message(self, message):
            self.handled.append(message.data)
            if message.data == 1:
                raise ValueError("bad")

        def handle_failed(self, messages):
            for message in messages:
                message.recover()

    source = StubSource()
    source.push(1, 2, key="a")
    source.finish()
    pipeline = Recovering(source=source, partition_by="key")
    await ended(pipeline)
    assert source.acked == [1, 2]


@virtually
async def test_a_part_that_a_full_batcher_turns_away_does_not_count_as_a_delivery():
    """The message that it was made of was handed back as if it had failed."""
    release = asyncio.Event()

    class Splitting(AsyncNoting):
        async def handle_message(self, message):
            return message.split([message.data])

        async def handle_batch(self, messages, batch):
            await release.wait()

    source = StubSource(*range(8))
    pipeline = Splitting(source=source, batchers=Batcher(size=1, overflow="requeue", max_waiting=1))
    async with running(pipeline):
        await until(lambda: source.nacked)
        release.set()
    assert {counted for _, _, counted in source.nacked} == {False}


@virtually
async def test_messages_for_a_full_batcher_are_kept_when_their_source_takes_nothing_back():
    """With ``overflow="requeue"`` they were handed back to a source that forgot them."""

    class Slow(AsyncNoting):
        async def handle_batch(self, messages, batch):
            await asyncio.sleep(1.0)

    source = StubSource(*range(20), redelivers=False)
    source.finish()
    await ended(Slow(source=source, batchers=Batcher(size=1, overflow="requeue", max_waiting=1)))
    assert sorted(source.acked) == list(range(20))
    assert not source.nacked


@virtually
async def test_a_message_that_comes_too_late_is_not_handed_out_again():
    """With ``on_failure="requeue"`` it went round and round, without even a pause."""
    source = StubSource()

    class Late(AsyncNoting):
        async def prepare_messages(self, messages):
            for message in messages:
                message.deadline = 0.0

    source.push(1)
    source.finish()
    await ended(Late(source=source, on_failure="requeue", clock=lambda: 1.0))
    assert [data for data, _ in source.lettered] == [1]


@virtually
async def test_a_rate_by_key_holds_without_any_order():
    """It was not looked at when messages were fetched by a timer or a wake-up."""
    loop = asyncio.get_running_loop()
    times = []

    class Timed(Noting):
        def handle_message(self, message):
            times.append(loop.time())

    source = StubSource()
    limit = RateLimiter(1, burst=1, key=lambda message: message.key)
    async with running(Timed(source=source, rate_limit=limit)):
        await asyncio.sleep(1.0)
        source.push(1, 2, 3, key="a")
        await until(lambda: len(times) == 3)
    assert round(times[2] - times[0], 1) == 2.0


@virtually
async def test_what_a_key_has_tokens_for_is_not_lost_while_the_source_stage_is_away():
    """It was sent to a stage that had been killed."""
    source = StubSource()
    source.push(1, 2, 3, key="a")
    limit = RateLimiter(1, burst=1, key=lambda message: message.key)
    pipeline = Noting(source=source, rate_limit=limit, max_restarts=None)
    async with running(pipeline) as started:
        await until(lambda: pipeline.handled)
        for _ in range(6):
            kill(started, "Noting.source-1")
            await asyncio.sleep(0.3)
        await until(lambda: len(source.acked) == 3)


@virtually
async def test_a_batch_whose_time_is_up_while_its_stage_is_away_is_not_lost():
    """It was emitted by the stage that had been killed, which raised in a timer."""
    source = StubSource(1)
    pipeline = Noting(source=source, batchers=Batcher(timeout=0.05), max_restarts=None)
    async with running(pipeline) as started:
        await until(lambda: pipeline.handled)
        for _ in range(4):
            kill(started, "Noting.batcher.default")
            await asyncio.sleep(0.02)
        await until(lambda: source.acked)


class Odd(BaseException):
    """What is no Exception."""


@virtually
async def test_a_wide_handler_that_raises_what_is_no_exception_fails_its_message():
    """The message was in the processors for ever."""

    class Wide(AsyncNoting):
        async def handle_message(self, message):
            if message.data == 1:
                raise Odd

    source = StubSource(1, 2)
    source.finish()
    await ended(Wide(source=source, processors=wide(concurrency=2), on_failure="discard"))
    assert (source.acked, source.discarded) == ([2], [1])


@virtually
async def test_a_plain_source_is_not_asked_for_more_once_it_is_drained():
    """A stage that was through with its messages asked it again while the others finished theirs."""
    calls = []

    class Watched(StubSource):
        def fetch(self, count):
            calls.append(self.life[-1])
            return super().fetch(count)

    class Slow(AsyncNoting):
        async def handle_message(self, message):
            await asyncio.sleep(1.0)

    pipeline = Slow(source=Watched(*range(9)), processors=Processors(concurrency=1, max_demand=3))
    async with running(pipeline) as started:
        await asyncio.sleep(0.5)
        await started.stop()
    assert set(calls) == {"open"}


@virtually
async def test_stopping_what_has_ended_leaves_no_timer():
    """Stopping a supervisor a second time set an alarm that nobody cancelled."""
    async with System(seed=7) as system:
        started = await system.start(Noting(source=StubSource()))
        await started.stop()
        await started.stop()
        await asyncio.sleep(0.01)
        assert asyncio.get_running_loop().timers() == []  # type: ignore[attr-defined]


@virtually
async def test_what_nobody_has_begun_when_a_pipeline_gives_up_was_not_tried():
    """All that was in flight went back as if it had been handled."""

    class Stuck(AsyncNoting):
        async def handle_message(self, message):
            await asyncio.Event().wait()

    source = StubSource(1, 2, 3)
    pipeline = Stuck(source=source, processors=Processors(concurrency=1, max_demand=3))
    async with System(seed=7) as system:
        started = await system.start(pipeline)
        await asyncio.sleep(0.5)
        started.kill()
        await started.wait()
    assert {data: counted for data, _, counted in source.nacked} == {1: True, 2: False, 3: False}


@virtually
async def test_a_part_is_tried_again_though_its_message_still_has_the_key():
    """It waited behind its own message, which waited for it."""

    class Splitting(Noting):
        processors = {  # noqa: RUF012
            "one": Processors(lambda message: message.split([message.data]), concurrency=1),
            "two": Processors("again", concurrency=1, retry=RetryPolicy(first=0.1)),
        }

        def again(self, message):
            self.handled.append(message.data)
            if self.handled.count(1) == 1:
                raise ValueError("not yet")

    source = StubSource()
    source.push(1, 2, key="a")
    source.finish()
    pipeline = Splitting(source=source, partition_by="key")
    await ended(pipeline)
    assert (source.acked, pipeline.handled) == ([1, 2], [1, 1, 2])


@virtually
async def test_a_batch_is_not_lost_when_its_stage_and_then_its_handler_fall():
    """Only the stage of the batcher looked for batches whose handler had gone, and only when it began itself."""
    runs = []

    class Slow(AsyncNoting):
        async def handle_batch(self, messages, batch):
            runs.append(batch.size)
            await asyncio.sleep(1.0 if len(runs) == 1 else 0.0)

    source = StubSource(1, 2)
    async with running(Slow(source=source, batchers=Batcher(size=2), max_restarts=None)) as started:
        await until(lambda: runs)
        kill(started, "Slow.batcher.default")
        await asyncio.sleep(0.1)
        kill(started, "Slow.batch.default-1")
        await until(lambda: source.acked)
    assert runs == [2, 2]


@virtually
async def test_what_goes_back_to_an_ordered_source_does_not_go_round_and_round():
    """It came back with a fetch that had begun before, was taken for an overtaker, and so on without a pause."""
    fetched: list[Any] = []

    class Lagging(StubSource):
        async def fetch(self, count):  # type: ignore[override]
            await asyncio.sleep(0.002)
            messages = super().fetch(count)
            fetched.extend(messages or ())
            await asyncio.sleep(0.002)
            return messages

        async def nack(self, messages, delay=0.0, *, counted=True):  # type: ignore[override]
            await asyncio.sleep(0.001)
            return super().nack(messages, delay, counted=counted)

    class Failing(AsyncNoting):
        async def handle_message(self, message):
            if message.deliveries == 1:
                raise ValueError("bad")

    source = Lagging(ordered=True)
    source.push(1, 2, 3, key="a")
    pipeline = Failing(source=source, partition_by="key", processors=Processors(concurrency=3), on_failure="requeue")
    async with running(pipeline):
        await until(lambda: len(source.acked) == 3)
    assert len(fetched) < 20


@virtually
async def test_a_pipeline_behind_another_goes_on_until_nothing_can_come_back():
    """What it gave back came again when it had ended already."""
    lower_runs = []

    class Lower(AsyncNoting):
        async def handle_message(self, message):
            lower_runs.append(message.data)
            if len(lower_runs) == 1:
                message.defer().fail("later")

    source = StubSource(1)
    source.finish()
    upper = Noting(source=source, name="upper", on_failure="retry")
    lower = Lower(source=upper.route(), name="lower", redelivery=Backoff(first=0.5))
    async with System(seed=7) as system:
        await (await system.start(Supervisor([upper, lower], auto_shutdown=True))).wait()
    assert (source.acked, lower_runs) == ([1], [1, 1])


@virtually
async def test_a_pipeline_behind_a_source_that_takes_nothing_back_keeps_what_it_has():
    """A full batcher gave messages back through the pipeline above, and their source forgot them."""

    class Slow(AsyncNoting):
        async def handle_batch(self, messages, batch):
            await asyncio.sleep(1.0)

    source = StubSource(*range(20), redelivers=False)
    source.finish()
    upper = Noting(source=source, name="upper")
    lower = Slow(source=upper.route(), name="lower", batchers=Batcher(size=1, overflow="requeue", max_waiting=1))
    async with System(seed=7) as system:
        await (await system.start(Supervisor([upper, lower], auto_shutdown=True))).wait()
    assert (sorted(source.acked), source.nacked) == (list(range(20)), [])


@virtually
async def test_a_stage_that_is_away_when_its_pipeline_ends_does_not_keep_it_alive():
    """It was started again afterwards, and nobody told it that there was nothing more."""
    source = StubSource(1)
    pipeline = Noting(source=source, max_restarts=None)
    async with running(pipeline) as started:
        await until(lambda: pipeline.handled)
        for _ in range(4):  # each time it is started again a little later
            await asyncio.sleep(0.01)
            kill(started, "Noting.source-1")
        source.finish()
        async with asyncio.timeout(60):
            await started.wait()


@virtually
async def test_an_empty_source_does_not_spin_for_tokens_of_its_rate():
    """The tokens that it gave back let it ask again at once, and so on: the loop did nothing else."""
    fetches = []

    class Counting(StubSource):
        def fetch(self, count):
            fetches.append(count)
            return super().fetch(count)

    limit = RateLimiter(5, burst=3)
    async with running(Noting(source=Counting(), rate_limit=limit, processors=Processors(concurrency=2))):
        await asyncio.sleep(1.0)
    assert len(fetches) < 20


@virtually
async def test_a_wide_stage_that_is_killed_loses_nothing_that_it_has_sent_on():
    """What waited in it for the next step was gone with it."""

    class Two(AsyncNoting):
        processors = {  # noqa: RUF012
            "one": wide(handler="first", concurrency=4),
            "two": Processors("second", concurrency=1),
        }

        async def first(self, message):
            return None

        async def second(self, message):
            await asyncio.sleep(0.1)

    source = StubSource(*range(12))
    async with running(Two(source=source, max_restarts=None)) as started:
        for _ in range(5):
            await asyncio.sleep(0.15)
            kill(started, "Two.one")
        await until(lambda: set(source.acked) == set(range(12)))


@virtually
async def test_no_more_is_fetched_than_is_asked_for_when_a_source_wakes():
    """What was sent when it woke was fetched once more for the same demand."""
    fetched: list[Any] = []

    class Waking(StubSource):
        def fetch(self, count):
            messages = super().fetch(count)
            fetched.extend(messages or ())
            return messages

    class Stuck(AsyncNoting):
        async def handle_message(self, message):
            await asyncio.Event().wait()

    source = Waking()
    pipeline = Stuck(source=source, processors=Processors(concurrency=1, max_demand=1), shutdown=0.1)
    async with System(seed=7) as system:
        source.push(*range(9))
        started = await system.start(pipeline)
        source.wake()
        await asyncio.sleep(0.5)
        await started.stop(timeout=0.0)
    assert len(fetched) == 1


@virtually
async def test_a_source_is_not_closed_while_it_is_being_drained():
    """A drain that was slow was overtaken by the end of the pipeline."""
    calls = []

    class Slow(StubSource):
        async def drain(self):  # type: ignore[override]
            calls.append("drain")
            await asyncio.sleep(0.5)
            calls.append("drained")
            super().drain()

        async def close(self):  # type: ignore[override]
            calls.append("close")
            super().close()

    source = Slow(1)
    async with System(seed=7) as system:
        started = await system.start(Noting(source=source))
        await until(lambda: source.acked)
        await started.stop()
    assert calls == ["drain", "drained", "close"]


@virtually
async def test_what_was_made_of_a_message_is_finished_in_a_drain():
    """It went back, as if nobody had begun it, when the drain found it before the next step."""

    class Parts(AsyncNoting):
        processors = {  # noqa: RUF012
            "one": Processors("first", concurrency=1),
            "two": Processors("second", concurrency=1),
        }

        async def first(self, message):
            return message.split([1, 2, 3])

        async def second(self, message):
            self.handled.append(message.data)
            await asyncio.sleep(1.0)

    source = StubSource("all")
    pipeline = Parts(source=source)
    async with running(pipeline) as started:
        await until(lambda: pipeline.handled)
        await started.stop()
    assert (source.acked, source.nacked, pipeline.handled) == (["all"], [], [1, 2, 3])


@virtually
async def test_a_pipeline_that_nobody_reads_from_any_more_does_not_wait_for_that():
    """Its messages stayed in the route until the whole time for draining was over, and then counted as handled."""

    class Slow(AsyncNoting):
        async def handle_message(self, message):
            await asyncio.sleep(1.0)

    source = StubSource(*range(3))
    upper = Slow(source=source, name="upper", processors=Processors(concurrency=3))
    lower = Noting(source=upper.route(), name="lower")
    loop = asyncio.get_running_loop()
    async with System(seed=7) as system:
        started = await system.start(Supervisor([upper, lower], shutdown=60.0))
        await asyncio.sleep(0.5)
        await started.stop()
    assert loop.time() < 5.0
    assert sorted(data for data, _, _ in source.nacked) == [0, 1, 2]


def test_what_a_source_stage_was_about_to_send_when_it_was_killed_is_sent_by_its_successor():
    class Deadly(MemoryQueue):
        """Kills the stage that fetches, once, while it does."""

        kill: Any = None

        def fetch(self, count):
            kill, self.kill = self.kill, None
            if kill is not None:
                kill()
            return super().fetch(count)

    class Collects(Pipeline):
        processors = Processors(concurrency=2)

        def __init__(self, **options):
            super().__init__(**options)
            self.got: list[int] = []

        def handle_message(self, message):
            self.got.append(message.data)

    async def run():
        queue = Deadly(range(100))
        queue.close_input()
        pipeline = Collects(source=queue)
        async with System() as system:
            queue.kill = lambda: system.ref("Collects.source-1").kill()
            running = await system.start(pipeline)
            async with asyncio.timeout(60):
                await running.wait()
            assert running.statistics().unbalanced == 0
        assert sorted(pipeline.got) == list(range(100))

    testing.run(run())
