# mypy: disable-error-code="union-attr,var-annotated,arg-type,misc"
"""Names: a stage that is started again is found again, and subscriptions by name come back by themselves."""

import asyncio
import math

import pytest

from headgate import Backoff, NoStageError, PartitionDispatcher, RestartLimitError, StageCrashed, SubscriptionError
from headgate.runtime.reference import make_subscription
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
    Unborn,
    at,
    now,
    run,
    states,
    until,
)

PLACES = ["inline", "task", "thread"]
LIMITED = To("source", max_demand=10)


def restarts(running):
    return {each.id: each.restarts for each in running.children()}


async def grows(seen):
    """Wait until more events come in."""
    before = len(seen)
    await until(lambda: len(seen) > before, "events flow")


@pytest.mark.parametrize("place", PLACES)
def test_a_stage_that_was_started_again_is_found_again_by_its_name(place):
    async def scenario():
        async with Supervisor([Child(at(place, Idle), name="a", place=place)]) as top:
            old = top.system.ref("a")
            old.cast(Boom())
            await until(lambda: "a" in top.system.node.names and top.system.ref("a") is not old)
            assert not old.alive
            with pytest.raises(NoStageError):
                await old.call("are you there?")
            await until(lambda: states(top)["a"] == "running")
            assert top.child("a") is top.system.ref("a")

    run(scenario)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("cancel", ["permanent", "transient", "temporary"])
@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_subscription_comes_back_whatever_its_cancel_mode(place, cancel, failures):
    """The producer crashes, then fails to start a few times; by default settings nothing gives up."""

    async def scenario():
        seen = []
        source = Child(at(place, Numbers), None, [None, *[Boom("not yet")] * failures], name="source", place=place)
        to = To("source", max_demand=10, cancel=cancel, retry=None if cancel == "permanent" else 5)
        async with Supervisor([source, Child(Slow, seen, name="sink", subscribe_to=[to])]) as top:
            await grows(seen)
            top.system.ref("source").cast(Boom("now"))
            await until(lambda: states(top)["source"] == "running" and restarts(top)["source"] == failures + 1)
            await until(lambda: restarts(top)["sink"] == int(cancel == "permanent"))
            await until(lambda: states(top)["sink"] == "running")
            await until(lambda: len(top.child("sink").statistics().producers) == 1)
            await grows(seen)
            assert restarts(top)["sink"] == int(cancel == "permanent")  # who declares a retry lives on

    for seed in range(5):
        run(scenario, seed=seed)


def test_a_producer_in_a_long_wait_makes_no_storm_of_its_consumers():
    """Ten permanent consumers, each restarted once: they wait by name, whatever time it takes."""
    seen = []

    async def scenario():
        sinks = [Child(Slow, seen, id=f"sink-{n}", subscribe_to=[LIMITED]) for n in range(10)]
        source = Child(Numbers, None, [None, Boom(), Boom()], name="source")
        async with Supervisor([source, *sinks], backoff=Backoff(first=20, most=100)) as top:
            await until(lambda: len(seen) > 50)
            top.system.ref("source").cast(Boom())
            await until(lambda: restarts(top)["source"] == 2)
            await asyncio.sleep(15)
            assert states(top) == {"source": "waiting", **{f"sink-{n}": "running" for n in range(10)}}
            assert {restarts(top)[f"sink-{n}"] for n in range(10)} == {1}
            seen.clear()
            await until(lambda: len(seen) > 500, timeout=200)
            assert {restarts(top)[f"sink-{n}"] for n in range(10)} == {1}

    run(scenario)


def test_a_consumer_may_come_before_its_producer_in_the_tree():
    seen = []

    async def scenario():
        sink = Child(Sink, seen, name="sink", subscribe_to=["same"])
        same = Supervisor([Child(Same, name="same", subscribe_to=["source"])], id="nested")
        await Supervisor([sink, same, Child(Numbers, 100, name="source")])
        assert seen == list(range(100))

    run(scenario)


def test_the_same_app_runs_again_in_the_same_system_with_its_consumer_first():
    seen = []

    async def scenario():
        app = Supervisor([Child(Sink, seen, name="sink", subscribe_to=["source"]), Child(Numbers, 100, name="source")])
        async with System() as system:
            for _ in range(3):
                running = await system.start(app)
                assert await running.wait() == "normal"
        assert seen == list(range(100)) * 3

    run(scenario)


def test_a_source_that_is_stopped_by_hand_is_waited_for():
    seen = []

    async def scenario():
        children = [Child(Numbers, name="source"), Child(Slow, seen, name="sink", subscribe_to=[LIMITED])]
        async with Supervisor(children) as top:
            await grows(seen)
            await top.stop_child("source")
            await asyncio.sleep(30)
            assert states(top) == {"source": "stopped", "sink": "running"}
            await top.restart_child("source")
            await grows(seen)

    run(scenario)


def test_a_source_that_is_removed_is_waited_for_no_longer():
    async def scenario():
        children = [Child(Numbers, name="source"), Child(Slow, [], name="sink", subscribe_to=[LIMITED])]
        async with Supervisor(children) as top:
            await top.stop_child("source", remove=True)
            with pytest.raises(RestartLimitError, match="no stage named 'source'"):
                await top.wait()

    run(scenario)


def test_a_subscription_at_run_time_waits_for_a_stage_in_back_off():
    seen = []

    async def scenario():
        children = [Child(Numbers, None, [None, Boom()], name="source"), Child(Slow, seen, name="sink")]
        async with Supervisor(children, backoff=Backoff(first=2, jitter=0)) as top:
            top.system.ref("source").cast(Boom())
            await until(lambda: restarts(top)["source"] == 2)
            begin = now()
            await top.system.ref("sink").subscribe(LIMITED)
            assert 1 < now() - begin < 3
            await grows(seen)

    run(scenario)


@pytest.mark.parametrize("place", PLACES)
def test_whoever_waits_is_subscribed_after_started_has_run(place):
    """Also where the instance takes its time to come up."""
    seen = []

    class Careful(Numbers):
        def __init__(self, script):
            super().__init__(None, script)
            self.ready = False

        def started(self):
            self.ready = True

        def handle_subscribe(self, role, options, peer):
            if not self.ready:
                raise Boom("too early")

        def handle_call(self, request):
            return self.ready

    async def scenario():
        source = Child(at(place, Careful), [None, Boom()], name="source", place=place)
        async with Supervisor([source, Child(Slow, seen, name="sink", subscribe_to=[LIMITED])]) as top:
            await grows(seen)
            top.system.ref("source").cast(Boom())
            await until(lambda: states(top)["source"] == "running" and restarts(top)["source"] == 2)
            await grows(seen)
            assert restarts(top) == {"source": 2, "sink": 1}

    for seed in range(5):
        seen.clear()
        run(scenario, seed=seed)


# -- retry ------------------------------------------------------------------------------------------------------------


def test_without_a_supervisor_a_declared_retry_waits_for_the_name():
    seen = []

    async def scenario():
        async with System() as system:
            sink = await system.start(
                Child(Sink, seen, name="sink", subscribe_to=[To("source", max_demand=10, retry=60)])
            )
            await asyncio.sleep(30)
            assert sink.alive
            await system.start(Child(Numbers, 100, name="source"))
            await system.wait()
        assert seen == list(range(100))

    run(scenario)


@pytest.mark.parametrize(("cancel", "lives"), [("permanent", False), ("transient", False), ("temporary", True)])
def test_a_retry_gives_up_after_its_time(cancel, lives):
    async def scenario():
        async with System() as system:
            to = To("source", retry=7, cancel=cancel)
            sink = await system.start(Child(Sink, [], name="sink", subscribe_to=[to]))
            begin = now()
            if lives:
                await asyncio.sleep(20)
                assert sink.alive
                return
            with pytest.raises(StageCrashed, match=r"no stage named 'source' for 7 s") as caught:
                await sink.wait()
            assert isinstance(caught.value.__cause__, SubscriptionError)
            assert 7 <= now() - begin < 7.1

    run(scenario)


def test_a_retry_comes_back_again_and_again_each_time_with_its_whole_time():
    seen = []

    async def scenario():
        async with System() as system:
            sink = await system.start(
                Child(Slow, seen, name="sink", subscribe_to=[To("source", max_demand=10, retry=5)])
            )
            for _ in range(3):
                await asyncio.sleep(4)
                source = await system.start(Child(Numbers, name="source"))
                await grows(seen)
                source.cast(Boom())
                with pytest.raises(StageCrashed):
                    await source.wait()
                assert sink.alive
            with pytest.raises(StageCrashed):
                await sink.wait()

    run(scenario)


def test_a_retry_without_end_and_one_without_time():
    async def scenario():
        async with System() as system:
            patient = await system.start(Child(Sink, [], name="a", subscribe_to=[To("source", retry=math.inf)]))
            hasty = await system.start(Child(Sink, [], name="b", subscribe_to=[To("source", retry=0)]))
            with pytest.raises(StageCrashed):
                await hasty.wait()
            await asyncio.sleep(500)
            assert patient.alive

    run(scenario)


def test_a_retry_of_a_subscription_at_run_time_is_told_when_it_gives_up():
    async def scenario():
        async with System() as system:
            sink = await system.start(Child(Sink, [], name="sink"))
            with pytest.raises(SubscriptionError, match=r"no stage named 'source' for 2 s"):
                await sink.subscribe(To("source", retry=2, cancel="temporary"))
            assert sink.alive
            with pytest.raises(TimeoutError):
                await sink.subscribe(To("source", retry=100, cancel="temporary"), timeout=1)
            await system.start(Child(Numbers, 10, name="source"))  # the subscription stands
            await until(lambda: sink.statistics().handled == 10)

    run(scenario)


def test_a_stream_that_is_over_is_not_waited_for():
    async def scenario():
        async with System() as system:
            await system.start(Child(Numbers, 10, name="source"))
            sink = await system.start(Child(Sink, [], name="sink", subscribe_to=[To("source", retry=500)]))
            assert await sink.wait() == "normal"
            assert now() < 1

    run(scenario)


def test_a_retry_begins_when_the_supervisor_of_the_producer_has_given_it_up():
    seen = []

    async def scenario():
        nested = Supervisor([Child(Numbers, None, [None] + [Boom()] * 9, name="source")], id="n", restart="temporary")
        to = To("source", max_demand=10, retry=20)
        async with Supervisor([nested, Child(Slow, seen, name="sink", restart="temporary", subscribe_to=[to])]) as top:
            await grows(seen)
            top.system.ref("source").cast(Boom())
            await until(lambda: states(top)["n"] == "done")
            begin = now()
            await top.wait()
            assert 19 <= now() - begin < 21

    run(scenario)


def test_cancelling_a_start_that_waits_for_its_producers_answer_leaves_nothing_behind():
    class Silent(Numbers):
        async def handle_subscribe(self, role, options, peer):
            await asyncio.sleep(1000)

    async def scenario():
        async with System() as system:
            source = await system.start(Child(Silent, name="source"))
            starting = asyncio.ensure_future(system.start(Child(Sink, [], name="sink", subscribe_to=["source"])))
            await asyncio.sleep(1)
            starting.cancel()
            await asyncio.wait([starting])
            await until(lambda: system.stages() == [source])
            assert "sink" not in system.node.names
            source.kill()

    run(scenario)


def test_a_child_waiting_for_its_producers_answer_does_not_hold_up_a_stop():
    class Silent(Numbers):
        async def handle_subscribe(self, role, options, peer):
            await asyncio.sleep(1000)

    async def scenario():
        async with System() as system:
            children = [Child(Silent, name="source", shutdown=2), Child(Sink, [], name="sink", subscribe_to=["source"])]
            starting = asyncio.ensure_future(system.start(Supervisor(children)))
            await asyncio.sleep(1)
            begin = now()
            await system.stop()
            assert now() - begin < 3
            await asyncio.wait([starting])
            assert not system.stages()

    run(scenario)


def test_names_of_stages_that_did_not_start_are_free_again():
    async def scenario():
        async with System() as system:
            for script in ([Boom()], [None]):
                try:
                    await system.start(Child(Unborn, list(script), name="a"))
                except StageCrashed:
                    assert "a" not in system.node.names
            assert system.ref("a").alive
            with pytest.raises(StageCrashed):
                await system.start(Child(Flaky, [Boom()], name="b"))
            await system.start(Child(Flaky, [], name="b"))

    run(scenario)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", ["stop_child", "restart_child", "normal", "shutdown", "crash"])
def test_a_pipeline_comes_back_whole_however_its_source_ended(place, how):
    """Only a source that has finished ends those below it; another may go on where it stopped."""

    async def scenario():
        seen = []
        children = [
            Child(Numbers, name="source"),
            Child(at(place, Same), name="same", subscribe_to=[LIMITED], place=place),
            Child(Slow, seen, name="sink", subscribe_to=[To("same", max_demand=10)]),
        ]
        async with Supervisor(children) as top:
            await grows(seen)
            if how == "stop_child":
                await top.stop_child("source")
                await asyncio.sleep(10)
                assert states(top) == {"source": "stopped", "same": "running", "sink": "running"}
                await top.restart_child("source")
            elif how == "restart_child":
                await top.restart_child("source")
            else:
                top.child("source").cast(Boom() if how == "crash" else how)
            await asyncio.sleep(10)
            assert set(states(top).values()) == {"running"}
            await grows(seen)

    for seed in range(3):
        run(scenario, seed=seed)


def test_a_consumer_that_is_cancelled_again_and_again_makes_no_storm():
    class Full(Numbers):
        def handle_subscribe(self, role, options, peer):
            self.stage.cancel(peer, "full")

    async def scenario():
        children = [Child(Full, name="source"), Child(Sink, [], name="sink", subscribe_to=["source"])]
        async with Supervisor(children) as top:
            with pytest.raises(RestartLimitError, match="child 'sink' ended again: 'full'"):
                await top.wait()

    run(scenario)


class Busy(Numbers):
    """Its first ``handle_demand`` takes an hour: until then nobody hears of a subscription whether it is accepted."""

    async def handle_demand(self, demand):
        if self.next:
            await asyncio.sleep(3600)
        return super().handle_demand(demand)


def test_a_child_that_is_added_while_its_source_ends_does_not_hold_up_that_sources_restart():
    seen = []

    async def scenario():
        children = [Child(Busy, name="source"), Child(Slow, [], name="a", subscribe_to=[LIMITED])]
        async with Supervisor(children) as top:
            source = top.child("source")
            await until(lambda: source.statistics().emitted and source.driver.core.callback)
            asked = asyncio.ensure_future(top.start_child(Child(Slow, seen, name="b", subscribe_to=[LIMITED])))
            await asyncio.sleep(1)
            source.kill()
            assert (await asked).name == "b"
            await until(lambda: states(top) == {"source": "running", "a": "running", "b": "running"})
            await grows(seen)

    run(scenario)


def test_a_source_that_is_busy_does_not_hold_up_the_restarts_of_other_children():
    async def scenario():
        children = [
            Child(Busy, name="source", shutdown=1),
            Child(Slow, [], name="a", subscribe_to=[LIMITED]),
            Child(Idle, name="b"),
        ]
        async with Supervisor(children) as top:
            source = top.child("source")
            await until(lambda: source.statistics().emitted and source.driver.core.callback)
            top.child("a").kill()
            await until(lambda: restarts(top)["a"] == 1)
            await asyncio.sleep(1)
            top.child("b").cast(Boom())
            await until(lambda: restarts(top)["b"] == 1 and states(top)["b"] == "running", timeout=5)
            assert states(top)["a"] == "running"

    run(scenario)


def test_a_restart_whose_producer_refuses_counts():
    async def scenario():
        source = Child(Numbers, name="source", dispatcher=PartitionDispatcher(1, hash=lambda event: 0))
        sink = Child(Slow, [], name="sink", subscribe_to=[To("source", max_demand=10, partition=0)])
        async with Supervisor([source, sink]) as top:
            await until(lambda: top.child("sink").statistics().handled)
            thief = await top.system.start(Child(Slow, [], name="thief"))
            top.child("sink").driver.monitors.append(
                lambda _: thief.driver.subscribe(make_subscription(thief, To("source", partition=0), {}))
            )
            top.child("sink").kill()
            with pytest.raises(RestartLimitError, match=r"child 'sink' ended again.*0 is taken"):
                await top.wait()

    run(scenario)
