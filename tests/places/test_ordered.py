# mypy: disable-error-code="var-annotated"
"""A group whose output comes in the order of its input, at every place."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import Child, OptionError, Process, ProducerConsumer, StageCrashed, Supervisor, System, To, ordered
from headgate.ordered import _spans
from tests.places.helpers import Collect, Counter, at, run, until
from tests.places.shared import share
from tests.places.stages import Boom


class Uneven(ProducerConsumer):
    """Gives each number as often as its last digit says, and takes longer for some."""

    def __init__(self, poison=None, log=None):
        self.poison = poison
        self.log = log

    def started(self):
        if self.log is not None:
            self.log.append("started")

    def terminate(self, reason):
        if self.log is not None:
            self.log.append("terminated")

    def handle_events(self, events, source):
        if self.poison in events:
            raise Boom(self.poison)
        return [event for event in events for _ in range(event % 10)]


EXPECTED = [event for event in range(500) for _ in range(event % 10)]


def group(place, *args, **options):
    if place == "process":
        args, place = tuple(map(share, args)), Process()
    cls = at(place, Uneven) if isinstance(place, str) else Uneven
    return ordered(Child(cls, *args, place=place, count=3, **options))


def test_the_output_is_in_the_order_of_the_input(place):
    async def scenario():
        seen, log = [], []
        async with System() as system:
            await system.start(
                Supervisor(
                    [
                        Child(Counter, 500, name="counter"),
                        group(place, None, log, name="group", subscribe_to=[To("counter", max_demand=60)]),
                        Child(Collect, seen, subscribe_to=["group"]),
                    ]
                )
            )
            await system.wait()
        assert seen == EXPECTED
        assert sorted(log) == ["started"] * 3 + ["terminated"] * 3

    run(scenario)


def test_what_a_member_raises_is_the_crash_of_the_group_and_nothing_is_lost(place):
    async def scenario():
        seen = []
        async with System() as system:
            counter = await system.start(Child(Counter, 500))
            weak = await system.start(group(place, 123, subscribe_to=[To(counter, max_demand=20)]))
            await system.start(Child(Collect, seen, subscribe_to=[To(weak, cancel="temporary")]))
            with pytest.raises(StageCrashed) as caught:
                await weak.wait()
            assert isinstance(caught.value.__cause__, Boom)
            other = await system.start(group(place, subscribe_to=[counter]))
            sink = await system.start(Child(Collect, seen, subscribe_to=[other]))
            await sink.wait()
            await until(lambda: len(system.stages()) == 1, "members end with their group")
        assert set(seen) == set(EXPECTED), "what was sent on and not acknowledged comes again"

    run(scenario)


class Fragile(ProducerConsumer):
    """Ends its process with one event, the first few times."""

    def __init__(self, deaths, most):
        self.deaths = deaths
        self.most = most

    def handle_events(self, events, source):
        if 77 in events and len(self.deaths) < self.most:
            self.deaths.append(77)
            os._exit(9)
        return list(events)


def test_a_member_whose_worker_dies_is_replaced_and_the_order_stays():
    async def scenario():
        seen, deaths = [], []
        async with System() as system:
            counter = await system.start(Child(Counter, 200))
            recipe = Child(
                Fragile, share(deaths), 2, place=Process(), count=2, subscribe_to=[To(counter, max_demand=40)]
            )
            await system.start(Child(Collect, seen, subscribe_to=[await system.start(ordered(recipe))]))
            await system.wait()
        assert seen == list(range(200))
        assert deaths == [77, 77]

    run(scenario)


def test_an_event_that_kills_every_worker_becomes_a_dead_letter():
    async def scenario():
        seen, deaths = [], []
        async with System() as system:
            to = To("counter", max_demand=4)
            recipe = ordered(
                Child(Fragile, share(deaths), 1000, name="group", place=Process(), count=2, subscribe_to=[to])
            )
            await system.start(
                Supervisor(
                    [
                        Child(Counter, 100, name="counter", max_deliveries=1),
                        recipe,
                        Child(Collect, seen, subscribe_to=["group"]),
                    ],
                    max_restarts=None,
                )
            )
            await system.wait()
            assert [letter.event for letter in system.letters] == [77]
        assert list(dict.fromkeys(seen)) == [event for event in range(100) if event != 77]

    run(scenario)


@given(st.integers(0, 3000), st.integers(1, 16))
def test_a_batch_is_cut_into_parts_that_get_smaller(size, workers):
    spans = list(_spans(size, workers))
    assert [start for start, _ in spans] == [0, *(stop for _, stop in spans)][: len(spans)]
    assert not size or spans[-1][1] == size
    sizes = [stop - start for start, stop in spans]
    assert sizes == sorted(sizes, reverse=True)
    assert size < 2 * workers or sizes[-1] == 1


@pytest.mark.parametrize("child", [None, Counter, Child(Counter), Child(Collect)])
def test_only_a_middle_stage_can_be_a_group(child):
    with pytest.raises(OptionError, match="ProducerConsumer"):
        ordered(child)
