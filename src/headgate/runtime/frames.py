"""Frames: how a stream of bytes, with descriptors beside it, is cut into messages; and memory files.

A frame is a head of 16 bytes and a body. Buffers in the body begin at multiples of 64 bytes, as arrays like it.
"""

from __future__ import annotations

import array
import mmap
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Final

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
        """Read once, and hand on the frames that are complete; False at the end of the stream."""
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
        return self._descriptors.popleft() if head[1] & (SHARED | PASSED) else -1

    def close(self) -> None:
        """Close descriptors that nobody has taken."""
        while self._descriptors:
            os.close(self._descriptors.popleft())


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
    """Map a memory file; writes to it stay our own."""
    try:
        size = os.fstat(descriptor).st_size
        return memoryview(mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE))
    finally:
        os.close(descriptor)
