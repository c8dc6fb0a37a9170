"""How it ends, and what goes back: finished events never, unfinished ones always, also those behind them."""

import asyncio
import subprocess
import sys
import threading
from typing import Any

import pytest

from headgate import Child, ConsumerSupervisor, Supervisor, System, To, from_iterable
from tests.consumer_supervisor.helpers import Feed, Work, ended, run, until, waiting


@pytest.mark.parametrize("how", ["stop", "crash", "kill"])
def test_unfinished_events_go_back_in_order_and_finished_ones_do_not(kind, how):
    async def scenario():
        work, second = Work(kind, held=True), Work("task")
        async with System() as system:
            source = await system.start(Child(Feed))
            to = [To(source, max_demand=6, min_demand=0, cancel="temporary")]
            ref = await system.start(work.recipe(shutdown=0.05, subscribe_to=to))
            source.cast(range(9))
            await until(lambda: len(work.running) == 6)
            for event in (3, 1, 4):
                work.release(event)
                await until(lambda event=event: event in work.done)
            if how == "kill":
                ref.kill("oops")
            else:
                await ref.stop("shutdown" if how == "stop" else ValueError("oops"))
            await ended(ref)
            unfinished = [0, 2, 5, 6, 7, 8]
            if len(work.began) == 9:  # freed slots were filled
                assert work.began[6:] == [6, 7, 8]
            work.release_all()
            assert waiting(source) == 6
            await system.start(second.recipe(subscribe_to=[To(source, max_demand=1)]))
            await until(lambda: second.done == unfinished)
            await until(lambda: waiting(source) == 0 and not work.running)

    run(scenario)


def test_all_children_are_told_to_end_at_the_same_time():
    async def scenario():
        began, ending, all_told = [], [], asyncio.Event()

        async def child(event):
            began.append(event)
            try:
                await asyncio.Event().wait()
            finally:
                ending.append(event)
                if len(ending) == 5:
                    all_told.set()
                await all_told.wait()

        async with System() as system:
            source = await system.start(from_iterable(range(5)))
            ref = await system.start(ConsumerSupervisor(child, subscribe_to=[To(source, cancel="temporary")]))
            await until(lambda: len(began) == 5)
            assert await ref.stop("shutdown") == "shutdown"
            assert sorted(ending) == [0, 1, 2, 3, 4]
            assert source.statistics().buffered == 5

    run(scenario)


def test_a_child_that_takes_no_notice_is_left_behind_in_time_and_named_in_the_log(caplog):
    async def scenario():
        release, began, stubborn = asyncio.Event(), [], []

        async def child(event):
            began.append(event)
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    stubborn.append(event)

        async with System() as system:
            source = await system.start(from_iterable([0]))
            to = [To(source, cancel="temporary")]
            ref = await system.start(ConsumerSupervisor(child, child_shutdown=0.01, name="work", subscribe_to=to))
            await until(lambda: began)
            await ref.stop("shutdown")
            assert stubborn
            assert source.statistics().buffered == 1
            assert "'work'" in caplog.text
            assert "have not ended within 0.01 s: 1" in caplog.text
            release.set()

    run(scenario)


def test_a_child_that_needs_two_cancellations_leaves_no_task():
    async def scenario():
        began = []

        async def child(event):
            began.append(event)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.Event().wait()

        async with System() as system:
            source = await system.start(from_iterable([0]))
            to = [To(source, cancel="temporary")]
            ref = await system.start(ConsumerSupervisor(child, child_shutdown=0.01, subscribe_to=to))
            await until(lambda: began)
            await ref.stop("shutdown")

    run(scenario)  # sees to it that no task is left


def test_a_kill_ends_the_children_too(kind):
    if kind == "thread":
        pytest.skip("nothing ends a thread from outside")

    async def scenario():
        work = Work(kind, held=True)
        async with System() as system:
            source = await system.start(from_iterable(range(4)))
            ref = await system.start(work.recipe(subscribe_to=[To(source, max_demand=4, cancel="temporary")]))
            await until(lambda: len(work.running) == 4)
            await ref.start_child(9)
            await until(lambda: len(work.running) == 5)
            ref.kill()
            await ended(ref)
            await until(lambda: not work.running)
            assert ref.children() == []
            assert source.statistics().buffered == 4

    run(scenario)


def test_a_thread_that_finishes_while_it_is_waited_for_is_done():
    async def scenario():
        work = Work("thread", held=True)
        async with System() as system:
            source = await system.start(Child(Feed))
            to = [To(source, max_demand=3, min_demand=0, cancel="temporary")]
            ref = await system.start(work.recipe(subscribe_to=to))
            source.cast([0, 1, 2])
            await until(lambda: len(work.running) == 3)
            stopping = asyncio.ensure_future(ref.stop("shutdown"))
            await asyncio.sleep(0)
            work.release_all()
            await stopping
            assert sorted(work.done) == [0, 1, 2]
            assert waiting(source) == 0

    run(scenario)


def test_an_async_child_that_goes_on_to_its_end_is_done_and_one_that_obeys_is_not():
    async def scenario():
        began = []

        async def child(event):
            began.append(event)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if event != 1:
                    raise
                await asyncio.sleep(0)  # what must not be left half done

        async with System() as system:
            source = await system.start(Child(Feed))
            to = [To(source, max_demand=3, min_demand=0, cancel="temporary")]
            ref = await system.start(ConsumerSupervisor(child, subscribe_to=to))
            source.cast([0, 1, 2])
            await until(lambda: len(began) == 3)
            await ref.stop("shutdown")
            assert waiting(source) == 2

    run(scenario)


def test_a_drain_lets_the_children_finish_and_gives_back_what_was_not_begun(kind):
    async def scenario():
        work = Work(kind, held=True, fails={2: [ValueError("once")]})
        async with System() as system:
            source = await system.start(from_iterable(range(100), name="numbers"))
            to = [To(source, max_demand=4, min_demand=0)]
            ref = await system.start(work.recipe(restart="transient", subscribe_to=to))
            await until(lambda: len(work.running) == 4)
            draining = asyncio.ensure_future(system.drain())
            await asyncio.sleep(0)
            work.release_all()
            result = await draining
            assert result.complete
            assert not ref.alive
        assert sorted(work.done) == list(range(4))
        assert result.handled == 4

    run(scenario)


def test_a_drain_that_takes_too_long_says_so_and_acknowledges_only_what_is_done(kind):
    async def scenario():
        work = Work(kind, held=True)
        async with System() as system:
            source = await system.start(from_iterable(range(4)))
            to = [To(source, max_demand=4, min_demand=0)]
            await system.start(work.recipe(shutdown=0.01, name="work", subscribe_to=to))
            await until(lambda: len(work.running) == 4)
            work.release(2)
            await until(lambda: work.done == [2])
            result = await system.drain(timeout=0.05)
            work.release_all()
            assert not result.complete
            assert "work" in result.unfinished
            assert result.handled == 1
            await until(lambda: not work.running)

    run(scenario)


@pytest.mark.parametrize("how", ["kill", "crash"])
def test_a_supervisor_that_is_started_again_gets_only_what_was_not_finished(kind, how):
    async def scenario():
        work = Work(kind, held=True)
        app = Supervisor(
            [
                from_iterable(range(40), name="numbers"),
                work.recipe(name="work", shutdown=0.01, subscribe_to=[To("numbers", max_demand=8, min_demand=0)]),
            ]
        )
        async with app as running:
            first: Any = running.child("work")
            await until(lambda: len(work.running) == 8)
            for event in (7, 2, 5):
                work.release(event)
                await until(lambda event=event: event in work.done)
            await until(lambda: len(work.began) == 11)
            unfinished = sorted({*range(11)} - {2, 5, 7})
            await until(lambda: waiting(running.system.ref("numbers")) == 8)
            if how == "kill":
                first.kill("oops")
            else:
                await first.stop(ValueError("oops"))
            await until(lambda: len(work.began) >= 19)
            await until(lambda: running.children()[1].ref not in (None, first))
            assert sorted(work.began[11:19]) == unfinished
            work.release_all()
            await running.wait()
        assert sorted({*work.done}) == list(range(40))
        assert all(work.done.count(event) == 1 for event in (2, 5, 7))
        assert work.began.count(2) == work.began.count(5) == work.began.count(7) == 1

    run(scenario)


def test_a_supervisor_in_a_supervisor_tells_its_names_and_ids(kind):
    async def scenario():
        work = Work(kind, held=True)
        recipe = work.recipe(name="work", id="the-work", subscribe_to=[To("numbers", max_demand=2)])
        assert list(recipe.names()) == ["work"]
        app = Supervisor([from_iterable(range(3), name="numbers"), recipe, work.recipe(id="other")])
        async with app as running:
            assert [each.id for each in running.children()] == ["numbers", "the-work", "other"]
            ref: Any = running.child("the-work")
            assert running.system.ref("work") == ref
            other: Any = running.child("other")
            assert other.count() == (1, 0, 0, 0)
            await until(lambda: len(work.running) == 2)
            assert work.running == [0, 1]
            assert [(each.id, each.kind, each.state) for each in ref.children()] == [
                ("1", kind, "running"),
                ("2", kind, "running"),
            ]
            await running.stop_child("other")
            work.release_all()
            await ref.wait()
        assert sorted(work.done) == [0, 1, 2]

    run(scenario)


def test_a_stage_that_cannot_start_while_it_is_stopped_keeps_nobody_waiting():
    """Its start is under way when the supervisor ends: its event goes back, and is no dead letter."""

    async def scenario():
        gate = asyncio.Event()

        class Never(Feed):
            def __init__(self, event=None):
                super().__init__()

            async def started(self):
                await gate.wait()
                raise ValueError("no")

        async with System() as system:
            source = await system.start(Child(Feed))
            recipe = ConsumerSupervisor(
                Child(Never, restart="temporary"), subscribe_to=[To(source, cancel="temporary")]
            )
            ref = await system.start(recipe)
            source.cast([0])
            await until(lambda: len(ref.children()) == 1)
            stopping = asyncio.ensure_future(ref.stop("shutdown"))
            await asyncio.sleep(0)
            gate.set()
            await stopping
            assert system.letters == []
            assert waiting(source) == 1

    run(scenario)


THREAD_FOR_EVER = """
import asyncio, logging, threading
from headgate import ConsumerSupervisor, System, To, from_iterable
logging.disable()

async def main():
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    def child(event):
        loop.call_soon_threadsafe(began.set)
        threading.Event().wait()

    async with System() as system:
        source = await system.start(from_iterable([0]))
        to = [To(source, cancel="temporary")]
        await system.start(ConsumerSupervisor(child, child_shutdown=0.01, subscribe_to=to))
        await began.wait()

asyncio.run(main())
print("over")
"""


def test_a_thread_that_never_ends_does_not_keep_the_program_from_ending():
    done = subprocess.run(
        [sys.executable, "-c", THREAD_FOR_EVER], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "over\n"


INTERRUPT = """
import asyncio, logging, sys
from headgate import ConsumerSupervisor, System, To, from_iterable
logging.disable()
letters = []

async def child(event):
    if event != 1:
        return await asyncio.Event().wait()
    {wait}
    raise {error}

async def main():
    async with System(on_dead_letter=letters.append) as system:
        source = await system.start(from_iterable(range(50)))
        to = [To(source, max_demand=4, cancel="temporary")]
        await system.start(ConsumerSupervisor(child, child_shutdown=20, subscribe_to=to))
        await asyncio.Event().wait()

try:
    asyncio.run(main())
except {kind}:
    print("interrupted", letters)
"""


@pytest.mark.parametrize("error", ["KeyboardInterrupt()", "SystemExit(3)"])
@pytest.mark.parametrize("wait", ["pass", "await asyncio.sleep(0)"])
def test_an_interrupt_in_a_child_ends_the_program_at_once_and_blames_no_event(error, wait):
    code = INTERRUPT.format(wait=wait, error=error, kind=error.partition("(")[0])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=15, check=False)
    assert done.stdout == "interrupted []\n", done.stderr


def test_threads_are_named_after_the_stage_and_end_with_it():
    async def scenario():
        names = []

        def child(event):
            names.append(threading.current_thread().name)

        async with System() as system:
            source = await system.start(from_iterable(range(5)))
            ref = await system.start(ConsumerSupervisor(child, name="work", subscribe_to=[To(source, max_demand=2)]))
            await ref.wait()
        assert all(name.startswith("headgate: work") for name in names)
        assert len(set(names)) <= 2

    run(scenario)
