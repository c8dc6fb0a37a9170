"""A work queue in an SQLite file that survives whatever happens to the process.

Run it with::

    python -m examples.work_queue

or, as any app, with ``headgate run examples.work_queue:app``. The queue is the file that WORK_QUEUE names. When no job
is left in it, 200 new ones are put in; it ends when all are done. Stop it by Ctrl-C: what was begun is finished, and
the next run goes on with the rest. Kill it: a claim that was not finished is taken back by the next run. It prints
something like::

    queue: 200 jobs put in, 0 taken back
     50 of 200 jobs are done, 150 to go
    100 of 200 jobs are done, 100 to go
    150 of 200 jobs are done, 50 to go
    200 of 200 jobs are done, 0 to go

"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import headgate
from headgate import Child, Consumer, Producer, ProducerConsumer, Subscription, Supervisor, To

FILE = Path(os.environ.get("WORK_QUEUE") or Path(tempfile.gettempdir(), "headgate_work_queue.sqlite"))
JOBS = 200

TABLE = """
    CREATE TABLE IF NOT EXISTS jobs (
        id INTEGER PRIMARY KEY, seconds REAL NOT NULL, state TEXT NOT NULL DEFAULT 'new', result TEXT
    )
"""
CLAIM = """
    UPDATE jobs SET state = 'claimed' WHERE id IN (SELECT id FROM jobs WHERE state = 'new' ORDER BY id LIMIT ?)
    RETURNING id, seconds
"""


class Job(NamedTuple):
    """One row."""

    id: int
    seconds: float


class Done(NamedTuple):
    """What became of it."""

    id: int
    result: str


def open_queue() -> sqlite3.Connection:
    """Open the file; each connection belongs to one thread."""
    queue = sqlite3.connect(FILE, isolation_level=None)
    queue.execute("PRAGMA journal_mode = WAL")  # readers do not wait for writers
    queue.execute(TABLE)
    return queue


class Queue(Producer):
    """Claims as many jobs as are asked for, and no more: a claim that nobody works at helps nobody."""

    def __init__(self) -> None:
        self.queue = open_queue()
        back = self.queue.execute("UPDATE jobs SET state = 'new' WHERE state = 'claimed'").rowcount
        added = 0
        if not self.queue.execute("SELECT 1 FROM jobs WHERE state = 'new' LIMIT 1").fetchone():
            added = JOBS
            rows = [(random.uniform(0.005, 0.03),) for _ in range(JOBS)]
            self.queue.execute("BEGIN")
            self.queue.execute("DELETE FROM jobs")
            self.queue.executemany("INSERT INTO jobs (seconds) VALUES (?)", rows)
            self.queue.execute("COMMIT")
        print(f"queue: {added} jobs put in, {back} taken back")

    def handle_demand(self, demand: int) -> list[Job]:
        jobs = sorted(Job(*row) for row in self.queue.execute(CLAIM, (demand,)))
        if len(jobs) < demand:
            self.stage.finish()  # a queue that goes on would look again when it is told that there are new jobs
        return jobs

    def terminate(self, reason: object) -> None:
        self.queue.close()


class Worker(ProducerConsumer):
    """Does jobs, one at a time; there are several workers."""

    async def handle_events(self, events: Sequence[Job], source: Subscription) -> list[Done]:
        done = []
        for job in events:
            await asyncio.sleep(job.seconds)  # stands for a request to a server
            done.append(Done(job.id, f"took {job.seconds * 1000:.0f} ms, by {self.stage.name}"))
        return done


class Ledger(Consumer):
    """Marks jobs as done: from here on they are not done again, whatever happens."""

    def __init__(self) -> None:
        self.queue = open_queue()

    def handle_events(self, events: Sequence[Done], source: Subscription) -> None:
        self.queue.execute("BEGIN")
        self.queue.executemany(
            "UPDATE jobs SET state = 'done', result = ? WHERE id = ?", [(each.result, each.id) for each in events]
        )
        self.queue.execute("COMMIT")
        done, total = self.queue.execute("SELECT sum(state = 'done'), count(*) FROM jobs").fetchone()
        if done == total or done // 50 > (done - len(events)) // 50:
            print(f"{done:3} of {total} jobs are done, {total - done} to go")

    def terminate(self, reason: object) -> None:
        self.queue.close()


app = Supervisor(
    [
        # In threads, as SQLite waits for the disk. A connection is opened in the thread that uses it.
        Child(Queue, name="queue", place="thread"),
        # Each worker has one job in hand and one that waits for it.
        Child(Worker, name="worker", count=4, subscribe_to=[To("queue", max_demand=2, min_demand=1)]),
        Child(Ledger, name="ledger", place="thread", subscribe_to=[To("worker", max_demand=50)]),
    ],
    strategy="rest_for_one",  # after a crash of the queue all claims are taken back, so nobody may work at one
    name="work_queue",
)

if __name__ == "__main__":
    headgate.run(app)
