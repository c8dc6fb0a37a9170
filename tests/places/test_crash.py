# mypy: disable-error-code="union-attr,var-annotated"
"""A crash surfaces where somebody waits, with its cause, and no event between stages is lost."""

import pytest

from headgate import StageCrashed, System
from tests.places.helpers import To, child, run, until
from tests.places.stages import BadEnd, BadStart, Boom, Breaking, Collect, Counter, Emitter, Fragile, Times


def test_a_crash_surfaces_where_it_is_waited_for(place):
    async def scenario():
        async with System() as system:
            ref = await system.start(child(place, Fragile, name="fragile"))
            ref.cast("why")
            with pytest.raises(StageCrashed, match="'fragile'") as caught:
                await ref.wait()
            assert isinstance(caught.value.__cause__, Boom)
            assert caught.value.__cause__.args == ("why",)
            assert caught.value.stage == "fragile"
            assert (ref.alive, ref.reason) == (False, caught.value)
            with pytest.raises(StageCrashed) as again:
                await ref.wait()
            assert again.value is caught.value

    run(scenario)


def test_a_crash_surfaces_at_the_call_that_caused_it(place):
    async def scenario():
        async with System() as system:
            ref = await system.start(child(place, Fragile))
            with pytest.raises(StageCrashed) as caught:
                await ref.call("why")
            assert isinstance(caught.value.__cause__, Boom)
            await until(lambda: not ref.alive)

    run_expecting_at_most_a_crash(scenario)


def run_expecting_at_most_a_crash(scenario):
    """What a call has seen may be raised again at the end of the system, or not."""

    async def outer():
        try:
            await scenario()
        except StageCrashed as crash:
            assert isinstance(crash.__cause__, Boom)  # noqa: PT017 (it need not be raised)

    run(outer)


def test_a_crash_surfaces_when_the_whole_system_is_waited_for(place):
    async def scenario():
        async with System() as system:
            ref = await system.start(child(place, Fragile))
            await system.start(child(place, Emitter))
            ref.info("why")
            with pytest.raises(StageCrashed) as caught:
                await system.wait()
            assert isinstance(caught.value.__cause__, Boom)
            assert len(system.stages()) == 1, "the others live on"

    run(scenario)


def test_a_crash_that_nobody_saw_surfaces_at_the_end(place):
    async def scenario():
        with pytest.raises(StageCrashed) as caught:
            async with System() as system:
                ref = await system.start(child(place, Fragile))
                ref.cast("why")
                await until(lambda: not ref.alive)
        assert isinstance(caught.value.__cause__, Boom)

    run(scenario)


def test_two_crashes_surface_as_a_group(place):
    async def scenario():
        with pytest.raises(ExceptionGroup) as caught:
            async with System() as system:
                for number in range(2):
                    ref = await system.start(child(place, Fragile))
                    ref.cast(number)
                    await until(lambda ref=ref: not ref.alive)
        assert [each.__cause__.args for each in caught.value.exceptions] == [(0,), (1,)]

    run(scenario)


def test_an_error_of_the_body_is_not_hidden_by_a_crash(place):
    async def scenario():
        with pytest.raises(ZeroDivisionError):
            async with System() as system:
                ref = await system.start(child(place, Fragile))
                ref.cast("why")
                await until(lambda: not ref.alive)
                raise ZeroDivisionError

    run(scenario)


def test_a_refused_start_does_not_hide_the_crash_of_another_stage(place):
    async def scenario():
        with pytest.raises(StageCrashed, match="fragile"):
            async with System() as system:
                ref = await system.start(child(place, Fragile, name="fragile"))
                ref.cast("why")
                await until(lambda: not ref.alive)
                with pytest.raises(Exception, match="no stage named"):
                    await system.start(child(place, Collect, subscribe_to=["nobody"]))

    run(scenario)


def test_a_chain_that_falls_with_its_producer_is_one_crash(place):
    """Permanent consumers end for the same reason: that is one error, not three."""

    async def scenario():
        with pytest.raises(StageCrashed) as caught:
            async with System() as system:
                ref = await system.start(child(place, Fragile))
                times = await system.start(child(place, Times, subscribe_to=[ref]))
                sink = await system.start(child(place, Collect, subscribe_to=[times]))
                ref.cast("why")
                await until(lambda: not sink.alive)
        assert isinstance(caught.value.__cause__, Boom)

    run(scenario)


@pytest.mark.parametrize("most", [1, 4, 100])
def test_a_consumer_that_crashes_hands_its_events_to_the_next_in_order(place, most):
    async def scenario():
        first, second = [], []
        async with System() as system:
            counter = await system.start(child(place, Counter, 100))
            to = To(counter, max_demand=most)
            weak = await system.start(child(place, Collect, first, None, (13,), subscribe_to=[to]))
            with pytest.raises(StageCrashed, match="poison 13"):
                await weak.wait()
            assert counter.alive
            await system.start(child(place, Collect, second, subscribe_to=[to]))
            await system.wait()
        assert first + second == list(range(100)), "none lost, none twice, in order"

    run(scenario)


async def asked_by(producer, consumer):
    numbers = await producer.statistics()
    return any(each.peer == consumer.name and each.asked for each in numbers.consumers)


def test_consumers_side_by_side_take_over_from_one_that_crashes(place):
    async def scenario():
        seen = [[], [], []]
        async with System() as system:
            counter = await system.start(child(place, Counter, 300, demand="accumulate"))
            weak = None
            for each in seen:
                poison = (0,) if weak is None else ()
                ref = await system.start(
                    child(place, Collect, each, None, poison, subscribe_to=[To(counter, max_demand=10)])
                )
                weak = weak or ref
                await until(lambda: asked_by(counter, ref))  # so the first of them gets the first event  # noqa: B023
            counter.set_demand("forward")
            with pytest.raises(StageCrashed):
                await weak.wait()
            await system.wait()
        assert sorted(event for each in seen for event in each) == list(range(300))

    run(scenario)


def test_a_middle_stage_that_crashes_loses_nothing(place):
    """An input is its producer's until all that it led to is handled, so some come twice and none is lost."""

    async def scenario():
        seen = []
        async with System() as system:
            counter = await system.start(child(place, Counter, 60))
            weak = await system.start(child(place, Breaking, 40, subscribe_to=[To(counter, max_demand=10)]))
            sink = await system.start(child(place, Collect, seen))
            await sink.subscribe(weak, cancel="temporary", max_demand=4)
            with pytest.raises(StageCrashed):
                await weak.wait()
            whole = await system.start(child(place, Times, 1, subscribe_to=[To(counter, max_demand=10)]))
            await sink.subscribe(whole, max_demand=4)
            await system.wait()
        assert set(seen) == set(range(60))
        firsts = sorted(set(seen), key=seen.index)
        assert firsts == list(range(60))

    run(scenario)


@pytest.mark.parametrize("where", ["__init__", "started"])
def test_a_crash_at_the_start_is_raised_there(place, where):
    async def scenario():
        async with System() as system:
            with pytest.raises(StageCrashed) as caught:
                await system.start(child(place, BadStart, where, name="bad"))
            assert isinstance(caught.value.__cause__, Boom)
            assert not system.stages()
            await system.start(child(place, Emitter, name="bad"))

    run(scenario)


def test_a_crash_at_the_end_is_reported_and_the_reason_stays(place):
    async def scenario():
        errors = []
        async with System(on_error=errors.append) as system:
            ref = await system.start(child(place, BadEnd))
            assert await ref.stop("shutdown") == "shutdown"
        assert [type(error.__cause__) for error in errors] == [Boom]

    run(scenario)
