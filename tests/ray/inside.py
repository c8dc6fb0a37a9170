# mypy: disable-error-code="attr-defined"
"""Runs scenarios on a cluster of two raylets: a name a line comes in, an answer in JSON a line goes out.

It runs in network, process and mount namespaces of its own (`test_ray.py` makes them): Ray listens on all interfaces
there are, which is the loopback alone, and whatever it starts ends with this program.
"""

import asyncio
import fcntl
import json
import os
import socket
import struct
import sys
import traceback

SECONDS = 100.0


def loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        name_and_flags = struct.pack("16sh", b"lo", 1)  # IFF_UP
        fcntl.ioctl(sock, 0x8914, name_and_flags)  # SIOCSIFFLAGS


def begin():
    import ray  # noqa: PLC0415 (when the namespace is ready)
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    common = {"include_log_monitor": False, "object_store_memory": 80 << 20}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 8,
            "resources": {"head": 100, "either": 1},
            "node_ip_address": "127.0.0.1",
            "include_dashboard": False,
            **common,
        },
    )
    cluster.options = {
        "num_cpus": 8,
        "resources": {"other": 100, "either": 1},
        "node_ip_address": "127.0.0.2",
        **common,
    }
    cluster.second = cluster.add_node(**cluster.options)
    ray.init(address=cluster.address, log_to_driver=False)
    return cluster


def main():
    loopback_up()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else is printed is none
    cluster = begin()
    from tests.ray import scenarios  # noqa: PLC0415 (it imports ray)

    for line in sys.stdin:
        name = line.strip()

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
