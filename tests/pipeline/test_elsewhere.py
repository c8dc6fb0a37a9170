# mypy: disable-error-code="var-annotated"
"""Handlers in worker processes: what they say counts as everywhere, and a worker that dies costs nothing but a try.

In real time, as there are no processes in virtual time. Payloads that can be called are called over there.
"""

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from headgate import (
    Batcher,
    CrossingError,
    HandlerError,
    HandlerTimeoutError,
    Message,
    OptionError,
    Pipeline,
    Process,
    Processors,
    Reject,
    RestartLimitError,
    RetryPolicy,
    Skip,
    System,
    WorkerLostError,
    cores,
    merge,
)
from headgate.connectors.memory import MemoryQueue
from headgate.observe.graph import Graph
from headgate.testing import StubSource
from tests.pipeline.elsewhere import (
    AsyncBatches,
    AsyncElsewhere,
    Batches,
    Elsewhere,
    Odd,
    Other,
    Rich,
    Steps,
    Unreadable,
    Unready,
    again,
    awaits,
    bad,
    changing,
    closure,
    configured,
    deep,
    dying,
    exited,
    hide,
    killed,
    killer,
    plain_function,
    quits,
    raises,
    sleeps,
    slow,
    unread,
)
from tests.pipeline.helpers import balanced, fails
from tests.pipeline.test_handlers import FINE, WRONG
from tests.places.storm import processes

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def really(test):
    """Run an async test in real time; it leaves no process behind."""

    async def main(*args, **options):
        async with asyncio.timeout(60):
            await test(*args, **options)

    @functools.wraps(test)
    def wrapped(*args, **options):
        before = processes()
        asyncio.run(main(*args, **options))
        assert processes() == before

    return wrapped


@contextlib.asynccontextmanager
async def running(pipeline, *, errors=None, letters=None):
    """Run a pipeline as `tests.pipeline.helpers.running` does, and see that its workers have nothing left to do."""
    reported = [] if errors is None else errors
    buried = [] if letters is None else letters
    async with System(seed=7, on_error=reported.append, on_dead_letter=buried.append) as system:
        started = await system.start(pipeline)
        started.workers = system.node.exchange.workers
        yield started
        await started.stop()
        while any(worker.stages for worker in started.workers.values()):
            await asyncio.sleep(0.005)
        assert system.stages() == []
    balanced(started)
    if errors is None:
        assert list(map(str, reported)) == []
    if letters is None:
        assert list(map(str, buried)) == []


def kept(queue):
    """Return how many messages a queue has, handed out or not."""
    return queue.statistics()["waiting"] + queue.statistics()["under_way"]


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)


BOTH = {"default": Batcher(size=4, timeout=0.02, place=Process())}
kinds = pytest.mark.parametrize("kind", [Elsewhere, AsyncElsewhere])


# -- what handlers say -------------------------------------------------------------------------------------------------


@kinds
@really
async def test_a_handler_runs_in_a_worker_and_everything_else_does_not(kind):
    class Where(kind):  # type: ignore[misc,valid-type]  # one of two classes
        def prepare_messages(self, messages):
            for message in messages:
                message.metadata["prepared"] = os.getpid()

        def handle_failed(self, messages):
            for message in messages:
                message.metadata["failed"] = os.getpid()

    async with running(Where(batchers=BOTH)) as started:
        first, second = await started.test_batch([1, fails()])
    assert first.outcome == "acknowledged"
    assert first.metadata["prepared"] == second.metadata["failed"] == os.getpid()
    assert len({os.getpid(), first.metadata["pid"], first.metadata["batch"]}) == 3
    assert first.metadata["pid"] == second.metadata["pid"]
    assert second.outcome == "failed"


@kinds
@really
async def test_wrong_returns_fail_as_everywhere(kind):
    async with running(kind(batchers=BOTH)) as started:
        for what, answer in WRONG.items():
            first, message, last = await started.test_batch([1, answer, 2], flush=True)
            assert first.outcome == last.outcome == "acknowledged"
            assert message.outcome == "failed", what
            assert isinstance(message.reason, HandlerError), (what, message.reason)
            assert message.reason.callback == "handle_message"
            assert message.reason.stage == "default-1" or message.reason.stage.endswith(".default-1")
            if what != "a part of a split":
                assert message.reason.expected.startswith("the message, None for it, or a list"), what


HERE = ("itself", "None", "a list of itself", "nothing", "a tuple")
PARENT = {
    **{name: answer for name, (answer, _) in FINE.items() if name not in HERE},
    "a merged one": lambda message: merge([message], 1),
    "deferred": lambda message: message.defer(),
    "acknowledged at once": lambda message: message.ack_immediately(),
}


@kinds
@really
async def test_what_needs_the_pipeline_says_so(kind):
    async with running(kind(batchers=BOTH)) as started:
        for name in HERE:
            message = await started.test_message(FINE[name][0])
            assert message.outcome == "acknowledged", name
            assert ("batch" in message.metadata) == (name != "nothing")
        for name, answer in PARENT.items():
            message = await started.test_message(answer)
            assert isinstance(message.reason, HandlerError), (name, message.reason)
            assert "needs the pipeline, which is in another process" in str(message.reason)
            assert (message.outcome, message.reason.callback) == ("failed", "handle_message")
        assert started.statistics().replaced == 0


@really
async def test_what_a_handler_changes_is_changed_here():
    seen = []
    source = StubSource()
    batchers = {"default": Batcher(), "other": Batcher(lambda messages, info: seen.append((messages, info)))}
    async with running(Elsewhere(source=source, batchers=batchers)) as started:
        payload = bytearray(b"as it was")
        started.push([Message(payload, {"given": [1]}, "k", deliveries=1), Message(changing, {"given": [2]}, "k")])
        await until(lambda: seen)
        [([message], info)] = seen
        assert (info.key, info.trigger, info.batcher) == ("key", "flush", "other")
        assert message.data == {"list": [1, 2]}
        assert message.metadata["more"] == {"a": 1}
        assert message.metadata["given"] == [2]
        assert (message.deadline, message.key) == (4e9, "another")

        def tells(message):
            message.data = (message.key, message.deliveries, message.attempts, message.receipt, message.metadata["m"])

        told = await started.test_message(tells, metadata={"m": 1}, key="k")
        assert told.data == ("k", 1, 0, None, 1)


@kinds
@really
async def test_signals(kind):
    tries = RetryPolicy(attempts=3, first=0.001, most=0.001)
    processors = Processors(concurrency=1, place=Process(), retry={ConnectionError: tries})
    source = StubSource(fails(Skip()), fails(Reject("no good")), fails(), configured)
    async with running(kind(source=source, processors=processors, on_failure="discard")) as started:
        await until(lambda: source.acked and len(source.discarded) == 2 and source.lettered)
        assert len(source.acked) == 1
        assert [type(reason) for _, reason in source.lettered] == [ValueError]
        message = await started.test_message(fails(Reject("no good")))
        assert isinstance(message.reason, Reject)
        assert message.reason.reason == "no good"
        message = await started.test_message(fails(ConnectionError("away")))
        assert (message.attempts, str(message.reason)) == (3, "away")
        message = await started.test_message(lambda message: message.attempts < 2 and again())
        assert message.reason is None or isinstance(message.reason, HandlerError)
        assert message.attempts >= 2
        message = await started.test_message(lambda message: message.fail({"why": 1}))
        assert (message.outcome, message.reason) == ("failed", {"why": 1})


@really
async def test_a_wrong_option_of_an_acknowledgement_fails_the_message():
    async with running(Elsewhere()) as started:
        message = await started.test_message(lambda message: message.configure_ack(on_failure="explode"))
    assert isinstance(message.reason, OptionError)


@really
async def test_an_exception_comes_with_its_traceback_and_cause():
    async with running(Elsewhere()) as started:
        message = await started.test_message(deep)
        assert isinstance(message.reason, Odd)
        assert message.reason.number == 1
        assert isinstance(message.reason.__cause__, KeyError)
        assert "deeper" in message.traceback
        message = await started.test_message(lambda _: raises(ValueError(threading.Lock())))
        assert isinstance(message.reason, ValueError)  # what cannot cross of it comes as text
        assert "<unlocked _thread.lock" in str(message.reason)
        message = await started.test_message(lambda _: raises(Reject(threading.Lock())))
        assert isinstance(message.reason, Reject)
        message = await started.test_message(lambda _: raises(asyncio.CancelledError("its own")))
        assert isinstance(message.reason, asyncio.CancelledError)
        assert (await started.test_message(1)).ok


# -- which handlers, and what goes along -------------------------------------------------------------------------------


HANDLERS = {
    "a function": plain_function,
    "a lambda": lambda message: message.put_data(("lambda", os.getpid())),
    "a closure": closure({"a": [1]}),
    "a method of something else": Other(3).handle,
    "an object": Other(3),
    "a partial": functools.partial(lambda number, message: message.put_data((number, os.getpid())), 5),
}


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS.keys())
@really
async def test_handlers_of_all_kinds(handler):
    async with running(Pipeline(processors=Processors(handler, concurrency=1, place=Process()))) as started:
        message = await started.test_message(1)
    assert message.outcome == "acknowledged"
    assert isinstance(message.data, tuple)
    assert message.data[1] != os.getpid()


@really
async def test_the_users_own_attributes_go_along_and_ours_do_not():
    pipeline = Rich({"x": 1}, context={"c": 2}, name="rich")
    async with running(pipeline) as started:
        message = await started.test_message(1)
        assert message.data == ({"x": 1}, [1, 2], {"a": 1}, {"c": 2}, "rich", True, True)
        for use in (
            lambda self: self.sources[0],
            lambda self: self.current.push([]),
            lambda self: self.source.put(1),
            lambda self: self.dead_letters(1),
        ):
            message = await started.test_message(use)
            assert isinstance(message.reason, CrossingError), message.reason
            assert "of the pipeline stays in the process that runs it" in str(message.reason)
    assert not hasattr(pipeline, "pid")
    assert not hasattr(pipeline, "connection")


def locked(pipeline):
    pipeline.lock = threading.Lock()
    return pipeline


def over_a_lock() -> Any:
    lock = threading.Lock()

    def handler(message):
        with lock:
            pass

    return Elsewhere(processors=Processors(handler, concurrency=1, place=Process()))


def with_a_class_attribute():
    class Own(Elsewhere):
        shared = threading.Lock()

        def handle_message(self, message):
            pass

    return Own()


CANNOT = {
    "its attribute 'lock'": lambda: locked(Elsewhere()),
    "its attribute 'context'": lambda: Elsewhere(context=threading.Lock()),
    "'lock', which its handler uses,": over_a_lock,
    "'shared' of its class Own": with_a_class_attribute,
}


@pytest.mark.parametrize("culprit", CANNOT)
@really
async def test_what_cannot_cross_is_named_before_anything_runs(culprit):
    pipeline = CANNOT[culprit]()
    source = pipeline.sources[0] = StubSource(1)
    async with System() as system:
        with pytest.raises(CrossingError) as caught:
            await system.start(pipeline)
        where = f"Pipeline({type(pipeline).__name__}), processors['default']"
        assert str(caught.value).startswith(f"{where}: {culprit} cannot go to another process: ")
        assert "make them in `worker_started`" in str(caught.value)
        assert system.node.exchange.workers == {}
    assert source.life == []


@really
async def test_what_a_batch_handler_needs_is_looked_at_as_well():
    pipeline = Elsewhere(processors=Processors(concurrency=1), batchers=BOTH, context=threading.Lock())
    async with System() as system:
        with pytest.raises(CrossingError, match=r"batchers\['default'\]: its attribute 'context' cannot go"):
            await system.start(pipeline)


@really
async def test_a_worker_that_cannot_be_prepared_ends_the_pipeline_and_fails_no_message():
    queue = MemoryQueue([1, 2])
    for processors, batchers in ((Elsewhere.processors, None), (Processors(concurrency=1), BOTH)):
        async with System() as system:
            started = await system.start(
                Unready(source=queue, processors=processors, batchers=batchers, max_restarts=0)
            )
            with pytest.raises(RestartLimitError) as caught:
                await started.wait()
        assert "the model is not there" in " / ".join(map(str, _causes(caught.value)))
        assert queue.dead_letters == []
        assert kept(queue) == 2


def _causes(error):
    while error is not None:
        yield error
        error = error.__cause__


@really
async def test_payloads_that_cannot_cross_fail_alone():
    async with running(Elsewhere(batchers=BOTH)) as started:
        cases = {
            threading.Lock(): "message.data cannot go to another process: <unlocked",
            Unreadable(): "cannot be read in a worker: RuntimeError: not here",
            hide: "message.data cannot come back from a worker: <",
            unread: "made in a worker cannot be read here: RuntimeError: not here",
        }
        for payload, text in cases.items():
            message, other = await started.test_batch([payload, 1])
            assert isinstance(message.reason, CrossingError), message.reason
            assert text in str(message.reason)
            assert other.outcome == "acknowledged"
        # of a batch, only the one that cannot cross fails
        inline = Elsewhere(processors=Processors(lambda _: None, concurrency=1), batchers=BOTH)
    async with running(inline) as started:
        messages = await started.test_batch([1, threading.Lock(), 2, 3])
        assert [each.outcome for each in messages] == ["acknowledged", "failed", "acknowledged", "acknowledged"]
        assert isinstance(messages[1].reason, CrossingError)


PROGRAM = """
    import os
    import headgate
    from headgate import Batcher, Pipeline, Process, Processors
    from headgate.connectors.memory import MemoryQueue

    class Item:
        def __init__(self, number):
            self.number = number

    class Base(Pipeline):
        def handle_message(self, message):
            assert isinstance(message.data, Item)
            return message.put_data(Item(message.data.number * FACTOR))

    FACTOR = 3
    queue = MemoryQueue([Item(number) for number in range(20)])
    queue.close_input()

    class Program(Base):
        source = queue
        processors = Processors(concurrency=2, place=Process())
        batchers = Batcher(size=7, place=Process())
        rate_limit = headgate.RateLimiter(1e6)

        def handle_message(self, message):
            message.metadata["here"] = os.getpid() == PARENT
            return super().handle_message(message)

        def handle_batch(self, messages, batch):
            assert all(isinstance(message.data, Item) for message in messages)
            assert not any(message.metadata["here"] for message in messages)
            print(sum(message.data.number for message in messages), flush=True)

    PARENT = os.getpid()

    if __name__ == "__main__":
        headgate.run(Program(), watch_blocked=None)
"""


@pytest.mark.parametrize("how", ["file", "stdin"])
def test_a_program_of_one_file(how, tmp_path):
    """Its classes are those of ``__main__``, and its source stands on the class."""
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PROGRAM), encoding="utf-8")
    command = [sys.executable, "-W", "error", str(path)] if how == "file" else [sys.executable, "-W", "error", "-"]
    text = None if how == "file" else path.read_text(encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, input=text, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert sum(map(int, done.stdout.split())) == 3 * sum(range(20))


# -- deaths ------------------------------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("how", [killed, exited, quits], ids=["kill -9", "os._exit", "sys.exit"])
@really
async def test_a_message_whose_worker_dies_is_handled_again_by_another(kind, how, tmp_path):
    async with running(kind(processors=Processors(concurrency=2, place=Process()))) as started:
        payloads = [1, 2, dying(tmp_path / "deaths", 2, how), 3, 4]
        messages = await started.test_batch(payloads)
        assert [each.outcome for each in messages] == ["acknowledged"] * 5
        assert messages[2].data == 3
        assert [each.attempts for each in messages] == [0] * 5
        assert started.statistics().replaced == 2


@kinds
@really
async def test_the_third_death_is_the_last(kind):
    """It is a dead letter at once: handed out again it would only kill more."""
    queue = MemoryQueue([1, killer, 2])
    retry = RetryPolicy(attempts=5, first=0.001)
    processors = Processors(concurrency=1, place=Process(), retry=retry)
    async with running(kind(source=queue, processors=processors)) as started:
        await until(lambda: queue.dead_letters and started.statistics().outcomes["acknowledged"] == 2)
        [letter] = queue.dead_letters
        assert isinstance(letter.reason, WorkerLostError)
        assert letter.reason.how == "was killed by SIGKILL"
        assert letter.deliveries == 1
        assert started.statistics().replaced == 3
    assert kept(queue) == 0


@really
async def test_a_worker_that_is_killed_while_it_has_nothing_to_do_is_replaced_when_there_is():
    async with running(Elsewhere()) as started:
        before = (await started.test_message(1)).metadata["pid"]
        os.kill(before, signal.SIGKILL)
        messages = await started.test_batch([1, 2])
        assert [each.outcome for each in messages] == ["acknowledged"] * 2
        assert before not in {each.metadata["pid"] for each in messages}


@really
async def test_a_worker_that_dies_while_it_starts_is_started_again(tmp_path):
    class Rough(Elsewhere):
        def __init__(self, path):
            super().__init__()
            self.path = path

        def worker_started(self):
            with open(self.path, "a", encoding="utf-8") as file:  # noqa: PTH123 (it crosses)
                file.write("x")
                file.flush()
                if os.path.getsize(self.path) <= 2:  # noqa: PTH202
                    os._exit(1)

    async with running(Rough(str(tmp_path / "starts"))) as started:
        assert (await started.test_message(1)).outcome == "acknowledged"
        assert started.statistics().replaced == 2


@really
async def test_order_by_key_outlives_workers(tmp_path):
    seen = []
    handled = lambda messages, _: seen.extend(each.metadata["n"] for each in messages)
    processors = Processors(concurrency=2, place=Process())
    async with running(
        Elsewhere(processors=processors, partition_by="key", batchers={"default": Batcher(handled, size=1)})
    ) as started:
        messages: list[Any] = [Message(1, {"n": n}, key="k") for n in range(10)]
        messages[3].data = dying(tmp_path / "deaths", 2, killed)
        started.push(messages)
        await until(lambda: len(seen) == 10)
    assert seen == list(range(10))


# -- limits of time ----------------------------------------------------------------------------------------------------


@kinds
@really
async def test_a_handler_that_takes_too_long_is_killed(kind):
    payload = sleeps if kind is Elsewhere else lambda _: awaits()
    processors = Processors(concurrency=1, place=Process(), timeout=0.2)
    async with running(kind(processors=processors)) as started:
        before = (await started.test_message(1)).metadata["pid"]
        messages = await started.test_batch([2, payload, 3])
        assert [each.outcome for each in messages] == ["acknowledged", "failed", "acknowledged"]
        reason = messages[1].reason
        assert isinstance(reason, HandlerTimeoutError)
        assert (reason.callback, reason.seconds) == ("handle_message", 0.2)
        assert started.statistics().replaced == 1
        if kind is Elsewhere:  # nothing else would have ended it
            assert messages[2].metadata["pid"] != before
            await until(lambda: before not in processes())


@really
async def test_a_deadline_ends_a_handler():
    async with running(Elsewhere()) as started:
        await started.test_message(1)
        message = Message(sleeps)
        message.deadline = time.time() + 0.3
        started.push([message])
        await until(lambda: message.outcome)
        assert isinstance(message.reason, HandlerTimeoutError)


# -- batches -----------------------------------------------------------------------------------------------------------


def _batched(**options):
    return {"default": Batcher(size=4, timeout=0.05, place=Process(), **options)}


batch_kinds = pytest.mark.parametrize("kind", [Batches, AsyncBatches])


@batch_kinds
@really
async def test_batches(kind):
    errors = []
    async with running(kind(batchers=_batched()), errors=errors) as started:
        messages = await started.test_batch([1, 2, 3, 4])
        assert {each.metadata["batch"][1:] for each in messages} == {(4, "size")}
        assert os.getpid() not in {each.metadata["batch"][0] for each in messages}
        assert {each.outcome for each in messages} == {"acknowledged"}
        cases = {
            (lambda messages: messages[:1]): ["acknowledged", "failed"],
            (lambda messages: messages[1].fail("no") and None): ["acknowledged", "failed"],
            (lambda messages: 5): ["failed", "failed"],
            (lambda messages: [messages]): ["failed", "failed"],
            bad: ["failed", "acknowledged"],  # found by halves
            (lambda messages: raises(Skip())): ["acknowledged", "acknowledged"],
            (lambda messages: raises(Reject("no"))): ["failed", "failed"],
            (lambda messages: [merge(messages, 1)]): ["failed", "acknowledged"],
        }
        for payload, outcomes in cases.items():
            messages = await started.test_batch([payload, 1])
            assert [each.outcome for each in messages] == outcomes, messages[0].reason
        assert isinstance(messages[0].reason, HandlerError)
        assert "needs the pipeline" in str(messages[0].reason)
    assert [type(each) for each in errors] == [HandlerError] * 3


@batch_kinds
@really
async def test_the_message_of_a_batch_that_kills_its_worker_is_found(kind):
    batchers = _batched(retry=RetryPolicy(attempts=3, first=0.001))
    source = StubSource(1, 2, lambda _: killed(), 4)
    async with running(kind(source=source, batchers=batchers)) as started:
        await until(lambda: len(source.acked) == 3 and source.lettered)
        assert source.acked == [1, 2, 4]
        assert [type(reason) for _, reason in source.lettered] == [WorkerLostError]
        assert started.statistics().replaced == 9  # three deaths each: of four, of two, of one


@really
async def test_a_batch_that_takes_too_long():
    batchers = _batched(run_timeout=0.2, isolate=False)
    async with running(Batches(batchers=batchers)) as started:
        messages = await started.test_batch([1, sleeps])
        assert [type(each.reason) for each in messages] == [HandlerTimeoutError] * 2
        assert [each.outcome for each in await started.test_batch([1, 2])] == ["acknowledged"] * 2


# -- several, and ends -------------------------------------------------------------------------------------------------


@really
async def test_steps_here_and_there():
    """What needs the pipeline, such as a split, is a step between those that compute."""
    pipeline = Steps()
    async with running(pipeline) as started:
        messages = await started.test_batch([3, 2, 4])
        assert [each.outcome for each in messages] == ["acknowledged"] * 3
    assert sorted(pipeline.stored) == sorted((n * 10, True) for count in (3, 2, 4) for n in range(count))


@really
async def test_a_drain_finishes_what_was_begun():
    queue = MemoryQueue([slow] * 10)
    async with running(Elsewhere(source=queue, processors=Processors(concurrency=2, place=Process()))) as started:
        await until(lambda: started.statistics().outcomes["acknowledged"] >= 1)
        await started.stop()
        numbers = started.statistics()
        assert numbers.outcomes["acknowledged"] >= 2
        assert kept(queue) == 10 - numbers.outcomes["acknowledged"]
        assert numbers.outcomes["failed"] == numbers.outcomes["dead_lettered"] == 0


@pytest.mark.parametrize("what", ["stop", "cancel", "kill"])
@really
async def test_a_handler_that_goes_on_for_ever_is_ended_with_its_stage(what, tmp_path):
    """And the message is not acknowledged."""
    queue = MemoryQueue([dying(tmp_path / "begun", 1, lambda: time.sleep(60))])
    begun = (tmp_path / "begun").exists
    if what == "cancel":

        async def program():
            async with Elsewhere(source=queue, shutdown=0.1):
                await asyncio.sleep(60)

        task = asyncio.create_task(program())
        await until(begun)
        task.cancel()
        await asyncio.wait([task])
        assert kept(queue) == 1
        return
    async with running(Elsewhere(source=queue, shutdown=0.1)) as started:
        await until(begun)
        if what == "kill":
            started.child("processors.default-1").kill()
            await until(lambda: started.statistics().outcomes["acknowledged"] == 1)
        else:
            await started.stop()
            assert kept(queue) == 1


@really
async def test_resizing():
    async with running(Elsewhere()) as started:
        assert (await started.test_message(1)).ok
        await started.resize("default", 3)
        messages = await started.test_batch([lambda message: time.sleep(0.05)] * 12)
        assert len({each.metadata["pid"] for each in messages}) == 3
        await started.resize("default", 1)
        await until(lambda: sum(len(worker.stages) for worker in started.workers.values()) == 1)
        messages = await started.test_batch([1] * 5)
        assert len({each.metadata["pid"] for each in messages}) == 1


# -- options, and how it looks -----------------------------------------------------------------------------------------


def test_options():
    assert Processors(place=Process()).concurrency == cores()
    wrong: Any
    for kind, wrong in ((Processors, "process"), (Batcher, 5), (Processors, Process)):
        with pytest.raises(OptionError, match=r"'place' to be one of None, 'inline', 'task', 'thread', or Process"):
            kind(place=wrong)
    with pytest.raises(OptionError, match="without group="):
        Processors(place=Process(group="all"))
    with pytest.raises(OptionError, match=r"'task' or Process"):
        AsyncElsewhere(processors=Processors(place="thread"))


def test_a_graph_says_where_handlers_run():
    pipeline = AsyncElsewhere(processors=Processors(concurrency=2, place=Process()), batchers=BOTH)
    text = Graph(pipeline).text()
    assert text.count("handler in a process") == 2
    assert "handler in a thread" in Graph(Elsewhere(processors=Processors(place="thread"))).text()
    assert "handler in" not in Graph(Elsewhere(processors=Processors())).text()
