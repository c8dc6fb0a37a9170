"""The fast lane is a shortcut: the same messages, in the same order, as by the long way."""

import pytest

from headgate.testing.simulation.families import FAMILIES, build
from headgate.testing.simulation.schedule import Schedule
from headgate.testing.simulation.world import World


def run(family, seed, *, lanes, hands):
    scenario = build(family, seed)
    scenario.lanes, scenario.hands = lanes, hands
    world = World(scenario, seed, tail=1_000_000)
    Schedule(world, seed).run()
    return [repr(action) for action in world.trace]


@pytest.mark.slow
@pytest.mark.parametrize("hands", [False, True], ids=["by mailbox", "by hand"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_lane_does_what_the_core_does(family, hands):
    for seed in range(40):
        assert run(family, seed, lanes=True, hands=hands) == run(family, seed, lanes=False, hands=hands), seed
