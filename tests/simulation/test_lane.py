"""The fast lane is a shortcut: the same messages, in the same order, as by the long way."""

import pytest

from headgate.protocol import messages as m
from headgate.protocol.stage import StageCore
from headgate.testing.simulation import world as simulated
from headgate.testing.simulation.families import FAMILIES, build
from headgate.testing.simulation.schedule import Schedule
from headgate.testing.simulation.world import World


class Reference(StageCore):
    """The long way; an ask is taken at once by a middle stage whose handler runs, as the lane takes it."""

    def receive(self, message):
        out = self.out if self.into is not None and self.callback is not None and not self.held else None
        if message[0] == m.ASK and out is not None and out.ask(*message[1:]):
            return
        super().receive(message)


def run(family, seed, *, lanes, hands):
    scenario = build(family, seed)
    scenario.lanes, scenario.hands = lanes, hands
    world = World(scenario, seed, tail=1_000_000)
    Schedule(world, seed).run()
    return [repr(action) for action in world.trace]


@pytest.mark.slow
@pytest.mark.parametrize("hands", [False, True], ids=["by mailbox", "by hand"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_lane_does_what_the_core_does(family, hands, monkeypatch):
    monkeypatch.setattr(simulated, "StageCore", Reference)
    for seed in range(40):
        assert run(family, seed, lanes=True, hands=hands) == run(family, seed, lanes=False, hands=hands), seed
