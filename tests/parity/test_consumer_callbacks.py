"""What a consumer is told, and what its cancel mode makes of the end of a subscription."""

import pytest

from headgate import Child, End, HandlerError, NoStageError, System, To
from tests.parity.checks import Reason, check_downs, check_terminate, killed
from tests.parity.stages import Counter, Forwarder, Log, Source, batches, crashed, settle, until


class Careless(Forwarder):
    """Returns events although it is a consumer."""

    def handle_events(self, events, source):
        super().handle_events(events, source)
        return [*events, "more"]

    def handle_cast(self, message):
        return message


async def pair(system, log, **terms):
    source = await system.start(Child(Source))
    consumer = await system.start(Child(Forwarder, log))
    return source, consumer, await consumer.subscribe(To(source, **terms))


async def test_it_is_told_of_its_own_subscription():
    """G070: with the identity of the producer and the subscription."""
    log = Log()
    async with System() as system:
        source, _, subscription = await pair(system, log)
        assert log == [("subscribe", "producer", subscription)]
        assert log[0][2].producer is source


async def test_an_unknown_answer_to_a_subscription_ends_it():
    """G071: for the reason that this must not be returned."""
    log = Log()
    async with System() as system:
        counter = await system.start(Child(Counter))
        consumer = await system.start(Child(Forwarder, log, "unknown", subscribe_to=[]))
        with pytest.raises(NoStageError):
            await consumer.subscribe(counter)
        fault = await crashed(consumer)
        assert isinstance(fault.reason, HandlerError)
        assert (fault.reason.callback, fault.reason.got) == ("handle_subscribe", "unknown")
        assert counter.alive


async def lives(system, log, end, subscription, consumer):
    """Check that it was told of the end, once, and has gone on."""
    await until(lambda: ("cancel", end, subscription) in log)
    await settle()
    assert batches(log, "cancel") == [end]
    assert consumer.alive
    counter = await system.start(Child(Counter))
    await consumer.subscribe(counter)
    await until(lambda: batches(log))


async def ends(log, end, subscription, consumer):
    """Check that it was told of the end, and then ended for the very same reason."""
    fault = await crashed(consumer)
    assert fault.reason is consumer.reason is end.reason
    assert [entry for entry in log if entry[0] in ("cancel", "terminate")] == [
        ("cancel", end, subscription),
        ("terminate", end.reason),
    ]


async def test_temporary_and_cancelled():
    """G072: it is told, and lives."""
    log = Log()
    async with System() as system:
        source, consumer, subscription = await pair(system, log, cancel="temporary")
        source.cancel(subscription, "oops")
        await lives(system, log, End("cancel", "oops"), subscription, consumer)


@pytest.mark.parametrize("reason", ["normal", "shutdown", ("shutdown", "for the night")])
async def test_transient_and_cancelled_for_a_normal_reason(reason):
    """G073: it is told, and lives."""
    log = Log()
    async with System() as system:
        source, consumer, subscription = await pair(system, log, cancel="transient")
        source.cancel(subscription, reason)
        await lives(system, log, End("cancel", reason), subscription, consumer)


async def test_transient_and_cancelled_for_an_abnormal_reason():
    """G074: it is told, and ends for that reason, which is not wrapped."""
    log = Log()
    async with System() as system:
        source, consumer, subscription = await pair(system, log, cancel="transient")
        end = End("cancel", Reason())
        source.cancel(subscription, end.reason)
        await ends(log, end, subscription, consumer)
        assert source.alive


async def test_permanent_and_cancelled():
    """G075: it is told, and ends for that reason."""
    log = Log()
    async with System() as system:
        source, consumer, subscription = await pair(system, log, cancel="permanent")
        end = End("cancel", Reason())
        source.cancel(subscription, end.reason)
        await ends(log, end, subscription, consumer)


@pytest.mark.parametrize("reason", ["normal", "shutdown"])
async def test_permanent_and_cancelled_for_a_normal_reason(reason):
    log = Log()
    async with System() as system:
        source, consumer, subscription = await pair(system, log)
        source.cancel(subscription, reason)
        assert await consumer.wait() == reason
        assert log[1:] == [("cancel", End("cancel", reason), subscription), ("terminate", reason)]


@pytest.mark.parametrize("cancel", ["permanent", "transient"])
async def test_cancelling_does_not_stop_the_one_who_cancels(cancel):
    log = Log()
    async with System() as system:
        _, consumer, subscription = await pair(system, log, cancel=cancel)
        consumer.cancel(subscription, "oops")
        await lives(system, log, End("cancel", "oops"), subscription, consumer)


async def test_temporary_and_the_producer_is_killed():
    """G076: it is told that the producer is down, and lives."""
    log = Log()
    async with System() as system:
        source, consumer, subscription = await pair(system, log, cancel="temporary")
        await killed(source)
        await lives(system, log, End("down", "killed"), subscription, consumer)


async def test_transient_and_the_producer_is_killed():
    """G077: it is told, and ends as killed."""
    log = Log()
    async with System() as system:
        source, consumer, subscription = await pair(system, log, cancel="transient")
        await killed(source)
        await ends(log, End("down", "killed"), subscription, consumer)


async def test_permanent_and_the_producer_is_killed():
    log = Log()
    async with System() as system:
        source, consumer, subscription = await pair(system, log, cancel="permanent")
        await killed(source)
        await ends(log, End("down", "killed"), subscription, consumer)


async def test_it_is_told_of_the_end_of_any_stage_that_it_monitors():
    """G079: by handle_info."""
    await check_downs(Forwarder)


async def test_terminate_gets_the_reason_of_a_stop():
    """G080: "normal"."""
    await check_terminate(Forwarder)


async def test_events_that_it_returns_are_an_error_and_go_nowhere(caplog):
    """G081: the error is reported, or logged when nobody listens, and the consumer goes on."""
    for errors in (None, Log()):
        log = Log()
        async with System(on_error=None if errors is None else errors.append) as system:
            source = await system.start(Child(Source))
            consumer = await system.start(Child(Careless, log, name="careless", subscribe_to=[source]))
            source.cast([1])
            source.cast([2])
            await until(lambda got=log: batches(got) == [[1], [2]])
            consumer.cast([3])
            await settle()
            assert consumer.alive
            assert source.statistics().in_flight == 0
        expected = "expected handle_events to return None (a consumer dispatches no events)"
        text = f"stage 'careless': {expected}, got list: [1, 'more']"
        found = caplog.messages if errors is None else [str(error) for error in errors]
        assert found[0] == text
        assert len(found) == 3
        assert errors is None or all(isinstance(error, HandlerError) for error in errors)


async def test_its_statistics_say_what_it_is():
    """G082: role, state and producers, instead of a status report."""
    async with System() as system:
        await system.start(Child(Source, name="source"))
        consumer = await system.start(Child(Forwarder, name="consumer", subscribe_to=["source"]))
        now = consumer.statistics()
        assert (now.name, now.role, now.state) == ("consumer", "consumer", "running")
        assert [each.peer for each in now.producers] == ["source"]
        assert (now.consumers, now.buffered) == ((), 0)
