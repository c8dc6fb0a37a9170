"""The stages of the scenarios, and how to wait for what they do.

Each writes what happens to it into a list: ``("events", [...])``, ``("demand", 10)``, ``("info", message)``,
``("subscribe", role, subscription)``, ``("cancel", end, subscription)``, ``("terminate", reason)``.
"""

import asyncio
import contextlib
import itertools
from typing import Any

import pytest

from headgate import Consumer, Producer, ProducerConsumer, StageCrashed

DEADLINE = 5.0


class Log(list[Any]):
    """What has happened, in order."""


async def until(condition):
    """Let the system run until this is true."""
    try:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                await asyncio.sleep(0)
    except TimeoutError:
        raise AssertionError("this did not become true before the deadline") from None


async def settle():
    """Let the system run until everything that can happen by itself has happened (pipelines that stand still only)."""
    for _ in range(50):
        await asyncio.sleep(0)


async def crashed(ref):
    """Wait until this stage has crashed, and return the crash."""
    with pytest.raises(StageCrashed) as caught:
        await ref.wait()
    return caught.value


@contextlib.contextmanager
def refused(kind, *parts):
    """Expect an error whose text has all these parts."""
    with pytest.raises(kind) as caught:
        yield caught
    for part in parts:
        assert part in str(caught.value)


def batches(log, kind="events"):
    """Return what the entries of this kind hold, in order."""
    return [entry[1] for entry in log if entry[0] == kind]


def numbers(*bounds):
    """Return lists of the numbers between neighbouring bounds: numbers(0, 2, 5) -> [[0, 1], [2, 3, 4]]."""
    return [list(range(start, stop)) for start, stop in itertools.pairwise(bounds)]


def doubled(start, stop):
    return [number for number in range(start, stop) for _ in range(2)]


class Noting:
    """Writes down what happens around the events.

    Args:
        log: Where to.
        answer: What ``handle_subscribe`` returns.
    """

    stage: Any

    def __init__(self, log=None, answer=None):
        self.log = Log() if log is None else log
        self.answer = answer

    def handle_subscribe(self, role, options, peer):
        self.log.append(("subscribe", role, peer))
        return self.answer

    def handle_cancel(self, reason, peer):
        self.log.append(("cancel", reason, peer))

    def handle_info(self, message):
        self.log.append(("info", message))

    def handle_call(self, request):
        """Run a function with this stage's runtime; that is what most scenarios call for."""
        return request(self.stage)

    def terminate(self, reason):
        self.log.append(("terminate", reason))


class Source(Noting, Producer):
    """Gives only what it is told to: by cast, or by a call of ``queue(...)``."""

    def handle_demand(self, demand):
        self.log.append(("demand", demand))

    def handle_cast(self, message):
        return message


class Counter(Source):
    """Counts, in batches as large as it is asked for."""

    def __init__(self, log=None, answer=None):
        super().__init__(log, answer)
        self.next = 0

    def handle_demand(self, demand):
        super().handle_demand(demand)
        first, self.next = self.next, self.next + demand
        return list(range(first, self.next))


class Doubler(Noting, ProducerConsumer):
    """Gives every event twice."""

    def handle_events(self, events, source):
        self.log.append(("events", list(events)))
        return [event for event in events for _ in range(2)]


class Forwarder(Noting, Consumer):
    """Writes down its events."""

    def handle_events(self, events, source):
        self.log.append(("events", list(events)))


class Sleeper(Noting, Consumer):
    """Writes down its events, and does not return until it may."""

    def __init__(self, log, gate):
        super().__init__(log)
        self.gate = gate

    async def handle_events(self, events, source):
        self.log.append(("events", list(events)))
        await self.gate.wait()


def queue(*events):
    """Return the request by which a producer emits these events inside of a call."""

    def request(stage):
        stage.emit(list(events))
        return "ok"

    return request
