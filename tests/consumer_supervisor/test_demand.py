"""How many children there may be, and when more events are asked for (GS-166, GS-167, GS-168, GS-169, GS-175)."""

import pytest

from headgate import (
    Child,
    ConsumerSupervisor,
    NoStageError,
    PartitionDispatcher,
    SubscriptionError,
    System,
    To,
    from_iterable,
)
from tests.consumer_supervisor.helpers import Feed, Work, ended, run, until, waiting

WINDOWS = [(10, 0, 1), (10, 2, 2), (10, 5, 5), (10, 8, 8), (10, 9, 9), (1, 0, 1), (3, 2, 2), (3, 1, 1), (2, 1, 1)]
"""max_demand, min_demand, and after how many ends more is asked for."""


@pytest.mark.parametrize(("most", "least", "step"), WINDOWS)
def test_freed_slots_are_asked_for_again_in_groups_of_min_demand(kind, most, least, step):
    async def scenario():
        work = Work(kind, held=True)
        async with System() as system:
            demands: list[int] = []
            source = await system.start(Child(Feed, demands))
            to = [To(source, max_demand=most, min_demand=least)]
            ref = await system.start(work.recipe(subscribe_to=to))
            assert demands == [most]
            source.cast(range(most * 3))
            given = 0
            for rounds in range(1, 3):
                for nth in range(1, step + 1):
                    work.release(given)
                    given += 1
                    await until(lambda given=given: len(work.done) == given)
                    expected = most + step * (rounds if nth == step else rounds - 1)
                    await until(lambda expected=expected: len(work.began) == min(expected, most * 3))
                    assert len(ref.children()) <= most
            assert work.most <= most
            work.release_all()
            await until(lambda: len(work.done) == most * 3)

    run(scenario)


def test_ends_at_the_same_time_are_asked_for_at_one_go():
    async def scenario():
        seen = []

        async def child(event):
            seen.append(event)

        async with System() as system:
            demands: list[int] = []
            source = await system.start(Child(Feed, demands))
            await system.start(ConsumerSupervisor(child, subscribe_to=[To(source, max_demand=10, min_demand=0)]))
            source.cast(range(10))
            await until(lambda: len(seen) == 10)
            assert demands == [10, 10]

    run(scenario)


def test_no_more_is_asked_for_when_fewer_events_come_than_were_asked_for(kind):
    async def scenario():
        work = Work(kind, held=True)
        async with System() as system:
            demands: list[int] = []
            source = await system.start(Child(Feed, demands))
            await system.start(work.recipe(subscribe_to=[To(source, max_demand=3, min_demand=0)]))
            source.cast([0])
            await until(lambda: work.running == [0])
            source.cast([1])
            await until(lambda: work.running == [0, 1])
            assert demands == [3]
            work.release(0)
            await until(lambda: demands == [3, 1])
            work.release_all()

    run(scenario)


def test_each_of_several_producers_has_its_own_bound(kind):
    async def scenario():
        work = Work(kind, held=True)
        async with System() as system:
            one = await system.start(Child(Feed))
            two = await system.start(Child(Feed))
            to = [To(one, max_demand=2, min_demand=0), To(two, max_demand=3, min_demand=0)]
            await system.start(work.recipe(subscribe_to=to))
            one.cast(range(10))
            two.cast(range(100, 110))
            await until(lambda: work.running == [0, 1, 100, 101, 102])
            work.release(100)
            await until(lambda: work.running == [0, 1, 101, 102, 103])
            work.release(1)
            await until(lambda: work.running == [0, 2, 101, 102, 103])
            work.release_all()
            await until(lambda: len(work.done) == 20)
            assert work.most <= 5
            await until(lambda: waiting(one) == waiting(two) == 0)

    run(scenario)


def test_children_by_hand_count_for_no_demand(kind):
    async def scenario():
        work = Work(kind, held=True)
        async with System() as system:
            demands: list[int] = []
            source = await system.start(Child(Feed, demands))
            ref = await system.start(work.recipe(subscribe_to=[To(source, max_demand=1, min_demand=0)]))
            source.cast([0, 1])
            await until(lambda: work.running == [0])
            ids = [await ref.start_child(event) for event in (10, 11, 12)]
            assert len(set(ids)) == 3
            await until(lambda: work.running == [0, 10, 11, 12])
            assert ref.count() == (1, 4, 0, 4)
            assert [each.id for each in ref.children()][1:] == ids
            work.release(10)
            work.release(11)
            await until(lambda: ref.count() == (1, 2, 0, 2))
            assert demands == [1]
            work.release(0)
            await until(lambda: 1 in work.running)
            work.release_all()

    run(scenario)


def test_a_child_by_hand_is_restarted_and_given_up_as_any(kind):
    async def scenario():
        work = Work(kind, fails={7: [ValueError(str(n)) for n in range(9)], 8: [ValueError("once")]})
        async with System() as system:
            ref = await system.start(work.recipe(restart="transient", retries=2))
            await ref.start_child(7)
            await ref.start_child(8)
            await until(lambda: work.done == [8] and len(system.letters) == 1)
            assert (system.letters[0].event, system.letters[0].deliveries) == (7, 3)
            await until(lambda: ref.count() == (1, 0, 0, 0))  # when its letter is kept

    run(scenario)


def test_stopping_a_child_frees_its_slot_and_its_event_is_done_with(kind):
    async def scenario():
        work = Work(kind, held=True)
        async with System() as system:
            source = await system.start(Child(Feed))
            recipe = work.recipe(shutdown=5 if kind == "task" else 0.01, subscribe_to=[To(source, max_demand=1)])
            ref = await system.start(recipe)
            source.cast([0, 1])
            await until(lambda: work.running == [0])
            (child,) = ref.children()
            await ref.stop_child(child.id)
            await until(lambda: 1 in work.began)
            assert waiting(source) == 1
            for unknown in (child.id, "99", "x", "", "-1"):
                with pytest.raises(NoStageError):
                    await ref.stop_child(unknown)
            work.release_all()
            await until(lambda: waiting(source) == 0)
            assert system.letters == []

    run(scenario)


@pytest.mark.parametrize("wrong", [1, None, 1.0, b"1"])
def test_an_id_that_is_no_string_is_the_id_of_no_child(wrong):
    async def scenario():
        async with System() as system:
            ref = await system.start(Work("task").recipe())
            with pytest.raises(NoStageError):
                await ref.stop_child(wrong)

    run(scenario)


@pytest.mark.parametrize("mode", ["permanent", "transient", "temporary"])
@pytest.mark.parametrize("how", ["finish", "stop", "crash", "kill"])
def test_a_producer_that_ends_is_followed_as_the_cancel_mode_says(kind, mode, how):
    """The children of what it gave run on, as long as the supervisor does."""

    async def scenario():
        work = Work(kind, held=True)
        async with System() as system:
            source = await system.start(Child(Feed))
            ref = await system.start(work.recipe(shutdown=0.05, subscribe_to=[To(source, max_demand=2, cancel=mode)]))
            source.cast([0, 1])
            await until(lambda: work.running == [0, 1])
            if how == "finish":
                source.cast(None)
            elif how == "stop":
                await source.stop()
            elif how == "crash":
                source.cast(ValueError("oops"))
            else:
                source.kill()
            abnormal = how in ("crash", "kill")
            follows = mode == "permanent" or (mode == "transient" and abnormal)
            if follows and abnormal:  # it ends at once, with its children
                assert await ended(ref) not in ("normal", "shutdown")
            else:
                work.release(0)
                await until(lambda: work.done == [0])
                assert ref.alive
                work.release(1)
                await until(lambda: work.done == [0, 1])
                if follows:
                    assert await ref.wait() == "normal"
                else:
                    await until(lambda: ref.count() == (1, 0, 0, 0))
                    assert ref.alive
            work.release_all()
            await ended(source)
            await until(lambda: not work.running)
            if ref.alive:
                await ref.stop()

    run(scenario)


def test_a_subscription_that_is_cancelled_lets_its_children_go_on_and_asks_for_nothing(kind):
    async def scenario():
        work = Work(kind, held=True)
        async with System() as system:
            demands: list[int] = []
            source = await system.start(Child(Feed, demands))
            ref = await system.start(work.recipe())
            subscription = await ref.subscribe(To(source, max_demand=3, min_demand=0))
            source.cast(range(5))
            await until(lambda: work.running == [0, 1, 2])
            ref.cancel(subscription)
            work.release(1)
            await until(lambda: work.done == [1])
            await until(lambda: waiting(source) == 4)
            assert demands == [3]
            await ref.subscribe(To(source, max_demand=2, min_demand=0))
            await until(lambda: work.running == [0, 2, 3, 4])
            work.release_all()
            await until(lambda: waiting(source) == 0)
            assert sorted(work.done) == [0, 1, 2, 3, 4]
            assert len(work.began) == 5

    run(scenario)


def test_in_manual_mode_only_what_is_asked_by_hand_comes(kind):
    async def scenario():
        work = Work(kind)
        async with System() as system:
            demands: list[int] = []
            source = await system.start(Child(Feed, demands))
            ref = await system.start(work.recipe())
            subscription = await ref.subscribe(To(source, mode="manual"))
            source.cast(range(10))
            await until(lambda: waiting(source) == 10)
            assert (demands, work.began) == ([], [])
            ref.ask(subscription, 3)
            await until(lambda: sorted(work.done) == [0, 1, 2])
            await until(lambda: waiting(source) == 7)
            assert len(work.began) == 3

    run(scenario)


def test_paused_it_begins_no_children_and_those_that_run_go_on(kind):
    async def scenario():
        work = Work(kind, held=True)
        async with System() as system:
            source = await system.start(Child(Feed))
            ref = await system.start(work.recipe(subscribe_to=[To(source, max_demand=2, min_demand=0)]))
            source.cast([0])
            await until(lambda: work.running == [0])
            ref.pause()
            source.cast([1, 2])
            work.release(0)
            await until(lambda: work.done == [0])
            await until(lambda: waiting(source) == 2)
            assert work.began == [0]
            ref.resume()
            await until(lambda: work.running == [1, 2])
            work.release_all()

    run(scenario)


def test_a_missing_producer_ends_it_unless_the_subscription_is_temporary(kind):
    async def scenario():
        work = Work(kind)
        async with System(on_error=lambda error: None) as system:
            ref = await system.start(work.recipe(subscribe_to=[To("nobody", cancel="temporary")]))
            assert ref.alive
            with pytest.raises(Exception, match="nobody"):
                await system.start(work.recipe(subscribe_to=["nobody"]))

    run(scenario)


def test_a_stream_of_a_hundred_children_at_a_time_loses_nothing(kind):
    async def scenario():
        work = Work(kind)
        async with System() as system:
            source = await system.start(from_iterable(range(1000)))
            ref = await system.start(work.recipe(subscribe_to=[To(source, max_demand=50)]))
            await ref.wait()
        assert sorted(work.done) == list(range(1000))
        assert work.most <= 50

    run(scenario)


def test_a_refused_subscription_leaves_nothing_behind(kind):
    async def scenario():
        work = Work(kind)
        async with System() as system:
            source = await system.start(Child(Feed, dispatcher=PartitionDispatcher(2)))
            ref = await system.start(work.recipe())
            for _ in range(3):
                with pytest.raises(SubscriptionError):
                    await ref.subscribe(source, partition=7)
            await ref.subscribe(source, partition=0, cancel="temporary")
            await source.stop()
            await until(lambda: not ref.driver.core.into.windows)
            assert not ref.driver.instance._freed

    run(scenario)
