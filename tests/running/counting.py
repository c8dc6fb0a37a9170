"""An app that counts, in SQLite, what it has begun, finished and acknowledged. Real processes run it.

``COUNTING_FILE`` is the file, ``COUNTING_RUN`` the number of this run, ``COUNTING_SHAPE`` where the work is done
(``async``, ``thread`` or ``inline``), ``COUNTING_SECONDS`` how long an event takes, and ``COUNTING_STUBBORN`` the
number of the event that takes a minute.
"""

import asyncio
import os
import sqlite3
import time

from headgate import Child, Consumer, Producer, ProducerConsumer, Supervisor, To

FILE = os.environ.get("COUNTING_FILE", ":memory:")
RUN = int(os.environ.get("COUNTING_RUN", "0"))
SHAPE = os.environ.get("COUNTING_SHAPE", "async")
SECONDS = float(os.environ.get("COUNTING_SECONDS", "0.002"))
STUBBORN = int(os.environ.get("COUNTING_STUBBORN", "0"))
MINUTE = 60.0

TABLES = """
    CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY, state TEXT NOT NULL DEFAULT 'new');
    CREATE TABLE IF NOT EXISTS began (job INTEGER NOT NULL, run INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS finished (job INTEGER NOT NULL, run INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS acked (job INTEGER NOT NULL, run INTEGER NOT NULL);
"""
CLAIM = """
    UPDATE jobs SET state = 'claimed' WHERE id IN (SELECT id FROM jobs WHERE state = 'new' ORDER BY id LIMIT ?)
    RETURNING id
"""


def connect(file=FILE):
    connection = sqlite3.connect(file, isolation_level=None, timeout=20, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = OFF")  # processes are killed here, not machines
    connection.executescript(TABLES)
    return connection


class Source(Producer):
    def __init__(self):
        self.db = connect()
        self.db.execute("UPDATE jobs SET state = 'new' WHERE state = 'claimed'")

    def handle_demand(self, demand):
        jobs = sorted(row[0] for row in self.db.execute(CLAIM, (demand,)))
        if len(jobs) < demand:
            self.stage.finish()
        return jobs


class Work(ProducerConsumer):
    def __init__(self):
        self.db = connect()

    def begin(self, job):
        self.db.execute("INSERT INTO began VALUES (?, ?)", (job, RUN))
        return MINUTE if job == STUBBORN else SECONDS

    def finish(self, job):
        self.db.execute("INSERT INTO finished VALUES (?, ?)", (job, RUN))


class AsyncWork(Work):
    async def handle_events(self, events, source):
        for job in events:
            await asyncio.sleep(self.begin(job))
            self.finish(job)
        return events


class PlainWork(Work):
    def handle_events(self, events, source):
        for job in events:
            time.sleep(self.begin(job))
            self.finish(job)
        return events


class Acknowledge(Consumer):
    def __init__(self):
        self.db = connect()

    def handle_events(self, events, source):
        self.db.execute("BEGIN")
        self.db.executemany("INSERT INTO acked VALUES (?, ?)", [(job, RUN) for job in events])
        self.db.executemany("UPDATE jobs SET state = 'done' WHERE id = ?", [(job,) for job in events])
        self.db.execute("COMMIT")


work = AsyncWork if SHAPE == "async" else PlainWork
place = {"async": "task", "thread": "thread", "inline": "inline"}[SHAPE]
app = Supervisor(
    [
        Child(Source, name="source", place="thread"),
        Child(work, name="work", place=place, count=3, subscribe_to=[To("source", max_demand=4)]),
        Child(Acknowledge, name="acknowledge", subscribe_to=[To("work", max_demand=10)]),
    ],
    name="counting",
)
