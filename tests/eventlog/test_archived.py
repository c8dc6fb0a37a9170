"""What holds for events holds when they are archived: conditions, reversals, ids."""

import asyncio
import sys
import uuid
from pathlib import Path

import pytest

from headgate import AppendConditionError, AppendConflictError, EventError, EventLogError, ReversalError
from headgate.eventlog import Event, EventLog, Projection, archive, discard, explain, fork, reverse, verify
from headgate.eventlog.store import Query
from tests.eventlog.conftest import run

module = sys.modules["headgate.eventlog.archive"]


async def enrolled_and_left(log):
    await log.append("c1", [Event("enrolled", {"who": "ada"})])
    await reverse(log, 1, inverse=Event("left", {}))
    await log.append("other", [Event("x", {})])


def test_a_condition_is_held_against_archives_too(place, tmp_path):
    @run
    async def _():
        async with place.log() as log:
            await enrolled_and_left(log)
            await archive(log, tmp_path, 2)
            taken = log.read(types="enrolled", fields={"who": "ada"})
            with pytest.raises(AppendConditionError) as refused:
                await log.append("y", [Event("z", {})], unless=taken, after=0)
            assert (refused.value.after, refused.value.position) == (0, 1)
            again = Event("z", {})
            await log.append("y", [again], unless=taken, after=1)
            assert (await log.append("y", [again], unless=taken, after=0)).duplicates == 1
            await log.append("y", [Event("z", {})], unless=log.read(types="enrolled", fields={"who": "bob"}))


def test_a_condition_is_held_against_what_is_archived_at_that_very_moment(place, tmp_path, monkeypatch):
    """Between the look at the archives and the append, what stands in its way goes from the database to a file."""

    @run
    async def _():
        async with place.log() as log:
            await enrolled_and_left(log)
            await archive(log, tmp_path, 1)
            held, looks = log._held_against_archives, []

            async def archived_just_after(order):
                looks.append(await held(order))
                if len(looks) == 1:
                    await archive(log, tmp_path, 2)
                return looks[-1]

            monkeypatch.setattr(log, "_held_against_archives", archived_just_after)
            with pytest.raises(AppendConditionError):
                await log.append("y", [Event("z", {})], unless=log.read(types="left"), after=0)
            assert [each.condition.archived for each in looks] == [1, 2]


def test_what_was_undone_before_it_was_archived_stays_undone(place, tmp_path):
    @run
    async def _():
        async with place.log() as log:
            await enrolled_and_left(log)
            first = await log.event(1)
            await archive(log, tmp_path, 2)
            with pytest.raises(ReversalError, match="already, by position 2"):
                await log.append("c1", [Event("left", {}, reverses=first)])
            steps = await explain(log, Projection("p", lambda state, event: state), "c1")
            assert [each.undone_by for each in steps] == [2, None]


def test_the_same_event_in_two_appends_at_once_is_written_once(place):
    """Both, and a stranger's, failed with a constraint of the database."""

    @run
    async def _():
        async with place.log() as log:
            same = Event("e", {})
            appends = [log.append("other", [Event("e", {})]), log.append("a", same), log.append("a", [same, same])]
            results = await asyncio.gather(*appends)
            assert [each.duplicates for each in results] == [0, 0, 2]
            same = Event("e", {})
            wrong = asyncio.create_task(log.append_all([("a", [same]), ("b", [same])]))
            other = await log.append("other", [Event("e", {})])
            with pytest.raises(EventError, match="in stream 'a'"):
                await wrong
            assert other.version == 2
            assert [(each.name, each.version) for each in await log.streams()] == [("a", 1), ("other", 2)]


async def numbered(log, folder, count=30, size=10):
    """Events 1 to `count` of three streams; all but the last ten in archives."""
    for number in range(1, count + 1):
        await log.append(f"s{number % 3}", [Event("e", {"n": number}, event_id=uuid.UUID(int=number))])
        if number % size == 0 and number < count:
            await archive(log, folder, number - 1 if number == count else number)


def test_what_is_discarded_is_gone_and_the_rest_is_sound(place, tmp_path):
    @run
    async def _():
        async with place.log() as log:
            await numbered(log, tmp_path)
            last = [each.last for each in await log.archives.known()]
            anchor = (await verify(log)).position, (await verify(log)).digest
            gone = await discard(log, last[1] - 1)
            assert [each.last for each in gone] == last[:1]
            assert not await asyncio.to_thread(Path(gone[0].file).exists)
            first = last[0] + 1
            for backwards in (False, True):
                found = [each.position for each in await log.read(backwards=backwards).all()]
                assert sorted(found) == list(range(first, 31))
                assert [each.position for each in await log.read("s1", backwards=backwards).all()] == [
                    each for each in found if each % 3 == 1
                ]
            sound = await verify(log, anchor=anchor)
            assert (sound.ok, sound.events) == (True, 31 - first)
            assert (await log.append("s1", Event("e", {}, event_id=uuid.UUID(int=1)))).duplicates == 1
            with pytest.raises(AppendConflictError):
                await log.append("s1", [Event("e", {})], expected_version=0)
            await log.append("s1", [Event("e", {})], unless=log.read("s1", types="e"), after=30)
            assert [(each.name, each.version, each.first) for each in await log.streams()] == [
                ("s0", 10, first + (-first) % 3),
                ("s1", 11, first + (1 - first) % 3),
                ("s2", 10, first + (2 - first) % 3),
            ]
            async with EventLog(":memory:") as copy:
                assert (await fork(log, copy)).events == 32 - first
            everything = await discard(log, 31)
            assert [each.last for each in everything] == last[1:]
            assert (await verify(log)).ok
            assert [each.damages[0].what for each in [await verify(log, anchor=(1, b"x" * 16))]] == [
                "the event of the anchor was discarded"
            ]
            assert await discard(log, 31) == []


def test_an_archive_that_could_not_be_deleted_is_deleted_later(tmp_path):
    @run
    async def _():
        async with EventLog(":memory:") as log:
            await numbered(log, tmp_path)
            file = Path((await log.archives.known())[0].file)
            await asyncio.to_thread(file.unlink)
            await asyncio.to_thread(file.mkdir)  # as if it could not be deleted
            with pytest.raises(EventLogError, match="cannot be deleted"):
                await discard(log, 10)
            assert (await verify(log)).ok
            await asyncio.to_thread(file.rmdir)
            await asyncio.to_thread(file.write_text, "again")
            assert await discard(log, 10) == []
            assert not await asyncio.to_thread(file.exists)


@pytest.mark.parametrize("backwards", [False, True])
def test_each_archive_is_read_once_whichever_way_and_however_small_the_pages(tmp_path, monkeypatch, backwards):
    read_file, reads = module.read_file, []

    def counted(file):
        reads.append(file)
        return read_file(file)

    @run
    async def _():
        async with EventLog(":memory:") as log:
            await numbered(log, tmp_path, count=60)
            monkeypatch.setattr(module, "read_file", counted)
            monkeypatch.setattr(module, "_KEPT", 1)
            found = [each.position async for each in log.read(backwards=backwards, batch=3)]
            assert sorted(found) == list(range(1, 61))
            assert found == sorted(found, reverse=backwards)
            assert len(reads) == 5


def test_an_archive_is_on_the_disk_before_its_events_leave_the_database(tmp_path, monkeypatch):
    """So is its name, and are the folders that were made for it; also when one who was killed has written it."""
    done = []
    fsync, remove = module._sync, module._remove

    def sync(path):
        fsync(path)
        done.append(path.name)

    async def removed(*arguments):
        done.append("removed")
        await remove(*arguments)

    monkeypatch.setattr(module, "_sync", sync)
    monkeypatch.setattr(module, "_remove", removed)

    @run
    async def _():
        async with EventLog(":memory:") as log:
            await numbered(log, tmp_path, count=8)
            folder = tmp_path / "one" / "two"
            (made,) = await archive(log, folder, 4)
            assert done == [tmp_path.name, "one", "two", "removed"]
            done.clear()
            again = folder / "events-000000000005-000000000006.jsonl.gz"
            rows = await log.store.read(Query(5, 6), None, 10)
            await asyncio.to_thread(module._write, again, rows)
            done.clear()
            await archive(log, folder, 6)
            assert done == [again.name, "two", "removed"]
            assert Path(made.file).parent == again.parent
