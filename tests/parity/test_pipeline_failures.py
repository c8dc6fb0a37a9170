# mypy: disable-error-code="var-annotated"
"""`handle_failed`; stages that crash; what is told of both."""

import asyncio

from headgate import HookError, Processors, telemetry
from headgate.testing import StubSource
from tests.parity.registry import different
from tests.pipeline.helpers import AsyncNoting, Noting, batcher, fails, now, running, until, virtually


class Failing(Noting):
    """Notes what `handle_failed` is given, and changes it."""

    def __init__(self, **options):
        super().__init__(**options)
        self.failed = []

    def handle_failed(self, messages):
        self.failed.append([(message.data, message.reason) for message in messages])
        for message in messages:
            message.put_data("given up")
        return messages


@virtually
async def test_the_hook_sees_messages_that_a_handler_has_marked():
    """B063: and may change them before they are settled."""
    source = StubSource(lambda message: message.fail("not good"), 1)
    pipeline = Failing(source=source, on_failure="discard")
    async with running(pipeline):
        await until(lambda: source.discarded and source.acked)
    [[(_, reason)]] = pipeline.failed
    assert reason == "not good"
    assert source.discarded == ["given up"]


@virtually
async def test_the_hook_sees_messages_that_a_handler_has_raised_for():
    """B064: as well."""
    error = ValueError("bad")
    source = StubSource(fails(error), 1)
    pipeline = Failing(source=source, on_failure="discard")
    async with running(pipeline):
        await until(lambda: source.discarded and source.acked)
    assert [reason for [(_, reason)] in pipeline.failed] == [error]
    assert source.discarded == ["given up"]


class FailingBatches(Failing):
    def handle_batch(self, messages, batch):
        for message in messages:
            if message.data == "raise":
                raise ValueError("bad")
            if message.data == "fail":
                message.fail("not good")


@virtually
async def test_the_hook_sees_those_of_a_batch_that_failed():
    """B066: and no others; nothing else is reported."""
    source = StubSource(1, "fail", 2, "fail")
    pipeline = FailingBatches(source=source, batchers=batcher(size=4), on_failure="discard")
    async with running(pipeline):
        await until(lambda: len(source.acked) == len(source.discarded) == 2)
    assert pipeline.failed == [[("fail", "not good"), ("fail", "not good")]]
    assert source.acked == [1, 2]
    assert source.discarded == ["given up", "given up"]


@virtually
async def test_the_hook_sees_a_batch_whose_handler_raises():
    """B067: all of it, unless it is first handled in halves to find those that are to blame."""
    for isolate, failed in ((False, [1, "raise", 2]), (True, ["raise"])):
        source = StubSource(1, "raise", 2)
        batchers = batcher(size=3, isolate=isolate)
        pipeline = FailingBatches(source=source, batchers=batchers, on_failure="discard")
        async with running(pipeline):
            await until(lambda source=source: len(source.acked) + len(source.discarded) == 3)
        [seen] = pipeline.failed
        assert [data for data, _ in seen] == failed
        assert {str(reason) for _, reason in seen} == {"bad"}


class Raising(Noting):
    def handle_failed(self, messages):
        raise RuntimeError("the hook is broken")

    def handle_batch(self, messages, batch):
        if messages[0].data == "raise":
            raise ValueError("bad")


@virtually
async def test_a_hook_that_raises():
    """B068: is reported, and ends nothing; the messages are settled as they were."""
    source, errors = StubSource("raise", fails(), 1), []
    pipeline = Raising(source=source, batchers=batcher(size=1), on_failure="discard")
    async with running(pipeline, errors=errors) as started:
        stages = [started.system.ref(name) for name in ("Raising.default-1", "Raising.batch.default-1")]
        await until(lambda: len(source.discarded) == 2 and source.acked == [1])
        assert all(stage.alive for stage in stages)
    assert {type(each) for each in errors} == {HookError}
    assert str(errors[0]) == (
        "'Raising': expected the hook 'handle_failed' to return, it raised RuntimeError: the hook is broken"
    )


async def told_of(pipeline, source):
    """Return what is told of the hook while a source's messages are handled."""
    told = []
    detach = telemetry.attach("pipeline.handle_failed", lambda *event: told.append(event))
    async with running(pipeline, errors=[]):
        await until(lambda: source.discarded)
    detach()
    return told


@virtually
async def test_what_is_told_of_the_hook_of_a_processor():
    """B069: its beginning and end, with the messages."""
    source = StubSource(fails())
    told = await told_of(Failing(source=source, on_failure="discard", context=5), source)
    assert [name for name, _, _ in told] == ["pipeline.handle_failed.start", "pipeline.handle_failed.stop"]
    assert [list(measurements) for _, measurements, _ in told] == [["time"], ["duration"]]
    for _, _, metadata in told:
        assert {**metadata, "messages": 1} == {"pipeline": "Failing", "context": 5, "messages": 1}
        assert len(metadata["messages"]) == 1


@virtually
async def test_what_is_told_of_the_hook_of_a_batch_processor():
    """B070: the same."""
    source = StubSource(1, "fail")
    pipeline = FailingBatches(source=source, batchers=batcher(size=2), on_failure="discard")
    told = await told_of(pipeline, source)
    assert [name for name, _, _ in told] == ["pipeline.handle_failed.start", "pipeline.handle_failed.stop"]
    assert [len(metadata["messages"]) for _, _, metadata in told] == [1, 1]


@virtually
async def test_what_is_told_of_a_hook_that_raises():
    """B071: what it raised."""
    source = StubSource(fails())
    told = await told_of(Raising(source=source, on_failure="discard"), source)
    assert [name for name, _, _ in told] == ["pipeline.handle_failed.start", "pipeline.handle_failed.exception"]
    _, measurements, metadata = told[1]
    assert list(measurements) == ["duration"]
    assert (metadata["kind"], str(metadata["error"])) == ("RuntimeError", "the hook is broken")


# -- crashes ----------------------------------------------------------------------------------------------------------

PARTS = ("source-1", "default-1", "default-2", "batcher.default", "batch.default-1")


class Slow(AsyncNoting):
    """Takes a second for a message whose payload is "slow"."""

    async def handle_message(self, message):
        self.handled.append(message.data)
        if message.data == "slow":
            await asyncio.sleep(1)


class SlowBatches(AsyncNoting):
    """Takes a second for each batch."""

    async def handle_batch(self, messages, batch):
        await asyncio.sleep(1)
        await super().handle_batch(messages, batch)


def stages(started):
    return {name: started.system.ref(f"{started.id}.{name}") for name in PARTS}


async def replaced(started, name):
    """Kill a stage, wait for the one that takes its place, and return the names of those that have gone with it."""
    before = stages(started)
    before[name].kill()
    await until(lambda: not before[name].alive)
    await until(lambda: before[name].name in started.system.node.names)
    assert stages(started)[name] is not before[name]
    return [each for each, ref in before.items() if not ref.alive]


def pipeline_of(kind, *payloads, **options):
    source = StubSource(*payloads)
    processors = Processors(concurrency=2)
    return source, kind(source=source, processors=processors, batchers=batcher(size=2, **options))


@virtually
async def test_a_source_stage_that_is_killed():
    """B072: is started again, and nobody else."""
    source, pipeline = pipeline_of(Noting, 1, 2)
    async with running(pipeline) as started:
        await until(lambda: len(source.acked) == 2)
        assert await replaced(started, "source-1") == ["source-1"]
    assert source.life.count("open") == 1


@virtually
async def test_processors_subscribe_to_a_source_stage_that_comes_again():
    """B073: and go on."""
    source, pipeline = pipeline_of(Noting, 1, 2)
    async with running(pipeline) as started:
        await until(lambda: len(source.acked) == 2)
        await replaced(started, "source-1")
        source.push(3, 4, 5, 6)
        await until(lambda: len(source.acked) == 6)
    assert sorted(pipeline.handled) == [1, 2, 3, 4, 5, 6]


@virtually
async def test_a_processor_that_is_killed():
    """B074: is replaced; later messages are handled."""
    source, pipeline = pipeline_of(Noting, 1, 2)
    async with running(pipeline) as started:
        await until(lambda: len(source.acked) == 2)
        await replaced(started, "default-1")
        source.push(3, 4, 5, 6)
        await until(lambda: len(source.acked) == 6)


@different("B075", "a processor that is killed takes nobody with it: batchers keep what they have")
@virtually
async def test_who_goes_with_a_processor():
    """B075: nobody."""
    _, pipeline = pipeline_of(Noting)
    async with running(pipeline) as started:
        assert await replaced(started, "default-1") == ["default-1"]


@different("B076", "what a killed processor was at is handled again, by whoever is free: nothing is lost")
@virtually
async def test_messages_of_a_processor_that_is_killed():
    """B076: are handled again."""
    source, pipeline = pipeline_of(Slow, 1, "slow", 2, 3)
    async with running(pipeline) as started:
        await until(lambda: len(pipeline.handled) == 4)
        for name in ("default-1", "default-2"):
            await replaced(started, name)
        await until(lambda: len(source.acked) == 4)
        assert started.statistics().outcomes["acknowledged"] == 4
    assert pipeline.handled.count("slow") == 2
    assert sorted(map(str, source.acked)) == ["1", "2", "3", "slow"]


@different("B077", "nobody has to be left out: batches are formed of all, in the order in which they were processed")
@virtually
async def test_batches_after_a_processor_was_killed():
    """B077: lack nothing."""
    source, pipeline = pipeline_of(Slow, 1, "slow", 2, 3, timeout=5.0)
    async with running(pipeline) as started:
        await until(lambda: len(pipeline.handled) == 4)
        await replaced(started, "default-1")
        await replaced(started, "default-2")
        await until(lambda: len(source.acked) == 4)
    assert pipeline.payloads == [[1, 2], [3, "slow"]]


@virtually
async def test_a_batcher_that_is_killed():
    """B078: is replaced, and goes on."""
    source, pipeline = pipeline_of(Noting, 1, 2)
    async with running(pipeline) as started:
        await until(lambda: len(source.acked) == 2)
        await replaced(started, "batcher.default")
        source.push(3, 4)
        await until(lambda: len(source.acked) == 4)
    assert pipeline.payloads == [[1, 2], [3, 4]]


@different("B079", "a batcher that is killed takes nobody with it: batch processors subscribe again")
@virtually
async def test_who_goes_with_a_batcher():
    """B079: nobody."""
    _, pipeline = pipeline_of(Noting)
    async with running(pipeline) as started:
        assert await replaced(started, "batcher.default") == ["batcher.default"]


@different("B080", "what a batcher has collected outlives its stage")
@virtually
async def test_messages_of_a_batcher_that_is_killed():
    """B080: stay where they are, as does a batch that was handed over."""
    source, pipeline = pipeline_of(SlowBatches, 1, 2, 3, timeout=5.0)
    async with running(pipeline) as started:
        await until(lambda: started.statistics().batchers["default"].running)
        assert await replaced(started, "batcher.default") == ["batcher.default"]
        assert started.statistics().batchers["default"].open == 1
        source.push(4)
        await until(lambda: len(source.acked) == 4)
        assert now() < 5
    assert pipeline.payloads == [[1, 2], [3, 4]]
