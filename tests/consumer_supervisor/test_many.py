"""Many events: nothing is lost, nothing is kept, and what failed is told."""

import asyncio
import gc
import random
from typing import Any

from headgate import ConsumerSupervisor, Supervisor, System, To, from_iterable
from headgate.supervision.spawner import Job
from tests.consumer_supervisor.helpers import QUICK, Work, until, waiting


def test_one_child_that_runs_on_while_100000_others_pass_costs_no_memory_and_is_all_that_comes_back():
    async def scenario():
        passed = 0

        async def child(event):
            nonlocal passed
            if event == 7:
                await asyncio.Event().wait()
            if event % 1000 == 0:
                await asyncio.sleep(0)
            passed += 1

        async with System() as system:
            source = await system.start(from_iterable(range(100_000)))
            to = [To(source, max_demand=100, min_demand=0, cancel="temporary")]
            ref = await system.start(ConsumerSupervisor(child, subscribe_to=to))
            most = 0
            core: Any = source.driver.core
            into: Any = ref.driver.core.into
            while passed < 99_999:
                await asyncio.sleep(0)
                for each in core.out.subscribers.values():
                    most = max(most, len(each.ledger))
                most = max(most, *(len(window.origins) for window in into.windows.values()))
            await until(lambda: waiting(source) == 1)
            assert most <= 1000
            (subscriber,) = core.out.subscribers.values()
            assert len(subscriber.ledger) <= 3
            gc.collect()
            assert sum(isinstance(each, Job) for each in gc.get_objects()) <= 100  # some of other tests among them
            ref.kill()
            await until(lambda: not ref.alive)
            assert source.statistics().buffered == 1
            again = []

            async def note(event):
                again.append(event)

            await system.start(ConsumerSupervisor(note, subscribe_to=[To(source)]))
            await until(lambda: again == [7])

    run_long(scenario)


def test_100000_events_with_failures_at_random_are_done_or_dead_letters():
    async def scenario():
        rng, done, letters = random.Random(3), [], []

        async def child(event):
            kind = rng.random()
            if kind < 0.02:
                raise ValueError("at once")
            if kind < 0.05:
                await asyncio.sleep(0)
                if kind < 0.04:
                    raise ValueError("later")
            done.append(event)

        async with System() as system:
            system.node.letters.clear()
            source = await system.start(from_iterable(range(100_000)))
            to = [To(source, max_demand=200, min_demand=0)]
            hook = lambda letter: letters.append(letter.event)
            recipe = ConsumerSupervisor(
                child, child_restart="transient", retries=1, backoff=QUICK, dead_letter=hook, subscribe_to=to
            )
            await (await system.start(recipe)).wait()
        assert sorted(done + letters) == list(range(100_000))
        assert letters

    run_long(scenario)


def test_crashes_of_the_supervisor_at_random_moments_lose_nothing_and_repeat_only_what_was_at_work():
    async def scenario(seed):
        rng, done, letters = random.Random(seed), [], []
        repeats = 0

        async def child(event):
            for _ in range(rng.randrange(3)):
                await asyncio.sleep(0)
            if rng.random() < 0.05:
                raise ValueError(event)
            done.append(event)

        hook = lambda letter: letters.append(letter.event)
        recipe = ConsumerSupervisor(
            child,
            name="work",
            child_restart="transient",
            retries=1,
            backoff=QUICK,
            dead_letter=hook,
            subscribe_to=[To("numbers", max_demand=20, min_demand=rng.randrange(20))],
        )
        app = Supervisor([from_iterable(range(2000), name="numbers"), recipe], max_restarts=None, backoff=QUICK)
        async with app as running:
            ending = asyncio.ensure_future(running.wait())
            while not ending.done():
                for _ in range(rng.randrange(200)):
                    await asyncio.sleep(0)
                ref: Any = running.system.node.names.get("work")
                if ref is not None and ref.alive and not ending.done():
                    repeats += len(ref.children()) + 20
                    ref.kill("oops") if rng.random() < 0.5 else ref.driver.act(ref.driver.core.stop, ValueError("x"))
            await ending
        assert {*done, *letters} == {*range(2000)}
        assert len(done) + len(letters) - 2000 <= repeats

    for seed in range(5):
        run_long(lambda seed=seed: scenario(seed))


def run_long(scenario):
    """Run a scenario that may take longer than the usual deadline."""
    asyncio.run(_within(scenario))


async def _within(scenario):
    async with asyncio.timeout(60):
        await scenario()


def test_stages_that_fail_leave_nothing_behind():
    async def scenario():
        async with System() as system:
            source = await system.start(from_iterable(range(300)))
            work = Work("stage", fails={event: [ValueError(event)] for event in range(300)})
            ref = await system.start(work.recipe(subscribe_to=[To(source, max_demand=50)]))
            await ref.wait()
            assert len(system.letters) == 300
            assert len(system.node.observed) + len(system.node.crashes) <= 1

    run_long(scenario)
