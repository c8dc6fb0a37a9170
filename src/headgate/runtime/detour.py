"""How a node reaches a port of another machine where it cannot connect to it: by the ferry of its own machine.

The ferry (`headgate.runtime.ferry`) listens on the loopback. It says a nonce; whoever wants to be taken over says where
to, and proves by a MAC over both that it belongs to the system; one byte says what came of it. From there on the
connection is as good as one to that port: the door there wants its own proofs over it, as everybody's.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
import struct
from typing import Final, NamedTuple

from headgate.runtime.connecting import Address, reach, read, send

NONCE: Final = 32
WANTED: Final = struct.Struct("<64s64sH32s")
"""The machine, the host and the port, and the MAC."""
THERE: Final = 0
CLOSED: Final = 1
"""The port is closed: nobody is there any more."""
OUT_OF_REACH: Final = 2
FERRY_SECONDS: Final = 10.0
"""How long a ferry may take to reach a port."""


class Detour(NamedTuple):
    """The way by a ferry.

    Attributes:
        ferry: Where this machine's ferry listens.
        machine: The machine to be taken to, by the name that ferries know it by.
    """

    ferry: Address
    machine: str


def key_of(secret: bytes) -> bytes:
    """Return what ferries of a system know: enough to take its nodes over, and none of what a door wants to be told."""
    return hmac.digest(secret, b"ferry", "sha256")


def want(machine: str, address: Address, nonce: bytes, key: bytes) -> bytes:
    """Return the request to be taken to an address of a machine."""
    host, port = address
    said = WANTED.pack(machine.encode(), host.encode(), port, b"")[:-32]
    return said + hmac.digest(key, nonce + said, "sha256")


def wanted(request: bytes, nonce: bytes, key: bytes) -> tuple[str, Address] | None:
    """Return the machine and the address of a request; None: whoever it is does not belong to the system."""
    machine, host, port, mac = WANTED.unpack(request)
    if not hmac.compare_digest(hmac.digest(key, nonce + request[:-32], "sha256"), mac):
        return None
    return machine.rstrip(b"\0").decode(), (host.rstrip(b"\0").decode(), port)


async def cross(detour: Detour, address: Address, key: bytes) -> socket.socket:
    """Connect to a port of another machine by the ferry of this one.

    Raises:
        ConnectionRefusedError: The port is closed.
        OSError: It cannot be reached, or the ferry is not there.
    """
    try:
        sock = await reach(detour.ferry)
    except OSError as error:
        raise OSError(f"no ferry at port {detour.ferry[1]} of this machine: {error}") from error
    try:
        async with asyncio.timeout(FERRY_SECONDS):
            await send(sock, want(detour.machine, address, await read(sock, NONCE), key))
            (answer,) = await read(sock, 1)
    except BaseException:
        sock.close()
        raise
    if answer == THERE:
        return sock
    sock.close()
    if answer == CLOSED:
        raise ConnectionRefusedError(f"port {address[1]} is closed there")
    raise OSError(f"the ferry cannot reach {address[0]}:{address[1]}")
