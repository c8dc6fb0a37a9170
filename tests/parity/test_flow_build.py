"""Flows as they are written down: recipes, and orders of operators."""

import operator

import pytest

from headgate import Flow, Supervisor
from headgate.flow import windows
from tests.parity.flows import states, total
from tests.parity.registry import different
from tests.parity.stages import Log, refused

NUMBERS = Flow.from_iterable([1, 2, 3])


def test_a_flow_gives_the_recipe_of_a_child():
    """F001: what a flow gives as a child has defaults, and each can be overridden."""
    plain = NUMBERS.app()
    assert (plain.id, plain.name, plain.restart, plain.shutdown) == ("flow", None, "permanent", 30.0)
    given = NUMBERS.app(id="mine", name="numbers", restart="transient", shutdown=1.0)
    assert (given.id, given.name, given.restart, given.shutdown) == ("mine", "numbers", "transient", 1.0)


async def test_a_flow_is_a_child_and_runs():
    """F002: a flow is a child of a supervisor, and does what its functions do."""
    seen = Log()
    await Supervisor([NUMBERS.tap(seen.append).app()])
    assert seen == [1, 2, 3]


@different("F003", "operators compose: a reduce of what a reduce gives is a reduce like any other")
@different("F005", "operators compose: batches can be mapped anywhere")
@different("F006", "operators compose: what a reduce gives can be mapped")
def test_operators_compose():
    """F003, F005, F006: none of these orders is refused."""
    for workers in (1, 3):
        flow = Flow.from_iterable(range(10)).options(workers=workers)
        assert total(total(flow)).to_list() == [45]
        assert flow.map(str).map_batches(lambda batch: [int(each) for each in batch]).sum().to_list() == [45]
        assert total(flow).map_batches(list).map(lambda n: n + 1).to_list() == [46]
        assert flow.reduce(int, operator.add).emit("state").map(str).to_list() == ["45"]
        assert sorted(flow.count_by(lambda n: n % 3).filter(lambda pair: pair[0]).to_list()) == [(1, 3), (2, 3)]


@pytest.mark.parametrize("before", [NUMBERS, NUMBERS.map(str), total(NUMBERS).map(str)])
def test_what_a_reduce_gives_is_said_behind_it(before):
    """F004: on_trigger and emit without a reduce right before them are refused when they are written down."""
    with refused(ValueError, "on_trigger", "reduce", "right before it"):
        states(before)
    with refused(ValueError, "emit", "reduce"):
        before.emit("state")


def test_it_is_said_once():
    """F004: and so is saying it twice."""
    for flow in (states(total(NUMBERS)), total(NUMBERS).emit("state"), total(NUMBERS).emit("nothing")):
        with refused(ValueError, "on_trigger", "used once"):
            states(flow)
        with refused(ValueError, "emit", "used once"):
            flow.emit("state")


@pytest.mark.parametrize("flow", [NUMBERS, NUMBERS.map(str), NUMBERS.partition(), total(NUMBERS).shuffle()])
def test_windows_without_a_reduce(flow):
    """F007: windows that nothing is done in are refused when the flow is run."""
    windowed = flow.window(windows.fixed(1, by=lambda n: n))
    for run in (windowed.to_list, windowed.run, windowed.app, windowed.explain, lambda: list(windowed)):
        with refused(ValueError, "Flow.window", "followed by a reduce"):
            run()
