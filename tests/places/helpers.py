"""Stages for scenarios, written once as plain classes, and what runs them at every place."""

import asyncio
import functools
import threading

from headgate import Child, Consumer, Process, Producer, ProducerConsumer, System, To
from headgate.protocol.messages import CALLBACKS
from tests.places.shared import share

DEADLINE = 8.0
"""Seconds after which a scenario counts as hanging; none comes near it."""


def at(place, cls):
    """Return the class as it is, or with all its handlers async when the place is a task."""
    if place != "task":
        return cls
    handlers = {}
    for name in CALLBACKS:
        plain = getattr(cls, name, None)
        if plain is not None and not getattr(plain, "__headgate_default__", False):
            handlers[name] = _async(plain)
    return type(cls.__name__, (cls,), handlers)


def _async(plain):
    @functools.wraps(plain)
    async def handler(self, *args):
        await asyncio.sleep(0)  # so that others really get their turn in between
        return plain(self, *args)

    return handler


def child(place, cls, *args, **options):
    if place == "process":  # what is a list here is one there as well
        args = [share(each) for each in args]
        options = {name: each if name == "subscribe_to" else share(each) for name, each in options.items()}
        place = Process()
    return Child(at(place, cls), *args, place=place, **options)


def run(scenario):
    """Run a scenario in a loop of its own, within the deadline, and see that it leaves no task and no thread."""

    async def main():
        async with asyncio.timeout(DEADLINE):
            result = await scenario()
        await until(lambda: not leftovers(), "no task and no thread is left")
        return result

    return asyncio.run(main())


def leftovers():
    tasks = [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("headgate")]
    return tasks + [thread.name for thread in threading.enumerate() if thread.name.startswith("headgate")]


async def until(condition, what="", timeout=3.0):  # noqa: ASYNC109 (it is a deadline)
    """Wait for a condition to come true."""
    try:
        async with asyncio.timeout(timeout):
            while not condition():
                await asyncio.sleep(0.0005)
    except TimeoutError:
        raise AssertionError(f"it did not come true in time: {what or condition}; left: {leftovers()}") from None


async def calm(*refs):
    """Wait until nothing moves any more: no message is under way and no handler runs."""
    quiet = 0
    while quiet < 3:
        await asyncio.sleep(0.0005)
        busy = any(ref.driver.inbox or ref.driver.core.callback is not None for ref in refs)
        quiet = 0 if busy else quiet + 1


class Counter(Producer):
    """Gives whole numbers, as many as asked, up to an end."""

    def __init__(self, end=None, demands=None):
        self.next = 0
        self.end = end
        self.demands = [] if demands is None else demands

    def handle_demand(self, demand):
        self.demands.append(demand)
        first, self.next = self.next, self.next + demand
        if self.end is not None and self.next >= self.end:
            self.next = self.end
            self.stage.finish()
        return list(range(first, self.next))

    def handle_call(self, request):
        return request


class Emitter(Producer):
    """Gives what it is told, by cast, call, or from outside; keeps what it is asked and told."""

    def __init__(self, log=None):
        self.log = [] if log is None else log

    def handle_demand(self, demand):
        self.log.append(("demand", demand))

    def handle_cast(self, message):
        return message

    def handle_call(self, request):
        self.stage.emit(request)
        return len(request)

    def handle_info(self, message):
        self.log.append(("info", message))

    def handle_subscribe(self, role, options, peer):
        self.log.append(("subscribe", role))

    def handle_cancel(self, reason, peer):
        self.log.append(("cancel", reason.kind, reason.reason))


class Times(ProducerConsumer):
    def __init__(self, by=1, repeat=1):
        self.by = by
        self.repeat = repeat

    def handle_events(self, events, source):
        return [event * self.by for event in events for _ in range(self.repeat)]


class Collect(Consumer):
    """Keeps what it handles, event by event and batch by batch; raises on chosen events."""

    def __init__(self, seen=None, batches=None, poison=(), log=None):
        self.seen = [] if seen is None else seen
        self.batches = [] if batches is None else batches
        self.poison = poison
        self.log = [] if log is None else log

    def handle_events(self, events, source):
        for event in events:
            if event in self.poison:
                raise ValueError(f"poison {event}")
        self.batches.append(list(events))
        self.seen.extend(events)

    def handle_call(self, request):
        return list(self.seen)

    def handle_info(self, message):
        self.log.append(("info", message))

    def handle_subscribe(self, role, options, peer):
        self.log.append(("subscribe", role))

    def handle_cancel(self, reason, peer):
        self.log.append(("cancel", reason.kind, reason.reason))


__all__ = [
    "Child",
    "Collect",
    "Counter",
    "Emitter",
    "System",
    "Times",
    "To",
    "at",
    "calm",
    "child",
    "leftovers",
    "run",
    "until",
]
