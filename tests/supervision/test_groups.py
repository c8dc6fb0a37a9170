# mypy: disable-error-code="union-attr,var-annotated,arg-type,misc"
"""Groups: several stages from one recipe, subscribed to under one name, and resized while they work."""

import asyncio

import pytest

from headgate import BroadcastDispatcher, Consumer, NoStageError, OptionError, PartitionDispatcher, StageCrashed
from tests.supervision.helpers import (
    Boom,
    Child,
    Idle,
    Numbers,
    Same,
    Sink,
    Slow,
    Stubborn,
    Supervisor,
    To,
    Unborn,
    at,
    now,
    run,
    states,
    until,
)

PLACES = ["inline", "task", "thread"]


def names(refs):
    return [ref.name for ref in refs]


@pytest.mark.parametrize("place", PLACES)
def test_a_group_is_started_from_one_recipe_and_shares_the_work(place):
    seen = [[], [], []]
    lives = []

    class Share(Sink):
        def started(self):
            self.seen = seen[int(self.stage.name[-1]) - 1]

    async def scenario():
        sinks = Child(
            at(place, Share),
            [],
            None,
            lives,
            name="sink",
            count=3,
            subscribe_to=[To("source", max_demand=100)],
            place=place,
        )
        async with Supervisor([Child(Numbers, 3000, name="source"), sinks]) as top:
            assert list(states(top)) == ["source", "sink-1", "sink-2", "sink-3"]
            assert top.count().workers == 4
            await top.wait()
        assert len(lives) == 3
        assert sorted(seen[0] + seen[1] + seen[2]) == list(range(3000))
        assert all(seen)

    run(scenario)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_a_group_in_the_middle_is_followed_by_its_name_and_ends_with_its_stream(place, strategy):
    seen = []

    async def scenario():
        app = Supervisor(
            [
                Child(Numbers, 5000, name="source"),
                Child(at(place, Same), name="same", count=4, subscribe_to=[To("source", max_demand=50)], place=place),
                Child(Sink, seen, name="sink", count=2, subscribe_to=[To("same", max_demand=20)]),
            ],
            strategy=strategy,
        )
        async with app as top:
            assert len(top.system.ref("sink-1").statistics().producers) == 4
            assert await top.wait() == "normal"
            assert set(states(top).values()) == {"done"}
        assert sorted(seen) == list(range(5000))

    run(scenario)


def test_a_member_that_crashes_is_replaced_and_followed_again():
    seen = []

    async def scenario():
        app = Supervisor(
            [
                Child(Numbers, 5000, name="source"),
                Child(Same, name="same", count=3, subscribe_to=[To("source", max_demand=50)]),
                Child(Slow, seen, 0.001, name="sink", subscribe_to=[To("same", max_demand=20)]),
            ],
            max_restarts=10,
        )
        async with app as top:
            sink = top.child("sink")
            for n in (1, 2, 3, 1):
                before = len(seen)
                await until(lambda b=before: len(seen) > b + 100)
                ref = top.child(f"same-{n}")
                ref.cast(Boom())
                await ref.driver.done
                await until(lambda n=n: states(top)[f"same-{n}"] == "running")
            await until(lambda: len(sink.statistics().producers) == 3)
            await top.wait()
            assert top.children()[-1].restarts == 0
        assert set(seen) == set(range(5000))

    run(scenario)


def test_each_stage_of_a_group_has_its_own_of_a_list_of_partitions():
    seen = {n: [] for n in range(4)}

    class Share(Sink):
        def started(self):
            self.seen = seen[int(self.stage.name[-1]) - 1]

    async def scenario():
        source = Child(Numbers, 1000, name="source", dispatcher=PartitionDispatcher(4, hash=lambda event: event % 4))
        sinks = Child(Share, [], name="sink", count=4, subscribe_to=[To("source", partition=range(4))])
        async with Supervisor([source, sinks]) as top:
            with pytest.raises(OptionError, match="partition of its own"):
                await top.resize("sink", 5)
            top.child("sink-2").cast(Boom())
            await top.wait()
        for n in range(4):
            assert set(seen[n]) == set(range(n, 1000, 4))

    run(scenario)


def test_a_list_of_partitions_must_be_as_long_as_the_group():
    for partitions in ([0, 1], range(5)):
        with pytest.raises(OptionError, match=r"as many partitions as the group has stages \(count=4\)"):
            Child(Sink, [], count=4, subscribe_to=[To("source", partition=partitions)])


def test_a_group_of_sources_is_followed_as_one():
    seen = []

    async def scenario():
        await Supervisor(
            [Child(Numbers, 500, name="source", count=3), Child(Sink, seen, name="sink", subscribe_to=["source"])]
        )
        assert sorted(seen) == sorted(list(range(500)) * 3)

    run(scenario)


def test_a_group_without_a_name_works_too():
    seen = []

    async def scenario():
        sinks = Child(Sink, seen, count=3, subscribe_to=[To("source", max_demand=10)])
        async with Supervisor([Child(Numbers, 500, name="source"), sinks]) as top:
            assert list(states(top)) == ["source", "Sink-1", "Sink-2", "Sink-3"]
            assert len(await top.resize("Sink", 5)) == 5
            await top.wait()
        assert sorted(seen) == list(range(500))

    run(scenario)


def test_a_group_may_be_followed_at_run_time():
    seen = []

    async def scenario():
        async with Supervisor([Child(Numbers, name="source", count=3), Child(Slow, seen, name="sink")]) as top:
            await top.child("sink").subscribe("source", max_demand=10)
            await until(lambda: len(top.child("sink").statistics().producers) == 3)
            assert len(await top.resize("source", 4)) == 4
            await until(lambda: len(top.child("sink").statistics().producers) == 4)

    run(scenario)


# -- groups and trees -------------------------------------------------------------------------------------------------


def nested(seen, *, first=False, sink="permanent", **options):
    sink = Child(Slow, seen, 0.001, name="sink", restart=sink, subscribe_to=[To("same", max_demand=10)])
    group = Supervisor(
        [Child(Same, name="same", count=2, subscribe_to=[To("source", max_demand=10)])], id="nested", **options
    )
    return [sink, group] if first else [group, sink]


def test_a_group_in_a_nested_supervisor_is_followed_from_outside_also_by_whoever_comes_before_it():
    for first in (False, True):
        seen = []

        async def scenario(first=first, seen=seen):
            async with Supervisor([*nested(seen, first=first), Child(Numbers, 500, name="source")]) as top:
                await top.wait()
            assert sorted(seen) == list(range(500))

        run(scenario)


def test_a_group_is_followed_again_when_its_supervisor_was_started_again():
    seen = []

    async def scenario():
        children = [Child(Numbers, 2000, name="source"), *nested(seen, max_restarts=0)]
        async with Supervisor(children) as top:
            await until(lambda: len(seen) > 100)
            before = top.child("nested")
            top.system.ref("same-1").cast(Boom())
            await until(lambda: states(top)["nested"] == "running" and top.child("nested") is not before)
            sink = top.child("sink")
            await until(lambda: len(sink.statistics().producers) == 2)
            await top.wait()
            assert states(top) == {"source": "done", "nested": "done", "sink": "done"}
        assert set(seen) == set(range(2000))

    run(scenario)


def test_whoever_follows_a_group_that_never_comes_back_ends():
    seen = []

    async def scenario():
        children = [Child(Numbers, name="source"), *nested(seen, sink="temporary", max_restarts=0, restart="temporary")]
        async with Supervisor(children) as top:
            await until(lambda: len(seen) > 100)
            top.system.ref("same-1").cast(Boom())
            await until(lambda: states(top)["sink"] == "done")

    run(scenario)


# -- resize -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("sizes", [(5,), (1,), (4, 2, 5, 1, 3), (2, 2), (8, 1, 8, 1)], ids=str)
def test_resizing_under_load_loses_and_doubles_nothing_and_the_stream_ends_by_itself(place, sizes):
    async def scenario():
        seen = []
        app = Supervisor(
            [
                Child(Numbers, 4000, name="source"),
                Child(at(place, Same), name="same", count=3, subscribe_to=[To("source", max_demand=20)], place=place),
                Child(Slow, seen, 0.001, name="sink", count=2, subscribe_to=[To("same", max_demand=8)]),
            ]
        )
        async with app as top:
            for size in sizes:
                before = len(seen)
                await until(lambda b=before: len(seen) > b + 50)
                refs = await top.resize("same", size)
                assert names(refs) == [f"same-{n}" for n in range(1, size + 1)]
                assert [each.id for each in top.children() if each.id.startswith("same")] == names(refs)
                assert all(ref.alive for ref in refs)
            await until(lambda: len(top.system.ref("sink-1").statistics().producers) == sizes[-1])
            assert await top.wait() == "normal"
            assert sum(each.restarts for each in top.children()) == 0
        assert sorted(seen) == list(range(4000))

    for seed in range(3):
        run(scenario, seed=seed)


@pytest.mark.parametrize("place", PLACES)
def test_resizing_the_last_stages_of_a_pipeline_loses_and_doubles_nothing(place):
    async def scenario():
        seen = []

        class Work(Sink):
            def handle_events(self, events, source):
                seen.extend(events)

        sinks = Child(
            at(place, Work), [], name="sink", count=2, subscribe_to=[To("source", max_demand=20)], place=place
        )
        async with Supervisor([Child(Numbers, 20_000, name="source"), sinks]) as top:
            for size in (6, 1, 3, 9, 2):
                before = len(seen)
                await until(lambda b=before: len(seen) > b or not top.alive)
                if top.alive:
                    await top.resize("sink", size)
            assert await top.wait() == "normal"
        assert sorted(seen) == list(range(20_000))

    for seed in range(3):
        run(scenario, seed=seed)


def test_resizing_one_that_works_under_two_dispatchers():
    """Each consumer of a broadcast gets everything, whoever else comes and goes."""

    async def scenario():
        seen = []
        source = Child(Numbers, 3000, name="source", dispatcher=BroadcastDispatcher())
        same = Child(Same, name="same", count=1, subscribe_to=[To("source", max_demand=20)])
        sink = Child(Slow, seen, 0.001, name="sink", subscribe_to=[To("same", max_demand=8)])
        async with Supervisor([source, same, sink]) as top:
            await top.wait()
        assert seen == list(range(3000))

    run(scenario)


def test_a_group_that_waits_for_its_restart_can_be_resized():
    async def scenario():
        async with Supervisor([Child(Unborn, [None, None, *[Boom()] * 3], name="w", count=2)], max_restarts=9) as top:
            top.child("w-2").cast(Boom())
            await until(lambda: states(top)["w-2"] == "waiting")
            assert names(await top.resize("w", 1)) == ["w-1"]
            await asyncio.sleep(60)
            assert states(top) == {"w-1": "running"}
            assert top.alive

    run(scenario)


def test_a_resize_fills_the_gap_of_a_member_that_was_removed():
    async def scenario():
        async with Supervisor([Child(Idle, name="w", count=3)]) as top:
            await top.stop_child("w-2", remove=True)
            assert sorted(names(await top.resize("w", 3))) == ["w-1", "w-2", "w-3"]
            assert sorted(names(await top.resize("w", 4))) == ["w-1", "w-2", "w-3", "w-4"]

    run(scenario)


def test_a_resize_whose_new_stage_does_not_start_leaves_the_group_as_it_was():
    async def scenario():
        async with Supervisor([Child(Unborn, [None, None, None, Boom()], name="w", count=2)]) as top:
            with pytest.raises(StageCrashed, match="w-4"):
                await top.resize("w", 5)
            assert states(top) == {"w-1": "running", "w-2": "running", "w-3": "running"}
            assert len(await top.resize("w", 5)) == 5
            assert set(states(top).values()) == {"running"}

    run(scenario)


def test_a_stage_that_does_not_let_go_in_time_is_killed():
    async def scenario():
        async with Supervisor([Child(Stubborn, name="w", count=2, shutdown=3)]) as top:
            begin = now()
            assert names(await top.resize("w", 1)) == ["w-1"]
            assert 3 <= now() - begin < 4

    run(scenario)


def test_a_paused_stage_lets_go_too():
    async def scenario():
        seen = []
        sinks = Child(Slow, seen, name="sink", count=2, subscribe_to=[To("source", max_demand=10)])
        async with Supervisor([Child(Numbers, 500, name="source"), sinks]) as top:
            await until(lambda: len(seen) > 20)
            top.system.pause("sink-2")
            await top.resize("sink", 1)
            await top.wait()
        assert sorted(seen) == list(range(500))

    run(scenario)


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", None, True])
def test_a_count_that_is_none_is_refused(count):
    async def scenario():
        async with Supervisor([Child(Idle, name="w", count=2)]) as top:
            with pytest.raises(OptionError, match="'supervisor': expected option 'count' to be an integer"):
                await top.resize("w", count)
            assert len(top.children()) == 2

    run(scenario)
    with pytest.raises(OptionError, match="'count'"):
        Child(Idle, count=count)


def test_what_is_no_group_cannot_be_resized():
    async def scenario():
        async with Supervisor([Child(Idle, name="a"), Child(Idle, name="w", count=2)]) as top:
            for id_ in ("a", "w-1", "zz"):
                with pytest.raises(NoStageError, match=f"no group '{id_}'"):
                    await top.resize(id_, 2)

    run(scenario)


def test_a_whole_group_is_stopped_and_removed_by_its_id():
    async def scenario():
        async with Supervisor([Child(Idle, name="w", count=3)], auto_shutdown=False) as top:
            await top.stop_child("w")
            assert set(states(top).values()) == {"stopped"}
            await top.restart_child("w-2")
            assert states(top) == {"w-1": "stopped", "w-2": "running", "w-3": "stopped"}
            await top.stop_child("w", remove=True)
            assert not top.children()
            assert await top.start_child(Child(Idle, name="w", count=2)) is top.child("w-1")
            assert len(await top.resize("w", 3)) == 3

    run(scenario)


def test_who_finds_a_member_again_late_does_not_subscribe_the_followers_of_its_group_again():
    async def scenario():
        busy, go_on = asyncio.Event(), asyncio.Event()

        class Busy(Consumer):
            async def handle_events(self, events, source):
                busy.set()
                await go_on.wait()

        group = Child(Same, name="worker", count=2, subscribe_to=["source"])
        late = Child(Busy, name="late", subscribe_to=[To("worker-1", max_demand=1, retry=60)])
        follower = Child(Idle, name="follower", subscribe_to=[To("worker", max_demand=1, mode="manual")])
        async with Supervisor([Child(Numbers, 100, name="source"), group, late, follower]) as top:
            await busy.wait()
            await top.restart_child("worker-1")  # it is there again before the busy one knows that it was gone
            go_on.set()
            there = top.child("worker-1")
            await until(lambda: {each.peer for each in there.statistics().consumers} >= {"late", "follower"})
            peers = [each.peer for each in there.statistics().consumers]
            assert sorted(peers) == ["follower", "late"]

    run(scenario)
