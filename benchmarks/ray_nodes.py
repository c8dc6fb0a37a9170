"""Three stages over two Ray nodes, beside plain Ray actors that pass the same batches: ``-m benchmarks.ray_nodes``.

Batches of 500 small dicts go from an actor on one raylet to one on another and back to a third on the first. By hand
means the ways that keep the order: calls whose answers are the batches, one after the other or two under way at once,
and streaming generators. Both raylets run on this machine, on the loopback of a network namespace of their own. JSON
lines, one for each measurement, then one for each contender with median, minimum and maximum; they take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, Literal

from benchmarks.model import WrongResultError
from headgate import Child, Consumer, Producer, ProducerConsumer, Ray, System, To

BATCH = 500
EVENTS = 500_000
REPEAT = 5
INSIDE = "HEADGATE_BENCH_INSIDE"
_UNSHARE = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]


def batch() -> list[dict[str, Any]]:
    """Return 500 small dicts."""
    return [{"id": number, "user": f"user-{number % 97}", "text": "x" * 60} for number in range(BATCH)]


# -- ours --------------------------------------------------------------------------------------------------------------


class Give(Producer):
    """Gives the same events again and again."""

    def __init__(self, total: int) -> None:
        """Begin with all of them left."""
        self.events = batch()
        self.left = total

    def handle_demand(self, demand: int) -> list[Any]:
        count = min(demand, self.left)
        self.left -= count
        return self.events if count == BATCH else (self.events * (count // BATCH + 1))[:count]


class Pass(ProducerConsumer):
    """Passes on what comes."""

    def handle_events(self, events: Any, source: Any) -> Any:
        return events


class Count(Consumer):
    """Counts, and says when it is all."""

    def __init__(self, total: int) -> None:
        """Begin at 0."""
        self.total = total
        self.count = 0
        self.caller: Any = None

    def handle_events(self, events: Any, source: Any) -> None:
        self.count += len(events)
        self._tell()

    def handle_call(self, request: Any) -> None:
        self.caller = self.stage.caller()
        self._tell()

    def _tell(self) -> None:
        if self.caller is not None and self.count >= self.total:
            self.stage.reply_to(self.caller, self.count)


def ahead(producer: Any) -> To:
    """Return terms by which four batches may be under way, as with the generators by hand."""
    return To(producer, max_demand=4 * BATCH, min_demand=3 * BATCH)


def headgate_links(total: int) -> float:
    """Events go from node to node over our links."""
    return asyncio.run(_links(total, ports=None))


def headgate_ferries(total: int) -> float:
    """No port is open: links are carried by streaming generators."""
    return asyncio.run(_links(total, ports=False))


async def _links(total: int, *, ports: Literal[False] | None) -> float:
    head, other = (Ray(num_cpus=0, resources={name: 1}, ports=ports) for name in ("head", "other"))
    async with System() as system:
        source = await system.start(Child(Give, total, place=head, demand="accumulate"))
        middle = await system.start(Child(Pass, place=other, subscribe_to=[ahead(source)]))
        sink = await system.start(Child(Count, total, place=head, subscribe_to=[ahead(middle)]))
        begin = perf_counter()
        source.set_demand("forward")
        count = await sink.call("all", timeout=300)
        seconds = perf_counter() - begin
    if count != total:
        raise WrongResultError(f"{count} of {total} have arrived")
    return total / seconds


# -- by hand -----------------------------------------------------------------------------------------------------------


class Plain:
    """An actor that gives batches, or passes on what another gives."""

    def __init__(self, before: Any = None, ahead: int = 1) -> None:
        """Keep whom to ask, and how many batches at once."""
        self.before = before
        self.ahead = ahead
        self.events = batch()
        self.asked: deque[Any] = deque()

    def take(self) -> list[Any]:
        import ray  # noqa: PLC0415 (in the actor)

        if self.before is None:
            return self.events
        while len(self.asked) < self.ahead:
            self.asked.append(self.before.take.remote())
        return list(ray.get(self.asked.popleft()))

    def flow(self, batches: int) -> Iterator[list[Any]]:
        import ray  # noqa: PLC0415 (in the actor)

        if self.before is None:
            for _ in range(batches):
                yield self.events
            return
        for each in _streaming(self.before).remote(batches):
            yield ray.get(each)

    def count_taken(self, total: int) -> int:
        count = 0
        while count < total:
            count += len(self.take())
        return count

    def count_flow(self, total: int) -> int:
        import ray  # noqa: PLC0415 (in the actor)

        count = 0
        for each in _streaming(self.before).remote(total // BATCH):
            count += len(ray.get(each))
        return count


def _streaming(actor: Any) -> Any:
    return actor.flow.options(num_returns="streaming", _generator_backpressure_num_objects=4)


def ray_calls(total: int) -> float:
    """Each actor asks the one before for the next batch when it needs it."""
    return _by_hand(total, "count_taken", 1)


def ray_calls_ahead(total: int) -> float:
    """Each actor asks the one before for the next batches, two at a time."""
    return _by_hand(total, "count_taken", 2)


def ray_generators(total: int) -> float:
    """Each actor reads a streaming generator of the one before."""
    return _by_hand(total, "count_flow", 1)


def _by_hand(total: int, method: str, ahead: int) -> float:
    import ray  # noqa: PLC0415 (in the namespace)

    plain: Any = ray.remote(Plain)
    head, other = {"num_cpus": 0, "resources": {"head": 1}}, {"num_cpus": 0, "resources": {"other": 1}}
    source = plain.options(**head).remote()
    middle = plain.options(**other).remote(source, ahead)
    sink = plain.options(**head).remote(middle, ahead)
    ray.get([each.__ray_ready__.remote() for each in (source, middle, sink)])
    begin = perf_counter()
    count = ray.get(getattr(sink, method).remote(total))
    seconds = perf_counter() - begin
    for each in (source, middle, sink):
        ray.kill(each)
    if count != total:
        raise WrongResultError(f"{count} of {total} have arrived")
    return total / seconds


CONTENDERS: dict[str, Callable[[int], float]] = {
    "headgate": headgate_links,
    "headgate, no ports": headgate_ferries,
    "ray calls": ray_calls,
    "ray calls ahead": ray_calls_ahead,
    "ray generators": ray_generators,
}


def inside(repeat: int, events: int) -> None:
    """Measure, in the namespace."""
    import ray  # noqa: PLC0415 (in the namespace)
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # noqa: S607 (whichever there is)
    common: dict[str, Any] = {"include_log_monitor": False, "object_store_memory": 200 << 20, "num_cpus": 8}
    cluster = Cluster(
        initialize_head=True, head_node_args={"resources": {"head": 100}, "include_dashboard": False, **common}
    )
    cluster.add_node(resources={"other": 100}, **common)
    ray.init(address=cluster.address, log_to_driver=False)
    rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for turn in range(repeat + 1):
        for name, run in CONTENDERS.items():
            rate = run(events)
            if turn:  # the first is to warm up
                rates[name].append(rate)
                print(json.dumps({"row": "ray nodes", "contender": name, "events_per_second": round(rate)}), flush=True)
    for name, found in rates.items():
        numbers = {"median": statistics.median(found), "minimum": min(found), "maximum": max(found)}
        summary = {"row": "ray nodes", "contender": name, "unit": "events/s", "batch": BATCH, "repeat": len(found)}
        print(json.dumps(summary | {key: round(value) for key, value in numbers.items()}), flush=True)


def main() -> int:
    """Make the namespace, and measure in it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_nodes", description=__doc__)
    parser.add_argument("--repeat", type=int, default=REPEAT, help=f"measurements of each contender (default {REPEAT})")
    parser.add_argument("--events", type=int, default=EVENTS, help=f"events of each measurement (default {EVENTS})")
    arguments = parser.parse_args()
    if INSIDE in os.environ:
        inside(arguments.repeat, arguments.events - arguments.events % BATCH)
        return 0
    folder = tempfile.mkdtemp(prefix="hg-", dir="/tmp")  # Ray puts sockets there: a short name
    more = {INSIDE: "1", "RAY_TMPDIR": folder, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    more["RAY_raylet_start_wait_time_s"] = "120"
    command = [*_UNSHARE, sys.executable, "-m", "benchmarks.ray_nodes", *sys.argv[1:]]
    try:
        return subprocess.run(command, env=os.environ | more, check=False).returncode  # noqa: S603 (ourselves)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
