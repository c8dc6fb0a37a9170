"""kill -9 of random worker processes under load: ``python -m tests.places.storm --kills 200``.

A source here, two middle stages and two sinks in worker processes of their own, all under one supervisor. The sinks
write the number of each event to a file. While they work, one worker after the other is killed. In the end every number
has to be there, no more of them twice than the windows of the kills allow, and nothing may be left: no process, no open
descriptor, no memory file.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from headgate import Backoff, Child, Consumer, Process, Producer, ProducerConsumer, Supervisor, System, To

DEMAND = 40
"""The window of every subscription."""


class Numbers(Producer):
    """Gives numbers until it is told that it is enough."""

    def __init__(self):
        self.next = 0
        self.enough = False

    def handle_demand(self, demand):
        if self.enough:
            self.stage.finish()
            return []
        first, self.next = self.next, self.next + demand
        return list(range(first, self.next))

    def handle_call(self, request):
        if request == "enough":
            self.enough = True
            self.stage.finish()
        return self.next


class Slow(ProducerConsumer):
    """Takes about as long for a batch as a kill takes to come."""

    def handle_events(self, events, source):
        time.sleep(0.0002 * len(events))
        return [(event, os.getpid()) for event in events]


class Note(Consumer):
    """Appends what it gets to a file, and is done with it when it is there."""

    def __init__(self, path):
        self.path = path

    def started(self):
        self.file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def handle_events(self, events, source):
        os.write(self.file, "".join(f"{event}\n" for event, _ in events).encode())


def descriptors():
    return {each.name for each in Path("/proc/self/fd").iterdir()}


def processes():
    """Return the children of this process, zombies included."""
    mine = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(status[1]) == os.getpid():
                mine.append(int(entry.name))
    return mine


@contextlib.contextmanager
def quiet():
    """Say nothing of the deaths that are wanted."""
    logger = logging.getLogger("headgate")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


async def storm(kills, seed, path):
    """Return what there is to know of a run."""
    rng = random.Random(seed)
    recipe = Supervisor(
        [
            Child(Numbers, name="numbers"),
            Child(Slow, name="slow", count=2, place=Process(), subscribe_to=[To("numbers", max_demand=DEMAND)]),
            Child(Note, str(path), id="note", count=2, place=Process(), subscribe_to=[To("slow", max_demand=DEMAND)]),
        ],
        max_restarts=10 * kills + 10,
        max_seconds=1.0,
        backoff=Backoff(first=0.0, most=0.01),
    )
    times = []
    async with System() as system:
        running = await system.start(recipe)
        hub = system.node.exchange
        for _ in range(kills):
            await asyncio.sleep(rng.expovariate(1 / 0.05))
            workers = [each for each in hub.workers.values() if each.stages]
            if not workers:
                await asyncio.sleep(0.05)
                continue
            victim = rng.choice(workers)
            os.kill(victim.pid, 9)
            begun = time.monotonic()
            while not victim.over or sum(ref.alive and ref.driver.far for ref in started(running)) < 4:
                await asyncio.sleep(0.002)
                if time.monotonic() - begun > 20:
                    raise RuntimeError(f"no worker came back: {running.children()}")
            times.append(time.monotonic() - begun)
        numbers = system.ref("numbers")
        given = await numbers.call("enough", timeout=20)
        async with asyncio.timeout(60):
            while system.stages():
                await asyncio.sleep(0.02)
        letters = [letter.event for letter in system.letters]
    seen = Counter(int(line) for line in path.read_text().split())
    again = sum(count - 1 for count in seen.values())
    return {
        "kills": kills,
        "seed": seed,
        "events": given,
        "lost": sorted(set(range(given)) - set(seen) - {_number(each) for each in letters})[:20],
        "letters": len(letters),
        "twice": again,
        "allowed": 2 * DEMAND * kills,
        "unknown": sorted(set(seen) - set(range(given)))[:20],
        "back after, median ms": round(1000 * sorted(times)[len(times) // 2]) if times else None,
        "back after, most ms": round(1000 * max(times)) if times else None,
    }


def started(running):
    """Return the stages that have come up."""
    return [child.ref for child in running.children() if child.state == "running" and child.ref is not None]


def _number(event):
    return event[0] if isinstance(event, tuple) else event


def run(kills, seed):
    """Run a storm in a loop of its own, and return what is wrong with it."""
    before, mine = descriptors(), processes()
    with quiet(), tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(storm(kills, seed, Path(folder) / "seen"))
    faults = [f"{what}: {result[what]}" for what in ("lost", "unknown") if result[what]]
    if result["twice"] > result["allowed"]:
        faults.append(f"{result['twice']} events came twice, at most {result['allowed']} may")
    if result["letters"]:
        faults.append(f"{result['letters']} events were given up")
    left = [each for each in processes() if each not in mine]
    if left:
        faults.append(f"processes are left: {left}")
    if len(descriptors()) > len(before):
        faults.append(f"descriptors are left: {descriptors() - before}")
    return result | {"faults": faults}


def main():
    parser = argparse.ArgumentParser(description="kill workers, and look for what is lost")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    result = run(options.kills, options.seed)
    print(json.dumps(result))
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
