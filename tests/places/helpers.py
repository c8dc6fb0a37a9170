"""What runs the same scenario at every place."""

import asyncio
import functools
import inspect
import threading

import pytest

from headgate import Child, Process, System, To
from headgate.protocol.messages import CALLBACKS
from tests.places.shared import share
from tests.places.stages import Collect, Counter, Emitter, Times

DEADLINE = 60.0
"""Seconds after which a scenario counts as hanging; none comes near it."""

NEAR = ("inline", "task", "thread")
"""The places in this process. `test_process` has what takes the stead of a test that is for these alone."""


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
    lent = [lend(place, each) for each in args]
    options = {name: each if name == "subscribe_to" else lend(place, each) for name, each in options.items()}
    return Child(at(place, cls), *lent, place=spot(place), **options)


def spot(place):
    """Return the place as `Child` takes it."""
    return Process() if place == "process" else place


def lend(place, value):
    """Return what to hand to a stage there: what is a list of the test is one there as well."""
    return share(value) if place == "process" else value


def spread(cases):
    """Give a test its place and cases: one by one in this process; in workers all of them, so that those are reused."""
    near = [pytest.param(place, [case], id=f"{place}-{case}") for place in NEAR for case in cases]
    far = pytest.param("process", cases, id="process", marks=pytest.mark.slow)
    return pytest.mark.parametrize(("place", "cases"), [*near, far])


async def clear(system):
    """Stop what still runs, before the next case."""
    for ref in reversed(system.stages()):
        await ref.stop()


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


async def until(condition, what="", timeout=30.0):  # noqa: ASYNC109 (it is a deadline)
    """Wait for a condition to come true, plain or async."""
    try:
        async with asyncio.timeout(timeout):
            while True:
                value = condition()
                if await value if inspect.iscoroutine(value) else value:
                    return
                await asyncio.sleep(0.0005)
    except TimeoutError:
        raise AssertionError(f"it did not come true in time: {what or condition}; left: {leftovers()}") from None


async def shows(ref, condition):
    """Wait until the numbers of a stage, as they are where it runs, fulfil a condition."""

    async def holds():
        return condition(await ref.statistics())

    await until(holds)


async def calm(*refs):
    """Wait until nothing moves any more: no message is under way, no handler runs, and no number changes.

    To ask a stage elsewhere takes a message there and back, behind all that was sent to it: in the second round the
    others have what it sent for an answer, in the third they have handled it.
    """
    quiet, before = 0, None
    while quiet < 3:
        await asyncio.sleep(0.0005)
        numbers = [await ref.statistics() for ref in refs]
        near = [ref.driver for ref in refs if not ref.driver.far]
        busy = numbers != before or any(driver.inbox or driver.core.callback is not None for driver in near)
        quiet, before = 0 if busy else quiet + 1, numbers


__all__ = [
    "NEAR",
    "Collect",
    "Counter",
    "Emitter",
    "System",
    "Times",
    "To",
    "at",
    "calm",
    "child",
    "clear",
    "leftovers",
    "lend",
    "run",
    "shows",
    "spot",
    "spread",
    "until",
]
