"""What a producer is told, and what its callbacks may do."""

import asyncio

import pytest

from headgate import BroadcastDispatcher, Child, End, HandlerError, System, To
from tests.parity.checks import check_downs, check_terminate
from tests.parity.stages import Counter, Forwarder, Log, Source, batches, crashed, queue, settle, until


class Answering(Source):
    """Emits during a call, before or after its answer, and stays in the callback until it may return."""

    def __init__(self, log):
        super().__init__(log)
        self.gate = asyncio.Event()

    async def handle_call(self, request):
        if request == "early":
            self.stage.reply("answer")
            await self.gate.wait()
            self.stage.emit([1, 2, 3])
        else:
            self.stage.emit([1, 2, 3])
            await self.gate.wait()
        return "answer"

    async def handle_info(self, message):
        self.gate.set()


async def pair(system, log, got, **terms):
    """Return a source, a consumer, and the subscription between them."""
    source = await system.start(Child(Source, log))
    consumer = await system.start(Child(Forwarder, got))
    return source, consumer, await consumer.subscribe(To(source, **terms))


async def test_it_is_told_of_a_subscription():
    """G059: with the identity of the consumer and the subscription."""
    log = Log()
    async with System() as system:
        _, consumer, subscription = await pair(system, log, [])
        assert log[0] == ("subscribe", "consumer", subscription)
        assert log[0][2].consumer is consumer


async def test_it_cannot_choose_manual_demand_for_a_consumer():
    log, got = Log(), Log()
    async with System() as system:
        source = await system.start(Child(Source, log, "manual"))
        consumer = await system.start(Child(Forwarder, got))
        subscription = await consumer.subscribe(source, cancel="temporary")
        fault = await crashed(source)
        assert isinstance(fault.reason, HandlerError)
        assert (fault.reason.callback, fault.reason.got) == ("handle_subscribe", "manual")
        assert log[0] == ("subscribe", "consumer", subscription)
        await until(lambda: ("cancel", End("down", fault), subscription) in got)
        assert consumer.alive


@pytest.mark.parametrize("side", ["producer", "consumer"])
async def test_it_is_told_of_a_cancellation(side):
    """G061: the kind is "cancel", and the reason is the one that was given."""
    log = Log()
    async with System() as system:
        source, consumer, subscription = await pair(system, log, [], cancel="temporary")
        (source if side == "producer" else consumer).cancel(subscription, "oops")
        await until(lambda: ("cancel", End("cancel", "oops"), subscription) in log)
        await settle()
        assert len(batches(log, "cancel")) == 1
        assert source.statistics().consumers == ()


async def test_it_is_told_that_a_consumer_has_died():
    """G062: the kind is "down", and the reason is the consumer's."""
    log = Log()
    async with System() as system:
        source, consumer, subscription = await pair(system, log, [], cancel="temporary")
        consumer.kill()
        assert (await crashed(consumer)).reason == "killed"
        await until(lambda: ("cancel", End("down", "killed"), subscription) in log)
        assert source.alive


async def test_events_emitted_in_a_call_go_out_before_the_answer():
    """G063: the consumer has them while the caller still waits."""
    log, got = Log(), Log()
    async with System() as system:
        source = await system.start(Child(Answering, log))
        consumer = await system.start(Child(Forwarder, got))
        await consumer.subscribe(source)
        call = asyncio.create_task(source.call("late"))
        await until(lambda: batches(got))
        await settle()
        assert batches(got) == [[1, 2, 3]]
        assert not call.done()
        source.driver.instance.gate.set()
        assert await call == "answer"


async def test_a_call_can_be_answered_before_its_events_go_out():
    """G064: the caller has its answer while the consumer still waits."""
    log, got = Log(), Log()
    async with System() as system:
        source = await system.start(Child(Answering, log))
        consumer = await system.start(Child(Forwarder, got))
        await consumer.subscribe(source)
        assert await source.call("early") == "answer"
        await settle()
        assert batches(got) == []
        source.driver.instance.gate.set()
        await until(lambda: batches(got) == [[1, 2, 3]])


async def test_events_of_a_call_that_is_answered_at_once_are_on_their_way():
    got = Log()
    async with System() as system:
        source, _, _ = await pair(system, [], got)
        await settle()
        assert await source.call(queue(1, 2, 3)) == "ok"
        assert source.statistics().delivered == 3
        await until(lambda: batches(got) == [[1, 2, 3]])


async def test_a_call_may_answer_and_stop_the_stage():
    """G065: the caller gets the answer, and the stage ends with "shutdown"."""
    log = Log()

    def stop(stage):
        stage.stop("shutdown")
        return "ok"

    async with System() as system:
        source = await system.start(Child(Source, log))
        assert await source.call(stop) == "ok"
        assert await source.wait() == "shutdown"
        assert log == [("terminate", "shutdown")]


async def test_it_is_told_of_the_end_of_any_stage_that_it_monitors():
    """G066: by handle_info."""
    await check_downs(Source)


async def test_terminate_gets_the_reason_of_a_stop():
    """G067: "normal"."""
    await check_terminate(Counter)


async def test_terminate_does_not_run_after_a_kill():
    log = Log()
    async with System() as system:
        ref = await system.start(Child(Counter, log))
        ref.kill()
        await crashed(ref)
        assert log == []


async def test_its_statistics_say_what_it_is():
    """G068: role, state, dispatcher, consumers and buffer, instead of a status report."""
    async with System() as system:
        source = await system.start(Child(Source, name="source"))
        await system.start(Child(Forwarder, name="consumer", subscribe_to=[source]))
        now = source.statistics()
        assert (now.name, now.role, now.state, now.buffered) == ("source", "producer", "running", 0)
        assert [each.peer for each in now.consumers] == ["consumer"]
        assert now.producers == ()
        assert getattr(now, "dispatcher", None) == "DemandDispatcher"
        other = await system.start(Child(Source, dispatcher=BroadcastDispatcher()))
        assert getattr(other.statistics(), "dispatcher", None) == "BroadcastDispatcher"
