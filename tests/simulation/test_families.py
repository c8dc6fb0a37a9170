"""The seeded simulator: whatever the order of messages, and whoever crashes, the protocol keeps its word."""

import os
import subprocess
import sys

import pytest

from headgate.testing.simulation import FAMILIES, SimulationError, run_all, run_family, run_seed, uncovered
from headgate.testing.simulation.world import World

SEEDS = 150


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_no_schedule_breaks_a_rule(family):
    """Nothing is lost, doubled without a crash, reordered or left behind; nobody stalls; demand adds up."""
    summary = run_family(family, range(SEEDS))
    assert not summary.failures, summary.failures[0][3]
    assert summary.schedules == SEEDS


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_fault_happens(family):
    """A fault that a family can draw but that never happens would make a green run worth nothing."""
    seeds = 300
    summary = run_family(family, range(1000, 1000 + seeds))
    assert not summary.failures, summary.failures[0][3]
    assert uncovered({family: summary}) == []


@pytest.mark.skipif("HEADGATE_LONG" not in os.environ, reason="python -m headgate.testing.simulation runs these")
def test_ten_thousand_schedules():
    summaries, _ = run_all(FAMILIES, 10_000)
    for summary in summaries.values():
        assert not summary.failures, summary.failures[0][3]


def digest(family, seed):
    world = run_seed(family, seed, trace=True)
    return [repr(action[:3]) for action in world.trace]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_gives_the_same_run_again(family):
    for seed in range(5):
        assert digest(family, seed) == digest(family, seed)


@pytest.mark.slow
def test_a_seed_gives_the_same_run_in_another_process():
    """Replay does not depend on the hash seed of the process."""
    outputs = set()
    for hash_seed in ("0", "1", "4711"):
        command = [sys.executable, "-m", "headgate.testing.simulation", "--family", "chain", "--seed", "7", "--trace"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        outputs.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(outputs) == 1
    assert "nothing wrong" in outputs.pop()


def test_a_failing_seed_says_how_to_replay_it(monkeypatch):
    """The report has the family, the seed, the last actions, and one command."""
    monkeypatch.setattr(World, "heal", lambda self: 1 / 0)
    with pytest.raises(SimulationError) as caught:
        run_seed("demand", 3)
    text = str(caught.value)
    assert "family demand, seed 3: ZeroDivisionError" in text
    assert "its last" in text
    assert "python -m headgate.testing.simulation --family demand --seed 3 --trace" in text
    assert caught.value.rule == "ZeroDivisionError"
