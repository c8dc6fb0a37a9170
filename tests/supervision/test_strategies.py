# mypy: disable-error-code="union-attr,var-annotated,arg-type,misc"
"""Who is started again, in which order, how soon, and when a supervisor gives up."""

import asyncio
import logging
from itertools import pairwise

import pytest

from headgate import Backoff, Ignore, RestartLimitError, StageCrashed
from tests.supervision.helpers import (
    HOUR,
    Boom,
    Child,
    Flaky,
    Idle,
    Numbers,
    Same,
    Sink,
    Supervisor,
    To,
    Unborn,
    at,
    fresh,
    now,
    run,
    states,
    until,
)

PLACES = ["inline", "task", "thread"]
STRATEGIES = ["one_for_one", "one_for_all", "rest_for_one"]


def four(log, place="inline", **options):
    return Supervisor([Child(at(place, Idle), log, name=name, place=place) for name in "abcd"], **options)


def restarts(running):
    return {each.id: each.restarts for each in running.children()}


# -- strategies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("strategy", "again"), [("one_for_one", "b"), ("one_for_all", "abcd"), ("rest_for_one", "bcd")]
)
def test_the_strategy_says_who_is_started_again_in_order_and_afresh(place, strategy, again):
    log = []

    async def scenario():
        async with four(log, place, strategy=strategy) as top:
            before = {name: top.child(name) for name in "abcd"}
            log.clear()
            before["b"].cast(Boom())
            await until(lambda: len([each for each in log if each[0] == "start"]) == len(again))
            await until(lambda: set(states(top).values()) == {"running"})
            assert [each[1] for each in log if each[0] == "stop"] == [
                "b",
                *[name for name in again[::-1] if name != "b"],
            ]
            assert [each[1] for each in log if each[0] == "start"] == list(again)
            for name in "abcd":
                assert (top.child(name) is before[name]) == (name not in again)
                assert (top.child(name).driver.instance is before[name].driver.instance) == (name not in again)
            assert restarts(top) == {name: int(name == "b") for name in "abcd"}

    run(scenario)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_last_of_all_and_the_first_of_all(strategy):
    log = []

    async def scenario():
        async with four(log, strategy=strategy) as top:
            for name, again in (("d", {"one_for_all": "abcd"}), ("a", {"one_for_one": "a"})):
                log.clear()
                wanted = again.get(strategy, {"d": "d", "a": "abcd"}[name])
                top.child(name).cast(Boom())
                await until(lambda w=wanted: [each[1] for each in log if each[0] == "start"] == list(w))

    run(scenario)


def test_several_that_crash_at_once_are_all_back_with_each_strategy():
    for strategy in STRATEGIES:
        for seed in range(10):

            async def scenario(strategy=strategy):
                async with four([], strategy=strategy, max_restarts=10) as top:
                    for name in "dbca":
                        top.child(name).cast(Boom())
                    await asyncio.sleep(5)
                    assert set(states(top).values()) == {"running"}
                    assert len(top.system.stages()) == 4

            run(scenario, seed=seed)


def test_those_that_are_done_or_stopped_stay_so_when_all_others_are_started_again():
    async def scenario():
        async with four([], strategy="one_for_all") as top:
            await top.stop_child("c")
            await top.start_child(Child(Idle, [], name="e", restart="temporary"))
            top.child("e").cast("normal")
            await until(lambda: states(top)["e"] == "done")
            old = top.child("a")
            top.child("b").cast(Boom())
            await until(lambda: top.child("a") is not old and states(top)["d"] == "running")
            assert states(top) == {"a": "running", "b": "running", "c": "stopped", "d": "running", "e": "done"}

    run(scenario)


# -- restart kinds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", ["normal", "shutdown", ("shutdown", "why"), "odd", Boom()], ids=str)
@pytest.mark.parametrize("kind", ["permanent", "transient", "temporary"])
def test_the_restart_kind_and_the_reason_say_whether_it_comes_back(kind, how, place):
    back = kind == "permanent" or (kind == "transient" and (how == "odd" or isinstance(how, Boom)))

    async def scenario():
        child = Child(at(place, Idle), [], name="a", restart=kind, place=place)
        async with Supervisor([child], auto_shutdown=False) as top:
            top.child("a").cast(how)
            await until(lambda: top.children()[0].reason is not None and states(top)["a"] in ("running", "done"))
            (info,) = top.children()
            assert (info.state, info.restarts) == (("running", 1) if back else ("done", 0))
            if isinstance(how, Boom):
                assert isinstance(info.reason, StageCrashed)
                assert info.reason.__cause__ is how
            else:
                assert info.reason == how

    run(scenario)


@pytest.mark.parametrize("kind", ["permanent", "transient", "temporary"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_finite_pipeline_ends_by_itself(kind, strategy):
    seen = []

    async def scenario():
        app = Supervisor(
            [
                Child(Numbers, 3000, name="source", restart=kind),
                Supervisor(
                    [Child(Same, name="same", subscribe_to=["source"], restart=kind)], id="middle", restart=kind
                ),
                Child(Sink, seen, name="sink", subscribe_to=[To("same", max_demand=100)], restart=kind),
            ],
            strategy=strategy,
        )
        async with app as top:
            assert await top.wait() == "normal"
            assert states(top) == {"source": "done", "middle": "done", "sink": "done"}
            assert sum(restarts(top).values()) == 0
        assert seen == list(range(3000))

    run(scenario)


def test_an_app_of_temporary_children_ends_when_they_have():
    async def scenario():
        async with Supervisor([Child(Idle, [], name=name, restart="temporary") for name in "ab"]) as top:
            top.child("a").cast(Boom())
            await until(lambda: states(top)["a"] == "done")
            assert top.alive
            top.child("b").cast("normal")
            assert await top.wait() == "normal"

    run(scenario)


def test_ignore_leaves_a_child_out():
    async def scenario():
        children = [Child(Unborn, [Ignore()], name="a"), Child(Flaky, [Ignore()], name="b"), Child(Idle, [], name="c")]
        async with Supervisor(children) as top:
            assert states(top) == {"a": "done", "b": "done", "c": "running"}
            assert await top.start_child(Child(Unborn, [Ignore()], name="d")) is None
            assert states(top)["d"] == "done"
            top.child("c").cast(Boom())
            await until(lambda: restarts(top)["c"] == 1)
        async with Supervisor([Child(Flaky, [None, Ignore()], name="a")]) as top:
            top.child("a").cast(Boom())
            assert await top.wait() == "normal"

    run(scenario)


# -- intensity and escalation -----------------------------------------------------------------------------------------


def test_restarts_within_the_limit_are_carried_out_and_one_more_is_not():
    log = []

    async def scenario():
        async with four(log, max_restarts=2, max_seconds=5) as top:
            for times, name in enumerate("ab", start=1):
                top.child(name).cast(Boom())
                await until(
                    lambda t=times: sum(restarts(top).values()) == t and set(states(top).values()) == {"running"}
                )
            log.clear()
            top.child("c").cast(Boom("the last straw"))
            with pytest.raises(RestartLimitError) as caught:
                await top.wait()
            assert caught.value.child == "c"
            assert str(caught.value.__cause__.__cause__) == "the last straw"
            assert [each[1] for each in log if each[0] == "stop"] == ["c", "d", "b", "a"]
            assert not [each for each in log if each[0] == "start"]

    run(scenario)


def test_restarts_that_are_far_apart_are_never_too_many():
    async def scenario():
        async with four([], max_restarts=1, max_seconds=5) as top:
            for times in range(1, 10):
                top.child("a").cast(Boom())
                await until(lambda t=times: restarts(top)["a"] == t and states(top)["a"] == "running")
                await asyncio.sleep(5.1)

    run(scenario)


def test_no_restart_at_all_is_a_choice():
    async def scenario():
        async with four([], max_restarts=0) as top:
            top.child("a").cast(Boom())
            with pytest.raises(RestartLimitError, match="at most 0 restarts"):
                await top.wait()

    run(scenario)


def test_a_nested_supervisor_that_gives_up_is_started_again_by_the_one_above_it():
    log = []

    async def scenario():
        nested = Supervisor([fresh(Idle, "b", log), fresh(Idle, "c", log)], id="nested", max_restarts=0)
        async with Supervisor([fresh(Idle, "a", log), nested, fresh(Idle, "d", log)]) as top:
            before = top.child("nested")
            log.clear()
            before.child("c").cast(Boom("deep"))
            await until(lambda: states(top)["nested"] == "running" and top.child("nested") is not before)
            assert [each[:2] for each in log] == [("stop", "c"), ("stop", "b"), ("start", "b"), ("start", "c")]
            info = top.children()[1]
            assert (info.restarts, info.kind) == (1, "supervisor")
            assert isinstance(info.reason, RestartLimitError)
            assert before.reason is info.reason
            assert isinstance(info.reason.__cause__, StageCrashed)

    run(scenario)


def test_giving_up_climbs_from_the_bottom_to_the_top():
    async def scenario():
        low = Supervisor([Child(Idle, [], name="a")], id="low", max_restarts=1)
        middle = Supervisor([low], id="middle", max_restarts=1)
        crashes = 0
        async with Supervisor([middle], id="top", max_restarts=0) as top:
            while top.alive and crashes < 20:
                ref = top.system.node.names.get("a")
                if ref is not None and ref.alive:
                    crashes += 1
                    ref.cast(Boom(crashes))
                    await ref.driver.done
                await asyncio.sleep(0.001)
            with pytest.raises(RestartLimitError, match=r"'top'.*child 'middle'") as caught:
                await top.wait()
            chain = []
            error: BaseException | None = caught.value
            while error is not None:
                chain.append(getattr(error, "child", type(error).__name__))
                error = error.__cause__
            assert chain == ["middle", "low", "a", "StageCrashed", "Boom"]
            assert crashes == 4  # low allows one, twice; the second time is too much for middle

    run(scenario)


@pytest.mark.parametrize("kind", ["permanent", "transient", "temporary"])
def test_a_nested_supervisor_has_a_restart_kind_too(kind):
    async def scenario():
        nested = Supervisor([Child(Idle, [], name="a")], id="nested", max_restarts=0, restart=kind)
        async with Supervisor([nested, Child(Idle, [], name="b")]) as top:
            top.system.ref("a").cast(Boom())
            await until(lambda: isinstance(top.children()[0].reason, RestartLimitError))
            await asyncio.sleep(1)
            assert states(top)["nested"] == ("done" if kind == "temporary" else "running")
            await top.child("b").stop()

    run(scenario)


# -- errors of starts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_restart_that_fails_counts_and_is_tried_again(strategy):
    async def scenario():
        children = [
            Child(Idle, [], name="a"),
            Child(Unborn, [None, Boom(), Boom()], name="b"),
            Child(Idle, [], name="c"),
        ]
        async with Supervisor(children, strategy=strategy) as top:
            top.child("b").cast(Boom())
            await until(lambda: restarts(top)["b"] == 3 and set(states(top).values()) == {"running"})
            assert len(top.system.stages()) == 3

    run(scenario)


@pytest.mark.parametrize("place", PLACES)
def test_restarts_that_always_fail_are_too_many(place):
    async def scenario():
        child = Child(Unborn, [None] + [Boom("no database")] * 9, name="a", place=place)
        async with Supervisor([child]) as top:
            top.child("a").cast(Boom())
            with pytest.raises(RestartLimitError) as caught:
                await top.wait()
            assert "no database" in str(caught.value)

    run(scenario)


def test_restarts_without_a_wait_and_without_a_limit_do_not_pile_up():
    async def scenario():
        child = Child(Unborn, [None] + [Boom()] * 1500, name="a")
        async with Supervisor([child], max_restarts=None, backoff=Backoff(first=0)) as top:
            top.child("a").cast(Boom())
            await until(lambda: states(top) == {"a": "running"} and restarts(top)["a"] > 1)
            assert restarts(top) == {"a": 1501}

    run(scenario)


# -- back-off ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_waits_grow_with_jitter_and_begin_anew_after_a_calm_life():
    times = []

    class Late(Idle):
        def __init__(self):
            super().__init__()
            times.append(now())
            if 2 <= len(times) <= 13:
                raise Boom

    async def scenario():
        backoff = Backoff(first=0.1, factor=2, most=20, jitter=0.5, reset=4)
        async with Supervisor([Child(Late, name="a")], max_restarts=None, backoff=backoff) as top:
            top.child("a").cast(Boom())
            await until(lambda: len(times) == 14, timeout=HOUR)
            waits = [later - sooner for sooner, later in pairwise(times[1:])]
            full = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20, 20, 20, 20]
            for wait, longest in zip(waits, full, strict=True):
                assert longest * 0.5 <= wait <= longest + 0.01
            assert any(wait < longest * 0.95 for wait, longest in zip(waits, full, strict=True))
            await asyncio.sleep(4.1)
            begin = now()
            top.child("a").cast(Boom())
            await until(lambda: len(times) == 15)
            assert now() - begin < 0.01

    run(scenario)


def test_the_siblings_go_on_while_a_child_waits():
    seen = []

    async def scenario():
        children = [
            Child(Numbers, 200, name="source"),
            Child(Sink, seen, name="sink", subscribe_to=[To("source", max_demand=10)]),
            Child(Unborn, [None, Boom(), Boom()], name="bad"),
        ]
        async with Supervisor(children, backoff=Backoff(first=100, most=1000), auto_shutdown=False) as top:
            top.child("bad").cast(Boom())
            await until(lambda: states(top)["bad"] == "waiting")
            await until(lambda: len(seen) == 200)
            assert states(top)["bad"] == "waiting"
            await top.start_child(Child(Idle, [], name="new"))
            assert states(top)["new"] == "running"

    run(scenario)


def test_restarts_are_logged_at_most_once_a_second_with_the_traceback_and_a_count(caplog):
    class Weak(Idle):
        def handle_cast(self, message):
            raise Boom(message)

    async def scenario():
        backoff = Backoff(first=0.01, factor=1)
        async with Supervisor([Child(Weak, [], name="a")], max_restarts=None, backoff=backoff) as top:
            for n in range(300):
                await until(lambda: "a" in top.system.node.names)
                ref = top.system.ref("a")
                ref.cast(n)
                await ref.driver.done
            assert restarts(top)["a"] > 290
            return now()

    with caplog.at_level(logging.ERROR, "headgate"):
        seconds = run(scenario)
    lines = [record for record in caplog.records if "child 'a' has ended" in record.getMessage()]
    assert 2 <= len(lines) <= seconds + 2
    assert all(isinstance(record.exc_info[1], Boom) for record in lines)
    assert any("more ends since the last line" in record.getMessage() for record in lines)
