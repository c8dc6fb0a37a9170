# mypy: disable-error-code="union-attr,var-annotated,arg-type,misc"
"""Random trees with random faults and requests: nothing is lost, nobody hangs, and each finite pipeline ends.

A failing seed is run again by ``run(Chaos(SEED), seed=SEED, policy=POLICY)``; both are noted at the failure. The
environment variable CHAOS says how many seeds to run.
"""

import asyncio
import contextlib
import os
import random
from typing import Any

import pytest

from headgate import Backoff, BroadcastDispatcher, Dispatcher, HeadgateError, PartitionDispatcher, Supervision
from tests.supervision.helpers import Boom, Child, Numbers, Same, Slow, Supervisor, To, at, run, states

MANY = 600
SEEDS = int(os.environ.get("CHAOS", "12"))
PATIENT = {"max_restarts": 10_000, "backoff": Backoff(first=0.01, most=0.1)}


class Chaos:
    """One tree, what happens to it, and what its last stages have seen."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.seen = []
        self.done = []

    def place(self):
        return self.random.choice(["inline", "task", "thread"])

    def supervisor(self, children, **options):
        strategy = self.random.choice(["one_for_one", "one_for_one", "rest_for_one", "one_for_all"])
        return Supervisor(children, strategy=strategy, **PATIENT, **options)

    def build(self):
        """Return a source, a group that takes from it, and a group that takes from that, somehow nested."""
        choice = self.random.choice
        kind, count = choice(["demand", "broadcast", "partition"]), choice([1, 2, 4])
        dispatcher: Dispatcher | None = None
        partition: Any = None
        if kind == "broadcast":
            dispatcher = BroadcastDispatcher()
        elif kind == "partition":
            dispatcher = PartitionDispatcher(count, hash=lambda event: event % count)
            partition = range(count) if count > 1 else 0
        places = [self.place() for _ in range(2)]
        source = Child(at(places[0], Numbers), MANY, name="source", dispatcher=dispatcher, place=places[0])
        to = To("source", max_demand=choice([2, 10, 100]), partition=partition)
        same = Child(at(places[1], Same), name="same", count=count, subscribe_to=[to], place=places[1])
        to = To("same", max_demand=choice([1, 7, 50]), retry=choice([None, None, 1.0]))
        sink = Child(Slow, self.seen, 0.001, name="sink", count=choice([1, 2, 3]), subscribe_to=[to])
        self.resizable = [each for each, fixed in (("same", partition is not None), ("sink", False)) if not fixed]
        shape = self.random.randrange(4)
        if shape == 0:
            return self.supervisor([source, same, sink])
        if shape == 1:
            return self.supervisor([source, self.supervisor([same], id="low"), sink])
        if shape == 2:
            return self.supervisor([source, self.supervisor([same, self.supervisor([sink], id="lower")], id="low")])
        return self.supervisor([sink, self.supervisor([same], id="low"), source])

    async def act(self, top):
        """Let one thing happen to a stage that is there."""
        node = top.system.node
        if not node.names:
            return
        name = self.random.choice(list(node.names))
        what = self.random.choice(["crash", "kill", "stop", "pause", "resize", "restart", "stop and restart", "cancel"])
        self.done.append((what, name))
        ref = node.names[name]
        owner = find(top, name)
        if what == "crash" and not name.startswith("sink"):
            ref.cast(Boom())
        elif what in ("crash", "kill"):
            ref.kill()
        elif what == "stop":
            await ref.stop(self.random.choice(["normal", "shutdown", ("shutdown", "why"), "odd"]))
        elif what == "pause":
            ref.pause()
            await asyncio.sleep(self.random.random() * 0.01)
            ref.resume()
        elif owner is None:
            return
        elif what == "resize":
            group = name.partition("-")[0]
            if group in self.resizable and owner.child(name).driver.child.template is not None:
                await owner.resize(group, self.random.randint(1, 5))
        elif what == "restart":
            await owner.restart_child(name)
        elif what == "stop and restart":
            await owner.stop_child(name)
            await asyncio.sleep(self.random.random() * 0.01)
            await owner.restart_child(name)
        else:
            request = asyncio.ensure_future(owner.restart_child(name))
            for _ in range(self.random.randrange(12)):
                await asyncio.sleep(0)
            request.cancel()
            await asyncio.wait([request])

    async def __call__(self):
        async with self.build() as top:
            for _ in range(self.random.randint(1, 12)):
                await asyncio.sleep(self.random.random() * 0.05)
                with contextlib.suppress(
                    HeadgateError
                ):  # it has ended meanwhile, or did not come up: it is stopped then
                    await self.act(top)
            await start_stopped(top)
            try:
                async with asyncio.timeout(100):
                    await top.wait()
            except TimeoutError:
                missing = MANY - len(set(self.seen))
                raise AssertionError(f"hangs, {missing} missing: {self.done}\n{tree(top)}") from None
        assert set(self.seen) == set(range(MANY)), (self.done, tree(top))


def find(top, name):
    """Return the supervisor of a stage."""
    for each in top.children():
        if each.id == name:
            return top
        if isinstance(each.ref, Supervision) and (found := find(each.ref, name)) is not None:
            return found
    return None


async def start_stopped(top):
    """Start what was stopped by hand, until nothing is."""
    while stopped := [
        (each, id_) for each in running(top) for id_, state in states(each).items() if state == "stopped"
    ]:
        for each, id_ in stopped:
            try:
                await each.restart_child(id_)
            except HeadgateError:  # its producer is not there yet, or it has ended meanwhile
                await asyncio.sleep(0.01)


def running(top):
    return list(top.system.node.supervisions.values())


def tree(top):
    return "\n".join(str([(each.id, each.state, each.reason) for each in one.children()]) for one in running(top))


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["tasks", "shuffle", "fifo"])
def test_nothing_is_lost_and_nobody_hangs_whatever_happens(policy):
    for seed in range(SEEDS):
        try:
            run(Chaos(seed), seed=seed, policy=policy)
        except BaseException as error:
            error.add_note(f"seed {seed}, policy {policy!r}")
            raise
