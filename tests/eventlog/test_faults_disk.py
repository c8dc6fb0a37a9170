"""A full disk: an error before anything is acknowledged, nothing lost, and on it goes when there is room again."""

import contextlib
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from headgate import EventLogError
from headgate.eventlog import Append, Event, EventLog, Projection, archive, verify
from headgate.eventlog.export import export_lines
from headgate.eventlog.store import Query
from tests.eventlog.conftest import run
from tests.eventlog.server import server

ROOT = Path(__file__).resolve().parents[2]
counts = Projection("counts", lambda state, event: {"events": state.get("events", 0) + 1})


@contextlib.contextmanager
def at_most(size):
    """No file grows beyond this size: writes up to there are cut short, others fail."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def at_most_there(size, pid):
    """The same for a process of the server."""

    def limit(to):
        command = [*server().before, "prlimit", f"--pid={pid}", f"--fsize={to}:"]
        subprocess.run(command, check=True, capture_output=True, cwd="/")

    limit(size)
    try:
        yield
    finally:
        limit("unlimited")


def event(number):
    return Event("counted", {"n": number, "text": "x" * 50})


async def numbers(log):
    return [each.plain["n"] async for each in log.read()]


async def look(path, acked):
    """Whether another one who opens it, and one who has a copy, find all that was acknowledged, and nothing else."""
    async with EventLog(str(path)) as other:
        assert await numbers(other) == acked
        found = await verify(other)
        assert found.ok, found.damages


@pytest.mark.slow
def test_at_every_byte_of_a_record_a_full_disk_is_an_error_before_the_acknowledgement(tmp_path):
    path, wal = tmp_path / "log.db", tmp_path / "log.db-wal"

    @run
    async def _():
        async with EventLog(str(path)) as log:
            acked = list(range(20))
            await log.append("s", [event(each) for each in acked])
            projector = log.projector(counts)
            await projector.catch_up()
            begun = wal.stat().st_size
            refused = 0
            while True:
                with at_most(begun + refused):
                    try:
                        await log.append("s", [event(20)])
                    except EventLogError:
                        refused += 1
                    else:
                        break
                    if refused % 500 == 1:
                        assert await numbers(log) == acked, "it can be read while the disk is full"
                if refused % 500 == 1:
                    await look(path, acked)
            assert refused >= 4096, "at least one page was to be written"
            acked.append(20)
            await look(path, acked)
            assert (await log.append("s", [event(21)])).version == 22
            assert await projector.catch_up() == 2
            assert await projector.all() == {"s": {"events": 22}}
        await look(path, [*acked, 21])


@pytest.mark.slow
def test_what_is_written_in_a_transaction_with_a_checkpoint_is_not_written_by_half(tmp_path):
    path, wal = tmp_path / "log.db", tmp_path / "log.db-wal"

    @run
    async def _():
        async with EventLog(str(path)) as log:
            await log.append_all([Append(f"s{each}", [event(each)]) for each in range(50)])
            refused, step = 0, 101
            while True:
                projector = log.projector(counts)
                await projector.take_up()
                events = await log.read().all()
                assert not await projector.all()
                with at_most(wal.stat().st_size + refused * step):
                    try:
                        await projector.handle(events)
                    except EventLogError:
                        refused += 1
                    else:
                        break
                assert await projector.position() == 0
            assert refused > 20
            assert await projector.all() == {f"s{each}": {"events": 1} for each in range(50)}


def test_appends_go_on_after_the_disk_was_full_in_the_midst_of_checkpoints(tmp_path):
    path = tmp_path / "log.db"

    @run
    async def _():
        async with EventLog(str(path)) as log:
            acked: list[int] = []
            number = 0

            async def until_full(least):
                nonlocal number
                refused = done = 0
                while refused < 20 or done < least:
                    several = [event(each) for each in range(number, number + 200)]
                    number += 200
                    try:
                        await log.append("s", several)
                    except EventLogError:
                        refused += 1
                        assert refused < 1000
                    else:
                        done += 1
                        acked.extend(each.data["n"] for each in several)

            for size in (1 << 20, 2 << 20, 3 << 20):
                with at_most(size):
                    await until_full(3)
                await look(path, acked)
                await log.append("s", [event(number)])
                acked.append(number)
                number += 1
            assert sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
            await look(path, acked)


def test_what_did_not_fit_is_appended_once_when_it_is_repeated(tmp_path):
    @run
    async def _():
        async with EventLog(str(tmp_path / "log.db")) as log:
            await log.append("s", [event(0)])
            mine = [event(1), event(2)]
            with at_most((tmp_path / "log.db-wal").stat().st_size + 100), pytest.raises(EventLogError):
                await log.append("s", mine, expected_version=1)
            first = await log.append("s", mine, expected_version=1)
            again = await log.append("s", mine, expected_version=1)
            assert (first.duplicates, again.duplicates) == (0, 2)
            assert await numbers(log) == [0, 1, 2]


SMALL_DISK = """
import asyncio, sys
from headgate import EventLogError
from headgate.eventlog import Event, EventLog, verify

async def main():
    folder = sys.argv[1]
    async with EventLog(f"{folder}/log.db") as log:
        acked, refused, filler = [], 0, open(f"{folder}/filler", "wb")
        filler.write(bytes(200_000))
        filler.flush()
        number = 0
        while refused < 5:
            try:
                await log.append("s", [Event("counted", {"n": number, "text": "x" * 500})])
                acked.append(number)
            except EventLogError:
                refused += 1
            number += 1
        assert [each.plain["n"] async for each in log.read()] == acked
        filler.truncate(0)
        await log.append("s", [Event("counted", {"n": number})])
        acked.append(number)
        assert [each.plain["n"] async for each in log.read()] == acked
        assert (await verify(log)).ok
        assert len(acked) > 5, len(acked)

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_small_disk_that_is_really_full(tmp_path):
    if shutil.which("mount") is None or os.getuid() != 0:
        pytest.skip("only root can mount a small file system")
    command = ["mount", "-t", "tmpfs", "-o", "size=600k", "headgate-test", str(tmp_path)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        done = subprocess.run(
            [sys.executable, "-c", SMALL_DISK, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.slow
def test_a_full_disk_below_postgres():
    """The table's file cannot grow; the server's own log has room."""
    if shutil.which("prlimit") is None:
        pytest.skip("no prlimit here")
    url = server().database()
    text = os.urandom(50_000).hex()

    @run
    async def _():
        async with EventLog(url) as log, EventLog(url) as other:
            for number in range(200):  # the files of the server's own log are of 16 MiB
                await log.append("s", [Event("counted", {"n": number, "text": text[number:] + str(number)})])
            acked, number, refused = list(range(200)), 200, 0
            await log.store.transact([])
            pid = vars(log.store)["_writer"].get_server_pid()
            with at_most_there(16 * 1024 * 1024, pid):
                while refused < 5:
                    try:
                        await log.append("s", [Event("counted", {"n": number, "text": text[number % 999 :]})])
                        acked.append(number)
                    except EventLogError:
                        refused += 1
                    number += 1
                    assert number < 2000
                assert await numbers(other) == acked
            assert (await log.append("s", [Event("counted", {"n": number})])).version == len(acked) + 1
            assert await numbers(other) == [*acked, number]
            assert (await verify(other)).ok


# -- archives and exports ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_at_every_byte_of_an_archive_a_full_disk_removes_nothing(tmp_path):
    folder = tmp_path / "old"

    @run
    async def _():
        async with EventLog(str(tmp_path / "log.db")) as log:
            await log.append("s", [event(each) for each in range(30)])
            everything = await log.read().all()
            limit = 0
            while True:
                with at_most(limit), pytest.raises(EventLogError) as error:
                    await archive(log, folder, 25)
                if "cannot be written" not in str(error.value):
                    break
                assert not list(folder.glob("*.gz")), "nothing that looks like an archive"
                assert len(await log.store.read(Query(), None, 100)) == 30
                limit += 1
            (left,) = list(folder.iterdir())
            # Up to here the archive did not fit; now it does, and what is noted in the database does not.
            assert limit == left.stat().st_size > 500
            assert len(await log.store.read(Query(), None, 100)) == 30
            assert await log.read().all() == everything
            (made,) = await archive(log, folder, 25)
            assert made.file == str(left)
            assert len(await log.store.read(Query(), None, 100)) == 5
            assert await log.read().all() == everything
            assert (await verify(log)).ok
            assert list(folder.iterdir()) == [left], "nothing else is left"


@pytest.mark.slow
def test_an_export_that_does_not_fit_leaves_no_file_that_looks_complete(tmp_path):
    """Of what ``headgate log export --out`` writes, the name is only there when all of it is."""
    path, out = tmp_path / "log.db", tmp_path / "out.jsonl"

    @run
    async def _():
        async with EventLog(str(path)) as log:
            await log.append("s", [event(each) for each in range(1000)])
            size = sum([len(line) + 1 async for line in export_lines(log, log.read())])
        command = [sys.executable, "-m", "headgate", "log", "export", str(path), "--unredacted", "--out", str(out)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

        def export(limit):
            def before():
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

            return subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, preexec_fn=before
            )  # fmt: skip

        for limit in (60_000, size - 1):
            done = export(limit)
            assert done.returncode != 0
            assert "Traceback" not in done.stderr, done.stderr
            assert str(out) in done.stderr
            assert not out.exists()
        done = export(10_000_000)
        assert done.returncode == 0, done.stderr
        assert [json.loads(line)["position"] for line in out.read_text().splitlines()] == list(range(1, 1001))
