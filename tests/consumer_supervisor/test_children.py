"""One child for each event, at all three kinds: how they begin and end, and what becomes of their events."""

import asyncio
from typing import Any

import pytest

from headgate import Child, Ignore, NoStageError, RestartLimitError, StageCrashed, Stop, System, To, from_iterable
from tests.consumer_supervisor.helpers import QUICK, Feed, Work, ended, run, until, waiting


def test_every_event_gets_a_child_and_a_finite_stream_waits_for_the_last(kind):
    async def scenario():
        work = Work(kind, held=True)
        async with System() as system:
            source = await system.start(from_iterable(range(10)))
            ref = await system.start(work.recipe(subscribe_to=[To(source, max_demand=4, min_demand=0)]))
            for event in range(10):
                await until(lambda event=event: event in work.running)
                assert ref.alive
                work.release(event)
            assert await ref.wait() == "normal"
            assert await source.wait() == "normal"
        assert sorted(work.done) == list(range(10))
        assert work.most <= 4

    run(scenario)


def test_children_that_end_out_of_order_are_acknowledged_one_by_one(kind):
    async def scenario():
        work = Work(kind, held=True)
        async with System() as system:
            source = await system.start(Child(Feed))
            ref = await system.start(work.recipe(subscribe_to=[To(source, max_demand=6, min_demand=0)]))
            source.cast(range(6))
            await until(lambda: len(work.running) == 6)
            for left, event in zip(range(5, -1, -1), [3, 5, 1, 4, 2, 0], strict=True):
                work.release(event)
                await until(lambda left=left: waiting(source) == left)
            assert ref.count() == (1, 0, 0, 0)
            assert ref.children() == []

    run(scenario)


def test_a_temporary_child_that_fails_is_a_dead_letter_with_its_traceback_and_the_others_go_on(kind):
    async def scenario():
        work = Work(kind, fails={2: [ValueError("two is bad")]})
        async with System() as system:
            source = await system.start(from_iterable(range(5)))
            ref = await system.start(work.recipe(name="work", subscribe_to=[To(source, max_demand=2)]))
            await ref.wait()
            (letter,) = system.letters
        assert sorted(work.done) == [0, 1, 3, 4]
        assert (letter.event, letter.stage, letter.deliveries) == (2, "work", 1)
        assert "two is bad" in letter.traceback
        assert "in _end" in letter.traceback
        assert isinstance(letter.error, ValueError)

    run(scenario)


def test_a_transient_child_that_fails_is_tried_again_with_its_event_within_its_budget(kind):
    async def scenario():
        fails = {1: [ValueError("a"), ValueError("b")], 2: [ValueError(str(n)) for n in range(9)]}
        work = Work(kind, fails=fails)
        async with System() as system:
            source = await system.start(from_iterable(range(4)))
            to = [To(source, max_demand=2)]
            ref = await system.start(work.recipe(restart="transient", retries=2, subscribe_to=to))
            await ref.wait()
            (letter,) = system.letters
        assert sorted(work.done) == [0, 1, 3]
        assert [work.began.count(event) for event in range(4)] == [1, 3, 3, 1]
        assert (letter.event, letter.deliveries) == (2, 3)
        assert str(letter.error) == "2"

    run(scenario)


@pytest.mark.parametrize("restart", ["temporary", "transient"])
@pytest.mark.parametrize("signal", [Stop(), Stop("shutdown"), Stop(("shutdown", "x")), Ignore()])
def test_a_child_that_ends_as_it_should_is_done(kind, restart, signal):
    if kind == "stage" and isinstance(signal, Ignore):
        pytest.skip("a stage says so in started")

    async def scenario():
        work = Work(kind, fails={1: [signal]})
        async with System() as system:
            source = await system.start(from_iterable(range(3)))
            ref = await system.start(work.recipe(restart=restart, subscribe_to=[To(source, max_demand=1)]))
            await ref.wait()
            assert system.letters == []
        assert work.began == [0, 1, 2]

    run(scenario)


def test_a_child_that_stops_abnormally_has_failed(kind):
    async def scenario():
        work = Work(kind, fails={0: [Stop("oops")]})
        async with System() as system:
            source = await system.start(from_iterable(range(1)))
            ref = await system.start(work.recipe(subscribe_to=[source]))
            await ref.wait()
            assert "oops" in str(system.letters[0].reason)

    run(scenario)


def test_a_child_that_waits_to_be_started_again_keeps_its_slot(kind):
    async def scenario():
        work = Work(kind, fails={0: [ValueError("once"), ValueError("twice")]})
        backoff = QUICK.__class__(first=60, jitter=0)  # the first restart comes at once, the second does not come
        async with System() as system:
            source = await system.start(Child(Feed))
            to = [To(source, max_demand=1)]
            ref = await system.start(work.recipe(restart="transient", backoff=backoff, subscribe_to=to))
            source.cast([0, 1])
            await until(lambda: [(each.state, each.restarts) for each in ref.children()] == [("waiting", 2)])
            (child,) = ref.children()
            assert ref.count() == (1, 0, 0, 1)
            assert work.began == [0, 0]
            await ref.stop_child(child.id)
            await until(lambda: 1 in work.done)
            with pytest.raises(NoStageError):
                await ref.stop_child(child.id)
            await until(lambda: waiting(source) == 0)
            assert system.letters == []

    run(scenario)


def test_a_poison_event_does_not_end_the_supervisor_unless_a_limit_is_given(kind):
    async def scenario(limit):
        fails = {event: [ValueError("poison")] * 9 for event in range(20)}
        work = Work(kind, fails=fails)
        async with System() as system:
            source = await system.start(from_iterable(range(20)))
            to = [To(source, max_demand=5, cancel="temporary")]
            recipe = work.recipe(restart="transient", retries=3, max_restarts=limit, max_seconds=60, subscribe_to=to)
            ref = await system.start(recipe)
            if limit is None:
                await until(lambda: len(system.letters) == 20)
                assert len(work.began) == 80
                assert ref.alive
                return
            with pytest.raises(StageCrashed) as caught:
                await ref.wait()
            assert isinstance(caught.value.__cause__, RestartLimitError)
            assert caught.value.__cause__.max_restarts == limit
            began = len(work.began)
            await until(lambda: not work.running)
            assert len(work.began) == began <= 5 * 2 + limit
            statistics = source.statistics()
            assert statistics.buffered == statistics.emitted > 0  # every event is back: none was done

    run(lambda: scenario(None))
    run(lambda: scenario(4))


def test_an_event_is_done_with_only_when_its_dead_letter_is_kept(kind):
    async def scenario():
        work = Work(kind, fails={0: [ValueError("bad")]})
        gate, letters = asyncio.Event(), []

        async def hook(letter):
            await gate.wait()
            letters.append(letter.event)

        async with System() as system:
            source = await system.start(Child(Feed))
            ref = await system.start(work.recipe(dead_letter=hook, subscribe_to=[To(source, max_demand=1)]))
            source.cast([0, 1])
            await until(lambda: system.letters)
            await asyncio.sleep(0)
            assert waiting(source) == 2
            assert len(ref.children()) == 1
            assert work.began == [0]
            gate.set()
            await until(lambda: 1 in work.done and waiting(source) == 0)
            assert letters == [0]

    run(scenario)


def test_a_dead_letter_hook_that_fails_is_reported_and_the_event_is_done_with(kind):
    async def scenario():
        work = Work(kind, fails={0: [ValueError("bad")]})
        errors: list[Any] = []

        def hook(letter):
            raise RuntimeError("no room")

        async with System(on_error=errors.append) as system:
            source = await system.start(from_iterable(range(2)))
            ref = await system.start(work.recipe(dead_letter=hook, subscribe_to=[To(source, max_demand=1)]))
            await ref.wait()
        assert work.done == [1]
        assert [str(each.__cause__) for each in errors] == ["no room"]

    run(scenario)


def test_a_stop_waits_for_the_dead_letter_that_is_being_kept(kind):
    async def scenario():
        work = Work(kind, fails={0: [ValueError("bad")]}, held=True)
        gate, kept = asyncio.Event(), []

        async def hook(letter):
            await gate.wait()
            kept.append(letter.event)

        async with System() as system:
            source = await system.start(Child(Feed))
            to = [To(source, max_demand=2, min_demand=0, cancel="temporary")]
            ref = await system.start(work.recipe(dead_letter=hook, subscribe_to=to))
            source.cast([0])
            await until(lambda: work.running == [0])
            work.release(0)
            await until(lambda: system.letters)
            stopping = asyncio.ensure_future(ref.stop())
            await asyncio.sleep(0)
            gate.set()
            await stopping
            assert kept == [0]
            assert waiting(source) == 0

    run(scenario)


def test_a_child_stopped_while_its_dead_letter_is_kept_does_not_hit_another(kind):
    async def scenario():
        work = Work(kind, fails={0: [ValueError("bad")]}, held=True)
        gate = asyncio.Event()

        async def hook(letter):
            await gate.wait()

        async with System() as system:
            source = await system.start(Child(Feed))
            to = [To(source, max_demand=2, min_demand=0)]
            ref = await system.start(work.recipe(dead_letter=hook, subscribe_to=to))
            source.cast([0])
            await until(lambda: work.running == [0])
            work.release(0)
            await until(lambda: system.letters)
            source.cast([1])
            await until(lambda: work.running == [1])
            given_up, other = ref.children()
            assert (given_up.state, other.state) == ("given up", "running")
            assert ref.count() == (1, 1, 0, 2)
            stopping = asyncio.ensure_future(ref.stop_child(given_up.id))
            await asyncio.sleep(0)
            gate.set()
            await stopping
            assert work.running == [1]
            work.release(1)
            await until(lambda: work.done == [1])

    run(scenario)


def test_a_killed_supervisor_starts_nobody(kind):
    async def scenario():
        work = Work(kind)
        async with System() as system:
            ref = await system.start(work.recipe(name="work"))
            assert ref.name == "work"
            assert system.ref("work") == ref
            ref.kill("oops")
            assert await ended(ref) == "oops"
            with pytest.raises(NoStageError):
                await ref.start_child(1)

    run(scenario)
