# mypy: disable-error-code="var-annotated"
"""Stages of scenarios on several machines. They are written once, and say by themselves what they have seen."""

import asyncio
import collections
import os
import socket
import time
from pathlib import Path

from headgate import Consumer, Producer, ProducerConsumer


class Counter(Producer):
    """Gives whole numbers, as many as asked, up to an end."""

    def __init__(self, end=None, pad=0):
        self.next = 0
        self.end = end
        self.pad = "x" * pad
        self.demands = []

    def handle_demand(self, demand):
        self.demands.append(demand)
        first, self.next = self.next, self.next + demand
        if self.end is not None and self.next >= self.end:
            self.next = self.end
            self.stage.finish()
        numbers = range(first, self.next)
        return [(n, self.pad) for n in numbers] if self.pad else list(numbers)

    def handle_call(self, request):
        if request == "demands":
            return self.demands
        return self.next if request == "next" else os.getpid()


class Again(Producer):
    """Gives what it is told by cast."""

    def handle_demand(self, demand):
        pass

    def handle_cast(self, message):
        return message

    def handle_call(self, request):
        return os.getpid()


class Times(ProducerConsumer):
    def __init__(self, by=1):
        self.by = by

    def handle_events(self, events, source):
        return [event * self.by for event in events]

    def handle_call(self, request):
        return os.getpid()


class Pad(ProducerConsumer):
    """Passes on what comes, and says where it is and how large its process is."""

    def handle_events(self, events, source):
        return events

    def handle_call(self, request):
        return os.getpid(), resident()


class Collect(Consumer):
    """Keeps what it handles; raises, or ends its process, with chosen events."""

    def __init__(self, pace=0.0, poison=(), deadly=()):
        self.seen = []
        self.batches = []
        self.cancels = []
        self.pace = pace
        self.poison = poison
        self.deadly = deadly

    def handle_events(self, events, source):
        if self.pace:
            time.sleep(self.pace)
        for event in events:
            if event in self.poison:
                raise ValueError(f"poison {event}")
            if event in self.deadly:
                os._exit(3)
        self.seen += events
        self.batches.append(len(events))

    def handle_call(self, request):
        if request == "pid":
            return os.getpid()
        if request == "cancels":
            return self.cancels
        if request == "memory":
            return resident()
        if request == "count":
            return len(self.seen)
        return self.batches if request == "batches" else self.seen

    def handle_cancel(self, reason, peer):
        self.cancels.append((reason.kind, str(reason.reason)))


class Note(Consumer):
    """Writes what it handles to a file, so that it is known whatever becomes of its process."""

    def __init__(self, path, pace=0.0, once=()):
        self.path = path
        self.pace = pace
        self.once = once

    def started(self):
        self.file = Path(self.path).open("a", buffering=1)  # noqa: SIM115

    def terminate(self, reason):
        self.file.close()

    def handle_events(self, events, source):
        if self.pace:
            time.sleep(self.pace)
        mark = Path(f"{self.path}.once")
        if set(events) & set(self.once) and not mark.exists():
            mark.touch()
            raise ValueError("once")
        self.file.write("".join(f"{event}\n" for event in events))

    def handle_call(self, request):
        return os.getpid()


class Stuck(Consumer):
    """Its handler never returns."""

    def handle_events(self, events, source):
        while True:
            time.sleep(1)

    def handle_call(self, request):
        return os.getpid()


def noted(path):
    """Return how often each number was noted."""
    counts = collections.Counter()
    if Path(path).exists():
        with Path(path).open() as file:
            counts.update(int(line) for line in file if line.endswith("\n"))
    return counts


def resident():
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def alive(pid):
    """Say whether a process runs (one that is dead and not waited for does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def until(condition, seconds=30.0):
    """Wait for a condition, plain or async, to come true."""
    async with asyncio.timeout(seconds):
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return
            await asyncio.sleep(0.01)


def where():
    """Return the machine that this runs on, by Ray's word, and what colour it is."""
    import ray  # noqa: PLC0415 (only in actors)

    return ray.get_runtime_context().get_node_id(), os.environ.get("COLOUR")


class Cut(Consumer):
    """Cuts the connections of its node, when it is asked to."""

    def handle_events(self, events, source):
        pass

    def handle_call(self, request):
        links = self.stage._driver.node.exchange.links.values()
        return sum(cut(link) for link in links)


def cut(link):
    """Cut a link's connection, as a network would: both ends are told."""
    if link.connection is None:
        return 0
    link.connection.shutdown(socket.SHUT_RDWR)
    return 1
