# mypy: disable-error-code="var-annotated,no-untyped-call"
"""kill -9 at random moments against pipelines that work at one `SQLiteQueue`::

    python -m tests.pipeline.storm --kills 200 --workers 4

As `tests.connectors.queue_storm`, whose books these are, but each worker is a whole pipeline: async processors, a
batcher, retries, dead letters, leases that are extended.
"""

import asyncio
import json
import logging
import os
import random
import signal
import sys
import time

from headgate import Backoff, Batcher, Pipeline, Processors, Reject
from headgate.connectors.sqlite import SQLiteQueue
from tests.connectors.queue_storm import BATCH, Storm, main, options


class Noted(SQLiteQueue):
    """Writes down what a pipeline does with it."""

    def __init__(self, path, log, **given):
        super().__init__(path, **given)
        self.file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, what, messages, **more):
        entry = {"what": what, "receipts": [message.receipt for message in messages], "at": time.time(), **more}
        os.write(self.file, json.dumps(entry).encode() + b"\n")

    def open(self):
        super().open()
        self.note("open", [])

    def fetch(self, count):
        since = time.time()
        messages = super().fetch(min(count, BATCH))
        if messages:
            self.note("fetch", messages, since=since, keys=[message.key for message in messages])
        return messages

    def ended(self, what, call, messages, *args, **given):
        since = time.time()
        lost = call(messages, *args, **given) or []
        self.note(what, [message for message in messages if message not in lost], since=since)
        if lost:
            self.note("lost", lost)
        return lost

    def ack(self, messages):
        return self.ended("ack", super().ack, messages)

    def nack(self, messages, delay=0.0, *, counted=True):
        return self.ended("nack", super().nack, messages, delay, counted=counted)

    def dead_letter(self, messages):
        return self.ended("letter", super().dead_letter, messages)

    def extend(self, messages, seconds):
        since = time.time()
        lost = super().extend(messages, seconds) or []
        self.note("extend", [message for message in messages if message not in lost], since=since)
        return lost


class Worker(Pipeline):
    """Does what the kind of a message says."""

    processors = Processors(concurrency=8)
    batchers = Batcher(size=10, timeout=0.02, concurrency=2)
    redelivery = Backoff(first=0.05, most=0.05)

    def __init__(self, chance, source, **given):
        super().__init__(source=source, **given)
        self.chance = chance
        self.queue = source

    async def handle_message(self, message):
        kind = message.data["kind"]
        if kind == "deadly":
            self.queue.note("suicide", [message])
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "refused":
            raise Reject(ValueError("refused"))
        if kind == "failing" or (kind == "flaky" and self.chance.random() < 0.5 and message.deliveries < 3):
            raise RuntimeError("failed")
        await asyncio.sleep(self.chance.random() * 0.01)
        return message

    async def handle_batch(self, messages, batch):
        await asyncio.sleep(self.chance.random() * 0.01)


def work(path, log, seed, ordered, fair):
    """Consume until killed."""
    logging.disable()
    chance = random.Random(seed)
    source = Noted(path, log, **options(ordered, fair), poll=0.01)
    asyncio.run(_run(Worker(chance, source, partition_by="key" if ordered else None)))


async def _run(worker):
    await worker


class PipelineStorm(Storm):
    module = "tests.pipeline.storm"

    def may_die(self, log):
        """Not in its first moments: what was with several dead workers comes first, and would die by chance alone."""
        first = json.loads(log.read_bytes().split(b"\n")[0])
        return time.time() - first["at"] > self.random.random()


if __name__ == "__main__":
    sys.exit(main(PipelineStorm, work))
