"""Links between machines: who may come in, and what becomes of a link when its connection breaks.

A node that others can reach has a `Door`. Whoever knocks has to prove that it knows the secret of the system, and gets
the proof that the door does, before a single byte of anything else is looked at:

1. the one who dials says who it is, whom it wants, and a nonce;
2. the door answers with a nonce of its own, and a MAC (HMAC-SHA256 by the secret) over all of that;
3. the one who dials sends how many bytes of the link it has got so far, and a MAC over all of that;
4. the door sends how many it has got, or that this node is not expected, and a MAC over all of that. From there on both
   go on with the link's bytes.

The secret itself never crosses. What follows is neither encrypted nor signed: the network is trusted not to change it,
as Ray's own traffic has to trust it.

A `Line` keeps a link together over its connections. When one breaks, the end that dialled dials again, and both write
again what the other has not got (`Spool`). The other end looks meanwhile whether that one's door is still there: when a
process ends, however, its port is closed, so a refused connection says at once that it is dead. A host that says
nothing is noticed by the kernel's own probes: they are answered while a handler keeps a whole process busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import secrets
import socket
import struct
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from headgate.runtime.spool import Spool

if TYPE_CHECKING:
    from headgate.runtime.link import Link
    from headgate.runtime.node import Node

logger = logging.getLogger("headgate")

Address = tuple[str, int]

_MAGIC: Final = b"headgate 1\r\n"
_NONCE: Final = 32
_HELLO: Final = struct.Struct(f"<{len(_MAGIC)}sQQ{_NONCE}s")
_MAC: Final = 32
_TOTAL: Final = struct.Struct("<Q")
_GONE: Final = b"\xff" * _TOTAL.size
"""In the stead of a total: there is no link to this node, or not any more."""

CONFIRM: Final = 256 << 10
"""Bytes after which the receiver says how many it has got: what the sender keeps for nothing is no more than that."""
GREETING_SECONDS: Final = 10.0
"""How long somebody who has not proved anything may take to."""
LEAVE_SECONDS: Final = 1.0
STRANGERS: Final = 64
"""How many of those may be at the door at once."""
BACKLOG: Final = 1024
CONNECT_SECONDS: Final = 3.0
PATIENCE_SECONDS: Final = 15.0
"""How long a host may be out of reach before it is given up."""
REFUSALS: Final = 3
"""How often a port may be found closed before whoever was there is given up."""
PAUSES: Final = (0.02, 0.5)
"""Seconds between two attempts, the first and the longest."""
SILENCE_SECONDS: Final = 10.0
"""How long a host may leave the kernel's probes unanswered before its connection counts as broken."""


class StrangerError(ConnectionError):
    """The other side does not know the secret, or is not who was wanted."""


class Lines(Protocol):
    """The node that lines belong to: its exchange."""

    node: Node
    number: int
    secret: bytes

    def line(self, peer: int) -> Line | None:
        """Return the line of the link to a node that wants to come in; None: it is not expected."""


class Answer(NamedTuple):
    """How a greeting came out.

    Attributes:
        sock: The connection.
        total: How many bytes of the link the other side has got.
    """

    sock: socket.socket
    total: int


def _mac(secret: bytes, step: bytes, said: bytes) -> bytes:
    return hmac.digest(secret, step + said, "sha256")


def _check(secret: bytes, step: bytes, said: bytes, mac: bytes) -> None:
    if not hmac.compare_digest(_mac(secret, step, said), mac):
        raise StrangerError("the other side does not know the secret")


async def _read(sock: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        piece = await loop.sock_recv(sock, size - len(data))
        if not piece:
            raise ConnectionResetError("the other side has closed the connection")
        data += piece
    return data


async def _send(sock: socket.socket, *data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, b"".join(data))


async def reach(address: Address) -> socket.socket:
    """Connect to a port.

    Raises:
        OSError: It is closed, or cannot be reached (in time: `TimeoutError`).
    """
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    try:
        sock.setblocking(False)  # noqa: FBT003 (that is its form)
        tune(sock)
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def greet(sock: socket.socket, secret: bytes, me: int, link: Link) -> Answer:
    """Knock at a door that was reached, and let both sides prove who they are.

    Raises:
        StrangerError: It is somebody else.
        OSError: It has closed the connection.
    """
    hello = _HELLO.pack(_MAGIC, me, link.peer, secrets.token_bytes(_NONCE))
    await _send(sock, hello)
    nonce = await _read(sock, _NONCE)
    said = hello + nonce
    _check(secret, b"door", said, await _read(sock, _MAC))
    said += _TOTAL.pack(link.received)
    await _send(sock, said[-_TOTAL.size :], _mac(secret, b"dial", said))
    total = await _read(sock, _TOTAL.size)
    _check(secret, b"open", said + total, await _read(sock, _MAC))
    if total == _GONE:
        raise StrangerError("this node is not expected there, or not any more")
    return Answer(sock, _TOTAL.unpack(total)[0])


async def leave(link: Link) -> None:
    """Say that nothing more comes, and let the other side read all of it: closing at once may take it back."""
    sock = link.connection
    if sock is None:
        return
    loop = asyncio.get_running_loop()
    loop.remove_reader(sock)
    sock.setblocking(False)  # noqa: FBT003 (that is its form)
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(LEAVE_SECONDS):
            while await loop.sock_recv(sock, CONFIRM):
                pass
    link.close()


class Door:
    """Where other nodes come in.

    Args:
        lines: The node.
        host: The address of this machine to listen at.
        ports: The first and the last port that may be used. Default: any that is free.

    Attributes:
        address: Host and port.

    Raises:
        OSError: No such port is free, or the address is not this machine's.
    """

    def __init__(self, lines: Lines, host: str, ports: tuple[int, int] | None = None) -> None:
        """Begin to listen."""
        self._lines = lines
        self._strangers: set[asyncio.Task[None]] = set()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._sock = _listen(family, host, ports)
        self._sock.setblocking(False)  # noqa: FBT003 (that is its form)
        self.address: Address = self._sock.getsockname()[:2]
        lines.node.loop.add_reader(self._sock, self._knock)

    def _knock(self) -> None:
        with contextlib.suppress(OSError):  # whoever it was has gone
            sock, _ = self._sock.accept()
            if len(self._strangers) >= STRANGERS:
                sock.close()
                return
            sock.setblocking(False)  # noqa: FBT003 (that is its form)
            tune(sock)
            task = self._lines.node.job(self._greet(sock), "door")
            self._strangers.add(task)
            task.add_done_callback(self._strangers.discard)

    async def _greet(self, sock: socket.socket) -> None:
        try:
            async with asyncio.timeout(GREETING_SECONDS):
                await self._let_in(sock)
        except StrangerError as error:
            logger.warning("a connection to %s:%d was refused: %s", *self.address, error)
            sock.close()
        except OSError:  # it has gone, or only looked whether somebody is there
            sock.close()
        except BaseException:
            sock.close()
            raise

    async def _let_in(self, sock: socket.socket) -> None:
        lines = self._lines
        secret = lines.secret
        hello = await _read(sock, _HELLO.size)
        magic, peer, wanted, _ = _HELLO.unpack(hello)
        if magic != _MAGIC:
            raise StrangerError("it speaks another language")
        said = hello + secrets.token_bytes(_NONCE)
        await _send(sock, said[-_NONCE:], _mac(secret, b"door", said))
        total = await _read(sock, _TOTAL.size)
        said += total
        _check(secret, b"dial", said, await _read(sock, _MAC))
        line = lines.line(peer) if wanted == lines.number else None
        if line is None:  # it was given up, and has to know
            said += _GONE
            await _send(sock, _GONE, _mac(secret, b"open", said))
            raise StrangerError(f"node {peer} wants node {wanted}, and is not expected at node {lines.number}")
        line.link.detach()  # from now on nothing more comes by the one before
        try:
            said += _TOTAL.pack(line.link.received)
            await _send(sock, said[-_TOTAL.size :], _mac(secret, b"open", said))
            line.joined(Answer(sock, _TOTAL.unpack(total)[0]))
        except OSError:
            line.broken()
            raise

    def close(self) -> None:
        """Let nobody in any more."""
        loop = self._lines.node.loop
        if not loop.is_closed():
            loop.remove_reader(self._sock)
            for task in self._strangers:
                task.cancel()
        self._sock.close()


class Line:
    """What keeps a link together over its connections.

    Args:
        lines: The node that this end belongs to.
        link: The link.
        address: The door of the other node.
        secret: What to prove there; None: this end waits at its own door, and looks whether that one is still there.

    Attributes:
        address: As given; None: not known yet.
        leaving: The other side is about to leave: the end of the connection is the end of the link.
    """

    def __init__(
        self, lines: Lines, link: Link, *, address: Address | None = None, secret: bytes | None = None
    ) -> None:
        """Let the link go over it; `broken` begins to dial."""
        self.link = link
        self.address = address
        self.leaving = False
        self._lines = lines
        self._secret = secret
        self._spool = Spool()
        self._told = 0
        self._seeking: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self.error: OSError | None = None
        link.run_over(self)
        if secret is not None:
            self.broken()

    # -- what the link says -------------------------------------------------------------------------------------------

    def wrote(self, piece: Any) -> None:
        """Keep bytes that were written."""
        self._spool.wrote(piece)

    def read(self, total: int) -> None:
        """Confirm from time to time how much has come."""
        if total - self._told >= CONFIRM:
            self._told = total
            self.link.confirm(total)

    def confirmed(self, total: int) -> None:
        """Let go of what the other side has."""
        self._spool.confirm(total)

    def broken(self) -> None:
        """See to another connection, when there is none."""
        if self._watch is not None:
            self._watch.cancel()
        if self.link.shut or (self._seeking is not None and not self._seeking.done()):
            return
        if self.leaving:
            self._give_up(ConnectionResetError("it has left"))
        elif self._secret is not None:
            self._seeking = self._lines.node.job(self._seek(self._dial), "line")
        elif self.address is not None:
            self._seeking = self._lines.node.job(self._seek(self._look), "line")

    def close(self) -> None:
        """Try no longer."""
        if self._seeking is not None and self._seeking is not _current():
            self._seeking.cancel()
        if self._watch is not None:
            self._watch.cancel()

    # -- a connection -------------------------------------------------------------------------------------------------

    def joined(self, answer: Answer) -> None:
        """Go on over a connection, from where the other side is.

        Raises:
            StrangerError: The other side is not the one from before.
        """
        if self.link.shut:
            answer.sock.close()
            return
        try:
            pieces = self._spool.rewind(answer.total)
        except ValueError as error:
            raise StrangerError(str(error)) from None
        if self._seeking is not None and self._seeking is not _current():
            self._seeking.cancel()
        self._seeking = None
        self._told = self.link.received
        self.link.resume(answer.sock, pieces)
        self._watch = self._lines.node.loop.call_later(1.0, self._listen)

    def _listen(self) -> None:
        """Look from time to time whether the other host is still there."""
        sock = self.link.connection
        if sock is None:
            return
        if silent(sock):
            self.link.lost()
            return
        self._watch = self._lines.node.loop.call_later(1.0, self._listen)

    async def _seek(self, attempt: Callable[[socket.socket], Coroutine[Any, Any, bool]]) -> None:
        """Try until there is a connection, or no hope: the port is closed, or the host out of reach for too long."""
        assert self.address is not None  # noqa: S101 (else there is nothing to seek)
        loop = self._lines.node.loop
        pause, longest = PAUSES
        refusals, since = 0, loop.time()
        while not self.link.shut:
            sock = None
            try:
                sock = await reach(self.address)
                if await attempt(sock):
                    return
                refusals = 0
            except (ConnectionRefusedError, StrangerError) as error:
                refusals += 1
                self.error = error
                if refusals == REFUSALS:
                    break
            except OSError as error:
                self.error = error
                refusals = 0
                if sock is None and loop.time() - since > PATIENCE_SECONDS:
                    break
            finally:
                if sock is not None and sock is not self.link.connection:
                    sock.close()
            if sock is not None:  # somebody was there
                since = loop.time()
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
        self._give_up(self.error)

    async def _dial(self, sock: socket.socket) -> bool:
        assert self._secret is not None  # noqa: S101 (whoever dials knows it)
        self.joined(await greet(sock, self._secret, self._lines.number, self.link))
        return True

    async def _look(self, sock: socket.socket) -> bool:
        """Stand at the other side's door, which opens from within: it is closed when that process ends."""
        await _read(sock, 1)
        return self.link.up

    def _give_up(self, error: OSError | None) -> None:
        if not self.link.shut:
            self.error = error
            self.link.close()
            self.link.owner.closed(self.link)


def _current() -> asyncio.Task[Any] | None:
    """Return the running task; None in a callback of the loop, or when there is no loop any more."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _listen(family: int, host: str, ports: tuple[int, int] | None) -> socket.socket:
    first, last = ports or (0, 0)
    for port in range(first, last + 1):
        sock = socket.socket(family)
        try:
            sock.bind((host, port))
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            if port == last:
                raise
        else:
            return sock
    raise AssertionError(ports)


def tune(sock: socket.socket) -> None:
    """Set the options of a connection: send at once, and let the kernel look whether the other host is there."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 2), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", int(SILENCE_SECONDS / 2))):
        option = getattr(socket, name, None)
        if option is not None:  # not every system has it
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


_REPEATED, _PROBES, _ACK_AGE = 2, 3, 56
"""Where Linux's ``tcp_info`` has the repetitions and the probes that were not answered (bytes), and the age in ms of
the last ACK (4 bytes)."""


def silent(sock: socket.socket) -> bool:
    """Say whether the other host has left probes and repeated data unanswered for too long (Linux; else never).

    Nothing of the other process is needed for an answer, and a full receive buffer answers too.
    """
    option = getattr(socket, "TCP_INFO", None)
    if option is None:
        return False
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, option, 104)
    except OSError:
        return True
    if len(info) < _ACK_AGE + 4:
        return False
    age = int.from_bytes(info[_ACK_AGE : _ACK_AGE + 4], sys.byteorder) / 1000
    return max(info[_REPEATED], info[_PROBES]) > 1 and age > SILENCE_SECONDS
