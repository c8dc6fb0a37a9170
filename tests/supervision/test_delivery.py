# mypy: disable-error-code="union-attr,var-annotated,arg-type,misc"
"""Nothing is lost under a supervisor: poison becomes a dead letter, crashes come back, drains end in order."""

import asyncio
import functools
import random

import pytest

from headgate import Drained, HookError, NoStageError, RestartLimitError, StageCrashed
from tests.supervision.helpers import (
    Boom,
    Child,
    Flaky,
    Idle,
    Numbers,
    Same,
    Sink,
    Slow,
    Supervisor,
    System,
    To,
    at,
    now,
    run,
    states,
    until,
)

PLACES = ["inline", "task", "thread"]
MANY = 10_000


def app(seen, crash, place="inline", *, count=1, middle=False, **options):
    """Return a source of 10,000 numbers, perhaps a stage in the middle, and sinks that crash as they are told."""
    top = options.pop("top", {})
    source = "same" if middle else "source"
    children = [Child(Numbers, MANY, name="source", **options)]
    if middle:
        children.append(Child(at(place, Same), name="same", subscribe_to=["source"], place=place))
    children.append(Child(at(place, Sink), seen, crash, name="sink", count=count, subscribe_to=[source], place=place))
    return Supervisor(children, **top)


def plain_call(function, letter):
    """Call a coroutine function from a plain one."""
    return function(letter)


# -- poison -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("middle", [False, True], ids=["from the source", "through a middle stage"])
@pytest.mark.parametrize("bad", [0, 499, 777, 5000, 9999])
def test_one_poison_event_among_ten_thousand_is_the_only_one_not_done(place, middle, bad):
    seen = []

    async def scenario():
        async with app(seen, lambda event: event == bad, place, middle=middle) as top:
            assert await top.wait() == "normal"
            assert set(states(top).values()) == {"done"}
            (letter,) = top.system.letters
        assert letter.event == bad
        assert letter.consumer.startswith("sink")
        assert letter.stage == ("same" if middle else "source")
        assert isinstance(letter.reason, StageCrashed)
        assert isinstance(letter.error, Boom)
        assert "raise Boom(event)" in letter.traceback
        assert f"Boom: {bad}" in letter.traceback
        assert letter.deliveries >= 3
        assert sorted(seen) == [event for event in range(MANY) if event != bad]
        assert now() < 5  # its neighbours do not wait for long

    run(scenario)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_some_poison_events_in_several_batches_do_not_end_the_supervisor(count):
    for seed in range(5):
        seen = []
        bad = set(random.Random(seed).sample(range(MANY), 5))

        async def scenario(seen=seen, bad=bad):
            async with app(seen, lambda event: event in bad, "task", count=count) as top:
                await top.wait()
                assert {letter.event for letter in top.system.letters} == bad
                assert len(top.system.letters) == len(bad)
            assert set(seen) == set(range(MANY)) - bad

        run(scenario, seed=seed)


def test_a_handler_that_always_fails_ends_the_supervisor_and_soon():
    async def scenario():
        async with app([], lambda event: True) as top:
            with pytest.raises(RestartLimitError, match="'sink'") as caught:
                await top.wait()
            assert now() < 10
            assert len(top.system.letters) < 10
            assert isinstance(caught.value.__cause__.__cause__, Boom)

    run(scenario)


@pytest.mark.parametrize("kind", ["plain", "async", "raises", "async raises", "returns an awaitable"])
def test_the_dead_letter_hook_gets_the_event_before_the_app_ends(kind, caplog):
    letters, seen = [], []

    def plain(letter):
        letters.append(letter.event)
        if kind == "raises":
            raise Boom("the hook")

    async def slow(letter):
        await asyncio.sleep(3)
        letters.append(letter.event)
        if kind == "async raises":
            raise Boom("the hook")

    hook = {"plain": plain, "raises": plain, "returns an awaitable": functools.partial(plain_call, slow)}.get(
        kind, slow
    )

    async def scenario():
        async with app(seen, lambda event: event == 4321, top={"dead_letter": hook}) as top:
            await top.wait()
            assert letters == [4321]
            assert [letter.event for letter in top.system.letters] == [4321]
        assert len(seen) == MANY - 1

    run(scenario)
    errors = [record for record in caplog.records if "the hook" in record.getMessage()]
    assert bool(errors) == ("raises" in kind)


def test_a_hook_that_raises_is_reported_with_its_error():
    errors = []

    def hook(letter):
        raise Boom("no room")

    async def scenario():
        async with System(on_error=errors.append, on_dead_letter=hook) as system:
            await system.start(app([], lambda event: event == 1))
            await system.wait()

    run(scenario)
    (error,) = errors
    assert isinstance(error, HookError)
    assert isinstance(error.__cause__, Boom)
    assert error.hook == "dead_letter"


def test_no_bound_of_deliveries_makes_no_dead_letters():
    async def scenario():
        async with app([], lambda event: event == 0, max_deliveries=None) as top:
            with pytest.raises(RestartLimitError):
                await top.wait()
            assert not top.system.letters

    run(scenario)


def test_a_first_failure_is_enough_when_only_one_delivery_is_allowed():
    seen = []

    async def scenario():
        async with app(seen, lambda event: event == 7000, max_deliveries=1) as top:
            await top.wait()
            assert [letter.event for letter in top.system.letters] == [7000]
        assert len(set(seen)) == MANY - 1

    run(scenario)


# -- crashes that are no fault of the event ---------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("count", [1, 3])
def test_a_consumer_that_crashes_now_and_then_loses_nothing_and_nobody_is_blamed(place, count):
    for seed in range(4):
        seen = []
        chance = random.Random(seed)

        async def scenario(seen=seen, chance=chance):
            async with app(seen, lambda event: chance.random() < 0.001, place, count=count) as top:
                assert await top.wait() == "normal"
                assert not top.system.letters
                assert sum(each.restarts for each in top.children()) > 3
            assert set(seen) == set(range(MANY))

        run(scenario, seed=seed)


def test_crashes_of_a_middle_stage_lose_nothing_either():
    seen = []
    chance = random.Random(1)

    class Shaky(Same):
        def handle_events(self, events, source):
            if chance.random() < 0.2:
                raise Boom
            return list(events)

    async def scenario():
        children = [
            Child(Numbers, MANY, name="source"),
            Child(Shaky, name="same", subscribe_to=["source"]),
            Child(Sink, seen, name="sink", subscribe_to=[To("same", max_demand=100)]),
        ]
        async with Supervisor(children) as top:
            assert await top.wait() == "normal"
        assert set(seen) == set(range(MANY))

    run(scenario)


@pytest.mark.parametrize("strategy", ["one_for_one", "rest_for_one"])
def test_a_killed_consumer_loses_nothing(strategy):
    seen = []

    async def scenario():
        children = [
            Child(Numbers, 2000, name="source"),
            Child(Slow, seen, 0.01, name="sink", subscribe_to=[To("source", max_demand=40)]),
        ]
        async with Supervisor(children, strategy=strategy) as top:
            for goal in (100, 500, 900):
                await until(lambda goal=goal: len(seen) > goal)
                ref = top.child("sink")
                ref.kill()
                await ref.driver.done
                await until(lambda: states(top)["sink"] == "running")
            assert await top.wait() == "normal"
        assert sorted(seen) == list(range(2000))  # a batch that was killed in its handler had done nothing yet

    run(scenario)


def test_at_most_once_loses_what_the_consumer_had_and_counts_it():
    seen = []
    crashed = []

    def crash(event):
        if event in (1200, 5300) and event not in crashed:
            crashed.append(event)
            return True
        return False

    async def scenario():
        async with app(seen, crash, delivery="at_most_once") as top:
            source = top.system.ref("source")
            await top.wait()
            assert not top.system.letters
            lost = source.statistics().discarded["consumer left"]
        assert len(seen) == len(set(seen)) == MANY - lost
        assert 0 < lost <= 2000
        assert crashed == [1200, 5300]
        assert not {1200, 5300} & set(seen)

    run(scenario)


# -- pause, resume, drain ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("who", [(), ("source",), ("sink",), ("same", "sink")], ids=str)
def test_a_pause_holds_and_a_resume_goes_on_without_loss(place, who):
    seen = []

    async def scenario():
        children = [
            Child(at(place, Numbers), 3000, name="source", place=place),
            Child(at(place, Same), name="same", subscribe_to=[To("source", max_demand=40)], place=place),
            Child(Slow, seen, 0.002, name="sink", subscribe_to=[To("same", max_demand=20)]),
        ]
        async with Supervisor(children) as top:
            for goal in (50, 500, 1500):
                await until(lambda goal=goal: len(seen) > goal)
                top.system.pause(*who)
                await asyncio.sleep(5)  # what was under way is finished
                before = len(seen)
                await asyncio.sleep(50)
                assert len(seen) == before
                if who == ("source",):
                    assert top.system.ref("source").statistics().in_flight == 0
                top.system.resume(*who)
            assert await top.wait() == "normal"
        assert seen == list(range(3000))

    run(scenario)


def test_pausing_who_is_not_there_is_an_error():
    async def scenario():
        async with Supervisor([Child(Idle, name="a")]) as top:
            for ask in (top.system.pause, top.system.resume):
                with pytest.raises(NoStageError, match="'zz'"):
                    ask("zz")

    run(scenario)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
@pytest.mark.parametrize("auto", [True, False])
def test_a_drain_finishes_what_was_begun_and_starts_nobody_again(place, strategy, auto):
    seen, middle = [], []

    class Note(Same):
        def handle_events(self, events, source):
            middle.extend(events)
            return list(events)

    async def scenario():
        children = [
            Child(Numbers, name="source"),
            Child(at(place, Note), name="same", count=2, subscribe_to=[To("source", max_demand=40)], place=place),
            Supervisor([Child(Slow, seen, 0.002, name="sink", subscribe_to=[To("same", max_demand=20)])], id="nested"),
        ]
        async with Supervisor(children, strategy=strategy, auto_shutdown=auto) as top:
            await until(lambda: len(seen) > 500)
            drained = await top.system.drain(timeout=20)
            assert isinstance(drained, Drained)
            assert drained.complete
            assert not drained.unfinished
            assert drained.handled == len(seen)
            assert sorted(seen) == sorted(middle)
            assert sum(each.restarts for each in top.children()) == 0
            assert await top.wait() == "normal"
            assert not top.system.stages()

    for seed in range(3):
        seen.clear()
        middle.clear()
        run(scenario, seed=seed)


def test_a_drain_in_the_midst_of_restarts_starts_nobody_again():
    seen = []

    async def scenario():
        children = [
            Child(Flaky, [None, 1.0], name="slow"),
            Child(Numbers, name="source"),
            Child(Slow, seen, name="sink", subscribe_to=[To("source", max_demand=10)]),
        ]
        async with Supervisor(children, strategy="one_for_all") as top:
            await until(lambda: len(seen) > 20)
            top.child("slow").cast(Boom())
            await until(lambda: states(top)["slow"] == "starting")
            begin = now()
            drained = await top.system.drain(timeout=20)
            assert drained.complete
            assert now() - begin < 1
            assert await top.wait() == "normal"

    run(scenario)


def test_a_drain_in_the_midst_of_a_back_off_does_not_wait_for_it():
    seen = []

    async def scenario():
        children = [
            Child(Numbers, name="source"),
            Child(Slow, seen, name="sink", subscribe_to=[To("source", max_demand=10)]),
            Child(Flaky, [None, Boom(), Boom()], name="bad"),
        ]
        async with Supervisor(children) as top:
            await until(lambda: len(seen) > 20)
            top.child("bad").cast(Boom())
            await until(lambda: states(top)["bad"] == "waiting")
            assert (await top.system.drain()).complete
            assert await top.wait() == "normal"
            with pytest.raises(NoStageError):
                await top.restart_child("bad")

    run(scenario)


def test_a_drain_kills_who_is_not_ready_in_time_and_names_it():
    async def scenario():
        children = [
            Child(Numbers, name="source"),
            Child(Slow, [], 1000, name="sink", subscribe_to=[To("source", max_demand=10)]),
        ]
        async with Supervisor(children) as top:
            await asyncio.sleep(1)
            begin = now()
            drained = await top.system.drain(timeout=4)
            assert 4 <= now() - begin < 5
            assert not drained.complete
            assert "sink" in drained.unfinished
            assert drained.handled == 0
            assert await top.wait() == "normal"

    run(scenario)


def test_one_stage_may_be_drained_and_comes_back_if_its_kind_says_so():
    async def scenario():
        seen = []
        children = [
            Child(Numbers, 3000, name="source"),
            Child(Slow, seen, 0.002, name="a", restart="transient", subscribe_to=[To("source", max_demand=10)]),
            Child(Slow, seen, 0.002, name="b", subscribe_to=[To("source", max_demand=10)]),
        ]
        async with Supervisor(children) as top:
            await until(lambda: len(seen) > 100)
            assert await top.child("a").drain() == "shutdown"
            await until(lambda: states(top)["a"] == "done")
            assert await top.wait() == "normal"
        assert sorted(seen) == list(range(3000))

    run(scenario)
