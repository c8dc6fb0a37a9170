"""A work queue in an SQLite file that survives whatever happens to the process, with retries and dead letters.

Run it with::

    python -m examples.work_queue
    python -m examples.work_queue dead      # what was given up, and why
    python -m examples.work_queue retry     # sends that back to be tried again

or, as any app, with ``headgate run examples.work_queue:app``; also in several terminals at once, they share the work.
The queue is the file that WORK_QUEUE names. When no job is left in it, 200 new ones are put in; it ends when all are
done. Stop it by Ctrl-C: what was begun is finished, and the next run goes on with the rest. Kill it: what it had leased
is handed out again when the lease is over. It prints something like::

    queue: 200 jobs put in, 0 are leased to a run that goes on or has died
    job 13: no connection; it is tried again in a moment
     50 of 200 jobs are done, 150 to go
    job 77: 'seventy-seven' is no number; delivery 1 of 3, it is handed out again
    job 77: 'seventy-seven' is no number; delivery 2 of 3, it is handed out again
    100 of 200 jobs are done, 100 to go
    job 77: 'seventy-seven' is no number; delivery 3 of 3, it is a dead letter
    150 of 200 jobs are done, 1 is a dead letter, 49 to go
    199 of 200 jobs are done, 1 is a dead letter, 0 to go

"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import headgate
from headgate import Backoff, Batcher, BatchInfo, Message, Pipeline, Processors, RetryPolicy
from headgate.connectors.sqlite import SQLiteQueue

FILE = Path(os.environ.get("WORK_QUEUE") or Path(tempfile.gettempdir(), "headgate_work_queue.sqlite"))
JOBS = 200
DELIVERIES = 3


def connect() -> sqlite3.Connection:
    """Open the same file for a table of our own: what came of the jobs."""
    database = sqlite3.connect(FILE, isolation_level=None, timeout=10)
    database.execute("CREATE TABLE IF NOT EXISTS results (job INTEGER PRIMARY KEY, result TEXT NOT NULL)")
    return database


def progress(database: sqlite3.Connection) -> str:
    """Say how far it is."""
    done: int = database.execute("SELECT count(*) FROM results").fetchone()[0]
    dead = queue.counts().dead
    letters = f"{dead} {'is a dead letter' if dead == 1 else 'are dead letters'}, " if dead else ""
    return f"{done:3} of {JOBS} jobs are done, {letters}{JOBS - done - dead} to go"


class Jobs(SQLiteQueue):
    """The queue. It fills itself when it is empty, so that there is something to see; else somebody else would."""

    def open(self) -> None:
        super().open()
        counts, added = self.counts(), 0
        if not counts.left:
            jobs = [{"job": number, "milliseconds": str(random.randint(5, 30))} for number in range(1, JOBS + 1)]
            jobs[76]["milliseconds"] = "seventy-seven"  # nobody will ever be able to do this one
            self.delete_dead()  # a new round, so that the numbers are right
            with closing(connect()) as database:
                database.execute("BEGIN")
                database.execute("DELETE FROM results")
                self.put_many(jobs, connection=database)  # in our own transaction: both, or nothing
                database.execute("COMMIT")
            added = JOBS
        leased = counts.leased + counts.expired
        print(f"queue: {added} jobs put in, {leased} are leased to a run that goes on or has died", flush=True)

    def close(self) -> None:
        with closing(connect()) as database:
            print(progress(database), flush=True)
        super().close()


class Work(Pipeline):
    """Four jobs at a time, and their results fifty at a time."""

    processors = Processors(
        concurrency=4,
        # Tried again right here, after a moment, for as long as it is the network's fault. What fails for any other
        # reason goes back to the queue, which hands it out again later: perhaps to another process.
        retry={ConnectionError: RetryPolicy(attempts=5, first=0.05)},
    )
    batchers = Batcher(size=50, timeout=0.5, place="thread")  # in a thread, as SQLite waits for the disk
    redelivery = Backoff(first=0.1, most=1.0)

    async def handle_message(self, message: Message) -> None:
        job, milliseconds = message.data["job"], message.data["milliseconds"]
        if not milliseconds.isdigit():
            raise ValueError(f"{milliseconds!r} is no number")
        if job == 13 and message.attempts == 0:
            print("job 13: no connection; it is tried again in a moment", flush=True)
            raise ConnectionError("no connection")
        await asyncio.sleep(int(milliseconds) / 1000)  # stands for a request to a server
        message.put_data((job, f"took {milliseconds} ms, by process {os.getpid()}"))

    def handle_batch(self, messages: list[Message], batch: BatchInfo) -> None:
        """Keep the results. When this has returned, the jobs are acknowledged: they are not done again."""
        with closing(connect()) as database:
            # A process may be killed between this and the acknowledgement. Then a job is done once more, and replaces
            # its result: that is what "at least once" asks of whoever keeps results.
            database.execute("BEGIN")
            database.executemany("INSERT OR REPLACE INTO results VALUES (?, ?)", [each.data for each in messages])
            database.execute("COMMIT")
            print(progress(database), flush=True)

    def handle_failed(self, messages: list[Message]) -> None:
        """Say what has failed, for good or until it is handed out again: that is up to the queue's max_deliveries."""
        for each in messages:
            what = "is a dead letter" if each.deliveries >= DELIVERIES else "is handed out again"
            print(f"job {each.data['job']}: {each.reason}; delivery {each.deliveries} of {DELIVERIES}, it {what}")


queue = Jobs(
    FILE,
    lease=2.0,  # short, so that a killed run is soon forgotten; the pipeline extends the leases of what it works at
    max_deliveries=DELIVERIES,
    stop_when_empty=True,  # for this example: as a rule a queue waits for more
)
app = Work(source=queue, name="work_queue")


def dead() -> None:
    """List what was given up."""
    for letter in queue.dead_letters():
        print(f"job {letter.data['job']}: {letter.reason}, handed out {letter.deliveries} times")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["dead"]:
            dead()
        case ["retry"]:
            print(f"{queue.retry_dead()} job(s) will be tried again by the next run")
        case _:
            headgate.run(app, log_level="error")  # warnings say what handle_failed has printed
