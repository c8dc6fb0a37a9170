# mypy: disable-error-code="union-attr"
"""On a real Ray cluster: two raylets on the loopback of a network namespace, started and ended by these tests."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNSHARE = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
WALLED = '{"ports": [20000, 20100]}'
"""Of those, none is open between the machines with walls."""
NONE = '{"ports": false}'
SCENARIOS = [
    "demand_goes_to_and_fro",
    "broadcast_and_partition",
    "cancel_modes",
    "what_a_crashed_consumer_had_goes_to_the_next",
    "a_supervisor_starts_a_crashed_stage_again",
    "draining_leaves_nothing_half_done",
    "a_chain_over_two_machines_goes_directly",
    "processes_and_actors_in_one_chain",
    "an_endless_source_and_a_slow_sink_stay_within_bounds",
    "connections_that_are_cut_cost_nothing",
    "an_actor_that_is_killed_costs_a_redelivery",
    "a_raylet_that_is_killed_costs_a_redelivery",
    "a_flow_counts_on_two_machines",
    "a_flow_makes_up_for_an_actor_that_is_killed",
    "a_lost_node_is_a_down_with_its_reason",
    "a_handler_that_never_returns_is_ended_with_its_actor",
    "a_driver_that_is_killed_leaves_no_actor",
    "a_system_that_ends_leaves_no_actor",
    "a_stranger_does_not_come_in",
    "resources_and_placement_are_ray_s",
    "what_cannot_be_placed_is_an_error_in_time",
    "another_cluster_than_the_one_that_is_connected_is_refused",
]

BEHIND_WALLS = [
    "demand_goes_to_and_fro",
    "broadcast_and_partition",
    "what_a_crashed_consumer_had_goes_to_the_next",
    "draining_leaves_nothing_half_done",
    "a_chain_over_two_machines_goes_directly",
    "processes_and_actors_in_one_chain",
    "an_endless_source_and_a_slow_sink_stay_within_bounds",
    "connections_that_are_cut_cost_nothing",
    "an_actor_that_is_killed_costs_a_redelivery",
    "a_raylet_that_is_killed_costs_a_redelivery",
    "a_flow_makes_up_for_an_actor_that_is_killed",
    "a_lost_node_is_a_down_with_its_reason",
    "a_driver_that_is_killed_leaves_no_actor",
    "a_system_that_ends_leaves_no_actor",
    "ferries_end_with_the_system",
    "ferries_that_are_killed_cost_nothing",
]

pytestmark = pytest.mark.slow


def _unshare():
    """Return what makes the namespaces: as root, or as a user who may be root in one."""
    for command in (UNSHARE, [*UNSHARE, "--map-root-user"]):
        if (
            shutil.which(command[0])
            and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
        ):
            return command
    return None


@pytest.fixture(scope="module")
def cluster():
    yield from _cluster()


@pytest.fixture(scope="module")
def walls():
    yield from _cluster("walls")


def _cluster(*how):
    if "HEADGATE_RAY" not in os.environ:
        pytest.skip("a cluster takes minutes: 'make ray' runs these")
    command = _unshare()
    if command is None:
        pytest.skip("no network namespace can be made here, and Ray would listen on all interfaces")
    folder = tempfile.mkdtemp(prefix="hg-", dir="/tmp")  # short: Ray puts sockets there
    environment = os.environ | {
        "RAY_TMPDIR": folder,  # no other cluster's addresses
        "TMPDIR": folder,
        "RAY_AUTH_MODE": "disabled",  # whatever tokens there are in this home
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "100",  # other tests may keep this machine busy
    }
    environment.pop("RAY_ADDRESS", None)
    with Path(folder, "errors").open("wb") as errors:
        process = subprocess.Popen(
            [*command, sys.executable, "-m", "tests.ray.inside", *how],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            bufsize=1,
        )
    yield process, folder
    process.stdin.close()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    process.stdout.close()
    shutil.rmtree(folder, ignore_errors=True)


def _answer(cluster, name, options=""):
    process, folder = cluster
    process.stdin.write(f"{name} {options}\n")
    while line := process.stdout.readline():
        answer = json.loads(line)
        if answer["name"] == name:
            return answer["error"]
    return Path(folder, "errors").read_text(errors="replace")[-4000:]


def test_two_machines_come_up(cluster):
    """By itself, as it takes a while."""
    assert _answer(cluster, "begin") is None


@pytest.mark.parametrize("name", SCENARIOS)
def test_on_ray(cluster, name):
    error = _answer(cluster, name)
    assert error is None, error


@pytest.mark.parametrize("options", [WALLED, NONE], ids=["walls", "no ports"])
@pytest.mark.parametrize("name", BEHIND_WALLS)
def test_behind_walls(walls, name, options):
    """Nothing above the links notices that what they say is carried by calls."""
    error = _answer(walls, name, options)
    assert error is None, error


def test_all_scenarios_are_run():
    text = Path(__file__).with_name("scenarios.py").read_text()
    there = [line.split("(")[0].removeprefix("async def ") for line in text.splitlines() if "(cluster):" in line]
    assert {*there} == {"begin", *SCENARIOS, *BEHIND_WALLS}
