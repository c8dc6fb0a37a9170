# mypy: disable-error-code="union-attr,var-annotated,arg-type,misc"
"""Trees start in order, stop in the reverse order, and keep their time, whatever their stages do."""

import asyncio

import pytest

from headgate import NoStageError, RestartLimitError, StageCrashed, Supervision
from tests.supervision.helpers import (
    Boom,
    Child,
    Deaf,
    Flaky,
    Idle,
    Numbers,
    Sink,
    Stubborn,
    Supervisor,
    System,
    Unborn,
    at,
    fresh,
    now,
    run,
    states,
    until,
)

PLACES = ["inline", "task", "thread"]


def tree(log, place="inline", **options):
    """Return a tree of three levels with stages a to f in the order of their start."""

    def leaf(name):
        return Child(at(place, Idle), log, name=name, place=place)

    return Supervisor(
        [
            leaf("a"),
            Supervisor([leaf("b"), Supervisor([leaf("c"), leaf("d")], id="low"), leaf("e")], id="middle"),
            leaf("f"),
        ],
        **options,
    )


@pytest.mark.parametrize("place", PLACES)
def test_a_tree_starts_in_order_and_stops_in_the_reverse_order(place):
    log = []

    async def scenario():
        async with tree(log, place):
            assert log == [("start", name) for name in "abcdef"]
            log.clear()
        assert log == [("stop", name, "shutdown") for name in "fedcba"]

    run(scenario)


def test_a_tree_can_be_looked_at_and_walked():
    async def scenario():
        async with tree([]) as running:
            assert running.count() == (3, 3, 1, 2)
            assert [(each.id, each.kind, each.state) for each in running.children()] == [
                ("a", "stage", "running"),
                ("middle", "supervisor", "running"),
                ("f", "stage", "running"),
            ]
            low = running.child("middle").child("low")
            assert isinstance(low, Supervision)
            assert low.child("d") is running.system.ref("d")
            with pytest.raises(NoStageError, match=r"'supervisor'.*'zz'.*'a', 'middle', 'f'"):
                running.child("zz")
        assert not low.alive
        assert (low.reason, running.reason) == ("shutdown", "shutdown")
        assert running.count().active == 0

    run(scenario)


def test_one_recipe_can_run_twice_at_the_same_time_and_again():
    log = []
    app = Supervisor([Child(Idle, log, "one", id="one")])

    async def scenario():
        async with app, app:
            assert log.count(("start", "one")) == 2
        async with app as running:
            assert states(running) == {"one": "running"}

    run(scenario)


def test_a_stop_hands_its_reason_down():
    log = []

    async def scenario():
        async with tree(log) as running:
            log.clear()
            assert await running.stop(("shutdown", "for the night")) == ("shutdown", "for the night")
            assert {each[2] for each in log} == {("shutdown", "for the night")}
            assert await running.wait() == ("shutdown", "for the night")

    run(scenario)


# -- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Stubborn, Deaf])
def test_a_child_that_ignores_its_stop_is_killed_when_its_time_is_over(kind):
    log = []

    async def scenario():
        async with Supervisor([fresh(Idle, "a", log), fresh(kind, "b", log, shutdown=2), fresh(Idle, "c", log)]) as top:
            if kind is Deaf:
                top.system.ref("b").cast("sleep")
                await until(lambda: top.system.ref("b").driver.core.callback)
            begin = now()
            await top.stop()
            assert 2 <= now() - begin < 3
            assert [each[1] for each in log if each[0] == "stop" and each[1] != "b"] == ["c", "a"]
            assert top.count().active == 0

    if kind is Deaf:  # its coroutine swallows every cancellation, and cannot be got rid of
        with pytest.raises(AssertionError, match="expected no task to be left"):
            run(scenario)
    else:
        run(scenario)


def test_the_total_is_kept_when_every_child_would_use_its_own_time_up():
    async def scenario():
        children = [fresh(Stubborn, name, [], shutdown=5) for name in "abcd"]
        nested = Supervisor([fresh(Stubborn, name, [], shutdown=5) for name in "efgh"], shutdown=60)
        async with Supervisor([*children, nested], shutdown=12) as top:
            begin = now()
            await top.stop()
            assert 12 <= now() - begin < 13
            assert not top.system.stages()

    run(scenario)


def test_a_timeout_of_stop_bounds_all_of_it():
    async def scenario():
        async with tree([]) as top:
            await top.start_child(fresh(Stubborn, "g", [], shutdown=100))
            begin = now()
            assert await top.stop(timeout=1.5) == "shutdown"
            assert 1.5 <= now() - begin < 2
            assert not top.system.stages()

    run(scenario)


def test_a_second_stop_that_is_sooner_counts_also_for_the_child_that_is_being_stopped():
    async def scenario():
        nested = Supervisor([fresh(Stubborn, "a", [], shutdown=100)], shutdown=200)
        async with Supervisor([nested], shutdown=200) as top:
            first = asyncio.ensure_future(top.stop())
            await asyncio.sleep(1)
            begin = now()
            await top.stop(timeout=1)
            assert 1 <= now() - begin < 2
            assert await first == "shutdown"

    run(scenario)


def test_a_second_stop_that_is_later_changes_nothing():
    async def scenario():
        async with Supervisor([fresh(Stubborn, "a", [], shutdown=100)], shutdown=200) as top:
            begin = now()
            reasons = await asyncio.gather(top.stop(timeout=2), top.stop("other", timeout=50), top.stop())
            assert set(reasons) == {"shutdown"}
            assert 2 <= now() - begin < 3

    run(scenario)


def test_kill_ends_a_tree_at_once_also_while_it_is_being_stopped():
    log = []

    async def scenario():
        nested = Supervisor([fresh(Stubborn, "a", log, shutdown=100), fresh(Stubborn, "b", log, shutdown=100)])
        async with Supervisor([nested, fresh(Idle, "c", log)], shutdown=200) as top:
            stop = asyncio.ensure_future(top.stop())
            await asyncio.sleep(1)
            begin = now()
            top.kill()
            await stop
            assert now() - begin < 0.1
            assert ("stop", "a", "shutdown") not in log
        async with tree(log) as top:
            log.clear()
            top.kill("enough")
            assert await top.wait() == "enough"
            assert not [each for each in log if each[0] == "stop"]
            top.kill()  # it has ended, and nothing happens

    run(scenario)


def test_a_stop_interrupts_a_child_whose_started_hangs():
    log = []

    async def scenario():
        async with System() as system:
            app = Supervisor([fresh(Idle, "a", log), Child(Flaky, [1000.0], name="hangs"), fresh(Idle, "b", log)])
            starting = asyncio.ensure_future(system.start(app))
            await asyncio.sleep(1)
            begin = now()
            await system.stop()
            assert now() - begin < 0.1
            await starting
            assert [each[:2] for each in log] == [("start", "a"), ("stop", "a")]
            assert not system.stages()

    run(scenario)


def test_a_stop_is_in_time_while_a_nested_supervisor_starts():
    async def scenario():
        async with System() as system:
            slow = [fresh(Stubborn, "a", [], shutdown=100), Child(Flaky, [500.0], name="hangs")]
            starting = asyncio.ensure_future(
                system.start(Supervisor([Supervisor(slow, id="nested", shutdown=200)], shutdown=300))
            )
            await asyncio.sleep(1)
            (top,) = (each for each in system.node.supervisions.values() if not each.supervised)
            begin = now()
            await top.stop(timeout=1)
            assert now() - begin < 1.5
            await starting

    run(scenario)


@pytest.mark.parametrize("request_", ["stop_child", "restart_child", "resize"])
def test_a_stop_is_in_time_while_a_request_waits_for_a_child(request_):
    async def scenario():
        async with Supervisor([fresh(Stubborn, "a", [], shutdown=100, count=2)], shutdown=200) as top:
            wanted = {"stop_child": ("a",), "restart_child": ("a-2",), "resize": ("a", 1)}[request_]
            asked = asyncio.ensure_future(getattr(top, request_)(*wanted))
            await asyncio.sleep(1)
            begin = now()
            await top.stop(timeout=3)
            assert 3 <= now() - begin < 4
            await asyncio.wait([asked])
            assert isinstance(asked.exception(), (NoStageError, type(None)))

    run(scenario)


def test_a_stop_is_in_time_while_a_strategy_stops_the_others():
    async def scenario():
        children = [fresh(Stubborn, "a", [], shutdown=100), fresh(Idle, "b", [])]
        async with Supervisor(children, strategy="one_for_all", shutdown=200) as top:
            top.system.ref("b").cast(Boom())
            await asyncio.sleep(1)
            begin = now()
            await top.stop(timeout=3)
            assert 3 <= now() - begin < 4

    run(scenario)


def test_a_stop_while_children_wait_for_their_restart_does_not_wait_for_that():
    async def scenario():
        async with Supervisor([Child(Unborn, [None, Boom(), Boom(), Boom()], name="a")], max_restarts=None) as top:
            top.system.ref("a").cast(Boom())
            await until(lambda: states(top) == {"a": "waiting"})
            begin = now()
            await top.stop()
            assert now() - begin < 0.01
            assert states(top) == {"a": "stopped"}

    run(scenario)


# -- a start that fails -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["inline", "task"])
def test_a_first_start_that_fails_raises_and_stops_those_before_it_in_the_reverse_order(place):
    log = []
    bad = {"inline": Child(Unborn, [Boom("no")], name="bad"), "task": Child(Flaky, [Boom("no")], name="bad")}[place]

    async def scenario():
        nested = Supervisor([fresh(Idle, "b", log), bad, fresh(Idle, "never", log)], id="nested")
        app = Supervisor([fresh(Idle, "a", log), nested, fresh(Idle, "later", log)])
        with pytest.raises(StageCrashed, match="'bad' crashed: Boom: no") as caught:
            async with app:
                raise AssertionError
        assert isinstance(caught.value.__cause__, Boom)
        assert log == [("start", "a"), ("start", "b"), ("stop", "b", "shutdown"), ("stop", "a", "shutdown")]
        log.clear()
        async with System() as system:
            with pytest.raises(StageCrashed):
                await system.start(Supervisor([fresh(Idle, "a", log), Child(Unborn, [Boom()], name="b")]))
            assert not system.stages()
            assert not system.node.supervisions
            assert not system.node.awaited.expected

    run(scenario)


def test_events_flow_only_when_the_whole_tree_is_there():
    """Also when a source comes long before its last consumer: both get their share."""
    seen = [], []

    async def scenario():
        sinks = [Child(Sink, seen[n], id=f"sink-{n}", subscribe_to=["source"]) for n in (0, 1)]
        await Supervisor([Child(Numbers, 2000, name="source"), sinks[0], Supervisor([sinks[1]], id="other")])
        assert sorted(seen[0] + seen[1]) == list(range(2000))
        assert seen[0]
        assert seen[1]

    run(scenario)


# -- how it surfaces --------------------------------------------------------------------------------------------------


def hopeless():
    return Supervisor([Child(Unborn, [None] + [Boom("again")] * 9, name="a")])


def test_giving_up_surfaces_once_at_wait():
    async def scenario():
        async with hopeless() as top:
            top.system.ref("a").cast(Boom("first"))
            with pytest.raises(RestartLimitError, match=r"3 restarts within 5 s, then child 'a'") as caught:
                await top.wait()
            assert isinstance(caught.value.__cause__, StageCrashed)
            assert isinstance(caught.value.__cause__.__cause__, Boom)
            assert (caught.value.child, caught.value.max_restarts, caught.value.max_seconds) == ("a", 3, 5)

    run(scenario)


def test_giving_up_surfaces_once_at_the_end_of_async_with():
    async def scenario():
        with pytest.raises(RestartLimitError) as caught:
            async with hopeless() as top:
                top.system.ref("a").cast(Boom("first"))
                await until(lambda: not top.alive)
        assert caught.value.__context__ is None or not isinstance(caught.value.__context__, RestartLimitError)

    run(scenario)


def test_giving_up_surfaces_where_the_app_is_awaited():
    async def scenario():
        always = Child(Sink, [], lambda event: True, name="sink", subscribe_to=["source"])
        with pytest.raises(RestartLimitError, match="'sink'"):
            await Supervisor([Child(Numbers, name="source"), always])

    run(scenario)


def test_an_error_of_the_block_is_not_hidden_by_one_of_the_app():
    async def scenario():
        with pytest.raises(ZeroDivisionError):
            async with hopeless() as top:
                top.system.ref("a").cast(Boom())
                await until(lambda: not top.alive)
                raise ZeroDivisionError

    run(scenario)
