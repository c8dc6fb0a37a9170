"""kill -9 of random handler workers under load: ``python -m tests.pipeline.worker_storm --kills 100``.

One pipeline at an `SQLiteQueue` (or a `MemoryQueue`), whose processors and batch handlers run in worker processes
and note in a file what they handle. While they work, one worker after the other is killed. In the end every message is
acknowledged, each was handled, no more of them twice than the kills explain, and nothing is left: no process, no open
descriptor.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from headgate import Batcher, Message, Pipeline, Process, Processors, System
from headgate.connectors.memory import MemoryQueue
from headgate.connectors.sqlite import SQLiteQueue
from tests.places.storm import descriptors, processes, quiet

WORKERS = 3
BATCH = 10
AHEAD = 300
"""Messages that wait, so that the workers always have something to do."""


class Load(Pipeline):
    """Notes each message, first alone and then in a batch."""

    processors: ClassVar[Any] = Processors(concurrency=WORKERS - 1, place=Process())
    batchers: ClassVar[Any] = Batcher(size=BATCH, timeout=0.05, place=Process())

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__(**options)
        self.path = path

    def worker_started(self) -> None:
        self.file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def handle_message(self, message: Message) -> None:
        time.sleep(0.002)
        os.write(self.file, f"message {message.data}\n".encode())
        message.data = {"number": message.data}

    def handle_batch(self, messages: list[Message], batch: Any) -> None:
        time.sleep(0.002)
        os.write(self.file, "".join(f"batch {message.data['number']}\n" for message in messages).encode())


async def storm(kills: int, seed: int, folder: Path, *, durable: bool) -> dict[str, Any]:
    """Return what there is to know of a run."""
    rng = random.Random(seed)
    queue: Any = SQLiteQueue(folder / "queue.sqlite") if durable else MemoryQueue()
    path = folder / "seen"
    put = killed = 0
    async with System() as system:
        running = await system.start(Load(str(path), source=queue))

        async def feed() -> int:
            numbers = running.statistics()
            missing: int = AHEAD - (put - numbers.outcomes["acknowledged"])
            for number in range(put, put + missing):
                await asyncio.to_thread(queue.put, number) if durable else queue.put(number)
            return put + max(0, missing)

        def at_work() -> list[Any]:
            workers = system.node.exchange.workers.values()
            return [
                each
                for each in workers
                if any(far.core.state == "running" for far in each.stages.values()) and not each.over
            ]

        back: list[float] = []
        while killed < kills:
            put = await feed()
            begun = time.monotonic()
            while len(at_work()) < WORKERS:
                await asyncio.sleep(0.002)
                if time.monotonic() - begun > 60:
                    raise RuntimeError(f"no worker came back: {running.children()}")
            back.append(time.monotonic() - begun)
            await asyncio.sleep(rng.expovariate(1 / 0.05))
            victim = rng.choice(at_work())
            os.kill(victim.pid, 9)
            await victim.gone
            killed += 1
        async with asyncio.timeout(120):
            while running.statistics().outcomes["acknowledged"] < put:
                await asyncio.sleep(0.02)
        await running.stop()
        numbers = running.statistics()
    seen = Counter(path.read_text(encoding="utf-8").splitlines())
    wanted = {f"{what} {number}" for what in ("message", "batch") for number in range(put)}
    return {
        "kills": killed,
        "seed": seed,
        "messages": put,
        "outcomes": numbers.outcomes,
        "replaced": numbers.replaced,
        "back after, median ms": round(1000 * sorted(back)[len(back) // 2]),
        "lost": sorted(wanted - set(seen))[:20],
        "unknown": sorted(set(seen) - wanted)[:20],
        "twice": sum(count - 1 for count in seen.values()),
        "unbalanced": numbers.unbalanced + numbers.in_flight,
        "left in the queue": queue.statistics()["waiting"] if not durable else 0,
    }


def run(kills: int, seed: int, *, durable: bool = True) -> dict[str, Any]:
    """Run a storm in a loop of its own, and return what is wrong with it."""
    before, mine = descriptors(), processes()
    with quiet(), tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(storm(kills, seed, Path(folder), durable=durable))
    faults = [
        f"{what}: {result[what]}" for what in ("lost", "unknown", "unbalanced", "left in the queue") if result[what]
    ]
    outcomes = {"acknowledged": result["messages"], "failed": 0, "requeued": 0, "dead_lettered": 0}
    if result["outcomes"] != outcomes:
        faults.append(f"outcomes: {result['outcomes']}")
    if result["twice"] > BATCH * kills:
        faults.append(f"{result['twice']} were handled twice, at most {BATCH * kills} may")
    left = [each for each in processes() if each not in mine]
    if left:
        faults.append(f"processes are left: {left}")
    if len(descriptors()) > len(before):
        faults.append(f"descriptors are left: {descriptors() - before}")
    return result | {"faults": faults}


def main() -> int:
    """Run one."""
    parser = argparse.ArgumentParser(description="kill workers of handlers, and look for what is lost")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--memory", action="store_true", help="at a MemoryQueue")
    options = parser.parse_args()
    began = time.monotonic()
    result = run(options.kills, options.seed, durable=not options.memory)
    print(json.dumps(result | {"seconds": round(time.monotonic() - began, 1)}))
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
