"""Bugs to plant in the shell: each function breaks one thing, and `Planting` mends it afterwards.

Numbers in the names are those of the list that the library was designed against (ack in finally, hand-off mailbox,
...). Most are changes of the source text of one function, so that they break loudly when that function is rewritten.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import textwrap
from typing import Any

from headgate.protocol.children import Backoff
from headgate.protocol.consumer import ConsumerSide
from headgate.runtime import express
from headgate.runtime.driver import Driver, Suspended, TaskDriver, ThreadDriver
from headgate.runtime.node import Node
from headgate.runtime.reference import Ref
from headgate.sources import AsyncIterableProducer
from headgate.supervision.running import Supervision
from headgate.supervision.spawner import Spawner

MUTANTS: dict[str, tuple[Any, tuple[str, ...]]] = {}


class CannotPlantError(Exception):
    """The text that a mutant replaces is not there: adapt the mutant to the function's new form."""


class Planting:
    """Changes classes and modules, and puts them back."""

    def __init__(self):
        self._before = []

    def put(self, owner, name, value):
        """Replace an attribute."""
        self._before.append((owner, name, vars(owner).get(name, self)))
        setattr(owner, name, value)

    def edit(self, owner, name, *changes):
        """Replace text in the source of a method, or of a module's function."""
        function = inspect.getattr_static(owner, name)
        source = textwrap.dedent(inspect.getsource(function))
        for old, new in changes:
            if old not in source:
                raise CannotPlantError(f"{owner.__name__}.{name} has no {old!r}")
            source = source.replace(old, new)
        source = source.replace("super().", f"super({owner.__name__}, self).")
        module = sys.modules[getattr(owner, "__module__", owner.__name__)]
        namespace: dict[str, Any] = {}
        exec(compile(source, f"<mutant of {owner.__name__}.{name}>", "exec"), vars(module), namespace)
        self.put(owner, name, namespace[name])

    def wrap(self, owner, name, around):
        """Put a function around a method: it is given the method, then the method's arguments."""
        original = getattr(owner, name)
        self.put(owner, name, lambda *args, **kwargs: around(original, *args, **kwargs))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for owner, name, value in reversed(self._before):
            if value is self:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


def mutant(*families):
    """Put a mutant on the list, with the families that look for it."""

    def add(function):
        MUTANTS[function.__name__] = (function, families)
        return function

    return add


@mutant("chain", "suspended")
def m13_acknowledged_in_finally(plant):
    def outcome(original, self, value, error):
        into = self.core.into
        if error is not None and into is not None and into.window is not None:
            into.done()
        original(self, value, error)

    plant.wrap(Driver, "outcome", outcome)


@mutant("suspended", "chain", "requests")
def m21_hand_off_lost_when_the_wait_is_cancelled(plant):
    plant.edit(TaskDriver, "_run", ("if self._suspended is None or task is None:", "if True:"))


@mutant("requests")
def m22_call_swallows_a_cancellation(plant):
    async def call(original, self, request, **options):
        try:
            return await original(self, request, **options)
        except asyncio.CancelledError:
            return None

    plant.wrap(Ref, "call", call)


@mutant("suspended", "chain")
def m23_cancellation_swallowed_around_a_handler(plant):
    throw = "step = functools.partial(coroutine.throw, error)"
    swallow = (
        "if isinstance(error, asyncio.CancelledError):\n                coroutine.close()\n                return None"
    )
    plant.edit(Suspended, "__await__", (throw, f"{swallow}\n            {throw}"))


@mutant("stops", "chain")
def task_of_an_ended_stage_goes_on(plant):
    plant.put(TaskDriver, "close", lambda self: None)


@mutant("threads")
def thread_is_given_two_jobs_at_once(plant):
    plant.edit(ThreadDriver, "step", (" and not self._busy", ""))


@mutant("requests")
def call_is_not_answered_at_the_end(plant):
    plant.edit(Driver, "ended", ("for token in list(self.calls):", "for token in ():"))


@mutant("chain", "requests", "threads")
def subscription_is_not_answered_at_the_end(plant):
    plant.edit(Driver, "ended", ("if not future.done():", "if False:"))


@mutant("chain")
def acknowledgements_are_never_flushed(plant):
    plant.put(Node, "owe", lambda self, driver: None)


@mutant("chain")
def turn_is_not_gone_on_with(plant):
    plant.edit(Node, "_turn", ("if ready or self.owing:", "if self.owing:"))


@mutant("chain")
def stage_that_is_at_work_is_entered(plant):
    plant.edit(Driver, "act", ("self.queued = True", "pass"))


@mutant("streams")
def stream_forgets_what_was_not_read(plant):
    plant.put(ConsumerSide, "give_back", lambda self, rest: None)


@mutant("stops", "chain")
def stop_does_not_kill_in_the_end(plant):
    plant.edit(Ref, "stop", ("self.kill()", "pass"))


@mutant("chain", "iterables")
def express_without_the_ledger(plant):
    plant.edit(express, "_derail", ("single.ledger.appendleft((batch, size, token))", "pass"))


@mutant("iterables")
def iterable_is_pulled_beyond_demand(plant):
    plant.edit(
        AsyncIterableProducer,
        "pump",
        ("self.stage.demand <= len(self._events)", "self.stage.demand < len(self._events)"),
    )


@mutant("iterables")
def events_of_an_iterable_are_dropped_at_its_end(plant):
    plant.edit(
        AsyncIterableProducer,
        "pump",
        ("except StopAsyncIteration:\n        self._flush()", "except StopAsyncIteration:"),
    )


@mutant("chain", "requests")
def start_returns_before_the_stage_is_known_to_run(plant):
    def took(original, self):
        original(self)
        if not self._started.done() and self.core.state == "ending":
            self._started.set_result(None)

    plant.wrap(Driver, "took", took)


@mutant("supervised")
def m24_child_is_started_twice_for_one_end(plant):
    async def restart(original, self, members):
        waiting = [member for member in members if member.state == "waiting"]
        await original(self, members)
        for member in waiting:
            member.state = "waiting"
        await original(self, members)

    plant.wrap(Supervision, "_restart", restart)


@mutant("drains")
def m17_drain_is_heard_of_too_late(plant):
    def drain(original, self):
        self.node.loop.call_later(0.05, original, self)

    plant.wrap(Supervision, "drain", drain)


@mutant("nursery")
def slot_is_freed_before_its_child_is_done(plant):
    plant.edit(Spawner, "handle_events", ("size - len(running)", "size"))


@mutant("storms")
def restarts_do_not_wait(plant):
    plant.put(Backoff, "delay", lambda self, streak, chance: 0.0)
