"""Children of all three kinds that do what a test tells them, event by event."""

import asyncio
import threading
from collections import Counter
from typing import Any

from headgate import Backoff, Child, ConsumerSupervisor, Producer
from tests.places.helpers import run, until

KINDS = ["task", "thread", "stage"]
QUICK = Backoff(first=0.0001, most=0.001)


class Work:
    """The work of children: each waits until it may go on, and ends as it was told.

    Args:
        kind: What runs it: ``"task"``, ``"thread"`` or ``"stage"``.
        fails: What a child of this event raises, one after the other; then it succeeds.
        held: Whether children wait for `release`.
    """

    def __init__(self, kind, *, fails=None, held=False):
        self.kind = kind
        self.fails = {event: list(errors) for event, errors in (fails or {}).items()}
        self.held = held
        self.began = []
        self.done = []
        self.cancelled = []
        self.most = 0
        self._running: Counter[Any] = Counter()
        self._lock = threading.Lock()
        self._gates = {}

    @property
    def running(self):
        with self._lock:
            return sorted(self._running.elements())

    def release(self, *events):
        """Let the children of these events go on, those of now and of later."""
        for event in events:
            self._gate(event).set()

    def release_all(self):
        self.held = False
        for gate in list(self._gates.values()):
            gate.set()

    def recipe(self, *, restart="temporary", shutdown=None, **options):
        """Return a supervisor whose children do this work."""
        options = {"backoff": QUICK, **options}
        if self.kind == "stage":
            limit = 5.0 if shutdown is None else shutdown
            return ConsumerSupervisor(Child(One, self, restart=restart, shutdown=limit), **options)
        child = self.in_task if self.kind == "task" else self.in_thread
        return ConsumerSupervisor(child, child_restart=restart, child_shutdown=shutdown, **options)

    async def in_task(self, event):
        self._begin(event)
        try:
            await (self._gate(event).wait() if self.held else asyncio.sleep(0))
            self._end(event)
        except asyncio.CancelledError:
            self.cancelled.append(event)
            raise
        finally:
            self._over(event)

    def in_thread(self, event):
        self._begin(event)
        try:
            if self.held:
                self._gate(event).wait(8)
            self._end(event)
        finally:
            self._over(event)

    def _gate(self, event):
        with self._lock:
            kind = threading.Event if self.kind == "thread" else asyncio.Event
            return self._gates.setdefault(event, kind())

    def _begin(self, event):
        with self._lock:
            self.began.append(event)
            self._running[event] += 1
            self.most = max(self.most, self._running.total())

    def _end(self, event):
        with self._lock:
            errors = self.fails.get(event)
            if errors:
                raise errors.pop(0)
            self.done.append(event)

    def _over(self, event):
        with self._lock:
            self._running[event] -= 1


class One(Producer):
    """A stage for one event: it does its work, and ends."""

    def __init__(self, work, event=None):
        self.work = work
        self.event = event

    async def started(self):
        self.stage.cast("go")

    async def handle_cast(self, message):
        await self.work.in_task(self.event)
        self.stage.stop()


class Feed(Producer):
    """Gives what it is told by cast, and keeps what it is asked for."""

    def __init__(self, demands=None):
        self.demands = [] if demands is None else demands

    def handle_demand(self, demand):
        self.demands.append(demand)

    def handle_cast(self, message):
        if message is None:
            self.stage.finish()
            return None
        if isinstance(message, BaseException):
            raise message
        return list(message)


def waiting(ref):
    """Say how many events the producer has that nobody is done with."""
    statistics = ref.statistics()
    return statistics.buffered + statistics.in_flight


async def ended(ref):
    """Wait until a stage has ended; return its reason, whatever it is."""
    try:
        return await ref.wait()
    except Exception:
        return ref.reason


__all__ = ["KINDS", "QUICK", "Feed", "One", "Work", "ended", "run", "until", "waiting"]
