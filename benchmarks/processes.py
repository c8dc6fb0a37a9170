"""What crosses to a worker process and back, and what a second core is worth: beside the standard library's own means.

Workers are up before the clock starts, ours and theirs.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.shared_memory import SharedMemory
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.model import WrongResultError
from headgate import Child, Consumer, Process, Producer, ProducerConsumer, System, To

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

WORKERS = 2
BATCH = 500
ARRAY_BYTES = 8 << 20
CHUNKS = (1, 2, 5, 10, 25)
"""Chunk sizes that the executor may choose its best of."""
WINDOWS = ((4, 1), (10, 5), (20, 10))
"""What we may: events that a worker has at most, and those of a batch."""
CPU_EVENTS = 400
"""In fewer it counts most whose worker happens to be the last."""
_SPINS = 130_000


def work(number: int) -> int:
    """Keep a core busy for about 5 ms."""
    total = number
    for each in range(_SPINS):
        total += each & 3
    return total - number


def document(number: int) -> dict[str, Any]:
    """Return an event of about 1 KB."""
    return {
        "id": number,
        "user": f"user-{number % 97}",
        "score": number / 7,
        "tags": ["a", "b", "c"],
        "text": f"{number:>900}",  # a text of its own: pickle would write one that they share only once
        "nested": {"one": 1, "two": [1, 2, 3]},
    }


class Giver(Producer):
    """Gives what a list has, again and again, up to a number."""

    def __init__(self, events: list[Any], total: int) -> None:
        """Begin at the first."""
        self.events = events
        self.left = total
        self.at = 0

    def handle_demand(self, demand: int) -> list[Any]:
        """Give as many as are asked for."""
        count = min(demand, self.left, len(self.events) - self.at)
        batch = self.events[self.at : self.at + count]
        self.at = (self.at + count) % len(self.events)
        self.left -= count
        if not self.left:
            self.stage.finish()
        return batch


class Work(ProducerConsumer):
    """Works on each event."""

    def handle_events(self, events: Any, source: Any) -> list[int]:
        """Return the results."""
        return [work(event) for event in events]


class Count(Consumer):
    """Counts, and says how many."""

    def __init__(self) -> None:
        """Begin at 0."""
        self.count = 0

    def handle_events(self, events: Any, source: Any) -> None:
        """Count."""
        self.count += len(events)

    def handle_call(self, request: Any) -> int:
        """Say how many."""
        return self.count


class Weigh(Count):
    """Counts bytes of arrays, and reads each of their pages."""

    def handle_events(self, events: Any, source: Any) -> None:
        """Count."""
        for event in events:
            self.count += event.nbytes
            read(event)


def read(array: Any) -> float:
    """Touch all of it."""
    return float(array.sum())


def _check(found: int, expected: int) -> None:
    if found != expected:
        message = f"{found} of {expected} have arrived"
        raise WrongResultError(message)


# -- a second core -----------------------------------------------------------------------------------------------------


def cpu_alone(events: int) -> float:
    """One process."""
    started = perf_counter()
    for number in range(events):
        work(number)
    return perf_counter() - started


def cpu_headgate(events: int, *, window: int, step: int) -> float:
    """Two middle stages in worker processes between a source and a sink here.

    Args:
        events: How many.
        window: Events that a worker has at most.
        step: Events of a batch.
    """

    def terms(source: Any) -> To:
        return To(source, max_demand=window, min_demand=window - step)

    async def run() -> float:
        async with System() as system:
            source = await system.start(Child(Giver, list(range(events)), events, demand="accumulate"))
            middle = [
                await system.start(Child(Work, place=Process(), subscribe_to=[terms(source)])) for _ in range(WORKERS)
            ]
            sink = await system.start(Child(Count, subscribe_to=[To(each, max_demand=100) for each in middle]))
            started = perf_counter()
            source.set_demand("forward")
            await sink.wait()
            seconds = perf_counter() - started
            _check(sink.statistics().handled, events)
            return seconds

    return asyncio.run(run())


def cpu_executor(events: int, *, chunk: int) -> float:
    """`ProcessPoolExecutor.map`."""
    with ProcessPoolExecutor(WORKERS) as pool:
        list(pool.map(work, range(4 * WORKERS)))
        started = perf_counter()
        results = list(pool.map(work, range(events), chunksize=chunk))
        seconds = perf_counter() - started
    _check(len(results), events)
    return seconds


def cpu_pool(events: int) -> float:
    """`multiprocessing.Pool.imap_unordered`."""
    with multiprocessing.Pool(WORKERS) as pool:
        pool.map(work, range(4 * WORKERS))
        started = perf_counter()
        results = list(pool.imap_unordered(work, range(events), chunksize=5))
        seconds = perf_counter() - started
    _check(len(results), events)
    return seconds


# -- across ------------------------------------------------------------------------------------------------------------


def _across(events: list[Any], total: int, sink: type[Count], expected: int, max_demand: int) -> float:
    async def run() -> float:
        async with System() as system:
            source = await system.start(Child(Giver, events, total, demand="accumulate"))
            to = To(source, max_demand=max_demand, min_demand=max_demand // 2, cancel="temporary")
            counter = await system.start(Child(sink, place=Process(max_bytes=1 << 30), subscribe_to=[to]))
            started = perf_counter()
            source.set_demand("forward")
            await source.wait()
            seconds = perf_counter() - started
            _check(await counter.call(None), expected)
            return seconds

    return asyncio.run(run())


def dicts_headgate(events: int) -> float:
    """A source here, a sink there, batches of `BATCH`."""
    return _across([document(number) for number in range(10 * BATCH)], events, Count, events, 2 * BATCH)


def _receive(connection: Connection) -> None:
    count = 0
    while (batch := connection.recv()) is not None:
        count += len(batch)
    connection.send(count)


def dicts_pipe(events: int) -> float:
    """A loop over `multiprocessing.Pipe`, written by hand."""
    documents = [document(number) for number in range(10 * BATCH)]
    batches = [documents[at : at + BATCH] for at in range(0, len(documents), BATCH)]
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_receive, args=(theirs,))
    process.start()
    theirs.close()
    ours.send([])  # it is up when it takes what does not fit in the pipe
    ours.send(["x" * (1 << 20)])
    started = perf_counter()
    for number in range(events // BATCH):
        ours.send(batches[number % len(batches)])
    ours.send(None)
    count = ours.recv()
    seconds = perf_counter() - started
    process.join()
    ours.close()
    _check(count - 1, events)
    return seconds


def arrays_headgate(events: int) -> float:
    """Arrays of 8 MB, one in a batch, four on the way."""
    array = np.zeros(ARRAY_BYTES // 8)
    return _across([array] * 4, events, Weigh, events * ARRAY_BYTES, 4)


def _attach(connection: Connection) -> None:
    total = 0
    while (name := connection.recv()) is not None:
        memory = SharedMemory(name)
        array = np.ndarray(ARRAY_BYTES // 8, dtype=np.float64, buffer=memory.buf)
        read(array)
        total += array.nbytes
        del array
        memory.close()
        memory.unlink()
        connection.send(None)
    connection.send(total)


def arrays_shared(events: int) -> float:
    """A copy into shared memory for each, four on the way, written by hand."""
    array = np.zeros(ARRAY_BYTES // 8)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_attach, args=(theirs,))
    process.start()
    theirs.close()

    def send() -> None:
        memory = SharedMemory(create=True, size=ARRAY_BYTES)
        np.copyto(np.ndarray(array.shape, array.dtype, buffer=memory.buf), array)
        ours.send(memory.name)
        memory.close()

    send()
    ours.recv()
    started = perf_counter()
    for number in range(events):
        send()
        if number >= 3:
            ours.recv()
    for _ in range(min(events, 3)):
        ours.recv()
    seconds = perf_counter() - started
    ours.send(None)
    total = ours.recv()
    process.join()
    ours.close()
    _check(total - ARRAY_BYTES, events * ARRAY_BYTES)
    return seconds
