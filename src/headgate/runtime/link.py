"""A link: what two nodes say to each other, over one stream socket.

It carries the protocol's own messages between stages, in order, and what nodes have to tell each other (`Far` explains
which). It decides nothing about demand: events are only ever sent since somebody asked for them, so what a link holds
is bounded by what was asked. Frames that the socket does not take yet wait as messages, not as bytes, beyond a bound.

A frame is a head of 16 bytes (kind, how it is encoded, number of buffers, length of the pickle, length of all that
follows) and a body. Events, asks and everything else are the three kinds. What is large does not go through the socket,
whose buffer it would fill many times over, where there is a better way: it is written to an unnamed memory file
(`memfd`), whose descriptor goes along; it is gone with the last one who has it open, however that one ends.
"""

from __future__ import annotations

import array
import errno
import functools
import os
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

from headgate.errors import CrossingError, short
from headgate.protocol import messages as m
from headgate.protocol.batching import cut
from headgate.protocol.messages import ASK, EVENTS, Message
from headgate.runtime.budget import Inflow, Outflow
from headgate.runtime.frames import HEAD, PASSED, SHARED, Reader, frame, map_file, slices
from headgate.runtime.wire import HINT, RICH, Codes, Split

if TYPE_CHECKING:
    import asyncio

    from headgate.runtime.tcp import Line

_ASK: Final = struct.Struct("<QQQQ")
_EVENTS: Final = struct.Struct("<QQQQ")
_SIZES: Final = 8
_OTHER: Final = 0
_CREDIT: Final = 3
_CONFIRM: Final = 4
_DONE: Final = struct.Struct("<QQ")
_TOTAL: Final = struct.Struct("<Q")

_FLOWING: Final = frozenset({EVENTS, m.REDELIVERED, m.CANCELLED})
_OF_EVENTS: Final = frozenset({EVENTS, m.REDELIVERED})
_LAST: Final = frozenset({m.CANCEL, m.CLOSED})

HIGH: Final = 4 << 20
"""Bytes that may wait for the socket; beyond them messages wait as they are."""
BREAK: Final = 0.005
"""Seconds after which to try again what the system refuses for now."""
_CAN_SHARE: Final = hasattr(os, "memfd_create") and hasattr(socket, "SCM_RIGHTS")
_IOV: Final = 64


class Owner(Protocol):
    """The node that a link belongs to."""

    loop: asyncio.AbstractEventLoop
    pending: list[Link]
    """Links that have something to write."""
    inflows: dict[int, Inflow]
    """What has come on each subscription, by its number."""

    def watch(self, number: int) -> None:
        """See to it that a stage of this node notes what it is done with."""

    def codes(self, link: Link) -> Codes:
        """Return what is known of code on this link."""
        ...

    def subscription(self, number: int) -> Any:
        """Return a subscription that is known here, or None."""

    def deliver(self, link: Link, number: int, message: Message) -> None:
        """Hand a message to a stage of this node."""

    def heard(self, link: Link, what: tuple[Any, ...]) -> None:
        """Take in what is no message between stages."""

    def refused(self, link: Link, number: int, message: Message, error: Exception) -> None:
        """Take note that a message for a stage elsewhere cannot cross."""

    def undelivered(self, number: int, subscription: Any, count: int, error: Exception) -> None:
        """Take note that events from elsewhere could not be read."""

    def closed(self, link: Link) -> None:
        """Take note that the other side is gone."""


class Link:
    """One end of it.

    Args:
        owner: The node.
        peer: The number of the node at the other end.
        sock: A connected stream socket, or None: what is sent waits until `attach`.
        local: Both ends are on one machine: descriptors can be passed.
        max_bytes: The most that a message of events may weigh.
        budget: Bytes of events that may be on the way on one subscription.

    Attributes:
        up: It has a socket, and nobody has closed it.
        line: Sees to it that the link outlives its connection; None: it does not.
    """

    def __init__(
        self,
        owner: Owner,
        peer: int,
        sock: socket.socket | None = None,
        *,
        local: bool = True,
        max_bytes: int = 64 << 20,
        budget: int = 256 << 20,
    ) -> None:
        """Begin to read when there is a socket."""
        self.owner = owner
        self.peer = peer
        self.max_bytes = max_bytes
        self.budget = budget
        self._outflows: dict[int, Outflow] = {}
        self.shut = False
        self._codes = owner.codes(self)
        self._share = local and _CAN_SHARE
        self._sock: socket.socket | None = None
        self._out: deque[tuple[Any, int]] = deque()  # bytes, and a descriptor to go along (or -1)
        self._weight = 0
        self._files: dict[int, int] = {}  # memory files that wait as well, and what they weigh
        self._waiting: deque[tuple[int, Any]] = deque()
        self._writing = False
        self._flushing = False
        self._reader = Reader(self._frame)
        self.line: Line | None = None
        if sock is not None:
            self.attach(sock)

    @property
    def up(self) -> bool:
        """Whether it has a socket that works."""
        return self._sock is not None

    def attach(self, sock: socket.socket) -> None:
        """Begin to use a socket."""
        sock.setblocking(False)  # noqa: FBT003 (that is its form)
        if self.line is None:  # else the system knows better
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, HIGH)
        self._sock = sock
        self.owner.loop.add_reader(sock, self._readable)
        self.flush()

    @property
    def connection(self) -> socket.socket | None:
        """The socket that it uses now."""
        return self._sock

    def run_over(self, line: Line) -> None:
        """Go over a line that may lead to another machine, before there is a socket."""
        self.line = line
        self._share = False

    def detach(self) -> None:
        """Let go of the socket, and keep all else."""
        sock, self._sock = self._sock, None
        if sock is not None:
            self._writing = False
            loop = self.owner.loop
            if not loop.is_closed():
                loop.remove_reader(sock)
                loop.remove_writer(sock)
            sock.close()

    def resume(self, sock: socket.socket, pieces: list[Any]) -> None:
        """Go on over another socket, with what has to be written again."""
        self.detach()
        self._out.extendleft((piece, -1) for piece in reversed(pieces))
        self._weight += sum(map(len, pieces))
        self.attach(sock)

    @property
    def received(self) -> int:
        """Bytes that have come, over all of its sockets."""
        return self._reader.total

    # -- sending ------------------------------------------------------------------------------------------------------

    def post(self, number: int, message: Message) -> None:
        """Send a message to a stage at the other end."""
        tag = message[0]
        if tag in _FLOWING:
            flow = self._outflows.get(message[1].id)
            if flow is not None and (flow.held or (flow.full and tag in _OF_EVENTS)):
                flow.held.append((number, message))
                return
        elif tag in _LAST:
            self.owner.inflows.pop(message[1].id, None)
        self._put(number, message)

    def tell(self, *what: Any) -> None:
        """Tell the other node something."""
        self._put(-1, what)

    def pass_on(self, what: tuple[Any, ...], descriptor: int) -> None:
        """Tell the other node something, with a descriptor that goes along; it is closed here."""
        how, pieces, buffers = self._encode((-1, what))
        self._write(_OTHER, (how | PASSED, pieces, buffers), descriptor)
        self._later()

    def _put(self, number: int, message: Any) -> None:
        if self.shut:
            return
        if self._waiting or self._weight > HIGH or self._sock is None:
            self._waiting.append((number, message))
        else:
            self._encode_out(number, message)
        self._later()

    def _later(self) -> None:
        if not self._flushing and not self._writing and self._sock is not None:
            self._flushing = True
            self.owner.pending.append(self)
            self.owner.loop.call_soon(self._turned)

    def _encode_out(self, number: int, message: Any) -> None:
        """Turn one message into bytes that wait for the socket."""
        tag = message[0] if number >= 0 else None
        if tag == ASK:
            _, subscription, asked, acked = message
            body = _ASK.pack(number, subscription.id, asked, acked)
            self._append(HEAD.pack(ASK, 0, 0, 0, len(body)) + body)
        elif tag in _OF_EVENTS:
            self._events(number, message)
        else:
            try:
                if tag == m.CALL:
                    message = (tag, self.pack(message[1]), message[2])
                parts = self._encode((number, message))
            except Exception as error:  # noqa: BLE001 (whatever cannot be pickled)
                self.owner.refused(self, number, message, error)
                return
            self._write(_OTHER, parts)

    def pack(self, value: Any) -> tuple[Any, ...]:
        """Encode a part of a message by itself, so that it is only that part which may turn out to be unreadable."""
        return self._codes.encode_events(value)

    def unpack(self, packed: tuple[Any, ...]) -> Any:
        """Decode such a part.

        Raises:
            CrossingError: It cannot be read here.
        """
        try:
            return self._codes.decode(*packed)
        except Exception as error:
            raise _unreadable("what came", error) from error

    def _encode(self, what: Any) -> Split:
        try:
            return self._codes.split(what)
        except Exception:  # noqa: BLE001 (an exception's own attributes may be what cannot cross)
            return self._codes.split(what, crude=True)

    def _events(self, number: int, message: Message) -> None:
        """Encode a batch; one that is too large goes in halves."""
        tag, subscription, batch, *deliveries = message
        try:
            parts = self._codes.split_events(batch)
            weight = sum(map(len, parts[1])) + sum(each.raw().nbytes for each in parts[2])
            if weight > self.max_bytes:
                size = len(batch)
                if size > 1:
                    self._events(number, (tag, subscription, cut(batch, 0, size // 2), *deliveries))
                    self._events(number, (tag, subscription, cut(batch, size // 2, size), *deliveries))
                    return
                text = f"one event weighs {weight} bytes, no more than max_bytes={self.max_bytes} can go at once"
                raise CrossingError(f"event {short(batch[0])}: {text}")  # noqa: TRY301 (as for all that cannot cross)
        except Exception as error:  # noqa: BLE001 (whatever cannot be pickled)
            self.owner.refused(self, number, message, error)
            return
        self._write(EVENTS, parts, front=_EVENTS.pack(number, subscription.id, len(batch), *deliveries or (0,)))
        flow = self._outflows.get(subscription.id)
        if flow is None:
            flow = self._outflows[subscription.id] = Outflow(self.budget)
        flow.sent(weight)

    def _credit(self, known: int, total: int) -> None:
        """Tell the sender how many messages of a subscription are done with."""
        body = _DONE.pack(known, total)
        self._append(HEAD.pack(_CREDIT, 0, 0, 0, len(body)) + body)
        self._later()

    def confirm(self, total: int) -> None:
        """Tell the other side how many bytes have come."""
        body = _TOTAL.pack(total)
        self._append(HEAD.pack(_CONFIRM, 0, 0, 0, len(body)) + body)
        self._later()

    def _credited(self, known: int, total: int) -> None:
        """Send what had to wait for that."""
        flow = self._outflows.get(known)
        if flow is None:
            return
        flow.done(total)
        held, flow.held = flow.held, deque()
        while held:
            self.post(*held.popleft())  # it may be held again, and then all that is behind it

    def _write(self, kind: int, parts: Split, descriptor: int = -1, front: bytes = b"") -> None:
        pieces, file, weight = frame(kind, parts, front, share=self._share and descriptor < 0)
        if file >= 0:
            descriptor = file
            self._files[file] = weight
            self._weight += weight
        self._append(pieces[0], descriptor)
        for piece in pieces[1:]:
            self._append(piece)

    def _append(self, data: Any, descriptor: int = -1) -> None:
        self._out.append((data, descriptor))
        self._weight += len(data)

    def _turned(self) -> None:
        """Write what was put in in this turn, if nobody has meanwhile."""
        if self._flushing:
            if self in self.owner.pending:
                self.owner.pending.remove(self)
            self.flush()

    def flush(self) -> None:
        """Write what the socket takes."""
        self._flushing = False
        sock, out = self._sock, self._out
        if sock is None:
            return
        try:
            while out or self._waiting:
                while self._waiting and self._weight <= HIGH:
                    self._encode_out(*self._waiting.popleft())
                if not out:
                    continue
                self._sent(self._send(sock))
        except (BlockingIOError, InterruptedError):
            if not self._writing:
                self._writing = True
                self.owner.loop.add_writer(sock, self.flush)
            return
        except OSError as error:
            if error.errno == errno.ETOOMANYREFS:  # too many descriptors are on the way: they will arrive
                self.owner.loop.call_later(BREAK, self.flush)
            else:
                if self.line is None:  # else it says them again
                    self.drain()  # its last words
                self.lost()
            return
        if self._writing:
            self._writing = False
            self.owner.loop.remove_writer(sock)

    def _send(self, sock: socket.socket) -> int:
        out = self._out
        data, descriptor = out[0]
        if descriptor >= 0:
            rights = array.array("i", [descriptor])
            sent = sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            os.close(descriptor)
            self._weight -= self._files.pop(descriptor, 0)
            out[0] = (data, -1)
            return sent
        if len(out) == 1:
            return sock.send(data)
        views: list[Any] = []
        for data, descriptor in out:
            if descriptor >= 0 or len(views) == _IOV:
                break
            views.append(data)
        return sock.sendmsg(views)

    def _sent(self, count: int) -> None:
        out, line = self._out, self.line
        self._weight -= count
        while count:
            data, descriptor = out[0]
            size = len(data)
            if count < size:
                view = memoryview(data)
                out[0] = (view[count:], descriptor)
                data, size = view[:count], count
            else:
                out.popleft()
            if line is not None:
                line.wrote(data)
            count -= size

    # -- receiving ----------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            going = self._reader.read(sock)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            going = False
        if not going:
            self.lost()
        elif self.line is not None:
            self.line.read(self._reader.total)

    def finish(self) -> None:
        """Write all that waits, however long that takes: there is nothing else to do any more."""
        if self._sock is not None:
            self._sock.setblocking(True)  # noqa: FBT003 (that is its form)
            self.flush()

    def drain(self) -> None:
        """Read what has arrived already: the other side has ended."""
        sock = self._sock
        while sock is not None:
            try:
                if not self._reader.read(sock):
                    return
            except OSError:
                return

    def _frame(self, head: tuple[int, int, int, int, int], body: memoryview, descriptor: int) -> None:
        kind, how, count, length, _ = head
        owner = self.owner
        if kind == ASK:
            number, known, asked, acked = _ASK.unpack(body)
            subscription = owner.subscription(known)
            if subscription is not None:  # else it is over
                owner.deliver(self, number, (ASK, subscription, asked, acked))
            return
        if kind == _CREDIT:
            self._credited(*_DONE.unpack(body))
            return
        if kind == _CONFIRM and self.line is not None:
            self.line.confirmed(*_TOTAL.unpack(body))
            return
        at = 0
        number, known, events, deliveries, subscription = -1, -1, 0, 0, None
        if kind == EVENTS:
            number, known, events, deliveries = _EVENTS.unpack_from(body)
            at = _EVENTS.size
            subscription = owner.subscription(known)
        sizes = struct.unpack_from(f"<{count}Q", body, at)
        at += _SIZES * count
        if how & SHARED:
            whole = map_file(descriptor)
            descriptor = -1
            data = whole[:length]
            buffers = list(slices(whole, sizes, length))
        else:
            data = body[at : at + length]
            buffers = list(slices(body, sizes, at + length, offset=HEAD.size))
        try:
            value = self._codes.decode(how & RICH, data, buffers)
        except Exception as error:  # noqa: BLE001 (a module that is not there, ...)
            if kind != EVENTS:
                owner.heard(self, ("garbled", _unreadable("what came", error)))
            elif subscription is not None:
                owner.undelivered(number, subscription, events, _unreadable("events", error))
            return
        if kind == EVENTS:
            if subscription is not None:
                self._count(number, known, events, length + sum(sizes))
                if deliveries:
                    owner.deliver(self, number, (m.REDELIVERED, subscription, value, deliveries))
                else:
                    owner.deliver(self, number, (EVENTS, subscription, value))
            return
        number, message = value
        if number >= 0:
            tag = message[0]
            if tag in _LAST:
                self._outflows.pop(message[1].id, None)
            elif tag == m.CALL:
                try:
                    message = (tag, self.unpack(message[1]), message[2])
                except CrossingError as error:
                    message[2].set_exception(error)
                    return
            owner.deliver(self, number, message)
        else:
            owner.heard(self, message if descriptor < 0 else (*message, descriptor))

    def _count(self, number: int, known: int, events: int, weight: int) -> None:
        """Count a message of events against the budget."""
        inflow = self.owner.inflows.get(known)
        if inflow is None:
            self.owner.watch(number)
            inflow = self.owner.inflows[known] = Inflow(self.budget, functools.partial(self._credit, known))
        inflow.received(events, weight)

    # -- the end ------------------------------------------------------------------------------------------------------

    def lost(self) -> None:
        """Take note that the connection has broken."""
        if self._sock is None:
            return
        if self.line is not None:
            self.detach()
            self.line.broken()
        else:
            self.close()
            self.owner.closed(self)

    def close(self) -> None:
        """Let go of the socket; what waits is dropped."""
        self.shut = True
        self.detach()
        if self.line is not None:
            self.line.close()
        for _, descriptor in self._out:
            if descriptor >= 0:
                os.close(descriptor)
        self._out.clear()
        self._waiting.clear()
        self._reader.close()


def _unreadable(what: str, error: Exception) -> CrossingError:
    """Return the error for what cannot be read on this side."""
    crossing = CrossingError(
        f"{what} from another process cannot be read here: {type(error).__name__}: {error}. {HINT}"
    )
    crossing.__cause__ = error
    return crossing
