"""Connections by TCP: how they are made, read and written, and how it is found out that the other host is silent."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Final

Address = tuple[str, int]

LOOPBACK: Final = "127.0.0.1"
CONNECT_SECONDS: Final = 3.0
SILENCE_SECONDS: Final = 10.0
"""How long a host may leave the kernel's probes unanswered before its connection counts as broken."""


async def read(sock: socket.socket, size: int) -> bytes:
    """Read so many bytes.

    Raises:
        ConnectionError: They do not come any more.
    """
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        piece = await loop.sock_recv(sock, size - len(data))
        if not piece:
            raise ConnectionResetError("the other side has closed the connection")
        data += piece
    return data


async def send(sock: socket.socket, *data: bytes) -> None:
    """Write all of it."""
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
