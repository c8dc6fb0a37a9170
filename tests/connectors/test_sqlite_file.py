# mypy: disable-error-code="var-annotated,no-untyped-call"
"""Threads, tasks, locks and versions of `SQLiteQueue`, and what its protocol promises."""

import asyncio
import sqlite3
import threading

import pytest

from headgate.connectors.sqlite import SQLiteQueue
from headgate.errors import OptionError, StoreError
from headgate.testing import check_source
from tests.connectors.sqlite_helpers import Clock, clock, data, make

__all__ = ["clock", "make"]  # fixtures


# -- the file ---------------------------------------------------------------------------------------------------------


def test_puts_of_many_threads(make):
    queue = make()

    def put(first):
        for number in range(first, first + 20):
            queue.put(number)

    threads = [threading.Thread(target=put, args=(first,)) for first in range(0, 100, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(data(queue.fetch(200))) == list(range(100))


def test_tasks_put_together(make):
    queue = make()
    commits = []

    def insert(rows):
        commits.append(len(rows))
        return queue._insert(rows)

    queue._group._insert = insert

    async def main():
        ids = await asyncio.gather(*(queue.aput(number) for number in range(100)))
        assert len(set(ids)) == 100
        assert await queue.aput("x", dedupe="d") is not None
        assert await queue.aput("x", dedupe="d") is None
        assert len(await queue.aput_many(range(3), priority=-1)) == 3
        with pytest.raises(OptionError):
            await queue.aput(object())

    asyncio.run(main())
    assert len(commits) < 20
    assert sum(commits) == 102
    asyncio.run(main_of_another_loop(queue))


async def main_of_another_loop(queue):
    assert await queue.aput(1) is not None


def test_an_error_of_a_commit_goes_to_those_who_wait(make):
    queue = make()
    failures = [StoreError("queue.db", "put", "disk full", "make room")]

    def insert(rows):
        if failures:
            raise failures.pop()
        return queue._insert(rows)

    queue._group._insert = insert

    async def main():
        first = asyncio.ensure_future(queue.aput(1))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(queue.aput(2))
        with pytest.raises(StoreError):
            await first
        assert await second is not None

    asyncio.run(main())


def test_bulk_loads_are_analysed_and_claims_use_the_same_indexes(make, tmp_path):
    queue = make()
    queue.put_many(range(10_000))
    db = sqlite3.connect(tmp_path / "queue.db")
    assert db.execute("SELECT count(*) FROM sqlite_stat1 WHERE tbl = 'headgate_messages'").fetchone()[0] > 0
    db.close()
    assert len(queue.fetch(100)) == 100


def test_a_file_that_somebody_keeps_locked_is_an_error_after_a_while(tmp_path):
    naps = []
    queue = SQLiteQueue(tmp_path / "queue.db", patience=1.0, sleep=naps.append, chance=lambda: 0.5)
    queue.put(0)
    queue.open()
    empty = SQLiteQueue(tmp_path / "queue.db", queue="empty", sleep=naps.append)
    empty.open()
    db = sqlite3.connect(tmp_path / "queue.db", isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    assert empty.fetch(1) == [], "where nothing is to be had nobody has to wait"
    for call in (lambda: queue.put(1), lambda: queue.put_many([1, 2]), lambda: queue.fetch(1)):
        naps.clear()
        with pytest.raises(StoreError, match=r"queue\.db: cannot \w+: other connections have kept it locked for 1 s"):
            call()
        assert 1.0 <= sum(naps) < 1.01
        assert set(naps) == {0.0001 + 0.0019 / 2}
    db.execute("ROLLBACK")
    assert queue.put(1) == 2
    assert queue.statistics()["waited"] > 2.9
    queue.close()
    empty.close()
    db.close()


def test_a_newer_schema_is_refused(make, tmp_path):
    make()
    with sqlite3.connect(tmp_path / "queue.db") as db:
        db.execute("UPDATE headgate_queue_meta SET value = 99 WHERE name = 'schema_version'")
    queue = SQLiteQueue(tmp_path / "queue.db")
    with pytest.raises(StoreError, match=r"newer version of headgate \(schema 99, here 1\); install that version"):
        queue.put(1)
    with pytest.raises(StoreError, match="newer version"):
        queue.put(1, connection=db)
    db.close()


@pytest.mark.parametrize("durability", ["normal", "power"])
def test_durability(make, durability):
    queue = make(durability=durability)
    assert (
        queue._database.connection.execute("PRAGMA synchronous").fetchone()[0] == {"normal": 1, "power": 2}[durability]
    )
    assert queue._database.connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


# -- the protocol -----------------------------------------------------------------------------------------------------

PEERS = {"plain": {}, "ordered": {"ordered": True}, "fair": {"fair": True}, "both": {"ordered": True, "fair": True}}


@pytest.mark.slow
@pytest.mark.parametrize("options", PEERS.values(), ids=PEERS)
def test_it_keeps_what_sources_promise(tmp_path, options):
    clock = Clock()
    made = []

    def make():
        queue = SQLiteQueue(tmp_path / f"{len(made)}.db", poll=0.005, clock=clock, lease=0.4, **options)
        made.append(queue)
        return queue

    def peer(queue):
        return SQLiteQueue(queue.path, poll=0.005, clock=clock, lease=0.4, **options)

    def sleep(seconds):
        clock.now += seconds

    report = check_source(
        make,
        put=lambda queue, payloads: queue.put_many(
            payloads, key=lambda payload: payload["key"], user=lambda payload: payload["number"] % 3
        ),
        peer=peer,
        letters=lambda queue: [letter.data["number"] for letter in queue.dead_letters()],
        sleep=sleep,
        delay=5.0,
        patience=2.0,
        quiet=0.03,
        seeds=range(5),
    )
    assert set(report.skipped) <= {"fetch-recovers", "fetch-end", "nack-after-end", "order", "order-nack"}
    assert ("order" in report.ran) is ("ordered" in options)
    assert {"lease-expires", "lease-extended", "rivals", "max-deliveries", "letter-kept", "script"} <= set(report.ran)
