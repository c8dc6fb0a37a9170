"""A network that swallows everything and says nothing: noticed by the kernel's probes, and nothing is lost by it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio, fcntl, socket, struct
from headgate.runtime import connecting
from headgate.runtime.tcp import Door
from tests.ray.test_lines import End, until

connecting.SILENCE_SECONDS = 2.0

def loopback(up):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8914, struct.pack("16sh", b"lo", up))  # SIOCSIFFLAGS

async def main():
    loopback(1)
    home, worker = End(0), End(1)
    here = home.expect(1)
    door = Door(home, "127.0.0.1")
    there = worker.dial(0, door.address)
    there.tell("before")
    await until(lambda: home.got)
    loopback(0)
    for n in range(100):
        there.tell("meanwhile", n)
        here.tell("meanwhile", n)
    await until(lambda: there.connection is None)
    print("noticed")
    loopback(1)
    there.tell("after")
    await until(lambda: len(home.got) == 102 and len(worker.got) == 100)
    assert home.got == [("before",), *(("meanwhile", n) for n in range(100)), ("after",)]
    assert worker.got == [("meanwhile", n) for n in range(100)]
    for each in (here, there, door):
        each.close()
    print("whole")

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_silent_network_is_noticed_and_costs_nothing():
    unshare = ["unshare", "--net"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        unshare.append("--map-root-user")
        if not shutil.which("unshare") or subprocess.run([*unshare, "true"], check=False).returncode:
            pytest.skip("no network namespace can be made here, and this needs one to silence")
    done = subprocess.run(
        [*unshare, sys.executable, "-W", "error", "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["noticed", "whole"], done.stderr
