"""Subscribing: what is refused, what a missing producer does, and subscribing anew."""

import pytest

from headgate import Child, End, OptionError, StageCrashed, Subscription, SubscriptionError, System, Terms, To
from tests.parity.registry import different
from tests.parity.stages import Counter, Forwarder, Log, Source, batches, crashed, numbers, refused, settle, until


async def dead(system, kind=Counter):
    """Return a stage that has ended."""
    ref = await system.start(Child(kind))
    await ref.stop()
    return ref


async def test_subscribing_returns_the_subscription():
    async with System() as system:
        source = await system.start(Child(Source))
        consumer = await system.start(Child(Forwarder))
        subscription = await consumer.subscribe(source)
        assert isinstance(subscription, Subscription)
        assert (subscription.producer, subscription.consumer) == (source, consumer)


async def test_a_dead_consumer_cannot_subscribe():
    """G044: the caller gets an error."""
    async with System() as system:
        source = await system.start(Child(Source, name="source"))
        consumer = await dead(system, Forwarder)
        with refused(SubscriptionError, consumer.name, "'source'", "the consumer has ended"):
            await consumer.subscribe(source)
        assert source.statistics().consumers == ()


BAD_OPTIONS = [
    ({"max_demand": 0}, "To('whatever'): expected option 'max_demand' to be an integer of at least 1, got: 0"),
    (
        {"min_demand": 2000},
        "To('whatever'): expected option 'min_demand' to be an integer from 0 to 999 (below max_demand), got: 2000",
    ),
]


@pytest.mark.parametrize(("options", "text"), BAD_OPTIONS)
async def test_bad_demand_options_are_errors_that_say_what_is_expected(options, text):
    """G045: max_demand below 1, min_demand above max_demand - 1. Nobody dies of it."""
    async with System() as system:
        consumer = await system.start(Child(Forwarder))
        with pytest.raises(OptionError) as caught:
            await consumer.subscribe("whatever", **options)
        assert str(caught.value) == text
        await settle()
        assert consumer.alive


@different(
    "G046",
    "besides stopping the consumer, the call raises a SubscriptionError; the original's answers ok first",
)
async def test_a_permanent_subscription_to_an_unknown_name_stops_the_consumer(caplog):
    """G046: with a clear message, for the reason that there is no such stage."""
    async with System() as system:
        consumer = await system.start(Child(Forwarder, name="consumer"))
        text = "stage 'consumer' cannot subscribe to 'unknown': there is no stage named 'unknown'"
        with refused(SubscriptionError, text) as caught:
            await consumer.subscribe("unknown")
        assert caught.value.missing
        fault = await crashed(consumer)
        assert fault.reason is consumer.reason is caught.value
        assert any(text in message for message in caplog.messages)


@pytest.mark.parametrize("cancel", ["permanent", "transient"])
async def test_a_permanent_subscription_to_a_dead_producer_stops_the_consumer(cancel):
    """G047: for the reason that there is no such stage."""
    async with System() as system:
        producer = await dead(system)
        consumer = await system.start(Child(Forwarder))
        with refused(SubscriptionError, "there is no such stage"):
            await consumer.subscribe(producer, cancel=cancel)
        fault = await crashed(consumer)
        assert isinstance(fault.reason, SubscriptionError)
        assert fault.reason.missing


async def survives_temporary(system, producer):
    log = Log()
    consumer = await system.start(Child(Forwarder, log))
    with pytest.raises(SubscriptionError) as caught:
        await consumer.subscribe(producer, cancel="temporary")
    assert caught.value.missing
    await settle()
    assert consumer.alive
    counter = await system.start(Child(Counter))
    await consumer.subscribe(counter)
    await until(lambda: batches(log))


async def test_a_temporary_subscription_to_an_unknown_name_leaves_the_consumer_alive():
    async with System() as system:
        await survives_temporary(system, "unknown")


async def test_a_temporary_subscription_to_a_dead_producer_leaves_the_consumer_alive():
    """G049: it can go on to subscribe elsewhere."""
    async with System() as system:
        await survives_temporary(system, await dead(system))


async def test_a_subscription_that_the_dispatcher_refuses_leaves_everything_else_as_it_is():
    """G050: the second subscription of a consumer to a broadcast; one is left on both sides, and nobody dies."""
    async with System() as system:
        source = await system.start(Child(Source, dispatcher="broadcast"))
        for _ in range(2):
            log = Log()
            consumer = await system.start(Child(Forwarder, log))
            kept = await consumer.subscribe(source)
            with refused(SubscriptionError, "it has one already"):
                await consumer.subscribe(source)
            await settle()
            assert consumer.alive
            assert await consumer.call(lambda stage: stage.subscriptions) == [kept]
            source.cast([1, 2, 3])
            await until(lambda got=log: batches(got) == [[1, 2, 3]])
        assert source.alive
        assert len(source.statistics().consumers) == 2


def unknown(producer, consumer):
    """Return a subscription that nobody has made."""
    return Subscription(10**9, producer, consumer, Terms())


def subscribed(log):
    return [entry[2] for entry in log if entry[0] == "subscribe"]


@pytest.mark.parametrize("cancel", ["temporary", "permanent"])
async def test_resubscribing_gives_a_new_subscription(cancel):
    """G051: the consumer is told of both, and lives."""
    log, other = Log(), Log()
    async with System() as system:
        source = await system.start(Child(Source, other))
        consumer = await system.start(Child(Forwarder, log))
        old = await consumer.subscribe(source, cancel=cancel)
        new = await consumer.resubscribe(old, source, reason="resubscribe")
        assert old is not new
        assert subscribed(log) == subscribed(other) == [old, new]
        await settle()
        assert ("cancel", End("cancel", "resubscribe"), old) in other
        assert consumer.alive
        source.cast([1, 2, 3])
        await until(lambda: batches(log) == [[1, 2, 3]])
        assert len(source.statistics().consumers) == 1


async def test_resubscribing_with_an_unknown_old_subscription_just_subscribes():
    """G052: and does no more."""
    log = Log()
    async with System() as system:
        source = await system.start(Child(Source))
        consumer = await system.start(Child(Forwarder, log))
        new = await consumer.resubscribe(unknown(source, consumer), source, reason="resubscribe")
        await settle()
        assert log == [("subscribe", "producer", new)]
        source.cast([1])
        await until(lambda: batches(log) == [[1]])


@pytest.mark.parametrize(("options", "text"), BAD_OPTIONS)
async def test_resubscribing_with_bad_options_is_the_same_error(options, text):
    """G053: and the old subscription stands."""
    log = Log()
    async with System() as system:
        source = await system.start(Child(Source))
        consumer = await system.start(Child(Forwarder, log))
        old = await consumer.subscribe(source)
        with pytest.raises(OptionError) as caught:
            await consumer.resubscribe(old, "whatever", reason="resubscribe", **options)
        assert str(caught.value) == text
        source.cast([1])
        await until(lambda: batches(log) == [[1]])


def anew(old, source):
    """Return the request by which a stage subscribes anew without waiting for the answer."""

    def request(stage):
        stage.cancel(old, "resubscribe")
        return stage.subscribe(source)

    return request


async def test_a_stage_can_resubscribe_itself_without_waiting():
    """G054: that gives a new subscription."""
    log = Log()
    async with System() as system:
        source = await system.start(Child(Source))
        consumer = await system.start(Child(Forwarder, log))
        old = await consumer.subscribe(source, cancel="temporary")
        new = await consumer.call(anew(old, source))
        await until(lambda: subscribed(log) == [old, new])
        assert new is not old
        source.cast([1])
        await until(lambda: batches(log) == [[1]])
        assert len(source.statistics().consumers) == 1


async def test_a_stage_can_resubscribe_itself_with_an_unknown_old_subscription():
    """G055: it just subscribes."""
    log = Log()
    async with System() as system:
        source = await system.start(Child(Source))
        consumer = await system.start(Child(Forwarder, log))
        new = await consumer.call(anew(unknown(source, consumer), source))
        await until(lambda: subscribed(log) == [new])
        source.cast([1])
        await until(lambda: batches(log) == [[1]])


async def ask_by_hand(system, counter, consumer, subscription, log):
    await settle()
    assert batches(log) == []
    for expected in numbers(0, 50, 100):
        consumer.ask(subscription, 50)
        await until(lambda: batches(log))
        await settle()
        assert batches(log) == [expected]
        log.clear()
    assert counter.statistics().consumers[0].asked == 100


async def test_manual_demand():
    """G056: nothing comes until it is asked for, and each ask of 50 gives exactly 50."""
    log = Log()
    async with System() as system:
        counter = await system.start(Child(Counter))
        consumer = await system.start(Child(Forwarder, log))
        subscription = await consumer.subscribe(counter, mode="manual")
        await ask_by_hand(system, counter, consumer, subscription, log)


async def test_manual_demand_of_a_subscription_made_at_the_start():
    """G057: the same."""
    log = Log()
    async with System() as system:
        counter = await system.start(Child(Counter))
        consumer = await system.start(Child(Forwarder, log, subscribe_to=[To(counter, mode="manual")]))
        [subscription] = subscribed(log)
        await ask_by_hand(system, counter, consumer, subscription, log)


async def test_manual_demand_chosen_by_handle_subscribe():
    log = Log()
    async with System() as system:
        counter = await system.start(Child(Counter))
        consumer = await system.start(Child(Forwarder, log, "manual"))
        subscription = await consumer.subscribe(counter)
        await ask_by_hand(system, counter, consumer, subscription, log)


async def test_a_failed_start_does_not_hide_the_crash_of_another_stage():
    with pytest.raises(StageCrashed) as caught:
        async with System() as system:
            other = await system.start(Child(Source, name="other"))
            other.cast("no events")
            await settle()
            assert not other.alive
            for wanted in ("unknown", "other"):
                with pytest.raises(SubscriptionError):
                    await system.start(Child(Forwarder, subscribe_to=[wanted]))
            assert system.stages() == []
    assert caught.value.stage == "other"
