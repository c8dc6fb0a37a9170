"""Cutting and joining batches without touching their elements.

A batch is any sequence: the protocol uses only its length and slices of it. Lists take the fastest path.
"""

from __future__ import annotations

from typing import Any

Batch = Any
"""A list, tuple, range, numpy array, Arrow record batch, or any other sequence with a length and slices."""

_PLAIN = frozenset({list, tuple, range})
_NO_BATCH = (str, bytes, bytearray, memoryview, dict, set, frozenset)


def is_batch(value: object) -> bool:
    """Say whether a handler may return this as events.

    Text, bytes, mappings and sets are refused although some have a length: they are nearly always a mistake.
    """
    if type(value) in _PLAIN:
        return True
    if isinstance(value, _NO_BATCH):
        return False
    kind = type(value)
    if not hasattr(kind, "__getitem__") or not hasattr(kind, "__len__"):
        return False
    try:
        cut(value, 0, len(value) and 1)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 (an array without dimensions has no length, a deque no slices, ...)
        return False
    return True


def cut(batch: Batch, start: int, stop: int) -> Batch:
    """Return the events from ``start`` up to ``stop``; the elements are neither copied nor boxed."""
    if type(batch) is list:
        return batch[start:stop]
    if hasattr(batch, "num_rows"):  # pyarrow: indexing means columns there
        return batch.slice(start, stop - start)
    return batch[start:stop]


def join(batches: list[Batch]) -> list[Batch]:
    """Join neighbouring lists into one list; leave every other kind of batch as it is, in order."""
    if len(batches) == 1:
        return batches
    joined: list[Batch] = []
    ours = False  # the last list in `joined` was made here, so it may be added to
    for batch in batches:
        if type(batch) is list and joined and type(joined[-1]) is list:
            if ours:
                joined[-1] += batch
            else:
                joined[-1] = joined[-1] + batch
                ours = True
        else:
            joined.append(batch)
            ours = False
    return joined


def rows(batch: Batch) -> Batch:
    """Return something that yields the events one by one: what iterating gives, but for Arrow batches (columns)."""
    return batch.to_pylist() if hasattr(batch, "num_rows") else batch


def pick(batch: Batch, indices: list[int]) -> Batch:
    """Return the events at these positions: one indexing for arrays and Arrow batches, a list for the rest."""
    if type(batch) is list:
        return [batch[index] for index in indices]
    if hasattr(batch, "dtype"):  # numpy: rows, whatever the number of dimensions
        return batch[indices]
    if hasattr(batch, "take"):  # pyarrow
        return batch.take(indices)
    return [batch[index] for index in indices]
