"""What an async child may rely on: its task, its context, its cancellations are its own, from its begin to its end."""

import asyncio
import contextlib
import contextvars
import functools
import threading
from typing import Any

import pytest

from headgate import Child, Consumer, ConsumerSupervisor, HeadgateError, Ignore, Ref, System, To, from_iterable
from tests.consumer_supervisor.helpers import QUICK, Feed, run, until, waiting


def task() -> Any:
    """Return the current task."""
    return asyncio.current_task()


async def pass_all(child, events=6, most=1, **options):
    """Let a supervisor start a child for each of some events, one after the other; return the dead letters."""
    async with System() as system:
        source = await system.start(from_iterable(range(events)))
        to = To(source, max_demand=most, min_demand=0)
        await (await system.start(ConsumerSupervisor(child, subscribe_to=[to], backoff=QUICK, **options))).wait()
        return system.letters


def test_the_current_task_is_the_same_from_begin_to_end():
    async def scenario():
        tasks = []

        async def child(event):
            first = task()
            for _ in range(event % 3):
                await asyncio.sleep(0)
            tasks.append((first, task()))

        assert await pass_all(child, 20, 5) == []
        assert all(first is last and first is not None for first, last in tasks)
        assert all("child" in first.get_name() for first, _ in tasks)

    run(scenario)


def test_two_children_at_the_same_time_have_different_tasks():
    async def scenario():
        tasks, together = set(), asyncio.Event()

        async def child(event):
            tasks.add(task())
            if len(tasks) == 3:
                together.set()
            await together.wait()

        assert await pass_all(child, 3, 3) == []
        assert len(tasks) == 3

    run(scenario)


VARIABLE = contextvars.ContextVar("VARIABLE", default="none")


@pytest.mark.parametrize("waits", [0, 1, 2])
def test_what_a_child_sets_in_its_context_stays_there(waits):
    async def scenario():
        seen = []

        async def child(event):
            seen.append(VARIABLE.get())
            VARIABLE.set(f"child {event}")
            for _ in range(waits):
                await asyncio.sleep(0)
            assert VARIABLE.get() == f"child {event}"

        VARIABLE.set("outside")
        assert await pass_all(child, 10, 2) == []
        assert VARIABLE.get() == "outside"
        assert seen == ["outside"] * 10

    run(scenario)


def test_a_child_that_wakes_the_scheduler_does_not_lend_its_context_to_those_after_it():
    async def scenario():
        seen = []

        async with System() as system:
            source = await system.start(Child(Feed))

            async def child(event):
                seen.append(VARIABLE.get())
                await asyncio.sleep(0)
                VARIABLE.set("mine")
                if event < 5:
                    source.cast([event + 1])

            to = [To(source, max_demand=3, min_demand=0)]
            await system.start(ConsumerSupervisor(child, subscribe_to=to))
            source.cast([0])
            await until(lambda: len(seen) == 6)
        assert seen == ["none"] * 6

    run(scenario)


def test_a_plain_function_has_a_context_of_its_own_as_well():
    async def scenario():
        seen = []

        def child(event):
            seen.append(VARIABLE.get())
            VARIABLE.set("mine")

        VARIABLE.set("outside")
        assert await pass_all(child, 10, 3) == []
        assert seen == ["outside"] * 10

    run(scenario)


@pytest.mark.parametrize("seconds", [0, -1, 0.001])
@pytest.mark.parametrize("before", [0, 1])
def test_a_timeout_in_a_child_is_its_own(seconds, before):
    async def scenario():
        over = []

        async def child(event):
            for _ in range(before):
                await asyncio.sleep(0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await asyncio.Event().wait()
            assert task().cancelling() == 0
            await asyncio.sleep(0)
            over.append(event)

        assert await pass_all(child) == []
        assert over == list(range(6))

    run(scenario)


def test_a_timeout_in_a_handler_of_any_async_stage_is_its_own():
    async def scenario():
        seen = []

        class Impatient(Consumer):
            async def handle_events(self, events, source):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0):
                        await asyncio.Event().wait()
                seen.extend(events)

        async with System() as system:
            source = await system.start(from_iterable(range(5)))
            await (await system.start(Child(Impatient, subscribe_to=[To(source, max_demand=1)]))).wait()
        assert seen == list(range(5))

    run(scenario)


def test_a_timeout_reaches_what_the_child_waits_for():
    async def scenario():
        inner = []

        async def slow():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                inner.append("cancelled")
                raise

        async def child(event):
            other = asyncio.ensure_future(slow())
            await asyncio.sleep(0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await other

        assert await pass_all(child, 3) == []
        assert inner == ["cancelled"] * 3

    run(scenario)


def test_a_child_that_runs_out_of_time_fails_with_a_timeout_error():
    async def scenario():
        async def child(event):
            async with asyncio.timeout(0):
                await asyncio.Event().wait()

        letters = await pass_all(child, 3)
        assert [type(letter.error) for letter in letters] == [TimeoutError] * 3

    run(scenario)


@pytest.mark.parametrize("fails", [False, True])
def test_a_task_group_in_a_child_is_its_own(fails):
    async def scenario():
        got = []

        async def part(event):
            await asyncio.sleep(0)
            if fails and event % 2:
                raise ValueError(event)
            got.append(event)

        async def child(event):
            async with asyncio.TaskGroup() as group:
                group.create_task(part(event))
                group.create_task(asyncio.sleep(0))
                if fails and event % 2:
                    await asyncio.Event().wait()  # the group cancels this

        letters = await pass_all(child, 6)
        if fails:
            assert [letter.event for letter in letters] == [1, 3, 5]
            assert all(letter.error.exceptions[0].args == (letter.event,) for letter in letters)
        else:
            assert got == list(range(6))

    run(scenario)


@pytest.mark.parametrize("waits", [0, 1])
def test_a_child_that_cancels_itself_has_failed_and_nobody_else_has(waits):
    async def scenario():
        done = []

        async def child(event):
            for _ in range(waits):
                await asyncio.sleep(0)
            if event % 2:
                task().cancel()
            await asyncio.sleep(0)
            done.append(event)

        letters = await pass_all(child, 7)
        assert [letter.event for letter in letters] == [1, 3, 5]
        assert done == [0, 2, 4, 6]

    run(scenario)


def test_the_very_first_child_may_cancel_itself_too():
    async def scenario():
        async def child(event):
            task().cancel()
            await asyncio.sleep(0)

        letters = await pass_all(child, 3)
        assert [letter.event for letter in letters] == [0, 1, 2]

    run(scenario)


def test_a_child_that_cancels_itself_and_ends_at_once_harms_no_other():
    async def scenario():
        done = []

        async def child(event):
            if event == 0:
                task().cancel()
                return
            await asyncio.sleep(0)
            done.append(event)

        assert await pass_all(child, 5) == []
        assert done == [1, 2, 3, 4]

    run(scenario)


def test_a_child_whose_awaited_task_was_cancelled_has_failed():
    async def scenario():
        async def child(event):
            other = asyncio.ensure_future(asyncio.Event().wait())
            asyncio.get_running_loop().call_soon(other.cancel)
            await other

        letters = await pass_all(child, 2)
        assert [type(letter.error) for letter in letters] == [asyncio.CancelledError] * 2

    run(scenario)


def test_a_child_may_swallow_a_cancellation_and_those_after_it_know_nothing_of_that():
    async def scenario():
        counts = []

        async def child(event):
            counts.append(task().cancelling())
            if event == 0:
                asyncio.get_running_loop().call_soon(task().cancel)
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
            await asyncio.sleep(0)

        assert await pass_all(child, 4) == []
        assert counts == [0] * 4

    run(scenario)


@pytest.mark.parametrize("waits", [0, 1])
def test_a_child_may_start_and_stop_children(waits):
    async def scenario():
        began, stopped = [], []

        async with System() as system:

            async def child(event):
                for _ in range(waits):
                    await asyncio.sleep(0)
                began.append(event)
                if event == "stopped":
                    try:
                        await asyncio.Event().wait()
                    finally:
                        stopped.append(event)
                if event == 0:
                    assert await ref.start_child("done at once") == "2"
                    other = await ref.start_child("stopped")
                    await until(lambda: "stopped" in began)
                    await ref.stop_child(other)

            ref = await system.start(ConsumerSupervisor(child))
            assert await ref.start_child(0) == "1"
            await until(lambda: stopped and not ref.children())
            assert began == [0, "done at once", "stopped"]

    run(scenario)


def test_a_child_that_stops_itself_is_stopped():
    async def scenario():
        over: list[int] = []

        async with System() as system:

            async def child(event):
                try:
                    await ref.stop_child("1")
                finally:
                    over.append(event)

            ref = await system.start(ConsumerSupervisor(child))
            await ref.start_child(0)
            await until(lambda: over == [0] and not ref.children())

    run(scenario)


def test_whoever_gives_up_waiting_for_a_stopped_child_leaves_the_counts_right():
    async def scenario():
        release = asyncio.Event()

        async def child(event):
            while not release.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await release.wait()

        async with System() as system:
            source = await system.start(Child(Feed))
            to = [To(source, max_demand=1, min_demand=0)]
            ref = await system.start(ConsumerSupervisor(child, subscribe_to=to))
            source.cast([0])
            await until(ref.children)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await ref.stop_child("1")
            release.set()
            await until(lambda: not ref.children() and waiting(source) == 0)

    run(scenario)


def test_a_child_that_is_stopped_and_goes_on_frees_its_slot_in_time_and_is_named_in_the_log(caplog):
    async def scenario():
        release, began = asyncio.Event(), []

        async def child(event):
            began.append(event)
            while event == 0 and not release.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await release.wait()

        async with System() as system:
            source = await system.start(Child(Feed))
            to = [To(source, max_demand=1, min_demand=0)]
            recipe = ConsumerSupervisor(child, child_shutdown=0.01, name="work", subscribe_to=to)
            ref = await system.start(recipe)
            source.cast([0, 1])
            await until(lambda: began)
            await ref.stop_child("1")
            await until(lambda: began == [0, 1])
            assert "'work': 1 children have not ended within 0.01 s: 1" in caplog.text
            release.set()

    run(scenario)


def test_a_thread_that_is_stopped_and_goes_on_takes_no_slot_from_others():
    async def scenario():
        release, began = threading.Event(), []

        def child(event):
            began.append(event)
            if event < 2:
                release.wait(8)

        async with System() as system:
            source = await system.start(Child(Feed))
            to = [To(source, max_demand=2, min_demand=0)]
            ref = await system.start(ConsumerSupervisor(child, child_shutdown=0.01, subscribe_to=to))
            source.cast(range(6))
            await until(lambda: len(ref.children()) == 2)
            await ref.stop_child("1")
            await ref.stop_child("2")
            await until(lambda: waiting(source) == 0)
            assert sorted(began) == list(range(6))
            release.set()

    run(scenario)


class Callable:
    async def __call__(self, event):
        await asyncio.sleep(0)
        raise ValueError(event)


async def _two(prefix, event):
    await Callable()(event)


def _decorated(function):
    @functools.wraps(function)
    def wrapper(*args):
        return asyncio.ensure_future(function(*args))

    return wrapper


async def _plain(event):
    raise ValueError(event)


@pytest.mark.parametrize(
    "child", [Callable(), functools.partial(_two, "x"), Callable().__call__, _decorated(_plain), _plain]
)
def test_whatever_is_called_with_an_event_and_awaited_is_an_async_child(child):
    async def scenario():
        letters = await pass_all(child, 2)
        assert [letter.error.args for letter in letters] == [(0,), (1,)]

    run(scenario)


def test_arguments_come_before_the_event(kind):
    async def scenario():
        seen = []

        async def in_task(a, b, event):
            seen.append((a, b, event))

        def in_thread(a, b, event):
            seen.append((a, b, event))

        class InStage(Feed):
            def __init__(self, a, b, event):
                super().__init__()
                seen.append((a, b, event))

            def started(self):
                self.stage.stop()

        child = {"task": in_task, "thread": in_thread, "stage": InStage}[kind]
        async with System() as system:
            source = await system.start(from_iterable(range(2)))
            recipe = ConsumerSupervisor(child, 1, 2, subscribe_to=[To(source, max_demand=1)])
            await (await system.start(recipe)).wait()
        assert seen == [(1, 2, 0), (1, 2, 1)]

    run(scenario)


def test_a_plain_function_that_raises_stop_iteration_has_failed():
    async def scenario():
        def child(event):
            return next(iter(()))

        letters = await pass_all(child, 3)
        assert [type(letter.error) for letter in letters] == [StopIteration] * 3

    run(scenario)


def test_a_plain_function_that_gives_an_awaitable_has_failed():
    """Nobody would await it, and its event would count as done."""

    async def scenario():
        async def work(event):
            raise AssertionError(event)

        letters = await pass_all(lambda event: work(event), 2)  # noqa: PLW0108 (a plain function is the point)
        assert all("not an awaitable" in str(letter.error) for letter in letters)
        assert len(letters) == 2

    run(scenario)


def test_children_in_threads_by_hand_have_each_a_thread():
    async def scenario():
        together = threading.Barrier(3, timeout=5)

        def child(event):
            together.wait()

        async with System() as system:
            ref = await system.start(ConsumerSupervisor(child))
            for event in range(3):
                await ref.start_child(event)
            await until(lambda: not ref.children())
            assert system.letters == []

    run(scenario)


def test_subscriptions_that_come_later_have_their_threads_too():
    async def scenario():
        together = threading.Barrier(4, timeout=5)

        def child(event):
            if event is not None:
                together.wait()

        async with System() as system:
            source = await system.start(Child(Feed))
            ref = await system.start(ConsumerSupervisor(child, subscribe_to=[To(source, max_demand=1)]))
            source.cast([None])
            await until(lambda: waiting(source) == 0)
            other = await system.start(from_iterable(range(4)))
            await ref.subscribe(To(other, max_demand=4, cancel="temporary"))
            await until(lambda: waiting(other) == 0)
            assert system.letters == []

    run(scenario)


@pytest.mark.parametrize("outcome", ["ok", "ignore", "init", "started"])
def test_a_stage_that_is_started_by_hand_says_how_that_came_out(outcome):
    async def scenario():
        class Some(Feed):
            def __init__(self, event=None):
                super().__init__()
                if event == "init":
                    raise ValueError("no")

            def started(self):
                if outcome == "ignore":
                    raise Ignore
                if outcome == "started":
                    raise ValueError("no")

        async with System() as system:
            ref = await system.start(ConsumerSupervisor(Child(Some, restart="temporary")))
            if outcome == "ok":
                assert await ref.start_child(outcome) == "1"
                assert ref.count() == (1, 1, 0, 1)
                inner = ref.children()[0].ref
                assert isinstance(inner, Ref)
                assert inner.alive
                return
            with pytest.raises(Ignore if outcome == "ignore" else HeadgateError):
                await ref.start_child(outcome)
            assert ref.count() == (1, 0, 0, 0)

    run(scenario)


@pytest.mark.parametrize("revoked", [False, True])
@pytest.mark.parametrize("waits", [False, True])
def test_a_child_that_cancels_itself_in_its_first_step_leaves_no_task_behind_and_harms_no_other(revoked, waits):
    async def scenario():
        done = []

        async def child(event):
            if event % 2:
                task().cancel()
                if revoked:
                    task().uncancel()
                if waits:
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.sleep(0)
            elif event % 3 == 0:
                await asyncio.sleep(0)
            done.append(event)

        async with System() as system:
            source = await system.start(from_iterable(range(60)))
            ref = await system.start(ConsumerSupervisor(child, subscribe_to=[To(source, max_demand=4)]))
            await ref.wait()
            assert sorted(done) == list(range(60))
        await until(lambda: asyncio.all_tasks() == {task()})

    run(scenario)
