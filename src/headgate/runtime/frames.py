"""Frames: how a stream of bytes, with descriptors beside it, is cut into messages; and memory files.

A frame is a head of 16 bytes and a body. Buffers in the body begin at multiples of 64 bytes, as arrays like it.
"""

from __future__ import annotations

import array
import ctypes
import errno
import functools
import mmap
import os
import socket
import struct
import sys
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from headgate.runtime.wire import Split

HEAD: Final = struct.Struct("<BBHIQ")
"""Kind, how it is encoded, number of buffers, length of the pickle, length of all that follows."""
SHARED: Final = 0x80
"""Flag of the encoding: what is large is in a memory file, whose descriptor goes along."""
PASSED: Final = 0x40
"""Flag of the encoding: a descriptor goes along that is part of the message."""
READ: Final = 256 << 10
"""Bytes that are read at once."""
SCRATCH: Final = 4 << 20
"""Bytes that are kept for the large frames to come."""
SHARE: Final = 256 << 10
"""Buffers beside a pickle that weigh more bytes than this go by a memory file, which is read without a copy."""
LONG: Final = 4 << 20
"""So does a pickle that is longer than this."""
JOIN: Final = 64 << 10
"""A pickle that is shorter than this is put together with its head."""
_ALIGN: Final = 64

Head = tuple[int, int, int, int, int]


class Reader:
    """Cuts a stream of bytes into frames, without copying large ones."""

    def __init__(self, frame: Callable[[Head, memoryview, int], None]) -> None:
        """Hand each frame to a function: its head, its body, and the descriptor that came with it, or -1.

        A body without buffers is only good until the function returns: the next one comes to the same place.
        """
        self._frame = frame
        self._buffer = bytearray(READ)
        self._from = self._to = 0
        self._large: memoryview | None = None  # the body of a frame that does not fit, as far as it has come
        self._scratch = bytearray()  # where large bodies come to that nobody keeps: new pages are slow
        self._filled = 0
        self._head: Head = (0, 0, 0, 0, 0)
        self._descriptors: deque[int] = deque()
        self.total = 0
        self._space = socket.CMSG_SPACE(16 * 4) if hasattr(socket, "CMSG_SPACE") else 0

    def read(self, sock: socket.socket) -> bool:
        """Read once, and hand on the frames that are complete; False at the end of the stream.

        Raises:
            OSError: The socket does not work any more, or a descriptor that should have come along did not.
        """
        large = self._large
        if large is not None:
            count = self._receive(sock, large[self._filled :])
            self._filled += count
            if self._filled == len(large):
                self._large = None
                self._frame(self._head, large, self._descriptor(self._head))
            return count > 0
        count = self._receive(sock, memoryview(self._buffer)[self._to :])
        self._to += count
        self._cut()
        return count > 0

    def _receive(self, sock: socket.socket, into: memoryview) -> int:
        count, ancillary, _, _ = sock.recvmsg_into([into], self._space)
        self.total += count
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                rights = array.array("i")
                rights.frombytes(data[: len(data) - len(data) % rights.itemsize])
                self._descriptors.extend(rights)
        return count

    def _cut(self) -> None:
        start, end, size = self._from, self._to, HEAD.size
        buffer = self._buffer
        while end - start >= size:
            head = HEAD.unpack_from(buffer, start)
            length = head[4]
            if end - start - size >= length:
                body = memoryview(buffer)[start + size : start + size + length]
                if head[2]:  # what is made of it may keep its buffers
                    body = memoryview(bytearray(size) + body)[size:]
                self._from = start = start + size + length  # whatever comes of it, it has come
                self._frame(head, body, self._descriptor(head))
            elif size + length > READ // 2:  # it gets a place of its own, aligned as it was sent
                whole = memoryview(self._room(size + length, kept=bool(head[2])))[size : size + length]
                have = end - start - size
                whole[:have] = memoryview(buffer)[start + size : end]
                self._head, self._large, self._filled = head, whole, have
                start = end
            else:
                break
        if start == end:
            self._from = self._to = 0
        elif start > READ // 2 or end == READ:
            buffer[: end - start] = buffer[start:end]
            self._from, self._to = 0, end - start
        else:
            self._from = start

    def _room(self, size: int, *, kept: bool) -> bytearray:
        """Return a place for a large frame."""
        if kept or size > SCRATCH:
            return bytearray(size)
        if size > len(self._scratch):
            self._scratch = bytearray(size)
        return self._scratch

    def _descriptor(self, head: Head) -> int:
        if not head[1] & (SHARED | PASSED):
            return -1
        if not self._descriptors:  # the system had none left for it, and the frame is nothing without
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return self._descriptors.popleft()

    def close(self) -> None:
        """Close descriptors that nobody has taken."""
        while self._descriptors:
            os.close(self._descriptors.popleft())


def frame(kind: int, parts: Split, front: bytes, *, share: bool) -> tuple[list[Any], int, int]:
    """Make a frame.

    Args:
        kind: Of what is in it.
        parts: What was encoded.
        front: What comes first in its body.
        share: What is large may go by a memory file.

    Returns:
        Its pieces, in order; the descriptor of a memory file that goes along with the first, or -1; the bytes in that.
    """
    how, pieces, buffers = parts
    length = sum(map(len, pieces))
    raws = [each.raw() for each in buffers]
    sizes = struct.pack(f"<{len(raws)}Q", *(raw.nbytes for raw in raws))
    if share and (sum(raw.nbytes for raw in raws) > SHARE or length > LONG):
        head = HEAD.pack(kind, how | SHARED, len(raws), length, len(front) + len(sizes))
        descriptor = os.memfd_create("headgate")
        return [head + front + sizes], descriptor, write_all(descriptor, [*pieces, *padded(raws, length)])
    start = len(front) + len(sizes) + length
    beside = list(padded(raws, start + HEAD.size))
    head = HEAD.pack(kind, how, len(raws), length, start + sum(map(len, beside))) + front + sizes
    if len(pieces) == 1 and length < JOIN:
        return [head + pieces[0], *beside], -1, 0
    return [head, *pieces, *beside], -1, 0


def padded(raws: list[memoryview], at: int) -> Any:
    """Return the buffers, each padded in front so that it begins at a multiple of `_ALIGN`."""
    for raw in raws:
        gap = -at % _ALIGN
        if gap:
            yield bytes(gap)
        if raw.nbytes:
            yield raw
        at += gap + raw.nbytes


def slices(whole: memoryview, sizes: tuple[int, ...], at: int, offset: int = 0) -> Any:
    """Find them again."""
    for size in sizes:
        at += -(at + offset) % _ALIGN
        yield whole[at : at + size]
        at += size


def write_all(descriptor: int, pieces: list[Any]) -> int:
    """Write them all, and return how many bytes that were."""
    total = 0
    for piece in pieces:
        view = memoryview(piece)
        total += len(view)
        while view:
            view = view[os.write(descriptor, view) :]
    return total


def map_file(descriptor: int) -> memoryview:
    """Map a memory file; writes to it stay our own. The descriptor is closed: what is mapped may be kept for long."""
    try:
        size = os.fstat(descriptor).st_size
        prot = mmap.PROT_READ | mmap.PROT_WRITE
        if sys.version_info >= (3, 13):
            return memoryview(mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE, prot=prot, trackfd=False))
        return _map(descriptor, size, prot)
    finally:
        os.close(descriptor)


def _map(descriptor: int, size: int, prot: int) -> memoryview:
    """Map without a descriptor of its own, of which ``mmap.mmap`` keeps one for each map before Python 3.13."""
    libc = _libc()
    address = libc.mmap(None, size, prot, mmap.MAP_PRIVATE, descriptor, 0)
    if address == _FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    space = (ctypes.c_ubyte * size).from_address(address)
    weakref.finalize(space, libc.munmap, address, size).atexit = False
    return memoryview(space).cast("B")


@functools.cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_ssize_t)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return libc


_FAILED: Final = ctypes.c_void_p(-1).value
