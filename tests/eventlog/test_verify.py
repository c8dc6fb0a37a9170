"""Damage of every kind is found, and named by its position."""

import asyncio
import itertools
import os
import random
import shutil
import sqlite3

import pytest

from headgate import DamagedLogError, StoreError
from headgate.eventlog import Event, EventLog, Projection, archive, verify
from headgate.eventlog.store import Query
from tests.eventlog.conftest import run


async def fill(log, count=50):
    for number in range(count):
        await log.append(f"s{number % 3}", [Event("counted", {"n": number, "text": "x" * 20})], actor="ada")


def hand(path, *statements, triggers=True):
    """Change a file as somebody would who knows SQL and not us."""
    db = sqlite3.connect(path)
    for trigger in ("update", "delete") if triggers else ():
        db.execute(f"DROP TRIGGER headgate_events_no_{trigger}")
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def test_a_sound_log_verifies(place):
    @run
    async def _():
        async with place.log() as log:
            assert (await verify(log)).ok
            await fill(log)
            found = await verify(log)
            assert (found.ok, found.events, found.position) == (True, 50, 50)
            await log.append("a", [Event("x", {})])
            assert (await verify(log, anchor=(found.position, found.digest))).ok


def test_a_log_in_use_is_sound_and_the_look_at_it_ends(place):
    """Checkpoints follow what came after its last page, and there is always more."""

    @run
    async def _():
        async with place.log() as log:
            await fill(log)
            rows = log.rows

            async def busy(*args):
                found = await rows(*args)
                done = await log.append("a", [Event("x", {})])
                await log.save_checkpoint("c", done.last)
                return found

            log.rows = busy
            for more in range(3):
                found = await verify(log)
                assert (found.damages, found.position) == ([], 50 + more)


def test_a_checkpoint_that_is_ahead_is_told_once_all_was_seen(tmp_path):
    path = str(tmp_path / "log.db")

    @run
    async def _():
        async with EventLog(path) as log:
            await log.append("a", [Event("x", {}) for _ in range(2500)])
            await log.save_checkpoint("c", 2500)
        hand(path, "DELETE FROM headgate_events WHERE position > 2400")
        async with EventLog(path) as log:
            (damage,) = (await verify(log)).damages
            assert str(damage) == "position 2401: checkpoint 'c' is at position 2500: events at the end are missing"
        hand(path, "UPDATE headgate_events SET digest = NULL", triggers=False)
        async with EventLog(path) as log:
            found = await verify(log, anchor=(2300, b"x" * 16))
            assert len(found.damages) == found.events + 1 == 2001
            assert found.damages[-1].what.startswith("there is more")


@pytest.mark.parametrize(
    ("statement", "position"),
    [
        ("UPDATE headgate_events SET data = replace(data, '7', '8') WHERE position = 8", 8),
        ("UPDATE headgate_events SET actor = 'eve' WHERE position = 1", 1),
        ("UPDATE headgate_events SET actor = NULL WHERE position = 50", 50),
        ("UPDATE headgate_events SET recorded_at = recorded_at + 1 WHERE position = 20", 20),
        ("UPDATE headgate_events SET stream = 's9' WHERE position = 20", 20),
        ("UPDATE headgate_events SET digest = x'00' WHERE position = 20", 20),
        ("UPDATE headgate_events SET digest = NULL WHERE position = 20", 20),
        ("UPDATE headgate_events SET event_id = 5 WHERE position = 20", 20),
        ("UPDATE headgate_events SET data = x'00' WHERE position = 20", 20),
        ("DELETE FROM headgate_events WHERE position = 20", 21),
        ("DELETE FROM headgate_events WHERE position = 1", 2),
        ("DELETE FROM headgate_events WHERE position > 45", 46),
    ],
)
def test_what_somebody_has_changed_is_named(tmp_path, statement, position):
    path = str(tmp_path / "log.db")

    @run
    async def _():
        async with EventLog(path) as log:
            await fill(log)
            await log.projector(Projection("p", lambda state, event: state)).catch_up()
            anchor = await verify(log)
        hand(path, statement)
        async with EventLog(path) as log:
            found = await verify(log)
            assert found.damages[0].position == position, found
            assert str(position) in str(found.damages[0])
            assert not (await verify(log, anchor=(anchor.position, anchor.digest))).ok


def test_a_log_that_was_written_anew_from_some_event_on_is_found_by_an_anchor(tmp_path):
    @run
    async def _():
        async with EventLog(str(tmp_path / "one.db")) as one, EventLog(str(tmp_path / "two.db")) as two:
            await fill(one)
            await fill(two)
            anchor = await verify(one)
            assert (await verify(two)).ok
            found = await verify(two, anchor=(anchor.position, anchor.digest))
            assert [each.position for each in found.damages] == [50]


@pytest.mark.slow
def test_every_flipped_bit_is_found_or_harmless(tmp_path):
    """Of a file, bits are flipped one by one, at places that a seed draws: wrong data is never taken for right."""
    path, copy = tmp_path / "log.db", tmp_path / "copy.db"
    chance = random.Random(5)

    async def look():
        """The rows, or None when damage was found."""
        try:
            async with EventLog(str(copy)) as log:
                if not (await verify(log)).ok:
                    return None
                return [each.row for each in await log.read().all()]
        except (DamagedLogError, StoreError):
            return None

    async def make():
        async with EventLog(str(path)) as log:
            await fill(log, 30)
            return [each.row for each in await log.read().all()]

    original = run(make)
    sound = path.read_bytes()
    counts = {"found": 0, "harmless": 0}
    for _ in range(400):
        bit = chance.randrange(8 * len(sound))
        broken = bytearray(sound)
        broken[bit // 8] ^= 1 << bit % 8
        for each in tmp_path.glob("copy.db*"):
            each.unlink()
        copy.write_bytes(broken)
        rows = run(look)
        assert rows is None or rows == original, f"bit {bit}"
        counts["found" if rows is None else "harmless"] += 1
    assert counts["found"] > 15, counts


@pytest.mark.slow
def test_every_flipped_bit_of_an_event_is_found_and_its_position_named(tmp_path):
    path, copy = tmp_path / "log.db", tmp_path / "copy.db"

    async def make():
        async with EventLog(str(path)) as log:
            await log.append("stream-a", [Event("counted", {"n": number}) for number in range(5)], actor="ada")

    async def look():
        async with EventLog(str(copy)) as log:
            return await verify(log)

    run(make)
    sound = path.read_bytes()
    at = sound.index(b'{"n":2}')
    assert sound.count(b'{"n":2}') == 1
    for bit in range(8 * 7):
        broken = bytearray(sound)
        broken[at + bit // 8] ^= 1 << bit % 8
        for each in tmp_path.glob("copy.db*"):
            each.unlink()
        copy.write_bytes(broken)
        found = run(look)
        assert [each.position for each in found.damages][:1] == [3], bit


def test_what_was_inserted_by_hand_is_named_on_postgres(shared):
    @run
    async def _():
        async with shared.log() as log:
            await fill(log, 5)
            table = "headgate_events" if shared.kind == "file" else "headgate.events"
            blob = "x'01'" if shared.kind == "file" else r"'\x01'"
            columns = "stream, version, type, schema_version, event_id, recorded_at, data"
            values = f"'s0', 9, 'typed', 1, {blob}, 99, '{{}}'"
            sql = f"INSERT INTO {table} ({columns}) VALUES ({values})"
            await log.store.run(lambda db: db.execute(sql))
            await fill(log, 5)
            found = await verify(log)
            assert [(each.position, "no digest" in each.what) for each in found.damages] == [(6, True)]
            assert (await log.event(6)).type == "typed"


# -- archives ----------------------------------------------------------------------------------------------------------


def test_what_is_archived_is_read_as_before(place, tmp_path):
    @run
    async def _():
        async with place.log() as log:
            await fill(log)
            everything = await log.read().all()
            (one,) = await archive(log, tmp_path / "old", 20)
            (two,) = await archive(log, tmp_path / "old", 35)
            assert [(each.first, each.last) for each in (one, two)] == [(1, 20), (21, 35)]
            assert len(await log.store.read(Query(), None, 100)) == 15
            for batch in (1, 7, 1000):
                assert await log.read(batch=batch).all() == everything
                assert await log.read(batch=batch, backwards=True).all() == everything[::-1]
                part = [each for each in everything if each.stream == "s1" and 10 <= each.position <= 40]
                assert await log.read("s1", start=10, until=40, batch=batch).all() == part
                assert await log.read("s1", start=10, until=40, batch=batch, backwards=True).all() == part[::-1]
            assert await log.event(5) == everything[4]
            found = await verify(log)
            assert (found.ok, found.events) == (True, 50)
            assert (await log.append("s0", [Event("x", {})], expected_version=17)).version == 18
            (last,) = await archive(log, tmp_path / "old", 1000)
            assert last.last == 50, "the last event stays"
            assert await log.version("s1") == 17
            assert (await log.append("s1", [Event("x", {})], expected_version=17)).first == 52
            assert (await verify(log)).events == 52


def test_a_stream_is_looked_for_only_in_the_archives_that_have_it(place, tmp_path):
    """The files of all others may even be gone."""

    @run
    async def _():
        async with place.log() as log:
            for number in range(30):
                await log.append(f"s{number // 10}-{number % 2}", [Event("x", {"n": number})])
            first, second = [(await archive(log, tmp_path / "old", until))[0] for until in (10, 20)]
            assert [each.position for each in await log.read("s1-*").all()] == list(range(11, 21))
            await asyncio.to_thread(os.unlink, first.file)
            assert await log.read("s2-0").all() != []
            assert await log.read("new").all() == []
            assert await log.version("new") == 0
            assert [each.position for each in await log.read("s1-0", backwards=True).all()] == [19, 17, 15, 13, 11]
            assert [each.position for each in await log.read(["s1-1", "s2-1"], limit=7).all()] == [
                *range(12, 21, 2),
                22,
                24,
            ]
            await asyncio.to_thread(os.unlink, second.file)
            log.archives.forget()
            with pytest.raises(DamagedLogError):
                await log.read("s1-*").all()


def test_streams_are_listed_with_what_is_archived_of_them(place, tmp_path):
    @run
    async def _():
        clock = itertools.count(1000)
        async with place.log(clock=lambda: next(clock)) as log:
            for number in range(30):
                await log.append(f"s{number // 10 if number < 29 else 0}", [Event("x", {})])
            before = await log.streams()
            assert [(each.name, each.version, each.events, each.first, each.last) for each in before] == [
                ("s0", 11, 11, 1, 30),
                ("s1", 10, 10, 11, 20),
                ("s2", 9, 9, 21, 29),
            ]
            await archive(log, tmp_path / "old", 15)
            await archive(log, tmp_path / "old", 25)
            assert await log.streams() == before
            assert await log.streams("s1") == before[1:2]
            assert await log.streams(limit=2) == before[:2]


def test_a_damaged_archive_is_found(tmp_path):
    @run
    async def _():
        async with EventLog(str(tmp_path / "log.db")) as log:
            await fill(log)
            (one,) = await archive(log, tmp_path, 20)
            sound = (tmp_path / one.file).read_bytes()
            for at in range(0, len(sound), 97):
                broken = bytearray(sound)
                broken[at] ^= 1
                (tmp_path / one.file).write_bytes(broken)
                log.archives.forget()
                try:
                    rows = [each.row[0] for each in await log.read().all()]
                except DamagedLogError:
                    continue
                assert rows == list(range(1, 51)), "gzip's head has bytes that mean nothing"
            (tmp_path / one.file).unlink()
            log.archives.forget()
            with pytest.raises(DamagedLogError):
                await log.read().all()


def test_an_archive_that_cannot_be_written_removes_nothing(tmp_path):
    @run
    async def _():
        async with EventLog(str(tmp_path / "log.db")) as log:
            await fill(log)
            (tmp_path / "file").write_text("")
            with pytest.raises(StoreError, match="cannot be written"):
                await archive(log, tmp_path / "file" / "folder", 20)
            assert len(await log.store.read(Query(), None, 100)) == 50


def test_a_copy_of_the_file_is_a_log(tmp_path):
    @run
    async def _():
        async with EventLog(str(tmp_path / "log.db")) as log:
            await fill(log)
        shutil.copy(tmp_path / "log.db", tmp_path / "copy.db")
        async with EventLog(str(tmp_path / "copy.db")) as log:
            assert (await verify(log)).events == 50
