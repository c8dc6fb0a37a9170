"""The simulation of the shell: whatever the order of callbacks, and whoever crashes, systems keep their word."""

import os
import subprocess
import sys

import pytest

from headgate.testing.shell import FAMILIES, ShellError, World, run_all, run_family, run_seed, uncovered
from headgate.testing.shell.families import EXPECTED
from headgate.testing.shell.pipelines import PIPELINES

SEEDS = 150


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_no_schedule_breaks_a_rule(family):
    """Nothing is lost, doubled without a crash, reordered, hanging or left behind; the numbers always add up."""
    summary = run_family(family, range(SEEDS))
    assert not summary.failures, summary.failures[0][3]
    assert summary.schedules == SEEDS


@pytest.mark.skipif("HEADGATE_LONG" not in os.environ, reason="python -m headgate.testing.shell runs these")
def test_two_thousand_schedules():
    summaries, _ = run_all(FAMILIES, 2000)
    for summary in summaries.values():
        assert not summary.failures, summary.failures[0][3]
    assert uncovered(summaries) == []


def test_every_family_says_which_faults_it_expects():
    assert set(EXPECTED) == set(FAMILIES)


@pytest.mark.parametrize(
    "family", [pytest.param(each, marks=pytest.mark.slow if each in PIPELINES else ()) for each in FAMILIES]
)
def test_a_seed_gives_the_same_run_again(family):
    for seed in range(3):
        assert run_seed(family, seed).digest() == run_seed(family, seed).digest()


@pytest.mark.parametrize("policy", ["fifo", "shuffle", "tasks"])
def test_a_policy_can_be_chosen(policy):
    assert run_seed("chain", 7, policy=policy).loop.steps


DIGESTS = """
from headgate.testing.shell import FAMILIES, run_seed
for family in FAMILIES:
    for seed in range(8):
        print(family, seed, run_seed(family, seed).digest())
"""


@pytest.mark.slow
def test_a_seed_gives_the_same_run_in_another_process():
    """Replay does not depend on the hash seed of the process, on addresses, or on what ran before."""
    outputs = set()
    for hash_seed in ("0", "4711"):
        command = [sys.executable, "-c", DIGESTS]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        outputs.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(outputs) == 1
    assert len(outputs.pop().splitlines()) == 8 * len(FAMILIES)


def test_a_failing_seed_says_how_to_replay_it(monkeypatch):
    """The report has the family, the seed, what happened last, and one command."""
    monkeypatch.setattr(World, "lost", lambda self: [("s0", 0)])
    with pytest.raises(ShellError) as caught:
        run_seed("chain", 3)
    text = str(caught.value)
    assert "family chain, seed 3: Violation: lost: 1 of" in text
    assert "things that happened" in text
    assert "python -m headgate.testing.shell --families chain --seed 3 --trace" in text
    assert caught.value.rule == "lost"


@pytest.mark.slow
def test_the_command_line_replays_a_seed():
    command = [sys.executable, "-m", "headgate.testing.shell", "--families", "chain", "--seed", "7", "--trace"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing wrong" in done.stdout
    assert " ms  started " in done.stdout


@pytest.mark.slow
def test_the_command_line_names_an_unknown_family():
    command = [sys.executable, "-m", "headgate.testing.shell", "--families", "chains"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "expected families to be among chain, suspended" in done.stdout
