# mypy: disable-error-code="var-annotated,union-attr"
"""What is special about a stage in a worker process: what crosses, what cannot, and whose process it is."""

import json
import logging
import os
import socket
import threading
import traceback
import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headgate import (
    Child,
    CrossingError,
    HandlerError,
    NoStageError,
    OptionError,
    Process,
    StageCrashed,
    SubscriptionError,
    from_iterable,
    stream,
)
from tests.places import abroad
from tests.places.helpers import Collect, Emitter, System, To, calm, child, lend, run, shows, until
from tests.places.stages import Mute, Silent, Watcher
from tests.running.helpers import ended

pytestmark = pytest.mark.slow
place = "process"


def home(cls, *args, **options):
    """Return the recipe of a stage of this process."""
    return Child(cls, *args, **options)


def there(cls, *args, **options):
    """Return the recipe of a stage in a worker of its own."""
    return child(place, cls, *args, **options)


# -- code --------------------------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio
import dataclasses
import json
import os

from headgate import Child, Consumer, PartitionDispatcher, Process, Producer, ProducerConsumer, StageCrashed, System, To
from headgate import stream

print("this runs")
FACTOR = 3


@dataclasses.dataclass
class Order:
    number: int


class Trouble(Exception):
    pass


class Orders(Producer):
    def __init__(self, end):
        self.next, self.end = 0, end

    def handle_demand(self, demand):
        first, self.next = self.next, min(self.end, self.next + demand)
        if self.next == self.end:
            self.stage.finish()
        return [Order(number) for number in range(first, self.next)]


class Scale(ProducerConsumer):
    def __init__(self, *functions):
        self.functions = functions

    def handle_events(self, events, source):
        for order in events:
            assert isinstance(order, Order)
            for function in self.functions:
                order.number = function(order.number)
        return [(order, os.getpid()) for order in events]

    def handle_call(self, request):
        raise Trouble(request)


def scaled(number):
    return number * FACTOR


def adder(by):
    return lambda number: number + by


async def main():
    async with System() as system:
        hash = lambda order: order.number % 2
        orders = Child(Orders, 50, place=Process(), dispatcher=PartitionDispatcher(2, hash=hash), demand="accumulate")
        orders = await system.start(orders)
        scales = [
            await system.start(
                Child(Scale, scaled, adder(1), place=Process(), subscribe_to=[To(orders, partition=number)])
            )
            for number in range(2)
        ]
        orders.set_demand("forward")
        numbers, pids, kinds = [], set(), set()
        async for order, pid in stream(scales):
            numbers.append(order.number)
            pids.add(pid)
            kinds.add(type(order) is Order)
        failing = await system.start(Child(Scale, place=Process()))
        try:
            await failing.call("why")
        except StageCrashed as crash:
            trouble = type(crash.__cause__) is Trouble and crash.__cause__.args == ("why",)
        try:
            await failing.wait()
        except StageCrashed:
            pass
    print(json.dumps([sorted(numbers), len(pids - {os.getpid()}), list(kinds), trouble]))


asyncio.run(main())
"""


def test_a_program_takes_its_own_classes_and_functions_along_and_is_not_run_again(tmp_path):
    """It has no ``if __name__ == "__main__"``."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    code, out, err = ended(str(path))
    assert code == 0, err
    said, result = out.splitlines()
    assert said == "this runs"
    assert json.loads(result) == [[3 * number + 1 for number in range(50)], 2, [True], True]


WITHOUT_EXTRA = """
import asyncio, sys
sys.modules["cloudpickle"] = None
from headgate import Child, Consumer, OptionError, Process, System

class Idle(Consumer):
    def handle_events(self, events, source):
        pass

async def main():
    async with System() as system:
        try:
            await system.start(Child(Idle, place=Process()))
        except OptionError as error:
            print(error)

asyncio.run(main())
"""


def test_without_the_extra_a_place_in_a_process_says_what_to_install(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(WITHOUT_EXTRA)
    code, out, err = ended(str(path))
    assert code == 0, err
    assert "headgate[process]" in out


def things(path):
    with path.open("w") as file, socket.socket() as sock:
        yield "file", file
        yield "socket", sock
        yield "lock", threading.Lock()
        yield "generator", (number for number in range(3))


def test_an_argument_that_cannot_cross_is_named(tmp_path):
    async def scenario():
        async with System() as system:
            for name, thing in things(tmp_path / "file"):
                with pytest.raises(CrossingError, match=rf"Child\(Where\): argument 2 .*{name}"):
                    await system.start(Child(abroad.Where, 1, thing, name="where", place=Process()))
                with pytest.raises(CrossingError, match=r"Child\(Collect\): argument 'log' "):
                    await system.start(Child(Collect, log=[thing], place=Process()))
            with pytest.raises(CrossingError, match="there is no number 5 here"):
                await system.start(Child(abroad.Where, abroad.Unready(5), name="where", place=Process()))
            assert not system.stages()
            ref = await system.start(there(abroad.Where, name="where"))
            assert await ref.call("pid") != os.getpid()
            assert len(system.node.exchange.workers) == 1, "none was started in vain"

    run(scenario)


@pytest.mark.parametrize(
    ("option", "value"),
    [("group", ""), ("group", 5), ("max_bytes", 0), ("max_bytes", 1.5), ("max_bytes", True), ("budget", -1)],
)
def test_a_bad_option_is_named(option, value):
    with pytest.raises(OptionError, match=rf"Process: .*'{option}'"):
        Process(**{option: value})


# -- events ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source_is", ["home", "there"])
def test_events_that_cannot_cross_crash_the_stage_that_sends_them(source_is):
    async def scenario():
        near, far = (home, there) if source_is == "home" else (there, home)
        async with System() as system:
            for mode, lives in (("permanent", False), ("temporary", True)):
                source = await system.start(near(abroad.Locks, name="source"))
                sink = await system.start(far(Collect, subscribe_to=[To(source, cancel=mode)]))
                source.cast("go")
                with pytest.raises(StageCrashed, match="'source'") as caught:
                    await source.wait()
                wrong = caught.value.__cause__
                assert isinstance(wrong, HandlerError)
                assert "events that can go to another process" in str(wrong)
                assert "lock" in str(wrong)
                if not lives:
                    with pytest.raises(StageCrashed, match="events that can go"):
                        await sink.wait()
                await calm(sink)
                assert sink.alive is lives

    run(scenario)


def test_events_that_cannot_be_read_there_crash_their_consumer_and_go_to_the_next():
    async def scenario():
        seen = []
        async with System() as system:
            source = await system.start(home(Emitter, name="source"))
            sink = await system.start(there(Collect, name="sink", subscribe_to=[source]))
            source.cast([abroad.Unready(number) for number in range(3)])
            with pytest.raises(StageCrashed, match="'sink'") as caught:
                await sink.wait()
            assert isinstance(caught.value.__cause__, CrossingError)
            assert "LookupError: there is no number 0 here" in str(caught.value.__cause__)
            assert source.alive
            source.cast([abroad.Unready(3)])
            await system.start(home(Collect, seen, subscribe_to=[source]))
            await until(lambda: [each.number for each in seen] == [0, 1, 2, 3])

    run(scenario)


def test_an_event_that_can_be_read_nowhere_else_becomes_a_dead_letter():
    async def scenario():
        seen = []
        async with System() as system:
            source = await system.start(home(Emitter, max_deliveries=2))
            source.cast([*range(5), abroad.Unready(5), *range(6, 10)])
            while len(seen) < 9:
                sink = await system.start(there(Collect, seen, subscribe_to=[source]))
                await until(lambda sink=sink: len(seen) == 9 or not sink.alive)
                if not sink.alive:
                    with pytest.raises(StageCrashed, match="no number 5"):
                        await sink.wait()
            await until(lambda: system.letters)
            [letter] = system.letters
            assert letter.event.number == 5
            assert "no number 5" in letter.traceback
        assert sorted(seen) == [0, 1, 2, 3, 4, 6, 7, 8, 9]

    run(scenario)


def test_an_exception_comes_back_with_its_traceback_its_cause_and_its_notes():
    async def scenario():
        async with System() as system:
            for by in ("call", "events"):
                source = await system.start(home(Emitter))
                ref = await system.start(there(abroad.Raising, name=by, subscribe_to=[To(source, cancel="temporary")]))
                if by == "call":
                    with pytest.raises(StageCrashed) as caught:
                        await ref.call("awkward")
                else:
                    source.cast(["awkward"])
                with pytest.raises(StageCrashed) as caught:
                    await ref.wait()
                error = caught.value.__cause__
                assert type(error) is abroad.Awkward
                assert (error.code, error.__notes__) == (7, ["a note to it"])
                assert repr(error.__cause__) == "KeyError('the first')"
                text = "".join(traceback.format_exception(error))
                for line in ("in handle_", "in deep", "raise error from first", 'raise KeyError("the first")'):
                    assert line in text

    run(scenario)


def test_an_exception_that_cannot_cross_still_says_what_it_was():
    async def scenario():
        async with System() as system:
            ref = await system.start(there(abroad.Raising, name="raising"))
            with pytest.raises(StageCrashed, match="the lock is mine"):
                await ref.call("holding")
            with pytest.raises(StageCrashed, match=r"Holding: .*the lock is mine"):
                await ref.wait()

    run(scenario)


def test_logs_and_warnings_of_a_worker_are_those_of_its_parent(caplog):
    async def scenario():
        async with System() as system:
            ref = await system.start(there(abroad.Talking))
            assert await ref.call(("this", "and that")) != os.getpid()
            await until(lambda: len(caplog.records) == 3)
            first, second, third = caplog.records
            assert (first.name, first.levelno) == ("tests.talking", logging.WARNING)
            assert first.getMessage() == "number 5 of ('this', 'and that')"
            assert first.funcName == "handle_call"
            assert second.exc_text is None or "KeyError" in second.exc_text
            assert "KeyError: 'gone'" in caplog.text
            assert third.getMessage().startswith("from a thread: <unlocked _thread.lock")
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                ref.cast("careful")
                await until(lambda: caught)
            assert [(str(each.message), each.category) for each in caught] == [("careful", UserWarning)]
            assert caught[0].filename == abroad.__file__

    with caplog.at_level(logging.INFO):
        run(scenario)


def test_a_warning_that_is_an_error_here_harms_nobody():
    async def scenario():
        errors = []
        async with System(on_error=errors.append) as system:
            ref = await system.start(there(abroad.Talking))
            ref.cast("careful")
            assert await ref.call("next") != os.getpid()
            await until(lambda: errors)
            assert "careful" in str(errors[0])

    run(scenario)


SIZES = [10, 1000, 500_000]


@pytest.mark.parametrize("size", SIZES)
def test_arrays_cross_as_they_are_and_can_be_written_to(size):
    async def scenario():
        async with System() as system:
            source = await system.start(home(Emitter))
            change = await system.start(there(abroad.InPlace, subscribe_to=[source]))
            other = await system.start(there(abroad.InPlace, subscribe_to=[change]))
            events = [
                np.arange(size),
                np.arange(size, dtype="f4").reshape(2, -1).T,
                np.zeros(0),
                bytes(range(256)) * (size // 100),
                pa.RecordBatch.from_pydict({"a": list(range(size // 10)), "b": ["text"] * (size // 10)}),
                {"inside": [np.full(size, 3)]},
            ]
            source.cast(list(events))
            seen = []
            async for event in stream([other]):
                seen.append(event)
                if len(seen) == len(events):
                    break
            assert np.array_equal(seen[0], np.arange(size) + 2)
            assert np.array_equal(seen[1], events[1] + (2 if events[1] is not seen[1] else 0))
            assert seen[2].shape == (0,)
            assert seen[3] == events[3]
            assert seen[4].equals(events[4])
            assert np.array_equal(seen[5]["inside"][0], np.full(size, 3))
            for array in (seen[0], seen[1], seen[5]["inside"][0]):
                array[:] = 1
            assert np.array_equal(events[0], np.arange(size)), "what was sent is not what came back"

    run(scenario)


def test_a_batch_that_is_an_array_crosses_as_one():
    async def scenario():
        async with System() as system:
            numbers = np.arange(1_000_000, dtype="i8")
            source = await system.start(from_iterable(numbers))
            change = await system.start(there(abroad.InPlace, subscribe_to=[To(source, max_demand=400_000)]))
            batches = []
            sink = await system.start(
                home(abroad.Batches, batches, subscribe_to=[To(change, max_demand=400_000, min_demand=100_000)])
            )
            assert await sink.wait() == "normal"
            assert all(isinstance(each, np.ndarray) for each in batches)
            assert np.array_equal(np.concatenate(batches), numbers + 1)
            assert np.array_equal(numbers[:3], [0, 1, 2])
            table = pa.RecordBatch.from_pydict({"a": list(range(10_000))})
            source = await system.start(from_iterable(table))
            passed = await system.start(there(abroad.InPlace, subscribe_to=[To(source, max_demand=1000)]))
            batches = []
            sink = await system.start(home(abroad.Batches, batches, subscribe_to=[passed]))
            assert await sink.wait() == "normal"
            assert pa.Table.from_batches(batches).to_pydict() == table.to_pydict()

    run(scenario)


@pytest.mark.parametrize("source_is", ["home", "there"])
def test_no_message_weighs_more_than_max_bytes(source_is):
    async def scenario():
        place = Process(max_bytes=10_000)
        seen, batches = [], []
        near, far = (None, place) if source_is == "home" else (place, None)
        async with System() as system:
            source = await system.start(Child(abroad.Given, name="source", place=near))
            mine = [lend("process", each) for each in (seen, batches)] if far else [seen, batches]
            to = To(source, max_demand=200, min_demand=0, cancel="temporary")
            sink = await system.start(Child(Collect, *mine, subscribe_to=[to], place=far))
            events = [bytes([number]) * 1000 for number in range(100)]
            source.cast(events)
            await until(lambda: len(seen) == 100)
            assert seen == events
            assert 5 <= max(map(len, batches)) < 10
            source.cast([b"small", bytes(20_000)])
            with pytest.raises(StageCrashed, match=r"max_bytes=10000") as caught:
                await source.wait()
            assert "20" in str(caught.value)
            assert sink.alive

    run(scenario)


# -- whose process -----------------------------------------------------------------------------------------------------


def test_who_shares_a_worker_and_who_does_not():
    async def scenario():
        async with System() as system:
            one = [await system.start(Child(kind, place=Process(group="one"))) for kind in (abroad.Given, abroad.Where)]
            other = await system.start(Child(abroad.Where, place=Process(group="other")))
            alone = [await system.start(Child(abroad.Where, place=Process())) for _ in range(2)]
            pids = [await ref.call("pid") for ref in (*one, other, *alone)]
            assert pids[0] == pids[1]
            assert len(set(pids)) == 4
            assert os.getpid() not in pids
            assert len({os.getpgid(pid) for pid in pids}) == 4, "what a terminal sends does not reach them"
            await one[0].stop()
            third = await system.start(Child(abroad.Where, place=Process(group="one")))
            assert await third.call("pid") == pids[0]

    run(scenario)


def test_a_worker_whose_stages_have_ended_is_used_again():
    async def scenario():
        pids = set()
        async with System() as system:
            for number in range(10):
                ref = await system.start(Child(abroad.Where, number, place=Process()))
                pids.add(await ref.call("pid"))
                if number % 3 == 0:
                    ref.kill()
                    with pytest.raises(StageCrashed, match="killed"):
                        await ref.wait()
                else:
                    await ref.stop()
            assert len(pids) == 1
            ref = await system.start(Child(abroad.Where, place=Process(max_bytes=5000)))
            assert await ref.call("pid") not in pids, "one with other options"

    run(scenario)


@pytest.mark.parametrize("reason", ["normal", "oops"])
@pytest.mark.parametrize("group", ["one", "other"])
def test_how_a_stage_has_ended_is_known_although_its_worker_has_forgotten_it(reason, group):
    async def scenario():
        log: list[Any] = []
        place = Process(group="one")
        async with System() as system:
            forgetful = await system.start(Child(abroad.Forgetful, place=place))
            before = await system.start(Child(abroad.Where, place=place))
            await before.stop(reason)
            await forgetful.call("collect")
            there = Process(group=group)
            watcher = await system.start(Child(Watcher, (before,), lend("process", log), place=there))
            await until(lambda: log)
            assert log == [(0, reason)]
            assert watcher.alive

    run(scenario)


# -- in the stead of what is for the places of this process ------------------------------------------------------------


def test_hundreds_of_subscriptions_leave_nothing_behind_on_any_side():
    async def scenario():
        async with System() as system:
            source = await system.start(there(abroad.CountsOut))
            sink = await system.start(there(abroad.CountsIn))

            async def rounds(count):
                for _ in range(count):
                    sink.cancel(await sink.subscribe(source, mode="manual"))
                await shows(source, lambda read: read.consumers == ())
                await calm(source, sink)
                return [abroad.records(), await source.call("count"), await sink.call("count")]

            before = await rounds(20)
            after = await rounds(300)
            assert all(then <= now + 5 for now, then in zip(before, after, strict=True)), (before, after)

    run(scenario)


def test_events_may_come_from_other_threads_of_the_worker():
    async def scenario():
        seen, raised = [], []
        async with System() as system:
            source = await system.start(there(abroad.Fed, raised, buffer_size=3))
            source.cast([1, 2, 3, 4, 5])
            await until(lambda: len(raised) == 2)
            assert raised == [("BufferOverflowError", [4, 5]), ("HandlerError", None)]
            await system.start(there(Collect, seen, subscribe_to=[To(source, max_demand=1000)]))
            await until(lambda: seen == [1, 2, 3])
            await shows(source, lambda read: read.demand >= 500)
            await source.call(50)
            await until(lambda: len(seen) == 103)
        for first in (0, 1000):
            own = [each for each in seen[3:] if first <= each < first + 50]
            assert own == list(range(first, first + 50))

    run(scenario)


# -- from everywhere to everywhere -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("who", "whom"), [("home", "home"), ("home", "there"), ("there", "home"), ("there", "there")])
def test_every_request_works_from_everywhere(who, whom):
    async def scenario():
        heard, log, seen, told = [], [], [], []
        own, other = (there if each == "there" else home for each in (who, whom))
        async with System() as system:
            source = await system.start(other(Emitter, log, name="source"))
            sink = await system.start(other(Collect, seen, None, (), told, name="sink"))
            agent = await system.start(own(abroad.Agent, heard))

            async def do(ref, method, *args, **options):
                return await agent.call((ref, method, args, options))

            assert await do(sink, "call", "what is there?") == []
            subscription = await do(sink, "subscribe", source, max_demand=10, mode="manual", cancel="temporary")
            assert (subscription.producer, subscription.consumer) == (source, sink)
            await do(sink, "ask", subscription, 3)
            await do(source, "cast", [1, 2, 3])
            await until(lambda: seen == [1, 2, 3])
            await do(source, "info", "hello")
            await until(lambda: ("info", "hello") in log)

            await do(source, "set_demand", "accumulate")
            await do(sink, "ask", subscription, 2)
            await do(source, "cast", [4])
            await calm(source, sink)
            assert seen == [1, 2, 3]
            await do(source, "set_demand", "forward")
            await until(lambda: seen == [1, 2, 3, 4])

            await do(sink, "pause")
            await do(source, "cast", [5])
            await calm(source, sink)
            assert seen == [1, 2, 3, 4]
            await do(sink, "resume")
            await until(lambda: seen == [1, 2, 3, 4, 5])
            await shows(source, lambda read: read.handled == 5)
            numbers = await do(source, "statistics")
            assert (numbers.name, numbers.handled, numbers.demand) == ("source", 5, 0)

            await do(sink, "cancel", subscription, "enough")
            await until(lambda: ("cancel", "cancel", "enough") in log)
            await do(source, "monitor")
            await do(sink, "monitor")
            assert await do(source, "drain") == "shutdown"
            await until(lambda: heard == [("source", "shutdown")])
            assert await do(sink, "stop", "normal") == "normal"
            await until(lambda: heard == [("source", "shutdown"), ("sink", "normal")])
            assert isinstance(await do(sink, "call", "anybody?"), NoStageError)

    run(scenario)


def test_a_refusal_crosses_both_ways():
    async def scenario():
        async with System() as system:
            near, far = await system.start(home(Silent)), await system.start(there(Silent))
            source = await system.start(there(Mute))
            for one, two in ((near, far), (far, near), (far, far)):
                with pytest.raises(SubscriptionError, match="it is a consumer"):
                    await one.subscribe(two)
            with pytest.raises(SubscriptionError, match="a producer cannot subscribe"):
                await source.subscribe(near)
            assert near.alive
            assert far.alive

    run(scenario)
