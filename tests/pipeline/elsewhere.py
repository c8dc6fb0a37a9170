"""Pipelines whose handlers run in worker processes, and payloads for them. Workers import this, so it is light."""

import asyncio
import inspect
import os
import signal
import sys
import threading
import time
from typing import Any, ClassVar

from headgate import Batcher, Pipeline, Process, Processors, Retry
from headgate.connectors.memory import MemoryQueue


class Elsewhere(Pipeline):
    """Calls a payload that can be called, over there, and says where it was."""

    processors: ClassVar[Any] = Processors(concurrency=1, place=Process())

    def handle_message(self, message):
        message.metadata["pid"] = os.getpid()
        if callable(message.data):
            return message.data(message)
        return None

    def handle_batch(self, messages, batch):
        for message in messages:
            message.metadata["batch"] = os.getpid()


class AsyncElsewhere(Elsewhere):
    async def handle_message(self, message):
        await asyncio.sleep(0.001)
        result = super().handle_message(message)
        return await result if inspect.iscoroutine(result) else result


def changing(message):
    message.data = {"list": [1, 2]}
    message.metadata["more"] = {"a": 1}
    message.put_batcher("other").put_batch_key("key").put_batch_mode("flush")
    message.deadline = 4e9
    message.key = "another"


def configured(message):
    message.configure_ack(on_failure="dead_letter")
    raise ValueError("configured")


def again():
    raise Retry(after=0.001)


def deep(message):
    def deeper():
        raise KeyError("in there")

    try:
        deeper()
    except KeyError as error:
        raise Odd(1, "two") from error


class Odd(Exception):
    """Pickle alone cannot take it."""

    def __init__(self, number, text):
        super().__init__(f"{number} {text}")
        self.number = number


def raises(error):
    raise error


def plain_function(message):
    message.data = ("function", os.getpid())


class Other:
    """Has a handler that is not the pipeline's."""

    def __init__(self, factor):
        self.factor = factor

    def handle(self, message):
        message.data = ("method", os.getpid(), self.factor)

    async def __call__(self, message):
        await asyncio.sleep(0)
        message.data = ("object", os.getpid())


def closure(value):
    def handler(message):
        message.data = ("closure", os.getpid(), value)

    return handler


class Helper:
    def __init__(self, pipeline):
        self.pipeline = pipeline


class Rich(Pipeline):
    """Has attributes, of the user's and of ours; its source and limits are declared where its handlers are."""

    source = MemoryQueue()
    batchers: ClassVar[Any] = {}
    processors = Processors(concurrency=1, place=Process())
    table: ClassVar[Any] = {"a": 1}

    def __init__(self, before, **options):
        self.before = before
        super().__init__(**options)
        self.after = [1, 2]
        self.helper = Helper(self)

    async def worker_started(self):
        await asyncio.sleep(0)
        self.connection = threading.Lock()
        self.pid = os.getpid()

    def handle_message(self, message):
        with self.connection:
            if callable(message.data):
                message.data(self)
            mine = (self.before, self.after, self.table, self.context, self.name, self.helper.pipeline is self)
            message.data = (*mine, self.pid == os.getpid())


class Unready(Elsewhere):
    def worker_started(self):
        raise ConnectionError("the model is not there")


class Unreadable:
    """Can be pickled, and not be made again."""

    def __reduce__(self):
        return (_unreadable, ())


def _unreadable():
    raise RuntimeError("not here")


class Hidden:
    """Can be made over there, but not come back."""

    def __init__(self):
        self.lock = threading.Lock()


def hide(message):
    message.data = Hidden()


def unread(message):
    message.metadata["back"] = Unreadable()


def dying(path, times, how):
    """Return a payload that ends its worker so many times, which it counts in a file."""

    def payload(message):
        with open(path, "a+", encoding="utf-8") as file:  # noqa: PTH123 (it crosses)
            file.write("x")
            file.flush()
            deaths = os.path.getsize(path)  # noqa: PTH202
        if deaths <= times:
            how()
        message.data = deaths

    return payload


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def exited():
    os._exit(3)


def quits():
    sys.exit(4)


def killer(message):
    os.kill(os.getpid(), signal.SIGKILL)


def sleeps(message):
    time.sleep(60)


async def awaits():
    await asyncio.sleep(60)


class Batches(Pipeline):
    """Calls payloads that can be called in the handler of batches."""

    processors = Processors(concurrency=1)

    def handle_message(self, message):
        pass

    def handle_batch(self, messages, batch):
        for message in messages:
            message.metadata["batch"] = (os.getpid(), batch.size, batch.trigger)
        for message in messages:
            if callable(message.data):
                result = message.data(messages)
                if result is not messages:
                    return result
        return None


class AsyncBatches(Batches):
    async def handle_batch(self, messages, batch):
        await asyncio.sleep(0)
        return super().handle_batch(messages, batch)


def bad(messages):
    raise ValueError("bad")


class Steps(Pipeline):
    processors: ClassVar[Any] = {
        "parse": Processors(concurrency=2, place=Process()),
        "cut": Processors(concurrency=1),
        "weigh": Processors(concurrency=1, place=Process()),
    }
    batchers: ClassVar[Any] = {"default": Batcher("store", size=5, timeout=0.05)}

    def __init__(self, **options):
        super().__init__(**options)
        self.stored = []

    def handle_parse(self, message):
        message.data = [(number, os.getpid()) for number in range(message.data)]

    def handle_cut(self, message):
        return message.split(message.data)

    async def handle_weigh(self, message):
        number, pid = message.data
        message.data = (number * 10, pid != os.getpid())

    def store(self, messages, batch):
        self.stored += [message.data for message in messages]


def slow(message):
    time.sleep(0.3)
    message.data = "done"
