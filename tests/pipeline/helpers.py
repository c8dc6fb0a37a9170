"""How tests of pipelines run them: in virtual time, with balanced books at the end and no error that nobody expects."""

import asyncio
import contextlib
import functools
from typing import Any, ClassVar

from headgate import Batcher, Pipeline, Processors, System
from headgate.testing import run

ONE = Processors(concurrency=1)


def virtually(test):
    """Run an async test on a virtual clock."""

    @functools.wraps(test)
    def wrapped(*args, **options):
        run(test(*args, **options), seed=7)

    return wrapped


@contextlib.asynccontextmanager
async def running(pipeline, *, errors=None, letters=None):
    """Run a pipeline for as long as the block lasts; then it is drained.

    Args:
        pipeline: A `Pipeline`, or a `Supervisor` with some.
        errors: Where reported errors go. None: there must be none.
        letters: Where dead letters go that no source keeps. None: there must be none.
    """
    reported = [] if errors is None else errors
    buried = [] if letters is None else letters
    async with System(seed=7, on_error=reported.append, on_dead_letter=buried.append) as system:
        running = await system.start(pipeline)
        yield running
        await running.stop()
    for each in [running] if isinstance(pipeline, Pipeline) else []:
        balanced(each)
    if errors is None:
        assert list(map(str, reported)) == []
    if letters is None:
        assert list(map(str, buried)) == []


def balanced(running):
    """Check that a pipeline that has ended knows of each message what became of it."""
    statistics = running.statistics()
    assert statistics.unbalanced == 0
    assert statistics.in_flight == 0
    assert statistics.deferred == statistics.retrying == statistics.waiting == statistics.processing == 0


async def ended(pipeline, **options):
    """Run a pipeline of finite sources to its end, and return its numbers."""
    async with running(pipeline, **options) as started:
        await started.wait()
        return started.statistics()


async def until(condition, seconds=60.0):
    """Let virtual time pass until this is true."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(seconds / 60_000 if seconds <= 60 else 0.05)


def now():
    """Return the virtual time."""
    return asyncio.get_running_loop().time()


class Noting(Pipeline):
    """Writes down what its handlers are given. Without ``batchers`` it has none.

    Attributes:
        handled: The payloads of handled messages.
        batches: For each batch the payloads and the `BatchInfo`.
    """

    processors: ClassVar[Any] = ONE

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.handled: list[Any] = []
        self.batches: list[tuple[list[Any], Any]] = []

    def handle_message(self, message):
        """Note it; a payload that can be called is."""
        self.handled.append(message.data)
        if callable(message.data):
            return message.data(message)
        return None

    def handle_batch(self, messages, batch):
        """Note it."""
        self.batches.append(([message.data for message in messages], batch))

    @property
    def payloads(self):
        """The payloads of each batch."""
        return [data for data, _ in self.batches]

    @property
    def triggers(self):
        """Why each batch was complete."""
        return [info.trigger for _, info in self.batches]


class AsyncNoting(Noting):
    """The same with async handlers; a payload that is a number of seconds is slept for."""

    async def handle_message(self, message):
        """Note it; a payload that can be called is, and awaited."""
        self.handled.append(message.data)
        if callable(message.data):
            return await message.data(message)
        return None

    async def handle_batch(self, messages, batch):
        """Note it."""
        self.batches.append(([message.data for message in messages], batch))


def batcher(**options):
    """Return the options of the only batcher."""
    return {"default": Batcher(**options)}


def fails(reason=None):
    """Return a payload whose handler raises."""

    def payload(message):
        raise reason or ValueError("bad")

    return payload
