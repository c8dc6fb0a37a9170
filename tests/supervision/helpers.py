"""Stages and trees for the supervisors' tests; they run in virtual time, so they wait for nothing."""

import asyncio
import contextlib
import logging

from headgate import Child, Consumer, Producer, ProducerConsumer, Stop, Supervisor, System, To, testing
from tests.places.helpers import at

LONG = 600.0
"""Virtual seconds after which a scenario counts as hanging."""
HOUR = 3600.0

logging.getLogger("headgate").addHandler(logging.NullHandler())


class Boom(Exception):
    """What the stages here crash with."""


def run(scenario, *, seed=0, policy="tasks", tick=20e-6, limit=2_000_000):
    """Run a scenario in virtual time; it must end, leave no task, and let no exception go unseen."""

    async def main():
        async with asyncio.timeout(LONG):
            return await scenario()

    return testing.run(main(), seed=seed, policy=policy, tick=tick, limit=limit)


async def until(condition, what="", timeout=60.0):  # noqa: ASYNC109 (it is a deadline)
    """Wait, in virtual time, for a condition to come true."""
    try:
        async with asyncio.timeout(timeout):
            while not condition():
                await asyncio.sleep(0.001)
    except TimeoutError:
        raise AssertionError(f"it did not come true in time: {what or condition}") from None


def now():
    """Return the virtual time in seconds."""
    return asyncio.get_running_loop().time()


class Idle(Consumer):
    """Does nothing but note its life: ``("start", name)``, ``("stop", name, reason)``; ends as it is told by casts."""

    def __init__(self, log=None, label=None):
        self.log = [] if log is None else log
        self.label = label

    @property
    def word(self):
        return self.label or self.stage.name

    def started(self):
        self.log.append(("start", self.word))

    def terminate(self, reason):
        self.log.append(("stop", self.word, reason))

    def handle_events(self, events, source):
        pass

    def handle_cast(self, message):
        if isinstance(message, BaseException):
            raise message
        raise Stop(message)


class Stubborn(Idle):
    """Takes no notice of its stop: its ``terminate`` lasts for an hour."""

    async def terminate(self, reason):
        self.log.append(("stop", self.word, reason))
        await asyncio.sleep(HOUR)


class Deaf(Idle):
    """Never comes to its stop: a handler runs for an hour, whatever happens to it."""

    async def handle_cast(self, message):
        end = now() + HOUR
        while now() < end:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(end - now())


class Flaky(Consumer):
    """Its ``started`` goes by a script, shared by all its lives: None, or something to raise, or seconds to take."""

    def __init__(self, script, log=None):
        self.script = script
        self.log = [] if log is None else log

    async def started(self):
        step = self.script.pop(0) if self.script else None
        if isinstance(step, (int, float)):
            await asyncio.sleep(step)
        elif step is not None:
            raise step
        self.log.append((now(), self.stage.name))

    def handle_events(self, events, source):
        pass

    def handle_cast(self, message):
        raise message


class Unborn(Consumer):
    """Its ``__init__`` goes by a script, shared by all its lives: None, or something to raise."""

    def __init__(self, script):
        step = script.pop(0) if script else None
        if step is not None:
            raise step

    def handle_events(self, events, source):
        pass

    def handle_cast(self, message):
        raise message


class Numbers(Producer):
    """Gives whole numbers up to an end, then finishes. ``script``: for each of its lives what ``__init__`` raises."""

    def __init__(self, end=None, script=None):
        step = script.pop(0) if script else None
        if step is not None:
            raise step
        self.next = 0
        self.end = end

    def handle_demand(self, demand):
        first, self.next = self.next, self.next + demand
        if self.end is not None and self.next >= self.end:
            self.next = self.end
            self.stage.finish()
        return list(range(first, self.next))

    def handle_cast(self, message):
        if isinstance(message, BaseException):
            raise message
        raise Stop(message)


class Same(ProducerConsumer):
    """Passes events on."""

    def handle_events(self, events, source):
        return list(events)

    def handle_cast(self, message):
        if isinstance(message, BaseException):
            raise message
        raise Stop(message)


class Sink(Consumer):
    """Keeps what it handles; ``crash(event)`` says whether to raise."""

    def __init__(self, seen, crash=None, lives=None):
        self.seen = seen
        self.crash = crash
        if lives is not None:
            lives.append(self)

    def handle_events(self, events, source):
        if self.crash is not None:
            for event in events:
                if self.crash(event):
                    raise Boom(event)
        self.seen.extend(events)

    def handle_cast(self, message):
        if isinstance(message, BaseException):
            raise message
        raise Stop(message)


class Slow(Consumer):
    """Takes some virtual time for each batch."""

    def __init__(self, seen, seconds=0.01):
        self.seen = seen
        self.seconds = seconds

    async def handle_events(self, events, source):
        await asyncio.sleep(self.seconds)
        self.seen.extend(events)


def states(running):
    return {each.id: each.state for each in running.children()}


def fresh(cls, name, log, **options):
    """Return a child that notes its life under its name."""
    return Child(cls, log, name=name, **options)


__all__ = [
    "HOUR",
    "Boom",
    "Child",
    "Deaf",
    "Flaky",
    "Idle",
    "Numbers",
    "Same",
    "Sink",
    "Slow",
    "Stubborn",
    "Supervisor",
    "System",
    "To",
    "Unborn",
    "at",
    "fresh",
    "now",
    "run",
    "states",
    "until",
]
