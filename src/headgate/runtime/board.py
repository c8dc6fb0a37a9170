"""What the handlers of a worker are at, in memory that its parent sees: it can be read when the worker is dead.

Before a handler is given a batch, the worker writes down which: the number of the subscription, and its totals from and
to. That is all it takes to know what a killed worker had in its hands, and it costs no message.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from headgate.runtime.driver import Driver

SLOTS: Final = 512
"""Stages of one worker that have a place of their own; others are not written down."""
_SLOT: Final = struct.Struct("<QQQ")
SIZE: Final = SLOTS * _SLOT.size


def make() -> tuple[mmap.mmap, int]:
    """Make one.

    Returns:
        Where to read, and a descriptor for the worker.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("headgate-board")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, SIZE)
    return mmap.mmap(descriptor, SIZE), descriptor


def make_own() -> mmap.mmap:
    """Make one that nobody else sees: for a worker whose parent is on another machine."""
    return mmap.mmap(-1, SIZE)


def open_there(descriptor: int) -> mmap.mmap:
    """Open it in the worker."""
    try:
        return mmap.mmap(descriptor, SIZE)
    finally:
        os.close(descriptor)


def read(board: mmap.mmap) -> dict[int, tuple[int, int]]:
    """Return what the handlers had: for a subscription's number, totals from and to."""
    found = {}
    for slot in range(SLOTS):
        number, start, stop = _SLOT.unpack_from(board, slot * _SLOT.size)
        if number and stop > start:
            found[number] = (start, stop)
    return found


def clear(board: mmap.mmap, slot: int) -> None:
    """Forget what a stage was at: it has ended."""
    _SLOT.pack_into(board, slot * _SLOT.size, 0, 0, 0)


def noting(board: mmap.mmap, slot: int, driver: Driver, handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return a handler of events that writes down what it is given before it does what it does."""
    pack, at, into = _SLOT.pack_into, slot * _SLOT.size, driver.core.into
    assert into is not None  # noqa: S101 (it handles events)

    def note(batch: Any, source: Any) -> Any:
        start = into.window.handled  # type: ignore[union-attr]  # the core has noted whose events these are
        pack(board, at, source.id, start, start + into.size)
        return handler(batch, source)

    return note
