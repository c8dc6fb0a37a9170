"""Links where ports are not open: connections that are carried by calls, from a ferry on one machine to one on another.

A ferry is one process a machine. Nodes of its machine connect to it (`headgate.runtime.detour`) and name a port of
another machine; the ferry over there connects to that port, and the two carry the bytes, in both directions. What a
node sees is a connection as any other: proofs, numbered bytes, confirmations and what to do when it breaks are all as
over TCP (`headgate.runtime.tcp`), and no ferry knows anything of them, nor the secret.

Each direction is one generator that the receiving ferry reads from the sending one: it keeps the order, and it fails at
once when the other process dies, also when nothing is under way. A piece is what the socket has, so it is small and
leaves at once when there is little, and as large as a piece may be when there is much. The receiver says from time to
time how many bytes it has got rid of; the sender reads no more than `WINDOW` bytes beyond that.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Final, Protocol

from headgate.runtime.connecting import LOOPBACK, Address, reach, read, send
from headgate.runtime.detour import CLOSED, FERRY_SECONDS, NONCE, OUT_OF_REACH, THERE, WANTED, wanted

PIECE: Final = 96 << 10
"""The most bytes that are carried at once: what is larger than 100 KB goes through Ray's object store, which is slower
up to 1 MB, and no faster there."""
WINDOW: Final = 1 << 20
"""Bytes that may be on the way in one direction of a connection."""


class Peer(Protocol):
    """A ferry on another machine, as it is called from here. Whatever these raise, it is out of reach."""

    async def open(self, machine: str, name: str, address: Address) -> int:
        """Connect to a port over there, for a ferry that it has met; say what came of it, as in `detour`."""
        ...

    def flow(self, name: str) -> AsyncGenerator[bytes, None]:
        """Give the bytes that come from there; none at first, at once."""
        ...

    def got(self, name: str, total: int) -> None:
        """Say how many bytes were got rid of, from the first; it need not arrive in order."""

    def drop(self, name: str) -> None:
        """Say that the connection is broken here."""


class Passage:
    """A connection that is carried, as one of the two ferries has it.

    Args:
        name: What both ferries call it.
        sock: The connection to the node of this machine.
        peer: The other ferry.
        over: To be called when both directions have ended.

    Attributes:
        begun: Resolves when the other ferry has been heard, or to False when it cannot be.
    """

    def __init__(self, name: str, sock: socket.socket, peer: Peer, over: Callable[[str], None]) -> None:
        """Carry nothing yet."""
        self._name = name
        self._sock = sock
        self._peer = peer
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._allowed = WINDOW
        self._room = asyncio.Event()
        self._broken = False
        self.begun: asyncio.Future[bool] = self._loop.create_future()
        self._flowing = self._flowed = self._pulled = False

    async def flow(self) -> AsyncGenerator[bytes, None]:
        """Give the bytes that come from here, for the other ferry."""
        self._flowing = True
        sent = 0
        whole = False
        try:
            yield b""
            while not self._broken:
                if sent >= self._allowed:
                    self._room.clear()
                    await self._room.wait()
                    continue
                piece = await self._loop.sock_recv(self._sock, min(PIECE, self._allowed - sent))
                if not piece:
                    break
                sent += len(piece)
                yield piece
            whole = True
        except OSError:
            pass
        finally:
            self._flowed = True
            if not whole:
                self.drop()
            self._end()

    def allow(self, total: int) -> None:
        """Let more bytes go: the other side has got rid of so many."""
        self._allowed = max(self._allowed, total + WINDOW)
        self._room.set()

    async def pull(self) -> None:
        """Write the bytes that come from there."""
        got = told = 0
        try:
            async with contextlib.aclosing(self._peer.flow(self._name)) as flow:
                async for piece in flow:
                    if not self.begun.done():
                        self.begun.set_result(True)
                    await self._loop.sock_sendall(self._sock, piece)
                    got += len(piece)
                    if got - told >= WINDOW // 4:
                        told = got
                        self._peer.got(self._name, got)
            self._sock.shutdown(socket.SHUT_WR)
        except Exception:  # noqa: BLE001 (the node has gone, or whatever calls raise)
            self.drop()
        finally:
            if not self.begun.done():
                self.begun.set_result(False)
            self._pulled = True
            self._end()

    def drop(self, *, tell: bool = True) -> None:
        """Break the connection: both directions end."""
        if self._broken:
            return
        self._broken = True
        if tell:
            self._peer.drop(self._name)
        self._room.set()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # whoever waits for it is told; it is closed by the last
        if not self._flowing:  # nobody will read it
            self._flowed = True
            self._end()

    def _end(self) -> None:
        if self._flowed and self._pulled:
            self._sock.close()
            self._over(self._name)

    def abandon(self) -> None:
        """Close it before it has begun."""
        self._pulled = True
        self.drop(tell=False)


class Ferry:
    """What takes connections of one machine to others, and those of others to ports of this one.

    Args:
        machine: What others call this machine.
        key: What those who want to be taken over have to know.
        ended: To be called when it is through with a connection, or could not make it.
    """

    def __init__(self, machine: str, key: bytes, ended: Callable[[], None] = lambda: None) -> None:
        """Know nobody yet."""
        self._machine = machine
        self._key = key
        self._ended = ended
        self._peers: dict[str, Peer] = {}
        self._passages: dict[str, Passage] = {}
        self._listener: socket.socket | None = None
        self._jobs: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Return how many connections it carries."""
        return len(self._passages)

    def listen(self) -> Address:
        """Let nodes of this machine come in; return where."""
        if self._listener is None:
            self._listener = socket.create_server((LOOPBACK, 0))
            self._listener.setblocking(False)  # noqa: FBT003 (that is its form)
            self._job(self._accept(self._listener))
        host, port = self._listener.getsockname()
        return host, port

    def meet(self, machine: str, peer: Peer) -> None:
        """Know the ferry of another machine."""
        self._peers[machine] = peer

    # -- for nodes of this machine ------------------------------------------------------------------------------------

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except ConnectionError:  # whoever it was has gone
                continue
            sock.setblocking(False)  # noqa: FBT003 (that is its form)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._job(self._admit(sock))

    async def _admit(self, sock: socket.socket) -> None:
        try:
            async with asyncio.timeout(FERRY_SECONDS):
                nonce = secrets.token_bytes(NONCE)
                await send(sock, nonce)
                want = wanted(await read(sock, WANTED.size), nonce, self._key)
        except OSError:  # it has gone, or said nothing for too long
            want = None
        except BaseException:
            sock.close()
            raise
        if want is None:
            sock.close()
        else:
            await self._take(sock, *want)

    async def _take(self, sock: socket.socket, machine: str, address: Address) -> None:
        """Take a connection to where it wants to go."""
        peer = self._peers.get(machine)
        if peer is None:
            with contextlib.suppress(OSError):
                await send(sock, bytes([OUT_OF_REACH]))
            sock.close()
            return
        name = secrets.token_hex(8)
        passage = self._passages[name] = Passage(name, sock, peer, self._over)
        try:
            answer = await peer.open(self._machine, name, address)
        except Exception:  # noqa: BLE001 (whatever calls raise)
            answer = OUT_OF_REACH
        try:
            await send(sock, bytes([answer]))
        except OSError:
            if answer == THERE:
                peer.drop(name)
            answer = OUT_OF_REACH
        if answer == THERE:
            await passage.pull()
        else:
            passage.abandon()

    # -- for other ferries --------------------------------------------------------------------------------------------

    async def open(self, machine: str, name: str, address: Address) -> int:
        """See `Peer`."""
        try:
            sock = await reach(address)
        except ConnectionRefusedError:
            return CLOSED
        except OSError:
            return OUT_OF_REACH
        passage = self._passages[name] = Passage(name, sock, self._peers[machine], self._over)
        self._job(passage.pull())
        return THERE if await passage.begun else OUT_OF_REACH  # one that counts as dead may call, and not be called

    async def flow(self, name: str) -> AsyncGenerator[bytes, None]:
        """See `Peer`."""
        passage = self._passages.get(name)
        if passage is not None:
            async with contextlib.aclosing(passage.flow()) as flow:
                async for piece in flow:
                    yield piece

    def got(self, name: str, total: int) -> None:
        """See `Peer`."""
        passage = self._passages.get(name)
        if passage is not None:
            passage.allow(total)

    def drop(self, name: str) -> None:
        """See `Peer`."""
        passage = self._passages.get(name)
        if passage is not None:
            passage.drop(tell=False)

    # -- the end ------------------------------------------------------------------------------------------------------

    def _over(self, name: str) -> None:
        self._passages.pop(name, None)
        self._ended()

    def _job(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
