# mypy: disable-error-code="var-annotated"
"""Wrong requests: refused with a typed error at whoever made them; the stage that they were made to lives on."""

import contextlib

import numpy as np
import pytest

from headgate import (
    Child,
    DispatchError,
    HandlerError,
    HeadgateError,
    NameTakenError,
    NoStageError,
    OptionError,
    PartitionDispatcher,
    Producer,
    SubscriptionError,
    System,
    To,
)
from tests.ids import shown
from tests.places.helpers import Collect, Counter, Emitter, calm, child, run, until


@pytest.fixture(params=["inline", "task", "thread"])
def place(request):
    return request.param


VALUES = [
    -1, 1.5, float("nan"), "5", "", b"5", None, True, [], [1], (), {}, set(), object(), len, Producer, ..., 1j,
    np.array([1, 2]), np.float64(1), Exception("x"), range(3), iter([]), 0.0, -10**30, "x" * 1000, "\n", "\x00",
    frozenset(), type, NotImplemented,
]  # fmt: skip


async def pair(system, place, seen=None):
    source = await system.start(child(place, Counter, name="source"))
    sink = await system.start(child(place, Collect, seen, name="sink"))
    return source, sink, await sink.subscribe(source, mode="manual")


async def still_works(source, sink, subscription, seen):
    before = len(seen)
    sink.ask(subscription, 5)
    await until(lambda: len(seen) == before + 5)
    assert source.alive
    assert sink.alive


def test_wrong_counts_of_an_ask(place):
    async def scenario():
        seen = []
        async with System() as system:
            source, sink, subscription = await pair(system, place, seen)
            for value in VALUES:
                with pytest.raises(OptionError, match="'sink'") as caught:
                    sink.ask(subscription, value)
                assert caught.value.option == "count"
            await still_works(source, sink, subscription, seen)

    run(scenario)


def test_wrong_demand_modes(place):
    async def scenario():
        seen = []
        async with System() as system:
            source, sink, subscription = await pair(system, place, seen)
            for value in VALUES:
                with pytest.raises(OptionError, match="'source'") as caught:
                    source.set_demand(value)
                assert caught.value.option == "demand"
            await still_works(source, sink, subscription, seen)

    run(scenario)


def test_wrong_producers_of_a_subscription(place):
    async def scenario():
        seen = []
        async with System() as system:
            source, sink, subscription = await pair(system, place, seen)
            for value in VALUES:
                with pytest.raises((OptionError, SubscriptionError)):
                    await sink.subscribe(value, **({"cancel": "temporary"} if isinstance(value, str) else {}))
            await still_works(source, sink, subscription, seen)

    run(scenario)


@pytest.mark.parametrize("option", ["max_demand", "min_demand", "cancel", "mode", "weight"])
def test_wrong_options_of_a_subscription(place, option):
    async def scenario():
        seen = []
        async with System() as system:
            source, sink, subscription = await pair(system, place, seen)
            for value in VALUES:
                if option == "min_demand" and value is None:
                    continue
                with pytest.raises(OptionError) as caught:
                    await sink.subscribe(source, **{option: value})
                assert caught.value.option == option
                assert "source" in str(caught.value)
            with pytest.raises(OptionError, match="given inside of To"):
                await sink.subscribe(To(source), max_demand=5)
            with pytest.raises(OptionError, match="did you mean 'max_demand'"):
                await sink.subscribe(source, max_deman=5)
            await still_works(source, sink, subscription, seen)

    run(scenario)


def test_wrong_subscriptions_to_ask_or_cancel(place):
    """What is no subscription, or not this stage's, is refused or changes nothing; it never harms the stage."""

    async def scenario():
        seen = []
        async with System() as system:
            source, sink, subscription = await pair(system, place, seen)
            other = await system.start(child(place, Collect))
            foreign = await other.subscribe(source, mode="manual")
            for value in [*VALUES, foreign]:
                for request in (lambda value=value: sink.ask(value, 1), lambda value=value: sink.cancel(value)):
                    with contextlib.suppress(HeadgateError):
                        request()
            await calm(source, sink, other)
            await still_works(source, sink, subscription, seen)
            assert other.alive
            assert len(source.statistics().consumers) == 2

    run(scenario)


def test_a_call_without_a_handler(place):
    class Deaf(Producer):
        pass

    async def scenario():
        errors = []
        async with System(on_error=errors.append) as system:
            deaf = await system.start(child(place, Deaf, name="deaf"))
            for value in VALUES:
                with pytest.raises(HandlerError, match="handle_call") as caught:
                    await deaf.call(value)
                assert caught.value.stage == "deaf"
                deaf.cast(value)
                deaf.info(value)
            await until(lambda: len(errors) == len(VALUES))
            assert all(isinstance(error, HandlerError) and error.callback == "handle_cast" for error in errors)
            assert deaf.alive

    run(scenario)


def test_names(place):
    async def scenario():
        async with System() as system:
            first = await system.start(child(place, Emitter, name="taken"))
            with pytest.raises(NameTakenError, match="taken"):
                await system.start(child(place, Emitter, name="taken"))
            assert first.alive
            assert system.ref("taken") is first
            with pytest.raises(NoStageError, match="'taken'"):
                system.ref("unknown")
            await first.stop()
            again = await system.start(child(place, Emitter, name="taken"))
            assert system.ref("taken") is again

    run(scenario)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: shown(value)[:20])
def test_only_recipes_are_started(value):
    async def scenario():
        async with System() as system:
            with pytest.raises(OptionError):
                await system.start(value)
            assert system.stages() == []

    run(scenario)


def test_a_system_that_was_not_entered():
    async def scenario():
        with pytest.raises(NoStageError, match="async with"):
            await System().start(Child(Emitter))

    run(scenario)


@pytest.mark.parametrize("partition", [None, 2, -1, "0", [], {}, np.array([1, 2])], ids=shown)
def test_wrong_partitions_are_refused_and_the_others_get_everything(place, partition):
    async def scenario():
        seen = {0: [], 1: []}
        async with System() as system:
            dispatcher = PartitionDispatcher(2, hash=lambda event: event % 2)
            source = await system.start(
                child(place, Counter, 100, name="source", dispatcher=dispatcher, demand="accumulate")
            )
            stranger = await system.start(child(place, Collect, name="stranger"))
            with pytest.raises(SubscriptionError, match="partition") as caught:
                await stranger.subscribe(source, partition=partition)
            assert (caught.value.consumer, caught.value.producer) == ("stranger", "source")
            for name, each in seen.items():
                await system.start(child(place, Collect, each, subscribe_to=[To(source, partition=name, max_demand=9)]))
            with pytest.raises(SubscriptionError):
                await stranger.subscribe(source, partition=0)
            assert stranger.alive
            await stranger.stop()
            source.set_demand("forward")
            await system.wait()
        assert seen == {0: list(range(0, 100, 2)), 1: list(range(1, 100, 2))}

    run(scenario)


@pytest.mark.parametrize("fault", [7, "0", [], ValueError("bad"), object(), float("nan")], ids=shown)
def test_a_bad_hash_costs_one_event(place, fault):
    def route(event):
        if event != 5:
            return 0
        if isinstance(fault, Exception):
            raise fault
        return fault

    async def scenario():
        seen, errors = [], []
        async with System(on_error=errors.append) as system:
            source = await system.start(
                child(place, Counter, 50, name="source", dispatcher=PartitionDispatcher(1, hash=route))
            )
            await system.start(child(place, Collect, seen, subscribe_to=[To(source, partition=0, max_demand=10)]))
            await system.wait()
        assert seen == [number for number in range(50) if number != 5]
        [error] = errors
        assert isinstance(error, DispatchError)
        assert (error.stage, error.option, error.event) == ("source", "hash", 5)

    run(scenario)


def test_a_bad_selector_costs_one_subscription(place):
    async def scenario():
        good, errors = [], []
        async with System(on_error=errors.append) as system:
            source = await system.start(
                child(place, Counter, 100, name="source", dispatcher="broadcast", demand="accumulate")
            )
            bad = await system.start(child(place, Collect))
            await bad.subscribe(source, selector=lambda event: 1 / (event - 5), cancel="temporary", max_demand=10)
            await system.start(child(place, Collect, good, subscribe_to=[To(source, max_demand=10)]))
            for value in (5, "even", []):
                with pytest.raises((SubscriptionError, OptionError), match="selector"):
                    await (await system.start(child(place, Collect))).subscribe(source, selector=value)
            source.set_demand("forward")
            await until(lambda: len(good) == 100)
            assert bad.alive
        assert good == list(range(100))
        [error] = errors
        assert isinstance(error, DispatchError)
        assert (error.stage, error.option, error.event) == ("source", "selector", 5)

    run(scenario)


@pytest.mark.parametrize("timeout", [0.01, 0])
def test_a_subscription_that_is_not_answered_in_time_still_stands(place, timeout):
    async def scenario():
        seen = []
        async with System() as system:
            source = await system.start(child(place, Counter))
            sink = await system.start(child(place, Collect, seen))
            with contextlib.suppress(TimeoutError):
                await sink.subscribe(source, timeout=timeout, max_demand=10)
            await until(lambda: len(seen) > 20)

    run(scenario)
