"""`headgate.testing.run`: virtual time, orders from a seed, and nothing that is left behind unseen."""

import asyncio
import gc
import itertools
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from headgate import Child, Consumer, OptionError, Producer, StageCrashed, System, To, from_iterable, testing


def test_time_is_virtual_and_exact_without_ticks():
    async def main():
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(3600)
        return loop.time() - began

    real = time.monotonic()
    assert testing.run(main(), tick=0) == 3600
    assert time.monotonic() - real < 60  # an hour has not passed


def test_the_clock_moves_while_callbacks_run():
    """A timer may go off before work that was ready first; with a clock that moves only when idle it never could."""

    async def main():
        order: list[str] = []
        asyncio.get_running_loop().call_later(0.0005, order.append, "timer")
        for _ in range(100):
            await asyncio.sleep(0)
        order.append("work")
        await asyncio.sleep(1)
        return order

    assert testing.run(main(), tick=0) == ["work", "timer"]
    assert testing.run(main(), tick=100e-6) == ["timer", "work"]


def test_a_grid_makes_timers_coincide():
    async def main():
        loop = asyncio.get_running_loop()
        times = []
        for delay in (0.0001, 0.0004, 0.0009):
            loop.call_later(delay, lambda: times.append(loop.time()))
        await asyncio.sleep(0.01)
        return times

    assert testing.run(main(), tick=0, grid=0.001) == [0.001] * 3


async def racing():
    order: list[Any] = []

    async def each(name):
        for step in range(3):
            order.append((name, step))
            await asyncio.sleep(0)

    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(each(name)) for name in "abc"]
    for number in range(3):
        loop.call_soon(order.append, number)
    await asyncio.gather(*tasks)
    return order


def test_fifo_is_the_order_of_asyncio():
    assert testing.run(racing(), policy="fifo") == asyncio.run(racing())


def test_tasks_change_places_only_with_tasks():
    orders = [testing.run(racing(), seed=seed) for seed in range(30)]
    assert len({tuple(order) for order in orders}) > 10
    for order in orders:
        assert [each for each in order if isinstance(each, int)] == [0, 1, 2]
        for name in "abc":
            assert [each for each in order if not isinstance(each, int) and each[0] == name] == [
                (name, step) for step in range(3)
            ]


def test_shuffle_also_disturbs_plain_callbacks():
    orders = {
        tuple(e for e in testing.run(racing(), seed=s, policy="shuffle") if isinstance(e, int)) for s in range(30)
    }
    assert len(orders) > 1


def test_a_seed_gives_the_same_run_again():
    assert testing.run(racing(), seed=11) == testing.run(racing(), seed=11)


@pytest.mark.parametrize("option", [{"policy": "lifo"}, {"tick": -1}, {"grid": -0.1}, {"tick": float("nan")}])
def test_a_bad_option_is_named(option):
    with pytest.raises(OptionError, match=next(iter(option))):
        testing.run(racing(), **option)


def test_a_deadlock_names_those_who_wait():
    async def stuck():
        await asyncio.Event().wait()

    async def main():
        task = asyncio.get_running_loop().create_task(stuck(), name="the stuck one")
        await task

    with pytest.raises(testing.DeadlockError, match=r"the stuck one: .*stuck"):
        testing.run(main())


def test_a_run_that_never_ends_is_ended():
    async def main():
        for _ in itertools.count():
            await asyncio.sleep(1)

    with pytest.raises(testing.RunawayError, match="1000 callbacks"):
        testing.run(main(), limit=1000)


def test_a_task_that_is_left_is_an_error():
    async def main():
        asyncio.get_running_loop().create_task(asyncio.sleep(10), name="forgotten")

    with pytest.raises(testing.LeftoverError, match="forgotten"):
        testing.run(main())


def test_a_task_that_ends_by_itself_is_not_left():
    async def main():
        asyncio.get_running_loop().create_task(asyncio.sleep(0))
        asyncio.get_running_loop().create_task(asyncio.sleep(10)).cancel()

    testing.run(main())


def test_what_a_callback_raises_is_raised():
    async def main():
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)

    with pytest.raises(testing.CallbackError, match="ZeroDivisionError") as caught:
        testing.run(main())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_exception_handler_of_the_program_comes_first():
    seen = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: seen.append(context["exception"]))
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)

    testing.run(main())
    assert isinstance(seen[0], ZeroDivisionError)


def test_the_error_of_main_comes_through_and_all_is_cleaned_up():
    ended = []

    async def other():
        try:
            await asyncio.sleep(100)
        finally:
            ended.append("other")

    async def main():
        task = asyncio.get_running_loop().create_task(other())
        await asyncio.sleep(1)
        assert not task.done()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        testing.run(main())
    gc.collect()
    assert ended == ["other"]


def test_executors_run_in_this_thread_at_a_later_time():
    async def main():
        loop = asyncio.get_running_loop()
        began = loop.time()
        threads = await asyncio.gather(*(asyncio.to_thread(threading.get_ident) for _ in range(3)))
        assert loop.time() > began
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 / 0)
        return threads

    assert set(testing.run(main())) == {threading.get_ident()}


def test_call_soon_threadsafe_works():
    async def main():
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        loop.call_soon_threadsafe(done.set)
        await done.wait()

    testing.run(main())


def test_async_generators_are_closed_at_the_end():
    closed: list[bool] = []
    kept: list[Any] = []

    async def numbers():
        try:
            for number in range(10):
                yield number
        finally:
            closed.append(True)

    async def main():
        generator = numbers()
        kept.append(generator)
        return await anext(generator)

    assert testing.run(main()) == 0
    assert closed == [True]


class Counter(Producer):
    def __init__(self, end):
        self.next, self.end = 0, end

    def handle_demand(self, demand):
        first, self.next = self.next, min(self.end, self.next + demand)
        if self.next == self.end:
            self.stage.finish()
        return list(range(first, self.next))


class Slow(Consumer):
    def __init__(self, seen):
        self.seen = seen

    async def handle_events(self, events, source):
        await asyncio.sleep(random.Random(events[0]).random() * 3600)
        self.seen.extend(events)


class Blocking(Consumer):
    def __init__(self, seen, threads):
        self.seen, self.threads = seen, threads

    def handle_events(self, events, source):
        self.threads.add(threading.get_ident())
        if 30 in events:
            raise ValueError("thirty")
        self.seen.extend(events)


async def pipeline(*children):
    async with System() as system:
        await system.start(Child(Counter, 50, name="counter"))
        refs = [await system.start(child) for child in children]
        await refs[-1].wait()


@pytest.mark.parametrize("seed", range(10))
def test_a_pipeline_of_slow_handlers_takes_no_time(seed):
    seen: list[int] = []
    testing.run(pipeline(Child(Slow, seen, subscribe_to=[To("counter", max_demand=7)])), seed=seed)
    assert seen == list(range(50))


def test_a_stage_in_a_thread_runs_in_this_one():
    seen: list[int] = []
    threads: set[int] = set()
    child = Child(Blocking, seen, threads, place="thread", subscribe_to=[To("counter", max_demand=5)])
    with pytest.raises(StageCrashed, match="thirty"):
        testing.run(pipeline(child))
    assert threads == {threading.get_ident()}
    assert seen[0] == 0
    assert 30 not in seen


def test_threads_are_real_again_afterwards():
    testing.run(asyncio.sleep(0))
    seen: list[int] = []
    threads: set[int] = set()
    with pytest.raises(StageCrashed, match="thirty"):
        asyncio.run(pipeline(Child(Blocking, seen, threads, place="thread", subscribe_to=["counter"])))
    assert threads
    assert threading.get_ident() not in threads


def test_a_plain_iterable_lingers_in_virtual_time():
    """What takes long on the virtual clock is sent in parts, as in real time."""
    batches = []

    def numbers():
        for number in range(10):
            loop = asyncio.get_running_loop()
            assert isinstance(loop, testing.VirtualLoop)
            loop.advance(0.015)
            yield number

    class Note(Consumer):
        def handle_events(self, events, source):
            batches.append(len(events))

    async def main():
        async with System() as system:
            await system.start(from_iterable(numbers(), name="numbers"))
            ref = await system.start(Child(Note, subscribe_to=["numbers"]))
            await ref.wait()

    testing.run(main(), tick=0)
    assert sum(batches) == 10
    assert len(batches) > 1


@pytest.mark.slow
def test_importing_the_test_kit_is_cheap():
    code = (
        "import sys, headgate.testing; heavy = ('testing.shell', 'testing.simulation', 'numpy');"
        "print([name for name in sys.modules if any(each in name for each in heavy)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_jobs_of_an_executor_with_one_thread_run_one_after_the_other():
    async def main():
        loop = asyncio.get_running_loop()
        done: list[int] = []
        with ThreadPoolExecutor(1) as executor:
            await asyncio.gather(*(loop.run_in_executor(executor, done.append, number) for number in range(9)))
        return done

    for seed in range(5):
        assert testing.run(main(), seed=seed) == list(range(9))
