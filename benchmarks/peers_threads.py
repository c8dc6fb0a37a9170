"""Pipelines of threads and `queue.Queue`, per item and in lists."""

from __future__ import annotations

import threading
from queue import Queue
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from benchmarks.work import Tally, batch_size, batches, plus_one, plus_one_each, sum_from_one

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

T = TypeVar("T")

LISTS_IN_QUEUE = 2
"""max_demand events are two batches of half of it."""


def _feed(source: Iterable[T], out: Queue[T | None]) -> None:
    for item in source:
        out.put(item)
    out.put(None)


def _apply(into: Queue[T | None], out: Queue[T | None], work: Callable[[T], T]) -> None:
    while (item := into.get()) is not None:
        out.put(work(item))
    out.put(None)


def _add_items(into: Queue[int | None], tally: Tally) -> None:
    count = total = 0
    while (item := into.get()) is not None:
        count += 1
        total += item
    tally.close(count, total)


def _add_lists(into: Queue[Sequence[int] | None], tally: Tally) -> None:
    count = total = 0
    while (batch := into.get()) is not None:
        count += len(batch)
        total += sum(batch)
    tally.close(count, total)


def _timed(*threads: threading.Thread) -> float:
    """Run threads until all ended; return the clock at their start."""
    started = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return started


def passthrough_items(events: int, max_demand: int) -> float:
    """Move single events through three threads and two queues; return the seconds."""
    tally = Tally(events)
    first: Queue[int | None] = Queue(max_demand)
    second: Queue[int | None] = Queue(max_demand)
    started = _timed(
        threading.Thread(target=_feed, args=(range(events), first)),
        threading.Thread(target=_apply, args=(first, second, plus_one)),
        threading.Thread(target=_add_items, args=(second, tally)),
    )
    return tally.seconds_since(started, sum_from_one(events))


def passthrough_lists(events: int, max_demand: int) -> float:
    """Move lists of half of max_demand through three threads and two queues; return the seconds."""
    tally = Tally(events)
    first: Queue[Sequence[int] | None] = Queue(LISTS_IN_QUEUE)
    second: Queue[Sequence[int] | None] = Queue(LISTS_IN_QUEUE)
    started = _timed(
        threading.Thread(target=_feed, args=(batches(events, batch_size(max_demand)), first)),
        threading.Thread(target=_apply, args=(first, second, plus_one_each)),
        threading.Thread(target=_add_lists, args=(second, tally)),
    )
    return tally.seconds_since(started, sum_from_one(events))
