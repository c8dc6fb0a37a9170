"""The power fails: a share of what ``python -m tests.eventlog.power`` does, and that it finds bugs that are planted."""

import asyncio
import contextlib
import ctypes
import random
import sqlite3
import uuid
from collections import Counter
from pathlib import Path

import pytest

from headgate.eventlog import Event, EventLog
from headgate.eventlog.projector import Projector
from headgate.eventlog.sqlite import SqliteStore
from tests.eventlog import planted
from tests.eventlog.disk import EVERYTHING, NOTHING, Disk, Op, Recorder, UnreachableError, library
from tests.eventlog.power import DURABILITIES, NAME, Result, record, storm
from tests.mutants.planted import edit

WAL = f"{NAME}-wal"


@pytest.fixture
def sqlite():
    try:
        return library()
    except UnreachableError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_storm_no_cut_loses_what_was_acknowledged_or_leaves_a_log_that_is_not_sound(sqlite):
    result = storm(240, seed=1)
    assert not result.faults, str(result)
    assert result.cuts == {"power": 120, "normal": 120}
    assert result.lost["normal"] > 0, "there was nothing to lose"


@pytest.mark.slow
@pytest.mark.parametrize("durability", DURABILITIES)
def test_the_same_seed_makes_the_same_recording_and_all_that_matters_is_in_it(sqlite, durability):
    one, two = record(durability, 4), record(durability, 4)
    assert (one.ops, one.acks, one.kills) == (two.ops, two.acks, two.kills)
    assert one.cuts(50) == two.cuts(50)
    kinds = Counter(op[:2] for op in one.ops)
    assert kinds["sync", NAME] >= 4, "the log is moved into the database several times"
    assert kinds["write", NAME] > 100
    assert sum(op[:3] == ("write", WAL, 0) for op in one.ops) >= 4, "and begins anew"
    assert kinds["delete", WAL] >= 1
    assert kinds["sync folder", ""] >= 3
    assert len(one.kills) >= 2
    together = Counter(ack.at for ack in one.acks if ack.events)
    assert max(together.values()) > 1, "several tasks in one transaction"
    assert max(len(ack.events) for ack in one.acks) >= 20
    assert any(ack.projected for ack in one.acks)


# -- bugs that have to be found ----------------------------------------------------------------------------------------


def faults(durability, seed=1, cuts=40):
    result = Result()
    recording = record(durability, seed)
    result.cut(recording, recording.cuts(cuts))
    return result.faults


def synchronous(monkeypatch, how):
    """Whatever was asked for, the writer syncs like this."""
    opened = SqliteStore._open

    def open_and_weaken(self):
        opened(self)
        self._db.execute(f"PRAGMA synchronous = {how}")

    monkeypatch.setattr(SqliteStore, "_open", open_and_weaken)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["OFF", "NORMAL"])
def test_what_was_acknowledged_and_not_synced_is_found_to_be_lost(sqlite, monkeypatch, how):
    synchronous(monkeypatch, how)
    found = faults("power")
    assert len([each for each in found if "acknowledged events are lost" in each]) > 5
    assert any("an acknowledged checkpoint is lost" in each for each in found)


@pytest.mark.slow
def test_a_database_that_was_changed_before_its_log_was_synced_is_found_to_be_damaged(sqlite, monkeypatch):
    synchronous(monkeypatch, "OFF")
    found = faults("normal", cuts=100)
    assert any("verify" in each or "it cannot be used" in each for each in found), found


@pytest.mark.slow
def test_a_checkpoint_without_its_states_is_found(sqlite, monkeypatch):
    monkeypatch.setattr(Projector, "_write", Projector._write)  # put back in the end
    planted.checkpoint_in_a_second_transaction()
    found = faults("power", cuts=240)  # few of them fall between the two transactions
    assert any("the states are not those at their checkpoint" in each for each in found)


@pytest.mark.slow
def test_an_append_by_half_is_found(sqlite, monkeypatch):
    monkeypatch.setattr(SqliteStore, "_write", SqliteStore._write)
    half = "insert(self._db, plan.rows[:1]); self._db.execute('COMMIT'); self._begin(); insert(self._db, plan.rows[1:])"
    edit(SqliteStore, "_write", ("insert(self._db, plan.rows)", half))
    assert any("an append is there by half" in each for each in faults("power", cuts=60))


# -- what the storm has found ------------------------------------------------------------------------------------------


mine = Event("paid", {"cents": 5}, event_id=uuid.UUID(int=1))


def recorded(folder, use, disk):
    """Use a log on what is on a disk; what is left of it after a cut at the moment that `use` returns?"""
    folder.mkdir()
    disk.leave(folder, random.Random(1), EVERYTHING)
    with Recorder(folder, random.Random(folder.name)) as recorder:
        done = asyncio.run(use(str(folder / NAME), recorder.ops))
    return recorder.ops[:done]


def there(folder, disk):
    """What is in the log if nothing is left but what was synced."""
    folder.mkdir()
    disk.leave(folder, random.Random(1), NOTHING)

    async def head():
        async with EventLog(str(folder / NAME)) as log:
            return await log.head()

    return asyncio.run(head())


async def append(path, ops):
    async with EventLog(path, durability="power") as log:
        await log.append("s", mine)
        return len(ops)


def killed_before_its_sync(tmp_path):
    """One has appended, and was killed when all was written and nothing synced."""
    ops, disk = recorded(tmp_path / "killed", append, Disk()), Disk()
    assert ops[-1][:2] == ("sync", WAL)
    for op in ops[:-1]:
        disk.do(op)
    return disk


@pytest.mark.parametrize("again", [True, False])
def test_what_one_who_was_killed_had_not_synced_is_synced_when_it_is_opened(sqlite, tmp_path, again):
    disk = killed_before_its_sync(tmp_path)

    async def look(path, ops):
        async with EventLog(path, durability="power") as log:
            assert await log.head() == 1
            if again:
                assert (await log.append("s", mine)).duplicates == 1
            return len(ops)

    for op in recorded(tmp_path / "again", look, disk):
        disk.do(op)
    assert there(tmp_path / "cut", disk) == 1


def test_what_another_one_has_not_synced_is_synced_when_it_is_acknowledged_again(sqlite, tmp_path):
    disk = Disk()

    async def two(path, ops):
        async with EventLog(path) as normal, EventLog(path, durability="power") as power:
            await normal.append("s", mine)
            assert (await power.append("s", mine)).duplicates == 1
            return len(ops)

    for op in recorded(tmp_path / "two", two, disk):
        disk.do(op)
    assert there(tmp_path / "cut", disk) == 1


# -- the recorder ------------------------------------------------------------------------------------------------------


def test_all_that_is_written_is_recorded(sqlite, tmp_path):
    async def use(recorder):
        async with EventLog(str(tmp_path / NAME), durability="power") as log:
            await log.append("s", [Event("counted", {"text": "x" * 5000}) for _ in range(5)])
            compare(recorder.ops)
        compare(recorder.ops)

    def compare(ops):
        disk = Disk()
        for op in ops:
            disk.do(op)
        files = {file.name: file.read_bytes() for file in tmp_path.iterdir() if not file.name.endswith("-shm")}
        assert disk.left(random.Random(1), EVERYTHING) == files

    with Recorder(tmp_path, random.Random(1)) as recorder:
        asyncio.run(use(recorder))


def test_the_former_vfs_is_the_default_again_and_other_files_are_nobodys_business(sqlite, tmp_path):
    def default():
        return ctypes.addressof(sqlite.sqlite3_vfs_find(None).contents)

    def write(path):
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute("CREATE TABLE t (x)")

    before, inner = default(), tmp_path / "inner"
    inner.mkdir()
    with Recorder(inner, random.Random(1)) as recorder:
        assert default() != before
        write(tmp_path / "other.db")
        assert not recorder.ops
        write(inner / "this.db")
        noted = len(recorder.ops)
        assert noted
    assert default() == before
    write(inner / "later.db")
    assert len(recorder.ops) == noted


def test_what_fails_in_the_recorder_is_raised(sqlite, tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(Recorder, "_note", fail)
    with (
        pytest.raises(ZeroDivisionError),
        Recorder(tmp_path, random.Random(1)),
        pytest.raises(sqlite3.OperationalError),
    ):
        sqlite3.connect(tmp_path / NAME).execute("CREATE TABLE t (x)")


# -- the disk ----------------------------------------------------------------------------------------------------------


def images(*ops, seeds=600):
    """All that a cut may leave of a file."""
    disk = Disk()
    for op in (Op("create", "f"), Op("sync folder", ""), *ops):
        disk.do(op)
    return {bytes(files["f"]) if "f" in files else None for files in map(disk.left, map(random.Random, range(seeds)))}


OLD = Op("write", "f", 0, b"o" * 1600)
NEW = Op("write", "f", 100, b"n" * 1400)
SYNC = Op("sync", "f")


def test_what_was_synced_is_there():
    assert images(OLD, SYNC) == {OLD.data}
    assert images(OLD, SYNC, NEW, SYNC) == {b"o" * 100 + NEW.data + b"o" * 100}


def test_what_was_not_synced_is_there_or_not_or_in_part_and_nothing_else_is_touched():
    found = images(OLD, SYNC, NEW)
    assert {OLD.data, b"o" * 100 + NEW.data + b"o" * 100} < found
    assert all(len(each) == 1600 and each[:100] == each[1500:] == b"o" * 100 for each in found)
    inner = {each[100:1500] for each in found}
    assert bytes(1400) in inner
    assert any(set(each) - set(b"on\0") for each in inner), "anything"
    switches = {at for each in inner if set(each) == set(b"on") for at in range(1, 1400) if each[at - 1] != each[at]}
    assert {412, 924} < switches, "sectors"
    assert len(switches) > 20, "any byte"


def test_a_later_write_can_be_there_without_an_earlier_one():
    found = images(OLD, SYNC, Op("write", "f", 0, b"1"), Op("write", "f", 1, b"2"))
    assert {each[:2] for each in found} > {b"oo", b"1o", b"o2", b"12"}


def test_a_hole_before_what_is_there_holds_zeros():
    assert bytes(500) + b"2" in images(Op("write", "f", 0, b"1" * 500), Op("write", "f", 500, b"2"))


def test_a_truncation_may_not_have_happened():
    assert images(OLD, SYNC, Op("truncate", "f", 10)) == {OLD.data, OLD.data[:10]}
    assert images(OLD, SYNC, Op("truncate", "f", 10), SYNC) == {OLD.data[:10]}


def test_a_name_is_sure_when_its_folder_was_synced():
    made = Op("write", "f", 0, b"x"), SYNC
    folder = Op("sync folder", "")
    assert images(*made, Op("delete", "f")) == {None, b"x"}
    assert images(*made, Op("delete", "f"), folder) == {None}
    again = Op("delete", "f"), Op("create", "f"), Op("write", "f", 0, b"y"), SYNC
    assert images(*made, *again) == {None, b"x", b"y"}
    assert images(*made, *again, folder) == {b"y"}


def test_a_recording_that_does_not_fit_is_an_error():
    with pytest.raises(AssertionError, match="write of g"):
        images(Op("write", "g", 0, b"x"))


def test_folders_are_left_by_file(tmp_path):
    disk = Disk()
    for op in (Op("create", "f"), OLD):
        disk.do(op)
    disk.leave(tmp_path, random.Random(1), EVERYTHING)
    assert [(each, each.read_bytes()) for each in tmp_path.iterdir()] == [(Path(tmp_path, "f"), OLD.data)]
