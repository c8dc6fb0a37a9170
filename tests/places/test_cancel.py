# mypy: disable-error-code="possibly-undefined,union-attr,var-annotated"
"""Subscriptions come and go at run time; what a producer's end means is the consumer's choice."""

import gc

import pytest

from headgate import NoStageError, OptionError, StageCrashed, SubscriptionError
from tests.places.helpers import NEAR, System, To, calm, child, clear, run, shows, spread, until
from tests.places.stages import Collect, Counter, Emitter, Failing, Mute, Silent, Times, Wanderer, Watcher

MODES = [
    ("permanent", "normal", True),
    ("permanent", "oops", True),
    ("transient", "normal", False),
    ("transient", "oops", True),
    ("temporary", "normal", False),
    ("temporary", "oops", False),
]
MISSING = [
    (gone, mode, lives)
    for gone in ("unknown", "ended")
    for mode, lives in (("permanent", False), ("transient", False), ("temporary", True))
]


async def ended(ref):
    """Wait for a stage whose crash is expected."""
    try:
        return await ref.wait()
    except StageCrashed as crash:
        return crash.reason


@spread(MODES)
def test_the_end_of_a_producer(place, cases):
    async def scenario():
        async with System() as system:
            for mode, reason, ends in cases:
                log = []
                source = await system.start(child(place, Emitter))
                sink = await system.start(
                    child(place, Collect, None, None, (), log, subscribe_to=[To(source, cancel=mode)])
                )
                await source.stop(reason)
                await until(lambda log=log, reason=reason: ("cancel", "down", reason) in log)
                if ends:
                    assert await ended(sink) == reason
                await calm(sink)
                assert sink.alive is not ends
                await ended(source)
                await clear(system)

    run(scenario)


@spread(MODES)
def test_a_producer_that_cancels(place, cases):
    async def scenario():
        async with System() as system:
            for mode, reason, ends in cases:
                log, seen, source_log = [], [], []
                source = await system.start(child(place, Emitter, source_log))
                sink = await system.start(child(place, Collect, seen, None, (), log))
                subscription = await sink.subscribe(source, cancel=mode)
                await calm(source, sink)
                source.cast([1, 2])
                await shows(source, lambda read: read.delivered == 2)
                source.cancel(subscription, reason)
                await until(lambda log=log, reason=reason: ("cancel", "cancel", reason) in log)
                assert seen == [1, 2], "it first handles what it has"
                if ends:
                    assert await ended(sink) == reason
                await calm(source, sink)
                assert source.alive
                assert sink.alive is not ends
                assert ("cancel", "cancel", reason) in source_log
                assert (await source.statistics()).consumers == ()
                await clear(system)

    run(scenario)


@spread([("permanent", True), ("transient", True), ("temporary", False)])
def test_the_crash_of_a_producer(place, cases):
    async def scenario():
        async with System() as system:
            for mode, ends in cases:
                sink = await system.start(child(place, Collect))
                source = await system.start(child(place, Failing))
                await sink.subscribe(source, cancel=mode)
                with pytest.raises(StageCrashed) as caught:
                    await source.wait()
                assert isinstance(caught.value.__cause__, ValueError)
                if ends:
                    reason = await ended(sink)
                    assert "broken" in str(reason)
                assert sink.alive is not ends
                await clear(system)

    run(scenario)


@spread(MODES)
def test_the_canceller_lives_on(place, cases):
    async def scenario():
        async with System() as system:
            for mode, reason, _ in cases:
                log, source_log = [], []
                source = await system.start(child(place, Emitter, source_log))
                sink = await system.start(child(place, Collect, None, None, (), log))
                subscription = await sink.subscribe(source, cancel=mode)
                sink.cancel(subscription, reason)
                await until(lambda log=source_log, reason=reason: ("cancel", "cancel", reason) in log)
                await calm(source, sink)
                assert log == [("subscribe", "producer"), ("cancel", "cancel", reason)]
                assert sink.alive
                assert source.alive
                assert (await sink.statistics()).producers == (await source.statistics()).consumers == ()
                sink.cancel(subscription, reason)
                sink.ask(subscription, 5)
                await calm(source, sink)
                assert len(log) == 2, "a second time is none"
                await clear(system)

    run(scenario)


def test_what_a_leaving_consumer_did_not_handle_goes_to_the_next_ahead_of_newer_events(place):
    async def scenario():
        seen, successor = [], []
        async with System() as system:
            source = await system.start(child(place, Emitter))
            middle = await system.start(child(place, Times, subscribe_to=[To(source, max_demand=10, min_demand=0)]))
            await calm(source, middle)
            source.cast(list(range(10)))
            await shows(source, lambda read: read.in_flight == 10)
            source.cast([10, 11])
            await shows(source, lambda read: read.buffered == 2)
            await middle.stop()
            await shows(source, lambda read: read.buffered == 12)
            await system.start(child(place, Collect, successor, subscribe_to=[source]))
            await until(lambda: len(successor) == 12)
        assert successor == list(range(12))
        assert not seen

    run(scenario)


def test_subscribing_asking_cancelling_and_subscribing_again(place):
    async def scenario():
        seen, log = [], []
        async with System() as system:
            counter = await system.start(child(place, Counter, name="counter"))
            sink = await system.start(child(place, Collect, seen, None, (), log))
            for number in range(1, 6):
                subscription = await sink.subscribe("counter", max_demand=10, mode="manual")
                sink.ask(subscription, 3)
                await until(lambda target=3 * number: len(seen) == target)
                sink.cancel(subscription)
                await shows(counter, lambda read: read.consumers == ())
        assert seen == list(range(15))
        assert log == [("subscribe", "producer"), ("cancel", "cancel", "normal")] * 5

    run(scenario)


def test_resubscribing_with_the_default_mode_kills_nobody(place):
    """genstage.md Q8: there the consumer exits."""

    async def scenario():
        seen, log = [], []
        async with System() as system:
            counter = await system.start(child(place, Counter))
            sink = await system.start(child(place, Collect, seen, None, (), log))
            old = await sink.subscribe(counter, max_demand=10)
            new = await sink.resubscribe(old, counter, reason="new terms", max_demand=20)
            assert new is not old
            await until(lambda: ("cancel", "cancel", "new terms") in log)
            [subscription] = (await counter.statistics()).consumers
            before = len(seen)
            await until(lambda: len(seen) > before + 50)
            assert sink.alive
        assert sorted(seen) == list(range(len(seen)))
        assert subscription.peer == sink.name

    run(scenario)


def test_resubscribing_from_an_ended_subscription_just_subscribes(place):
    async def scenario():
        seen = []
        async with System() as system:
            counter = await system.start(child(place, Counter))
            sink = await system.start(child(place, Collect, seen))
            old = await sink.subscribe(counter, mode="manual")
            sink.cancel(old)
            await sink.resubscribe(old, counter, max_demand=10)
            await until(lambda: len(seen) > 20)
            with pytest.raises(OptionError):
                await sink.resubscribe(old, counter, max_demand=0)

    run(scenario)


@spread(MISSING)
def test_a_missing_producer(place, cases):
    async def scenario():
        async with System() as system:
            for gone, mode, lives in cases:
                source = await system.start(child(place, Emitter, name="source"))
                await source.stop()
                sink = await system.start(child(place, Collect))
                with pytest.raises(SubscriptionError) as caught:
                    await sink.subscribe("source" if gone == "unknown" else source, cancel=mode)
                assert caught.value.missing
                assert caught.value.producer == "source"
                await until(lambda sink=sink, lives=lives: sink.alive is lives)
                if not lives:
                    with pytest.raises(StageCrashed):
                        await sink.wait()
                await clear(system)

    run(scenario)


def test_what_is_no_producer_is_said_so(place):
    async def scenario():
        async with System() as system:
            one = await system.start(child(place, Collect))
            two = await system.start(child(place, Collect))
            with pytest.raises(SubscriptionError, match="it is a consumer"):
                await one.subscribe(two)
            source = await system.start(child(place, Emitter))
            with pytest.raises(SubscriptionError, match="a producer cannot subscribe"):
                await source.subscribe(one)
            assert one.alive
            assert two.alive
            assert source.alive

    run(scenario)


@pytest.mark.parametrize("reason", ["normal", "oops"])
def test_a_monitor_is_told_of_the_end(place, reason):
    async def scenario():
        log = []
        async with System() as system:
            before = await system.start(child(place, Emitter))
            await before.stop()
            later = await system.start(child(place, Emitter))
            await system.start(child(place, Watcher, (before, later), log))
            await until(lambda: log == [(0, "normal")])
            await later.stop(reason)
            await until(lambda: len(log) == 2)
            assert log[1] == (1, reason)
            await ended(later)

    run(scenario)


def test_a_stage_may_subscribe_and_cancel_from_inside(place):
    async def scenario():
        errors, source_log = [], []
        async with System(on_error=errors.append) as system:
            source = await system.start(child(place, Emitter, source_log))
            sink = await system.start(child(place, Wanderer))
            sink.cast(source)
            await shows(source, lambda read: len(read.consumers) == 1)
            sink.cast("cancel")
            await until(lambda: ("cancel", "cancel", "enough") in source_log)
            assert sink.alive
            assert not errors

    run(scenario)


def test_a_refusal_of_a_subscription_from_inside_is_reported(place):
    async def scenario():
        errors = []
        async with System(on_error=errors.append) as system:
            sink = await system.start(child(place, Wanderer))
            other = await system.start(child(place, Collect))
            sink.cast(other)
            await until(lambda: len(errors) == 1)
            assert isinstance(errors[0], SubscriptionError)
            assert sink.alive

    run(scenario)


def records():
    gc.collect()
    return sum(type(each).__name__ in ("Subscription", "Window", "Subscriber") for each in gc.get_objects())


@pytest.mark.slow
@pytest.mark.parametrize("place", NEAR)  # it counts objects of this process
def test_ten_thousand_subscriptions_leave_nothing_behind(place):
    async def scenario():
        count, before = 10_000 if place == "inline" else 2000, records()
        async with System() as system:
            counter = await system.start(child(place, Mute))
            sink = await system.start(child(place, Silent))
            for _ in range(count):
                subscription = await sink.subscribe(counter, mode="manual")
                sink.cancel(subscription)
            del subscription
            await shows(counter, lambda read: read.consumers == ())
            await calm(counter, sink)
            cores = counter.driver.core, sink.driver.core
            assert not cores[0].out.subscribers
            assert not cores[0].out.closing
            assert not cores[1].into.windows
            assert not cores[1].into.work
            assert not counter.driver.inbox
            assert not sink.driver._subscribing
            assert records() <= before + 10, "but for what the last messages left in local variables"

    run(scenario)


def test_a_call_to_an_ended_stage(place):
    async def scenario():
        async with System() as system:
            source = await system.start(child(place, Emitter))
            await source.stop()
            with pytest.raises(NoStageError, match="has ended"):
                await source.call("anyone?")
            source.cast("nobody")
            source.info("nobody")
            source.set_demand("forward")
            assert (source.alive, source.reason) == (False, "normal")
            assert await source.wait() == "normal"
            assert await source.stop() == "normal"

    run(scenario)
