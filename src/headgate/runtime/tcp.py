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
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

from headgate.runtime.connecting import LOOPBACK, Address, reach, read, send, silent, tune
from headgate.runtime.detour import Detour, cross, key_of
from headgate.runtime.spool import Spool

if TYPE_CHECKING:
    from headgate.runtime.link import Link
    from headgate.runtime.node import Node

logger = logging.getLogger("headgate")

Ports = tuple[int, int] | Literal[False] | None
"""At which a node may listen."""

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
PATIENCE_SECONDS: Final = 15.0
"""How long a host may be out of reach before it is given up."""
DETOUR_SECONDS: Final = (2.5, 10.0)
"""How long it may be before another way is asked for: when there was no connection yet, and when there was one."""
ANOTHER_SECONDS: Final = 0.5
"""How long it may be by a detour before another one is asked for: it may be the ferry that has died."""
HELP_SECONDS: Final = 60.0
"""How much longer is waited when another way was asked for and there is no direct one: it has to be made."""
REFUSALS: Final = 3
"""How often a port may be found closed before whoever was there is given up."""
PAUSES: Final = (0.02, 0.5)
"""Seconds between two attempts, the first and the longest."""


class StrangerError(ConnectionError):
    """The other side does not know the secret, or is not who was wanted."""


class Lines(Protocol):
    """The node that lines belong to: its exchange."""

    node: Node
    number: int
    secret: bytes

    def line(self, peer: int) -> Line | None:
        """Return the line of the link to a node that wants to come in; None: it is not expected."""

    def seek_detour(self, line: Line) -> None:
        """Look for another way for a line, as the other node's port is out of reach: it will be told by `Line.take`."""


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


async def greet(sock: socket.socket, secret: bytes, me: int, link: Link) -> Answer:
    """Knock at a door that was reached, and let both sides prove who they are.

    Raises:
        StrangerError: It is somebody else.
        OSError: It has closed the connection.
    """
    hello = _HELLO.pack(_MAGIC, me, link.peer, secrets.token_bytes(_NONCE))
    await send(sock, hello)
    nonce = await read(sock, _NONCE)
    said = hello + nonce
    _check(secret, b"door", said, await read(sock, _MAC))
    said += _TOTAL.pack(link.received)
    await send(sock, said[-_TOTAL.size :], _mac(secret, b"dial", said))
    total = await read(sock, _TOTAL.size)
    _check(secret, b"open", said + total, await read(sock, _MAC))
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
        ports: The first and the last port that may be used. Default: any that is free. False: one that only this
            machine can reach.

    Attributes:
        address: Host and port.

    Raises:
        OSError: No such port is free, or the address is not this machine's.
    """

    def __init__(self, lines: Lines, host: str, ports: Ports = None) -> None:
        """Begin to listen."""
        self._lines = lines
        self._strangers: set[asyncio.Task[None]] = set()
        if ports is False:
            host, ports = LOOPBACK, None
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
        hello = await read(sock, _HELLO.size)
        magic, peer, wanted, _ = _HELLO.unpack(hello)
        if magic != _MAGIC:
            raise StrangerError("it speaks another language")
        said = hello + secrets.token_bytes(_NONCE)
        await send(sock, said[-_NONCE:], _mac(secret, b"door", said))
        total = await read(sock, _TOTAL.size)
        said += total
        _check(secret, b"dial", said, await read(sock, _MAC))
        line = lines.line(peer) if wanted == lines.number else None
        if line is None:  # it was given up, and has to know
            said += _GONE
            await send(sock, _GONE, _mac(secret, b"open", said))
            raise StrangerError(f"node {peer} wants node {wanted}, and is not expected at node {lines.number}")
        line.link.detach()  # from now on nothing more comes by the one before
        try:
            said += _TOTAL.pack(line.link.received)
            await send(sock, said[-_TOTAL.size :], _mac(secret, b"open", said))
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
        detour: The way to it, if not the direct one.

    Attributes:
        address: As given; None: not known yet.
        detour: The way to it that is used where the direct one is closed; None: the direct one.
        leaving: The other side is about to leave: the end of the connection is the end of the link.
    """

    def __init__(
        self,
        lines: Lines,
        link: Link,
        *,
        address: Address | None = None,
        secret: bytes | None = None,
        detour: Detour | None = None,
    ) -> None:
        """Let the link go over it; `broken` begins to dial."""
        self.link = link
        self.address = address
        self.detour = detour
        self.leaving = False
        self._lines = lines
        self._secret = secret
        self._spool = Spool()
        self._told = 0
        self._seeking: asyncio.Task[None] | None = None
        self._new = True  # there was no connection yet
        self._asked = False  # for another way,
        self._help = 0.0  # and is waited for so many seconds longer
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
        self._new = self._asked = False
        self._help = 0.0
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
        loop = self._lines.node.loop
        pause, longest = PAUSES
        refusals, since = 0, loop.time()
        while not self.link.shut:
            sock = None
            try:
                sock = await self._reach()
                if await attempt(sock):
                    return
                refusals = 0
            except (ConnectionRefusedError, StrangerError) as error:
                refusals += 1
                self.error = error
                if refusals >= REFUSALS and not (self._may_be_walled() and self._is_patient(loop.time() - since)):
                    break
            except OSError as error:
                self.error = error
                refusals = 0
                if sock is None and not self._is_patient(loop.time() - since):
                    break
            finally:
                if sock is not None and sock is not self.link.connection:
                    sock.close()
            if sock is not None:  # somebody was there
                since = loop.time()
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
        self._give_up(self.error)

    async def _reach(self) -> socket.socket:
        assert self.address is not None  # noqa: S101 (else there is nothing to seek)
        if self.detour is None:
            return await reach(self.address)
        return await cross(self.detour, self.address, key_of(self._secret or self._lines.secret))

    def _may_be_walled(self) -> bool:
        """Say whether it may be a firewall that refuses: nobody was reached there yet, and another way is sought."""
        if not self._new or self.detour is not None or isinstance(self.error, StrangerError):
            return False
        self._seek_detour()
        return True

    def _is_patient(self, waited: float) -> bool:
        """Say whether to go on, and see to it that another way is sought in time."""
        if waited > (DETOUR_SECONDS[not self._new] if self.detour is None else ANOTHER_SECONDS):
            self._seek_detour()
        return waited <= PATIENCE_SECONDS + self._help

    def _seek_detour(self) -> None:
        if not self._asked:
            self._asked = True
            self._help = HELP_SECONDS if self._new or self.detour is not None else 0.0
            self._lines.seek_detour(self)

    def take(self, detour: Detour | None) -> None:
        """Go another way from now on, as was asked for; None: there is none, so this one has to do."""
        if self.link.shut or self.link.up:
            return
        if detour is None:
            self._new, self._help = False, 0.0
            return
        self.detour = detour
        self._asked = False
        if self._seeking is not None:  # it begins anew
            self._seeking.cancel()
            self._seeking = None
        self.broken()

    async def _dial(self, sock: socket.socket) -> bool:
        assert self._secret is not None  # noqa: S101 (whoever dials knows it)
        self.joined(await greet(sock, self._secret, self._lines.number, self.link))
        return True

    async def _look(self, sock: socket.socket) -> bool:
        """Stand at the other side's door, which opens from within: it is closed when that process ends."""
        await read(sock, 1)
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
