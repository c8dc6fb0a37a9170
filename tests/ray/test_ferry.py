# mypy: disable-error-code="arg-type,var-annotated,union-attr,attr-defined,method-assign"
"""Ferries, over calls that behave as Ray's: a link that goes by them is as whole as over TCP, and as bounded."""

import asyncio
import contextlib
import gc
import socket

import numpy as np
import pytest

from headgate.runtime import connecting, ferry, tcp
from headgate.runtime.detour import Detour, cross, key_of
from headgate.runtime.tcp import Door
from tests.ray.ferries import Wires
from tests.ray.machines import Wall
from tests.ray.test_lines import SECRET, End, until


def run(scenario, *args):
    async def main():
        async with asyncio.timeout(60):
            await scenario(*args)
        assert len(asyncio.all_tasks()) == 1, "something is left running"

    asyncio.run(main())
    gc.collect()  # a socket that was forgotten is a warning, and that an error


class Two:
    """Two machines with a ferry each, and an `echo`, `hear` or `say` that is reached at the second one."""

    def __init__(self, seed=0):
        self.wires = Wires(seed)

    async def __aenter__(self):
        one = self.wires.ferry("one", SECRET)
        two = self.wires.ferry("two", SECRET)
        await one.meet("two", two)
        await two.meet("one", one)
        self.one, self.two = one.ferry, two.ferry
        self.detour = Detour(self.one.listen(), "two")
        return self

    async def __aexit__(self, *exc):
        await self.wires.close()

    async def connect(self, address):
        return await cross(self.detour, address, key_of(SECRET))


async def streams(sock):
    return await asyncio.open_connection(sock=sock)


class Server:
    """A port whose connections are handled by a function of a reader and a writer."""

    def __init__(self, handle):
        self.handle = handle

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()

    async def _handle(self, reader, writer):
        try:
            await self.handle(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def __aexit__(self, *exc):
        self.server.close()


async def echo(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


@pytest.mark.parametrize("seed", range(4))
def test_bytes_come_whole_and_in_order_in_both_directions(seed):
    async def scenario():
        async with Two(seed) as two, Server(echo) as address:
            data = np.random.default_rng(seed).bytes(6_000_000)
            reader, writer = await streams(await two.connect(address))

            async def write():
                at = 0
                while at < len(data):
                    size = two.wires.random.choice([1, 100, 10_000, 300_000])
                    writer.write(data[at : at + size])
                    await writer.drain()
                    at += size
                writer.write_eof()  # the end of one direction is not that of the other

            writing = asyncio.ensure_future(write())
            assert await reader.read(-1) == data
            await writing
            writer.close()
            await until(lambda: not len(two.one) and not len(two.two))
            assert max(two.wires.pieces) == ferry.PIECE, "much goes in large pieces"

    run(scenario)


def test_little_goes_at_once():
    """Each byte is answered before the next is sent, so nothing may wait for more."""

    async def scenario():
        async with Two() as two, Server(echo) as address:
            reader, writer = await streams(await two.connect(address))
            for n in range(50):
                writer.write(bytes([n]))
                assert await reader.readexactly(1) == bytes([n])
            writer.close()

    run(scenario)


def test_a_reader_that_reads_nothing_holds_the_writer_back():
    """However much is to be sent, no more is on the way than the sockets and the window hold."""

    async def scenario():
        go = asyncio.Event()
        total = 0

        async def hear(reader, writer):
            nonlocal total
            reader._transport.pause_reading()
            await go.wait()
            reader._transport.resume_reading()
            while data := await reader.read(1 << 20):
                total += len(data)

        async with Two() as two, Server(hear) as address:
            sock = await two.connect(address)
            sock.setblocking(False)
            sent, size = 0, 64 << 20
            still = 0
            while still < 50:  # turns of the loop in which nothing more went
                try:
                    sent += sock.send(bytes(1 << 20))
                    still = 0
                except BlockingIOError:
                    still += 1
                    await asyncio.sleep(0.002)
            assert sent < size // 2, "it was not held back"
            assert two.wires.most <= ferry.WINDOW
            go.set()
            while sent < size:
                data = bytes(min(1 << 20, size - sent))
                await asyncio.get_running_loop().sock_sendall(sock, data)
                sent += len(data)
            sock.close()
            await until(lambda: total == size)
            assert two.wires.most <= ferry.WINDOW

    run(scenario)


@pytest.mark.parametrize("side", ["who asked", "who was asked"])
@pytest.mark.parametrize("how", ["closes", "resets"])
def test_the_end_of_one_side_is_the_end_of_the_other(side, how):
    async def scenario():
        ended = asyncio.Event()

        async def handle(reader, writer):
            if side == "who was asked":
                await reader.readexactly(2)
                end(writer)
            else:
                assert await reader.read(-1) in (b"hi", b"")
                ended.set()

        def end(writer):
            if how == "resets":
                writer.transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
                )
                writer.transport.abort()
            else:
                writer.close()

        async with Two() as two, Server(handle) as address:
            reader, writer = await streams(await two.connect(address))
            writer.write(b"hi")
            if side == "who asked":
                await writer.drain()
                await until(lambda: two.wires.pieces)
                end(writer)
                await ended.wait()
            else:
                assert await reader.read() == b""
                writer.close()
            await until(lambda: not len(two.one) and not len(two.two))

    run(scenario)


@pytest.mark.parametrize("which", ["one", "two"])
def test_a_ferry_that_dies_ends_its_connections_also_when_they_are_idle(which):
    async def scenario():
        ended = asyncio.Event()

        async def handle(reader, writer):
            await reader.read(-1)
            ended.set()

        async with Two() as two, Server(handle) as address:
            reader, writer = await streams(await two.connect(address))
            await two.wires.kill(which)
            assert await reader.read(-1) == b""
            writer.close()
            await ended.wait()

    run(scenario)


def test_what_cannot_be_reached_is_told_apart_from_what_is_closed():
    async def scenario():
        async with Two() as two:
            with socket.create_server(("127.0.0.1", 0)) as server:
                closed = server.getsockname()
            with pytest.raises(ConnectionRefusedError):
                await two.connect(closed)
            nowhere = two.detour._replace(machine="three")
            with pytest.raises(OSError, match=r"the ferry cannot reach 127\.0\.0\.1"):
                await cross(nowhere, closed, key_of(SECRET))
            two.wires.ferries["one"].died.set()  # it lives, and counts as dead: it may call, and not be called
            async with Server(echo) as address:
                with pytest.raises(OSError, match=r"the ferry cannot reach 127\.0\.0\.1"):
                    await two.connect(address)
            await two.wires.kill("two")
            with pytest.raises(OSError, match=r"the ferry cannot reach 127\.0\.0\.1"):
                await two.connect(closed)
            await two.wires.kill("one")
            with pytest.raises(OSError, match=f"no ferry at port {two.detour.ferry[1]}") as caught:
                await two.connect(closed)
            assert not isinstance(caught.value, ConnectionRefusedError), "it does not say that the node is dead"

    run(scenario)


def test_a_stranger_is_not_taken_anywhere():
    async def scenario():
        reached = []

        async def handle(reader, writer):
            reached.append(writer)

        async with Two() as two, Server(handle) as address:
            with pytest.raises(ConnectionError):
                await cross(two.detour, address, key_of(b"another secret"))
            reader, writer = await asyncio.open_connection(*two.detour.ferry)
            writer.write(b"GET / HTTP/1.1\r\n\r\n" + bytes(400))
            nonce = await reader.readexactly(32)
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
            assert len(nonce) == 32
            assert not reached

    run(scenario)


# -- links by ferries --------------------------------------------------------------------------------------------------


class Nodes:
    """Home on the second machine, and a worker on the first that dials it by the ferries."""

    def __init__(self, seed=0):
        self.two = Two(seed)

    async def __aenter__(self):
        await self.two.__aenter__()
        self.home, self.worker = End(0), End(1)
        self.here = self.home.expect(1)
        self.door = Door(self.home, "127.0.0.1", False)
        self.there = self.worker.dial(0, self.door.address, detour=self.two.detour)
        return self

    async def __aexit__(self, *exc):
        self.here.close()
        self.there.close()
        self.door.close()
        await asyncio.gather(*self.home.jobs, *self.worker.jobs, return_exceptions=True)
        await self.two.__aexit__(*exc)


@pytest.mark.parametrize("seed", range(6))
def test_a_link_is_whole_however_often_its_connections_are_cut(seed):
    """On both machines: between node and ferry, which may lose what is on the way between the ferries too."""

    async def scenario():
        async with Nodes(seed) as nodes:
            array = np.arange(20_000)
            count, cuts = 400, 0
            for n in range(count):
                nodes.there.tell("up", n, array * n if n % 20 == 0 else "x" * n)
                nodes.here.tell("down", n, array * n if n % 30 == 0 else "y" * n)
                if n % 20 == 0:
                    await until(lambda n=n: len(nodes.home.got) > n - 60 and nodes.there.up)
                    passages = [*nodes.two.one._passages.values(), *nodes.two.two._passages.values()]
                    if passages and n % 40 == 0:
                        nodes.two.wires.random.choice(passages).drop()
                        cuts += 1
            await until(lambda: len(nodes.home.got) >= count and len(nodes.worker.got) >= count)
            assert cuts >= 8
            assert [what[1] for what in nodes.home.got] == list(range(count))
            assert [what[1] for what in nodes.worker.got] == list(range(count))
            for what in nodes.home.got:
                assert np.array_equal(what[2], array * what[1]) if what[1] % 20 == 0 else len(what[2]) == what[1]

    run(scenario)


def test_a_node_that_is_gone_is_noticed_through_the_ferries():
    """Its port is closed, and the ferry of its machine says so."""

    async def scenario():
        async with Nodes() as nodes:
            nodes.there.tell("up")
            await until(lambda: nodes.home.got)
            nodes.door.close()
            nodes.here.close()
            nodes.door = Door(nodes.home, "127.0.0.1")  # elsewhere
            async with asyncio.timeout(5):
                await nodes.worker.gone.wait()
            assert isinstance(nodes.there.line.error, ConnectionRefusedError)

    run(scenario)


def test_another_ferry_takes_over_from_one_that_died():
    """The line asks for another way, and goes on over it from the byte where it was."""

    async def scenario():
        async with Nodes() as nodes:
            two = nodes.two

            async def again(line):
                one = two.wires.ferry("one", SECRET)
                two.one = one.ferry
                await one.meet("two", two.wires.ferries["two"])
                await two.wires.ferries["two"].meet("one", one)
                two.detour = Detour(one.ferry.listen(), "two")
                line.take(two.detour)

            nodes.worker.seek_detour = lambda line: nodes.worker.job(again(line), "help")
            nodes.there.tell("up", 0)
            await until(lambda: nodes.home.got)
            await two.wires.kill("one")
            for n in range(1, 200):
                nodes.there.tell("up", n)
            await until(lambda: len(nodes.home.got) == 200)
            assert nodes.home.got == [("up", n) for n in range(200)]

    run(scenario)


@pytest.mark.parametrize("how", ["refuses", "swallows"])
def test_a_wall_before_a_port_is_gone_round(how, monkeypatch):
    """The direct way is tried first; a node that nobody has reached yet is not dead for its port's being closed."""
    monkeypatch.setattr(connecting, "CONNECT_SECONDS", 0.05)
    monkeypatch.setattr(tcp, "DETOUR_SECONDS", (0.1, 0.1))

    async def scenario():
        async with Two() as two:
            home, worker = End(0), End(1)
            here = home.expect(1)
            door = Door(home, "127.0.0.1")
            wall = Wall(how)
            asked = []

            def seek(line):
                asked.append(str(line.error))
                line.address = door.address  # what the ferry over there may reach
                line.take(two.detour)

            worker.seek_detour = seek
            there = worker.dial(0, wall.address)
            there.tell("up")
            await until(lambda: home.got == [("up",)])
            assert len(asked) == 1
            wall.close()
            here.close()
            there.close()
            door.close()
            await asyncio.gather(*home.jobs, *worker.jobs, return_exceptions=True)

    run(scenario)


@pytest.mark.parametrize("how", ["refuses", "swallows"])
def test_a_wall_that_cannot_be_gone_round_is_the_end(how, monkeypatch):
    monkeypatch.setattr(connecting, "CONNECT_SECONDS", 0.05)
    monkeypatch.setattr(tcp, "DETOUR_SECONDS", (0.1, 0.1))
    monkeypatch.setattr(tcp, "PATIENCE_SECONDS", 0.3)

    async def scenario():
        worker = End(1)
        wall = Wall(how)
        worker.seek_detour = lambda line: worker.loop.call_soon(line.take, None)
        there = worker.dial(0, wall.address)
        async with asyncio.timeout(5):
            await worker.gone.wait()
        assert isinstance(there.line.error, ConnectionRefusedError if how == "refuses" else TimeoutError)
        wall.close()

    run(scenario)
