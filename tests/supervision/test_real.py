# mypy: disable-error-code="union-attr,var-annotated,arg-type,misc"
"""The same on asyncio's own loop, with real threads and real time: a few of everything."""

import random
import threading

import pytest

from headgate import RestartLimitError
from tests.places.helpers import run, until
from tests.supervision.helpers import Boom, Child, Flaky, Idle, Numbers, Same, Sink, Supervisor, To, at, states

PLACES = ["inline", "task", "thread"]
MANY = 10_000


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_pipeline_with_crashes_everywhere_loses_nothing_and_ends_by_itself(place):
    seen = []
    chance = random.Random(5)
    lock = threading.Lock()

    def crash(event):
        with lock:
            return chance.random() < 0.001 or event == 777

    async def scenario():
        children = [
            Child(at(place, Numbers), MANY, name="source", place=place),
            Child(at(place, Same), name="same", count=2, subscribe_to=["source"], place=place),
            Supervisor(
                [
                    Child(at(place, Sink), seen, crash, name="sink", count=2, subscribe_to=["same"], place=place),
                ],
                id="nested",
            ),
        ]
        async with Supervisor(children) as top:
            assert await top.wait() == "normal"
            assert [letter.event for letter in top.system.letters] == [777]
        assert set(seen) == set(range(MANY)) - {777}

    run(scenario)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_group_is_resized_under_load_without_loss_and_without_duplicates(place):
    seen = []

    async def scenario():
        children = [
            Child(Numbers, 30_000, name="source"),
            Child(at(place, Same), name="same", count=2, subscribe_to=[To("source", max_demand=20)], place=place),
            Child(at("task", Sink), seen, name="sink", subscribe_to=[To("same", max_demand=20)]),
        ]
        async with Supervisor(children) as top:
            for size in (5, 1, 3, 2):
                before = len(seen)
                await until(lambda b=before: len(seen) > b + 100 or not top.alive)
                if top.alive:
                    await top.resize("same", size)
            assert await top.wait() == "normal"
        assert sorted(seen) == list(range(30_000))

    run(scenario)


@pytest.mark.parametrize("place", PLACES)
def test_a_drain_finishes_what_was_begun(place):
    seen = []

    async def scenario():
        children = [
            Child(at(place, Numbers), name="source", place=place),
            Child(at(place, Same), name="same", subscribe_to=[To("source", max_demand=100)], place=place),
            Child(at(place, Sink), seen, name="sink", subscribe_to=[To("same", max_demand=100)], place=place),
        ]
        async with Supervisor(children) as top:
            await until(lambda: len(seen) > 1000)
            drained = await top.system.drain(timeout=5)
            assert drained.complete
            assert drained.handled == len(seen)
            assert seen == list(range(len(seen)))
            assert await top.wait() == "normal"

    run(scenario)


def test_back_off_and_giving_up_and_starting_by_hand():
    async def scenario():
        children = [Child(Flaky, [None, Boom(), Boom()], name="a"), Child(Idle, name="b")]
        async with Supervisor(children, max_restarts=5) as top:
            top.child("a").cast(Boom())
            await until(lambda: top.children()[0].restarts == 3 and states(top)["a"] == "running")
            await top.stop_child("b")
            assert (await top.restart_child("b")).alive
            await top.start_child(Child(Flaky, [None] + [Boom()] * 9, name="c"))
            top.child("c").cast(Boom())
            with pytest.raises(RestartLimitError, match="'c'"):
                await top.wait()

    run(scenario)
