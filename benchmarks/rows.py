"""The rows: which contenders do which work, in the order in which they take turns."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import (
    children,
    latency,
    loops,
    memory,
    peers_aiostream,
    peers_anyio,
    peers_asyncio,
    peers_threads,
    pipelines,
    processes,
    queues,
    stages_headgate,
    stages_headgate_timed,
)
from benchmarks.model import Contender, Kind, Rate, Row, Sample, Timed
from benchmarks.work import KEYS, WAVE, WAYS

if TYPE_CHECKING:
    from collections.abc import Callable

PLAIN = "plain loop"
HEADGATE = "headgate"
QUEUE_ITEMS = "asyncio.Queue items"
QUEUE_LISTS = "asyncio.Queue lists"
ANYIO_ITEMS = "anyio items"
AIOSTREAM_ITEMS = "aiostream items"
AIOSTREAM_LISTS = "aiostream lists"

DEFAULT_DEMAND = 1_000
LATENCY_SECONDS = 1.0
MEMORY_SECONDS = 3.0


def _rate(name: str, kind: Kind, run: Callable[[int], float], grain: int | None = None) -> Contender:
    return Contender(name, kind, Rate(run) if grain is None else Rate(run, grain))


def _passthrough(max_demand: int) -> Row:
    contenders = [
        _rate(PLAIN, "limit", partial(loops.passthrough, max_demand=max_demand)),
        _rate(HEADGATE, "headgate", partial(stages_headgate.passthrough, max_demand=max_demand)),
        _rate(QUEUE_ITEMS, "peer", partial(peers_asyncio.passthrough_items, max_demand=max_demand)),
        _rate(ANYIO_ITEMS, "peer", partial(peers_anyio.passthrough, max_demand=max_demand)),
        _rate(AIOSTREAM_ITEMS, "peer", peers_aiostream.passthrough_items),
    ]
    # At a demand of one, lists of one event are only a slower spelling of the items.
    if max_demand > 1:
        contenders += [
            _rate(QUEUE_LISTS, "peer", partial(peers_asyncio.passthrough_lists, max_demand=max_demand)),
            _rate(AIOSTREAM_LISTS, "peer", partial(peers_aiostream.passthrough_lists, max_demand=max_demand)),
        ]
    summary = f"three stages, plain handlers inline, max_demand {max_demand}"
    return Row(f"passthrough-{max_demand}", summary, tuple(contenders))


def _async_handlers() -> Row:
    demand = DEFAULT_DEMAND
    return Row(
        f"async-{demand}",
        f"three stages, async handlers in tasks, max_demand {demand}",
        (
            _rate(PLAIN, "limit", partial(loops.passthrough_async, max_demand=demand)),
            _rate(HEADGATE, "headgate", partial(stages_headgate.passthrough_async, max_demand=demand)),
            _rate(QUEUE_ITEMS, "peer", partial(peers_asyncio.async_items, max_demand=demand)),
            _rate(QUEUE_LISTS, "peer", partial(peers_asyncio.async_lists, max_demand=demand)),
            _rate(ANYIO_ITEMS, "peer", partial(peers_anyio.passthrough_async, max_demand=demand)),
            _rate(AIOSTREAM_ITEMS, "peer", peers_aiostream.async_items),
        ),
    )


def _fan_out() -> Row:
    demand = DEFAULT_DEMAND
    return Row(
        f"fan-out-{WAYS}",
        f"one source, {WAYS} consumers that share the events, max_demand {demand}",
        (
            _rate(PLAIN, "limit", partial(loops.fan_out, max_demand=demand)),
            _rate(HEADGATE, "headgate", partial(stages_headgate.fan_out, max_demand=demand)),
            _rate(QUEUE_ITEMS, "peer", partial(peers_asyncio.fan_out_items, max_demand=demand)),
            _rate(QUEUE_LISTS, "peer", partial(peers_asyncio.fan_out_lists, max_demand=demand)),
            _rate(ANYIO_ITEMS, "peer", partial(peers_anyio.fan_out, max_demand=demand)),
        ),
    )


def _broadcast() -> Row:
    demand = DEFAULT_DEMAND
    return Row(
        f"broadcast-{WAYS}",
        f"one source, {WAYS} consumers that each get every event, max_demand {demand}; events of the source",
        (
            _rate(PLAIN, "limit", partial(loops.broadcast, max_demand=demand)),
            _rate(HEADGATE, "headgate", partial(stages_headgate.broadcast, max_demand=demand)),
            _rate(QUEUE_ITEMS, "peer", partial(peers_asyncio.broadcast_items, max_demand=demand)),
            _rate(QUEUE_LISTS, "peer", partial(peers_asyncio.broadcast_lists, max_demand=demand)),
            _rate(ANYIO_ITEMS, "peer", partial(peers_anyio.broadcast, max_demand=demand)),
        ),
    )


def _partition() -> Row:
    demand = DEFAULT_DEMAND
    return Row(
        f"partition-{WAYS}",
        f"one source, {WAYS} partitions by a hash of each event, max_demand {demand}",
        (
            _rate(PLAIN, "limit", partial(loops.partition, max_demand=demand)),
            _rate(HEADGATE, "headgate", partial(stages_headgate.partition, max_demand=demand)),
            _rate(QUEUE_ITEMS, "peer", partial(peers_asyncio.partition_items, max_demand=demand)),
            _rate(QUEUE_LISTS, "peer", partial(peers_asyncio.partition_lists, max_demand=demand)),
            _rate(ANYIO_ITEMS, "peer", partial(peers_anyio.partition, max_demand=demand)),
        ),
    )


def _fair() -> Row:
    demand = DEFAULT_DEMAND
    return Row(
        f"fair-{KEYS}",
        f"one source, one consumer, {KEYS} keys that take turns, max_demand {demand}",
        (
            _rate(PLAIN, "limit", partial(loops.fair, max_demand=demand)),
            _rate(HEADGATE, "headgate", partial(stages_headgate.fair, max_demand=demand)),
            _rate(QUEUE_ITEMS, "peer", partial(peers_asyncio.fair_items, max_demand=demand)),
            _rate(QUEUE_LISTS, "peer", partial(peers_asyncio.fair_lists, max_demand=demand)),
        ),
    )


def _latency() -> Row:
    def timed(run: Callable[[float], Sample]) -> Timed:
        return Timed(run, LATENCY_SECONDS, warm_up=LATENCY_SECONDS / 5)

    return Row(
        "latency",
        f"one event through three stages at {latency.RATE_HZ} events/s",
        (
            Contender(PLAIN, "limit", timed(latency.plain)),
            Contender(HEADGATE, "headgate", timed(stages_headgate_timed.latency)),
            Contender(QUEUE_ITEMS, "peer", timed(latency.asyncio_queues)),
            Contender(ANYIO_ITEMS, "peer", timed(latency.anyio_streams)),
        ),
        latency.METRICS,
    )


def _memory() -> Row:
    def timed(contender: str) -> Timed:
        return Timed(partial(memory.in_subprocess, contender=contender), MEMORY_SECONDS)

    return Row(
        "memory",
        f"endless source, consumer of 1 ms a batch, max_demand {memory.MAX_DEMAND}, a process each",
        (
            Contender(HEADGATE, "headgate", timed("headgate")),
            Contender(QUEUE_ITEMS, "peer", timed("asyncio_queue")),
        ),
        memory.METRICS,
    )


def _arrays() -> Row:
    return Row(
        "numpy-100000",
        "three stages, float64 arrays, max_demand 100000",
        (
            _rate(PLAIN, "limit", loops.arrays, len(WAVE)),
            _rate(HEADGATE, "headgate", stages_headgate.arrays, len(WAVE)),
            _rate(QUEUE_LISTS, "peer", peers_asyncio.arrays, len(WAVE)),
        ),
    )


def _delivery(max_demand: int) -> Row:
    run = partial(stages_headgate.passthrough, max_demand=max_demand)
    return Row(
        f"delivery-{max_demand}",
        f"the passthrough at max_demand {max_demand}, with and without the ledger of what is in flight",
        (
            _rate(PLAIN, "limit", partial(loops.passthrough, max_demand=max_demand)),
            _rate("headgate at_least_once", "headgate", partial(run, delivery="at_least_once")),
            _rate("headgate at_most_once", "headgate", partial(run, delivery="at_most_once")),
        ),
    )


def _threads() -> Row:
    demand = DEFAULT_DEMAND
    return Row(
        f"thread-{demand}",
        f"the passthrough with each stage in a thread, max_demand {demand}",
        (
            _rate(PLAIN, "limit", partial(loops.passthrough, max_demand=demand)),
            _rate(HEADGATE, "headgate", partial(stages_headgate.passthrough, max_demand=demand, place="thread")),
            _rate("queue.Queue items", "peer", partial(peers_threads.passthrough_items, max_demand=demand)),
            _rate("queue.Queue lists", "peer", partial(peers_threads.passthrough_lists, max_demand=demand)),
        ),
    )


_BY_HAND = (
    ("semaphore + tasks", children.semaphore),
    ("TaskGroup workers", children.workers),
    ("anyio limiter", children.anyio_limiter),
)


def _children() -> Row:
    return Row(
        "children",
        f"one async child that does nothing for each event, {children.AT_ONCE} at a time",
        (
            _rate(PLAIN, "limit", partial(children.no_op, runner=children.plain), 100_000),
            _rate(HEADGATE, "headgate", partial(children.no_op, runner=children.headgate), 100_000),
            *(_rate(name, "peer", partial(children.no_op, runner=run), 100_000) for name, run in _BY_HAND),
        ),
    )


def _slow_children() -> Row:
    def timed(runner: children.Runner) -> Timed:
        return Timed(partial(children.slow, runner=runner), children.IDEAL_SECONDS, warm_up=children.IDEAL_SECONDS)

    return Row(
        "children-5ms",
        f"{children.EVENTS} async children of 5 ms, {children.AT_ONCE} at a time; the ideal is 100 ms",
        (
            Contender(HEADGATE, "headgate", timed(children.headgate)),
            *(Contender(name, "peer", timed(run)) for name, run in _BY_HAND),
        ),
        children.RATIO,
    )


def _restarts() -> Row:
    return Row(
        "children-restart",
        "as children, and the first child of each event fails; by hand: it is caught and called again",
        (
            _rate(HEADGATE, "headgate", partial(children.failing, runner=children.headgate)),
            *(_rate(name, "peer", partial(children.failing, runner=run)) for name, run in _BY_HAND),
        ),
    )


def _pipeline(max_demand: int, source: str) -> Row:
    make = pipelines.Counting if source == "counter" else pipelines.queue
    options: dict[str, Any] = {"max_demand": max_demand, "make": make}
    return Row(
        f"pipeline-{source}-{max_demand}",
        f"messages from a {source}, 2 processors, a batcher of 100, acknowledged; max_demand {max_demand}",
        (
            _rate(PLAIN, "limit", partial(pipelines.loop, **options)),
            _rate(HEADGATE, "headgate", partial(pipelines.headgate, **options)),
            _rate("asyncio workers", "peer", partial(pipelines.by_hand, **options)),
        ),
    )


def _queue(batch: int) -> Row:
    def contender(name: str, kind: Kind, make: Callable[[str], queues.Queue]) -> Contender:
        return _rate(name, kind, partial(queues.run, make=make, batch=batch), max(batch, 500))

    return Row(
        f"queue-{batch}",
        f"a durable queue on SQLite: put, claim and acknowledge {batch} at a time, {queues.WAITING} waiting",
        (
            contender("sqlite3 by hand", "limit", queues.Statements),
            contender(HEADGATE, "headgate", queues.Headgate),
            contender("persist-queue", "peer", queues.PersistQueue),
            contender("litequeue", "peer", queues.LiteQueue),
            contender("huey, no ack", "peer", queues.Huey),
            contender("diskcache, no ack", "peer", queues.DiskCache),
        ),
    )


def _queue_power() -> Row:
    def contender(name: str, kind: Kind, make: Callable[[str], queues.Queue]) -> Contender:
        return _rate(name, kind, partial(queues.run, make=make, batch=100), 500)

    return Row(
        "queue-power-100",
        "the same, and each commit waits for the disk (synchronous FULL), 100 at a time",
        (
            contender("sqlite3 by hand", "limit", partial(queues.Statements, synchronous="FULL")),
            contender(HEADGATE, "headgate", partial(queues.Headgate, durability="power")),
        ),
    )


def _queue_backlog() -> Row:
    def contender(name: str, kind: Kind, make: Callable[[str], queues.Queue]) -> Contender:
        return _rate(name, kind, partial(queues.run, make=make, batch=100, waiting=100_000), 500)

    return Row(
        "queue-backlog-100",
        "the same with 100,000 waiting, 100 at a time; 5,000 keys and users",
        (
            contender("sqlite3 by hand", "limit", queues.Statements),
            contender(HEADGATE, "headgate", queues.Headgate),
            contender("headgate ordered", "headgate", partial(queues.Headgate, ordered=True)),
            contender("headgate fair", "headgate", partial(queues.Headgate, fair=True)),
            contender("headgate ordered, fair", "headgate", partial(queues.Headgate, ordered=True, fair=True)),
        ),
    )


def _cores() -> Row:
    def executor(chunk: int) -> Contender:
        return _rate(
            f"ProcessPoolExecutor, chunks of {chunk}",
            "peer",
            partial(processes.cpu_executor, chunk=chunk),
            processes.CPU_EVENTS,
        )

    def ours(window: int, step: int) -> Contender:
        run = partial(processes.cpu_headgate, window=window, step=step)
        return _rate(f"headgate, {window} ahead, batches of {step}", "headgate", run, processes.CPU_EVENTS)

    return Row(
        "processes-cpu",
        f"events of about 5 ms of pure Python, {processes.WORKERS} worker processes",
        (
            _rate("one process", "limit", processes.cpu_alone, processes.CPU_EVENTS),
            *(ours(window, step) for window, step in processes.WINDOWS),
            *(executor(chunk) for chunk in processes.CHUNKS),
            _rate("Pool.imap_unordered", "peer", processes.cpu_pool, processes.CPU_EVENTS),
        ),
    )


def _dicts_across() -> Row:
    return Row(
        "processes-dicts",
        f"dicts of about 1 KB to a worker process, {processes.BATCH} at a time",
        (
            _rate("multiprocessing.Pipe by hand", "limit", processes.dicts_pipe, 10_000),
            _rate(HEADGATE, "headgate", processes.dicts_headgate, 10_000),
        ),
    )


def _arrays_across() -> Row:
    return Row(
        "processes-arrays",
        f"arrays of {processes.ARRAY_BYTES >> 20} MiB to a worker process that reads them, one at a time",
        (
            _rate("shared memory by hand", "limit", processes.arrays_shared, 40),
            _rate(HEADGATE, "headgate", processes.arrays_headgate, 40),
        ),
    )


def all_rows() -> list[Row]:
    """Return every row, in the order of the table."""
    return [
        *(_passthrough(demand) for demand in (1_000, 10, 1)),
        _async_handlers(),
        _fan_out(),
        _broadcast(),
        _partition(),
        _fair(),
        _latency(),
        _memory(),
        _arrays(),
        *(_delivery(demand) for demand in (1_000, 10, 1)),
        _threads(),
        _children(),
        _slow_children(),
        _restarts(),
        *(_queue(batch) for batch in (1, 10, 100, 1_000)),
        _queue_power(),
        _queue_backlog(),
        *(_pipeline(demand, source) for source in ("counter", "queue") for demand in (10, 100)),
        _cores(),
        _dicts_across(),
        _arrays_across(),
    ]
