"""What the handlers of a worker are at, in memory that its parent sees: it can be read when the worker is dead.

Before a handler is given a batch, the worker writes down which: the number of the subscription, its totals from and to,
the number of the delivery, and whose handler it is. That is all it takes to know what a killed worker had in its hands,
and it costs no message.
"""

from __future__ import annotations

import inspect
import mmap
import os
import struct
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from headgate.runtime.driver import Driver

SLOTS: Final = 512
"""Stages of one worker that have a place of their own; others are not written down."""
_SLOT: Final = struct.Struct("<QQQQQ")
SIZE: Final = SLOTS * _SLOT.size


class Held(NamedTuple):
    """What a handler had in its hands.

    Attributes:
        start: The total of events before the first: all of them it was done with,
        stop: and after the last, since the subscription began. The same as ``start``: it had nothing.
        deliveries: How often a handler was given them.
        stage: The number of the handler's stage.
    """

    start: int
    stop: int
    deliveries: int
    stage: int


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


def open_there(descriptor: int) -> mmap.mmap:
    """Open it in the worker."""
    try:
        return mmap.mmap(descriptor, SIZE)
    finally:
        os.close(descriptor)


def read(board: mmap.mmap) -> dict[int, Held]:
    """Return what the handlers had, by the numbers of the subscriptions that it came by."""
    found = {}
    for slot in range(SLOTS):
        number, *held = _SLOT.unpack_from(board, slot * _SLOT.size)
        if number:
            found[number] = Held(*held)
    return found


def clear(board: mmap.mmap, slot: int) -> None:
    """Forget what a stage was at: it has ended."""
    _SLOT.pack_into(board, slot * _SLOT.size, 0, 0, 0, 0, 0)


def noting(
    board: mmap.mmap, slot: int, driver: Driver, handler: Callable[..., Any], exchange: Any
) -> Callable[..., Any]:
    """Return a handler of events that writes down what it is given before it does what it does.

    What was to be told to other nodes goes out first: it must not wait for the handler.
    """
    pending: list[Any] = exchange.pending
    pack, at, stage = _SLOT.pack_into, slot * _SLOT.size, driver.number
    into: Any = driver.core.into
    asynchronous = inspect.iscoroutinefunction(handler)

    def note(batch: Any, source: Any) -> Any:
        if pending:
            exchange.flush()
        window: Any = into.window
        start = window.handled
        pack(board, at, source.id, start, start + into.size, window.deliveries if window.suspects else 1, stage)
        value = handler(batch, source)
        if not asynchronous:  # else it stands until the next: that it is done is acknowledged before long
            pack(board, at, source.id, start + into.size, start + into.size, 1, stage)
        return value

    return note


def flushing(handler: Callable[..., Any], exchange: Any) -> Callable[..., Any]:
    """Return a handler of events before which goes out what was to be told, where there is nobody to read notes."""
    pending: list[Any] = exchange.pending

    def flush(batch: Any, source: Any) -> Any:
        if pending:
            exchange.flush()
        return handler(batch, source)

    return flush
