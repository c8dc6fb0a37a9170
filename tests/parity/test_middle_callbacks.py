"""What a middle stage is told on either side, and what its cancel mode makes of the end of its producer."""

import pytest

from headgate import Child, End, HandlerError, NoStageError, System, To
from tests.parity.checks import Reason, killed
from tests.parity.stages import Counter, Doubler, Forwarder, Log, Source, batches, crashed, settle, until


async def below(system, log, **terms):
    """Return a middle stage, its consumer, and the subscription between them."""
    doubler = await system.start(Child(Doubler, log))
    consumer = await system.start(Child(Forwarder))
    return doubler, consumer, await consumer.subscribe(To(doubler, **terms))


async def above(system, log, **terms):
    """Return a source, a middle stage that has a consumer, and the subscription between source and middle."""
    source = await system.start(Child(Source))
    doubler = await system.start(Child(Doubler, log))
    await system.start(Child(Forwarder, subscribe_to=[To(doubler, cancel="temporary")]))
    subscription = await doubler.subscribe(To(source, **terms))
    del log[:-1]
    assert log == [("subscribe", "producer", subscription)]
    return source, doubler, subscription


async def lives(log, end, subscription, doubler):
    await until(lambda: ("cancel", end, subscription) in log)
    await settle()
    assert log[1:] == [("cancel", end, subscription)]
    assert doubler.alive


async def ends(log, end, subscription, doubler):
    fault = await crashed(doubler)
    assert fault.reason is doubler.reason is end.reason
    assert log[1:3] == [("cancel", end, subscription), ("terminate", end.reason)]


async def test_it_is_told_that_a_consumer_subscribes():
    """G084: with the consumer's identity and the subscription."""
    log = Log()
    async with System() as system:
        _, consumer, subscription = await below(system, log)
        assert log == [("subscribe", "consumer", subscription)]
        assert log[0][2].consumer is consumer


async def test_it_cannot_choose_manual_demand_for_a_consumer():
    log, got = Log(), Log()
    async with System() as system:
        doubler = await system.start(Child(Doubler, log, "manual"))
        consumer = await system.start(Child(Forwarder, got))
        subscription = await consumer.subscribe(doubler, cancel="temporary")
        fault = await crashed(doubler)
        assert isinstance(fault.reason, HandlerError)
        assert (fault.reason.callback, fault.reason.got) == ("handle_subscribe", "manual")
        assert log[0] == ("subscribe", "consumer", subscription)
        await until(lambda: ("cancel", End("down", fault), subscription) in got)
        assert consumer.alive


@pytest.mark.parametrize("side", ["producer", "consumer"])
async def test_it_is_told_that_its_consumer_cancels(side):
    """G086: the kind is "cancel", and the reason is the one that was given."""
    log = Log()
    async with System() as system:
        doubler, consumer, subscription = await below(system, log, cancel="temporary")
        (doubler if side == "producer" else consumer).cancel(subscription, "oops")
        await lives(log, End("cancel", "oops"), subscription, doubler)


async def test_it_is_told_that_its_consumer_has_died():
    log = Log()
    async with System() as system:
        doubler, consumer, subscription = await below(system, log, cancel="temporary")
        await killed(consumer)
        await lives(log, End("down", "killed"), subscription, doubler)


async def test_it_is_told_of_its_own_subscription():
    """G088: with the producer's identity and the subscription."""
    log = Log()
    async with System() as system:
        counter = await system.start(Child(Counter))
        doubler = await system.start(Child(Doubler, log))
        subscription = await doubler.subscribe(counter)
        assert log == [("subscribe", "producer", subscription)]
        assert log[0][2].producer is counter


async def test_an_unknown_answer_to_its_own_subscription_ends_it():
    """G089: for the reason that this must not be returned."""
    log = Log()
    async with System() as system:
        counter = await system.start(Child(Counter))
        doubler = await system.start(Child(Doubler, log, "unknown"))
        with pytest.raises(NoStageError):
            await doubler.subscribe(counter)
        fault = await crashed(doubler)
        assert isinstance(fault.reason, HandlerError)
        assert (fault.reason.callback, fault.reason.got) == ("handle_subscribe", "unknown")
        assert log[0][:2] == ("subscribe", "producer")
        assert counter.alive


async def test_temporary_and_cancelled():
    log = Log()
    async with System() as system:
        source, doubler, subscription = await above(system, log, cancel="temporary")
        source.cancel(subscription, "oops")
        await lives(log, End("cancel", "oops"), subscription, doubler)


async def test_permanent_and_cancelled():
    """G091: it is told, and ends for that reason."""
    log = Log()
    async with System() as system:
        source, doubler, subscription = await above(system, log, cancel="permanent")
        end = End("cancel", Reason())
        source.cancel(subscription, end.reason)
        await ends(log, end, subscription, doubler)


async def test_temporary_and_the_producer_is_killed():
    log = Log()
    async with System() as system:
        source, doubler, subscription = await above(system, log, cancel="temporary")
        await killed(source)
        await lives(log, End("down", "killed"), subscription, doubler)


async def test_transient_and_the_producer_shuts_down():
    """G093: it is told, and lives."""
    log = Log()
    async with System() as system:
        source, doubler, subscription = await above(system, log, cancel="transient")
        await source.stop("shutdown")
        await lives(log, End("down", "shutdown"), subscription, doubler)


async def test_transient_and_the_producer_is_killed():
    """G094: it is told, and ends as killed."""
    log = Log()
    async with System() as system:
        source, doubler, subscription = await above(system, log, cancel="transient")
        await killed(source)
        await ends(log, End("down", "killed"), subscription, doubler)


async def test_permanent_and_the_producer_is_killed():
    log = Log()
    async with System() as system:
        source, doubler, subscription = await above(system, log, cancel="permanent")
        await killed(source)
        await ends(log, End("down", "killed"), subscription, doubler)


async def test_events_that_came_before_the_end_are_handled_before_it():
    """A middle stage follows its producer's end only when it has handled what it was sent."""
    log, got = Log(), Log()
    async with System() as system:
        source = await system.start(Child(Source))
        doubler = await system.start(Child(Doubler, log))
        await doubler.subscribe(source)
        source.cast([1, 2])
        await settle()
        await killed(source)
        await settle()
        assert doubler.alive
        assert batches(log) == []
        await (await system.start(Child(Forwarder, got))).subscribe(doubler, cancel="temporary")
        assert (await crashed(doubler)).reason == "killed"
        assert batches(log) == [[1, 2]]
        await until(lambda: batches(got) == [[1, 1, 2, 2]])


async def test_its_statistics_say_what_it_is():
    """G096: role, state, dispatcher, producers, consumers and buffer, instead of a status report."""
    async with System() as system:
        await system.start(Child(Source, name="source"))
        doubler = await system.start(Child(Doubler, name="doubler", subscribe_to=["source"]))
        await system.start(Child(Forwarder, name="consumer", subscribe_to=[doubler]))
        now = doubler.statistics()
        assert (now.name, now.role, now.state, now.buffered) == ("doubler", "producer_consumer", "running", 0)
        assert [each.peer for each in now.producers] == ["source"]
        assert [each.peer for each in now.consumers] == ["consumer"]
        assert getattr(now, "dispatcher", None) == "DemandDispatcher"
