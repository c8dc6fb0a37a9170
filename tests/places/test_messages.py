# mypy: disable-error-code="var-annotated"
"""Calls, casts and infos; events that come by themselves, from inside, outside and other threads."""

import asyncio
import threading

import pytest

from headgate import BufferOverflowError, HandlerError, NoStageError
from tests.places.helpers import NEAR, System, To, calm, child, run, shows, until
from tests.places.stages import Answering, Collect, Curious, Emitter, Feeding, Told


def test_what_a_call_returns_is_the_answer(place):
    async def scenario():
        async with System() as system:
            ref = await system.start(child(place, Answering))
            assert await ref.call(5) == ("answer", 5)
            assert await ref.call(None) == ("answer", None)
            assert await asyncio.gather(*(ref.call(number) for number in range(20))) == [
                ("answer", n) for n in range(20)
            ]

    run(scenario)


def test_an_early_answer_counts(place):
    async def scenario():
        async with System() as system:
            ref = await system.start(child(place, Answering))
            assert await ref.call("early") == "early answer"

    run(scenario)


def test_a_call_may_be_answered_later(place):
    async def scenario():
        async with System() as system:
            ref = await system.start(child(place, Answering))
            calls = [asyncio.ensure_future(ref.call("later")) for _ in range(2)]
            await calm(ref)
            assert await ref.call("meanwhile") == ("answer", "meanwhile")
            assert not any(call.done() for call in calls)
            ref.cast("now")
            assert await asyncio.gather(*calls) == [("now", 0), ("now", 1)]

    run(scenario)


def test_a_call_that_waits_for_its_answer_ends_with_the_stage(place):
    async def scenario():
        async with System() as system:
            ref = await system.start(child(place, Answering))
            call = asyncio.ensure_future(ref.call("later", timeout=None))
            await calm(ref)
            await ref.stop()
            with pytest.raises(NoStageError):
                await call

    run(scenario)


def test_a_call_that_is_not_answered_in_time(place):
    async def scenario():
        async with System() as system:
            ref = await system.start(child(place, Answering))
            with pytest.raises(TimeoutError):
                await ref.call("later", timeout=0.01)
            assert await ref.call("next") == ("answer", "next")

    run(scenario)


def test_events_of_a_call_are_out_before_the_answer(place):
    async def scenario():
        seen = []
        async with System() as system:
            ref = await system.start(child(place, Answering))
            await system.start(child(place, Collect, seen, subscribe_to=[ref]))
            await shows(ref, lambda read: read.consumers[0].asked)
            assert await ref.call("events") == "after the events"
            assert (await ref.statistics()).delivered == 3
            await until(lambda: seen == [1, 2, 3])

    run(scenario)


def test_casts_are_handled_in_order(place):
    async def scenario():
        seen = []
        async with System() as system:
            ref = await system.start(child(place, Emitter))
            await system.start(child(place, Collect, seen, subscribe_to=[ref]))
            for number in range(100):
                ref.cast([number])
            await until(lambda: len(seen) == 100)
        assert seen == list(range(100))

    run(scenario)


def test_an_info_comes_after_what_is_buffered(place):
    async def scenario():
        log, seen = [], []
        async with System() as system:
            ref = await system.start(child(place, Emitter, log))
            ref.info("at once")
            await until(lambda: ("info", "at once") in log)
            ref.cast([1, 2])
            ref.info("after 2")
            ref.cast([3])
            ref.info("after 3")
            await calm(ref)
            assert ("info", "after 2") not in log
            sink = await system.start(child(place, Collect, seen))
            subscription = await sink.subscribe(ref, mode="manual")
            sink.ask(subscription, 2)
            await until(lambda: ("info", "after 2") in log)
            assert ("info", "after 3") not in log
            sink.ask(subscription, 1)
            await until(lambda: ("info", "after 3") in log)

    run(scenario)


def test_an_info_of_a_middle_stage_waits_behind_its_input(place):
    async def scenario():
        log = []
        async with System() as system:
            source = await system.start(child(place, Emitter))
            middle = await system.start(child(place, Told, log, subscribe_to=[source]))
            source.cast([1])
            await shows(middle, lambda read: read.waiting == 1)
            middle.info("after 1")
            await calm(source, middle)
            assert log == []
            await system.start(child(place, Collect, subscribe_to=[middle]))
            await until(lambda: log == [[1], "after 1"])

    run(scenario)


@pytest.mark.parametrize("place", NEAR)  # outside is in another process there, where nobody has the stage itself
def test_events_may_come_from_outside(place):
    async def scenario():
        known, seen = [], []
        async with System() as system:
            source = await system.start(child(place, Feeding, known))
            await system.start(child(place, Collect, seen, subscribe_to=[To(source, max_demand=10)]))
            [stage] = known
            for number in range(50):
                stage.emit([number])
            await until(lambda: len(seen) == 50)
        assert seen == list(range(50))

    run(scenario)


@pytest.mark.parametrize("place", NEAR)
def test_events_may_come_from_other_threads(place):
    async def scenario():
        known, seen = [], []
        async with System() as system:
            source = await system.start(child(place, Feeding, known))
            await system.start(child(place, Collect, seen, subscribe_to=[To(source, max_demand=10)]))
            [stage] = known

            def feed(first):
                for number in range(first, first + 50):
                    stage.emit([number])

            threads = [threading.Thread(target=feed, args=(first,), daemon=True) for first in (0, 1000)]
            for thread in threads:
                thread.start()
            await until(lambda: len(seen) == 100)
            for thread in threads:
                thread.join()
        for first in (0, 1000):
            assert [each for each in seen if first <= each < first + 50] == list(range(first, first + 50))

    run(scenario)


@pytest.mark.parametrize("place", NEAR)
def test_a_surplus_is_raised_where_it_was_emitted(place):
    async def scenario():
        known = []
        async with System() as system:
            source = await system.start(child(place, Feeding, known, buffer_size=3))
            with pytest.raises(BufferOverflowError) as caught:
                known[0].emit([1, 2, 3, 4, 5])
            assert caught.value.refused == [4, 5]
            raised = []

            def feed():
                try:
                    known[0].emit([6])
                except BufferOverflowError as error:
                    raised.append(error)

            thread = threading.Thread(target=feed, daemon=True)
            thread.start()
            await until(lambda: raised)
            thread.join()
            assert source.alive
            with pytest.raises(HandlerError):
                known[0].emit("text")

    run(scenario)


def test_a_stage_can_look_at_itself(place):
    async def scenario():
        log = []
        async with System() as system:
            source = await system.start(child(place, Emitter))
            await system.start(
                child(place, Curious, log, name="curious", subscribe_to=[To(source, max_demand=2, min_demand=1)])
            )
            source.cast([1, 2])
            await until(lambda: len(log) == 6)
        assert log[0] == ("curious", "consumer", "curious", 1, 0, 0)
        assert log[1:3] == [1, "emit"]

    run(scenario)
