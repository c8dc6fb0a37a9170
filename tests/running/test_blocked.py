# ruff: noqa: ASYNC251 (blocking the loop is what they do)
"""The watchdog names whoever blocks the event loop, and nobody else."""

import asyncio
import logging
import signal
import time

import pytest

from headgate import Child, Consumer, ConsumerSupervisor, Producer, System, To, from_iterable
from headgate.observe.blocked import Watchdog
from tests.running.helpers import app, poll_async

SECONDS = 0.1


class Blocks(Consumer):
    def handle_events(self, events, source):
        for event in events:
            time.sleep(event)  # the line that is to be named


class BlocksAsync(Consumer):
    async def handle_events(self, events, source):
        for event in events:
            for _ in range(3):  # the loop runs what is due
                await asyncio.sleep(0)
            time.sleep(event)  # the line in an async handler


class Spins(Producer):
    def handle_demand(self, demand):
        until = time.perf_counter() + 0.3
        while time.perf_counter() < until:
            pass
        self.stage.finish()
        return [1]


class Quiet(Consumer):
    def handle_events(self, events, source):
        pass


def line_of(text):
    with open(__file__, encoding="utf-8") as file:  # noqa: PTH123 (one line)
        return next(number for number, line in enumerate(file, 1) if text in line)


def watched(*recipes):
    """Run stages to their end; return what has blocked."""

    async def main():
        dog = Watchdog(asyncio.get_running_loop(), SECONDS)
        dog.start()
        async with System() as system:
            await system.start_all(recipes)
            await system.wait()
        dog.stop()
        return dog.blocks

    return asyncio.run(main())


def pair(consumer, events, **options):
    terms = To("source", max_demand=2, min_demand=1)
    return [from_iterable(events, name="source"), Child(consumer, name="slow", subscribe_to=[terms], **options)]


@pytest.mark.slow
def test_every_long_block_is_named_with_its_stage_and_line(caplog):
    times = [0.2, 0.6, 0.3, 0.4]
    (block,) = watched(*pair(BlocksAsync, times))
    assert block.count == len(times)
    assert (block.where.stage, block.where.function) == ("slow", "handle_events")
    assert block.where.line == line_of("the line in an async handler")
    assert sum(times) * 0.8 < block.seconds
    first, again = caplog.messages
    assert "by handle_events of stage 'slow' (" in first
    assert "time.sleep(event)" in first
    assert "the event loop was blocked 4 times by handle_events of stage 'slow'" in again


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.2 + 0.02 * number for number in range(20)])
def test_each_of_20_blocks_is_noticed(seconds):
    (block,) = watched(*pair(Blocks, [seconds]))
    assert (block.count, block.where.stage, block.where.line) == (1, "slow", line_of("the line that is to be named"))


@pytest.mark.slow
def test_a_source_that_computes_for_long_is_named():
    (block,) = watched(Child(Spins, name="spins"), Child(Quiet, subscribe_to=["spins"]))
    assert (block.where.stage, block.where.function) == ("spins", "handle_demand")


@pytest.mark.slow
def test_children_of_a_consumer_supervisor_and_iterables_are_named():
    async def child(event):
        time.sleep(0.3)

    def numbers():
        time.sleep(0.3)
        yield 1

    blocks = watched(
        from_iterable(numbers(), name="numbers"), ConsumerSupervisor(child, name="children", subscribe_to=["numbers"])
    )
    assert [(each.where.stage, each.where.function) for each in blocks] == [
        ("numbers", "numbers"),
        ("children", "child"),
    ]


def test_a_thread_that_blocks_is_no_block():
    assert watched(*pair(Blocks, [0.2], place="thread")) == []


@pytest.mark.slow
def test_no_alarm_while_idle_or_busy_with_short_handlers():
    async def main():
        loop = asyncio.get_running_loop()
        dog = Watchdog(loop, SECONDS)
        dog.start()
        await asyncio.sleep(0.5)  # idle: that is what is tested
        until = loop.time() + 0.5
        while loop.time() < until:
            time.sleep(0.002)
            await asyncio.sleep(0)
        dog.stop()
        return dog.blocks

    assert asyncio.run(main()) == []


@pytest.mark.slow
def test_no_alarm_after_the_process_was_suspended():
    with app("late", "--watch-blocked", "0.1") as program:
        program.wait_for("began 0")
        program.send(signal.SIGSTOP)
        time.sleep(0.6)  # suspended: that is what is tested
        program.send(signal.SIGCONT)
        program.send(signal.SIGUSR1)
        program.wait_for("> eater")
        assert "blocked" not in program.err


def test_a_frozen_clock_of_its_own_does_not_count(monkeypatch):
    """As above, without a process: the thread's own sleep was too long, and nothing was computed meanwhile."""
    loop = asyncio.new_event_loop()
    dog = Watchdog(loop, SECONDS)
    loop.close()
    times = iter([0.0, 5.0, 5.0 + SECONDS / 4])
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    monkeypatch.setattr("time.process_time", lambda: 0.0)
    rounds = iter([False, True])
    monkeypatch.setattr(dog._over, "wait", lambda timeout: next(rounds))
    dog._watch()
    monkeypatch.undo()
    assert dog.blocks == []


@pytest.mark.slow
def test_a_block_is_logged_while_it_lasts(caplog):
    """Not afterwards: a handler that never returns is named too."""
    caplog.set_level(logging.WARNING)
    seen: list[str] = []

    class Looks(Consumer):
        def handle_events(self, events, source):
            deadline = time.monotonic() + 10
            while not seen and time.monotonic() < deadline:
                seen.extend(message for message in caplog.messages if "stage 'slow'" in message)
                time.sleep(0.01)

    watched(*pair(Looks, [1]))
    assert seen


def test_what_blocks_outside_of_stages_is_named_by_its_function():
    async def main():
        dog = Watchdog(asyncio.get_running_loop(), 0.05)
        dog.start()

        async def hog():
            until = time.monotonic() + 10
            while not dog.blocks and time.monotonic() < until:
                time.sleep(0.005)

        await asyncio.create_task(hog())
        await poll_async(lambda: dog.blocks)
        dog.stop()
        return dog.blocks

    (block,) = asyncio.run(main())
    assert (block.where.stage, block.where.function) == (None, "hog")
