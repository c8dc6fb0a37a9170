# mypy: disable-error-code="var-annotated"
"""Messages that are put in by hand, with their outcomes; `prepare_messages`; what handlers return and raise."""

import asyncio
import logging

from headgate import HandlerError, Message, Processors, SourceError, UnknownBatcherError, telemetry
from headgate.testing import StubSource
from tests.parity.registry import different
from tests.pipeline.helpers import AsyncNoting, Noting, batcher, ended, fails, running, until, virtually


@virtually
async def test_messages_that_are_put_in_by_hand():
    """B020: are processed, batched and settled."""
    pipeline = Noting(batchers=batcher(size=2))
    messages = [Message(number) for number in (1, 2, 3)]
    async with running(pipeline) as started:
        started.push(messages)
        await until(lambda: all(each.outcome for each in messages))
    assert pipeline.handled == [1, 2, 3]
    assert pipeline.payloads == [[1, 2], [3]]
    assert [each.outcome for each in messages] == ["acknowledged"] * 3


@virtually
async def test_the_metadata_of_a_test_message():
    """B021: are as given."""
    async with running(Noting()) as pipeline:
        assert (await pipeline.test_message(1, metadata={"a": 1})).metadata == {"a": 1}
        assert [each.metadata for each in await pipeline.test_batch([1, 2], metadata={"a": 1})] == [{"a": 1}] * 2


@virtually
async def test_a_test_message_without_metadata():
    """B022: has empty ones."""
    async with running(Noting()) as pipeline:
        assert (await pipeline.test_message(1)).metadata == {}
        assert [each.metadata for each in await pipeline.test_batch([1, 2])] == [{}, {}]


@different("B023", "who wants to see acknowledgements gives a source of its own, that is what they are told to")
@virtually
async def test_who_is_told_of_acknowledgements():
    """B023: a source of one's own."""
    source = StubSource(1, fails(), 2)
    source.finish()
    await ended(Noting(source=source, on_failure="discard"))
    assert source.acked == [1, 2]
    assert len(source.discarded) == 1


@virtually
async def test_whoever_puts_a_test_message_in():
    """B024: is told its outcome."""
    async with running(Noting(batchers=batcher())) as pipeline:
        assert (await pipeline.test_message(1)).outcome == "acknowledged"
        message = await pipeline.test_message(fails())
        assert message.outcome == "failed"
        assert str(message.reason) == "bad"


class Preparing(Noting):
    def prepare_messages(self, messages):
        for message in messages:
            if message.data == "raise":
                raise ValueError("not prepared")
            message.metadata["prepared"] = len(messages)
        return messages


@virtually
async def test_a_preparation_that_raises():
    """B026: fails all messages of that delivery, and nothing else."""
    pipeline = Preparing()
    async with running(pipeline) as started:
        messages = await started.test_batch([1, "raise", 2])
        assert [str(each.reason) for each in messages] == ["not prepared"] * 3
        assert (await started.test_message(3)).ok
    assert pipeline.handled == [3]


@virtually
async def test_a_preparation():
    """B027: is for all messages of a delivery."""
    async with running(Preparing()) as pipeline:
        assert [each.metadata for each in await pipeline.test_batch([1, 2])] == [{"prepared": 2}] * 2


@virtually
async def test_messages_that_are_handled():
    """B028: reach a batch, and are acknowledged."""
    pipeline = Noting(batchers=batcher())
    async with running(pipeline) as started:
        messages = await started.test_batch([1, 2], flush=True)
    assert [each.outcome for each in messages] == ["acknowledged"] * 2
    assert pipeline.payloads == [[1, 2]]


@virtually
async def test_a_message_that_is_marked_as_failed():
    """B029: fails for the reason that was given, wherever it was to go."""
    async with running(Noting(batchers=batcher())) as pipeline:
        message = await pipeline.test_message(lambda message: message.put_batcher("nowhere").fail("not good"))
    assert (message.outcome, message.reason) == ("failed", "not good")


@virtually
async def test_messages_that_fail():
    """B030: reach no batch; the others do."""
    source = StubSource(1, lambda message: message.fail("not good"), 2)
    pipeline = Noting(source=source, batchers=batcher(size=2), on_failure="discard")
    async with running(pipeline):
        await until(lambda: len(source.acked) == 2)
    assert pipeline.payloads == [[1, 2]]
    assert len(source.discarded) == 1


@virtually
async def test_a_handler_that_raises(caplog):
    """B031: fails that message, which is logged; the stage lives, and goes on with the others."""
    source = StubSource(1, fails(), 2)
    pipeline = Noting(source=source, batchers=batcher(size=2), on_failure="discard")
    async with running(pipeline) as started:
        stage = started.system.ref("Noting.default-1")
        with caplog.at_level(logging.WARNING, "headgate"):
            await until(lambda: len(source.acked) == 2)
        assert stage.alive
        assert (await started.test_message(3)).ok
    assert "ValueError: bad" in caplog.text
    assert "Traceback" in caplog.text
    assert pipeline.payloads[0] == [1, 2]


@virtually
async def test_a_handler_that_returns_no_message(caplog):
    """B032: fails that message, which is logged."""
    source = StubSource(lambda _: 5, 1)
    pipeline = Noting(source=source, batchers=batcher(size=1), on_failure="dead_letter")
    async with running(pipeline):
        await until(lambda: source.lettered and source.acked)
    [(_, reason)] = source.lettered
    assert isinstance(reason, HandlerError)
    assert str(reason) == (
        "stage 'Noting.default-1': expected handle_message to return the message, None for it, "
        "or a list of messages, got int: 5"
    )
    assert "got int: 5" in caplog.text


@virtually
async def test_a_batcher_that_there_is_not(caplog):
    """B033: fails the message, which is logged with those that there are."""
    source = StubSource(lambda message: message.put_batcher("other"), 1)
    pipeline = Noting(source=source, batchers=batcher(size=1), on_failure="dead_letter")
    async with running(pipeline):
        await until(lambda: source.lettered and source.acked)
    [(_, reason)] = source.lettered
    assert isinstance(reason, UnknownBatcherError)
    assert str(reason) == "pipeline 'Noting': there is no batcher 'other'; there are: 'default'"
    assert str(reason) in caplog.text


class Forgetful(Noting):
    def handle_batch(self, messages, batch):
        return messages[:-1]


@different("B034", "messages that a batch handler does not return fail, and end as others that have failed")
@virtually
async def test_a_batch_handler_that_returns_fewer():
    """B034: an error with the counts is reported; those that it returned are acknowledged, the others fail."""
    source, errors = StubSource(1, 2, 3), []
    async with running(
        Forgetful(source=source, batchers=batcher(size=3), on_failure="dead_letter"), errors=errors
    ) as pipeline:
        await until(lambda: len(source.acked) + len(source.lettered) == 3)
        assert pipeline.statistics().in_flight == 0
    assert source.acked == [1, 2]
    [error] = errors
    assert isinstance(error, HandlerError)
    assert "None for all of them (3); 1 are missing, and fail" in str(error)
    assert source.lettered == [(3, error)]


class Broken(StubSource):
    broken = True

    def ack(self, messages):
        if self.broken:
            raise OSError("no connection")
        return super().ack(messages)


@virtually
async def test_a_source_that_cannot_be_told():
    """B035: does not end the processor; others are acknowledged, and it is told again after a while."""
    broken, source, errors = Broken(1), StubSource(2), []
    async with running(Noting(source=[broken, source]), errors=errors) as pipeline:
        await until(lambda: errors and source.acked == [2])
        assert pipeline.system.ref("Noting.default-1").alive
        broken.broken = False
        await until(lambda: broken.acked == [1])
    assert {type(each) for each in errors} == {SourceError}
    assert errors[0].method == "ack"


async def crash(_):
    async def broken():
        raise ValueError("in a task")

    async with asyncio.TaskGroup() as group:
        group.create_task(broken())


async def cancelled(_):
    task = asyncio.create_task(asyncio.sleep(10))
    task.cancel()
    await task


@virtually
async def test_a_crash_of_what_a_handler_waits_for():
    """B036: fails that message alone, also when it was cancelled."""
    pipeline = AsyncNoting()
    async with running(pipeline) as started:
        stage = started.system.ref("AsyncNoting.default-1")
        messages = await started.test_batch([crash, 1, cancelled, 2])
        assert stage.alive
    assert [each.outcome for each in messages] == ["failed", "acknowledged"] * 2


BOUNDARIES = [(each, end) for each in ("processor", "batcher", "batch_processor") for end in ("start", "stop")]


@virtually
async def test_what_is_told_of_the_way_of_a_message():
    """B037: the beginning and end of each delivery, message and batch, and how it came out."""
    told = []
    detach = telemetry.attach("pipeline.", lambda name, _, metadata: told.append((name, metadata)))
    recipe = Noting(
        batchers=batcher(size=10), processors=Processors(concurrency=1, max_demand=4, min_demand=0), context="context"
    )
    async with running(recipe) as pipeline:
        await pipeline.test_batch([1, fails(), lambda message: message.fail("not good"), 2], flush=True)
    detach()

    def of(name):
        return [metadata for each, metadata in told if each == name]

    assert [len(of(f"pipeline.{each}.{end}")) for each, end in BOUNDARIES] == [1] * 6
    assert [len(of(f"pipeline.processor.message.{end}")) for end in ("start", "stop", "exception")] == [4, 3, 1]
    common = {"pipeline", "stage", "context"}
    [start] = of("pipeline.processor.start")
    assert set(start) == {*common, "step", "messages"}
    assert (start["pipeline"], start["stage"], start["step"]) == ("Noting", "Noting.default-1", "default")
    [stop] = of("pipeline.processor.stop")
    assert [each.data for each in stop["successful_to_forward"]] == [1, 2]
    assert (len(stop["failed"]), stop["successful_to_ack"]) == (2, [])
    assert set(of("pipeline.processor.message.start")[0]) == {*common, "step", "message"}
    assert of("pipeline.processor.message.exception")[0]["kind"] == "ValueError"
    [start] = of("pipeline.batcher.start")
    assert set(start) == {"pipeline", "batcher", "messages", "context"}
    [stop] = of("pipeline.batch_processor.stop")
    assert set(stop) == {*common, "batch", "messages", "successful", "failed"}
    assert ([each.data for each in stop["successful"]], stop["failed"]) == ([1, 2], [])
    assert stop["batch"].trigger == "flush"
    assert all(metadata["context"] == "context" for _, metadata in told)


# -- without batchers -------------------------------------------------------------------------------------------------


@virtually
async def test_a_pipeline_without_batchers():
    """B038: has no stages for them."""
    async with running(Noting(source=StubSource())) as pipeline:
        names = [ref.name for ref in pipeline.system.stages()]
    assert names == ["Noting.source-1", "Noting.default-1"]


@virtually
async def test_who_acknowledges_without_batchers():
    """B039: the processors, all of one delivery together."""
    calls = []

    class Telling(StubSource):
        def ack(self, messages):
            calls.append([each.data for each in messages])

    source = Telling(*range(10))
    async with running(Noting(source=source, processors=Processors(concurrency=1, max_demand=5, min_demand=0))):
        await until(lambda: sum(map(len, calls)) == 10)
    assert [each for call in calls for each in call] == list(range(10))
    assert len(calls[0]) >= 5


@virtually
async def test_a_message_that_fails_without_batchers():
    """B040: is settled as failed."""
    async with running(Noting()) as pipeline:
        assert (await pipeline.test_message(lambda message: message.fail("not good"))).outcome == "failed"


@different("B041", "what a source has handed out and nobody has begun goes back to it at once: a stop need not wait")
@virtually
async def test_a_stop_without_batchers():
    """B041: finishes what was begun; what nobody has begun goes back, and is handed out next time."""

    async def slow(_):
        await asyncio.sleep(1)

    source = StubSource(slow, 1, 2)
    pipeline = AsyncNoting(source=source, processors=Processors(concurrency=1, max_demand=3))
    async with running(pipeline) as started:
        await until(lambda: pipeline.handled)
        await started.stop()
    assert source.acked == [slow]
    assert source.nacked == [(1, 0.0, False), (2, 0.0, False)]
