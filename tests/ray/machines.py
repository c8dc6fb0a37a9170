# mypy: disable-error-code="union-attr,var-annotated,call-arg"
"""Nodes that are joined by TCP without Ray: where Ray would start an actor, a process of ours is started.

Everything else is real: the secret, the doors, the lines, the worker. Between any two nodes stands a `Proxy`, which can
cut connections when it is told, hold back what comes, and let nobody in. Each node counts as a machine of its own.
Where ports are closed, real ferries carry what there is; the calls between them are those of `ferries.py`.
"""

import asyncio
import concurrent.futures
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from typing import ClassVar

import pytest

from headgate import Ray
from headgate.runtime import ray_place
from tests.ray.ferries import Wires

RUN = """
import json, sys
terms, sys.path[:] = json.loads(sys.stdin.readline())
from headgate.runtime.detour import Detour
from headgate.worker import Guest
guest = Guest(**{**terms, "secret": bytes.fromhex(terms["secret"]), "home": tuple(terms["home"])})
why, detour = None, None
if terms["ports"] is False:
    print(json.dumps([None]), flush=True)
    detour = json.loads(sys.stdin.readline())
while True:
    why = guest.run(detour and Detour(tuple(detour[0]), detour[1]))
    if why is None:
        break
    print(json.dumps([why]), flush=True)
    detour = json.loads(sys.stdin.readline())
"""


class Machines(ray_place.Cluster):
    """Starts processes in the stead of actors."""

    proxied = True
    walls: ClassVar[set[str]] = set()
    """Machines whose ports are closed to others."""

    def __init__(self, hub):
        super().__init__(hub)
        self.machine = "home"
        self.wires = Wires()
        self.processes = {}
        self.actors = []
        self.proxies = []
        self.at_doors = {}

    def _connect(self, place):
        return "127.0.0.1"

    def launch(self, worker, home):
        place = worker.place
        terms = {
            "number": worker.number,
            "home": self.before(home, "home") if self.proxied else home,
            "secret": self._hub.secret.hex(),
            "host": "127.0.0.1",
            "ports": place.ports,
            "machine": f"m{worker.number}",
            "max_bytes": place.max_bytes,
            "budget": place.budget,
        }
        actor = Actor(terms)
        self.processes[worker.number] = actor.process
        self.actors.append(actor)
        return actor, actor.call()

    def before(self, address, machine):
        """Return where to knock in the stead of an address."""
        address = tuple(address)
        if address not in self.at_doors:
            proxy = self.at_doors[address] = Wall("refuses") if machine in self.walls else Proxy(address)
            self.proxies.append(proxy)
        return self.at_doors[address].address

    async def _ferry(self, machine):
        return self.wires.ferry(machine, self._hub.secret, self._behind)

    def _behind(self, address):
        return next((at for at, each in self.at_doors.items() if each.address == address), address)

    def kill(self, actor):
        with contextlib.suppress(ProcessLookupError):
            actor.process.kill()
        actor.process.wait()

    async def leave(self):
        await super().leave()
        await self.wires.close()

    def _end(self, ferries):
        for proxy in self.proxies:
            proxy.close()

    def cut(self):
        for proxy in self.proxies:
            proxy.cut()


class Actor:
    """A process that is called by a line that it reads, and answers by one that it writes, or by its end."""

    def __init__(self, terms):
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
        )
        self.number = terms["number"]
        self._say([terms, sys.path])
        self.resume = self

    def _say(self, what):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(what).encode() + b"\n")
            self.process.stdin.flush()

    def remote(self, detour):
        self._say(detour)
        return self.call()

    def call(self):
        """Wait for its answer."""
        call = Call()
        self._waiting = threading.Thread(target=self._wait, args=(call,), daemon=True, name="tests: an actor")
        self._waiting.start()
        return call

    def close(self):
        self._waiting.join()
        self.process.stdin.close()
        self.process.stdout.close()

    def _wait(self, call):
        line = self.process.stdout.readline()
        if line:
            call.made.set_result(ray_place.Cry(f"m{self.number}", "127.0.0.1", *json.loads(line)))
            return
        code = self.process.wait()
        if code == 0:
            call.made.set_result(None)
        else:
            call.made.set_exception(RuntimeError(f"exit code {code}"))


class Call:
    """The call that is held."""

    def __init__(self):
        self.made = concurrent.futures.Future()

    def future(self):
        return self.made


class Proxy:
    """Passes bytes between those who knock here and a door, in a thread of its own.

    With ``cuts`` it cuts a connection by itself after a number of bytes that a seed draws, in the middle of whatever
    that is; nothing that it has read is passed on then.
    """

    def __init__(self, target, seed=None, cuts=0, least=1):
        self._target = tuple(target)
        self._random = random.Random(seed)
        self.cuts_left = cuts
        self._least = least
        self.made = self.lost = 0
        self.refusing = False
        self._loop = asyncio.new_event_loop()
        self._writers = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._thread = threading.Thread(target=self._run, daemon=True, name="tests: a proxy")
        self._thread.start()

    def _run(self):
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._join, sock=self._listener))
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(task)
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _join(self, reader, writer):
        self._writers.add(writer)
        other = None
        try:
            if self.refusing:
                return
            there, other = await asyncio.open_connection(*self._target)
            self._writers.add(other)
            self.made += 1
            left = [self._random.randrange(self._least, 40 * self._least) if self.cuts_left > 0 else None]
            ways = [asyncio.ensure_future(self._pass(*way, left)) for way in ((reader, other), (there, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass
        finally:
            for each in (writer, other):
                if each is not None:
                    self._writers.discard(each)
                    each.transport.abort()

    async def _pass(self, reader, writer, left):
        while data := await reader.read(1 << 16):
            if left[0] is not None:
                if len(data) > left[0]:
                    self.cuts_left -= 1
                    self.lost += len(data) - left[0]
                    writer.write(data[: left[0]])
                    return
                left[0] -= len(data)
            writer.write(data)
            await writer.drain()

    def cut(self):
        """Cut all connections now."""

        def cut():
            for writer in self._writers:
                writer.transport.abort()

        self._loop.call_soon_threadsafe(cut)

    def close(self):
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()


class Wall:
    """A port that a firewall closes: it refuses, or lets nothing come of a connection."""

    def __init__(self, how):
        self._sock = socket.socket()
        self._sock.bind(("127.0.0.1", 0))
        self.address = self._sock.getsockname()
        self._fillers = []
        if how == "swallows":
            self._sock.listen(0)
            for _ in range(3):  # its queue is full: the kernel answers no more
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(self.address)
                self._fillers.append(filler)

    def cut(self):
        """There is nothing to cut."""

    def close(self):
        for each in (self._sock, *self._fillers):
            each.close()


@pytest.fixture
def machines(monkeypatch):
    """Let `Ray` be processes of this machine; gives the list of what took the place of Ray."""
    made = []

    class Made(Machines):
        def __init__(self, hub):
            super().__init__(hub)
            made.append(self)

    monkeypatch.setattr(ray_place, "Cluster", Made)
    up = ray_place.RayWorker.up
    monkeypatch.setattr(
        ray_place.RayWorker,
        "up",
        lambda self, address, pid, machine: up(self, self._cluster.before(address, machine), pid, machine),
    )
    yield made
    for each in made:
        each.close()
        for process in each.processes.values():
            assert process.poll() is not None, "a node is left behind"
        for actor in each.actors:
            actor.close()


def place(ports=None, **options):
    return Ray(num_cpus=0.1, ports=ports, **options)


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
