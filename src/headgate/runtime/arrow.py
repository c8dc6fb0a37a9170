"""How slices of Arrow data cross: as the rows that they show, not with all that they are cut from.

pyarrow pickles a slice together with the whole buffers behind it. Its own format for messages (IPC) holds no more than
the rows, in one buffer, which is read in place on the other side. Here nothing is imported: who has such data has
pyarrow, and who gets it imports it by unpickling.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

SMALL = 4096
"""Bytes that are not worth a thought."""
SPARE = 1.2
"""A slice is worth a copy when what is behind it weighs more than this many times as much."""


def reducers() -> dict[type[Any], Callable[[Any], Any]]:
    """Return the reducers for a pickler's dispatch table; none while pyarrow is not loaded."""
    pa = sys.modules.get("pyarrow")
    if pa is None or not hasattr(pa, "ipc"):
        return {}

    def batch(value: Any) -> Any:
        if _whole(value):
            return value.__reduce__()
        return pa.ipc.read_record_batch, (value.serialize(), value.schema)

    def table(value: Any) -> Any:
        if _whole(value):
            return value.__reduce__()
        return _table, (pa.Table.from_batches, value.to_batches(), value.schema)

    def array(value: Any) -> Any:
        if _whole(value):
            return value.__reduce__()
        return _column, (pa.RecordBatch.from_arrays([value], [""]),)

    found: dict[type[Any], Callable[[Any], Any]] = {pa.RecordBatch: batch, pa.Table: table}
    pending = [pa.Array]
    while pending:  # a dispatch table knows exact types only
        kind = pending.pop()
        found[kind] = array
        pending += [each for each in kind.__subclasses__() if each not in found]
    return found


def _whole(value: Any) -> bool:
    """Say whether a value shows nearly all of what is behind it."""
    return bool(value.get_total_buffer_size() <= SPARE * value.nbytes + SMALL)


def _table(make: Callable[..., Any], batches: list[Any], schema: Any) -> Any:
    return make(batches, schema)


def _column(batch: Any) -> Any:
    return batch.column(0)
