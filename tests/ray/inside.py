# mypy: disable-error-code="attr-defined"
"""Runs scenarios on a cluster of two raylets: a name a line comes in, an answer in JSON a line goes out.

It runs in network, process and mount namespaces of its own (`test_ray.py` makes them): Ray listens on all interfaces
there are, which is the loopback alone, and whatever it starts ends with this program. With the argument ``walls`` the
second machine is a network namespace of its own, and between the two all ports are open but those of `WALLED`: what
home's machine is asked for there is refused, what the other one is asked for is swallowed.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import traceback
from pathlib import Path

SECONDS = 100.0
WALLED = (20_000, 20_100)
CLONE_NEWNET = 0x40000000


def loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        name_and_flags = struct.pack("16sh", b"lo", 1)  # IFF_UP
        fcntl.ioctl(sock, 0x8914, name_and_flags)  # SIOCSIFFLAGS


def shell(*commands):
    for command in commands:
        subprocess.run(command.split(), check=True)


@contextlib.contextmanager
def network(path):
    """Let what is started meanwhile be in another network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/self/ns/net").open() as ours, path.open() as theirs:
        assert libc.setns(theirs.fileno(), CLONE_NEWNET) == 0
        try:
            yield
        finally:
            assert libc.setns(ours.fileno(), CLONE_NEWNET) == 0


def wall():
    """Make the second machine's network, and the walls; return where it is found."""
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    path = Path(f"/proc/{holder.pid}/ns/net")
    while path.readlink() == Path("/proc/self/ns/net").readlink():
        pass
    shell(f"ip link add one type veth peer name two netns {holder.pid}", "ip addr add 10.9.0.1/24 dev one")
    shell("ip link set one up")
    ports = "{}-{}".format(*WALLED)
    with network(path):
        loopback_up()
        shell("ip addr add 10.9.0.2/24 dev two", "ip link set two up")
        shell(f"ip rule add ipproto tcp dport {ports} prohibit")
        shell(f"ip rule add from 10.9.0.2 ipproto tcp sport {ports} blackhole")
    return path


class Loopback:
    """Both machines on the loopback of one network."""

    hosts = "127.0.0.1", "127.0.0.2"

    def there(self):
        return contextlib.nullcontext()


class Walls:
    """The second one in a network of its own."""

    hosts = "10.9.0.1", "10.9.0.2"

    def __init__(self):
        self._path = wall()

    def there(self):
        return network(self._path)


def begin(machines):
    import ray  # noqa: PLC0415 (when the namespace is ready)
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    common = {"include_log_monitor": False, "object_store_memory": 80 << 20}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 8,
            "resources": {"head": 100, "either": 1},
            "node_ip_address": machines.hosts[0],
            "include_dashboard": False,
            **common,
        },
    )
    options = {
        "num_cpus": 8,
        "resources": {"other": 100, "either": 1},
        "node_ip_address": machines.hosts[1],
        **common,
    }

    def add_second():
        with machines.there():
            cluster.second = cluster.add_node(**options)

    cluster.hosts = machines.hosts
    cluster.add_second = add_second
    add_second()
    ray.init(address=cluster.address, log_to_driver=False)
    return cluster


def main():
    loopback_up()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else is printed is none
    cluster = begin(Walls() if sys.argv[1:] == ["walls"] else Loopback())
    for line in sys.stdin:
        name, _, options = line.strip().partition(" ")
        os.environ["HEADGATE_AT"] = options or "{}"
        from tests.ray import scenarios  # noqa: PLC0415 (it imports ray)

        async def run(name=name):
            async with asyncio.timeout(SECONDS):
                await getattr(scenarios, name)(cluster)

        error = None
        try:
            asyncio.run(run())
        except BaseException:
            error = traceback.format_exc()
        answers.write(json.dumps({"name": name, "error": error}) + "\n")


if __name__ == "__main__":
    main()
