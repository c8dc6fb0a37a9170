# mypy: disable-error-code="union-attr,var-annotated,arg-type,misc"
"""What is asked of a running supervisor: add, stop, start again, resize; at once, at a wrong moment, and cancelled."""

import asyncio
import gc

import pytest

from headgate import NameTakenError, NoStageError, OptionError, StageCrashed
from headgate.testing.clock import VirtualLoop, run_on
from tests.supervision.helpers import (
    HOUR,
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
    fresh,
    now,
    run,
    states,
    until,
)


def consistent(top):
    """Check that what the supervisor says is what there is."""
    running = [each for each in top.children() if each.state == "running"]
    assert all(each.ref is not None and each.ref.alive for each in running), states(top)
    assert all(each.ref is None for each in top.children() if each.state != "running"), states(top)
    stages = [each.ref for each in running if each.kind == "stage"]
    assert set(stages) == set(top.system.stages()), (states(top), top.system.stages())
    assert top.count().active == len(running)
    assert len({each.id for each in top.children()}) == len(top.children())
    expected = top.system.node.awaited.expected
    assert all(count > 0 for count in expected.values()), expected


# -- adding, stopping, starting again, removing -----------------------------------------------------------------------


def test_children_are_added_stopped_started_again_and_removed():
    log = []

    async def scenario():
        async with Supervisor([]) as top:
            assert top.count() == (0, 0, 0, 0)
            a = await top.start_child(fresh(Idle, "a", log))
            nested = await top.start_child(Supervisor([fresh(Idle, "b", log)], id="nested"))
            assert top.child("a") is a is top.system.ref("a")
            assert top.child("nested") is nested
            assert top.count() == (2, 2, 1, 1)
            await top.stop_child("nested")
            assert not nested.alive
            assert (states(top), top.count()) == ({"a": "running", "nested": "stopped"}, (2, 1, 1, 1))
            with pytest.raises(NoStageError, match="'nested' does not run"):
                top.child("nested")
            again = await top.restart_child("nested")
            assert again is not nested
            assert again.child("b").alive
            assert await top.restart_child("a") is not a
            assert [each.restarts for each in top.children()] == [0, 0]
            await top.stop_child("a", remove=True)
            assert states(top) == {"nested": "running"}
            log.clear()
            await top.start_child(fresh(Idle, "a", log))
        assert [each[:2] for each in log] == [("start", "a"), ("stop", "a"), ("stop", "b")]

    run(scenario)


def test_what_is_not_known_is_named_with_what_is():
    async def scenario():
        async with Supervisor([Child(Idle, name="a"), Child(Idle, name="b")], name="app") as top:
            for ask in (top.stop_child, top.restart_child):
                with pytest.raises(
                    NoStageError, match=r"supervisor 'app': there is no child 'zz'; there are: 'a', 'b'"
                ):
                    await ask("zz")

    run(scenario)


def test_a_child_that_cannot_be_added_is_not_added():
    async def scenario():
        async with Supervisor([Child(Idle, name="a"), Child(Idle, name="w", count=2)]) as top:
            await top.system.start(Child(Idle, name="other"))
            for bad, error in (
                (Child(Idle, id="a"), OptionError),
                (Child(Idle, name="a", id="b"), OptionError),
                (Child(Idle, name="w"), OptionError),
                (Child(Idle, id="w"), OptionError),
                (Child(Idle, name="w-1", id="c"), OptionError),
                (Child(Idle, name="a", id="g", count=1), OptionError),
                (Child(Idle, name="other"), NameTakenError),
                (Child(Unborn, [Boom()], name="b"), StageCrashed),
                (Child(Flaky, [Boom()], name="b"), StageCrashed),
                (Child(Unborn, [None, Boom()], name="b", count=2), StageCrashed),
                (Supervisor([Child(Unborn, [Boom()], name="b")]), StageCrashed),
                ("b", OptionError),
                (Idle, OptionError),
                (None, OptionError),
            ):
                with pytest.raises(error):
                    await top.start_child(bad)
                assert list(states(top)) == ["a", "w-1", "w-2"]
            await top.system.ref("other").stop()
            consistent(top)
            await top.start_child(Child(Idle, name="b"))

    run(scenario)


def test_a_child_that_waits_for_its_restart_can_be_stopped_started_and_removed():
    async def scenario():
        async with Supervisor([Child(Unborn, [None, *[Boom()] * 2], name="a")]) as top:
            top.child("a").cast(Boom())
            await until(lambda: states(top)["a"] == "waiting")
            await top.stop_child("a")
            await asyncio.sleep(60)
            assert states(top)["a"] == "stopped"
            with pytest.raises(StageCrashed):
                await top.restart_child("a")
            assert states(top)["a"] == "stopped"
            await top.restart_child("a")
            consistent(top)
        async with Supervisor([Child(Unborn, [None, *[Boom()] * 2], name="a")]) as top:
            top.child("a").cast(Boom())
            await until(lambda: states(top)["a"] == "waiting")
            await top.stop_child("a", remove=True)
            await asyncio.sleep(60)
            assert states(top) == {}
            await top.start_child(Child(Idle, name="a"))
            consistent(top)
        async with Supervisor([Child(Unborn, [None, Boom()], name="a")]) as top:
            top.child("a").cast(Boom())
            await until(lambda: states(top)["a"] == "waiting")
            await top.restart_child("a")
            await asyncio.sleep(60)
            consistent(top)
            assert top.children()[0].restarts == 2

    run(scenario)


def test_a_supervisor_that_has_ended_says_so():
    async def scenario():
        async with Supervisor([Child(Idle, name="a")]) as top:
            await top.stop()
            for asked in (
                top.start_child(Child(Idle, name="b")),
                top.stop_child("a"),
                top.restart_child("a"),
                top.resize("a", 2),
            ):
                with pytest.raises(NoStageError, match="supervisor 'supervisor' has ended"):
                    await asked
            assert await top.stop() == "shutdown"
            assert await top.wait() == "shutdown"
            top.kill()
            with pytest.raises(NoStageError):
                top.child("a")

    run(scenario)


def test_a_stop_answers_all_who_wait():
    async def scenario():
        async with Supervisor([Child(Idle, name="a")]) as top:
            asked = [
                asyncio.ensure_future(each)
                for each in (
                    top.start_child(Child(Flaky, [HOUR], name="hangs")),
                    top.start_child(Child(Idle, name="b")),
                    top.restart_child("a"),
                    top.wait(),
                )
            ]
            await asyncio.sleep(1)
            begin = now()
            await top.stop()
            *errors, reason = await asyncio.gather(*asked, return_exceptions=True)
            assert [type(error) for error in errors] == [NoStageError] * 3
            assert reason == "shutdown"
            assert now() - begin < 0.1

    run(scenario, policy="fifo")


def test_requests_at_the_same_time_are_carried_out_one_after_the_other():
    async def scenario():
        async with Supervisor([Child(Idle, name="w", count=2)]) as top:
            sizes = [5, 1, 4, 2, 7, 3]
            await asyncio.gather(
                *(top.resize("w", size) for size in sizes),
                *(top.start_child(Child(Idle, name=f"x{n}")) for n in range(5)),
                *(top.restart_child("w-1") for _ in range(5)),
            )
            consistent(top)
            group = [each for each in states(top) if each.startswith("w")]
            assert group == [f"w-{n + 1}" for n in range(len(group))]
            assert len(group) in sizes
            twice = await asyncio.gather(
                *(top.start_child(Child(Idle, name="y")) for _ in range(3)), return_exceptions=True
            )
            assert sorted(type(each).__name__ for each in twice) == ["OptionError", "OptionError", "Ref"]
            gone = await asyncio.gather(*(top.stop_child("y", remove=True) for _ in range(3)), return_exceptions=True)
            assert gone.count(None) == 1
            consistent(top)

    for seed in range(10):
        run(scenario, seed=seed, policy="shuffle")


def test_stops_of_many_kinds_at_once_come_to_one_end():
    async def scenario():
        async with Supervisor([Child(Idle, name="a"), Supervisor([Child(Idle, name="b")], id="n")]) as top:
            results = await asyncio.gather(
                top.stop(),
                top.system.stop(),
                top.stop("normal"),
                top.child("n").stop(),
                top.system.ref("a").stop(),
                top.wait(),
                top.system.wait(),
                top.system.drain(),
                return_exceptions=True,
            )
            assert not [each for each in results if isinstance(each, BaseException)]
            assert not top.alive

    for seed in range(20):
        run(scenario, seed=seed, policy="shuffle")


def test_a_stage_may_stop_its_own_supervisor():
    """It cannot wait for that: it is being stopped itself. It is killed when its time is over, and all is well."""

    class Suicidal(Idle):
        async def handle_cast(self, message):
            await message.stop()

    async def scenario():
        async with Supervisor([Child(Idle, name="a"), Child(Suicidal, name="b", shutdown=2)]) as top:
            top.child("b").cast(top)
            begin = now()
            assert await top.wait() == "shutdown"
            assert now() - begin < 3

    run(scenario)


def test_crashes_while_something_is_asked_are_seen_to_afterwards():
    async def scenario():
        async with Supervisor([Child(Idle, name="a"), Child(Idle, name="b")]) as top:
            asked = asyncio.ensure_future(top.start_child(Child(Flaky, [5.0], name="slow")))
            await asyncio.sleep(1)
            top.child("a").cast(Boom())
            top.child("b").cast(Boom())
            await asked
            await until(lambda: set(states(top).values()) == {"running"})
            assert [each.restarts for each in top.children()] == [1, 1, 0]

    run(scenario)


# -- whoever asked is cancelled ---------------------------------------------------------------------------------------


def pipeline(seen):
    return Supervisor(
        [
            Child(Numbers, 400, name="source"),
            Child(Same, name="same", count=2, subscribe_to=[To("source", max_demand=10)]),
            Child(Slow, seen, 0.002, name="sink", subscribe_to=[To("same", max_demand=10)]),
        ]
    )


REQUESTS = {
    "start_child": lambda top: top.start_child(
        Child(Flaky, [0.005], name="new", restart="temporary", subscribe_to=[To("same", max_demand=10, mode="manual")])
    ),
    "start a group": lambda top: top.start_child(Child(Flaky, [0.001] * 3, name="new", restart="temporary", count=3)),
    "stop_child": lambda top: top.stop_child("sink"),
    "stop a group": lambda top: top.stop_child("same"),
    "remove": lambda top: top.stop_child("sink", remove=True),
    "restart_child": lambda top: top.restart_child("sink"),
    "resize up": lambda top: top.resize("same", 4),
    "resize down": lambda top: top.resize("same", 1),
    "stop": lambda top: top.stop(),
    "wait": lambda top: top.wait(),
    "subscribe": lambda top: top.system.ref("sink").subscribe("source", max_demand=10),
    "call": lambda top: top.system.ref("same-1").call("hello"),
    "stop a stage": lambda top: top.system.ref("same-2").stop(),
    "drain a stage": lambda top: top.system.ref("same-2").drain(),
    "drain": lambda top: top.system.drain(),
}


async def cancelled_after(steps, request):
    """Cancel a request after so many turns of the loop; return whether it was done by then."""
    task = asyncio.ensure_future(request)
    for _ in range(steps):
        if task.done():
            break
        await asyncio.sleep(0)
    done = task.done()
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
    return done


@pytest.mark.slow
@pytest.mark.parametrize("request_", list(REQUESTS))
def test_a_request_may_be_cancelled_at_any_moment(request_):
    """It is carried out or not, but the numbers are right, nobody hangs, and what is asked next is answered."""

    async def scenario(steps):
        seen = []
        async with pipeline(seen) as top:
            await until(lambda: len(seen) > 20)
            done = await cancelled_after(steps, REQUESTS[request_](top))
            if request_ in ("stop", "drain"):
                await top.wait()
            elif request_ != "wait":
                await top.start_child(Child(Idle, name="last"))  # all that was asked before is over then
                await until(lambda: "starting" not in states(top).values() and "waiting" not in states(top).values())
                consistent(top)
                await top.stop_child("last", remove=True)
            if top.alive and request_ not in ("stop_child", "stop a group", "remove", "start_child", "start a group"):
                assert await top.wait() == "normal"
                assert sorted(set(seen)) == list(range(400))
        return done

    steps = 0
    while not run(lambda s=steps: scenario(s), seed=steps) and steps < 400:
        steps += 1 if steps < 40 else 13
    assert steps > 0 or request_ in ("subscribe", "call")


@pytest.mark.slow
@pytest.mark.parametrize("twice", [False, True])
def test_starting_an_app_may_be_cancelled_at_any_moment(twice):
    log = []

    async def scenario(steps):
        log.clear()
        async with System() as system:
            app = Supervisor(
                [
                    fresh(Idle, "a", log),
                    Supervisor([Child(Flaky, [0.001], log, name="b"), fresh(Idle, "c", log)], id="nested"),
                    Child(Numbers, name="source", place="thread"),
                    Child(Sink, [], name="sink", subscribe_to=["source"]),
                ]
            )
            task = asyncio.ensure_future(system.start(app))
            for _ in range(steps):
                if task.done():
                    break
                await asyncio.sleep(0)
            done = task.done()
            task.cancel()
            if twice:
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.wait([task])
            if not done:
                assert task.cancelled() or task.exception() is None
                if task.cancelled():
                    await until(lambda: not system.stages() and not system.node.supervisions)
                    assert not system.node.awaited.expected
                    assert not system.node.names
            await system.start(Child(Idle, name="z"))
        started = [each[1] for each in log if each[0] == "start"]
        stopped = [each[1] for each in log if each[0] == "stop"]
        assert stopped in (started[::-1], started[-2::-1])  # the one that was just coming up is not told
        return done

    steps = 0
    while not run(lambda s=steps: scenario(s), seed=steps):
        steps += 1
    assert steps > 5


def test_the_end_of_the_block_may_be_cancelled():
    async def scenario(steps):
        log = []

        async def block():
            async with Supervisor([fresh(Idle, "a", log), fresh(Idle, "b", log)]):
                pass

        done = await cancelled_after(steps, block())
        await asyncio.sleep(10)
        started, stopped = ([each[1] for each in log if each[0] == word] for word in ("start", "stop"))
        assert stopped in (started[::-1], started[-2::-1])
        return done

    steps = 0
    while not run(lambda s=steps: scenario(s), seed=steps):
        steps += 1


def test_an_error_that_nobody_waits_for_any_more_is_not_logged_by_asyncio():
    heard = []

    async def scenario():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
        async with Supervisor([Child(Idle, name="a")]) as top:
            asked = asyncio.ensure_future(top.start_child(Child(Flaky, [Boom()], name="b")))
            await asyncio.sleep(0)
            asked.cancel()
            await asyncio.wait([asked])
            await asyncio.sleep(1)
            assert states(top) == {"a": "running"}

    run_on(VirtualLoop(), scenario())
    gc.collect()
    assert not heard
