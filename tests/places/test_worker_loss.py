# mypy: disable-error-code="var-annotated,union-attr"
"""Worker processes that are killed, that end by themselves, that are stuck; and what is left when all is over."""

import asyncio
import contextlib
import gc
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from headgate import (
    Child,
    CrossingError,
    NoStageError,
    Process,
    StageCrashed,
    Supervisor,
    WorkerLostError,
    from_iterable,
    stream,
)
from tests.places import abroad
from tests.places.helpers import Collect, Counter, Emitter, System, Times, To, child, run, shows, until
from tests.running.helpers import Program, poll

pytestmark = pytest.mark.slow
MANY = 200


def home(cls, *args, **options):
    """Return the recipe of a stage of this process."""
    return Child(cls, *args, **options)


def there(cls, *args, **options):
    """Return the recipe of a stage in a worker of its own."""
    return child("process", cls, *args, **options)


def alive(pid):
    """Say whether a process is there that is more than the rest of one."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


async def lost(ref, how="was killed by SIGKILL"):
    """Wait for a stage whose worker is lost, and return the error."""
    with pytest.raises(StageCrashed) as caught:
        await ref.wait()
    error = caught.value.__cause__
    assert isinstance(error, WorkerLostError), error
    assert error.how == how
    return error


def firsts(seen):
    """Return the events in the order in which they came first."""
    return list(dict.fromkeys(seen))


# -- kill -9 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source_is", ["home", "there"])
@pytest.mark.parametrize("most", [1, 10, 100])
def test_a_killed_consumer_hands_its_events_to_the_next_in_order(source_is, most):
    async def scenario():
        first, second, log = [], [], []
        async with System() as system:
            counter = await system.start((home if source_is == "home" else there)(Counter, MANY))
            to = To(counter, max_demand=most)
            sink = await system.start(there(abroad.Stuck, first, 150, log, subscribe_to=[to]))
            await until(lambda: log)
            os.kill(log[0], signal.SIGKILL)
            assert (await lost(sink)).pid == log[0]
            assert not alive(log[0])
            assert counter.alive
            await system.start(there(Collect, second, subscribe_to=[to]))
            await system.wait()
        assert first + second == list(range(MANY)), "none lost, none twice, in order"

    run(scenario)


def test_a_killed_middle_stage_loses_nothing():
    async def scenario():
        seen, log = [], []
        async with System() as system:
            counter = await system.start(home(Counter, MANY))
            to = To(counter, max_demand=10)
            weak = await system.start(there(abroad.StuckBetween, 150, log, subscribe_to=[to]))
            sink = await system.start(home(Collect, seen))
            await sink.subscribe(weak, cancel="temporary", max_demand=4)
            await until(lambda: log)
            os.kill(log[0], signal.SIGKILL)
            await lost(weak)
            assert sink.alive
            whole = await system.start(there(Times, subscribe_to=[to]))
            await sink.subscribe(whole, max_demand=4)
            await system.wait()
        assert firsts(seen) == list(range(MANY))
        assert len(seen) < MANY + 20, "what comes twice is what was under way"

    run(scenario)


def test_a_killed_producer_is_told_to_its_consumers_by_their_cancel_modes():
    async def scenario():
        logs, seen = [[], []], [[], []]
        async with System() as system:
            source = await system.start(there(abroad.Given, name="source", dispatcher="broadcast"))
            pid = await source.call("pid")
            sinks = []
            for recipe, one, log, mode in zip((home, there), seen, logs, ("temporary", "permanent"), strict=True):
                to = To(source, cancel=mode, max_demand=10)
                sinks.append(await system.start(recipe(Collect, one, None, (), log, subscribe_to=[to])))
            source.cast(list(range(10)))
            await until(lambda: all(len(each) == 10 for each in seen))
            asked = asyncio.ensure_future(source.call("pid"))
            os.kill(pid, signal.SIGKILL)
            error = await lost(source)
            with contextlib.suppress(NoStageError):
                assert await asked == pid, "it was answered before, or it says why not"
            with pytest.raises(StageCrashed) as caught:
                await sinks[1].wait()
            assert str(error) in str(caught.value)
            await until(lambda: any(each[:2] == ("cancel", "down") for each in logs[0]))
            assert sinks[0].alive
        assert seen == [list(range(10))] * 2

    run(scenario)


def test_two_workers_that_deal_with_each_other_and_the_one_is_killed():
    async def scenario():
        first, second, log = [], [], []
        async with System() as system:
            counter = await system.start(there(Counter, MANY))
            middle = await system.start(there(Times, subscribe_to=[To(counter, max_demand=10)]))
            sink = there(abroad.Stuck, first, 150, log, subscribe_to=[To(middle, max_demand=4)])
            sink = await system.start(sink)
            await until(lambda: log)
            os.kill(log[0], signal.SIGKILL)
            await lost(sink)
            await shows(middle, lambda read: not read.consumers)
            await system.start(there(Collect, second, subscribe_to=[To(middle, max_demand=4)]))
            await system.wait()
        assert first + second == list(range(MANY))

    run(scenario)


def test_under_a_supervisor_whoever_is_killed_comes_back_and_nothing_is_lost():
    async def scenario():
        seen, between, last = [], [], []
        recipe = Supervisor(
            [
                Child(Counter, 30_000, name="numbers"),
                there(abroad.Between, between, name="between", subscribe_to=[To("numbers", max_demand=20)]),
                there(abroad.Once, seen, (), last, name="last", subscribe_to=[To("between", max_demand=20)]),
            ],
            max_restarts=50,
        )
        async with System() as system:
            running = await system.start(recipe)
            for pids in (last, between, last, between):
                await until(lambda pids=pids: pids and alive(pids[-1]))
                count, events = len(pids), len(seen)
                await until(lambda events=events: len(seen) > events)
                os.kill(pids[-1], signal.SIGKILL)
                await until(lambda count=count, pids=pids: len(pids) > count)
            await until(lambda: len(seen) > 100)
            assert await running.wait() == "normal"
        assert set(seen) == set(range(30_000))
        assert len(seen) <= 30_000 + 4 * 2 * 40

    run(scenario)


def test_a_killed_producer_under_a_supervisor_begins_anew():
    async def scenario():
        seen, pids = [], []
        recipe = Supervisor(
            [
                there(abroad.Careful, 1000, pids, name="numbers"),
                Child(Collect, seen, name="sink", subscribe_to=[To("numbers", max_demand=4)]),
            ],
            strategy="rest_for_one",
        )
        async with System() as system:
            running = await system.start(recipe)
            await until(lambda: len(seen) > 5)
            os.kill(pids[0], signal.SIGKILL)
            assert await running.wait() == "normal"
        assert len(pids) <= 2
        again = seen.index(0, 1) if len(pids) == 2 else 0
        assert seen[:again] == list(range(again))
        assert seen[again:] == list(range(1000))

    run(scenario)


@pytest.mark.parametrize("most", [1, 10])
def test_an_event_that_kills_its_process_becomes_a_dead_letter_and_all_others_are_handled_once(most):
    async def scenario():
        seen, pids = [], []
        recipe = Supervisor(
            [
                Child(Counter, 60, name="numbers", max_deliveries=2),
                there(abroad.Once, seen, (31,), pids, name="sink", subscribe_to=[To("numbers", max_demand=most)]),
            ],
            max_restarts=50,
        )
        async with System() as system:
            running = await system.start(recipe)
            assert await running.wait() == "normal"
            [letter] = system.letters
            assert letter.event == 31
            assert letter.deliveries >= 2
            assert "exited with code 3" in letter.traceback
        assert sorted(seen) == [number for number in range(60) if number != 31]
        assert len(set(pids)) == len(pids) <= 8

    run(scenario)


# -- stuck -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "stop", "end of the system"])
def test_a_blocked_handler_is_killed_with_its_worker_and_its_events_go_back(how):
    async def scenario():
        seen, log = [], []
        async with System() as system:
            counter = await system.start(home(Counter, 30))
            stuck = await system.start(there(abroad.Stuck, [], 0, log, shutdown=0.05))
            subscribing = asyncio.ensure_future(stuck.subscribe(counter))
            await until(lambda: log)
            if how == "kill":
                stuck.kill("enough")
                with pytest.raises(StageCrashed, match="enough"):
                    await stuck.wait()
            elif how == "stop":
                assert await stuck.stop(timeout=0.01) == "killed"
                with pytest.raises(StageCrashed, match="killed"):
                    await stuck.wait()
            if how != "end of the system":
                await until(lambda: not alive(log[0]))
                sink = await system.start(there(Collect, seen, subscribe_to=[counter]))
                assert await sink.wait() == "normal"
                assert seen == list(range(30))
        assert not alive(log[0])
        with contextlib.suppress(NoStageError):
            await subscribing

    run(scenario)


def test_a_stage_is_started_when_it_has_subscribed_however_long_its_first_batch_takes():
    async def scenario():
        log = []
        async with System() as system:
            counter = await system.start(home(Counter, 30))
            async with asyncio.timeout(20):
                stuck = await system.start(there(abroad.Stuck, [], 0, log, subscribe_to=[counter]))
            await until(lambda: log)
            stuck.kill()
            with pytest.raises(StageCrashed, match="killed"):
                await stuck.wait()

    run(scenario)


def test_who_is_killed_and_not_stuck_leaves_its_neighbours_alone():
    async def scenario():
        async with System() as system:
            one, two = [await system.start(Child(abroad.Where, place=Process(group="one"))) for _ in range(2)]
            pid = await one.call("pid")
            one.kill()
            with pytest.raises(StageCrashed, match="killed"):
                await one.wait()
            assert await two.call("pid") == pid
            await asyncio.sleep(0.3)  # longer than a worker gets to carry out a kill
            assert await two.call("pid") == pid

    run(scenario)


# -- what is left ------------------------------------------------------------------------------------------------------


def descriptors():
    gc.collect()
    found = {}
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found[each.name] = str(each.readlink())
    return found


def shared_files():
    return set(Path("/dev/shm").iterdir()) if Path("/dev/shm").is_dir() else set()


def children():
    """Return the processes that are children of this one, dead ones included."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == os.getpid():
                found.add(int(entry.name))
    return found


def test_nothing_is_left_of_a_system_that_saw_everything():
    """No open descriptor, no shared file, no process: after kills, crashes, large events and refused starts."""

    async def scenario():
        log, seen = [], []
        async with System() as system:
            source = await system.start(home(Emitter))
            change = await system.start(there(abroad.InPlace, subscribe_to=[source]))
            other = await system.start(there(abroad.InPlace, subscribe_to=[change]))
            source.cast([np.zeros(500_000) for _ in range(5)])
            async for event in stream([other]):
                seen.append(event)
                if len(seen) == 5:
                    break
            assert [each[0] for each in seen] == [2] * 5
            del event
            seen.clear()  # what is caught below, and logged, has this frame and all that is in it
            counter = await system.start(from_iterable(range(50)))
            stuck = await system.start(there(abroad.Stuck, [], 30, log, subscribe_to=[To(counter, max_demand=10)]))
            await until(lambda: log)
            source.cast([np.zeros(500_000)])  # under way when all is over
            os.kill(log[0], signal.SIGKILL)
            await lost(stuck)
            with pytest.raises(CrossingError):
                await system.start(Child(abroad.Where, threading.Lock(), place=Process()))
            crash = await system.start(there(abroad.Raising))
            with pytest.raises(StageCrashed):
                await crash.call("awkward")
            with contextlib.suppress(StageCrashed):
                await crash.wait()
            [await system.start(Child(abroad.Where, place=Process(group="one"))) for _ in range(2)]

    run(scenario)  # the tests' own list server is there from now on
    files = shared_files()
    before = descriptors()
    mine = children()
    run(scenario)
    poll(lambda: len(descriptors()) <= len(before), what=f"{before} and no more, not {descriptors()}")
    assert shared_files() == files
    assert children() == mine


# -- ends from outside -------------------------------------------------------------------------------------------------

ORPHANS = """
import asyncio, os, time
from headgate import Child, Consumer, Process, System, from_iterable

class Busy(Consumer):
    def handle_events(self, events, source):
        print(f"pid {os.getpid()}\\n", end="")
        time.sleep(1000)

class Idle(Consumer):
    def started(self):
        print(f"pid {os.getpid()}\\n", end="")

    def handle_events(self, events, source):
        pass

async def main():
    async with System() as system:
        ticks = await system.start(from_iterable(range(10)))
        await system.start(Child(Idle, place=Process()))
        await system.start(Child(Busy, place=Process(), subscribe_to=[ticks]))
        await asyncio.Event().wait()

asyncio.run(main())
"""


def pids(text):
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith("pid ")]


def test_a_killed_parent_leaves_no_worker_behind(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(ORPHANS)
    with Program(str(path)) as program:
        poll(lambda: len(pids(program.out)) == 2, what="both")
        workers = pids(program.out)
        assert all(map(alive, workers))
        program.send(signal.SIGKILL)
        program.end()
        poll(lambda: not any(map(alive, workers)), what="the end of both")


INTERRUPTED = """
import os, time
import headgate
from headgate import Child, Consumer, Process, Producer, ProducerConsumer, Supervisor, To

class Numbers(Producer):
    def __init__(self):
        self.next = 0

    def started(self):
        print(f"pid {os.getpid()}\\n", end="")

    def handle_demand(self, demand):
        first, self.next = self.next, self.next + demand
        return list(range(first, self.next))

class Slow(ProducerConsumer):
    def started(self):
        print(f"pid {os.getpid()}\\n", end="")

    def handle_events(self, events, source):
        for event in events:
            print(f"began {event}\\n", end="")
            time.sleep(0.01)
        return list(events)

class Sink(Consumer):
    def handle_events(self, events, source):
        for event in events:
            print(f"handled {event}\\n", end="")

headgate.run(Supervisor([
    Child(Numbers, name="numbers", place=Process()),
    Child(Slow, name="slow", place=Process(), subscribe_to=[To("numbers", max_demand=10)]),
    Child(Sink, name="sink", subscribe_to=[To("slow", max_demand=10)]),
]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_finishes_what_was_begun_and_leaves_nobody(tmp_path, number):
    path = tmp_path / "program.py"
    path.write_text(INTERRUPTED)
    with Program(str(path), before=("setsid",)) as program:
        program.wait_for("handled 20")
        os.killpg(program.process.pid, number)
        assert program.end() == 0, program.err
        words = [line.split() for line in program.out.splitlines()]
        began, handled = ([int(each[1]) for each in words if each[0] == what] for what in ("began", "handled"))
        assert began == handled == list(range(len(began)))
        assert f"{number.name}: finishing what was begun" in program.err
        assert "Traceback" not in program.err
        assert len(pids(program.out)) == 2
        assert not any(map(alive, pids(program.out)))
