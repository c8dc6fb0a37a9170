# mypy: disable-error-code="arg-type,var-annotated,union-attr,attr-defined"
"""Lines: nobody comes in who does not know the secret, and a link outlives its connections, whole."""

import asyncio
import gc
import pickle
import socket

import numpy as np
import pytest

from headgate.runtime import tcp
from headgate.runtime.link import Link
from headgate.runtime.tcp import Door, Line
from headgate.runtime.wire import Codes
from tests.ray.machines import Proxy

SECRET = b"s" * 32
OTHER = b"o" * 32


class End:
    """One node, as much of it as a link needs."""

    def __init__(self, number, secret=SECRET):
        self.loop = asyncio.get_running_loop()
        self.node = self
        self.number = number
        self.secret = secret
        self.inflows = {}
        self.pending = []
        self.got = []
        self.gone = asyncio.Event()
        self.jobs = []
        self.expected = {}

    def job(self, coroutine, name):
        task = self.loop.create_task(coroutine, name=name)
        self.jobs.append(task)
        return task

    def codes(self, link):
        return Codes(lambda value: None, lambda name: None)

    def heard(self, link, what):
        self.got.append(what)

    def closed(self, link):
        self.gone.set()

    def seek_detour(self, line):
        line.take(None)

    def line(self, peer):
        return self.expected.get(peer)

    def expect(self, peer):
        link = Link(self, peer, local=False)
        self.expected[peer] = Line(self, link)
        return link

    def dial(self, peer, address, secret=None, detour=None):
        link = Link(self, peer, local=False)
        Line(self, link, address=address, secret=secret or self.secret, detour=detour)
        return link


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


def run(scenario):
    asyncio.run(scenario())
    gc.collect()  # a socket that was forgotten is a warning, and that an error


async def knock(address, data):
    """Say something at a door, and return what it answers until it closes."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(data)
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def test_messages_go_both_ways_in_order():
    async def scenario():
        home, worker = End(0), End(1)
        here = home.expect(1)
        door = Door(home, "127.0.0.1")
        there = worker.dial(0, door.address)
        here.tell("waits", "until somebody is there")
        for n in range(1000):
            there.tell("up", n)
            here.tell("down", n)
        await until(lambda: len(home.got) == 1000 and len(worker.got) == 1001)
        assert home.got == [("up", n) for n in range(1000)]
        assert worker.got[1:] == [("down", n) for n in range(1000)]
        here.close()
        there.close()
        door.close()

    run(scenario)


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_lost_or_doubled_however_often_it_is_cut(seed):
    """Small messages and large arrays in both directions, by a proxy that cuts anywhere, as its seed draws it."""

    async def scenario():
        home, worker = End(0), End(1)
        here = home.expect(1)
        door = Door(home, "127.0.0.1")
        proxy = Proxy(door.address, seed, cuts=25, least=2000)
        there = worker.dial(0, proxy.address)
        array = np.arange(20_000)
        count = 400
        for n in range(count):
            there.tell("up", n, array * n if n % 20 == 0 else "x" * n)
            here.tell("down", n, array * n if n % 30 == 0 else "y" * n)
            if n % 10 == 0:
                await asyncio.sleep(0)
        await until(lambda: len(home.got) >= count and len(worker.got) >= count)
        assert [what[1] for what in home.got] == list(range(count))
        assert [what[1] for what in worker.got] == list(range(count))
        for what, every in (*((each, 20) for each in home.got), *((each, 30) for each in worker.got)):
            assert np.array_equal(what[2], array * what[1]) if what[1] % every == 0 else len(what[2]) == what[1]
        assert proxy.cuts_left < 25, "it was not cut"
        assert proxy.lost > 0, "nothing was lost on the way"
        here.close()
        there.close()
        door.close()
        proxy.close()

    run(scenario)


def test_what_is_kept_for_a_new_connection_is_bounded():
    """By what the two ends of a connection hold and what is not confirmed yet, however much goes over it."""

    async def scenario():
        home, worker = End(0), End(1)
        here = home.expect(1)
        door = Door(home, "127.0.0.1")
        there = worker.dial(0, door.address)
        most = 0
        for n in range(400):
            there.tell("up", n, b"x" * 100_000)
            await until(lambda n=n: len(home.got) > n - 10)
            home.got[: max(0, n - 20)] = [None] * max(0, n - 20)
            most = max(most, len(there.line._spool))
        await until(lambda: len(home.got) == 400)
        await until(lambda: len(there.line._spool) < 2 * tcp.CONFIRM)
        assert most < 12 * 100_000 + 2 * tcp.CONFIRM, "of 40 MB"
        here.close()
        there.close()
        door.close()

    run(scenario)


def test_a_dead_peer_is_noticed_at_once_by_its_closed_port():
    async def scenario():
        home, worker = End(0), End(1)
        here = home.expect(1)
        door, its_door = Door(home, "127.0.0.1"), Door(worker, "127.0.0.1")
        there = worker.dial(0, door.address)
        there.tell("up")
        await until(lambda: home.got)
        here.line.address = its_door.address
        its_door.close()  # all that happens when a process dies
        there.close()
        async with asyncio.timeout(2):
            await home.gone.wait()
        assert here.shut
        assert isinstance(here.line.error, ConnectionRefusedError)
        door.close()

    run(scenario)


def test_a_peer_whose_loop_is_busy_is_not_given_up(monkeypatch):
    """Its port is open: it will come back when its handler is through. No time is too long for that."""
    monkeypatch.setattr(tcp, "PATIENCE_SECONDS", 0.1)

    async def scenario():
        home, worker = End(0), End(1)
        here = home.expect(1)
        door = Door(home, "127.0.0.1")
        busy = socket.create_server(("127.0.0.1", 0))  # listens, and does nothing else
        proxy = Proxy(door.address)
        there = worker.dial(0, proxy.address)
        there.tell("up")
        await until(lambda: home.got)
        here.line.address = busy.getsockname()
        proxy.refusing = True
        proxy.cut()
        await until(lambda: not here.up)
        here.tell("meanwhile")
        await asyncio.sleep(0.5)
        assert not here.shut
        proxy.refusing = False
        await until(lambda: worker.got == [("meanwhile",)])
        assert not home.gone.is_set()
        busy.close()
        here.close()
        there.close()
        door.close()
        proxy.close()

    run(scenario)


def test_a_node_without_the_secret_does_not_come_in(caplog):
    async def scenario():
        home, stranger = End(0), End(1, OTHER)
        here = home.expect(1)
        door = Door(home, "127.0.0.1")
        there = stranger.dial(0, door.address)
        there.tell("let me in")
        async with asyncio.timeout(5):
            await stranger.gone.wait()
        assert isinstance(there.line.error, tcp.StrangerError), "it found that the door does not know its secret"
        assert not here.up
        assert home.got == []
        door.close()
        here.close()

    run(scenario)


def test_a_door_without_the_secret_gets_nothing():
    """It answers, and does not convince; what waits for the real one stays."""

    async def scenario():
        real, impostor = End(1), End(0, OTHER)
        impostor.expect(1)
        door = Door(impostor, "127.0.0.1")
        link = real.dial(0, door.address)
        link.tell("for home alone")
        async with asyncio.timeout(5):
            await real.gone.wait()
        assert impostor.got == []
        door.close()

    run(scenario)


class Canary:
    """Unpickling it is noticed."""

    sung = 0

    def __reduce__(self):
        return _sing, ()


def _sing():
    Canary.sung += 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"\0" * 200,
        pickle.dumps(Canary()) + b"\0" * 300,
        tcp._HELLO.pack(tcp._MAGIC, 1, 0, b"n" * 32) + pickle.dumps(Canary()) + b"\0" * 300,
        tcp._HELLO.pack(tcp._MAGIC, 1, 0, b"n" * 32) + b"\0" * 40 + pickle.dumps(Canary()) + b"\0" * 300,
        tcp._HELLO.pack(tcp._MAGIC, 2**64 - 1, 2**64 - 1, b"n" * 32) + b"\xff" * 4096,
    ],
    ids=["nothing", "http", "pickle", "hello, pickle", "hello, zeros, pickle", "hello, large numbers"],
)
def test_bytes_of_a_stranger_are_never_unpickled(data, monkeypatch, caplog):
    monkeypatch.setattr(tcp, "GREETING_SECONDS", 0.2)

    async def scenario():
        home = End(0)
        here = home.expect(1)
        door = Door(home, "127.0.0.1")
        await knock(door.address, data)
        await asyncio.gather(*home.jobs)
        assert (home.got, here.up, Canary.sung) == ([], False, 0)
        there = End(1)
        link = there.dial(0, door.address)
        link.tell("still open to others")
        await until(lambda: home.got)
        here.close()
        link.close()
        door.close()

    run(scenario)


class Ear(Proxy):
    """A proxy that keeps what it hears."""

    def __init__(self, target):
        self.heard = []
        super().__init__(target)

    async def _pass(self, reader, writer, left):
        heard = bytearray()
        self.heard.append(heard)
        while data := await reader.read(1 << 16):
            heard += data
            writer.write(data)
            await writer.drain()


def test_the_secret_does_not_cross_and_what_was_heard_opens_nothing(caplog):
    async def scenario():
        home, worker = End(0), End(1)
        here = home.expect(1)
        door = Door(home, "127.0.0.1")
        ear = Ear(door.address)
        there = worker.dial(0, ear.address)
        there.tell("a message")
        await until(lambda: home.got)
        said = next(bytes(each) for each in ear.heard if each.startswith(tcp._MAGIC))
        assert b"a message" in said
        assert not any(SECRET in each for each in ear.heard)
        await knock(door.address, said)
        await until(lambda: "does not know the secret" in caplog.text)
        assert home.got == [("a message",)], "said again by somebody else, it counts for nothing"
        there.tell("another")
        await until(lambda: home.got == [("a message",), ("another",)])
        here.close()
        there.close()
        door.close()
        ear.close()

    run(scenario)


def test_a_node_that_is_not_expected_is_refused_even_with_the_secret(caplog):
    async def scenario():
        home = End(0)
        door = Door(home, "127.0.0.1")
        stray = End(7)
        link = stray.dial(0, door.address)
        async with asyncio.timeout(5):
            await stray.gone.wait()
        assert link.shut
        assert "not expected" in caplog.text
        door.close()

    run(scenario)


def test_strangers_at_the_door_are_limited_in_number_and_time(monkeypatch):
    monkeypatch.setattr(tcp, "GREETING_SECONDS", 0.3)
    monkeypatch.setattr(tcp, "STRANGERS", 5)

    async def scenario():
        home = End(0)
        door = Door(home, "127.0.0.1")
        at_door = [await asyncio.open_connection(*door.address) for _ in range(12)]
        await until(lambda: len(home.jobs) == 5)
        assert await at_door[-1][0].read() == b"", "one too many"
        for reader, writer in at_door:
            assert await reader.read() == b"", "it said nothing for too long"
            writer.close()
        await asyncio.gather(*home.jobs)
        door.close()

    run(scenario)


def test_ports_are_taken_from_the_range_that_is_open():
    async def scenario():
        home = End(0)
        first = Door(home, "127.0.0.1")
        port = first.address[1]
        with pytest.raises(OSError, match="in use"):
            Door(home, "127.0.0.1", (port, port))
        second = Door(home, "127.0.0.1", (port, 65535))
        assert second.address[1] > port
        first.close()
        second.close()

    run(scenario)
